"""Runs a set of photos through a recipe: several edits in flight, each blocked in its stage, windows met in queues.

A few edits are at work on this machine at once. While one waits for an engine elsewhere its place is another's, so that
the engine gets as many calls as it takes. One bad photo never stops the others. One photo is a set of one.
"""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from typing import Any

from toolkit.dataset.inputs import Item
from toolkit.errors import Cancelled, ToolkitError
from toolkit.heap import share_left
from toolkit.run import Run, cores
from toolkit.waiting import Line

_LEFT = 0.25
"""Share of the machine's memory that must be left for one photo more to be begun while others wait for an engine."""


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
    items: Sequence[Item], work: Work, run: Run, at_work: int | None = None, skip: AbstractSet[int] = frozenset(),
    named: bool | None = None,
) -> Iterator[Outcome]:  # fmt: skip
    """Outcomes as they come, numbered by the items' order.

    Ctrl-C or closing the iterator cancels what is under way; photos already written stay.

    Args:
        items: the photos.
        work: called in threads, once a photo, with a child of `run`.
        run: shared by all.
        at_work: edits at work on this machine at once, besides those that wait for an engine elsewhere; one more than
            there are cores by default, so that decoding and encoding keep the cores busy.
        skip: numbers of items that are left out.
        named: each edit has its photo's name, which random seeds depend on; where there are several without it.
    """
    photos = [(number, item) for number, item in enumerate(items) if number not in skip]
    crew = _Crew(photos, work, run, at_work or cores() + 1, named=len(items) > 1 if named is None else named)
    left = len(photos)
    try:
        while left:
            try:
                outcome = crew.done.get(timeout=0.1)  # short, so that Ctrl-C is seen on every system
            except queue.Empty:
                if (run.cancelled() or not crew.threads) and crew.done.empty():
                    raise Cancelled from None
                continue
            left -= 1
            yield outcome
    finally:
        if left:
            run.cancel()


class _Crew:
    """Threads that take up one photo after the other.

    Attributes:
        done: what became of each photo.
        threads: how many there are.
    """

    def __init__(
        self, photos: Sequence[tuple[int, Item]], work: Work, run: Run, at_work: int, *, named: bool
    ) -> None:  # fmt: skip
        self.done: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.threads, self._at_work, self._line = 0, at_work, Line(at_work)
        self._photos, self._work, self._run, self._named = deque(photos), work, run, named
        self._lock = threading.Lock()
        for _ in range(min(at_work, len(photos))):
            self._join()

    def _join(self) -> None:
        """One thread more, if there is a photo for it."""
        with self._lock:
            if not self._photos or not self._has_room(self.threads):
                return
            self.threads += 1
            name = f"edit {self.threads}"
        try:
            threading.Thread(target=self._serve, daemon=True, name=name).start()
        except RuntimeError:  # the system gives no more: those there are do the work
            with self._lock:
                self.threads -= 1
            if not self.threads:
                raise

    def _has_room(self, others: int) -> bool:
        """Whether one photo may be under way besides `others`."""
        if others < self._at_work:
            return True
        return others < self._at_work + self._run.calls_at_once and share_left() >= _LEFT

    def _serve(self) -> None:
        stays = True
        while stays:
            stays = more = False
            try:
                more = self._took_up_one()
            except Cancelled:
                pass
            finally:
                with self._lock:  # who goes is counted off at once, so that the others know and stay
                    try:
                        stays = more and self._has_room(self.threads - 1)
                    finally:
                        self.threads -= not stays

    def _took_up_one(self) -> bool:
        """Work on the next photo; False where none is left, or the run was cancelled."""
        if self._run.cancelled():
            return False
        place = _Place(self._line, self._run, self._join)
        with place.held():
            try:
                number, item = self._photos.popleft()
            except IndexError:
                return False
            self.done.put(_outcome(number, item, self._work, self._run, place, self._named))
        return True


class _Place:
    """An edit's place among those at work on this machine."""

    def __init__(self, line: Line, run: Run, on_leave: Callable[[], None]) -> None:
        self._line, self._run, self._on_leave = line, run, on_leave
        self._is_held = False

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Have the place for as long as the block takes, unless it is given up meanwhile.

        Raises:
            Cancelled: when the run is cancelled before it is there.
        """
        self._take()
        try:
            yield
        finally:
            self._leave()

    @contextlib.contextmanager
    def elsewhere(self) -> Iterator[None]:
        """Leave the place to others for as long as the block takes.

        Raises:
            Cancelled: when the run is cancelled before it is there again.
        """
        self._leave()
        self._on_leave()
        try:
            yield
        finally:
            self._take(again=True)  # what was begun is ended first

    def _take(self, *, again: bool = False) -> None:
        self._line.take(self._run.cancelled, again=again)
        self._is_held = True

    def _leave(self) -> None:
        if self._is_held:
            self._is_held = False
            self._line.leave()


def _outcome(number: int, item: Item, work: Work, run: Run, place: _Place, named: bool) -> Outcome:
    start = time.perf_counter()
    try:
        if item.problem is not None:
            raise item.problem
        report = work(item, run.child(item.name if named else "", elsewhere=place.elsewhere))
    except ToolkitError as problem:
        return Outcome(item, number, error=problem, seconds=time.perf_counter() - start)
    except MemoryError:
        error = ToolkitError(f"{item.name}: not enough memory")
        return Outcome(item, number, error=error, seconds=time.perf_counter() - start)
    except OSError as problem:
        where = os.fsdecode(problem.filename) if isinstance(problem.filename, str | bytes) else item.name
        error = ToolkitError(f"{where}: {problem.strerror or problem}")
        return Outcome(item, number, error=error, seconds=time.perf_counter() - start)
    except Exception as problem:  # our own mistake: said in one sentence, the other photos go on
        error = ToolkitError(f"{item.name}: internal error: {type(problem).__name__}: {problem}")
        error.__cause__ = problem
        return Outcome(item, number, error=error, seconds=time.perf_counter() - start)
    return Outcome(item, number, report=report, seconds=time.perf_counter() - start)
