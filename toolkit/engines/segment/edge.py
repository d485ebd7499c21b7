"""From a mask of a reduced copy to a mask of the picture whose outline follows the colours.

Source: He, Sun: Fast Guided Filter, 2015 (arXiv 1505.00996).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.blend.arrays import bounds
from toolkit.geometry import Box, Size
from toolkit.tiling import chunks

Pixels = npt.NDArray[np.uint8]
Binary = npt.NDArray[np.bool_]

EDGE_RADIUS = 2  # reduced pixels the outline may move
TILE = 128  # side of the tiles, of which only those that the outline crosses are read
LINEAR = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
NEAREST = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP


def enlarged(part: Pixels, small: Pixels, mask: Binary) -> Binary:
    """The mask of a reduced copy at the size of the picture, its outline moved to the colour edge.

    A fast guided filter: near the outline the mask is a local linear function of colour. Its coefficients are learnt on
    the reduced copy, enlarged instead of the mask, and applied in tiles that the outline crosses; nothing as large as
    the picture is ever float.

    Args:
        part: (h, w, 3) uint8, the picture.
        small: (h', w', 3) uint8, the same reduced.
        mask: (h', w') bool, as large as `small`.

    Returns:
        (h, w) bool; specks and holes of less than four reduced pixels are gone. Of the same size: `mask` itself.
    """
    if part.shape == small.shape:
        return mask
    full = np.zeros(part.shape[:2], bool)
    if mask.any():
        size = Size(part.shape[1], part.shape[0])
        box, values = outlined(lambda tile: np.ascontiguousarray(part[tile.slices]), size, small, mask)
        full[box.slices] = values > 0
    return full


def outlined(read: Callable[[Box], Pixels], size: Size, small: Pixels, mask: Binary) -> tuple[Box, Pixels]:
    """What `enlarged` gives, read and computed only where the outline runs.

    Args:
        read: pixels (h, w, 3) uint8 of a box of the picture.
        size: the picture's.
        small: (h', w', 3) uint8, the picture reduced.
        mask: (h', w') bool, as large as `small`, not empty.

    Returns:
        The part of the picture that holds the mask, and the mask there, (h, w) uint8 0 or 255.
    """
    frame, working = Box.of_size(size), Box.of_size((mask.shape[1], mask.shape[0]))
    x_scale, y_scale = working.width / frame.width, working.height / frame.height
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    held = Box(left, top, left + width, top + height)
    if frame == working:
        return held, mask[held.slices].astype(np.uint8) * np.uint8(255)
    held = held.grow(EDGE_RADIUS + 1).intersect(working)
    box = Box(
        int(held.left / x_scale), int(held.top / y_scale), math.ceil(held.right / x_scale),
        math.ceil(held.bottom / y_scale),
    ).intersect(frame)  # fmt: skip
    columns = ((np.arange(box.left, box.right) + 0.5) * x_scale).astype(np.intp)
    rows = ((np.arange(box.top, box.bottom) + 0.5) * y_scale).astype(np.intp)
    values = (mask.astype(np.uint8) * np.uint8(255)).take(columns, axis=1).take(rows, axis=0)

    band = np.equal(_banded(mask), 2).view(np.uint8)
    linear, total = _learnt(small, mask, band > 0), np.array([[1, 1, 1, 1 / 255]], np.float32)
    for cell in chunks([Box.of_size(box.size)], TILE):
        row, column = rows[cell.top : cell.bottom], columns[cell.left : cell.right]
        left, top, width, height = cv2.boundingRect(band[row[0] : row[-1] + 1, column[0] : column[-1] + 1])
        if not width:
            continue
        across = np.searchsorted(column - column[0], (left, left + width)) + cell.left
        down = np.searchsorted(row - row[0], (top, top + height)) + cell.top
        inner = Box(int(across[0]), int(down[0]), int(across[1]), int(down[1]))
        tile = inner.shift(box.left, box.top)
        x_first, y_first = (tile.left + 0.5) * x_scale - 0.5, (tile.top + 0.5) * y_scale - 0.5
        to_small = np.array([[x_scale, 0, x_first], [0, y_scale, y_first]])
        near = cv2.warpAffine(band, to_small, tile.size, flags=NEAREST, borderMode=cv2.BORDER_REPLICATE)
        at = cv2.warpAffine(linear, to_small, tile.size, flags=LINEAR, borderMode=cv2.BORDER_REPLICATE)
        colour = cv2.cvtColor(read(tile), cv2.COLOR_RGB2RGBA)  # the fourth value, 255, is the offset's
        value = cv2.transform(cv2.multiply(at, colour, dtype=cv2.CV_32F), total)
        moved = cv2.inRange(value, 0.5, math.inf)
        np.copyto(values[inner.slices], moved, where=near.view(bool))
    _without_specks(values, 4 / (x_scale * y_scale))
    return box, values


def _without_specks(values: Pixels, limit: float) -> None:
    """Turn over, in place, the parts and holes of `values` that have less than `limit` pixels."""
    contours, ranks = cv2.findContours(values, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    small = dict.fromkeys(number for number, contour in enumerate(contours) if cv2.contourArea(contour) < limit)
    for holes in (False, True):
        for number in small:
            around = int(ranks[0, number, 3])  # the part that has this hole, -1 for a part
            if (around >= 0) == holes and around not in small:
                cv2.drawContours(values, contours, number, 255 if holes else 0, cv2.FILLED)


def _learnt(small: Pixels, mask: Binary, band: Binary) -> npt.NDArray[np.float32]:
    """Coefficients (h', w', 4) with which the mask is, near each pixel of `band`, a linear function of its colour."""

    def mean(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        side = 2 * EDGE_RADIUS + 1
        return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)

    reach = 2 * EDGE_RADIUS + 3  # what the mean and the linear enlargement look at
    needed = cv2.dilate(band.astype(np.uint8), np.ones((reach, reach), np.uint8))
    part = bounds(needed).grow(EDGE_RADIUS).intersect(Box.of_size((mask.shape[1], mask.shape[0]))).slices
    wanted = needed[part]
    places = np.flatnonzero(wanted)
    guide = [one.astype(np.float32) / 255 for one in cv2.split(small[part])]
    weight = mask[part].astype(np.float32)

    def along(values: Iterable[npt.NDArray[np.floating]]) -> npt.NDArray[np.float32]:
        return np.stack([mean(one).take(places) for one in values])

    guide_mean, weight_mean = along(guide), mean(weight).take(places)
    pairs = (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2)
    shared = along(guide[i] * guide[j] for i, j in pairs)
    spread = np.empty((len(places), 3, 3), np.float32)
    for (i, j), one in zip(pairs, shared, strict=True):
        spread[:, i, j] = spread[:, j, i] = one - guide_mean[i] * guide_mean[j] + np.float32(1e-4 if i == j else 0)
    common = along(one * weight for one in guide) - guide_mean * weight_mean
    slope = np.linalg.solve(spread, common.T[..., None])[..., 0].T
    values = np.zeros((wanted.size, 4), np.float32)
    values[places] = np.stack([*(slope / 255), weight_mean - (slope * guide_mean).sum(0)], axis=1)
    linear = np.zeros((*mask.shape, 4), np.float32)
    linear[part] = mean(values.reshape(*wanted.shape, 4))
    return linear


def _banded(mask: Binary) -> Pixels:
    """The mask as 0 and 1, and 2 where the outline may move."""
    labels = mask.astype(np.uint8)
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * EDGE_RADIUS + 1, 2 * EDGE_RADIUS + 1))
    labels[cv2.dilate(labels, disc) != cv2.erode(labels, disc)] = 2
    return labels


def without_holes(mask: Binary, limit: float) -> Binary:
    """`mask` with every 4-connected hole of less than `limit` pixels filled."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats((~mask).astype(np.uint8), connectivity=4)
    small = stats[:, cv2.CC_STAT_AREA] < limit
    small[0] = False
    return np.asarray(mask | small[parts])
