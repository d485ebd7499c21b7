"""Hypothesis drives faults of any kind at any place, cancellations and crashes between, against the two promises."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from wavespeed_server import Server

import toolkit.wavespeed.tasks
from tests.paid import PRICE, PaidRun, account, key_written, order
from toolkit.errors import Cancelled, EngineError
from toolkit.journal import Claim, Journal

FAULTS: list[tuple[str, str | int, dict[str, Any]]] = [
    *(("submit", what, {}) for what in ("drop-unread", "drop", "drop-after", "drop-amid", "null-data", "wrong-types")),
    *(("submit", what, {"accepted": a}) for what in ("not-json", "empty", 500, 504) for a in (False, True)),
    ("submit", "missing", {"fields": ["data.id"]}), ("submit", 429, {"retry_after": 0}), ("submit", 401, {}),
    *(("submit", "refuse", {"code": code}) for code in (1200, 1401, 1402, 1407, 5003)),
    *(("task", "fail", {"code": code}) for code in (1200, 1402, 5000)),
    ("task", "unknown-status", {}), ("task", "nsfw", {}), ("task", "end", {"status": "timeout"}),
    *(("poll", what, {}) for what in ("drop", "not-json", "null-data", "wrong-types", 404, 500, 502)),
    *(("list", what, {}) for what in ("drop", "not-json", "null-data", 404, 500, "no-inputs")),
    *(("download", what, {}) for what in ("drop", "drop-amid", "truncated", "html", "noise", "other-size", 404, 500)),
    *((where, what, {}) for where in ("ticket", "put", "multipart") for what in ("drop", 500, 403)),
    ("connect", "drop", {}),
]  # fmt: skip


class Crash(BaseException):
    """The process ends here, as far as anything it would have written is concerned."""


script = st.lists(
    st.tuples(st.sampled_from(FAULTS), st.integers(1, 4), st.integers(0, 2)), max_size=5
)  # fault, times, after
ends = st.lists(
    st.one_of(
        st.none(), st.tuples(st.just("crash"), st.integers(1, 14)), st.tuples(st.just("cancel"), st.integers(1, 25))
    ),
    max_size=4,
)


def mortal(patch: pytest.MonkeyPatch, last: int) -> None:
    """Crash before or after the write to the journal of that number."""
    write: Callable[..., None] = Claim._write
    passed = 0

    def step() -> None:
        nonlocal passed
        passed += 1
        if passed >= last:
            raise Crash

    def writing(self: Claim, *arguments: Any, **options: Any) -> None:
        step()
        write(self, *arguments, **options)
        step()

    patch.setattr(Claim, "_write", writing)


@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(script, ends)
def test_any_faults_and_crashes(faults: list[Any], ends: list[Any]) -> None:
    sequence(faults, ends)


@pytest.mark.heavy
@settings(max_examples=400, suppress_health_check=list(HealthCheck))
@given(script, ends)
def test_any_faults_and_crashes_at_length(faults: list[Any], ends: list[Any]) -> None:
    sequence(faults, ends)


def sequence(faults: list[Any], ends: list[Any]) -> None:
    with Server(seconds=0.0) as server, tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        folder = Path(name)
        wait = toolkit.wavespeed.tasks.wait
        patch.setattr(toolkit.wavespeed.tasks, "wait", lambda seconds, cancelled: wait(seconds / 50, cancelled))
        for (where, what, options), times, after in faults:
            server.fault(where, what, times=times, after=after, **options)
        for end in [*ends, None]:
            tasks, journal = account(server, folder, settle=0.02, patience=5)
            run = PaidRun(journal)
            with pytest.MonkeyPatch.context() as crash:
                if end and end[0] == "crash":
                    mortal(crash, end[1])
                if end and end[0] == "cancel":
                    left = iter(range(end[1]))
                    run.cancel_when = lambda left=left: next(left, None) is None  # type: ignore[misc]
                with contextlib.suppress(EngineError, Cancelled, Crash):
                    assert len(tasks.get(order(), run).pictures) == 1
            check(server, journal, run, crashed=end is not None and end[0] == "crash")
            journal.close()
        assert key_written(folder) == []
        assert server.keys_leaked() == []
        # Nothing is in the way any more: done, or perhaps paid for a reason that lasts.
        server.clear()
        tasks, journal = account(server, folder, settle=0.02)
        run = PaidRun(journal)
        with contextlib.suppress(EngineError):
            tasks.get(order(), run)
        entry = check(server, journal, run, crashed=False)
        standing = [one.status for one in server.accepted if one.status != "failed"]
        assert entry.state == "done" or (entry.state == "unknown" and standing == ["timeout"])
        bills = [journal.paid(one.id) for one in journal.runs()]
        assert sum(map(sum, bills)) == pytest.approx(PRICE * len(standing), abs=1e-9)
        journal.close()


def check(server: Server, journal: Journal, run: PaidRun, *, crashed: bool) -> Any:
    """At most one submission stands, and what was set aside is what the journal calls paid or perhaps paid."""
    entry = journal.lookup(order().key)
    standing = [one for one in server.accepted if one.status != "failed"]
    assert len(standing) <= 1, [one.status for one in server.accepted]
    if standing:
        assert entry is not None
        assert entry.state not in ("failed", "intended")
    if entry is not None and entry.state == "done":
        assert [entry.remote] == [one.id for one in standing]
    if not crashed:
        assert run.budget.spent == pytest.approx(sum(journal.paid(run.id)), abs=1e-9)
    return entry
