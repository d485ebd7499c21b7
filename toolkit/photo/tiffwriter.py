"""Writing TIFF structure: directories behind everything else, so that nothing that is there has to move."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from typing import BinaryIO

from toolkit.errors import OutputError
from toolkit.geometry import Size
from toolkit.photo.picture import Metadata
from toolkit.photo.raster import Raster
from toolkit.photo.tags import WIDTHS, BadTags, Directory, Entry, Tags, reader
from toolkit.photo.tiffcodec import DEFLATE, Layout, encoded

_CODES = {1: "B", 3: "H", 4: "I", 16: "Q"}
# what describes the pixels of the old picture or how they were compressed
PICTURE_TAGS = {
    254, 255, 256, 257, 258, 259, 262, 263, 264, 265, 266, 273, 277, 278, 279, 280, 281, 284, 288, 289, 290, 291, 292,
    293, 301, 317, 318, 319, 320, 321, 322, 323, 324, 325, 326, 327, 328, 330, 338, 339, 340, 341, 342, 347, 512, 513,
    514, 515, 517, 518, 519, 520, 521, 529, 530, 531, 532,
}  # fmt: skip
_DESCRIPTIVE = (269, 270, 271, 272, 274, 282, 283, 285, 296, 305, 306, 315, 316, 33432, 34665, 34853)
_POINTERS = {34665, 34853, 40965}

Value = tuple[int, bytes]  # type and value bytes
_LIMIT = (1 << 32) - 1


def value(tags: Tags, kind: int, *numbers: int) -> Value:
    """A tag's value of integers of a TIFF type."""
    return kind, tags.pack(_CODES[kind], *numbers)


def append_directory(
    out: BinaryIO, tags: Tags, entries: dict[int, Entry], changes: dict[int, Value | None], following: int = 0
) -> None:
    """Write a directory at the end of `out` and make it the first one.

    Args:
        entries: tags whose values stay where they are.
        changes: new values; None leaves a tag out.
        following: where the next directory lies, 0 for none.

    Raises:
        OutputError: when a classic TIFF file would exceed 4 GB.
    """
    merged: dict[int, Entry | Value] = {**entries, **{tag: v for tag, v in changes.items() if v is not None}}
    for tag in [t for t, v in changes.items() if v is None]:
        merged.pop(tag, None)
    inline = 8 if tags.big else 4
    places: dict[int, bytes] = {}
    for tag, item in merged.items():
        if isinstance(item, Entry):
            places[tag] = item.data.ljust(inline, b"\0") if len(item.data) <= inline else _word(tags, item.offset)
        else:
            data = item[1]
            places[tag] = data.ljust(inline, b"\0") if len(data) <= inline else _word(tags, append(out, tags, data))
    table = []
    for tag in sorted(merged):
        item = merged[tag]
        kind, data = (item.type, item.data) if isinstance(item, Entry) else item
        table.append(tags.pack("H", tag, kind) + _word(tags, len(data) // WIDTHS[kind]) + places[tag])
    start = append(
        out, tags, tags.pack("Q" if tags.big else "H", len(table)) + b"".join(table) + _word(tags, following)
    )
    out.seek(tags.first_at)
    out.write(_word(tags, start))


def append(out: BinaryIO, tags: Tags, data: bytes) -> int:
    """Write `data` at the end of `out`, at an even place; where it begins."""
    at = out.seek(0, io.SEEK_END)
    if at % 2:
        out.write(b"\0")
        at += 1
    if not tags.big and at + len(data) > _LIMIT:
        raise OutputError("the picture would be larger than 4 GB, which this kind of TIFF cannot hold")
    out.write(data)
    return at


class Gaps:
    """Room left by segments that are written again; new ones go there first, then to the end of the file."""

    def __init__(self, out: BinaryIO, tags: Tags) -> None:
        self._out = out
        self._tags = tags
        self._free: list[tuple[int, int]] = []
        self._merged = False

    def free(self, start: int, length: int) -> None:
        """Give up some bytes."""
        self._free.append((start, start + length))

    def put(self, data: bytes) -> int:
        """Write `data` where it fits; where it begins."""
        if not self._merged:
            self._merge()
        for place, (start, end) in enumerate(self._free):
            last = end == self._out.seek(0, io.SEEK_END)
            if start + len(data) <= end or last:
                self._out.seek(start)
                self._out.write(data)
                self._free[place] = (start + len(data), max(end, start + len(data)))
                return start
        return append(self._out, self._tags, data)

    def close(self) -> None:
        """Set what is left over to zero."""
        for start, end in self._free:
            erase(self._out, start, end - start)

    def _merge(self) -> None:
        merged: list[tuple[int, int]] = []
        for start, end in sorted(self._free):
            if merged and start <= merged[-1][1]:
                merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
            else:
                merged.append((start, end))
        self._free, self._merged = merged, True


def erase(out: BinaryIO, start: int, length: int) -> None:
    """Set bytes to zero."""
    out.seek(start)
    while length > 0:
        out.write(bytes(min(length, 1 << 20)))
        length -= 1 << 20


def append_picture(
    out: BinaryIO,
    tags: Tags,
    raster: Raster,
    *,
    premultiplied: bool = False,
    compression: int = DEFLATE,
    predictor: int = 2,
) -> dict[int, Value | None]:
    """Write a plain raster as strips at the end of `out`; the tags that describe it, None for those to leave out."""
    size, bands = raster.size, raster.bands
    row = max(1, size.width * bands * raster.depth // 8)
    rows = max(1, min(size.height, (1 << 18) // row))
    layout = Layout(size, Size(size.width, rows), False, bands, raster.depth, False, compression, predictor, tags.order)
    starts, lengths = [], []
    for index in range(layout.count):
        box, _ = layout.place(index)
        data = encoded(layout, index, raster.read(box))
        starts.append(append(out, tags, data))
        lengths.append(len(data))
    word = 16 if tags.big else 4
    changes: dict[int, Value | None] = dict.fromkeys(PICTURE_TAGS)
    changes |= {
        256: value(tags, 4, size.width), 257: value(tags, 4, size.height),
        258: value(tags, 3, *[raster.depth] * bands), 259: value(tags, 3, compression),
        262: value(tags, 3, 1 if bands < 3 else 2), 273: value(tags, word, *starts), 277: value(tags, 3, bands),
        278: value(tags, 4, rows), 279: value(tags, word, *lengths), 284: value(tags, 3, 1),
    }  # fmt: skip
    if predictor == 2:
        changes[317] = value(tags, 3, 2)
    if bands in (2, 4):
        changes[338] = value(tags, 3, 1 if premultiplied else 2)
    return changes


def write_tiff(
    raster: Raster,
    data: Metadata,
    out: BinaryIO,
    *,
    compression: int = DEFLATE,
    more: Mapping[int, Value | None] | None = None,
) -> list[str]:
    """Write a plain raster as a new TIFF file with its metadata; sentences about what was left out.

    The EXIF block is a TIFF structure itself: it becomes the start of the file, so that nothing in it has to move.

    Args:
        more: values of further tags; None leaves a tag of the EXIF block out.
    """
    notes: list[str] = []
    entries: dict[int, Entry] = {}
    head = struct.pack("<2sHI", b"II", 42, 8)
    tags = Tags(reader(head + bytes(8)))
    if data.exif:
        try:
            read = Tags(reader(data.exif))
            first = read.directory(read.first)
            tags, head = read, data.exif
            entries = {t: e for t, e in first.entries.items() if t not in PICTURE_TAGS and t not in (700, 34675)}
            if first.next:
                notes.append("the thumbnail in the EXIF data was left out")
                head = _without_thumbnail(read, first, data.exif)
        except BadTags:
            notes.append("the EXIF data is damaged and was left out")
    out.write(head)
    changes = append_picture(out, tags, raster, compression=compression)
    changes[274] = value(tags, 3, data.orientation)
    if data.dpi:
        changes |= resolution(tags, data.dpi)
    if data.icc:
        changes[34675] = (7, data.icc)
    if data.xmp:
        changes[700] = (1, data.xmp)
    append_directory(out, tags, entries, changes | dict(more or {}))
    return notes


def resolution(tags: Tags, dpi: tuple[float, float]) -> dict[int, Value | None]:
    """The tags of a resolution in pixels per inch."""
    x, y = (tags.pack("I", min(_LIMIT, round(n * 10000)), 10000) for n in dpi)
    return {282: (5, x), 283: (5, y), 296: value(tags, 3, 2)}


def compact(tags: Tags, directory: Directory, *, every: bool = False) -> bytes | None:
    """The descriptive tags of a TIFF file as an EXIF block of its own, or None where there is nothing to tell.

    With `every`, all tags that are not about the picture's pixels.
    """
    names = directory.entries.keys() - PICTURE_TAGS if every else set(_DESCRIPTIVE)
    chosen = {tag: entry for tag, entry in directory.entries.items() if tag in names}
    if not set(chosen) - {274, 282, 283, 296}:
        return None
    head = (b"II" if tags.order == "<" else b"MM") + tags.pack("H", 42) + tags.pack("I", 8)
    return head + _laid_out(tags, chosen, 8, 0)


def _laid_out(tags: Tags, entries: dict[int, Entry], at: int, level: int) -> bytes:
    kept = {
        tag: e for tag, e in entries.items() if e.type in WIDTHS and (e.type not in (16, 17, 18) or tag in _POINTERS)
    }
    table, extra = b"", b""
    extra_at = at + 2 + 12 * len(kept) + 4
    for tag, entry in sorted(kept.items()):
        kind, data = entry.type, entry.data
        if tag in _POINTERS:
            kind, sub = 4, b""
            if level < 2:
                try:
                    entries_below = tags.directory(tags.number(entry)).entries
                except BadTags:
                    entries_below = {}
                if entries_below:
                    sub = _laid_out(tags, entries_below, extra_at + len(extra), level + 1)
            data = tags.pack("I", extra_at + len(extra) if sub else 0)
            extra += sub
            place = data
        elif len(data) > 4:
            place = tags.pack("I", extra_at + len(extra))
            extra += data + bytes(len(data) % 2)
        else:
            place = data.ljust(4, b"\0")
        table += tags.pack("H", tag, kind) + tags.pack("I", len(data) // WIDTHS[kind]) + place
    return tags.pack("H", len(kept)) + table + bytes(4) + extra


def _word(tags: Tags, number: int) -> bytes:
    return tags.pack("Q" if tags.big else "I", number)


def _without_thumbnail(tags: Tags, first: Directory, block: bytes) -> bytes:
    """The block with the thumbnail's bytes set to zero; its directory is no longer pointed at."""
    try:
        second = tags.directory(first.next)
    except BadTags:
        return block
    start, length = (tags.number(second.entries.get(tag)) for tag in (513, 514))
    if block[start : start + 2] != b"\xff\xd8":
        return block
    return block[:start] + bytes(len(block[start : start + length])) + block[start + length :]
