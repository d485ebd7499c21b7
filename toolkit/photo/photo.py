"""Photo: the picture file as its owner made it, read and written by windows."""

from __future__ import annotations

import io
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from toolkit.errors import OutputError, ParameterError, PhotoError
from toolkit.geometry import Box, Size
from toolkit.photo import colour, formats
from toolkit.photo.convert import convert
from toolkit.photo.memory import ArrayFile, from_image
from toolkit.photo.orientation import stored_box, to_stored, to_upright, upright_size
from toolkit.photo.output import whole_file
from toolkit.photo.picture import Edited, PictureFile, sentences
from toolkit.photo.raster import Raster, strips
from toolkit.photo.source import Source, from_path, from_stream, from_url

Array = npt.NDArray[Any]
MAX_PIXELS = 500_000_000


@dataclass(frozen=True)
class Saved:
    """What was written: `bytes` is the file's length, `notes` are sentences about what could not be kept."""

    path: Path | None
    format: str
    mode: str
    notes: tuple[str, ...]
    bytes: int


class Photo:
    """A picture file behind its decoder, in stored orientation; nothing about it ever changes.

    Boxes are upright, pixels are arrays (h, w, channels[+1 for alpha]) of `dtype` in the photo's own colour space,
    colour and alpha straight. The header is read on opening, pixels are decoded once, on first use.
    Any number of threads may use one photo.
    """

    def __init__(self, picture: PictureFile) -> None:
        self._picture = picture
        self._raster: Raster | None = None
        self._lock = threading.RLock()  # while the photo is saved, its raster holds the new windows
        self.name: str = picture.source.name
        self.path: Path | None = picture.source.path
        self.orientation: int = picture.metadata.orientation
        self.size: Size = upright_size(picture.size, self.orientation)
        self.box: Box = Box.of_size(self.size)
        self.format: str = picture.format
        self.mode: str = picture.mode
        self.lossless: bool = picture.lossless
        self.channels: int = picture.space.channels
        self.has_alpha: bool = picture.space.alpha
        self.depth: int = picture.space.depth
        self.dtype = picture.space.dtype
        self.icc: bytes | None = picture.metadata.icc
        self.exif: bytes | None = picture.metadata.exif
        self.xmp: bytes | None = picture.metadata.xmp
        self.dpi: tuple[float, float] | None = picture.metadata.dpi

    @classmethod
    def open(
        cls,
        source: str | Path | bytes | BinaryIO | Array | Image.Image | Photo,
        *,
        name: str | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> Photo:
        """Open a photo: a path, an http(s) address, bytes, a binary stream, an array, or a Pillow image.

        Arrays are (h, w), (h, w, 1..4) of uint8 or uint16 in sRGB: grey, grey with alpha, RGB, RGB with alpha.

        Args:
            name: what messages call it; the path, address or kind of source unless given.
            max_pixels: more pixels than this are refused before anything is decoded.

        Raises:
            PhotoError: one sentence about why it cannot be used.
        """
        if isinstance(source, Photo):
            return source
        if isinstance(source, np.ndarray):
            picture: PictureFile = ArrayFile(source, name or "array")
            formats.check_size(picture.source.name, picture.size, max_pixels)
            return cls(picture)
        if isinstance(source, Image.Image):
            with sentences(name or "image"):
                return cls(from_image(source, name or "image", max_pixels))
        if isinstance(source, str) and source.lower().startswith(("http://", "https://")):
            opened = from_url(source, name)
        elif isinstance(source, (str, Path)):
            opened = from_path(Path(source), name)
        elif isinstance(source, (bytes, bytearray, memoryview)):
            opened = Source(name or "bytes", data=bytes(source))
        elif hasattr(source, "read"):
            opened = from_stream(source, name)
        else:
            raise PhotoError(
                f"{name or 'photo'}: must be a path, an address, bytes, a stream, an array or an image, "
                f"got {type(source).__name__}"
            )
        return cls(formats.identify(opened, max_pixels))

    def __repr__(self) -> str:
        return f"<Photo {self.name} {self.size} {self.mode}>"

    @property
    def notes(self) -> tuple[str, ...]:
        """Sentences about what was understood and what cannot be kept."""
        said = list(self._picture.notes)
        if self.icc and not colour.usable(self.icc, self.channels):
            said.append(
                "the ICC profile does not fit the picture or cannot be read; it is kept, and colours are "
                "treated as sRGB"
            )
        return tuple(said)

    @property
    def digest(self) -> str:
        """The sha256 of the source's bytes (of an array: its shape, type and values), in hex."""
        with self._lock:
            return self._picture.source.digest

    def _decoded(self) -> Raster:
        with self._lock:
            if self._raster is None:
                self._raster = self._picture.decode()
            return self._raster

    def crop(self, box: Box) -> Array:
        """The pixels of an upright box: (h, w, channels[+1]), read-only.

        Raises:
            ParameterError: when the box has no area or reaches beyond the photo.
            PhotoError: when the file's pixels are truncated or damaged.
        """
        where = self._stored(box)
        with self._lock:
            samples = self._decoded().read(where)
        pixels = self._picture.space.pixels(samples)
        pixels = to_upright(pixels, self.orientation)
        pixels.flags.writeable = False
        return pixels

    def array(self) -> Array:
        """The whole upright photo: (h, w, channels[+1]), read-only."""
        raster, space = self._decoded(), self._picture.space
        whole = np.empty((raster.size.height, raster.size.width, space.bands), self.dtype)
        for box in strips(raster.size):
            with self._lock:
                samples = raster.read(box)
            whole[box.slices] = space.pixels(samples)
        whole = to_upright(whole, self.orientation)
        whole.flags.writeable = False
        return whole

    def to_srgb(self, pixels: Array) -> npt.NDArray[np.uint8]:
        """Photo pixels (h, w, channels[+1]) as sRGB (h, w, 3) uint8, through the ICC profile; alpha is left out."""
        self._check(pixels, "pixels")
        return colour.to_srgb(pixels, self.channels, self.icc)

    def from_srgb(self, pixels: Array, seed: int = 0) -> Array:
        """SRGB (h, w, 3), uint8 or float32 of 0..255, as photo colours (h, w, channels) in the photo's depth.

        Grey photos take the luminance. 16-bit values of 8-bit input are dithered with `seed`.
        """
        given = np.asarray(pixels)
        if given.ndim != 3 or given.shape[2] != 3 or given.dtype not in (np.uint8, np.float32):
            raise ParameterError(f"pixels must be (h, w, 3) of uint8 or float32, got {given.shape} of {given.dtype}")
        return colour.from_srgb(given, self.channels, self.depth, self.icc, seed)

    def save(
        self,
        target: str | Path | BinaryIO,
        windows: Iterable[tuple[Box, Array]],
        *,
        format: str | None = None,
        overwrite: bool = False,
        quality: int | None = None,
        check: Callable[[Path], None] | None = None,
    ) -> Saved:
        """Write the photo with new windows; everything else stays as it is.

        Args:
            target: a path, whose suffix names the format, or a binary stream (the source's format unless named).
            windows: upright boxes and all their new pixels (h, w, channels[+1]) in the photo's type; read once,
                later ones lie on top. Windows with alpha for a photo without give it an alpha channel.
            format: JPEG, PNG, TIFF, WEBP or BMP, if not what the suffix says.
            overwrite: allow an existing target to be replaced, the source itself included.
            quality: 1 to 100 for JPEG and lossy WebP; without it a JPEG keeps its own tables.
            check: called with the written file before it takes the target's place (not for a stream); what it raises
                is raised here, and the target is left as it was.

        Raises:
            OutputError: when the target exists or cannot be written; nothing half-written is left.
            ParameterError: when a window does not fit.
            PhotoError: when the source cannot be decoded, or has changed.
        """
        if quality is not None and not 1 <= quality <= 100:
            raise ParameterError(f"quality must be between 1 and 100, got {quality}")
        path = Path(target) if isinstance(target, (str, Path)) else None
        wanted = formats.format_named(format) if format else (formats.format_of(path) if path else None) or self.format
        if path is not None and path.exists() and not overwrite:
            raise OutputError(f"{path}: already exists; name another output or allow overwriting")
        if path is not None and path.exists() and self.path is not None and path.samefile(self.path):
            _ = self.digest  # the bytes it is taken from are about to be replaced
        laid = [
            (box, np.asarray(pixels)) for box, pixels in windows
        ]  # all, before one is pasted: they may be read here
        self._decoded()
        if path is None:
            memory = io.BytesIO()
            mode, notes = self._encoded(laid, memory, wanted, quality)
            stream = cast(BinaryIO, target)
            try:
                stream.write(memory.getbuffer())
            except OSError as error:
                raise OutputError(f"the output stream cannot be written ({error})") from error
            length = len(memory.getbuffer())
        else:
            permissions = self._picture.source.permissions
            with whole_file(path, overwrite=overwrite, permissions=permissions, check=check) as out:
                mode, notes = self._encoded(laid, out, wanted, quality)
                length = out.seek(0, io.SEEK_END)
        return Saved(path, wanted, mode, tuple(dict.fromkeys(notes)), length)

    def _encoded(
        self, laid: list[tuple[Box, Array]], out: BinaryIO, wanted: str, quality: int | None
    ) -> tuple[str, list[str]]:
        """Write the photo with windows laid on; the raster holds them only meanwhile."""
        with self._lock:
            edited = Edited(self._decoded(), self._picture.space)
            try:
                for box, pixels in laid:
                    where = self._stored(box)
                    self._check(pixels, f"window {box}", box)
                    edited.paste(where, to_stored(pixels, self.orientation))
                return self._write(edited, out, wanted, quality)
            finally:
                edited.undo()

    def _write(self, edited: Edited, out: BinaryIO, wanted: str, quality: int | None) -> tuple[str, list[str]]:
        if wanted != self.format or self._picture.made_here:
            return convert(self._picture, edited, out, wanted, quality)
        notes = self._picture.rewrite(edited, out, quality)
        return (f"{edited.words} {wanted}" if edited.promoted else self.mode), notes

    def _stored(self, box: Box) -> Box:
        box = Box(*box).checked()
        if not self.box.contains(box):
            raise ParameterError(f"box {box}: reaches beyond the photo, which is {self.size}")
        return stored_box(box, self.size, self.orientation)

    def _check(self, pixels: Array, what: str, box: Box | None = None) -> None:
        bands = (self.channels, self.channels + 1)
        fits = pixels.ndim == 3 and pixels.shape[2] in bands and pixels.dtype == self.dtype
        if not fits or (box is not None and pixels.shape[:2] != (box.height, box.width)):
            size = f"{box.height}, {box.width}" if box else "h, w"
            raise ParameterError(
                f"{what}: must be ({size}, {bands[0]} or {bands[1]}) of {np.dtype(self.dtype).name}, "
                f"got {pixels.shape} of {pixels.dtype}"
            )
