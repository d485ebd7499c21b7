"""Colours continued from the rim of a hole inward (Telea, 2004), as OpenCV has it, for pictures of any size."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

_NARROW = 16
"""OpenCV's answer on pictures a few pixels wide varies from call to call: those are widened by their edge pixels."""


def continued(picture: npt.NDArray[np.uint8], hole: npt.NDArray[np.uint8], radius: int) -> npt.NDArray[np.uint8]:
    """`picture` (h, w) or (h, w, 3) uint8 with `hole` (h, w) uint8, above 0 = hole, filled from its rim.

    Args:
        radius: pixels of the rim that each filled pixel is a mean of.
    """
    height, width = hole.shape
    below, right = max(0, _NARROW - height), max(0, _NARROW - width)
    wide, gap = (
        cv2.copyMakeBorder(np.ascontiguousarray(array), 0, below, 0, right, cv2.BORDER_REPLICATE)
        for array in (picture, (hole > 0).astype(np.uint8))
    )
    filled = cv2.inpaint(wide, gap, radius, cv2.INPAINT_TELEA)
    return np.asarray(filled[:height, :width], np.uint8)
