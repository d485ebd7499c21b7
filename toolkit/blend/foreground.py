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
_EVEN = 1e-5  # how far colours want to be like their neighbours' where alpha does not change
_BLOCK = 64  # side of the parts that are worked at full size


def foreground(pixels: Array, alpha: Bytes) -> Array:
    """Foreground colours F with pixels = alpha F + (1 - alpha) B, both F and B as even as alpha allows.

    On copies from one pixel up to a quarter of the size F and B are drawn to their neighbours', more so where alpha
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
    while max(copies[-1][1].shape) > 1:
        copies.append((_half(copies[-1][0]), _half(copies[-1][1])))
    front, back = copies[-1][0], copies[-1][0]
    for colour, share in reversed(copies):
        front, back = (_resized(one, share.shape, cv2.INTER_NEAREST) for one in (front, back))
        front, back = _estimated(colour, share, front, back)
    for block in blocks(mixed, _BLOCK):
        shares = np.repeat(alpha[block.slices][..., None], pixels.shape[2], axis=2)
        colour, share = _unit(pixels[block.slices], top), _unit(shares, 255)
        near, ground = (enlarged(one, scale, block).reshape(colour.shape) for one in (front, back))
        missing = colour - share * near - (1 - share) * ground
        near = near + share / (share * share + np.square(1 - share)) * missing
        found = np.rint(np.clip(near, 0, 1) * top).astype(pixels.dtype)
        result[block.slices] = np.where(shares == 255, pixels[block.slices], found)
    return result


def _unit(array: Array, top: int) -> Floats:
    """`array` as (h, w, C) float32 0..1."""
    return np.atleast_3d(array).astype(np.float32) / np.float32(top)


def _resized(array: Floats, shape: tuple[int, ...], how: int) -> Floats:
    return cv2.resize(array, (shape[1], shape[0]), interpolation=how).reshape(*shape[:2], array.shape[2])


def _half(array: Floats) -> Floats:
    shape = (array.shape[0] + 1) // 2, (array.shape[1] + 1) // 2
    return _resized(array, shape, cv2.INTER_AREA)


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


def _estimated(colour: Floats, share: Floats, front: Floats, back: Floats) -> tuple[Floats, Floats]:
    """A few steps of Jacobi's method for the 2x2 system of each pixel."""
    # Channel by channel, for numpy is slow where it repeats the last axis; in place, for new memory costs as much.
    picture, start = (np.stack([np.moveaxis(one, 2, 0) for one in pair]) for pair in ((colour, colour), (front, back)))
    part = share[..., 0]
    rest, shares, wide = 1 - part, _framed(part), _framed(start)
    _fill_border(shares)
    weights = [_EVEN + np.abs(near - part) for near in _around(shares)]
    total = weights[0] + weights[1] + weights[2] + weights[3]
    #  | part^2 + total   part rest      | |front|   |part colour + weighted neighbours|
    #  | part rest        rest^2 + total | |back | = |rest colour + weighted neighbours|
    one, cross, other = part * part + total, part * rest, rest * rest + total
    scale = one * other - cross * cross
    one, cross, other = one / scale, cross / scale, other / scale
    picture *= np.stack([part, rest])[:, None]
    found, neighbours = wide[..., 1:-1, 1:-1], _around(wide)
    right, product = np.empty_like(picture), np.empty_like(picture)
    for _ in range(_STEPS[0] if max(part.shape) <= _SMALL else _STEPS[1]):
        _fill_border(wide)
        np.copyto(right, picture)
        for weight, near in zip(weights, neighbours, strict=True):
            right += np.multiply(weight, near, out=product)
        for place, own in enumerate((other, one)):
            np.multiply(own, right[place], out=found[place])
            found[place] -= np.multiply(cross, right[1 - place], out=product[0])
        np.maximum(found, 0, out=found)
        np.minimum(found, 1, out=found)
    return np.ascontiguousarray(np.moveaxis(found[0], 0, 2)), np.ascontiguousarray(np.moveaxis(found[1], 0, 2))
