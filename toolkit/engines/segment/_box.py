"""Selecting the object in a box without a model: the cues of every pixel weighed into odds, and the best mask for them.

A logistic regression on scenes with known masks gave the weights of the cues. The mask is the one with the greatest
expected IoU under the odds, smoothed by a graph cut, and that IoU is the confidence: where nothing is certain the mask
becomes the shape that objects have on average. A diagonal bar fills little of its box, so that what is learnt from the
middle of the box is mostly ground: where a bar differs from what lies on either side of it, that bar is the shape.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.engines.segment._cues import Floats, View, cues_of, second_look, sigmoid, tidy
from toolkit.engines.segment.edge import Binary, Pixels, enlarged
from toolkit.geometry import Box, Size

Points = tuple[tuple[int, int], ...]
Weights = dict[str, float]

SIDE = 320  # the longer side of the reduced copy
CONTEXT = 0.35  # of the box's side, around the box: enough ground to learn its colours
CERTAIN = 12.0  # log odds of a click
SPAN = 20.0  # of 0..255, on either side of even odds
STIFFNESS = 30.0  # of the odds against the outline's length, which GrabCut weighs 50 a pixel

# Log odds a unit of each cue, as benchmarks/fit_box.py printed them while a bar was a second proposal. "beside" is of a
# fit since; the others of that fit gain 0.005 of IoU on thin things and lose 0.002 on the rest.
FIRST_WEIGHTS = {
    "one": -0.36,
    "radius": -0.33,
    "corner": -0.19,
    "rim": -0.45,
    "low": 0.11,
    "upright": 0.15,
    "shape": 0.39,
    "odd": -0.83,
    "colour": 0.22,
    "grain": 0.04,
    "local": 0.62,
    "beside": 0.47,
    "texture": 0.37,
    "barrier": 0.47,
    "grabcut": 1.2,
}
FINAL_WEIGHTS = {
    "one": -0.09,
    "radius": -0.2,
    "corner": -0.37,
    "rim": -0.57,
    "low": 0.11,
    "upright": 0.15,
    "shape": 0.24,
    "odd": -0.36,
    "colour": 0.22,
    "grain": -0.0,
    "local": 0.59,
    "beside": 0.34,
    "texture": 0.45,
    "barrier": 0.45,
    "grabcut": 1.07,
    "nearness": 0.5,
    "crossing": -0.46,
    "level": 0.64,
    "spread": 0.83,
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


def context_for(box: Box, photo: Box) -> Box:
    """The part of `photo` that `select_box` wants to see: `box`, 35 % of it and 8 px more on each side, clipped."""
    return box.grow(round(CONTEXT * box.width) + 8, round(CONTEXT * box.height) + 8).intersect(photo)


def select_box(pixels: Pixels, box: Box, include: Points = (), exclude: Points = (), seed: int = 0) -> Selection:
    """Select the object that fills a box.

    Args:
        pixels: (h, w, 3) uint8 sRGB, the box and some ground around it; without ground the place in the box decides.
        box: of positive area, inside the crop.
        include: (x, y) pixels of the box that are selected in any case.
        exclude: (x, y) pixels that are not selected in any case.
        seed: of the clustering.

    Returns:
        A mask inside the box, never empty unless every pixel of the box is excluded. The confidence is the IoU that
        the cues lead to expect, 0.5 to 1 stretched to 0 to 1.
    """
    view = view_of(pixels, box, include, exclude, seed)
    coarse, confidence, reason = _selected(view)
    inside = enlarged(pixels, view.small, coarse)[box.slices]
    if not inside.any():
        inside, confidence, reason = np.ones_like(inside), 0.1, WHOLE
    mask = np.zeros(pixels.shape[:2], np.uint8)
    mask[box.slices] = 255 * inside
    for points, value in ((exclude, 0), (include, 255)):
        for x, y in points:
            mask[y, x] = value
    mask.flags.writeable = False
    return Selection(mask, confidence, reason)


def view_of(pixels: Pixels, box: Box, include: Points = (), exclude: Points = (), seed: int = 0) -> View:
    """The reduced copy on which `select_box` (same arguments) works."""
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

    return View(small, reach, wanted.astype(bool), unwanted.astype(bool), seed)


def _selected(view: View) -> tuple[Binary, float, str]:
    """The mask of the reduced copy, its confidence and, where that is low, the reason."""
    coarse, inside = np.zeros(view.small.shape[:2], bool), view.reach.slices
    if np.ptp(view.small[inside].reshape(-1, 3), axis=0).max() == 0:
        coarse[inside] = True
        return coarse & ~view.unwanted, 0.1, WHOLE
    best = answer(view, cues_of(view))
    confidence = round(max(0.1, 2 * best.expected - 1), 4)
    if confidence >= 0.5:
        return best.mask, confidence, ""
    return best.mask, confidence, SAME if best.told < 1 else SPLIT


@dataclass(frozen=True)
class Answer:
    """The mask of the reduced copy, its expected IoU, and how much colour and texture told."""

    mask: Binary
    expected: float
    told: float


def answer(
    view: View, cues: dict[str, Floats], first: Weights = FIRST_WEIGHTS, final: Weights = FINAL_WEIGHTS
) -> Answer:
    """The best mask for the cues under given weights."""
    inside = view.reach.slices
    cues = {**cues, **second_look(view, weighed(cues, first))}
    odds = weighed(cues, final)
    odds[view.wanted[inside]], odds[view.unwanted[inside]] = CERTAIN, -CERTAIN
    mask = np.zeros(view.small.shape[:2], bool)
    mask[inside] = _cut(view, odds - _most_expected(odds))
    mask = tidy(mask, view)
    told = np.abs(np.sum([final[name] * cues[name] for name in LOOKS], axis=0)).mean()
    return Answer(mask, _expected_overlap(odds, mask[inside]), float(told))


def weighed(cues: dict[str, Floats], weights: Weights) -> Floats:
    """Log odds of the object: the sum of the cues that have weights."""
    return np.asarray(sum(weights[name] * cues[name] for name in weights), np.float32)


def _most_expected(odds: Floats) -> float:
    """The threshold on the log odds whose mask has the greatest expected IoU."""
    ordered = np.sort(odds.ravel())[::-1]
    sums = np.cumsum(sigmoid(ordered), dtype=np.float64)
    expected = sums / (np.arange(1, len(sums) + 1) + sums[-1] - sums)
    return float(ordered[expected.argmax()])


def _expected_overlap(odds: Floats, chosen: Binary) -> float:
    """The IoU to be expected of a mask of the box, were the odds true and pixels independent."""
    chance = sigmoid(odds)
    both = float(chance[chosen].sum())
    return both / max(1e-9, float(np.count_nonzero(chosen)) + float(chance[~chosen].sum()))


def _cut(view: View, odds: Floats) -> Binary:
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
    labels[view.unwanted] = cv2.GC_BGD
    labels[view.wanted & ~view.ring] = cv2.GC_FGD
    cv2.grabCut(channels, labels, (0, 0, 1, 1), model(0), model(2 * SPAN), 1, cv2.GC_EVAL_FREEZE_MODEL)
    return np.asarray(labels[inside] & 1, bool)
