"""Undo the colour shift of an engine, as measured on the untouched pixels around the hole."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.blend.arrays import Array, Bytes, Floats, bounds, checked_masks, checked_picture
from toolkit.blend.membrane import membrane, resized
from toolkit.geometry import Box

WIDEST_RING = 96
"""Pixels around the hole that are compared at most."""

STRAY = 0.002
"""Share of the hole's box below which clipped pixels are shifted like all others."""


@dataclass(frozen=True)
class ColourMatch:
    """How strongly the colours of a fill were corrected.

    Attributes:
        mean_shift: mean over the hole of the correction, one figure a channel, in levels of 255.
        max_shift: largest absolute correction of any pixel and channel inside the hole, in levels.
        gain: factor by which the fill's contrast was multiplied, one figure a channel (1 = kept).
        ring_pixels: known pixels around the hole that were compared.
        trusted: share of the compared blocks whose difference looked like a colour shift, not like changed
            content (0..1); below about 0.5 the ring hardly agreed with itself.
    """

    mean_shift: tuple[float, ...]
    max_shift: float
    gain: tuple[float, ...]
    ring_pixels: int
    trusted: float


def match_colour(fill: Array, original: Array, hole: Array, known: Array | None = None) -> tuple[Floats, ColourMatch]:
    """Undo the colour shift an engine gave a whole window, as measured on the untouched pixels around the hole.

    The difference original - fill on a ring around the hole (on the whole window, where the ring lacks the
    brightness found in the hole) is explained, channel by channel, by an offset, a gain, a quadratic tone curve
    and a quadratic drift (iterated reweighted least squares with Tukey's biweight, the gain
    drawn towards 1 where the ring is flat); what remains is spread across the hole by a membrane (a screened
    Poisson equation, compare Perez et al. 2003). Blocks whose content changed (a shadow that went with its
    object, shifted texture) get no weight. Clipped values are not shifted: what they stand for is learnt from
    the clipped pixels of the ring.

    Args:
        fill: (h, w, C) uint8 or float32 0..255, C = 1 or 3: the engine's whole window.
        original: the photo's window, same shape; not read inside the hole.
        hole: (h, w) uint8, above 0 = regenerated.
        known: (h, w) bool, the pixels outside the hole that are real photo; None = all of them.

    Returns:
        The corrected fill, (h, w, C) float32 0..255, and the figures for the report. Only the hole's bounding
        box is corrected. Where fill and original agree on the ring, or no ring exists, it is the fill itself.

    Raises:
        InputError: when the arrays differ in shape or have a wrong dtype.
        MaskError: when `hole` or `known` has another size or a wrong dtype.
    """
    fill, original = checked_picture("fill", fill), checked_picture("original", original)
    hole, known = checked_masks(fill, original, hole, known)
    channels = fill.shape[2]
    result = fill.astype(np.float32)
    inner = bounds(hole)
    nothing = ColourMatch((0.0,) * channels, 0.0, (1.0,) * channels, 0, 0.0)
    if inner.is_empty:
        return result, nothing
    if agreeing := _agreeing(fill, original, hole, known, inner):
        return result, ColourMatch(nothing.mean_shift, 0.0, nothing.gain, agreeing, 1.0)
    ring = _Ring.around(inner, fill, original, hole, known, wide=False)
    if ring.differs and not ring.covers(fill, hole, inner):
        ring = _Ring.around(inner, fill, original, hole, known, wide=True)
    if ring.pixels == 0 or not ring.differs:
        return result, ColourMatch(nothing.mean_shift, 0.0, nothing.gain, ring.pixels, float(ring.pixels > 0))
    fit = _fit_shift(ring)
    place = inner.within(ring.box)
    field = _enlarged(fit.field, ring.step, place)
    target = result[inner.slices]
    corrected = target + field
    corrected += fit.tone_of(fill[inner.slices])
    _restore_clipped(corrected, ring, fit, fill, original, inner)
    np.clip(corrected, 0, 255, out=corrected)
    shift = corrected - target
    inside = hole[inner.slices]
    largest = cv2.norm(shift, cv2.NORM_INF, inside)
    mean = cv2.mean(shift, inside)[:channels]
    result[inner.slices] = corrected
    return result, ColourMatch(
        tuple(float(v) for v in mean),
        float(largest),
        tuple(float(v) for v in fit.gain),
        ring.pixels,
        fit.trusted,
    )


@dataclass(frozen=True)
class _Ring:
    """Fill and original around a hole, as means over blocks of step x step pixels that cover `box`."""

    box: Box
    step: int
    usable: Bytes  # (bh * step, bw * step) 1 = known pixel of the ring
    count: Floats  # (bh, bw, C) share of a block's pixels that are known and not clipped in the fill
    level: Floats  # (bh, bw, C) mean of fill
    difference: Floats  # (bh, bw, C) mean of original - fill
    variance: Floats  # (bh, bw, C) variance of the difference inside a block
    pixels: int
    differs: bool

    @classmethod
    def around(cls, inner: Box, fill: Array, original: Array, hole: Bytes, known: Bytes | None, wide: bool) -> _Ring:
        """Compare on a ring of half the hole's radius, or (`wide`) on the whole window."""
        window = Box.of_size((hole.shape[1], hole.shape[0]))
        radius = _radius(hole, inner)
        step = 8 if radius >= 64 else 4 if radius >= 20 else 2
        width = int(np.clip(radius / 2, 16, WIDEST_RING))
        box = window if wide else inner.grow(width).intersect(window)
        while box.area > 2**16 * step**2:  # many spots in a large window
            step *= 2
        near = _padded(hole, box, step)
        blocks = (near.shape[1] // step, near.shape[0] // step)
        # Pixels that touch the hole are left out: they mix with the old object in the photo.
        usable = (cv2.dilate(near, np.ones((5, 5), np.uint8)) == 0).view(np.uint8)
        if not wide:
            # Anchored at its corner, the kernel covers the block that starts there.
            touched = cv2.dilate(near, np.ones((step, step), np.uint8), anchor=(0, 0))[::step, ::step]
            reach = cv2.dilate(touched, _disk(max(width // step, 1))).clip(0, 1)
            usable &= cv2.resize(reach, (near.shape[1], near.shape[0]), interpolation=cv2.INTER_NEAREST)
        if known is not None:
            usable &= _padded(known, box, step)
        else:
            usable[box.height :] = 0
            usable[:, box.width :] = 0
        # Every second row is enough for the means of 8 x 8 blocks.
        every = max(step // 4, 1)
        shown = usable[::every]
        a, b = _padded(fill, box, step)[::every], _padded(original, box, step)[::every]
        channels = fill.shape[2]
        if _has_clipped(a):
            shown = np.asarray(shown[:, :, None] & ~(_clipped(a, 0) | _clipped(a, 255)), np.uint8)
        else:
            shown = np.repeat(shown[:, :, None], channels, axis=2)
        seen = shown.astype(np.float32)
        levels = cv2.multiply(a.reshape(shown.shape), seen, dtype=cv2.CV_32F).reshape(shown.shape)
        delta = cv2.multiply(b.reshape(shown.shape), seen, dtype=cv2.CV_32F).reshape(shown.shape) - levels
        count, level, difference, square = (_sums(v, blocks) for v in (seen, levels, delta, delta * delta))
        share = np.maximum(count, 1)
        difference /= share
        return cls(
            box,
            step,
            usable,
            count / (step * step / every),
            level / share,
            difference,
            np.maximum(square / share - difference**2, 0),
            cv2.countNonZero(usable),
            bool(square.any()),
        )

    def covers(self, fill: Array, hole: Bytes, inner: Box) -> bool:
        """True when the levels inside the hole are near levels that were seen on the ring."""
        skip = 8 if min(inner.size) > 64 else 1
        inside = fill[inner.slices][::skip, ::skip][hole[inner.slices][::skip, ::skip] > 0]
        level = self.level[self.count.min(axis=2) > 0]
        if not len(inside) or not len(level):
            return False
        low, high = np.quantile(level, (0.02, 0.98), axis=0)
        return bool(
            np.all(np.quantile(inside, 0.1, axis=0) > low - 16) and np.all(np.quantile(inside, 0.9, axis=0) < high + 16)
        )


@dataclass(frozen=True)
class _Shift:
    """The colour shift to add to a fill: a smooth field on the ring's blocks plus a tone curve."""

    field: Floats  # (bh, bw, C)
    curve: NDArray[np.float64]  # (C, 257) correction at the levels 0..256
    gain: NDArray[np.float64]
    trusted: float

    def tone_of(self, levels: Array) -> Floats:
        """The tone part at the pixels `levels` (h, w, C), to the nearest level."""
        index = levels if levels.dtype == np.uint8 else np.rint(np.clip(levels, 0, 255)).astype(np.uint8)
        table = np.ascontiguousarray(self.curve[:, :256].T[None], np.float32)
        return np.asarray(cv2.LUT(index, table), np.float32).reshape(levels.shape)

    def tone_at(self, levels: Floats) -> Floats:
        """The tone part at the block means `levels` (h, w, C)."""
        parts = [np.interp(levels[..., c], np.arange(257.0), curve) for c, curve in enumerate(self.curve)]
        return np.stack(parts, axis=-1).astype(np.float32)


def _fit_shift(ring: _Ring) -> _Shift:
    height, width, channels = ring.count.shape
    valid = ring.count.min(axis=2) * ring.step**2 >= 2
    if not valid.any():
        valid = ring.count.max(axis=2) > 0
    rows, columns = np.nonzero(valid)
    difference = ring.difference[valid].astype(np.float64)
    level = ring.level[valid].astype(np.float64)
    samples = np.maximum(ring.count[valid] * ring.step**2 / 8, 0.25)  # neighbours repeat each other
    noise = ring.variance[valid] / samples + 0.01
    x = (columns + 0.5) / width * 2 - 1
    y = (rows + 0.5) / height * 2 - 1
    middle = np.median(level + difference / 2, axis=0)
    tone = (level + difference / 2 - middle) / 128
    design = np.stack([np.stack([t, t * t, *_waves(x, y)]) for t in tone.T])
    start = _trust(difference - np.median(difference, axis=0), noise)
    terms, trust = _regressed(design, difference, noise, *start)
    if np.mean(trust > 0.1) < 0.98:
        # Perhaps what looks like changed content is a gain, seen at few bright or dark places: start from all of it.
        every = (np.abs(difference).max(axis=1) < 48).astype(np.float64)
        other = _regressed(design, difference, noise, every, np.ones(channels))
        if np.mean(other[1]) > np.mean(trust) + 0.01:
            terms, trust = other
    # The curve is over (original + fill) / 2, which noise on either side cannot flatten; turn it into one over fill.
    levels = np.arange(257.0)
    curve = np.zeros((channels, 257))
    for c in range(channels):
        for _ in range(8):
            at = (levels + (terms[c, 2] + curve[c]) / 2 - middle[c]) / 128
            curve[c] = np.clip(terms[c, 0] * at + terms[c, 1] * at * at, -32, 32)
    gain = 1 + (curve[:, 136] - curve[:, 120]) / 16
    fit = _Shift(np.zeros((height, width, channels), np.float32), curve, gain, 0.0)
    grid_y, grid_x = np.mgrid[0:height, 0:width]
    drift = _waves((grid_x + 0.5) / width * 2 - 1, (grid_y + 0.5) / height * 2 - 1)
    plane = np.einsum("kyx,ck->yxc", drift, terms[:, 2:]).astype(np.float32)
    rest = ring.difference - plane - fit.tone_at(ring.level)
    certainty = np.zeros(rest.shape, np.float32)
    certainty[valid] = trust[:, None] * 0.15**2 / (noise + _roughness(rest, valid) ** 2)
    certainty[ring.count <= 0] = 0
    field = plane + membrane(np.where(certainty > 0, rest, 0), certainty)
    return _Shift(field, fit.curve, fit.gain, float(np.mean(trust > 0.1)))


def _waves(x: NDArray[np.float64], y: NDArray[np.float64]) -> NDArray[np.float64]:
    """Offset, linear and quadratic drift, (6, ...); the coordinates run from -1 to 1."""
    return np.stack([np.ones_like(x), x, y, x * x, x * y, y * y])


def _regressed(
    design: NDArray[np.float64],
    difference: NDArray[np.float64],
    noise: NDArray[np.float64],
    trust: NDArray[np.float64],
    scale: NDArray[np.float64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Terms (C, 8) of the shift and the trust (n,) in each block, from the trust and scale to start with.

    `design` is (C, 8, n): tone, tone squared and `_waves`; the rest is (n, C). The prior says how large terms are.
    """
    prior = np.diag([1 / 10**2, 1 / 4**2, 1e-6, 1 / 8**2, 1 / 8**2, 1 / 4**2, 1 / 4**2, 1 / 4**2])
    terms = np.zeros(design.shape[:2])
    residual = np.empty_like(difference)
    for _ in range(6):
        for c, rows in enumerate(design):
            weighted = rows * (trust / (noise[:, c] + scale[c] ** 2) / 16)
            terms[c] = np.linalg.solve(weighted @ rows.T + prior, weighted @ difference[:, c])
            residual[:, c] = difference[:, c] - terms[c] @ rows
        trust, scale = _trust(residual, noise)
    return terms, trust


def _trust(
    residual: NDArray[np.float64], noise: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Tukey weights (n,), common to all channels, and the robust scale of each channel."""
    scale = np.maximum(1.4826 * np.median(np.abs(residual), axis=0), 0.25)
    ratio = (residual**2 / (scale**2 * 4.685**2 + noise)).max(axis=1)
    return np.clip(1 - ratio, 0, 1) ** 2, scale


def _roughness(rest: Floats, valid: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Robust standard deviation of a block from the line through its neighbours, one figure a channel."""
    triples = valid[:, 2:] & valid[:, 1:-1] & valid[:, :-2]
    if not triples.any():
        return np.zeros(rest.shape[2])
    bends = (rest[:, 2:] - 2 * rest[:, 1:-1] + rest[:, :-2])[triples]
    return np.asarray(1.4826 / 6**0.5 * np.median(np.abs(bends), axis=0), np.float64)


def _restore_clipped(corrected: Floats, ring: _Ring, fit: _Shift, fill: Array, original: Array, inner: Box) -> None:
    """Give clipped pixels of the hole what clipped pixels of the ring stand for; changes `corrected` (ours).

    A clipped value stands for something between itself and its shifted value: the latter at the rim of a
    clipped area, itself deep inside. How far, is learnt on the ring as a function of the clipped share nearby.
    """
    # A few stray pixels change no area's brightness, whatever they stand for.
    few = STRAY * inner.area
    part = fill[inner.slices]
    if all(cv2.countNonZero(_clipped(part, bound).reshape(len(part), -1)) < few for bound in (0, 255)):
        return
    window = _padded(fill, ring.box, ring.step)
    truth = _padded(original, ring.box, ring.step)
    place = inner.within(ring.box)
    field = _enlarged(fit.field, ring.step, Box(0, 0, window.shape[1], window.shape[0]))
    for c in range(fill.shape[2]):
        for bound in (0, 255):
            at = _clipped(window[..., c], bound)
            if cv2.countNonZero(at[place.slices]) < few:
                continue
            nearby = cv2.blur(at, (17, 17), borderType=cv2.BORDER_REFLECT)  # 0..255
            seen = (at & ring.usable) > 0
            wanted = np.zeros(at.shape, np.bool_)
            wanted[place.slices] = at[place.slices] > 0
            tone = fit.curve[c, bound]
            seen_gap = _gap(field[..., c][seen], tone, bound)
            pull = seen_gap**2 + 1e-3
            rest = bound - truth[..., c][seen].astype(np.float32)
            slot = (nearby[seen] + 16) // 32
            kept = np.clip(1 - rest * seen_gap / pull, 0, 1)
            knots = np.linspace(0, 1, 9)
            share = (np.bincount(slot, pull * kept, 9) + 20 * knots**2) / (np.bincount(slot, pull, 9) + 20)
            table = np.interp(np.arange(256) / 255, knots, share).astype(np.float32)
            missed = np.zeros(at.shape, np.float32)
            missed[seen] = seen_gap * (1 - table[nearby[seen]]) - rest
            blocks = ring.count.shape[1::-1]
            count = _sums(seen.astype(np.float32)[:, :, None], blocks)
            spread = membrane(
                _sums(missed[:, :, None], blocks) / np.maximum(count, 1), count * np.float32(0.1 / ring.step**2) + 1e-5
            )
            more = _enlarged(spread, ring.step, Box(0, 0, at.shape[1], at.shape[0]))[..., 0]
            gap = _gap(field[..., c][wanted], tone, bound)
            down = gap * (1 - table[nearby[wanted]]) - more[wanted]
            corrected[..., c][wanted[place.slices]] = bound - np.clip(down, np.minimum(gap, 0), np.maximum(gap, 0))


def _agreeing(fill: Array, original: Array, hole: Bytes, known: Bytes | None, inner: Box) -> int:
    """How many known pixels lie around the hole, if all are the photo's own, as engines that copy return them."""
    near = inner.grow(WIDEST_RING).intersect(Box.of_size((hole.shape[1], hole.shape[0]))).slices
    outside = (hole[near] == 0).view(np.uint8)
    if known is not None:
        outside &= known[near] > 0
    if fill.dtype != original.dtype or cv2.norm(fill[near], original[near], cv2.NORM_INF, outside) > 0:
        return 0
    return cv2.countNonZero(outside)


def _gap(field: Floats, tone: float, bound: int) -> Floats:
    """How far a clipped value would be moved away from its bound."""
    return np.asarray(bound - np.clip(bound + field + np.float32(tone), 0, 255), np.float32)


def _clipped(levels: Array, bound: int) -> Bytes:
    """255 where levels are at the bound, 0 or 255; 0 elsewhere."""
    low, high = (-1e9, 0.5) if bound == 0 else (254.5, 1e9)
    flat = np.ascontiguousarray(levels).reshape(levels.shape[0], -1)
    return np.asarray(cv2.inRange(flat, (low,), (high,)), np.uint8).reshape(levels.shape)


def _has_clipped(levels: Array) -> bool:
    low, high = cv2.minMaxLoc(np.ascontiguousarray(levels).reshape(levels.shape[0], -1))[:2]
    return bool(low <= 0.5 or high >= 254.5)


def _disk(radius: int) -> Bytes:
    side = 2 * max(radius, 1) + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)), np.uint8)


def _sums(array: Floats, blocks: tuple[int, int]) -> Floats:
    """Sums over blocks of equal size, (blocks[1], blocks[0], C)."""
    pixels = array.shape[0] * array.shape[1] / (blocks[0] * blocks[1])
    return resized(array, blocks, cv2.INTER_AREA) * np.float32(pixels)


def _padded(array: Array, box: Box, step: int) -> Array:
    """The part of `array` in `box`, with zeros to the right and below up to a multiple of `step`."""
    part = array[box.slices]
    right, below = -box.width % step, -box.height % step
    if not right and not below:
        return part
    padded = cv2.copyMakeBorder(part, 0, below, 0, right, cv2.BORDER_CONSTANT, value=0)
    return np.asarray(padded).reshape(*padded.shape[:2], *part.shape[2:])


def _radius(hole: Bytes, inner: Box) -> float:
    """Radius of the disk with the hole's ratio of area to contour; many spots give that of one spot."""
    part = hole[inner.slices]
    inside = np.ascontiguousarray(part > 0).view(np.uint8)
    area = cv2.countNonZero(inside)
    rim = area - cv2.countNonZero(
        cv2.erode(inside, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=0)
    )
    return 2 * area / max(rim, 1)


def _enlarged(field: Floats, step: int, part: Box) -> Floats:
    """`field` on blocks brought to full size, only inside `part`."""
    full = resized(field, (field.shape[1] * step, field.shape[0] * step), cv2.INTER_LINEAR)
    return full[part.slices]
