"""Looking at a part of a photo on a reduced copy, and taking what was found there back to the photo's pixels.

Read and written in strips: nothing as large as a large part is ever held as float.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.edit import Edit
from toolkit.geometry import Box
from toolkit.mask import Mask

Bytes = npt.NDArray[np.uint8]

_STRIP = 4_000_000
"""Pixels of the photo read at once."""


def step_for(box: Box, side: int) -> int:
    """How many pixels of the photo become one, so that no side of the copy is longer than `side`."""
    return max(1, math.ceil(max(box.size) / side))


def reduced_pixels(edit: Edit, box: Box, step: int) -> Bytes:
    """The mean colours of squares of `step` pixels from the box's left top corner on, (h, w, 3) uint8 sRGB."""
    return reduced(edit.srgb, box, step)


def reduced_mask(mask: Mask, box: Box, step: int) -> Bytes:
    """The mean values of squares of `step` pixels from the box's left top corner on, (h, w) uint8."""
    return reduced(mask.array, box, step)


def reduced_hidden(edit: Edit, box: Box, step: int) -> Bytes | None:
    """The share (0-255) of wholly transparent pixels in each square, (h, w) uint8; None without transparency."""
    if edit.hidden(Box(box.left, box.top, box.left + 1, box.top + 1)) is None:
        return None

    def read(part: Box) -> Bytes:
        hidden = edit.hidden(part)
        assert hidden is not None
        return hidden.astype(np.uint8) * np.uint8(255)

    return reduced(read, box, step)


def enlarged(values: Bytes, step: int, origin: tuple[int, int], frame: Box) -> Mask:
    """A mask of the photo whose squares of `step` pixels have `values` (h, w) in their middle, smooth between.

    Args:
        values: uint8, of a reduced copy.
        step: pixels of the photo for one of the copy.
        origin: x, y of the copy's left top corner in the photo's plane.
        frame: the mask's frame; what lies beyond it is cut off.
    """
    height, width = values.shape
    columns = np.flatnonzero(values.any(axis=0))
    if not len(columns):
        return Mask.empty(frame)
    left, right = max(0, int(columns[0]) - 1), min(width, int(columns[-1]) + 2)
    rows = max(1, _STRIP // ((right - left) * step * step))
    tiles: list[tuple[Box, Bytes]] = []
    for top in range(0, height, rows):
        bottom = min(height, top + rows)
        first, last = max(0, top - 1), min(height, bottom + 1)
        part = values[first:last, left:right]
        if not part.any():
            continue
        size = ((right - left) * step, (last - first) * step)
        large = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_LINEAR), np.uint8)
        large = large[(top - first) * step : (bottom - first) * step]
        box = Box(left * step, top * step, right * step, bottom * step).shift(*origin)
        inside = box.intersect(frame)
        if not inside.is_empty:
            tiles.append((inside, np.ascontiguousarray(large[inside.within(box).slices])))
    return Mask(frame, tuple(tiles))


def reduced(read: Callable[[Box], npt.NDArray[Any]], box: Box, step: int) -> Bytes:
    """The means of squares of `step` pixels of what `read` gives for parts of `box`: (h, w) or (h, w, C) uint8."""
    if step == 1:
        return np.ascontiguousarray(read(box))
    rows = max(1, _STRIP // (box.width * step)) * step
    parts = []
    for top in range(box.top, box.bottom, rows):
        strip = np.ascontiguousarray(read(Box(box.left, top, box.right, min(box.bottom, top + rows))))
        height, width = strip.shape[:2]
        size = (-(-width // step), -(-height // step))
        # The last square is often not whole: the pixels at the border count for those it lacks.
        whole = cv2.copyMakeBorder(
            strip, 0, size[1] * step - height, 0, size[0] * step - width, cv2.BORDER_REPLICATE
        )  # fmt: skip
        parts.append(cv2.resize(whole, size, interpolation=cv2.INTER_AREA))
    return np.asarray(np.concatenate(parts), np.uint8)
