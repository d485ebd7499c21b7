"""Carried segments and packets: what shows the old picture is drawn again or taken out, the rest stays as it is."""

from __future__ import annotations

import re

from toolkit.photo import exif
from toolkit.photo.exif import Miniature

XMP = b"http://ns.adobe.com/xap/1.0/\0"
EXTENDED_XMP = b"http://ns.adobe.com/xmp/extension/\0"
ICC = b"ICC_PROFILE\0"
_PHOTOSHOP = b"Photoshop 3.0\0"
_GAIN_MAP = b"urn:iso:std:iso:ts:21496:-1\0"
_THUMBNAILS = (0x0409, 0x040C)

_XMP_PICTURES = re.compile(
    rb"\s*<(?P<tag>xmp:Thumbnails|xap:Thumbnails|Container:Directory|GContainer:Directory)\b[^>]*?"
    rb"(?:/>|>.*?</(?P=tag)>)",
    re.DOTALL,
)
_XMP_ATTRIBUTES = re.compile(
    rb"\s+(?:hdrgm|HDRGainMap|GCamera:MotionPhoto\w*|GCamera:MicroVideo\w*|Camera:MotionPhoto\w*)"
    rb"(?::\w+)?=(?:\"[^\"]*\"|'[^']*')"
)
_EXTENDED_PICTURES = re.compile(rb"GImage:|GDepth:|Thumbnails|Container:Directory")
_HAS_EXTENDED = re.compile(rb"\s+xmpNote:HasExtendedXMP=(?:\"[^\"]*\"|'[^']*')")

Pair = tuple[int, bytes]


def steers_decoding(marker: int, payload: bytes) -> bool:
    """True for the application segments a decoder needs: JFIF and Adobe."""
    return (marker == 0xE0 and payload.startswith(b"JFIF\0")) or (marker == 0xEE and payload.startswith(b"Adobe"))


def joined_icc(payloads: list[bytes]) -> bytes | None:
    """The ICC profile from its APP2 payloads, or None when there is none or a part is missing."""
    parts = {p[12]: p[14:] for p in payloads if p.startswith(ICC) and len(p) > 14}
    total = next((p[13] for p in payloads if p.startswith(ICC) and len(p) > 14), 0)
    if not parts or set(parts) != set(range(1, total + 1)):
        return None
    return b"".join(parts[i] for i in sorted(parts))


def renewed(pairs: list[Pair], miniature: Miniature) -> tuple[list[Pair], list[str]]:
    """The application segments and comments of an edited JPEG, and the sentences about those that changed.

    Args:
        pairs: (marker, payload) in file order.
        miniature: gives the edited picture in a small size.
    """
    notes: dict[str, None] = {}
    kept: list[Pair] = []
    pairs = _photoshop(pairs, notes)
    pairs = _extended_xmp(pairs, notes)
    for marker, payload in pairs:
        said: str | None = None
        new: bytes | None = payload
        if marker == 0xE0:
            new, said = _jfif(payload)
        elif marker == 0xE1 and payload.startswith(b"Exif\0"):
            block, said = exif.renew_thumbnail(payload[6:], miniature)
            new = payload[:6] + block
        elif marker == 0xE1 and payload.startswith(XMP):
            packet, said = clean_xmp(payload[len(XMP) :])
            new = XMP + packet
        elif marker == 0xE2 and payload.startswith(b"MPF\0"):
            new, said = None, "the further pictures in the file (previews, a second view or a gain map) were left out"
        elif marker == 0xE2 and payload.startswith(_GAIN_MAP):
            new, said = None, "the HDR gain map belongs to the old picture and was left out"
        elif marker == 0xEB and b"c2pa" in payload[:200]:
            new, said = None, "the content credentials (C2PA) were signed for the old picture and were left out"
        if new is not None:
            kept.append((marker, new))
        if said:
            notes[said] = None
    return kept, list(notes)


def xmp_orientation(packet: bytes | None) -> int | None:
    """The value 1 to 8 of `tiff:Orientation` in an XMP packet, or None."""
    found = re.search(rb"tiff:Orientation(?:=[\"']|>)\s*([1-8])\b", packet or b"")
    return int(found[1]) if found else None


def clean_xmp(packet: bytes) -> tuple[bytes, str | None]:
    """An XMP packet without thumbnails and without pointers to pictures that are left out."""
    new = _XMP_ATTRIBUTES.sub(b"", _XMP_PICTURES.sub(b"", packet))
    if new == packet:
        return packet, None
    return new, "thumbnails and pointers to further pictures were taken out of the XMP data"


def clean_photoshop(block: bytes) -> bytes | None:
    """Photoshop image resources without their thumbnails; None when there are none or the block is not understood."""
    kept: list[bytes] = []
    at, found = 0, False
    while at < len(block):
        if block[at : at + 4] not in (b"8BIM", b"MeSa", b"AgHg", b"PHUT", b"DCSR") or at + 12 > len(block):
            if block[at:].strip(b"\0"):
                return None
            break
        name = 1 + block[at + 6]
        data_at = at + 6 + name + name % 2 + 4
        length = int.from_bytes(block[data_at - 4 : data_at], "big")
        end = data_at + length
        if end > len(block):
            return None
        end = min(len(block), end + length % 2)
        if int.from_bytes(block[at + 4 : at + 6], "big") in _THUMBNAILS:
            found = True
        else:
            kept.append(block[at:end])
        at = end
    return b"".join(kept) if found else None


def _jfif(payload: bytes) -> tuple[bytes | None, str | None]:
    said = "the thumbnail in the JFIF header showed the old picture and was taken out"
    if payload.startswith(b"JFXX\0"):
        return None, said
    if payload.startswith(b"JFIF\0") and len(payload) > 14 and (payload[12] or payload[13]):
        return payload[:12] + b"\0\0", said
    return payload, None


def _photoshop(pairs: list[Pair], notes: dict[str, None]) -> list[Pair]:
    mine = [i for i, (marker, payload) in enumerate(pairs) if marker == 0xED and payload.startswith(_PHOTOSHOP)]
    if not mine:
        return pairs
    clean = clean_photoshop(b"".join(pairs[i][1][len(_PHOTOSHOP) :] for i in mine))
    if clean is None:
        return pairs
    notes["the thumbnail in the Photoshop data showed the old picture and was taken out"] = None
    room = 65533 - len(_PHOTOSHOP)
    new = [(0xED, _PHOTOSHOP + clean[at : at + room]) for at in range(0, len(clean), room)]
    first = mine[0]
    return pairs[:first] + new + [pair for i, pair in enumerate(pairs) if i > first and i not in mine]


def _extended_xmp(pairs: list[Pair], notes: dict[str, None]) -> list[Pair]:
    mine = [i for i, (marker, payload) in enumerate(pairs) if marker == 0xE1 and payload.startswith(EXTENDED_XMP)]
    whole = b"".join(pairs[i][1][len(EXTENDED_XMP) + 40 :] for i in mine)
    if not mine or not _EXTENDED_PICTURES.search(whole):
        return pairs
    notes["the extended XMP data held pictures made from the old one and was left out"] = None
    return [
        (marker, XMP + _HAS_EXTENDED.sub(b"", payload[len(XMP) :]) if payload.startswith(XMP) else payload)
        for i, (marker, payload) in enumerate(pairs)
        if i not in mine
    ]
