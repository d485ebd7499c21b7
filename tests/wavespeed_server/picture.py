"""The pictures the stand-in makes: visible, different for each seed, and not exact outside the mask."""

from __future__ import annotations

import zlib
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

SHIFT = (4, -3, 5)  # blue, green, red: what the model's decoder does to colours outside the mask


class NotAPicture(ValueError):
    """The bytes are no picture that can be read."""


def decode(data: bytes, *, grey: bool = False) -> Array:
    """Picture file to uint8 (h, w, 3) in BGR order, or (h, w). Raises NotAPicture."""
    kind = cv2.IMREAD_GRAYSCALE if grey else cv2.IMREAD_COLOR
    try:
        made = cv2.imdecode(np.frombuffer(data, np.uint8), kind | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:
        made = None
    if made is None:
        raise NotAPicture("no picture")
    return made


def encode(picture: Array, suffix: str) -> bytes:
    """Picture file of uint8 BGR pixels; `suffix` is "png" or "jpeg"."""
    options = [cv2.IMWRITE_PNG_COMPRESSION, 1] if suffix == "png" else [cv2.IMWRITE_JPEG_QUALITY, 95]
    return bytes(cv2.imencode(f".{suffix}", picture, options)[1])


def paint(image: Array, mask: Array, prompt: str, seed: int, number: int, size: tuple[int, int]) -> Array:
    """What the model would return, (h, w, 3) uint8 BGR of `size` (width, height).

    Inside the mask (128 and above): a smooth continuation of the surroundings with blobs of colour that follow from
    seed, number within the call and prompt. Outside: the image a little blurred and shifted in colour by SHIFT.
    """
    if (image.shape[1], image.shape[0]) != size:
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        mask = cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST)
    out = cv2.add(cv2.GaussianBlur(image, (0, 0), 0.8), np.array([*map(float, SHIFT), 0.0]))
    hole = mask >= 128
    if hole.any():
        small = (max(8, size[0] // 8), max(8, size[1] // 8))
        kept = cv2.resize((~hole).astype(np.float32), small, interpolation=cv2.INTER_AREA)[..., None]
        picture = cv2.resize(np.where(hole[..., None], 0, image).astype(np.uint8), small, interpolation=cv2.INTER_AREA)
        smooth = _continued(picture.astype(np.float32), kept)
        noise = np.random.default_rng([seed, number, zlib.crc32(prompt.encode())]).uniform(-70, 70, (9, 9, 3))
        smooth += cv2.resize(noise.astype(np.float32), small, interpolation=cv2.INTER_CUBIC)
        filled = cv2.resize(np.clip(smooth, 0, 255).astype(np.uint8), size, interpolation=cv2.INTER_LINEAR)
        np.copyto(out, filled, where=hole[..., None])
    return out


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
