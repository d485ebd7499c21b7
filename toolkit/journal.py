"""What was asked, sent and paid, and the results by content.

A paid job is written down before it is sent; its row (`attempts`) says how far it came, whoever was killed meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from toolkit.addresses import Addresses
from toolkit.attempts import Attempts, Claim, as_json, as_text
from toolkit.database import Database
from toolkit.entries import Entry, ItemEntry, ItemState, Kind, RunEntry, State
from toolkit.errors import Cancelled, EngineError, ParameterError, UnknownNameError
from toolkit.liveness import Owner
from toolkit.results import Results
from toolkit.turns import Turns

__all__ = ["Claim", "Entry", "ItemEntry", "Journal", "Kind", "RunEntry", "State"]

_FILE = "journal.sqlite3"
_VERSION = 2
_SCHEMA = """
CREATE TABLE IF NOT EXISTS run (
    number INTEGER PRIMARY KEY, id TEXT UNIQUE NOT NULL, about TEXT NOT NULL, state TEXT NOT NULL, owner TEXT NOT NULL,
    at REAL NOT NULL, ended REAL
);
CREATE TABLE IF NOT EXISTS item (
    run TEXT NOT NULL, number INTEGER NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, detail TEXT NOT NULL,
    at REAL NOT NULL, PRIMARY KEY (run, number)
);
CREATE TABLE IF NOT EXISTS job (
    number INTEGER PRIMARY KEY, key TEXT NOT NULL, attempt INTEGER NOT NULL, kind TEXT NOT NULL, state TEXT NOT NULL,
    run TEXT NOT NULL, owner TEXT NOT NULL, remote TEXT NOT NULL DEFAULT '', price REAL NOT NULL DEFAULT 0, paid REAL,
    request TEXT NOT NULL DEFAULT '{}', facts TEXT NOT NULL DEFAULT '{}', answer TEXT NOT NULL DEFAULT '{}',
    files TEXT NOT NULL DEFAULT '[]', error TEXT NOT NULL DEFAULT '', times TEXT NOT NULL,
    model TEXT NOT NULL DEFAULT '', size TEXT NOT NULL DEFAULT '', seconds REAL, UNIQUE (key, attempt)
);
CREATE INDEX IF NOT EXISTS job_of_run ON job (run);
CREATE INDEX IF NOT EXISTS job_by_remote ON job (remote) WHERE remote != '';
CREATE INDEX IF NOT EXISTS job_that_took ON job (model, size, number, seconds) WHERE seconds IS NOT NULL;
CREATE TABLE IF NOT EXISTS upload (
    key TEXT PRIMARY KEY, url TEXT NOT NULL DEFAULT '', expires REAL NOT NULL DEFAULT 0, owner TEXT NOT NULL DEFAULT ''
) WITHOUT ROWID;
INSERT OR REPLACE INTO upload
    SELECT key, json_extract(answer, '$.url'), json_extract(answer, '$.expires'), '' FROM job
    WHERE kind = 'upload' AND state = 'done' ORDER BY attempt;
DELETE FROM job WHERE kind = 'upload'
"""
"""In version 1 uploads were jobs."""

SAVING = 600.0
"""Seconds that writing the results of one photo takes at most."""

_TICK = 0.2
"""Seconds between looks at whether another owner is finished, and whether the caller cancelled."""


class Journal:
    """Runs and paid jobs, shared by all threads and processes that use the folder; opened at first use.

    Args:
        folder: where `journal.sqlite3`, `results/` and `owners/` lie; None to keep all for the life of the process.

    Attributes:
        folder: as given.
        addresses: where files were brought to.
        trouble: one sentence on why runs are not written down; empty when they are.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.trouble = folder, ""
        self._asked: dict[tuple[str, str, str, str], bool] = {}
        self._database = Database(folder / _FILE if folder else None, _VERSION, _SCHEMA)
        self._owner = Owner(folder)
        self._attempts = Attempts(self._database, Results(folder / "results" if folder else None), self._owner)
        self.addresses, self._turns = Addresses(self._attempts), Turns()

    def close(self) -> None:
        """Close the database; in memory, forget everything. No claim may be held."""
        self._database.close()
        self._owner.close()

    # Runs

    def begin(self, about: Mapping[str, Any]) -> str:
        """Note that a run begins; its id, 12 hexadecimal digits. Best effort: see `trouble`."""
        run = secrets.token_hex(6)
        text = as_json(about)
        with self._best_effort():
            self.addresses.forget_expired()
            self._database.change(
                "INSERT INTO run (id, about, state, owner, at) VALUES (?, ?, 'running', ?, ?)",
                (run, text, self._attempts.me(), time.time()),
            )
        return run

    def note(self, run: str, number: int, name: str, state: ItemState, detail: Mapping[str, Any]) -> None:
        """Note what became of photo `number`, in place of what was noted before. Best effort: see `trouble`.

        Of one that failed it stays known what it was writing, when that `began` first and when it `ended`.
        """
        now = time.time()
        began = {"began": now} if state == "saving" else {}
        values = (run, number, as_text(name), state, as_json({**began, **detail}), now)
        with self._best_effort():
            self._database.change(
                "INSERT INTO item VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (run, number) DO UPDATE SET "
                "detail = CASE excluded.state "
                "WHEN 'saving' THEN json_patch(excluded.detail, json_object('began', coalesce("
                "json_extract(detail, '$.began'), json_extract(excluded.detail, '$.began')))) "
                "WHEN 'failed' THEN json_patch(CASE state WHEN 'saving' "
                "THEN json_set(detail, '$.ended', excluded.at) ELSE detail END, excluded.detail) "
                "ELSE excluded.detail END, "
                "name = excluded.name, state = excluded.state, at = excluded.at",
                values,
            )

    def end(self, run: str, state: Literal["ended", "failed", "cancelled"] = "ended") -> None:
        """Note how a run ended. Best effort: see `trouble`."""
        with self._best_effort():
            self._database.change("UPDATE run SET state = ?, ended = ? WHERE id = ?", (state, time.time(), run))

    def reopen(self, run: str) -> None:
        """Have this process go on with a run, given by its full id.

        Raises:
            EngineError: when the journal cannot be written, or a living process is at it.
        """
        rows = self._database.read("SELECT * FROM run WHERE id = ?", (run,))
        if not rows:
            raise EngineError(f"run {run}: no such run is written down")
        reopened = 0
        if self._run(rows[0]).state != "running":
            reopened = self._database.change(
                "UPDATE run SET state = 'running', ended = NULL, owner = ? WHERE id = ? AND owner = ? AND state = ?",
                (self._attempts.me(), run, rows[0]["owner"], rows[0]["state"]),
            )
            # What it was writing was written until it was cut short, and not until something fails now.
            self._database.change(
                "UPDATE item SET state = 'failed', detail = json_set(detail, '$.ended', coalesce(?, at + ?), "
                "'$.error', 'was cut short while its results were written') WHERE run = ? AND state = 'saving'",
                (rows[0]["ended"], SAVING, run),
            )
        if not reopened:
            raise EngineError(f"run {run}: is still running; wait for it or stop it first")

    def runs(self, limit: int | None = None) -> tuple[RunEntry, ...]:
        """The last `limit` runs, newest last, without items and jobs.

        Raises:
            EngineError: when the journal cannot be opened.
        """
        rows = self._database.read("SELECT * FROM run ORDER BY number DESC LIMIT ?", (-1 if limit is None else limit,))
        return tuple(self._run(row) for row in reversed(rows))

    def run(self, id: str) -> RunEntry:
        """A run with its items and jobs, by its id or the beginning of it. Its jobs' files are not looked at.

        Raises:
            UnknownNameError: when no run's id begins so.
            ParameterError: when several do.
            EngineError: when the journal cannot be opened.
        """
        rows = self._database.read("SELECT * FROM run WHERE substr(id, 1, ?) = ? ORDER BY number", (len(id), id))
        if not rows:
            raise UnknownNameError("", "run", id, [entry.id for entry in self.runs(limit=20)])
        if len(rows) > 1:
            raise ParameterError(
                f"run {id!r}: {len(rows)} runs begin so; give more of its id ({rows[-1]['id']} is last)"
            )
        run = rows[0]["id"]
        items = self._database.read("SELECT * FROM item WHERE run = ? ORDER BY number", (run,))
        jobs = self._database.read("SELECT * FROM job WHERE run = ? ORDER BY number", (run,))
        return replace(
            self._run(rows[0]),
            items=tuple(
                ItemEntry(row["number"], row["name"], row["state"], json.loads(row["detail"]), row["at"])
                for row in items
            ),
            jobs=tuple(self._attempts.entry(row) for row in jobs),
        )

    def written(self, verb: str) -> set[str]:
        """Absolute paths of what runs of a recipe are known to have written, or were writing.

        Raises:
            EngineError: when the journal cannot be opened.
        """
        runs = self._database.read(  # the folder as JSON, which two paths give: its name may be no text
            "SELECT id, json_extract(about, '$.folder', '$.folder') AS folder FROM run "
            "WHERE json_extract(about, '$.recipe') = ?",
            (verb,),
        )
        return {
            os.path.abspath(os.path.join(folder, path))
            for run in runs
            if (folder := json.loads(run["folder"])[0])
            for item in self._database.read("SELECT detail FROM item WHERE run = ?", (run["id"],))
            for path in json.loads(item["detail"]).get("outputs", ())
        }

    def paid(self, run: str) -> tuple[float, float]:
        """Dollars that a run has certainly paid, and that it has perhaps paid besides.

        Raises:
            EngineError: when the journal cannot be opened.
        """
        (row,) = self._database.read(
            "SELECT total(paid), total(CASE WHEN paid IS NULL AND state != 'intended' THEN price END) "
            "FROM job WHERE run = ?",
            (run,),
        )
        return row[0], row[1]

    # Jobs

    def lookup(self, key: str) -> Entry | None:
        """The newest attempt at a job; None for one never tried.

        One that is done, but whose files are gone or damaged, reads as sent: they may be downloaded again.

        Raises:
            EngineError: when the journal cannot be opened.
        """
        return self._attempts.newest(key)

    def knows(self, remote: str) -> bool:
        """Whether a job of the service with this id is written down here.

        Raises:
            EngineError: when the journal cannot be opened.
        """
        return bool(self._database.read("SELECT 1 FROM job WHERE remote = ? AND remote != '' LIMIT 1", (remote,)))

    @property
    def exists(self) -> bool:
        """Whether anything may be written down: a look into a journal that is not there would make it."""
        return self.folder is None or (self.folder / _FILE).exists()

    def has_asked(self, model: str, size: str, field: str, text: str) -> bool:
        """Whether a model was ever asked for something of a size with `text` as its parameter `field`.

        What was found last is remembered for as long as the journal is open, so that thousands may ask.

        Raises:
            EngineError: when the journal cannot be opened.
        """
        key = (model, size, field, text)
        if key not in self._asked:
            self._asked[key] = bool(
                self._database.read(
                    "SELECT 1 FROM job WHERE model = ? AND size = ? AND seconds IS NOT NULL "
                    "AND json_extract(request, '$.inputs.' || ?) = ? LIMIT 1",
                    key,
                )
                or self._database.read(  # sent lately, and not here yet
                    "SELECT 1 FROM job NOT INDEXED WHERE number > (SELECT max(number) FROM job) - 1000 AND model = ? "
                    "AND size = ? AND seconds IS NULL AND json_extract(request, '$.inputs.' || ?) = ? LIMIT 1",
                    key,
                )
            )
        return self._asked[key]

    def typical(self, model: str, size: str, guess: Callable[[str], float]) -> float | None:
        """Seconds most jobs of this kind take at least: the lower quartile of the last 50; None where none is known.

        Jobs count by what their request says as `model` and `size`, and their answer as `seconds`.

        Args:
            guess: seconds by size. Where none of this size is known it is what is said, by as much shorter or longer
                as those of other sizes took lately.

        Raises:
            EngineError: when the journal cannot be opened.
        """
        # As one row: the interpreter's lock changes hands with each.
        ((lately,),) = self._database.read(
            "SELECT json_group_array(seconds) FROM (SELECT seconds FROM job WHERE model = ? AND size = ? "
            "AND seconds IS NOT NULL ORDER BY number DESC LIMIT 50)",
            (model, size),
        )
        if seconds := json.loads(lately):
            return _lower_quartile(seconds)
        rows = self._database.read(  # by number, and not by the index, which holds all there ever were
            "SELECT size, seconds FROM job NOT INDEXED WHERE number > (SELECT max(number) FROM job) - 1000 "
            "AND model = ? AND seconds IS NOT NULL ORDER BY number DESC LIMIT 50",
            (model,),
        )
        factors = [row["seconds"] / guess(row["size"]) for row in rows if guess(row["size"]) > 0]
        return guess(size) * _lower_quartile(factors) if factors else None

    @contextlib.contextmanager
    def claim(
        self,
        key: str,
        kind: Kind,
        run: str = "",
        fresh: bool = False,
        cancelled: Callable[[], bool] = lambda: False,
    ) -> Iterator[Claim]:
        """Hold a job: whoever else asks for it, in any thread or process, waits until the block is left or we die.

        `claim.entry.state` says where it stands:
            intended: nothing has been sent; the attempt is ours to send.
            sending, sent, unknown: an earlier owner left it so; what became of it is ours to find out.
            done: answer and files are there, and nothing is held.
        However the block is left, the state stays as it was last written.

        Args:
            key: hash of everything that shapes the answer.
            run: on whose bill a new attempt goes.
            fresh: make a new attempt though one is done, failed or unknown, unless it is the same run's. One that an
                earlier owner left in sending or sent, and that was never done, comes first.
            cancelled: asked while waiting.

        Raises:
            Cancelled: when `cancelled` said so.
            EngineError: when the journal cannot be written.
        """
        self._turns.take((key,), cancelled)
        claim = None
        try:
            while (entry := self._take(key, kind, run, fresh)) is None:
                if cancelled():
                    raise Cancelled
                time.sleep(_TICK)
            claim = Claim(self._attempts, entry, run)
            if not claim.holds:
                self._turns.end((key,))
            yield claim
        finally:
            if claim is None:
                self._turns.end((key,))
            elif claim.holds:
                self._release(claim)

    def _release(self, claim: Claim) -> None:
        if claim.owner != self._attempts.me():  # a forked child leaves the block: the claim is its parent's
            return
        if claim.entry.state != "done":
            # If it cannot be written, threads of this process go on all the same, and others when it ends.
            with contextlib.suppress(EngineError):
                self._attempts.free(claim.entry)
        self._turns.end((claim.entry.key,))

    def _take(self, key: str, kind: Kind, run: str, fresh: bool) -> Entry | None:
        """The newest attempt, made ours if it is not done; None while a living process holds it."""
        if first := self._attempts.add(key, kind, run, None):  # most jobs are new, and this is all it takes
            return first
        while True:
            entry = self._attempts.newest(key)
            again = fresh and not self._attempts.asked(key, run)
            if entry is not None and entry.state == "done" and not again:
                return entry
            me = self._attempts.me()
            if (
                entry is not None
                and entry.state != "done"
                and entry.owner not in ("", me)
                and self._attempts.lives(entry.owner)
            ):
                return None
            if (
                entry is None
                or entry.state == "failed"
                or (again and (entry.state == "unknown" or "done" in entry.times))
            ):
                entry = self._attempts.add(key, kind, run, entry)
            else:
                entry = self._attempts.adopt(entry, run)
            if entry is not None:  # else another process was first: look again
                return entry

    def _run(self, row: Any) -> RunEntry:
        state = row["state"]
        if state == "running" and not self._attempts.lives(row["owner"]):
            state = "interrupted"
        return RunEntry(row["id"], json.loads(row["about"]), state, row["at"], row["ended"])

    @contextlib.contextmanager
    def _best_effort(self) -> Iterator[None]:
        try:
            yield
        except EngineError as problem:
            self.trouble = str(problem)


def _lower_quartile(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[len(ordered) // 4]
