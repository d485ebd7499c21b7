"""What was asked, sent and paid, and the results by content.

Engines that cost money write here before they send. `Memory` keeps it for the life of the process.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

State = Literal["intended", "sent", "done", "failed", "unknown"]


@dataclass(frozen=True)
class Entry:
    """One job as the journal knows it.

    Attributes:
        key: hash of everything that shapes the answer.
        state: intended (claimed, nothing sent), sent (accepted, `remote` names it), done (`result` is here),
            failed (certainly refused), unknown (perhaps paid, never to be resent unasked).
        remote: the service's own name for it.
        result: the answer, kept by content.
        error: one sentence, for failed and unknown.
        owner: who claimed it.
        at: seconds since the epoch of the last change.
    """

    key: str
    state: State
    remote: str = ""
    result: Any = None
    error: str = ""
    owner: str = ""
    at: float = 0.0


@dataclass(frozen=True)
class RunEntry:
    """One run: recipe, inputs, sources with hashes, outputs and drawn seeds, JSON-ready."""

    id: str
    about: Mapping[str, Any]
    state: Literal["running", "ended", "failed", "cancelled"] = "running"
    at: float = field(default_factory=time.time)


class Journal(Protocol):
    """The interface; every call is atomic across the threads and processes that share the journal."""

    def begin(self, about: Mapping[str, Any]) -> str:
        """Note that a run begins; returns its id."""
        ...

    def end(self, run: str, state: Literal["ended", "failed", "cancelled"] = "ended") -> None:
        """Note how a run ended."""
        ...

    def runs(self) -> tuple[RunEntry, ...]:
        """All runs, oldest first."""
        ...

    def lookup(self, key: str) -> Entry | None:
        """What is known of a job."""
        ...

    def intend(self, key: str, owner: str) -> bool:
        """Claim a job before anything is sent; False when another holds, sent or finished it.

        A job that failed may be claimed again; one of unknown fate may not.
        """
        ...

    def sent(self, key: str, remote: str) -> None:
        """The service accepted it under the name `remote`."""
        ...

    def failed(self, key: str, error: str) -> None:
        """It was certainly refused: nothing was paid."""
        ...

    def unknown(self, key: str, error: str) -> None:
        """Its fate cannot be learnt: perhaps paid."""
        ...

    def done(self, key: str, result: Any) -> None:
        """Keep the answer."""
        ...


class Memory:
    """A journal that lasts as long as the process; safe across threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs: dict[str, RunEntry] = {}
        self._jobs: dict[str, Entry] = {}

    def begin(self, about: Mapping[str, Any]) -> str:
        """Note that a run begins; returns its id."""
        with self._lock:
            entry = RunEntry(uuid.uuid4().hex[:12], dict(about))
            self._runs[entry.id] = entry
            return entry.id

    def end(self, run: str, state: Literal["ended", "failed", "cancelled"] = "ended") -> None:
        """Note how a run ended."""
        with self._lock:
            self._runs[run] = replace(self._runs[run], state=state)

    def runs(self) -> tuple[RunEntry, ...]:
        """All runs, oldest first."""
        with self._lock:
            return tuple(self._runs.values())

    def lookup(self, key: str) -> Entry | None:
        """What is known of a job."""
        with self._lock:
            return self._jobs.get(key)

    def intend(self, key: str, owner: str) -> bool:
        """Claim a job before anything is sent; False when another holds, sent or finished it."""
        with self._lock:
            held = self._jobs.get(key)
            if held is not None and held.state != "failed":
                return False
            self._jobs[key] = Entry(key, "intended", owner=owner, at=time.time())
            return True

    def sent(self, key: str, remote: str) -> None:
        """The service accepted it under the name `remote`."""
        self._change(key, state="sent", remote=remote)

    def failed(self, key: str, error: str) -> None:
        """It was certainly refused: nothing was paid."""
        self._change(key, state="failed", error=error)

    def unknown(self, key: str, error: str) -> None:
        """Its fate cannot be learnt: perhaps paid."""
        self._change(key, state="unknown", error=error)

    def done(self, key: str, result: Any) -> None:
        """Keep the answer."""
        self._change(key, state="done", result=result)

    def _change(self, key: str, **changes: Any) -> None:
        with self._lock:
            self._jobs[key] = replace(self._jobs[key], at=time.time(), **changes)
