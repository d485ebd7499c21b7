"""Backdrops: exact colours, smooth gradients, pictures that are never stretched; and products that nobody touched."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from picture_files import LOSSLESS, display_p3, grey_gamma, oriented
from PIL import Image
from scenes import after, cut, encoded, product, ready, written

from toolkit import blend
from toolkit.edit import Cutout, Edit, Shadow, Stack
from toolkit.errors import InputError, ParameterError, UsageError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask
from toolkit.photo import Photo
from toolkit.run import Run
from toolkit.sources import Gradient, Placed, Plain
from toolkit.stages.backdrop import Backdrop
from toolkit.stages.canvas import Canvas

KINDS = [(bands, dtype) for bands in (1, 2, 3, 4) for dtype in (np.uint8, np.uint16)]


@pytest.mark.parametrize(("bands", "dtype"), KINDS)
@pytest.mark.parametrize("background", ["white", "#f4f1ec", "#fff,#123", "transparent"])
def test_the_products_own_pixels_are_untouched(bands: int, dtype: Any, background: str) -> None:
    photo, colours, alpha = product(bands=bands, dtype=dtype)
    edit = after(cut(photo, colours, alpha), Backdrop(background=background))
    result = edit.array()
    assert result.dtype == photo.dtype
    assert np.array_equal(result[alpha == 255][:, :bands], photo[alpha == 255])
    assert edit.ramp is not None
    assert edit.mask is not None
    assert np.array_equal(edit.ramp.array(), 255 - alpha)
    assert np.array_equal(edit.mask.array(), np.where(alpha < 255, 255, 0))
    assert np.array_equal(result, edit.pixels(edit.box))
    json.dumps(edit.report())


@pytest.mark.parametrize(("bands", "dtype"), KINDS)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "BMP", "JPEG"])
@pytest.mark.parametrize("scaled", [False, True])
def test_the_border_has_exactly_the_colour(bands: int, dtype: Any, format: str, scaled: bool) -> None:
    stages = [*([Canvas(size="97x131", product_size="60%")] if scaled else []), Backdrop(background="#f4f1ec")]
    photo = written(ready(*stages, bands=bands, dtype=dtype), format=format)
    rgb = photo.to_srgb(photo.array())
    edge = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]]).astype(int)
    wanted = (0xF4, 0xF1, 0xEC) if bands > 2 else (0xF1,) * 3
    assert np.abs(edge - wanted).max() <= (1 if format == "JPEG" else 0), "JPEG's own colours are a level apart"
    if photo.depth == 16 and bands > 2:
        assert (photo.array()[0, :, :3] == np.array(wanted) * 257).all()


@given(st.integers(2, 400), st.tuples(*[st.integers(0, 255)] * 3), st.tuples(*[st.integers(0, 255)] * 3))
@settings(max_examples=60, deadline=None)
def test_gradients_are_monotone_and_unbanded(height: int, top: Any, bottom: Any) -> None:
    box = Box(-7, -5, 293, height - 5)
    gradient = Gradient(box, top, bottom, np.uint8)
    pixels = gradient.read(box)
    assert (pixels[0] == top).all()
    assert (pixels[-1] == bottom).all()
    rows = pixels.astype(float).mean(axis=1)
    exact = np.linspace(0, 1, height)[:, None] * (np.array(bottom) - top) + top
    assert np.abs(rows - exact).max() < 0.06, "the mean of a row is its exact value: no steps of a whole level"
    assert np.abs(pixels - exact[:, None]).max() <= 1
    cut_out = Box(20, -5, 40, height // 2 - 5)
    assert np.array_equal(gradient.read(cut_out), pixels[cut_out.within(box).slices])


def test_a_gradient_falls_in_every_depth() -> None:
    for bands, dtype in KINDS:
        result = ready(Backdrop(background="#fff,#888"), bands=bands, dtype=dtype).array().astype(float)
        column = result[:, :8, 0].mean(axis=1)
        assert (np.diff(column) < 0.6).all()
        assert column[0] == np.iinfo(dtype).max


def circle(width: int, height: int) -> np.ndarray:
    """A dark disc in the middle of a light picture (h, w, 3)."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    inside = np.hypot(x - width / 2, y - height / 2) < min(width, height) / 3
    return np.where(inside[..., None], (40, 90, 160), (220, 200, 180)).astype(np.uint8)


@given(st.integers(20, 160), st.integers(20, 160), st.integers(20, 160), st.integers(20, 160))
@settings(max_examples=60, deadline=None)
def test_a_picture_covers_and_is_never_stretched(width: int, height: int, over: int, down: int) -> None:
    photo = Photo.open(np.zeros((down, over, 3), np.uint8))
    placed = Placed(Photo.open(circle(width, height)), Box(-9, 4, over - 9, down + 4), photo)
    pixels = placed.read(placed.box)
    assert pixels.shape == (down, over, 3)
    dark = pixels[..., 2] < 170
    scale = max(over / width, down / height)
    radius = min(width, height) / 3 * scale
    y, x = np.mgrid[0:down, 0:over] + 0.5
    away = np.hypot(x - over / 2, y - down / 2)
    assert dark[away < radius - 1.5 * max(1, scale)].all()
    assert not dark[away > radius + 1.5 * max(1, scale)].any()
    cut_out = Box(0, 5, over // 2, 5 + down // 3 + 1)
    assert np.array_equal(placed.read(cut_out), pixels[cut_out.within(placed.box).slices])


@pytest.mark.parametrize("icc", [None, display_p3()])
@pytest.mark.parametrize("own", [None, display_p3(), grey_gamma()])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_picture_looks_the_same_in_the_photos_own_colours(
    icc: bytes | None, own: bytes | None, dtype: Any, tmp_path: Path
) -> None:
    ground = np.full((50, 50, 3), (180, 120, 60), np.uint8)
    picture = Photo.open(encoded(ground, "PNG", **({"icc_profile": icc} if icc else {})))
    grey = own == grey_gamma()
    photo = Photo.open(encoded(np.full((40, 30, 1 if grey else 3), 90, np.uint8), "PNG", icc_profile=own))
    if dtype == np.uint16:
        path = tmp_path / "wide.tif"
        Photo.open(np.full((40, 30, 1 if grey else 3), 90, np.uint16)).save(path, ())
        photo = Photo.open(path)
        grey = photo.channels == 1
    shown = photo.to_srgb(Placed(picture, Box(0, 0, 30, 40), photo).read(Box(0, 0, 30, 40))).astype(int)
    wanted = picture.to_srgb(picture.crop(Box(0, 0, 1, 1)))[0, 0].astype(int)
    if grey:
        wanted = photo.to_srgb(photo.from_srgb(wanted[None, None].astype(np.uint8)))[0, 0].astype(int)
    assert np.abs(shown - wanted).max() <= 2


def test_what_is_transparent_in_a_picture_is_white() -> None:
    picture = np.zeros((30, 30, 4), np.uint8)
    photo = Photo.open(np.zeros((20, 20, 3), np.uint8))
    assert (Placed(Photo.open(picture), photo.box, photo).read(photo.box) == 255).all()


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
@pytest.mark.parametrize("background", ["#abc", "transparent"])
def test_files_that_are_turned_and_have_a_profile(orientation: int, format: str, background: str) -> None:
    stored = product(60, 80)[0]
    source = Photo.open(encoded(stored, format, exif=oriented(orientation, note=False), icc_profile=display_p3()))
    assert source.orientation == orientation
    upright = source.array()
    height, width = upright.shape[:2]
    _, colours, alpha = product(height, width)
    edit = after(cut(source, colours, alpha), Backdrop(background=background))
    result = written(edit)
    assert (result.orientation, result.icc, result.size) == (orientation, source.icc, source.size)
    assert np.array_equal(result.array(), edit.array())
    assert np.array_equal(result.array()[alpha == 255][:, :3], upright[alpha == 255])
    assert result.has_alpha == (background == "transparent")
    edge = result.to_srgb(result.array())[0, 0].astype(int)
    assert background == "transparent" or np.abs(edge - (0xAA, 0xBB, 0xCC)).max() <= 1


@pytest.mark.parametrize(("bands", "dtype"), KINDS)
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "BMP"])
def test_transparent_ground(bands: int, dtype: Any, format: str) -> None:
    photo, colours, alpha = product(bands=bands, dtype=dtype)
    edit = after(cut(photo, colours, alpha), Backdrop(background="transparent"))
    result = edit.array()
    channels = 1 if bands < 3 else 3
    assert result.shape[2] == channels + 1
    assert np.array_equal(result[..., -1], alpha.astype(photo.dtype) * (np.iinfo(dtype).max // 255))
    soft = (alpha > 0) & (alpha < 255)
    assert np.array_equal(result[soft][:, :channels], colours[soft][:, :channels]), "straight foreground colours"
    assert (result[alpha == 0][:, :channels] == np.iinfo(dtype).max).all(), "nothing of the old ground is left"
    file = written(edit, format=format)
    assert file.has_alpha
    if file.depth == edit.photo.depth and file.channels == channels:
        assert np.array_equal(file.array(), result)
    image = edit.image()
    assert image.mode == ("RGBA" if bands in (1, 3) else "RGB")


def test_edges_show_the_new_ground_and_the_products_own_colours() -> None:
    photo, colours, alpha = product()
    result = after(cut(photo, colours, alpha), Backdrop(background="#204080")).array().astype(float)
    share = alpha[..., None] / 255
    truth = colours * share + np.array((0x20, 0x40, 0x80)) * (1 - share)
    soft = (alpha > 0) & (alpha < 255)
    assert np.abs(result - truth)[soft].max() <= 0.51


def test_shadows_lie_on_the_ground_and_under_the_product() -> None:
    photo, colours, alpha = product()
    strength = np.zeros((60, 80), np.uint8)
    strength[40:58] = 51
    shadow = Shadow(Box(0, 40, 80, 56), Mask.from_array(strength))
    edit = cut(photo, colours, alpha).replace(shadows=(shadow,))
    result = after(edit, Backdrop(background="#c8c8c8")).array()
    assert np.array_equal(result[alpha == 255], photo[alpha == 255])
    assert (result[45, 0] == 160).all(), "four fifths of 200"
    assert (result[57, 0] == 200).all(), "nothing beyond its box"
    soft = (alpha > 0) & (alpha < 255)
    soft[:40] = soft[56:] = False
    truth = colours * (alpha[..., None] / 255) + 160 * (1 - alpha[..., None] / 255)
    assert np.abs(result - truth)[soft].max() <= 1
    clear = after(edit, Backdrop(background="transparent")).array()
    assert tuple(clear[45, 0]) == (0, 0, 0, 51)
    assert tuple(clear[20, 0]) == (255, 255, 255, 0)
    tinted = edit.replace(shadows=(Shadow(Box(0, 40, 80, 56), Mask.from_array(strength), (100, 0, 200)),))
    assert tuple(after(tinted, Backdrop(background="#c8c8c8")).array()[45, 0]) == (180, 160, 200)


@given(st.integers(0, 50), st.sampled_from(["#fff", "#fff,#000", "transparent"]))
@settings(max_examples=20, deadline=None)
def test_however_it_is_read(seed: int, background: str) -> None:
    edit = ready(Backdrop(background=background), seed=seed)
    whole = edit.array()
    box = Box(seed % 40, seed % 30, seed % 40 + 31, seed % 30 + 23)
    assert np.array_equal(edit.pixels(box), whole[box.slices])
    assert edit.digest == ready(Backdrop(background=background), seed=seed).digest
    assert edit.digest != ready(Backdrop(background="#123"), seed=seed).digest
    (one,) = edit.cutouts
    other = edit.replace(
        stacks=(Stack(),),
        cutouts=(Cutout(one.box, tuple((box, colours // 2) for box, colours in one.edge), one.matte),),
    )
    assert edit.digest != after(other, Backdrop(background=background)).digest


def folder(tmp_path: Path) -> Path:
    """Ten pictures of one colour each."""
    place = tmp_path / "grounds"
    place.mkdir()
    for n in range(10):
        (place / f"{n}.png").write_bytes(encoded(np.full((40, 40, 3), 20 * n, np.uint8), "PNG"))
    (place / "notes.txt").write_text("no picture")
    return place


def test_one_of_a_folder_is_chosen_by_the_seed(tmp_path: Path) -> None:
    place = folder(tmp_path)
    chosen = set()
    for seed in range(12):
        edit = ready(Backdrop(background=str(place), seed=seed))
        again = ready(Backdrop(background=str(place), seed=seed))
        step = edit.steps[-1]
        assert step.figures["background"] == again.steps[-1].figures["background"]
        assert step.seeds == (seed,)
        number = int(Path(step.figures["background"]).stem)
        assert (edit.array()[0, 0] == 20 * number).all()
        chosen.add(number)
    assert len(chosen) > 3
    with Run(seed=7) as run:
        photo, colours, alpha = product()
        given_by_run = Backdrop(background=str(place))(cut(photo, colours, alpha), run)
    assert given_by_run.steps[-1].seeds == (7,)
    drawn = ready(Backdrop(background=str(place), seed="random")).steps[-1]
    assert drawn.notes == (f"seed {drawn.seeds[0]} was drawn",)


def test_what_cannot_be_understood_is_named(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "half.jpg").write_bytes(encoded(product(200, 200)[0], "JPEG")[:9000])
    for background, error, sentence in (
        ("whit", ParameterError, "did you mean 'white'?"),
        ("nowhere/oak.jpg", ParameterError, "is neither a colour, two colours, a picture, a folder nor transparent"),
        ("#fff,#zzz", ParameterError, "is neither a colour"),
        (str(tmp_path / "empty"), InputError, "has no pictures in it"),
        (str(tmp_path / "text.png"), InputError, "is not a picture file of a known kind"),
        (str(tmp_path / "half.jpg"), InputError, "is truncated"),
    ):
        with pytest.raises(error) as caught:
            ready(Backdrop(background=background))
        assert sentence in str(caught.value)
    with pytest.raises(UsageError, match=r"^backdrop: needs a cutout"):
        Backdrop()(Edit.of(product()[0]))


def test_losses_and_enlarging_are_said(tmp_path: Path) -> None:
    path = tmp_path / "small.png"
    path.write_bytes(encoded(np.full((10, 10, 3), (200, 10, 10), np.uint8), "PNG"))
    warnings = ready(Backdrop(background=str(path))).steps[-1].warnings
    assert warnings == ("small.png: is 10x10, and was enlarged 8 times to cover",)
    assert "the colour became a grey" in ready(Backdrop(background="#f00"), bands=1).steps[-1].warnings[0]
    assert "the picture lost its colours" in ready(Backdrop(background=str(path)), bands=1).steps[-1].warnings[-1]
    assert not ready(Backdrop(background="#999"), bands=1).steps[-1].warnings


def test_plain_colours_are_read_without_memory() -> None:
    plain = Plain((1, 2, 3), np.uint8)
    assert plain.read(Box(-5, -5, 100_000, 100_000)).strides[:2] == (0, 0)


def test_dither_stays_within_half_a_level() -> None:
    noise = blend.dither(Box(-50, -70, 250, 230))
    assert np.abs(noise).max() < 0.5
    assert abs(noise.mean()) < 0.01
    whole = np.arange(-3.0, 260.0)[None, :, None].repeat(300, 0)[:, :, [0, 0, 0]]
    exact = blend.levels(whole[:, :250], np.uint8, blend.dither(Box(0, 0, 250, 300)))
    assert np.array_equal(exact, np.clip(whole[:, :250], 0, 255).astype(np.uint8))


def test_several_cutouts_share_one_ground() -> None:
    photo, colours, alpha = product(box=Box(4, 10, 34, 50))
    other = product(box=Box(44, 10, 76, 50))[2]
    edit = cut(photo, colours, alpha)
    edit = edit.replace(cutouts=(*edit.cutouts, *cut(photo, colours, other).cutouts))
    result = after(edit, Backdrop(background="#010203")).array()
    kept = (alpha == 255) | (other == 255)
    assert np.array_equal(result[kept], photo[kept])
    assert (result[(alpha == 0) & (other == 0)] == (1, 2, 3)).all()


def test_small_pictures_stay_small() -> None:
    one = ready(Canvas(size="1x1"), Backdrop(background="#fff,#000"))
    assert one.array().shape == (1, 1, 3)
    assert written(one).size == Size(1, 1)
    assert Image.fromarray(one.array()).size == (1, 1)


@pytest.mark.parametrize("frame", [Box(0, 0, 80, 60), Box(-10, -10, 100, 90), Box(8, 8, 70, 50)])
def test_a_product_that_fills_most_of_the_photo(frame: Box) -> None:
    photo, colours, _ = product()
    alpha = np.zeros((60, 80), np.uint8)
    alpha[frame.intersect(Box(3, 3, 77, 57)).slices] = 255
    edit = cut(photo, colours, alpha)
    whole = edit.cutouts[0]
    other = Cutout(whole.box, whole.edge, whole.matte.with_frame(frame))
    edit = after(edit.replace(cutouts=(other,)), Canvas(size="200x100"), Backdrop(background="#010203"))
    box = edit.canvas.box
    result = edit.array()
    shown = result[Box(0, 0, 80, 60).within(box).slices]
    assert np.array_equal(shown[alpha == 255], photo[alpha == 255])
    assert (shown[alpha == 0] == (1, 2, 3)).all()
    assert (result == (1, 2, 3)).all(axis=2).sum() == 200 * 100 - (alpha == 255).sum()
    assert edit.report()["canvas"] == {"box": list(box), "size": [200, 100], "scale": 1}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["png-P", "png16-6", "png-key", "webp-RGB", "tiff-RGBA-tiff_lzw"])
def test_a_large_picture_in_a_temporary_file_gives_the_same_pixels(
    kind: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = LOSSLESS[kind](orientation)
    photo, box = Photo.open(np.zeros((40, 30, 3), np.uint8)), Box(-5, -3, 45, 37)
    held = Placed(Photo.open(source), box, photo).read(box)
    monkeypatch.setattr("toolkit.photo.photo.SPARING", 16)
    assert np.array_equal(Placed(Photo.open(source), box, photo).read(box), held)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("reduction", [2, 4.7, 9])
def test_a_large_jpeg_that_is_shrunk_is_decoded_smaller_and_lies_in_the_same_place(
    reduction: float, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    y, x = np.mgrid[:301, :413]
    smooth = np.dstack([x * 255 / 413, y * 255 / 301, 127 + 120 * np.sin(x / 40) * np.cos(y / 30)]).astype(np.uint8)
    picture = Photo.open(encoded(smooth, "JPEG", quality=95, exif=oriented(orientation)))
    photo = Photo.open(np.zeros((8, 8, 3), np.uint8))
    box = Box(0, 0, round(picture.size.width / reduction), round(picture.size.height / reduction))
    held = Placed(picture, box, photo).read(box).astype(int)
    monkeypatch.setattr("toolkit.photo.photo.SPARING", 16)
    assert picture.aside(reduction).box.width < picture.size.width / reduction * 2 + 1
    assert np.abs(Placed(picture, box, photo).read(box).astype(int) - held).max() <= 3


def test_a_large_photo_before_a_large_picture_is_decoded_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    photo, colours, alpha = product(bands=3, dtype=np.uint8)
    Image.fromarray(circle(70, 50)).save(tmp_path / "ground.png")
    Image.fromarray(photo).save(tmp_path / "photo.png")
    stage = Backdrop(background=str(tmp_path / "ground.png"))
    held = after(cut(photo, colours, alpha), stage).array()
    monkeypatch.setattr("toolkit.photo.photo.SPARING", 16)
    assert np.array_equal(after(cut(tmp_path / "photo.png", colours, alpha), stage).array(), held)
