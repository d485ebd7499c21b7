"""Where a patch's pixels come from when they are no array: the `Source`s of `patch`."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.blend import GrainField, Scaling, dither, levels, resampled
from toolkit.geometry import Box
from toolkit.photo import Photo
from toolkit.photo.aside import Aside
from toolkit.photo.raster import strips

Pixels = npt.NDArray[Any]
_STRIP = 1 << 17
"""Pixels that are resampled at once."""

Colour = tuple[int, ...]
"""A value for each band of a photo, in its own space and depth."""


def colour_of(photo: Photo, rgb: tuple[int, int, int]) -> Colour:
    """An sRGB colour (0-255) in the photo's own space and depth, opaque where it has alpha."""
    own = photo.from_srgb(np.array([[rgb]], np.float32))[0, 0].tolist()
    return (*own, *([int(np.iinfo(photo.dtype).max)] if photo.has_alpha else []))


@dataclass(frozen=True)
class Plain:
    """One colour everywhere, exactly."""

    colour: Colour
    dtype: type[np.uint8] | type[np.uint16]
    smooth: bool = False

    @property
    def bands(self) -> int:
        """As `Source` says."""
        return len(self.colour)

    @property
    def digest(self) -> str:
        """As `Source` says."""
        return _digest("plain", self.colour, self.dtype.__name__)

    def read(self, box: Box) -> Pixels:
        """As `Source` says."""
        return np.broadcast_to(np.array(self.colour, self.dtype), (box.height, box.width, len(self.colour)))


@dataclass(frozen=True)
class Gradient:
    """From one colour in the first row of `box` to another in its last, dithered to the nearest levels."""

    box: Box
    top: Colour
    bottom: Colour
    dtype: type[np.uint8] | type[np.uint16]
    smooth: bool = True

    @property
    def bands(self) -> int:
        """As `Source` says."""
        return len(self.top)

    @property
    def digest(self) -> str:
        """As `Source` says."""
        return _digest("gradient", self.box, self.top, self.bottom, self.dtype.__name__)

    def read(self, box: Box) -> Pixels:
        """As `Source` says; rows beyond the gradient have its end colours."""
        rows = np.arange(box.top, box.bottom) - self.box.top
        share = np.clip(rows / max(1, self.box.height - 1), 0, 1)[:, None]
        ends = np.array([self.top, self.bottom], np.float64)
        values = ends[0] * (1 - share) + ends[1] * share
        whole = np.broadcast_to(values[:, None], (box.height, box.width, values.shape[1]))
        return levels(whole, self.dtype, dither(box))


@dataclass(frozen=True, eq=False)
class Placed:
    """A picture that covers `box`: centred, never stretched, what sticks out cut off; in the colours of `photo`.

    Of a large picture the pixels lie in a temporary file from the first reading on, not in memory.

    Attributes:
        picture: what is placed; transparent parts show white.
        box: what it covers.
        photo: the photo whose bands, depth and colour space the pixels get.
    """

    picture: Photo
    box: Box
    photo: Photo
    smooth: bool = False

    @property
    def bands(self) -> int:
        """As `Source` says."""
        return self.photo.channels + self.photo.has_alpha

    @cached_property
    def digest(self) -> str:
        """As `Source` says."""
        return _digest("placed", self.picture.digest, self.box, self.photo.icc, self.photo.dtype.__name__)

    @property
    def scale(self) -> float:
        """Photo pixels for one of the picture's; above 1 it is enlarged."""
        return max(self.box.width / self.picture.size.width, self.box.height / self.picture.size.height)

    def read(self, box: Box) -> Pixels:
        """As `Source` says; nothing beyond `self.box` may be asked for."""
        whole = np.empty((box.height, box.width, self.bands), self.photo.dtype)
        for strip in strips(box.size, _STRIP):
            whole[strip.slices] = self._converted(self._resampled(strip.shift(box.left, box.top).within(self.box)))
        return whole

    @cached_property
    def _held(self) -> Photo | Aside:
        """What the pixels are read from; reduced already, where that makes decoding cheaper."""
        return self.picture.aside(1 / self.scale) if self.picture.is_large else self.picture

    def _resampled(self, part: Box) -> Pixels:
        """The picture's colours (h, w, C) in a box that is counted from the corner of `self.box`; float, on white."""
        held = self._held
        reduced, corner = (held.reduced, held.corner) if isinstance(held, Aside) else (1, (0.0, 0.0))
        step = 1 / self.scale
        free = ((n - over * step) / 2 for n, over in zip(self.picture.size, self.box.size, strict=True))
        x, y = (start + n / reduced for start, n in zip(corner, free, strict=True))
        alpha = self.picture.has_alpha
        values = resampled(held.crop, held.box, part, Scaling((x, y), step / reduced), alpha=alpha)
        top = np.iinfo(self.picture.dtype).max
        np.clip(values, 0, top, out=values)
        if alpha:
            values = values[..., :-1] * (values[..., -1:] / top) + (top - values[..., -1:])
        return values

    def _converted(self, values: Pixels) -> Pixels:
        """Float values of the picture as pixels of the photo; between equal spaces without a way through sRGB."""
        picture, photo = self.picture, self.photo
        most, own = np.iinfo(photo.dtype).max, np.iinfo(picture.dtype).max
        if picture.icc == photo.icc and picture.channels == photo.channels:
            colours = levels(values * (most / own), photo.dtype)
        elif picture.shows_srgb and picture.channels == 3:
            colours = photo.from_srgb((values * (255 / own)).astype(np.float32))
        else:
            colours = photo.from_srgb(picture.to_srgb(levels(values, picture.dtype)).astype(np.float32))
        if not photo.has_alpha:
            return colours
        return np.concatenate([colours, np.full((*colours.shape[:2], 1), most, colours.dtype)], axis=2)


@dataclass(frozen=True, eq=False)
class Painted:
    """A picture an engine painted, at its own scale, with grain at the photo's.

    Attributes:
        picture: (h, w, 3) uint8 sRGB, read-only.
        corner: x, y of its left top corner on the photo's plane.
        step: photo pixels for one of the picture's.
        box: the part of the plane that may be read; the picture covers it.
        photo: the photo whose bands, depth and colour space the pixels get.
        grain: what it lacks of the photo's grain.
    """

    picture: npt.NDArray[np.uint8]
    corner: tuple[float, float]
    step: float
    box: Box
    photo: Photo
    grain: GrainField | None = None
    smooth: bool = False

    @property
    def bands(self) -> int:
        """As `Source` says."""
        return self.photo.channels + self.photo.has_alpha

    @cached_property
    def digest(self) -> str:
        """As `Source` says."""
        pixels = hashlib.sha256(np.ascontiguousarray(self.picture).tobytes()).hexdigest()
        grain = self.grain and (self.grain.seed, self.grain.added)
        return _digest("painted", pixels, self.corner, self.step, self.photo.icc, self.photo.dtype.__name__, grain)

    def read(self, box: Box) -> Pixels:
        """As `Source` says; nothing beyond `self.box` may be asked for."""
        whole = np.empty((box.height, box.width, self.bands), self.photo.dtype)
        for strip in strips(box.size, 4 * _STRIP):  # grain is made with a margin: low strips would cost more
            colours = self.photo.from_srgb(self.shown(strip.shift(box.left, box.top)))
            whole[strip.slices][..., : self.photo.channels] = colours
        if self.photo.has_alpha:
            whole[..., -1] = np.iinfo(self.photo.dtype).max
        return whole

    def shown(self, box: Box) -> npt.NDArray[np.float32]:
        """A box of it as (h, w, 3) float32 sRGB 0..255, not rounded; for small boxes."""
        near = box if self.grain is None else box.grow(self.grain.REACH).intersect(self.box)
        scaling = Scaling((-self.corner[0] / self.step, -self.corner[1] / self.step), 1 / self.step)
        extent = Box.of_size((self.picture.shape[1], self.picture.shape[0]))
        values = resampled(lambda part: self.picture[part.slices], extent, near, scaling, alpha=False)
        pixels = np.clip(values, 0, 255).astype(np.float32)
        return pixels if self.grain is None else np.clip(self.grain.over(pixels, near, box), 0, 255)


def _digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()
