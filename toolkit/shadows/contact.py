"""A contact shadow made for a product that stands on a ground: where light does not get in under it.

Dark and tight along the line it stands on, softer and fainter away from it, as under a large soft light.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box
from toolkit.shadows.light import Floats

_LAYERS = ((0.012, 0.55, 1.0, 0.0), (0.045, 0.42, 2.0, 0.3), (0.13, 0.3, 4.0, 0.6))
"""From the tight core to the wide soft shadow: reach on the ground as a share of the base's width, strength, how much
higher a part may hang to count as base, and how far down to the lowest row its shadow falls."""

_FLATTENED = 0.4
"""How much less a shadow on the ground spreads up and down than across: the ground is seen at a slant."""


def contact_shadow(matte: npt.NDArray[np.uint8], allowed: Box) -> npt.NDArray[np.uint8]:
    """The shadow of a product on the ground.

    Args:
        matte: (h, w) uint8, 255 = product; a reduced copy is enough.
        allowed: where a shadow may lie, in the matte's pixels; may reach beyond it on every side.

    Returns:
        (allowed.height, allowed.width) uint8, 255 = no light is left; 0 everywhere where there is no product.
    """
    strength = np.zeros((allowed.height, allowed.width), np.float32)
    columns = np.flatnonzero((matte > 127).any(axis=0))
    if not len(columns):
        return strength.astype(np.uint8)
    line, lowest, size = _standing_line(matte, columns)
    free = np.ones_like(strength)
    for reach, dark, lenient, falling in _LAYERS:
        lifted = (line - lowest) / (0.05 * lenient * size)
        high = (lowest.max() - line) / (0.1 * lenient * size)
        weight = np.exp(-np.minimum(lifted**2 + high**2, 50.0))
        spread = max(0.7, reach * (float(np.ptp(columns[weight > 0.2])) + 1))
        ground = line + falling * (lowest.max() - line)
        drawn = _drawn(columns, ground, weight, spread, allowed)
        blurred = cv2.GaussianBlur(drawn, (0, 0), sigmaX=spread, sigmaY=max(0.5, _FLATTENED * spread))
        free *= 1 - np.float32(dark) * np.minimum(blurred, 1)
    return np.asarray(np.rint(255 * (1 - free)), np.uint8)


def _standing_line(
    matte: npt.NDArray[np.uint8], columns: npt.NDArray[np.intp]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], float]:
    """The line a product stands on and the end of its silhouette, a row for each of `columns`, and its size.

    The line is the lower convex hull of the silhouette, so that the arch of a shoe is spanned; a product touches the
    ground where it meets that line and the line is low.
    """
    opaque = matte[:, columns] > 127
    height = matte.shape[0]
    lowest = height - np.argmax(opaque[::-1], axis=0).astype(np.float64)
    points = np.stack([columns, lowest], axis=1).astype(np.float32)
    above = np.array([[columns[0], -1], [columns[-1], -1]], np.float32)
    hull = cv2.convexHull(np.concatenate([points, above])).reshape(-1, 2)
    hull = hull[hull[:, 1] >= 0]
    hull = hull[np.argsort(hull[:, 0], kind="stable")]
    line = np.interp(columns, hull[:, 0], hull[:, 1])
    rows = np.flatnonzero(opaque.any(axis=1))
    return line, lowest, float(np.sqrt(len(columns) * (rows[-1] + 1 - rows[0])))


def _drawn(
    columns: npt.NDArray[np.intp],
    line: npt.NDArray[np.float64],
    weight: npt.NDArray[np.float64],
    spread: float,
    allowed: Box,
) -> Floats:
    """What is blurred: a band along the standing line as thick as the blur is wide, so that its middle stays dark."""
    drawn = np.zeros((allowed.height, allowed.width), np.float32)
    x = columns - allowed.left
    shown = (x >= 0) & (x < allowed.width)
    half = max(0.5, 1.5 * _FLATTENED * spread)
    rows = np.arange(allowed.height)[:, None] + allowed.top + 0.5
    # Coverage of every pixel by the band, exact to the fraction of a pixel.
    cover = np.clip(half + 0.5 - np.abs(rows - line[None, shown]), 0, 1) * weight[None, shown]
    drawn[:, x[shown]] = cover
    return drawn
