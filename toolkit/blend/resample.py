"""Resample a plane of pixels to another scale, strip by strip, as if it were done at once.

Lanczos-3 widened by the scale where it reduces (so that it averages), Catmull-Rom where it enlarges; separable, in
float64, colours weighted by their alpha. R. G. Keys, Cubic convolution interpolation (1981); C. E. Duchon, Lanczos
filtering in one and two dimensions (1979).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from toolkit.blend.arrays import Array
from toolkit.geometry import Box

_BLOCK = 16
_PART = 1 << 18
"""Pixels of the plane that are read at once."""


@dataclass(frozen=True)
class Scaling:
    """How output pixels lie on a plane: pixel i covers `origin + i * step` to `origin + (i + 1) * step`, each axis.

    Attributes:
        origin: x and y, in the plane, of the output's left top corner.
        step: plane pixels for one output pixel, on both axes alike; above 1 reduces.
    """

    origin: tuple[float, float]
    step: float


def resampled(read: Callable[[Box], Array], extent: Box, box: Box, scaling: Scaling, *, alpha: bool) -> Array:
    """The output pixels `box` of a plane: (h, w, C) float64 on the plane's own scale, not clipped.

    Only as much of the plane is read as the filter reaches; whatever part of the output is asked for, its pixels
    are the same (within 1e-9 of a level).

    Args:
        read: gives the plane's pixels (h, w, C) of a box within `extent`, uint8 or uint16.
        extent: the plane; beyond it there is nothing, and the filter's weight falls on what there is.
        box: in output pixels.
        scaling: where output pixels lie on the plane.
        alpha: the last channel is alpha, and the colours are straight; where the result is wholly transparent its
            colour is white.
    """
    columns = _taps(box.left, box.right, scaling.origin[0], scaling.step, extent.left, extent.right)
    rows = _taps(box.top, box.bottom, scaling.origin[1], scaling.step, extent.top, extent.bottom)
    height = max(1, _PART // (columns.high - columns.low))
    down, top = np.empty(0), 0
    for first in range(rows.low, rows.high, height):
        pixels = read(Box(columns.low, first, columns.high, min(first + height, rows.high)))
        top = np.iinfo(pixels.dtype).max
        count, width, bands = pixels.shape
        across = np.ascontiguousarray(pixels.transpose(1, 0, 2))
        wide = columns.weigh(across.reshape(width, count * bands), bands if alpha else 0, top)
        if not down.size:
            down = np.empty((rows.high - rows.low, box.width, bands))
        down[first - rows.low : first - rows.low + count] = wide.reshape(box.width, count, bands).transpose(1, 0, 2)
    result = rows.weigh(down.reshape(len(down), -1)).reshape(box.height, box.width, -1)
    if alpha:
        share = result[..., -1:]
        seen = share > 1e-6 * top
        np.divide(result[..., :-1] * top, share, out=result[..., :-1], where=seen)
        result[..., :-1][~seen[..., 0]] = top
    return result


def levels(values: Array, dtype: type[np.uint8] | type[np.uint16], noise: Array | None = None) -> Array:
    """Float values (h, w, C) as the nearest levels of `dtype`; with `noise` (h, w) of at most half a level, dithered.

    A value that is a level stays one either way.
    """
    # A hair upwards: whether half a level rounds up never depends on how a sum was arranged.
    shifted = values + (1e-7 if noise is None else noise[..., None])
    return np.clip(np.rint(shifted), 0, np.iinfo(dtype).max).astype(dtype)


def dither(box: Box) -> Array:
    """Noise (h, w) float64 between -0.5 and 0.5 that depends on the pixel's place alone and has few low frequencies.

    Interleaved gradient noise; J. Jimenez, Next generation post processing in Call of Duty (2014).
    """
    x, y = np.arange(box.left, box.right), np.arange(box.top, box.bottom)
    inner = np.mod(0.06711056 * x[None, :] + 0.00583715 * y[:, None], 1.0)
    noise: Array = 0.998 * (np.mod(52.9829189 * inner, 1.0) - 0.5)
    return noise


@dataclass(frozen=True)
class _Taps:
    """The weights of one axis: output i is the sum of `weights[i]` times the plane from `starts[i]` on."""

    starts: Array
    weights: Array
    low: int
    high: int

    def weigh(self, values: Array, premultiply: int = 0, top: int = 0) -> Array:
        """`values` (length, n), whose first row is at `low`, to (outputs, n) float64.

        With `premultiply` bands a pixel along n, the last of them is alpha, which the others are multiplied with.
        """
        result = np.empty((len(self.starts), values.shape[1]))
        reach = np.arange(self.weights.shape[1])
        for first in range(0, len(self.starts), _BLOCK):
            places = self.starts[first : first + _BLOCK, None] + reach
            low = max(self.low, int(places.min()))
            high = min(self.high, int(places.max()) + 1)
            inside = (places >= low) & (places < high)
            matrix = np.zeros((len(places), high - low))
            lines = np.broadcast_to(np.arange(len(places))[:, None], places.shape)
            matrix[lines[inside], places[inside] - low] = self.weights[first : first + _BLOCK][inside]
            part = values[low - self.low : high - self.low].astype(np.float64)
            if premultiply:
                pixels = part.reshape(len(part), -1, premultiply)
                pixels[..., :-1] *= pixels[..., -1:] / top
            np.matmul(matrix, part, out=result[first : first + _BLOCK])
        return result


@functools.lru_cache(maxsize=8)
def _taps(first: int, last: int, origin: float, step: float, low: int, high: int) -> _Taps:
    wide = max(1.0, step)
    support = (3.0 if step > 1 else 2.0) * wide
    centres = origin + (np.arange(first, last) + 0.5) * step
    starts = np.floor(centres - support).astype(np.int64)
    places = starts[:, None] + np.arange(int(np.ceil(2 * support)) + 2)
    away = np.abs(places + 0.5 - centres[:, None]) / wide
    weights = np.where(away < support / wide, np.sinc(away) * np.sinc(away / 3) if step > 1 else _cubic(away), 0.0)
    weights[(places < low) | (places >= high)] = 0
    weights /= weights.sum(axis=1, keepdims=True)
    return _Taps(starts, weights, max(low, int(places.min())), min(high, int(places.max()) + 1))


def _cubic(away: Array) -> Array:
    near = (1.5 * away - 2.5) * away**2 + 1
    far = ((-0.5 * away + 2.5) * away - 4) * away + 2
    result: Array = np.where(away < 1, near, far)
    return result
