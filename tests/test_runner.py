"""The runner: one bad photo never stops the others, whatever its order; it can be cancelled."""

from __future__ import annotations

import itertools
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from toolkit.dataset.inputs import Item
from toolkit.dataset.runner import run_all
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
        assert len(list(run_all(items(*"abcdefghij"), slow, run, in_flight=3))) == 10
    assert most == 3


def test_cancelling_ends_and_keeps_what_is_done() -> None:
    def waiting(item: Item, run: Run) -> dict[str, Any]:
        while item.name != "a":
            run.check()
            time.sleep(0.01)
        return {}

    with Run(workers=1) as run:
        outcomes = run_all(items(*"abcdef"), waiting, run, in_flight=2)
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
        outcomes = run_all(items(*"abcdef"), noting, run, in_flight=1)
        next(outcomes)
        outcomes.close()  # type: ignore[attr-defined]
        assert run.cancelled()
    assert len(begun) <= 2
