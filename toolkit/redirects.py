"""The HTTP answer at the end of its redirects: encrypted all the way, and a token only for the host it is for."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

from toolkit.errors import EngineError
from toolkit.settings import is_loopback

if TYPE_CHECKING:
    import ssl

    import httpx

HUB = "https://huggingface.co"
"""Where most weights lie, and whom the token for them is for; no other host gets it."""

CONNECT, STALL = 10.0, 30.0
"""Seconds until a connection stands, and of silence until it counts as broken."""

_REDIRECTS = 8
_REDIRECTED = (301, 302, 303, 307, 308)

ClientFor = Callable[[str], "httpx.Client"]


@dataclass(frozen=True)
class Token:
    """A secret and whom it is for: scheme, host and port, as an address."""

    secret: SecretStr
    origin: str


@contextlib.contextmanager
def clients() -> Iterator[ClientFor]:
    """Clients by address: the environment's proxies are used for all that is not on this machine.

    Raises:
        EngineError: when it is asked for one, and the environment's proxy or certificates cannot be used.
    """
    import httpx

    made: dict[bool, httpx.Client] = {}

    def client(address: str) -> httpx.Client:
        here = is_loopback(address)
        if here not in made:
            timeout = httpx.Timeout(STALL, connect=CONNECT)
            try:
                made[here] = httpx.Client(timeout=timeout, trust_env=not here, verify=_trusted())
            except (ImportError, ValueError, OSError, httpx.InvalidURL) as problem:
                raise EngineError(f"the proxy or certificates of the environment cannot be used: {problem}") from None
        return made[here]

    try:
        yield client
    finally:
        for one in made.values():
            one.close()


@contextlib.contextmanager
def answer(
    name: str, url: str, headers: Mapping[str, str], client_for: ClientFor, token: Token | None = None
) -> Iterator[tuple[httpx.Response, str]]:
    """The answer to a GET, its body unread, and the sha256 that the first server states; empty where it states none.

    Args:
        name: what is fetched, for sentences.
        url: https, or http on this machine.
        token: sent to its own origin, wherever that stands in the chain, and nowhere else.

    Raises:
        EngineError: when it leads to an address that is not encrypted, or in a circle.
        httpx.HTTPError: as httpx.
    """
    import httpx

    try:
        address, stated = httpx.URL(url), ""
        for hop in range(_REDIRECTS + 1):
            here = address.scheme == "http" and is_loopback(str(address)) and is_loopback(url)
            if address.scheme != "https" and not here:
                verb = "leads to" if hop else "lies at"
                raise EngineError(f"{name}: {verb} {address.scheme}://{address.host}, which is not encrypted")
            sent = dict(headers)
            if token is not None and _origin(address) == _origin(httpx.URL(token.origin)):
                sent["Authorization"] = f"Bearer {token.secret.get_secret_value()}"
            client = client_for(str(address))
            client.cookies.clear()
            response = client.send(client.build_request("GET", address, headers=sent), stream=True)
            try:
                if hop == 0:
                    # The model hub's name for it: the hash of a large file, where it leads to its place of storage.
                    found = re.fullmatch(r'"?([0-9a-fA-F]{64})"?', response.headers.get("x-linked-etag", ""))
                    stated = found[1].lower() if found else ""
                if response.status_code not in _REDIRECTED or "location" not in response.headers:
                    yield response, stated
                    return
                address = address.join(response.headers["location"])
            finally:
                response.close()
    except httpx.InvalidURL:
        raise EngineError(f"{name}: its address, or one it leads to, is none") from None
    raise EngineError(f"{name}: {host_of(url)} redirects it more than {_REDIRECTS} times")


@functools.cache
def _trusted() -> ssl.SSLContext:
    """Whom to trust, read once: that takes as long as a hundred exchanges."""
    import httpx

    return httpx.create_ssl_context()


def host_of(address: str) -> str:
    """The host of an address, for sentences."""
    return re.sub(r"^\w+://([^/@]*@)?([^/:?#]*).*$", r"\2", address, flags=re.S)


def _origin(address: httpx.URL) -> tuple[str, str, int | None]:
    return address.scheme, address.host, address.port or {"https": 443, "http": 80}.get(address.scheme)
