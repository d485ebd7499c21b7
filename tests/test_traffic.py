"""By which way exchanges go."""

from __future__ import annotations

import base64
import importlib.util
import socketserver
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from toolkit.errors import Cancelled
from toolkit.wavespeed.replies import Unreachable
from toolkit.wavespeed.sockets import Patience
from toolkit.wavespeed.traffic import Traffic

SERVICE = "http://service.invalid"


@contextmanager
def proxy(heads: list[str] | None = None) -> Iterator[tuple[str, list[str]]]:
    """A proxy that answers itself; its address, and the first lines it got. The other lines go to `heads`."""
    lines: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines.append(self.rfile.readline().decode().strip())
            while line := self.rfile.readline().decode().strip():
                if heads is not None:
                    heads.append(line)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok")

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


def test_with_a_proxy_that_is_none_nothing_is_sent() -> None:
    with pytest.raises(Unreachable, match="proxy"):
        asked(Traffic(SERVICE, "carrier-pigeon://coop"))


def test_bytes_that_come_all_the_time_do_not_keep_it_from_being_cancelled() -> None:
    patience = Patience()
    began = time.monotonic()
    patience.begin(lambda: True, began + 60)
    with pytest.raises(Cancelled):
        while True:
            patience.tried(lambda tick: time.sleep(0.01), 30.0, TimeoutError)
    assert time.monotonic() - began < 5


def test_bytes_that_come_all_the_time_end_when_the_time_is_up() -> None:
    patience = Patience()
    patience.begin(lambda: False, time.monotonic() + 0.3)
    with pytest.raises(TimeoutError, match="too long"):
        while True:
            patience.tried(lambda tick: time.sleep(0.01), 30.0, TimeoutError)


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


@pytest.mark.skipif(importlib.util.find_spec("socksio") is not None, reason="it is there")
def test_a_socks_proxy_without_its_package_is_said() -> None:
    with pytest.raises(Unreachable, match=r"httpx\[socks\]"):
        asked(Traffic(SERVICE, "socks5://127.0.0.1:9"))
