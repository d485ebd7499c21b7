"""TIFF: a copy of the file in which only the strips or tiles under the windows are written again.

All tags, their order and their places stay; nothing outside the touched segments is even decoded for writing.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from toolkit.errors import PhotoError
from toolkit.geometry import Size
from toolkit.photo import previews, restate
from toolkit.photo.picture import Edited, Metadata, PictureFile, sentences
from toolkit.photo.raster import Array, ArrayRaster, Direct, ImageRaster, Palette, Raster, Space
from toolkit.photo.source import Source
from toolkit.photo.tags import BadTags, Entry, Read, Tags
from toolkit.photo.tiffcodec import DEFLATE, NAMES, NONE, Layout, decoded, encoded, through_libtiff
from toolkit.photo.tiffkinds import BY_LIBTIFF, further_pictures, refuse
from toolkit.photo.tiffwriter import (
    Gaps,
    Value,
    append_directory,
    append_picture,
    compact,
    erase,
    resolution,
    value,
    write_tiff,
)

_PIECE = 1 << 18
_LAYERS, _PHOTOSHOP, _XMP, _SUB, _ICC = 37724, 34377, 700, 330, 34675


class TiffFile(PictureFile):
    """A TIFF or BigTIFF file with one picture: grey, RGB or palette, 1 to 16 bits, with or without alpha."""

    format = "TIFF"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        name = source.name
        with source.open() as stream:
            read = _reader(stream, source.length)
            try:
                self.tags = Tags(read)
                if self.tags.first >= source.length:
                    raise PhotoError(
                        f"{name}: is truncated; its directory should lie at byte {self.tags.first}, "
                        f"the file ends after {source.length}"
                    )
                self._read(read)
            except BadTags as error:
                raise PhotoError(f"{name}: the TIFF structure is damaged ({error})") from error

    def _read(self, read: Read) -> None:
        tags, name = self.tags, self.source.name
        self.first = tags.directory(tags.first)
        if 50706 in self.first.entries or read(8, 2) == b"CR":
            kind = "DNG" if 50706 in self.first.entries else "Canon CR2"
            raise PhotoError(f"{name}: is a camera RAW file ({kind}); develop it to TIFF or JPEG first")
        self._previews = further_pictures(tags, self.first, name)
        number = self._number
        self.size = Size(number(256), number(257))
        if min(self.size) <= 0:
            raise PhotoError(f"{name}: the TIFF structure is damaged (a picture of {self.size} pixels)")
        bits = set(tags.numbers(self.first.entries.get(258))) or {1}
        samples, photometric, compression = number(277, 1), number(262, -1), number(259, 1)
        refuse(tags, self.first, name)
        self.photometric, depth = photometric, bits.pop()
        tiled = 322 in self.first.entries
        block = (
            Size(number(322), number(323))
            if tiled
            else Size(self.size.width, min(number(278, 1 << 32), self.size.height))
        )
        if min(block) <= 0 or (tiled and block.area > 1 << 26):
            raise PhotoError(f"{name}: the TIFF structure is damaged (segments of {block} pixels)")
        self.layout = Layout(
            self.size, block, tiled, samples, depth, number(284, 1) == 2, compression, number(317, 1), tags.order
        )
        self.starts = tags.numbers(self.first.entries.get(324 if tiled else 273))
        self.lengths = tags.numbers(self.first.entries.get(325 if tiled else 279))
        self._by_libtiff = compression in BY_LIBTIFF or number(266, 1) == 2
        self._check_segments(depth, samples)
        self.space = self._space(depth, samples)
        words = "palette" if isinstance(self.space, Palette) else "RGB" if self.space.channels == 3 else "grey"
        coding = BY_LIBTIFF.get(compression) or NAMES[compression]
        self.mode = (
            f"{depth}-bit {words}{' with alpha' if self.space.alpha else ''} "
            f"{'Big' if tags.big else ''}TIFF, {'no' if compression == 1 else coding} compression"
        )
        self._read_metadata()

    def _number(self, tag: int, default: int = 0) -> int:
        return self.tags.number(self.first.entries.get(tag), default)

    def _check_segments(self, depth: int, samples: int) -> None:
        name, layout = self.source.name, self.layout
        if self._by_libtiff and (depth == 16 or samples not in (1, 3) or layout.planar):
            raise PhotoError(
                f"{name}: is a TIFF of a rare kind ({depth} bits, {samples} samples, "
                f"{BY_LIBTIFF.get(layout.compression, 'bits in reverse order')}); save it with LZW or deflate first"
            )
        if len(self.starts) < layout.count or (len(self.lengths) < layout.count and layout.count > 1):
            raise PhotoError(f"{name}: the TIFF structure is damaged ({len(self.starts)} of {layout.count} segments)")
        if not self.lengths:
            self.lengths = (self.source.length - self.starts[0],)
        if (
            layout.compression == NONE
            and not layout.tiled
            and not self._by_libtiff
            and not self._shared(range(layout.count))
        ):
            self._split_into_rows()
            layout = self.layout
        count, length = layout.count, self.source.length
        short = sum(
            start + size > length for start, size in zip(self.starts[:count], self.lengths[:count], strict=True)
        )
        if short:
            raise PhotoError(
                f"{name}: is truncated; {short} of {count} parts of the picture lie beyond its end ({length} bytes)"
            )

    def _split_into_rows(self) -> None:
        """Uncompressed strips can be read and written in any number of rows: take smaller ones."""
        layout = self.layout
        height = layout.block.height
        most = max(1, min(height, _PIECE // max(1, layout.row_bytes)))
        # several strips must each come out even
        rows = most if layout.down == 1 else next(n for n in range(most, 0, -1) if height % n == 0)
        if rows >= height:
            return
        self.layout = small = replace(layout, block=Size(layout.block.width, rows))
        each = height // rows if layout.down > 1 else small.down
        self.starts = tuple(
            self.starts[(i // small.down) * layout.down + (i % small.down) // each]
            + ((i % small.down) % each) * rows * layout.row_bytes
            for i in range(small.count)
        )
        self.lengths = tuple(small.rows(i) * small.row_bytes for i in range(small.count))

    def _space(self, depth: int, samples: int) -> Space:
        tags = self.tags
        if self.photometric == 3:
            colours = np.array(tags.numbers(self.first.entries.get(320)), np.uint16)
            if len(colours) != 3 << depth:
                raise PhotoError(f"{self.source.name}: has no usable palette; the file is damaged")
            return Palette((colours.reshape(3, -1).T >> 8).astype(np.uint8))
        channels = 3 if self.photometric in (2, 6) else 1
        kinds = (*tags.numbers(self.first.entries.get(338)), *([0] * samples))[: samples - channels]
        band = next((channels + i for i, kind in enumerate(kinds) if kind in (1, 2)), None)
        hidden = len(kinds) - (band is not None)
        if hidden:
            self.notes.append(
                f"{hidden} extra channel{'s' if hidden > 1 else ''} (saved selections) are kept as they are"
            )
        step = 255 // ((1 << depth) - 1) if depth < 8 else 1
        premultiplied = band is not None and kinds[band - channels] == 1
        plain = band in (None, channels)
        return Direct(
            channels, band is not None, 16 if depth == 16 else 8, step, premultiplied, None if plain else band
        )

    def _read_metadata(self) -> None:
        data, tags, entries = self.metadata, self.tags, self.first.entries
        turned = self._number(274, 1)
        data.orientation = turned if 1 <= turned <= 8 else 1
        data.icc = entries[34675].data if 34675 in entries else None
        data.xmp = entries[_XMP].data if _XMP in entries else None
        x, y = tags.fraction(entries.get(282)), tags.fraction(entries.get(283))
        unit = {2: 1.0, 3: 2.54}.get(self._number(296, 2))
        data.dpi = (x * unit, (y or x) * unit) if x and unit else None
        data.exif = compact(tags, self.first)

    def decode(self) -> Raster:
        layout = self.layout
        with self.source.open() as stream, sentences(self.source.name):
            if self._by_libtiff:
                return self._decode_whole(stream)
            dtype = np.uint16 if layout.bits == 16 else np.uint8
            whole = np.empty((self.size.height, self.size.width, layout.samples), dtype)
            for indices in layout.batches():
                parts = []
                for index in indices:
                    stream.seek(self.starts[index])
                    parts.append(stream.read(self.lengths[index]))
                for index, samples in decoded(layout, indices, parts):
                    box, bands = layout.place(index)
                    whole[(*box.slices, bands)] = self._normal(samples)
            return ArrayRaster(whole)

    def _decode_whole(self, stream: BinaryIO) -> Raster:
        layout = self.layout
        parts = []
        for start, length in zip(self.starts[: layout.count], self.lengths[: layout.count], strict=True):
            stream.seek(start)
            parts.append(stream.read(length))
        fields: dict[int, tuple[int, ...]] = {
            258: (layout.bits,) * layout.samples, 259: (layout.compression,), 262: (self.photometric,),
            277: (layout.samples,),
        }  # fmt: skip
        fields |= (
            {322: (layout.block.width,), 323: (layout.block.height,)} if layout.tiled else {278: (layout.block.height,)}
        )
        for tag in (266, 292, 293, 317, 530):
            numbers = self.tags.numbers(self.first.entries.get(tag))
            if numbers:
                fields[tag] = numbers
        tables = self.first.entries[347].data if 347 in self.first.entries else b""
        if self.photometric == 3:
            raise PhotoError(f"{self.source.name}: is a palette TIFF of a rare kind; save it with LZW or deflate first")
        image = through_libtiff(self.size, fields, parts, tables, self.tags.order)
        image.info = {}
        wanted = "1" if layout.bits == 1 else "L" if layout.samples == 1 else "RGB"
        return ImageRaster(image if image.mode == wanted else image.convert(wanted))

    def _normal(self, samples: Array) -> Array:
        """File samples as the raster keeps them: grey with 0 = black, spread over 0 to 255."""
        if self.photometric == 3 or self.photometric == 2:
            return samples
        bits = self.layout.bits
        if self.photometric == 0:
            samples = (
                samples.dtype.type((1 << bits) - 1) - samples if samples.shape[2] == 1 else self._inverted(samples)
            )
        return samples * np.uint8(255 // ((1 << bits) - 1)) if bits < 8 else samples

    def _inverted(self, samples: Array) -> Array:
        samples = samples.copy()
        samples[..., 0] = samples.dtype.type((1 << self.layout.bits) - 1) - samples[..., 0]
        return samples

    def _of_file(self, samples: Array) -> Array:
        """The opposite of `_normal`."""
        if self.photometric == 3 or self.photometric == 2:
            return samples
        bits = self.layout.bits
        samples = samples // np.uint8(255 // ((1 << bits) - 1)) if bits < 8 else samples
        return self._inverted(samples) if self.photometric == 0 else samples

    def rewrite(self, edited: Edited, out: BinaryIO, quality: int | None) -> list[str]:
        notes = ["TIFF is lossless: the quality was not used"] if quality is not None else []
        if edited.changes.size:
            self._anew(edited, out, notes)
            return notes
        changes = self._cleaned(edited.changes, notes)
        with self.source.open() as stream:
            shutil.copyfileobj(stream, out, 1 << 20)
        self._erase_previews(out, notes)
        if edited.promoted or self._by_libtiff:
            changes |= self._whole_again(edited, out, notes)
        else:
            changes |= self._segments_again(edited, out)
        if changes:
            append_directory(out, self.tags, self.first.entries, changes)
        elif self._previews:
            out.seek(self.first.next_at)
            out.write(bytes(8 if self.tags.big else 4))
        return notes

    def _whole_again(self, edited: Edited, out: BinaryIO, notes: list[str]) -> dict[int, Value | None]:
        for start, length in zip(self.starts, self.lengths, strict=False):
            erase(out, start, length)
        if edited.promoted:
            self._say_promoted(edited, notes)
            if self.layout.samples > self.space.bands:
                notes.append("its extra channels could not be carried along")
        compression = self.layout.compression
        if self._by_libtiff:
            notes.append(f"the {BY_LIBTIFF.get(compression, 'reversed')} compression was replaced by lossless deflate")
            compression = DEFLATE
        predictor = self.layout.predictor if compression == self.layout.compression else 2
        return append_picture(out, self.tags, edited.plain(), compression=compression, predictor=predictor)

    def _say_promoted(self, edited: Edited, notes: list[str]) -> None:
        if not edited.gained_only_alpha(self.space):
            notes.append(f"the new pixels do not fit into {self.mode}: the picture was saved as {edited.words}")

    def _anew(self, edited: Edited, out: BinaryIO, notes: list[str]) -> None:
        """Write a picture of another size, with every tag that is not about the old one's pixels."""
        given = edited.changes
        changes = self._cleaned(given, notes)
        if self._previews:
            notes.append("smaller copies of the old picture in the file were left out")
        if edited.promoted:
            self._say_promoted(edited, notes)
        if self.layout.samples > self.space.bands:
            notes.append("its extra channels could not be carried along")
        data = Metadata()
        with self.source.open() as stream:
            tags = Tags(_reader(stream, self.source.length))
            block = compact(tags, tags.directory(tags.first), every=True)
        data.exif = restate.exif_block(block, given) if block else None
        data.orientation, data.dpi = self.metadata.orientation, given.dpi
        data.icc = given.profile(self.metadata.icc)
        coding = DEFLATE if self._by_libtiff else self.layout.compression
        if self._by_libtiff:
            name = BY_LIBTIFF.get(self.layout.compression, "reversed")
            notes.append(f"the {name} compression was replaced by lossless deflate")
        changes.setdefault(_XMP, (1, self.metadata.xmp) if self.metadata.xmp else None)
        notes += write_tiff(edited.plain(), data, out, compression=coding, more=changes)

    def _segments_again(self, edited: Edited, out: BinaryIO) -> dict[int, Value | None]:
        layout = self.layout
        touched = sorted({index for box in edited.touched for index in layout.touched_by(box)})
        starts, lengths = list(self.starts), list(self.lengths)
        gaps = Gaps(out, self.tags)
        shared = self._shared(touched)
        for index in set(touched) - shared:
            if layout.compression != NONE:
                gaps.free(starts[index], lengths[index])
        for index in touched:
            box, bands = layout.place(index)
            # a plane on its own is never inverted: only grey is, and grey planes are the first
            data = encoded(layout, index, self._of_file(edited.raster.read(box))[..., bands])
            if layout.compression == NONE and index not in shared and len(data) <= lengths[index]:
                out.seek(starts[index])
                out.write(data)
            else:
                starts[index], lengths[index] = gaps.put(data), len(data)
        gaps.close()
        changes: dict[int, Value | None] = {}
        word = 16 if self.tags.big else 4
        for tag, old, new in (
            (324 if layout.tiled else 273, self.starts, starts),
            (325 if layout.tiled else 279, self.lengths, lengths),
        ):
            if tuple(new) != tuple(old):
                changes |= self._numbers_again(out, self.first.entries.get(tag), tag, word, new)
        return changes

    def _numbers_again(
        self, out: BinaryIO, entry: Entry | None, tag: int, word: int, new: list[int]
    ) -> dict[int, Value | None]:
        code = {3: "H", 4: "I", 16: "Q"}.get(entry.type) if entry else None
        if entry is None or code is None or (code == "H" and max(new) > 0xFFFF) or len(new) != entry.count:
            return {tag: value(self.tags, word, *new)}
        out.seek(entry.offset)
        out.write(self.tags.pack(code, *new))
        return {}

    def _shared(self, touched: Sequence[int]) -> set[int]:
        """Touched segments whose bytes other segments use too."""
        ranges = sorted((s, s + n, i) for i, (s, n) in enumerate(zip(self.starts, self.lengths, strict=False)))
        found: set[int] = set()
        for (_, end, index), (start, _, other) in pairwise(ranges):
            if start < end:
                found |= {index, other}
        return found & set(touched)

    def _cleaned(self, given: restate.Changes, notes: list[str]) -> dict[int, Value | None]:
        entries = self.first.entries
        changes: dict[int, Value | None] = {}
        if given.dpi:
            changes |= resolution(self.tags, given.dpi)
        if given.srgb:
            changes[_ICC] = (7, given.icc) if given.icc else None
        if _LAYERS in entries:
            changes[_LAYERS] = None
            notes.append("the Photoshop layers belong to the old picture and were left out")
        if _PHOTOSHOP in entries:
            clean = previews.clean_photoshop(entries[_PHOTOSHOP].data)
            if clean is not None:
                changes[_PHOTOSHOP] = (entries[_PHOTOSHOP].type, clean) if clean else None
                notes.append("the thumbnail in the Photoshop data showed the old picture and was taken out")
        if _XMP in entries:
            packet, said = previews.clean_xmp(restate.xmp(entries[_XMP].data, given))
            notes += [said] if said else []
            if packet != entries[_XMP].data:
                changes[_XMP] = (1, packet)
        if _SUB in entries:
            changes[_SUB] = None
        return changes

    def _erase_previews(self, out: BinaryIO, notes: list[str]) -> None:
        for tag in (_LAYERS, _PHOTOSHOP):
            entry = self.first.entries.get(tag)
            gone = entry and (tag == _LAYERS or previews.clean_photoshop(entry.data) is not None)
            if entry and gone and len(entry.data) > 8:
                erase(out, entry.offset, len(entry.data))
        if not self._previews:
            return
        notes.append("smaller copies of the old picture in the file were left out")
        mine = {(s, n) for s, n in zip(self.starts, self.lengths, strict=False)}
        for further in self._previews:
            for tag, sizes in ((273, 279), (324, 325), (513, 514)):
                starts = self.tags.numbers(further.entries.get(tag))
                lengths = self.tags.numbers(further.entries.get(sizes))
                for start, length in zip(starts, lengths, strict=False):
                    apart = all(start + length <= s or s + n <= start for s, n in mine)
                    if apart and start + length <= self.source.length:
                        erase(out, start, length)


def _reader(stream: BinaryIO, end: int) -> Read:
    """`read(offset, length)` over an open file of `end` bytes."""

    def read(offset: int, length: int) -> bytes:
        if offset >= end:
            return b""
        stream.seek(offset)
        return stream.read(min(length, end))

    return read
