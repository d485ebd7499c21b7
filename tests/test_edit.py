"""Edits: mirrored reading, stacked patches, variations, and law 1 (nothing changes where no patch has weight)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit import blend
from toolkit.drawing import reflected
from toolkit.edit import Cutout, Edit, Fill, Patch, Stack, Step, Window
from toolkit.errors import FidelityError, PhotoError, UsageError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask

boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    st.integers(-40, 40), st.integers(-40, 40), st.integers(1, 60), st.integers(1, 60),
)  # fmt: skip


def picture(height: int, width: int, channels: int = 3, seed: int = 0, dtype: str = "uint8") -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, (height, width, channels)).astype(dtype)


def patch(edit: Edit, box: Box, weight: np.ndarray, seed: int = 1) -> Patch:
    source = picture(box.height, box.width, edit.photo.array().shape[2], seed, edit.photo.dtype.__name__)
    return Patch(box, source, Mask.from_array(weight, edit.box, (box.left, box.top)))


@given(boxes, st.integers(1, 17), st.integers(1, 17))
@settings(max_examples=150, deadline=None)
def test_beyond_the_photo_lies_its_mirror_image(box: Box, height: int, width: int) -> None:
    array = picture(height, width)
    margin = 110
    padded = array
    for axis, length in enumerate((height, width)):  # numpy cannot reflect a single row
        pads = [(margin, margin) if n == axis else (0, 0) for n in range(3)]
        padded = np.pad(padded, pads, mode="reflect" if length > 1 else "edge")
    edit = Edit.of(array)
    got = edit.pixels(box)
    assert np.array_equal(got, padded[box.shift(margin, margin).slices])
    assert not got.flags.writeable
    mask = Mask.from_array(array[..., 0] > 99)
    assert np.array_equal(edit.mirrored_mask(mask, box) > 0, got[..., 0] > 99)


@given(st.integers(-100, 100), st.integers(0, 50), st.integers(1, 20))
def test_reflected_indices_are_those_of_numpy(start: int, count: int, length: int) -> None:
    whole = np.pad(np.arange(length), 200, mode="reflect" if length > 1 else "edge")
    assert np.array_equal(reflected(start, start + count, length), whole[200 + start : 200 + start + count])


@st.composite
def patched(draw: st.DrawFn) -> tuple[Edit, np.ndarray, list[Patch]]:
    kind = draw(st.sampled_from([("uint8", 1), ("uint8", 3), ("uint8", 4), ("uint16", 3), ("uint16", 2)]))
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    array = picture(height, width, kind[1], dtype=kind[0])
    edit = Edit.of(array)
    patches = []
    for seed in range(draw(st.integers(0, 4))):
        left, top = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
        box = Box(left, top, draw(st.integers(left + 1, width)), draw(st.integers(top + 1, height)))
        random = np.random.default_rng(draw(st.integers(0, 99)))
        weight = random.choice([0, 0, 1, 128, 254, 255], (box.height, box.width)).astype(np.uint8)
        patches.append(patch(edit, box, weight, seed))
    return edit.replace(stacks=(Stack(tuple(patches)),)), array, patches


@given(patched())
@settings(max_examples=100, deadline=None)
def test_law_1_the_array_differs_only_where_a_patch_has_weight(given_: tuple[Edit, np.ndarray, list[Patch]]) -> None:
    edit, array, patches = given_
    weight = np.zeros(array.shape[:2], bool)
    for one in patches:
        weight |= one.weight.array(edit.box) > 0
    changed = (edit.array() != array).any(axis=2)
    assert not (changed & ~weight).any()
    assert np.array_equal(edit.band().array() > 0, weight)
    # The windows of `render` are disjoint and say the same as reading the whole.
    seen = np.zeros(array.shape[:2], int)
    for box, pixels in edit.render():
        seen[box.slices] += 1
        assert not pixels.flags.writeable
        assert np.array_equal(pixels, edit.pixels(box))
    assert seen.max(initial=0) <= 1
    assert np.array_equal(edit.array(), edit.pixels(edit.box))


def test_later_patches_lie_on_earlier_ones() -> None:
    edit = Edit.of(picture(20, 20))
    first = patch(edit, Box(2, 2, 12, 12), np.full((10, 10), 255, np.uint8), 1)
    second = patch(edit, Box(8, 8, 18, 18), np.full((10, 10), 255, np.uint8), 2)
    both = edit.replace(stacks=(Stack((first, second)),))
    got = both.array()
    assert np.array_equal(got[8:18, 8:18], second.source)
    assert np.array_equal(got[2:8, 2:12], first.source[:6])
    assert both.digest != edit.digest
    assert both.digest != edit.replace(stacks=(Stack((second, first)),)).digest
    assert edit.digest == Edit.of(picture(20, 20)).digest


def test_a_changed_pixel_of_weight_0_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    edit = Edit.of(picture(20, 20))
    weight = np.zeros((10, 10), np.uint8)
    weight[4:6, 4:6] = 255
    edit = edit.replace(stacks=(Stack((patch(edit, Box(5, 5, 15, 15), weight),)),))
    right = blend.composite

    def careless(below: np.ndarray, above: np.ndarray, weight: np.ndarray) -> np.ndarray:
        laid = right(below, above, weight).copy()
        laid[0, 0, 0] ^= 255
        return laid

    monkeypatch.setattr(blend, "composite", careless)
    with pytest.raises(FidelityError, match=r"^array: 1 pixels outside the blend band changed in 5,5,15,15$"):
        edit.array()


def test_variations_must_be_chosen() -> None:
    edit = Edit.of(picture(20, 20))
    weight = np.full((5, 5), 255, np.uint8)
    stacks = tuple(Stack((patch(edit, Box(3, 3, 8, 8), weight, seed),), seeds=(seed,)) for seed in (1, 2))
    two = edit.replace(stacks=stacks)
    assert not np.array_equal(two.array(0), two.array(1))
    assert np.array_equal(two.choose(1).array(), two.array(1))
    assert np.array_equal(two.pixels(two.box, 1), two.array(1))
    for reading in (lambda: two.pixels(two.box), lambda: two.digest, lambda: two.srgb(two.box)):
        with pytest.raises(UsageError) as caught:
            reading()
        assert str(caught.value) == "the edit holds 2 variations: call edit.choose(k) before going on"
    for number in (-1, 2):
        for reading in (
            lambda k=number: two.choose(k),
            lambda k=number: two.array(k),
            lambda k=number: two.band(k),
            lambda k=number: two.pixels(two.box, k),
            lambda k=number: two.preview(two.box, k),
            lambda k=number: two.image(k),
        ):
            with pytest.raises(UsageError) as caught:
                reading()
            assert str(caught.value) == f"no variation {number}: there are 2, counted from 0"


@pytest.mark.parametrize("scale", [1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_later_passes_read_what_earlier_ones_filled(scale: int, dtype: str) -> None:
    array = picture(40, 40, dtype=dtype)
    edit = Edit.of(array)
    hole = Mask.from_box(edit.box, Box(10, 10, 20, 20))
    window = Window(Box(0, 0, 32, 32), Size(32 // scale, 32 // scale), hole)
    images = tuple(np.full((32 // scale, 32 // scale, 3), value, np.uint8) for value in (0, 255))
    edit = edit.replace(fills=(Fill(window, images, (0, 1)),))
    assert np.array_equal(edit.pixels(edit.box), array), "without a variation the photo is as it was"
    for k, value in enumerate((0, np.iinfo(dtype).max)):
        got = edit.pixels(edit.box, k)
        assert np.abs(got[10:20, 10:20].astype(int) - value).max() <= (129 if dtype == "uint16" else 0), "dithered"
        outside = hole.array() == 0
        assert np.array_equal(got[outside], array[outside]), "the hole is hard"
        assert np.array_equal(edit.pixels(Box(15, 15, 60, 60), k)[:25, :25], got[15:, 15:]), "however it is read"


def test_arrays_are_read_only_and_nothing_is_changed_in_place() -> None:
    array = picture(20, 20)
    edit = Edit.of(array)
    kept = array.copy()
    array[:] = 0
    assert np.array_equal(edit.array(), kept), "the edit has its own copy"
    one = patch(edit, Box(3, 3, 8, 8), np.full((5, 5), 255, np.uint8))
    window = Window(Box(0, 0, 8, 8), Size(8, 8), one.weight)
    fill = Fill(window, (np.zeros((8, 8, 3), np.uint8),), (0,))
    cutout = Cutout(Box(0, 0, 8, 8), ((Box(0, 0, 8, 8), np.zeros((8, 8, 3), np.uint8)),), one.weight)
    beyond = edit.mirrored_mask(one.weight, Box(-5, -5, 9, 9))
    for held in (
        one.source,
        fill.images[0],
        cutout.edge[0][1],
        edit.pixels(Box(0, 0, 5, 5)),
        edit.srgb(edit.box),
        beyond,
    ):
        assert not held.flags.writeable
        with pytest.raises(ValueError, match="read-only"):
            held[0, 0] = 1
    result = edit.array()
    result[:] = 0
    assert np.array_equal(edit.array(), kept), "what was handed out is the caller's own"


def test_what_is_hidden() -> None:
    array = picture(6, 6, 4)
    array[..., 3] = 255
    array[2:4, 2:4, 3] = 0
    edit = Edit.of(array)
    hidden = edit.hidden(Box(1, 1, 5, 5))
    assert hidden is not None
    assert hidden.sum() == 4
    assert edit.srgb(edit.box).shape == (6, 6, 3)
    assert Edit.of(picture(6, 6)).hidden(Box(0, 0, 2, 2)) is None


def test_edits_are_made_of_photos() -> None:
    edit = Edit.of(picture(5, 7))
    assert Edit.of(edit) is edit
    assert Edit.of(edit.photo).photo is edit.photo
    assert edit.canvas.box == edit.box == Box(0, 0, 7, 5)
    assert edit.image().size == (7, 5)
    with pytest.raises(PhotoError):
        Edit.of(3)


def test_the_report_is_json_ready() -> None:
    import json

    edit = Edit.of(picture(20, 20))
    one = patch(edit, Box(3, 3, 8, 8), np.full((5, 5), 255, np.uint8))
    step = Step("fill", {"seed": 3}, engine="patchmatch", price=0.25, notes=("a note",), warnings=("a warning",))
    report = edit.replace(stacks=(Stack((one,), 1.5, (3,)),), steps=(step, step)).report()
    assert json.loads(json.dumps(report)) == report | {"steps": json.loads(json.dumps(report["steps"]))}
    assert report["price"] == {"total": 0.5, "currency": "USD"}
    assert report["variations"] == [{"seeds": [3], "seam": 1.5, "patches": [[3, 3, 8, 8]]}]
    assert report["warnings"] == ["a warning"] * 2
