"""Selecting the object in a box without a model: the cues of every pixel weighed into odds, and the best mask for them.

The cues: colour and texture against the ring around the box (histograms over clusters, after Tang et al.: Grabcut in
One Cut, 2013), the place in the box (Lempitsky et al.: Image Segmentation with a Bounding Box Prior, 2009), the
minimum barrier distance from the ring (Zhang et al.: Minimum Barrier Salient Object Detection at 80 FPS, 2015) and
GrabCut (Rother et al., 2004). A logistic regression on photos with known masks gave their weights.
The mask is the one with the greatest expected IoU under these odds, and that IoU is the confidence: where nothing is
certain the mask becomes the shape that objects have on average.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.engines.segment.edge import Binary, Pixels, enlarged, without_holes
from toolkit.geometry import Box, Size

Points = tuple[tuple[int, int], ...]
Floats = npt.NDArray[np.float32]

SIDE = 320  # the longer side of the reduced copy
COLOURS, TEXTURES = 48, 32  # clusters
SAMPLES = 5000  # pixels the clusters are learnt from
FLOOR = 0.004  # share below which a histogram's bin says nothing
HINT = 0.3  # share of a histogram that the clicks make up
LEAST, MOST = 0.04, 0.98  # shares of the box; a mask beyond them has told nothing apart
CERTAIN = 12.0  # log odds of a click
SPAN = 20.0  # of 0..255, on either side of even odds
STIFFNESS = 30.0  # of the odds against the outline's length, which GrabCut weighs 50 a pixel

# Log odds a unit of each cue; regressions on photos with known masks, among them camouflaged and occluded objects.
FIRST_WEIGHTS = {
    "one": 0.06,
    "radius": -0.45,
    "corner": -0.09,
    "rim": -0.49,
    "low": -0.11,
    "upright": 0.17,
    "local": 0.30,
    "colour": 0.17,
    "texture": 0.14,
    "grain": 0.50,
    "barrier": 0.44,
    "grabcut": 1.12,
}
FINAL_WEIGHTS = {
    "one": -0.34,
    "radius": 0.26,
    "corner": -1.06,
    "rim": -0.36,
    "low": -0.19,
    "upright": 0.20,
    "local": 0.33,
    "colour": 0.11,
    "texture": 0.18,
    "grain": 0.36,
    "barrier": 0.44,
    "grabcut": 0.98,
    "nearness": 0.28,
}
LOOKS = "local", "colour", "texture", "grain"  # the cues of colour and texture
WHOLE = "nothing in the box tells the object from its background, so the whole box was taken"
SAME = "the object and its background have the same colours and textures"
SPLIT = "the colours, the texture and the place in the box disagree about the outline"


@dataclass(frozen=True)
class Selection:
    """What was selected in a crop.

    Attributes:
        mask: (h, w) uint8, 255 = selected, 0 = not; as large as the crop.
        confidence: 0..1, higher is better, a score and no probability; at most 0.2 where a plain shape stands in.
        reason: one short sentence when the confidence is below 0.5, else "".
    """

    mask: Pixels
    confidence: float
    reason: str


def select_box(pixels: Pixels, box: Box, include: Points = (), exclude: Points = (), seed: int = 0) -> Selection:
    """Select the object that fills a box.

    Args:
        pixels: (h, w, 3) uint8 sRGB, the box and some ground around it; without ground the place in the box decides.
        box: of positive area, inside the crop.
        include: (x, y) pixels of the box that are selected in any case.
        exclude: (x, y) pixels that are not selected in any case.
        seed: of the clustering.

    Returns:
        A mask inside the box, never empty unless every pixel of the box is excluded.
    """
    height, width = pixels.shape[:2]
    factor = min(1.0, SIDE / max(height, width))
    size = Size(max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
    x_scale, y_scale = size.width / width, size.height / height
    left, top = int(box.left * x_scale), int(box.top * y_scale)
    right, bottom = math.ceil(box.right * x_scale), math.ceil(box.bottom * y_scale)
    reach = Box(left, top, max(left + 1, right), max(top + 1, bottom)).intersect(Box.of_size(size))

    wanted, unwanted = np.zeros(small.shape[:2], np.uint8), np.zeros(small.shape[:2], np.uint8)
    radius = max(1, round(0.012 * max(size)))
    for points, discs in ((exclude, unwanted), (include, wanted)):
        for x, y in points:
            cv2.circle(discs, (int(x * x_scale), int(y * y_scale)), radius, 1, -1)
    unwanted[wanted > 0] = 0

    view = _View(small, reach, wanted.astype(bool), unwanted.astype(bool), seed)
    coarse, confidence, reason = _selected(view)
    inside = enlarged(pixels, small, coarse)[box.slices]
    mask = np.zeros((height, width), np.uint8)
    mask[box.slices] = 255 * (inside if inside.any() else np.ones_like(inside))
    for points, value in ((exclude, 0), (include, 255)):
        for x, y in points:
            mask[y, x] = value
    mask.flags.writeable = False
    return Selection(mask, confidence, reason)


def _selected(view: _View) -> tuple[Binary, float, str]:
    """The mask of the reduced copy, its confidence and, where that is low, the reason."""
    coarse, inside = np.zeros(view.small.shape[:2], bool), view.reach.slices
    if np.ptp(view.small[inside].reshape(-1, 3), axis=0).max() == 0:
        coarse[inside] = True
        return coarse & ~view.unwanted, 0.1, WHOLE
    cues = _cues(view)
    odds = np.asarray(sum(FIRST_WEIGHTS[name] * cue for name, cue in cues.items()), np.float32)
    cues["nearness"] = _nearness(view, odds)
    odds = np.asarray(sum(FINAL_WEIGHTS[name] * cue for name, cue in cues.items()), np.float32)
    odds[view.wanted[inside]], odds[view.unwanted[inside]] = CERTAIN, -CERTAIN
    coarse[inside] = _cut(view, odds - _most_expected(odds))
    coarse = _tidy(coarse, view)
    confidence = round(max(0.1, 2 * _expected_overlap(odds, coarse[inside]) - 1), 4)
    if confidence >= 0.5:
        return coarse, confidence, ""
    told = np.abs(np.sum([FINAL_WEIGHTS[name] * cues[name] for name in LOOKS], axis=0)).mean()
    return coarse, confidence, SAME if told < 1 else SPLIT


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
class _View:
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


def _cues(view: _View) -> dict[str, Floats]:
    """What speaks for the object at each pixel of the box, (height, width) float32 each."""
    across, down = _place(view.reach)
    squares = across**2 + down**2
    barrier = _minimum_barrier(view)
    vote = _grabcut_vote(view)
    return {
        "one": np.ones_like(squares),
        "radius": squares,
        "corner": across**2 * down**2,
        "rim": across**4 + down**4,
        "low": down,
        "upright": down**2 - across**2,
        **_likelihoods(view),
        "barrier": np.log1p(barrier / 20),
        "grabcut": vote,
    }


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

    def histogram(self, weight: npt.NDArray[np.generic]) -> Floats:
        """The shares of the clusters under (h, w) weights, smoothed; zeros where nothing weighs."""
        counts = self.likeness @ np.bincount(self.of.ravel(), weight.ravel(), len(self.likeness))
        return np.asarray(counts / max(1e-9, counts.sum()), np.float32)


def _log_ratio(first: Floats, second: Floats) -> Floats:
    return np.asarray(np.log((first + FLOOR) / (second + FLOOR)), np.float32)


def _likelihoods(view: _View) -> dict[str, Floats]:
    """Log likelihood ratios of colour and texture: against the nearest ground, and after learning from each other."""
    inside = view.reach.slices
    across, down = _place(view.reach)
    blurred = cv2.GaussianBlur(view.small, (0, 0), 0.7).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), np.float32)
    colours = _Clusters.learnt(lab * np.array([0.8, 1.3, 1.3], np.float32), COLOURS, 5.0, view.seed)
    textures = _Clusters.learnt(_texture(view.small, lab), TEXTURES, 4.0, view.seed)
    ring = view.ring

    centre = np.zeros(ring.shape, np.float32)
    centre[inside] = np.exp(-2.2 * (across**2 + down**2))
    centre = _hinted(centre, view.wanted)
    nothing = np.zeros(across.shape, np.float32)
    texture = nothing
    if ring.any():
        ground = _hinted(ring.astype(np.float32), view.unwanted)
        texture = _log_ratio(textures.histogram(centre), textures.histogram(ground))[textures.of[inside]]
    near = _nearest_ground(view, colours)
    local = nothing if near is None else _log_ratio(colours.histogram(centre)[colours.of[inside]], near)

    squares = across**2 + down**2
    prior = 0.8 * (1.6 - 2.6 * squares + 0.5 * across**2 * down**2)
    belief = _sigmoid(prior / 0.8)
    for _ in range(6):
        for_object, for_ground = np.zeros(ring.shape, np.float32), 0.6 * ring.astype(np.float32)
        for_object[inside], for_ground[inside] = belief, 1 - belief
        for_object, for_ground = _hinted(for_object, view.wanted), _hinted(for_ground, view.unwanted)
        colour, grain = (
            _log_ratio(kind.histogram(for_object), kind.histogram(for_ground))[kind.of[inside]]
            for kind in (colours, textures)
        )
        belief = _sigmoid(cv2.GaussianBlur(prior + 1.2 * colour + 0.5 * grain, (0, 0), 1.5))
    return {"local": local, "colour": colour, "texture": texture, "grain": grain}


def _hinted(weight: Floats, clicked: Binary) -> Floats:
    """Weights of a histogram of which the clicked pixels, if any, make up a fixed part."""
    number = int(np.count_nonzero(clicked))
    share = HINT / (1 - HINT) * float(weight.sum()) / max(1, number)
    return np.asarray(weight + share * clicked, np.float32)


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


def _nearest_ground(view: _View, colours: _Clusters) -> Floats | None:
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
        common += weight * colours.histogram(_hinted(ground, view.unwanted))[colours.of[box.slices]]
        weights += weight
    return common / weights if weights.any() else None


def _halved(view: _View) -> tuple[Floats, Binary]:
    """Lab and the ring of a copy of half the size: distances need no more."""
    (height, width) = view.small.shape[:2]
    half = 2 if max(height, width) > 120 else 1
    size = (width + half - 1) // half, (height + half - 1) // half
    blurred = cv2.GaussianBlur(view.small, (0, 0), 0.7).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(blurred, cv2.COLOR_RGB2LAB), np.float32)
    ring = cv2.resize(view.ring.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
    return np.asarray(cv2.resize(lab, size, interpolation=cv2.INTER_AREA), np.float32), ring


def _in_box(view: _View, halved: Floats) -> Floats:
    """The box's part of a map of half the size, at the size of the reduced copy."""
    size = view.small.shape[1], view.small.shape[0]
    return np.asarray(cv2.resize(halved, size, interpolation=cv2.INTER_LINEAR)[view.reach.slices], np.float32)


def _minimum_barrier(view: _View) -> Floats:
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


def _nearness(view: _View, odds: Floats) -> Floats:
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


def _grabcut_vote(view: _View) -> Floats:
    """GrabCut's answer, 1 object and -1 ground, times how far it fills the box; 0 where it told nothing apart."""
    inside = view.reach.slices
    labels = np.full(view.small.shape[:2], cv2.GC_BGD, np.uint8)
    labels[inside] = cv2.GC_PR_FGD
    labels[view.unwanted] = cv2.GC_BGD
    labels[view.wanted & ~view.ring] = cv2.GC_FGD
    if 10 <= np.count_nonzero(labels) <= labels.size - 10:  # enough pixels for the five colours of each model
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(view.seed & 0x7FFFFFFF)
        cv2.grabCut(view.small, labels, (0, 0, 1, 1), *models, 3, cv2.GC_INIT_WITH_MASK)
    mask = _tidy((labels & 1).astype(bool), view)
    share = np.count_nonzero(mask) / view.reach.area
    if not LEAST < share < MOST:
        return np.zeros((view.reach.height, view.reach.width), np.float32)
    _, _, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return np.where(mask[inside], 1, -1).astype(np.float32) * np.float32(width * height / view.reach.area)


def _sigmoid(odds: npt.NDArray[np.floating]) -> Floats:
    return np.asarray(1 / (1 + np.exp(-odds)), np.float32)


def _most_expected(odds: Floats) -> float:
    """The threshold on the log odds whose mask has the greatest expected IoU."""
    ordered = np.sort(odds.ravel())[::-1]
    sums = np.cumsum(_sigmoid(ordered), dtype=np.float64)
    expected = sums / (np.arange(1, len(sums) + 1) + sums[-1] - sums)
    return float(ordered[expected.argmax()])


def _expected_overlap(odds: Floats, chosen: Binary) -> float:
    """The IoU to be expected of a mask of the box, were the odds true and pixels independent."""
    chance = _sigmoid(odds)
    both = float(chance[chosen].sum())
    return both / max(1e-9, float(np.count_nonzero(chosen)) + float(chance[~chosen].sum()))


def _cut(view: _View, odds: Floats) -> Binary:
    """The mask of the box that agrees with the log odds and whose outline is short or follows edges: a graph cut.

    OpenCV has no other than GrabCut's. Its colour models are given and frozen here: two Gaussians in the first channel,
    which carries the odds, so that their difference is STIFFNESS times the odds; the other two are the main colours.
    """
    (height, width), inside = view.small.shape[:2], view.reach.slices
    if min(height, width) < 3:
        return odds > 0
    lab = cv2.cvtColor(view.small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    lab -= lab.mean(0)
    main = lab @ np.linalg.eigh(lab.T @ lab)[1][:, :0:-1]
    channels = np.zeros((height, width, 3), np.uint8)
    channels[..., 1:] = np.clip(main + 128, 0, 255).reshape(height, width, 2)
    channels[inside][..., 0] = np.rint((np.clip(odds / 4, -1, 1) + 1) * SPAN)

    def model(mean: float) -> npt.NDArray[np.float64]:  # 5 weights, 5 means, 5 covariances; only the first counts
        spread = np.eye(3).ravel()
        first = np.diag([SPAN**2 / (2 * STIFFNESS), 1e8, 1e8]).ravel()
        return np.hstack([1, np.zeros(4), mean, 128, 128, np.zeros(12), first, *[spread] * 4])[None]

    labels = np.full((height, width), cv2.GC_BGD, np.uint8)
    labels[inside] = np.where(odds > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    cv2.grabCut(channels, labels, (0, 0, 1, 1), model(0), model(2 * SPAN), 1, cv2.GC_EVAL_FREEZE_MODEL)
    return np.asarray(labels[inside] & 1, bool)


def _tidy(mask: Binary, view: _View) -> Binary:
    """Remove specks that are not clicked, fill small holes."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    keep = (area > 0) & (area >= 0.1 * area.max())
    keep[np.unique(parts[view.wanted & mask])] = True
    keep[0] = False
    return without_holes(keep[parts], 0.005 * mask.size) & ~view.unwanted
