"""What is measured around a hole, and the prompt the offline enhancer makes of it."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.edit import Edit
from toolkit.engines.enhance.offline import fitted
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.surroundings import Surroundings, colour_name, look

HOLE = Box(120, 120, 200, 200)


def scene(colour: tuple[int, int, int] = (150, 150, 150), size: tuple[int, int] = (320, 320)) -> np.ndarray:
    return np.full((*size, 3), colour, np.uint8)


def seen(picture: np.ndarray, hole: Box | Mask = HOLE) -> Surroundings:
    edit = Edit.of(picture)
    return look(edit, hole if isinstance(hole, Mask) else Mask.from_box(edit.box, hole))[0]


def textured(seed: int = 0) -> np.ndarray:
    """Grey squares with hard edges."""
    squares = np.random.default_rng(seed).integers(60, 200, (20, 20), np.uint8)
    return np.dstack([cv2.resize(squares, (320, 320), interpolation=cv2.INTER_NEAREST)] * 3)


@pytest.mark.parametrize(
    ("level", "word"), [(15, "very dark"), (50, "dim"), (120, "medium"), (190, "bright"), (250, "very bright")]
)
def test_light(level: int, word: str) -> None:
    assert seen(scene((level, level, level))).light == word


def test_warmth_is_told_by_what_is_nearly_grey() -> None:
    assert seen(scene((165, 155, 140))).warmth == "warm"
    assert seen(scene((140, 152, 165))).warmth == "cool"
    assert seen(scene((150, 150, 150))).warmth == ""
    assert seen(scene((40, 160, 40))).warmth == "", "a lawn says nothing of the light"


def test_the_hole_itself_is_neither_measured_nor_shown() -> None:
    plain, secret = textured(), textured()
    secret[HOLE.slices] = (255, 0, 0)
    edit = Edit.of(secret)
    around, picture, inside = look(edit, Mask.from_box(edit.box, HOLE))
    assert around == seen(plain)
    assert (picture[inside > 0] == 127).all()


def test_sides_that_look_alike_go_on_behind_it() -> None:
    picture = scene((120, 160, 230))
    picture[160:] = (60, 110, 50)
    around = seen(picture)
    assert around.through == ("across",)
    assert around.sides["above"] == "light blue" or around.sides["above"] == "blue"
    assert "green" in around.sides["below"]
    assert around.brighter == "above"
    assert seen(scene()).through == ("across", "upright")


def test_place_and_size() -> None:
    around = seen(scene(), Box(0, 240, 80, 320))
    assert (around.place, around.edges) == ("lower left", ("left", "bottom"))
    assert around.share == pytest.approx(80 * 80 / 320 / 320)
    assert seen(scene()).place == "centre"
    frame = Box(0, 0, 320, 320)
    apart = Mask.from_box(frame, Box(0, 0, 20, 20)).union(Mask.from_box(frame, Box(300, 300, 320, 320)))
    assert not seen(scene(), apart).compact


def test_sharpness() -> None:
    sharp = textured()
    assert seen(sharp).focus == "sharp"
    assert seen(cv2.GaussianBlur(sharp, (0, 0), 2.5)).focus == "slightly soft"
    assert seen(cv2.GaussianBlur(sharp, (0, 0), 8)).focus == "out of focus"
    assert seen(scene()).focus == "", "where there is no edge nothing is said"


def test_grain_is_measured_in_levels() -> None:
    noise = np.random.default_rng(0).normal(0, 6, (320, 320, 1))
    grainy = np.clip(scene() + noise, 0, 255).astype(np.uint8)
    assert seen(grainy).grain == pytest.approx(6, rel=0.15)
    assert seen(grainy).is_grainy
    assert not seen(scene()).is_grainy


def test_transparent_ground_is_not_seen() -> None:
    picture = np.dstack([scene((10, 10, 10)), np.zeros((320, 320), np.uint8)])
    picture[:, 160:] = (200, 200, 200, 255)
    assert seen(picture).light == "bright"


def test_a_hole_without_surroundings_is_nothing_to_measure() -> None:
    around = seen(scene(), Box(0, 0, 320, 320))
    assert (around.light, around.focus, around.share) == ("", "", 1.0)
    assert fitted("a chair", around).startswith("a chair, ")


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((0, 0, 0), "black"), ((255, 255, 255), "white"), ((128, 128, 128), "grey"), ((200, 30, 30), "red"),
        ((30, 140, 40), "green"), ((30, 60, 200), "blue"), ((255, 220, 40), "yellow"), ((255, 150, 30), "orange"),
        ((120, 80, 50), "brown"), ((225, 205, 175), "beige"), ((135, 206, 235), "light blue"),
        ((240, 140, 180), "pink"),
    ],
)  # fmt: skip
def test_names_of_colours(rgb: tuple[int, int, int], name: str) -> None:
    lab = cv2.cvtColor(np.array([[rgb]], np.float32) / 255, cv2.COLOR_RGB2Lab)[0, 0]
    assert colour_name(*map(float, lab)) == name


@given(st.tuples(*[st.floats(low, high) for low, high in ((0, 100), (-120, 120), (-120, 120))]))
def test_every_colour_has_a_name(lab: tuple[float, float, float]) -> None:
    assert colour_name(*lab)


def test_the_words_hold_the_figures() -> None:
    text = seen(textured(), Box(0, 240, 80, 320)).text
    for words in ("80x80", "320x320", "6.2%", "lower left", "left and bottom edge", "sharp"):
        assert words in text


AROUND = seen(textured())
WORDS = st.lists(st.sampled_from("chair red old of on table with a the light sharp left stone".split()), min_size=1)


@given(WORDS.map(" ".join))
def test_enhancing_offline_keeps_the_prompt_and_adds_nothing_the_second_time(prompt: str) -> None:
    once = fitted(prompt, AROUND)
    assert once.startswith(prompt)
    assert fitted(once, AROUND) == once


def test_a_long_prompt_is_left_nearly_alone() -> None:
    long = (
        "a small round table of pale oak with a white cup on it, a folded newspaper beside the cup, seen from above at "
        "an angle, in soft morning light, sharp focus"
    )
    assert fitted(long, AROUND) == long
    plain = " ".join(["oak"] * 25)
    assert len(fitted(plain, AROUND).split()) <= 25 + 16


def test_what_is_said_is_not_said_again() -> None:
    assert "light as its" not in fitted("a chair at night", AROUND)
    assert "centre" not in fitted("a chair on the left", AROUND)
    assert fitted("A chair.", AROUND).startswith("A chair, in the centre")
