"""Lay a source over the photo by weight, to the nearest level."""

from __future__ import annotations

import cv2
import numpy as np

from toolkit.blend.arrays import Array, bounds, described
from toolkit.errors import InputError, MaskError


def composite(original: Array, source: Array, weight: Array) -> Array:
    """Lay `source` over `original`: original * (1 - weight) + source * weight, rounded to the nearest level.

    Args:
        original: (h, w, C) uint8 or uint16, any C.
        source: same shape; the dtype of `original`, or float32 on its scale (0..255 or 0..65535).
        weight: (h, w) uint8; 0 = original, bit-identical, 255 = source, exactly (a float source is rounded).

    Returns:
        A new array of the shape and dtype of `original`.

    Raises:
        InputError: when the arrays differ in shape or have a wrong dtype.
        MaskError: when `weight` has another size or a wrong dtype.
    """
    if original.ndim != 3 or original.dtype not in (np.uint8, np.uint16):
        raise InputError(f"original: expected (h, w, C) uint8 or uint16, got {described(original)}")
    if source.shape != original.shape or source.dtype not in (original.dtype, np.float32):
        raise InputError(
            f"source: expected {original.shape} {original.dtype} or float32 as the original, got {described(source)}"
        )
    if weight.shape != original.shape[:2] or weight.dtype != np.uint8:
        raise MaskError(f"weight: expected {original.shape[:2]} uint8, got {described(weight)}")
    result = original.copy()
    box = bounds(weight)
    if box.is_empty:
        return result
    under, over = original[box.slices], source[box.slices]
    # Written out for each channel: numpy is slow where it repeats the last axis.
    share = np.asarray(cv2.merge([weight[box.slices]] * under.shape[2]), np.uint8).reshape(under.shape)
    if over.dtype == np.float32:
        top = 255 if original.dtype == np.uint8 else 65535
        mixed: Array = np.clip(over, 0, top).astype(np.float64 if top > 255 else np.float32)
        mixed -= under
        mixed *= share
        mixed /= 255
        mixed += under
        np.rint(mixed, out=mixed)
    else:
        # 255 is odd, so a weighted sum is never halfway between two levels: adding 127 rounds to nearest.
        wide = np.dtype(np.uint16 if original.dtype == np.uint8 else np.uint32)  # 255 * 255 + 127 fits 16 bits
        mixed = under.astype(wide)
        mixed *= 255 - share
        mixed += over.astype(wide) * share
        mixed += 127
        mixed //= 255
    result[box.slices] = mixed.astype(original.dtype)
    return result
