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
    """Threads that take turns, first come, first served.

    Args:
        at_once: how many have their turn at the same time.
    """

    def __init__(self, at_once: int = 1) -> None:
        self._at_once = at_once
        self._fresh()
        after_fork(self, Line._fresh)

    def _fresh(self) -> None:
        self._mutex = threading.Lock()
        self._waiters: deque[_Waiter] = deque()
        self._first: deque[_Waiter] = deque()
        self._free = self._at_once

    @contextlib.contextmanager
    def turn(self, cancelled: Callable[[], bool]) -> Iterator[None]:
        """Have one's turn for as long as the block takes.

        Args:
            cancelled: asked several times a second by another thread.

        Raises:
            Cancelled: when it said so before it was one's turn.
        """
        self.take(cancelled)
        try:
            yield
        finally:
            self.leave()

    def take(self, cancelled: Callable[[], bool], *, again: bool = False) -> None:
        """Wait for one's turn, as `turn` does.

        Args:
            again: go before those who have not had one yet.
        """
        with self._mutex:
            if self._free:
                self._free -= 1
                return
            waiter = _watch.add(cancelled)
            (self._first if again else self._waiters).append(waiter)
        try:
            _watch.wait(waiter)
        except BaseException:
            if waiter.called:
                self.leave()
            raise

    def leave(self) -> None:
        """End one's turn."""
        with self._mutex:
            while waiting := self._first or self._waiters:
                if _watch.call(waiting.popleft()):
                    return
            self._free += 1
