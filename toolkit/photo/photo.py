"""Photo: the picture file as its owner made it, read and written by windows."""

from __future__ import annotations

import contextlib
import functools
import io
import math
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from toolkit.errors import OutputError, ParameterError, PhotoError
from toolkit.geometry import Box, Size
from toolkit.photo import colour, formats, saving
from toolkit.photo.aside import Aside
from toolkit.photo.convert import convert
from toolkit.photo.memory import ArrayFile, from_image
from toolkit.photo.orientation import stored_box, to_stored, to_upright, upright_corner, upright_size
from toolkit.photo.output import whole_file
from toolkit.photo.picture import Edited, PictureFile, sentences
from toolkit.photo.raster import Direct, ImageRaster, Raster, strips
from toolkit.photo.source import Source, from_path, from_stream, from_url

Array = npt.NDArray[Any]
MAX_PIXELS = 500_000_000
SPARING = 1 << 24
"""A photo of more pixels is decoded again rather than kept while a new picture of its size is written."""


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
    def shows_srgb(self) -> bool:
        """Whether its values are sRGB's: no profile that can be used, or one of the same space."""
        return not colour.differs(self.icc, self.channels)

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

    def aside(self, reduction: float = 1.0) -> Aside:
        """The upright pixels in a temporary file; the photo itself holds none of them afterwards.

        Args:
            reduction: pixels of the photo for one of what is made of it. A JPEG is decoded at the power of two below
                it, at most 8, in which case the result is smaller than the photo; its sides are rounded up.

        Raises:
            PhotoError: when the file's pixels are truncated or damaged.
        """
        factor = 1 << min(3, max(0, int(math.log2(reduction))))
        with self._lock:
            raster, self._raster = self._picture.decode_reduced(factor), None
        space = self._picture.space
        size = upright_size(raster.size, self.orientation)
        if raster.size == self._picture.size:
            factor = 1  # a format that is always decoded whole
        longer = Size(*(factor * n - whole for n, whole in zip(raster.size, self._picture.size, strict=True)))
        x, y = upright_corner(longer, self.orientation)
        kept = Aside(size, space.bands, self.dtype, reduced=factor, corner=(x / factor, y / factor))
        for box in strips(size):
            samples = raster.read(stored_box(box, size, self.orientation))
            kept.append(to_upright(space.pixels(samples), self.orientation))
        return kept

    @property
    def is_large(self) -> bool:
        """Whether its decoded pixels are worth not holding where that can be avoided."""
        return self.size.area > SPARING

    def release(self) -> None:
        """Let go of the decoded pixels of a large photo; they are decoded again when they are next asked for."""
        with self._lock:
            if self.is_large and not self._picture.made_here:
                self._raster = None

    def to_srgb(self, pixels: Array) -> npt.NDArray[np.uint8]:
        """Photo pixels (h, w, channels[+1]) as sRGB (h, w, 3) uint8, through the ICC profile; alpha is left out.

        Read-only pixels that are sRGB already are given back as they are; everything else is new.
        """
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
        size: Size | None = None,
        in_place: bool = False,
        format: str | None = None,
        overwrite: bool = False,
        quality: int | None = None,
        dpi: float | None = None,
        srgb: bool = False,
        max_bytes: int | None = None,
        check: Callable[[Path], None] | None = None,
    ) -> Saved:
        """Write the photo with new windows, or a new picture in its place; everything else stays as it is.

        Args:
            target: a path, whose suffix names the format, or a binary stream (the source's format unless named).
            windows: upright boxes and all their new pixels (h, w, channels[+1]) in the photo's type; read once,
                later ones lie on top. Windows with alpha for a photo without give it an alpha channel.
            size: the upright size of a new picture, of which `windows` then are disjoint parts that cover it, all
                with alpha or all without; each is asked for when the one before it has been taken.
            in_place: says that a window of a new picture depends on no pixel of the photo but those under it, so
                that the decoded photo may be written over, and decoded again when it is needed.
            format: JPEG, PNG, TIFF, WEBP or BMP, if not what the suffix says.
            overwrite: allow an existing target to be replaced, the source itself included.
            quality: 1 to 100 for JPEG and lossy WebP; without it a JPEG keeps its own tables.
            dpi: pixels per inch the file is to say; without it what the source says.
            srgb: convert the colours to sRGB.
            max_bytes: what the file may measure; the quality of JPEG and lossy WebP is lowered until it does.
            check: called with the written file before it takes the target's place (not for a stream); what it raises
                is raised here, and the target is left as it was.

        Raises:
            OutputError: when the target exists, cannot be written or kept to `max_bytes`; nothing is left behind.
            ParameterError: when a window or a value does not fit.
            PhotoError: when the source cannot be decoded, or has changed.
        """
        if quality is not None and not 1 <= quality <= 100:
            raise ParameterError(f"quality must be between 1 and 100, got {quality}")
        if dpi is not None and not 1 <= dpi <= 65535:
            raise ParameterError(f"dpi must be between 1 and 65535, got {dpi:g}")
        if max_bytes is not None and max_bytes < 1:
            raise ParameterError(f"max_bytes must be at least 1, got {max_bytes}")
        path = Path(target) if isinstance(target, (str, Path)) else None
        wanted = formats.format_named(format) if format else (formats.format_of(path) if path else None) or self.format
        if path is not None and path.exists() and not overwrite:
            raise OutputError(f"{path}: already exists; name another output or allow overwriting")
        over_source = path is not None and path.exists() and self.path is not None and path.samefile(self.path)
        if over_source:
            _ = self.digest  # the bytes it is taken from are about to be replaced

        def encode(out: BinaryIO) -> tuple[str, list[str]]:
            with self._lock, self._edited(windows, size, in_place, over_source) as edited:
                notes = [saving.to_srgb(edited, self.icc)] if srgb else []
                if dpi is not None:
                    edited.changes = replace(edited.changes, dpi=(float(dpi), float(dpi)))
                if max_bytes is None:
                    mode, said = self._write(edited, out, quality, wanted)
                    return mode, notes + said
                # A WebP that was lossless stays so; another picture becomes a lossy one where a quality is given.
                lossy = wanted == "JPEG" or (wanted == "WEBP" and not (self.format == "WEBP" and self.lossless))
                memory, mode, said = saving.within(
                    str(path or "the picture"), functools.partial(self._write, edited, wanted=wanted), max_bytes,
                    quality, lossy=lossy,
                )  # fmt: skip
                out.write(memory.getbuffer())
                return mode, notes + said

        if path is None:
            memory = io.BytesIO()
            mode, notes = encode(memory)
            stream = cast(BinaryIO, target)
            try:
                stream.write(memory.getbuffer())
            except OSError as error:
                raise OutputError(f"the output stream cannot be written ({error})") from error
            length = len(memory.getbuffer())
        else:
            permissions = self._picture.source.permissions
            with whole_file(path, overwrite=overwrite, permissions=permissions, check=check) as out:
                mode, notes = encode(out)
                length = out.seek(0, io.SEEK_END)
        return Saved(path, wanted, mode, tuple(dict.fromkeys(notes)), length)

    @contextlib.contextmanager
    def _edited(
        self, windows: Iterable[tuple[Box, Array]], size: Size | None, in_place: bool, keep: bool
    ) -> Iterator[Edited]:
        """The photo with windows laid on, which its raster holds only meanwhile, or the new picture they make."""
        if size is not None:
            yield self._anew(windows, size, in_place, keep)
            return
        laid = [(box, np.asarray(pixels)) for box, pixels in windows]  # all, as they may be read here meanwhile
        edited = Edited(self._decoded(), self._picture.space)
        try:
            for box, pixels in laid:
                where = self._stored(box)
                self._check(pixels, f"window {box}", box)
                edited.paste(where, to_stored(pixels, self.orientation))
            yield edited
        finally:
            edited.undo()

    def _anew(self, windows: Iterable[tuple[Box, Array]], size: Size, in_place: bool, keep: bool) -> Edited:
        """A new picture made of `windows`; with `keep` the decoded photo stays, because it cannot be decoded again."""
        own = self._decoded()
        sparing = own.size.area > SPARING and not self._picture.made_here and not keep
        whole, edited, covered = Box.of_size(size), None, 0
        spent = False
        try:
            for box, pixels in windows:
                self._check(pixels, f"window {box}", box)
                if edited is None:
                    alpha = pixels.shape[2] > self.channels
                    given = own if in_place and sparing and self._lends(own, alpha) else None
                    spent = given is not None
                    edited = Edited.anew(self._picture, upright_size(size, self.orientation), alpha=alpha, over=given)
                if not whole.contains(box) or pixels.shape[2] != edited.space.bands:
                    raise ParameterError(f"window {box}: is no part of a picture of {size} like those before it")
                edited.write(stored_box(box, size, self.orientation), to_stored(pixels, self.orientation))
                covered += box.area
        finally:
            if spent:
                self._raster = None  # no longer the photo
        if edited is None or covered != size.area:
            raise ParameterError(f"the windows cover {covered} of the {size.area} pixels of a picture of {size}")
        if sparing:
            self._raster = None  # two large pictures and what an encoder needs would be more than is necessary
        return edited

    def _lends(self, raster: Raster, alpha: bool) -> bool:
        """Whether the raster can hold the new picture; it then has its alpha, if it needs one."""
        space = self._picture.space
        if space != Direct(space.channels, space.alpha, space.depth) or raster.bands != space.bands:
            return False
        return alpha == space.alpha or (isinstance(raster, ImageRaster) and raster.add_alpha())

    def _write(self, edited: Edited, out: BinaryIO, quality: int | None, wanted: str) -> tuple[str, list[str]]:
        if wanted != self.format or self._picture.made_here:
            return convert(self._picture, edited, out, wanted, quality)
        notes = self._picture.rewrite(edited, out, quality)
        anew = edited.promoted or (edited.changes.size is not None and wanted == "TIFF")
        return (f"{edited.words} {wanted}" if anew else self.mode), notes

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
