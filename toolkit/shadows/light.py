"""Light on a ground as logarithms: where light is dimmed, those of linear values fall alike in all channels."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

Bits = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float32]

_FLARE = 0.006
"""Linear light below which a camera shows little but flare and noise."""

_LINEAR = np.arange(256, dtype=np.float64) / 255
_LOG = np.log(np.where(_LINEAR <= 0.04045, _LINEAR / 12.92, ((_LINEAR + 0.055) / 1.055) ** 2.4) + _FLARE).astype(
    np.float32
)


def log_light(pixels: npt.NDArray[np.uint8]) -> Floats:
    """Logarithm of linear light of sRGB `pixels` (h, w, 3) uint8."""
    return np.asarray(_LOG[pixels], np.float32)


def gaussian(values: Floats, sigma: float) -> Floats:
    """Blurred by a Gaussian, borders mirrored."""
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT), np.float32)


def smooth(values: Floats, known: Bits, sigma: float) -> Floats:
    """`values` (h, w[, c]) blurred by a Gaussian over `known` pixels only; where none is near, left as they are."""
    weight = gaussian(known.astype(np.float32), sigma)
    shaped = weight if values.ndim == 2 else weight[..., None]
    where = known if values.ndim == 2 else known[..., None]
    blurred = gaussian(np.where(where, values, np.float32(0)), sigma)
    return np.where(shaped > 1e-3, blurred / np.maximum(shaped, 1e-3), values).astype(np.float32)


def high_pass(light: Floats, known: Bits) -> Floats:
    """Texture of the green channel of `light` (h, w, 3): what a blur over `known` pixels takes away."""
    green = np.ascontiguousarray(light[..., 1])
    return np.asarray(green - smooth(green, known, 1.5), np.float32)


def robust_plane(values: Floats, members: Bits) -> Floats:
    """A plane a channel through the `members` of `values` (h, w, c), everywhere; the outlying ones count little."""
    height, width = members.shape
    rows, columns = np.nonzero(members)
    scale = max(height, width)
    design = np.stack([np.ones(len(rows)), columns / scale - 0.5, rows / scale - 0.5], axis=1)
    step = max(1, len(rows) // 4000)
    design, data = design[::step], values[rows[::step], columns[::step]].astype(np.float64)
    weight = np.ones(len(data))
    ridge = np.diag([1e-9, 1e-3, 1e-3]) * len(data)
    for _ in range(4):
        solved = np.linalg.solve(design.T @ (design * weight[:, None]) + ridge, design.T @ (data * weight[:, None]))
        away = np.abs(data - design @ solved).mean(axis=1)
        weight = 1 / (1 + (away / max(1e-3, 1.4826 * float(np.median(away)))) ** 2)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64) / scale - 0.5
    return np.asarray(np.stack([np.ones_like(x), x, y], axis=2) @ solved, np.float32)


def rise(value: float, low: float, high: float) -> float:
    """0 below `low`, 1 above `high`, smooth between."""
    share = min(1.0, max(0.0, (value - low) / (high - low)))
    return share * share * (3 - 2 * share)


def fall(value: float, low: float, high: float) -> float:
    """1 below `low`, 0 above `high`, smooth between."""
    return 1.0 - rise(value, low, high)
