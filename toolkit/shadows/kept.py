"""The shadow a product throws on plain ground, as a layer that can be laid on another background.

The ground without the shadow is fitted as a smooth surface; the layer is what the picture lacks of it, as a ratio
(compare the shadow mattes of Chuang et al., "Shadow matting and compositing", 2003).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.shadows.light import Bits, Floats, fall, rise, smooth

_DEGREE = 3
"""Of the polynomial that stands for the paper's own light."""

_FLOOR = 0.008
"""Strength below which nothing is taken for a shadow, however even the ground is."""

_EDGE = 0.012
"""Share of the product's size beside its matte that may still be product, where the matte is a little off."""

_LUMA = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class Kept:
    """A shadow layer.

    Attributes:
        strength: (h, w) uint8, 255 = no light is left; continued under the product's edge.
        confidence: 0-1, whether the ground is plain enough for that.
        reason: what speaks most against it.
    """

    strength: npt.NDArray[np.uint8]
    confidence: float
    reason: str = ""


def kept_shadow(pixels: npt.NDArray[np.uint8], matte: npt.NDArray[np.uint8]) -> Kept:
    """Estimate the shadow layer around a product.

    Args:
        pixels: (h, w, 3) uint8 sRGB: the product with its surroundings. A copy of 400 to 600 pixels a side is enough
            for a shadow, and its noise is averaged.
        matte: (h, w) uint8, 255 = product.
    """
    height, width = matte.shape
    product = matte > 127
    size = float(np.sqrt(np.count_nonzero(product)))
    touched = cv2.distanceTransform((matte <= 4).astype(np.uint8), cv2.DIST_L2, 5)
    known = touched > max(2.0, _EDGE * size)
    nothing = np.zeros((height, width), np.uint8)
    if not product.any() or np.count_nonzero(known) < max(200, 0.1 * known.size):
        return Kept(nothing, 0.0, "too little of the ground is seen")
    away = np.asarray(cv2.distanceTransform((~product).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
    colour = np.asarray(pixels.astype(np.float32) / 255, np.float32)
    luma = np.asarray(colour @ _LUMA, np.float32)
    ground, weight = _ground(luma, known, away, size)
    even = smooth(luma, known, max(0.8, max(height, width) / 400))
    lacking = np.asarray(1 - even / np.maximum(ground, 0.02), np.float32)
    free = known & (weight > 0.5)
    if np.count_nonzero(free) < max(100, 0.05 * known.size):
        return Kept(nothing, 0.0, "the ground is not plain")
    noise = 1.4826 * float(np.median(np.abs(lacking[free])))
    limit = _FLOOR + 3 * noise
    shadow = _joined(lacking, known, product, away, limit, size)
    strength = _finished(lacking * shadow, known, product, size)
    rest = known & (shadow < 0.1)
    rough = float(np.quantile(np.abs(lacking[rest]), 0.9)) if rest.any() else 1.0
    inside = known & (strength > 1.5 * limit)
    tint = _tint(colour, known, inside, ground, lacking) if np.count_nonzero(inside) > 20 else 0.0
    black = float(np.mean(lacking[inside] > 0.75)) if inside.any() else 0.0
    rules = {
        "the ground is not plain": fall(rough, 0.025, 0.07),
        "the ground is too dark": rise(float(np.median(ground[known])), 0.12, 0.3),
        "what is darker there has another colour than the ground": fall(tint, 0.08, 0.2),
        "what is darker there is black": fall(black, 0.15, 0.4),
    }
    worst = min(rules, key=lambda rule: rules[rule])
    return Kept(
        np.asarray(np.rint(strength * 255), np.uint8),
        float(np.prod(list(rules.values()))),
        worst if rules[worst] < 0.95 else "",
    )


def _ground(luma: Floats, known: Bits, away: Floats, size: float) -> tuple[Floats, Floats]:
    """The unshadowed ground (h, w) and how much every pixel counts for it: a polynomial that ignores what is darker.

    What is near to the product, by its size, counts less, being shadowed oftener.
    """
    height, width = luma.shape
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    x, y = 2 * x / max(1, width - 1) - 1, 2 * y / max(1, height - 1) - 1
    terms = [x**i * y**j for i in range(_DEGREE + 1) for j in range(_DEGREE + 1 - i)]
    places = np.flatnonzero(known.ravel())
    places = places[:: max(1, len(places) // 6000)]
    design = np.stack([term.ravel()[places] for term in terms], axis=1).astype(np.float64)
    data = luma.ravel()[places].astype(np.float64)
    near = np.clip(away.ravel()[places] / (0.4 * size), 0.15, 1)
    ridge = 1e-4 * len(places) * np.eye(design.shape[1])
    ridge[0, 0] = 1e-6 * len(places)
    weight = near * (data >= np.quantile(data, 0.2))
    for _ in range(12):
        solved = np.linalg.solve(design.T @ (design * weight[:, None]) + ridge, design.T @ (data * weight))
        off = data - design @ solved
        above = off[off > 0]
        spread = max(0.004, 1.4826 * float(np.median(above)) if len(above) else 0.0)
        weight = near / (1 + (np.where(off < 0, off, 0.3 * off) / (2 * spread)) ** 4)
    ground = np.zeros_like(luma)
    for factor, term in zip(solved, terms, strict=True):
        ground += np.float32(factor) * term
    counts = 1 / (1 + (np.minimum(luma - ground, 0) / (2 * spread)) ** 4)
    return ground, np.asarray(counts, np.float32)


def _joined(lacking: Floats, known: Bits, product: Bits, away: Floats, limit: float, size: float) -> Floats:
    """A soft gate (h, w) 0-1: parts of the darkness that hang together with the product and stand out of the noise."""
    dark = ((lacking > limit) & known & (away < 1.2 * size)) | product
    _, parts = cv2.connectedComponents(dark.astype(np.uint8), connectivity=8)
    touching = np.unique(parts[product | ((away < max(4.0, 0.03 * size)) & dark)])
    inside = np.isin(parts, touching[touching > 0])
    share = np.clip((lacking - 0.6 * limit) / (1.4 * limit), 0, 1)
    reach = np.clip((1.2 - away / size) / 0.5, 0, 1)
    gate = cv2.GaussianBlur(inside.astype(np.float32), (0, 0), max(1.0, 0.01 * size))
    gate = np.where(
        cv2.dilate(inside.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0, np.maximum(gate, 0.5 * inside), 0
    )
    return np.asarray(gate * share * share * (3 - 2 * share) * reach, np.float32)


def _finished(strength: Floats, known: Bits, product: Bits, size: float) -> Floats:
    """Continued under the product's edge, and ended softly where the picture ends."""
    height, width = known.shape
    under = smooth(strength, known, max(1.5, 0.02 * size))
    whole = np.clip(np.where(known, strength, under), 0, 1).astype(np.float32)
    hidden = cv2.distanceTransform(product.astype(np.uint8), cv2.DIST_L2, 5)
    whole *= np.clip(2 - hidden / max(3.0, 0.03 * size), 0, 1)
    rows, columns = np.arange(height)[:, None], np.arange(width)[None]
    edge = np.minimum(np.minimum(rows, height - 1 - rows), np.minimum(columns, width - 1 - columns))
    return np.asarray(whole * np.clip(edge / max(2.0, 0.03 * max(height, width)), 0, 1), np.float32)


def _tint(colour: Floats, known: Bits, inside: Bits, ground: Floats, lacking: Floats) -> float:
    """How far the channels' ratios to the ground's colour lie apart in the shadow, in the median."""
    plain = known & (np.abs(lacking) < 0.05)
    if np.count_nonzero(plain) < 50:
        return 1.0
    hue = np.median(colour[plain] / np.maximum(ground[plain], 0.02)[:, None], axis=0)
    ratio = colour[inside] / np.maximum(ground[inside][:, None] * hue, 0.02)
    return float(np.median(ratio.max(axis=1) - ratio.min(axis=1)))
