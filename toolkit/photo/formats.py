"""Which kind of file a photo is, told from its first bytes, and why other kinds are refused."""

from __future__ import annotations

from pathlib import PurePath

from toolkit.errors import OutputError, PhotoError, UnknownNameError
from toolkit.geometry import Size
from toolkit.photo.bmp import BmpFile
from toolkit.photo.jpeg import JpegFile
from toolkit.photo.picture import PictureFile, sentences
from toolkit.photo.png import PngFile
from toolkit.photo.source import Source
from toolkit.photo.tiff import TiffFile
from toolkit.photo.webp import WebpFile

SUFFIXES = {
    ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".mpo": "JPEG",
    ".png": "PNG", ".tif": "TIFF", ".tiff": "TIFF", ".webp": "WEBP", ".bmp": "BMP", ".dib": "BMP",
}  # fmt: skip
_NAMES = {"JPG": "JPEG", "TIF": "TIFF"}
SUFFIX_OF = {"JPEG": ".jpg", "PNG": ".png", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp"}
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP")
_CONVERT = "convert it to PNG, JPEG or TIFF first"
_RAW = "is a camera RAW file ({}); develop it to TIFF or JPEG first"

_OTHER = (
    (b"GIF8", "is a GIF; " + _CONVERT),
    (b"8BPS", "is a Photoshop document (PSD); export it as TIFF or PNG first"),
    (b"\0\0\0\x0cjP  ", "is a JPEG 2000 file; " + _CONVERT),
    (b"\xff\x4f\xff\x51", "is a JPEG 2000 file; " + _CONVERT),
    (b"\xff\x0a", "is a JPEG XL file; " + _CONVERT),
    (b"\0\0\0\x0cJXL ", "is a JPEG XL file; " + _CONVERT),
    (b"II\xbc", "is a JPEG XR file; " + _CONVERT),
    (b"FUJIFILMCCD-RAW", _RAW.format("Fujifilm RAF")),
    (b"IIRO", _RAW.format("Olympus ORF")),
    (b"IIRS", _RAW.format("Olympus ORF")),
    (b"MMOR", _RAW.format("Olympus ORF")),
    (b"IIU\0", _RAW.format("Panasonic RW2")),
    (b"FOVb", _RAW.format("Sigma X3F")),
    (b"\0MRM", _RAW.format("Minolta MRW")),
    (b"v/1\x01", "is an OpenEXR file; " + _CONVERT),
    (b"#?RADIANCE", "is a Radiance HDR file; " + _CONVERT),
    (b"\0\0\x01\0", "is an icon file; " + _CONVERT),
    (b"%PDF", "is a PDF document, not a photo; export the page as PNG or TIFF first"),
    (b"%!PS", "is a PostScript document, not a photo; export it as PNG or TIFF first"),
    (b"gimp xcf", "is a GIMP document; export it as TIFF or PNG first"),
    (b"qoif", "is a QOI file; " + _CONVERT),
    (b"BPG\xfb", "is a BPG file; " + _CONVERT),
    (b"PK\x03\x04", "is a ZIP archive, not a photo"),
    (b"\x1f\x8b", "is a gzip archive, not a photo"),
)
_BRANDS = {
    b"avif": "an AVIF file", b"avis": "an animated AVIF file", b"heic": "a HEIC file", b"heix": "a HEIC file",
    b"heim": "a HEIC file", b"heis": "a HEIC file", b"hevc": "a HEIC sequence", b"mif1": "a HEIF file",
    b"msf1": "a HEIF sequence",
}  # fmt: skip


def identify(source: Source, max_pixels: int) -> PictureFile:
    """Read the header of a picture file.

    Raises:
        PhotoError: when it is no picture of a known kind, is damaged, or has more than `max_pixels` pixels.
    """
    head = source.read(0, 64)
    kind: type[PictureFile]
    if head.startswith(b"\xff\xd8"):
        kind = JpegFile
    elif head.startswith(b"\x89PNG\r\n\x1a\n"):
        kind = PngFile
    elif head[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        kind = TiffFile
    elif head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        kind = WebpFile
    elif head.startswith(b"BM") and len(head) >= 26:
        kind = BmpFile
    else:
        raise PhotoError(f"{source.name}: {_refusal(head, source)}")
    with sentences(source.name, "its header is damaged"):
        picture: PictureFile = kind(source)
    check_size(source.name, picture.size, max_pixels)
    return picture


def check_size(name: str, size: Size, max_pixels: int) -> None:
    """Refuse a picture of more than `max_pixels` pixels."""
    if size.area > max_pixels:
        raise PhotoError(
            f"{name}: has {size} pixels ({size.megapixels:.0f} megapixels), more than the limit of "
            f"{max_pixels / 1e6:g} megapixels; raise max_pixels (--max-megapixels) if the file is trusted"
        )


def format_of(target: PurePath) -> str | None:
    """The format a file name asks for, or None where it has no suffix.

    Raises:
        OutputError: when the suffix is none that can be written.
    """
    suffix = target.suffix.lower()
    if not suffix:
        return None
    if suffix not in SUFFIXES:
        raise OutputError(f"{target}: cannot write {suffix} files; use .jpg, .png, .tif, .webp or .bmp")
    return SUFFIXES[suffix]


def format_named(name: str) -> str:
    """The format's own name for what a caller wrote; `UnknownNameError` for others."""
    upper = _NAMES.get(name.upper().lstrip("."), name.upper().lstrip("."))
    if upper not in FORMATS:
        raise UnknownNameError("format", "picture format", name, FORMATS)
    return upper


def _refusal(head: bytes, source: Source) -> str:
    for start, sentence in _OTHER:
        if head.startswith(start):
            return sentence
    if head[4:8] == b"ftyp":
        if head[8:11] == b"crx":
            return _RAW.format("Canon CR3")
        brand = _BRANDS.get(head[8:12])
        return f"is {brand}; {_CONVERT}" if brand else "is a film or another media file, not a photo"
    text = source.read(0, 512).lstrip().lower()
    if text.startswith((b"<svg", b"<?xml")) and b"svg" in text:
        return "is an SVG drawing, not a photo; render it to PNG first"
    if text.startswith((b"<!doctype html", b"<html")):
        return "is a web page, not a photo"
    if not head.strip(b"\0"):
        return f"holds only zero bytes ({source.length} of them); the file is damaged"
    return "is not a picture file of a known kind (JPEG, PNG, TIFF, WebP and BMP can be edited)"
