"""Clicks together with boxes, masks and the main subject: every one of them is obeyed, whatever found the selection."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from toolkit.edit import Edit
from toolkit.errors import ParameterError
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.stages.segment import Segment
from toolkit.stages.select import Select

MASK = np.zeros((160, 240), np.uint8)
MASK[40:120, 70:170] = 255


def photo() -> np.ndarray:
    """A red ball on a grey ground, with a hole through which the ground is seen."""
    pixels = np.random.default_rng(0).integers(196, 204, (160, 240, 3), np.uint8)
    cv2.circle(pixels, (120, 80), 45, (200, 40, 40), -1)
    cv2.circle(pixels, (120, 80), 12, (198, 200, 202), -1)
    return pixels


def selected(stage: Any) -> np.ndarray:
    with Run() as run:
        edit = Recipe([stage])(Edit.of(photo()), run)
    assert edit.selected is not None
    return edit.selected.array()


@pytest.mark.parametrize(
    "pointed",
    [
        {"mask": MASK},
        {"subject": True},
        {"box": [(70, 30, 170, 130)]},
        {"box": [(70, 30, 170, 130)], "generous": True},
        {"point": [(150, 80)], "generous": True},
        {"mask": MASK, "point": [(5, 5)]},
    ],
    ids=str,
)
@pytest.mark.parametrize("excluded", [(95, 80), (120, 80), (239, 159)])
def test_exclude_clicks_are_outside_and_include_clicks_inside(
    pointed: dict[str, Any], excluded: tuple[int, int]
) -> None:
    found = selected(Select(not_point=[excluded], **pointed))
    assert found[excluded[1], excluded[0]] == 0
    assert all(found[y, x] == 255 for x, y in pointed.get("point", ()))
    assert found.any()


def test_an_exclude_click_keeps_the_hole_it_points_into() -> None:
    generous = selected(Select(point=[(150, 80)], generous=True))
    assert generous[80, 120] == 255
    kept = selected(Select(point=[(150, 80)], not_point=[(120, 80)], generous=True))
    assert not kept[75:86, 115:126].any()


def test_a_subject_of_the_segment_stage_heeds_exclude_clicks() -> None:
    assert selected(Segment(subject=True, not_point=[(95, 80)]))[80, 95] == 0


@pytest.mark.parametrize("pointed", [{"mask": MASK}, {"subject": True}, {"box": [(70, 30, 170, 130)]}], ids=str)
def test_clicks_that_cannot_be_obeyed_are_refused(pointed: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="point 300,5: lies outside the photo, which is 240x160 pixels"):
        selected(Select(not_point=[(300, 5)], **pointed))
    with pytest.raises(ParameterError, match="point 150,80: is both included and excluded"):
        selected(Select(point=[(150, 80)], not_point=[(150, 80)], **pointed))
