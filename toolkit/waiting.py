"""Waiting that can be cancelled: one thread asks for all who wait, so that hundreds cost no more than a few."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator

from toolkit.errors import Cancelled
from toolkit.liveness import after_fork

_TICK = 0.4
"""Seconds between looks at whether a wait was cancelled."""


class _Waiter:
    """One thread that waits, by a lock it cannot have before the time is up or it is woken."""

    def __init__(self, cancelled: Callable[[], bool]) -> None:
        self.cancelled, self.called = cancelled, False
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

    def add(self, cancelled: Callable[[], bool]) -> _Waiter:
        """Ask for one more, from now on."""
        waiter = _Waiter(cancelled)
        with self._mutex:
            self._waiters.add(waiter)
            if not self._runs:
                threading.Thread(target=self._look, name="waiting", daemon=True).start()
                self._runs = True
        return waiter

    def wait(self, waiter: _Waiter, seconds: float = -1.0) -> None:
        """Until the time is up, if there is one, or somebody called it; raises what was found when it was asked."""
        try:
            waiter.lock.acquire(timeout=seconds)
        finally:
            with self._mutex:
                self._waiters.discard(waiter)
        if waiter.problem is not None:
            raise waiter.problem

    def call(self, waiter: _Waiter) -> bool:
        """Wake one; False when it waits no longer."""
        with self._mutex:
            if waiter not in self._waiters:
                return False
            self._waiters.discard(waiter)
            waiter.called = True
            waiter.lock.release()
            return True

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
                    problem: BaseException = Cancelled()
                except BaseException as raised:  # it is the waiter's
                    problem = raised
                with self._mutex:
                    if waiter in self._waiters:
                        self._waiters.discard(waiter)
                        waiter.problem = problem
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
        _watch.wait(_watch.add(cancelled), seconds)


class Line:
    """Threads that take turns, first come, first served."""

    def __init__(self) -> None:
        self._fresh()
        after_fork(self, Line._fresh)

    def _fresh(self) -> None:
        self._mutex = threading.Lock()
        self._waiters: deque[_Waiter] = deque()
        self._taken = False

    @contextlib.contextmanager
    def turn(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Have one's turn for as long as the block takes.

        Args:
            cancelled: asked several times a second by another thread.

        Raises:
            Cancelled: when it said so before it was one's turn.
        """
        with self._mutex:
            waiter = _watch.add(cancelled) if self._taken else None
            if waiter:
                self._waiters.append(waiter)
            self._taken = True
        try:
            if waiter:
                _watch.wait(waiter)
            yield
        finally:
            if waiter is None or waiter.called:
                self._next()

    def _next(self) -> None:
        with self._mutex:
            while self._waiters:
                if _watch.call(self._waiters.popleft()):
                    return
            self._taken = False
