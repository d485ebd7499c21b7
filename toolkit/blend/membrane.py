"""Spread values known in some places smoothly over the others."""

from __future__ import annotations

import cv2
import numpy as np

from toolkit.blend.arrays import Floats


def membrane(values: Floats, certainty: Floats) -> Floats:
    """Smooth field near `values` where `certainty` is high, as flat as possible elsewhere; all (h, w, C).

    Solves certainty * (u - values) = laplacian(u), coarse to fine with a few Jacobi steps on each level.
    """
    height, width = values.shape[:2]
    if min(height, width) <= 2:
        total = certainty.sum(axis=(0, 1))
        mean = (values * certainty).sum(axis=(0, 1)) / np.maximum(total, 1e-12)
        start: Floats = np.broadcast_to(mean, values.shape).astype(np.float32)
    else:
        small = ((width + 1) // 2, (height + 1) // 2)
        weight = resized(certainty, small, cv2.INTER_AREA)
        mean = resized(values * certainty, small, cv2.INTER_AREA) / np.maximum(weight, 1e-12)
        start = resized(membrane(mean, weight * 4), (width, height), cv2.INTER_LINEAR)
    kernel = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]], np.float32)
    pull, drive = 1 / (certainty + 4), certainty * values
    for _ in range(12):
        around = cv2.filter2D(start, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE).reshape(values.shape)
        start = (drive + around) * pull
    return start


def resized(array: Floats, size: tuple[int, int], method: int) -> Floats:
    """`array` (h, w, C) at `size` = (width, height) by an OpenCV interpolation; keeps the third axis."""
    out = cv2.resize(array, size, interpolation=method)
    return np.asarray(out, np.float32).reshape(size[1], size[0], array.shape[2])
