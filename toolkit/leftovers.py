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


EDGE_SIDE = 400
"""Longer side of the copy that the mask's edge is judged on, in pixels."""

_DISTINCT = 0.25
"""How much likelier the object's own pixels must look like it than the ground's do for the edge to be judged."""

_BAND = 1.5
"""Thickness of the bands around the mask that are compared, in pixels of the copy."""

_FALLEN = 0.45
"""Likeness to the object, between that of the ground (0) and its own (1), at which it has ended."""


def leftover_score(pixels: npt.NDArray[np.uint8], mask: Bits, dilated: Bits) -> tuple[float, int | None]:
    """How much of what lies just outside a final mask looks like the object, and the radius that would take it.

    Every place along the edge is judged by its own neighbourhood: one normal distribution of colours of the object's
    rim there, one of the ground a little farther out (as the local models of Lankton and Tannenbaum, "Localizing
    region-based active contours", 2008).

    Args:
        pixels: (h, w, 3) uint8 sRGB, the object with its surroundings, at least half its size on every side.
        mask: (h, w) bool, what was selected.
        dilated: (h, w) bool, the final mask.

    Returns:
        Likeness just outside the mask, 0-1: 0 = like the ground, 1 = like the object; 0 too where object and ground
        cannot be told apart. The radius, in pixels from `mask`, by which it has fallen off; None where it does not.
    """
    height, width = mask.shape
    factor = min(1.0, EDGE_SIDE / max(height, width))
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    small = cv2.resize(np.ascontiguousarray(pixels), size, interpolation=cv2.INTER_AREA)
    lab = cv2.cvtColor(cv2.GaussianBlur(small, (0, 0), 0.7), cv2.COLOR_RGB2LAB).astype(np.float32)
    taken, final = (cv2.resize(part.astype(np.uint8) * 255, size, interpolation=cv2.INTER_AREA) > 127
                    for part in (mask, dilated))  # fmt: skip
    if not taken.any() or not final.any() or final.all():
        return 0.0, None
    rows, columns = np.nonzero(taken)
    reach = max(8.0, 0.08 * float(np.hypot(np.ptp(rows) + 1, np.ptp(columns) + 1)))
    score, fell = _fall_off(lab, taken, final, reach)
    if fell is None and score > _FALLEN:  # more is missing than was looked at
        fell = _fall_off(lab, taken, final, 2.5 * reach)[1]
    if fell is None:
        return score, None
    edge = cv2.dilate(final.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool) & ~final
    margin = float(np.median(cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, 5)[edge])) - 1
    return score, int(np.ceil((max(0.0, margin) + max(0.0, fell) + 1) / factor))


def _fall_off(lab: npt.NDArray[np.float32], taken: Bits, final: Bits, reach: float) -> tuple[float, float | None]:
    """The likeness to the object just outside the mask, 0-1, and how far out it has fallen; None if not in `reach`."""
    outward = cv2.distanceTransform((~final).astype(np.uint8), cv2.DIST_L2, 5)
    # Where the picture ends the object does not: its rim is not there.
    inward = cv2.distanceTransform(np.pad(taken, 1, mode="edge").astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    rim, ground = (inward > 1.5) & (inward <= 1.5 * reach), (outward > reach) & (outward <= 2.5 * reach)
    like_object, near_object = _likelihood(lab, rim, reach)
    like_ground, near_ground = _likelihood(lab, ground, reach)
    known = near_object & near_ground
    if min(np.count_nonzero(rim & known), np.count_nonzero(ground & known)) < 20:
        return 0.0, None
    likeness = 1 / (1 + np.exp(np.clip(like_ground - like_object, -20, 20)))
    low, high = float(likeness[ground & known].mean()), float(likeness[rim & known].mean())
    if high - low < _DISTINCT:
        return 0.0, None
    falling = []
    for start in np.arange(0.5, reach, _BAND):
        band = (outward > start) & (outward <= start + _BAND) & known
        falling.append((float(likeness[band].mean()) - low) / (high - low) if band.any() else 0.0)
    score = min(1.0, max(0.0, float(np.mean(falling[:2]))))
    ended = next((i for i, value in enumerate(falling) if value <= _FALLEN), None)
    if ended is None:
        return score, None
    before = falling[ended - 1] if ended else 1.0
    return score, _BAND * (ended - 0.5 + (before - _FALLEN) / max(1e-6, before - falling[ended])) + 0.5


def _likelihood(lab: npt.NDArray[np.float32], where: Bits, sigma: float) -> tuple[npt.NDArray[np.float32], Bits]:
    """Logarithm (h, w) of how likely each colour is among those `where` around it, and where there are any."""
    weight = cv2.GaussianBlur(where.astype(np.float32), (0, 0), sigma)
    shaped = (weight + 1e-4)[..., None]
    inside = np.where(where[..., None], lab, np.float32(0))
    mean = cv2.GaussianBlur(inside, (0, 0), sigma) / shaped
    variance = np.maximum(cv2.GaussianBlur(inside * inside, (0, 0), sigma) / shaped - mean * mean, 0) + 16
    likely = -0.5 * ((lab - mean) ** 2 / variance + np.log(variance)).sum(axis=2)
    return np.asarray(likely, np.float32), np.asarray(weight > 1e-3)
