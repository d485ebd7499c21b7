"""The pictures the stand-in makes: visible, different for each seed, and not exact outside the mask."""

from __future__ import annotations

import struct
import zlib
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SHIFT = (4, -3, 5)  # blue, green, red: what the model's decoder does to colours outside the mask


class NotAPicture(ValueError):
    """The bytes are no picture that can be read."""


@lru_cache(8)  # variations of one picture come one after the other
def decode(data: bytes, *, grey: bool = False) -> Array:
    """Picture file to uint8 (h, w, 3) in BGR order, or (h, w), read-only. Raises NotAPicture."""
    kind = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    try:
        made = cv2.imdecode(np.frombuffer(data, np.uint8), kind | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        made = None
    if made is None:
        raise NotAPicture("no picture")
    made.flags.writeable = False
    return made


def encode(picture: Array, suffix: str) -> bytes:
    """Picture file of uint8 BGR pixels; `suffix` is "png" or "jpeg"."""
    if suffix == "jpeg":
        return bytes(cv2.imencode(".jpeg", picture, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])
    height, width = picture.shape[:2]
    rows = np.zeros((height, 1 + 3 * width), np.uint8)
    rows[:, 1:] = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB).reshape(height, -1)
    return png(width, height, 8, 2, zlib.compress(rows.data, 0))  # compressing would take most of the stand-in's time


def png(width: int, height: int, depth: int, colour: int, pixels: bytes) -> bytes:
    """A PNG file of rows already compressed; `colour` is 0 for grey and 2 for RGB."""
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", pixels), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def paint(image: Array, mask: Array, prompt: str, seed: int, number: int, size: tuple[int, int]) -> Array:
    """What the model would return, (h, w, 3) uint8 BGR of `size` (width, height).

    Inside the mask (128 and above): a smooth continuation of the surroundings with blobs of colour that follow from
    seed, number within the call and prompt. Outside: the image a little blurred and shifted in colour by SHIFT.
    """
    if (image.shape[1], image.shape[0]) != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    out = cv2.add(cv2.GaussianBlur(image, (3, 3), 0.8), np.array([*map(float, SHIFT), 0.0]))
    hole = cv2.threshold(mask, 127, 255, cv2.THRESH_BINARY)[1]
    keep = cv2.bitwise_not(hole)
    small = (max(8, size[0] // 8), max(8, size[1] // 8))
    weight = cv2.resize(keep, small, interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
    surroundings = cv2.resize(cv2.copyTo(image, keep), small, interpolation=cv2.INTER_AREA)
    smooth = _continued(surroundings.astype(np.float32), weight)
    noise = np.random.default_rng([seed, number, zlib.crc32(prompt.encode())]).uniform(-70, 70, (9, 9, 3))
    smooth += cv2.resize(noise.astype(np.float32), small, interpolation=cv2.INTER_CUBIC)
    filled = cv2.resize(np.clip(smooth, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray(cv2.copyTo(filled, hole, out))


def _continued(weighted: Array, weight: Array) -> Array:
    """Normalised convolution from fine to coarse: the nearest known surroundings, wider where there are none."""
    height, width = weight.shape[:2]
    if min(height, width) <= 2:
        return np.asarray(weighted / np.maximum(weight, 1e-3))
    coarse = (width // 2, height // 2)
    below = _continued(
        cv2.resize(weighted, coarse, interpolation=cv2.INTER_AREA),
        cv2.resize(weight, coarse, interpolation=cv2.INTER_AREA)[..., None],
    )
    return np.asarray(weighted + (1 - weight) * cv2.resize(below, (width, height), interpolation=cv2.INTER_LINEAR))
