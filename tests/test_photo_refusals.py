"""Whatever bytes come: one sentence, nothing printed, never another error."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import picture_files as files
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from toolkit.errors import PhotoError
from toolkit.photo import Photo
from toolkit.photo.pngwriter import chunk

FILES = {
    "jpeg": files.pillow("RGB", "JPEG", 6), "progressive": files.pillow("RGB", "JPEG", 6, progressive=True),
    "bmp": files.pillow("RGB", "BMP"), "bmp-palette": files.pillow("P", "BMP"), "webp": files.pillow("RGB", "WEBP"),
    **{kind: files.LOSSLESS[kind](6) for kind in (
        "png-RGB", "png-P", "png16-6", "png-key", "webp-RGBA", "tiff-RGB-tiff_lzw", "tiff-RGB-raw", "tiff-P-packbits",
        "tiff16-3-zlib", "tiff-tiles", "tiff-big-endian", "tiff-1-tiff_lzw")},
}  # fmt: skip


def text_of(source: object) -> str:
    with pytest.raises(PhotoError) as caught:
        Photo.open(source, name="a").array()  # type: ignore[arg-type]
    text = str(caught.value)
    assert text.startswith("a: ")
    assert "\n" not in text
    return text


def saved(mode: str, format: str, **options: object) -> bytes:
    memory = io.BytesIO()
    Image.new(mode, (20, 20)).save(memory, format, **options)
    return memory.getvalue()


def frames(format: str) -> bytes:
    memory = io.BytesIO()
    pictures = [Image.new("RGB", (20, 20), (n, 0, 0)) for n in (10, 200)]
    pictures[0].save(memory, format, save_all=True, append_images=pictures[1:])
    return memory.getvalue()


def header_only(width: int, height: int) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"), (bytes(100), "zero bytes"), (b"hello world, this is text", "not a picture"),
        (b"<html><body>", "web page"), (b"GIF89a" + bytes(50), "GIF"), (b"8BPS" + bytes(50), "Photoshop"),
        (b"\0\0\0\x18ftypheic" + bytes(50), "HEIC"), (b"\0\0\0\x18ftypavif" + bytes(50), "AVIF"),
        (b"\0\0\0\x18ftypcrx " + bytes(50), "CR3"), (b"FUJIFILMCCD-RAW" + bytes(50), "RAF"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(4) + b"\1\0\0\1\3\0\1\0\0\0\1\0\0\0" + bytes(4), "RAW"),
        (saved("CMYK", "JPEG"), "CMYK"), (saved("CMYK", "TIFF"), "CMYK"), (saved("LAB", "TIFF"), "CIELAB"),
        (saved("F", "TIFF"), "floating-point"), (saved("I", "TIFF"), "signed"),
        (frames("TIFF"), "several pages"), (frames("WEBP"), "animated WebP"), (frames("PNG"), "animated PNG"),
        (header_only(100_000, 100_000), "megapixels"), (header_only(0, 5), "damaged"),
        (FILES["png-RGB"][:900], "truncated"), (FILES["jpeg"][:-60], "truncated"), (FILES["jpeg"][:30], "truncated"),
        (FILES["bmp"][:900], "truncated"), (FILES["webp"][:500], "truncated"),
        (FILES["tiff-RGB-raw"][:900], "truncated"),
    ],
)  # fmt: skip
def test_refused_with_one_sentence(data: bytes, said: str) -> None:
    assert said in text_of(data)


def test_paths_that_are_no_photo(tmp_path: Path) -> None:
    for path, said in ((tmp_path / "none.png", "no such file"), (tmp_path, "folder")):
        with pytest.raises(PhotoError, match=said):
            Photo.open(path)
    with pytest.raises(PhotoError, match="got int"):
        Photo.open(7)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "array", [np.zeros((5, 5, 5), np.uint8), np.zeros((5, 5), np.float32), np.zeros((0, 5, 3), np.uint8)]
)
def test_arrays_that_are_no_photo(array: np.ndarray) -> None:
    with pytest.raises(PhotoError):
        Photo.open(array)


def test_the_limit_can_be_raised_and_lowered() -> None:
    with pytest.raises(PhotoError, match="raise max_pixels"):
        Photo.open(FILES["jpeg"], max_pixels=100)
    with pytest.raises(PhotoError, match="raise max_pixels"):
        Photo.open(files.noise(3), max_pixels=100)


def test_pillows_limit_is_neither_asked_nor_changed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    for data in FILES.values():
        photo = Photo.open(data)
        photo.array()
        photo.save(io.BytesIO(), [(photo.box, photo.crop(photo.box).copy())])
    assert Image.MAX_IMAGE_PIXELS == 10


def test_text_bombs_are_refused() -> None:
    bomb = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(20 << 20)))
    data = FILES["png-RGB"]
    assert "attack" in text_of(data[:33] + bomb + data[33:])


def test_a_wrong_checksum_is_named() -> None:
    data = bytearray(FILES["png-RGB"])
    at = data.index(b"IDAT")
    data[at + 40] ^= 1
    assert "checksum" in text_of(bytes(data))


def attempt(data: bytes) -> str:
    """Edit and save; the sentence if it was refused."""
    try:
        photo = Photo.open(data, name="a")
        pixels = photo.crop(photo.box)
        photo.save(io.BytesIO(), [(photo.box, pixels[::-1].copy())])
    except PhotoError as error:
        return str(error)
    return ""


@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    kind=st.sampled_from(sorted(FILES)),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=8),
    head=st.booleans(),
    cut=st.floats(0.02, 1),
)
def test_flipped_and_cut_bytes_give_one_sentence(
    kind: str, changes: list[tuple[float, int]], head: bool, cut: float
) -> None:
    data = bytearray(FILES[kind])
    reach = min(300, len(data)) if head else len(data)
    for place, value in changes:
        data[min(len(data) - 1, int(place * reach))] = value
    started = time.process_time()
    said = attempt(bytes(data[: max(1, int(len(data) * cut))] if cut < 0.9 else data))
    assert "\n" not in said
    assert time.process_time() - started < 30  # it does not hang
