"""Selecting an object from clicks without a model: several GrabCuts on a small copy, the edge at full size.

An object in a box is `_box`'s.

Source: Rother, Kolmogorov, Blake: GrabCut, 2004 (OpenCV's).
Pure functions of arrays; the only state touched is OpenCV's random generator of the calling thread, which is seeded
before each use, so the same call gives the same mask in any process.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.engines.segment._box import Selection as Selection  # also the name callers use
from toolkit.engines.segment._box import select_box
from toolkit.engines.segment.edge import Binary, Pixels, enlarged, without_holes
from toolkit.errors import ParameterError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask

Points = tuple[tuple[int, int], ...]

SIDE = 320  # the longer side GrabCut works at
ITERATIONS = 3
CLICK_REACHES = 3, 9, 16  # of the disc around a click, 1.2 % of the longer side
CONTEXT = 0.35  # of the box's side, around the box: enough ground to learn its colours
FREE = 255  # not a GrabCut label: no click here
MOST = 0.98  # share of the photo; a larger mask has told nothing apart


@dataclass(frozen=True)
class _Found:
    """One object in a part of the crop: its mask at that part's size and how far it can be trusted."""

    mask: Binary
    confidence: float
    reason: str


def context_for(box: Box, photo: Box) -> Box:
    """The part of `photo` that `select` wants to see around `box`: 35 % of the box and 8 px on each side, clipped.

    For clicks alone it wants the whole photo.
    """
    return box.grow(round(CONTEXT * box.width) + 8, round(CONTEXT * box.height) + 8).intersect(photo)


def select(pixels: Pixels, boxes: tuple[Box, ...], include: Points, exclude: Points, seed: int = 0) -> Selection:
    """Select the objects that boxes and clicks point at.

    Args:
        pixels: (h, w, 3) uint8 sRGB, a crop of the photo (see `context_for`).
        boxes: one object each, in the crop's pixels; parts outside the crop are ignored. The mask of a box stays in it.
        include: (x, y) pixels that are selected in any case. Those in no box select an object by themselves.
        exclude: (x, y) pixels that are not selected in any case.
        seed: of the colour clustering.

    Returns:
        The union of all objects; the confidence is that of the least certain one.

    Raises:
        ParameterError: when the array has another form, nothing is pointed at, a box lies outside, a click lies
            outside, or a pixel is both included and excluded.
    """
    _check(pixels, boxes, include, exclude)
    frame = Box.of_size((pixels.shape[1], pixels.shape[0]))
    mask = np.zeros(pixels.shape[:2], np.uint8)
    found = []

    def look(window: Box, box: Box | None, clicks: Points) -> _Found:
        def here(points: Points) -> Points:
            return tuple((x - window.left, y - window.top) for x, y in points if _holds(window, x, y))

        part = np.ascontiguousarray(pixels[window.slices])
        if box is None:
            return _object(part, here(clicks), here(exclude), seed)
        one = select_box(part, box.within(window), here(clicks), here(exclude), seed)
        return _Found(one.mask > 0, one.confidence, one.reason)

    for box in (box.intersect(frame) for box in boxes):
        window = context_for(box, frame)
        found.append((window, look(window, box, tuple(p for p in include if _holds(box, *p)))))
    loose = tuple(p for p in include if not any(_holds(box, *p) for box in boxes))
    if loose:
        window, one = frame, look(frame, None, loose)
        nearer = context_for(_bounds(one.mask), frame)
        if 4 * nearer.area < frame.area:  # a small object: look again from near
            window, one = nearer, look(nearer, None, loose)
        found.append((window, one))

    for window, one in found:
        mask[window.slices][one.mask] = 255
    for points, value in ((exclude, 0), (include, 255)):
        for x, y in points:
            mask[y, x] = value
    mask.flags.writeable = False
    worst = min((one for _, one in found), key=lambda one: one.confidence)
    return Selection(mask, worst.confidence, worst.reason)


def _check(pixels: Pixels, boxes: tuple[Box, ...], include: Points, exclude: Points) -> None:
    if pixels.ndim != 3 or pixels.shape[2] != 3 or pixels.dtype != np.uint8 or not pixels.size:
        raise ParameterError(f"pixels: must be (h, w, 3) uint8, got {pixels.shape} {pixels.dtype}")
    frame = Box.of_size((pixels.shape[1], pixels.shape[0]))
    if not boxes and not include:
        raise ParameterError("nothing to select: give a box, or a click on the object")
    for box in boxes:
        if box.checked().intersect(frame).is_empty:
            raise ParameterError(f"box {box}: lies outside the {frame.size} pixels given")
    for x, y in (*include, *exclude):
        if not _holds(frame, x, y):
            raise ParameterError(f"click {x},{y}: lies outside the {frame.size} pixels given")
    for x, y in set(include) & set(exclude):
        raise ParameterError(f"click {x},{y}: is both included and excluded")


def _object(part: Pixels, include: Points, exclude: Points, seed: int) -> _Found:
    """Select the object under the clicks."""
    height, width = part.shape[:2]
    factor = min(1.0, SIDE / max(height, width))
    size = Size(max(1, round(width * factor)), max(1, round(height * factor)))
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    x_scale, y_scale = size.width / width, size.height / height

    clicked = np.full(small.shape[:2], FREE, np.uint8)
    radius = max(1, round(0.012 * max(size)))
    for points, label in ((exclude, cv2.GC_BGD), (include, cv2.GC_FGD)):
        for x, y in points:
            cv2.circle(clicked, (int(x * x_scale), int(y * y_scale)), radius, label, -1)

    starts = _click_starts(clicked, radius)
    masks = [_tidy(_grabcut(small, labels, seed), clicked) for labels in starts]
    mask, confidence, reason = _judge(small, starts, masks, Box.of_size(size), clicked)
    return _Found(enlarged(part, small, mask), confidence, reason)


def _click_starts(clicked: Pixels, radius: int) -> list[Pixels]:
    """First guesses for clicks: what lies within a near or a wider distance of them is probably the object."""
    starts = []
    for reach in CLICK_REACHES:
        labels = np.where(_near_clicks(clicked, reach * radius), cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
        starts.append(np.where(clicked == FREE, labels, clicked))
    return starts


def _near_clicks(clicked: Pixels, distance: float) -> Binary:
    away = cv2.distanceTransform((clicked != cv2.GC_FGD).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    return np.asarray(away <= distance)


def _grabcut(small: Pixels, labels: Pixels, seed: int) -> Binary:
    """Run GrabCut; the guess itself comes back where a class has too few pixels for its five colours."""
    labels = labels.copy()
    if 10 <= _count(labels & 1) <= labels.size - 10:
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.setRNGSeed(seed & 0x7FFFFFFF)
        cv2.grabCut(small, labels, (0, 0, 1, 1), models[0], models[1], ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return (labels & 1).astype(bool)


def _tidy(mask: Binary, clicked: Pixels) -> Binary:
    """Remove specks, keep what is clicked, fill small holes."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    keep = (area > 0) & (area >= 0.1 * area.max())
    chosen = np.unique(parts[(clicked == cv2.GC_FGD) & mask])
    if chosen.size:
        keep[:] = False
        keep[chosen] = True
    mask = without_holes(keep[parts], 0.005 * mask.size)
    mask[clicked == cv2.GC_BGD] = False
    return mask


def _judge(
    small: Pixels, starts: list[Pixels], masks: list[Binary], reach: Box, clicked: Pixels
) -> tuple[Binary, float, str]:
    """Pick the best of the masks; return it with its confidence and, where that is low, the reason."""
    usable = [
        mask
        for mask, labels in zip(masks, starts, strict=True)
        if _count(mask) <= MOST * reach.area
        and _count(mask) > 1.1 * _count(labels == cv2.GC_FGD)  # it grew beyond what was dictated
    ]
    if not usable:
        return _disc(clicked)
    lab = np.asarray(cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.7), cv2.COLOR_RGB2LAB), np.uint8)

    def score(mask: Binary) -> float:
        return math.prod(_signals(lab, mask, masks, reach).values())

    best = max(usable, key=score)
    signals = _signals(lab, best, masks, reach)
    confidence = round(math.sqrt(math.prod(signals.values())), 4)
    return best, confidence, "" if confidence >= 0.5 else min(signals, key=lambda reason: signals[reason])


def _signals(lab: Pixels, mask: Binary, masks: list[Binary], reach: Box) -> dict[str, float]:
    """Causes for doubt, each with 0 (grave) to 1 (none)."""
    overlaps = [_count(mask & other) / max(1, _count(mask | other)) for other in masks]
    return {
        "different starts gave different outlines": (sum(overlaps) - 1) / (len(overlaps) - 1),
        "there is hardly an edge along the outline": _contrast(lab.astype(np.float32), mask),
        "the object and its background have the same colours": _separation(lab, mask),
        "the selection runs along the border of the box or photo": 1 - _cut(mask, reach),
    }


def _contrast(lab: npt.NDArray[np.float32], mask: Binary) -> float:
    """Mean colour step across the outline, 0..1; 1 from 30 units of OpenCV's 8-bit Lab on."""
    weight = mask.astype(np.float32)
    inner, outer = cv2.blur(weight, (7, 7)), cv2.blur(1 - weight, (7, 7))
    outline = (inner > 0.3) & (outer > 0.3)
    if not outline.any():
        return 0.0
    inside = cv2.blur(lab * weight[..., None], (7, 7))[outline] / inner[outline, None]
    outside = cv2.blur(lab * (1 - weight)[..., None], (7, 7))[outline] / outer[outline, None]
    step = np.linalg.norm(inside - outside, axis=1)
    return float(np.minimum(step / 30, 1).mean())


def _separation(lab: Pixels, mask: Binary) -> float:
    """1 minus the common part of the colour histograms (8 x 8 x 8) inside and outside the mask."""
    colour = (lab // 32).astype(np.intp) @ np.array([64, 8, 1])
    inside, outside = (np.bincount(colour[part], minlength=512) / max(1, _count(part)) for part in (mask, ~mask))
    return float(1 - np.minimum(inside, outside).sum())


def _cut(mask: Binary, reach: Box) -> float:
    """The share of the box's sides along which the mask lies: ground taken with the object, or an object cut off."""
    part = mask[reach.slices]
    return float(np.concatenate((part[0], part[-1], part[:, 0], part[:, -1])).mean())


def _disc(clicked: Pixels) -> tuple[Binary, float, str]:
    """What stands in when no start told an object from its ground."""
    disc = _near_clicks(clicked, 0.05 * max(clicked.shape)) & (clicked != cv2.GC_BGD)
    return disc, 0.1, "nothing around the click stands out, so a disc around it was taken"


def _count(mask: npt.NDArray[np.generic]) -> int:
    return int(np.count_nonzero(mask))


def _bounds(mask: Binary) -> Box:
    """The smallest box around the mask; empty for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Box(left, top, left + width, top + height)


def _holds(box: Box, x: int, y: int) -> bool:
    return box.left <= x < box.right and box.top <= y < box.bottom


class Engine:
    """The adapter: one selection a box, and one for the clicks that lie in no box."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        """Nothing is prepared: every selection starts from the pixels."""
        return self._card.revision

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        """A region for each box, and one for the clicks outside all boxes; clicks inside a box refine it.

        Raises:
            ParameterError: when a click is both included and excluded.
        """
        regions = []
        loose = [p for p in prompts.include if not any(_holds(box, *p) for box in prompts.boxes)]
        for number, box in enumerate(prompts.boxes):
            inside = [p for p in prompts.include if _holds(box, *p)]
            name = f"select {number + 1} of {len(prompts.boxes)}"
            crop = context_for(box, picture.box)
            regions.append(self._region(picture, crop, (box,), inside, prompts.exclude, run, name))
        if loose:
            regions.append(self._region(picture, picture.box, (), loose, prompts.exclude, run, "select"))
        return Found(tuple(regions))

    @staticmethod
    def _region(
        picture: Picture, crop: Box, boxes: tuple[Box, ...], include: Sequence[tuple[int, int]],
        exclude: Sequence[tuple[int, int]], run: EngineRun, name: str,
    ) -> Region:  # fmt: skip
        def moved(points: Sequence[tuple[int, int]]) -> Points:
            return tuple((x - crop.left, y - crop.top) for x, y in points if _holds(crop, x, y))

        found = run.compute(
            select, picture.srgb(crop), tuple(box.within(crop) for box in boxes), moved(include), moved(exclude), 0,
            name=name,
        )  # fmt: skip
        mask = Mask.from_array(found.mask, picture.box, (crop.left, crop.top))
        return Region(mask.box, "", found.confidence, mask, found.reason)
