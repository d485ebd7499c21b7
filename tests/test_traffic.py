"""By which way exchanges go."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from toolkit.wavespeed.replies import Unreachable
from toolkit.wavespeed.traffic import Traffic

SERVICE = "http://service.invalid"


@contextmanager
def proxy() -> Iterator[tuple[str, list[str]]]:
    """A proxy that answers itself; its address, and the first lines it got."""
    lines: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            lines.append(self.rfile.readline().decode().strip())
            while self.rfile.readline().strip():
                pass
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
