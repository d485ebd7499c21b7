"""HTTP exchanges that can be given up at any time, whatever the other side does or does not do.

httpx does the exchange, in a thread kept for that; whoever waits for it stops waiting when the run is cancelled or the
time is up, while the thread ends with its connection's timeout. Nothing is repeated, and redirects are not followed.

Each thread has connections of its own: a pool that many share looks at all of its connections at each request.
"""

from __future__ import annotations

import queue
import ssl
import threading
import time
import urllib.request
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httpx

from toolkit.errors import Cancelled
from toolkit.liveness import after_fork
from toolkit.settings import is_loopback
from toolkit.wavespeed.replies import Lost, Unreachable

_TICK = 0.2
"""Seconds between looks at whether the caller cancelled."""

_IDLE = 10.0
"""Seconds after which a thread that nobody needs ends, and its connections with it."""

_NOT_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError,
    httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL,
)  # fmt: skip


@dataclass(frozen=True)
class Reply:
    """A whole answer; `headers` are by name in either case."""

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
        self._environment = not is_loopback(base_url)
        self._proxy, self._connect = proxy, connect
        self._trusted: ssl.SSLContext | None = None
        self._fresh()
        after_fork(self, Traffic._fresh)

    def _fresh(self) -> None:
        self._idle: deque[_Carrier] = deque()
        self._mutex = threading.Lock()

    def close(self) -> None:
        """End the connections that are not in use."""
        while self._idle:
            self._idle.pop().end()

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
        timeout = {"connect": self._connect, "read": read, "write": read, "pool": total}
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **headers}

        def exchange(carrier: _Carrier) -> Reply:
            try:
                request = httpx.Request(method, address, headers=headers, content=body, extensions={"timeout": timeout})
                return _exchanged(carrier.transport(self._proxy_for(request.url)), request, limit, until)
            except _NOT_SENT as problem:
                raise Unreachable(f"WaveSpeed: {_host(address)} cannot be reached ({_reason(problem)})") from None
            except (httpx.HTTPError, httpx.StreamError, ValueError) as problem:
                raise Lost(f"WaveSpeed: the connection to {_host(address)} was lost ({_reason(problem)})") from None

        try:
            carrier = self._idle.pop()
        except IndexError:
            carrier = _Carrier(self._idle, self._context())
        answer = carrier.begin(exchange)
        while True:
            try:
                reply = answer.get(timeout=_TICK)
            except queue.Empty:
                if cancelled():
                    raise Cancelled from None
                if time.monotonic() > until:
                    raise Lost(f"WaveSpeed: {_host(address)} took too long to answer") from None
            else:
                if isinstance(reply, BaseException):
                    raise reply
                return reply

    def _context(self) -> ssl.SSLContext:
        """Whom to trust, read once: that takes as long as a hundred exchanges."""
        with self._mutex:
            self._trusted = self._trusted or httpx.create_ssl_context()
            return self._trusted

    def _proxy_for(self, url: httpx.URL) -> str:
        if self._proxy or not self._environment or urllib.request.proxy_bypass(url.host):
            return self._proxy
        proxies = urllib.request.getproxies()
        found = proxies.get(url.scheme) or proxies.get("all") or ""
        return found if "://" in found or not found else f"http://{found}"


Exchange = Callable[["_Carrier"], Reply]
Answer = queue.SimpleQueue[Reply | BaseException]


class _Carrier:
    """A thread and its connections: one exchange after the other, until nobody has needed it for a while.

    Args:
        idle: where it lies while it has nothing to do; whoever takes it from there may begin an exchange.
        trusted: for its connections.
    """

    def __init__(self, idle: deque[_Carrier], trusted: ssl.SSLContext) -> None:
        self._idle, self._trusted = idle, trusted
        self._transports: dict[str, httpx.HTTPTransport] = {}
        self._inbox: queue.SimpleQueue[tuple[Exchange, Answer] | None] = queue.SimpleQueue()
        threading.Thread(target=self._serve, name="wavespeed", daemon=True).start()

    def begin(self, exchange: Exchange) -> Answer:
        """Where the reply comes, or what went wrong."""
        answer: Answer = queue.SimpleQueue()
        self._inbox.put((exchange, answer))
        return answer

    def end(self) -> None:
        """Close the connections."""
        self._inbox.put(None)

    def transport(self, proxy: str) -> httpx.HTTPTransport:
        """The connections by way of a proxy; of none where that is empty."""
        if proxy not in self._transports:
            self._transports[proxy] = httpx.HTTPTransport(verify=self._trusted, proxy=proxy or None)
        return self._transports[proxy]

    def _serve(self) -> None:
        while work := self._next():
            exchange, answer = work
            try:
                reply: Reply | BaseException = exchange(self)
            except BaseException as problem:
                reply = problem
            self._idle.append(self)
            answer.put(reply)
            del work, exchange, answer, reply  # nothing is kept alive meanwhile
        for transport in self._transports.values():
            transport.close()

    def _next(self) -> tuple[Exchange, Answer] | None:
        while True:
            try:
                return self._inbox.get(timeout=_IDLE)
            except queue.Empty:
                try:
                    self._idle.remove(self)
                except ValueError:  # taken just now
                    continue
                return None


def _exchanged(transport: httpx.HTTPTransport, request: httpx.Request, limit: int, until: float) -> Reply:
    answer = transport.handle_request(request)
    try:
        return Reply(answer.status_code, answer.headers, _whole(answer, limit, until))
    finally:
        answer.close()


def _whole(answer: httpx.Response, limit: int, until: float) -> bytes:
    length = answer.headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise Lost(f"WaveSpeed: an answer of {length} bytes came, at most {limit} are taken")
    parts, total = [], 0
    assert isinstance(answer.stream, httpx.SyncByteStream)
    for part in answer.stream:
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
