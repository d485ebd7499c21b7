"""Fill a hole from the rest of its window with PatchMatch: no weights, no network, any size.

Small windows are filled by the native library at full size. Larger ones are filled on a reduced copy; then the
offsets that the reduced fill was copied by are recovered and refined up to full size (`_transfer`), so that the
hole holds real pixels of the photo and no enlarged ones.

Sources: Barnes, Shechtman, Finkelstein, Goldman, "PatchMatch", SIGGRAPH 2009; Wexler, Shechtman, Irani,
"Space-Time Completion of Video", 2007; Kwatra, Essa, Bobick, Kwatra, "Texture Optimization", SIGGRAPH 2005.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.cards import Card
from toolkit.engines.fill import ArrayFiller
from toolkit.engines.fill._match import whole_patches
from toolkit.engines.fill._transfer import any_of, transfer
from toolkit.errors import EngineError

Pixels = NDArray[np.uint8]
Bits = NDArray[np.bool_]

# The native fill costs about 7 CPU seconds a megapixel: this many pixels are filled by it at most.
NATIVE_PIXELS = 300_000

PATCH_RADIUS = 3
SMALLEST = 8
# A weak preference for sources at the same height, and half as much in the same column: scenes lie in layers.
# The native code wraps coordinate differences above 0.5.
HEIGHT_WEIGHT, WIDTH_WEIGHT, GUIDE_WEIGHT = 0.50, 0.25, 0.007
# Blocked pixels this near to the hole (at the native size) are filled too and put back, so that none is matched.
BLOCKED_MARGIN = 8

# The native library keeps its seed for the whole process.
_NATIVE = threading.Lock()


def fill_hole(
    pixels: Pixels,
    hole: NDArray[np.uint8],
    blocked: NDArray[np.uint8] | None,
    seed: int,
    progress: Callable[[float], None] | None = None,
) -> Pixels:
    """Fill `hole` with pieces of the known part of the window.

    Args:
        pixels: (h, w, 3) uint8 sRGB. What lies under the hole and under `blocked` is never read.
        hole: (h, w) uint8, 255 = to be filled, 0 = known.
        blocked: (h, w) uint8 or None, 255 = neither filled nor copied from; wins over `hole`.
        seed: any integer; the same seed gives the same bytes in any process or thread.
        progress: called with a share from 0 to 1; may raise to stop the work.

    Returns:
        (h, w, 3) uint8; every pixel outside the hole has the bytes it came with.

    Raises:
        EngineError: when the window holds nothing to copy from, or the native library is not available.
    """
    report = progress or (lambda share: None)
    bits = hole > 127
    closed = np.zeros_like(bits) if blocked is None else blocked > 127
    bits &= ~closed
    if not bits.any():
        return pixels.copy()
    if not (~(bits | closed)).any():
        height, width = bits.shape
        raise EngineError(
            f"patchmatch: the mask covers the whole window ({width}x{height} pixels), nothing to copy from"
        )
    levels = max(0, math.ceil(math.log(bits.size / NATIVE_PIXELS, 4)))
    step = 1 << levels
    height, width = bits.shape
    # Whole multiples of the step, and never narrower than a patch: the native fill darkens single rows.
    below, right = max(-height % step, SMALLEST - height), max(-width % step, SMALLEST - width)
    mirrored, mirrored_hole, mirrored_closed = (
        np.asarray(cv2.copyMakeBorder(array, 0, below, 0, right, cv2.BORDER_REFLECT_101), np.uint8)
        for array in (pixels, bits.astype(np.uint8), closed.astype(np.uint8))
    )
    report(0.02)
    coarse_hole = any_of(mirrored_hole > 0, step)
    coarse_closed = any_of(mirrored_closed > 0, step) & ~coarse_hole
    coarse = mirrored
    if levels:
        size = (coarse_hole.shape[1], coarse_hole.shape[0])
        coarse = np.asarray(cv2.resize(mirrored, size, interpolation=cv2.INTER_AREA), np.uint8)
    coarse = _native_fill(coarse, coarse_hole, coarse_closed, seed)
    if not levels:
        filled = coarse
    elif whole_patches(coarse_hole, coarse_closed).any():
        report(0.4)
        filled = transfer(
            mirrored,
            mirrored_hole > 0,
            mirrored_closed > 0,
            coarse,
            levels,
            seed,
            lambda share: report(0.4 + 0.55 * share),
        )
    else:
        raise EngineError(
            f"patchmatch: the known part of the window ({width}x{height} pixels) holds no whole patch of "
            f"{8 * step}x{8 * step} pixels to copy from; give the hole more context"
        )
    result = pixels.copy()
    result[bits] = filled[:height, :width][bits]
    report(1.0)
    return result


def _native_fill(pixels: Pixels, hole: Bits, closed: Bits, seed: int) -> Pixels:
    """Guided PatchMatch of the whole picture; pixels under `closed` are arbitrary in the answer."""
    import patchmatch  # compiled: loaded when first needed

    if not patchmatch.patchmatch_available:
        raise EngineError(
            "patchmatch: the native library did not load on this machine; reinstall pypatchmatch, or fill with telea"
        )
    height, width = hole.shape
    kernel = np.ones((2 * BLOCKED_MARGIN + 1,) * 2, np.uint8)
    near = closed & (cv2.dilate(hole.astype(np.uint8), kernel) > 0)
    known = ~(hole | closed)
    # Neutral under the hole and under what is blocked, so that nothing of it can leak.
    neutral = np.median(pixels[known], axis=0).astype(np.uint8)
    opened = np.where(known[..., None], pixels, neutral)
    position = np.zeros((height, width, 3), np.float32)
    position[..., 0] = HEIGHT_WEIGHT * np.arange(height, dtype=np.float32)[:, None] / max(height, width)
    position[..., 1] = WIDTH_WEIGHT * np.arange(width, dtype=np.float32)[None, :] / max(height, width)
    apart = closed & ~near
    with _NATIVE:
        patchmatch.set_random_seed(seed % (1 << 32))
        try:
            filled: Pixels = patchmatch.inpaint_regularity(
                opened,
                (hole | near).astype(np.uint8) * 255,
                position,
                global_mask=apart.astype(np.uint8) * 255 if apart.any() else None,
                patch_size=PATCH_RADIUS,
                guide_weight=GUIDE_WEIGHT,
            )
        except RuntimeError as error:
            raise EngineError(f"patchmatch: the native library failed on {width}x{height} pixels: {error}") from error
    return filled


class Engine(ArrayFiller):
    """The adapter."""

    def __init__(self, card: Card) -> None:
        super().__init__(card, fill_hole)


def missing(card: Card) -> str:
    """What keeps PatchMatch from running here."""
    try:
        import patchmatch
    except ImportError:
        return "PyPatchMatch is not installed: pip install pypatchmatch"
    if not patchmatch.patchmatch_available:
        return "PyPatchMatch's native library did not load on this machine: reinstall pypatchmatch, or fill with telea"
    return ""
