"""Comparing two photos in strips: which pixels differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import ParameterError
from toolkit.geometry import Box
from toolkit.photo.photo import Photo


def differences(photo: Photo, other: Photo, rows_per_strip: int = 256) -> Iterator[tuple[Box, npt.NDArray[np.bool_]]]:
    """Go through two photos of one size from top to bottom and say where they differ.

    Colours are compared, not samples: a palette photo equals its RGB copy, grey equals RGB grey, and a photo
    without alpha equals an opaque one. 16 bits against 8 are compared in 16 (8-bit values times 257).

    Yields:
        An upright box over the full width and a bool array (h, w), True where colour or alpha differ.

    Raises:
        ParameterError: when the sizes differ.
    """
    if photo.size != other.size:
        raise ParameterError(f"{other.name}: is {other.size}, but {photo.name} is {photo.size}")
    if rows_per_strip < 1:
        raise ParameterError(f"rows_per_strip must be at least 1, got {rows_per_strip}")
    alpha = photo.has_alpha or other.has_alpha
    channels = max(photo.channels, other.channels)
    depth = max(photo.depth, other.depth)
    for top in range(0, photo.size.height, rows_per_strip):
        box = Box(0, top, photo.size.width, min(top + rows_per_strip, photo.size.height))
        one, two = (_widened(p, p.crop(box), channels, alpha, depth) for p in (photo, other))
        yield box, (one != two).any(axis=2)


def _widened(photo: Photo, pixels: npt.NDArray[Any], channels: int, alpha: bool, depth: int) -> npt.NDArray[Any]:
    if photo.depth < depth:
        pixels = pixels.astype(np.uint16) * np.uint16(257)
    if photo.channels < channels:
        pixels = np.concatenate([np.repeat(pixels[..., :1], 3, axis=2), pixels[..., 1:]], axis=2)
    if alpha and not photo.has_alpha:
        opaque = np.full((*pixels.shape[:2], 1), (1 << depth) - 1, pixels.dtype)
        pixels = np.concatenate([pixels, opaque], axis=2)
    return pixels
