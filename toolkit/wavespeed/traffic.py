"""HTTP exchanges that can be given up at any time, whatever the other side does or does not do.

httpx does the exchange, in a thread kept for that; whoever waits for it stops waiting when the run is cancelled or the
time is up, while the thread ends with its connection's timeout. Nothing is repeated, and redirects are not followed.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from toolkit.errors import Cancelled
from toolkit.liveness import after_fork
from toolkit.settings import is_loopback
from toolkit.wavespeed.replies import Lost, Unreachable

T = TypeVar("T")

_TICK = 0.2
"""Seconds between looks at whether the caller cancelled."""

_IDLE = 10.0
"""Seconds after which a thread that nobody needs ends."""

_CONNECTIONS = 512
"""At once, more than any account may have tasks in flight on one machine."""

_NOT_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError,
    httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL,
)  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """A whole answer; `headers` are by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Traffic:
    """Connections, kept while they are of use; safe to use from several threads.

    Args:
        base_url: of the service; on this machine no proxy of the environment is used.
        proxy: address of one for everything; empty for the environment's.
        connect: seconds until a connection must stand.
    """

    def __init__(self, base_url: str, proxy: str = "", connect: float = 10.0) -> None:
        self._base_url, self._proxy, self._connect = base_url, proxy, connect
        self._fresh()
        after_fork(self, Traffic._fresh)

    def _fresh(self) -> None:
        self._threads: deque[queue.SimpleQueue[Any]] = deque()
        self._http = httpx.Client(
            proxy=self._proxy or None,
            trust_env=not is_loopback(self._base_url),
            limits=httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS),
            headers={"Accept-Encoding": "identity"},
        )
        weakref.finalize(self, self._http.close)

    def close(self) -> None:
        """End the connections."""
        self._http.close()

    def ask(
        self, method: str, address: str, headers: Mapping[str, str], body: bytes | None = None, *,
        limit: int, read: float, total: float, cancelled: Callable[[], bool] = lambda: False,
    ) -> Reply:  # fmt: skip
        """One request and its whole answer.

        Args:
            limit: bytes of the answer's body at most.
            read: seconds of silence at most.
            total: seconds for all of it.
            cancelled: asked several times a second.

        Raises:
            Unreachable: when no connection could be made: nothing was sent.
            Lost: when something was sent, or may have been, and no whole answer came.
            Cancelled: when `cancelled` said so; the request may have been sent.
        """
        until = time.monotonic() + total
        timeout = httpx.Timeout(read, connect=self._connect, pool=total)
        client = self._http

        def exchange() -> Reply:
            try:
                with client.stream(method, address, headers=headers, content=body, timeout=timeout) as answer:
                    return Reply(answer.status_code, dict(answer.headers), _whole(answer, limit, until))
            except _NOT_SENT as problem:
                raise Unreachable(f"WaveSpeed: {_host(address)} cannot be reached ({_reason(problem)})") from None
            except (httpx.HTTPError, httpx.StreamError, ValueError) as problem:
                raise Lost(f"WaveSpeed: the connection to {_host(address)} was lost ({_reason(problem)})") from None

        return self._aside(exchange, cancelled, until, address)

    def _aside(self, call: Callable[[], T], cancelled: Callable[[], bool], until: float, address: str) -> T:
        answer: Future[T] = Future()
        try:
            inbox = self._threads.pop()
        except IndexError:
            inbox = queue.SimpleQueue()
            threading.Thread(target=_serve, args=(inbox, self._threads), name="wavespeed", daemon=True).start()
        inbox.put((call, answer))
        while True:
            try:
                return answer.result(_TICK)
            except TimeoutError:
                if answer.done():
                    continue
            if cancelled():
                raise Cancelled
            if time.monotonic() > until:
                raise Lost(f"WaveSpeed: {_host(address)} took too long to answer")


def _serve(inbox: queue.SimpleQueue[Any], idle: deque[queue.SimpleQueue[Any]]) -> None:
    """A thread's work: one call after the other, until nobody has needed it for a while."""
    while True:
        try:
            call, answer = inbox.get(timeout=_IDLE)
        except queue.Empty:
            try:
                idle.remove(inbox)
            except ValueError:  # taken just now
                continue
            return
        try:
            result = call()
        except BaseException as problem:
            idle.append(inbox)
            answer.set_exception(problem)
        else:
            idle.append(inbox)
            answer.set_result(result)
            del result
        del call, answer  # nothing is kept alive meanwhile


def _whole(answer: httpx.Response, limit: int, until: float) -> bytes:
    length = answer.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise Lost(f"WaveSpeed: an answer of {length} bytes came, at most {limit} are taken")
    parts, total = [], 0
    for part in answer.iter_raw():
        parts.append(part)
        total += len(part)
        if total > limit:
            raise Lost(f"WaveSpeed: an answer of more than {limit} bytes came")
        if time.monotonic() > until:
            raise Lost("WaveSpeed: an answer took too long")
    return b"".join(parts)


def _host(address: str) -> str:
    return address.split("/", 3)[2] if address.count("/") > 1 else address[:200]


def _reason(problem: Exception) -> str:
    return str(problem) or type(problem).__name__
