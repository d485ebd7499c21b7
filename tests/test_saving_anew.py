"""A new picture in place of the photo's: of another size, in strips, with what the file carries brought up to date."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import BOX, call, environment, make_pictures
from picture_files import LOSSLESS, display_p3, grey_gamma, noise, pillow, png, srgb, tiff
from PIL import Image, ImageCms, JpegImagePlugin
from scenes import Prepared, after, cut, encoded, product, ready, written

from toolkit.dataset import readback, work
from toolkit.dataset.inputs import Item
from toolkit.edit import Edit
from toolkit.errors import FidelityError, OutputError, ParameterError, UsageError
from toolkit.geometry import Box, Size
from toolkit.photo import Photo, jpeg, photo, restate
from toolkit.photo.pngwriter import chunk
from toolkit.run import Run
from toolkit.stages import Stage
from toolkit.stages.backdrop import Backdrop
from toolkit.stages.canvas import Canvas

OTHER = Size(50, 31)


def strips_of(array: np.ndarray, rows: int = 7) -> Iterator[tuple[Box, np.ndarray]]:
    for top in range(0, len(array), rows):
        part = array[top : top + rows]
        yield Box(0, top, array.shape[1], top + len(part)), part


def saved(source: Photo, array: np.ndarray, **options: Any) -> tuple[Photo, bytes, tuple[str, ...]]:
    """The photo with `array` in its place: opened again, its bytes, and what was said."""
    stream = io.BytesIO()
    size = Size(array.shape[1], array.shape[0])
    notes = source.save(stream, strips_of(array), size=size, **options).notes
    return Photo.open(stream.getvalue()), stream.getvalue(), notes


@pytest.mark.parametrize("name", LOSSLESS)
@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("alpha", [False, True])
def test_every_kind_of_file_takes_a_picture_of_another_size(name: str, orientation: int, alpha: bool) -> None:
    source = Photo.open(LOSSLESS[name](orientation))
    before = source.array()
    bands = source.channels + (alpha or source.has_alpha)
    array = noise(bands, source.dtype, OTHER, seed=3)
    file = saved(source, array)[0]
    assert (file.format, file.size, file.depth) == (source.format, OTHER, source.depth)
    assert file.orientation == source.orientation
    if file.channels > source.channels:
        array = array[..., [0, 0, 0, 1][: file.channels + file.has_alpha]]
    assert np.array_equal(file.array(), array)
    assert file.dpi == source.dpi
    assert file.icc == source.icc
    assert np.array_equal(source.array(), before)


@pytest.mark.parametrize("name", ["png-RGB", "png-RGBA", "png16-2", "tiff-RGB-raw", "webp-RGB", "tiff16-4-zlib"])
@pytest.mark.parametrize("orientation", [1, 8])
def test_a_large_photo_is_written_over_and_decoded_again(
    name: str, orientation: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(photo, "SPARING", 0)
    source = Photo.open(LOSSLESS[name](orientation))
    before = source.array()
    decoded = source._decoded()

    def inverted() -> Iterator[tuple[Box, np.ndarray]]:
        for box, _ in strips_of(before):
            yield box, ~source.crop(box)

    stream = io.BytesIO()
    source.save(stream, inverted(), size=source.size, in_place=True)
    assert np.array_equal(Photo.open(stream.getvalue()).array(), ~before)
    assert source._raster is None, "it was lent"
    assert np.array_equal(source.array(), before)

    def failing() -> Iterator[tuple[Box, np.ndarray]]:
        yield from list(inverted())[:1]
        raise OutputError("no")

    with pytest.raises(OutputError):
        source.save(io.BytesIO(), failing(), size=source.size, in_place=True)
    assert np.array_equal(source.array(), before)
    assert source._decoded() is not decoded


@pytest.mark.parametrize("name", ["png-RGB", "png-L", "webp-RGB", "png16-2"])
def test_a_lent_photo_may_gain_an_alpha(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Photo.open(LOSSLESS[name](6))
    _, colours, alpha = product(source.size.height, source.size.width, source.channels)
    edit = after(cut(source, colours, alpha), Backdrop(background="transparent"))
    expected = edit.array()
    monkeypatch.setattr(photo, "SPARING", 0)
    file = written(edit)
    if file.channels > source.channels:
        expected = expected[..., [0, 0, 0, 1]]
    assert np.array_equal(file.array(), expected)
    assert np.array_equal(edit.array()[..., : source.channels], expected[..., : source.channels])


def test_the_source_itself_is_never_lent_to_its_own_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "SPARING", 0)
    path = tmp_path / "p.png"
    path.write_bytes(LOSSLESS["png-RGB"](1))
    source = Photo.open(path)
    before = source.array()
    source.save(path, strips_of(~before), size=source.size, in_place=True, overwrite=True)
    assert np.array_equal(source.array(), before), "its file is gone, its pixels are not"
    assert np.array_equal(Photo.open(path).array(), ~before)


def test_an_array_is_never_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(photo, "SPARING", 0)
    array = noise(3)
    source = Photo.open(array)
    source.save(io.BytesIO(), strips_of(~array), size=source.size, in_place=True)
    assert np.array_equal(source.array(), array)


def test_parts_that_do_not_make_the_picture_are_refused() -> None:
    source, array = Photo.open(noise(3)), noise(3, size=OTHER)
    for windows, sentence in (
        (list(strips_of(array))[1:], r"^the windows cover 1200 of the 1550 pixels of a picture of 50x31$"),
        ([], r"^the windows cover 0 of the 1550"),
        ([(Box(0, 0, 60, 31), noise(3, size=(60, 31)))], r"^window 0,0,60,31: is no part of a picture of 50x31"),
        ([*strips_of(array[:7]), *[(Box(0, 7, 50, 31), noise(4, size=(50, 24)))]], r"^window 0,7,50,31: is no part"),
    ):
        with pytest.raises(ParameterError, match=sentence):
            source.save(io.BytesIO(), windows, size=OTHER)


# -- what the file carries -------------------------------------------------------------------------------------------


def camera_jpeg() -> bytes:
    """A JPEG with its own tables, 4:2:2, EXIF with sizes and resolution, XMP with the same, and a profile."""
    exif = Image.Exif()
    exif[0x010F], exif[0x0112], exif[0x011A], exif[0x011B], exif[0x0128] = "Maker", 6, 72.0, 72.0, 2
    exif.get_ifd(0x8769).update({0xA001: 65535, 0xA002: 37, 0xA003: 23, 0x9003: "2026:01:02 03:04:05"})
    xmp = (
        b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:ImageWidth="37" tiff:XResolution="720000/10000">'
        b"<exif:PixelYDimension>23</exif:PixelYDimension><dc:title>Shoe</dc:title></rdf:Description></x:xmpmeta>"
    )
    table = [min(255, 3 + n // 2) for n in range(64)]
    return pillow_jpeg(qtables=[table, table[::-1]], subsampling=1, exif=exif.tobytes(), xmp=xmp)


def pillow_jpeg(**options: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(noise(3)).save(stream, "JPEG", icc_profile=display_p3(), **options)
    return stream.getvalue()


def test_a_jpeg_keeps_its_tables_and_says_its_new_size() -> None:
    source = Photo.open(camera_jpeg())
    assert source.size == Size(23, 37)
    file, data, _ = saved(source, noise(3, size=OTHER), dpi=300)
    old, new = (JpegImagePlugin.JpegImageFile(io.BytesIO(d)) for d in (camera_jpeg(), data))
    assert new.quantization == old.quantization
    assert JpegImagePlugin.get_sampling(new) == JpegImagePlugin.get_sampling(old) == 1
    assert file.size == OTHER
    exif = new.getexif()
    assert (exif[0x010F], exif[0x0112], exif[0x011A]) == ("Maker", 6, 300)
    inner = exif.get_ifd(0x8769)
    assert (inner[0xA002], inner[0xA003]) == (31, 50), "as it is stored, lying on its side"
    assert inner[0x9003] == "2026:01:02 03:04:05"
    assert b'tiff:ImageWidth="31"' in file.xmp
    assert b"<exif:PixelYDimension>50<" in file.xmp
    assert b'tiff:XResolution="3000000/10000"' in file.xmp
    assert b"<dc:title>Shoe</dc:title>" in file.xmp
    assert file.icc == display_p3()
    assert file.dpi == (300, 300)


def test_only_a_large_new_picture_is_no_longer_progressive(monkeypatch: pytest.MonkeyPatch) -> None:
    source = Photo.open(pillow_jpeg(progressive=True))
    assert "progressive" in saved(source, noise(3, size=OTHER))[0].mode
    monkeypatch.setattr(jpeg, "LARGEST_BUFFERED", 100)
    file, _, notes = saved(source, noise(3, size=OTHER))
    assert "baseline" in file.mode
    assert "the picture is too large for the progressive encoder: it was saved as baseline JPEG" in notes
    stream = io.BytesIO()
    source.save(stream, [(Box(0, 0, 9, 9), source.crop(Box(5, 5, 14, 14)))])
    assert "progressive" in Photo.open(stream.getvalue()).mode


def test_a_tiff_keeps_its_tags_and_compression() -> None:
    source = Photo.open(tiff(noise(3, np.uint16), 6, compression="zlib"))
    file, data, notes = saved(source, noise(3, np.uint16, OTHER))
    assert b"(c) somebody" in data
    assert b"camera" in data
    assert file.dpi == (72, 72)
    assert "deflate" in file.mode
    assert notes == ()
    raw = saved(Photo.open(tiff(noise(3))), noise(3, size=OTHER))[0]
    assert "no compression" in raw.mode


def test_a_png_keeps_its_texts() -> None:
    text = chunk(b"tEXt", b"Title\0Shoe")
    source = Photo.open(png(noise(3, np.uint16), kind=2, before=text))
    _, data, notes = saved(source, noise(3, np.uint16, OTHER))
    assert text in data
    assert notes == ()


def test_thumbnails_show_the_new_picture() -> None:
    from test_photo_metadata import exif_with_thumbnail

    block, old = exif_with_thumbnail()
    source = Photo.open(pillow_jpeg(exif=b"Exif\0\0" + block))
    file, data, notes = saved(source, np.full((240, 320, 3), (10, 200, 30), np.uint8))
    assert old not in data
    assert any("thumbnail" in note for note in notes)
    at = file.exif.index(b"\xff\xd8")
    shown = np.asarray(Image.open(io.BytesIO(file.exif[at:])).convert("RGB")).astype(int)
    assert np.abs(shown - (10, 200, 30)).max() < 12


# -- asked for on saving ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "BMP"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "TIFF", "BMP", "WEBP"])
@pytest.mark.parametrize("way", ["windows", "anew"])
def test_the_resolution_asked_for(format: str, source: str, way: str) -> None:
    photo_ = Photo.open(pillow("RGB", source))
    if way == "anew":
        file = saved(photo_, noise(3, size=OTHER), format=format, dpi=300)[0]
    else:
        stream = io.BytesIO()
        photo_.save(stream, (), format=format, dpi=300)
        file = Photo.open(stream.getvalue())
    assert file.dpi == pytest.approx((300, 300), abs=0.02)


def test_webp_says_that_it_has_no_place_for_a_resolution() -> None:
    _, _, notes = saved(Photo.open(pillow("RGB", "WEBP")), noise(3, size=OTHER), dpi=300)
    assert any("resolution" in note for note in notes)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP", "JPEG", "BMP"])
@pytest.mark.parametrize(
    ("source", "way"),
    [
        (source, way)
        for source in ("PNG", "TIFF", "WEBP")
        for way in ("windows", "anew", "grey", "wide")
        if (source, way) != ("WEBP", "grey")  # WebP is never grey
    ],
)
def test_colours_are_converted_to_srgb(format: str, source: str, way: str) -> None:
    grey = way == "grey"
    array = noise(1 if grey else 3)
    data = encoded(array, source, icc_profile=grey_gamma() if grey else display_p3(), lossless=True)
    if way == "wide":
        array = noise(3, np.uint16)
        iccp = chunk(b"iCCP", b"p\0\0" + __import__("zlib").compress(display_p3()))
        data = png(array, kind=2, before=iccp)
    photo_ = Photo.open(data)
    stream = io.BytesIO()
    if way == "anew":
        notes = photo_.save(stream, strips_of(array), size=photo_.size, format=format, srgb=True).notes
    else:
        notes = photo_.save(stream, (), format=format, srgb=True).notes
    assert "the colours were converted to sRGB" in notes
    file = Photo.open(stream.getvalue())
    assert file.shows_srgb
    if file.icc:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(file.icc))
        assert "sRGB" in ImageCms.getProfileDescription(profile)
    wanted = photo_.to_srgb(array).astype(int)
    got = file.to_srgb(file.array()).astype(int)
    if format != "JPEG":
        assert np.abs(got - wanted).max() <= (1 if way == "wide" else 0)
    assert np.array_equal(photo_.array(), array)
    again = io.BytesIO()
    assert "the colours were sRGB already" in file.save(again, (), srgb=True).notes


def test_wide_colours_stay_smooth_through_the_conversion() -> None:
    ramp = np.repeat(np.arange(0, 65536, 16, dtype=np.uint16)[None, :, None], 3, axis=2)
    iccp = chunk(b"iCCP", b"p\0\0" + __import__("zlib").compress(display_p3()))
    stream = io.BytesIO()
    Photo.open(png(ramp, kind=2, before=iccp)).save(stream, (), srgb=True)
    result = Photo.open(stream.getvalue()).array().astype(int)
    assert np.ptp(result[..., 1]) > 65000
    assert len(np.unique(result[..., 1])) > 3500, "not 256 levels"
    assert np.abs(np.diff(result[0, :, 1])).max() < 2 * 257


@pytest.mark.parametrize("format", ["JPEG", "WEBP"])
@pytest.mark.parametrize("source", ["JPEG", "PNG", "WEBP"])
def test_the_quality_is_lowered_until_the_file_is_short_enough(format: str, source: str) -> None:
    array = noise(3, size=(300, 200))
    photo_ = Photo.open(encoded(array, source, quality=98))
    free = len(saved(photo_, array, format=format, quality=95)[1])
    sizes = []
    for most in (free // 2, free // 3):
        file, data, notes = saved(photo_, array, format=format, max_bytes=most)
        assert len(data) <= most
        assert file.size == (300, 200)
        (said,) = (note for note in notes if note.startswith("encoded at quality"))
        quality = int(said.split()[3])
        assert said == f"encoded at quality {quality} to stay within {most} bytes"
        assert len(saved(photo_, array, format=format, quality=quality + 1)[1]) > most, "the best that fits"
        sizes.append(len(data))
    assert sizes[1] < sizes[0]
    enough = saved(photo_, array, format=format, max_bytes=10 * free)[2]
    assert not any("to stay within" in note for note in enough)


def test_what_cannot_be_short_enough_is_refused(tmp_path: Path) -> None:
    array = noise(3, size=(300, 200))
    photo_ = Photo.open(array)
    for name, sentence in (
        ("o.png", "its format is lossless; save it as JPEG or lossy WebP, or on a smaller canvas"),
        ("o.tif", "its format is lossless"),
        ("o.jpg", "bytes even at quality 10, more than the 2000 asked for; save it on a smaller canvas"),
    ):
        with pytest.raises(OutputError, match=sentence):
            photo_.save(tmp_path / name, strips_of(array), size=Size(300, 200), max_bytes=2000)
        assert not list(tmp_path.iterdir())
    assert photo_.save(tmp_path / "o.png", (), max_bytes=10**6).bytes < 10**6
    for wrong in ({"max_bytes": 0}, {"dpi": 0}, {"quality": 101}):
        with pytest.raises(ParameterError):
            photo_.save(tmp_path / "p.png", (), **wrong)  # type: ignore[arg-type]


def test_a_smaller_depth_is_said() -> None:
    notes = saved(Photo.open(noise(3, np.uint16)), noise(3, np.uint16, OTHER), format="JPEG")[2]
    assert "JPEG holds 8 bits: the picture was reduced from 16 bits" in notes


def test_a_profile_of_srgb_is_always_the_same() -> None:
    from toolkit.photo import colour

    assert colour.srgb_profile()[24:36] == bytes.fromhex("07d000010001000000000000")
    assert not colour.differs(colour.srgb_profile(), 3)
    assert not colour.differs(srgb(), 3)
    assert colour.differs(display_p3(), 3)
    assert restate.Changes().profile(b"x") == b"x"


# -- read back -------------------------------------------------------------------------------------------------------


def worked(tmp_path: Path, *stages: Stage, source: str = "PNG", target: str = "out.png", **options: Any) -> Any:
    """The report of the only output."""
    array, colours, alpha = product()
    path = tmp_path / f"in.{source.lower()}"
    path.write_bytes(encoded(array, source))
    output = work.Output("swap-background", overwrite=True, measure=True, **options)
    with Run(workers=1) as run:
        edit = work.EditWork(Prepared(colours, alpha, *stages), output)  # type: ignore[arg-type]
        report = edit(Item("in", path, output=tmp_path / target), run)
    json.dumps(report)
    return report["outputs"][0] | {"notes": report["notes"]}


@pytest.mark.parametrize("source", ["PNG", "JPEG", "TIFF"])
@pytest.mark.parametrize("target", ["out.png", "out.tif"])
@pytest.mark.parametrize("background", ["#abc", "transparent", "#fff,#ddd"])
@pytest.mark.parametrize("fields", [{}, {"product_size": 0.5}, {"size": "70x90", "align": "bottom"}])
def test_what_was_written_is_verified(
    source: str, target: str, background: str, fields: dict[str, Any], tmp_path: Path
) -> None:
    found = worked(tmp_path, Canvas(**fields), Backdrop(background=background), source=source, target=target)
    assert found["verified"] is True
    assert found["pixels_changed_outside"] == 0
    assert found["pixels_changed"] > 500


def test_what_is_scaled_or_converted_is_verified_before_that(tmp_path: Path) -> None:
    scaled = worked(tmp_path, Canvas(size="30x30"), Backdrop())
    assert scaled["verified"] == "before the resampling"
    assert scaled["scale"] == pytest.approx(0.625, abs=0.01)
    assert worked(tmp_path, Backdrop(), srgb=True)["verified"] is True, "there was nothing to convert"
    lossy = worked(tmp_path, Backdrop(), target="out.jpg")
    assert lossy["verified"] is True
    assert 0 < lossy["largest_change_outside"] < 60
    shifted = worked(tmp_path, Canvas(product_size=0.5), Backdrop(), target="out.jpg", quality=100)
    assert 0 < shifted["largest_change_outside"] < 30, "compared where the photo lies on the canvas"


def test_a_file_that_breaks_the_promise_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    right = Photo.crop

    def careless(self: Photo, box: Box) -> np.ndarray:
        pixels = right(self, box)
        if self.name.endswith("out.png"):
            pixels = pixels.copy()
            pixels[pixels.shape[0] // 2, pixels.shape[1] // 2] ^= 1
        return pixels

    monkeypatch.setattr(Photo, "crop", careless)
    with pytest.raises(FidelityError, match="would change in 0,0,80,60; nothing was written"):
        worked(tmp_path, Backdrop())
    assert [one.name for one in tmp_path.iterdir()] == ["in.png"]


def test_a_file_can_be_verified_later(tmp_path: Path) -> None:
    edit = ready(Backdrop())
    edit.save(tmp_path / "o.png")
    found = work.fidelity(edit, 0, tmp_path / "o.png", "o.png", True)
    assert found["verified"] is True
    assert found == work.fidelity(edit, 0, tmp_path / "o.png", "o.png", True, record=readback.drawn(edit.drawing()))


def test_contradictions_are_refused_before_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Prepared, "__call__", lambda *_: pytest.fail("the work was begun"))
    for stages, options, sentence in (
        ([Backdrop(background="transparent")], {"target": "out.jpg"},
         "JPEG has no transparency; name a .png or .webp file, or say --format png"),
        ([Backdrop()], {"format": "png", "target": "out.jpg"},
         "is the name of a JPEG file, and --format asks for PNG; leave one away"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=sentence):
            worked(tmp_path, *stages, **options)


def test_a_preview_shows_what_is_saved(tmp_path: Path) -> None:
    for background in ("#00ff00", "transparent"):
        worked(tmp_path, Canvas(size="120x40"), Backdrop(background=background), preview=True)
        sheet = np.asarray(Image.open(tmp_path / "out-preview.png"))
        assert sheet.shape == (60, 80 + 12 + 80 + 12 + 120, 3)
        corner = sheet[0, 190:202].astype(int)
        assert (corner == (0, 255, 0)).all() if background == "#00ff00" else set(np.unique(corner)) <= {204, 255}


def test_options_of_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_pictures()
    said = call("remove-object", "p.png", "--box", BOX, "-m", "telea", "--format", "jpeg", "--dpi", "300",
                "--max-bytes", "3k", "--json")  # fmt: skip
    assert said.code == 0, said.err
    (item,) = json.loads(said.out)["items"]
    assert item["outputs"][0]["path"] == "p-remove-object.jpg"
    assert any("to stay within 3000 bytes" in note for note in item["notes"])
    file = Photo.open("p-remove-object.jpg")
    assert (file.format, file.dpi) == ("JPEG", (300, 300))
    assert os.path.getsize("p-remove-object.jpg") <= 3000
    wrong = call("remove-object", "p.png", "--box", BOX, "--max-bytes", "lots")
    assert wrong.code == 2
    assert "expected bytes such as 300000, 300k or 1.5MB, got 'lots'" in wrong.err
    assert call("remove-object", "p.png", "--box", BOX, "--format", "gif").code == 2
    assert call("mask", "p.png", "--box", BOX, "--format", "png").code == 2, "a mask is a PNG"


_LARGE = """
import sys
import cv2, numpy as np
from PIL import Image
from toolkit.edit import Cutout, Edit
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.stages import stages; stages()
from toolkit.stages.backdrop import Backdrop
from toolkit.stages.canvas import Canvas

def high():
    return [int(l.split()[1]) / 1024 for l in open("/proc/self/status") if l.startswith(("VmHWM", "VmRSS"))]

source, target, size, background = sys.argv[1:]
Image.init()
matte = np.zeros((5774, 8660), np.uint8)
cv2.ellipse(matte, (4330, 2887), (2800, 2000), 0, 0, 360, 255, -1, cv2.LINE_AA)
matte = Mask.from_array(matte)
open("/proc/self/clear_refs", "w").write("5")
start = high()[1]
edit = Edit.of(source)
edit = edit.replace(cutouts=(Cutout(Box(0, 0, 8, 8), ((Box(0, 0, 8, 8), np.zeros((8, 8, 3), np.uint8)),), matte),))
for stage in (Canvas(size=size or None, product_size=0.85 if size else None), Backdrop(background=background)):
    edit = stage(edit)
edit.save(target)
print((high()[0] - start) / (8660 * 5774 * 3 / 2**20))
"""


@pytest.mark.heavy
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc")
@pytest.mark.parametrize(
    ("name", "size", "background"),
    [("o.jpg", "", "white"), ("o.png", "", "transparent"), ("o.jpg", "2000x2000", "#fff,#ddd")],
)
def test_fifty_megapixels_stay_below_three_times_their_decoded_size(
    name: str, size: str, background: str, tmp_path: Path
) -> None:
    small = np.random.default_rng(0).integers(60, 200, (361, 542, 3)).astype(np.uint8)
    Image.fromarray(small).resize((8660, 5774), Image.Resampling.BICUBIC).save(tmp_path / "i.jpg", quality=90)
    command = [sys.executable, "-c", _LARGE, str(tmp_path / "i.jpg"), str(tmp_path / name), size, background]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 3
    assert Photo.open(tmp_path / name).size == (Size(2000, 2000) if size else Size(8660, 5774))


def test_an_untouched_edit_is_no_new_picture() -> None:
    assert not Edit.of(noise(3)).drawing().is_whole
