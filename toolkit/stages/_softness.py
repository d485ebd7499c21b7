"""How far the colours of a selection and of its ground mix across the outline."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.edit import Edit
from toolkit.geometry import Box

LINES = 200  # at most, across the outline
FEWEST = 24  # lines that tell something
NORMAL = 12  # pixels around a point of the outline that give its direction
FAST = 0.4  # of the steepest change of colour across the outline


def softness(edit: Edit, reach: float) -> float | None:
    """The distance from the outline within which colours change fast, in pixels; None where nothing tells.

    Colours are read on lines across the outline. On each, one side's are the means of the outer halves; how far the
    colours at a distance have come from one to the other is the least-squares share over all lines.
    """
    assert edit.selected is not None
    length = math.ceil(reach)
    far = np.arange(-length, length + 1)
    outer = far >= length / 2
    products, squares, count = np.zeros(len(far)), 0.0, 0
    for x, y in _outline(edit):
        box = Box(x, y, x + 1, y + 1).grow(length + NORMAL)
        if not edit.box.contains(box):
            continue
        mask = edit.selected.array(box)
        direction = _inward(mask)
        if direction is None:
            continue
        at = np.rint(far[:, None] * direction).astype(int) + length + NORMAL
        side = mask[at[:, 1], at[:, 0]] > 0
        if not side[far > 1].all() or side[far < -1].any():
            continue  # another outline is near
        (left, top), (right, bottom) = at.min(axis=0), at.max(axis=0)
        line = Box(int(left), int(top), int(right) + 1, int(bottom) + 1)
        colour = edit.srgb(line.shift(box.left, box.top))[at[:, 1] - top, at[:, 0] - left].astype(np.float64)
        front, back = colour[outer].mean(axis=0), colour[outer[::-1]].mean(axis=0)
        products += (colour - back) @ (front - back)
        squares += float(((front - back) ** 2).sum())
        count += 1
    if count < FEWEST or squares < 300.0 * count:
        return None
    # Sides differ among themselves too, but their colours drift: what mixes changes fast.
    slope = np.convolve(np.diff(products / squares), np.full(3, 1 / 3), "same")
    mixed = slope > FAST * slope[length // 2 : -(length // 2)].max()
    pause = max(2, length // 12)
    ends = []
    for away in (mixed[length:], mixed[:length][::-1]):
        calm = np.flatnonzero(np.convolve(away, np.ones(pause), "valid") == 0)
        ends.append(int(calm[0]) if len(calm) else length)
    return float(max(ends))


def _outline(edit: Edit) -> list[tuple[int, int]]:
    """Points (x, y) of the plane spread over the outline."""
    assert edit.selected is not None
    found = []
    for box, _ in edit.selected.tiles:
        values = edit.selected.array(box)
        for change in (values[1:] != values[:-1], values[:, 1:] != values[:, :-1]):
            y, x = np.divmod(np.flatnonzero(change), change.shape[1])  # faster than numpy's own in two dimensions
            found.append(np.stack([x + box.left, y + box.top], axis=1))
    points = np.concatenate(found) if found else np.zeros((0, 2), int)
    step = max(1, len(points) // LINES)
    return [(int(x), int(y)) for x, y in points[step // 2 :: step]]


def _inward(mask: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64] | None:
    """The unit vector (x, y) from the middle of the array to what is selected near it; None where there is none."""
    middle = mask.shape[0] // 2
    near = slice(middle - NORMAL, middle + NORMAL + 1)
    moments = cv2.moments(mask[near, near], binaryImage=True)
    if not moments["m00"]:
        return None
    vector = np.array([moments["m10"], moments["m01"]]) / moments["m00"] - NORMAL
    length = float(np.hypot(*vector))
    return vector / length if length > 1 else None
