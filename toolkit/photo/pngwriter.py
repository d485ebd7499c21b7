"""Writing PNG picture data: 8 bits and palettes by Pillow, all other depths by our own filters and zlib, in strips."""

from __future__ import annotations

import zlib
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box
from toolkit.photo.raster import Raster, strips

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_BLOCK = 1 << 16
_KIND_OF_BANDS = {1: 0, 2: 4, 3: 2, 4: 6}

Bytes = npt.NDArray[np.uint8]


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk with its length and checksum."""
    return b"".join((len(data).to_bytes(4, "big"), name, data, zlib.crc32(data, zlib.crc32(name)).to_bytes(4, "big")))


def write_png(raster: Raster, bits: int, out: BinaryIO, *, before: bytes, after: bytes, effort: int) -> None:
    """Write a whole PNG file.

    Args:
        raster: a palette, 1-bit or plain raster; grey of 2 and 4 bits holds multiples of 85 and 17.
        bits: bits per sample in the file.
        before: the chunks between IHDR and the picture data (with PLTE for a palette).
        after: the chunks behind the picture data, without IEND.
        effort: zlib's level, 1 to 9.
    """
    if raster.depth == 16 or (bits in (2, 4) and raster.image().mode == "L"):
        head = b"".join(n.to_bytes(4, "big") for n in raster.size) + bytes(
            (bits, _KIND_OF_BANDS[raster.bands], 0, 0, 0)
        )
        out.write(SIGNATURE + chunk(b"IHDR", head) + before)
        _write_data(raster, bits, out, effort)
    else:
        image = raster.image()
        options = {}
        if image.mode == "P":
            image.putpalette(bytes(3 << bits))  # Pillow takes the depth from its length; PLTE itself is in `before`
            options["bits"] = bits
        image.save(cast(BinaryIO, _OnlyPicture(out, before)), "PNG", compress_level=effort, **options)
    out.write(after + chunk(b"IEND", b""))


class _OnlyPicture:
    """Lets the picture of a PNG stream through and puts our own chunks in place of all others."""

    def __init__(self, out: BinaryIO, before: bytes) -> None:
        self._out = out
        self._before = before
        self._pending = bytearray()
        self._skip = len(SIGNATURE)

    def write(self, data: bytes) -> int:
        self._pending += data
        if self._skip and len(self._pending) >= self._skip:
            del self._pending[: self._skip]
            self._skip = 0
        while not self._skip and len(self._pending) >= 8:
            end = 12 + int.from_bytes(self._pending[:4], "big")
            if len(self._pending) < end:
                break
            name = self._pending[4:8]
            if name == b"IHDR":
                self._out.write(SIGNATURE + bytes(self._pending[:end]) + self._before)
            elif name == b"IDAT":
                self._out.write(memoryview(self._pending)[:end].tobytes())
            del self._pending[:end]
        return len(data)

    def flush(self) -> None:
        """Nothing to do; Pillow asks for it."""


def _write_data(raster: Raster, bits: int, out: BinaryIO, effort: int) -> None:
    packer = zlib.compressobj(effort, zlib.DEFLATED, 15, 8, zlib.Z_FILTERED if bits == 16 else zlib.Z_DEFAULT_STRATEGY)
    step = raster.bands * 2 if bits == 16 else 1
    above: Bytes | None = None
    pending = bytearray()
    for box in strips(raster.size, 1 << 18):
        rows = _row_bytes(raster, box, bits)
        if bits == 16:
            above = np.zeros(rows.shape[1], np.uint8) if above is None else above
            filtered = _filtered(rows, above, step)
            above = rows[-1]
        else:
            filtered = np.concatenate([np.zeros((len(rows), 1), np.uint8), rows], axis=1)
        pending += packer.compress(filtered.tobytes())
        while len(pending) >= _BLOCK:
            out.write(chunk(b"IDAT", bytes(pending[:_BLOCK])))
            del pending[:_BLOCK]
    pending += packer.flush()
    out.write(chunk(b"IDAT", bytes(pending)))


def _row_bytes(raster: Raster, box: Box, bits: int) -> Bytes:
    samples = raster.read(box)
    if bits == 16:
        return samples.astype(">u2").view(np.uint8).reshape(box.height, -1)
    values = samples[..., 0] // np.uint8(255 // ((1 << bits) - 1))
    each = np.unpackbits(values[..., None], axis=2)[..., 8 - bits :]
    return np.packbits(each.reshape(box.height, -1), axis=1)


def _filtered(rows: Bytes, above: Bytes, step: int) -> Bytes:
    """Each row behind the number of the filter that leaves the smallest sum of differences (PNG, section 12.7)."""
    left, up, corner = np.zeros_like(rows), np.empty_like(rows), np.zeros_like(rows)
    up[0], up[1:] = above, rows[:-1]
    left[:, step:], corner[:, step:] = rows[:, :-step], up[:, :-step]
    wide_left, wide_up, wide_corner = (a.astype(np.int16) for a in (left, up, corner))
    to_left = np.abs(wide_up - wide_corner)
    to_up = np.abs(wide_left - wide_corner)
    to_corner = np.abs(wide_left + wide_up - 2 * wide_corner)
    nearest = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
    average = ((wide_left + wide_up) >> 1).astype(np.uint8)
    choices = [rows, rows - left, rows - up, rows - average, rows - nearest]
    costs = np.stack([np.abs(c.view(np.int8).astype(np.int16)).sum(axis=1, dtype=np.int64) for c in choices])
    best = costs.argmin(axis=0)
    chosen = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    chosen[:, 0] = best
    for number, choice in enumerate(choices):
        mine = best == number
        chosen[mine, 1:] = choice[mine]
    return chosen
