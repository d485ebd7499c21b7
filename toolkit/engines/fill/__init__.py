"""Fillers: one adapter a file. Here what those that work on arrays in this process have in common."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from toolkit import planning
from toolkit.cards import Card
from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.geometry import Box
from toolkit.mask import Mask

Bytes = npt.NDArray[np.uint8]


class FillHole(Protocol):
    """Fills one hole of one window."""

    def __call__(
        self, pixels: Bytes, hole: Bytes, blocked: Bytes | None, seed: int, progress: Callable[[float], None] | None
    ) -> Bytes:
        """The window with its hole filled, (h, w, 3) uint8; known pixels come back as they were."""
        ...


class ArrayFiller:
    """A filler made of a function: far-apart parts of a hole are filled each in a window of its own."""

    def __init__(self, card: Card, function: FillHole) -> None:
        self._card, self._function = card, function

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """One result a job, in order.

        Raises:
            EngineError: when nothing is left to copy from.
        """
        for job in jobs:
            start = time.perf_counter()
            images = tuple(self._image(job, k, run) for k in range(len(job.seeds)))
            yield FillResult(job, images, seconds=time.perf_counter() - start)

    def _image(self, job: FillJob, k: int, run: EngineRun) -> Bytes:
        frame = Box.of_size(job.size)
        parts = Mask.from_array(job.mask, frame).components()
        context = self._card.limits.context
        groups = planning.cluster([part.box for part in parts], frame, context, most=max(1, len(parts)))
        filled = job.pixels.copy()
        total = sum(parts[i].area for group in groups for i in group)
        done = 0
        for group in groups:
            hole = parts[group[0]]
            for i in group[1:]:
                hole = hole.union(parts[i])
            box = self._surroundings(hole.box, job.blocked, frame)
            own = hole.array(box)
            others = np.where(own > 0, 0, np.maximum(job.blocked[box.slices], job.mask[box.slices])).astype(np.uint8)
            before = (k + done / total) / len(job.seeds)
            share = hole.area / total / len(job.seeds)

            def report(part: float, before: float = before, share: float = share) -> None:
                run.progress(job.name, before + part * share)

            answer = self._function(
                np.ascontiguousarray(job.pixels[box.slices]), np.ascontiguousarray(own), others, job.seeds[k], report
            )
            # Only its own hole: the surroundings may reach into other parts, which the answer holds unfilled.
            filled[box.slices][own > 0] = answer[own > 0]
            done += hole.area
        return filled

    def _surroundings(self, hole: Box, blocked: Bytes, frame: Box) -> Box:
        """The hole's box with context; wider where too little of it may be copied from."""
        context = self._card.limits.context
        while True:
            box = planning.surroundings(hole, frame, context)
            if box == frame or (blocked[box.slices] == 0).mean() > 0.5:
                return box
            context *= 1.5
