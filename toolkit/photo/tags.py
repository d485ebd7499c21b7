"""TIFF structure: the tags of TIFF files and of EXIF blocks, read where they lie and changed in place.

TIFF 6.0 (Aldus, 1992), BigTIFF (AWare Systems, 2007), EXIF 2.32 (CIPA DC-008).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

WIDTHS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_LARGEST_VALUE = 1 << 28

Read = Callable[[int, int], bytes]


class BadTags(ValueError):
    """The structure is broken; the caller turns this into a sentence about the photo."""


@dataclass(frozen=True)
class Entry:
    """One tag: `offset` is where its value bytes lie, `data` the value bytes as stored."""

    tag: int
    type: int
    count: int
    data: bytes
    offset: int


@dataclass(frozen=True)
class Directory:
    """One IFD: `next_at` is where the pointer to the next directory is stored, `next` its value (0 = none)."""

    offset: int
    entries: dict[int, Entry]
    next_at: int
    next: int


class Tags:
    """A reader of TIFF structure over any `read(offset, length)`."""

    def __init__(self, read: Read) -> None:
        head = read(0, 16)
        order = {b"II": "<", b"MM": ">"}.get(head[:2])
        if order is None or len(head) < 8:
            raise BadTags("no TIFF header")
        self.order = order
        magic = struct.unpack(order + "H", head[2:4])[0]
        if magic not in (42, 43):
            raise BadTags(f"TIFF version {magic}")
        self.big = magic == 43
        if self.big and (len(head) < 16 or head[4:8] != struct.pack(order + "HH", 8, 0)):
            raise BadTags("BigTIFF header")
        self.first_at = 8 if self.big else 4
        self.word = "Q" if self.big else "I"
        self._read = read
        self.first = self._unpack(self.word, head[self.first_at :])

    def _unpack(self, code: str, data: bytes) -> int:
        size = struct.calcsize("=" + code)
        if len(data) < size:
            raise BadTags("ends too early")
        return int(struct.unpack(self.order + code, data[:size])[0])

    def pack(self, code: str, *values: int) -> bytes:
        """`values` as bytes of the struct `code` in this structure's byte order."""
        return struct.pack(f"{self.order}{len(values)}{code}", *values)

    def directory(self, offset: int) -> Directory:
        """The directory at `offset`; values that lie outside are left out, a broken directory raises `BadTags`."""
        count_code, entry_size = ("Q", 20) if self.big else ("H", 12)
        inline = 8 if self.big else 4
        count_size = struct.calcsize("=" + count_code)
        count = self._unpack(count_code, self._read(offset, count_size))
        if not 0 < count <= 4096:
            raise BadTags(f"a directory of {count} tags")
        start = offset + count_size
        table = self._read(start, count * entry_size)
        if len(table) < count * entry_size:
            raise BadTags("a directory is cut off")
        entries: dict[int, Entry] = {}
        for index in range(count):
            at = index * entry_size
            tag = self._unpack("H", table[at:])
            kind = self._unpack("H", table[at + 2 :])
            number = self._unpack(self.word, table[at + 4 :])
            width = WIDTHS.get(kind)
            if width is None or number * width > _LARGEST_VALUE:
                continue
            length = number * width
            where = start + at + entry_size - inline
            if length > inline:
                where = self._unpack(self.word, table[at + entry_size - inline :])
            data = self._read(where, length)
            if len(data) == length and tag not in entries:
                entries[tag] = Entry(tag, kind, number, data, where)
        next_at = start + count * entry_size
        following = self._read(next_at, inline)
        return Directory(
            offset, entries, next_at, self._unpack(self.word, following) if len(following) == inline else 0
        )

    def numbers(self, entry: Entry | None) -> tuple[int, ...]:
        """The values of an integer tag; empty for none or another type."""
        if entry is None or entry.type not in _INTEGERS:
            return ()
        return struct.unpack(f"{self.order}{entry.count}{_INTEGERS[entry.type]}", entry.data)

    def number(self, entry: Entry | None, default: int = 0) -> int:
        """The first value of an integer tag."""
        return (*self.numbers(entry), default)[0]

    def fraction(self, entry: Entry | None) -> float | None:
        """The first value of an unsigned rational, or None."""
        if entry is None or entry.type != 5 or entry.count < 1:
            return None
        above, below = struct.unpack(self.order + "II", entry.data[:8])
        return above / below if below else None


def reader(block: bytes | bytearray) -> Read:
    """`read(offset, length)` over bytes in memory."""
    return lambda offset, length: bytes(block[offset : offset + length])
