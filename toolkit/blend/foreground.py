"""The subject's own colours where its edge is mixed with the ground behind it.

Source: Germer, Uelwer, Conrad, Harmeling: Fast Multi-Level Foreground Estimation, 2020.
"""

from __future__ import annotations

import cv2
import numpy as np

from toolkit.blend.arrays import Array, Bytes, Floats, blocks, described, enlarged, reduced
from toolkit.errors import InputError, MaskError

_SCALE = 4  # of the copy whose colours are estimated last; at full size one step from there is enough
_STEPS = 10, 3  # on copies of at most _SMALL pixels a side, and on larger ones
_SMALL = 32
_COARSEST = 4  # longest side of the first copy; on smaller ones nothing changes
_EVEN = 1e-5  # how far colours want to be like their neighbours' where alpha does not change
_BLOCK = 128  # side of the parts that are worked at full size


def foreground(pixels: Array, alpha: Bytes) -> Array:
    """Foreground colours F with pixels = alpha F + (1 - alpha) B, both F and B as even as alpha allows.

    On copies from a few pixels up to a quarter of the size F and B are drawn to their neighbours', more so where alpha
    changes; at full size they take the smallest step that explains the pixel.

    Args:
        pixels: (h, w, 1) or (h, w, 3) uint8 or uint16.
        alpha: (h, w) uint8, the subject's share of each pixel.

    Returns:
        Same shape and dtype: the pixels themselves where alpha is 255 and far from anything between 0 and 255; where
        it is 0 beside the edge, the subject's colours continued.

    Raises:
        InputError: pixels of another form.
        MaskError: alpha of another form or size.
    """
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype not in (np.uint8, np.uint16):
        raise InputError(f"pixels: expected (h, w, 1) or (h, w, 3) uint8 or uint16, got {described(pixels)}")
    if alpha.shape != pixels.shape[:2] or alpha.dtype != np.uint8:
        raise MaskError(f"alpha: expected {pixels.shape[:2]} uint8, got {described(alpha)}")
    top = 255 if pixels.dtype == np.uint8 else 65535
    result = pixels.copy()
    mixed = (alpha > 0) & (alpha < 255)
    if not mixed.any():
        return result
    scale = _SCALE if min(alpha.shape) >= 4 * _SCALE else 1
    copies = [(_unit(reduced(pixels, scale), top), _unit(reduced(alpha, scale), 255))]
    while max(copies[-1][1].shape) > _COARSEST:
        copies.append((_half(copies[-1][0]), _half(copies[-1][1])))
    smallest = np.moveaxis(copies[-1][0], 2, 0)
    both = np.broadcast_to(smallest.mean(axis=(1, 2), keepdims=True), (2, *smallest.shape))
    for colour, share in reversed(copies):
        both = _estimated(colour, share[..., 0], _doubled(both, *share.shape[:2]))
    front, back = (np.ascontiguousarray(np.moveaxis(one, 0, 2)) for one in both)
    for block in blocks(mixed, _BLOCK):
        own, shares = pixels[block.slices], alpha[block.slices]
        part = shares.astype(np.float32) / np.float32(255)
        rest = 1 - part
        weights = part, rest, part / (part * part + rest * rest)
        share, other, step = (cv2.merge([one] * own.shape[2]).reshape(own.shape) for one in weights)
        near, ground = (enlarged(one, scale, block).reshape(own.shape) for one in (front, back))
        missing = _unit(own, top) - share * near - other * ground
        found = np.rint(np.clip(near + step * missing, 0, 1) * top).astype(own.dtype)
        result[block.slices] = cv2.copyTo(own, cv2.inRange(shares, 255, 255), found).reshape(own.shape)
    return result


def _unit(array: Array, top: int) -> Floats:
    """`array` as (h, w, C) float32 0..1."""
    return np.atleast_3d(array).astype(np.float32) / np.float32(top)


def _half(array: Floats) -> Floats:
    height, width = (array.shape[0] + 1) // 2, (array.shape[1] + 1) // 2
    return cv2.resize(array, (width, height), interpolation=cv2.INTER_AREA).reshape(height, width, array.shape[2])


def _doubled(planes: Floats, height: int, width: int) -> Floats:
    """Each value of (..., h, w) four times; what is more than `height` and `width` is cut off."""
    return planes.repeat(2, axis=-2)[..., :height, :].repeat(2, axis=-1)[..., :width]


def _framed(planes: Floats) -> Floats:
    """A copy (..., h + 2, w + 2) with a border for `_fill_border`."""
    wide = np.empty((*planes.shape[:-2], planes.shape[-2] + 2, planes.shape[-1] + 2), planes.dtype)
    wide[..., 1:-1, 1:-1] = planes
    return wide


def _fill_border(wide: Floats) -> None:
    """Let the border repeat what lies beside it, in place."""
    wide[..., 0, :], wide[..., -1, :] = wide[..., 1, :], wide[..., -2, :]
    wide[..., 0], wide[..., -1] = wide[..., 1], wide[..., -2]


def _around(wide: Floats) -> tuple[Floats, ...]:
    """The values of the neighbours above, below, to the left and to the right, within the border."""
    return wide[..., :-2, 1:-1], wide[..., 2:, 1:-1], wide[..., 1:-1, :-2], wide[..., 1:-1, 2:]


def _estimated(colour: Floats, part: Floats, start: Floats) -> Floats:
    """F and B, (2, C, h, w), by a few steps of Jacobi's method for each pixel's system; `part` (h, w) is alpha."""
    # Plane by plane, for numpy is slow where it repeats the last axis; in place, for new memory costs as much.
    rest, shares, planes = 1 - part, _framed(part), np.moveaxis(colour, 2, 0)
    _fill_border(shares)
    weights = [_EVEN + np.abs(near - part) for near in _around(shares)]
    total = weights[0] + weights[1] + weights[2] + weights[3]
    #  | part^2 + total   part rest      | |front|   |part colour + weighted neighbours|
    #  | part rest        rest^2 + total | |back | = |rest colour + weighted neighbours|
    one, cross, other = part * part + total, part * rest, rest * rest + total
    scale = one * other - cross * cross
    own, cross = np.stack([other / scale, one / scale])[:, None], cross / scale
    wide = _framed(start)
    found, neighbours = wide[..., 1:-1, 1:-1], _around(wide)
    terms = np.empty((5, *found.shape), found.dtype)
    np.multiply(np.stack([part, rest])[:, None], planes, out=terms[4])
    right, product = np.empty_like(terms[0]), np.empty_like(terms[0])
    for _ in range(_STEPS[0] if max(part.shape) <= _SMALL else _STEPS[1]):
        _fill_border(wide)
        for weight, near, term in zip(weights, neighbours, terms, strict=False):
            np.multiply(weight, near, out=term)
        np.add.reduce(terms, axis=0, out=right)
        np.multiply(own, right, out=found)
        np.multiply(cross, right[::-1], out=product)
        np.subtract(found, product, out=found)
        np.maximum(found, 0, out=found)
        np.minimum(found, 1, out=found)
    return found
