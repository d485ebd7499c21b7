"""What the parts of blend share: array types, checks at the door, and the box of a mask."""

from __future__ import annotations

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
