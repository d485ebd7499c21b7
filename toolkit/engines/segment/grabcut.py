"""Selecting an object without a model: from a box by several GrabCuts on a small copy, from clicks by `_clicks`.

Source: Rother, Kolmogorov, Blake: GrabCut, 2004 (OpenCV's).
Pure functions of arrays; the only state touched is OpenCV's random generator of the calling thread, which is seeded
before each use, so the same call gives the same mask in any process.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.engines.segment._clicks import State, Step, select_clicks
from toolkit.engines.segment._scene import Scene, reduced, scene_of
from toolkit.engines.segment.edge import Binary, Pixels, enlarged, without_holes
from toolkit.errors import EngineError, ParameterError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask

Points = tuple[tuple[int, int], ...]

SIDE = 320  # the longer side GrabCut works at
ITERATIONS = 3
REMEMBERED = 4  # pictures whose scene is kept, about 20 MB each
STATES = 200  # kept of each: about 15 KB a state
CONTEXT = 0.35  # of the box's side, around the box: enough ground to learn its colours
NOTHING = "no object stands out in the box, so a plain shape that fills it was taken"
WHOLE = "nothing in the box tells the object from its background, so the whole box was taken"
FREE = 255  # not a GrabCut label: no click here
LEAST, MOST = 0.04, 0.98  # shares of the box; a mask beyond them has told nothing apart


@dataclass(frozen=True)
class Selection:
    """What was selected in a crop.

    Attributes:
        mask: (h, w) uint8, 255 = selected, 0 = not; as large as the crop.
        confidence: 0..1, higher is better, a score and no probability; 0.1 where a plain shape stands in.
        reason: one short sentence when the confidence is below 0.5, else "".
    """

    mask: Pixels
    confidence: float
    reason: str


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

    def look(window: Box, box: Box, clicks: Points) -> _Found:
        def here(points: Points) -> Points:
            return tuple((x - window.left, y - window.top) for x, y in points if _holds(window, x, y))

        return _object(pixels[window.slices], box.within(window), here(clicks), here(exclude), seed)

    def part_of(window: Box) -> Pixels:
        return pixels[window.slices]

    for box in (box.intersect(frame) for box in boxes):
        window = context_for(box, frame)
        found.append((window, look(window, box, tuple(p for p in include if _holds(box, *p)))))
    loose = tuple(p for p in include if not any(_holds(box, *p) for box in boxes))
    if loose:
        clicked = select_clicks(scene_of(reduced(part_of, frame.size)), part_of, frame.size, loose, exclude)
        found.append((clicked.box, _Found(clicked.values > 0, clicked.confidence, clicked.reason)))

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


def _object(part: Pixels, box: Box, include: Points, exclude: Points, seed: int) -> _Found:
    """Select the object in a box."""
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

    left, top = int(box.left * x_scale), int(box.top * y_scale)
    right, bottom = math.ceil(box.right * x_scale), math.ceil(box.bottom * y_scale)
    reach = Box(left, top, max(left + 1, right), max(top + 1, bottom))
    starts = _box_starts(clicked, reach)
    masks = [_tidy(_grabcut(small, labels, seed), clicked) for labels in starts]
    mask, confidence, reason = _judge(small, starts, masks, reach, clicked)

    full = enlarged(part, small, mask)
    inside = full[box.slices].copy()
    full[:] = False
    full[box.slices] = inside if inside.any() else True
    if not inside.any():
        confidence, reason = 0.1, NOTHING
    return _Found(full, confidence, reason)


def _box_starts(clicked: Pixels, box: Box) -> list[Pixels]:
    """Three first guesses of GrabCut labels: all of the box, the same with a sure core, and an oval."""
    plain = np.full(clicked.shape, cv2.GC_BGD, np.uint8)
    plain[box.slices] = cv2.GC_PR_FGD
    core, oval = plain.copy(), plain.copy()
    core[_ellipse(core.shape, box, 0.45)] = cv2.GC_FGD
    oval[box.slices] = cv2.GC_PR_BGD
    oval[_ellipse(oval.shape, box, 1.0)] = cv2.GC_PR_FGD
    for labels in (plain, core, oval):
        labels[clicked == cv2.GC_BGD] = cv2.GC_BGD
        labels[(clicked == cv2.GC_FGD) & (plain != cv2.GC_BGD)] = cv2.GC_FGD
    return [plain, core, oval]


def _ellipse(shape: tuple[int, ...], box: Box, part: float) -> Binary:
    """The ellipse in `box` whose axes are `part` of its sides."""
    y, x = np.ogrid[: shape[0], : shape[1]]
    across = (2 * x + 1 - box.left - box.right) / (box.width * part)
    down = (2 * y + 1 - box.top - box.bottom) / (box.height * part)
    return np.asarray(across**2 + down**2 <= 1)


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
        and _count(mask) >= LEAST * reach.area
    ]
    if not usable:
        return _plain_shape(masks, reach, clicked)
    lab = np.asarray(cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.7), cv2.COLOR_RGB2LAB), np.uint8)

    def score(mask: Binary) -> float:
        fill = _bounds(mask).area / reach.area
        return fill * math.prod(_signals(lab, mask, masks, reach).values())

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


def _plain_shape(masks: list[Binary], reach: Box, clicked: Pixels) -> tuple[Binary, float, str]:
    """What stands in when no start told an object from its ground."""
    shape, reason = _ellipse(clicked.shape, reach, 1.0), NOTHING
    if max(_count(mask) for mask in masks) > MOST * reach.area:
        shape[reach.slices], reason = True, WHOLE
    shape[clicked == cv2.GC_BGD] = False
    return shape, 0.1, reason


def _count(mask: npt.NDArray[np.generic]) -> int:
    return int(np.count_nonzero(mask))


def _bounds(mask: Binary) -> Box:
    """The smallest box around the mask; empty for an empty mask."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Box(left, top, left + width, top + height)


def _holds(box: Box, x: int, y: int) -> bool:
    return box.left <= x < box.right and box.top <= y < box.bottom


@dataclass(frozen=True, eq=False)
class _Look:
    """A picture's scene, and the states that clicks in it have led to."""

    scene: Scene
    known: dict[tuple[Step, ...], State] = field(default_factory=dict)


class Engine:
    """The adapter: one selection a box, and one for the clicks that lie in no box.

    What clicks need to know of a picture is made at the first of them and kept for the few pictures used last; it
    saves work and never changes an answer. Threads may share the engine.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._looks: OrderedDict[str, _Look] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        """A hash of the picture's pixels and the card's revision; boxes need no more, clicks do it when they come."""
        return hashlib.sha256(f"{picture.digest} {picture.box} {self._card.revision}".encode()).hexdigest()

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        """A region for each box, and one for the clicks outside all boxes; clicks inside a box refine it.

        The state tells in which order clicks of the two kinds were made; without it the order is guessed.

        Raises:
            ParameterError: when a click is both included and excluded.
            EngineError: when `previous` is no state of this engine.
        """
        regions, state = [], b""
        loose = [p for p in prompts.include if not any(_holds(box, *p) for box in prompts.boxes)]
        for number, box in enumerate(prompts.boxes):
            inside = [p for p in prompts.include if _holds(box, *p)]
            name = f"select {number + 1} of {len(prompts.boxes)}"
            crop = context_for(box, picture.box)
            regions.append(self._region(picture, crop, (box,), inside, prompts.exclude, run, name))
        if loose:
            for x, y in set(loose) & set(prompts.exclude):
                raise ParameterError(f"click {x},{y}: is both included and excluded")
            look = self._look(picture, key, run)
            if len(look.known) > STATES:
                look.known.clear()
            size, steps = picture.box.size, self._steps(previous)
            found = select_clicks(look.scene, picture.srgb, size, loose, prompts.exclude, steps, look.known)
            mask = Mask.from_array(found.values, picture.box, found.box[:2])
            regions.append(Region(mask.box, "", found.confidence, mask, found.reason))
            state = json.dumps(found.steps).encode()
        return Found(tuple(regions), state)

    def _look(self, picture: Picture, key: str, run: EngineRun) -> _Look:
        with self._lock:
            if key in self._looks:
                self._looks.move_to_end(key)
                return self._looks[key]
        small = reduced(picture.srgb, picture.box.size)
        scene: Scene = run.compute(scene_of, small, name="look at the picture")
        with self._lock:
            look = self._looks.setdefault(key, _Look(scene))
            while len(self._looks) > REMEMBERED:
                self._looks.popitem(last=False)
            return look

    def _steps(self, state: bytes | None) -> list[Step]:
        try:
            return [(int(index), bool(kind)) for index, kind in json.loads(state or b"[]")]
        except (ValueError, TypeError) as problem:
            raise EngineError(f"{self._card.name}: the state to go on from is none of its own ({problem})") from problem

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
