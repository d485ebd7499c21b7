"""Files are brought once: by one thread of one process, while they are there."""

from __future__ import annotations

import os
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from tests.children import Child, children
from toolkit.errors import Cancelled
from toolkit.journal import Journal

HOLD = """
from pathlib import Path
from toolkit.journal import Journal
with Journal(Path(sys.argv[1])).addresses.bring(["a", "b"], lambda: False) as bringing:
    bringing.keep({"a": "https://host/a"}, 1e12)
    say(*sorted(bringing.missing))
    input()
"""


def never() -> bool:
    return False


def later() -> float:
    return time.time() + 60


def known(journal: Journal, *keys: str) -> dict[str, str]:
    with journal.addresses.bring(keys, never) as bringing:
        assert bringing.missing == set(keys) - bringing.known.keys()
        return dict(bringing.known)


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(tmp_path)


@pytest.mark.parametrize("folder", [True, False])
def test_what_was_kept_is_known(tmp_path: Path, folder: bool) -> None:
    journal = Journal(tmp_path if folder else None)
    with journal.addresses.bring(["a", "b", "a"], never) as bringing:
        assert (bringing.known, bringing.missing) == ({}, {"a", "b"})
        bringing.keep({"a": "https://host/a"}, later())
        assert bringing.missing == {"b"}
        bringing.keep({}, later())
    assert known(journal, "a", "b", "c") == {"a": "https://host/a"}
    with journal.addresses.bring(["b", "a"], never) as bringing:
        bringing.keep({"b": "https://host/b"}, later())
    assert known(journal, "b", "a") == {"a": "https://host/a", "b": "https://host/b"}


def test_what_expired_or_was_forgotten_is_brought_anew(journal: Journal) -> None:
    with journal.addresses.bring(["gone", "wrong", "good"], never) as bringing:
        bringing.keep({"gone": "https://host/1"}, time.time() - 1)
        bringing.keep({"wrong": "https://host/2", "good": "https://host/3"}, later())
    journal.addresses.forget(["wrong", "never known"])
    assert known(journal, "gone", "wrong", "good") == {"good": "https://host/3"}


def test_what_expired_takes_no_room_when_a_run_begins(journal: Journal) -> None:
    with journal.addresses.bring(["gone", "good"], never) as bringing:
        bringing.keep({"gone": "https://host/1"}, time.time() - 1)
        bringing.keep({"good": "https://host/2"}, later())
    with journal.addresses.bring(["held"], never):
        journal.begin({})
        rows = journal._database.read("SELECT key FROM upload ORDER BY key")
        assert [row["key"] for row in rows] == ["good", "held"]


def test_an_exception_leaves_what_was_not_brought_to_others(journal: Journal, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no network"), journal.addresses.bring(["a", "b"], never) as bringing:
        bringing.keep({"a": "https://host/a"}, later())
        raise ValueError("no network")
    assert known(Journal(tmp_path), "a", "b") == {"a": "https://host/a"}


@pytest.mark.parametrize("processes", [1, 2])
def test_others_wait_and_bring_none_themselves(tmp_path: Path, processes: int) -> None:
    here = Journal(tmp_path)
    there = here if processes == 1 else Journal(tmp_path)  # with an owner of its own, as another process has
    found: list[dict[str, str]] = []
    with here.addresses.bring(["a", "b"], never) as bringing:
        thread = threading.Thread(target=lambda: found.append(known(there, "b", "c")))
        thread.start()
        thread.join(0.5)
        assert found == []
        assert known(Journal(tmp_path), "c") == {}  # who waits holds none
        bringing.keep({"b": "https://host/b"}, later())
    thread.join(10)
    assert found == [{"b": "https://host/b"}]


@pytest.mark.parametrize("processes", [1, 2])
def test_who_waits_can_be_cancelled(tmp_path: Path, processes: int) -> None:
    here = Journal(tmp_path)
    there = here if processes == 1 else Journal(tmp_path)
    with here.addresses.bring(["a"], never):
        with pytest.raises(Cancelled), there.addresses.bring(["a", "b"], lambda: True):
            pass
        assert known(Journal(tmp_path), "b") == {}


def test_a_killed_process_leaves_what_it_did_not_bring(tmp_path: Path) -> None:
    with children() as started:
        child = Child(HOLD, tmp_path)
        started.append(child)
        assert child.hear() == "b"
        waiting = ThreadPoolExecutor(1).submit(known, Journal(tmp_path), "a", "b")
        time.sleep(0.3)
        assert not waiting.done()
        child.kill()
        assert waiting.result(10) == {"a": "https://host/a"}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_that_leaves_the_block_frees_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    bringing = journal.addresses.bring(["b"], never)
    bringing.__enter__()
    child = os.fork()
    if child == 0:
        bringing.__exit__(None, None, None)
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(Cancelled), Journal(tmp_path).addresses.bring(["b"], lambda: True):
        pass
    bringing.__exit__(None, None, None)


def test_each_file_is_brought_once_by_many(tmp_path: Path) -> None:
    journals, brought, held = [Journal(tmp_path) for _ in range(3)], Counter[str](), Counter[str]()

    def bring(number: int) -> None:
        draw = random.Random(number)
        keys = draw.sample("abcdef", draw.randint(1, 3))
        with draw.choice(journals).addresses.bring(keys, never) as bringing:
            held.update(bringing.missing)
            assert all(held[key] == 1 for key in bringing.missing)
            if draw.random() < 0.8:
                brought.update(bringing.missing)
                bringing.keep({key: f"https://host/{key}" for key in bringing.missing}, later())
            held.subtract(set(keys) - bringing.known.keys())

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(bring, range(60)))
    assert set(brought.values()) == {1}


def test_uploads_of_the_first_version_are_known(tmp_path: Path, make_first: Callable[[Path], None]) -> None:
    make_first(tmp_path / "journal.sqlite3")
    journal = Journal(tmp_path)
    assert known(journal, "good", "gone", "failed") == {"good": "https://host/new"}
    assert [entry.kind for entry in journal.run("a").jobs] == ["fill"]


@pytest.fixture
def make_first() -> Callable[[Path], None]:
    """Writes a journal as version 1 of its schema had it: uploads were jobs."""
    schema = """
    CREATE TABLE run (
        number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, about TEXT NOT NULL, state TEXT NOT NULL,
        owner TEXT NOT NULL, at REAL NOT NULL, ended REAL
    );
    CREATE TABLE item (
        run TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL,
        at REAL NOT NULL, PRIMARY KEY (run, number)
    );
    CREATE TABLE job (
        number INTEGER PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, kind TEXT NOT NULL,
        state TEXT NOT NULL, run TEXT NOT NULL, owner TEXT NOT NULL, remote TEXT NOT NULL DEFAULT '',
        price REAL NOT NULL DEFAULT 0, paid REAL,
        request TEXT NOT NULL DEFAULT '{}', facts TEXT NOT NULL DEFAULT '{}', answer TEXT NOT NULL DEFAULT '{}',
        files TEXT NOT NULL DEFAULT '[]', error TEXT NOT NULL DEFAULT '', times TEXT NOT NULL,
        model TEXT NOT NULL DEFAULT '', size TEXT NOT NULL DEFAULT '', seconds REAL, UNIQUE (key, attempt)
    );
    CREATE INDEX job_of_run ON job (run);
    CREATE INDEX job_by_remote ON job (remote) WHERE remote != '';
    CREATE INDEX job_that_took ON job (model, size, number) WHERE seconds IS NOT NULL;
    INSERT INTO run (id, about, state, owner, at) VALUES ('a run', '{}', 'ended', '', 1);
    PRAGMA user_version = 1
    """
    jobs = [
        ("good", 1, "upload", "done", '{"url": "https://host/old", "expires": 1e12}'),
        ("good", 2, "upload", "done", '{"url": "https://host/new", "expires": 1e12}'),
        ("gone", 1, "upload", "done", '{"url": "https://host/2", "expires": 1}'),
        ("failed", 1, "upload", "failed", "{}"),
        ("paid", 1, "fill", "done", '{"seconds": 5}'),
    ]

    def make(path: Path) -> None:
        with closing(sqlite3.connect(path)) as file, file:
            file.executescript(schema)
            file.executemany(
                "INSERT INTO job (key, attempt, kind, state, answer, run, owner, times) "
                "VALUES (?, ?, ?, ?, ?, 'a run', '', '{}')",
                jobs,
            )

    return make
