"""Nobody starts too often or too much at once, in whatever thread or process."""

from __future__ import annotations

import contextlib
import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolkit.limits
from tests.children import Child, children
from toolkit.errors import Cancelled, EngineError
from toolkit.limits import WINDOW, Limits


class Clock:
    """Seconds since the epoch, set by hand."""

    def __init__(self, now: float = 1e9) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolkit.limits, "_TICK", 0.005)


def started(limits: Limits) -> bool:
    """Whether a slot is had at once; it is given back."""
    with contextlib.suppress(Cancelled):
        with limits.slot(cancelled=Once()):
            return True
    return False


class Once:
    """Cancels at the second look: the first comes before anything was tried."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self) -> bool:
        self.looks += 1
        return self.looks > 1


@pytest.mark.parametrize("shared", [True, False])
def test_never_more_at_once_than_allowed(tmp_path: Path, shared: bool) -> None:
    limits = Limits(tmp_path if shared else None, "account", 1000, 3)
    now, most, lock = [0], [0], threading.Lock()

    def work() -> None:
        with limits.slot():
            with lock:
                now[0] += 1
                most[0] = max(most[0], now[0])
            time.sleep(0.002)
            with lock:
                now[0] -= 1

    threads = [threading.Thread(target=work) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 3


def test_a_slot_of_another_process_counts_until_it_is_killed(tmp_path: Path) -> None:
    code = """
    from pathlib import Path
    from toolkit.limits import Limits
    with Limits(Path(sys.argv[1]), "account", 1000, 1).slot():
        say("held")
        input()
    say("free")
    input()
    """
    limits = Limits(tmp_path, "account", 1000, 1)
    with children() as running:
        first, second = Child(code, tmp_path), None
        running.append(first)
        assert first.hear() == "held"
        assert not started(limits)
        assert started(Limits(tmp_path, "another account", 1000, 1))
        first.tell()
        assert first.hear() == "free"
        assert started(limits)
        second = Child(code, tmp_path)
        running.append(second)
        assert second.hear() == "held"
        assert not started(limits)
        second.kill()
        assert started(limits)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.lists(st.floats(0, 40), max_size=25))
def test_no_minute_sees_more_starts_than_allowed_and_none_is_refused_without_need(
    per_minute: int, steps: list[float]
) -> None:
    clock = Clock()
    limits = Limits(None, "account", per_minute, 100, clock)
    starts: list[float] = []
    for seconds in steps:
        clock.now += seconds
        recent = sum(clock.now - at < WINDOW for at in starts)
        assert started(limits) == (recent < per_minute)
        if recent < per_minute:
            starts.append(clock.now)
    limits.close()


def test_no_minute_sees_more_arrivals_than_allowed_where_the_way_takes_up_to_a_second() -> None:
    clock = Clock()
    limits = Limits(None, "account", 10, 100, clock)
    arrivals: list[float] = []
    for number in range(1000):  # a tenth of a second each
        if started(limits):
            arrivals.append(clock.now + (0.9 if number < 20 else 0.0))  # the first connection is made slowly
        clock.now += 0.1
    limits.close()
    assert len(arrivals) == 20
    assert all(later - one >= 60 for one, later in zip(arrivals, arrivals[10:], strict=False))


def test_the_wait_is_told(tmp_path: Path) -> None:
    clock = Clock()
    limits = Limits(tmp_path, "account", 1, 5, clock)
    assert started(limits)
    clock.now += 20
    told: list[float] = []

    def wait(seconds: float) -> None:
        told.append(seconds)
        clock.now += 15

    with limits.slot(on_wait=wait):
        assert clock.now >= 1e9 + WINDOW
    assert told == [WINDOW - 20, WINDOW - 35, WINDOW - 50]


def test_after_a_pause_nobody_starts_before_its_end(tmp_path: Path) -> None:
    clock = Clock()
    limits, other = Limits(tmp_path, "account", 100, 5, clock), Limits(tmp_path, "account", 100, 5, clock)
    limits.pause(30)
    limits.pause(10)  # does not cut the first one short
    assert not started(other)
    clock.now += 29
    assert not started(other)
    clock.now += 1
    assert started(other)


def test_a_clock_that_was_set_back_holds_nobody_up_for_longer(tmp_path: Path) -> None:
    clock = Clock()
    limits = Limits(tmp_path, "account", 1, 5, clock)
    assert started(limits)
    limits.pause(30)
    clock.now -= 100_000
    assert not started(limits)
    clock.now += WINDOW
    assert started(limits)


def test_starts_of_more_than_a_minute_ago_do_not_count_and_are_not_kept_for_long(tmp_path: Path) -> None:
    clock = Clock()
    limits = Limits(tmp_path, "account", 3, 5, clock)
    for _ in range(40):
        assert started(limits)
        clock.now += 25
    limits.close()
    with sqlite3.connect(tmp_path / "limits.sqlite3") as connection:
        assert connection.execute("SELECT count(*) FROM task").fetchone()[0] <= 6
    connection.close()


def test_a_start_counts_from_when_the_file_was_had_and_not_from_when_it_was_asked_for(tmp_path: Path) -> None:
    """Else more than allowed start in the minute after another process held the file for long."""
    times = iter([1e9])
    limits = Limits(tmp_path, "account", 1, 5, lambda: next(times, 1e9 + 20))
    assert started(limits)
    limits.close()
    with sqlite3.connect(tmp_path / "limits.sqlite3") as connection:
        assert connection.execute("SELECT at FROM task").fetchone()[0] == 1e9 + 20
    connection.close()


def test_waiting_ends_when_cancelled_in_line_and_at_its_head() -> None:
    limits = Limits(None, "account", 1000, 1)
    stop, ended = threading.Event(), Counter[str]()

    def work() -> None:
        try:
            with limits.slot(cancelled=stop.is_set):
                ended["had"] += 1
        except Cancelled:
            ended["cancelled"] += 1

    with limits.slot():
        threads = [threading.Thread(target=work) for _ in range(10)]
        for thread in threads:
            thread.start()
        stop.set()
        for thread in threads:
            thread.join()
    assert ended == {"cancelled": 10}
    assert started(limits)


def test_an_error_inside_gives_the_slot_back() -> None:
    limits = Limits(None, "account", 1000, 1)
    with pytest.raises(ValueError, match="inside"), limits.slot():
        raise ValueError("inside")
    assert started(limits)


def test_several_processes_together_stay_within_the_limits(tmp_path: Path) -> None:
    code = """
    import os, threading, time
    from pathlib import Path
    from toolkit.limits import Limits
    folder = Path(sys.argv[1])
    limits = Limits(folder, "account", 1000, 3)
    log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    def work():
        for _ in range(5):
            with limits.slot():
                os.write(log, b"+")
                time.sleep(0.01)
                os.write(log, b"-")
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    """
    with children() as running:
        running += [Child(code, tmp_path) for _ in range(3)]
        assert [child.end() for child in running] == [0, 0, 0]
    now = most = total = 0
    for mark in (tmp_path / "log").read_text():
        now += 1 if mark == "+" else -1
        total += mark == "+"
        most = max(most, now)
    assert (most, total) == (3, 60)


def test_the_account_is_not_written_down(tmp_path: Path) -> None:
    limits = Limits(tmp_path, "secret-key", 10, 10)
    with limits.slot():
        pass
    limits.pause(1)
    limits.close()
    assert all(b"secret" not in path.read_bytes() for path in tmp_path.iterdir() if path.is_file())


def test_a_file_of_the_first_kind_is_taken_over(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "limits.sqlite3") as connection:
        connection.executescript(
            """
            CREATE TABLE slot (id TEXT PRIMARY KEY, account TEXT NOT NULL, owner TEXT NOT NULL);
            CREATE TABLE start (account TEXT NOT NULL, at REAL NOT NULL);
            CREATE INDEX start_of_account ON start (account, at);
            CREATE TABLE pause (account TEXT PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL);
            INSERT INTO slot VALUES ('a', 'b', 'c');
            PRAGMA user_version = 1;
            """
        )
    connection.close()
    limits = Limits(tmp_path, "account", 2, 1)
    assert [started(limits) for _ in range(3)] == [True, True, False]
    limits.pause(1)


@pytest.mark.parametrize("damage", ["rubbish", "newer", "folder"])
def test_a_file_that_cannot_be_used_is_one_sentence(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "limits.sqlite3"
    if damage == "rubbish":
        path.write_bytes(b"no database, but long enough to be read as one" * 100)
    elif damage == "newer":
        connection = sqlite3.connect(path)
        connection.execute("PRAGMA user_version = 99")
        connection.close()
    else:
        path.mkdir()
    with pytest.raises(EngineError, match="limits.sqlite3: "):
        started(Limits(tmp_path, "account", 10, 10))
