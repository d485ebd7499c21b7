"""PNG: 8-bit pictures through Pillow, 16-bit ones through OpenCV and our own encoder; every other chunk is kept.

PNG (Third Edition), W3C Recommendation 2025.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import BinaryIO, cast

import cv2
import numpy as np
from PIL import PngImagePlugin

from toolkit.errors import PhotoError
from toolkit.geometry import Size
from toolkit.photo import exif, previews, restate
from toolkit.photo.picture import Edited, PictureFile, sentences
from toolkit.photo.pngwriter import SIGNATURE, chunk, write_png
from toolkit.photo.raster import ArrayRaster, Direct, ImageRaster, Keyed, Palette, Raster, Space, strips
from toolkit.photo.source import Range, Source, Splice

_LARGEST_TEXT, _SMALL_TEXT, _STRONGEST_PACKING = 64 << 20, 1 << 20, 100
_KINDS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey with alpha", 6: "RGB with alpha"}
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
_ANIMATION = (b"acTL", b"fcTL", b"fdAT")
# unsafe to copy in general, but still true of the edited picture
_STILL_TRUE = {
    b"cHRM",
    b"gAMA",
    b"iCCP",
    b"sBIT",
    b"sRGB",
    b"bKGD",
    b"tRNS",
    b"tIME",
    b"sTER",
    b"sCAL",
    b"pCAL",
    b"sPLT",
    b"cICP",
    b"mDCV",
    b"mDCv",
    b"cLLI",
    b"cLLi",
}
_OF_THE_PALETTE = {b"tRNS", b"bKGD", b"sBIT"}
_OF_THE_COLOURS = {b"cHRM", b"gAMA", b"iCCP", b"sRGB", b"cICP"}


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    offset: int
    length: int
    data: bytes  # empty for IDAT


class PngFile(PictureFile):
    """A PNG file; `chunks` are all of its chunks in order, the picture's data left in the file."""

    format = "PNG"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        with source.open() as stream:
            self.chunks = _chunks(stream, source, self.notes)
        head = self.chunks[0].data
        self.size = Size(int.from_bytes(head[:4], "big"), int.from_bytes(head[4:8], "big"))
        self.bits, self.kind, self.interlaced = head[8], head[9], head[12] == 1
        if min(self.size) == 0 or self.bits not in _DEPTHS.get(self.kind, ()) or head[12] > 1:
            raise PhotoError(
                f"{source.name}: the PNG header is damaged (colour type {self.kind}, {self.bits} bits, "
                f"{self.size} pixels)"
            )
        if any(c.name in _ANIMATION for c in self.chunks):
            raise PhotoError(
                f"{source.name}: is an animated PNG; only still pictures can be edited, save one frame first"
            )
        if not any(c.name == b"IDAT" for c in self.chunks):
            raise PhotoError(f"{source.name}: has no picture data; the file is damaged")
        self.space = self._space()
        self.mode = f"{self.bits}-bit {_KINDS[self.kind]} PNG" + (", interlaced" if self.interlaced else "")
        self._read_metadata()

    def _named(self, name: bytes) -> bytes | None:
        return next((c.data for c in self.chunks if c.name == name), None)

    def _space(self) -> Space:
        key = self._named(b"tRNS")
        if self.kind == 3:
            colours = self._named(b"PLTE")
            if not colours or len(colours) % 3 or len(colours) > 768:
                raise PhotoError(f"{self.source.name}: has no usable palette; the file is damaged")
            palette = np.frombuffer(colours, np.uint8).reshape(-1, 3)
            if key:
                alpha = np.full((len(palette), 1), 255, np.uint8)
                given = np.frombuffer(key[: len(palette)], np.uint8)
                alpha[: len(given), 0] = given
                palette = np.concatenate([palette, alpha], axis=1)
            return Palette(palette)
        channels = 1 if self.kind in (0, 4) else 3
        depth = 16 if self.bits == 16 else 8
        if key and self.kind in (0, 2) and len(key) == 2 * channels:
            step = 255 // ((1 << self.bits) - 1) if depth == 8 else 1
            values = tuple(int.from_bytes(key[i : i + 2], "big") * step for i in range(0, len(key), 2))
            if max(values) < 1 << depth:
                return Keyed(values, depth, step)
        step = 255 // ((1 << self.bits) - 1) if self.bits < 8 else 1
        return Direct(channels, self.kind in (4, 6), depth, step)

    def _read_metadata(self) -> None:
        data, name = self.metadata, self.source.name
        raw: bytes | None = None
        for c in self.chunks:
            if c.name == b"eXIf":
                data.exif = exif.without_prefix(c.data)
            elif c.name == b"iCCP":
                _, _, rest = c.data.partition(b"\0")
                data.icc = _inflated(rest[1:], name, "ICC profile") or None
            elif c.name == b"pHYs" and len(c.data) == 9 and c.data[8] == 1:
                x, y = (int.from_bytes(c.data[i : i + 4], "big") for i in (0, 4))
                data.dpi = (x * 0.0254, y * 0.0254) if x and y else None
            elif c.name in (b"tEXt", b"zTXt", b"iTXt"):
                key, text = _text(c, name)
                if key == b"XML:com.adobe.xmp":
                    data.xmp = text
                elif key.lower() in (b"raw profile type exif", b"raw profile type app1"):
                    raw = raw or _raw_profile(text)
        if data.exif is None and raw and raw.startswith(b"Exif\0"):
            data.exif = exif.without_prefix(raw)
        data.orientation = exif.orientation(data.exif) or previews.xmp_orientation(data.xmp) or 1
        if self._named(b"cICP") and not data.icc:
            self.notes.append("the colours are described by a cICP chunk, which is kept but not interpreted")

    def decode(self) -> Raster:
        with self.source.open() as stream:
            head, pieces = self._pieces(stream)
            spliced = Splice(stream, [SIGNATURE + head, *pieces, chunk(b"IEND", b"")])
            if self.bits == 16:
                return self._decode_wide(spliced)
            with sentences(self.source.name):
                image = PngImagePlugin.PngImageFile(cast(BinaryIO, spliced))
                image.load()
        image.info = {}
        return ImageRaster(image)

    def _pieces(self, stream: BinaryIO) -> tuple[bytes, list[Range]]:
        head = b"".join(chunk(c.name, c.data) for c in self.chunks if c.name in (b"IHDR", b"PLTE"))
        pieces: list[Range] = []
        for c in self.chunks:
            if c.name != b"IDAT":
                continue
            stream.seek(c.offset + 4)
            sum_, left = 0, c.length + 4
            while left:
                block = stream.read(min(left, 1 << 20))
                if not block:
                    break
                sum_, left = zlib.crc32(block, sum_), left - len(block)
            if left or stream.read(4) != sum_.to_bytes(4, "big"):
                raise PhotoError(
                    f"{self.source.name}: is damaged; the picture data at byte {c.offset} fails its checksum"
                )
            pieces.append(Range(c.offset, c.length + 12))
        return head, pieces

    def _decode_wide(self, spliced: Splice) -> Raster:
        with sentences(self.source.name):
            array = cv2.imdecode(spliced.bytes_array(), cv2.IMREAD_UNCHANGED)
        shape = (self.size.height, self.size.width)
        if array is None or array.shape[:2] != shape or array.dtype != np.uint16:
            raise PhotoError(f"{self.source.name}: is damaged; its 16-bit picture data cannot be decoded")
        if self.kind == 4:
            array = array[..., [0, 3]]
        elif array.ndim == 3:
            for box in strips(self.size):  # in strips, because OpenCV would make a second copy of the whole
                array[box.slices][..., :3] = array[box.slices][..., 2::-1].copy()
        return ArrayRaster(array.reshape(*shape, -1))

    def rewrite(self, edited: Edited, out: BinaryIO, quality: int | None) -> list[str]:
        notes: list[str] = []
        if quality is not None:
            notes.append("PNG is lossless: the quality was not used")
        if self.interlaced:
            notes.append("the file is no longer interlaced")
        if edited.promoted and not edited.gained_only_alpha(self.space):
            notes.append(
                f"the new colours do not fit into {self.bits}-bit {_KINDS[self.kind]}: "
                f"the picture was saved as {edited.words}"
            )
        first = next(i for i, c in enumerate(self.chunks) if c.name == b"IDAT")
        before = new_chunks(edited.changes)
        before += b"".join(self._carried(c, edited, notes) for c in self.chunks[1:first])
        after = b"".join(
            self._carried(c, edited, notes) for c in self.chunks[first:] if c.name not in (b"IDAT", b"IEND")
        )
        bits = edited.space.depth if edited.promoted else self.bits
        write_png(edited.raster, bits, out, before=before, after=after, effort=self._effort())
        return list(dict.fromkeys(notes))

    def _effort(self) -> int:
        """zlib's level: about the source's, never low where the picture is flat and a high one costs little."""
        data = [c for c in self.chunks if c.name == b"IDAT"]
        head = self.source.read(data[0].offset + 9, 1)
        level = head[0] >> 6 if head else 2
        samples = {2: 3, 4: 2, 6: 4}.get(self.kind, 1)
        flat = 8 * sum(c.length for c in data) < self.size.area * samples * self.bits // 8
        return (6, 6, 6, 9)[level] if flat else (1, 3, 6, 6)[level]

    def _carried(self, c: _Chunk, edited: Edited, notes: list[str]) -> bytes:
        name, data = c.name, c.data
        if edited.promoted and (name == b"PLTE" or (name in _OF_THE_PALETTE and self.kind == 3) or name == b"tRNS"):
            return b""
        if edited.promoted and name in (b"sBIT", b"bKGD"):
            return b""
        if (edited.changes.srgb and name in _OF_THE_COLOURS) or (edited.changes.dpi and name == b"pHYs"):
            return b""
        if name == b"eXIf":
            old = exif.without_prefix(data)
            block, said = exif.renew_thumbnail(restate.exif_block(old, edited.changes), edited.miniature)
            notes += [said] if said else []
            if block != old:
                return chunk(name, data[: len(data) - len(old)] + block)
        elif name == b"iTXt" and data.startswith(b"XML:com.adobe.xmp\0"):
            key, text = _text(c, self.source.name)
            packet, said = previews.clean_xmp(restate.xmp(text, edited.changes))
            notes += [said] if said else []
            if packet != text:
                return chunk(name, key + b"\0\0\0\0\0" + packet)
        elif name == b"caBX":
            notes.append("the content credentials (C2PA) were signed for the old picture and were left out")
            return b""
        elif name not in _STILL_TRUE and name[0] & 0x20 and not name[3] & 0x20:
            notes.append(f"the {name.decode('latin-1')} chunk depends on the old picture data and was left out")
            return b""
        elif name == b"dSIG":
            notes.append("the digital signature was made for the old picture and was left out")
            return b""
        return self.source.read(c.offset, c.length + 12)


def new_chunks(changes: restate.Changes) -> bytes:
    """The chunks for a profile and a resolution that are new."""
    found = chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(changes.icc, 9)) if changes.icc else b""
    if changes.dpi:
        found += chunk(b"pHYs", b"".join(round(n / 0.0254).to_bytes(4, "big") for n in changes.dpi) + b"\1")
    return found


def _chunks(stream: BinaryIO, source: Source, notes: list[str]) -> list[_Chunk]:
    name = source.name
    found: list[_Chunk] = []
    at, held = 8, 0
    while True:
        stream.seek(at)
        head = stream.read(8)
        if len(head) < 8 and at >= source.length - 8 and not any(c.name == b"IEND" for c in found):
            raise PhotoError(f"{name}: is truncated; the file ends after {source.length} bytes, before its end mark")
        length, kind = int.from_bytes(head[:4], "big"), head[4:8]
        if not (kind.isalpha() and kind.isascii()) or (not found and (kind != b"IHDR" or length != 13)):
            raise PhotoError(f"{name}: is damaged; there is no valid PNG chunk at byte {at}")
        missing = at + 12 + length - source.length
        if missing > 0:
            raise PhotoError(
                f"{name}: is truncated; the file ends after {source.length} bytes, "
                f"{missing} bytes short of the end of its {kind.decode()} chunk"
            )
        data = b""
        if kind not in (b"IDAT", b"fdAT"):
            held += length
            if held > 4 * _LARGEST_TEXT:
                raise PhotoError(f"{name}: carries more than {4 * _LARGEST_TEXT >> 20} MB of metadata")
            data = stream.read(length)
            if stream.read(4) != zlib.crc32(kind + data).to_bytes(4, "big"):
                if not kind[0] & 0x20:
                    raise PhotoError(f"{name}: is damaged; the {kind.decode()} chunk at byte {at} fails its checksum")
                notes.append(f"the {kind.decode()} chunk at byte {at} fails its checksum; it is kept as it is")
        elif length:
            stream.seek(length + 4, 1)
        found.append(_Chunk(kind, at, length, data))
        at += 12 + length
        if kind == b"IEND":
            if at < source.length:
                notes.append(f"{source.length - at} bytes after the end of the picture are left out on saving")
            return found


def _inflated(data: bytes, name: str, what: str) -> bytes:
    """Unpacked text or profile; empty where it is damaged. Far beyond what real text packs to, it is refused."""
    expander = zlib.decompressobj()
    most = max(_SMALL_TEXT, min(_LARGEST_TEXT, _STRONGEST_PACKING * len(data)))
    try:
        text = expander.decompress(data, most)
        more = expander.decompress(expander.unconsumed_tail, 1) if expander.unconsumed_tail else b""
    except zlib.error:
        return b""
    if more:
        raise PhotoError(
            f"{name}: {len(data)} bytes of {what} unpack to more than {most >> 20} MB; this looks like an attack, "
            "save the picture without metadata first"
        )
    return text


def _text(c: _Chunk, name: str) -> tuple[bytes, bytes]:
    key, _, rest = c.data.partition(b"\0")
    if c.name == b"tEXt":
        return key, rest
    if c.name == b"zTXt":
        return key, _inflated(rest[1:], name, "text")
    packed = rest[:1] == b"\1"
    text = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    return key, _inflated(text, name, "text") if packed else text


def _raw_profile(text: bytes) -> bytes | None:
    parts = text.split(None, 2)  # kind, length, hexadecimal digits
    if len(parts) != 3:
        return None
    try:
        return bytes.fromhex(parts[2].decode("ascii", "replace").replace("\n", ""))
    except ValueError:
        return None
