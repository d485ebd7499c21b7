"""HTTP exchanges that can be given up at any time, whatever the other side does or does not do.

httpcore does them, in the calling thread: the half of httpx that speaks HTTP, without the half that costs as much
again. Nothing is repeated, and redirects are not followed.

An exchange has a connection for itself: a pool that many threads share looks at all of its connections each time.
"""

from __future__ import annotations

import ssl
import threading
import time
import urllib.request
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import httpcore
import httpx

from toolkit.errors import Cancelled
from toolkit.liveness import after_fork
from toolkit.settings import is_loopback
from toolkit.wavespeed.replies import Lost, Unreachable
from toolkit.wavespeed.sockets import Patience, Sockets

_SIGNS = "".join(map(chr, range(33, 127)))

_IDLE = 10.0
"""Seconds after which a connection that nobody needed is not used again."""

_NOT_SENT = (
    httpcore.ConnectError, httpcore.ConnectTimeout, httpcore.ProxyError, httpcore.UnsupportedProtocol,
    httpcore.LocalProtocolError,
)  # fmt: skip
_BROKEN = (httpcore.TimeoutException, httpcore.NetworkError, httpcore.ProtocolError, ValueError)


@dataclass(frozen=True)
class Reply:
    """A whole answer; `headers` are by name in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class _Line:
    """A connection, and how long whoever uses it waits."""

    way: httpcore.ConnectionInterface
    patience: Patience


_Idle = dict[tuple[bytes, bytes, int], deque[_Line]]


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
        self._idle: _Idle = {}
        weakref.finalize(self, _end, self._idle)
        self._fresh()
        after_fork(self, Traffic._fresh)

    def _fresh(self) -> None:
        self._mutex = threading.Lock()
        _end(self._idle)  # a forked child's are its parent's

    def close(self) -> None:
        """End the connections that are not in use."""
        _end(self._idle)

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
        if cancelled():
            raise Cancelled
        until = time.monotonic() + total
        try:
            request = _request(method, address, headers, body)
            request.extensions["timeout"] = {"connect": self._connect, "read": read, "write": read}
            return self._exchanged(request, limit, cancelled, until)
        except _NOT_SENT as problem:
            raise Unreachable(f"WaveSpeed: {_host(address)} cannot be reached ({_reason(problem)})") from None
        except _BROKEN as problem:
            raise Lost(f"WaveSpeed: the connection to {_host(address)} was lost ({_reason(problem)})") from None

    def _exchanged(self, request: httpcore.Request, limit: int, cancelled: Callable[[], bool], until: float) -> Reply:
        origin = request.url.origin
        idle = self._idle.setdefault((origin.scheme, origin.host, origin.port), deque())
        line = self._line(origin, idle)
        line.patience.begin(cancelled, until)
        try:
            answer = line.way.handle_request(request)
            try:
                headers = {name.lower().decode("ascii"): value.decode("latin-1") for name, value in answer.headers}
                return Reply(answer.status, headers, _whole(answer, headers, limit))
            finally:
                answer.close()
        finally:
            line.patience.end()
            if line.way.is_available():
                idle.append(line)
            else:
                line.way.close()

    def _line(self, origin: httpcore.Origin, idle: deque[_Line]) -> _Line:
        """A connection that is still good, the one used last, or else a new one."""
        while idle:
            try:
                line = idle.pop()
            except IndexError:  # another thread was first
                break
            if not line.way.has_expired():
                return line
            line.way.close()
        return self._opened(origin)

    def _opened(self, origin: httpcore.Origin) -> _Line:
        """One that connects when it is first used."""
        patience = Patience()
        try:
            pool = httpcore.ConnectionPool(
                ssl_context=self._context(), proxy=_proxy(self._way(origin.scheme.decode(), origin.host.decode())),
                keepalive_expiry=_IDLE, network_backend=Sockets(patience),
            )  # fmt: skip
            return _Line(pool.create_connection(origin), patience)
        except ImportError:
            raise httpcore.ProxyError('the proxy cannot be used: SOCKS needs `pip install "httpx[socks]"`') from None
        except (ValueError, httpx.InvalidURL) as problem:
            raise httpcore.ProxyError(f"the proxy cannot be used: {problem}") from None

    def _context(self) -> ssl.SSLContext:
        """Whom to trust, read once: that takes as long as a hundred exchanges."""
        with self._mutex:
            self._trusted = self._trusted or httpx.create_ssl_context()
            return self._trusted

    def _way(self, scheme: str, host: str) -> str:
        """The proxy by settings and environment; empty where none stands between."""
        if self._proxy or not self._environment or urllib.request.proxy_bypass(host):
            return self._proxy
        proxies = urllib.request.getproxies()
        found = proxies.get(scheme) or proxies.get("all") or ""
        return found if "://" in found or not found else f"http://{found}"


def _proxy(address: str) -> httpcore.Proxy | None:
    """By its address, which may hold a user's name and password."""
    if not address:
        return None
    found = httpx.Proxy(address)
    url = httpcore.URL(scheme=found.url.raw_scheme, host=found.url.raw_host, port=found.url.port, target="/")
    return httpcore.Proxy(url, auth=found.raw_auth)


def _request(method: str, address: str, headers: Mapping[str, str], body: bytes | None) -> httpcore.Request:
    """A request; what no address holds, such as a space, goes quoted, and all else as it is: it may be signed."""
    try:
        found = urlsplit(quote(address, _SIGNS))
        host, port = found.hostname or "", found.port
    except ValueError as problem:
        raise httpcore.UnsupportedProtocol(str(problem)) from None
    if found.scheme not in ("http", "https") or not host:
        raise httpcore.UnsupportedProtocol("no address on the web")
    target = (found.path or "/") + (f"?{found.query}" if found.query else "")
    given = {"Host": found.netloc.rpartition("@")[2], "Accept-Encoding": "identity", **headers}
    if body is not None:
        given["Content-Length"] = str(len(body))
    return httpcore.Request(
        method, httpcore.URL(scheme=found.scheme, host=host, port=port, target=target),
        headers=[(name.encode(), value.encode()) for name, value in given.items()], content=body,
    )  # fmt: skip


def _whole(answer: httpcore.Response, headers: Mapping[str, str], limit: int) -> bytes:
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > limit:
        raise Lost(f"WaveSpeed: an answer of {length} bytes came, at most {limit} are taken")
    parts, total = [], 0
    for part in answer.iter_stream():
        parts.append(part)
        total += len(part)
        if total > limit:
            raise Lost(f"WaveSpeed: an answer of more than {limit} bytes came")
    return b"".join(parts)


def _end(idle: _Idle) -> None:
    for lines in idle.values():
        while lines:
            lines.pop().way.close()


def _host(address: str) -> str:
    return address.split("/", 3)[2] if address.count("/") > 1 else address[:200]


def _reason(problem: Exception) -> str:
    return str(problem) or type(problem).__name__
