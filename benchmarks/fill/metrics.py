"""How near a filled picture comes to the truth: PSNR, SSIM, SWD, band, grad and seam over a known-answer hole.

Every function takes `truth` and `filled` as (h, w, 3) uint8 BGR pictures of the same size and `hole` as (h, w) bool.
PSNR and SSIM reward blur and no number here sees meaning: look at the pictures too.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.metrics import structural_similarity

Picture = NDArray[np.uint8]
Bits = NDArray[np.bool_]

PATCH = 7
DIRECTIONS = 64


def psnr(truth: Picture, filled: Picture, hole: Bits) -> float:
    """Peak signal to noise in dB over the three channels of the hole's pixels; higher is better."""
    error = (truth[hole].astype(np.float64) - filled[hole]) ** 2
    return float(10 * np.log10(255**2 / max(float(error.mean()), 1e-9)))


def ssim(truth: Picture, filled: Picture, hole: Bits) -> float:
    """Structural similarity, 7x7 window, averaged over channels and the hole; higher is better."""
    similarity = structural_similarity(truth, filled, channel_axis=2, full=True)[1]  # type: ignore[no-untyped-call]
    return float(similarity.mean(axis=2)[hole].mean())


def swd(truth: Picture, filled: Picture, hole: Bits) -> float:
    """Sliced Wasserstein distance of the 7x7 Lab patches around the hole's pixels; lower is better.

    64 fixed unit directions in R^147 (seed 0). Projecting a patch on a direction is a correlation with the
    direction shaped as a 7x7x3 kernel, so no patch is ever stored.
    """
    directions = np.random.default_rng(0).standard_normal((DIRECTIONS, PATCH, PATCH, 3))
    directions /= np.linalg.norm(directions.reshape(DIRECTIONS, -1), axis=1)[:, None, None, None]
    labs = [cv2.cvtColor(picture, cv2.COLOR_BGR2Lab).astype(np.float32) for picture in (truth, filled)]
    total = 0.0
    for direction in directions.astype(np.float32):
        columns = []
        for lab in labs:
            response = sum(
                cv2.filter2D(lab[..., c], cv2.CV_32F, direction[..., c], borderType=cv2.BORDER_REFLECT_101)
                for c in range(3)
            )
            columns.append(np.sort(np.asarray(response)[hole]))
        total += float(np.abs(columns[0] - columns[1]).mean(dtype=np.float64))
    return total / DIRECTIONS


def band(truth: Picture, filled: Picture, hole: Bits) -> float:
    """Mean log ratio of the texture energy in four bands, over the hole eroded by 5x5; lower is better."""
    inner = _inner(hole)
    logs = []
    for sigma in (1, 2, 4, 8):
        energies = []
        for picture in (filled, truth):
            grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
            difference = cv2.GaussianBlur(grey, (0, 0), 0.5 * sigma + 0.001) - cv2.GaussianBlur(grey, (0, 0), sigma)
            energies.append(float(difference[inner].std()) + 0.5)
        logs.append(abs(float(np.log(energies[0] / energies[1]))))
    return float(np.mean(logs))


def grad(truth: Picture, filled: Picture, hole: Bits) -> float:
    """Mean gradient of the fill over that of the truth in the hole eroded by 5x5; 1 = as sharp as the truth."""
    return _gradient_ratio(truth, filled, _inner(hole))


def seam(truth: Picture, filled: Picture, hole: Bits) -> float:
    """The same ratio along the hole's edge; above 1 a step shows, well below 1 blur."""
    kernel, bits = np.ones((3, 3), np.uint8), hole.astype(np.uint8)
    return _gradient_ratio(truth, filled, (cv2.dilate(bits, kernel) > 0) & (cv2.erode(bits, kernel) == 0))


ALL = {"psnr": psnr, "ssim": ssim, "swd": swd, "band": band, "grad": grad, "seam": seam}


def measure(truth: Picture, filled: Picture, hole: Bits) -> dict[str, float]:
    """All metrics by name. Only the part within 40 px of the hole is read, which changes none of them."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    near = np.s_[max(0, rows[0] - 40) : rows[-1] + 41, max(0, columns[0] - 40) : columns[-1] + 41]
    return {name: metric(truth[near], filled[near], hole[near]) for name, metric in ALL.items()}


def ratio(values: Sequence[float], reference: Sequence[float]) -> float:
    """Geometric mean of (x + 0.02) / (reference + 0.02) over the cases."""
    pairs = (np.asarray(values) + 0.02) / (np.asarray(reference) + 0.02)
    return float(np.exp(np.log(pairs).mean()))


def geometric(values: Sequence[float]) -> float:
    """Geometric mean, used for grad and seam."""
    return float(np.exp(np.log(np.maximum(values, 1e-9)).mean()))


def _inner(hole: Bits) -> Bits:
    """The hole eroded by a 5x5 square, or the hole itself where nothing would be left."""
    inner = cv2.erode(hole.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    return inner if inner.any() else hole


def _gradient_ratio(truth: Picture, filled: Picture, where: Bits) -> float:
    means = []
    for picture in (filled, truth):
        grey = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY).astype(np.float32)
        length = cv2.magnitude(cv2.Sobel(grey, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(grey, cv2.CV_32F, 0, 1, ksize=1))
        means.append(float(length[where].mean()) + 0.2)
    return means[0] / means[1]
