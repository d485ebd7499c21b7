"""Rasters and spaces: the decoded picture in the file's own samples, and what those samples mean as pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from toolkit.geometry import Box, Size

Array = npt.NDArray[Any]
STRIP_PIXELS = 1 << 20
CACHED_PIXELS = 1 << 16  # copied at a time: what a processor holds near


def strips(size: Size, pixels: int = STRIP_PIXELS) -> Iterator[Box]:
    """Full-width boxes from top to bottom, each of at most about `pixels` pixels."""
    rows = max(1, pixels // max(1, size.width))
    for top in range(0, size.height, rows):
        yield Box(0, top, size.width, min(top + rows, size.height))


class Raster(ABC):
    """A whole decoded picture in stored orientation, read and written by windows of samples (h, w, bands)."""

    size: Size
    bands: int
    depth: int

    @abstractmethod
    def read(self, box: Box) -> Array:
        """A copy of the samples in `box`: (h, w, bands), uint8 or uint16."""

    @abstractmethod
    def write(self, box: Box, samples: Array) -> None:
        """Replace the samples in `box`; only ever called on a copy."""

    @abstractmethod
    def copy(self) -> Raster:
        """An independent copy."""

    @abstractmethod
    def image(self) -> Image.Image:
        """The whole as a Pillow image (8 bits a sample only)."""


class ImageRaster(Raster):
    """A raster behind a Pillow image of mode 1, L, LA, P, RGB or RGBA; mode 1 reads as 0 and 255."""

    depth = 8

    def __init__(self, image: Image.Image) -> None:
        self._image = image
        self.size = Size(*image.size)
        self.bands = len(image.getbands())

    def read(self, box: Box) -> Array:
        samples = np.empty((box.height, box.width, self.bands), np.uint8)
        for part in strips(Size(*box.size), CACHED_PIXELS):
            # Pasting with a negative offset crops like Image.crop, without its limit on the number of pixels.
            window = Image.new(self._image.mode, part.size, None)  # every pixel of it is pasted over
            window.paste(self._image, (-box.left, -box.top - part.top))
            samples[part.slices] = np.asarray(window).reshape(part.height, part.width, self.bands)
        if self._image.mode == "1":
            samples *= 255
        return samples

    def write(self, box: Box, samples: Array) -> None:
        mode = "L" if self._image.mode == "1" else self._image.mode
        window = Image.frombytes(mode, box.size, np.ascontiguousarray(samples, np.uint8).tobytes())
        if self._image.mode == "1":
            window = window.convert("1", dither=Image.Dither.NONE)
        self._image.paste(window, (box.left, box.top))

    def copy(self) -> ImageRaster:
        return ImageRaster(self._image.copy())

    def add_alpha(self) -> bool:
        """Give an RGB raster an opaque alpha where it lies, without a copy; False when that is not possible."""
        if self._image.mode != "RGB":
            return False
        self._image.putalpha(255)
        self.bands = 4
        return True

    def image(self) -> Image.Image:
        return self._image


class ArrayRaster(Raster):
    """A raster behind an array (h, w, bands) of uint8 or uint16."""

    def __init__(self, array: Array) -> None:
        self._array = array
        self.size = Size(array.shape[1], array.shape[0])
        self.bands = array.shape[2]
        self.depth = 8 * array.dtype.itemsize

    def read(self, box: Box) -> Array:
        return self._array[box.slices].copy()

    def write(self, box: Box, samples: Array) -> None:
        self._array[box.slices] = samples

    def copy(self) -> ArrayRaster:
        return ArrayRaster(self._array.copy())

    def image(self) -> Image.Image:
        mode = ("L", "LA", "RGB", "RGBA")[self.bands - 1]
        return Image.frombuffer(mode, self.size, np.ascontiguousarray(self._array), "raw", mode, 0, 1)


class Space(ABC):
    """What samples mean: `pixels` leads to straight colour (and alpha), `fit` back where that is exact."""

    channels: int
    alpha: bool
    depth: int

    @property
    def bands(self) -> int:
        """Colour channels, plus one for alpha."""
        return self.channels + self.alpha

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """The type of pixels."""
        return np.uint16 if self.depth == 16 else np.uint8

    @abstractmethod
    def pixels(self, samples: Array) -> Array:
        """(h, w, samples) to (h, w, channels[+1])."""

    @abstractmethod
    def _samples(self, pixels: Array, before: Array) -> Array | None:
        """Samples for n pixels (n, channels[+1]); `before` (n, samples) are the old ones. None: no exact fit."""

    def fit(self, pixels: Array, before: Array) -> Array | None:
        """The samples that show exactly `pixels`, or None where the file's mode has no such colour.

        Where a pixel is what it was, its sample stays what it was, so nothing is lost by the way there and back.
        """
        changed = (pixels != self.pixels(before)).any(axis=2)
        new = self._samples(pixels[changed], before[changed])
        if new is None:
            return None
        after = before.copy()
        after[changed] = new
        return after


@dataclass(frozen=True)
class Direct(Space):
    """Samples that are pixels: grey or RGB, with or without alpha, and extra bands that are left alone.

    `step`: only multiples of it occur (17, 85, 255 for 4, 2 and 1 bit); `premultiplied`: colour times alpha.
    """

    channels: int
    alpha: bool = False
    depth: int = 8
    step: int = 1
    premultiplied: bool = False
    alpha_band: int | None = None

    def pixels(self, samples: Array) -> Array:
        if not self.alpha:
            return samples[..., : self.channels]
        band = self.channels if self.alpha_band is None else self.alpha_band
        alpha = samples[..., band : band + 1]
        if band == self.channels and not self.premultiplied:
            return samples[..., : self.bands]
        colour = samples[..., : self.channels]
        if self.premultiplied:
            top = (1 << self.depth) - 1
            wide = colour.astype(np.uint32) * np.uint32(top) + alpha // 2
            colour = np.minimum(wide // np.maximum(alpha, 1), top).astype(samples.dtype)
        return np.concatenate([colour, alpha], axis=-1)

    def fit(self, pixels: Array, before: Array) -> Array | None:
        if self.step > 1 or self.premultiplied or self.alpha_band is not None:
            return super().fit(pixels, before)
        if before.shape[2] == self.bands:
            return pixels
        after = before.copy()
        after[..., : self.bands] = pixels
        return after

    def _samples(self, pixels: Array, before: Array) -> Array | None:
        if self.step > 1 and (pixels % self.step).any():
            return None
        after = before.copy()
        colour = pixels[:, : self.channels]
        if self.alpha:
            alpha = pixels[:, self.channels :]
            after[:, self.channels if self.alpha_band is None else self.alpha_band] = alpha[:, 0]
            if self.premultiplied:
                top = (1 << self.depth) - 1
                colour = (colour.astype(np.uint32) * alpha + top // 2) // top
        after[:, : self.channels] = colour
        return after


class Palette(Space):
    """Indices into a palette (n, 3) or, with alpha, (n, 4) of uint8."""

    depth = 8

    def __init__(self, palette: Array) -> None:
        self.alpha = palette.shape[1] == 4
        self.channels = 3
        self._count = len(palette)
        self._table = np.zeros((256, palette.shape[1]), np.uint8)
        if self.alpha:
            self._table[:, 3] = 255
        self._table[: self._count] = palette

    def pixels(self, samples: Array) -> Array:
        return self._table[samples[..., 0]]

    def _samples(self, pixels: Array, before: Array) -> Array | None:
        known = {colour: index for index, colour in reversed(list(enumerate(map(bytes, self._table[: self._count]))))}
        colours, where = np.unique(pixels, axis=0, return_inverse=True)
        indices = [known.get(bytes(colour)) for colour in colours]
        if None in indices:
            return None
        return np.array(indices, np.uint8)[where.reshape(-1)][:, None]


class Keyed(Space):
    """Grey or RGB samples of which one colour, the key, is wholly transparent and every other opaque."""

    alpha = True

    def __init__(self, key: tuple[int, ...], depth: int, step: int = 1) -> None:
        self.channels = len(key)
        self.depth = depth
        self._step = step
        self._key = np.array(key, self.dtype)

    def pixels(self, samples: Array) -> Array:
        opaque = (samples != self._key).any(axis=-1, keepdims=True)
        return np.concatenate([samples, opaque.astype(self.dtype) * self.dtype((1 << self.depth) - 1)], axis=-1)

    def _samples(self, pixels: Array, before: Array) -> Array | None:
        colour = np.ascontiguousarray(pixels[:, : self.channels])
        fits = np.array_equal(self.pixels(colour), pixels) and not (colour % self._step).any()
        return colour if fits else None
