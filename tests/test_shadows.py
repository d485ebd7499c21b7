"""Shadows and reflections on pictures whose shadow is known, and on pictures that have none."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.dataset.pictures import overlaid
from toolkit.edit import Canvas, Cutout, Edit, Region
from toolkit.geometry import Box, Size
from toolkit.leftovers import leftover_score
from toolkit.mask import Mask
from toolkit.reduced import enlarged, reduced_mask, reduced_pixels
from toolkit.shadows import contact_shadow, find_shadow, kept_shadow
from toolkit.stages.crop import Crop
from toolkit.stages.dilate import Dilate
from toolkit.stages.select import Select
from toolkit.stages.shadow import Shadow

HEIGHT, WIDTH = 260, 340
OBJECT = Box(140, 60, 200, 170)
SURE = 0.65


def ground(kind: str, seed: int = 0) -> np.ndarray:
    """(h, w, 3) float, 0-255."""
    random = np.random.default_rng(seed)
    base = np.array((170.0, 160.0, 140.0))
    if kind == "white":
        base = np.array((244.0, 244.0, 243.0))
    picture = np.broadcast_to(base, (HEIGHT, WIDTH, 3)).copy()
    if kind == "textured":
        grain = cv2.GaussianBlur(random.standard_normal((HEIGHT, WIDTH)), (0, 0), 1.2)
        picture *= 1 + 0.25 * grain[..., None]
    if kind == "sloping":
        picture *= np.linspace(0.8, 1.1, WIDTH)[None, :, None]
    return picture


def body() -> np.ndarray:
    """(h, w) bool: an upright ellipse."""
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    centre = ((OBJECT.left + OBJECT.right) // 2, (OBJECT.top + OBJECT.bottom) // 2)
    cv2.ellipse(mask, centre, (OBJECT.width // 2, OBJECT.height // 2), 0, 0, 360, 1, -1)
    return mask > 0


def cast(soft: float = 2.0) -> np.ndarray:
    """(h, w) float 0-1: a shadow that lies to the right of the foot."""
    shadow = np.zeros((HEIGHT, WIDTH), np.float32)
    cv2.ellipse(shadow, (210, 168), (52, 12), 0, 0, 360, 1, -1)
    return cv2.GaussianBlur(shadow, (0, 0), soft)


def scene(kind: str = "plain", dark: float = 0.45, noise: float = 2.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pixels (h, w, 3) uint8 of a red body with its shadow, and its mask (h, w) uint8."""
    picture = ground(kind, seed) * (1 - dark * cast())[..., None]
    mask = body()
    picture[mask] = (190, 40, 50)
    picture += np.random.default_rng(seed + 1).normal(0, noise, picture.shape)
    return np.clip(np.rint(picture), 0, 255).astype(np.uint8), mask.astype(np.uint8) * 255


def overlap(one: np.ndarray, other: np.ndarray) -> float:
    return np.count_nonzero(one & other) / max(1, np.count_nonzero(one | other))


# -- found --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "textured", "sloping"])
@pytest.mark.parametrize("grey", [False, True])
def test_a_known_shadow_is_found(kind: str, grey: bool) -> None:
    pixels, mask = scene(kind)
    if grey:
        pixels[mask > 0] = 230
        pixels = np.repeat(pixels.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2)
    found = find_shadow(pixels, mask)
    truth = (cast() > 0.3) & (mask == 0)
    assert found.kind == "shadow"
    assert found.confidence >= SURE, found.reason
    assert overlap(found.region, truth) > 0.7
    assert not found.region[mask > 0].any()


@pytest.mark.parametrize("kind", ["plain", "textured", "sloping", "white"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_without_a_shadow_none_is_taken(kind: str, seed: int) -> None:
    pixels, mask = scene(kind, dark=0.0, noise=4.0, seed=seed)
    assert find_shadow(pixels, mask).confidence < SURE


def test_another_object_at_the_foot_is_no_shadow() -> None:
    pixels, mask = scene(dark=0.0)
    cv2.ellipse(pixels, (210, 168), (40, 12), 0, 0, 360, (40, 50, 120), -1)
    pixels[mask > 0] = (190, 40, 50)
    assert find_shadow(pixels, mask).confidence < SURE


def test_a_carpet_the_object_stands_on_is_no_shadow() -> None:
    pixels, mask = scene(dark=0.0)
    pixels[150:][mask[150:] == 0] = (70, 66, 58)
    assert find_shadow(pixels, mask).confidence < SURE


def test_the_missed_half_of_an_object_is_no_shadow() -> None:
    pixels, mask = scene(dark=0.0)
    mask[:, 170:] = 0
    assert find_shadow(pixels, mask).confidence < SURE


def test_a_mirror_image_is_found() -> None:
    random = np.random.default_rng(0)
    picture = ground("plain") * 0.6
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[80:140, 120:220] = True
    blocks = cv2.resize(
        random.integers(30, 255, (6, 10, 3)).astype(np.uint8), (100, 60), interpolation=cv2.INTER_NEAREST
    )
    picture[80:140, 120:220] = blocks
    picture[140:200, 120:220] = 0.5 * cv2.GaussianBlur(blocks[::-1], (0, 0), 2) + 40
    pixels = np.clip(picture + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)
    found = find_shadow(pixels, mask)
    truth = np.zeros_like(mask)
    truth[140:200, 120:220] = True
    assert found.kind == "reflection"
    assert found.confidence >= SURE
    assert overlap(found.region, truth) > 0.7


@given(st.integers(1, 24), st.integers(1, 24), st.integers(0, 2**32 - 1))
@settings(max_examples=40, deadline=None)
def test_tiny_pictures_and_any_mask_are_taken(height: int, width: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    mask = (random.random((height, width)) < random.random()).astype(np.uint8) * np.uint8(255)
    found = find_shadow(pixels, mask)
    assert found.region.shape == mask.shape
    assert 0 <= found.confidence <= 1
    assert not found.region[mask > 0].any()
    assert kept_shadow(pixels, mask).strength.shape == mask.shape
    assert contact_shadow(mask, Box(-3, -2, width + 5, height + 4)).shape == (height + 6, width + 8)
    score, radius = leftover_score(pixels, mask > 0, mask > 0)
    assert 0 <= score <= 1
    assert radius is None or radius > 0


@pytest.mark.parametrize("side", ["left", "right", "bottom"])
def test_an_object_at_the_border_is_taken(side: str) -> None:
    pixels, mask = scene()
    cut = {"left": np.s_[:, 165:], "right": np.s_[:, :175], "bottom": np.s_[:160]}[side]
    found = find_shadow(pixels[cut], mask[cut])
    assert found.region.shape == mask[cut].shape
    assert not found.region[mask[cut] > 0].any()


def test_answers_are_always_the_same() -> None:
    pixels, mask = scene("textured")
    first, again = find_shadow(pixels, mask), find_shadow(pixels.copy(), mask.copy())
    assert first.confidence == again.confidence
    np.testing.assert_array_equal(first.region, again.region)
    np.testing.assert_array_equal(kept_shadow(pixels, mask).strength, kept_shadow(pixels, mask).strength)


# -- kept and made ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "white", "sloping"])
def test_the_strength_of_a_known_shadow_is_estimated(kind: str) -> None:
    pixels, mask = scene(kind)
    kept = kept_shadow(pixels, mask)
    truth = 0.45 * cast()
    outside = cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0
    assert kept.confidence > 0.7, kept.reason
    assert np.abs(kept.strength / 255 - truth)[outside].mean() < 0.01
    assert np.abs(kept.strength / 255 - truth)[outside & (truth > 0.4)].mean() < 0.05


@pytest.mark.parametrize("kind", ["plain", "white", "sloping"])
@pytest.mark.parametrize("noise", [0.0, 2.0, 6.0])
def test_noise_and_fall_off_become_no_veil(kind: str, noise: float) -> None:
    pixels, mask = scene(kind, dark=0.0, noise=noise)
    outside = cv2.dilate(mask, np.ones((9, 9), np.uint8)) == 0
    strength = kept_shadow(pixels, mask).strength[outside]
    assert np.mean(strength > 0) < 0.01


def test_patterned_ground_is_not_trusted() -> None:
    pixels, mask = scene("plain")
    stripes = (np.arange(HEIGHT)[:, None] // 14 + np.arange(WIDTH)[None] // 14) % 2 == 0
    pixels[stripes & (mask == 0)] = pixels[stripes & (mask == 0)] // 2
    assert kept_shadow(pixels, mask).confidence < 0.5


def test_the_shadow_goes_on_under_the_products_edge() -> None:
    pixels, mask = scene()
    strength = kept_shadow(pixels, mask).strength
    inner = cv2.erode(mask, np.ones((3, 3), np.uint8))
    rim = (mask > 0) & (inner == 0) & (cast() > 0.9)
    assert rim.any()
    assert np.median(strength[rim]) > 70


@given(st.integers(20, 90), st.integers(20, 90), st.integers(0, 40))
@settings(max_examples=25, deadline=None)
def test_a_contact_shadow_lies_at_the_foot(width: int, height: int, arch: int) -> None:
    matte = np.zeros((height, width), np.uint8)
    matte[:, 2:-2] = 255
    matte[height - min(arch, height // 3) :, width // 3 : 2 * width // 3] = 0  # stands on two feet
    allowed = Box(-60, -40, width + 60, height + 60)
    strength = contact_shadow(matte, allowed)
    below = strength[40 + height, 60 : 60 + width]
    assert below.max() > 90  # it touches
    rows = np.arange(strength.shape[0])
    centre = (strength.sum(axis=1) * rows).sum() / strength.sum()
    assert abs(centre - (40 + height)) < 0.2 * width
    column = strength[40 + height :, 60 + 5].astype(int)
    assert (np.diff(column) <= 1).all()  # fainter and fainter away from it
    assert strength[0].max() == 0
    assert strength[-1].max() <= 2


def test_a_contact_shadow_grows_with_the_product() -> None:
    matte = np.full((40, 40), 255, np.uint8)
    small = contact_shadow(matte, Box(-40, -40, 80, 80))
    large = contact_shadow(cv2.resize(matte, (80, 80)), Box(-80, -80, 160, 160))
    assert np.abs(cv2.resize(large, (120, 120), interpolation=cv2.INTER_AREA).astype(int) - small).mean() < 2


def test_no_product_throws_no_shadow() -> None:
    assert not contact_shadow(np.zeros((30, 30), np.uint8), Box(-5, -5, 35, 35)).any()


# -- stages -------------------------------------------------------------------------------------------------------


def cut_out(pixels: np.ndarray, mask: np.ndarray) -> Edit:
    edit = Edit.of(pixels)
    matte = Mask.from_array(mask, edit.box)
    return edit.replace(cutouts=(Cutout(matte.box, ((matte.box, edit.pixels(matte.box)),), matte),))


@pytest.mark.parametrize(("kind", "expected"), [("white", "keep"), ("patterned", "contact")])
def test_auto_keeps_what_it_trusts(kind: str, expected: str) -> None:
    pixels, mask = scene("white")
    if kind == "patterned":
        pixels[::2] = pixels[::2] // 2
        pixels[:, ::40] = 0
        pixels[30:60, 20:80] = 10
        pixels[90:120, 230:300] = 60
    edit = Shadow(shadow="auto")(cut_out(pixels, mask))
    (figure,) = edit.steps[-1].figures["shadows"]
    assert figure["kind"] == expected
    assert len(edit.shadows) == 1
    assert not edit.shadows[0].strength.is_empty
    assert edit.steps[-1].notes


def test_a_kept_shadow_fades_where_a_wider_canvas_goes_on_without_it() -> None:
    pixels, mask = scene("white")
    edit = cut_out(pixels[:, :215], mask[:, :215])
    (whole,) = Shadow(shadow="keep")(edit).shadows
    wider = edit.replace(canvas=Canvas(edit.box.grow(50), Size(*edit.box.grow(50).size)))
    (faded,) = Shadow(shadow="keep")(wider).shadows
    side = Box(205, 0, 208, edit.box.bottom)
    assert whole.strength.array(side).max() > 20
    assert faded.strength.array(side).max() < whole.strength.array(side).max() / 2
    assert (faded.strength.array(whole.box) <= whole.strength.array(whole.box)).all()


def test_a_contact_layer_reaches_beyond_the_photo() -> None:
    pixels, mask = scene()
    edit = Shadow(shadow="contact")(cut_out(pixels[:175], mask[:175]))
    (layer,) = edit.shadows
    assert layer.box.bottom > 175
    assert layer.strength.array(Box(140, 175, 200, 180)).max() > 20


def test_off_makes_none() -> None:
    assert Shadow(shadow="off")(cut_out(*scene())).shadows == ()


def test_a_sure_shadow_goes_with_its_object_and_is_shown() -> None:
    pixels, mask = scene()
    plain = Select(mask=mask)(Edit.of(pixels))
    edit = Select(mask=mask, shadow="auto")(Edit.of(pixels))
    assert plain.selected is not None
    assert edit.selected is not None
    (region,) = edit.regions
    assert region.label == "shadow"
    assert region.mask is not None
    assert edit.selected == plain.selected.union(region.mask)
    assert "goes too" in edit.steps[-1].notes[-1]
    shown = overlaid(edit)
    y, x = 168, 240
    assert shown[y, x, 2] > shown[y, x, 0]  # blue on the shadow
    assert shown[110, 170, 0] > shown[110, 170, 2]  # red on the object


def test_an_unsure_shadow_is_left_and_said(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.shadows import Found
    from toolkit.stages import select

    def unsure(pixels: Any, mask: Any) -> Found:
        region = np.zeros(mask.shape, bool)
        region[200:220, 100:200] = True
        return Found(region, 0.41, "shadow", "it is ragged")

    monkeypatch.setattr(select, "find_shadow", unsure)
    pixels, mask = scene()
    edit = Select(mask=mask, shadow="auto")(Edit.of(pixels))
    assert edit.selected == Select(mask=mask)(Edit.of(pixels)).selected
    assert [region.label for region in edit.regions] == ["shadow"]
    assert "a possible shadow (confidence 0.41) was left: it is ragged" in edit.steps[-1].notes[-1]
    assert edit.steps[-1].figures["confidence"] == 1.0  # that of the selection, not of the proposal
    assert (overlaid(edit) != overlaid(edit.replace(regions=()))).any()


def test_what_is_protected_stays_out_of_the_shadow() -> None:
    pixels, mask = scene()
    kept = Box(205, 150, 300, 190)
    edit = Select(mask=mask, shadow="auto", protect=(kept,))(Edit.of(pixels))
    assert edit.selected is not None
    assert not edit.selected.array(kept).any()


# -- leftovers ----------------------------------------------------------------------------------------------------


def eroded(mask: np.ndarray, radius: int) -> np.ndarray:
    return cv2.distanceTransform(mask, cv2.DIST_L2, 5) > radius


@pytest.mark.parametrize("kind", ["plain", "textured"])
@pytest.mark.parametrize("radius", [4, 8, 12])
def test_an_eroded_mask_is_noticed_and_the_radius_suggested(kind: str, radius: int) -> None:
    pixels, mask = scene(kind, dark=0.0)
    small = eroded(mask, radius)
    score, suggested = leftover_score(pixels, small, small)
    assert score > 0.55
    assert suggested is not None
    assert radius <= suggested <= radius + 5


@pytest.mark.parametrize("kind", ["plain", "textured"])
def test_a_whole_mask_dilated_leaves_nothing(kind: str) -> None:
    pixels, mask = scene(kind, dark=0.0)
    grown = cv2.dilate(mask, np.ones((13, 13), np.uint8)) > 0
    assert leftover_score(pixels, mask > 0, grown)[0] < 0.2


def test_the_suggestion_counts_from_the_selection() -> None:
    pixels, mask = scene(dark=0.0)
    small = eroded(mask, 14)
    grown = cv2.distanceTransform((~small).astype(np.uint8), cv2.DIST_L2, 5) <= 4
    score, suggested = leftover_score(pixels, small, grown)
    assert score > 0.55
    assert suggested is not None
    assert 14 <= suggested <= 19


def test_a_mask_where_nothing_differs_scores_nothing() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (120, 120, 3)).astype(np.uint8)
    mask = np.zeros((120, 120), bool)
    mask[40:80, 40:80] = True
    assert leftover_score(pixels, mask, mask) == (0.0, None)


def test_the_warning_names_the_radius_that_helps() -> None:
    pixels, mask = scene(dark=0.0)
    small = eroded(mask, 12).astype(np.uint8) * np.uint8(255)
    edit = Crop()(Dilate(radius=2)(Select(mask=small)(Edit.of(pixels))))
    warning = edit.steps[-1].warnings[-1]
    assert "part of the object may be left along the mask's edge" in warning
    radius = int(warning.split("dilate.radius=")[1].split()[0])
    edit = Crop()(Dilate(radius=radius)(Select(mask=small)(Edit.of(pixels))))
    assert edit.steps[-1].figures["leftover"] < 0.3
    assert not edit.steps[-1].warnings


# -- reduced copies -----------------------------------------------------------------------------------------------


@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 7), st.integers(0, 2**32 - 1))
@settings(max_examples=30, deadline=None)
def test_what_is_reduced_and_enlarged_keeps_its_place(height: int, width: int, step: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 256, (height, width)).astype(np.uint8)
    frame = Box.of_size((width * step, height * step)).shift(5, 3)
    mask = enlarged(values, step, (5, 3), frame)
    back = reduced_mask(mask, frame, step).astype(int)
    smooth = cv2.GaussianBlur(values, (3, 3), 0.6).astype(int)
    assert np.abs(back - values).max() <= max(1, np.abs(smooth - values).max() * 2 + 128 * (step > 1))
    if step == 1:
        np.testing.assert_array_equal(back, values)


def test_strips_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit import reduced

    pixels, _ = scene("textured")
    edit, box = Edit.of(pixels), Box(11, 7, 301, 250)
    whole = reduced_pixels(edit, box, 3)
    layer = enlarged(whole[..., 0], 3, (11, 7), edit.box)
    monkeypatch.setattr(reduced, "_STRIP", 2000)
    np.testing.assert_array_equal(reduced_pixels(edit, box, 3), whole)
    assert enlarged(whole[..., 0], 3, (11, 7), edit.box) == layer


def test_regions_of_other_kinds_are_not_drawn_as_shadows() -> None:
    pixels, mask = scene()
    edit = Select(mask=mask)(Edit.of(pixels))
    marked = edit.replace(regions=(Region(OBJECT, "subject", 0.9, Mask.from_box(edit.box, OBJECT)),))
    np.testing.assert_array_equal(overlaid(marked), overlaid(edit))
