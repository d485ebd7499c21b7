"""What goes with an object that is taken out of a photo: its shadow or its reflection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.shadows.cast import cast_shadow
from toolkit.shadows.mirrored import reflection

_SIDE = 320
"""Longer side of the copy that shadows are looked for on, in pixels."""

_MIRROR_SIDE = 200
"""The same for reflections."""

_PENUMBRA = 1.6
"""Pixels of the copy a region grows by, for the soft edge."""


@dataclass(frozen=True)
class Found:
    """A proposed shadow or reflection.

    Attributes:
        region: (h, w) bool; nothing of the object; empty where there is no proposal.
        confidence: 0-1; below 0.65 it is as likely something else.
        kind: what it is taken for.
        reason: what speaks most against it; empty where nothing does.
    """

    region: npt.NDArray[np.bool_]
    confidence: float
    kind: Literal["shadow", "reflection"]
    reason: str = ""


_AGAINST = {
    "darker": "it is hardly darker than the ground, or black",
    "clear": "the ground is as uneven as it is dark",
    "bounded": "what surrounds it is not the same ground",
    "texture": "its texture is not the ground's",
    "even": "it is unevenly dark",
    "touching": "it hardly touches the object",
    "size": "it is too small or too large for the object",
    "below": "it does not lie at the object's foot",
    "one side": "it reaches far on both sides of the object",
    "whole": "it reaches the edge of what was looked at",
    "rare": "the ground is as dark elsewhere",
    "solid": "it is ragged",
    "other": "it looks like a part of the object",
}


def find_shadow(pixels: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8]) -> Found:
    """The region of an object's cast shadow or reflection, whichever is the surer.

    Args:
        pixels: (h, w, 3) uint8 sRGB: the object with its surroundings, as wide again on each side and below.
        mask: (h, w) uint8 or bool, not 0 on the object.
    """
    taken = np.asarray(mask) != 0
    nothing = Found(np.zeros(taken.shape, bool), 0.0, "shadow", "none was seen")
    small, object_ = _reduced(pixels, taken, _SIDE)
    if not object_.any() or object_.all():
        return nothing
    cast = cast_shadow(small, object_)
    mirrored = reflection(*_reduced(pixels, taken, _MIRROR_SIDE))
    sure = mirrored[1] if mirrored is not None else 0.0
    # A mirror image is far less likely by chance than something dark at the foot.
    if mirrored is not None and sure > 0 and (sure >= 0.9 or cast is None or sure > cast.confidence):
        against = "it is not much like a mirror image" if sure < 0.95 else ""
        return Found(_enlarged(mirrored[0], taken), sure, "reflection", against)
    if cast is None or not cast.region.any():
        return nothing
    worst = min(cast.rules, key=lambda rule: cast.rules[rule]) if cast.rules else "size"
    reason = _AGAINST[worst] if cast.rules.get(worst, 0.0) < 0.95 else ""
    return Found(_enlarged(cast.region, taken), cast.confidence, "shadow", reason)


def _reduced(
    pixels: npt.NDArray[np.uint8], taken: npt.NDArray[np.bool_], side: int
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.bool_]]:
    height, width = taken.shape
    factor = min(1.0, side / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(taken.astype(np.uint8) * np.uint8(255), size, interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8), np.asarray(share > 127)


def _enlarged(region: npt.NDArray[np.bool_], taken: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """A region of the copy at the size of the mask, its soft edge taken along, up to the object."""
    away = cv2.distanceTransform((~region).astype(np.uint8), cv2.DIST_L2, 5)
    large = cv2.resize(away, (taken.shape[1], taken.shape[0]), interpolation=cv2.INTER_LINEAR)
    return np.asarray((large <= _PENUMBRA) & ~taken)
