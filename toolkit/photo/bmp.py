"""BMP: rows are changed where they lie in a copy of the file; compressed ones are written again uncompressed."""

from __future__ import annotations

import shutil
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from toolkit.errors import PhotoError
from toolkit.geometry import Box, Size
from toolkit.photo.picture import Edited, PictureFile, sentences
from toolkit.photo.raster import ArrayRaster, Direct, Palette, Raster, Space, strips
from toolkit.photo.restate import Changes
from toolkit.photo.source import Source

_COMPRESSIONS = {1: "RLE", 2: "RLE", 4: "JPEG", 5: "PNG"}
_MASKS_32 = (0xFF0000, 0xFF00, 0xFF)


class BmpFile(PictureFile):
    """An uncompressed BMP of 1, 4, 8, 24 or 32 bits a pixel."""

    format = "BMP"

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        head = source.read(0, 14 + 124)
        name = source.name
        self._start = int.from_bytes(head[10:14], "little")
        header = int.from_bytes(head[14:18], "little")
        if header == 12:
            width, height = (int.from_bytes(head[i : i + 2], "little") for i in (18, 20))
            self.bits, compression, colours = int.from_bytes(head[24:26], "little"), 0, 0
            planes = int.from_bytes(head[22:24], "little")
        elif header in (40, 52, 56, 64, 108, 124) and len(head) >= 54:
            width, height = (int.from_bytes(head[i : i + 4], "little", signed=True) for i in (18, 22))
            planes, self.bits = (int.from_bytes(head[i : i + 2], "little") for i in (26, 28))
            compression, colours = (int.from_bytes(head[i : i + 4], "little") for i in (30, 46))
            x, y = (int.from_bytes(head[i : i + 4], "little", signed=True) for i in (38, 42))
            if x > 0 and y > 0:
                self.metadata.dpi = (x * 0.0254, y * 0.0254)
        else:
            raise PhotoError(f"{name}: the BMP header is damaged or of an unknown kind ({header} bytes)")
        self._upside_down = height > 0
        self.size = Size(width, abs(height))
        if width <= 0 or height == 0 or planes != 1:
            raise PhotoError(f"{name}: the BMP header is damaged ({width}x{height} pixels, {planes} planes)")
        if compression in _COMPRESSIONS:
            raise PhotoError(
                f"{name}: is a BMP with {_COMPRESSIONS[compression]} compression; convert it to PNG or an "
                "uncompressed BMP first"
            )
        if self.bits not in (1, 4, 8, 24, 32) or compression not in (0, 3, 6):
            raise PhotoError(f"{name}: is a BMP of {self.bits} bits a pixel; convert it to PNG or a 24-bit BMP first")
        alpha = False
        if compression in (3, 6):
            masks = tuple(int.from_bytes(head[54 + 4 * i : 58 + 4 * i], "little") for i in range(4))
            alpha = (header >= 56 or compression == 6) and masks[3] == 0xFF000000
            if self.bits != 32 or masks[:3] != _MASKS_32:
                raise PhotoError(f"{name}: is a BMP with rare colour masks; convert it to PNG or a 24-bit BMP first")
        elif self.bits == 32 and header >= 56:
            alpha = int.from_bytes(head[66:70], "little") == 0xFF000000
        self.space = self._space(14 + header, 3 if header == 12 else 4, colours, alpha)
        self.mode = f"{self.bits}-bit BMP" + (" with alpha" if alpha else "")
        self._stride = (width * self.bits + 31) // 32 * 4
        missing = self._start + self._stride * self.size.height - source.length
        if missing > 0:
            raise PhotoError(f"{name}: is truncated; {missing} of {source.length + missing} bytes are missing")
        if header == 124:
            self._read_profile(head)

    def _space(self, at: int, width: int, colours: int, alpha: bool) -> Space:
        if self.bits >= 24:
            return Direct(3, alpha)
        count = min(colours or 1 << self.bits, 1 << self.bits, max(0, self._start - at) // width or 256)
        data = self.source.read(at, count * width)
        palette = np.frombuffer(data[: len(data) // width * width], np.uint8).reshape(-1, width)[:, 2::-1]
        if not len(palette):
            raise PhotoError(f"{self.source.name}: the BMP palette is missing; the file is damaged")
        return Palette(palette)

    def _read_profile(self, head: bytes) -> None:
        kind, at, length = head[70:74], *(int.from_bytes(head[i : i + 4], "little") for i in (126, 130))
        if kind == b"DEBM" and 0 < length <= self.source.length:
            profile = self.source.read(14 + at, length)
            self.metadata.icc = profile if len(profile) == length else None

    def decode(self) -> Raster:
        bands = 1 if self.bits <= 8 else 3 + self.space.alpha
        whole = np.empty((self.size.height, self.size.width, bands), np.uint8)
        with self.source.open() as stream, sentences(self.source.name):
            for box in strips(self.size):
                whole[box.slices] = self._samples(self._rows(stream, box))
        return ArrayRaster(whole)

    def _place(self, box: Box) -> int:
        first = self.size.height - box.bottom if self._upside_down else box.top
        return self._start + first * self._stride

    def _rows(self, stream: BinaryIO, box: Box) -> npt.NDArray[np.uint8]:
        stream.seek(self._place(box))
        rows = np.frombuffer(stream.read(box.height * self._stride), np.uint8).reshape(box.height, self._stride)
        return rows[::-1] if self._upside_down else rows

    def _samples(self, rows: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        width = self.size.width
        if self.bits >= 24:
            pixels = rows[:, : width * self.bits // 8].reshape(len(rows), width, -1)
            return pixels[..., [2, 1, 0, 3]] if self.space.alpha else pixels[..., 2::-1]
        if self.bits == 8:
            return rows[:, :width, None]
        if self.bits == 4:
            rows = np.stack([rows >> 4, rows & 15], axis=2).reshape(len(rows), -1)
        else:
            rows = np.unpackbits(rows, axis=1)
        return rows[:, :width, None]

    def rewrite(self, edited: Edited, out: BinaryIO, quality: int | None) -> list[str]:
        notes = ["BMP is lossless: the quality was not used"] if quality is not None else []
        changes = edited.changes
        if edited.promoted or changes != Changes():
            if edited.promoted:
                notes.append(f"the new colours do not fit into {self.mode}: the picture was saved in {edited.words}")
            if changes.profile(self.metadata.icc):
                notes.append("the colour profile could not be carried along")
            write_bmp(edited.plain(), out, changes.dpi or self.metadata.dpi)
            return notes
        with self.source.open() as stream:
            shutil.copyfileobj(stream, out, 1 << 20)
        with self.source.open() as stream:
            for touched in edited.touched:
                whole = Box(0, touched.top, self.size.width, touched.bottom)
                for strip in strips(whole.size):
                    box = strip.shift(0, touched.top)
                    rows = self._packed(edited.raster.read(box), self._rows(stream, box))
                    out.seek(self._place(box))
                    out.write((rows[::-1] if self._upside_down else rows).tobytes())
        return notes

    def _packed(self, samples: npt.NDArray[np.uint8], before: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
        rows, width = before.copy(), self.size.width
        if self.bits >= 24:
            place = rows[:, : width * self.bits // 8].reshape(len(rows), width, -1)
            place[..., 2::-1] = samples[..., :3]
            if self.space.alpha:
                place[..., 3] = samples[..., 3]
            rows[:, : width * self.bits // 8] = place.reshape(len(rows), -1)
        elif self.bits == 8:
            rows[:, :width] = samples[..., 0]
        elif self.bits == 4:
            even = np.zeros((len(rows), width + width % 2), np.uint8)
            even[:, :width] = samples[..., 0]
            rows[:, : even.shape[1] // 2] = even[:, ::2] << 4 | even[:, 1::2]
        else:
            packed = np.packbits(samples[..., 0], axis=1)
            rows[:, : packed.shape[1]] = packed
        return rows


def write_bmp(raster: Raster, out: BinaryIO, dpi: tuple[float, float] | None) -> None:
    """Write plain 8-bit pixels: grey with a grey palette, RGB in 24 bits, alpha in 32 bits with a mask."""
    width, height = raster.size
    alpha, grey = raster.bands in (2, 4), raster.bands == 1
    bits = 8 if grey else 32 if alpha else 24
    header = 108 if alpha else 40
    start = 14 + header + (1024 if grey else 0)
    stride = (width * bits + 31) // 32 * 4
    per_metre = [round(n / 0.0254) for n in dpi] if dpi else [0, 0]

    def packed(values: tuple[int, ...], size: int = 4) -> bytes:
        return b"".join(v.to_bytes(size, "little") for v in values)

    out.write(b"BM" + packed((start + stride * height, 0, start, header, width, height)) + packed((1, bits), 2))
    out.write(packed((3 if alpha else 0, stride * height, *per_metre, 256 if grey else 0, 0)))
    if alpha:
        out.write(packed((*_MASKS_32, 0xFF000000)) + b"BGRs" + bytes(48))
    if grey:
        out.write(np.repeat(np.arange(256, dtype=np.uint8)[:, None], 4, axis=1).tobytes())
    for box in reversed(list(strips(raster.size))):
        samples = raster.read(box)
        if raster.bands == 2:
            samples = samples[..., [0, 0, 0, 1]]
        order = samples if grey else samples[..., [2, 1, 0, 3]] if alpha else samples[..., ::-1]
        rows = np.zeros((box.height, stride), np.uint8)
        rows[:, : width * bits // 8] = order.reshape(box.height, -1)
        out.write(rows[::-1].tobytes())
