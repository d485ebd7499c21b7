"""The cast or contact shadow of an object in a photo, proposed as a region of its own.

A shadow lies at the object's foot, and is the same ground in less light: darker by a smooth ratio, its chromaticity
nearly kept (a little bluer under the sky), its texture kept, and bounded by that ground (Finlayson et al., "On the
removal of shadows from images", 2006; Guo et al., "Single-image shadow detection and removal using paired regions",
2011; here the pairs are the region and the ground that rings it). Grounds are proposed by clustering what lies around
the foot, regions by thresholds on the ratio to each ground, and the region that keeps these rules best is taken.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.shadows.light import Bits, Floats, fall, high_pass, log_light, rise, robust_plane, smooth

_GROUNDS = 4
"""Kinds of ground looked for around the foot."""

_SEEN = 0.12
"""Share of the surroundings of the foot below which a kind of ground is no ground to stand on."""

_STEPS = 7
"""Thresholds on the ratio that are tried."""

_WEIGHTS = np.array([0.25, 0.6, 0.15], np.float32)
"""What red, green and blue count in the log ratio; little for blue, which is noisy and skylit."""


_NEXT = 3.5
"""Distance to the object at which a region touches it."""

_DISC_5 = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)), np.uint8)
_DISC_15 = np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (15, 15)), np.uint8)


@dataclass(frozen=True)
class Candidate:
    """A region (h, w) bool, its confidence, and how well it keeps every rule, 0-1."""

    region: Bits
    confidence: float
    rules: dict[str, float]


@dataclass(frozen=True)
class _Ground:
    """The log ratio (h, w) of a kind of ground to the picture, where it keeps the ground's chromaticity, its spread."""

    darker: Floats
    same_hue: Bits
    spread: float


@dataclass(frozen=True)
class _Scene:
    """What is known of an object and what lies around it; arrays (h, w), `even` (h, w, 3).

    Attributes:
        taken: the object.
        around: the object and the pixels at its edge, which are mixed.
        away: distance to the object in pixels.
        even: logarithm of light, smoothed without the object.
        fine: the texture that smoothing took away.
        foot: where a shadow may begin.
        beside: where the ground it stands on may be seen.
        top: the object's first row.
        bottom: one past its last.
        size: the diagonal of its box.
    """

    taken: Bits
    around: Bits
    away: Floats
    even: Floats
    fine: Floats
    foot: Bits
    beside: Bits
    top: int
    bottom: int
    size: float

    @classmethod
    def of(cls, small: npt.NDArray[np.uint8], taken: Bits) -> _Scene:
        rows, columns = np.nonzero(taken)
        top, bottom = int(rows.min()), int(rows.max()) + 1
        size = float(np.hypot(bottom - top, int(np.ptp(columns)) + 1))
        around = _grown(taken, np.ones((3, 3), np.uint8))
        light = log_light(small)
        even, fine = smooth(light, ~around, 1.2), high_pass(light, ~around)
        away = np.asarray(cv2.distanceTransform((~taken).astype(np.uint8), cv2.DIST_L2, 5), np.float32)
        lower = np.arange(len(taken))[:, None] >= top + 0.5 * (bottom - top)
        foot = (away <= _NEXT) & ~around & lower
        beside = (away > 0.03 * size) & (away < 0.75 * size) & ~around & lower
        return cls(taken, around, away, even, fine, foot, beside, top, bottom, size)


def cast_shadow(small: npt.NDArray[np.uint8], taken: Bits) -> Candidate | None:
    """The region most like a shadow of the object.

    Args:
        small: (h, w, 3) uint8 sRGB, reduced.
        taken: (h, w) bool, the object; not empty.

    Returns:
        The best candidate however poor, None where there is none at all.
    """
    scene = _Scene.of(small, taken)
    if np.count_nonzero(scene.foot) < 4 or np.count_nonzero(scene.beside) < 60:
        return None
    best: Candidate | None = None
    for ground in _grounds(scene):
        for region in _regions(ground, scene):
            found = _judged(region, ground, scene)
            if best is None or found.confidence > best.confidence:
                best = found
    return best


def _grounds(scene: _Scene) -> Iterator[_Ground]:
    """The kinds of ground around the foot: clusters of its colours, each with its slope of light."""
    even, beside = scene.even, scene.beside
    samples = even[beside]
    cv2.setRNGSeed(0)
    stop = (cv2.TERM_CRITERIA_EPS + cv2.TERM_CRITERIA_MAX_ITER, 20, 0.01)
    count = min(_GROUNDS, len(samples))
    _, labels, centres = cv2.kmeans(samples, count, np.empty(0, np.int32), stop, 2, cv2.KMEANS_PP_CENTERS)
    for index, centre in enumerate(centres):
        if np.mean(labels == index) < _SEEN:
            continue
        near = np.abs(even - centre).max(axis=2) < 0.35
        if np.count_nonzero(near & beside) < 30:
            continue
        plane = robust_plane(even, near & beside)
        ratio = plane - even
        darker = np.asarray(ratio @ _WEIGHTS, np.float32)
        members = near & beside & (np.abs(darker) < 0.3)
        if np.count_nonzero(members) < 30:
            continue
        spread = max(0.02, 1.4826 * float(np.median(np.abs(darker[members]))))
        hue = ratio - darker[..., None]
        noise = 1.4826 * np.median(np.abs(hue[members]), axis=0)
        allowed = 0.05 + 3 * noise + 0.22 * np.maximum(darker, 0)[..., None]
        yield _Ground(darker, np.asarray((np.abs(hue) < allowed).all(axis=2) & ~scene.around), spread)


def _regions(ground: _Ground, scene: _Scene) -> Iterator[Bits]:
    """Connected dark parts of a ground that touch the foot, for a ladder of thresholds."""
    least = max(0.1, 2.5 * ground.spread)
    for threshold in np.geomspace(least, max(1.2, 2 * least), _STEPS):
        dark = (ground.darker > threshold) & ground.same_hue
        dark = cv2.morphologyEx(dark.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
        dark = cv2.morphologyEx(dark, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) * (~scene.around).astype(np.uint8)
        count, parts = cv2.connectedComponents(dark, connectivity=8)
        touching = np.unique(parts[scene.foot & (dark > 0)])
        if count > 1 and len(touching):
            yield np.isin(parts, touching[touching > 0])


def _judged(region: Bits, ground: _Ground, scene: _Scene) -> Candidate:
    """How well a region keeps the rules of a shadow; the confidence is their product."""
    area = int(np.count_nonzero(region))
    inner = cv2.erode(region.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    core = inner if np.count_nonzero(inner) > 12 else region
    darker = float(np.median(ground.darker[core]))
    near, far = _grown(region, _DISC_5), _grown(region, _DISC_15)
    ring = far & ~near & ~scene.around
    if not ring.any() or area < 6:
        return Candidate(region, 0.0, {})
    plain = np.abs(ground.darker) < max(3 * ground.spread, 0.35 * darker)
    light_rules = {
        "darker": rise(darker, 0.12, 0.3) * fall(darker, 2.6, 3.6),
        "clear": rise(darker / ground.spread, 2.5, 6),
        "even": fall(float(np.std(ground.darker[core])) / max(darker, 1e-3), 0.6, 1.1),
        "bounded": rise(float(np.mean((plain & ground.same_hue)[ring])), 0.4, 0.8),
    }
    members = plain & (scene.away < scene.size) & ~scene.around
    texture = float(np.std(scene.fine[core])) / max(1e-3, float(np.std(scene.fine[members]))) if members.any() else 0.0
    edge = scene.taken & _grown(region, np.ones((13, 13), np.uint8))
    own = scene.even[core].mean(axis=0)
    alike = float(np.mean(np.abs(scene.even[edge] - own).max(axis=1) < 0.25)) if edge.any() else 0.0
    elsewhere = scene.beside & ~far
    as_dark = elsewhere & ground.same_hue & (ground.darker > 0.6 * darker)
    common = int(np.count_nonzero(as_dark)) / max(1, int(np.count_nonzero(as_dark | (elsewhere & plain))))
    ground_rules = {
        # Where hardly any light is left the camera's black hides the texture; noise counts more the darker it is.
        "texture": rise(texture * float(np.exp(max(0.0, darker - 1))), 0.25, 0.6)
        * fall(texture * float(np.exp(-max(0.0, darker) / 2.2)), 1.4, 2.8),
        "other": fall(alike, 0.3, 0.8),
        "rare": fall(common, 0.06, 0.3),
    }
    rules = light_rules | ground_rules | _shape_rules(region, area, edge, scene)
    return Candidate(region, float(np.prod(list(rules.values()))), rules)


def _shape_rules(region: Bits, area: int, edge: Bits, scene: _Scene) -> dict[str, float]:
    """What is asked of a shadow's size, shape and place."""
    rows, columns = np.nonzero(region)
    across = np.flatnonzero(scene.taken.any(axis=0))
    both_sides = min(int(across[0]) - int(columns.min()), int(columns.max()) - int(across[-1])) / scene.size
    hull = np.zeros(region.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(np.argwhere(region | edge)[:, ::-1].astype(np.int32)), 1)
    solid = area / max(1, int(np.count_nonzero((hull > 0) & ~scene.around)))
    share = area / int(np.count_nonzero(scene.taken))
    inside = region[1:-1, 1:-1]
    at_border = (area - int(np.count_nonzero(inside))) / np.sqrt(area)
    touching = int(np.count_nonzero(region & (scene.away <= _NEXT))) / np.sqrt(area)
    below = float(np.mean(rows >= scene.top + 0.6 * (scene.bottom - scene.top)))
    return {
        "touching": rise(touching, 0.2, 0.7),
        "size": rise(share, 0.005, 0.03) * fall(share, 1.2, 2.5),
        "below": rise(below, 0.5, 0.85),
        "one side": fall(both_sides, 0.15, 0.5),
        "whole": fall(at_border, 0.15, 0.8),
        "solid": rise(solid, 0.1, 0.35),
    }


def _grown(region: Bits, kernel: npt.NDArray[np.uint8]) -> Bits:
    return np.asarray(cv2.dilate(region.astype(np.uint8), kernel) > 0)
