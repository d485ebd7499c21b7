"""The reflection of an object in water or on a glossy floor, proposed as a region of its own.

A reflection is the object turned upside down about the line it stands on, darker, blurred and broken by waves. So the
crop is mirrored about candidate lines and compared with what is there, by normalised cross-correlation over the
mirrored silhouette and its rim; how high it would come by chance is learnt from the same picture, mirrored and then
moved sideways, where there is nothing to find.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.shadows.light import Bits, Floats, log_light, rise

_LEAST = 250
"""Pixels below which a correlation says nothing."""

_SHARE = 0.4
"""Share of the object's area that must be seen mirrored."""

_DEPTHS = ((1.0, 0.0), (0.6, 0.1))
"""Shares of the object's height that may be seen mirrored, waves hiding the rest; how much surer the lesser must be."""


def reflection(small: npt.NDArray[np.uint8], taken: Bits) -> tuple[Bits, float] | None:
    """The region most like the object's reflection and how sure that is.

    Args:
        small: (h, w, 3) uint8 sRGB, reduced.
        taken: (h, w) bool, the object.

    Returns:
        Region (h, w) bool and confidence 0-1; None where below the object is no room for one.
    """
    rows, columns = np.nonzero(taken)
    top, bottom = int(rows.min()), int(rows.max()) + 1
    height = bottom - top
    blurred = cv2.GaussianBlur(log_light(small), (0, 0), sigmaX=0.8, sigmaY=max(1.0, 0.03 * height))
    light = np.asarray(blurred, np.float32)
    best: tuple[float, float, Bits] | None = None
    for line in np.arange(bottom - 0.12 * height, bottom + 0.06 * height, 0.5):
        for depth, less in _DEPTHS:
            region, rim, mirrored = _turned(light, taken, float(line), depth * height)
            if np.count_nonzero(region) < max(_LEAST, _SHARE * len(rows)):
                continue
            found = _correlation(mirrored, light, rim) - less
            if best is None or found > best[0]:
                best = found, float(line), region
                kept = rim, mirrored
    if best is None:
        return None
    rim, mirrored = kept
    width = int(columns.max()) + 1 - int(columns.min())
    chance = [0.0]
    for shift in np.linspace(0.2, 1.0, 9) * width:
        for step in (-round(shift), round(shift)):
            moved = np.roll(mirrored, step, axis=1)
            there = np.roll(rim, step, axis=1) & ~taken
            if np.count_nonzero(there) >= _LEAST:
                chance.append(_correlation(moved, light, there))
    sure = rise(best[0], 0.4, 0.6) * rise(best[0] - max(chance), 0.08, 0.22)
    return best[2], sure


def _turned(light: Floats, taken: Bits, line: float, depth: float) -> tuple[Bits, Bits, Floats]:
    """Mirrored about `line`: the silhouette down to `depth` below it, the same with its rim, and the picture."""
    height, width = taken.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    source = 2 * np.float32(line) - 1 - y
    below = (y >= line) & (source >= 0) & (y < line + depth)
    mask = cv2.remap(taken.astype(np.uint8), x, source, cv2.INTER_NEAREST) > 0
    region = mask & below & ~taken
    rim = (cv2.dilate(region.astype(np.uint8), np.ones((5, 9), np.uint8)) > 0) & below & ~taken
    return region, rim, np.asarray(cv2.remap(light, x, source, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE))


def _correlation(one: Floats, other: Floats, where: Bits) -> float:
    """How alike two pictures (h, w, 3) are over `where`: normalised cross-correlation, channels together.

    The lower of two counts: as they are, and less the mean of every row, so that light that fades downward is not
    taken for an image.
    """
    a, b = (np.where(where[..., None], part, np.float32(0)) for part in (one, other))
    counts = where.astype(np.float32)[..., None]
    least = 1.0
    for axis in ((0, 1), 1):
        number = np.maximum(1, counts.sum(axis=axis, keepdims=True))
        first, second = ((part - part.sum(axis=axis, keepdims=True) / number) * counts for part in (a, b))
        both = float(np.sqrt((first * first).sum(dtype=np.float64) * (second * second).sum(dtype=np.float64)))
        least = min(least, float((first * second).sum(dtype=np.float64)) / max(1e-9, both))
    return least
