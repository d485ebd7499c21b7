"""Give a smooth fill the grain of the photo around it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import ClassVar

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.blend.arrays import Array, Bytes, Floats, bounds, checked_masks, checked_picture
from toolkit.errors import ParameterError
from toolkit.geometry import Box


@dataclass(frozen=True)
class GrainMatch:
    """How much grain a fill had, and how much was added.

    Attributes:
        ring: standard deviation of the photo's grain around the hole, one figure a channel, in levels of 255.
        fill: the same inside the hole, before anything was added.
        added: standard deviation of the noise that was added, mean over the hole, one figure a channel.
        ring_blocks: blocks of 8x8 flat pixels the photo's grain was measured on (0 = not measurable).
    """

    ring: tuple[float, ...]
    fill: tuple[float, ...]
    added: tuple[float, ...]
    ring_blocks: int


_BANDS = 2
_BLOCK = 8
_MARGIN = 3  # reach of the filters: 1 + 2
_APART = 40  # between the places of one white field that levels and channels read, too far to see
_TILE = 64  # of an endless white field


def match_grain(
    fill: Array, original: Array, hole: Array, known: Array | None = None, seed: int = 0
) -> tuple[Floats, GrainMatch]:
    """Add the grain a fill lacks, as measured on the photo around the hole.

    Grain is what two a trous wavelet bands (kernel 1 2 1; Starck and Murtagh 1998) hold in flat 8x8 blocks:
    per band a covariance of the channels, and its total as a function of brightness. What is missing inside
    the hole is added as seeded noise with those bands and covariances. Nothing is added when the fill holds half
    of the grain's variance (two places of one untouched photo differ by as much), and nothing is ever taken away.
    A ring without flat parts has no measurable grain.

    Args:
        fill: (h, w, C) uint8 or float32 0..255, C = 1 or 3; usually the answer of `match_colour`.
        original: the photo's window, same shape; not read inside the hole.
        hole: (h, w) uint8, above 0 = regenerated.
        known: (h, w) bool, the pixels outside the hole that are real photo; None = all of them.
        seed: 0 or above; the same seed gives the same noise.

    Returns:
        The fill with grain, (h, w, C) float32 (not clipped to 0..255), changed in the hole only, and the figures.

    Raises:
        InputError: when the arrays differ in shape or have a wrong dtype.
        MaskError: when `hole` or `known` has another size or a wrong dtype.
        ParameterError: when `seed` is negative.
    """
    fill, original = checked_picture("fill", fill), checked_picture("original", original)
    hole, known = checked_masks(fill, original, hole, known)
    if seed < 0:
        raise ParameterError(f"seed: expected 0 or above, got {seed}")
    channels = fill.shape[2]
    result = fill.astype(np.float32)
    inner = bounds(hole)
    zeros = (0.0,) * channels
    if inner.is_empty:
        return result, GrainMatch(zeros, zeros, zeros, 0)
    near = inner.grow(_reach(hole, inner)).intersect(Box.of_size((hole.shape[1], hole.shape[0])))
    inside = (hole[near.slices] > 0).astype(np.uint8)
    outside = (1 - cv2.dilate(inside, np.ones((5, 5), np.uint8))).astype(np.uint8)
    if known is not None:
        outside &= known[near.slices]
    photo = _Grain.of(original[near.slices], outside, strict=True)
    drawn = _Grain.of(result[near.slices], inside, strict=False)
    if photo is None or drawn is None:
        return result, GrainMatch(zeros, zeros, zeros, 0)
    here = float(np.interp(drawn.levels, photo.levels, photo.shape).mean())
    missing = photo.bands * here - drawn.bands
    energies = np.trace(missing, axis1=1, axis2=2)
    figures = GrainMatch(photo.deviation(here), drawn.deviation(1.0), zeros, photo.blocks)
    if np.trace(drawn.bands.sum(axis=0)) >= 0.5 * here * np.trace(photo.bands.sum(axis=0)):
        return result, figures
    width, height = inner.size
    white = _white((height + 2 * (_MARGIN + _APART), width + 2 * (_MARGIN + _APART)), seed)
    noise, added = _noise(white, missing, _amounts(energies))
    target = result[inner.slices]
    noise *= _strength(target, photo.curve(here))
    noise *= (hole[inner.slices] > 0)[:, :, None]
    target += noise
    return result, GrainMatch(figures.ring, figures.fill, added, photo.blocks)


@dataclass(frozen=True, eq=False)
class GrainField:
    """Grain for a plane that is read by box: a pixel gets the same whatever box it is read in.

    Attributes:
        missing: per wavelet level the covariance of the channels, (2, C, C).
        amounts: variances of the white noise of each level.
        curve: its strength by brightness, (256,).
        seed: 0 or above.
        added: standard deviation of the noise, one figure a channel.
    """

    missing: NDArray[np.float64]
    amounts: NDArray[np.float64]
    curve: NDArray[np.float32]
    seed: int
    added: tuple[float, ...]

    REACH: ClassVar[int] = 2
    """Pixels around a box that decide on the grain in it."""

    @classmethod
    def between(cls, fill: Bytes, photo: Sequence[Bytes], seed: int) -> GrainField | None:
        """The grain that `fill` lacks to have that of `photo`, see `match_grain`; None where it lacks none.

        Args:
            fill: (h, w, C) uint8, a part of what is to get grain, at the photo's resolution.
            photo: parts (h, w, C) uint8 of the photo; of those with flat places the one with the least grain counts,
                for fine texture cannot be told from grain.
            seed: 0 or above.
        """
        drawn = _Grain.of(fill, np.ones(fill.shape[:2], np.uint8), strict=False)
        found = (_Grain.of(part, np.ones(part.shape[:2], np.uint8), strict=True) for part in photo)
        own = min((one for one in found if one), key=lambda one: float(np.trace(one.bands.sum(axis=0))), default=None)
        if own is None or drawn is None:
            return None
        here = float(np.interp(drawn.levels, own.levels, own.shape).mean())
        missing = own.bands * here - drawn.bands
        if np.trace(drawn.bands.sum(axis=0)) >= 0.5 * here * np.trace(own.bands.sum(axis=0)):
            return None
        amounts = _amounts(np.trace(missing, axis1=1, axis2=2))
        side = 2 * (_MARGIN + _APART) + 1
        _, added = _noise(np.zeros((side, side, 1), np.float32), missing, amounts)
        return cls(missing, amounts, own.curve(here), seed, added)

    def over(self, pixels: Floats, near: Box, box: Box) -> Floats:
        """The pixels (h, w, C) float32 0..255 of `box` with their grain, not clipped.

        Args:
            pixels: (h, w, C) float32 of `near`.
            near: `box` and `REACH` pixels around it, less only where the plane ends.
            box: of the plane.
        """
        white = _white_at(
            Box(box.left, box.top, box.right + 2 * _APART, box.bottom + 2 * _APART).grow(_MARGIN), self.seed
        )
        noise, _ = _noise(white, self.missing, self.amounts)
        # Whole levels: blurring them gives the same brightness wherever the box begins.
        inner = box.within(near).slices
        noise *= _strength(np.clip(np.rint(pixels), 0, 255), self.curve)[inner]
        return np.asarray(pixels[inner] + noise, np.float32)


def _strength(pixels: Floats, curve: NDArray[np.float32]) -> Floats:
    """How strong the grain is at each of `pixels` (h, w, C), by their brightness: (h, w, 1)."""
    channels = pixels.shape[2]
    brightness = cv2.transform(cv2.blur(pixels, (5, 5)), np.full((1, channels), 1 / channels, np.float32))
    return np.asarray(curve[np.clip(brightness, 0, 255).astype(np.uint8)].reshape(*pixels.shape[:2], 1))


@dataclass(frozen=True)
class _Grain:
    """Grain measured on flat blocks: covariance (band, C, C), and relative variance at some brightness levels."""

    bands: NDArray[np.float64]
    levels: NDArray[np.float64]
    shape: NDArray[np.float64]
    blocks: int

    @classmethod
    def of(cls, picture: Array, eligible: Bytes, strict: bool) -> _Grain | None:
        """Measure where `eligible`; None when too few blocks are flat. `strict` refuses texture."""
        height, width = (n // _BLOCK for n in eligible.shape)
        # Anchored at its corner, the kernel covers the block that starts there.
        whole = cv2.erode(eligible, np.ones((_BLOCK, _BLOCK), np.uint8), anchor=(0, 0))
        rows, columns = np.nonzero(whole[: height * _BLOCK : _BLOCK, : width * _BLOCK : _BLOCK])
        if len(rows) < 8:
            return None
        chosen = np.linspace(0, len(rows) - 1, min(len(rows), 320)).astype(np.int64)
        side = np.arange(-_MARGIN, _BLOCK + _MARGIN)
        at_y = np.clip(rows[chosen, None] * _BLOCK + side, 0, eligible.shape[0] - 1)
        at_x = np.clip(columns[chosen, None] * _BLOCK + side, 0, eligible.shape[1] - 1)
        patches = picture[at_y[:, :, None], at_x[:, None, :]].astype(np.float32)
        count, size, _, channels = patches.shape
        stack = [
            band.reshape(count, size, size, channels)[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].reshape(
                count, -1, channels
            )
            for band in _bands(patches.reshape(count * size, size, channels))
        ]
        levels = patches[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].mean(axis=(1, 2, 3))
        energy = np.stack([np.square(band).mean(axis=(1, 2)) for band in stack])
        usable = (levels > 2) & (levels < 252)
        if strict:
            usable &= energy[1] <= 3 * energy[0] + 0.05
        order = np.argsort(levels, kind="stable")
        order = order[usable[order]]
        if len(order) < 8:
            return None
        groups = np.array_split(order, max(1, min(4, len(order) // 40)))
        flat = [some for g in groups if len(some := g[_is_flat(energy[:, g])])]  # a group may have none
        kept = np.concatenate([*flat, order[:0]])
        if len(kept) < 8:
            return None
        samples = [band[kept].reshape(-1, channels).astype(np.float64) for band in stack]
        bands = np.stack([s.T @ s / len(s) for s in samples])
        total = max(float(energy[0][kept].mean()), 1e-9)
        return cls(
            bands,
            np.array([levels[g].mean() for g in flat]),
            np.array([energy[0][g].mean() / total for g in flat]),
            len(kept),
        )

    def curve(self, here: float) -> NDArray[np.float32]:
        """Strength by brightness (256,), relative to a place whose relative variance is `here`."""
        return np.sqrt(np.interp(np.arange(256), self.levels, self.shape) / max(here, 1e-9)).astype(np.float32)

    def deviation(self, factor: float) -> tuple[float, ...]:
        """Standard deviation of the bands together, one figure a channel."""
        return tuple(float(v) for v in np.sqrt(factor * np.diagonal(self.bands.sum(axis=0))))


def _is_flat(energy: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Of blocks with the band energies (2, n), those near the lowest tenth; pure noise passes nearly whole.

    A block holds the fewer independent values the coarser the band, so the limits widen.
    """
    limit = np.quantile(energy, 0.1, axis=1, keepdims=True) * np.array([[2.2], [3.5]]) + 1e-3
    return np.asarray((energy <= limit).all(axis=0))


def _reach(hole: Bytes, inner: Box) -> int:
    """Width of the ring grain is measured on."""
    return int(np.clip(cv2.countNonZero(hole) ** 0.5 / 4, 32, 96))


def _levels(picture: Floats, unit: float = 1.0) -> list[Floats]:
    """`picture` (h, w, C) and ever smoother versions; `unit` 16 keeps whole numbers whole, each 16 times larger."""
    out = [picture]
    for k in range(_BANDS):
        taps = np.zeros(2 ** (k + 1) + 1, np.float32)
        taps[0], taps[2**k], taps[-1] = 1, 2, 1
        taps *= np.float32(unit**0.5 / 4)
        smooth = cv2.sepFilter2D(out[-1], cv2.CV_32F, taps, taps, borderType=cv2.BORDER_REFLECT_101)
        out.append(np.asarray(smooth, np.float32).reshape(picture.shape))
    return out


def _bands(picture: Floats) -> list[Floats]:
    """The a trous bands of (h, w, C), fine to coarse."""
    return [fine - coarse for fine, coarse in pairwise(_levels(picture))]


@cache
def _responses() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(2, 2) variance that band j sees in level k of white noise of variance 1, and (2,) the variance of level k."""
    point = np.zeros((65, 65, 1), np.float32)
    point[32, 32] = 1
    levels = _levels(point)[:_BANDS]
    seen = [[float(np.square(_bands(level)[j]).sum()) for level in levels] for j in range(_BANDS)]
    return np.array(seen), np.array([float(np.square(level).sum()) for level in levels])


def _amounts(energies: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variances of white noise whose levels, added up, give the bands `energies`; none negative.

    Levels are ever smoother, so their sums make every falling spectrum; least squares by coordinate descent
    relative to each band's energy.
    """
    wanted = np.maximum(energies, 0)
    scale = 1 / np.maximum(wanted, 1e-3 * wanted.max() + 1e-12)
    response, wanted = _responses()[0] * scale[:, None], wanted * scale
    amounts = np.zeros(_BANDS)
    for _ in range(60):
        for k in range(_BANDS):
            column = response[:, k]
            rest = wanted - response @ amounts + column * amounts[k]
            amounts[k] = max(0.0, float(column @ rest / (column @ column)))
    return amounts


def _noise(
    white: Floats, missing: NDArray[np.float64], amounts: NDArray[np.float64]
) -> tuple[Floats, tuple[float, ...]]:
    """Noise (h, w, C) float32 with the amounts and channel covariances per level, and its standard deviations.

    `white` has `_MARGIN` pixels around it and 2 `_APART` more on the right and below: each level and channel reads it
    at another place, too far apart to see.
    """
    height, width = (n - 2 * (_MARGIN + _APART) for n in white.shape[:2])
    channels = missing.shape[1]
    noise = np.zeros((height, width, channels), np.float32)
    variance = np.zeros(channels)
    for k, level in enumerate(_levels(white, unit=16.0)[:_BANDS]):
        if amounts[k] <= 0:
            continue
        values, vectors = np.linalg.eigh(missing[k])
        values = np.maximum(values, 0)
        values *= amounts[k] / max(values.sum(), 1e-12)
        # The symmetric root does not depend on the order or sign of eigenvectors.
        root = (vectors * np.sqrt(values)) @ vectors.T
        top = _MARGIN + _APART * k
        lefts = [_MARGIN + _APART * c for c in range(channels)]
        parts = cv2.merge([level[top : top + height, left : left + width, 0] for left in lefts])
        weights = (root / (16.0**k * _WHITE_DEVIATION)).astype(np.float32)
        noise += np.asarray(cv2.transform(parts, weights), np.float32).reshape(noise.shape)
        variance += np.diagonal(root @ root.T) * _responses()[1][k]
    return noise, tuple(float(v) for v in np.sqrt(variance))


# Sum of eight uniform bytes.
_WHITE_DEVIATION = (8 * (256**2 - 1) / 12) ** 0.5


def _white(shape: tuple[int, int], seed: int) -> Floats:
    """Near-Gaussian white noise (h, w, 1) of whole numbers, mean 0: the same on every platform and numpy version."""
    return _uniforms(np.random.Philox(seed), shape)


def _white_at(box: Box, seed: int) -> Floats:
    """`_white` for a box of an endless plane."""
    white = np.empty((box.height, box.width, 1), np.float32)
    for row in range(box.top // _TILE, -(-box.bottom // _TILE)):
        for column in range(box.left // _TILE, -(-box.right // _TILE)):
            tile = Box.of_size((_TILE, _TILE)).shift(column * _TILE, row * _TILE)
            place = (row % 2**32 << 32) | column % 2**32
            values = _uniforms(np.random.Philox(key=np.array([seed, place], np.uint64)), (_TILE, _TILE))
            shared = tile.intersect(box)
            white[shared.within(box).slices] = values[shared.within(tile).slices]
    return white


def _uniforms(source: np.random.Philox, shape: tuple[int, int]) -> Floats:
    raw = source.random_raw(shape[0] * shape[1])
    odd, even = np.uint64(0x00FF00FF00FF00FF), np.uint64(8)
    sums = (raw & odd) + ((raw >> even) & odd)
    sums = (sums * np.uint64(0x0001000100010001)) >> np.uint64(48)
    return (sums.astype(np.float32) - np.float32(1020)).reshape(*shape, 1)
