"""The journal's table of jobs, a row an attempt, and what may be written of one that is held.

intended ── sending ──┬── sent ──┬── done
   nothing was sent   │          ├── failed     certainly refused, or failed; the next attempt is a new row
                      └──────────┴── unknown    perhaps paid; becomes sent, done or failed once it is found out
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from toolkit.database import Database
from toolkit.entries import Entry, Kind, State
from toolkit.errors import EngineError
from toolkit.liveness import Owner
from toolkit.results import Results, whole

_PLAIN = ("key", "attempt", "kind", "state", "run", "owner", "remote", "price", "paid", "error")
_JSON = ("request", "facts", "answer", "times")

_NEXT: Mapping[State, tuple[State, ...]] = {
    "intended": ("sending", "failed"),
    "sending": ("sent", "done", "failed", "unknown"),
    "sent": ("done", "failed", "unknown"),
    "unknown": ("sent", "done", "failed", "unknown"),
    "failed": ("sending",),
    "done": (),
}


class Attempts:
    """The rows of the table `job`, as entries.

    Args:
        database: the journal's.
        results: the files.
        owner: this process.
    """

    def __init__(self, database: Database, results: Results, owner: Owner) -> None:
        self.database, self.results, self._owner = database, results, owner

    def asked(self, key: str, run: str) -> bool:
        """Whether the run has made an attempt that did not fail."""
        statement = "SELECT 1 FROM job WHERE key = ? AND run = ? AND state != 'failed' LIMIT 1"
        return bool(run and self.database.read(statement, (key, run)))

    def add(self, key: str, kind: Kind, run: str, after: Entry | None) -> Entry | None:
        """A new attempt; None when another process made one since we looked."""
        attempt = after.attempt + 1 if after else 1
        now = _now()
        entry = Entry(key, attempt, kind, "intended", run, self.me(), times={"intended": now})
        statement = (
            "INSERT OR IGNORE INTO job (key, attempt, kind, state, run, owner, times) "
            "VALUES (?, ?, ?, 'intended', ?, ?, json_object('intended', ?))"
        )
        values = (key, attempt, kind, run, entry.owner, now)
        if not after:
            return entry if self.database.change(statement, values) else None
        with self.database.write() as database:
            if not database.execute(statement, values).rowcount:
                return None
            database.execute("UPDATE job SET owner = '' WHERE key = ? AND attempt < ?", (key, attempt))
            return entry

    def adopt(self, entry: Entry, run: str) -> Entry | None:
        """The attempt of an owner who left it; None when another process changed it since we looked."""
        run = run if entry.state == "intended" else entry.run
        recorded = "done" if "done" in entry.times and entry.state == "sent" else entry.state
        with self.database.write() as database:
            taken = database.execute(
                "UPDATE job SET owner = ?, run = ?, state = ? "
                "WHERE key = ? AND attempt = ? AND owner = ? AND state IN (?, ?)",
                (self.me(), run, entry.state, entry.key, entry.attempt, entry.owner, entry.state, recorded),
            )
            if not taken.rowcount:
                return None
            row = "SELECT * FROM job WHERE key = ? AND attempt = ?"  # as it is now, not as it was when we looked
            return self.entry(database.execute(row, (entry.key, entry.attempt)).fetchone())

    def newest(self, key: str) -> Entry | None:
        """The last attempt; as sent where its files are gone or damaged."""
        rows = self.database.read("SELECT * FROM job WHERE key = ? ORDER BY attempt DESC LIMIT 1", (key,))
        if not rows:
            return None
        entry = self.entry(rows[0])
        damaged = entry.state == "done" and not all(whole(path) for path in entry.files)
        return replace(entry, state="sent") if damaged else entry

    def entry(self, row: Any) -> Entry:
        """What a row of the table says."""
        values = {name: row[name] for name in _PLAIN} | {name: json.loads(row[name]) for name in _JSON}
        return Entry(**values, files=tuple(self.results.path(name) for name in json.loads(row["files"])))

    def free(self, entry: Entry) -> None:
        """Let go of an attempt that is held."""
        statement = "UPDATE job SET owner = '' WHERE key = ? AND attempt = ? AND owner = ?"
        self.database.change(statement, (entry.key, entry.attempt, entry.owner))

    def me(self) -> str:
        """This process's id, as owners of attempts are written down."""
        try:
            return self._owner.id
        except OSError as problem:
            raise EngineError(
                f"{problem.filename}: cannot be made ({problem.strerror}); the journal's folder must be writable"
            ) from problem

    def lives(self, owner: str) -> bool:
        """Whether the process with this id does."""
        try:
            return self._owner.alive(owner)
        except OSError as problem:
            raise EngineError(f"{problem.filename}: cannot be looked at ({problem.strerror})") from problem


class Claim:
    """A job that is held, and what may be written of it; whatever becomes of the process, what a call wrote is kept.

    A power cut spares what cannot be learnt again: that a job is being sent, and all of an enhancer's answer. What
    the service tells and shows of a fill it has gets to the disk within seconds, with what is next sent.

    Attributes:
        entry: the attempt as it stands.
        holds: False when it was done already: there is nothing to do.
        owner: the process that made the claim.
    """

    def __init__(self, attempts: Attempts, entry: Entry, run: str) -> None:
        self.entry, self.owner, self.holds = entry, entry.owner, entry.state != "done"
        self._attempts, self._run = attempts, run

    def sending(self, request: Mapping[str, Any], price: float) -> None:
        """It is about to be sent; nothing may be sent unless this returns. After `failed` a new attempt begins.

        Args:
            request: what is sent, JSON-ready, without key or headers.
            price: dollars it costs if it is accepted.

        Raises:
            EngineError: when it cannot be written down.
        """
        if self.entry.state == "failed":
            attempt = self._attempts.add(self.entry.key, self.entry.kind, self._run, self.entry)
            assert attempt is not None, "another made an attempt at a job that is held"
            self.entry = attempt
        columns = {"model": str(request.get("model", "")), "size": str(request.get("size", ""))}
        self._write(columns, state="sending", request=request, price=price)

    def sent(self, remote: str, **facts: Any) -> None:
        """The service accepted it and calls it `remote`; `facts` are what else it said."""
        self._write({}, state="sent", remote=remote, facts=facts)

    def done(self, answer: Mapping[str, Any], files: Sequence[tuple[bytes, str]] = ()) -> None:
        """Keep the answer; `files` are bytes with their suffix, and are kept before the job is done.

        Raises:
            EngineError: when it cannot be written; the state stays as it was.
        """
        paths = tuple(self._attempts.results.put(data, suffix) for data, suffix in files)
        seconds = answer.get("seconds")
        columns = {"seconds": float(seconds) if isinstance(seconds, int | float) else None}
        self._write(columns, state="done", answer=answer, files=paths, paid=self.entry.price, error="")

    def paid(self) -> None:
        """It is certainly paid, though its answer did not come yet; the state stays as it was.

        Raises:
            EngineError: when it cannot be written down.
        """
        assert self.holds, "a job that is done was claimed: what it cost is written down"
        entry = self.entry
        statement = "UPDATE job SET paid = price WHERE key = ? AND attempt = ? AND owner = ?"
        self._attempts.database.change(statement, (entry.key, entry.attempt, self._attempts.me()))
        self.entry = replace(entry, paid=entry.price)

    def failed(self, error: str, paid: float = 0.0) -> None:
        """It was certainly refused, or failed and cost `paid` dollars."""
        self._write({}, state="failed", error=error, paid=max(paid, self.entry.paid or 0.0))

    def unknown(self, error: str) -> None:
        """Its fate cannot be learnt: perhaps paid."""
        self._write({}, state="unknown", error=error)

    def _write(self, columns: Mapping[str, Any], *, state: State, **changes: Any) -> None:
        entry = self.entry
        assert self.holds, f"a job that was {entry.state} when it was claimed cannot become {state}"
        assert state in _NEXT[entry.state], f"a job that is {entry.state} cannot become {state}"
        if state == "done":
            changes["owner"] = ""
        changes = {name: value for name, value in changes.items() if value != getattr(entry, name)}
        changes["state"], now = state, _now()
        values = {name: _COLUMNS.get(name, _as_it_is)(value) for name, value in changes.items()}
        values |= columns
        statement = (
            f"UPDATE job SET {' = ?, '.join(values)} = ?, times = json_set(times, '$.{state}', ?) "
            "WHERE key = ? AND attempt = ? AND owner = ?"
        )
        where = (entry.key, entry.attempt, self._attempts.me())
        durable = state == "sending" or entry.kind == "enhance"
        if not self._attempts.database.change(statement, (*values.values(), now, *where), durable=durable):
            raise EngineError("the journal no longer has the job that is held; was it removed, or its `owners` folder?")
        self.entry = replace(entry, times={**entry.times, state: now}, **changes)


def as_text(text: str) -> str:
    """`text` as a database can hold it: a file name may have bytes that are no text."""
    return text.encode("utf-8", "backslashreplace").decode()


def as_json(value: Any) -> str:
    """A value as it is written down, without any key of an account."""
    text = _encoder.encode(value)
    assert '"authorization": ' not in text.lower(), "keys of an account are never written down"
    return text


def _now() -> float:
    """Seconds since the epoch, to the millisecond: SQLite writes 15 digits."""
    return time.time_ns() // 1_000_000 / 1000


def _names(files: Sequence[Path]) -> str:
    return as_json([f"{path.parent.name}/{path.name}" for path in files])


def _as_it_is(value: Any) -> Any:
    return value


_encoder = json.JSONEncoder(default=str)
_COLUMNS: Mapping[str, Callable[[Any], Any]] = {**dict.fromkeys(_JSON, as_json), "files": _names, "error": as_text}
"""How an entry's values are written down, where not as they are."""
