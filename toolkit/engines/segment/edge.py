"""From a mask of a reduced copy to a mask of the picture whose outline follows the colours.

Source: He, Sun: Fast Guided Filter, 2015 (arXiv 1505.00996).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box, Size
from toolkit.tiling import chunks

Pixels = npt.NDArray[np.uint8]
Binary = npt.NDArray[np.bool_]

EDGE_RADIUS = 2  # reduced pixels the outline may move
TILE = 256
NARROW = 128  # side of the tiles where only those that the outline crosses are read
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

    linear = _learnt(small, mask)
    labels = _banded(mask)
    frame, working = Box.of_size((part.shape[1], part.shape[0])), Box.of_size((mask.shape[1], mask.shape[0]))
    x_scale, y_scale = working.width / frame.width, working.height / frame.height
    full = np.zeros(part.shape[:2], bool)
    corners = ((x, y) for y in range(0, frame.bottom, TILE) for x in range(0, frame.right, TILE))
    for tile in (Box(x, y, x + TILE, y + TILE).intersect(frame) for x, y in corners):
        x_first, y_first = (tile.left + 0.5) * x_scale - 0.5, (tile.top + 0.5) * y_scale - 0.5
        to_small = np.array([[x_scale, 0, x_first], [0, y_scale, y_first]])
        near = cv2.warpAffine(labels, to_small, tile.size, flags=NEAREST, borderMode=cv2.BORDER_REPLICATE)
        inner = near == 1
        if (near == 2).any():
            at = cv2.warpAffine(linear, to_small, tile.size, flags=LINEAR, borderMode=cv2.BORDER_REPLICATE)
            value = (at[..., :3] * part[tile.slices]).sum(-1) + at[..., 3]
            inner = np.where(near == 2, value > 0.5, inner)
        full[tile.slices] = inner
    speck = 4 / (x_scale * y_scale)
    return ~without_holes(~without_holes(full, speck), speck)


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
    values = (mask.astype(np.uint8) * np.uint8(255))[:, columns][rows]

    linear, labels = _learnt(small, mask), _banded(mask)
    crossed = []
    for tile in chunks([box], NARROW):
        inner = tile.within(box)
        near = labels[rows[inner.top] : rows[inner.bottom - 1] + 1, columns[inner.left] : columns[inner.right - 1] + 1]
        if not (near == 2).any():
            continue
        crossed.append(inner)
        x_first, y_first = (tile.left + 0.5) * x_scale - 0.5, (tile.top + 0.5) * y_scale - 0.5
        to_small = np.array([[x_scale, 0, x_first], [0, y_scale, y_first]])
        at = cv2.warpAffine(linear, to_small, tile.size, flags=LINEAR, borderMode=cv2.BORDER_REPLICATE)
        at[..., :3] *= read(tile)
        band = labels[:, columns[inner.left : inner.right]][rows[inner.top : inner.bottom]] == 2
        values[inner.slices] = np.where(band, (at.sum(-1) > 0.5) * np.uint8(255), values[inner.slices])
    reach = math.ceil(3 / min(x_scale, y_scale))
    for tile in crossed:
        around = tile.grow(reach).intersect(Box.of_size((box.width, box.height)))
        _without_specks(values[around.slices], 4 / (x_scale * y_scale))
    return box, values


def _without_specks(values: Pixels, limit: float) -> None:
    """Turn over, in place, what is surrounded in `values` and has less than `limit` pixels."""
    for value, connectivity in ((0, 8), (255, 4)):
        part = cv2.bitwise_not(values) if value else values
        _, parts, stats, _ = cv2.connectedComponentsWithStats(part, connectivity=connectivity)
        left, top, width, height, area = stats.T
        free = (left > 0) & (top > 0) & (left + width < values.shape[1]) & (top + height < values.shape[0])
        for speck in np.flatnonzero(free & (area < limit)):
            box = Box(left[speck], top[speck], left[speck] + width[speck], top[speck] + height[speck])
            values[box.slices][parts[box.slices] == speck] = value


def _learnt(small: Pixels, mask: Binary) -> npt.NDArray[np.float32]:
    """Coefficients (h', w', 4) with which the mask is, near each pixel, a linear function of its colour 0-255."""

    def mean(values: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        side = 2 * EDGE_RADIUS + 1
        return np.asarray(cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT), np.float32)

    guide, weight = small.astype(np.float32) / 255, mask.astype(np.float32)
    guide_mean, weight_mean = mean(guide), mean(weight)
    products = (guide[..., :, None] * guide[..., None, :]).reshape(*mask.shape, 9)
    spread = np.dstack([mean(products[..., k]) for k in range(9)]).reshape(*mask.shape, 3, 3)
    spread -= guide_mean[..., :, None] * guide_mean[..., None, :]
    spread += 1e-4 * np.eye(3, dtype=np.float32)
    common = mean(guide * weight[..., None]) - guide_mean * weight_mean[..., None]
    slope = np.linalg.solve(spread, common[..., None])[..., 0]
    offset = weight_mean - (slope * guide_mean).sum(-1)
    return mean(np.dstack([slope / 255, offset]))


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
