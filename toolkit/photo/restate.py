"""What carried metadata says of size, resolution and colour space, brought up to date where a new picture differs."""

from __future__ import annotations

import re
from dataclasses import dataclass

from toolkit.geometry import Size
from toolkit.photo import exif, previews
from toolkit.photo.tags import BadTags, Directory, Entry, Tags, reader

_EXIF_DIRECTORY, _COLOUR_SPACE = 0x8769, 0xA001
_XMP_WIDTHS, _XMP_HEIGHTS = (rb"tiff:ImageWidth|exif:PixelXDimension", rb"tiff:ImageLength|exif:PixelYDimension")
_XMP_RESOLUTIONS, _XMP_UNIT = rb"tiff:XResolution|tiff:YResolution", rb"tiff:ResolutionUnit"

Pair = tuple[int, bytes]


@dataclass(frozen=True)
class Changes:
    """What the new picture has other than the file it comes from.

    Attributes:
        size: its stored size, where that is new.
        dpi: its pixels per inch, where they were asked for.
        srgb: whether its colours were converted to sRGB.
        icc: the profile it then gets; None for grey, which needs none.
    """

    size: Size | None = None
    dpi: tuple[float, float] | None = None
    srgb: bool = False
    icc: bytes | None = None

    def profile(self, icc: bytes | None) -> bytes | None:
        """The profile of the new picture; `icc` was the old one's."""
        return self.icc if self.srgb else icc


def exif_block(block: bytes, changes: Changes) -> bytes:
    """An EXIF block whose tags of size, resolution and colour space, as far as it has them, say what is true now.

    Nothing moves, so that maker notes keep working.
    """
    try:
        tags = Tags(reader(block))
        first = tags.directory(tags.first)
        at = tags.number(first.entries.get(_EXIF_DIRECTORY))
        second = tags.directory(at) if at else Directory(0, {}, 0, 0)
    except BadTags:
        return block
    changed = bytearray(block)

    def put(entry: Entry | None, number: int) -> None:
        code = {3: "H", 4: "I"}.get(entry.type) if entry else None
        if entry and code and entry.count == 1 and (code == "I" or number < 1 << 16):
            value = tags.pack(code, number)
            changed[entry.offset : entry.offset + len(value)] = value

    if changes.size:
        for tag, number in ((0x0100, changes.size.width), (0x0101, changes.size.height)):
            put(first.entries.get(tag), number)
        for tag, number in ((0xA002, changes.size.width), (0xA003, changes.size.height)):
            put(second.entries.get(tag), number)
    if changes.dpi:
        for tag, value in zip((0x011A, 0x011B), changes.dpi, strict=True):
            entry = first.entries.get(tag)
            if entry and entry.type == 5:
                changed[entry.offset : entry.offset + 8] = tags.pack("I", round(value * 10000), 10000)
        put(first.entries.get(0x0128), 2)
    if changes.srgb:
        put(second.entries.get(_COLOUR_SPACE), 1)
    return bytes(changed)


def xmp(packet: bytes, changes: Changes) -> bytes:
    """An XMP packet whose properties of size and resolution, as far as it has them, say what is true now."""
    if changes.size:
        packet = _set(_set(packet, _XMP_WIDTHS, changes.size.width), _XMP_HEIGHTS, changes.size.height)
    if changes.dpi:
        packet = _set(packet, _XMP_RESOLUTIONS, f"{round(changes.dpi[0] * 10000)}/10000")
        packet = _set(packet, _XMP_UNIT, 2)
    return packet


def jpeg_segments(pairs: list[Pair], changes: Changes, *, may_add: bool) -> tuple[list[Pair], list[str]]:
    """The application segments (marker, payload) of a JPEG, brought up to date, and what could not be said.

    Args:
        may_add: whether a JFIF header may be added for the resolution.
    """
    kept: list[Pair] = []
    placed = False
    for marker, payload in pairs:
        if marker == 0xE0 and payload.startswith(b"JFIF\0") and changes.dpi and len(payload) >= 12:
            payload = payload[:7] + b"\1" + _density(changes.dpi) + payload[12:]
            placed = True
        elif marker == 0xE1 and payload.startswith(b"Exif\0"):
            block = exif_block(payload[6:], changes)
            placed = placed or exif.resolution(block) == changes.dpi
            payload = payload[:6] + block
        elif marker == 0xE1 and payload.startswith(previews.XMP):
            payload = previews.XMP + xmp(payload[len(previews.XMP) :], changes)
        elif marker == 0xE2 and payload.startswith(previews.ICC) and changes.srgb:
            continue
        kept.append((marker, payload))
    notes = []
    if changes.dpi and not placed and may_add:
        kept.insert(0, (0xE0, b"JFIF\0\1\1\1" + _density(changes.dpi) + b"\0\0"))
    elif changes.dpi and not placed:
        notes.append("the file has no place for the resolution: it was left out")
    if changes.srgb and changes.icc:
        at = 1 if kept and kept[0][0] == 0xE0 else 0
        kept.insert(at, (0xE2, previews.ICC + b"\1\1" + changes.icc))
    return kept, notes


def _density(dpi: tuple[float, float]) -> bytes:
    return b"".join(min(65535, round(n)).to_bytes(2, "big") for n in dpi)


def _set(packet: bytes, names: bytes, value: object) -> bytes:
    """The packet with the value of some properties replaced, written as attributes or as elements."""
    new = str(value).encode()
    packet = re.sub(rb"((?:%s)=)([\"'])[^\"']*\2" % names, lambda m: m[1] + m[2] + new + m[2], packet)
    return re.sub(rb"<(%s)>[^<]*<" % names, lambda m: b"<" + m[1] + b">" + new + b"<", packet)
