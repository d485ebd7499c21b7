"""HTTP exchanges that can be given up at any time, whatever the other side does or does not do.

They are done in the calling thread: httpx costs eight times as much. Nothing is repeated, and redirects are not
followed.

An exchange has a connection for itself: a pool that many threads share looks at all of its connections each time.
"""

from __future__ import annotations

import http.client
import re
import socket
import ssl
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import quote, urlsplit

import httpx

from toolkit.errors import Cancelled
from toolkit.liveness import after_fork
from toolkit.settings import is_loopback
from toolkit.wavespeed import messages
from toolkit.wavespeed.replies import Lost, Unreachable, short
from toolkit.wavespeed.routes import Route, of_environment, place, route
from toolkit.wavespeed.sockets import Patience, Stream, aside

_SIGNS = "".join(map(chr, range(33, 127)))
_PLAIN = re.compile(r"(https?)://([a-zA-Z0-9.-]+(?::[1-5]?[0-9]{1,4})?)(/[!\"$-~]*)")

_IDLE = 10.0
"""Seconds after which a connection that nobody needed is not used again."""


@dataclass
class _Line:
    """A connection that stands, how long whoever uses it waits, by whom it goes, and when it was last used."""

    route: Route
    stream: Stream
    patience: Patience
    by: str
    used: float = 0.0


_Idle = dict[tuple[str, str], deque[_Line]]


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
        self, method: str, address: str, headers: Mapping[str, str], body: tuple[bytes, ...] | None = None, *,
        limit: int, read: float, total: float, cancelled: Callable[[], bool] = lambda: False,
    ) -> messages.Reply:  # fmt: skip
        """One request and its whole answer.

        Args:
            body: in parts.
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
            scheme, host, target = _parts(address)
        except ValueError as problem:
            raise Unreachable(f"WaveSpeed: {_host(address)} cannot be reached ({problem})") from None
        line = self._line(scheme, host, cancelled, until)
        given = {"Host": host, "Accept-Encoding": "identity", **line.route.headers, **headers}
        kept = False
        line.patience.begin(cancelled, until, read)
        try:
            line.stream.send(messages.request(method, line.route.before + target, given, body))
            reply, kept = messages.answer(line.stream.receive, limit)
            if reply.status == 407 and line.route.before:  # the proxy's own answer: it passed nothing on
                raise _unreached(host, line.by, "it wants another name and password, HTTP 407", nobody=True)
            return reply
        except messages.Unwritable as problem:
            raise Unreachable(f"WaveSpeed: {_host(address)} was not asked ({problem})") from None
        except (OSError, ValueError) as problem:
            raise Lost(f"WaveSpeed: the connection to {_host(address)} was lost ({_reason(problem)})") from None
        finally:
            line.patience.end()
            if kept:
                line.used = time.monotonic()
                self._idle.setdefault((scheme, host), deque()).append(line)
            else:
                line.stream.end()

    def _line(self, scheme: str, host: str, cancelled: Callable[[], bool], until: float) -> _Line:
        """A connection that is still good, the one used last, or else a new one.

        Raises:
            Unreachable: when none can be made.
        """
        idle = self._idle.get((scheme, host), ())
        while idle:
            try:
                line = idle.pop()
            except IndexError:  # another thread was first
                break
            if time.monotonic() - line.used < _IDLE and not line.stream.is_readable():
                return line
            line.stream.end()
        proxy = self._proxy or (
            of_environment(scheme, urlsplit(f"//{host}").hostname or "") if self._environment else ""
        )
        patience = Patience()
        patience.begin(cancelled, until)
        of = f"that {'`wavespeed.proxy` in the settings' if self._proxy else 'the environment'} names"
        by = f" through the proxy {of}" if proxy else ""
        try:
            new = route(scheme, host, proxy, self._connect, self._context)
            by = f" through the proxy {place(proxy)} {of}" if proxy else ""
            return _Line(new, Stream(aside(new.connect, patience, lambda late: late.close()), patience), patience, by)
        except (OSError, http.client.HTTPException, ValueError) as problem:
            raise _unreached(host, by, _reason(problem), _is_nobody(problem)) from None

    def _context(self) -> ssl.SSLContext:
        """Whom to trust, read once: that takes as long as a hundred exchanges."""
        with self._mutex:
            self._trusted = self._trusted or httpx.create_ssl_context()
            return self._trusted


def _parts(address: str) -> tuple[str, str, str]:
    """Scheme, host with port, and path; what no address holds, such as a space, goes quoted, all else as it is.

    Raises:
        ValueError: when it is no address on the web.
    """
    if plain := _PLAIN.fullmatch(address):
        return plain[1], plain[2], plain[3]
    found = urlsplit(quote(address, _SIGNS))
    if found.scheme not in ("http", "https") or not found.hostname:
        raise ValueError("no address on the web")
    _ = found.port  # raises where it is none
    path = (found.path or "/") + (f"?{found.query}" if found.query else "")
    return found.scheme, found.netloc.rpartition("@")[2], path


def _end(idle: _Idle) -> None:
    for lines in idle.values():
        while lines:
            lines.pop().stream.end()


def _host(address: str) -> str:
    return address.split("/", 3)[2] if address.count("/") > 1 else address[:200]


def _unreached(host: str, by: str, why: str, nobody: bool) -> Unreachable:
    return Unreachable(f"WaveSpeed: {host} cannot be reached{by} ({why})", nobody)


def _is_nobody(problem: Exception) -> bool:
    cause = problem.__cause__ or problem  # python_socks says it in its own words
    unknown = isinstance(cause, socket.gaierror) and cause.errno != socket.EAI_AGAIN
    never = (ConnectionRefusedError, ssl.SSLCertVerificationError, ValueError)  # the last: a proxy that is none
    return unknown or isinstance(cause, never)


def _reason(problem: Exception) -> str:
    return short(str(problem)) or type(problem).__name__
