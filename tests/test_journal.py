"""Laws of the journal: a claim is atomic, what may have been paid is never claimed again."""

from __future__ import annotations

import threading

import pytest

from toolkit.journal import Journal, Memory


@pytest.fixture
def journal() -> Journal:
    return Memory()


def test_exactly_one_of_fifty_threads_wins_a_claim(journal: Journal) -> None:
    start = threading.Barrier(50)
    won: list[str] = []

    def claim(owner: str) -> None:
        start.wait()
        if journal.intend("key", owner):
            won.append(owner)

    threads = [threading.Thread(target=claim, args=(str(n),)) for n in range(50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 1
    entry = journal.lookup("key")
    assert entry is not None
    assert (entry.state, entry.owner) == ("intended", won[0])


def test_a_job_that_failed_may_be_claimed_again(journal: Journal) -> None:
    assert journal.intend("key", "first")
    journal.failed("key", "refused")
    entry = journal.lookup("key")
    assert entry is not None
    assert (entry.state, entry.error) == ("failed", "refused")
    assert journal.intend("key", "second")
    entry = journal.lookup("key")
    assert entry is not None
    assert (entry.state, entry.error, entry.owner) == ("intended", "", "second")


def test_a_job_of_unknown_fate_may_not(journal: Journal) -> None:
    assert journal.intend("key", "first")
    journal.sent("key", "remote-1")
    journal.unknown("key", "no answer")
    assert not journal.intend("key", "second")
    entry = journal.lookup("key")
    assert entry is not None
    assert (entry.state, entry.remote, entry.error, entry.owner) == ("unknown", "remote-1", "no answer", "first")


@pytest.mark.parametrize("state", ["intended", "sent", "done"])
def test_what_is_under_way_or_done_is_not_claimed_again(journal: Journal, state: str) -> None:
    assert journal.intend("key", "first")
    if state == "sent":
        journal.sent("key", "remote-1")
    if state == "done":
        journal.done("key", b"answer")
    assert not journal.intend("key", "second")
    entry = journal.lookup("key")
    assert entry is not None
    assert entry.state == state
    assert entry.at > 0


def test_the_answer_is_kept(journal: Journal) -> None:
    assert journal.lookup("key") is None
    journal.intend("key", "first")
    journal.done("key", b"answer")
    entry = journal.lookup("key")
    assert entry is not None
    assert entry.result == b"answer"
    assert journal.lookup("other") is None


def test_runs_are_kept_in_order(journal: Journal) -> None:
    about = {"recipe": "remove-object", "seeds": [7]}
    first, second = journal.begin(about), journal.begin({})
    about["recipe"] = "changed"
    assert first != second
    journal.end(first)
    journal.end(second, "cancelled")
    runs = journal.runs()
    assert [(run.id, run.state) for run in runs] == [(first, "ended"), (second, "cancelled")]
    assert runs[0].about["recipe"] == "remove-object"
