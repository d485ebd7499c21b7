"""Sockets for httpcore that wait a tick at a time, and look in between whether anybody still waits for them."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any, TypeVar

import httpcore

from toolkit.errors import Cancelled

_TICK = 0.2
"""Seconds between looks."""

T = TypeVar("T")


class Patience:
    """Who waits for a connection's exchange, and until when; begun anew for each."""

    def __init__(self) -> None:
        self.end()

    def begin(self, cancelled: Callable[[], bool], until: float) -> None:
        """Wait until the monotonic clock says `until`, or `cancelled` says so."""
        self._cancelled, self._until, self._next = cancelled, until, time.monotonic() + _TICK

    def end(self) -> None:
        """Nobody waits: nothing of the exchange is kept alive."""
        self.begin(lambda: False, 0.0)

    def tried(self, call: Callable[[float], T], silence: float | None, late: type[Exception]) -> T:
        """What `call` gives; it is told how long to take, and raises TimeoutError or `late` after that.

        Raises:
            Cancelled: when the one who waits was cancelled, though bytes may come all the time.
            Exception: `late`, when nothing came for `silence` seconds, or the time is up.
        """
        now = time.monotonic()
        end = self._until if silence is None else min(self._until, now + silence)
        while now < end:
            if now >= self._next:
                self._next = now + _TICK
                if self._cancelled():
                    raise Cancelled
            try:
                return call(_TICK)
            except (TimeoutError, late):
                now = time.monotonic()
        raise late("it took too long")


class Sockets(httpcore.NetworkBackend):
    """Makes a connection's socket."""

    def __init__(self, patience: Patience) -> None:
        self._patience = patience

    def connect_tcp(
        self, host: str, port: int, timeout: float | None = None, local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:  # fmt: skip
        """As httpcore does it, but aside: nothing breaks off the look-up of a name."""
        system = httpcore.SyncBackend()
        made = _aside(lambda: system.connect_tcp(host, port, timeout, local_address, socket_options), self._patience)
        return _Stream(made, self._patience)


class _Stream(httpcore.NetworkStream):
    """A connection's bytes."""

    def __init__(self, stream: httpcore.NetworkStream, patience: Patience) -> None:
        self._stream, self._patience = stream, patience
        self._socket = stream.get_extra_info("socket")
        self._nested = isinstance(stream.get_extra_info("ssl_object"), ssl.SSLObject)  # TLS to a host within a proxy's

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._patience.tried(lambda tick: self._stream.read(max_bytes, tick), timeout, httpcore.ReadTimeout)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        if self._nested:
            self._stream.write(buffer, timeout)
            return
        left = memoryview(buffer)

        def send(tick: float) -> int:
            self._socket.settimeout(tick)
            sent: int = self._socket.send(left)
            return sent

        try:
            while left:
                left = left[self._patience.tried(send, timeout, httpcore.WriteTimeout) :]
        except OSError as problem:
            raise httpcore.WriteError(str(problem)) from problem

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        stream = self._stream
        return _Stream(
            _aside(lambda: stream.start_tls(ssl_context, server_hostname, timeout), self._patience), self._patience
        )

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _aside(call: Callable[[], httpcore.NetworkStream], patience: Patience) -> httpcore.NetworkStream:
    """What `call` gives, made by a thread that nobody need wait for."""
    made: Future[httpcore.NetworkStream] = Future()

    def make() -> None:
        try:
            made.set_result(call())
        except BaseException as problem:
            made.set_exception(problem)

    threading.Thread(target=make, name="connecting", daemon=True).start()
    try:
        patience.tried(made.exception, None, httpcore.ConnectTimeout)
    except BaseException:
        made.add_done_callback(_closed)
        raise
    return made.result()


def _closed(made: Future[httpcore.NetworkStream]) -> None:
    if made.exception() is None:
        made.result().close()
