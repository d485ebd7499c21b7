"""What a file carries stays byte for byte; what shows the old picture is renewed or taken out, and this is said."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import picture_files as files
from PIL import Image

from toolkit.geometry import Box
from toolkit.photo import Photo
from toolkit.photo.exif import renew_thumbnail
from toolkit.photo.pngwriter import chunk
from toolkit.photo.previews import EXTENDED_XMP, XMP, clean_photoshop, clean_xmp

WINDOW = Box(5, 3, 14, 12)
SIZE = (320, 240)


def segment(marker: int, payload: bytes) -> bytes:
    return bytes((0xFF, marker)) + (len(payload) + 2).to_bytes(2, "big") + payload


def carried(data: bytes) -> list[tuple[int, bytes]]:
    found, at = [], 2
    while data[at + 1] != 0xDA:
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at + 1] >= 0xE0:
            found.append((data[at + 1], data[at + 4 : at + 2 + length]))
        at += 2 + length
    return found


def jpeg(*segments: bytes, tail: bytes = b"") -> bytes:
    memory = io.BytesIO()
    Image.fromarray(files.noise(3, size=SIZE)).save(memory, "JPEG", quality=90)
    data = memory.getvalue()
    return data[:20] + b"".join(segments) + data[20:] + tail


def exif_with_thumbnail(quality: int = 90) -> tuple[bytes, bytes]:
    """An EXIF block with a maker note behind the thumbnail, and the thumbnail."""
    memory = io.BytesIO()
    Image.fromarray(files.noise(3, size=(160, 120), seed=5)).save(memory, "JPEG", quality=quality)
    thumbnail = memory.getvalue()
    first = struct.pack("<H", 1) + struct.pack("<HHII", 0x0112, 3, 1, 1) + struct.pack("<I", 26)
    at = 26 + 2 + 3 * 12 + 4
    second = struct.pack("<H", 3) + struct.pack("<HHII", 0x0103, 3, 1, 6) + struct.pack("<HHII", 0x0201, 4, 1, at)
    second += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + bytes(4)
    block = b"II*\0" + struct.pack("<I", 8) + first + second + thumbnail + b"maker note that must not move"
    return block, thumbnail


def edited(data: bytes, **options: object) -> tuple[bytes, tuple[str, ...]]:
    photo = Photo.open(data)
    memory = io.BytesIO()
    saved = photo.save(memory, [(WINDOW, 255 - photo.crop(WINDOW))], **options)  # type: ignore[arg-type]
    return memory.getvalue(), saved.notes


def test_segments_keep_their_bytes_and_order() -> None:
    profile = bytes(100_000)
    parts = [profile[:60_000], profile[60_000:]]
    added = [
        segment(0xE1, b"Exif\0\0" + files.oriented(1)[6:]),
        segment(0xE1, XMP + b"<x:xmpmeta/>"),
        segment(0xE1, EXTENDED_XMP + b"0" * 32 + bytes(8) + b"long text"),
        *[segment(0xE2, b"ICC_PROFILE\0" + bytes((i + 1, 2)) + part) for i, part in enumerate(parts)],
        segment(0xED, b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0\0\0\0\x05title\0"),
        segment(0xE7, b"unknown"),
        segment(0xFE, b"a comment"),
        segment(0xEE, b"Adobe\0\x64\0\0\0\0\1"),
    ]
    data = jpeg(*added)
    out, notes = edited(data)
    assert notes == ()
    assert carried(out) == carried(data)
    assert Photo.open(out).icc == profile


def test_the_exif_thumbnail_is_drawn_again_in_its_place() -> None:
    block, old = exif_with_thumbnail()
    out, notes = edited(jpeg(segment(0xE1, b"Exif\0\0" + block)))
    assert any("drawn again" in note for note in notes)
    new = Photo.open(out).exif or b""
    assert len(new) == len(block)
    start = block.index(old)
    assert new[start + len(old) :] == block[start + len(old) :]
    length = struct.unpack("<I", new[26 + 2 + 32 : 26 + 2 + 36])[0]
    shown = np.asarray(Image.open(io.BytesIO(new[start : start + length])), np.int16)
    whole = Image.open(io.BytesIO(out)).resize((160, 120), Image.Resampling.BOX)
    assert np.abs(shown - np.asarray(whole, np.int16)).mean() < 25
    assert old[-900:-700] not in new


def test_a_thumbnail_too_small_for_a_new_one_is_taken_out() -> None:
    block, old = exif_with_thumbnail(quality=1)
    noisy = Image.effect_noise((160, 120), 200).convert("RGB")
    new, said = renew_thumbnail(block, lambda size: noisy)
    assert "taken out" in (said or "")
    assert len(new) == len(block)
    assert old[2:50] not in new
    assert new.endswith(b"must not move")
    assert struct.unpack("<I", new[22:26])[0] == 0


def test_further_pictures_are_left_out_and_said() -> None:
    second = jpeg()
    hdr = XMP + b'<x:xmpmeta hdrgm:Version="1.0"><Container:Directory><rdf:Seq/></Container:Directory></x:xmpmeta>'
    data = jpeg(
        segment(0xE2, b"MPF\0II*\0"), segment(0xE2, b"urn:iso:std:iso:ts:21496:-1\0"), segment(0xE1, hdr), tail=second
    )
    out, notes = edited(data)
    text = " ".join(notes)
    assert "further pictures" in text
    assert "gain map" in text
    assert f"{len(second)} bytes after the end" in text
    kinds = [payload for marker, payload in carried(out) if marker in (0xE1, 0xE2)]
    assert kinds == [XMP + b"<x:xmpmeta></x:xmpmeta>"]
    assert out.endswith(b"\xff\xd9")
    assert len(out) < len(data) - len(second) + 2000


def test_photoshop_and_jfif_thumbnails_are_taken_out() -> None:
    title = b"8BIM\x04\x04\0\0\0\0\0\x05title\0"
    picture = b"8BIM\x04\x0c\0\0" + struct.pack(">I", 70_000) + bytes(70_000)
    block = title + picture + title
    parts = [segment(0xED, b"Photoshop 3.0\0" + block[at : at + 65_000]) for at in range(0, len(block), 65_000)]
    out, notes = edited(jpeg(*parts, segment(0xE0, b"JFXX\0\x13" + bytes(30))))
    assert len(notes) == 2
    assert [p for m, p in carried(out) if m == 0xED] == [b"Photoshop 3.0\0" + title + title]
    assert not any(p.startswith(b"JFXX") for _, p in carried(out))
    assert clean_photoshop(title) is None
    assert clean_photoshop(b"something else") is None


def test_xmp_loses_its_thumbnails_and_nothing_else() -> None:
    packet = b'<a xmp:Rating="5"><xmp:Thumbnails><rdf:Alt>data</rdf:Alt></xmp:Thumbnails><b>kept</b></a>'
    assert clean_xmp(packet)[0] == b'<a xmp:Rating="5"><b>kept</b></a>'
    assert clean_xmp(b"<a>kept</a>") == (b"<a>kept</a>", None)


def test_jpeg_coded_as_rgb_and_restart_markers_stay() -> None:
    memory = io.BytesIO()
    Image.fromarray(files.noise(3, size=SIZE)).save(memory, "JPEG", keep_rgb=True, subsampling=0, restart_marker_rows=2)
    out, notes = edited(memory.getvalue())
    assert notes == ()
    one, two = (Image.open(io.BytesIO(d)) for d in (memory.getvalue(), out))
    assert np.abs(np.asarray(one, np.int16) - np.asarray(two))[20:].max() <= 6
    assert out.count(b"\xff\xdd\0\x04") == 1
    assert memory.getvalue()[memory.getvalue().index(b"\xff\xdd") :][:6] == out[out.index(b"\xff\xdd") :][:6]


def test_png_chunks_keep_their_bytes_and_order() -> None:
    before = b"".join((
        chunk(b"gAMA", struct.pack(">I", 45455)), chunk(b"pHYs", struct.pack(">IIB", 2835, 2835, 1)),
        chunk(b"tEXt", b"parameters\0a cat, steps 20"), chunk(b"iTXt", b"k\0\0\0\0\0text"),
        chunk(b"tIME", b"\x07\xea\1\1\1\1\1"), chunk(b"prVt", b"private, safe to copy".replace(b"t", b"t")),
    ))  # fmt: skip
    after = chunk(b"zTXt", b"late\0\0" + zlib.compress(b"text behind the picture"))
    data = files.png(files.noise(3), kind=2, bits=8, before=before, after=after)
    out, notes = edited(data)
    assert before.replace(chunk(b"prVt", b"private, safe to copy"), b"") in out
    assert after in out[out.index(b"IDAT") :]
    assert not notes


def test_png_chunks_that_depend_on_the_picture_are_said() -> None:
    data = files.png(files.noise(3), kind=2, bits=8, before=chunk(b"iDOT", bytes(28)) + chunk(b"caBX", b"jumb"))
    out, notes = edited(data)
    assert b"iDOT" not in out
    assert b"caBX" not in out
    assert len(notes) == 2


def test_orientation_in_xmp_and_raw_exif_of_png() -> None:
    xmp = chunk(b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<rdf:Description tiff:Orientation="6"/>')
    memory = io.BytesIO()
    Image.fromarray(files.noise(3)).save(memory, "PNG")
    data = memory.getvalue()
    assert Photo.open(data[:33] + xmp + data[33:]).orientation == 6
    raw = files.oriented(8)
    text = b"\nexif\n%8d\n" % len(raw) + raw.hex().encode() + b"\n"
    photo = Photo.open(data[:33] + chunk(b"tEXt", b"Raw profile type exif\0" + text) + data[33:])
    assert photo.orientation == 8
    out = io.BytesIO()
    photo.save(out, [], format="JPEG")
    assert Photo.open(out.getvalue()).orientation == 8


def test_tiff_tags_stay_where_they_are_and_old_pixels_are_gone() -> None:
    secret = np.full((60, 80, 3), 77, np.uint8)
    secret[10:20, 10:30] = np.random.default_rng(1).integers(0, 256, (10, 20, 3))
    for compression in (None, "zlib"):
        data = files.tiff(secret, rowsperstrip=10, compression=compression)
        photo = Photo.open(data)
        memory = io.BytesIO()
        photo.save(memory, [(Box(10, 10, 30, 20), np.full((10, 20, 3), 77, np.uint8))])
        out = memory.getvalue()
        assert len(out) <= len(data)
        assert b"(c) somebody" in out
        if compression is None:
            assert secret[12, 10:30].tobytes() in data
        assert secret[12, 10:30].tobytes() not in out
        assert (Photo.open(out).array() == 77).all()


def test_identical_strips_that_share_bytes_are_not_overwritten() -> None:
    flat = np.full((20, 8, 1), 9, np.uint8)
    data = bytearray(files.tiff(flat, rowsperstrip=10))
    import tifffile

    with tifffile.TiffFile(io.BytesIO(bytes(data))) as file:
        tag, starts = file.pages[0].tags[273], file.pages[0].dataoffsets
        struct.pack_into(
            "<" + ("I" if tag.dtype == 4 else "H"), data, tag.valueoffset + (4 if tag.dtype == 4 else 2), starts[0]
        )
    photo = Photo.open(bytes(data))
    memory = io.BytesIO()
    photo.save(memory, [(Box(0, 0, 8, 10), np.full((10, 8, 1), 200, np.uint8))])
    again = Photo.open(memory.getvalue()).array()
    assert (again[:10] == 200).all()
    assert (again[10:] == 9).all()


def test_jpeg_in_tiff_becomes_deflate_and_this_is_said() -> None:
    memory = io.BytesIO()
    Image.fromarray(files.noise(3, size=SIZE)).save(memory, "TIFF", compression="jpeg", quality=90)
    photo = Photo.open(memory.getvalue())
    before = photo.array()
    out, notes = edited(memory.getvalue())
    assert any("deflate" in note for note in notes)
    again = Photo.open(out).array().copy()
    again[WINDOW.slices] = before[WINDOW.slices]
    assert np.array_equal(again, before)


def test_a_reduced_copy_in_a_tiff_is_left_out() -> None:
    import tifffile

    memory = io.BytesIO()
    with tifffile.TiffWriter(memory) as writer:
        writer.write(files.noise(3), photometric="rgb", metadata=None)
        writer.write(files.noise(3, size=(10, 8)), photometric="rgb", subfiletype=1, metadata=None)
    out, notes = edited(memory.getvalue())
    assert any("smaller copies" in note for note in notes)
    with tifffile.TiffFile(io.BytesIO(out)) as file:
        assert len(file.pages) == 1
    assert files.noise(3, size=(10, 8)).tobytes() not in out


def test_a_preview_in_the_maker_notes_is_kept_and_said() -> None:
    block, _ = exif_with_thumbnail()
    preview = b"\xff\xd8\xff\xdb" + bytes(range(200)) * 4
    out, notes = edited(jpeg(segment(0xE1, b"Exif\0\0" + block + preview)))
    assert preview in out
    assert any("drawn again" in note and "maker notes hold a preview" in note for note in notes)


def test_pictures_too_detailed_for_the_progressive_encoder_become_baseline_and_this_is_said() -> None:
    memory = io.BytesIO()
    array = np.random.default_rng(0).integers(0, 36, (300, 400, 3), np.uint8)
    Image.fromarray(array).save(memory, "JPEG", quality=100, subsampling=0, progressive=True)
    out, notes = edited(memory.getvalue())
    assert any("baseline" in note for note in notes)
    assert np.abs(Photo.open(out).array().astype(int) - array)[20:].mean() < 1
