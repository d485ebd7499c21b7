"""By which way exchanges go."""

from __future__ import annotations

import base64
import contextlib
import socket
import socketserver
import ssl
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any, ClassVar

import pytest
import trustme

from toolkit.errors import Cancelled
from toolkit.wavespeed.replies import Unreachable
from toolkit.wavespeed.routes import place
from toolkit.wavespeed.sockets import Patience
from toolkit.wavespeed.traffic import Traffic

SERVICE = "http://service.invalid"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"


@contextmanager
def proxy(heads: list[str] | None = None, answer: bytes = OK) -> Iterator[tuple[str, list[str]]]:
    """A proxy that answers itself; its address, and the first lines it got. The other lines go to `heads`."""
    lines: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines.append(self.rfile.readline().decode().strip())
            while line := self.rfile.readline().decode().strip():
                if heads is not None:
                    heads.append(line)
            self.wfile.write(answer)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_address[1]}", lines
        server.shutdown()


def asked(traffic: Traffic) -> bytes:
    try:
        return traffic.ask("GET", f"{SERVICE}/one", {}, limit=100, read=10.0, total=20.0).body
    finally:
        traffic.close()


@pytest.mark.parametrize("scheme", ["", "http://"])
def test_the_environments_proxy_is_used(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy() as (address, lines):
        monkeypatch.setenv("http_proxy", scheme + address)
        monkeypatch.delenv("no_proxy", raising=False)
        monkeypatch.delenv("NO_PROXY", raising=False)
        assert asked(Traffic(SERVICE)) == b"ok"
    assert lines == [f"GET {SERVICE}/one HTTP/1.1"]


def test_the_settings_proxy_goes_before_the_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy() as (address, lines):
        monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
        assert asked(Traffic(SERVICE, f"http://{address}")) == b"ok"
    assert len(lines) == 1


def test_hosts_the_environment_excepts_are_asked_without_one(monkeypatch: pytest.MonkeyPatch) -> None:
    with proxy() as (address, lines):
        monkeypatch.setenv("http_proxy", f"http://{address}")
        monkeypatch.setenv("no_proxy", "service.invalid")
        with pytest.raises(Unreachable):
            asked(Traffic(SERVICE, connect=2.0))
    assert lines == []


@pytest.mark.parametrize("proxy", ["carrier-pigeon://coop", "http://user:secret", "http://", "http://u:secret@h:99999"])
def test_with_a_proxy_that_is_none_nothing_is_sent(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    for given, by in ((proxy, "`wavespeed.proxy` in the settings"), ("", "the environment")):
        with pytest.raises(Unreachable, match=rf"through the proxy that {by} names \(give it as") as caught:
            asked(Traffic(SERVICE, given))
        assert caught.value.nobody
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["http", "https", "socks5"])
def test_a_proxy_that_is_not_there_is_named_with_its_setting_and_without_its_password(scheme: str) -> None:
    named = r"through the proxy 127\.0\.0\.1:9 that `wavespeed\.proxy` in the settings names \("
    with pytest.raises(Unreachable, match=named) as caught:
        asked(Traffic(SERVICE, f"{scheme}://user:secret@127.0.0.1:9"))
    assert "secret" not in str(caught.value)
    assert caught.value.nobody


def test_a_proxy_of_the_environment_is_said_to_be_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@[::1]:9")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    with pytest.raises(Unreachable, match=r"through the proxy \[::1\]:9 that the environment names \("):
        asked(Traffic(SERVICE, connect=2.0))


def test_a_proxy_without_a_port_is_named_with_the_one_it_has() -> None:
    assert place("http://user:secret@coop.invalid") == "coop.invalid:80"
    assert place("socks5://coop.invalid") == "coop.invalid:1080"


@pytest.mark.parametrize(("error", "nobody"), [(socket.EAI_NONAME, True), (socket.EAI_AGAIN, False)])
def test_a_name_that_is_unknown_is_nobody(error: int, nobody: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(error, "not found")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    for scheme in ("http", "socks5"):
        with pytest.raises(Unreachable, match=r"proxy coop\.invalid:9") as caught:
            asked(Traffic(SERVICE, f"{scheme}://coop.invalid:9"))
        assert caught.value.nobody == nobody


def test_bytes_that_come_all_the_time_do_not_keep_it_from_being_cancelled() -> None:
    patience = Patience()
    began = time.monotonic()
    patience.begin(lambda: True, began + 60)
    with pytest.raises(Cancelled):
        while True:
            patience.tried(lambda: time.sleep(0.01))
    assert time.monotonic() - began < 5


def test_bytes_that_come_all_the_time_end_when_the_time_is_up() -> None:
    patience = Patience()
    patience.begin(lambda: False, time.monotonic() + 0.3)
    with pytest.raises(TimeoutError, match="too long"):
        while True:
            patience.tried(lambda: time.sleep(0.01))


def test_addresses_go_as_they_are_but_for_what_none_can_hold() -> None:
    with proxy() as (address, lines):
        traffic = Traffic(SERVICE, f"http://{address}")
        for path in ("/a%20b?x=%2F&y='1'", "/a b/\u00e4#part"):
            traffic.ask("GET", SERVICE + path, {}, limit=100, read=10.0, total=20.0)
        for wrong in ("ftp://service.invalid/", "http:///x", "http://service.invalid:port/", "/x"):
            with pytest.raises(Unreachable):
                traffic.ask("GET", wrong, {}, limit=100, read=10.0, total=20.0)
        traffic.close()
    assert [line.split()[1] for line in lines] == [f"{SERVICE}/a%20b?x=%2F&y='1'", f"{SERVICE}/a%20b/%C3%A4"]


def test_a_proxys_name_and_password_go_to_the_proxy() -> None:
    heads: list[str] = []
    with proxy(heads) as (address, _):
        assert asked(Traffic(SERVICE, f"http://user:p%40ss@{address}")) == b"ok"
    assert "Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss").decode() in heads


@pytest.mark.parametrize("scheme", ["socks4", "socks5", "socks5h"])
def test_a_socks_proxy_without_its_package_is_said(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "python_socks", None)
    with pytest.raises(Unreachable, match=r"pip install \"inpaint-toolkit\[socks\]\""):
        asked(Traffic(SERVICE, f"{scheme}://127.0.0.1:9"))


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@contextmanager
def serving(
    handler: type[socketserver.BaseRequestHandler], certificate: trustme.LeafCert | None = None
) -> Iterator[int]:
    """A server of one kind on loopback; its port."""

    class Serving(socketserver.ThreadingTCPServer):
        daemon_threads = True

        def get_request(self) -> tuple[socket.socket, Any]:
            made, address = super().get_request()
            return (context.wrap_socket(made, server_side=True) if certificate else made), address

        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # who does not trust the certificate ends the connection

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if certificate:
        certificate.configure_cert(context)
    with Serving(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


class Web(BaseHTTPRequestHandler):
    """Says how many bytes came, how many requests the connection has had, and what for."""

    protocol_version = "HTTP/1.1"
    asked = 0

    def do_POST(self) -> None:
        self.asked += 1
        count = len(self.rfile.read(int(self.headers["Content-Length"])))
        text = f"{count} {self.asked} {self.path} {self.headers.get('Proxy-Authorization')}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Tunnel(socketserver.StreamRequestHandler):
    """A proxy by CONNECT or SOCKS5; every host's name is this machine's. `passed` is what it was asked."""

    passed: ClassVar[list[str]] = []

    def handle(self) -> None:
        first = self.rfile.read(1)
        port = self.socks() if first == b"\x05" else self.connect()
        with socket.create_connection(("127.0.0.1", port)) as other:
            threading.Thread(target=pipe, args=(other, self.connection), daemon=True).start()
            while data := self.rfile.read1():
                other.sendall(data)

    def connect(self) -> int:
        line = "C" + self.rfile.readline().decode().strip().removeprefix("C")
        while head := self.rfile.readline().decode().strip():
            line += f" | {head}"
        self.passed.append(line)
        self.wfile.write(b"HTTP/1.1 200 go\r\n\r\n")
        return int(line.split()[1].rpartition(":")[2])

    def socks(self) -> int:
        self.rfile.read(self.rfile.read(1)[0])
        self.wfile.write(b"\x05\x02")  # with a name and a password
        self.rfile.read(1)
        name = self.rfile.read(self.rfile.read(1)[0]).decode()
        password = self.rfile.read(self.rfile.read(1)[0]).decode()
        self.wfile.write(b"\x01\x00")
        assert self.rfile.read(4) == b"\x05\x01\x00\x03"  # connect, to a name
        host = self.rfile.read(self.rfile.read(1)[0]).decode()
        port = int.from_bytes(self.rfile.read(2))
        self.passed.append(f"{name} {password} {host}:{port}")
        self.wfile.write(b"\x05\x00\x00\x01" + bytes(6))
        return port


def pipe(source: socket.socket, to: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            to.sendall(data)


def sent(traffic: Traffic, address: str, body: bytes = b"four") -> str:
    return traffic.ask("POST", address, {}, (body,), limit=100, read=10.0, total=20.0).body.decode()


def test_encrypted_exchanges_share_a_connection(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    with authority.cert_pem.tempfile() as file, serving(Web, authority.issue_cert("localhost")) as port:
        monkeypatch.setenv("SSL_CERT_FILE", file)
        traffic = Traffic(f"https://localhost:{port}")
        large = bytes(5 << 20)  # in many pieces
        assert sent(traffic, f"https://localhost:{port}/a", large) == f"{len(large)} 1 /a None"
        assert sent(traffic, f"https://localhost:{port}/b") == "4 2 /b None"
        with pytest.raises(Unreachable, match="certificate"):
            sent(traffic, f"https://127.0.0.1:{port}/")  # it names the other
        traffic.close()


def test_a_certificate_nobody_vouches_for_is_not_talked_to(authority: trustme.CA) -> None:
    with serving(Web, authority.issue_cert("localhost")) as port:
        with pytest.raises(Unreachable, match="certificate") as caught:
            sent(Traffic(f"https://localhost:{port}"), f"https://localhost:{port}/")
        assert caught.value.nobody


@pytest.mark.parametrize("by", ["http://user:p%40ss@", "socks5://user:p%40ss@"])
def test_encrypted_exchanges_go_through_a_proxy_unseen(
    by: str, authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Tunnel, "passed", [])
    with (
        authority.cert_pem.tempfile() as file, serving(Web, authority.issue_cert("service.invalid")) as port,
        serving(Tunnel) as proxy,
    ):  # fmt: skip
        monkeypatch.setenv("SSL_CERT_FILE", file)
        traffic = Traffic("https://service.invalid", f"{by}127.0.0.1:{proxy}")
        for count in (1, 2):
            assert sent(traffic, f"https://service.invalid:{port}/x") == f"4 {count} /x None"
        traffic.close()
    (line,) = Tunnel.passed
    if by.startswith("socks"):
        assert line == f"user p@ss service.invalid:{port}"
    else:
        assert line.startswith(f"CONNECT service.invalid:{port} ")
        assert f"Host: service.invalid:{port}" in line
        assert "Proxy-Authorization: Basic " + base64.b64encode(b"user:p@ss").decode() in line


def test_a_proxy_may_itself_be_spoken_to_encrypted(authority: trustme.CA, monkeypatch: pytest.MonkeyPatch) -> None:
    with authority.cert_pem.tempfile() as file, serving(Web, authority.issue_cert("localhost")) as port:
        monkeypatch.setenv("SSL_CERT_FILE", file)
        traffic = Traffic(SERVICE, f"https://u:p@localhost:{port}")
        words = sent(traffic, f"{SERVICE}/x").split(None, 3)
        assert words[:3] == ["4", "1", f"{SERVICE}/x"]
        assert words[3] == "Basic " + base64.b64encode(b"u:p").decode()
        with pytest.raises(Unreachable, match="within its own"):
            sent(traffic, "https://service.invalid/x")
        traffic.close()


def test_a_proxy_that_wants_another_password_is_said() -> None:
    refusal = b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n"
    with proxy(answer=refusal) as (address, _):
        traffic = Traffic(SERVICE, f"http://user:secret@{address}")
        with pytest.raises(Unreachable, match=rf"through the proxy {address} .*password, HTTP 407") as caught:
            asked(traffic)
    assert caught.value.nobody


@pytest.mark.parametrize(("status", "never"), [("403 Forbidden", True), ("408 Late", False), ("502 Gone", False)])
def test_a_proxy_that_lets_nobody_through_is_not_asked_as_often(status: str, never: bool) -> None:
    refusal = f"HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n".encode()
    with proxy(answer=refusal) as (address, _), pytest.raises(Unreachable, match=status) as caught:
        sent(Traffic(SERVICE, f"http://{address}"), "https://service.invalid/x")
    assert caught.value.nobody is never


@pytest.mark.parametrize("answer", [b"SSH-2.0-\x1b[31mred\r\n", b"HTTP/1.1 502 \x1b[31mred\r\n\r\n"])
def test_what_a_proxy_answers_does_not_reach_the_terminal(answer: bytes) -> None:
    with proxy(answer=answer) as (address, _), pytest.raises(Unreachable, match="red") as caught:
        sent(Traffic(SERVICE, f"http://{address}"), "https://service.invalid/x")
    assert str(caught.value).isprintable()


def test_a_proxy_that_refuses_is_said() -> None:
    with serving(Web) as port, pytest.raises(Unreachable, match="501"):
        sent(Traffic(SERVICE, f"http://127.0.0.1:{port}"), "https://service.invalid/x")


def test_a_connection_that_was_ended_meanwhile_is_not_used() -> None:
    """Else a submission would be lost, and looked for."""
    ended = threading.Event()

    class Once(Web):
        def do_POST(self) -> None:
            super().do_POST()
            self.close_connection = True

        def finish(self) -> None:
            super().finish()
            self.connection.shutdown(socket.SHUT_RDWR)
            ended.set()

    with serving(Once) as port:
        traffic = Traffic(f"http://127.0.0.1:{port}")
        for _ in range(3):
            assert sent(traffic, f"http://127.0.0.1:{port}/") == "4 1 / None"
            assert ended.wait(10)
            ended.clear()
        traffic.close()


def test_who_answers_before_it_has_read_all_is_heard() -> None:
    class Early(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(b"HTTP/1.1 413 too large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
            self.connection.shutdown(socket.SHUT_WR)
            with contextlib.suppress(OSError):
                while self.rfile.read1(1 << 16):  # else its answer would be lost on the way
                    pass

    with serving(Early) as port:
        reply = Traffic(SERVICE).ask(
            "POST", f"http://127.0.0.1:{port}/", {}, (bytes(30 << 20),), limit=100, read=10.0, total=20.0
        )
        assert (reply.status, reply.body) == (413, b"no")


def test_what_cannot_be_written_is_not_sent() -> None:
    with serving(Web) as port:
        traffic = Traffic(SERVICE)
        with pytest.raises(Unreachable, match="was not asked") as caught:
            traffic.ask(
                "POST",
                f"http://127.0.0.1:{port}/",
                {"Authorization": "Bearer a\r\nb"},
                (b"",),
                limit=9,
                read=5.0,
                total=9.0,
            )
        assert "Bearer" not in str(caught.value)
        assert sent(traffic, f"http://127.0.0.1:{port}/") == "4 1 / None", "its connection is not used again"
        traffic.close()


def test_an_answer_nobody_asked_for_is_nobodys() -> None:
    """Else the next task would be taken for this one."""

    class Talker(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            while self.rfile.readline():
                while self.rfile.readline().strip():
                    pass
                self.rfile.read(4)
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\noneHTTP/1.1 200 OK\r\nContent-Le")

    with serving(Talker) as port:
        traffic = Traffic(SERVICE)
        assert [sent(traffic, f"http://127.0.0.1:{port}/") for _ in range(3)] == ["one"] * 3
        traffic.close()
