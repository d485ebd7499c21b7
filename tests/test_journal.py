"""Laws of the journal: a job is held by one at a time, and what may have been sent is never forgotten."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sqlite3
import stat
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest

import toolkit.journal
from tests.children import Child, children
from toolkit import disk
from toolkit.errors import Cancelled, EngineError, ParameterError, UnknownNameError
from toolkit.journal import Claim, Journal
from toolkit.results import Results, whole

T = TypeVar("T")

REQUEST = {"model": "flux", "size": "512*512", "prompt": "a chair"}
IMAGE = (b"not really a picture", "png")


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit.journal, "_TICK", 0.005)


@pytest.fixture(params=["folder", "memory"])
def journal(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Journal]:
    journal = Journal(tmp_path / "state" if request.param == "folder" else None)
    yield journal
    journal.close()


def bring(claim: Claim, state: str) -> None:
    """Write what leads from intended to `state`."""
    if state != "intended":
        claim.sending(REQUEST, 0.035)
    if state in ("sent", "done"):
        claim.sent("remote-1", created="now")
    if state == "done":
        claim.done({"seconds": 4.5}, [IMAGE])
    if state == "failed":
        claim.failed("refused")
    if state == "unknown":
        claim.unknown("no answer")


def do(journal: Journal, key: str, state: str, run: str = "", fresh: bool = False) -> str:
    """Claim a job and bring it to `state`; the state it was claimed in."""
    with journal.claim(key, "fill", run, fresh) as claim:
        found = claim.entry.state
        if found == "intended":
            bring(claim, state)
        return found


def held(journal: Journal, key: str, fresh: bool = False) -> bool:
    """Whether another owner holds the job."""
    with contextlib.suppress(Cancelled), journal.claim(key, "fill", fresh=fresh, cancelled=lambda: True):
        return False
    return True


def in_threads(count: int, call: Callable[[], T]) -> list[T]:
    """What `call` returns in each of so many threads that start together."""
    start, answers = threading.Barrier(count), list[T]()

    def work() -> None:
        start.wait()
        answers.append(call())

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


# Jobs


def test_a_job_from_first_to_last(journal: Journal) -> None:
    assert journal.lookup("key") is None
    run = journal.begin({})
    with journal.claim("key", "fill", run) as claim:
        assert (claim.entry.state, claim.entry.attempt, claim.holds) == ("intended", 1, True)
        assert journal.lookup("key") == claim.entry
        claim.sending(REQUEST, 0.035)
        assert journal.lookup("key") == claim.entry
        assert not journal.knows("remote-1")
        claim.sent("remote-1", created="now")
        assert journal.lookup("key") == claim.entry
        assert journal.knows("remote-1")
        assert journal.paid(run) == (0, 0.035)
        assert claim.entry.owner
        claim.done({"seconds": 4.5, "flags": [False]}, [IMAGE, (b"second", ".json")])
    entry = journal.lookup("key")
    assert entry is not None
    assert (entry.state, entry.remote, entry.request, entry.run) == ("done", "remote-1", REQUEST, run)
    assert (entry.facts, entry.answer) == ({"created": "now"}, {"seconds": 4.5, "flags": [False]})
    assert [path.read_bytes() for path in entry.files] == [IMAGE[0], b"second"]
    assert [path.suffix for path in entry.files] == [".png", ".json"]
    assert list(entry.times) == ["intended", "sending", "sent", "done"]
    assert sorted(entry.times.values()) == list(entry.times.values())
    assert entry.owner == ""
    assert journal.paid(run) == (0.035, 0)
    with journal.claim("key", "fill", run) as claim:
        assert claim.entry == entry
        assert not claim.holds


@pytest.mark.parametrize("state", ["intended", "sending", "sent", "unknown"])
def test_a_block_that_is_left_leaves_the_state_to_the_next(journal: Journal, state: str) -> None:
    with pytest.raises(ValueError, match="inside"), journal.claim("key", "fill", "one") as claim:
        bring(claim, state)
        raise ValueError("inside")
    with journal.claim("key", "fill", "two") as claim:
        assert (claim.entry.state, claim.entry.attempt, claim.holds) == (state, 1, True)
        # What was perhaps sent stays on the bill of who sent it.
        assert claim.entry.run == ("two" if state == "intended" else "one")
        if state != "intended":
            claim.done({})
    entry = journal.lookup("key")
    assert entry is not None
    assert entry.state == ("intended" if state == "intended" else "done")


def test_after_a_failure_comes_a_new_attempt_and_the_old_one_stays(journal: Journal) -> None:
    run, later = journal.begin({}), journal.begin({})
    with journal.claim("key", "fill", run) as claim:
        claim.sending(REQUEST, 0.5)
        claim.failed("moderated", paid=0.25)
    with journal.claim("key", "fill", later) as claim:
        assert (claim.entry.state, claim.entry.attempt, claim.entry.error) == ("intended", 2, "")
        claim.sending(REQUEST, 0.5)
        claim.failed("too many requests")
        claim.sending(REQUEST, 0.5)
        assert claim.entry.attempt == 3
        claim.done({})
    assert [(job.attempt, job.state, job.error, job.owner) for job in journal.run(run).jobs] == [
        (1, "failed", "moderated", "")
    ]
    assert [(job.attempt, job.state, job.owner) for job in journal.run(later).jobs] == [
        (2, "failed", ""),
        (3, "done", ""),
    ]
    assert journal.paid(run) == (0.25, 0)
    assert journal.paid(later) == (0.5, 0)


@pytest.mark.parametrize("state", ["done", "failed", "unknown"])
def test_fresh_asks_anew_once_a_run(journal: Journal, state: str) -> None:
    assert do(journal, "key", state, "first") == "intended"
    assert do(journal, "key", "done", "second", fresh=True) == "intended"
    assert do(journal, "key", "done", "second", fresh=True) == "done"
    assert do(journal, "key", "done", "third", fresh=True) == "intended"
    assert do(journal, "key", "done", "second", fresh=True) == "done"  # resumed, though another asked since
    assert do(journal, "key", "done", "fourth") == "done"
    assert do(journal, "key", "done", fresh=True) == "intended"
    assert do(journal, "key", "done", fresh=True) == "intended"
    entry = journal.lookup("key")
    assert entry is not None
    assert entry.attempt == 5


def test_fresh_within_one_run_asks_once_however_many_threads(journal: Journal) -> None:
    do(journal, "key", "done", "first")
    found = in_threads(16, lambda: do(journal, "key", "done", "second", fresh=True))
    assert Counter(found) == {"intended": 1, "done": 15}


def test_a_run_of_unknown_fate_is_not_asked_anew_by_the_same_run(journal: Journal) -> None:
    do(journal, "key", "unknown", "first")
    assert do(journal, "key", "done", "first", fresh=True) == "unknown"


@pytest.mark.parametrize("state", ["sending", "sent"])
def test_what_was_left_open_comes_before_a_fresh_attempt(journal: Journal, state: str) -> None:
    do(journal, "key", state, "first")
    assert do(journal, "key", "done", "second", fresh=True) == state


@pytest.mark.parametrize(
    ("state", "step"),
    [
        ("intended", "sent"),
        ("intended", "done"),
        ("intended", "unknown"),
        ("sending", "sending"),
        ("sent", "sending"),
        ("sent", "sent"),
        ("unknown", "sending"),
        ("failed", "sent"),
        ("failed", "done"),
        ("done", "sending"),
        ("done", "failed"),
    ],
)
def test_steps_that_would_pay_twice_or_forget_are_our_own_mistakes(journal: Journal, state: str, step: str) -> None:
    steps = {
        "sending": lambda claim: claim.sending(REQUEST, 1),
        "sent": lambda claim: claim.sent("remote-2"),
        "done": lambda claim: claim.done({}),
        "failed": lambda claim: claim.failed("no"),
        "unknown": lambda claim: claim.unknown("no"),
    }
    with journal.claim("key", "fill") as claim:
        bring(claim, state)
        with pytest.raises(AssertionError):
            steps[step](claim)
    entry = journal.lookup("key")
    assert entry is not None
    assert entry.state == state


def by_width(size: str) -> float:
    """A guess: a second for each 256 pixels."""
    return int(size.partition("*")[0]) / 256


def test_the_typical_time_is_a_low_quantile_of_recent_jobs_of_its_kind(journal: Journal) -> None:
    assert journal.typical("flux", "512*512", by_width) is None
    taken = [100.0] * 60 + [4.0 + 0.1 * n for n in range(49)] + [900.0]
    for n, seconds in enumerate(taken):
        with journal.claim(f"key {n}", "fill") as claim:
            claim.sending(REQUEST, 0)
            claim.done({"seconds": seconds})
    do(journal, "no time", "failed")
    assert 4 <= journal.typical("flux", "512*512", by_width) <= 6.5
    assert journal.typical("other", "512*512", by_width) is None


def test_the_typical_time_of_a_new_size_follows_those_of_others(journal: Journal) -> None:
    for n, size in enumerate((256, 512, 768)):
        with journal.claim(f"key {n}", "fill") as claim:
            claim.sending({**REQUEST, "size": f"{size}*{size}"}, 0)
            claim.done({"seconds": 3 * by_width(f"{size}*")})
    assert journal.typical("flux", "1024*1024", by_width) == pytest.approx(12.0)
    assert journal.typical("flux", "1024*1024", lambda size: 0.0) is None


def test_an_account_key_is_never_written(journal: Journal) -> None:
    with journal.claim("key", "fill") as claim:
        with pytest.raises(AssertionError):
            claim.sending({"headers": {"authorization": "Bearer secret"}}, 1)
        claim.sending({"prompt": 'a sign that says "Authorization": closed'}, 1)


def test_only_what_cannot_be_learnt_again_waits_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal, syncs = Journal(tmp_path), list[int]()
    monkeypatch.setattr(disk, "sync", syncs.append)

    def waited() -> bool:
        found = bool(syncs)
        syncs.clear()
        return found

    for kind, expected in (("fill", [False, True, False, False]), ("enhance", [False, True, True, True])):
        with journal.claim(kind, kind) as claim:  # type: ignore[arg-type]
            found = [waited()]
            for step in (lambda: claim.sending(REQUEST, 1), lambda: claim.sent("name"), lambda: claim.done({})):
                step()
                found.append(waited())
        assert found == expected
    with journal.addresses.bring(["file"], lambda: False) as bringing:
        bringing.keep({"file": "https://host/1"}, time.time() + 60)
    assert not waited()


# Results


@pytest.mark.parametrize("damage", ["removed", "changed", "truncated"])
def test_a_result_that_is_damaged_may_be_downloaded_again(journal: Journal, damage: str) -> None:
    run = journal.begin({})
    do(journal, "key", "done", run)
    entry = journal.lookup("key")
    assert entry is not None
    (path,) = entry.files
    if damage == "removed":
        path.unlink()
    elif damage == "changed":
        path.write_bytes(b"Not really a picture")
    else:
        path.write_bytes(IMAGE[0][:-1])
    damaged = journal.lookup("key")
    assert damaged is not None
    assert (damaged.state, damaged.remote) == ("sent", "remote-1")
    assert journal.paid(run) == (0.035, 0)
    with journal.claim("key", "fill", "another") as claim:
        assert (claim.entry.state, claim.holds) == ("sent", True)
        assert journal.paid(run) == (0.035, 0)
        claim.done({"seconds": 4.5}, [IMAGE])
    again = journal.lookup("key")
    assert again is not None
    assert again.state == "done"
    assert path.read_bytes() == IMAGE[0]


def test_fresh_does_not_bring_back_a_damaged_result(journal: Journal) -> None:
    do(journal, "key", "done", "first")
    entry = journal.lookup("key")
    assert entry is not None
    entry.files[0].unlink()
    assert do(journal, "key", "done", "second", fresh=True) == "intended"


def test_a_lost_result_that_the_service_lost_too_was_still_paid(journal: Journal) -> None:
    run = journal.begin({})
    do(journal, "key", "done", run)
    entry = journal.lookup("key")
    assert entry is not None
    entry.files[0].unlink()
    with journal.claim("key", "fill", run) as claim:
        claim.failed("no longer there")
    assert journal.paid(run) == (0.035, 0)


def test_the_same_bytes_are_kept_once(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    do(journal, "one", "done")
    do(journal, "two", "done")
    assert len([path for path in (tmp_path / "results").rglob("*") if path.is_file()]) == 1


def test_a_result_cut_short_is_written_anew(tmp_path: Path) -> None:
    data, suffix = IMAGE
    results = Results(tmp_path)
    path = results.put(data, suffix)
    path.write_bytes(data[:-1])
    assert not whole(path)
    assert results.put(data, suffix) == path
    assert path.read_bytes() == data
    assert [one for one in tmp_path.rglob("*") if one.is_file()] == [path]


@pytest.mark.parametrize("others", [False, True])
def test_a_result_for_which_there_is_no_room_leaves_nothing_but_what_others_wrote(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, others: bool
) -> None:
    data, suffix = IMAGE
    results = Results(tmp_path)
    path = results.put(data, suffix)
    path.unlink()
    write, parts = os.write, []

    def full(descriptor: int, left: memoryview) -> int:
        if parts:
            if others:
                path.unlink()
                path.write_bytes(data)
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        parts.append(write(descriptor, left[: len(left) // 2]))
        return parts[0]

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(EngineError, match="cannot be kept .*make room"):
        results.put(data, suffix)
    assert [one.read_bytes() for one in tmp_path.rglob("*") if one.is_file()] == ([data] if others else [])


def test_in_memory_results_go_with_the_journal() -> None:
    journal = Journal()
    do(journal, "key", "done")
    entry = journal.lookup("key")
    assert entry is not None
    assert entry.files[0].exists()
    journal.close()
    del journal
    assert not entry.files[0].exists()


@pytest.mark.skipif(sys.platform == "win32", reason="modes mean nothing there")
def test_others_cannot_read_it(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    do(journal, "key", "done")
    paths = [tmp_path / "state", *(tmp_path / "state").rglob("*")]
    assert len(paths) >= 7
    for path in paths:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


# Runs


def test_runs_are_kept_in_order_with_their_photos(journal: Journal) -> None:
    about = {"recipe": "remove-object", "seeds": [7], "path": Path("a")}
    first, second = journal.begin(about), journal.begin({})
    about["recipe"] = "changed"
    journal.note(first, 2, "b.jpg", "failed", {"error": "no"})
    journal.note(first, 1, "a.jpg", "held", {})
    journal.note(first, 1, "a.jpg", "done", {"output": "a-1.jpg"})
    assert [run.state for run in journal.runs()] == ["running", "running"]
    journal.end(first)
    journal.end(second, "cancelled")
    assert [(run.id, run.state) for run in journal.runs()] == [(first, "ended"), (second, "cancelled")]
    assert [run.id for run in journal.runs(limit=1)] == [second]
    entry = journal.run(first)
    assert entry.about == {"recipe": "remove-object", "seeds": [7], "path": "a"}
    assert [(item.number, item.name, item.state, item.detail) for item in entry.items] == [
        (1, "a.jpg", "done", {"output": "a-1.jpg"}),
        (2, "b.jpg", "failed", {"error": "no"}),
    ]
    assert entry.ended is not None
    assert entry.at <= entry.ended
    assert journal.trouble == ""


def test_a_run_is_found_by_the_beginning_of_its_id(journal: Journal) -> None:
    ids = [journal.begin({}) for _ in range(20)]  # more than there are digits: two begin alike
    assert all(len(id) == 12 for id in ids)
    assert journal.run(ids[3]).id == ids[3]
    assert journal.run(ids[3][:11]).id == ids[3]
    twice = next(digit for digit, count in Counter(id[0] for id in ids).items() if count > 1)
    with pytest.raises(ParameterError, match="runs begin so"):
        journal.run(twice)
    for wrong in ("x", "%", ids[0] + "0"):
        with pytest.raises(UnknownNameError):
            journal.run(wrong)


def test_a_run_whose_process_was_killed_is_interrupted_and_can_be_reopened(tmp_path: Path) -> None:
    code = """
    from pathlib import Path
    from toolkit.journal import Journal
    journal = Journal(Path(sys.argv[1]))
    say(journal.begin({}))
    input()
    """
    journal = Journal(tmp_path)
    with children() as started:
        child = Child(code, tmp_path)
        started.append(child)
        run = child.hear()
        assert journal.run(run).state == "running"
        with pytest.raises(EngineError, match="still running"):
            journal.reopen(run)
        child.kill()
    assert [entry.state for entry in journal.runs()] == ["interrupted"]
    journal.reopen(run)
    assert journal.run(run).state == "running"
    with pytest.raises(EngineError, match="still running"):
        Journal(tmp_path).reopen(run)
    journal.end(run, "cancelled")
    Journal(tmp_path).reopen(run)
    with pytest.raises(EngineError, match="no such run"):
        journal.reopen("nothing")


# Threads and processes


def test_of_many_threads_one_works_and_the_others_see_its_answer(journal: Journal) -> None:
    assert Counter(in_threads(50, lambda: do(journal, "key", "done"))) == {"intended": 1, "done": 49}


def test_a_failure_hands_the_job_to_the_next_thread(journal: Journal) -> None:
    assert Counter(in_threads(10, lambda: do(journal, "key", "failed"))) == {"intended": 10}
    entry = journal.lookup("key")
    assert entry is not None
    assert entry.attempt == 10


def test_different_jobs_do_not_wait_for_each_other(journal: Journal) -> None:
    meeting = threading.Barrier(8, timeout=30)
    names = iter(range(8))

    def work() -> int:
        with journal.claim(f"key {next(names)}", "fill"):
            return meeting.wait()

    assert sorted(in_threads(8, work)) == list(range(8))


def test_waiting_for_a_thread_can_be_cancelled(journal: Journal) -> None:
    with journal.claim("key", "fill"):
        assert in_threads(3, lambda: held(journal, "key")) == [True, True, True]
    assert not held(journal, "key")


LEAVE = """
import time
from pathlib import Path
from tests.test_journal import bring
from toolkit.journal import Journal
with Journal(Path(sys.argv[1])).claim("key", "fill", "its run") as claim:
    bring(claim, sys.argv[2])
    say("ready")
    time.sleep(60)
"""


@pytest.mark.parametrize("state", ["intended", "sending", "sent", "unknown", "failed", "done"])
def test_a_process_killed_in_any_state_leaves_it_to_us(tmp_path: Path, state: str) -> None:
    journal = Journal(tmp_path)
    with children() as started:
        child = Child(LEAVE, tmp_path, state)
        started.append(child)
        assert child.hear() == "ready"
        assert held(journal, "key") == (state != "done")
        child.kill()
        with journal.claim("key", "fill", "ours") as claim:
            expected = {"failed": ("intended", 2)}.get(state, (state, 1))
            assert (claim.entry.state, claim.entry.attempt) == expected
            assert claim.holds == (state != "done")
            assert claim.entry.remote == ("remote-1" if state in ("sent", "done") else "")
            assert claim.entry.run == ("ours" if state in ("intended", "failed") else "its run")
            if state == "done":
                assert claim.entry.files[0].read_bytes() == IMAGE[0]
            assert claim.entry.request == ({} if state in ("intended", "failed") else REQUEST)


def test_whoever_was_taken_for_dead_may_not_send(tmp_path: Path) -> None:
    journal, other = Journal(tmp_path), Journal(tmp_path)
    with journal.claim("key", "fill") as claim:
        for path in (tmp_path / "owners").iterdir():
            path.unlink()
        with other.claim("key", "fill") as second, pytest.raises(EngineError, match="no longer has the job"):
            assert second.entry.state == "intended"
            claim.sending(REQUEST, 1)


KEYS = [f"key{n}" for n in range(60)]

WORK = """
import os, random, threading, time
from pathlib import Path
from tests.test_journal import KEYS
from toolkit.journal import Journal
folder, seed = Path(sys.argv[1]), int(sys.argv[2])
journal = Journal(folder / "state")
say("ready")
input()
def work(seed):
    source = random.Random(seed)
    for key in source.sample(KEYS, len(KEYS)):
        with journal.claim(key, "fill") as claim:
            if claim.entry.state in ("done", "unknown"):
                continue
            # Two at once would be seen here; what a killed process left is told by its number.
            mark = folder / f"{key}.{os.getpid()}"
            os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
            say("present", *sorted({path.name for path in folder.glob(f"{key}.*")}))
            if claim.entry.state == "sending":
                claim.unknown("killed while it was sent")
            if claim.entry.state == "intended":
                claim.sending({"model": "m"}, 0.25)
                time.sleep(source.uniform(0, 0.01))
                log = os.open(folder / "service", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
                os.write(log, f"{key}\\n".encode())
                os.close(log)
                time.sleep(source.uniform(0, 0.01))
                claim.sent("remote " + key)
            if claim.entry.state == "sent":
                time.sleep(source.uniform(0, 0.01))
                claim.done({"seconds": 1.0}, [(key.encode() * 1000, "png")])
            mark.unlink()
threads = [threading.Thread(target=work, args=(seed * 10 + n,)) for n in range(3)]
for thread in threads: thread.start()
for thread in threads: thread.join()
"""


def listen(child: Child, heard: list[set[int]]) -> None:
    """Gather which processes were inside a job at once, until the child ends."""
    while line := child.hear():
        words = line.split()
        if words[0] == "present":
            heard.append({int(word.rpartition(".")[2]) for word in words[1:]})


def test_processes_that_are_killed_and_started_again_never_send_twice_nor_work_together(tmp_path: Path) -> None:
    together: list[set[int]] = []
    killed: set[int] = set()
    with children() as started:

        def begin(seed: int) -> Child:
            child = Child(WORK, tmp_path, seed)
            started.append(child)
            assert child.hear() == "ready"
            thread = threading.Thread(target=listen, args=(child, together))
            thread.start()
            threads.append(thread)
            return child

        threads: list[threading.Thread] = []
        for number in range(5):
            pair = [begin(2 * number), begin(2 * number + 1)]
            for child in pair:
                child.tell()
            for child in pair:
                time.sleep(0.05)
                child.kill()
                killed.add(child.process.pid)
        last = [begin(100), begin(101)]
        for child in last:
            child.tell()
        assert [child.end() for child in last] == [0, 0]
        for thread in threads:
            thread.join()
    assert together
    assert all(len(inside - killed) <= 1 for inside in together)
    sent = Counter((tmp_path / "service").read_text().split())
    assert max(sent.values()) == 1
    journal = Journal(tmp_path / "state")
    for key in KEYS:
        entry = journal.lookup(key)
        assert entry is not None
        assert (entry.state, entry.attempt) in (("done", 1), ("unknown", 1))
        assert entry.state == "unknown" or sent[key] == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_shares_the_file_but_holds_nothing_of_its_parents(tmp_path: Path) -> None:
    code = """
    import os
    from pathlib import Path
    from tests.test_journal import do, held
    from toolkit.journal import Journal
    journal = Journal(Path(sys.argv[1]))
    with journal.claim("key", "fill") as claim:
        child = os.fork()
        if child == 0:
            say(held(journal, "key"), do(journal, "other", "done"))
        else:
            os.waitpid(child, 0)
            claim.sending({}, 1)
            say(do(journal, "other", "done"), held(Journal(Path(sys.argv[1])), "key"))
    """
    with children() as started:
        child = Child(code, tmp_path)
        started.append(child)
        assert child.hear() == "True intended"
        assert child.hear() == "done True"
        assert child.end() == 0


# Trouble


def test_nothing_is_made_before_it_is_needed(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "state")
    assert not (tmp_path / "state").exists()
    journal.begin({})
    assert (tmp_path / "state").exists()


@pytest.mark.parametrize("damage", ["rubbish", "newer", "a folder", "a file for a folder"])
def test_a_journal_that_cannot_be_used_stops_paid_work_only(tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "state"
    path = folder / "journal.sqlite3"
    words = "journal.sqlite3: "
    if damage == "a file for a folder":
        folder.write_text("in the way")
    else:
        folder.mkdir()
    if damage == "rubbish":
        path.write_bytes(b"no database, but long enough to be read as one" * 100)
        words += "is damaged"
    elif damage == "newer":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
        words += "written by a newer version"
    elif damage == "a folder":
        path.mkdir()
    before = path.read_bytes() if path.is_file() else b""
    journal = Journal(folder)
    run = journal.begin({})
    journal.note(run, 1, "a.jpg", "done", {})
    journal.end(run)
    assert words in journal.trouble
    refused = "state: cannot be made" if damage == "a file for a folder" else words
    with pytest.raises(EngineError, match=refused), journal.claim("key", "fill"):
        raise AssertionError("it was claimed")
    for ask in (lambda: journal.lookup("key"), journal.runs, lambda: journal.run(run), lambda: journal.knows("x")):
        with pytest.raises(EngineError, match=words):
            ask()
    assert (path.read_bytes() if path.is_file() else b"") == before


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="needs a folder that cannot be written")
@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_that_cannot_be_written_stops_paid_work_only(exists: bool) -> None:
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if exists:
            first = Journal(folder / "state")
            do(first, "key", "done")
            first.close()
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o555)
        if me == 0:
            os.seteuid(65534)  # nothing is forbidden to root
        try:
            journal = Journal(folder / "state")
            run = journal.begin({})
            journal.note(run, 1, "a.jpg", "done", {})
            journal.end(run)
            assert "writable" in journal.trouble
            with pytest.raises(EngineError, match="writable"), journal.claim("new key", "fill"):
                raise AssertionError("it was claimed")
            journal.close()
        finally:
            if me == 0:
                os.seteuid(0)
            for path in (folder, *folder.rglob("*")):
                path.chmod(0o755)


def test_a_result_that_cannot_be_kept_leaves_the_job_sent(tmp_path: Path) -> None:
    (tmp_path / "results").write_text("in the way")
    journal = Journal(tmp_path)
    with pytest.raises(EngineError, match="cannot be kept"):
        do(journal, "key", "done")
    entry = journal.lookup("key")
    assert entry is not None
    assert (entry.state, entry.remote) == ("sent", "remote-1")


def test_a_page_damaged_in_the_middle_is_one_sentence(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    for n in range(200):
        do(journal, f"key {n}", "intended")
    journal.close()
    path = tmp_path / "journal.sqlite3"
    data = bytearray(path.read_bytes())
    data[8192:] = os.urandom(len(data) - 8192)
    path.write_bytes(data)
    with pytest.raises(EngineError, match="is damaged"):
        do(Journal(tmp_path), "key 7", "done")


def test_everything_written_is_json(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    do(journal, "key", "done")
    journal.close()
    connection = sqlite3.connect(tmp_path / "journal.sqlite3")
    row = connection.execute("SELECT request, facts, answer, files, times FROM job").fetchone()
    connection.close()
    assert [type(json.loads(text)) for text in row] == [dict, dict, dict, list, dict]
