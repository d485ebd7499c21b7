"""The strips and tiles of TIFF files: between compressed bytes and samples, one segment or a few at a time.

TIFF 6.0, sections 8 to 15. LZW and PackBits go through libtiff, by way of Pillow, as little grey pictures.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, TiffImagePlugin

from toolkit.geometry import Box, Size
from toolkit.photo.tags import BadTags, Tags, reader

NONE, LZW, DEFLATE, OLD_DEFLATE, PACKBITS = 1, 5, 8, 32946, 32773
NAMES = {NONE: "none", LZW: "LZW", DEFLATE: "deflate", OLD_DEFLATE: "deflate", PACKBITS: "PackBits"}
_BATCH = 1 << 22

Array = npt.NDArray[Any]


class _Unlimited(TiffImagePlugin.TiffImageFile):
    """Without Pillow's limit on the number of pixels; the photo's own has been checked before."""

    def load_prepare(self) -> None:
        self.im = Image.new(self.mode, self.size).im
        super().load_prepare()


@dataclass(frozen=True)
class Layout:
    """How samples lie in a file: `block` is the size of a tile, or of a strip (full width)."""

    size: Size
    block: Size
    tiled: bool
    samples: int
    bits: int
    planar: bool
    compression: int
    predictor: int
    order: str

    @property
    def across(self) -> int:
        """Segments side by side."""
        return -(-self.size.width // self.block.width)

    @property
    def down(self) -> int:
        """Segments one below the other."""
        return -(-self.size.height // self.block.height)

    @property
    def count(self) -> int:
        """All segments, of all planes."""
        return self.across * self.down * (self.samples if self.planar else 1)

    def place(self, index: int) -> tuple[Box, slice]:
        """The part of the picture a segment covers (without a tile's padding), and its samples."""
        plane, inside = divmod(index, self.across * self.down)
        row, column = divmod(inside, self.across)
        box = Box(column * self.block.width, row * self.block.height, 0, 0)
        right, bottom = box.left + self.block.width, box.top + self.block.height
        box = Box(box.left, box.top, min(right, self.size.width), min(bottom, self.size.height))
        return box, slice(plane, plane + 1) if self.planar else slice(0, self.samples)

    def rows(self, index: int) -> int:
        """Stored rows of a segment: a tile is always whole, the last strip may be shorter."""
        return self.block.height if self.tiled else self.place(index)[0].height

    @property
    def row_bytes(self) -> int:
        """Bytes in a segment's row."""
        return (self.block.width * (1 if self.planar else self.samples) * self.bits + 7) // 8

    def touched_by(self, box: Box) -> list[int]:
        """The segments that share pixels with `box`."""
        columns = range(box.left // self.block.width, -(-box.right // self.block.width))
        rows = range(box.top // self.block.height, -(-box.bottom // self.block.height))
        planes = range(self.samples if self.planar else 1)
        return [(p * self.down + r) * self.across + c for p in planes for r in rows for c in columns]

    def batches(self) -> Iterator[range]:
        """Runs of segments of equal height (the last of a run may be lower) and moderate size."""
        each = max(1, _BATCH // max(1, self.block.height * self.row_bytes))
        plane = self.across * self.down
        for start in range(0, self.count, plane):
            for first in range(start, start + plane, each):
                yield range(first, min(first + each, start + plane))


def decoded(layout: Layout, indices: Sequence[int], segments: Sequence[bytes]) -> Iterator[tuple[int, Array]]:
    """The samples (rows, columns, samples) of some segments, each without padding.

    Raises:
        ValueError, OSError, zlib.error: when the bytes are damaged or too few.
    """
    heights = [layout.rows(i) for i in indices]
    if layout.compression in (LZW, PACKBITS):
        size = Size(layout.row_bytes, sum(heights))
        fields = {258: (8,), 259: (layout.compression,), 262: (1,), 277: (1,), 278: (heights[0],)}
        rows = np.asarray(through_libtiff(size, fields, segments))
        raw = np.split(rows, np.cumsum(heights)[:-1])
    else:
        raw = []
        for height, data in zip(heights, segments, strict=True):
            wanted = height * layout.row_bytes
            if layout.compression != NONE:
                data = zlib.decompressobj().decompress(data, wanted)
            if len(data) < wanted:
                raise ValueError(f"a segment has {len(data)} of {wanted} bytes")
            raw.append(np.frombuffer(data, np.uint8, wanted).reshape(height, -1))
    for index, part in zip(indices, raw, strict=True):
        box, _ = layout.place(index)
        yield index, _unpacked(layout, part)[: box.height, : box.width]


def encoded(layout: Layout, index: int, samples: Array) -> bytes:
    """The bytes of one segment for its samples (rows, columns, samples) without padding."""
    height, width = layout.rows(index), layout.block.width
    if samples.shape[:2] != (height, width):
        samples = np.pad(samples, ((0, height - samples.shape[0]), (0, width - samples.shape[1]), (0, 0)), "edge")
    rows = _packed(layout, samples)
    data = rows.tobytes()
    if layout.compression in (DEFLATE, OLD_DEFLATE):
        return zlib.compress(data, 6)
    if layout.compression == NONE:
        return data
    memory = io.BytesIO()
    name = "tiff_lzw" if layout.compression == LZW else "packbits"
    image = Image.frombuffer("L", (rows.shape[1], height), data, "raw", "L", 0, 1)
    image.save(memory, "TIFF", compression=name, tiffinfo={278: height})
    tags = Tags(reader(memory.getvalue()))
    entries = tags.directory(tags.first).entries
    starts, lengths = tags.numbers(entries.get(273)), tags.numbers(entries.get(279))
    if len(starts) != 1:
        raise BadTags("libtiff wrote more than one strip")
    return memory.getvalue()[starts[0] : starts[0] + lengths[0]]


def through_libtiff(
    size: Size, fields: Mapping[int, tuple[int, ...]], segments: Sequence[bytes], tables: bytes = b"", order: str = "<"
) -> Image.Image:
    """Decode segments as a picture of their own that has these tags (LONG or SHORT) and no others.

    `fields` without tag 322 (tiles) need tag 278; `tables` are the shared tables of JPEG-compressed segments.
    """
    tiled = 322 in fields
    start = 8
    starts = []
    for data in segments:
        starts.append(start)
        start += len(data)
    every = {256: (size.width,), 257: (size.height,), **fields}
    every[324 if tiled else 273] = tuple(starts)
    every[325 if tiled else 279] = tuple(map(len, segments))
    values = {tag: struct.pack(f"{order}{len(v)}I", *v) for tag, v in every.items()}
    shorts = {258, 259, 262, 277, 284, 530}
    values |= {tag: struct.pack(f"{order}{len(v)}H", *v) for tag, v in every.items() if tag in shorts}
    if tables:
        values[347] = tables
    table, extra = [], b""
    extra_at = start + 2 + 12 * len(values) + 4
    for tag, value in sorted(values.items()):
        kind = 3 if tag in shorts else 7 if tag == 347 else 4
        count = len(value) // (2 if kind == 3 else 1 if kind == 7 else 4)
        if len(value) > 4:
            where = struct.pack(order + "I", extra_at + len(extra))
            extra += value
        else:
            where = value.ljust(4, b"\0")
        table.append(struct.pack(order + "HHI", tag, kind, count) + where)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    directory = struct.pack(order + "H", len(table)) + b"".join(table) + bytes(4)
    image = _Unlimited(io.BytesIO(b"".join((head, *segments, directory, extra))))
    image.load()
    return image


def _unpacked(layout: Layout, rows: npt.NDArray[np.uint8]) -> Array:
    samples = 1 if layout.planar else layout.samples
    if layout.bits < 8:
        shape = (len(rows), -1, layout.bits)
        wide = np.unpackbits(rows, axis=1).reshape(shape)
        weights = (1 << np.arange(layout.bits - 1, -1, -1)).astype(np.uint8)
        result: Array = (wide * weights).sum(axis=2, dtype=np.uint8)[:, : layout.block.width, None]
        return result
    if layout.bits == 16:
        values: Array = np.ascontiguousarray(rows).view(layout.order + "u2").astype(np.uint16)
    else:
        values = rows
    values = values.reshape(len(rows), layout.block.width, samples)
    if layout.predictor == 2:
        summed: Array = np.cumsum(values, axis=1, dtype=values.dtype)
        return summed
    return np.asarray(values)


def _packed(layout: Layout, samples: Array) -> npt.NDArray[np.uint8]:
    if layout.bits < 8:
        each = np.unpackbits(samples[..., :1].astype(np.uint8), axis=2)[..., 8 - layout.bits :]
        return np.packbits(each.reshape(len(samples), -1), axis=1)
    if layout.predictor == 2:
        samples = np.diff(samples, axis=1, prepend=samples.dtype.type(0))
    if layout.bits == 16:
        samples = np.ascontiguousarray(samples.astype(layout.order + "u2")).view(np.uint8)
    return np.ascontiguousarray(samples).reshape(len(samples), -1)
