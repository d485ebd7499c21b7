"""A server of one file on loopback that does as it is told: breaks off, lies, redirects, changes its file, stalls."""

from __future__ import annotations

import contextlib
import gzip
import re
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self


@dataclass(frozen=True)
class Asked:
    """A request, its headers by name in lower case."""

    method: str
    path: str
    headers: dict[str, str]


class Server:
    """`with Server(content) as server:` answers each request as the next act of `script` does, and then honestly.

    Attributes:
        content: the file it has now.
        etag: what it says of that; empty for nothing.
        modified: the file's date; empty for nothing.
        extra: headers of every honest answer.
        asked: every request, in order.
        sent: bytes of bodies.
        watch: called with the bytes of a body that were sent, after each piece of `piece` bytes.
    """

    def __init__(self, content: bytes = b"") -> None:
        self.content, self.etag, self.modified = content, '"one"', ""
        self.extra: dict[str, str] = {}
        self.script: deque[Act] = deque()
        self.asked: list[Asked] = []
        self.sent, self.piece = 0, 1 << 14
        self.watch: Callable[[int], None] = lambda sent: None
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self._spawn(self._accept)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.over.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        for thread in self._threads:
            thread.join(10)

    def url(self, path: str = "/file.bin") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def _spawn(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self._spawn(self._answer, connection)

    def _answer(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            connection.settimeout(20)
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(4096)
                if not piece:
                    return
                head += piece
            first, *lines = head.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
            method, path, _ = first.split(" ")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            asked = Asked(method, path, headers)
            self.asked.append(asked)
            act = self.script.popleft() if self.script else honest
            act(self, asked, connection)

    def head(self, connection: socket.socket, status: int, headers: dict[str, str]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        connection.sendall(f"HTTP/1.1 {status} Said\r\n{lines}Connection: close\r\n\r\n".encode("latin-1"))

    def body(self, connection: socket.socket, data: bytes) -> None:
        for start in range(0, len(data), self.piece):
            piece = data[start : start + self.piece]
            connection.sendall(piece)
            self.sent += len(piece)
            self.watch(start + len(piece))

    def said(self) -> dict[str, str]:
        return (
            ({"ETag": self.etag} if self.etag else {})
            | ({"Last-Modified": self.modified} if self.modified else {})
            | self.extra
        )


Act = Callable[[Server, Asked, socket.socket], None]


def served(
    server: Server, asked: Asked, connection: socket.socket, cut: int | None = None, ranges: bool = True
) -> None:
    """The file, or the piece asked for if it is still the same file; only `cut` bytes of it where given."""
    found = re.fullmatch(r"bytes=(\d+)-", asked.headers.get("range", ""))
    same = asked.headers.get("if-range") in (None, server.etag, server.modified)
    total, start = len(server.content), int(found[1]) if found and same and ranges else 0
    if start >= total:
        server.head(connection, 416, {"Content-Range": f"bytes */{total}", "Content-Length": "0"})
        return
    headers = {"Content-Length": str(total - start), "Content-Type": "application/octet-stream", **server.said()}
    if start:
        headers["Content-Range"] = f"bytes {start}-{total - 1}/{total}"
    server.head(connection, 206 if start else 200, headers)
    server.body(connection, server.content[start:][:cut])


def honest(server: Server, asked: Asked, connection: socket.socket) -> None:
    served(server, asked, connection)


def ignores_range(server: Server, asked: Asked, connection: socket.socket) -> None:
    served(server, asked, connection, ranges=False)


def breaks_off(after: int) -> Act:
    """Ends the connection in the middle of the body."""
    return lambda server, asked, connection: served(server, asked, connection, cut=after)


def resets(after: int) -> Act:
    """As `breaks_off`, by a TCP reset."""

    def act(server: Server, asked: Asked, connection: socket.socket) -> None:
        served(server, asked, connection, cut=after)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    return act


def stalls(after: int) -> Act:
    """Sends some of it and then nothing, until the server ends."""

    def act(server: Server, asked: Asked, connection: socket.socket) -> None:
        served(server, asked, connection, cut=after)
        server.over.wait(20)

    return act


def says(status: int, **headers: str) -> Act:
    """A status without the file."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda server, asked, connection: server.head(connection, status, {"Content-Length": "0", **named})


def leads_to(address: str, status: int = 302, **headers: str) -> Act:
    return says(status, Location=address, **headers)


def sends(data: bytes, status: int = 200, **headers: str) -> Act:
    """Other bytes, with headers of their own; without Content-Length where that is given as empty."""

    def act(server: Server, asked: Asked, connection: socket.socket) -> None:
        named = {"Content-Length": str(len(data))} | {n.replace("_", "-"): value for n, value in headers.items()}
        server.head(connection, status, {name: value for name, value in named.items() if value})
        server.body(connection, data)

    return act


def chunked(server: Server, asked: Asked, connection: socket.socket, whole: bool = True) -> None:
    """The file in chunks, so that its length stands nowhere; without the last chunk unless `whole`."""
    server.head(connection, 200, {"Transfer-Encoding": "chunked", **server.said()})
    connection.sendall(f"{len(server.content):x}\r\n".encode() + server.content + b"\r\n")
    if whole:
        connection.sendall(b"0\r\n\r\n")


def broken_chunks(server: Server, asked: Asked, connection: socket.socket) -> None:
    chunked(server, asked, connection, whole=False)


def until_the_end(server: Server, asked: Asked, connection: socket.socket) -> None:
    """The file until the connection ends, as HTTP/1.0 does."""
    server.head(connection, 200, server.said())
    server.body(connection, server.content)


def another_piece(server: Server, asked: Asked, connection: socket.socket) -> None:
    """A piece that was not asked for."""
    total = len(server.content)
    headers = {"Content-Range": f"bytes 1-{total - 1}/{total}", "Content-Length": str(total - 1), **server.said()}
    server.head(connection, 206, headers)
    server.body(connection, server.content[1:])


def page(server: Server, asked: Asked, connection: socket.socket) -> None:
    sends(b"<html>please log in</html>", Content_Type="text/html; charset=utf-8")(server, asked, connection)


def zipped(server: Server, asked: Asked, connection: socket.socket) -> None:
    sends(gzip.compress(server.content), Content_Encoding="gzip")(server, asked, connection)


def hangs_up(server: Server, asked: Asked, connection: socket.socket) -> None:
    """No answer at all."""
