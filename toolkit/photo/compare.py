"""Comparing two photos in strips: which pixels differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import ParameterError
from toolkit.geometry import Box
from toolkit.photo.photo import Photo


def differences(
    photo: Photo, other: Photo, rows_per_strip: int = 256, at: tuple[int, int] | None = None
) -> Iterator[tuple[Box, npt.NDArray[np.bool_]]]:
    """Go through two photos of one size from top to bottom and say where they differ.

    Colours are compared, not samples: a palette photo equals its RGB copy, grey equals RGB grey, and a photo
    without alpha equals an opaque one. 16 bits against 8 are compared in 16 (8-bit values times 257).

    Args:
        rows_per_strip: how many rows are compared at once.
        at: where in `photo` the left top pixel of `other` lies; then the sizes may differ, and what the two share is
            compared.

    Yields:
        An upright box of `photo` over the full shared width and a bool array (h, w), True where colour or alpha differ.

    Raises:
        ParameterError: when the sizes differ.
    """
    if at is None and photo.size != other.size:
        raise ParameterError(f"{other.name}: is {other.size}, but {photo.name} is {photo.size}")
    if rows_per_strip < 1:
        raise ParameterError(f"rows_per_strip must be at least 1, got {rows_per_strip}")
    alpha = photo.has_alpha or other.has_alpha
    channels = max(photo.channels, other.channels)
    depth = max(photo.depth, other.depth)
    x, y = at or (0, 0)
    shared = photo.box.intersect(other.box.shift(x, y))
    if shared.is_empty:
        return
    for top in range(shared.top, shared.bottom, rows_per_strip):
        box = Box(shared.left, top, shared.right, min(top + rows_per_strip, shared.bottom))
        one = _widened(photo, photo.crop(box), channels, alpha, depth)
        two = _widened(other, other.crop(box.shift(-x, -y)), channels, alpha, depth)
        yield box, (one != two).any(axis=2)


def _widened(photo: Photo, pixels: npt.NDArray[Any], channels: int, alpha: bool, depth: int) -> npt.NDArray[Any]:
    if photo.depth < depth:
        pixels = pixels.astype(np.uint16) * np.uint16(257)
    if photo.channels < channels:
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)
    if alpha and not photo.has_alpha:
        opaque = np.full((*pixels.shape[:2], 1), (1 << depth) - 1, pixels.dtype)
        pixels = np.concatenate([pixels, opaque], axis=2)
    return pixels
