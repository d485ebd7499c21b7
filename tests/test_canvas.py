"""The canvas: where the product stands on it, how large it is, and one resampling that no strip can be seen in."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scenes import after, cut, matte, product, ready, written

from toolkit import blend, drawing
from toolkit.edit import Canvas as Shown
from toolkit.edit import Edit, Patch, Stack
from toolkit.errors import ParameterError, UsageError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask
from toolkit.schema import build
from toolkit.stages.backdrop import Backdrop
from toolkit.stages.canvas import Canvas, placed
from toolkit.stages.select import Select

sides = st.integers(1, 3000)
products = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    st.integers(0, 2000), st.integers(0, 2000), st.integers(1, 2500), st.integers(1, 2500),
)  # fmt: skip
sizes = st.builds(Size, sides, sides)


def on_canvas(box: Box, canvas: Shown) -> tuple[float, float, float, float]:
    """Where a box of the plane lies on the rendered canvas."""
    left, top = canvas.origin or (canvas.box.left, canvas.box.top)
    return tuple((n - (left, top)[i % 2]) * canvas.scale for i, n in enumerate(box))  # type: ignore[return-value]


@given(products, sizes, st.floats(0.05, 1), st.sampled_from([None, "center", "bottom"]))
@settings(max_examples=200, deadline=None)
def test_the_product_fills_the_share_asked_for(box: Box, size: Size, share: float, align: str | None) -> None:
    canvas = placed(box, Size(4000, 3000), size, share, align, None)
    left, top, right, bottom = on_canvas(box, canvas)
    assert canvas.size == size
    wish = share * min(size.width / box.width, size.height / box.height)
    # A product that would be less than half a pixel larger or smaller is not resampled for it.
    assert abs(canvas.scale - wish) * max(box.size) < 0.5 if canvas.scale == 1 else canvas.scale == pytest.approx(wish)
    if canvas.scale != 1:
        assert max((right - left) / size.width, (bottom - top) / size.height) == pytest.approx(share)
    assert (right - left) / box.width == pytest.approx((bottom - top) / box.height), "never stretched"
    assert abs((left + right) - size.width) <= 1.01, "centred"
    if align == "bottom":
        assert top >= size.height - bottom - 1.01, "at the bottom is never above the middle"
    else:
        assert abs((top + bottom) - size.height) <= 1.01
    assert min(left, top) >= -0.51
    assert max(right - size.width, bottom - size.height) <= 0.51


@given(products, sizes, st.floats(0.05, 1), st.integers(0, 300), st.sampled_from(["center", "bottom"]))
@settings(max_examples=200, deadline=None)
def test_margins_are_kept(box: Box, size: Size, share: float, margin: int, align: str) -> None:
    if min(size) <= 2 * margin:
        with pytest.raises(ParameterError, match="leave no room"):
            placed(box, Size(4000, 3000), size, share, align, margin)
        return
    canvas = placed(box, Size(4000, 3000), size, share, align, margin)
    left, top, right, bottom = on_canvas(box, canvas)
    for gap in (left, top, size.width - right, size.height - bottom):
        assert gap >= margin - 0.51
    if align == "bottom":
        assert size.height - bottom == pytest.approx(margin, abs=0.51)


@given(products, sizes, st.floats(0.05, 1), st.one_of(st.none(), st.integers(0, 300), st.just("7.5%")))
@settings(max_examples=200, deadline=None)
def test_without_a_canvas_size_no_pixel_is_scaled(box: Box, photo: Size, share: float, margin: Any) -> None:
    canvas = placed(box, photo, None, share, None, margin)
    assert canvas.scale == 1
    assert canvas.box.size == canvas.size
    assert canvas.box.contains(box)
    filled = max(box.width / canvas.size.width, box.height / canvas.size.height)
    assert filled <= share + 0.6 / min(canvas.size)
    if margin is None:
        assert abs(canvas.size.width * photo.height - canvas.size.height * photo.width) <= max(photo), "its shape"
    elif isinstance(margin, int):
        assert canvas.box.contains(box.grow(margin))


@given(products, sizes)
@settings(max_examples=100, deadline=None)
def test_a_canvas_alone_only_reduces_what_does_not_fit(box: Box, size: Size) -> None:
    canvas = placed(box, Size(4000, 3000), size, None, None, None)
    assert canvas.scale <= 1
    assert (canvas.scale == 1) == (box.width <= size.width and box.height <= size.height)


def test_nothing_asked_for_changes_nothing() -> None:
    edit = ready(Canvas())
    assert edit.canvas == Shown(edit.box, edit.box.size)
    assert not edit.drawing().moved


def test_the_selection_will_do_for_a_product() -> None:
    picture = product()[0]
    edit = after(Edit.of(picture), Select(mask=matte(60, 80, Box(20, 20, 40, 40)) > 0), Canvas(product_size=0.5))
    assert edit.canvas.scale == 1
    assert edit.steps[-1].figures["product_share"] == pytest.approx(0.5, abs=0.02)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"product_size": "120%"}, "canvas.product_size: must be between 1% and 100%, got '120%'"),
        ({"product_size": "big"}, "canvas.product_size: expected a share such as \"85%\" or 0.85, got 'big'"),
        ({"margin": "60%"}, "canvas.margin: must be less than 50%, got '60%'"),
        ({"margin": -1}, "canvas.margin: must be a whole number of pixels, got -1"),
        ({"align": "top"}, "canvas.align: must be 'center' or 'bottom', got 'top'"),
        ({"size": "2000"}, None),
    ],
)
def test_fields_are_read_and_wrong_ones_named(fields: dict[str, Any], sentence: str | None) -> None:
    if sentence is None:
        assert build(Canvas, fields, "canvas").size == Size(2000, 2000)
        return
    with pytest.raises(ParameterError) as caught:
        build(Canvas, fields, "canvas")
    assert str(caught.value) == sentence


def test_what_cannot_be_done_is_said() -> None:
    edit = Edit.of(product()[0])
    with pytest.raises(UsageError, match=r"^canvas: needs to know where the product is; put a stage before"):
        Canvas(product_size=0.5)(edit)
    assert Canvas(size="40x40")(edit).canvas.size == Size(40, 40), "the photo itself is what has to fit"
    with pytest.raises(UsageError, match=r"^canvas: a backdrop has been laid for another canvas; put canvas before"):
        ready(Backdrop(), Canvas(product_size=0.5))
    with pytest.raises(ParameterError, match=r"^canvas.margin: 50 on every side leave no room on a canvas of 90x90$"):
        ready(Canvas(size="90x90", margin=50))


def test_enlarging_touching_and_resampling_are_said() -> None:
    large = ready(Canvas(size="400x300", product_size="85%")).steps[-1]
    assert "the product is enlarged" in large.warnings[0]
    assert "resampled once" in large.notes[0]
    small = ready(Canvas(size="30x30")).steps[-1]
    assert not small.warnings
    assert "resampled once" in small.notes[0]
    same = ready(Canvas(product_size="40%")).steps[-1]
    assert not same.warnings
    assert not same.notes
    narrow = ready(Canvas(size="200x200", product_size="90%", margin=40)).steps[-1]
    assert "the margins leave room for a product of 60% of the canvas" in narrow.warnings
    touching = ready(Canvas(), box=Box(-20, 10, 40, 70))
    assert touching.steps[-1].warnings == (
        "the product touches the photo's edge (left and bottom): it will look cut off there",
    )


# -- rendering -------------------------------------------------------------------------------------------------------


@given(
    st.integers(0, 5), st.floats(0.13, 4.5), st.floats(-9, 9), st.floats(-9, 9), st.sampled_from([1, 2, 3, 4]),
    st.sampled_from(["uint8", "uint16"]), st.integers(1, 40),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_strips_are_the_whole(seed: int, step: float, x: float, y: float, bands: int, dtype: str, rows: int) -> None:
    plane = np.random.default_rng(seed).integers(0, np.iinfo(dtype).max + 1, (50, 60, bands)).astype(dtype)
    extent = Box(0, 0, 60, 50)
    size = Size(max(1, int((60 - abs(x)) / step)), max(1, int((50 - abs(y)) / step)))
    scaling = blend.Scaling((max(0.0, x), max(0.0, y)), step)

    def part(box: Box) -> np.ndarray:
        values = blend.resampled(lambda b: plane[b.slices], extent, box, scaling, alpha=bands in (2, 4))
        return blend.levels(values, np.dtype(dtype).type)

    whole = part(Box.of_size(size))
    strips = [part(Box(0, n, size.width, min(n + rows, size.height))) for n in range(0, size.height, rows)]
    assert np.array_equal(np.concatenate(strips), whole)


@pytest.mark.parametrize("step", [0.3, 0.77, 1.0, 1.9, 4.0, 7.3])
def test_resampling_keeps_what_is_flat_and_agrees_with_pillow(step: float) -> None:
    size = Size(int(120 / step), int(90 / step))
    flat = np.full((90, 120, 3), (17, 200, 255), np.uint8)
    scaling = blend.Scaling((0.0, 0.0), step)

    def done(plane: np.ndarray) -> np.ndarray:
        return blend.resampled(lambda b: plane[b.slices], Box(0, 0, 120, 90), Box.of_size(size), scaling, alpha=False)

    assert np.array_equal(blend.levels(done(flat), np.uint8), np.broadcast_to(flat[0, 0], (size.height, size.width, 3)))
    y, x = np.mgrid[0:90, 0:120]
    smooth = np.rint(127 + 100 * np.sin(x / 17) * np.cos(y / 13))[..., None].astype(np.uint8)
    how = Image.Resampling.LANCZOS if step > 1 else Image.Resampling.BICUBIC
    box = (0, 0, size.width * step, size.height * step)
    rival = np.asarray(Image.fromarray(smooth[..., 0].astype(np.float32)).resize(size, how, box=box))
    mine = done(smooth)[..., 0]
    assert np.abs(mine - rival)[4:-4, 4:-4].max() < (1.5 if step < 1 else 0.01), "Pillow's cubic has another shape"


def test_transparent_pixels_lend_no_colour() -> None:
    plane = np.zeros((40, 40, 4), np.uint8)
    plane[...] = (0, 255, 0, 0)
    plane[:, :20] = (200, 10, 10, 255)
    scaling = blend.Scaling((0.0, 0.0), 3.7)
    values = blend.resampled(lambda b: plane[b.slices], Box(0, 0, 40, 40), Box(0, 0, 10, 10), scaling, alpha=True)
    result = blend.levels(values, np.uint8)
    assert (result[result[..., 3] > 8][:, :3] == (200, 10, 10)).all()
    assert (result[result[..., 3] == 0][:, :3] != (0, 255, 0)).any(axis=1).all()


@pytest.mark.parametrize("bands", [1, 2, 3, 4])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("fields", [{"size": "30x50"}, {"size": "200x150", "product_size": 0.8}])
def test_a_canvas_is_rendered_alike_in_any_strips(
    bands: int, dtype: Any, fields: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    edit = ready(Canvas(**fields), Backdrop(background="#fff,#123"), bands=bands, dtype=dtype)
    assert edit.canvas.scale != 1
    whole = edit.array()
    monkeypatch.setattr(drawing, "_STRIP", 60)
    assert len(list(edit.drawing().strips())) > 1
    assert np.array_equal(edit.array(), whole)
    assert whole.shape == (edit.canvas.size.height, edit.canvas.size.width, bands)


@pytest.mark.parametrize("align", ["center", "bottom"])
def test_at_scale_1_the_photo_is_moved_and_nothing_else(align: str) -> None:
    photo, colours, alpha = product()
    edit = after(cut(photo, colours, alpha), Canvas(size="120x100", align=align), Backdrop(background="#abc"))
    box = edit.canvas.box
    moved = edit.array()[Box.of_size((80, 60)).within(box).slices]
    assert np.array_equal(moved[alpha == 255], photo[alpha == 255])
    assert (edit.array()[0] == (0xAA, 0xBB, 0xCC)).all()


def test_a_product_is_as_large_on_the_picture_as_was_said() -> None:
    photo, colours, alpha = product(300, 400, box=Box(60, 90, 260, 190))
    edit = after(cut(photo * 0, colours * 0, alpha), Canvas(size="500x500", product_size="85%"), Backdrop())
    dark = written(edit).array()[..., 0] < 128
    rows, columns = np.flatnonzero(dark.any(axis=1)), np.flatnonzero(dark.any(axis=0))
    assert columns[-1] - columns[0] + 1 == pytest.approx(425, abs=3)
    assert rows[-1] - rows[0] + 1 == pytest.approx(212, abs=3), "twice as wide as high, as in the photo"


def test_a_crop_without_a_backdrop_shows_the_photo_and_beyond_it_its_mirror_image() -> None:
    picture = product()[0]
    edit = Edit.of(picture).replace(canvas=Shown(Box(10, 5, 50, 45), Size(40, 40)))
    assert np.array_equal(edit.array(), picture[5:45, 10:50])
    assert np.array_equal(written(edit).array(), picture[5:45, 10:50])
    beyond = Edit.of(picture).replace(canvas=Shown(Box(-10, 0, 70, 60), Size(80, 60)))
    assert np.array_equal(beyond.array()[:, :10], picture[:, 10:0:-1])
    import io

    assert beyond.save(io.BytesIO()).notes == ("beyond the photo lies its mirror image",)
    assert edit.save(io.BytesIO()).notes == ()


def test_patches_of_arrays_are_resampled_with_the_photo() -> None:
    picture = np.full((60, 80, 3), 100, np.uint8)
    patch = Patch(Box(0, 0, 80, 60), np.full_like(picture, 200), Mask.full(Box(0, 0, 80, 60)))
    edit = Edit.of(picture).replace(stacks=(Stack((patch,)),))
    assert (Canvas(size="20x15")(edit).array() == 200).all()


def test_a_canvas_beyond_measure_is_refused() -> None:
    with pytest.raises(ParameterError) as caught:
        ready(Canvas(size="50000x50000"))
    assert str(caught.value) == (
        "canvas: 50000x50000 are 2500 megapixels, more than the 500 that can be made; ask for a smaller one"
    )
