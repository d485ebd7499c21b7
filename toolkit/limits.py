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

from toolkit.database import Database
from toolkit.errors import Cancelled, EngineError
from toolkit.liveness import Owner, after_fork
from toolkit.waiting import Line

WINDOW = 60.0
"""Seconds over which starts are counted."""

_TICK = 0.4
"""Seconds between looks at whether a slot became free in another process, and whether the caller cancelled."""

_VERSION = 1
_SCHEMA = """
CREATE TABLE slot (id TEXT PRIMARY KEY, account TEXT NOT NULL, owner TEXT NOT NULL);
CREATE TABLE start (account TEXT NOT NULL, at REAL NOT NULL);
CREATE INDEX start_of_account ON start (account, at);
CREATE TABLE pause (account TEXT PRIMARY KEY, at REAL NOT NULL, until REAL NOT NULL)
"""

_STANDS = """
SELECT coalesce((SELECT at FROM start WHERE account = :account ORDER BY at DESC LIMIT 1), 0) AS latest,
    coalesce((SELECT at FROM start WHERE account = :account ORDER BY at LIMIT 1), :now) AS oldest,
    (SELECT at FROM start WHERE account = :account AND at > :past ORDER BY at DESC LIMIT 1 OFFSET :others) AS full,
    coalesce((SELECT at FROM pause WHERE account = :account), 0) AS paused,
    coalesce((SELECT until FROM pause WHERE account = :account), 0) AS until,
    (SELECT count(*) FROM slot WHERE account = :account) AS held
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
            name = self._wait(cancelled, on_wait)
        try:
            yield
        finally:
            self._give_back(name)

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

    def _wait(self, cancelled: Callable[[], bool], on_wait: Callable[[float], None]) -> str:
        while True:
            if cancelled():
                raise Cancelled
            with self._freed:
                name, seconds = self._start()
                if name:
                    return name
                on_wait(seconds)
                self._freed.wait(min(seconds, _TICK) or _TICK)

    def _start(self) -> tuple[str, float]:
        """A slot's id, and "" with the seconds to wait at least while there is none."""
        account, now = self._account, self._clock()
        try:
            me = self._owner.id
            with self._database.write() as database:
                stands = self._stands(database, now)
                if stands["latest"] > now or stands["paused"] > now:
                    # A clock that was set back must not hold anybody up for longer than was meant.
                    database.execute("UPDATE start SET at = ? WHERE account = ? AND at > ?", (now, account, now))
                    database.execute(
                        "UPDATE pause SET until = until - at + ?, at = ? WHERE account = ? AND at > ?",
                        (now, now, account, now),
                    )
                    stands = self._stands(database, now)
                if stands["oldest"] < now - 2 * WINDOW:  # once a minute, and not each time
                    database.execute("DELETE FROM start WHERE at <= ?", (now - WINDOW,))
                if stands["until"] > now:
                    return "", stands["until"] - now
                if stands["full"] is not None:
                    return "", stands["full"] + WINDOW - now
                if stands["held"] >= self._concurrent and self._living(database) >= self._concurrent:
                    return "", 0.0
                name = secrets.token_hex(8)
                database.execute("INSERT INTO slot VALUES (?, ?, ?)", (name, account, me))
                database.execute("INSERT INTO start VALUES (?, ?)", (account, now))
                return name, 0.0
        except OSError as problem:
            raise EngineError(
                f"{problem.filename}: cannot be made ({problem.strerror}); its folder must be writable"
            ) from problem

    def _stands(self, database: sqlite3.Connection, now: float) -> sqlite3.Row:
        """How the account stands, in one row."""
        values = {"account": self._account, "now": now, "past": now - WINDOW, "others": self._per_minute - 1}
        row: sqlite3.Row = database.execute(_STANDS, values).fetchone()
        return row

    def _living(self, database: sqlite3.Connection) -> int:
        """Slots of the account in use, once those of the dead are taken back."""
        owners = database.execute("SELECT DISTINCT owner FROM slot WHERE account = ?", (self._account,)).fetchall()
        dead = [(owner,) for (owner,) in owners if not self._owner.alive(owner)]
        database.executemany("DELETE FROM slot WHERE owner = ?", dead)
        held: int = database.execute("SELECT count(*) FROM slot WHERE account = ?", (self._account,)).fetchone()[0]
        return held

    def _give_back(self, name: str) -> None:
        """Free a slot; in a forked child, its parent's stays."""
        with contextlib.suppress(EngineError):
            self._database.change("DELETE FROM slot WHERE id = ? AND owner = ?", (name, self._owner.id))
        with self._freed:
            self._freed.notify_all()
