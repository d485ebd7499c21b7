"""The cues that tell an object in a box from its ground, pixel by pixel.

Colour and texture against the ring around the box, as histograms over clusters (after Tang et al.: Grabcut in One Cut,
2013), the place in the box (after Lempitsky et al.: Image Segmentation with a Bounding Box Prior, 2009), the minimum
barrier distance from the ring (Zhang et al.: Minimum Barrier Salient Object Detection at 80 FPS, 2015), geodesic
distances (Bai, Sapiro: A Geodesic Framework, 2007) and GrabCut (Rother et al., 2004).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.engines.segment.edge import Binary, Pixels, without_holes
from toolkit.geometry import Box

Floats = npt.NDArray[np.float32]

COLOURS, TEXTURES = 48, 32  # clusters
SAMPLES = 5000  # pixels the clusters are learnt from
FLOOR = 0.004  # share below which a histogram's bin says nothing
HINT = 0.3  # share of a histogram that the clicks make up
WEIGHTS = np.array([0.8, 1.3, 1.3], np.float32)  # of Lab where colours are compared
WIDTHS = 0.04, 0.07, 0.12, 0.2, 0.3  # of bars, in shorter sides of the box
PARTS = 12  # of a bar along its length
DISTINCT, WIDER = 0.6, 3.0  # contrast that makes a bar of it, and more for a wider one
ROUNDS = 6  # of learning colour and texture models from each other
LEAST, MOST = 0.04, 0.98  # shares of the box; a mask beyond them has told nothing apart


def _downward(values: Floats) -> Floats:
    return values


def _upward(values: Floats) -> Floats:
    return values[::-1]


def _rightward(values: Floats) -> Floats:
    return values.swapaxes(0, 1)


def _leftward(values: Floats) -> Floats:
    return values.swapaxes(0, 1)[::-1]


SWEEPS = (_downward, _upward, _rightward, _leftward) * 2


@dataclass(frozen=True)
class View:
    """The reduced copy, the box in it, discs around the clicks as masks of the copy, and the seed."""

    small: Pixels
    reach: Box
    wanted: Binary
    unwanted: Binary
    seed: int

    @property
    def ring(self) -> Binary:
        """What lies around the box: ground for certain."""
        ground = np.ones(self.small.shape[:2], bool)
        ground[self.reach.slices] = False
        return ground


def cues_of(view: View) -> dict[str, Floats]:
    """What speaks for the object at each pixel of the box, (height, width) float32 each cue.

    A filled object is supposed, or a bar from corner to corner where one differs from what lies on either side of it.
    """
    across, down = _place(view.reach)
    squares = across**2 + down**2
    lab = _lab(view.small)
    strips = _barred(lab * WEIGHTS, view.reach)
    barrier = np.log1p(_minimum_barrier(view) / 20)
    nothing = np.zeros_like(squares)
    if strips:
        shape = strips.bar.odds(view.reach)
        place = {"radius": nothing, "corner": nothing, "rim": nothing, "low": nothing, "upright": nothing}
        bar = {"shape": shape, "odd": nothing + 1, "beside": strips.odds(lab * WEIGHTS, view.reach)}
        core, start = sigmoid(shape), shape > 0
    else:
        shape = np.clip(1.28 - 2.08 * squares + 0.4 * across**2 * down**2, -3, 2)
        place = {
            "radius": squares,
            "corner": across**2 * down**2,
            "rim": across**4 + down**4,
            "low": down,
            "upright": down**2 - across**2,
        }
        bar = {"shape": nothing, "odd": nothing, "beside": nothing}
        core, start = np.exp(-2.2 * squares), nothing == 0
    looks = _looks(view, lab, shape, core)
    votes = {"barrier": barrier, "grabcut": _grabcut_vote(view, start)}
    return {"one": nothing + 1, **place, **bar, **looks, **votes}


@dataclass(frozen=True)
class _Bar:
    """A bar of which a box is the bounds: its middle, angle, length and width; it falls to the right or rises."""

    x: float
    y: float
    angle: float
    lean: int
    length: float
    width: float

    @classmethod
    def filling(cls, box: Box, share: float, lean: int) -> _Bar:
        """The bar whose width is a `share` of the box's shorter side."""
        width = max(3.0, share * min(box.width, box.height))
        turned = np.linspace(0, np.pi / 2, 91)
        sines, cosines = np.sin(turned), np.cos(turned)
        # l cos + w sin is the box's width, l sin + w cos its height: without l, a sum that must be 0
        angle = float(np.interp(0, box.width * sines - box.height * cosines + width * np.cos(2 * turned), turned))
        length = math.hypot(box.width, box.height) - width
        return cls((box.left + box.right) / 2, (box.top + box.bottom) / 2, angle, lean, length, width)

    def place(self, box: Box) -> tuple[Floats, Floats]:
        """Each pixel of `box` along the bar, from its middle, and across it, in pixels."""
        x = np.arange(box.left, box.right, dtype=np.float32)[None] + np.float32(0.5 - self.x)
        y = self.lean * (np.arange(box.top, box.bottom, dtype=np.float32)[:, None] + np.float32(0.5 - self.y))
        sine, cosine = np.float32(math.sin(self.angle)), np.float32(math.cos(self.angle))
        return x * cosine + y * sine, x * sine - y * cosine

    def odds(self, box: Box) -> Floats:
        """Log odds of the object at each pixel of the box."""
        away = self.place(box)[1] / (self.width / 2 + 1)
        return np.asarray(np.clip(1.5 - 1.5 * away**2, -3, 2), np.float32)


@dataclass(frozen=True)
class _Strips:
    """Mean colours (PARTS, 3) of a bar's parts and of the ground on either side, and how well they differ."""

    bar: _Bar
    means: tuple[Floats, Floats, Floats]
    contrast: float

    @classmethod
    def seen(cls, lab: Floats, bar: _Bar) -> _Strips:
        frame = Box.of_size((lab.shape[1], lab.shape[0]))
        along, across = bar.place(frame)
        near = np.flatnonzero(np.abs(across) < 1.1 * bar.width + 1)
        part = np.floor((along.ravel()[near] / bar.length + 0.5) * PARTS).astype(np.intp)
        inside = (part >= 0) & (part < PARTS)
        near, part = near[inside], part[inside]
        away = across.ravel()[near] / bar.width
        strip = np.where(np.abs(away) < 0.4, 1, np.where(away < -0.6, 0, np.where(away > 0.6, 2, 3)))
        cell, colours = 4 * part + strip, lab.reshape(-1, 3)[near]
        count = np.bincount(cell, minlength=4 * PARTS)
        sums = [np.bincount(cell, values, 4 * PARTS) for values in (*colours.T, (colours**2).sum(1))]
        means = (np.stack(sums, 1) / np.maximum(count, 1)[:, None]).reshape(PARTS, 4, 4)
        count = count.reshape(PARTS, 4)
        spread = np.maximum(0, means[:, 1, 3] - (means[:, 1, :3] ** 2).sum(-1))
        apart = np.linalg.norm(means[:, [0, 2], :3] - means[:, [1], :3], axis=-1)
        apart[count[:, [0, 2]] == 0] = np.inf
        least = np.where(np.isfinite(apart).any(1) & (count[:, 1] > 0), apart.min(1), 0)
        ratio = np.minimum(least / (np.sqrt(spread) + 4), 2)
        for side, other in ((0, 2), (2, 0)):
            gone = count[:, side] == 0
            means[gone, side] = means[gone, other]
        own, left, right = (np.asarray(means[:, strip, :3], np.float32) for strip in (1, 0, 2))
        return cls(bar, (own, left, right), float(ratio.mean()))

    def odds(self, lab: Floats, box: Box) -> Floats:
        """How much nearer each pixel of the box is to the bar's colour beside it than to the ground's."""
        along, _ = self.bar.place(box)
        place = np.clip((along / self.bar.length + 0.5) * PARTS - 0.5, 0, PARTS - 1)
        first = np.minimum(place.astype(np.intp), PARTS - 2)
        share = (place - first)[..., None]
        colours = lab[box.slices]
        own, left, right = (
            np.linalg.norm(colours - (means[first] * (1 - share) + means[first + 1] * share), axis=-1)
            for means in self.means
        )
        return np.asarray(np.log((np.minimum(left, right) + 4) / (own + 4)), np.float32)


def _barred(lab: Floats, box: Box) -> _Strips | None:
    """The bar that differs most from what lies on either side of it all along, if it does so well enough."""
    bars = [_Bar.filling(box, share, lean) for share in WIDTHS for lean in (1, -1)]
    best = max((_Strips.seen(lab, bar) for bar in bars), key=lambda one: one.contrast)
    return best if best.contrast > DISTINCT + WIDER * best.bar.width / min(box.width, box.height) else None


def _place(box: Box) -> tuple[Floats, Floats]:
    """Each pixel's place across and down the box, -1 to 1, as (height, width) float32."""
    across = (2 * np.arange(box.width, dtype=np.float32) + 1) / box.width - 1
    down = (2 * np.arange(box.height, dtype=np.float32) + 1) / box.height - 1
    grid = np.meshgrid(across, down)
    return grid[0].astype(np.float32), grid[1].astype(np.float32)


@dataclass(frozen=True)
class _Clusters:
    """A cluster for each pixel, and how alike the clusters are."""

    of: npt.NDArray[np.intp]
    likeness: Floats

    @classmethod
    def learnt(cls, features: Floats, number: int, width: float, seed: int) -> _Clusters:
        """k-means on some of (h, w, channels) features; clusters `width` apart still share 60 % of their votes."""
        rows = features.reshape(-1, features.shape[-1])
        some = rows[:: max(1, len(rows) // SAMPLES)].copy()
        cv2.setRNGSeed(seed & 0x7FFFFFFF)
        stop = cv2.TERM_CRITERIA_COUNT + cv2.TERM_CRITERIA_EPS, 8, 0.5
        labels = np.zeros(len(some), np.int32)
        _, _, found = cv2.kmeans(some, min(number, len(some)), labels, stop, 1, cv2.KMEANS_PP_CENTERS)
        centres = np.asarray(found, np.float32)
        nearest = ((centres**2).sum(1) - 2 * rows @ centres.T).argmin(1)
        apart = ((centres[:, None] - centres[None]) ** 2).sum(-1)
        return cls(nearest.reshape(features.shape[:2]), np.exp(-apart / (2 * width**2)))

    def counts(self, weight: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
        """The sums of (h, w) weights over the clusters."""
        return np.bincount(self.of.ravel(), weight.ravel(), len(self.likeness)).astype(np.float64)

    def shares(self, counts: npt.NDArray[np.float64], clicked: npt.NDArray[np.float64]) -> Floats:
        """Counts as shares, smoothed; zeros where nothing was counted. Clicks, if any, make up a fixed part."""
        both = counts / max(1e-9, counts.sum())
        if clicked.any():
            both = (1 - HINT) * both + HINT * clicked / clicked.sum()
        smooth = self.likeness @ both
        return np.asarray(smooth / max(1e-9, smooth.sum()), np.float32)

    def thinned(self, box: Box, step: int) -> _Clusters:
        """Every `step`th pixel of a box."""
        return _Clusters(np.ascontiguousarray(self.of[box.slices][::step, ::step]), self.likeness)


def _log_ratio(first: Floats, second: Floats) -> Floats:
    return np.asarray(np.log((first + FLOOR) / (second + FLOOR)), np.float32)


def _lab(small: Pixels) -> Floats:
    """A little blurred, (h, w, 3)."""
    blurred = cv2.GaussianBlur(small, (0, 0), 0.7).astype(np.float32) / 255
    return np.asarray(cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), np.float32)


def _looks(view: View, lab: Floats, shape: Floats, core: Floats) -> dict[str, Floats]:
    """Log likelihood ratios of colour and texture.

    Those of what is in the `core` against the nearest ground; and after learning from each other, which starts from the
    log odds of a `shape` (Dempster et al.: Maximum Likelihood from Incomplete Data via the EM Algorithm, 1977).
    """
    inside = view.reach.slices
    colours = _Clusters.learnt(lab * WEIGHTS, COLOURS, 5.0, view.seed)
    textures = _Clusters.learnt(_texture(view.small, lab), TEXTURES, 4.0, view.seed)
    kinds = colours, textures
    ring = view.ring
    step = 2 if max(shape.shape) > 100 else 1
    few = [kind.thinned(view.reach, step) for kind in kinds]
    around = [0.6 / step**2 * kind.counts(ring) for kind in kinds]
    wanted, unwanted = ([kind.counts(clicks) for kind in kinds] for clicks in (view.wanted, view.unwanted))

    prior = np.ascontiguousarray(shape[::step, ::step])
    belief = sigmoid(prior)
    for _ in range(ROUNDS):
        for_object = [kind.shares(kind.counts(belief), hint) for kind, hint in zip(few, wanted, strict=True)]
        for_ground = [
            kind.shares(kind.counts(1 - belief) + more, hint)
            for kind, more, hint in zip(few, around, unwanted, strict=True)
        ]
        ratios = [_log_ratio(one, other) for one, other in zip(for_object, for_ground, strict=True)]
        colour, grain = (ratio[kind.of] for ratio, kind in zip(ratios, few, strict=True))
        belief = sigmoid(cv2.GaussianBlur(prior + 1.2 * colour + 0.5 * grain, (0, 0), 1.5 / step))

    looks = {"colour": ratios[0][colours.of[inside]], "grain": ratios[1][textures.of[inside]]}
    centre = np.zeros(ring.shape, np.float32)
    centre[inside] = core
    looks["local"] = looks["texture"] = np.zeros_like(shape)
    if ring.any():
        ground = textures.shares(textures.counts(ring), unwanted[1])
        on_object = textures.shares(textures.counts(centre), wanted[1])
        looks["texture"] = _log_ratio(on_object, ground)[textures.of[inside]]
    near = _nearest_ground(view, colours, unwanted[0])
    if near is not None:
        on_object = colours.shares(colours.counts(centre), wanted[0])
        looks["local"] = _log_ratio(on_object[colours.of[inside]], near)
    return looks


def _texture(small: Pixels, lab: Floats) -> Floats:
    """Strength and direction of the lightness gradient and mean colour, at two scales, (h, w, 10)."""
    light = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)[..., 0].astype(np.float32)
    steps = [np.abs(cv2.Sobel(light, cv2.CV_32F, 1, 0)), np.abs(cv2.Sobel(light, cv2.CV_32F, 0, 1))]
    planes: list[npt.NDArray[np.floating]] = []
    for scale in (2, 5):
        across, down = (cv2.GaussianBlur(step, (0, 0), scale) for step in steps)
        total = across + down + 4
        planes += [10 * np.log(total), 8 * (across - down) / total]
    return np.dstack([*planes, 0.25 * cv2.GaussianBlur(lab, (0, 0), 5)]).astype(np.float32)


def _nearest_ground(view: View, colours: _Clusters, unwanted: npt.NDArray[np.float64]) -> Floats | None:
    """How common each pixel's colour is beyond the sides of the box, near sides counting most; None without ground."""
    (height, width), box = view.small.shape[:2], view.reach
    across, down = _place(box)
    strips = (
        (Box(0, 0, box.left, height), (1 + across) / 2),
        (Box(box.right, 0, width, height), (1 - across) / 2),
        (Box(0, 0, width, box.top), (1 + down) / 2),
        (Box(0, box.bottom, width, height), (1 - down) / 2),
    )
    common, weights = np.zeros(across.shape, np.float32), np.zeros(across.shape, np.float32)
    for strip, away in strips:
        if strip.area < 20:
            continue
        ground = np.zeros((height, width), np.float32)
        ground[strip.slices] = 1
        weight = 1 / (away + 0.1) ** 2
        common += weight * colours.shares(colours.counts(ground), unwanted)[colours.of[box.slices]]
        weights += weight
    return common / weights if weights.any() else None


def _halved(view: View) -> tuple[Floats, Binary]:
    """Lab and the ring of a copy of half the size: distances need no more."""
    (height, width) = view.small.shape[:2]
    half = 2 if max(height, width) > 120 else 1
    size = (width + half - 1) // half, (height + half - 1) // half
    ring = cv2.resize(view.ring.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return np.asarray(cv2.resize(_lab(view.small), size, interpolation=cv2.INTER_AREA), np.float32), ring


def _in_box(view: View, halved: Floats) -> Floats:
    """The box's part of a map of half the size, at the size of the reduced copy."""
    size = view.small.shape[1], view.small.shape[0]
    return np.asarray(cv2.resize(halved, size, interpolation=cv2.INTER_LINEAR)[view.reach.slices], np.float32)


def _minimum_barrier(view: View) -> Floats:
    """The least range of Lab (sum of channels) on a path from the ring to each pixel of the box; 0 without a ring.

    Found by sweeps, a row or column at a time.
    """
    if not view.ring.any():
        return np.zeros((view.reach.height, view.reach.width), np.float32)
    lab, ring = _halved(view)
    cost = np.where(ring, 0, np.inf).astype(np.float32)
    high, low = lab.copy(), lab.copy()
    for turn in SWEEPS:
        costs, highs, lows, colours = turn(cost), turn(high), turn(low), turn(lab)
        for row in range(1, len(costs)):
            top, bottom = np.maximum(highs[row - 1], colours[row]), np.minimum(lows[row - 1], colours[row])
            barrier = (top - bottom).sum(-1)
            better = barrier < costs[row]
            costs[row][better], highs[row][better], lows[row][better] = barrier[better], top[better], bottom[better]
    return _in_box(view, np.minimum(cost, 500))


def second_look(view: View, odds: Floats) -> dict[str, Floats]:
    """Cues that need first log odds: the nearness to what is likely, and what the box holds as a whole.

    An object reaches the sides of its box: a pixel counts against the best of its row and column, unless a click has
    taken away some of them.
    """
    crossing = odds.max(1, keepdims=True) + odds.max(0, keepdims=True)
    if view.unwanted[view.reach.slices].any():
        crossing = np.full_like(odds, crossing.mean())
    level, spread = np.full_like(odds, odds.mean()), np.full_like(odds, odds.std())
    return {"nearness": _nearness(view, odds), "crossing": crossing, "level": level, "spread": spread}


def _nearness(view: View, odds: Floats) -> Floats:
    """Log of how much nearer the likeliest 15 % of the box are than the ring, on paths that shun changes of colour."""
    if not view.ring.any():
        return np.zeros_like(odds)
    lab, ring = _halved(view)
    core = np.zeros(view.small.shape[:2], np.uint8)
    core[view.reach.slices] = odds > np.quantile(odds, 0.85)
    likely = cv2.resize(core, ring.shape[::-1], interpolation=cv2.INTER_NEAREST) > 0
    from_ring, from_core = _geodesic(lab, ring), _geodesic(lab, likely)
    return np.clip(_in_box(view, np.log((from_ring + 10) / (from_core + 10))), -5, 5)


def _geodesic(lab: Floats, source: Binary) -> Floats:
    """The least sum of steps in Lab, and of half a unit a pixel, on a path from the source to each pixel."""
    away = np.where(source, 0, 1e6).astype(np.float32)
    for turn in SWEEPS:
        lengths, colours = turn(away), turn(lab)
        for row in range(1, len(lengths)):
            step = np.abs(colours[row] - colours[row - 1]).sum(-1) + 0.5
            np.minimum(lengths[row], lengths[row - 1] + step, out=lengths[row])
    return away


def _grabcut_vote(view: View, start: Binary) -> Floats:
    """GrabCut's answer, 1 object and -1 ground, times how far it fills the box; 0 where it told nothing apart.

    It starts from a first guess of the object in the box.
    """
    inside = view.reach.slices
    labels = np.full(view.small.shape[:2], cv2.GC_BGD, np.uint8)
    labels[inside] = np.where(start, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    labels[view.unwanted] = cv2.GC_BGD
    labels[view.wanted & ~view.ring] = cv2.GC_FGD
    if 10 <= np.count_nonzero(labels) <= labels.size - 10:  # enough pixels for the five colours of each model
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(view.seed & 0x7FFFFFFF)
        cv2.grabCut(view.small, labels, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    mask = tidy((labels & 1).astype(bool), view)
    share = np.count_nonzero(mask) / view.reach.area
    if not LEAST < share < MOST:
        return np.zeros((view.reach.height, view.reach.width), np.float32)
    _, _, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return np.where(mask[inside], 1, -1).astype(np.float32) * np.float32(width * height / view.reach.area)


def sigmoid(odds: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def tidy(mask: Binary, view: View) -> Binary:
    """Remove specks that are not clicked, fill small holes."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    keep = (area > 0) & (area >= 0.1 * area.max())
    keep[np.unique(parts[view.wanted & mask])] = True
    keep[0] = False
    return without_holes(keep[parts], 0.005 * mask.size) & ~view.unwanted
