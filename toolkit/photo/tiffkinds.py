"""Which TIFF files can be edited, and which further pictures one holds."""

from __future__ import annotations

from toolkit.errors import PhotoError
from toolkit.photo.tags import BadTags, Directory, Tags
from toolkit.photo.tiffcodec import NAMES

_RAW_PHOTOMETRIC = {32803, 34892}
_RAW_COMPRESSION = {34713, 32767, 32770, 65535, 34892}
_OTHER_COLOURS = {5: "CMYK", 6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32844: "LogL", 32845: "LogLuv"}
BY_LIBTIFF = {2: "CCITT", 3: "CCITT G3", 4: "CCITT G4", 7: "JPEG", 34925: "LZMA", 50000: "Zstandard", 50001: "WebP"}


def further_pictures(tags: Tags, first: Directory, name: str) -> list[Directory]:
    """Reduced pictures in the file, which show the old one; further pages are refused."""
    found: list[Directory] = []
    seen, at = {tags.first}, first.next
    while at and at not in seen and len(seen) < 1000:
        seen.add(at)
        try:
            further = tags.directory(at)
        except BadTags:
            break
        at = further.next
        if not tags.number(further.entries.get(254)) & 1:
            raise PhotoError(f"{name}: has several pages; save the page to be edited as a file of its own first")
        found.append(further)
    for start in tags.numbers(first.entries.get(330))[:64]:
        try:
            further = tags.directory(start)
        except BadTags:
            continue
        if (
            tags.number(further.entries.get(262)) in _RAW_PHOTOMETRIC
            or tags.number(further.entries.get(259)) in _RAW_COMPRESSION
        ):
            raise PhotoError(f"{name}: is a camera RAW file; develop it to TIFF or JPEG first")
        found.append(further)
    return found


def refuse(tags: Tags, first: Directory, name: str) -> None:
    """`PhotoError` for kinds of pictures that cannot be edited without loss."""

    def number(tag: int, default: int) -> int:
        return tags.number(first.entries.get(tag), default)

    bits = set(tags.numbers(first.entries.get(258))) or {1}
    formats = set(tags.numbers(first.entries.get(339))) or {1}
    samples, photometric, compression = number(277, 1), number(262, -1), number(259, 1)
    if photometric in _RAW_PHOTOMETRIC or compression in _RAW_COMPRESSION:
        raise PhotoError(f"{name}: is a camera RAW file; develop it to TIFF or JPEG first")
    if formats - {1, 4}:
        kind = "floating-point" if 3 in formats else "signed"
        raise PhotoError(f"{name}: is a TIFF of {kind} values; convert it to 8 or 16 bits first")
    if len(bits) != 1 or not bits <= {1, 2, 4, 8, 16}:
        raise PhotoError(
            f"{name}: is a TIFF of {'/'.join(map(str, sorted(bits)))} bits a sample; convert it to 8 or 16 bits first"
        )
    ycc = photometric == 6 and compression == 7 and samples == 3 and bits == {8}
    if photometric in _OTHER_COLOURS and not ycc:
        raise PhotoError(f"{name}: is a {_OTHER_COLOURS[photometric]} TIFF; convert it to RGB first")
    if photometric not in (0, 1, 2, 3, 6):
        raise PhotoError(f"{name}: is a TIFF of an unknown kind of colour (photometric {photometric})")
    if compression not in NAMES and compression not in BY_LIBTIFF:
        raise PhotoError(f"{name}: is a TIFF with an unknown compression ({compression}); save it with LZW or deflate")
    needed = 3 if photometric in (2, 6) else 1
    low = max(bits) < 8 and (samples != 1 or number(317, 1) != 1 or photometric == 2)
    if not needed <= samples <= 16 or low or (photometric == 3 and (samples != 1 or max(bits) > 8)):
        raise PhotoError(
            f"{name}: is a TIFF of a rare kind ({samples} samples of {max(bits)} bits, photometric "
            f"{photometric}); convert it to 8 or 16-bit RGB first"
        )
    if number(317, 1) not in (1, 2):
        raise PhotoError(f"{name}: is a TIFF with floating-point prediction; convert it to 8 or 16 bits first")
