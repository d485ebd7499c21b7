"""Fill a hole by marching inward from its edge: quick, smooth, for thin strokes and flat surroundings.

Source: Telea, "An Image Inpainting Technique Based on the Fast Marching Method", 2004, as OpenCV has it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from toolkit.blend import continued
from toolkit.cards import Card
from toolkit.engines.fill import ArrayFiller
from toolkit.errors import EngineError

Pixels = NDArray[np.uint8]

RADIUS = 5


def fill_hole(
    pixels: Pixels,
    hole: NDArray[np.uint8],
    blocked: NDArray[np.uint8] | None,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> Pixels:
    """Fill `hole` from its edge inward.

    Args:
        pixels: (h, w, 3) uint8 sRGB. What lies under the hole and under `blocked` is never read.
        hole: (h, w) uint8, 255 = to be filled, 0 = known.
        blocked: (h, w) uint8 or None, 255 = neither filled nor read; wins over `hole`.
        seed: not used, nothing here is random.
        progress: called with 1.0 at the end.

    Returns:
        (h, w, 3) uint8; every pixel outside the hole has the bytes it came with.

    Raises:
        EngineError: when no known pixel is left.
    """
    closed = np.zeros(hole.shape, bool) if blocked is None else blocked > 127
    bits = (hole > 127) & ~closed
    result = pixels.copy()
    if bits.any():
        # Blocked pixels are filled along with the hole, so that their colours cannot bleed into it.
        unknown = bits | closed
        if unknown.all():
            height, width = hole.shape
            raise EngineError(
                f"telea: the mask covers the whole window ({width}x{height} pixels), nothing to copy from"
            )
        filled = continued(pixels, unknown.astype(np.uint8), RADIUS)
        result[bits] = filled[bits]
    if progress:
        progress(1.0)
    return result


class Engine(ArrayFiller):
    """The adapter."""

    def __init__(self, card: Card) -> None:
        super().__init__(card, fill_hole)
