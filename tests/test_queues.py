"""Queues: windows of several edits meet, and cancelling one edit's jobs never drops another's."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import pytest
from jobs import Refusing, Silent, StandIn, card, job

from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.errors import Cancelled, EngineError
from toolkit.queues import BatchQueue, CallQueue, open_queue
from toolkit.run import Run


@pytest.fixture
def run() -> Iterator[Run]:
    with Run(workers=1) as one:
        yield one


def in_thread(work: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Run `work`; its answer or exception lands in the list."""
    kept: list[object] = []

    def guarded() -> None:
        try:
            kept.append(work())
        except BaseException as problem:
            kept.append(problem)

    thread = threading.Thread(target=guarded)
    thread.start()
    return thread, kept


def test_batches_gather_jobs_of_several_edits(run: Run) -> None:
    busy, free = threading.Event(), threading.Event()
    engine = StandIn(wait=lambda: (busy.set(), free.wait(60)))
    queue = BatchQueue(card(concurrency="gpu", in_flight=4), engine)
    first = in_thread(lambda: list(queue.submit([job("a", 0)], run.child("blocker"))))
    assert busy.wait(60)  # what comes now waits and is gathered
    threads = [in_thread(lambda n=n: list(queue.submit([job("a", n), job("b", n)], run.child(str(n))))) for n in (1, 2)]
    while queue._waiting.qsize() < 4 and all(thread.is_alive() for thread, _ in threads):
        time.sleep(0.01)
    free.set()
    for thread, kept in [first, *threads]:
        thread.join(60)
        assert isinstance(kept[0], list), kept
    queue.close()
    assert engine.batches == [1, 4]
    for number, (_, kept) in enumerate(threads, start=1):
        (results,) = kept
        assert sorted(result.job.name for result in results) == ["a", "b"]  # type: ignore[attr-defined]
        assert all((result.images[0] == number).all() for result in results)  # type: ignore[attr-defined]


def test_progress_of_a_batch_goes_to_the_edit_it_belongs_to() -> None:
    told: list[tuple[str, float]] = []
    with Run(workers=1, progress=lambda name, share: told.append((name, share))) as run:
        queue = BatchQueue(card(concurrency="gpu", in_flight=2), StandIn())
        pair = [in_thread(lambda n=n: list(queue.submit([job("window")], run.child(n)))) for n in ("left", "right")]
        for thread, kept in pair:
            thread.join(10)
            assert isinstance(kept[0], list)
        queue.close()
    assert sorted(told) == [("left: window", 0.5), ("right: window", 0.5)]


def test_cancelling_one_edit_keeps_the_other_of_its_batch(run: Run) -> None:
    began, go_on = threading.Event(), threading.Event()

    class Waiting(StandIn):
        def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
            self.batches.append(len(jobs))
            began.set()
            go_on.wait(10)
            return super().fill(jobs, run)

    queue = BatchQueue(card(concurrency="gpu", in_flight=2), Waiting())
    kept_run, dropped_run = run.child("kept"), run.child("dropped")
    kept = in_thread(lambda: list(queue.submit([job("window 1 of 1", 1)], kept_run)))
    dropped = in_thread(lambda: list(queue.submit([job("window 1 of 1", 2)], dropped_run)))
    assert began.wait(10)
    dropped_run.cancel()
    dropped[0].join(1)
    assert isinstance(dropped[1][0], Cancelled)
    go_on.set()
    kept[0].join(10)
    (results,) = kept[1]
    assert (results[0].images[0] == 1).all()  # type: ignore[index]
    queue.close()


@pytest.mark.parametrize("concurrency", ["gpu", "network"])
@pytest.mark.parametrize(
    ("engine", "sentence"),
    [
        (Refusing(), "refusing: no"),
        (Silent(), "stand-in: returned nothing for a job"),
        (StandIn(lambda job, seed: job.pixels[:-1]),
         "stand-in: expected an image of shape (6, 8, 3) uint8, got (5, 8, 3) uint8"),
        (StandIn(lambda job, seed: job.pixels.astype(np.float32)),
         "stand-in: expected an image of shape (6, 8, 3) uint8, got (6, 8, 3) float32"),
    ],
)  # fmt: skip
def test_unusable_answers_are_named(run: Run, concurrency: str, engine: StandIn, sentence: str) -> None:
    queue = open_queue(card(concurrency=concurrency, in_flight=2), run._shared.pool, engine)
    with pytest.raises(EngineError) as caught:
        list(queue.submit([job()], run))
    assert str(caught.value) == sentence
    queue.close()


def test_a_wrong_number_of_images_is_named(run: Run) -> None:
    class Generous(StandIn):
        def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
            for one in jobs:
                yield FillResult(one, (one.pixels,) * 3)

    queue = CallQueue(card(), Generous())
    with pytest.raises(EngineError, match=r"^stand-in: returned 3 images, asked for 1$"):
        list(queue.submit([job()], run))
    queue.close()


def test_calls_keep_n_in_flight(run: Run) -> None:
    engine = StandIn(wait=threading.Barrier(3, timeout=60).wait)
    queue = CallQueue(card(in_flight=3), engine)
    results = list(queue.submit([job(str(n), n) for n in range(9)], run))
    queue.close()
    assert len(results) == 9
    assert engine.most_at_once == 3
    assert engine.batches == [1] * 9


def test_cancelled_calls_are_not_begun(run: Run) -> None:
    busy, free = threading.Event(), threading.Event()
    engine = StandIn(wait=lambda: (busy.set(), free.wait(60)))
    queue = CallQueue(card(in_flight=1), engine)
    child = run.child("one")
    thread, kept = in_thread(lambda: list(queue.submit([job(str(n)) for n in range(20)], child)))
    assert busy.wait(60)
    child.cancel()
    thread.join(30)  # without waiting for the call that runs
    assert isinstance(kept[0], Cancelled)
    free.set()
    queue.close()
    assert len(engine.jobs) <= 2


def test_partial_results_are_kept(run: Run) -> None:
    class HalfWay(StandIn):
        def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
            for number, one in enumerate(jobs):
                if number:
                    raise EngineError("half way")
                yield FillResult(one, (one.pixels,))

    queue = BatchQueue(card(concurrency="gpu", in_flight=2), HalfWay())
    results = queue.submit([job("1"), job("2")], run)
    assert next(results).job.name == "1"
    with pytest.raises(EngineError, match="half way"):
        next(results)
    queue.close()


def test_keys_are_of_what_shapes_the_answer() -> None:
    assert job("one").key == job("another").key
    assert job(value=1).key != job(value=2).key
    assert job(seeds=(1,)).key != job(seeds=(2,)).key
