"""Runs a set of photos through a recipe: several edits in flight, each blocked in its stage, windows met in queues.

One bad photo never stops the others. One photo is a set of one.
"""

from __future__ import annotations

import os
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from toolkit.dataset.inputs import Item
from toolkit.errors import Cancelled, ToolkitError
from toolkit.run import Run, cores


@dataclass(frozen=True)
class Outcome:
    """What became of one photo: its report, or the error that ended it."""

    item: Item
    number: int
    report: dict[str, Any] = field(default_factory=dict)
    error: ToolkitError | None = None
    seconds: float = 0.0


Work = Callable[[Item, Run], dict[str, Any]]
"""Does what is to be done with one photo and returns its report."""


def run_all(
    items: Sequence[Item], work: Work, run: Run, in_flight: int | None = None, skip: AbstractSet[int] = frozenset()
) -> Iterator[Outcome]:
    """Outcomes as they come, numbered by the items' order.

    Ctrl-C or closing the iterator cancels what is under way; photos already written stay.

    Args:
        items: the photos.
        work: called in threads, once a photo, with a child of `run`.
        run: shared by all.
        in_flight: edits at once; one more than there are cores by default, so that decoding and encoding
            keep the cores busy while other edits wait for an engine.
        skip: numbers of items that are left out.
    """
    waiting: queue.SimpleQueue[tuple[int, Item]] = queue.SimpleQueue()
    done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
    left = 0
    for number, item in enumerate(items):
        if number not in skip:
            waiting.put((number, item))
            left += 1

    def serve() -> None:
        while not run.cancelled():
            try:
                number, item = waiting.get_nowait()
            except queue.Empty:
                return
            done.put(_outcome(number, item, work, run, len(items) > 1))

    count = max(1, min(left, in_flight or cores() + 1))
    threads = [threading.Thread(target=serve, daemon=True, name=f"edit {i + 1}") for i in range(count)]
    for thread in threads:
        thread.start()
    try:
        while left:
            try:
                outcome = done.get(timeout=0.1)  # short, so that Ctrl-C is seen on every system
            except queue.Empty:
                if run.cancelled() or not any(thread.is_alive() for thread in threads):
                    if done.empty():
                        raise Cancelled from None
                continue
            left -= 1
            yield outcome
    finally:
        if left:
            run.cancel()


def _outcome(number: int, item: Item, work: Work, run: Run, named: bool) -> Outcome:
    start = time.perf_counter()
    try:
        if item.problem is not None:
            raise item.problem
        report = work(item, run.child(item.name if named else ""))
    except ToolkitError as problem:
        return Outcome(item, number, error=problem, seconds=time.perf_counter() - start)
    except MemoryError:
        error = ToolkitError(f"{item.name}: not enough memory")
        return Outcome(item, number, error=error, seconds=time.perf_counter() - start)
    except OSError as problem:
        place = os.fsdecode(problem.filename) if isinstance(problem.filename, str | bytes) else item.name
        error = ToolkitError(f"{place}: {problem.strerror or problem}")
        return Outcome(item, number, error=error, seconds=time.perf_counter() - start)
    except Exception as problem:  # our own mistake: said in one sentence, the other photos go on
        error = ToolkitError(f"{item.name}: internal error: {type(problem).__name__}: {problem}")
        error.__cause__ = problem
        return Outcome(item, number, error=error, seconds=time.perf_counter() - start)
    return Outcome(item, number, report=report, seconds=time.perf_counter() - start)
