"""Selection by clicks: every click obeyed, each refining the last, whatever the picture and whoever asked before."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import cards
from toolkit.edit import Edit
from toolkit.engines import Found, Prompts
from toolkit.engines.segment import classical
from toolkit.engines.segment._clicks import answer
from toolkit.engines.segment._scene import reduced, scene_of, superpixels
from toolkit.engines.segment.classical import Engine
from toolkit.engines.segment.edge import Pixels, enlarged, outlined
from toolkit.errors import EngineError, ParameterError
from toolkit.geometry import Box, Size
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.schema import Point
from toolkit.stages.select import Select

Clicks = list[tuple[int, int]]


class Counting:
    """A run that computes at once and counts."""

    journal: Any = None
    seed = 0

    def __init__(self) -> None:
        self.computed = 0

    def progress(self, name: str, share: float) -> None: ...

    def cancelled(self, name: str = "") -> bool:
        return False

    def compute(self, function: Callable[..., Any], *arguments: Any, name: str = "") -> Any:
        self.computed += 1
        return function(*arguments)


def opened() -> Engine:
    return Engine(cards.find("segment", "classical"))


def found(
    engine: Engine, pixels: Pixels, include: Clicks, exclude: Clicks, previous: bytes | None = None, run: Any = None
) -> Found:
    run = run or Counting()
    edit = Edit.of(pixels)
    prompts = Prompts((), tuple(Point(*p) for p in include), tuple(Point(*p) for p in exclude))
    return engine.segment(edit, engine.prepare(edit, run), prompts, previous, run)


def selected(engine: Engine, pixels: Pixels, include: Clicks, exclude: Clicks = []) -> Pixels:  # noqa: B006
    (region,) = found(engine, pixels, include, exclude).regions
    assert region.mask is not None
    return region.mask.array()


def overlap(first: Pixels, second: Pixels) -> float:
    return float(np.count_nonzero((first > 0) & (second > 0)) / np.count_nonzero((first > 0) | (second > 0)))


def discs(width: int = 300, height: int = 200, seed: int = 0) -> tuple[Pixels, Pixels, Pixels]:
    """Two discs of nearly the same textured red on textured green, and the mask of each."""
    random = np.random.default_rng(seed)
    masks = []
    for x in (0.27, 0.73):
        mask = np.zeros((height, width), np.uint8)
        cv2.circle(mask, (int(x * width), height // 2), height // 4, 255, -1)
        masks.append(mask)
    pixels = np.full((height, width, 3), (60, 140, 70), float)
    pixels[masks[0] > 0], pixels[masks[1] > 0] = (190, 60, 50), (180, 70, 50)
    pixels += random.normal(0, 12, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8), masks[0], masks[1]


def picture(kind: str, width: int, height: int) -> Pixels:
    random = np.random.default_rng(width * 1000 + height)
    if kind == "noise":
        return random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    if kind == "flat":
        return np.full((height, width, 3), 90, np.uint8)
    coarse = random.integers(0, 256, (3, 4, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_NEAREST), np.uint8)


@settings(max_examples=60, deadline=None)
@given(
    data=st.data(),
    size=st.one_of(
        st.tuples(st.integers(1, 90), st.integers(1, 90)), st.sampled_from([(1, 1), (3, 200), (200, 3), (600, 40)])
    ),
    kind=st.sampled_from(["noise", "flat", "patches"]),
)
def test_every_click_is_obeyed(data: st.DataObject, size: tuple[int, int], kind: str) -> None:
    """Pictures of any form, clicks anywhere, borders and neighbours included."""
    width, height = size
    point = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    include = data.draw(st.lists(point, min_size=1, max_size=6, unique=True))
    exclude = [p for p in data.draw(st.lists(point, max_size=6, unique=True)) if p not in include]
    pixels = picture(kind, width, height)
    (region,) = found(opened(), pixels, include, exclude).regions
    assert region.mask is not None
    mask = region.mask.array()
    assert mask.shape == (height, width)
    assert all(mask[y, x] == 255 for x, y in include)
    assert all(mask[y, x] == 0 for x, y in exclude)
    assert 0 <= region.score <= 1
    assert (region.reason == "") == (region.score >= 0.5)


@pytest.mark.parametrize("scale", [1, 5])
def test_one_of_two_alike_is_selected_at_full_size(scale: int) -> None:
    pixels, left, right = discs(300 * scale, 200 * scale)
    one = selected(opened(), pixels, [(81 * scale, 100 * scale)])
    assert overlap(one, left) > 0.93
    both = selected(opened(), pixels, [(81 * scale, 100 * scale), (219 * scale, 100 * scale)])
    assert overlap(both, left | right) > 0.93


def test_a_disc_around_each_click_obeys_it() -> None:
    pixels, _, _ = discs(1500, 1000)
    mask = selected(opened(), pixels, [(405, 500), (700, 120)], [(1100, 500), (420, 560)])
    for (x, y), value in (((405, 500), 255), ((700, 120), 255), ((1100, 500), 0), ((420, 560), 0)):
        away = np.hypot(*np.ogrid[-y : 1000 - y, -x : 1500 - x])
        assert (mask[away <= 5] == value).all()


def test_a_click_that_would_swallow_everything_only_adds_too() -> None:
    scene = scene_of(discs(120, 80, 0)[0])
    chosen = np.zeros(len(scene.area), bool)
    for count in (1, 2, 3, 4):
        before, chosen = chosen, answer(scene, [(32, 40), (0, 0), (0, 36), (72, 25)][:count], [])[0].chosen
        assert not (before & ~chosen).any()


@settings(max_examples=12, deadline=None)
@given(data=st.data(), seed=st.integers(0, 5))
def test_an_include_click_only_adds_and_an_exclude_click_only_takes_away(data: st.DataObject, seed: int) -> None:
    """On superpixels, when the order of the clicks is known."""
    scene = scene_of(discs(120, 80, seed)[0])
    point = st.tuples(st.integers(0, 119), st.integers(0, 79))
    clicks: dict[bool, Clicks] = {True: [(32, 40)], False: []}
    before, steps = answer(scene, clicks[True], clicks[False])
    for click, kind in data.draw(st.lists(st.tuples(point, st.booleans()), max_size=5)):
        clicks[kind].append(click)
        after, steps = answer(scene, clicks[True], clicks[False], steps)
        asked = {index for index, inside in steps if inside != kind}  # these stay as clicked
        wrong = (before.chosen & ~after.chosen) if kind else (after.chosen & ~before.chosen)
        assert set(np.flatnonzero(wrong)) <= asked
        before = after


def test_a_click_far_away_leaves_alone_what_was_right() -> None:
    pixels, left, right = discs()
    first = selected(opened(), pixels, [(81, 100)])
    second = selected(opened(), pixels, [(81, 100), (219, 100)])
    third = selected(opened(), pixels, [(81, 100), (219, 100)], [(219, 130)])
    for mask in (second, third):
        assert overlap(mask & left, first & left) > 0.98
    assert np.count_nonzero(third & right) < np.count_nonzero(second & right)


@pytest.mark.parametrize("clicks", [1, 4])
def test_a_picture_of_one_colour_is_not_selected_whole(clicks: int) -> None:
    pixels = np.full((120, 160, 3), 128, np.uint8)
    (region,) = found(opened(), pixels, [(40 + 5 * n, 60) for n in range(clicks)], []).regions
    assert region.mask is not None
    assert 0 < region.mask.area < 0.9 * 120 * 160
    assert region.score < 0.5


def test_many_clicks() -> None:
    pixels, left, _ = discs()
    random = np.random.default_rng(0)
    y, x = random.integers(0, 200, 80), random.integers(0, 300, 80)
    points = [(int(a), int(b)) for a, b in zip(x, y, strict=True)]
    include = [p for p in points if left[p[1], p[0]]]
    mask = selected(opened(), pixels, include, [p for p in points if not left[p[1], p[0]]])
    assert overlap(mask, left) > 0.95


def test_what_is_remembered_saves_work_and_changes_nothing() -> None:
    engine, run = opened(), Counting()
    one, two = discs(seed=1)[0], discs(seed=2)[0]
    include, exclude = [(81, 100), (219, 100)], [(150, 20), (219, 130)]
    for count in (1, 2):
        for pixels in (one, two):
            found(engine, pixels, include[:count], exclude[: count - 1], run=run)
    again = [found(engine, pixels, include, exclude, run=run).regions[0] for pixels in (one, two)]
    assert run.computed == 2  # a scene a picture
    fresh = [found(opened(), pixels, include, exclude).regions[0] for pixels in (one, two)]
    for region, other in zip(again, fresh, strict=True):
        assert region.mask == other.mask
        assert region.score == other.score
    assert again[0].mask != again[1].mask


def test_threads_may_share_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classical, "REMEMBERED", 2)
    engine = opened()
    pictures = [discs(seed=seed)[0] for seed in range(3)]  # more than are remembered
    answers: dict[int, list[Any]] = {}

    def work(number: int) -> None:
        picked = pictures[number % 3]
        answers[number] = [found(engine, picked, [(81, 100)], [(219, 100)][:n]).regions[0].mask for n in (0, 1)]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(3):
        expected = [found(opened(), pictures[number], [(81, 100)], [(219, 100)][:n]).regions[0].mask for n in (0, 1)]
        assert answers[number] == answers[number + 3] == expected


def test_the_state_keeps_the_order_of_the_clicks() -> None:
    engine, pixels = opened(), discs()[0]
    first = found(engine, pixels, [(81, 100)], [])
    second = found(engine, pixels, [(81, 100)], [(219, 130)], first.state)
    third = found(engine, pixels, [(81, 100), (219, 90)], [(219, 130)], second.state)
    again = found(opened(), pixels, [(81, 100), (219, 90)], [(219, 130)], third.state)
    assert again.state == third.state
    assert again.regions[0].mask == third.regions[0].mask
    with pytest.raises(EngineError, match="none of its own"):
        found(engine, pixels, [(81, 100)], [], b"\x00logits")


def test_a_click_cannot_be_both() -> None:
    with pytest.raises(ParameterError, match="click 81,100: is both"):
        found(opened(), discs()[0], [(81, 100)], [(81, 100)])


def test_the_select_stage_asks_the_engine() -> None:
    pixels, left, _ = discs()
    with Run(workers=1) as run:
        edit = Recipe([Select(point=[(81, 100)], not_point=[(219, 100)])])(Edit.of(pixels), run)
    assert edit.selected is not None
    assert overlap(edit.selected.array(), left) > 0.93


def test_a_picture_read_in_strips_is_reduced_as_in_one() -> None:
    pixels = discs(3001, 2503)[0]
    whole = cv2.resize(pixels, (480, 400), interpolation=cv2.INTER_AREA)
    strips = reduced(lambda box: pixels[box.slices], Size(3001, 2503))
    assert strips.shape == whole.shape
    assert np.abs(strips.astype(int) - whole).mean() < 1


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (7, 5), (90, 60)])
def test_superpixels_cover_the_picture(size: tuple[int, int]) -> None:
    labels = superpixels(picture("noise", *size), max(1, size[0] * size[1] // 36))
    assert labels.shape == size[::-1]
    assert np.array_equal(np.unique(labels), np.arange(labels.max() + 1))


def test_an_outline_is_computed_as_if_everywhere() -> None:
    pixels, left, _ = discs(1500, 1000)
    small = reduced(lambda box: pixels[box.slices], Size(1500, 1000))
    mask = cv2.resize(left, small.shape[1::-1], interpolation=cv2.INTER_AREA) > 127
    read: list[Box] = []

    def reading(box: Box) -> Pixels:
        read.append(box)
        return pixels[box.slices]

    box, values = outlined(reading, Size(1500, 1000), small, mask)
    full = np.zeros((1000, 1500), np.uint8)
    full[box.slices] = values
    assert overlap(full, enlarged(pixels, small, mask).view(np.uint8)) > 0.999
    assert sum(one.area for one in read) < 0.3 * 1500 * 1000
