"""Threads of this process that take turns at what has a name, so that a file need tell processes apart only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection

from toolkit.errors import Cancelled
from toolkit.liveness import after_fork

_TICK = 0.2
"""Seconds between looks at whether the caller cancelled."""


class Turns:
    """Names that are taken. In a forked child none is."""

    def __init__(self) -> None:
        self._fresh()
        after_fork(self, Turns._fresh)

    def _fresh(self) -> None:
        self._changed = threading.Condition()
        self._taken: set[str] = set()

    def take(self, names: Collection[str], cancelled: Callable[[], bool]) -> None:
        """Wait until none of the names is taken, and take them all.

        Raises:
            Cancelled: when `cancelled` said so meanwhile.
        """
        with self._changed:
            while not self._taken.isdisjoint(names):
                self._changed.wait(_TICK)
                if cancelled():
                    raise Cancelled
            self._taken.update(names)

    def end(self, names: Collection[str]) -> None:
        """Let go of names."""
        with self._changed:
            self._taken.difference_update(names)
            self._changed.notify_all()
