"""The journal against a model of a few lines, under random steps, deaths, damage and waits of two processes."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import toolkit.journal
from toolkit.errors import Cancelled
from toolkit.journal import Claim, Journal

KEYS, RUNS, OWNERS = ("a", "b"), ("one", "two", "three"), (0, 1)


@dataclass
class Attempt:
    """What the model knows of an attempt; `holder` is the number of the journal that holds it."""

    run: str
    state: str = "intended"
    holder: int | None = None
    price: float = 0.0
    paid: float | None = None
    finished: bool = False


@dataclass
class Held:
    """A claim that is open, the context it came from, and whose it is."""

    context: Any
    claim: Claim
    key: str
    owner: int
    run: str
    attempt: Attempt = field(default_factory=lambda: Attempt(""))


class Machine(RuleBasedStateMachine):
    """Two journals on one folder stand for two processes; to die is to close one without leaving its claims."""

    @initialize()
    def begin(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.journals = [Journal(Path(self.folder.name)) for _ in OWNERS]
        self.history: dict[str, list[Attempt]] = {key: [] for key in KEYS}
        self.open: list[Held] = []
        self.dead: list[Held] = []
        self.count = 0

    def teardown(self) -> None:
        for held in (*self.open, *self.dead):
            held.context.__exit__(None, None, None)
        for journal in self.journals:
            journal.close()
        self.folder.cleanup()

    def expected(self, key: str, run: str, fresh: bool) -> str:
        """What a claim finds: "wait", "new", or the state of the newest attempt."""
        if not self.history[key]:
            return "new"
        newest = self.history[key][-1]
        mine = bool(run) and any(one.run == run and one.state != "failed" for one in self.history[key])
        if newest.state == "done":
            return "new" if fresh and not mine else "done"
        if newest.holder is not None:
            return "wait"
        if newest.state == "failed" or (fresh and not mine and (newest.state == "unknown" or newest.finished)):
            return "new"
        return newest.state

    @rule(
        key=st.sampled_from(KEYS),
        owner=st.sampled_from(OWNERS),
        run=st.sampled_from(("", *RUNS)),
        fresh=st.booleans(),
    )
    def claim(self, key: str, owner: int, run: str, fresh: bool) -> None:
        if any(held.key == key and held.owner == owner for held in self.open):
            # This thread would wait for itself; threads of one process are tested elsewhere.
            return
        expected = self.expected(key, run, fresh)
        context = self.journals[owner].claim(key, "fill", run, fresh, cancelled=lambda: True)
        if expected == "wait":
            with pytest.raises(Cancelled):
                context.__enter__()
            return
        claim = context.__enter__()
        if expected == "new":
            self.history[key].append(Attempt(run))
        newest = self.history[key][-1]
        assert claim.entry.state == newest.state
        assert claim.entry.attempt == len(self.history[key])
        if newest.state == "intended":
            newest.run = run
        assert claim.entry.run == newest.run
        assert claim.holds == (newest.state != "done")
        if claim.holds:
            newest.holder = owner
            self.open.append(Held(context, claim, key, owner, run, newest))
        else:
            context.__exit__(None, None, None)

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.open))
        attempt, claim = held.attempt, held.claim
        steps = {
            "intended": ["sending", "failed"],
            "sending": ["sent", "done", "failed", "unknown"],
            "sent": ["done", "failed", "unknown"],
            "unknown": ["sent", "done", "failed", "unknown"],
            "failed": ["sending"],
            "done": [],
        }[attempt.state]
        if not steps:
            return
        step = data.draw(st.sampled_from(steps))
        self.count += 1
        if step == "sending":
            if attempt.state == "failed":
                attempt.holder = None
                held.attempt = attempt = Attempt(held.run, holder=held.owner)
                self.history[held.key].append(attempt)
            attempt.price = float(self.count)
            claim.sending({"number": self.count}, attempt.price)
        elif step == "sent":
            claim.sent(f"remote {self.count}")
        elif step == "done":
            attempt.paid, attempt.finished = attempt.price, True
            claim.done({}, [(b"%d" % self.count, "bin")])
        elif step == "failed":
            attempt.paid = max(0.5, attempt.paid or 0.0)  # what is lost was paid for all the same
            claim.failed("no", paid=0.5)
        else:
            claim.unknown("who knows")
        attempt.state = step
        assert claim.entry.state == step

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.open))
        self.open.remove(held)
        held.attempt.holder = None
        held.context.__exit__(None, None, None)

    @rule(owner=st.sampled_from(OWNERS))
    def die(self, owner: int) -> None:
        self.journals[owner].close()
        self.journals[owner] = Journal(Path(self.folder.name))
        for held in [held for held in self.open if held.owner == owner]:
            self.open.remove(held)
            self.dead.append(held)
            held.attempt.holder = None

    @precondition(lambda self: any(history and history[-1].state == "done" for history in self.history.values()))
    @rule(data=st.data(), owner=st.sampled_from(OWNERS))
    def lose_a_result(self, data: st.DataObject, owner: int) -> None:
        done = [key for key in KEYS if self.history[key] and self.history[key][-1].state == "done"]
        key = data.draw(st.sampled_from(done))
        newest = self.history[key][-1]
        if newest.holder is not None:
            return
        entry = self.journals[owner].lookup(key)
        assert entry is not None
        for path in entry.files:
            path.unlink()
        with self.journals[owner].claim(key, "fill") as claim:
            assert claim.entry.state == "sent"
        newest.state = "sent"

    @invariant()
    def all_owners_see_the_same(self) -> None:
        for journal in self.journals:
            for key, history in self.history.items():
                entry = journal.lookup(key)
                assert (entry is None) == (not history)
                if entry:
                    assert (entry.state, entry.attempt, entry.run) == (history[-1].state, len(history), history[-1].run)
        attempts = [one for history in self.history.values() for one in history]
        for run in RUNS:
            certain = sum(one.paid or 0.0 for one in attempts if one.run == run)
            perhaps = sum(one.price for one in attempts if one.run == run and one.paid is None)
            assert self.journals[0].paid(run) == pytest.approx((certain, perhaps))


Machine.TestCase.settings = settings(max_examples=25, stateful_step_count=30, deadline=None)


class TestModel(Machine.TestCase):  # type: ignore[name-defined,misc]
    """Runs the machine."""

    @pytest.fixture(autouse=True)
    def _impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(toolkit.journal, "_TICK", 0.001)
