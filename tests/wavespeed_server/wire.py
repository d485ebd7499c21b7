"""HTTP/1.1 over asyncio streams, as little as the stand-in needs, with every byte under its control.

A reply goes out as a list of steps, so that a script can pause, break off or never end.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

MOST_HEAD = 64 * 1024
MOST_BODY = 512 * 1024 * 1024
PIECE = b"\xa5" * 65536


class Act(Enum):
    """Steps of a reply beside bytes to send and seconds to wait."""

    DROP = "close the connection now, without a word"
    ENDLESS = "send PIECE again and again until the client goes"
    ENDLESS_CHUNKS = "the same as HTTP chunks, the reply's head having promised no length"


Step = bytes | float | Act


@dataclass
class Request:
    """One request as it came, and what became of it.

    `headers` are by lower-case name, `at` and `done` in seconds of `time.monotonic`, `size` and `sent` in bytes of body
    received and of everything sent. `kind` is the endpoint ("submit", "poll", ...), `fault` what the script did to it,
    `status` the HTTP status answered (0: none).
    """

    method: str
    target: str
    headers: Mapping[str, str]
    at: float
    elsewhere: bool = False
    body: bytes = field(default=b"", repr=False)
    size: int = 0
    kind: str = ""
    fault: str = ""
    status: int = 0
    sent: int = 0
    done: float | None = None

    @property
    def path(self) -> str:
        return unquote(urlsplit(self.target).path)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.target).query))

    @property
    def origin(self) -> str:
        """Where the client says it is talking to: every URL it is given begins with this."""
        return f"http://{self.headers.get('host', '')}"

    @property
    def key(self) -> str | None:
        """The API key in `Authorization: Bearer`, None without one."""
        scheme, _, key = self.headers.get("authorization", "").partition(" ")
        return key if scheme.lower() == "bearer" and key else None

    def json(self) -> Any:
        """The body as JSON; ValueError if it is none."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Reply:
    """A whole answer: HTTP status, body and its type, further headers."""

    status: int
    body: bytes
    content_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    def head(self, length: int | None) -> bytes:
        """Status line and headers; without a `length` the body is promised in chunks."""
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}", f"Content-Type: {self.content_type}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        lines.append("Transfer-Encoding: chunked" if length is None else f"Content-Length: {length}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")

    def steps(self) -> list[Step]:
        return [self.head(len(self.body)) + self.body]


def envelope(data: Any, *, status: int = 200, code: int | None = None, message: str = "success") -> Reply:
    """The service's JSON around `data`; `code` is the status unless given."""
    value: dict[str, Any] = {"code": status if code is None else code, "message": message}
    if status == 200:
        value["data"] = data
    return Reply(status, json.dumps(value).encode())


def refusal(status: int, message: str, code: int | None = None, headers: Mapping[str, str] | None = None) -> Reply:
    """An error reply: `{code, message}`."""
    value = {"code": status if code is None else code, "message": message}
    return Reply(status, json.dumps(value).encode(), headers=headers or {})


async def streams(connection: socket.socket) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Reader and writer of a connection just accepted."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=MOST_HEAD)
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_accepted_socket(lambda: protocol, connection)
    return reader, asyncio.StreamWriter(transport, protocol, reader, loop)


async def read_head(reader: asyncio.StreamReader, elsewhere: bool) -> Request | None:
    """The next request without its body; None when the client has gone.

    Absolute targets are taken too, as a proxy gets them.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ConnectionError):
        return None
    first, *lines = head[:-4].decode("latin-1").split("\r\n")
    method, target, _ = [*first.split(" "), "", ""][:3]
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return Request(method, target, headers, time.monotonic(), elsewhere)


async def read_body(reader: asyncio.StreamReader, request: Request) -> Reply | None:
    """Read the body into `request`; a reply if it cannot be taken (without a length: as storage does)."""
    if "chunked" in request.headers.get("transfer-encoding", "").lower():
        # Read all the same: a connection closed with bytes unread is reset, and the answer may be lost with it.
        while size := int((await reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
        return refusal(411, "Length Required", headers={"Connection": "close"})
    text = request.headers.get("content-length", "0")
    if not text.isdecimal():
        return refusal(400, "Bad Request", headers={"Connection": "close"})
    length = int(text)
    if length > MOST_BODY:
        return refusal(413, "Payload Too Large", headers={"Connection": "close"})
    request.body = await reader.readexactly(length) if length else b""
    request.size = length
    return None


async def send(writer: asyncio.StreamWriter, steps: list[Step], request: Request) -> bool:
    """Carry out the steps of a reply; False when the connection is of no more use."""
    for step in steps:
        if isinstance(step, Act):
            if step is not Act.DROP:
                await _send_endlessly(writer, request, chunked=step is Act.ENDLESS_CHUNKS)
            writer.transport.abort()
            return False
        if isinstance(step, float):
            await asyncio.sleep(step)
            continue
        writer.write(step)
        request.sent += len(step)
        await writer.drain()
    return True


async def _send_endlessly(writer: asyncio.StreamWriter, request: Request, *, chunked: bool) -> None:
    piece = b"%x\r\n%s\r\n" % (len(PIECE), PIECE) if chunked else PIECE
    while not writer.transport.is_closing():
        writer.write(piece)
        request.sent += len(piece)
        await writer.drain()
        await asyncio.sleep(0)


def multipart_file(request: Request) -> tuple[str, bytes] | None:
    """File name and bytes of the form field `file`; None if the body has none."""
    boundary = request.headers.get("content-type", "").partition("boundary=")[2].strip('"')
    if not boundary:
        return None
    for part in request.body.split(b"--" + boundary.encode("latin-1")):
        head, _, content = part.partition(b"\r\n\r\n")
        named = dict(_parameters(head.decode("utf-8", "replace")))
        if named.get("name") == "file" and "filename" in named:
            return named["filename"], content.removesuffix(b"\r\n")
    return None


def _parameters(head: str) -> Iterator[tuple[str, str]]:
    for line in head.split("\r\n"):
        if line.lower().startswith("content-disposition:"):
            for item in line.split(";")[1:]:
                name, _, value = item.strip().partition("=")
                yield name, value.strip('"')
