"""Which of the regions that were found are meant: overlapping ones thinned out, then picked by size, place or score."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from difflib import get_close_matches

import numpy as np

from toolkit.edit import Region
from toolkit.errors import ParameterError
from toolkit.geometry import Box

Key = Callable[[Region], float]


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0-1; 0 where neither has an area."""
    shared = one.intersect(other).area
    return shared / (one.area + other.area - shared) if shared else 0.0


def suppress(regions: Sequence[Region], limit: float) -> tuple[Region, ...]:
    """Greedy non-maximum suppression within each label: best first, without those that overlap a better one.

    Args:
        regions: in any order.
        limit: the largest intersection over union of two boxes that are both kept, 0-1.

    Raises:
        ParameterError: when `limit` is no such number.
    """
    if not 0 <= limit <= 1:
        raise ParameterError(f"overlap: must be 0 to 1, got {limit}")
    ranked = sorted(regions, key=_by_score)
    boxes = np.asarray([region.box for region in ranked], np.float64).reshape(-1, 4)
    areas = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1)
    labels = np.asarray([region.label for region in ranked])
    open_ = np.ones(len(ranked), bool)
    kept = []
    for number, region in enumerate(ranked):
        if not open_[number]:
            continue
        kept.append(region)
        low, high = np.maximum(boxes[:, :2], boxes[number, :2]), np.minimum(boxes[:, 2:], boxes[number, 2:])
        shared = np.prod(np.maximum(high - low, 0), axis=1)
        # The quotient and not the product is compared, so that `overlap` says the same to the last bit.
        united = areas + areas[number] - shared
        share = np.divide(shared, united, out=np.zeros_like(shared), where=shared > 0)
        open_ &= ~((share > limit) & (labels == region.label))
    return tuple(kept)


def pick(
    regions: Sequence[Region],
    which: str,
    labels: Sequence[str] = (),
    *,
    per_label: bool = False,
    frame: Box | None = None,
) -> tuple[Region, ...]:
    """The regions that are meant, the most so first; "all" keeps their order.

    Args:
        regions: what was found.
        which: "all", or one of "best", "largest", "smallest", "leftmost", "rightmost", "topmost", "bottommost" and
            "central", alone or with a number: "largest 2". Places are those of the boxes' centres; sizes are areas of
            masks where there are masks, else of boxes. Ties go to the better score, then to the upper left.
        labels: what the regions must be called; anything when empty.
        per_label: pick among those of each label, labels in the order given, or else found.
        frame: the photo's box, from whose centre "central" is measured.

    Returns:
        As many as there are, if fewer than the number.

    Raises:
        ParameterError: when `which` is none of these, or "central" comes without the photo's box.
    """
    word, count = parse(which)
    asked = [region for region in regions if not labels or region.label in labels]
    if word == "all":
        return tuple(asked)
    key = _KEYS[word] if word != "central" else _central(frame)
    names = list(dict.fromkeys(labels or [region.label for region in asked])) if per_label else [None]
    picked: list[Region] = []
    for name in names:
        group = [region for region in asked if name is None or region.label == name]
        picked += sorted(group, key=lambda region: (key(region), *_by_score(region)))[:count]
    return tuple(picked)


def parse(which: str) -> tuple[str, int]:
    """The word and the number of a choice such as "largest 2"; the number is 1 where none is written.

    Raises:
        ParameterError: when it is none; a word that is nearly right is suggested.
    """
    found = re.fullmatch(r"\s*([^\W\d]+)(?:\s+(\S+))?\s*", which.lower())
    word = found[1] if found else ""
    if not found or word not in WORDS:
        near = get_close_matches(word, WORDS, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f'; one of {", ".join(WORDS)}, e.g. "largest 2"'
        raise ParameterError(f"pick {which!r}: no such choice{hint}")
    if found[2] is None:
        return word, 1
    if word == "all":
        raise ParameterError(f"pick {which!r}: all takes no number")
    if not re.fullmatch(r"[0-9]+", found[2]) or int(found[2]) < 1:
        raise ParameterError(f"pick {which!r}: expected a whole number from 1 after {word}, got {found[2]!r}")
    return word, int(found[2])


def size_of(region: Region) -> int:
    """Pixels of the region's mask, or of its box where it has none."""
    return region.box.area if region.mask is None else region.mask.area


def _by_score(region: Region) -> tuple[float, int, int, int, int, str]:
    box = region.box
    return -region.score, box.top, box.left, box.bottom, box.right, region.label


def _central(frame: Box | None) -> Key:
    if frame is None:
        raise ParameterError("pick 'central': needs the photo's box")
    x, y = frame.left + frame.right, frame.top + frame.bottom
    return lambda one: (one.box.left + one.box.right - x) ** 2 + (one.box.top + one.box.bottom - y) ** 2


_KEYS: dict[str, Key] = {
    "best": lambda one: -one.score,
    "largest": lambda one: -size_of(one),
    "smallest": size_of,
    "leftmost": lambda one: one.box.left + one.box.right,
    "rightmost": lambda one: -(one.box.left + one.box.right),
    "topmost": lambda one: one.box.top + one.box.bottom,
    "bottommost": lambda one: -(one.box.top + one.box.bottom),
}
WORDS = ("all", *_KEYS, "central")
