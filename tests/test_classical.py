"""Selection from a box and clicks: what holds for every picture, and pictures with known answers."""

from __future__ import annotations

import pickle
import re
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.engines.segment.classical import Selection, context_for, select
from toolkit.engines.segment.edge import Pixels, enlarged
from toolkit.errors import ParameterError
from toolkit.geometry import Box


def scene(size: int = 240, seed: int = 0) -> tuple[Pixels, Pixels, Box]:
    """A textured red ellipse on textured green, its mask and a loose box around it."""
    random = np.random.default_rng(seed)
    truth = np.zeros((size, size), np.uint8)
    cv2.ellipse(truth, (size // 2, size // 2), (size // 4, size // 6), 20, 0, 360, 255, -1)
    colours = np.where(truth[..., None] > 0, (190, 60, 50), (60, 140, 70))
    pixels = np.clip(colours + random.normal(0, 14, (size, size, 3)), 0, 255).astype(np.uint8)
    left, top, width, height = cv2.boundingRect(truth)
    return pixels, truth, Box(left, top, left + width, top + height).grow(size // 24)


def overlap(first: Pixels, second: Pixels) -> float:
    return float(np.count_nonzero((first > 0) & (second > 0)) / np.count_nonzero((first > 0) | (second > 0)))


@pytest.mark.parametrize("size", [60, 240, 900])
def test_an_object_in_a_box_is_found_at_full_resolution(size: int) -> None:
    pixels, truth, box = scene(size)
    found = select(pixels, (box,), (), ())
    assert found.mask.dtype == np.uint8
    assert found.mask.shape == truth.shape
    assert set(np.unique(found.mask)) == {0, 255}
    assert not found.mask.flags.writeable
    assert overlap(found.mask, truth) > 0.95
    assert found.confidence > 0.6
    assert found.reason == ""


def test_an_object_under_a_click_is_found() -> None:
    pixels, truth, _ = scene()
    found = select(pixels, (), ((120, 120),), ((5, 5),))
    assert overlap(found.mask, truth) > 0.95


def test_a_small_object_under_a_click_is_looked_at_from_near() -> None:
    small, shape, _ = scene(120)
    random = np.random.default_rng(1)
    pixels = np.clip(np.array((60, 140, 70)) + random.normal(0, 14, (1500, 1500, 3)), 0, 255).astype(np.uint8)
    truth = np.zeros((1500, 1500), np.uint8)
    pixels[600:720, 900:1020], truth[600:720, 900:1020] = small, shape
    assert overlap(select(pixels, (), ((960, 660),), ()).mask, truth) > 0.93


def test_two_boxes_select_two_objects() -> None:
    pixels, truth, box = scene()
    double, both = np.hstack([pixels, pixels]), np.hstack([truth, truth])
    found = select(double, (box, box.shift(240, 0)), (), ())
    assert overlap(found.mask, both) > 0.95


def test_same_call_same_mask_in_any_process_and_whatever_ran_before() -> None:
    pixels, _, box = scene()
    first = select(pixels, (box,), (), ())
    cv2.setRNGSeed(77)
    cv2.randu(np.zeros((9, 9), np.uint8), np.zeros(1), np.full(1, 255.0))
    second = select(pixels, (box,), (), ())
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        third = pool.submit(partial(select, pixels, (box,), (), ())).result()
    for other in (second, third, pickle.loads(pickle.dumps(first))):
        assert isinstance(other, Selection)
        assert np.array_equal(first.mask, other.mask)
        assert first.confidence == other.confidence


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_picture_gives_a_plain_shape_and_says_so(value: int) -> None:
    found = select(np.full((90, 120, 3), value, np.uint8), (Box(30, 20, 80, 70),), (), ())
    assert found.confidence <= 0.2
    assert re.search("box", found.reason)
    assert 0.5 < np.count_nonzero(found.mask) / 2500 <= 1


def test_noise_is_not_selected_with_confidence() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (150, 150, 3)).astype(np.uint8)
    found = select(pixels, (Box(40, 40, 110, 110),), (), ())
    assert found.confidence < 0.5
    assert found.reason


def test_clicks_correct_a_box() -> None:
    pixels, truth, box = scene()
    cv2.circle(pixels, (120, 120), 14, (60, 60, 200), -1)
    found = select(pixels, (box,), ((90, 112),), ((120, 120),))
    assert found.mask[120, 120] == 0
    assert found.mask[112, 90] == 255
    assert overlap(found.mask, truth) > 0.75


@settings(max_examples=60, deadline=None)
@given(data=st.data(), width=st.integers(1, 90), height=st.integers(1, 90), kind=st.sampled_from(["flat", "noise"]))
def test_box_and_click_laws(data: st.DataObject, width: int, height: int, kind: str) -> None:
    """Inside the box, clicks obeyed, never empty, confidence in range: for pictures of any size."""
    random = np.random.default_rng(width * 100 + height)
    pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8) if kind == "noise" else None
    pixels = np.full((height, width, 3), 90, np.uint8) if pixels is None else pixels
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    inside = st.tuples(st.integers(box.left, box.right - 1), st.integers(box.top, box.bottom - 1))
    anywhere = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    include = tuple(data.draw(st.lists(inside, max_size=2, unique=True)))
    exclude = tuple(p for p in data.draw(st.lists(anywhere, max_size=2, unique=True)) if p not in include)
    found = select(pixels, (box,), include, exclude)
    outside = found.mask.copy()
    outside[box.slices] = 0
    assert not outside.any()
    assert found.mask.any() or box.area <= 9 * len(exclude)
    assert all(found.mask[y, x] == 255 for x, y in include)
    assert all(found.mask[y, x] == 0 for x, y in exclude)
    assert 0 <= found.confidence <= 1
    assert (found.reason == "") == (found.confidence >= 0.5)


@settings(max_examples=25, deadline=None)
@given(data=st.data(), width=st.integers(1, 80), height=st.integers(1, 80))
def test_clicks_alone_are_obeyed(data: st.DataObject, width: int, height: int) -> None:
    pixels = np.random.default_rng(width).integers(0, 256, (height, width, 3)).astype(np.uint8)
    point = st.tuples(st.integers(0, width - 1), st.integers(0, height - 1))
    include = tuple(data.draw(st.lists(point, min_size=1, max_size=3, unique=True)))
    exclude = tuple(p for p in data.draw(st.lists(point, max_size=3, unique=True)) if p not in include)
    found = select(pixels, (), include, exclude)
    assert all(found.mask[y, x] == 255 for x, y in include)
    assert all(found.mask[y, x] == 0 for x, y in exclude)
    assert (found.reason == "") == (found.confidence >= 0.5)


@pytest.mark.parametrize("box", [Box(100, 100, 1900, 102), Box(5, 0, 7, 700), Box(0, 0, 2000, 700)])
def test_extreme_boxes_give_something(box: Box) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (700, 2000, 3)).astype(np.uint8)
    found = select(pixels, (box,), (), ())
    assert found.mask.any()
    assert np.count_nonzero(found.mask) == np.count_nonzero(found.mask[box.slices])


def test_context_is_a_third_of_the_box_on_each_side_and_clipped() -> None:
    photo = Box(0, 0, 1000, 500)
    assert context_for(Box(400, 100, 500, 300), photo) == Box(357, 22, 543, 378)
    assert context_for(Box(0, 0, 1000, 500), photo) == photo


@pytest.mark.parametrize(
    ("boxes", "include", "exclude", "sentence"),
    [
        ((), (), (), "nothing to select"),
        ((), (), ((1, 1),), "nothing to select"),
        ((Box(50, 50, 60, 60),), (), (), "outside the 40x30 pixels"),
        ((Box(5, 5, 5, 9),), (), (), "no area"),
        ((), ((40, 3),), (), "click 40,3: lies outside"),
        ((), ((4, 3),), ((4, 3),), "both included and excluded"),
    ],
)
def test_wrong_input_is_named(
    boxes: tuple[Box, ...], include: tuple[tuple[int, int], ...], exclude: tuple[tuple[int, int], ...], sentence: str
) -> None:
    with pytest.raises(ParameterError, match=sentence):
        select(np.zeros((30, 40, 3), np.uint8), boxes, include, exclude)


@pytest.mark.parametrize("pixels", [np.zeros((9, 9), np.uint8), np.zeros((9, 9, 3), np.float32), np.zeros((0, 9, 3))])
def test_wrong_pixels_are_named(pixels: Pixels) -> None:
    with pytest.raises(ParameterError, match=r"must be \(h, w, 3\) uint8"):
        select(pixels, (Box(1, 1, 4, 4),), (), ())


def test_an_enlarged_mask_follows_the_colour_edge() -> None:
    """A disc of 2000 pixels from a mask of 100: nearest enlargement errs by up to 20 pixels, the edge by about one."""
    y, x = np.ogrid[:2000, :2000]
    truth = (x - 1003) ** 2 + (y - 996) ** 2 < 611**2
    pixels = np.where(truth[..., None], (200, 120, 60), (70, 90, 110)).astype(np.uint8)
    small = cv2.resize(pixels, (100, 100), interpolation=cv2.INTER_AREA)
    coarse = cv2.resize(truth.astype(np.uint8), (100, 100), interpolation=cv2.INTER_NEAREST).astype(bool)
    assert np.count_nonzero(enlarged(pixels, np.asarray(small, np.uint8), coarse) != truth) < 4 * 2 * np.pi * 611
