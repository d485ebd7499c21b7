"""The cues that tell an object in a box from its ground, pixel by pixel.

Colour and texture against the ring around the box, as histograms over clusters (after Tang et al.: Grabcut in One Cut,
2013), the place in the box (after Lempitsky et al.: Image Segmentation with a Bounding Box Prior, 2009), the minimum
barrier distance from the ring (Zhang et al.: Minimum Barrier Salient Object Detection at 80 FPS, 2015), geodesic
distances (Bai, Sapiro: A Geodesic Framework, 2007) and GrabCut (Rother et al., 2004).
"""

from __future__ import annotations

from collections.abc import Iterator
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
FILLED = "filled"
MARGIN = 0.03  # nats a pixel of the box by which another shape has to explain it better than a filled one
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


def proposals(view: View) -> list[dict[str, Floats]]:
    """What speaks for the object at each pixel of the box, (height, width) float32 each cue, for each likely shape.

    The first supposes a filled object, a second a bar along a diagonal where that explains the colours better.
    """
    across, down = _place(view.reach)
    squares = across**2 + down**2
    barrier = np.log1p(_minimum_barrier(view) / 20)
    found = []
    for name, odds, looks in _shaped_looks(view):
        oval = np.float32(name == FILLED)
        found.append(
            {
                "one": np.ones_like(squares),
                "radius": oval * squares,
                "corner": oval * across**2 * down**2,
                "rim": oval * (across**4 + down**4),
                "low": oval * down,
                "upright": oval * (down**2 - across**2),
                "shape": (1 - oval) * odds,
                "odd": np.full_like(squares, 1 - oval),
                **looks,
                "barrier": barrier,
                "grabcut": _grabcut_vote(view, odds > (-np.inf if oval else 0)),
            }
        )
    return found


def _shapes(across: Floats, down: Floats) -> dict[str, Floats]:
    """Log odds of the object at each place of the box, were it filled, or a bar along a diagonal."""
    squares = across**2 + down**2
    shapes = {FILLED: 0.8 * (1.6 - 2.6 * squares + 0.5 * across**2 * down**2)}
    for name, lean in (("falling", 1), ("rising", -1)):
        away = np.abs(across - lean * down) / 2
        for width in (0.1, 0.28):
            shapes[f"{name} {width}"] = 1.5 - 1.5 * (away / width) ** 2
    return {name: np.clip(odds, -3, 2).astype(np.float32) for name, odds in shapes.items()}


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


def _shaped_looks(view: View) -> Iterator[tuple[str, Floats, dict[str, Floats]]]:
    """Likely shapes: their names, log odds by place, and log likelihood ratios of colour and texture under them.

    The ratios are against the nearest ground, and after learning from each other, which starts from the shape. A shape
    is likely where the models learnt from it explain the colours of the box and the ring well (Dempster et al.: Maximum
    Likelihood from Incomplete Data via the EM Algorithm, 1977).
    """
    inside = view.reach.slices
    across, down = _place(view.reach)
    blurred = cv2.GaussianBlur(view.small, (0, 0), 0.7).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), np.float32)
    colours = _Clusters.learnt(lab * np.array([0.8, 1.3, 1.3], np.float32), COLOURS, 5.0, view.seed)
    textures = _Clusters.learnt(_texture(view.small, lab), TEXTURES, 4.0, view.seed)
    kinds = colours, textures
    ring = view.ring
    step = 2 if max(across.shape) > 100 else 1
    few = [kind.thinned(view.reach, step) for kind in kinds]
    around = [0.6 / step**2 * kind.counts(ring) for kind in kinds]
    wanted, unwanted = ([kind.counts(clicks) for kind in kinds] for clicks in (view.wanted, view.unwanted))

    shapes = _shapes(across, down)
    tables, evidence = {}, {}
    for name, odds in shapes.items():
        prior = np.ascontiguousarray(odds[::step, ::step])
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
        chance, on_object, on_ground = sigmoid(prior), for_object[0] + FLOOR, for_ground[0] + FLOOR
        explained = np.log(chance * on_object[few[0].of] + (1 - chance) * on_ground[few[0].of]).sum()
        explained += float(colours.counts(ring) @ np.log(on_ground)) / step**2
        tables[name], evidence[name] = ratios, float(explained) / belief.size
    other = max((name for name in shapes if name != FILLED), key=evidence.__getitem__)
    near = _nearest_ground(view, colours, unwanted[0])
    for name in (FILLED, other) if evidence[other] > evidence[FILLED] + MARGIN else (FILLED,):
        first, second = tables[name]
        looks = {"colour": first[colours.of[inside]], "grain": second[textures.of[inside]]}
        centre = np.zeros(ring.shape, np.float32)
        centre[inside] = np.exp(-2.2 * (across**2 + down**2)) if name == FILLED else sigmoid(shapes[name])
        looks["local"] = looks["texture"] = np.zeros(across.shape, np.float32)
        if ring.any():
            ground = textures.shares(textures.counts(ring), unwanted[1])
            on_object = textures.shares(textures.counts(centre), wanted[1])
            looks["texture"] = _log_ratio(on_object, ground)[textures.of[inside]]
        if near is not None:
            on_object = colours.shares(colours.counts(centre), wanted[0])
            looks["local"] = _log_ratio(on_object[colours.of[inside]], near)
        yield name, shapes[name], looks


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
    blurred = cv2.GaussianBlur(view.small, (0, 0), 0.7).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), np.float32)
    ring = cv2.resize(view.ring.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return np.asarray(cv2.resize(lab, size, interpolation=cv2.INTER_AREA), np.float32), ring


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
