"""Masks of everything: a grid of clicks, three masks for each, and of those the sure, stable and different ones.

The steps and figures of segment-anything's `SamAutomaticMaskGenerator`, without its crops and its removal of specks;
masks are held as the network's small logits and enlarged one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.engines.segment._sam_masks import Enlarging, Logits
from toolkit.engines.segment._sam_network import Floats, Network, Settings
from toolkit.engines.segment._torchvision import segment_anything
from toolkit.geometry import Box


@dataclass(frozen=True, eq=False)
class Candidate:
    """A mask that was sure and stable enough: its logits (s/4, s/4), predicted IoU and box."""

    logits: Logits
    score: float
    box: tuple[int, int, int, int]


def everything(
    network: Network, embedding: Floats, enlarging: Enlarging, check: Callable[[float], None]
) -> list[Candidate]:
    """What is in a picture, surest first; perhaps nothing.

    Args:
        network: that made `embedding`.
        embedding: of the picture.
        enlarging: from its logits to the picture.
        check: called with the share that is done (0-1); what it raises ends the work.
    """
    settings = network.settings
    side = settings.points_per_side_cpu if network.device == "cpu" else settings.points_per_side
    # The reference leaves these in double precision, which moves the last bits of what comes of them.
    kind = np.float32 if network.device == "mps" else np.float64
    clicks = (grid(side) * np.array(enlarging.photo) * scale(enlarging)).astype(kind)
    found: list[Candidate] = []
    step = settings.boxes_at_once
    for start in range(0, len(clicks), step):
        check(start / len(clicks))
        part = clicks[start : start + step, None, :]
        low, scores = network.decode(
            embedding, points=(part, np.ones(part.shape[:2], np.int32).tolist()), several=True,
            check=partial(check, start / len(clicks)),
        )  # fmt: skip
        found += _sure(low.reshape(-1, *low.shape[2:]), scores.ravel(), settings, enlarging)
    check(1)
    if not found:
        return []
    return [found[index] for index in _different(found, settings.box_nms_thresh)]


def grid(side: int) -> npt.NDArray[np.float64]:
    """The middles (side * side, 2) of equal squares of the unit square, x and y, row by row."""
    places = np.linspace(1 / (2 * side), 1 - 1 / (2 * side), side)
    return np.stack([np.tile(places, side), np.repeat(places, side)], axis=-1)


def scale(enlarging: Enlarging) -> npt.NDArray[np.float64]:
    """(2,) what x and y of the photo are multiplied by for the network's square."""
    return np.array(enlarging.inner, np.float64) / np.array(enlarging.photo, np.float64)


def _sure(low: Logits, scores: Logits, settings: Settings, enlarging: Enlarging) -> Iterator[Candidate]:
    for logits, score in zip(low, scores, strict=True):
        if settings.pred_iou_thresh > 0 and not score > settings.pred_iou_thresh:
            continue
        if settings.stability_score_thresh > 0:
            inner, outer = (enlarging.area(logits, sign * settings.stability_score_offset) for sign in (1, -1))
            # In float32, as the reference divides.
            if not outer or np.float32(inner) / np.float32(outer) < np.float32(settings.stability_score_thresh):
                continue
        yield Candidate(logits.copy(), float(score), _bounds(enlarging.mask(logits)))


def _bounds(found: tuple[Box, npt.NDArray[np.uint8]] | None) -> tuple[int, int, int, int]:
    """Left, top, right and bottom pixel of a mask, the last two counted in; 0 without one."""
    if found is None:
        return 0, 0, 0, 0
    box, values = found
    y, x = np.flatnonzero(values.any(1)), np.flatnonzero(values.any(0))
    if not y.size:
        return 0, 0, 0, 0
    return (box.left + int(x[0]), box.top + int(y[0]), box.left + int(x[-1]), box.top + int(y[-1]))


def _different(found: list[Candidate], overlap: float) -> list[int]:
    import torch

    segment_anything()
    from segment_anything.automatic_mask_generator import batched_nms

    boxes = torch.tensor([one.box for one in found], dtype=torch.float32)
    scores = torch.tensor([one.score for one in found], dtype=torch.float32)
    kept: Any = batched_nms(boxes, scores, torch.zeros(len(found)), iou_threshold=overlap)
    return [int(index) for index in kept]
