"""What a selection missed: pixels inside a box that do not look like the ground around the box.

For taking an object out, a missed part costs far more than some ground taken along. The ground's colours are
learnt from the ring around the box, as clusters with their own spread (compare Achanta et al., "Frequency-tuned
salient region detection", 2009, and the background priors of Wei et al., "Geodesic saliency", 2012).
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box

Bits = npt.NDArray[np.bool_]

SIDE = 320
"""Longer side of the copy that colours are compared on, in pixels."""

CLUSTERS = 8
SAMPLE = 4000
TOLERATED = 0.01
"""Share of the ring's own pixels that may count as foreign to it."""

LEAST_DISTANCE = 3.0
"""Standard deviations a pixel must lie from every ground colour, however even the ground is."""

SLACK = 0.125
"""Share of a box's side that people leave between it and the object at most, or nearly so."""

LEAST_PART = 0.0015
"""Share of the box below which a part that does not touch the selection is taken for a speck."""


def leftovers(pixels: npt.NDArray[np.uint8], box: Box, selected: Bits) -> Bits:
    """Parts of `box` that are foreign to the ring around it and not selected.

    Args:
        pixels: (h, w, 3) uint8 sRGB: the box with some of its surroundings.
        box: in the coordinates of `pixels`.
        selected: (h, w) bool, what was selected.

    Returns:
        (h, w) bool; empty where there is no ring to learn from.
    """
    height, width = selected.shape
    nothing = np.zeros_like(selected)
    factor = min(1.0, SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 1.0), cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    inside = _scaled(box, (width, height), size)
    taken = cv2.resize(selected.astype(np.uint8), size, interpolation=cv2.INTER_AREA).astype(bool)
    ring = np.ones((size[1], size[0]), bool)
    ring[inside.slices] = False
    if ring.sum() < 10 * CLUSTERS:
        return nothing
    distance = _distance(lab, ring.ravel()).reshape(ring.shape)
    limit = max(LEAST_DISTANCE, float(np.quantile(distance[ring], 1 - TOLERATED)))
    foreign = np.zeros_like(ring)
    foreign[inside.slices] = distance[inside.slices] > limit
    found = _parts(foreign & ~taken, taken, inside.area)
    if not found.any():
        return nothing
    large = cv2.resize(found.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR) > 0.4
    large[~_inside(box, large.shape)] = False
    return np.asarray(large & ~selected)


def falls_short(found: Box, box: Box) -> bool:
    """True where what was found in a box ends farther than `SLACK` from one of its sides.

    A box is drawn around the whole object, near to it on all sides (Lempitsky et al., "Image segmentation with a
    bounding box prior", 2009): where a mask ends far from a side, it has probably missed a part.
    """
    across, down = SLACK * box.width, SLACK * box.height
    return (
        found.left - box.left > across
        or box.right - found.right > across
        or found.top - box.top > down
        or box.bottom - found.bottom > down
    )


def _distance(lab: npt.NDArray[np.float32], ring: Bits) -> npt.NDArray[np.float32]:
    """Standard deviations to the nearest of the ring's colours, for every pixel (n, 3)."""
    ground = lab[ring]
    sample = ground[:: max(1, len(ground) // SAMPLE)]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.5)
    clusters = min(CLUSTERS, len(sample))
    _, labels, centres = cv2.kmeans(sample, clusters, np.empty(0, np.int32), stop, 2, cv2.KMEANS_PP_CENTERS)
    nearest = np.full(len(lab), np.inf, np.float32)
    for index, centre in enumerate(centres):
        members = sample[labels.ravel() == index]
        if len(members) < 0.01 * len(sample):
            continue
        spread = np.cov(members.T) if len(members) > 3 else np.zeros((3, 3))
        inverse = np.linalg.inv(spread + 4 * np.eye(3)).astype(np.float32)
        away = lab - centre
        nearest = np.minimum(nearest, np.einsum("ij,jk,ik->i", away, inverse, away))
    return np.sqrt(nearest)


def _parts(foreign: Bits, taken: Bits, area: int) -> Bits:
    """Parts that touch the selection or are larger than a speck."""
    near = cv2.dilate(taken.astype(np.uint8), np.ones((5, 5), np.uint8)) > 0
    _, parts, stats, _ = cv2.connectedComponentsWithStats(foreign.astype(np.uint8), connectivity=8)
    keep = stats[:, cv2.CC_STAT_AREA] >= max(4, LEAST_PART * area)
    touching = np.unique(parts[near & foreign])
    keep[touching[stats[touching, cv2.CC_STAT_AREA] >= 3]] = True
    keep[0] = False
    return np.asarray(keep[parts])


def _scaled(box: Box, whole: tuple[int, int], size: tuple[int, int]) -> Box:
    x, y = size[0] / whole[0], size[1] / whole[1]
    grown = Box(int(box.left * x), int(box.top * y), -int(-box.right * x // 1), -int(-box.bottom * y // 1))
    return grown.intersect(Box.of_size(size))


def _inside(box: Box, shape: tuple[int, ...]) -> Bits:
    inside = np.zeros(shape, bool)
    inside[box.intersect(Box.of_size((shape[1], shape[0]))).slices] = True
    return inside
