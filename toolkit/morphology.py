"""Exact distances, discs, Gaussians and outlines on one window: pure array functions below `Mask`.

All arrays are (h, w). A hard window holds 0 and 255 only. Nothing is known beyond a window's edge: distances
ignore it and the Gaussian repeats the last row and column.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.errors import ParameterError

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

_STEPS_PER_SIGMA = 6  # at 4, stripes as fine as the step come out up to 3.7 levels wrong at the frame's border


def parsed_radius(operation: str, radius: float | str) -> tuple[float | None, float]:
    """`(share, 0)` of a percentage such as ``"2%"``, `(None, pixels)` of a number.

    Raises:
        ParameterError: negative, not finite, or neither; `operation` begins the sentence.
    """
    hint = f'{operation}.radius: expected pixels >= 0 or a percentage like "2%", got {radius!r}'
    if isinstance(radius, str):
        try:
            number = float(radius.strip().removesuffix("%")) if radius.strip().endswith("%") else math.nan
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise ParameterError(hint)
        return number / 100, 0.0
    if isinstance(radius, bool) or not isinstance(radius, int | float | np.integer | np.floating):
        raise ParameterError(hint)
    if not 0 <= radius < math.inf:
        raise ParameterError(hint)
    return None, float(radius)


def squared(radius: float) -> int:
    """The largest whole n with sqrt(n) <= radius: the squared distances between pixels are whole numbers."""
    n = math.floor(radius * radius)
    while math.sqrt(n + 1) <= radius:
        n += 1
    while n > 0 and math.sqrt(n) > radius:
        n -= 1
    return n


def distance(window: Bytes) -> Floats:
    """Exact Euclidean distance of every pixel to the nearest zero pixel, float32; very large where there is none.

    Felzenszwalb and Huttenlocher, "Distance Transforms of Sampled Functions" (2012), as in OpenCV. Its float32
    arithmetic is exact for windows up to about 2000 pixels wide, which is why callers cut wide windows.
    """
    return np.asarray(cv2.distanceTransform(window, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def near(window: Bytes, radius: float, value: int) -> Bytes:
    """255 where a pixel equal to `value` (0 or 255) lies at most `radius` away, otherwise 0; `window` is hard.

    Exact. Shapes with few runs are drawn as the upright chords of the discs around the ends of their runs, at half
    the cost of a distance transform, which does the others.
    """
    solid = np.asarray(window if value else cv2.bitwise_not(window), np.uint8)
    limit = squared(radius)
    x, y, width, height = cv2.boundingRect(solid)
    if not width:
        return np.zeros_like(window)
    inner = solid[y : y + height, x : x + width]
    # Each column's runs, as flat positions of their first pixels and of the pixels behind their last ones.
    first = np.concatenate([np.flatnonzero(inner[0]), np.flatnonzero(inner[1:] > inner[:-1]) + width])
    behind = np.concatenate([np.flatnonzero(inner[1:] < inner[:-1]) + width, np.flatnonzero(inner[-1]) + inner.size])
    if 2 * len(first) * (2 * math.isqrt(limit) + 1) > window.size:
        # Half-way to the next possible squared distance, so that float32 rounding cannot decide.
        reached = distance(np.asarray(cv2.bitwise_not(solid))) <= np.float32(math.sqrt(limit + 0.5))
    else:
        places = (first // width + y, first % width + x), (behind // width + y, behind % width + x)
        reached = _chords(window.shape, places, (x, y, x + width, y + height), limit)
    return reached.view(np.uint8) * np.uint8(255)


def _chords(shape: tuple[int, ...], runs: Any, bounds: tuple[int, int, int, int], limit: int) -> npt.NDArray[np.bool_]:
    """Pixels within sqrt(`limit`) of upright runs, given as (rows, columns) of first pixels and of those behind.

    A run, seen from a column `offset` away, reaches sqrt(limit - offset**2) beyond both ends. Each such chord is
    counted up at its first row and down behind its last, and the counts are summed along the columns.
    """
    height, width = shape
    reach = math.isqrt(limit)
    # Padding for what would be drawn beyond the window.
    left, top = max(0, reach - bounds[0]), max(0, reach - bounds[1])
    right, bottom = max(0, bounds[2] + reach - width), max(0, bounds[3] + reach - height)
    # At most this many chords cover one pixel: those of every other pixel of a disc.
    kind = np.int16 if (2 * reach + 1) * (reach + 1) < 1 << 15 else np.int32
    count = np.zeros((top + height + bottom + 1, left + width + right), kind)
    flat, across = count.ravel(), count.shape[1]
    offset = np.arange(-reach, reach + 1)
    chord = np.array([math.isqrt(limit - n * n) for n in offset.tolist()])
    for (y, x), steps, change in zip(runs, (offset - chord * across, offset + chord * across), (1, -1), strict=True):
        np.add.at(flat, ((y + top) * across + x + left + steps[:, None]).ravel(), kind(change))
    shown = count[: top + height, left : left + width]
    for above, row in pairwise(shown):  # faster than cumsum along the columns
        np.add(row, above, out=row)
    return np.not_equal(shown[top:], 0)


def gaussian(window: Bytes, radius: float) -> Bytes:
    """`window` blurred by a Gaussian of sigma = radius / 3 cut off at `radius`, uint8, edges repeated.

    A wide Gaussian is taken from a copy shrunk to a sixth of sigma; shrinking and interpolating blur too, and
    the Gaussian is narrowed by their variance. Error against float64: at most 3 grey levels.
    """
    sigma = radius / 3
    step = int(sigma / _STEPS_PER_SIGMA)
    if step < 2:
        return _rounded(_separable(window, sigma, radius))
    height, width = window.shape
    # One whole repeated block on each side, so that the shrunk copy's edge is a repeat too.
    padded = cv2.copyMakeBorder(window, step, step + -height % step, step, step + -width % step, cv2.BORDER_REPLICATE)
    small = cv2.resize(padded, (padded.shape[1] // step, padded.shape[0] // step), interpolation=cv2.INTER_AREA)
    variance = sigma**2 - (step**2 - 1) / 12 - step**2 / 6
    blurred = _rounded(_separable(np.asarray(small, np.uint8), math.sqrt(variance) / step, radius / step))
    large = cv2.resize(blurred, (padded.shape[1], padded.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large[step : step + height, step : step + width], np.uint8)


def _separable(window: Bytes, sigma: float, radius: float) -> Any:
    offsets = np.arange(-math.floor(radius), math.floor(radius) + 1)
    kernel = np.exp(-0.5 * (offsets / sigma) ** 2)
    kernel = (kernel / kernel.sum()).astype(np.float32)
    return cv2.sepFilter2D(window, cv2.CV_32F, kernel, kernel, borderType=cv2.BORDER_REPLICATE)


def _rounded(values: Any) -> Bytes:
    rounded: Bytes = cv2.convertScaleAbs(values)
    return rounded


def ramp(window: Bytes, core: Bytes, radius: float) -> Bytes:
    """The blend weight inside `window` (hard): 255 on `core` (hard, a subset), 0 outside, smooth between.

    With d the distance to the nearest pixel outside and c that to the core, t = d / min(radius, d + c) and the
    weight is smoothstep t * t * (3 - 2 t).
    """
    weight = core.copy()
    band = np.flatnonzero(window > core)
    if len(band):
        limit = np.float32(radius)
        # Bounded, because "none at all" is answered with a number that would overflow.
        inside = np.minimum(distance(window).ravel()[band], limit)
        outward = np.minimum(distance(np.asarray(cv2.bitwise_not(core))).ravel()[band], limit)
        share = inside / np.minimum(inside + outward, limit)
        weight.ravel()[band] = np.rint(share * share * (3 - 2 * share) * 255).astype(np.uint8)
    return weight


def filled(window: Bytes, max_area: int | None) -> Bytes:
    """`window` with its holes (zero pixels that no path of side-by-side zero pixels joins to the edge) set to 255."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats((window == 0).view(np.uint8), connectivity=4)
    if count <= 2:  # one region of zeros: there is no hole, or it is all there is
        open_edge = any((edge == 0).any() for edge in (window[0], window[-1], window[:, 0], window[:, -1]))
        if count == 1 or open_edge:
            return window
    hole = np.ones(count, bool)
    for edge in (labels[0], labels[-1], labels[:, 0], labels[:, -1]):
        hole[edge] = False
    hole[0] = False
    if max_area is not None:
        hole &= stats[:, cv2.CC_STAT_AREA] <= max_area
    return np.where(hole[labels], np.uint8(255), window)


def polygon(rings: list[npt.NDArray[np.float64]], width: int, height: int) -> Bytes:
    """Fill rings of (n, 2) points x, y: 255 where a pixel's centre (x + 0.5, y + 0.5) is in an odd number of rings."""
    crossings = np.zeros((height, width + 1), np.uint8)
    for ring in rings:
        for (x0, y0), (x1, y1) in zip(ring, np.roll(ring, -1, axis=0), strict=True):
            if y0 > y1:
                x0, y0, x1, y1 = x1, y1, x0, y0
            rows = np.arange(max(0, math.ceil(y0 - 0.5)), min(height, math.ceil(y1 - 0.5)))
            if len(rows):
                at = x0 + (rows + 0.5 - y0) * ((x1 - x0) / (y1 - y0))
                crossings[rows, np.clip(np.ceil(at - 0.5), 0, width).astype(np.intp)] ^= 1
    return np.bitwise_xor.accumulate(crossings, axis=1)[:, :width] * np.uint8(255)


def outlines(window: Bytes) -> list[npt.NDArray[np.int64]]:
    """The rings along the pixel edges of the non-zero pixels, each (n, 2) points x, y; odd-even filling restores them.

    Each corner joins one level and one upright edge, and along a row or column corners pair up in order.
    """
    solid = np.pad(window != 0, 1).astype(np.uint8)
    corner = solid[:-1, :-1] ^ solid[1:, :-1] ^ solid[:-1, 1:] ^ solid[1:, 1:]
    crossing = (solid[:-1, :-1] == solid[1:, 1:]) & (solid[1:, :-1] == solid[:-1, 1:])
    crossing &= solid[:-1, :-1] != solid[1:, :-1]
    # Where two pixels touch by a corner only, two rings meet: that corner counts twice.
    y, x = np.nonzero(corner | crossing)
    times = 1 + crossing[y, x].astype(np.intp)
    points = np.stack([np.repeat(x, times), np.repeat(y, times)], axis=1)
    partner = np.empty((2, len(points)), np.intp)
    for axis, order in enumerate((np.lexsort((points[:, 0], points[:, 1])), np.lexsort((points[:, 1], points[:, 0])))):
        partner[axis, order[0::2]], partner[axis, order[1::2]] = order[1::2], order[0::2]
    level, upright = partner.tolist()
    rings, seen = [], [False] * len(points)
    for start in range(len(points)):
        ring, here = [], start
        while not seen[here]:
            seen[here] = seen[level[here]] = True
            ring += [here, level[here]]
            here = upright[level[here]]
        if ring:
            rings.append(points[ring].astype(np.int64))
    return rings
