"""HTTP requests as they are written, and answers as llhttp reads them: http.client takes more than twice as long."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import httptools

from toolkit.wavespeed.replies import Lost

_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+: [\t -~\x80-\xff]*")

_HEAD = 1 << 17
"""Bytes of an answer's head at most; what divides its body into chunks may add an eighth of the body."""


class Unwritable(ValueError):
    """A request that cannot be sent."""


@dataclass(frozen=True)
class Reply:
    """A whole answer; the names of `headers` are in lower case, and of several alike the first counts."""

    status: int
    headers: Mapping[str, str]
    body: bytes


def request(method: str, target: str, headers: Mapping[str, str], body: tuple[bytes, ...] | None) -> bytes:
    """A request as it goes over the wire; of headers that differ in case only the last counts.

    Args:
        body: in parts, which are put together once; None for a request without one.

    Raises:
        Unwritable: when a header holds what none can.
    """
    length = {} if body is None else {"Content-Length": str(sum(map(len, body)))}
    lines = {name.lower(): f"{name}: {value}" for name, value in {**headers, **length}.items()}
    if not all(map(_HEADER.fullmatch, lines.values())):
        raise Unwritable("a header holds what none can")
    head = "\r\n".join((f"{method} {target} HTTP/1.1", *lines.values(), "", ""))
    return b"".join((head.encode("latin-1"), *(body or ())))


def answer(receive: Callable[[], bytes | memoryview], limit: int) -> tuple[Reply, bool]:
    """An answer, and whether its connection may be used again.

    Args:
        receive: gives the next bytes, none when there are no more.
        limit: bytes of the body at most.

    Raises:
        ConnectionError: when the connection ends before the answer is whole, or it is no HTTP.
        Lost: when it is too large.
    """
    heard = _Heard()
    parser = heard.parser = httptools.HttpResponseParser(heard)
    received = 0
    try:
        while not heard.whole:
            if not (data := receive()):
                if heard.ends_with_connection():
                    return Reply(heard.status, heard.headers, b"".join(heard.parts)), False
                raise ConnectionError("it ended before its answer was whole")
            try:
                parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as problem:
                if problem.__context__ and not isinstance(problem.__context__, Exception):
                    raise problem.__context__ from None  # Ctrl-C
                heard.keep = False
                if not heard.whole:
                    raise ConnectionError(f"its answer is no HTTP: {problem}") from None
            received += len(data)
            length = int(heard.headers.get("content-length", 0))
            if length > limit:
                raise Lost(f"WaveSpeed: an answer of {length} bytes came, at most {limit} are taken")
            if heard.size > limit:
                raise Lost(f"WaveSpeed: an answer of more than {limit} bytes came")
            if received - heard.size > _HEAD + heard.size // 8:
                raise Lost(f"WaveSpeed: an answer with more than {_HEAD} bytes around its content came")
        return Reply(heard.status, heard.headers, b"".join(heard.parts)), heard.keep
    finally:
        heard.parser = None  # a circle, which would be kept until the next collection


class _Heard:
    """What came of an answer so far; httptools calls it. Answers that only promise another (1xx) are passed over."""

    def __init__(self) -> None:
        self.parser: httptools.HttpResponseParser | None = None
        self.whole = self.keep = False
        self._begin()

    def _begin(self) -> None:
        self.status, self.size = 0, 0
        self.headers: dict[str, str] = {}
        self.parts: list[bytes] = []

    def ends_with_connection(self) -> bool:
        """Whether it has no other end."""
        return self.status >= 200 and not {"content-length", "transfer-encoding"} & self.headers.keys()

    def on_message_begin(self) -> None:
        if self.whole:
            self.keep = False  # more came than was asked for: whose answer would the next one be?
        else:
            self._begin()

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.status:  # those that follow the body count for nothing
            self.headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        if not self.whole and self.parser:
            self.status = self.parser.get_status_code()

    def on_body(self, data: bytes) -> None:
        if not self.whole:
            self.parts.append(data)
            self.size += len(data)

    def on_message_complete(self) -> None:
        if not self.whole and self.parser:
            self.whole, self.keep = self.status >= 200, self.parser.should_keep_alive()  # later it knows no more
