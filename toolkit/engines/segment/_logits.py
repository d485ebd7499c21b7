"""Masks from a network's coarse logits: enlarged only where the object is, and never float as a whole."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box

Floats = npt.NDArray[np.float32]

STRIP = 1 << 22  # pixels of a mask that are float at a time


def enlarged(logits: Floats, size: tuple[int, int]) -> tuple[Box, npt.NDArray[np.bool_]]:
    """Where logits (h, w) are above 0 at full size = (width, height), looked at only around what is above 0.

    Bilinear between the centres of cells, as `torch.nn.functional.interpolate` without aligned corners, which is how
    transformers enlarges these masks.

    Returns:
        A box of the full size, and (h, w) bool in it; all beyond it is False.
    """
    rows, columns = (np.flatnonzero((logits > 0).any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return Box(0, 0, 0, 0), np.zeros((0, 0), bool)
    (top, bottom), (left, right) = (
        _reach(int(found[0]), int(found[-1]), cells, pixels)
        for found, cells, pixels in ((rows, logits.shape[0], size[1]), (columns, logits.shape[1], size[0]))
    )
    first, second, share = _neighbours(left, right, logits.shape[1], size[0])
    across = logits[:, first] * (1 - share) + logits[:, second] * share
    values = np.empty((bottom - top, right - left), bool)
    step = max(1, STRIP // (right - left))
    for start in range(top, bottom, step):
        end = min(bottom, start + step)
        upper, lower, part = _neighbours(start, end, logits.shape[0], size[1])
        strip = across[upper] * (1 - part)[:, None] + across[lower] * part[:, None]
        np.greater(strip, 0, out=values[start - top : end - top])
    return Box(left, top, right, bottom), values


def _reach(first: int, last: int, cells: int, pixels: int) -> tuple[int, int]:
    """The pixels that cells `first` to `last` have a share in: up to the neighbouring cells' centres, and one more."""
    scale = pixels / cells
    return max(0, int((first - 0.5) * scale) - 1), min(pixels, int((last + 1.5) * scale) + 2)


def _neighbours(
    start: int, end: int, cells: int, pixels: int
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]:
    """For each pixel: the cell before it, the one behind it, and the latter's share."""
    scale = np.float32(cells / pixels)
    place = np.maximum((np.arange(start, end, dtype=np.float32) + np.float32(0.5)) * scale - np.float32(0.5), 0)
    first = np.minimum(place.astype(np.int64), cells - 1)
    return first, np.minimum(first + 1, cells - 1), (place - first).astype(np.float32)
