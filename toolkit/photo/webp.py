"""WebP: lossless stays lossless, lossy is encoded again; every chunk around the picture is kept."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import BinaryIO

import cv2
import numpy as np
from PIL import Image, WebPImagePlugin

from toolkit.errors import OutputError, PhotoError
from toolkit.geometry import Size
from toolkit.photo import exif, previews, restate
from toolkit.photo.picture import Edited, PictureFile, sentences
from toolkit.photo.raster import ArrayRaster, Direct, ImageRaster, Raster
from toolkit.photo.source import Source

QUALITY = 90
_LARGEST_SIDE = 16383
_PICTURE = (b"VP8 ", b"VP8L", b"ALPH")
_ICC, _ALPHA, _EXIF, _XMP = 0x20, 0x10, 0x08, 0x04


@dataclass(frozen=True)
class Part:
    """A RIFF chunk; `data` is empty for the picture's own chunks while they lie in the source."""

    name: bytes
    data: bytes

    def bytes(self) -> bytes:
        """As it stands in a file, padded to an even length."""
        return self.name + len(self.data).to_bytes(4, "little") + self.data + bytes(len(self.data) % 2)


class WebpFile(PictureFile):
    """A still WebP file."""

    format = "WEBP"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        name = source.name
        self.parts = _parts(source)
        kinds = [p.name for p in self.parts]
        if b"ANIM" in kinds or b"ANMF" in kinds:
            raise PhotoError(f"{name}: is an animated WebP; only still pictures can be edited, save one frame first")
        picture = next((p for p in self.parts if p.name in (b"VP8 ", b"VP8L")), None)
        if picture is None:
            raise PhotoError(f"{name}: has no picture data; the file is damaged")
        self.lossless = picture.name == b"VP8L"
        head = picture.data
        if self.lossless:
            if len(head) < 5 or head[0] != 0x2F:
                raise PhotoError(f"{name}: the WebP header is damaged")
            bits = int.from_bytes(head[1:5], "little")
            self.size = Size((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
            alpha = bool(bits >> 28 & 1)
        else:
            if len(head) < 10 or head[3:6] != b"\x9d\x01\x2a":
                raise PhotoError(f"{name}: the WebP header is damaged")
            self.size = Size(*(int.from_bytes(head[i : i + 2], "little") & 0x3FFF for i in (6, 8)))
            alpha = b"ALPH" in kinds
        if self.parts[0].name == b"VP8X":
            alpha = alpha and bool(self.parts[0].data[0] & _ALPHA)
        self.space = Direct(3, alpha)
        self.mode = f"{'lossless' if self.lossless else 'lossy'} 8-bit RGB{' with alpha' if alpha else ''} WebP"
        self._read_metadata()

    def _read_metadata(self) -> None:
        data = self.metadata
        for part in self.parts:
            if part.name == b"ICCP":
                data.icc = part.data
            elif part.name == b"EXIF":
                data.exif = exif.without_prefix(part.data)
            elif part.name == b"XMP ":
                data.xmp = part.data
        data.orientation = exif.orientation(data.exif) or 1
        data.dpi = exif.resolution(data.exif)

    def decode(self) -> Raster:
        # only the picture goes to the decoder, so that broken metadata cannot stop it
        head = self.parts[:1] if self.parts[0].name == b"VP8X" else []
        data = _riff(b"".join(p.bytes() for p in head + [p for p in self.parts if p.name in _PICTURE]))
        mode = "RGBA" if self.space.alpha else "RGB"
        with sentences(self.source.name):
            # Pillow's plugin refuses more pixels than Pillow's own limit; ours has been checked already
            if Image.MAX_IMAGE_PIXELS is not None and self.size.area > 2 * Image.MAX_IMAGE_PIXELS:
                return self._decode_large(data)
            image = WebPImagePlugin.WebPImageFile(io.BytesIO(data))
            image.load()
            if image.size != self.size:
                raise PhotoError(f"{self.source.name}: is damaged; its headers name two different sizes")
            plain = image if image.mode == mode else image.convert(mode)
        plain.info = {}
        return ImageRaster(plain)

    def _decode_large(self, data: bytes) -> Raster:
        array = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        if array is None or array.shape != (self.size.height, self.size.width, self.space.bands):
            raise PhotoError(f"{self.source.name}: is damaged; its picture cannot be decoded")
        code = cv2.COLOR_BGRA2RGBA if self.space.alpha else cv2.COLOR_BGR2RGB
        return ArrayRaster(np.asarray(cv2.cvtColor(array, code, dst=array), np.uint8))

    def rewrite(self, edited: Edited, out: BinaryIO, quality: int | None) -> list[str]:
        notes: list[str] = []
        picture = encoded(edited.raster.image(), lossless=self.lossless, quality=quality)
        if self.lossless and quality is not None:
            notes.append("the WebP is lossless and stays so: the quality was not used")
        elif not self.lossless:
            notes.append(f"the WebP is lossy: the whole picture was encoded again, at quality {quality or QUALITY}")
        changes = edited.changes
        carried: list[Part] = [Part(b"ICCP", changes.icc)] if changes.icc else []
        placed = False
        resolution = None
        for part in self.parts:
            if part.name in _PICTURE:
                if not placed:
                    carried += picture
                placed = True
            elif part.name == b"EXIF":
                block = exif.without_prefix(part.data)
                new, said = exif.renew_thumbnail(restate.exif_block(block, changes), edited.miniature)
                resolution = exif.resolution(new)
                notes += [said] if said else []
                carried.append(Part(part.name, part.data[: len(part.data) - len(block)] + new))
            elif part.name == b"XMP ":
                new, said = previews.clean_xmp(restate.xmp(part.data, changes))
                notes += [said] if said else []
                carried.append(Part(part.name, new))
            elif part.name == b"C2PA":
                notes.append("the content credentials (C2PA) were signed for the old picture and were left out")
            elif part.name != b"VP8X" and not (part.name == b"ICCP" and changes.srgb):
                carried.append(part)
        if changes.dpi and not resolution:
            notes.append("WebP has no place for the resolution: it was left out")
        write_webp(out, carried, edited.size, alpha=edited.space.alpha)
        return notes


def encoded(image: Image.Image, *, lossless: bool, quality: int | None) -> list[Part]:
    """The picture chunks of an RGB or RGBA image; lossless keeps the colours under alpha 0 too.

    Raises:
        OutputError: when a side is longer than WebP allows.
    """
    if max(image.size) > _LARGEST_SIDE:
        raise OutputError(
            f"WebP pictures are at most {_LARGEST_SIDE} pixels a side, this one is "
            f"{image.size[0]}x{image.size[1]}; save it as PNG, TIFF or JPEG"
        )
    memory = io.BytesIO()
    if lossless:
        image.save(memory, "WEBP", lossless=True, exact=True, quality=60, method=4)
    else:
        image.save(memory, "WEBP", quality=quality or QUALITY, method=4, exact=True)
    return [p for p in _split(memory.getvalue()[12:]) if p.name in _PICTURE]


def write_webp(out: BinaryIO, parts: list[Part], size: Size, *, alpha: bool) -> None:
    """Write a WebP file of these chunks, with the extended header where one is needed."""
    names = {p.name for p in parts}
    if len(parts) > 1:
        flags = _ICC * (b"ICCP" in names) | _ALPHA * alpha | _EXIF * (b"EXIF" in names) | _XMP * (b"XMP " in names)
        head = bytes((flags, 0, 0, 0)) + b"".join((n - 1).to_bytes(3, "little") for n in size)
        parts = [Part(b"VP8X", head), *parts]
    out.write(_riff(b"".join(p.bytes() for p in parts)))


def _riff(body: bytes) -> bytes:
    return b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP" + body


def _parts(source: Source) -> list[Part]:
    data = source.read(0, source.length)
    said = int.from_bytes(data[4:8], "little") + 8
    if said > len(data) + 1:
        raise PhotoError(f"{source.name}: is truncated; {said - len(data)} of {said} bytes are missing")
    return _split(data[12:said])


def _split(body: bytes) -> list[Part]:
    parts: list[Part] = []
    at = 0
    while at + 8 <= len(body):
        length = int.from_bytes(body[at + 4 : at + 8], "little")
        parts.append(Part(body[at : at + 4], body[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return parts
