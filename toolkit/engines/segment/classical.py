"""Selecting without a model: objects in boxes (`_box`), under clicks (`_clicks`), and the main subject (`_subject`).

The only state touched is OpenCV's random generator of the calling thread, which is seeded before each use, so the same
call gives the same mask in any process.
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

from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.engines.segment._box import Selection as Selection
from toolkit.engines.segment._box import context_for as context_for
from toolkit.engines.segment._box import select_box
from toolkit.engines.segment._clicks import State, Step, select_clicks
from toolkit.engines.segment._refine import loosened, refined
from toolkit.engines.segment._scene import Scene, reduced, scene_of
from toolkit.engines.segment._subject import select_subject
from toolkit.engines.segment.edge import Pixels, outlined
from toolkit.errors import EngineError, ParameterError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask

Points = tuple[tuple[int, int], ...]

LARGEST = 1024  # longer side of what is looked at; the outline follows colours at full size
REMEMBERED = 4  # pictures whose scene is kept, about 20 MB each
SURE = 0.5  # confidence from which what was found in a box is enough to learn from
STATES = 200  # kept of each: about 15 KB a state


def select(pixels: Pixels, boxes: tuple[Box, ...], include: Points, exclude: Points, seed: int = 0) -> Selection:
    """Select the objects that boxes and clicks point at.

    Args:
        pixels: (h, w, 3) uint8 sRGB, a crop of the photo (see `context_for`).
        boxes: one object each, in the crop's pixels; parts outside the crop are ignored. The mask of a box stays in it,
            or leaves it by 4 % of its sides where it goes on beyond it for sure.
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
    found: list[tuple[Box, Pixels, float, str]] = []
    for box in (box.intersect(frame) for box in boxes):
        window = context_for(box, frame)
        inside = _moved([point for point in include if _holds(box, *point)], window)
        part = np.ascontiguousarray(pixels[window.slices])
        one = select_box(part, box.within(window), inside, _moved(exclude, window), seed)
        values = one.mask
        if one.confidence >= SURE and not inside:
            values = refined(part, values > 0, box.within(window)).astype(np.uint8) * np.uint8(255)
        found.append((window, values, one.confidence, one.reason))
    loose = tuple(p for p in include if not any(_holds(box, *p) for box in boxes))
    if loose:

        def part_of(window: Box) -> Pixels:
            return pixels[window.slices]

        clicked = select_clicks(scene_of(reduced(part_of, frame.size)), part_of, frame.size, loose, exclude)
        found.append((clicked.box, clicked.values, clicked.confidence, clicked.reason))
    for window, values, _, _ in found:
        np.maximum(mask[window.slices], values, out=mask[window.slices])
    for points, value in ((exclude, 0), (include, 255)):
        for x, y in points:
            mask[y, x] = value
    mask.flags.writeable = False
    _, _, confidence, reason = min(found, key=lambda one: one[2])
    return Selection(mask, confidence, reason)


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


def _moved(points: Sequence[tuple[int, int]], window: Box) -> Points:
    """Points as they lie in a window, without those beside it."""
    return tuple((x - window.left, y - window.top) for x, y in points if _holds(window, x, y))


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
        """A region for each box, one for the clicks outside all boxes, and one for the main subject where asked for.

        Clicks inside a box refine it.

        The state tells in which order clicks of the two kinds were made; without it the order is guessed.

        Raises:
            ParameterError: when a click is both included and excluded.
            EngineError: when `previous` is no state of this engine.
        """
        regions, state = [], b""
        if prompts.subject:
            regions.append(self._subject(picture, run))
        loose = [p for p in prompts.include if not any(_holds(box, *p) for box in prompts.boxes)]
        for number, box in enumerate(prompts.boxes):
            inside = [p for p in prompts.include if _holds(box, *p)]
            name = f"select {number + 1} of {len(prompts.boxes)}"
            crop = context_for(box, picture.box)
            regions.append(self._region(picture, crop, box, inside, prompts.exclude, run, name))
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
        picture: Picture, crop: Box, box: Box, include: Sequence[tuple[int, int]],
        exclude: Sequence[tuple[int, int]], run: EngineRun, name: str,
    ) -> Region:  # fmt: skip
        copy = _Copy(picture, crop)
        clicks = copy.points(include), copy.points(exclude)
        clicks = clicks[0], tuple(point for point in clicks[1] if point not in clicks[0])
        found = run.compute(select, copy.pixels, (copy.box(box),), *clicks, 0, name=name)
        mask = copy.enlarged(found.mask).intersect(Mask.from_box(picture.box, loosened(box).intersect(picture.box)))
        if mask.is_empty:
            mask = Mask.from_box(picture.box, box)
        for x, y in exclude:
            mask = mask.subtract(Mask.from_box(picture.box, Box(x, y, x + 1, y + 1)))
        for x, y in include:
            mask = mask.union(Mask.from_box(picture.box, Box(x, y, x + 1, y + 1)))
        return Region(mask.box, "", found.confidence, mask, found.reason)

    @staticmethod
    def _subject(picture: Picture, run: EngineRun) -> Region:
        copy = _Copy(picture, picture.box)
        found = run.compute(select_subject, copy.pixels, 0, name="find the subject")
        mask = copy.enlarged(found.mask)
        return Region(mask.box, "subject", found.confidence, mask, found.reason)


class _Copy:
    """A part of a picture, reduced where it is large, so that no whole frame is held or sent to a worker."""

    def __init__(self, picture: Picture, crop: Box) -> None:
        self._picture, self._crop = picture, crop
        self.pixels = reduced(self._read, crop.size, LARGEST)
        self._scale = self.pixels.shape[1] / crop.width, self.pixels.shape[0] / crop.height

    def _read(self, box: Box) -> Pixels:
        return self._picture.srgb(box.shift(self._crop.left, self._crop.top))

    def box(self, box: Box) -> Box:
        """A box of the picture in the copy's pixels."""
        inside, (x, y) = box.within(self._crop), self._scale
        return Box(
            int(inside.left * x), int(inside.top * y), math.ceil(inside.right * x), math.ceil(inside.bottom * y)
        )  # fmt: skip

    def points(self, points: Sequence[tuple[int, int]]) -> Points:
        """Points of the picture in the copy's pixels, without those beside it."""
        return tuple((int(x * self._scale[0]), int(y * self._scale[1])) for x, y in _moved(points, self._crop))

    def enlarged(self, values: Pixels) -> Mask:
        """A mask (h, w) uint8 of the copy at the picture's full size."""
        place, size = (self._crop.left, self._crop.top), Size(*self._crop.size)
        if self.pixels.shape[:2] == (size.height, size.width) or not values.any():
            return Mask.from_array(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST), self._picture.box, place)
        part, full = outlined(self._read, size, self.pixels, values > 0)
        return Mask.from_array(full, self._picture.box, (place[0] + part.left, place[1] + part.top))
