"""The runner: one bad photo never stops the others, whatever its order; it can be cancelled."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import StandIn, card, job

from toolkit.dataset import runner
from toolkit.dataset.inputs import Item
from toolkit.dataset.runner import Outcome, run_all
from toolkit.errors import Cancelled, InputError, PhotoError
from toolkit.run import Run

FAILURES: dict[str, BaseException] = {
    "refused": PhotoError("refused: is empty"),
    "system": OSError(13, "Permission denied", "system.png"),
    "nameless": OSError(28, "No space left on device"),
    "memory": MemoryError(),
    "mistake": ZeroDivisionError("by zero"),
}
SENTENCES = {
    "refused": "refused: is empty",
    "system": "system.png: Permission denied",
    "nameless": "nameless: No space left on device",
    "memory": "memory: not enough memory",
    "mistake": "mistake: internal error: ZeroDivisionError: by zero",
}


def work(item: Item, run: Run) -> dict[str, Any]:
    if item.name in FAILURES:
        raise FAILURES[item.name]
    return {"name": item.name, "run": run.name}


def items(*names: str) -> list[Item]:
    return [Item(name, Path(name)) for name in names]


@pytest.mark.parametrize("bad", sorted(FAILURES))
def test_a_bad_photo_stops_no_other_whatever_the_order(bad: str) -> None:
    for names in itertools.permutations(("a", bad, "b")):
        with Run(workers=1) as run:
            outcomes = {outcome.item.name: outcome for outcome in run_all(items(*names), work, run)}
        assert outcomes["a"].report == {"name": "a", "run": "a"}
        assert outcomes["b"].report == {"name": "b", "run": "b"}
        assert str(outcomes[bad].error) == SENTENCES[bad]
        assert [outcomes[name].number for name in names] == [0, 1, 2]


def test_what_is_known_to_be_bad_is_not_tried() -> None:
    problem = InputError("line 2: names no photo")
    with Run(workers=1) as run:
        (outcome,) = run_all([Item("line 2", b"", problem=problem)], lambda item, run: pytest.fail("tried"), run)
    assert outcome.error is problem


def test_a_single_photo_has_no_name_in_its_progress() -> None:
    with Run(workers=1) as run:
        (outcome,) = run_all(items("a"), work, run)
    assert outcome.report["run"] == ""


def test_no_more_are_in_flight_than_said() -> None:
    lock, now, most = threading.Lock(), 0, 0

    def slow(item: Item, run: Run) -> dict[str, Any]:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return {}

    with Run(workers=1) as run:
        assert len(list(run_all(items(*"abcdefghij"), slow, run, at_work=3))) == 10
    assert most == 3


class Watched:
    """Has a job filled for each photo, and counts photos under way and at work on this machine."""

    def __init__(self, wait: Callable[[], object], in_flight: int = 8, concurrency: str = "network") -> None:
        self.card = card("far", concurrency=concurrency, in_flight=in_flight)
        self.engine = StandIn(wait=wait)
        self.under_way = self.at_work = self.most_under_way = self.most_at_work = 0
        self._lock = threading.Lock()

    def _count(self, under_way: int, at_work: int) -> None:
        with self._lock:
            self.under_way += under_way
            self.at_work += at_work
            self.most_under_way = max(self.most_under_way, self.under_way)
            self.most_at_work = max(self.most_at_work, self.at_work)

    def __call__(self, item: Item, run: Run) -> dict[str, Any]:
        self._count(1, 1)
        time.sleep(0.01)
        self._count(0, -1)
        list(run.fill(self.card, [job(item.name)]))
        self._count(0, 1)
        time.sleep(0.01)
        self._count(-1, -1)
        return {}

    def run_all(self, count: int, at_work: int) -> list[Outcome]:
        with Run(workers=1, engines={"far": (self.card, self.engine)}) as run:
            return list(run_all(items(*map(str, range(count))), self, run, at_work=at_work))


def test_photos_that_wait_for_an_engine_elsewhere_leave_their_place_to_others() -> None:
    watched = Watched(threading.Barrier(8, timeout=60).wait)
    outcomes = watched.run_all(16, at_work=2)
    assert [outcome.error for outcome in outcomes] == [None] * 16
    assert watched.most_at_work <= 2
    assert watched.engine.most_at_once == 8


def test_no_more_photos_are_under_way_than_the_engine_elsewhere_takes() -> None:
    watched = Watched(lambda: time.sleep(0.02), in_flight=3)
    watched.run_all(20, at_work=2)
    assert 3 <= watched.most_under_way <= 5


def test_an_engine_on_this_machine_is_waited_for_in_place() -> None:
    watched = Watched(lambda: time.sleep(0.02), concurrency="gpu")
    watched.run_all(8, at_work=2)
    assert watched.most_under_way == 2


def test_where_memory_is_short_no_others_are_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    left = iter([0.9, 0.9, 0.9, *[0.1] * 1000])
    monkeypatch.setattr(runner, "share_left", lambda: next(left))
    watched = Watched(lambda: time.sleep(0.02))
    assert len(watched.run_all(20, at_work=2)) == 20
    assert 2 <= watched.most_under_way <= 5


def test_where_memory_runs_short_while_all_wait_enough_stay_for_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    left, together = [0.9], threading.Barrier(8, action=lambda: left.__setitem__(0, 0.1), timeout=60)
    monkeypatch.setattr(runner, "share_left", lambda: left[0])
    watched = Watched(lambda: together.wait() if left[0] > 0.5 else None)
    assert [outcome.error for outcome in watched.run_all(60, at_work=2)] == [None] * 60
    assert watched.engine.most_at_once == 8


def test_cancelling_ends_photos_that_wait_elsewhere_or_for_their_place() -> None:
    begun = threading.Barrier(9, timeout=60)
    free = threading.Event()
    watched = Watched(lambda: (begun.wait(), free.wait(60)))
    with Run(workers=1, engines={"far": (watched.card, watched.engine)}) as run:
        outcomes = run_all(items(*map(str, range(30))), watched, run, at_work=1)
        threading.Thread(target=lambda: (begun.wait(), run.cancel())).start()
        with pytest.raises(Cancelled):
            for outcome in outcomes:
                assert isinstance(outcome.error, Cancelled)
        free.set()
        for thread in threading.enumerate():
            if thread.name.startswith("edit "):
                thread.join(60)
                assert not thread.is_alive()


def test_cancelling_ends_and_keeps_what_is_done() -> None:
    def waiting(item: Item, run: Run) -> dict[str, Any]:
        while item.name != "a":
            run.check()
            time.sleep(0.01)
        return {}

    with Run(workers=1) as run:
        outcomes = run_all(items(*"abcdef"), waiting, run, at_work=2)
        assert next(outcomes).item.name == "a"
        run.cancel()
        with pytest.raises(Cancelled):
            list(outcomes)


def test_a_caller_that_stops_listening_cancels_the_rest() -> None:
    begun: list[str] = []

    def noting(item: Item, run: Run) -> dict[str, Any]:
        begun.append(item.name)
        while item.name != "a":
            run.check()
            time.sleep(0.01)
        return {}

    with Run(workers=1) as run:
        outcomes = run_all(items(*"abcdef"), noting, run, at_work=1)
        next(outcomes)
        outcomes.close()  # type: ignore[attr-defined]
        assert run.cancelled()
    assert len(begun) <= 2
