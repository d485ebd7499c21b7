"""Threads that share a network take turns."""

from __future__ import annotations

import threading

from toolkit.engines import EngineRun
from toolkit.errors import Cancelled


class Turn:
    """A lock that is waited for only as long as the run is not cancelled; use as a context manager.

    Raises:
        Cancelled: when the run is cancelled before it is its turn.
    """

    def __init__(self, lock: threading.Lock, run: EngineRun) -> None:
        self._lock, self._run = lock, run

    def __enter__(self) -> None:
        while not self._lock.acquire(timeout=0.1):
            if self._run.cancelled():
                raise Cancelled
        if self._run.cancelled():
            self._lock.release()
            raise Cancelled

    def __exit__(self, *_: object) -> None:
        self._lock.release()
