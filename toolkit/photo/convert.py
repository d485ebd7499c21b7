"""Saving in another format than the source's: metadata goes along where the format can, losses are said."""

from __future__ import annotations

import zlib
from typing import BinaryIO

from PIL import Image

from toolkit.errors import OutputError
from toolkit.photo import exif, previews, restate
from toolkit.photo.bmp import write_bmp
from toolkit.photo.jpeg import Segment, encode, flattened
from toolkit.photo.picture import Edited, Metadata, PictureFile
from toolkit.photo.pngwriter import chunk, write_png
from toolkit.photo.raster import ImageRaster, Raster
from toolkit.photo.tiffwriter import write_tiff
from toolkit.photo.webp import Part, encoded, write_webp

QUALITY = 95
_SEGMENT = 65533
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def convert(
    picture: PictureFile, edited: Edited, out: BinaryIO, wanted: str, quality: int | None
) -> tuple[str, list[str]]:
    """Write an edited picture in the format `wanted`.

    Returns:
        The mode written, in words, and sentences about what was lost.
    """
    notes: list[str] = []
    data = Metadata()
    changes = edited.changes
    data.icc, data.orientation = changes.profile(picture.metadata.icc), picture.metadata.orientation
    data.dpi = changes.dpi or picture.metadata.dpi
    data.exif = _exif(picture, edited, notes)
    if picture.metadata.xmp:
        data.xmp, said = previews.clean_xmp(restate.xmp(picture.metadata.xmp, changes))
        notes += [said] if said else []
    space = edited.space
    words = edited.words
    if space.depth == 16 and wanted in ("JPEG", "WEBP", "BMP"):
        notes.append(f"{wanted} holds 8 bits: the picture was reduced from 16 bits")
        words = words.replace("16", "8", 1)
    if picture.format in ("JPEG", "PNG", "TIFF") and not picture.made_here:
        notes.append(f"only colour profile, EXIF, XMP and resolution were carried from {picture.format} to {wanted}")
    if quality is not None and wanted in ("PNG", "TIFF", "BMP"):
        notes.append(f"{wanted} is lossless: the quality was not used")
    if wanted == "JPEG":
        if space.alpha:
            notes.append("JPEG has no transparency: the picture was laid on white")
            words = words.replace(" with alpha", "")
        raster = flattened(edited) if space.alpha else edited.plain(depth=8)
        notes.append(f"JPEG is lossy: the picture was encoded at quality {quality or QUALITY}, 4:4:4")
        encode(raster, out, _segments(data, notes), {"quality": quality or QUALITY, "subsampling": 0})
    elif wanted == "PNG":
        write_png(edited.plain(), space.depth, out, before=_chunks(data), after=b"", effort=6)
    elif wanted == "WEBP":
        if data.dpi and not exif.resolution(data.exif):
            notes.append("WebP has no place for the resolution: it was left out")
        raster = edited.plain(depth=8)
        image = raster.image()
        image = image if image.mode in ("RGB", "RGBA") else image.convert("RGBA" if space.alpha else "RGB")
        lossless = picture.lossless and quality is None
        notes.append(
            "the WebP was saved lossless"
            if lossless
            else f"WebP is lossy: the picture was encoded at quality {quality or 90}"
        )
        write_webp(
            out, _parts(data, encoded(image, lossless=lossless, quality=quality)), edited.size, alpha=space.alpha
        )
    elif wanted == "BMP":
        lost = [
            what for what, there in (("EXIF", data.exif), ("XMP", data.xmp), ("the colour profile", data.icc)) if there
        ]
        if lost:
            notes.append(f"BMP carries no metadata: {', '.join(lost)} were left out")
        write_bmp(_upright(edited.plain(depth=8), data.orientation), out, data.dpi)
    elif wanted == "TIFF":
        notes += write_tiff(edited.plain(), data, out)
    else:
        raise OutputError(f"cannot write {wanted}")
    return f"{words} {wanted}", notes


def _exif(picture: PictureFile, edited: Edited, notes: list[str]) -> bytes | None:
    """The EXIF block to carry along, its thumbnail renewed and the orientation in it where it came from elsewhere."""
    block = picture.metadata.exif
    if block:
        block, said = exif.renew_thumbnail(restate.exif_block(block, edited.changes), edited.miniature)
        notes += [said] if said else []
    wanted = picture.metadata.orientation
    if wanted != (exif.orientation(block) or 1):
        if block:
            notes.append("the EXIF data has no orientation to go with the picture's and was replaced")
        block = exif.only_orientation(wanted)
    return block


def _segments(data: Metadata, notes: list[str]) -> list[Segment]:
    found: list[Segment] = []
    density = [min(65535, round(n)) for n in data.dpi] if data.dpi else [1, 1]
    unit = b"\x01" if data.dpi else b"\x00"
    found.append(Segment(0xE0, b"JFIF\0\x01\x01" + unit + b"".join(n.to_bytes(2, "big") for n in density) + b"\0\0"))
    if data.exif and len(data.exif) + 6 <= _SEGMENT:
        found.append(Segment(0xE1, b"Exif\0\0" + data.exif))
    elif data.exif:
        notes.append("the EXIF data is too long for JPEG and was left out")
        if data.orientation != 1:
            found.append(Segment(0xE1, b"Exif\0\0" + exif.only_orientation(data.orientation)))
    if data.xmp and len(data.xmp) + len(previews.XMP) <= _SEGMENT:
        found.append(Segment(0xE1, previews.XMP + data.xmp))
    elif data.xmp:
        notes.append("the XMP data is too long for JPEG and was left out")
    if data.icc:
        room = _SEGMENT - len(previews.ICC) - 2
        parts = [data.icc[at : at + room] for at in range(0, len(data.icc), room)]
        if len(parts) < 256:
            found += [
                Segment(0xE2, previews.ICC + bytes((i, len(parts))) + part) for i, part in enumerate(parts, start=1)
            ]
    return found


def _chunks(data: Metadata) -> bytes:
    found = b""
    if data.icc:
        found += chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(data.icc, 9))
    if data.dpi:
        found += chunk(b"pHYs", b"".join(round(n / 0.0254).to_bytes(4, "big") for n in data.dpi) + b"\1")
    if data.exif:
        found += chunk(b"eXIf", data.exif)
    if data.xmp:
        found += chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + data.xmp)
    return found


def _parts(data: Metadata, picture: list[Part]) -> list[Part]:
    found = [Part(b"ICCP", data.icc)] if data.icc else []
    found += picture
    if data.exif:
        found.append(Part(b"EXIF", data.exif))
    if data.xmp:
        found.append(Part(b"XMP ", data.xmp))
    return found


def _upright(raster: Raster, orientation: int) -> Raster:
    """The raster turned upright, for formats that cannot say how a picture is stored."""
    if orientation == 1:
        return raster
    turned = raster.image().transpose(_TURNS[orientation])
    return ImageRaster(turned)
