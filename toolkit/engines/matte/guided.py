"""Alpha by guided filtering: near the outline alpha is, window by window, a linear function of colour.

Sources: He, Sun, Tang: Guided Image Filtering, 2013, and Fast Matting Using Large Kernel Matting Laplacian Matrices,
2010 (each step of the solver is a guided filter); Levin, Lischinski, Weiss: A Closed-Form Solution to Natural Image
Matting, 2008 (what is solved); He, Sun: Fast Guided Filter, 2015 (coefficients of a reduced copy, applied at full
size).
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.blend.arrays import blocks, enlarged, reduced
from toolkit.cards import Card
from toolkit.engines.matte import ArrayMatter

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

REACH = 2  # working pixels from the unknown pixel farthest from a known one, on the smallest copy
FINEST = 2  # halvings of the copy that is solved last, where the band allows as many
STEPS = 20, 10, 6  # of the solver on the smallest copy, the next, and those after it; many more follow the noise
RADIUS = 2  # of the windows in which alpha is linear
SMOOTH = 1e-5  # squared colour difference (of 1) below which a window counts as flat
PRIOR = 0.02  # pull towards the place between the rims, at these, against the windows' 1
FLAT = 4.0  # the same where a window shows no contrast: there the outline given is all there is
NOISE = 3e-6  # squared colour difference that counts as contrast
SURE = 0.03  # alpha this near to 0 or 1 in a whole neighbourhood is settled on finer copies
BLOCK = 128  # side of the parts that are worked at full size


def alpha_of(pixels: Bytes, trimap: Bytes) -> Bytes:
    """The alpha of what lies between sure foreground and sure background.

    Solved on small copies from the coarsest up, each starting from the last; between the two rims of the unknown band
    alpha is drawn towards its place between them, weakly in the middle and more at the rims.

    Args:
        pixels: (h, w, 3) uint8 sRGB.
        trimap: (h, w) uint8: 0 = background, 255 = foreground, anything else = unknown.

    Returns:
        (h, w) uint8; 0 and 255 exactly where the trimap has them.
    """
    if not ((trimap != 0) & (trimap != 255)).any():
        return trimap.copy()
    levels = _levels(trimap)
    finest = min(FINEST, levels)
    scale = 1 << finest
    guide, inside, outside = (
        reduced(array, scale).astype(np.float32) / np.float32(255)
        for array in (pixels, cv2.inRange(trimap, 255, 255), cv2.inRange(trimap, 0, 0))
    )
    place = _place(inside, outside)
    copies = [(guide, place, inside, outside)]
    for _ in range(levels - finest):
        guide, place, inside, outside = (_half(one) for one in copies[-1])
        copies.append((guide, place, inside, outside))
    coefficients = alpha = None
    for number, (guide, place, inside, outside) in enumerate(reversed(copies)):
        ones, zeros = inside > 0.999, outside > 0.999
        start = place
        if coefficients is not None and alpha is not None:
            start = _linear(_resized(coefficients, place.shape), guide)
            settled_ones, settled_zeros = (_resized(one, place.shape, cv2.INTER_NEAREST) for one in _settled(alpha))
            zeros = zeros | ((settled_zeros > 0) & ~ones)
            ones = ones | ((settled_ones > 0) & ~zeros)
        windows = _Windows(guide)
        alpha = _solve(windows, place, ones, zeros, start, STEPS[min(number, len(STEPS) - 1)])
        coefficients = np.asarray(cv2.merge(windows.coefficients(alpha)), np.float32)
        coefficients[..., 3] += alpha - _linear(coefficients, guide, clip=False)  # so that they give this very alpha
    assert coefficients is not None
    assert alpha is not None
    return _applied(pixels, trimap, coefficients, alpha, scale)


def _levels(trimap: Bytes) -> int:
    """How many halvings bring every unknown pixel within `REACH` of a known one."""
    unknown = trimap[::2, ::2]  # half of it tells as much
    unknown = ((unknown != 0) & (unknown != 255)).astype(np.uint8)
    reach = 2 * float(cv2.distanceTransform(unknown, cv2.DIST_L2, 3).max())
    widest = math.log2(max(min(trimap.shape), 4)) - 2  # the smallest copy keeps a few pixels
    return max(0, min(math.ceil(math.log2(max(1.0, reach / REACH))), math.floor(widest)))


def _half(array: Floats) -> Floats:
    size = ((array.shape[1] + 1) // 2, (array.shape[0] + 1) // 2)
    return np.asarray(cv2.resize(array, size, interpolation=cv2.INTER_AREA), np.float32)


def _resized(array: Floats | Bytes, shape: tuple[int, ...], how: int = cv2.INTER_LINEAR) -> Floats:
    return np.asarray(cv2.resize(array, (shape[1], shape[0]), interpolation=how), np.float32)


def _place(inside: Floats, outside: Floats) -> Floats:
    """Where a pixel lies between the rims: 0 at the background's, 1 at the foreground's."""
    far = float(sum(inside.shape))  # no pixel is farther, even where one of the two is missing
    ones, zeros = ((share < 0.999).astype(np.uint8) for share in (inside, outside))
    to_ones, to_zeros = (
        np.minimum(cv2.distanceTransform(one, cv2.DIST_L2, 3), far) if not one.all() else np.full(one.shape, far)
        for one in (ones, zeros)
    )
    return np.asarray(to_zeros / np.maximum(to_ones + to_zeros, 1e-6), np.float32)


def _settled(alpha: Floats) -> tuple[Bytes, Bytes]:
    """Where alpha is sure to be 1 and 0 in a pixel and its neighbours, as uint8 0 and 1."""
    around = np.ones((3, 3), np.uint8)
    least, most = cv2.erode(alpha, around), cv2.dilate(alpha, around)
    return (least > 1 - SURE).astype(np.uint8), (most < SURE).astype(np.uint8)


def _linear(coefficients: Floats, guide: Floats, *, clip: bool = True) -> Floats:
    """The linear function of each pixel's colour, clipped to 0..1 if wanted."""
    slope = cv2.split(coefficients)
    colour = cv2.split(guide)
    value = slope[0] * colour[0] + slope[1] * colour[1] + slope[2] * colour[2] + slope[3]
    return np.asarray(np.clip(value, 0, 1) if clip else value, np.float32)


class _Windows:
    """The guided filter of one picture: least-squares fits of values by colour in all its windows."""

    def __init__(self, guide: Floats) -> None:
        side = 2 * RADIUS + 1
        self._size = side, side
        self.colour = [np.asarray(channel) for channel in cv2.split(guide)]
        wide = [channel.astype(np.float64) for channel in self.colour]  # variances are small differences of large sums
        mean = [self._mean(channel) for channel in wide]

        def common(i: int, j: int) -> NDArray[np.float64]:
            return np.asarray(self._mean(wide[i] * wide[j]) - mean[i] * mean[j], np.float64)

        # The inverse of the covariance by its LDL decomposition, for cofactors lose all digits on grey windows.
        first = np.maximum(common(0, 0), 0) + SMOOTH
        low_21, low_31 = common(0, 1) / first, common(0, 2) / first
        second = np.maximum(common(1, 1) + SMOOTH - low_21 * low_21 * first, SMOOTH)
        cross = common(1, 2) - low_21 * low_31 * first
        low_32 = cross / second
        third = np.maximum(common(2, 2) + SMOOTH - low_31 * low_31 * first - low_32 * cross, SMOOTH)
        corner = low_21 * low_32 - low_31
        entries = (
            1 / first + low_21 * low_21 / second + corner * corner / third,
            -low_21 / second - corner * low_32 / third,
            corner / third,
            1 / second + low_32 * low_32 / third,
            -low_32 / third,
            1 / third,
        )
        spread = sum(np.maximum(common(i, i), 0) for i in range(3))
        self.flat = np.asarray(NOISE / (NOISE + spread), np.float32)
        self._inverse = [entry.astype(np.float32) for entry in entries]
        self._colour_mean = [channel.astype(np.float32) for channel in mean]

    def _mean(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(cv2.blur(values, self._size, borderType=cv2.BORDER_REFLECT))

    def coefficients(self, values: Floats) -> list[Floats]:
        """Three slopes and an offset, each (h, w) float32: the mean of those of all windows that hold a pixel."""
        mean = self._mean(values)
        products = [self._mean(channel * values) for channel in self.colour]
        x, y, z = (product - one * mean for product, one in zip(products, self._colour_mean, strict=True))
        xx, xy, xz, yy, yz, zz = self._inverse
        slope = xx * x + xy * y + xz * z, xy * x + yy * y + yz * z, xz * x + yz * y + zz * z
        offset = mean - sum(one * centre for one, centre in zip(slope, self._colour_mean, strict=True))
        return [self._mean(one) for one in (*slope, offset)]

    def rest(self, values: Floats) -> Floats:
        """What the windows' fits leave of `values`: the matting Laplacian times them; symmetric, not negative."""
        *slope, offset = self.coefficients(values)
        fitted = sum(one * channel for one, channel in zip(slope, self.colour, strict=True)) + offset
        return np.asarray(values - fitted, np.float32)


def _solve(
    windows: _Windows, place: Floats, ones: NDArray[np.bool_], zeros: NDArray[np.bool_], start: Floats, steps: int
) -> Floats:
    """Alpha (h, w) 0..1 by conjugate gradients: given where known, elsewhere what windows and prior agree on."""
    free = (~(ones | zeros)).astype(np.float32)
    prior = np.clip((place - 0.5) * 6 + 0.5, 0, 1)
    weight = PRIOR * np.square(2 * place - 1) + FLAT * windows.flat + np.float32(1e-6)
    alpha = np.where(ones, np.float32(1), np.where(zeros, np.float32(0), start))
    residual = free * (weight * (prior - alpha) - windows.rest(alpha))
    direction = residual
    size = first = float(np.vdot(residual, residual))
    for _ in range(steps):
        if size <= 1e-6 * first:
            break
        image = free * (windows.rest(direction) + weight * direction)
        length = size / max(float(np.vdot(direction, image)), 1e-30)
        alpha = alpha + np.float32(length) * direction
        residual = residual - np.float32(length) * image
        before, size = size, float(np.vdot(residual, residual))
        direction = residual + np.float32(size / before) * direction
    return np.asarray(np.clip(alpha, 0, 1), np.float32)


def _applied(pixels: Bytes, trimap: Bytes, coefficients: Floats, alpha: Floats, scale: int) -> Bytes:
    """The alpha at full size: the enlarged coefficients applied to the pixels' own colours, block by block."""
    ones, zeros = _settled(alpha) if scale > 1 else (np.zeros_like(alpha, np.uint8),) * 2
    least, most = ones * np.uint8(255), np.uint8(255) - zeros * np.uint8(255)
    result = np.asarray(cv2.inRange(trimap, 255, 255), np.uint8)
    unknown = np.asarray(cv2.inRange(trimap, 1, 254), np.uint8)
    for block in blocks(unknown, BLOCK):
        value = _linear(enlarged(coefficients, scale, block), pixels[block.slices].astype(np.float32) / np.float32(255))
        found = np.rint(value * 255).astype(np.uint8)
        np.maximum(found, enlarged(least, scale, block, cv2.INTER_NEAREST), out=found)
        np.minimum(found, enlarged(most, scale, block, cv2.INTER_NEAREST), out=found)
        result[block.slices] |= found & unknown[block.slices]
    return result


class Engine(ArrayMatter):
    """The adapter."""

    def __init__(self, card: Card) -> None:
        super().__init__(card, alpha_of)
