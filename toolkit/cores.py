"""Threads that mostly wait for others, kept on one core.

Python lets one of them run at a time. On several cores they hand the interpreter from one to the next, where the cache
knows nothing of it: that took a tenth of what calls of a hosted engine cost (`benchmarks/wavespeed.py`; David Beazley,
"Understanding the Python GIL", PyCon 2010). Where the system has no such thing, or does not let one, nothing changes.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

if sys.platform == "linux":

    def _allowed() -> set[int]:
        return os.sched_getaffinity(0)

    def _stay_on(cores: set[int]) -> None:
        with contextlib.suppress(OSError):  # they were taken away meanwhile, or nobody may
            os.sched_setaffinity(0, cores)
else:

    def _allowed() -> set[int]:
        return set()

    def _stay_on(cores: set[int]) -> None:
        pass


class _Thread(threading.local):
    """The calling thread: which cores it may use, and which one it keeps to; empty where it keeps to none."""

    allowed: frozenset[int] = frozenset()
    kept: frozenset[int] = frozenset()


_thread = _Thread()


@contextlib.contextmanager
def together() -> Iterator[None]:
    """Keep to one core for as long as the block takes, the same for all threads of the process.

    Threads begun in the block inherit that: begin none there that compute.
    """
    allowed = frozenset() if _thread.kept or not _has_lock() else frozenset(_allowed())
    if len(allowed) < 2:
        yield
        return
    # By the process's number: several at once do not all take the first.
    _thread.allowed, _thread.kept = allowed, frozenset({sorted(allowed)[os.getpid() % len(allowed)]})
    _stay_on({*_thread.kept})
    try:
        yield
    finally:
        _thread.kept = frozenset()
        _stay_on({*allowed})


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Within `together`, use any core again for as long as the block takes, for what needs no interpreter."""
    if not _thread.kept:
        yield
        return
    _stay_on({*_thread.allowed})
    try:
        yield
    finally:
        _stay_on({*_thread.kept})


def _has_lock() -> bool:
    """Whether one thread runs at a time: free-threaded Python has no such lock."""
    return bool(getattr(sys, "_is_gil_enabled", lambda: True)())
