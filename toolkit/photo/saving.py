"""What is done to an edited picture on its way to a file: colours, resolution, and a limit to the file's length."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from typing import BinaryIO

from toolkit.errors import OutputError
from toolkit.geometry import Box
from toolkit.photo import colour
from toolkit.photo.picture import Edited
from toolkit.photo.raster import strips

LOWEST_QUALITY = 10
"""Below it a picture is not worth having, however short the file."""

Write = Callable[[BinaryIO, int | None], tuple[str, list[str]]]
"""Encode the picture at a quality; the mode in words, and what could not be kept."""


def to_srgb(edited: Edited, icc: bytes | None) -> str:
    """Convert every pixel of `edited` from the space of the profile to sRGB, and say so in a sentence."""
    channels = edited.space.channels
    if icc is None or not colour.differs(icc, channels):
        return "the colours were sRGB already"
    source, space = edited.raster, edited.space
    wide = edited.plain_copy()
    for box in strips(edited.size):
        edited.raster.write(box, colour.converted(space.pixels(source.read(box)), channels, icc))
    edited.promoted = edited.promoted or wide
    edited.touched = [Box.of_size(edited.size)]
    profile = colour.srgb_profile() if channels == 3 else None
    edited.changes = replace(edited.changes, srgb=True, icc=profile)
    return "the colours were converted to sRGB"


def within(
    name: str, write: Write, most: int, quality: int | None, *, lossy: bool
) -> tuple[io.BytesIO, str, list[str]]:
    """The encoded picture of at most `most` bytes, of the highest quality that keeps to it.

    Args:
        name: what a message calls the file.
        quality: the highest quality to try; without it, first what the writer does unasked.
        lossy: whether a lower quality makes the file shorter.

    Raises:
        OutputError: when no quality that is worth having is short enough.
    """

    def encoded(tried: int | None) -> tuple[io.BytesIO, str, list[str]]:
        memory = io.BytesIO()
        return memory, *write(memory, tried)

    best = encoded(quality)
    length = len(best[0].getbuffer())
    if length <= most:
        return best
    if not lossy:
        raise OutputError(
            f"{name}: has {length} bytes, more than the {most} asked for, and its format is lossless; "
            "save it as JPEG or lossy WebP, or on a smaller canvas"
        )
    low, high, found = LOWEST_QUALITY, (quality or 100) - 1, None
    while low <= high:
        middle = (low + high) // 2
        tried = encoded(middle)
        length = len(tried[0].getbuffer())
        if length <= most:
            found, low = (middle, tried), middle + 1
        else:
            high = middle - 1
    if found is None:
        raise OutputError(
            f"{name}: has {length} bytes even at quality {LOWEST_QUALITY}, more than the {most} asked for; "
            "save it on a smaller canvas"
        )
    memory, mode, notes = found[1]
    return memory, mode, [*notes, f"encoded at quality {found[0]} to stay within {most} bytes"]
