"""How often and how much at once an account may ask a service, kept by all threads and processes of the machine."""

from __future__ import annotations

import contextlib
import hashlib
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from toolkit.database import Database
from toolkit.errors import Cancelled, EngineError
from toolkit.liveness import Owner, after_fork
from toolkit.waiting import Line

WINDOW = 61.0
"""Seconds over which starts are counted: the service counts arrivals, whose way there takes now longer, now shorter."""

_TICK = 0.4
"""Seconds between looks at whether a slot became free in another process, and whether the caller cancelled."""

_VERSION = 2
_SCHEMA = """
CREATE TABLE task (id INTEGER PRIMARY KEY, account TEXT NOT NULL, at REAL NOT NULL, owner TEXT NOT NULL);
CREATE INDEX task_of_account ON task (account, at);
CREATE INDEX task_under_way ON task (account, owner) WHERE owner != '';
CREATE TABLE IF NOT EXISTS pause (account TEXT PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL)
"""
"""A task that was started holds a slot for as long as it has an owner. (Version 1 had tables `slot` and `start`.)"""

_START = """
INSERT INTO task SELECT :id, :account, :now, :owner WHERE
    NOT EXISTS (SELECT 1 FROM task WHERE account = :account AND at > :past ORDER BY at DESC LIMIT 1 OFFSET :others)
    AND NOT EXISTS (SELECT 1 FROM task WHERE account = :account AND at > :now)
    AND NOT EXISTS (SELECT 1 FROM task WHERE account = :account AND at <= :old AND owner = '')
    AND NOT EXISTS (SELECT 1 FROM pause WHERE account = :account AND (until > :now OR at > :now))
    AND (SELECT count(*) FROM task WHERE account = :account AND owner != '') < :concurrent
"""
"""The one statement a start takes, unless there is something to wait for or to put in order."""

_STANDS = """
SELECT coalesce((SELECT until FROM pause WHERE account = :account), 0) AS until, coalesce(
    (SELECT at FROM task WHERE account = :account AND at > :past ORDER BY at DESC LIMIT 1 OFFSET :others), 0) AS full
"""


class Limits:
    """The limits of one account.

    Args:
        folder: where `limits.sqlite3` and `owners/` lie; None to count this process alone.
        account: what tells accounts apart; only its hash is written.
        per_minute: starts in any 60 seconds.
        concurrent: slots held at once.
        clock: seconds since the epoch.
    """

    def __init__(
        self,
        folder: Path | None,
        account: str,
        per_minute: int,
        concurrent: int,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = Database(folder / "limits.sqlite3" if folder else None, _VERSION, _SCHEMA)
        self._owner = Owner(folder)
        self._account = hashlib.sha256(account.encode()).hexdigest()[:16]
        self._per_minute, self._concurrent, self._clock = max(1, per_minute), max(1, concurrent), clock
        self._line = Line()
        self._fresh()
        after_fork(self, Limits._fresh)

    def _fresh(self) -> None:
        self._freed = threading.Condition()
        self._held: set[int] = set()

    def close(self) -> None:
        """Close the database. No slot may be held."""
        self._database.close()
        self._owner.close()

    @contextlib.contextmanager
    def slot(
        self, cancelled: Callable[[], bool] = lambda: False, on_wait: Callable[[float], None] = lambda seconds: None
    ) -> Iterator[None]:
        """Hold one of the account's slots, once there is one free and the rate allows another start.

        Args:
            cancelled: asked several times a second while waiting.
            on_wait: told as often, while first in line, for how many seconds at least; 0 where that depends on others.

        Raises:
            Cancelled: when `cancelled` said so.
            EngineError: when the file cannot be written.
        """
        with self._line.turn(cancelled):  # one thread at a time looks at the file
            slot = self._wait(cancelled, on_wait)
        try:
            yield
        finally:
            self._give_back(slot)

    def pause(self, seconds: float) -> None:
        """Nobody starts for so many seconds: the service said that it gets too many requests.

        Raises:
            EngineError: when the file cannot be written.
        """
        now = self._clock()
        self._database.change(
            "INSERT INTO pause VALUES (?, ?, ?) ON CONFLICT (account) DO UPDATE "
            "SET at = excluded.at, until = max(until, excluded.until)",
            (self._account, now, now + seconds),
        )

    def _wait(self, cancelled: Callable[[], bool], on_wait: Callable[[float], None]) -> int:
        while True:
            if cancelled():
                raise Cancelled
            with self._freed:
                slot, seconds = None, 0.0
                if len(self._held) < self._concurrent:  # else the file cannot tell more
                    slot, seconds = self._start()
                if slot is not None:
                    self._held.add(slot)
                    return slot
                on_wait(seconds)
                self._freed.wait(min(seconds, _TICK) or _TICK)

    def _start(self) -> tuple[int | None, float]:
        """A slot, or how many seconds there will be none at least."""
        slot = secrets.randbits(62)
        try:
            values = self._values(slot)
            if self._database.change(_START, values):
                if self._clock() > values["now"] + 0.1:  # the file had to be waited for
                    self._database.change("UPDATE task SET at = ? WHERE id = ?", (self._clock(), slot))
                return slot, 0.0
            with self._database.write() as database:
                values = self._values(slot)
                self._put_in_order(database, values["now"])
                if database.execute(_START, values).rowcount:
                    return slot, 0.0
                stands = database.execute(_STANDS, values).fetchone()
                return None, max(0.0, stands["until"] - values["now"], stands["full"] + WINDOW - values["now"])
        except OSError as problem:
            raise EngineError(
                f"{problem.filename}: cannot be made ({problem.strerror}); its folder must be writable"
            ) from problem

    def _values(self, slot: int) -> dict[str, Any]:
        """What the statements about a start are told."""
        now = self._clock()
        return {
            "id": slot, "account": self._account, "owner": self._owner.id, "now": now, "past": now - WINDOW,
            "old": now - 2 * WINDOW, "others": self._per_minute - 1, "concurrent": self._concurrent,
        }  # fmt: skip

    def _put_in_order(self, database: sqlite3.Connection, now: float) -> None:
        """Give up what counts no more: what the dead hold, what is long past, and times that are yet to come."""
        account = self._account
        owners = database.execute("SELECT DISTINCT owner FROM task WHERE account = ? AND owner != ''", (account,))
        dead = [(owner,) for (owner,) in owners.fetchall() if not self._owner.alive(owner)]
        database.executemany("UPDATE task SET owner = '' WHERE owner = ?", dead)
        database.execute("DELETE FROM task WHERE at <= ? AND owner = ''", (now - WINDOW,))
        # A clock that was set back must not hold anybody up for longer than was meant.
        database.execute("UPDATE task SET at = ? WHERE account = ? AND at > ?", (now, account, now))
        database.execute(
            "UPDATE pause SET until = until - at + ?, at = ? WHERE account = ? AND at > ?", (now, now, account, now)
        )

    def _give_back(self, slot: int) -> None:
        """Free a slot; in a forked child, its parent's stays."""
        with contextlib.suppress(EngineError):
            self._database.change("UPDATE task SET owner = '' WHERE id = ? AND owner = ?", (slot, self._owner.id))
        with self._freed:
            self._held.discard(slot)
            self._freed.notify_all()
