"""Colour: between a photo's own space and sRGB, through its ICC profile (Little CMS, by way of Pillow)."""

from __future__ import annotations

import functools
import io
import struct
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from toolkit.errors import PhotoError
from toolkit.photo.picture import eight_bits

Colours = npt.NDArray[np.uint8]
_MODES = {b"RGB ": "RGB", b"GRAY": "L"}
_STRIP = 1 << 22


@functools.lru_cache(maxsize=64)
def usable(icc: bytes | None, channels: int) -> bool:
    """True when the profile can be read and describes pictures of that many colour channels."""
    if icc is None or _MODES.get(icc[16:20]) != ("L" if channels == 1 else "RGB"):
        return False
    try:
        _transforms(icc)
    except PhotoError:
        return False
    return True


@functools.lru_cache(maxsize=32)
def _transforms(icc: bytes) -> tuple[ImageCms.ImageCmsTransform, ImageCms.ImageCmsTransform, bool]:
    """To sRGB, from sRGB, and whether the two spaces are the same within one level."""
    mode = _MODES[icc[16:20]]
    relative = ImageCms.Intent.RELATIVE_COLORIMETRIC
    flags = ImageCms.Flags.BLACKPOINTCOMPENSATION | ImageCms.Flags.NOCACHE  # a cache is shared between threads
    try:
        own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))
        there = ImageCms.buildTransform(own, srgb, mode, "RGB", relative, flags)
        back = ImageCms.buildTransform(srgb, own, "RGB", mode, relative, flags)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        raise PhotoError(f"the ICC profile cannot be used ({error})") from error
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    if mode == "L":
        grid = np.arange(256, dtype=np.uint8)[None, :]
        shown = np.repeat(grid[..., None], 3, axis=2)
    else:
        grid = np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(9, 81, 3)
        shown = grid
    same = int(np.abs(_apply(there, grid, mode).astype(np.int16) - shown).max()) <= 1
    return there, back, same


def to_srgb(pixels: npt.NDArray[Any], channels: int, icc: bytes | None) -> Colours:
    """Photo pixels (h, w, channels[+1]) of uint8 or uint16 to sRGB (h, w, 3) uint8; alpha is left out.

    Read-only pixels that are sRGB already are given back as they are; everything else is new.
    """
    colour = np.ascontiguousarray(eight_bits(pixels[..., :channels]))
    if icc is not None and usable(icc, channels):
        there, _, same = _transforms(icc)
        if not same:
            return _apply(there, colour[..., 0] if channels == 1 else colour, "L" if channels == 1 else "RGB")
    if channels == 1:
        return np.repeat(colour, 3, axis=2)
    return colour.copy() if colour.flags.writeable else colour


def converted(pixels: npt.NDArray[Any], channels: int, icc: bytes) -> npt.NDArray[Any]:
    """Photo pixels (h, w, channels[+1]) through the profile to sRGB, in their own depth and bands.

    Little CMS works in 8 bits here: of a 16-bit value the fraction of a level is carried over as it is.
    """
    new = pixels.copy()
    for top in range(0, len(pixels), 256):
        colour = pixels[top : top + 256, :, :channels]
        shown = to_srgb(colour, channels, icc)[..., :channels]
        if pixels.dtype == np.uint8:
            new[top : top + 256, :, :channels] = shown
        else:
            fraction = colour.astype(np.int32) - eight_bits(colour).astype(np.int32) * 257
            new[top : top + 256, :, :channels] = np.clip(shown.astype(np.int32) * 257 + fraction, 0, 65535)
    return new


def differs(icc: bytes | None, channels: int) -> bool:
    """True when the profile can be read and describes another space than sRGB."""
    return icc is not None and usable(icc, channels) and not _transforms(icc)[2]


@functools.cache
def srgb_profile() -> bytes:
    """An ICC profile of sRGB; always the same bytes, so without the date it was made on."""
    profile: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    return profile[:24] + struct.pack(">6H", 2000, 1, 1, 0, 0, 0) + profile[36:]


def from_srgb(
    pixels: npt.NDArray[Any], channels: int, depth: int, icc: bytes | None, seed: int
) -> npt.NDArray[np.uint8] | npt.NDArray[np.uint16]:
    """SRGB (h, w, 3), uint8 or float32 0..255, to the photo's colour (h, w, channels) in its depth.

    16-bit values of uint8 input are dithered by up to half an 8-bit level; a float's fraction is kept.
    """
    given = np.asarray(pixels)
    rounded = given if given.dtype == np.uint8 else np.clip(np.rint(given), 0, 255).astype(np.uint8)
    colour = _own_colour(np.ascontiguousarray(rounded), channels, icc)
    if depth == 8:
        return colour
    wide = colour.astype(np.float32) * 257
    if given.dtype == np.uint8:
        wide += np.random.default_rng(seed).uniform(-128, 128, wide.shape).astype(np.float32)
    else:
        fraction = np.clip(given, 0, 255).astype(np.float32) - rounded
        wide += 257 * (fraction.mean(axis=2, keepdims=True) if channels == 1 else fraction)
    return np.clip(np.rint(wide), 0, 65535).astype(np.uint16)


def _own_colour(colour: Colours, channels: int, icc: bytes | None) -> Colours:
    if icc is not None and usable(icc, channels):
        _, back, same = _transforms(icc)
        if not same:
            new = _apply(back, colour, "RGB")
            return new[..., None] if channels == 1 else new
    if channels == 1:
        return np.asarray(cv2.cvtColor(colour, cv2.COLOR_RGB2GRAY), np.uint8)[..., None]
    return colour.copy()


def _apply(transform: ImageCms.ImageCmsTransform, colour: Colours, mode: str) -> Colours:
    rows = max(1, _STRIP // max(1, colour.shape[1]))
    parts = []
    for top in range(0, len(colour), rows):
        image = Image.fromarray(np.ascontiguousarray(colour[top : top + rows]))
        parts.append(np.array(transform.apply(image)))
    if not parts:
        return colour.copy()
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
