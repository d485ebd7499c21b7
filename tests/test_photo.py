"""Photo keeps its promises for every format, mode, depth and orientation."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import httpx
import numpy as np
import picture_files as files
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from toolkit.errors import OutputError, ParameterError, PhotoError, UnknownNameError
from toolkit.geometry import Box
from toolkit.photo import Photo, differences
from toolkit.photo.source import from_url

WINDOW = Box(5, 3, 14, 12)


def changed_outside(photo: Photo, other: Photo, window: Box = WINDOW) -> int:
    """Pixels outside the window that differ."""
    total = 0
    for box, differ in differences(photo, other, rows_per_strip=7):
        inside = window.intersect(box).within(box)
        kept = differ.copy()
        kept[inside.slices] = False
        total += int(kept.sum())
    return total


def moved(photo: Photo) -> np.ndarray:
    """New pixels for the window, made of colours the photo has."""
    return photo.crop(WINDOW)[::-1, ::-1].copy()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", files.LOSSLESS)
def test_lossless_formats_change_the_window_and_nothing_else(kind: str, orientation: int) -> None:
    photo = Photo.open(files.LOSSLESS[kind](orientation), name=kind)
    assert photo.orientation == orientation
    assert photo.lossless
    new = moved(photo)
    memory = io.BytesIO()
    saved = photo.save(memory, [(WINDOW, new)])
    again = Photo.open(memory.getvalue())
    assert saved.notes == ()
    assert np.array_equal(again.crop(WINDOW), new)
    assert changed_outside(photo, again) == 0
    for what in (
        "size",
        "channels",
        "has_alpha",
        "depth",
        "mode",
        "orientation",
        "icc",
        "exif",
        "xmp",
        "dpi",
        "format",
    ):
        assert getattr(again, what) == getattr(photo, what), what


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"optimize": True}])
def test_jpeg_keeps_tables_and_metadata(options: dict[str, object], orientation: int) -> None:
    data = files.pillow("RGB", "JPEG", orientation, quality=83, **options)
    photo = Photo.open(data)
    memory = io.BytesIO()
    saved = photo.save(memory, [(WINDOW, moved(photo))])
    again = Photo.open(memory.getvalue())
    assert saved.notes == ()
    assert (again.exif, again.orientation, again.mode, again.dpi) == (photo.exif, orientation, photo.mode, photo.dpi)
    with Image.open(io.BytesIO(data)) as one, Image.open(memory) as two:
        assert one.quantization == two.quantization
        assert [layer[1:] for layer in one.layer] == [layer[1:] for layer in two.layer]
    plain = Image.open(io.BytesIO(data))
    reference = io.BytesIO()
    plain.save(reference, "JPEG", quality="keep", **options)
    assert abs(len(memory.getvalue()) - len(reference.getvalue())) < 400


@settings(max_examples=60, deadline=None)
@given(
    orientation=st.integers(1, 8),
    left=st.integers(0, 22), top=st.integers(0, 22), width=st.integers(1, 37), height=st.integers(1, 37),
    kind=st.sampled_from(["jpeg", "png-RGB", "png-P", "png-1", "tiff-RGB-tiff_lzw", "webp-RGB"]),
)  # fmt: skip
def test_crop_is_the_region_of_the_transposed_picture(
    orientation: int, left: int, top: int, width: int, height: int, kind: str
) -> None:
    data = files.pillow("RGB", "JPEG", orientation) if kind == "jpeg" else files.LOSSLESS[kind](orientation)
    photo = Photo.open(data)
    box = Box(left, top, min(left + width, photo.size.width), min(top + height, photo.size.height))
    with Image.open(io.BytesIO(data)) as image:
        image.load()
        # Pillow turns TIFF pictures by itself
        upright = image if image.format == "TIFF" else ImageOps.exif_transpose(image)
        assert upright.size == photo.size
        reference = np.asarray(upright.convert("L" if photo.channels == 1 else "RGB"))
    crop = photo.crop(box)
    assert not crop.flags.writeable
    assert np.array_equal(crop[..., 0] if photo.channels == 1 else crop, reference[box.slices])


def test_whole_array_equals_crop_of_everything() -> None:
    photo = Photo.open(files.LOSSLESS["png-RGBA"](6))
    assert np.array_equal(photo.array(), photo.crop(photo.box))


def test_a_crop_beyond_the_photo_is_refused() -> None:
    photo = Photo.open(files.noise(3))
    with pytest.raises(ParameterError, match="reaches beyond"):
        photo.crop(Box(0, 0, 38, 5))
    with pytest.raises(ParameterError, match="no area"):
        photo.crop(Box(4, 4, 4, 9))


@pytest.mark.parametrize(
    ("kind", "colour", "said"),
    [
        ("png-P", (1, 2, 3), "8-bit RGB"), ("png-1", (77,), "8-bit grey"), ("png-grey4", (77,), "8-bit grey"),
        ("png-key", (9, 9, 9, 100), "8-bit RGB with alpha"), ("tiff-P-tiff_lzw", (1, 2, 3), "8-bit RGB"),
        ("tiff-1-packbits", (77,), "8-bit grey"),
    ],
)  # fmt: skip
def test_colours_that_do_not_fit_promote_the_photo_and_this_is_said(
    kind: str, colour: tuple[int, ...], said: str
) -> None:
    photo = Photo.open(files.LOSSLESS[kind](6))
    new = np.tile(np.array(colour, np.uint8), (9, 9, 1))
    memory = io.BytesIO()
    saved = photo.save(memory, [(WINDOW, new)])
    again = Photo.open(memory.getvalue())
    assert any(said in note for note in saved.notes)
    assert np.array_equal(again.crop(WINDOW)[..., : len(colour)], new)
    assert changed_outside(photo, again) == 0
    assert again.orientation == 6


def test_values_under_alpha_zero_are_kept() -> None:
    array = files.noise(4)
    array[..., 3] = 0
    for target in ("PNG", "TIFF", "WEBP"):
        memory = io.BytesIO()
        photo = Photo.open(array)
        photo.save(memory, [(WINDOW, photo.crop(WINDOW))], format=target)
        assert np.array_equal(Photo.open(memory.getvalue()).array(), array)
        again = io.BytesIO()
        Photo.open(memory.getvalue()).save(again, [(WINDOW, photo.crop(WINDOW))])
        assert np.array_equal(Photo.open(again.getvalue()).array(), array)


def test_premultiplied_alpha_is_edited_as_straight_and_kept() -> None:
    straight = files.noise(4, np.uint16)
    stored = straight.copy()
    stored[..., :3] = (straight[..., :3].astype(np.uint64) * straight[..., 3:] // 65535).astype(np.uint16)
    stored[0, 0] = (500, 400, 300, 0)  # light without cover
    data = files.tiff(stored, extrasamples=["assocalpha"], compression="zlib", rowsperstrip=5)
    photo = Photo.open(data)
    new = photo.crop(WINDOW).copy()
    new[2, 2] = (60000, 30000, 0, 32768)
    memory = io.BytesIO()
    photo.save(memory, [(Box(0, 0, 5, 5), photo.crop(Box(0, 0, 5, 5))), (WINDOW, new)])
    import tifffile

    after = tifffile.imread(io.BytesIO(memory.getvalue()))
    expected = stored.copy()
    expected[5, 7] = (30000, 15000, 0, 32768)
    assert np.abs(after.astype(int) - expected).max() <= 1
    after[5, 7] = expected[5, 7]
    assert np.array_equal(after, expected)


def test_extra_channels_stay_as_they_are() -> None:
    data = files.tiff(files.noise(5), photometric="rgb", extrasamples=["unspecified", "unspecified"])
    photo = Photo.open(data)
    assert (photo.channels, photo.has_alpha) == (3, False)
    assert "extra channels" in photo.notes[0]
    memory = io.BytesIO()
    photo.save(memory, [(WINDOW, moved(photo))])
    import tifffile

    assert np.array_equal(tifffile.imread(io.BytesIO(memory.getvalue()))[..., 3:], files.noise(5)[..., 3:])


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
@pytest.mark.parametrize("target", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
def test_arrays_are_saved_in_every_format(target: str, channels: int, depth: type) -> None:
    array = files.noise(channels, depth)
    photo = Photo.open(array)
    memory = io.BytesIO()
    saved = photo.save(memory, [(WINDOW, moved(photo))], format=target)
    again = Photo.open(memory.getvalue())
    assert (again.format, again.size, saved.bytes) == (target, photo.size, len(memory.getvalue()))
    if target in ("PNG", "TIFF") or (target in ("WEBP", "BMP") and depth == np.uint8):
        assert changed_outside(photo, again) == 0
    if depth == np.uint16 and target in ("JPEG", "WEBP", "BMP"):
        assert any("reduced from 16 bits" in note for note in saved.notes)
    if target == "JPEG" and channels in (2, 4):
        assert any("laid on white" in note for note in saved.notes)


@pytest.mark.parametrize("target", ["JPEG", "PNG", "TIFF", "WEBP", "BMP"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_metadata_goes_along_to_other_formats(source: str, target: str) -> None:
    icc = files.display_p3()
    photo = Photo.open(files.pillow("RGB", source, 6, icc_profile=icc))
    memory = io.BytesIO()
    saved = photo.save(memory, [], format=target)
    again = Photo.open(memory.getvalue())
    assert again.size == photo.size
    if target == "BMP":
        assert again.icc is None
        assert source == "BMP" or any("no metadata" in note for note in saved.notes)
        if photo.lossless:
            assert changed_outside(photo, again) == 0
        return
    assert again.icc == icc
    assert again.orientation == 6
    assert b"Maker" in (again.exif or b"")
    if target != source:
        assert b"maker note" in (again.exif or b"")
    if target == "WEBP" and source in ("JPEG", "PNG"):
        assert any("resolution" in note for note in saved.notes)
    elif source != "WEBP":
        assert again.dpi == pytest.approx((72, 72), abs=0.1)


def test_a_window_with_alpha_makes_the_photo_transparent() -> None:
    photo = Photo.open(files.LOSSLESS["png-RGB"](3))
    new = np.concatenate([photo.crop(WINDOW), np.zeros((9, 9, 1), np.uint8)], axis=2)
    memory = io.BytesIO()
    photo.save(memory, [(WINDOW, new)])
    again = Photo.open(memory.getvalue())
    assert again.has_alpha
    assert np.array_equal(again.crop(WINDOW), new)
    assert changed_outside(photo, again) == 0


@pytest.mark.parametrize("profile", [files.display_p3, files.srgb])
def test_colours_come_back_from_srgb_and_back(profile: object) -> None:
    array = (files.noise(3).astype(int) // 4 + 90).astype(np.uint8)  # within both gamuts
    memory = io.BytesIO()
    Image.fromarray(array).save(memory, "PNG", icc_profile=profile())  # type: ignore[operator]
    photo = Photo.open(memory.getvalue())
    shown = photo.to_srgb(photo.array())
    back = photo.from_srgb(shown)
    assert np.abs(back.astype(int) - array).max() <= 2
    if profile is files.srgb:
        assert np.array_equal(shown, array)
    else:
        assert not np.array_equal(shown, array)


def test_only_what_may_be_written_to_is_copied_to_be_srgb() -> None:
    photo = Photo.open(files.noise(3))
    pixels = photo.array()
    assert np.shares_memory(photo.to_srgb(pixels), pixels)
    own = pixels.copy()
    shown = photo.to_srgb(own)
    assert np.array_equal(shown, own)
    assert not np.shares_memory(shown, own)


def test_grey_profiles_are_used() -> None:
    array = (files.noise(1) // 2 + 60).astype(np.uint8)
    memory = io.BytesIO()
    Image.fromarray(array[..., 0]).save(memory, "PNG", icc_profile=files.grey_gamma())
    photo = Photo.open(memory.getvalue())
    shown = photo.to_srgb(photo.array())
    assert shown.shape == (*array.shape[:2], 3)
    assert not np.array_equal(shown[..., :1], array)
    assert np.abs(photo.from_srgb(shown).astype(int) - array).max() <= 2


def test_sixteen_bits_are_dithered_with_the_seed() -> None:
    photo = Photo.open(files.noise(3, np.uint16))
    flat = np.full((40, 40, 3), 100, np.uint8)
    one, two, other = photo.from_srgb(flat, 1), photo.from_srgb(flat, 1), photo.from_srgb(flat, 2)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)
    assert np.abs(one.astype(int) - 25700).max() <= 128
    assert len(np.unique(one)) > 100
    exact = photo.from_srgb(np.full((4, 4, 3), 100.5, np.float32))
    assert (np.abs(exact.astype(int) - 25828) <= 1).all()


def test_a_profile_of_another_colour_model_is_kept_and_said() -> None:
    memory = io.BytesIO()
    Image.fromarray(files.noise(3)).save(memory, "PNG", icc_profile=files.grey_gamma())
    photo = Photo.open(memory.getvalue())
    assert "treated as sRGB" in photo.notes[-1]
    assert np.array_equal(photo.to_srgb(photo.array()), files.noise(3))


def test_files_are_never_overwritten_unasked(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(files.LOSSLESS["png-RGB"](1))
    path.chmod(0o640)
    before = path.read_bytes()
    photo = Photo.open(path)
    new = moved(photo)
    with pytest.raises(OutputError, match="already exists"):
        photo.save(path, [(WINDOW, new)])
    assert path.read_bytes() == before
    saved = photo.save(path, [(WINDOW, new)], overwrite=True)
    assert saved.path == path
    assert path.stat().st_mode & 0o777 == 0o640
    assert np.array_equal(Photo.open(path).crop(WINDOW), new)
    assert [p.name for p in tmp_path.iterdir()] == ["a.png"]
    with pytest.raises(PhotoError, match="has changed since"):
        photo._picture.source.open()


def test_a_private_source_gives_a_private_result(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(files.LOSSLESS["png-RGB"](1))
    path.chmod(0o600)
    Photo.open(path).save(tmp_path / "b.png", [])
    assert (tmp_path / "b.png").stat().st_mode & 0o777 == 0o600


def test_targets_that_cannot_be_written_are_one_sentence(tmp_path: Path) -> None:
    photo = Photo.open(files.noise(3))
    with pytest.raises(OutputError, match="no folder"):
        photo.save(tmp_path / "none" / "a.png", [])
    with pytest.raises(OutputError, match=r"cannot write \.gif"):
        photo.save(tmp_path / "a.gif", [])
    (tmp_path / "b.png").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        photo.save(tmp_path / "b.png", [], overwrite=True)
    with pytest.raises(UnknownNameError):
        photo.save(tmp_path / "a.png", [], format="PNH")
    with pytest.raises(ParameterError, match="quality"):
        photo.save(tmp_path / "a.jpg", [], quality=101)
    assert [p.name for p in tmp_path.iterdir()] == ["b.png"]


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import errno

    from toolkit.photo import photo as module

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, "convert", full)
    with pytest.raises(OutputError, match="disk is full"):
        Photo.open(files.noise(3)).save(tmp_path / "a.png", [])
    assert list(tmp_path.iterdir()) == []


def test_windows_are_checked() -> None:
    photo = Photo.open(files.noise(3))
    for pixels in (np.zeros((9, 8, 3), np.uint8), np.zeros((9, 9, 3), np.uint16), np.zeros((9, 9, 1), np.uint8)):
        with pytest.raises(ParameterError, match="must be"):
            photo.save(io.BytesIO(), [(WINDOW, pixels)])


def test_every_kind_of_source_opens(tmp_path: Path) -> None:
    data = files.LOSSLESS["png-RGB"](1)
    path = tmp_path / "a.png"
    path.write_bytes(data)
    photos = [Photo.open(s) for s in (path, str(path), data, io.BytesIO(data))]
    with Image.open(path) as image:
        photos.append(Photo.open(image))
    assert len({p.digest for p in photos[:4]}) == 1
    for photo in photos[1:]:
        assert changed_outside(photos[0], photo, Box(0, 0, 0, 0)) == 0
    assert Photo.open(photos[0]) is photos[0]
    assert Photo.open(files.noise(3)).digest == Photo.open(files.noise(3)).digest != Photo.open(files.noise(1)).digest


def test_addresses_are_read_and_their_errors_are_sentences() -> None:
    data = files.LOSSLESS["png-RGB"](1)

    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=data) if request.url.path == "/a.png" else httpx.Response(404)

    transport = httpx.MockTransport(answer)
    assert from_url("https://example.org/a.png", None, transport).length == len(data)
    with pytest.raises(PhotoError, match="404"):
        from_url("https://example.org/b.png", None, transport)


def test_threads_share_a_photo() -> None:
    photo = Photo.open(files.pillow("RGB", "JPEG", 6))
    expected = Photo.open(files.pillow("RGB", "JPEG", 6)).crop(WINDOW)
    wrong: list[int] = []

    def work() -> None:
        for _ in range(20):
            if not np.array_equal(photo.crop(WINDOW), expected):
                wrong.append(1)
            photo.save(io.BytesIO(), [(WINDOW, 255 - expected)])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert np.array_equal(photo.crop(WINDOW), expected)


def test_differences_refuses_other_sizes() -> None:
    with pytest.raises(ParameterError, match="is 37x23"):
        list(differences(Photo.open(files.noise(3)), Photo.open(files.noise(3, size=(5, 5)))))
