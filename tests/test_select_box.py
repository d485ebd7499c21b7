"""Selection from a box alone: what colour cannot tell, what clicks teach, and a confidence that knows when it fails."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.engines.segment._box import select_box
from toolkit.engines.segment.edge import Binary, Pixels
from toolkit.geometry import Box

BOX = Box(60, 50, 180, 150)


def overlap(mask: Pixels, truth: Binary) -> float:
    return float(np.count_nonzero((mask > 0) & truth) / np.count_nonzero((mask > 0) | truth))


def oval(box: Box = BOX, size: tuple[int, int] = (240, 200)) -> Binary:
    y, x = np.mgrid[: size[1], : size[0]]
    across, down = (2 * x + 1 - box.left - box.right) / box.width, (2 * y + 1 - box.top - box.bottom) / box.height
    return np.asarray(across**2 + down**2 <= 1)


def painted(truth: Binary, inside: tuple[int, int, int], outside: tuple[int, int, int], noise: float = 10) -> Pixels:
    grain = np.random.default_rng(0).normal(0, noise, (*truth.shape, 3))
    return np.clip(np.where(truth[..., None], inside, outside) + grain, 0, 255).astype(np.uint8)


def test_texture_tells_an_object_from_ground_of_the_same_colour() -> None:
    truth = oval()
    y, x = np.mgrid[: truth.shape[0], : truth.shape[1]]
    stripes = np.where(truth, 40 * np.sign(np.sin(x * 0.9)), 40 * np.sign(np.sin(y * 0.25)))
    pixels = np.clip(120 + stripes[..., None] + np.zeros(3), 0, 255).astype(np.uint8)
    assert overlap(select_box(pixels, BOX).mask, truth) > 0.8


@pytest.mark.parametrize("step", [4, 60])
def test_an_object_hardly_told_apart_is_still_a_plausible_shape(step: int) -> None:
    truth = oval()
    found = select_box(painted(truth, (110 + step, 110, 110 - step), (110, 110, 110)), BOX)
    assert overlap(found.mask, truth) > (0.6 if step == 4 else 0.95)


@settings(max_examples=12, deadline=None)
@given(width=st.integers(9, 22), rising=st.booleans(), grey=st.integers(60, 190))
def test_a_bar_along_a_diagonal_is_not_taken_for_its_ground(width: int, rising: bool, grey: int) -> None:
    bar = np.zeros((200, 240), np.uint8)
    cv2.line(bar, (65, 55), (175, 145), 1, width)
    truth = (bar[:, ::-1] if rising else bar) > 0
    left, top, across, down = cv2.boundingRect(truth.astype(np.uint8))
    pixels = painted(truth, (grey + 50, grey, grey - 50), (grey, grey, grey))
    assert overlap(select_box(pixels, Box(left, top, left + across, top + down)).mask, truth) > 0.7


@settings(max_examples=12, deadline=None)
@given(width=st.integers(4, 10), rising=st.booleans(), down=st.integers(40, 110), split=st.integers(90, 150))
def test_a_thin_thing_is_told_from_ground_of_two_colours(width: int, rising: bool, down: int, split: int) -> None:
    bar = np.zeros((200, 240), np.uint8)
    cv2.line(bar, (50, 45), (190, 45 + down), 1, width)
    truth = (bar[:, ::-1] if rising else bar) > 0
    pixels = painted(truth, (190, 190, 200), (60, 90, 140))
    pixels[:, split:] = painted(truth, (190, 190, 200), (140, 80, 60))[:, split:]
    left, top, across, down = cv2.boundingRect(truth.astype(np.uint8))
    assert overlap(select_box(pixels, Box(left, top, left + across, top + down)).mask, truth) > 0.7


def test_confidence_falls_with_contrast() -> None:
    truth = oval()
    strong, weak = (select_box(painted(truth, (110 + c, 110, 110 - c), (110,) * 3), BOX) for c in (60, 3))
    assert strong.confidence > 0.6 > weak.confidence
    assert strong.reason == ""
    assert weak.reason


def test_the_mask_of_a_box_without_ground_fills_much_of_it() -> None:
    truth = oval(Box(0, 0, 120, 100), (120, 100))
    found = select_box(painted(truth, (180, 60, 50), (60, 130, 70)), Box(0, 0, 120, 100))
    assert overlap(found.mask, truth) > 0.6


def test_an_object_of_two_colours_keeps_both() -> None:
    truth = oval()
    pixels = painted(truth, (190, 60, 50), (70, 130, 80))
    right = truth & (np.arange(240) > 120)
    pixels[right] = painted(truth, (60, 70, 190), (70, 130, 80))[right]
    assert overlap(select_box(pixels, BOX).mask, truth) > 0.9


def test_a_click_teaches_the_colour_of_what_it_is_on() -> None:
    """Bars of one colour in the ground and in the box: a click takes or leaves more than its own place."""
    truth = oval()
    pixels = painted(truth, (190, 60, 50), (70, 130, 80))
    bar = np.zeros(truth.shape, bool)
    bar[92:108] = True
    pixels[bar] = painted(bar, (60, 70, 190), (0, 0, 0))[bar]
    inner = bar & truth
    with_it = select_box(pixels, BOX, include=((120, 100), (90, 100))).mask
    without = select_box(pixels, BOX, exclude=((120, 100), (90, 100))).mask
    assert np.mean(with_it[inner] > 0) > 0.5 > np.mean(without[inner] > 0)
    assert with_it[100, 120] == 255
    assert without[100, 120] == 0


@settings(max_examples=20, deadline=None)
@given(shift=st.integers(-4, 4), grow=st.integers(-2, 8))
def test_a_box_drawn_loosely_finds_the_same_object(shift: int, grow: int) -> None:
    truth = oval()
    pixels = painted(truth, (170, 90, 70), (80, 120, 90))
    found = select_box(pixels, BOX.shift(shift, 0).grow(grow))
    assert overlap(found.mask, truth) > 0.9


def test_a_reduced_copy_whose_box_rounds_beyond_it_is_clipped() -> None:
    pixels = cv2.resize(painted(oval(), (170, 90, 70), (80, 120, 90)), (1003, 701))
    assert select_box(np.asarray(pixels, np.uint8), Box(1, 1, 1003, 701)).mask.any()
