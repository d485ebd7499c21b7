"""Functions that tests have worker processes call, and stand-ins for engines."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from toolkit.cards import Card
from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.errors import EngineError, UnknownNameError
from toolkit.geometry import Limits


def stepwise(steps: int, progress: Callable[[float], None]) -> int:
    for step in range(steps):
        progress((step + 1) / steps)
    return steps


stepwise.reports_progress = True  # type: ignore[attr-defined]


class Stubborn(Exception):
    """Cannot be made again from its arguments, so it survives no pickling."""

    def __init__(self, first: str, second: str) -> None:
        super().__init__(f"{first} and {second}")


def raise_stubborn() -> None:
    raise Stubborn("one", "two")


def raise_unknown() -> None:
    raise UnknownNameError("here", "thing", "appel", ["apple"])


def raise_end_of_file() -> None:
    raise EOFError("the file ended")


def raise_broken_pipe() -> None:
    raise BrokenPipeError("of the function's own")


def talk() -> str:
    os.write(1, b"noise that is no answer\n")
    return "heard"


def unsendable() -> Any:
    return threading.Lock()


def card(name: str = "stand-in", **changes: Any) -> Card:
    """A card for a stand-in engine."""
    values: dict[str, Any] = {
        "name": name, "task": "fill", "adapter": "stand_in", "about": "a stand-in", "revision": "1", "licence": "none",
        "commercial_use": True, "output_terms": "none", "data_leaves_machine": False, "concurrency": "network",
        "limits": Limits(context=2.0),
    }  # fmt: skip
    return Card(**(values | changes))


class StandIn:
    """A filler that answers with what `answer(job, seed)` makes, and remembers what it was asked."""

    def __init__(self, answer: Callable[[FillJob, int], Any] = lambda job, seed: job.pixels,
                 wait: Callable[[], object] = lambda: None) -> None:  # fmt: skip
        self.answer, self.wait = answer, wait
        self.jobs: list[FillJob] = []
        self.batches: list[int] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        with self._lock:
            self.batches.append(len(jobs))
            self.jobs += jobs
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self.wait()
            for job in jobs:
                if not run.cancelled(job.name):
                    run.progress(job.name, 0.5)
                    yield FillResult(job, tuple(self.answer(job, seed) for seed in job.seeds))
        finally:
            with self._lock:
                self.at_once -= 1


class Refusing:
    """A filler that fails."""

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        raise EngineError("refusing: no")


class Silent:
    """A filler that answers nothing."""

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        return iter(())


def job(name: str = "window 1 of 1", value: int = 0, seeds: tuple[int, ...] = (0,)) -> FillJob:
    """A small job with one pixel to fill."""
    pixels = np.full((6, 8, 3), value, np.uint8)
    mask = np.zeros((6, 8), np.uint8)
    mask[2, 3] = 255
    return FillJob(pixels, mask, np.zeros_like(mask), seeds=seeds, card=("stand-in", "1"), name=name)
