"""The main subject of product photos built here: shapes on shaded paper, with shadow and noise."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.engines.segment._subject import select_subject
from toolkit.errors import ParameterError

Pixels = npt.NDArray[np.uint8]
Binary = npt.NDArray[np.bool_]

SIDE = 400
WHITE, GREY, BLUE = (246, 246, 244), (150, 150, 152), (90, 140, 200)


def shape(kind: str, side: int = SIDE) -> Binary:
    """A product's outline: a disc, a ring, or a bar cut off by the left edge."""
    mask, middle = np.zeros((side, side), np.uint8), (side // 2, side // 2)
    if kind == "bar":
        cv2.rectangle(mask, (0, round(0.35 * side)), (round(0.6 * side), round(0.65 * side)), 1, -1)
    else:
        cv2.circle(mask, middle, round(0.3 * side), 1, -1)
    if kind == "ring":
        cv2.circle(mask, middle, round(0.18 * side), 0, -1)
    return mask > 0


def photo(mask: Binary, paper: tuple[int, ...], colour: tuple[int, ...], shadow: float = 0.35, seed: int = 0) -> Pixels:
    """The shape on paper that darkens to one corner, with a soft shadow below it, and noise of two levels."""
    side = mask.shape[0]
    cover = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8)[..., None]
    y, x = np.mgrid[:side, :side] / side
    light = 1 - 0.2 * (x**2 + y**2) / 2
    below = cv2.warpAffine(mask.astype(np.float32), np.array([[1.0, 0, 4], [0, 1, 10]]), (side, side))
    shade = 1 - shadow * cv2.GaussianBlur(below, (0, 0), 10)
    ground = np.array(paper) * (light * shade)[..., None]
    picture = ground * (1 - cover) + np.array(colour) * (0.75 + 0.25 * light[..., None]) * cover
    picture += np.random.default_rng(seed).normal(0, 2, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8)


def overlap(first: Binary, second: Binary) -> float:
    return int((first & second).sum()) / int((first | second).sum())


@pytest.mark.parametrize("paper", [WHITE, GREY, BLUE], ids=["white", "grey", "blue"])
@pytest.mark.parametrize("kind", ["disc", "ring", "bar"])
def test_a_product_on_paper_is_found_without_its_shadow(kind: str, paper: tuple[int, ...]) -> None:
    truth = shape(kind)
    found = select_subject(photo(truth, paper, (180, 60, 40)))
    assert overlap(found.mask > 0, truth) > 0.96
    assert found.confidence > 0.7
    assert found.reason == ""


@pytest.mark.parametrize("paper", [WHITE, BLUE], ids=["white", "blue"])
def test_paper_seen_through_a_hole_is_background(paper: tuple[int, ...]) -> None:
    mask = select_subject(photo(shape("ring"), paper, (40, 90, 60))).mask
    assert not mask[SIDE // 2 - 40 : SIDE // 2 + 40, SIDE // 2 - 40 : SIDE // 2 + 40].any()


def test_a_label_of_the_papers_colour_is_no_hole_when_something_is_printed_on_it() -> None:
    picture = photo(shape("ring"), WHITE, (200, 160, 30))
    middle = SIDE // 2
    cv2.putText(picture, "12", (middle - 40, middle + 20), cv2.FONT_HERSHEY_SIMPLEX, 2, (30, 30, 30), 5)
    assert overlap(select_subject(picture).mask > 0, shape("disc")) > 0.95


def test_white_on_white() -> None:
    truth = shape("disc")
    found = select_subject(photo(truth, WHITE, (252, 251, 247), shadow=0.3))
    assert overlap(found.mask > 0, truth) > 0.85


def test_a_grey_picture() -> None:
    truth = shape("disc")
    grey = cv2.cvtColor(photo(truth, WHITE, (70, 70, 70)), cv2.COLOR_RGB2GRAY)
    found = select_subject(np.ascontiguousarray(np.repeat(grey[..., None], 3, axis=2), dtype=np.uint8))
    assert overlap(found.mask > 0, truth) > 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_empty_paper_gives_a_low_confidence_and_a_reason(seed: int) -> None:
    found = select_subject(photo(np.zeros((SIDE, SIDE), bool), WHITE, WHITE, seed=seed))
    assert found.confidence < 0.5
    assert found.reason
    assert found.mask.any()


def clutter(seed: int) -> Pixels:
    random = np.random.default_rng(seed)
    picture = np.zeros((300, 400, 3), np.uint8)
    for _ in range(300):
        corner, size = random.integers(-40, 400, 2), random.integers(10, 90, 2)
        colour = [int(level) for level in random.integers(0, 256, 3)]
        cv2.rectangle(picture, corner.tolist(), (corner + size).tolist(), colour, -1)
    return picture


def test_clutter_without_a_subject_gives_low_confidences() -> None:
    confidences = [select_subject(clutter(seed)).confidence for seed in range(5)]
    assert np.median(confidences) < 0.25
    assert max(confidences) < 0.6


def test_a_large_photo_has_the_outline_of_the_large_photo() -> None:
    truth = shape("ring", 2000)
    mask = select_subject(photo(truth, GREY, (180, 60, 40))).mask > 0
    wrong = cv2.erode((mask != truth).astype(np.uint8), np.ones((9, 9), np.uint8))
    assert not wrong.any()


@given(
    st.tuples(st.integers(1, 40), st.integers(1, 200)), st.sampled_from(["noise", "black", "white", "halves"]),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_any_picture_gives_a_mask_that_is_not_empty(size: tuple[int, int], kind: str) -> None:
    picture = np.full((*size, 3), 255 if kind == "white" else 0, np.uint8)
    if kind == "noise":
        picture = np.random.default_rng(0).integers(0, 256, picture.shape, np.uint8)
    if kind == "halves":
        picture[:, : size[1] // 2] = 200
    found = select_subject(picture)
    assert found.mask.shape == size
    assert found.mask.dtype == np.uint8
    assert set(np.unique(found.mask)) <= {0, 255}
    assert found.mask.any()
    assert 0 <= found.confidence <= 1
    assert bool(found.reason) == (found.confidence < 0.5)


@pytest.mark.parametrize("size", [(1, 1), (3, 200), (200, 3), (8, 8)])
def test_tiny_and_narrow_pictures(size: tuple[int, int]) -> None:
    assert select_subject(np.full((*size, 3), 128, np.uint8)).mask.any()


def test_the_same_picture_gives_the_same_mask() -> None:
    picture = photo(shape("ring"), BLUE, (180, 60, 40))
    first = select_subject(picture)
    cv2.setRNGSeed(77)
    second = select_subject(picture)
    assert (first.mask == second.mask).all()
    assert first.confidence == second.confidence
    assert not first.mask.flags.writeable


@pytest.mark.parametrize("picture", [np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3))])
def test_other_arrays_are_refused(picture: Pixels) -> None:
    with pytest.raises(ParameterError, match="pixels: must be"):
        select_subject(picture)


def test_what_looks_like_a_flat_shadow_is_no_subject_and_no_crash() -> None:
    pixels = np.full((240, 300, 3), 235, np.uint8)
    cv2.ellipse(pixels, (150, 125), (60, 65), 0, 0, 360, (180, 180, 180), -1)
    found = select_subject(pixels)
    assert found.mask.any()
    assert found.confidence < 0.5 or found.mask[125, 150]
