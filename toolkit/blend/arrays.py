"""What the parts of blend share: array types, checks at the door, and the box of a mask."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import InputError, MaskError
from toolkit.geometry import Box

Array = NDArray[Any]  # any dtype
Floats = NDArray[Any]  # float32: OpenCV's stubs name no dtype
Bytes = NDArray[np.uint8]


def described(array: Array) -> str:
    return f"{array.shape} {array.dtype}"


def checked_picture(name: str, array: Array) -> Array:
    if array.ndim != 3 or array.shape[2] not in (1, 3) or array.dtype not in (np.uint8, np.float32):
        raise InputError(f"{name}: expected (h, w, 1) or (h, w, 3) uint8 or float32, got {described(array)}")
    return array


def checked_masks(fill: Array, original: Array, hole: Array, known: Array | None) -> tuple[Bytes, Bytes | None]:
    if fill.shape != original.shape:
        raise InputError(f"fill and original: shapes must be equal, got {fill.shape} and {original.shape}")
    if hole.shape != fill.shape[:2] or hole.dtype != np.uint8:
        raise MaskError(f"hole: expected {fill.shape[:2]} uint8, got {described(hole)}")
    if known is None:
        return hole.astype(np.uint8, copy=False), None
    if known.shape != fill.shape[:2] or known.dtype != np.bool_:
        raise MaskError(f"known: expected {fill.shape[:2]} bool, got {described(known)}")
    return hole.astype(np.uint8, copy=False), known.view(np.uint8)


def bounds(mask: Array) -> Box:
    left, top, width, height = cv2.boundingRect(np.ascontiguousarray(mask, np.uint8))
    return Box(left, top, left + width, top + height)


def reduced(array: Array, scale: int) -> Array:
    """Means of `scale` x `scale` pixels, same dtype; the last row and column are repeated where they do not fit."""
    below, right = -array.shape[0] % scale, -array.shape[1] % scale
    if below or right:
        array = cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_REPLICATE)
    size = (array.shape[1] // scale, array.shape[0] // scale)
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA)) if scale > 1 else array


def enlarged(array: Array, scale: int, part: Box, how: int = cv2.INTER_LINEAR) -> Array:
    """The pixels in `part` of what `reduced` gave, `scale` times as large again; only what they need is enlarged."""
    whole = Box.of_size((array.shape[1], array.shape[0]))
    source = Box(part.left // scale, part.top // scale, -(-part.right // scale), -(-part.bottom // scale))
    around = source.grow(2).intersect(whole)
    size = (around.width * scale, around.height * scale)
    large = np.asarray(cv2.resize(array[around.slices], size, interpolation=how))
    return large[part.shift(-around.left * scale, -around.top * scale).slices]


def blocks(wanted: Array, side: int) -> Iterator[Box]:
    """Boxes of at most `side` pixels a side, on a fixed grid, that hold every pixel of `wanted` (h, w) but 0."""
    frame = Box.of_size((wanted.shape[1], wanted.shape[0]))
    for top in range(0, frame.height, side):
        for left in range(0, frame.width, side):
            block = Box(left, top, left + side, top + side).intersect(frame)
            if wanted[block.slices].any():
                yield block
