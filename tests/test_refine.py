"""Settling an outline by what lies sure inside and outside."""

from __future__ import annotations

import numpy as np
import pytest

from toolkit.engines.segment._refine import loosened, refined, settled
from toolkit.engines.segment.edge import Binary, Pixels
from toolkit.geometry import Box


def scene(size: int = 240) -> tuple[Pixels, Binary]:
    """A red shape with a white foot on grainy green ground, and its mask."""
    random = np.random.default_rng(0)
    pixels = np.empty((size, size, 3), np.float32)
    pixels[:] = 60, 120, 70
    truth = np.zeros((size, size), bool)
    truth[60:190, 70:170] = True
    pixels[truth] = 190, 40, 40
    pixels[60:100, 70:170] = pixels[175:190, 70:170] = 225, 225, 230
    return np.clip(pixels + random.normal(0, 4, pixels.shape), 0, 255).astype(np.uint8), truth


def overlap(first: Binary, second: Binary) -> float:
    return float((first & second).sum() / (first | second).sum())


def test_a_missed_foot_comes_back_and_ground_goes() -> None:
    pixels, truth = scene()
    guess = truth.copy()
    guess[184:] = False
    guess[100:130, 170:174] = True
    assert overlap(guess, truth) < 0.96
    assert overlap(settled(pixels, guess), truth) > 0.985


def test_a_strip_of_ground_at_the_picture_edge_goes() -> None:
    pixels, truth = scene()
    pixels, truth = pixels[:194], truth[:194]
    guess = truth.copy()
    guess[190:, 70:170] = True
    assert not settled(pixels, guess)[191:].any()


def test_a_box_drawn_too_tight_is_left_a_little_and_no_more() -> None:
    pixels, truth = scene()
    for box in (Box(70, 60, 167, 190), Box(70, 60, 150, 190)):
        guess = np.zeros_like(truth)
        guess[box.slices] = truth[box.slices]
        found = refined(pixels, guess, box)
        outside = found.copy()
        outside[loosened(box).intersect(Box.of_size((240, 240))).slices] = False
        assert not outside.any()
        assert overlap(found, truth) >= overlap(guess, truth)


@pytest.mark.parametrize("fill", [0, 1])
def test_nothing_to_learn_from_changes_nothing(fill: int) -> None:
    pixels, truth = scene()
    guess = np.full(truth.shape, bool(fill))
    np.testing.assert_array_equal(settled(pixels, guess), guess)
