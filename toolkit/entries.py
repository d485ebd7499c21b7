"""What the journal knows of a job, of a photo and of a run, as values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Kind = Literal["fill", "enhance"]
State = Literal["intended", "sending", "sent", "done", "failed", "unknown"]
RunState = Literal["running", "interrupted", "ended", "failed", "cancelled"]
ItemState = Literal["done", "failed", "held", "saving"]
"""What became of a photo; `saving` is noted before its results are written, and is left where that was cut short."""


@dataclass(frozen=True)
class Entry:
    """One attempt at a job.

    Attributes:
        key: hash of everything that shapes the answer.
        attempt: 1 for the first, counted by key.
        state: intended (nothing was sent), sending (written just before it is sent), sent (accepted, `remote` names
            it), done, failed (certainly refused or failed), unknown (perhaps paid, never to be resent unasked).
        run: the run that made the attempt, and whose bill it is on.
        owner: the process that holds it; empty when nobody does.
        remote: the service's own name for it.
        price: dollars it costs if it is accepted.
        paid: dollars that were certainly paid; None while that is not known.
        request: what was sent, without key or headers.
        facts: what the service said when it accepted it.
        answer: what it answered.
        files: results, each named by its BLAKE3 hash.
        error: one sentence, for failed and unknown.
        times: seconds since the epoch at which it came to each state.
    """

    key: str
    attempt: int
    kind: Kind
    state: State
    run: str = ""
    owner: str = ""
    remote: str = ""
    price: float = 0.0
    paid: float | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[Path, ...] = ()
    error: str = ""
    times: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class ItemEntry:
    """What became of one photo of a run; `detail` is JSON-ready."""

    number: int
    name: str
    state: ItemState
    detail: Mapping[str, Any]
    at: float


@dataclass(frozen=True)
class RunEntry:
    """One run.

    Attributes:
        about: recipe, options, photos, outputs, seeds and arguments; JSON-ready.
        state: how it stands; "interrupted" when it never ended and its process is dead.
        at, ended: seconds since the epoch.
        items, jobs: what became of its photos, and its attempts at jobs, oldest first; empty in a list of runs.
    """

    id: str
    about: Mapping[str, Any]
    state: RunState
    at: float
    ended: float | None = None
    items: tuple[ItemEntry, ...] = ()
    jobs: tuple[Entry, ...] = ()
