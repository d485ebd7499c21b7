"""Photos that never were a file: arrays and Pillow images."""

from __future__ import annotations

import hashlib
from typing import BinaryIO

import numpy as np
from PIL import Image

from toolkit.errors import OutputError, PhotoError
from toolkit.geometry import Size
from toolkit.photo import exif, formats
from toolkit.photo.picture import Edited, PictureFile
from toolkit.photo.raster import Array, ArrayRaster, Direct, ImageRaster, Raster, strips
from toolkit.photo.source import Source


class _NoFile(Source):
    """A source without bytes, whose digest is that of the pixels."""

    def __init__(self, name: str, raster: Raster) -> None:
        self.name, self.path, self.length, self.permissions = name, None, 0, None
        self._digest = ""
        self._raster = raster

    @property
    def digest(self) -> str:
        if not self._digest:
            total = hashlib.sha256(f"{self._raster.size} {self._raster.bands} {self._raster.depth} ".encode())
            for box in strips(self._raster.size):
                total.update(self._raster.read(box).tobytes())
            self._digest = total.hexdigest()
        return self._digest


class ArrayFile(PictureFile):
    """An array (h, w), (h, w, 1..4) of uint8 or uint16; saved as PNG unless told otherwise."""

    format = "PNG"
    made_here = True

    def __init__(self, array: Array, name: str) -> None:
        super().__init__()
        if array.ndim == 2:
            array = array[..., None]
        if array.ndim != 3 or not 1 <= array.shape[2] <= 4 or array.dtype not in (np.uint8, np.uint16):
            raise PhotoError(
                f"{name}: an array must be (h, w), (h, w, 1..4) of uint8 or uint16, got {array.shape} of {array.dtype}"
            )
        if array.size == 0:
            raise PhotoError(f"{name}: the array has no pixels, its shape is {array.shape}")
        self._adopt(ArrayRaster(np.array(array, dtype=array.dtype.newbyteorder("="), order="C")), name)

    def _adopt(self, raster: Raster, name: str) -> None:
        self._raster = raster
        self.source = _NoFile(name, raster)
        self.size = raster.size
        self.space = Direct(1 if raster.bands < 3 else 3, raster.bands in (2, 4), raster.depth)
        self.mode = Edited(raster, self.space).words

    def decode(self) -> Raster:
        return self._raster

    def rewrite(self, edited: Edited, out: BinaryIO, quality: int | None) -> list[str]:
        raise OutputError(f"{self.source.name}: there is no file to write again; pictures made here are converted")


class ImageFile(ArrayFile):
    """A Pillow image of mode L, LA, RGB or RGBA, with the profile, EXIF data and resolution in its `info`."""

    def __init__(self, image: Image.Image, name: str) -> None:
        PictureFile.__init__(self)
        self._adopt(ImageRaster(image), name)


def from_image(image: Image.Image, name: str, max_pixels: int) -> PictureFile:
    """The photo a Pillow image shows, as its own copy; palettes become RGB, 1-bit images grey.

    Raises:
        PhotoError: for modes that cannot be edited.
    """
    formats.check_size(name, Size(*image.size), max_pixels)
    if min(image.size) == 0:
        raise PhotoError(f"{name}: the image has no pixels, its size is {image.size[0]}x{image.size[1]}")
    icc, block, dpi = (image.info.get(key) for key in ("icc_profile", "exif", "dpi"))
    picture: ArrayFile
    if image.mode in ("I;16", "I;16L", "I;16B"):
        picture = ArrayFile(np.asarray(image).astype(np.uint16), name)
    else:
        key = image.info.get("transparency") is not None
        plain = {"1": "L", "L": "LA" if key else "L", "LA": "LA", "RGB": "RGBA" if key else "RGB", "RGBA": "RGBA",
                 "RGBX": "RGB", "P": "RGBA" if key else "RGB", "PA": "RGBA"}.get(image.mode)  # fmt: skip
        if plain is None:
            raise PhotoError(f"{name}: images of mode {image.mode} cannot be edited; convert it to RGB or L first")
        if image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
            plain = "RGBA"
        copy = image.copy() if plain == image.mode else image.convert(plain)
        copy.info = {}
        picture = ImageFile(copy, name)
    data = picture.metadata
    data.icc = icc if isinstance(icc, bytes) else None
    data.exif = exif.without_prefix(block) if isinstance(block, bytes) else None
    data.orientation = exif.orientation(data.exif) or 1
    if isinstance(dpi, tuple) and len(dpi) == 2 and all(float(n) > 0 for n in dpi):
        data.dpi = float(dpi[0]), float(dpi[1])
    return picture
