"""HTTP exchanges that can be given up at any time, whatever the other side does or does not do.

Each runs in a thread of its own kept for that; whoever waits for it stops waiting when the run is cancelled or the
time is up, while the thread ends with its socket's timeout. Nothing is repeated, and redirects are not followed.
"""

from __future__ import annotations

import base64
import contextlib
import functools
import http.client
import queue
import re
import select
import socket
import ssl
import threading
import time
import urllib.request
import weakref
from collections import defaultdict, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar
from urllib.parse import quote, unquote, urlsplit

from toolkit.errors import Cancelled
from toolkit.liveness import after_fork
from toolkit.settings import is_loopback
from toolkit.wavespeed.replies import Lost, Unreachable

T = TypeVar("T")
Connection = http.client.HTTPConnection

_LINE = 1 << 16
"""Bytes of a header at most."""

_TICK = 0.2
"""Seconds between looks at whether the caller cancelled."""

_IDLE = 10.0
"""Seconds after which a thread that nobody needs ends."""

_PIECE = 1 << 18
_PORTS = {"http": 80, "https": 443}
_PLAIN = "/%:@!$&'()*+,;=~?"


class Origin(NamedTuple):
    """Where a connection leads."""

    scheme: str
    host: str
    port: int

    @classmethod
    def of(cls, address: str) -> Origin:
        """That of an address.

        Raises:
            ValueError: when it is no http or https address.
        """
        return _origin("/".join(address.split("/", 3)[:3]))

    @property
    def name(self) -> str:
        """Host and port as the header `Host` has them."""
        host = f"[{self.host}]" if ":" in self.host else self.host.encode("idna").decode()
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"


@functools.lru_cache(maxsize=64)
def _origin(address: str) -> Origin:
    parts = urlsplit(address)
    if parts.scheme not in _PORTS or not parts.hostname:
        raise ValueError(f"{address[:200]!r} is no address")
    return Origin(parts.scheme, parts.hostname, parts.port or _PORTS[parts.scheme])


@dataclass(frozen=True)
class Reply:
    """A whole answer; `headers` are by lower-case name."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Traffic:
    """Connections, kept while they are of use; safe to use from several threads.

    Args:
        proxy: http address of one for everything; empty for the environment's.
        connect: seconds until a connection must stand.
    """

    def __init__(self, proxy: str = "", connect: float = 10.0) -> None:
        self._proxy, self._connect = proxy, connect
        self._fresh()
        after_fork(self, Traffic._fresh)

    def _fresh(self) -> None:
        self._idle: defaultdict[Origin, deque[Connection]] = defaultdict(deque)
        self._threads: deque[queue.SimpleQueue[Any]] = deque()
        self._secure: ssl.SSLContext | None = None
        self._making = threading.Lock()
        weakref.finalize(self, _close, self._idle)

    def close(self) -> None:
        """End the connections that are not in use."""
        _close(self._idle)

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
        try:
            origin = Origin.of(address)
        except ValueError as problem:
            raise Lost(f"WaveSpeed: {problem}") from None

        def exchange() -> Reply:
            return self._exchanged(origin, method, address, headers, body, limit, read, until)

        return self._aside(exchange, cancelled, until, origin)

    def _exchanged(
        self, origin: Origin, method: str, address: str, headers: Mapping[str, str], body: bytes | None,
        limit: int, read: float, until: float,
    ) -> Reply:  # fmt: skip
        connection = self._connection(origin)
        try:
            assert connection.sock is not None
            connection.sock.settimeout(read)
            connection.sock.sendall(_written(origin, connection, method, address, headers, body))
            with contextlib.closing(_Answer(connection.sock, method=method)) as answer:
                answer.begin()
                reply = Reply(answer.status, answer.plain, _whole(answer, limit, until))
        except (OSError, http.client.HTTPException, ValueError) as problem:
            connection.close()
            raise Lost(f"WaveSpeed: the connection to {origin.host} was lost ({_reason(problem)})") from None
        except BaseException:
            connection.close()
            raise
        if answer.will_close:
            connection.close()
        else:
            self._idle[origin].append(connection)
        return reply

    def _connection(self, origin: Origin) -> Connection:
        """One that stands: kept from before, unless the other side has closed it meanwhile, or a new one."""
        idle = self._idle[origin]
        while idle:
            try:
                connection = idle.pop()
            except IndexError:  # another thread was first
                break
            if connection.sock is not None and not _readable(connection.sock):
                return connection
            connection.close()
        try:
            connection = self._opened(origin)
            connection.connect()
        except (OSError, http.client.HTTPException, ValueError) as problem:
            raise Unreachable(f"WaveSpeed: {origin.host} cannot be reached ({_reason(problem)})") from None
        return connection

    def _opened(self, origin: Origin) -> Connection:
        proxy = self._proxy
        if is_loopback(f"http://[{origin.host}]" if ":" in origin.host else f"http://{origin.host}"):
            proxy = ""
        elif not proxy and not urllib.request.proxy_bypass(origin.host):
            proxy = urllib.request.getproxies().get(origin.scheme, "")
        host, port, said = origin.host, origin.port, {}
        if proxy:
            way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            if way.scheme != "http" or not way.hostname:
                raise ValueError("only proxies with an address such as http://proxy.example.org:3128 are understood")
            host, port = way.hostname, way.port or 80
            if way.username:
                pair = f"{unquote(way.username)}:{unquote(way.password or '')}"
                said["Proxy-Authorization"] = f"Basic {base64.b64encode(pair.encode()).decode()}"
        if origin.scheme == "http":
            if said:
                raise ValueError("a proxy that asks for a password is used for https only")
            return Connection(host, port, timeout=self._connect)
        with self._making:
            if self._secure is None:
                import httpx  # its choice of certificates

                self._secure = httpx.create_ssl_context()
        connection = http.client.HTTPSConnection(host, port, timeout=self._connect, context=self._secure)
        if proxy:
            connection.set_tunnel(origin.host, origin.port, said)
        return connection

    def _aside(self, call: Callable[[], T], cancelled: Callable[[], bool], until: float, origin: Origin) -> T:
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
                raise Lost(f"WaveSpeed: {origin.host} took too long to answer")


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


class _Answer(http.client.HTTPResponse):
    """An answer whose headers are read plainly: the standard way is the dearest part of a short exchange."""

    plain: dict[str, str]

    def begin(self) -> None:
        """Read its head.

        Raises:
            HTTPException: when it is none.
        """
        self.status = 100
        while 100 <= self.status < 200:
            version, self.status, self.reason = self._read_status()  # type: ignore[attr-defined]
            self.plain = {}
            while (line := self.fp.readline(_LINE + 1)) not in (b"\r\n", b"\n"):
                if len(line) > _LINE or not line.endswith(b"\n") or len(self.plain) > 200:
                    raise http.client.HTTPException("its headers have no end")
                name, _, value = line.decode("latin-1").partition(":")
                self.plain[name.strip().lower()] = value.strip()
        said = self.plain.get("connection", "").lower()
        self.chunked = self.plain.get("transfer-encoding", "").lower() == "chunked"
        self.chunk_left = None
        length = self.plain.get("content-length", "")
        self.length = int(length) if length.isdecimal() and not self.chunked else None
        if self.status in (204, 304):
            self.length = 0
        self.will_close = (
            "close" in said
            or (version != "HTTP/1.1" and "keep-alive" not in said)
            or (self.length is None and not self.chunked)
        )


def _written(
    origin: Origin, connection: Connection, method: str, address: str, headers: Mapping[str, str], body: bytes | None
) -> bytes:
    """A request as it goes out.

    Raises:
        ValueError: when a header cannot be one.
    """
    parts = urlsplit(address)
    target = quote(parts.path or "/", safe=_PLAIN) + (f"?{quote(parts.query, safe=_PLAIN)}" if parts.query else "")
    if origin.scheme == "http" and (connection.host, connection.port) != (origin.host, origin.port):
        target = f"http://{origin.name}{target}"  # a proxy is told where it goes
    lines = {"Host": origin.name, "Accept-Encoding": "identity", **headers}
    if body is not None:
        lines["Content-Length"] = str(len(body))
    head = [f"{method} {target} HTTP/1.1"]
    for name, value in lines.items():
        if not re.fullmatch(r"[!#-'*+.^-z|~A-Z0-9-]+", name) or not re.fullmatch(r"[\t -~\x80-\xff]*", value):
            raise ValueError(f"{name[:40]!r} is no header")
        head.append(f"{name}: {value}")
    return "\r\n".join([*head, "\r\n"]).encode("latin-1") + (body or b"")


def _whole(answer: _Answer, limit: int, until: float) -> bytes:
    if answer.length is not None and answer.length > limit:
        raise Lost(f"WaveSpeed: an answer of {answer.length} bytes came, at most {limit} are taken")
    parts, total = [], 0
    while part := answer.read1(_PIECE):
        parts.append(part)
        total += len(part)
        if total > limit:
            raise Lost(f"WaveSpeed: an answer of more than {limit} bytes came")
        if time.monotonic() > until:
            raise Lost("WaveSpeed: an answer took too long")
    if answer.length:
        raise Lost("WaveSpeed: the connection was lost in the middle of an answer")
    return b"".join(parts)


def _readable(sock: socket.socket) -> bool:
    """Whether something came on an idle connection, which can only be its end."""
    if not hasattr(select, "poll"):  # Windows
        return bool(select.select([sock], [], [], 0)[0])
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(0))


def _close(idle: Mapping[Origin, deque[Connection]]) -> None:
    for connections in list(idle.values()):
        while connections:
            connections.pop().close()


def _reason(problem: Exception) -> str:
    return str(problem) or type(problem).__name__
