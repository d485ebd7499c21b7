"""One queue an engine, shared by all edits of a command, so that windows of several photos meet.

`process` engines get a pool of worker processes, a `gpu` engine one thread that gathers jobs into batches, a
`network` engine a number of calls in flight. All three answer alike: results in any order, cancelling one edit's
jobs never drops another's.
"""

from __future__ import annotations

import dataclasses
import json
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any, Protocol, TypeVar

from toolkit.cards import Card
from toolkit.engines import EngineRun, Filler, FillJob, FillResult, open_engine
from toolkit.errors import Cancelled, EngineError
from toolkit.journal import Journal
from toolkit.workers import Pool

T = TypeVar("T")

_TICK = 0.1
"""Seconds between looks at whether the caller cancelled."""

_LINGER = 0.02
"""Seconds a batching queue waits for another edit's jobs before it starts a batch that is not full."""


class FillQueue(Protocol):
    """Where fill jobs wait for one engine."""

    def submit(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """Results in any order.

        Raises:
            Cancelled: when `run` was cancelled.
            EngineError: when a job cannot be done.
        """
        ...

    def close(self) -> None:
        """Stop what it started."""
        ...


def open_queue(card: Card, pool: Pool, engine: Filler | None = None) -> FillQueue:
    """The queue for a card; `engine` is used instead of opening the card's own."""
    if card.concurrency == "process" and engine is None:
        return ProcessQueue(card, pool)
    if card.concurrency == "gpu":
        return BatchQueue(card, engine or open_engine(card))
    return CallQueue(card, engine or open_engine(card))


def finished(futures: dict[Future[T], FillJob], run: EngineRun, give_up: Callable[[Future[T]], None]) -> Iterator[T]:
    """Answers as they come; on cancellation or failure the rest is given up."""
    waiting = set(futures)
    try:
        while waiting:
            if run.cancelled():
                raise Cancelled
            done, waiting = wait(waiting, timeout=_TICK, return_when=FIRST_COMPLETED)
            # Answers first: what is done is not lost to what failed.
            for future in sorted(done, key=lambda one: one.cancelled() or one.exception() is not None):
                if future.cancelled():
                    raise Cancelled
                yield future.result()
    finally:
        for future in waiting:
            give_up(future)


def fill_one(card: Card, job: FillJob) -> FillResult:
    """Fill one job in a worker process."""
    return _only(card, _opened(card), job, _WorkerRun(_reporter.progress))


def _only(card: Card, engine: Filler, job: FillJob, run: EngineRun) -> FillResult:
    for result in engine.fill([job], run):
        return result
    raise EngineError(f"{card.name}: returned nothing for a job")


class _Reporter(threading.local):
    progress: Callable[[float], None] = staticmethod(lambda share: None)


_reporter = _Reporter()
_engines: dict[str, Any] = {}


def _opened(card: Card) -> Any:
    if card.name not in _engines:
        _engines[card.name] = open_engine(card)
    return _engines[card.name]


def _fill_reporting(card: Card, job: FillJob, progress: Callable[[float], None]) -> FillResult:
    _reporter.progress = progress
    return fill_one(card, job)


_fill_reporting.reports_progress = True  # type: ignore[attr-defined]


class _WorkerRun:
    """The run as an engine inside a worker process sees it: its process is ended when the job is cancelled."""

    seed = 0
    device = "auto"
    id = ""
    fresh = False

    def __init__(self, progress: Callable[[float], None]) -> None:
        self._progress = progress

    @property
    def journal(self) -> Journal:
        raise EngineError("engines in worker processes have no journal: declare `concurrency: network` on the card")

    def reserve(self, price: float) -> None:
        raise EngineError("engines in worker processes cost nothing: declare `concurrency: network` on the card")

    def release(self, price: float) -> None:
        raise AssertionError("nothing was reserved")

    def progress(self, name: str, share: float) -> None:
        self._progress(share)

    def cancelled(self, name: str = "") -> bool:
        return False

    def compute(self, function: Callable[..., T], *arguments: Any, name: str = "") -> T:
        return function(*arguments)


def _drop(future: Future[Any]) -> None:
    """Give up a call that has not begun; one in flight is left to end."""
    future.cancel()


class ProcessQueue:
    """Jobs go one by one to the pool of worker processes; each opens the engine once."""

    def __init__(self, card: Card, pool: Pool) -> None:
        self._card, self._pool = card, pool

    def submit(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """Results in any order."""
        futures: dict[Future[FillResult], FillJob] = {}
        for job in jobs:

            def report(share: float, name: str = job.name) -> None:
                run.progress(name, share)

            futures[self._pool.submit(_fill_reporting, self._card, job, progress=report)] = job
        for result in finished(futures, run, self._pool.cancel):
            yield result.checked(self._card)

    def close(self) -> None:
        """Nothing to stop: the pool belongs to the run."""


class CallQueue:
    """Up to `card.in_flight` calls of the engine at once, in threads of this process."""

    def __init__(self, card: Card, engine: Filler) -> None:
        self._card, self._engine = card, engine
        self._threads = ThreadPoolExecutor(card.in_flight, thread_name_prefix=card.name)

    def submit(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """Results in any order."""
        futures = {self._threads.submit(self._call, job, run): job for job in jobs}
        for result in finished(futures, run, _drop):
            yield result.checked(self._card)

    def _call(self, job: FillJob, run: EngineRun) -> FillResult:
        if run.cancelled(job.name):
            raise Cancelled
        return _only(self._card, self._engine, job, run)

    def close(self) -> None:
        """Wait for calls in flight; those not begun are dropped."""
        self._threads.shutdown(cancel_futures=True)


_Entry = tuple[FillJob, EngineRun, Future[FillResult]]


def _kind(job: FillJob) -> str:
    """What jobs that an engine makes together have in common."""
    return json.dumps([job.size, dict(job.parameters)], sort_keys=True, default=str)


class BatchQueue:
    """One thread that calls the engine with up to `card.in_flight` jobs of one kind, of whatever edits are waiting."""

    def __init__(self, card: Card, engine: Filler) -> None:
        self._card, self._engine = card, engine
        self._waiting: queue.SimpleQueue[_Entry | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, name=card.name, daemon=True)
        self._thread.start()

    def submit(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """Results in any order."""
        futures: dict[Future[FillResult], FillJob] = {}
        for job in jobs:
            future: Future[FillResult] = Future()
            futures[future] = job
            self._waiting.put((job, run, future))
        for result in finished(futures, run, _drop):
            yield result.checked(self._card)

    def close(self) -> None:
        """Finish the batch in work and stop."""
        self._waiting.put(None)
        self._thread.join()

    def _serve(self) -> None:
        while True:
            batch, last = self._gather()
            apart: dict[str, list[_Entry]] = {}
            for entry in batch:
                if entry[2].set_running_or_notify_cancel():
                    apart.setdefault(_kind(entry[0]), []).append(entry)
            # What is wrong with one kind (a LoRA, a size) must not fail the others'.
            for alike in apart.values():
                self._fill(alike)
            if last:
                return

    def _gather(self) -> tuple[list[_Entry], bool]:
        batch: list[_Entry] = []
        until: float | None = None
        while len(batch) < self._card.in_flight:
            try:
                entry = self._waiting.get(timeout=None if until is None else max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            if entry is None:
                return batch, True
            batch.append(entry)
            until = until or time.monotonic() + _LINGER
        return batch, False

    def _fill(self, live: list[_Entry]) -> None:
        # Windows of several edits bear the same names: in a batch each job has one of its own.
        owners = {
            f"{number}: {job.name}": (job, run, future) for number, (job, run, future) in enumerate(live, start=1)
        }
        jobs = [dataclasses.replace(job, name=name) for name, (job, _, _) in owners.items()]
        left = set(owners)
        problem: Exception = EngineError(f"{self._card.name}: returned nothing for a job")
        try:
            for result in self._engine.fill(jobs, _Batch(owners)):
                if result.job.name not in left:
                    raise EngineError(f"{self._card.name}: answered a job it was not given")
                left.remove(result.job.name)
                job, _, future = owners[result.job.name]
                future.set_result(dataclasses.replace(result, job=job))
        except Exception as failure:
            problem = failure
        for name in left:
            _, run, future = owners[name]
            future.set_exception(Cancelled() if run.cancelled() else problem)


class _Batch:
    """The runs of a batch as one: progress and cancellation are looked up by the job's name in the batch."""

    def __init__(self, owners: Mapping[str, _Entry]) -> None:
        self._owners = owners
        self._first = next(iter(owners.values()))[1]

    @property
    def journal(self) -> Journal:
        return self._first.journal

    @property
    def seed(self) -> int:
        return self._first.seed

    @property
    def device(self) -> str:
        return self._first.device

    @property
    def id(self) -> str:
        return self._first.id

    @property
    def fresh(self) -> bool:
        return self._first.fresh

    def reserve(self, price: float) -> None:
        self._first.reserve(price)

    def release(self, price: float) -> None:
        self._first.release(price)

    def progress(self, name: str, share: float) -> None:
        if name in self._owners:
            job, run, _ = self._owners[name]
            run.progress(job.name, share)
            return
        for run in {id(run): run for _, run, _ in self._owners.values()}.values():  # what all wait for: a file
            run.progress(name, share)

    def cancelled(self, name: str = "") -> bool:
        if name:
            return self._owners[name][1].cancelled(self._owners[name][0].name)
        return all(run.cancelled() for _, run, _ in self._owners.values())

    def compute(self, function: Callable[..., T], *arguments: Any, name: str = "") -> T:
        return self._first.compute(function, *arguments, name=name)
