"""Small picture files built for the photo tests."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import tifffile
from PIL import Image, ImageCms

from toolkit.photo.pngwriter import chunk

Array = npt.NDArray[Any]
WIDTH, HEIGHT = 37, 23


def noise(channels: int, dtype: Any = np.uint8, size: tuple[int, int] = (WIDTH, HEIGHT), seed: int = 0) -> Array:
    """Smooth colours with some noise: (h, w, channels)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : size[1], 0 : size[0]]
    top = np.iinfo(dtype).max
    base = np.stack([(x * (3 + c) + y * (5 - c)) % 200 / 255 for c in range(channels)], axis=2)
    return ((base + rng.uniform(0, 0.2, base.shape)) * top).astype(dtype)


def oriented(value: int, *, note: bool = True) -> bytes:
    """An EXIF block with an orientation, a maker's name and a maker note."""
    exif = Image.Exif()
    exif[0x0112] = value
    exif[0x010F] = "Maker"
    if note:
        exif.get_ifd(0x8769)[0x927C] = b"maker note \x00\x01\x02"
    return exif.tobytes()


def pillow(mode: str, format: str, orientation: int = 1, **options: Any) -> bytes:
    """A file written by Pillow."""
    channels = {"L": 1, "LA": 2, "RGBA": 4}.get(mode, 3)
    array = noise(channels)
    image = Image.fromarray(array[..., 0] if channels == 1 else array)
    if image.mode != mode:
        image = image.quantize(32) if mode == "P" else image.convert(mode)
    if format != "BMP":
        options["exif"] = oriented(orientation, note=options.get("compression", "raw") == "raw")  # libtiff writes none
    memory = io.BytesIO()
    image.save(memory, format, dpi=(72, 72), **options)
    return memory.getvalue()


def png(
    array: Array, *, kind: int, bits: int = 16, before: bytes = b"", after: bytes = b"", orientation: int = 1
) -> bytes:
    """A PNG without filters; `array` (h, w, samples) of uint16, or packed rows (h, bytes) of uint8 below 8 bits."""
    height, width = array.shape[:2]
    rows = array.astype(">u2").view(np.uint8).reshape(height, -1) if bits == 16 else array.reshape(height, -1)
    if bits < 8:
        width = array.shape[1] * 8 // bits
    data = np.concatenate([np.zeros((height, 1), np.uint8), rows], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    exif = chunk(b"eXIf", oriented(orientation)[6:])
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", head), before, exif, chunk(b"IDAT", zlib.compress(data)), after]
    return b"".join(parts) + chunk(b"IEND", b"")


def tiff(array: Array, orientation: int = 1, **options: Any) -> bytes:
    """A file written by tifffile; LZW through Pillow, because tifffile cannot write it."""
    memory = io.BytesIO()
    extra = [(274, 3, 1, orientation, True), (33432, 2, 0, "(c) somebody", True)]
    photometric = options.pop("photometric", "rgb" if array.shape[-1] >= 3 else "minisblack")
    array = array[..., 0] if array.shape[2] == 1 else array
    tifffile.imwrite(memory, array, photometric=photometric, extratags=extra, resolution=(72, 72), metadata=None,
                     software="camera", **options)  # fmt: skip
    return memory.getvalue()


def display_p3() -> bytes:
    """A matrix profile with the primaries of Display P3 and the curve of sRGB, built from its tags (ICC.1:2010)."""
    matrix = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
    return _profile(b"RGB ", {n: _xyz(*v) for n, v in zip((b"rXYZ", b"gXYZ", b"bXYZ"), matrix, strict=True)},
                    (b"rTRC", b"gTRC", b"bTRC"))  # fmt: skip


def grey_gamma() -> bytes:
    """A grey profile with a gamma of 1.8."""
    return _profile(b"GRAY", {}, (b"kTRC",), gamma=1.8)


def srgb() -> bytes:
    """Little CMS's own sRGB profile."""
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def _xyz(x: float, y: float, z: float) -> bytes:
    return b"XYZ \0\0\0\0" + struct.pack(">iii", *(round(v * 65536) for v in (x, y, z)))


def _profile(space: bytes, tags: dict[bytes, bytes], curves: tuple[bytes, ...], gamma: float = 2.2) -> bytes:
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(79)
    every = {b"desc": text.ljust(96, b"\0"), b"wtpt": _xyz(0.9642, 1.0, 0.8249), **tags, **dict.fromkeys(curves, curve)}
    table, body = b"", b""
    start = 128 + 4 + 12 * len(every)
    for name, data in every.items():
        table += name + struct.pack(">II", start + len(body), len(data))
        body += data
    size = start + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"lcms", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H4s", 2026, 1, 1, 0, 0, 0, b"acsp") + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + struct.pack(">I", len(every)) + table + body


Maker = Callable[[int], bytes]

LOSSLESS: dict[str, Maker] = {
    **{f"png-{m}": (lambda o, m=m: pillow(m, "PNG", o)) for m in ("1", "L", "LA", "P", "RGB", "RGBA")},
    **{f"png16-{k}": (lambda o, k=k, n=n: png(noise(n, np.uint16), kind=k, orientation=o))
       for k, n in ((0, 1), (2, 3), (4, 2), (6, 4))},
    "png-grey4": lambda o: png(noise(1, np.uint8)[:, ::2, 0], kind=0, bits=4, orientation=o),
    "png-grey2": lambda o: png(noise(1, np.uint8)[:, ::4, 0], kind=0, bits=2, orientation=o),
    "png-key": lambda o: png(noise(3, np.uint8).astype(np.uint8), kind=2, bits=8, orientation=o,
                             before=chunk(b"tRNS", b"".join(int(v).to_bytes(2, "big") for v in noise(3)[4, 7]))),
    "png16-key": lambda o: png(noise(1, np.uint16), kind=0, orientation=o,
                               before=chunk(b"tRNS", int(noise(1, np.uint16)[4, 7, 0]).to_bytes(2, "big"))),
    "webp-RGB": lambda o: pillow("RGB", "WEBP", o, lossless=True),
    "webp-RGBA": lambda o: pillow("RGBA", "WEBP", o, lossless=True, exact=True),
    **{f"tiff-{m}-{c}": (lambda o, m=m, c=c: pillow(m, "TIFF", o, compression=c))
       for m in ("1", "L", "P", "RGB", "RGBA") for c in ("raw", "tiff_lzw", "packbits", "tiff_adobe_deflate")},
    **{f"tiff{8 * np.dtype(d).itemsize}-{n}-{c}": (
        lambda o, n=n, d=d, c=c: tiff(noise(n, d), o, compression=c, predictor=c is not None,
                                      extrasamples=["unassalpha"] if n in (2, 4) else None, rowsperstrip=5))
       for n in (1, 2, 3, 4) for d in (np.uint8, np.uint16) for c in (None, "zlib")},
    "tiff-tiles": lambda o: tiff(noise(3, np.uint16), o, tile=(16, 16), compression="zlib"),
    "tiff-planes": lambda o: tiff(
        np.moveaxis(noise(3), 2, 0), o, planarconfig="separate", rowsperstrip=5, photometric="rgb"
    ),
    "tiff-big-endian": lambda o: tiff(noise(3, np.uint16), o, byteorder=">", bigtiff=True, compression="zlib"),
    "tiff-white-is-zero": lambda o: tiff(noise(1), o, photometric="miniswhite", rowsperstrip=5),
}  # fmt: skip
