"""Laws of the database file: what is durable is on the disk before anything follows, and nobody else waits for that."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from toolkit import disk
from toolkit.database import Database
from toolkit.errors import EngineError

INSERT = "INSERT INTO thing (name) VALUES (?)"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "things.sqlite3"


@pytest.fixture
def things(path: Path) -> Iterator[Database]:
    things = Database(path, 1, "CREATE TABLE thing (name TEXT)")
    yield things
    things.close()


def names(things: Database) -> list[str]:
    return [row["name"] for row in things.read("SELECT name FROM thing ORDER BY rowid")]


def test_the_log_with_what_is_durable_goes_to_the_disk_once_it_is_whole(
    things: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[bool, int]] = []

    def noted(file: int) -> None:
        with sqlite3.connect(path) as other:
            (count,) = other.execute("SELECT count(*) FROM thing").fetchone()
        other.close()
        seen.append((os.path.samestat(os.fstat(file), os.stat(f"{path}-wal")), count))

    monkeypatch.setattr(disk, "sync", noted)
    things.change(INSERT, ("first",))
    assert not seen
    assert things.change(INSERT, ("second",), durable=True) == 1
    assert seen == [(True, 2)]
    things.close()
    things.change(INSERT, ("third",), durable=True)
    assert seen == [(True, 2), (True, 3)]


def test_others_go_on_while_the_log_goes_to_the_disk(things: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    began, go_on = threading.Event(), threading.Event()

    def slow(file: int) -> None:
        began.set()
        assert go_on.wait(30)

    monkeypatch.setattr(disk, "sync", slow)
    durable = threading.Thread(target=things.change, args=(INSERT, ("durable",)), kwargs={"durable": True})
    durable.start()
    try:
        assert began.wait(30)
        things.change(INSERT, ("meanwhile",))
        assert names(things) == ["durable", "meanwhile"]
        assert durable.is_alive()
    finally:
        go_on.set()
        durable.join()


def test_one_sync_serves_all_who_wait_for_it(things: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    syncs, go_on = 0, threading.Event()

    def slow(file: int) -> None:
        nonlocal syncs
        syncs += 1
        assert go_on.wait(30)

    monkeypatch.setattr(disk, "sync", slow)
    threads = [
        threading.Thread(target=things.change, args=(INSERT, (f"{n}",)), kwargs={"durable": True}) for n in range(9)
    ]
    for thread in threads:
        thread.start()
    try:
        deadline = time.monotonic() + 30
        while len(names(things)) < len(threads):
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        go_on.set()
        for thread in threads:
            thread.join()
    assert syncs <= 2
    things.change(INSERT, ("later",), durable=True)
    assert syncs <= 3


def test_a_file_that_is_closed_before_its_log_was_on_the_disk_holds_everything(
    things: Database, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sync = Database._sync

    def late(self: Database, number: int) -> None:
        self.close()
        assert not Path(f"{path}-wal").exists()
        sync(self, number)

    monkeypatch.setattr(Database, "_sync", late)
    assert things.change(INSERT, ("kept",), durable=True) == 1
    assert names(things) == ["kept"]


def test_a_disk_that_fails_is_one_sentence(things: Database, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(file: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(disk, "sync", broken)
    with pytest.raises(EngineError, match=r"things.sqlite3: cannot be used \(Input/output error\); its folder"):
        things.change(INSERT, ("lost",), durable=True)
    monkeypatch.undo()
    assert things.change(INSERT, ("kept",), durable=True) == 1


def test_what_is_in_memory_is_durable_for_as_long_as_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(disk, "sync")
    things = Database(None, 1, "CREATE TABLE thing (name TEXT)")
    assert things.change(INSERT, ("one",), durable=True) == 1
    assert names(things) == ["one"]
    things.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_that_is_forked_while_logs_go_to_the_disk_has_its_own(things: Database) -> None:
    end = threading.Event()

    def busy() -> None:
        while not end.is_set():
            things.change(INSERT, ("parent",), durable=True)

    threads = [threading.Thread(target=busy) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        for number in range(20):
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    things.change(INSERT, (f"child {number}",), durable=True)
                    things.close()
                    code = 0
                finally:
                    os._exit(code)
            assert os.waitpid(child, 0)[1] == 0
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert {name for name in names(things) if name != "parent"} == {f"child {number}" for number in range(20)}
