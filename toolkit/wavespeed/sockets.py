"""A socket that waits a tick at a time, and looks in between whether anybody still waits for it."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from toolkit.errors import Cancelled

_TICK = 0.2
"""Seconds between looks."""

T = TypeVar("T")


class Patience:
    """Who waits for a connection's exchange, and until when; begun anew for each."""

    def __init__(self) -> None:
        self.end()

    def begin(self, cancelled: Callable[[], bool], until: float, silence: float | None = None) -> None:
        """Wait until the monotonic clock says `until`, nothing came for `silence` seconds, or `cancelled` says so."""
        self._cancelled, self._until, self._silence = cancelled, until, silence
        self._next = time.monotonic() + _TICK

    def end(self) -> None:
        """Nobody waits: nothing of the exchange is kept alive."""
        self.begin(lambda: False, 0.0)

    def tried(self, call: Callable[[], T]) -> T:
        """What `call` gives; it raises TimeoutError after a tick.

        Raises:
            Cancelled: when the one who waits was cancelled, though bytes may come all the time.
            TimeoutError: when nothing came for too long, or the time is up.
        """
        now = time.monotonic()
        end = self._until if self._silence is None else min(self._until, now + self._silence)
        while now < end:
            if now >= self._next:
                self._next = now + _TICK
                if self._cancelled():
                    raise Cancelled
            try:
                return call()
            except TimeoutError:
                now = time.monotonic()
        raise TimeoutError("it took too long")


class Stream:
    """A connected socket, used by one exchange at a time."""

    def __init__(self, connected: socket.socket, patience: Patience) -> None:
        self._socket, self._patience = connected, patience
        self._buffer = memoryview(bytearray(1 << 16))
        connected.settimeout(_TICK)

    def send(self, data: bytes) -> None:
        """Send all of it; who answers before it has read all is heard all the same."""
        left = memoryview(data)
        with contextlib.suppress(ConnectionError):
            while left:
                left = left[self._patience.tried(lambda: self._socket.send(left)) :]  # noqa: B023

    def receive(self) -> memoryview:
        """The next bytes, until it is called again; none when there are no more."""
        return self._buffer[: self._patience.tried(lambda: self._socket.recv_into(self._buffer))]

    def end(self) -> None:
        """Close it."""
        self._socket.close()

    def is_readable(self) -> bool:
        """Whether bytes, or the end, have come that nobody asked for: it is of no more use."""
        if not hasattr(select, "poll"):  # Windows
            return bool(select.select([self._socket], [], [], 0)[0])
        poll = select.poll()  # select knows no descriptor above 1024
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))


def aside(call: Callable[[], T], patience: Patience, late: Callable[[T], object]) -> T:
    """What `call` gives, made by a thread that nobody need wait for: nothing breaks off the look-up of a name.

    Args:
        call: raises what it likes.
        patience: who waits.
        late: told what came when nobody waited any more.
    """
    made: Future[T] = Future()

    def make() -> None:
        try:
            made.set_result(call())
        except BaseException as problem:
            made.set_exception(problem)

    def dropped(made: Future[T]) -> None:
        if made.exception() is None:
            late(made.result())

    threading.Thread(target=make, name="connecting", daemon=True).start()
    try:
        patience.tried(lambda: made.exception(_TICK))
    except BaseException:
        made.add_done_callback(dropped)
        raise
    return made.result()
