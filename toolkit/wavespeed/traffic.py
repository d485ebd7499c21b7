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
from typing import Any, TypeVar, cast

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

_LIMITS = httpx.Limits(keepalive_expiry=_IDLE)

T = TypeVar("T")
_Inbox = queue.SimpleQueue[tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None]
"""Of a thread: what to call, and where its answer is waited for."""


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
        self._proxies: dict[tuple[str, str], str] = {}
        self._trusted: ssl.SSLContext | None = None
        self._fresh()
        after_fork(self, Traffic._fresh)

    def _fresh(self) -> None:
        self._idle: deque[_Inbox] = deque()
        self._mutex = threading.Lock()
        self._here = threading.local()

    def close(self) -> None:
        """End the connections that are not in use."""
        while self._idle:
            self._idle.pop().put(None)

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

        def exchange() -> Reply:
            try:
                request = httpx.Request(method, address, headers=headers, content=body, extensions={"timeout": timeout})
                return _exchanged(self._transport(request.url), request, limit, until)
            except _NOT_SENT as problem:
                raise Unreachable(f"WaveSpeed: {_host(address)} cannot be reached ({_reason(problem)})") from None
            except (httpx.HTTPError, httpx.StreamError, ValueError) as problem:
                raise Lost(f"WaveSpeed: the connection to {_host(address)} was lost ({_reason(problem)})") from None

        return self.aside(exchange, f"{_host(address)} took too long to answer", total, cancelled)

    def aside(self, call: Callable[[], T], late: str, total: float, cancelled: Callable[[], bool]) -> T:
        """What `call` gives, done in a thread with connections; what is asked within it is asked in the same one.

        Raises:
            Lost: saying `late` when it took more than `total` seconds; the thread goes on.
            Cancelled: when `cancelled` said so.
        """
        if getattr(self._here, "transports", None) is not None:
            if cancelled():
                raise Cancelled
            return call()
        try:
            inbox = self._idle.pop()
        except IndexError:
            inbox = queue.SimpleQueue()
            threading.Thread(target=self._serve, args=(inbox,), name="wavespeed", daemon=True).start()
        answer: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()
        inbox.put((call, answer))
        until = time.monotonic() + total
        while True:
            try:
                result, problem = answer.get(timeout=_TICK)
            except queue.Empty:
                if cancelled():
                    raise Cancelled from None
                if time.monotonic() > until:
                    raise Lost(f"WaveSpeed: {late}") from None
            else:
                if problem is not None:
                    raise problem
                return cast(T, result)

    def _serve(self, inbox: _Inbox) -> None:
        """A thread's work: one call after the other, until nobody has needed it for a while."""
        transports: dict[str, httpx.HTTPTransport] = {}
        self._here.transports = transports
        while work := self._next(inbox):
            call, answer = work
            result, problem = None, None
            try:
                result = call()
            except BaseException as failure:
                problem = failure
            self._idle.append(inbox)
            answer.put((result, problem))
            del work, call, answer, result, problem  # nothing is kept alive meanwhile
        for transport in transports.values():
            transport.close()

    def _next(self, inbox: _Inbox) -> tuple[Callable[[], Any], queue.SimpleQueue[Any]] | None:
        while True:
            try:
                return inbox.get(timeout=_IDLE)
            except queue.Empty:
                try:
                    self._idle.remove(inbox)
                except ValueError:  # taken just now
                    continue
                return None

    def _transport(self, url: httpx.URL) -> httpx.HTTPTransport:
        """This thread's connections, by the proxy that leads to an address."""
        transports, place = self._here.transports, (url.scheme, url.host)
        if place not in self._proxies:
            self._proxies[place] = self._proxy_for(url)
        proxy = self._proxies[place]
        if proxy not in transports:
            try:
                transports[proxy] = httpx.HTTPTransport(verify=self._context(), proxy=proxy or None, limits=_LIMITS)
            except (ImportError, ValueError) as problem:
                raise httpx.ProxyError(f"the proxy cannot be used: {problem}") from None
        found: httpx.HTTPTransport = transports[proxy]
        return found

    def _context(self) -> ssl.SSLContext:
        """Whom to trust, read once: that takes as long as a hundred exchanges."""
        with self._mutex:
            self._trusted = self._trusted or httpx.create_ssl_context()
            return self._trusted

    def _proxy_for(self, url: httpx.URL) -> str:
        """The way to an address by settings and environment; empty where none stands between."""
        if self._proxy or not self._environment or urllib.request.proxy_bypass(url.host):
            return self._proxy
        proxies = urllib.request.getproxies()
        found = proxies.get(url.scheme) or proxies.get("all") or ""
        return found if "://" in found or not found else f"http://{found}"


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
