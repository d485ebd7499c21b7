"""A SQLite file shared by threads and processes: write-ahead log, transactions, and errors in one sentence.

Threads take turns on one connection. It is closed while the process forks, since a forked child may neither use nor
close a connection of its parent (sqlite.org/howtocorrupt.html).
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any, NoReturn

from toolkit import disk
from toolkit.errors import EngineError

_BUSY_SECONDS = 30.0
"""How long to wait for another process's transaction before it is an error."""

_all: weakref.WeakSet[Database] = weakref.WeakSet()
_opening = threading.Lock()


class Database:
    """One database file; opened at first use.

    Args:
        path: the file, made with mode 600 in a folder of mode 700; None for a database in memory.
        version: of the schema, kept in the file; a file of a newer one is refused.
        schema: the statements that make the tables.
    """

    def __init__(self, path: Path | None, version: int, schema: str) -> None:
        self._path, self._version, self._schema = path and path.resolve(), version, schema
        self._name = f"{path}" if path else "memory"
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._durable = self._synced = 0  # changes that are to be on the disk, and that are
        self._syncing = threading.Lock()
        self._log: FileIO | None = None
        _all.add(self)

    def read(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query, as `sqlite3.Row`.

        Raises:
            EngineError: when the file cannot be opened or read.
        """
        with self._lock:
            try:
                return self._open().execute(statement, values).fetchall()
            except (sqlite3.DatabaseError, OSError) as problem:
                self._told(problem)

    def change(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = (), *, durable: bool = False) -> int:
        """A transaction of one statement; how many rows it changed, all of them or none.

        Args:
            statement: INSERT, UPDATE or DELETE.
            values: for its question marks, or by name.
            durable: it is on the disk, and survives a power cut, before this returns.

        Raises:
            EngineError: when the file cannot be opened or written.
        """
        with self._lock:
            try:
                rows = self._open().execute(statement, values).rowcount
            except (sqlite3.DatabaseError, OSError) as problem:
                self._told(problem)
            self._durable += durable
            number = self._durable
        if durable and self._path:
            self._sync(number)
        return rows

    @contextlib.contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """A transaction that nobody else can write beside; an exception undoes it.

        Raises:
            EngineError: when the file cannot be opened or written.
        """
        with self._lock:
            try:
                connection = self._open()
                connection.execute("BEGIN IMMEDIATE")
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except (sqlite3.DatabaseError, OSError) as problem:
                self._told(problem)

    def close(self) -> None:
        """Close the file; the next use opens it again. What was in memory is gone."""
        with self._lock, self._syncing:
            self._close()

    def _sync(self, number: int) -> None:
        """Bring the log to the disk, with so many durable changes at least, for all threads that wait for that.

        `PRAGMA synchronous=FULL` does the same for one change at a time, while nobody else can use the file.
        """
        assert self._path
        with self._syncing:
            if self._synced >= number:
                return
            written = self._durable
            try:
                if self._log is None:
                    self._log = open(f"{self._path}-wal", "rb+", buffering=0)
                    weakref.finalize(self, self._log.close)
                    disk.sync_folder(self._path.parent)
                disk.sync(self._log.fileno())
            except FileNotFoundError:  # the file was closed meanwhile, and all brought into it
                pass
            except OSError as problem:
                self._told(problem)
            self._synced = written

    def _close(self) -> None:
        if self._log:
            self._log.close()
            self._log = None
        if self._connection:
            self._connection.close()
            self._connection = None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None:
            with _opening:
                if self._path:
                    self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                    with contextlib.suppress(FileExistsError):
                        os.close(os.open(self._path, os.O_CREAT | os.O_EXCL, 0o600))
                self._connection = self._connected()
                weakref.finalize(self, self._connection.close)
        return self._connection

    def _connected(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path or ":memory:", timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        try:
            self._known(connection)
            deadline = time.monotonic() + _BUSY_SECONDS
            while True:
                try:
                    connection.execute("PRAGMA journal_mode=WAL")  # does not wait for others who switch it as well
                    break
                except sqlite3.OperationalError as problem:
                    if "locked" not in str(problem) or time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)
            connection.execute("PRAGMA synchronous=NORMAL")  # a power cut may take the last transactions, whole
            connection.execute("PRAGMA fullfsync=ON")  # macOS
            if self._known(connection) < self._version:
                connection.execute("BEGIN IMMEDIATE")
                if self._known(connection) < self._version:  # no other process was first
                    for statement in self._schema.split(";"):
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version={self._version}")
                connection.execute("COMMIT")
        except BaseException:
            connection.close()
            raise
        return connection

    def _known(self, connection: sqlite3.Connection) -> int:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if version > self._version:
            raise EngineError(
                f"{self._name}: written by a newer version of the toolkit (schema {version}, this one knows "
                f"{self._version}); upgrade the toolkit or use another folder"
            )
        return version

    def _told(self, problem: sqlite3.DatabaseError | OSError) -> NoReturn:
        """Say in one sentence what went wrong, unless it is our own mistake."""
        if isinstance(problem, sqlite3.IntegrityError | sqlite3.ProgrammingError):
            raise problem
        if isinstance(problem, sqlite3.OperationalError | OSError):
            said = problem.strerror if isinstance(problem, OSError) else problem
            sentence = f"cannot be used ({said}); its folder must be writable and have room"
        else:
            sentence = f"is damaged ({problem}); move it away, and all it knew with it"
        raise EngineError(f"{self._name}: {sentence}") from problem

    def _before_fork(self) -> None:
        self._lock.acquire()
        self._syncing.acquire()
        if self._path:
            self._close()

    def _after_fork(self) -> None:
        self._syncing.release()
        self._lock.release()


_fork_lock = threading.Lock()
_forking: list[Database] = []


def _before_fork() -> None:
    _fork_lock.acquire()
    _forking[:] = _all
    for database in _forking:
        database._before_fork()
    _opening.acquire()


def _after_fork() -> None:
    _opening.release()
    for database in _forking:
        database._after_fork()
    _forking.clear()
    _fork_lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
