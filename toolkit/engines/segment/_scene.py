"""What clicks need to know of a picture, made once: superpixels, how alike they are, and how near.

Sources: Meyer: watershed by flooding, 1992 (OpenCV's), for the superpixels; Leung, Malik: textons, 2001, for words of
colour and texture; Zhu, Lafferty, Ghahramani: Gaussian fields, 2003, for the inverse Laplacian as a covariance.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.engines.segment.edge import Pixels
from toolkit.geometry import Box

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.intp]

SIDE = 480  # the longer side of the reduced picture
STRIP = 1 << 22  # pixels read at a time
SUPERPIXELS = 1500
LEAST_AREA = 36  # pixels of a superpixel; a small picture has fewer of them
WORDS = 96  # colours and textures that are told apart
SAMPLE = 6000  # pixels they are learnt from
POOLED = 2.0, 6.0  # sigma of the surroundings whose words describe a superpixel
GRADIENT, CHANGE = 12.0, 0.12  # Lab units, and difference of words, at which a border's strength is 1/e
LEAK = 0.003  # the least strength
REACHES = 0.003, 0.03  # how soon what a click says fades on its way through the graph
LIKENESS = 0.06  # difference of words at which two superpixels are alike to 1/e
NEAR = 0.25  # of the longer side: how far what a click says goes for what looks alike


@dataclass(frozen=True, eq=False)
class Scene:
    """A picture as a graph of n superpixels.

    Attributes:
        small: (h, w, 3) uint8 sRGB, the reduced picture.
        labels: (h, w) int32, the superpixel of each pixel, 0..n-1.
        area: (n,) float32, pixels of each superpixel in units of the mean.
        pairs: (m, 2), neighbours.
        strength: (m,) float32, how strongly neighbours hold together: 0 at a strong and short border.
        border: (m,) float32, length of their common border.
        covariance: (n, n) float32, of what is selected, before any click: near through the graph, or alike and near.
        likeness: (n, n) float32, 0..1, of colour and texture alone.
    """

    small: Pixels
    labels: npt.NDArray[np.int32]
    area: Floats
    pairs: Indices
    strength: Floats
    border: Floats
    covariance: Floats
    likeness: Floats


def reduced(read: Callable[[Box], Pixels], size: tuple[int, int], side: int = SIDE) -> Pixels:
    """The picture whose boxes `read` gives as (h, w, 3) uint8, its longer side at most `side`; read in strips."""
    width, height = size
    factor = min(1.0, side / max(size))
    columns, rows = max(1, round(width * factor)), max(1, round(height * factor))
    strips = max(1, min(rows, round(width * height / STRIP)))
    cuts = np.linspace(0, rows, strips + 1).astype(int).tolist()
    parts = []
    for first, last in pairwise(cuts):
        strip = read(Box(0, round(first * height / rows), width, round(last * height / rows)))
        parts.append(cv2.resize(strip, (columns, last - first), interpolation=cv2.INTER_AREA))
    return np.asarray(np.concatenate(parts), np.uint8)


def scene_of(small: Pixels) -> Scene:
    """Look at a reduced picture, (h, w, 3) uint8 sRGB, h and w at least 1."""
    height, width = small.shape[:2]
    lab = np.asarray(cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB), np.float32)
    labels = superpixels(small, max(1, min(SUPERPIXELS, height * width // LEAST_AREA)))
    flat = labels.ravel()
    area = np.bincount(flat)
    words, kinship = _words(lab)
    near, wide = (np.sqrt(_shares(words, len(kinship), labels, area, sigma) @ kinship) for sigma in POOLED)
    pairs, border, gradient = _borders(lab, labels)
    first, second = pairs.T
    change = sum(1 - (one[first] * one[second]).sum(1) for one in (near, wide))
    strength = border * np.sqrt(len(area) / flat.size) * (np.exp(-gradient / GRADIENT - change / CHANGE) + LEAK)
    relative = (area / area.mean()).astype(np.float32)

    likeness = np.exp((near @ near.T - 1) / LIKENESS)
    y, x = np.divmod(np.arange(flat.size), width)
    place = np.stack([np.bincount(flat, along) / area for along in (x, y)], axis=1) / max(height, width)
    away = ((place[:, None] - place) ** 2).sum(-1)
    covariance = 0.3 + likeness * np.exp(-away / (2 * NEAR**2))
    for fading in REACHES:
        covariance += _diffusion(pairs, strength, fading * relative)
    return Scene(
        small, labels, relative, pairs, strength.astype(np.float32), border, covariance.astype(np.float32),
        np.minimum(likeness, 1).astype(np.float32),
    )  # fmt: skip


def superpixels(small: Pixels, number: int) -> npt.NDArray[np.int32]:
    """About `number` regions of one colour, (h, w) int32: flooded from the flattest pixel of each cell of a grid."""
    height, width = small.shape[:2]
    smooth = cv2.copyMakeBorder(cv2.GaussianBlur(small, (0, 0), 0.8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    slope = np.zeros((height, width), np.float32)
    for way in ((1, 0), (0, 1)):
        slope += (cv2.Scharr(smooth, cv2.CV_32F, *way)[1:-1, 1:-1] ** 2).sum(-1)
    side = (height * width / number) ** 0.5
    rows, columns = (
        np.linspace(0, length, max(1, round(length / side)) + 1).astype(int).tolist() for length in (height, width)
    )
    markers, count = np.zeros(smooth.shape[:2], np.int32), 0
    for top, bottom in pairwise(rows):
        for left, right in pairwise(columns):
            y, x = (bottom - top) // 4, (right - left) // 4
            cell = slope[top + y : bottom - y, left + x : right - x]
            flattest = np.unravel_index(int(cell.argmin()), cell.shape)
            count += 1
            markers[1 + top + y + flattest[0], 1 + left + x + flattest[1]] = count
    cv2.watershed(smooth, markers)
    labels = np.maximum(markers[1:-1, 1:-1], 0)
    while not labels.all():  # the lines between the regions go to a neighbour
        spread = cv2.dilate(labels.astype(np.int16), np.ones((3, 3), np.uint8))
        labels = np.where(labels > 0, labels, spread)
    return np.asarray(labels - 1, np.int32)


def _words(lab: Floats) -> tuple[Indices, Floats]:
    """The word of each pixel, (h, w), and how much of each word counts as each other, (k, k) with rows of sum 1."""
    light = lab[..., 0]
    texture = []
    for sigma in (1.5, 4):
        detail = light - cv2.GaussianBlur(light, (0, 0), sigma)
        texture.append(np.sqrt(cv2.GaussianBlur(detail**2, (0, 0), sigma)))
    colour = cv2.GaussianBlur(lab, (0, 0), 1) * np.array((0.7, 1.3, 1.3), np.float32)
    described = np.dstack([colour, *texture]).reshape(-1, 5)
    chosen = described[np.random.default_rng(0).permutation(len(described))[:SAMPLE]]
    chosen = np.resize(chosen, (max(2, len(chosen)), 5))  # OpenCV takes a single row for a column
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_COUNT, 12, 0.5)
    start = np.zeros((len(chosen), 1), np.int32)
    _, _, centres = cv2.kmeans(chosen, min(WORDS, len(chosen)), start, stop, 1, cv2.KMEANS_PP_CENTERS)
    nearest = ((centres**2).sum(1) - 2 * described @ centres.T).argmin(1)
    apart = ((centres[:, None] - centres) ** 2).sum(-1)
    kinship = np.exp(-apart / 64)
    return nearest.reshape(light.shape), np.asarray(kinship / kinship.sum(1, keepdims=True), np.float32)


def _shares(words: Indices, number: int, labels: npt.NDArray[np.int32], area: Indices, sigma: float) -> Floats:
    """The share of each word in and around each superpixel, (n, k)."""
    shares = np.empty((len(area), number), np.float32)
    for word in range(number):
        here = cv2.GaussianBlur((words == word).astype(np.float32), (0, 0), sigma)
        shares[:, word] = np.bincount(labels.ravel(), here.ravel(), len(area))
    return np.asarray(shares / np.maximum(shares.sum(1, keepdims=True), 1e-12), np.float32)


def _borders(lab: Floats, labels: npt.NDArray[np.int32]) -> tuple[Indices, Floats, Floats]:
    """Which superpixels touch, (m, 2), each border's length in pixels, and its mean gradient in Lab units."""
    smooth = cv2.copyMakeBorder(cv2.GaussianBlur(lab, (0, 0), 0.8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    across = np.linalg.norm(smooth[1:-1, 2:] - smooth[1:-1, :-2], axis=2)
    down = np.linalg.norm(smooth[2:, 1:-1] - smooth[:-2, 1:-1], axis=2)
    ends = [(labels[:, :-1], labels[:, 1:]), (labels[:-1], labels[1:])]
    steps = np.concatenate([np.maximum(across[:, :-1], across[:, 1:]).ravel(), np.maximum(down[:-1], down[1:]).ravel()])
    both = np.concatenate([np.stack([one.ravel(), other.ravel()], axis=1) for one, other in ends])
    between = both[:, 0] != both[:, 1]
    pairs, which = np.unique(np.sort(both[between], axis=1), axis=0, return_inverse=True)
    length = np.bincount(which.ravel(), minlength=len(pairs)).astype(np.float32)
    gradient = np.bincount(which.ravel(), steps[between], len(pairs)) / length
    return pairs.astype(np.intp), length, gradient.astype(np.float32)


def _diffusion(pairs: Indices, strength: npt.NDArray[np.floating], fading: Floats) -> Floats:
    """Correlations (n, n) of a Gaussian field on the graph: the inverse of its Laplacian plus `fading`, scaled."""
    first, second = pairs.T
    laplacian = np.zeros((len(fading), len(fading)), np.float32)
    laplacian[first, second] = laplacian[second, first] = -strength
    np.fill_diagonal(laplacian, fading - laplacian.sum(1))
    inverse = np.linalg.inv(laplacian)
    scale = 1 / np.sqrt(np.diag(inverse))
    return np.asarray(inverse * scale[:, None] * scale, np.float32)
