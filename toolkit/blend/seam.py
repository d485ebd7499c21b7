"""Score how visible the contour of a hole is in a finished picture."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.blend.arrays import Array, Floats, bounds, checked_picture, described
from toolkit.errors import MaskError
from toolkit.geometry import Box

_SEAM_BLUR = 3.0
_SEAM_BESIDE = 12
_SEAM_FLOOR = 0.1  # Lab units a pixel: a step below this goes unseen even on a flat wall
_SEAM_NATURAL = 0.4  # what untouched photos score before this is added up to 1, see benchmarks/seam.py


def seam_score(picture: Array, hole: Array) -> float:
    """How visible the contour of a hole is in a finished picture; about 1 = like untouched photos, more = a seam.

    The derivative across the contour of the Lab picture, blurred with sigma 3, is compared with the same 12 px
    further in and 12 px further out. A plain ratio of mean absolute derivatives hardly tells a paste from the truth,
    for texture drowns the step, so the means are robust: the excess of the contour over its two neighbours is
    taken with its sign and averaged along the contour (weighted median, quiet places count more, as a seam
    in texture is masked), then its length is divided by the mean absolute derivative of the neighbours
    (lower half). Untouched photos have 0.4 of that in the mean; 0.6 is added, so that they score 1.

    Measured by `benchmarks/seam.py` (148 random holes, 37 pictures): a hard paste 4 to 8 levels off scores above an
    untouched place with a chance (AUC) of 0.91, 16 levels off 0.97, 4 to 8 feathered over 8 px 0.82. A step that
    changes its sign around the contour partly cancels: 0.73. In strong texture a step scores as low as it looks.

    Args:
        picture: (h, w, C) uint8, uint16 or float32 0..255, C = 1 or 3: sRGB or grey.
        hole: (h, w) uint8, above 0 = regenerated. The picture's border is no contour; where 12 px inside does
            not exist (thin holes) the outside counts alone, and without any contour the score is 1.

    Raises:
        InputError: when `picture` has a wrong shape or dtype.
        MaskError: when `hole` has another size or a wrong dtype.
    """
    if hole.shape != picture.shape[:2] or hole.dtype != np.uint8:
        raise MaskError(f"hole: expected {picture.shape[:2]} uint8, got {described(hole)}")
    if picture.ndim == 3 and picture.dtype == np.uint16:
        part = bounds(hole).grow(40).intersect(Box.of_size((hole.shape[1], hole.shape[0])))
        picture, hole = picture[part.slices].astype(np.float32) / np.float32(257), hole[part.slices]
    picture = checked_picture("picture", picture)
    box = bounds(hole).grow(28).intersect(Box.of_size((hole.shape[1], hole.shape[0])))
    if bounds(hole).is_empty:
        return 1.0
    inside = (hole[box.slices] > 0).astype(np.uint8)
    rows, columns = np.nonzero(inside - cv2.erode(inside, np.ones((3, 3), np.uint8)))
    if len(rows) > _SEAM_POINTS:
        chosen = np.linspace(0, len(rows) - 1, _SEAM_POINTS).astype(np.int64)
        rows, columns = rows[chosen], columns[chosen]
    if len(rows) < 8:
        return 1.0
    lab = cv2.GaussianBlur(_lab(picture[box.slices]), (0, 0), _SEAM_BLUR)
    soft = cv2.GaussianBlur(inside * np.float32(1), (0, 0), 3.0)
    x, y = columns.astype(np.float32), rows.astype(np.float32)
    normal_x = _sampled(soft, x + 1, y) - _sampled(soft, x - 1, y)
    normal_y = _sampled(soft, x, y + 1) - _sampled(soft, x, y - 1)
    length = np.maximum(np.hypot(normal_x, normal_y), 1e-6)
    normal_x, normal_y = (normal_x / length)[:, 0], (normal_y / length)[:, 0]
    x, y = x - normal_x / 2, y - normal_y / 2  # the contour runs half a pixel outside the outermost hole pixels

    def slope(at: float) -> Floats:
        ahead = _sampled(lab, x + (at + 1) * normal_x, y + (at + 1) * normal_y)
        return (ahead - _sampled(lab, x + (at - 1) * normal_x, y + (at - 1) * normal_y)) / 2

    def is_on(at: float, value: int) -> NDArray[np.bool_]:
        """The whole way from the contour to `at` lies in the hole (1) or out of it (0), and in the picture."""
        fine = np.ones(len(x), np.bool_)
        for part in (0.35, 0.7, 1.0):
            column = np.rint(x + at * part * normal_x).astype(np.int64)
            row = np.rint(y + at * part * normal_y).astype(np.int64)
            fine &= (column >= 0) & (column < inside.shape[1]) & (row >= 0) & (row < inside.shape[0])
            at_row, at_column = row.clip(0, inside.shape[0] - 1), column.clip(0, inside.shape[1] - 1)
            fine &= inside[at_row, at_column] == value
        return fine

    inner, outer = is_on(_SEAM_BESIDE, 1)[:, None], is_on(-_SEAM_BESIDE, 0)[:, None]
    beside = inner.astype(np.float32) + outer
    usable = beside[:, 0] > 0
    if np.count_nonzero(usable) < 8:
        return 1.0
    slopes = {at: slope(at) for at in (-15, -12, -9, 0, 9, 12, 15)}
    quiet = np.zeros(len(x), np.float32)
    for at in (9, 12, 15):
        quiet += np.linalg.norm(slopes[at], axis=1) * inner[:, 0] + np.linalg.norm(slopes[-at], axis=1) * outer[:, 0]
    weight = (quiet / np.maximum(3 * beside[:, 0], 1) + np.float32(0.2)) ** -2
    excess = slopes[0] - (slopes[12] * inner + slopes[-12] * outer) / np.maximum(beside, 1)
    step = float(np.linalg.norm(_middle(excess[usable], weight[usable])))
    around = np.concatenate(
        [np.linalg.norm(slopes[12], axis=1)[inner[:, 0]], np.linalg.norm(slopes[-12], axis=1)[outer[:, 0]]]
    )
    share = np.concatenate([weight[inner[:, 0]], weight[outer[:, 0]]])
    order = np.argsort(around)
    low = np.cumsum(share[order]) <= share.sum() / 2
    low[0] = True
    natural = float(np.average(around[order][low], weights=share[order][low]))
    return 1 - _SEAM_NATURAL + step / (natural + _SEAM_FLOOR)


_SEAM_POINTS = 4096


def _lab(picture: Array) -> Floats:
    colour = picture.astype(np.float32) / np.float32(255)
    if colour.shape[2] == 1:
        colour = np.repeat(colour, 3, axis=2)
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(colour), cv2.COLOR_RGB2Lab), np.float32)


def _sampled(array: Floats, x: Floats, y: Floats) -> Floats:
    """Bilinear values (n, C) at the points; beyond the border the border's."""
    found = cv2.remap(array, x[:, None], y[:, None], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(found, np.float32).reshape(len(x), -1)


def _middle(values: Floats, weight: Floats) -> Floats:
    """Weighted median of each column."""
    order = np.argsort(values, axis=0)
    passed = np.cumsum(weight[order], axis=0) >= weight.sum() / 2
    return np.asarray(np.take_along_axis(np.take_along_axis(values, order, 0), passed.argmax(axis=0)[None], 0)[0])
