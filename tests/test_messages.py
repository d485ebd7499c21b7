"""Requests as they are written and answers as they are read, with http.client as the reference."""

from __future__ import annotations

import http.client
import io
import itertools
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.wavespeed import messages
from toolkit.wavespeed.messages import Reply, Unwritable, answer, request
from toolkit.wavespeed.replies import Lost

LIMIT = 5000
NAMES = st.from_regex(r"[Xx]-[A-Za-z]{1,8}", fullmatch=True)
VALUES = st.from_regex(r"[!-~]{1,20}(?: [!-~]{1,20})?", fullmatch=True)
HOW = st.sampled_from(["length", "chunks", "end"])
PROMISES = (b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 103 Early Hints\r\nX-A: 1\r\nLink: </a>\r\n\r\n")


class Wire:
    """A connection's other side; http.client reads from it as from a socket."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)

    def receive(self) -> bytes:
        return self.pieces.pop(0) if self.pieces else b""

    def makefile(self, mode: str) -> io.BytesIO:
        return io.BytesIO(b"".join(self.pieces))


def written(status: int, headers: dict[str, str], body: bytes, how: str, sizes: list[int]) -> bytes:
    """An answer as a server sends it."""
    head = f"HTTP/1.1 {status} Some Words\r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if how == "length":
        return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    if how == "end":
        return f"{head}Connection: close\r\n\r\n".encode() + body
    parts, left = b"", body
    for size in [*sizes, len(body)]:
        if left:
            parts += f"{len(left[:size]):x};of=it\r\n".encode() + left[:size] + b"\r\n"
            left = left[size:]
    return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + parts + b"0\r\nX-Late: 1\r\n\r\n"


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[first:last] for first, last in itertools.pairwise(edges)]


@given(
    st.sampled_from([200, 201, 400, 429, 502]), st.dictionaries(NAMES, VALUES, max_size=4), st.binary(max_size=99), HOW,
    st.lists(st.integers(1, 90), max_size=4), st.lists(st.integers(0, 2000), max_size=12), st.sampled_from([0, 1, 2]),
)  # fmt: skip
def test_an_answer_is_read_as_the_reference_reads_it_however_it_comes(
    status: int, headers: dict[str, str], body: bytes, how: str, sizes: list[int], places: list[int], promises: int
) -> None:
    data = written(status, headers, body, how, sizes)
    reference = http.client.HTTPResponse(Wire(data))  # type: ignore[arg-type]
    reference.begin()
    before = b"".join(PROMISES[:promises])
    reply, kept = answer(Wire(*cut(before + data, places)).receive, LIMIT)
    assert (reply.status, reply.body) == (reference.status, reference.read()) == (status, body)
    assert kept == (how != "end")
    for name in headers:
        assert reply.headers[name.lower()] == reference.headers[name]
    assert "link" not in reply.headers


@given(st.binary(min_size=1, max_size=100), st.sampled_from(["length", "chunks"]), st.integers(0, 10_000))
def test_an_answer_that_ends_too_early_is_none(body: bytes, how: str, place: int) -> None:
    data = written(200, {}, body, how, [7])
    with pytest.raises(ConnectionError, match="before its answer was whole"):
        answer(Wire(data[: place % len(data)]).receive, LIMIT)


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH_9.6\r\n", b"<html>no</html>", b"HTTP/1.1 200 OK\r\nContent-Length: ten\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", b"HTTP/1.1 101 go\r\nUpgrade: x\r\n"
     b"Connection: upgrade\r\n\r\nrest", b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"],
)  # fmt: skip
def test_what_is_no_http_is_said(data: bytes) -> None:
    with pytest.raises(ConnectionError, match="no HTTP|before its answer"):
        answer(Wire(data).receive, LIMIT)


def endless(head: bytes, part: bytes) -> Callable[[], bytes]:
    pieces = iter([head])
    return lambda: next(pieces, part)


@pytest.mark.parametrize(
    ("head", "part", "said"),
    [(b"HTTP/1.1 200 OK\r\nContent-Length: 5368709120\r\n\r\n", b"", "5368709120 bytes came, at most 5000"),
     (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"64\r\n" + bytes(100) + b"\r\n", "more than 5000"),
     (b"HTTP/1.1 200 OK\r\n\r\n", bytes(100), "more than 5000"),
     (b"HTTP/1.1 200 OK\r\n", b"X-A: b\r\n" * 999, "bytes around its content"),
     (b"HTTP/1.1 200 OK\r\nX-A: ", b"b" * 9999, "bytes around its content"),
     (PROMISES[0], PROMISES[0] * 99, "bytes around its content"),
     (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"X-A: b\r\n" * 999, "bytes around its content")],
)  # fmt: skip
def test_an_answer_that_is_too_large_is_given_up(head: bytes, part: bytes, said: str) -> None:
    with pytest.raises(Lost, match=said):
        answer(endless(head, part), LIMIT)


@pytest.mark.parametrize(
    "rest", [b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", b"HTTP/1.1 200", b"rubbish", b"\r\n"]
)
def test_what_comes_after_an_answer_does_not_change_it(rest: bytes) -> None:
    data = written(200, {"X-A": "1"}, b"body", "length", []) + rest
    reply, kept = answer(Wire(data).receive, LIMIT)
    assert kept == (not rest.strip())
    assert reply == Reply(200, {"x-a": "1", "content-length": "4"}, b"body")


@pytest.mark.parametrize(
    ("data", "kept"),
    [(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", False),
     (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok", True),
     (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok", False),
     (b"HTTP/1.1 204 No Content\r\n\r\n", True), (b"HTTP/1.1 304 Not Modified\r\n\r\n", True)],
)  # fmt: skip
def test_a_connection_is_kept_where_its_server_keeps_it(data: bytes, kept: bool) -> None:
    assert answer(Wire(data).receive, LIMIT)[1] == kept


@pytest.mark.parametrize("coding", ["Chunked", "gzip, chunked", "gzip\r\ntransfer-encoding: CHUNKED", "gzip"])
def test_an_answer_in_pieces_that_ends_too_early_is_none_however_it_is_said(coding: str) -> None:
    with pytest.raises(ConnectionError):
        answer(Wire(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: {coding}\r\n\r\n10\r\nabc".encode()).receive, LIMIT)


def test_what_is_said_after_the_body_is_no_header() -> None:
    data = b"HTTP/1.1 302 Found\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nLocation: http://other.invalid/\r\n\r\n"
    assert "location" not in answer(Wire(data).receive, LIMIT)[0].headers


def test_ctrl_c_while_an_answer_is_read_is_not_taken_for_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(heard: object, data: bytes) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(messages._Heard, "on_body", interrupted)
    with pytest.raises(KeyboardInterrupt):
        answer(Wire(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").receive, LIMIT)


def test_of_several_headers_alike_the_first_counts() -> None:
    data = b"HTTP/1.1 302 Found\r\nLocation: a\r\nlocation: b\r\nContent-Length: 0\r\n\r\n"
    assert answer(Wire(data).receive, LIMIT)[0].headers["location"] == "a"


def test_a_request_goes_as_it_is() -> None:
    head = b"POST /a?b HTTP/1.1\r\nHost: c\r\nX-D: e f\r\n"
    headers = {"Host": "c", "X-D": "e f"}
    assert request("POST", "/a?b", headers, (b"\r\n", b"\0")) == head + b"Content-Length: 3\r\n\r\n\r\n\0"
    assert request("POST", "/a?b", headers, b"") == head + b"Content-Length: 0\r\n\r\n"
    assert request("POST", "/a?b", headers, None) == head + b"\r\n"
    again = {"Host": "b", **headers, "host": "c", "content-length": "7"}
    assert request("POST", "/a?b", again, (b"d",)).split(b"\r\n")[1:] == [
        b"host: c", b"X-D: e f", b"Content-Length: 1", b"", b"d",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value"),
    [("A", "b\r\nC: d"), ("A", "b\nC: d"), ("A", "b\0"), ("A: b\r\nC", "d"), ("A b", "c"), ("", "a"), ("A", "\u20ac")],
)
def test_a_header_that_would_break_a_request_is_refused(name: str, value: str) -> None:
    with pytest.raises(Unwritable):
        request("GET", "/", {name: value}, None)
