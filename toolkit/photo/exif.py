"""EXIF blocks: orientation, resolution, and the thumbnail, which is renewed without moving anything else."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

from PIL import Image

from toolkit.photo.tags import BadTags, Directory, Tags, reader

ORIENTATION = 0x0112
_COMPRESSION, _THUMBNAIL_AT, _THUMBNAIL_LENGTH, _STRIPS_AT, _STRIPS_LENGTH = 0x0103, 0x0201, 0x0202, 0x0111, 0x0117

_PREVIEW = re.compile(rb"\xff\xd8\xff[\xc0-\xfe]")

Miniature = Callable[[tuple[int, int]], Image.Image]


def without_prefix(block: bytes) -> bytes:
    """The TIFF structure of an EXIF block that may begin with `Exif`."""
    return block[6:] if block.startswith(b"Exif\x00") else block


def orientation(block: bytes | None) -> int | None:
    """The value 1 to 8 of the orientation tag, or None where there is none that can be read."""
    first = _first(block)
    if first is None:
        return None
    tags, directory = first
    value = tags.number(directory.entries.get(ORIENTATION))
    return value if 1 <= value <= 8 else None


def resolution(block: bytes | None) -> tuple[float, float] | None:
    """Pixels per inch in x and y, or None."""
    first = _first(block)
    if first is None:
        return None
    tags, directory = first
    x = tags.fraction(directory.entries.get(0x011A))
    y = tags.fraction(directory.entries.get(0x011B))
    unit = {2: 1.0, 3: 2.54}.get(tags.number(directory.entries.get(0x0128), 2))
    return (x * unit, (y or x) * unit) if x and unit else None


def only_orientation(value: int) -> bytes:
    """The smallest EXIF block that says nothing but the orientation."""
    head = b"II*\x00\x08\x00\x00\x00\x01\x00"
    return head + ORIENTATION.to_bytes(2, "little") + b"\x03\x00\x01\x00\x00\x00" + bytes([value, 0, 0, 0]) + bytes(4)


def renew_thumbnail(block: bytes, miniature: Miniature) -> tuple[bytes, str | None]:
    """The block with its thumbnail renewed (see `_renewed`), and the sentence about it and about further previews."""
    new, said = _renewed(block, miniature)
    if _further_preview(new, block):
        more = "the maker notes hold a preview of the old picture, which is kept so that they stay readable"
        said = f"{said}; {more}" if said else more
    return new, said


def _further_preview(new: bytes, old: bytes) -> bool:
    """True when a JPEG start that was in the old block is still there with the same bytes behind it."""
    return any(new[m.start() : m.start() + 1024] == old[m.start() : m.start() + 1024] for m in _PREVIEW.finditer(old))


def _renewed(block: bytes, miniature: Miniature) -> tuple[bytes, str | None]:
    """The block with its thumbnail drawn again, or taken out where that does not fit, and the sentence about it.

    Nothing else moves: the new thumbnail lies where the old one lay, so that maker notes keep working.
    `miniature(size)` gives the edited picture in that size (RGB, stored orientation).
    """
    first = _first(block)
    if first is None or not first[1].next:
        return block, None
    tags, directory = first
    changed = bytearray(block)
    try:
        second = tags.directory(directory.next)
    except BadTags:
        return block, None
    start = tags.number(second.entries.get(_THUMBNAIL_AT))
    length_entry = second.entries.get(_THUMBNAIL_LENGTH)
    length = tags.number(length_entry)
    old = block[start : start + length]
    if length_entry and start and old[:2] == b"\xff\xd8" and len(old) == length:
        new = _redrawn(old, miniature)
        if new is not None:
            changed[start : start + length] = new + bytes(length - len(new))
            code = "H" if length_entry.type == 3 else "I"
            value = tags.pack(code, len(new))
            changed[length_entry.offset : length_entry.offset + len(value)] = value
            return bytes(changed), "the thumbnail in the EXIF data was drawn again from the edited picture"
        changed[start : start + length] = bytes(length)
    elif _STRIPS_AT in second.entries:
        starts = tags.numbers(second.entries[_STRIPS_AT])
        lengths = tags.numbers(second.entries.get(_STRIPS_LENGTH))
        for start, length in zip(starts, lengths, strict=False):
            if second.next_at < start <= start + length <= len(block):
                changed[start : start + length] = bytes(length)
    elif start == 0:
        return block, None
    changed[directory.next_at : directory.next_at + 4] = bytes(4)
    return bytes(changed), "the thumbnail in the EXIF data showed the old picture and was taken out"


def fitted(picture: tuple[int, int], frame: tuple[int, int]) -> tuple[int, int]:
    """The largest size of the picture's shape inside `frame`; the frame itself where the two nearly agree."""
    factor = min(frame[0] / picture[0], frame[1] / picture[1])
    size = max(1, round(picture[0] * factor)), max(1, round(picture[1] * factor))
    return frame if abs(size[0] - frame[0]) <= 2 and abs(size[1] - frame[1]) <= 2 else size


def _redrawn(old: bytes, miniature: Miniature) -> bytes | None:
    from PIL import JpegImagePlugin

    try:
        size = JpegImagePlugin.JpegImageFile(io.BytesIO(old)).size
    except (SyntaxError, OSError, ValueError):
        return None
    if not 8 <= min(size) <= max(size) <= 1024:
        return None
    small = miniature(size)
    for quality in (90, 80, 65, 50, 35):
        stream = io.BytesIO()
        small.save(stream, "JPEG", quality=quality, subsampling=2)
        if stream.tell() <= len(old):
            return stream.getvalue()
    return None


def _first(block: bytes | None) -> tuple[Tags, Directory] | None:
    if not block:
        return None
    try:
        tags = Tags(reader(block))
        return tags, tags.directory(tags.first)
    except BadTags:
        return None
