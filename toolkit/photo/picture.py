"""What every file format offers the photo: a header, pixels on demand, and a way to be written again."""

from __future__ import annotations

import contextlib
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import BinaryIO, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import Image

from toolkit.errors import PhotoError, ToolkitError
from toolkit.geometry import Box, Size
from toolkit.photo import exif
from toolkit.photo.raster import Array, ArrayRaster, Direct, ImageRaster, Raster, Space, strips
from toolkit.photo.restate import Changes
from toolkit.photo.source import Source


class Metadata:
    """What a picture carries besides its pixels, as far as every format knows it."""

    def __init__(self) -> None:
        self.orientation = 1
        self.icc: bytes | None = None
        self.exif: bytes | None = None
        self.xmp: bytes | None = None
        self.dpi: tuple[float, float] | None = None


class PictureFile(ABC):
    """A picture file whose header has been read."""

    format: ClassVar[str]

    source: Source
    size: Size
    space: Space
    mode: str
    lossless: bool = True
    made_here: bool = False  # from an array or an image: there is no file whose form could be kept

    def __init__(self) -> None:
        self.metadata = Metadata()
        self.notes: list[str] = []

    @abstractmethod
    def decode(self) -> Raster:
        """Read all pixels; PhotoError when they are truncated or damaged."""

    def decode_reduced(self, factor: int) -> Raster:
        """As `decode`, at 1/`factor` of the size (2, 4 or 8; sides rounded up) where the format can, else whole."""
        return self.decode()

    @abstractmethod
    def rewrite(self, edited: Edited, out: BinaryIO, quality: int | None) -> list[str]:
        """Write the file again with the edited pixels; return what could not be kept, in sentences."""


class Edited:
    """A raster with windows pasted; becomes a wider mode, as a copy, when a window's colours do not fit.

    Windows are pasted into the raster itself, since a copy of a large photo costs as much as encoding it; `undo`
    gives the raster back as it was.

    Attributes:
        changes: what the metadata is to say anew.
    """

    def __init__(self, raster: Raster, space: Space) -> None:
        self.raster = raster
        self.space = space
        self.size = raster.size
        self.touched: list[Box] = []
        self.promoted = False
        self.made_anew = False
        self.changes = Changes()
        self._replaced: list[tuple[Raster, Box, Array]] = []

    def paste(self, box: Box, pixels: Array) -> None:
        """Lay stored pixels (h, w, channels[+1]) on; alpha where there was none gives the whole an alpha."""
        if pixels.shape[2] > self.space.bands:
            self.promote(alpha=True)
        elif pixels.shape[2] < self.space.bands:
            alpha = self.space.pixels(self.raster.read(box))[..., -1:]
            pixels = np.concatenate([pixels, alpha], axis=2)
        before = self.raster.read(box)
        samples = self.space.fit(pixels, before)
        if samples is None:
            self.promote(alpha=self.space.alpha)
            samples = self.space.fit(pixels, self.raster.read(box))
        if samples is None:
            raise AssertionError("direct pixels always fit")
        self._replaced.append((self.raster, box, self.raster.read(box)))
        self.raster.write(box, samples)
        self.touched.append(box)

    @classmethod
    def anew(cls, picture: PictureFile, size: Size, *, alpha: bool, over: Raster | None = None) -> Edited:
        """A new picture of plain pixels in place of the file's, of this stored size; all of it is still to be written.

        Args:
            over: the picture's own raster, if that may be written over.
        """
        wide = Direct(picture.space.channels, alpha, picture.space.depth)
        edited = cls(_blank(wide, size) if over is None else over, wide)
        edited.promoted, edited.made_anew = wide != picture.space, True
        if size != picture.size:
            edited.changes = Changes(size)
        return edited

    def write(self, box: Box, pixels: Array) -> None:
        """Put plain pixels (h, w, bands) into a picture made anew."""
        self.raster.write(box, pixels)
        self.touched.append(box)

    def undo(self) -> None:
        """Put back every sample that was replaced."""
        while self._replaced:
            raster, box, before = self._replaced.pop()
            raster.write(box, before)

    def promote(self, *, alpha: bool) -> None:
        """Become plain grey or RGB, with alpha if asked for."""
        wide = Direct(self.space.channels, alpha or self.space.alpha, self.space.depth)
        if wide == self.space:
            return
        self.raster, self.space, self.promoted = _converted(self.raster, self.space, wide), wide, True

    def plain_copy(self) -> bool:
        """Go over to a raster of plain pixels that may be written over, a new one unless the picture was made anew.

        Returns:
            Whether the pixels are of another kind then. What the new raster shows is undefined.
        """
        wide = Direct(self.space.channels, self.space.alpha, self.space.depth)
        changed = wide != self.space
        if not self.made_anew:
            self.raster, self.space, self.made_anew = _blank(wide, self.size), wide, True
        return changed

    def gained_only_alpha(self, before: Space) -> bool:
        """Whether its pixels are what they were in the space `before`, and an alpha has come to them."""
        return before == Direct(before.channels, False, before.depth) and self.space == Direct(
            before.channels, True, before.depth
        )

    @property
    def words(self) -> str:
        """The kind of its pixels in words."""
        colour = "grey" if self.space.channels == 1 else "RGB"
        return f"{self.space.depth}-bit {colour}{' with alpha' if self.space.alpha else ''}"

    def plain(self, *, depth: int | None = None) -> Raster:
        """A raster of plain straight pixels, in 8 bits if asked for."""
        depth = depth or self.space.depth
        wide = Direct(self.space.channels, self.space.alpha, depth)
        if wide == self.space:
            return self.raster
        return _converted(self.raster, self.space, wide)

    def miniature(self, size: tuple[int, int]) -> Image.Image:
        """The picture in `size` as RGB, on black where the shapes differ; read row by row, at most 4x4 samples each."""
        inner = exif.fitted(self.size, size)
        fine = tuple(min(4 * n, whole) for n, whole in zip(inner, self.size, strict=True))
        columns = (np.arange(fine[0]) * 2 + 1) * self.size.width // (2 * fine[0])
        rows = (np.arange(fine[1]) * 2 + 1) * self.size.height // (2 * fine[1])
        lines = [
            _colours(self.space, self.raster.read(Box(0, row, self.size.width, row + 1))[:, columns])
            for row in rows.tolist()
        ]
        small = Image.fromarray(np.concatenate(lines)).resize(inner, Image.Resampling.BOX)
        if inner == size:
            return small
        framed = Image.new("RGB", size)
        framed.paste(small, ((size[0] - inner[0]) // 2, (size[1] - inner[1]) // 2))
        return framed


def eight_bits(pixels: Array) -> npt.NDArray[np.uint8]:
    """16-bit values rounded to 8 bits; 8-bit ones as they are."""
    if pixels.dtype == np.uint8:
        return pixels
    return ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _colours(space: Space, samples: Array) -> npt.NDArray[np.uint8]:
    colour = eight_bits(space.pixels(samples)[..., : space.channels])
    return np.repeat(colour, 3, axis=2) if space.channels == 1 else colour


def _blank(space: Direct, size: Size) -> Raster:
    if space.depth == 8:
        mode = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}[space.bands]
        return ImageRaster(Image.new(mode, size))
    return ArrayRaster(np.empty((size.height, size.width, space.bands), space.dtype))


def _converted(raster: Raster, space: Space, wide: Direct) -> Raster:
    new = _blank(wide, raster.size)
    for box in strips(raster.size):
        pixels = space.pixels(raster.read(box))
        if wide.depth < space.depth:
            pixels = eight_bits(pixels)
        if wide.alpha and not space.alpha:
            opaque = np.full((*pixels.shape[:2], 1), (1 << wide.depth) - 1, pixels.dtype)
            pixels = np.concatenate([pixels, opaque], axis=2)
        new.write(box, pixels)
    return new


@contextlib.contextmanager
def sentences(name: str, what: str = "is damaged") -> Iterator[None]:
    """Turn whatever a decoder raises on bad bytes into one `PhotoError`."""
    try:
        yield
    except ToolkitError:
        raise
    except MemoryError as error:
        raise PhotoError(f"{name}: there is not enough memory to decode it") from error
    except Exception as error:  # decoders raise almost anything on broken input
        text = " ".join(str(error).split())[:120] or type(error).__name__
        raise PhotoError(f"{name}: {what} ({text})") from error
