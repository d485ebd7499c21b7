"""The ground of a product photo as a smooth sheet under uneven light, and what on it is not the sheet.

Colours are compared as logarithms, so that light and shade are sums: a shadow is the sheet, darker, of nearly the same
ratio of colours and without a sharp edge. Everything is measured in units of the noise found on the sheet itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.engines.segment.edge import Binary, Pixels

Float = npt.NDArray[np.float32]

FRAME = 0.03  # of the shorter side: the strip along the photo's edge that is looked at first
TINT = 0.02  # by how much a shadow may change the ratio of colours, per unit of log darkness
DEEP = 1.3  # log darkness beyond which nothing is a shadow
SMOOTHING = 0.06  # of the longer side: what the polynomial leaves is followed down to this size


@dataclass(frozen=True)
class Sheet:
    """The sheet fitted to a picture of (h, w).

    Attributes:
        features: (h, w, 3) uint8: log lightness and two log ratios of colours against the sheet, 128 = as the sheet.
        strange: (h, w) float32 >= 0: how little a pixel can be sheet or soft shadow, in units of noise.
        broken: (h, w) float32 >= 0: the same by edges and texture alone, whatever the colour.
        sharpness: (h, w) float32 >= 0: sharp edges in units of noise; soft ones, as of shadows, count little.
        frame: (h, w) bool: the strip along the picture's edge where it shows the sheet.
        noise: what counts as one unit of `sharpness`, in log lightness a pixel.
    """

    features: Pixels
    strange: Float
    broken: Float
    sharpness: Float
    frame: Binary
    noise: float


def fit_sheet(small: Pixels) -> Sheet:
    """Fit the sheet to (h, w, 3) uint8 sRGB, starting from the colour seen most along the edge."""
    rest, sheet = _residual(small)
    light = np.asarray(rest.mean(2), np.float32)
    first, second = rest[..., 0] - rest[..., 1], rest[..., 2] - rest[..., 1]
    tint = np.hypot(first, second)
    dark = np.maximum(-light, 0)
    louder = np.exp(np.minimum(dark, 1.5))  # noise of 8-bit levels weighs more where it is dark
    sharp = np.maximum(_gradient(light, 0.7) - 1.3 * _gradient(light, 2.8), 0)
    sharp += np.hypot(_gradient(first, 0.7), _gradient(second, 0.7))
    # A median answers to texture and not to the flanks of a single edge.
    rough = cv2.medianBlur(np.clip(sharp * 4000, 0, 255).astype(np.uint8), 7).astype(np.float32) / 4000

    def unit(values: Float, least: float) -> float:
        return max(least, float(np.percentile(values[sheet], 95)) / 2) if sheet.any() else 1.0

    of_tint, of_sharp, of_rough = unit(tint, 0.002), unit(sharp, 0.00075), unit(rough, 0.0003)
    broken = np.maximum(sharp / (1.5 * of_sharp * louder), rough / (1.5 * of_rough * louder))
    broken = np.where(dark > DEEP, 99, broken).astype(np.float32)
    coloured = np.maximum(tint / (of_tint * louder + TINT * dark), light / (1.5 * unit(np.abs(light), 0.003)))
    scaled = 128 + np.dstack([45 * light, 110 * first, 110 * second])
    features = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    strange = np.maximum(broken, coloured).astype(np.float32)
    sharpness = np.asarray(sharp / (of_sharp * louder), np.float32)
    return Sheet(features, strange, broken, sharpness, frame(small.shape) & sheet, of_sharp)


def frame(shape: tuple[int, ...]) -> Binary:
    """The strip along the edge of a picture of `shape`: 3 % of the shorter side, at least 2 px."""
    strip = np.ones(shape[:2], bool)
    width = max(2, round(FRAME * min(shape[:2])))
    strip[width:-width, width:-width] = False
    return strip


def reached(free: Binary, start: Binary) -> Binary:
    """The 4-connected parts of `free` that hold a pixel of `start`."""
    count, parts = cv2.connectedComponents(free.astype(np.uint8), connectivity=4)[:2]
    keep = np.zeros(count, bool)
    keep[np.unique(parts[start & free])] = True
    keep[0] = False
    return np.asarray(keep[parts])


def _residual(small: Pixels) -> tuple[Float, Binary]:
    """Log colours minus the sheet's, and where the picture certainly shows the sheet.

    Polynomials of growing degree, fitted again and again to what agrees and hangs together with the edge; then what is
    left, smoothed over the sheet alone.
    """
    height, width = small.shape[:2]
    logs = np.log(cv2.GaussianBlur(small, (0, 0), 0.8).astype(np.float32) + 1)
    strip = frame(small.shape)
    along = logs[strip]
    cells = np.floor(along / 0.15).astype(np.intp) @ np.array([4096, 64, 1])
    values, counts = np.unique(cells, return_counts=True)
    centre = np.median(along[cells == values[counts.argmax()]], axis=0)
    start = _most(along - centre) < 0.3

    rest = logs - _solve(_powers(height, width, 1), logs, strip_of(strip, start), 0.15, logs - centre)
    limit = 0.15
    for degree, times in ((1, 1), (2, 2), (3, 2)):
        powers = _powers(height, width, degree)
        for _ in range(times):
            agrees = reached(_most(rest) < limit, strip)
            if np.count_nonzero(agrees) < 50:
                break
            rest = logs - _solve(powers, logs, agrees, limit, rest)
            limit = float(np.clip(7.4 * np.median(np.abs(rest[agrees])), 0.03, 0.12))  # 5 sigma

    sheet = reached(_most(rest) < limit, strip)
    known, sigma = sheet.astype(np.float32), SMOOTHING * max(height, width)
    total = cv2.GaussianBlur(rest * known[..., None], (0, 0), sigma)
    rest = rest - total / (cv2.GaussianBlur(known, (0, 0), sigma)[..., None] + 0.05)
    return rest, reached(_most(rest) < limit, strip)


def strip_of(strip: Binary, chosen: Binary) -> Binary:
    """The pixels of `strip` where `chosen`, one value for each of them, is set."""
    part = strip.copy()
    part[strip] = chosen
    return part


def _powers(height: int, width: int, degree: int) -> Float:
    x, y = ((2 * np.arange(length, dtype=np.float32) + 1) / length - 1 for length in (width, height))
    return np.dstack([x**i * y[:, None] ** j for i in range(degree + 1) for j in range(degree + 1 - i)])


def _solve(powers: Float, logs: Float, where: Binary, limit: float, rest: Float) -> Float:
    """The polynomial that fits `logs` where asked, agreeing pixels weighing most; (h, w, 3)."""
    some = np.flatnonzero(where)[::3]
    terms, values, off = (array.reshape(-1, array.shape[2])[some] for array in (powers, logs, rest))
    weight = 1 / (1 + (_most(off) / (0.3 * limit)) ** 2)
    weighted = terms * weight[:, None]
    ridge = 1e-5 * weight.sum() * np.eye(terms.shape[1])
    ridge[0, 0] = 1e-6
    factors = np.linalg.solve(weighted.T @ terms + ridge, weighted.T @ values)
    return (powers.reshape(-1, len(factors)) @ factors).reshape(logs.shape).astype(np.float32)


def _most(values: Float) -> Float:
    """The largest magnitude of the last axis, of three."""
    first, second, third = np.moveaxis(np.abs(values), -1, 0)
    return np.asarray(np.maximum(np.maximum(first, second), third))


def _gradient(values: Float, sigma: float) -> Float:
    smooth = cv2.GaussianBlur(values, (0, 0), sigma)
    across, down = (cv2.Sobel(smooth, cv2.CV_32F, *order, ksize=3, scale=1 / 8) for order in ((1, 0), (0, 1)))
    return np.hypot(across, down)
