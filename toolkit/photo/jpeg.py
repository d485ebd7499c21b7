"""JPEG: decoded and encoded by Pillow with the file's own tables; all other segments are put back as they were."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import BinaryIO, cast

from PIL import Image, ImageFile, JpegImagePlugin

from toolkit.errors import PhotoError
from toolkit.geometry import Size
from toolkit.photo import exif, previews, restate
from toolkit.photo.picture import Edited, PictureFile, eight_bits, sentences
from toolkit.photo.raster import Direct, ImageRaster, Raster, strips
from toolkit.photo.source import Range, Source, Splice

_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_ALONE = {0x01, *range(0xD0, 0xD8)}
_STANDARD_CODES = bytes((0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125))  # ITU-T T.81, table K.5
_SUBSAMPLINGS = {(1, 1): 0, (2, 1): 1, (2, 2): 2}
_LARGEST_SIDE = 65535
LARGEST_BUFFERED = 40_000_000
"""Pixels of a new picture up to which the encoder may hold all of its coefficients, up to 6 bytes a pixel."""


@dataclass(frozen=True)
class Segment:
    """A marker with its payload (without the two length bytes)."""

    marker: int
    payload: bytes

    @property
    def carried(self) -> bool:
        """True for application segments and comments."""
        return 0xE0 <= self.marker <= 0xEF or self.marker == 0xFE

    def bytes(self) -> bytes:
        """As it stands in a file."""
        return bytes((0xFF, self.marker)) + (len(self.payload) + 2).to_bytes(2, "big") + self.payload


@dataclass
class _Header:
    segments: list[Segment] = field(default_factory=list)
    scan: int = 0
    junk: int = 0


class JpegFile(PictureFile):
    """A JPEG file; `segments` are all marker segments before the first scan."""

    format = "JPEG"
    lossless = False

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        with source.open() as stream:
            header = _header(stream, source)
        self.segments, self._scan = header.segments, header.scan
        frame = next(s for s in self.segments if s.marker in _FRAMES)
        self._frame = frame.marker
        self.size = Size(int.from_bytes(frame.payload[3:5], "big"), int.from_bytes(frame.payload[1:3], "big"))
        self._refuse(frame)
        channels = frame.payload[5]
        self.space = Direct(channels)
        self._rgb = channels == 3 and self._stored_as_rgb(frame)
        self._layers = [
            (p[0], p[1] >> 4, p[1] & 15, p[2])
            for p in (frame.payload[i : i + 3] for i in range(6, 6 + 3 * channels, 3))
        ]
        kind = "progressive" if frame.marker in (0xC2, 0xCA) else "baseline"
        self.mode = f"8-bit {'grey' if channels == 1 else 'RGB'} JPEG, {kind}{self._sampling_words()}"
        if header.junk:
            self.notes.append(f"{header.junk} bytes in the file's header belong to nothing and are left out on saving")
        self._read_metadata()

    def _refuse(self, frame: Segment) -> None:
        name, payload = self.source.name, frame.payload
        if len(payload) < 6 or len(payload) < 6 + 3 * payload[5]:
            raise PhotoError(f"{name}: the JPEG header is damaged")
        if min(self.size) == 0:
            raise PhotoError(f"{name}: the JPEG header says {self.size} pixels; the file is damaged")
        if payload[5] == 4:
            raise PhotoError(f"{name}: is a CMYK JPEG; convert it to RGB first")
        if payload[0] != 8:
            raise PhotoError(f"{name}: is a {payload[0]}-bit JPEG; only 8-bit ones can be edited, convert it first")
        if frame.marker not in (0xC0, 0xC1, 0xC2, 0xC9, 0xCA) or payload[5] not in (1, 3):
            raise PhotoError(
                f"{name}: is a JPEG of a rare kind (process {frame.marker - 0xC0}, {payload[5]} "
                "components); convert it to PNG or TIFF first"
            )

    def _stored_as_rgb(self, frame: Segment) -> bool:
        if any(s.marker == 0xE0 and s.payload.startswith(b"JFIF\0") for s in self.segments):
            return False
        for segment in self.segments:
            if segment.marker == 0xEE and segment.payload.startswith(b"Adobe") and len(segment.payload) >= 12:
                return segment.payload[11] == 0
        return frame.payload[6:15:3] == b"RGB"

    def _sampling_words(self) -> str:
        if len(self._layers) == 1:
            return ""
        factors = [layer[1:3] for layer in self._layers]
        names = {(1, 1): "4:4:4", (2, 1): "4:2:2", (2, 2): "4:2:0", (1, 2): "4:4:0", (4, 1): "4:1:1"}
        name = names.get(factors[0]) if factors[1:] == [(1, 1)] * 2 else None
        return ", " + (name or "/".join(f"{x}x{y}" for x, y in factors))

    def _read_metadata(self) -> None:
        data = self.metadata
        blocks = [s.payload[6:] for s in self.segments if s.marker == 0xE1 and s.payload.startswith(b"Exif\0")]
        data.exif = b"".join(blocks) or None
        data.orientation = exif.orientation(data.exif) or 1
        data.icc = previews.joined_icc([s.payload for s in self.segments if s.marker == 0xE2])
        data.dpi = exif.resolution(data.exif)
        for segment in self.segments:
            if segment.marker == 0xE1 and segment.payload.startswith(previews.XMP) and data.xmp is None:
                data.xmp = segment.payload[len(previews.XMP) :]
            if segment.marker == 0xE0 and segment.payload.startswith(b"JFIF\0") and len(segment.payload) >= 12:
                unit = {1: 1.0, 2: 2.54}.get(segment.payload[7])
                x, y = (int.from_bytes(segment.payload[i : i + 2], "big") for i in (8, 10))
                if unit and x and y:
                    data.dpi = (x * unit, y * unit)

    def decode(self) -> Raster:
        return self.decode_reduced(1)

    def decode_reduced(self, factor: int) -> Raster:
        shown = [s for s in self.segments if not s.carried or previews.steers_decoding(s.marker, s.payload)]
        head = b"\xff\xd8" + b"".join(s.bytes() for s in shown)
        with self.source.open() as stream, sentences(self.source.name):
            spliced = Splice(stream, [head, Range(self._scan, self.source.length - self._scan)])
            image = JpegImagePlugin.JpegImageFile(cast(BinaryIO, spliced))
            if factor > 1:
                image.draft(None, (max(1, self.size.width // factor), max(1, self.size.height // factor)))
            try:
                image.load()
            except OSError as error:
                raise PhotoError(f"{self.source.name}: {_how_truncated(image, error)}") from error
            # The decoder reads in blocks up to the end marker: only what it read last can hold it.
            self._late = max(self._scan, self._scan + spliced.tell() - len(head) - 4 * ImageFile.MAXBLOCK)
            self._tables: dict[int, list[int]] = image.quantization
        image.info = {}
        return ImageRaster(image)

    def rewrite(self, edited: Edited, out: BinaryIO, quality: int | None) -> list[str]:
        notes: list[str] = []
        raster = edited.raster
        if edited.space.alpha:
            raster = flattened(edited)
            notes.append("JPEG has no transparency: the picture was laid on white")
        options: dict[str, object] = {"progressive": self._frame in (0xC2, 0xCA), "keep_rgb": self._rgb}
        factors = [layer[1:3] for layer in self._layers]
        options["subsampling"] = _SUBSAMPLINGS.get(factors[0], 0) if factors[1:] == [(1, 1)] * 2 else 0
        if len(factors) == 3 and (factors[1:] != [(1, 1)] * 2 or factors[0] not in _SUBSAMPLINGS):
            notes.append(f"the chroma subsampling{self._sampling_words()[1:]} cannot be written; 4:4:4 was used")
        if self._frame in (0xC9, 0xCA):
            notes.append("the arithmetic coding was replaced by Huffman coding")
        if quality is None:
            tables = [self._tables[layer[3]] for layer in self._layers]
            while len(tables) > 1 and tables[-1] == tables[-2]:
                tables.pop()
            options["qtables"] = tables
        else:
            options["quality"] = quality
        interval = next((s.payload for s in self.segments if s.marker == 0xDD), b"")
        if len(interval) == 2 and any(interval):
            options["restart_marker_blocks"] = int.from_bytes(interval, "big")
        codes = [s.payload for s in self.segments if s.marker == 0xC4]
        options["optimize"] = bool(codes) and not any(_STANDARD_CODES in code for code in codes)
        carried = [(s.marker, s.payload) for s in self.segments if s.carried]
        kept, said = previews.renewed(carried, edited.miniature)
        notes += said
        kept, said = restate.jpeg_segments(kept, edited.changes, may_add=not self._rgb)
        notes += said
        extra = _bytes_after_end(self.source, self._late)
        if extra > 16:
            notes.append(
                f"{extra} bytes after the end of the picture (a second picture, a film or a preview) were left out"
            )
        if self.source.length - self._scan > 1.9 * edited.size.area:
            options |= {"progressive": False, "optimize": False}  # Pillow gives such files too small a buffer
        sparing = edited.made_anew and edited.size.area > LARGEST_BUFFERED
        if sparing:
            options |= {"progressive": False, "optimize": False}
        if not encode(raster, out, [Segment(*pair) for pair in kept], options):
            options["progressive"] = False
        if self._frame in (0xC2, 0xCA) and not options["progressive"]:
            why = "large" if sparing else "detailed"
            notes.append(f"the picture is too {why} for the progressive encoder: it was saved as baseline JPEG")
        return notes


def encode(raster: Raster, out: BinaryIO, segments: list[Segment], options: dict[str, object]) -> bool:
    """Write a grey or RGB raster as JPEG that carries exactly `segments`; `options` are Pillow's.

    Returns:
        False when the picture needed the plain baseline encoder although others were asked for.
    """
    start = out.tell()
    head = b"\xff\xd8" + b"".join(s.bytes() for s in segments)
    swap = _HeadSwap(out, head)
    try:
        raster.image().save(cast(BinaryIO, swap), "JPEG", **options)
    except OSError as error:
        if error.errno is not None or not (options.get("progressive") or options.get("optimize")):
            raise
        out.seek(start)
        out.truncate()
        swap = _HeadSwap(out, head)
        raster.image().save(cast(BinaryIO, swap), "JPEG", **{**options, "progressive": False, "optimize": False})
        swap.finish()
        return False
    swap.finish()
    return True


def flattened(edited: Edited) -> Raster:
    """The colours laid on white, in 8 bits."""
    mode = "L" if edited.space.channels == 1 else "RGB"
    new = ImageRaster(Image.new(mode, edited.size))
    for box in strips(edited.size):
        pixels = eight_bits(edited.space.pixels(edited.raster.read(box))).astype("uint32")
        alpha = pixels[..., -1:]
        colour = (pixels[..., :-1] * alpha + 255 * (255 - alpha) + 127) // 255
        new.write(box, colour.astype("uint8"))
    return new


class _HeadSwap:
    """Takes what Pillow writes and puts our own segments in place of its application segments."""

    def __init__(self, out: BinaryIO, head: bytes) -> None:
        self._out = out
        self._head = head
        self._pending: bytes | None = b""

    def write(self, data: bytes) -> int:
        if self._pending is None:
            self._out.write(data)
            return len(data)
        self._pending += data
        at = 2
        while at + 4 <= len(self._pending):
            marker = self._pending[at + 1]
            if not (0xE0 <= marker <= 0xEF or marker == 0xFE):
                self._out.write(self._head)
                self._out.write(memoryview(self._pending)[at:])
                self._pending = None
                break
            at += 2 + int.from_bytes(self._pending[at + 2 : at + 4], "big")
        return len(data)

    def flush(self) -> None:
        """Nothing to do; Pillow asks for it."""

    def finish(self) -> None:
        """Check that the header came through."""
        if self._pending is not None:
            raise OSError("the JPEG encoder wrote no picture")


def _header(stream: BinaryIO, source: Source) -> _Header:
    name = source.name
    header = _Header()
    stream.seek(2)
    while True:
        byte = stream.read(1)
        while byte and byte != b"\xff":
            header.junk += 1
            byte = stream.read(1)
        start = stream.tell() - 1
        while byte == b"\xff":
            byte = stream.read(1)
        if not byte:
            raise PhotoError(f"{name}: is truncated; the file ends after {source.length} bytes, within its header")
        marker = byte[0]
        if marker == 0:
            header.junk += 2
            continue
        if marker in _ALONE or marker == 0xD8:
            continue
        if marker == 0xD9:
            raise PhotoError(f"{name}: is a JPEG file without a picture")
        if marker == 0xDA:
            if not any(s.marker in _FRAMES for s in header.segments):
                raise PhotoError(f"{name}: the JPEG header is damaged; it says no picture size")
            header.scan = start
            return header
        length = int.from_bytes(stream.read(2), "big") - 2
        payload = stream.read(max(0, length))
        if length < 0:
            raise PhotoError(f"{name}: the JPEG header is damaged (at byte {start})")
        if len(payload) < length:
            raise PhotoError(f"{name}: is truncated; the file ends after {source.length} bytes, within its header")
        header.segments.append(Segment(marker, payload))


def _how_truncated(image: Image.Image, error: OSError) -> str:
    if "truncated" not in str(error):
        return f"is damaged ({error})"
    shown = image.im.getbbox()
    height = image.size[1]
    if shown and shown[3] < height - 16:
        missing = 100 * (height - shown[3]) / height
        return f"is truncated; about {missing:.0f}% of the picture is missing (from row {shown[3]} of {height})"
    return "is truncated; the file ends before the end of the picture"


def _bytes_after_end(source: Source, late: int) -> int:
    """How many bytes follow the end-of-image marker, which lies behind `late`."""
    with source.open() as stream:
        stream.seek(late)
        data = stream.read()
    return len(data) - _end(data)


def _end(data: bytes) -> int:
    at = data.find(b"\xff\xd9")
    if at < 0 or at + 2 == len(data):
        return len(data)
    at = 0
    while True:  # the pair may also lie in a table between two scans: walk from marker to marker
        at = data.find(b"\xff", at)
        if at < 0 or at + 4 > len(data):
            return len(data)
        marker = data[at + 1]
        if marker == 0xD9:
            return at + 2
        if marker in (0, 0xFF) or marker in _ALONE:
            at += 1 if marker == 0xFF else 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
