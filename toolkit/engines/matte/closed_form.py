"""Alpha by closed-form matting, as PyMatting solves it.

Source: Levin, Lischinski, Weiss: A Closed-Form Solution to Natural Image Matting, 2008.
"""

from __future__ import annotations

import contextlib
import importlib.util
import io

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.cards import Card
from toolkit.engines.matte import ArrayMatter
from toolkit.geometry import Box

Bytes = NDArray[np.uint8]

MARGIN = 4  # pixels of known ground and subject that the windows at the band's rims see


def missing(card: Card) -> str:
    """What is not installed, or nothing; nothing is imported."""
    if importlib.util.find_spec("pymatting") is None:
        return 'PyMatting is not installed: pip install "inpaint-toolkit[matting]"'
    return ""


def alpha_of(pixels: Bytes, trimap: Bytes) -> Bytes:
    """The alpha of what lies between sure foreground and sure background.

    Args:
        pixels: (h, w, 3) uint8 sRGB.
        trimap: (h, w) uint8: 0 = background, 255 = foreground, anything else = unknown.

    Returns:
        (h, w) uint8; 0 and 255 exactly where the trimap has them.
    """
    result = trimap.copy()
    unknown = (trimap != 0) & (trimap != 255)
    if not unknown.any():
        return result
    x, y, width, height = cv2.boundingRect(unknown.astype(np.uint8))
    frame = Box.of_size((trimap.shape[1], trimap.shape[0]))
    part = Box(x, y, x + width, y + height).grow(MARGIN).intersect(frame)
    known = trimap[part.slices]
    if not (known == 255).any() or not (known == 0).any():
        # With one side only the smoothest alpha is that side's everywhere.
        result[unknown] = 255 if (known == 255).any() else 0
        return result
    from pymatting import estimate_alpha_cf  # seconds, and a minute when first imported after its installation

    shares = np.where(known == 0, 0.0, np.where(known == 255, 1.0, 0.5))
    with contextlib.redirect_stdout(io.StringIO()):  # it prints about its preconditioner
        alpha = estimate_alpha_cf(pixels[part.slices] / 255.0, shares)
    found = np.rint(np.clip(alpha, 0, 1) * 255).astype(np.uint8)
    inside = unknown[part.slices]
    result[part.slices][inside] = found[inside]
    return result


class Engine(ArrayMatter):
    """The adapter; the library is imported by the worker process, at its first job."""

    def __init__(self, card: Card) -> None:
        super().__init__(card, alpha_of)
