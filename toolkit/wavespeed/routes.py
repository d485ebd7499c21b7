"""By which way a connection goes: straight to a host, or by a proxy of the settings or the environment."""

from __future__ import annotations

import base64
import http.client
import re
import socket
import ssl
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import SplitResult, unquote, urlsplit

from toolkit.settings import PROXIES

Trusted = Callable[[], ssl.SSLContext]
"""Gives the certificates; asked where TLS is spoken."""


@dataclass(frozen=True)
class Route:
    """A connection that is not made yet.

    Attributes:
        connect: makes the connection; raises OSError, ValueError or HTTPException.
        before: goes before each path, where a proxy is told whom to ask.
        headers: go with each request.
    """

    connect: Callable[[], socket.socket]
    before: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def route(scheme: str, host: str, proxy: str, seconds: float, trusted: Trusted) -> Route:
    """The route to a host.

    Args:
        scheme: "http" or "https".
        host: with the port where it is not the scheme's own.
        proxy: address of one, which may hold a user's name and password; empty for none.
        seconds: until a connection must stand.
        trusted: whom to trust.

    Raises:
        ValueError: when the proxy cannot be used.
        HTTPException: when that is no host.
    """
    if not proxy:
        return _by_itself(_way(scheme, host, seconds, trusted))
    try:
        by = urlsplit(proxy)
        port = _port(by) if by.scheme in PROXIES else 0
    except ValueError:  # not said as it was raised: that may quote a password
        port = 0
    if not port or not by.hostname:
        raise ValueError("give it as http://host:port or socks5://host:port")
    if by.scheme.startswith("socks"):
        return _by_socks(scheme, host, by, seconds, trusted)
    user = f"{unquote(by.username or '')}:{unquote(by.password or '')}".encode()
    headers = {"Proxy-Authorization": f"Basic {base64.b64encode(user).decode()}"} if by.username else {}
    if scheme == "https" and by.scheme == "https":
        raise ValueError("an https:// proxy takes no encrypted traffic within its own; give its http:// address")
    if scheme == "https":
        way = http.client.HTTPSConnection(by.hostname, port, timeout=seconds, context=trusted())
        way.set_tunnel(
            host, headers={"Host": host if host.rpartition(":")[2].isdecimal() else f"{host}:443", **headers}
        )
        return _by_itself(way)
    plain = _by_itself(_way(by.scheme, place(proxy), seconds, trusted))
    return Route(plain.connect, f"http://{host}", headers)


def place(proxy: str) -> str:
    """Host and port of a proxy's address that can be used, without name and password."""
    by = urlsplit(proxy)
    return f"[{by.hostname}]:{_port(by)}" if ":" in (by.hostname or "") else f"{by.hostname}:{_port(by)}"


def of_environment(scheme: str, host: str) -> str:
    """The environment's proxy for a host, given without a port; empty where there is none."""
    if urllib.request.proxy_bypass(host):
        return ""
    proxies = urllib.request.getproxies()
    found = proxies.get(scheme) or proxies.get("all") or ""
    return found if "://" in found or not found else f"http://{found}"


def _port(by: SplitResult) -> int:
    return by.port or (1080 if by.scheme.startswith("socks") else 443 if by.scheme == "https" else 80)


def _way(scheme: str, host: str, seconds: float, trusted: Trusted) -> http.client.HTTPConnection:
    if scheme == "https":
        return http.client.HTTPSConnection(host, timeout=seconds, context=trusted())
    return http.client.HTTPConnection(host, timeout=seconds)


def _by_itself(way: http.client.HTTPConnection) -> Route:
    def connect() -> socket.socket:
        try:
            way.connect()
        except BaseException as problem:
            way.close()  # what came of a proxy that made no sense stays open otherwise
            if re.match("Tunnel connection failed: 4(?!08|25|29)", str(problem)):  # it will not be had by asking again
                raise ConnectionRefusedError(str(problem)) from None
            raise
        made: socket.socket = way.sock
        return made

    return Route(connect)


def _by_socks(scheme: str, host: str, by: SplitResult, seconds: float, trusted: Trusted) -> Route:
    try:
        import python_socks
        import python_socks.sync
    except ImportError:
        raise ValueError('SOCKS needs pip install "inpaint-toolkit[socks]"') from None
    way = _way(scheme, host, seconds, trusted)
    proxy = python_socks.sync.Proxy(
        python_socks.ProxyType.SOCKS5 if by.scheme.startswith("socks5") else python_socks.ProxyType.SOCKS4,
        by.hostname or "",
        _port(by),
        unquote(by.username or "") or None,
        unquote(by.password or "") or None,
        rdns=True,
    )

    def connect() -> socket.socket:
        try:
            made = proxy.connect(way.host, way.port, timeout=seconds)
        except python_socks.ProxyError as problem:
            raise ConnectionRefusedError(f"the proxy refused: {problem}") from None
        return trusted().wrap_socket(made, server_hostname=way.host) if scheme == "https" else made

    return Route(connect)
