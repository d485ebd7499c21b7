"""Waiting that can be cancelled: one thread asks for all who wait, so that hundreds cost no more than a few."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from toolkit.errors import Cancelled
from toolkit.liveness import after_fork

_TICK = 0.4
"""Seconds between looks at whether a wait was cancelled."""


class _Waiter:
    """One thread that waits, by a lock it cannot have before the time is up or it is woken."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self.cancelled = cancelled
        self.problem: BaseException | None = None
        self.lock = threading.Lock()
        self.lock.acquire()


class _Watch:
    """The thread that asks, while anybody waits."""

    def __init__(self) -> None:
        self._fresh()
        after_fork(self, _Watch._fresh)

    def _fresh(self) -> None:
        self._mutex = threading.Lock()
        self._waiters: set[_Waiter] = set()
        self._runs = False

    def wait(self, seconds: float, cancelled: Callable[[], bool]) -> None:
        waiter = _Waiter(cancelled)
        with self._mutex:
            self._waiters.add(waiter)
            if not self._runs:
                threading.Thread(target=self._look, name="waiting", daemon=True).start()
                self._runs = True
        waiter.lock.acquire(timeout=seconds)
        with self._mutex:
            self._waiters.discard(waiter)
        if waiter.problem is not None:
            raise waiter.problem

    def _look(self) -> None:
        while True:
            time.sleep(_TICK)
            with self._mutex:
                waiters = tuple(self._waiters)
                if not waiters:
                    self._runs = False
                    return
            for waiter in waiters:
                try:
                    if not waiter.cancelled():
                        continue
                    waiter.problem = Cancelled()
                except BaseException as problem:  # it is the waiter's
                    waiter.problem = problem
                with self._mutex:
                    if waiter in self._waiters:
                        self._waiters.discard(waiter)
                        waiter.lock.release()


_watch = _Watch()


def wait(seconds: float, cancelled: Callable[[], bool]) -> None:
    """Wait, unless the run is cancelled meanwhile.

    Args:
        seconds: until it ends.
        cancelled: asked at the beginning, and then several times a second by another thread.

    Raises:
        Cancelled: when it said so.
    """
    if cancelled():
        raise Cancelled
    if seconds > 0:
        _watch.wait(seconds, cancelled)
