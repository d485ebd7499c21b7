"""A socket for http.client that waits a tick at a time, and looks in between whether anybody still waits for it."""

from __future__ import annotations

import contextlib
import io
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


class Stream(io.RawIOBase):
    """A connected socket as http.client uses one; what is written goes when an answer is waited for, in one piece."""

    def __init__(self, connected: socket.socket, patience: Patience) -> None:
        self._socket, self._patience = connected, patience
        self._written: list[bytes] = []
        connected.settimeout(_TICK)

    def makefile(self, mode: str) -> io.BufferedReader:
        """The answer's bytes."""
        return io.BufferedReader(self, 1 << 14)

    def sendall(self, data: bytes) -> None:
        """Take a part of the request."""
        self._written.append(data)

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Send what was written, and wait for bytes; 0 when there are no more."""
        if self._written:
            with contextlib.suppress(ConnectionError):  # who answers before it has read all is heard all the same
                self._send()
        return self._patience.tried(lambda: self._socket.recv_into(buffer))

    def close(self) -> None:
        """Nothing: http.client closes a connection while its last answer is still being read. See `end`."""

    def end(self) -> None:
        """Close the socket."""
        self._socket.close()

    def is_readable(self) -> bool:
        """Whether bytes, or the end, have come that nobody asked for: it is of no more use."""
        if not hasattr(select, "poll"):  # Windows
            return bool(select.select([self._socket], [], [], 0)[0])
        poll = select.poll()  # select knows no descriptor above 1024
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def _send(self) -> None:
        left = memoryview(b"".join(self._written))
        self._written.clear()
        while left:
            left = left[self._patience.tried(lambda: self._socket.send(left)) :]  # noqa: B023


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
