"""Faults of servers and networks while weights are pulled: a file that has its name has its bytes."""

from __future__ import annotations

import hashlib
import socket
from pathlib import Path

import httpx
import pytest
import weight_server as ws
from commands import call
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from weight_cards import CONTENT, OTHER, SHA256, a_card, proven, published, refused, unpublished
from weight_server import Server

from toolkit import disk, fetching, redirects, weights
from toolkit.errors import EngineError

pytestmark = pytest.mark.usefixtures("home")


# --- a download that goes wrong

FAULTS: dict[str, tuple[list[ws.Act], str]] = {
    "404": ([ws.says(404)], "is not at 127.0.0.1 any more (HTTP 404); from a file that was fetched elsewhere"),
    "401": ([ws.says(401)], "127.0.0.1 refuses it (HTTP 401)"),
    "418": ([ws.says(418)], "127.0.0.1 answered HTTP 418, which is not the file"),
    "206": ([ws.another_piece], "127.0.0.1 answered HTTP 206, which is not the file"),
    "wrong": ([ws.sends(OTHER)], f"its sha256 is {hashlib.sha256(OTHER).hexdigest()}, the card says {SHA256}"),
    "short": ([ws.sends(CONTENT[:-1])], f"has {len(CONTENT) - 1} bytes at 127.0.0.1, expected {len(CONTENT)}"),
    "long": ([ws.sends(CONTENT + b"x")], f"has {len(CONTENT) + 1} bytes at 127.0.0.1, expected {len(CONTENT)}"),
    "empty": ([ws.sends(b"")], "is empty at 127.0.0.1"),
    "promises-more": ([ws.sends(CONTENT[:-9], Content_Length=str(len(CONTENT)))] * 2, "broke off"),
    "until-the-end-short": ([ws.sends(CONTENT[:-9], Content_Length="")] * 2,
                            f"127.0.0.1 sent {len(CONTENT) - 9} of {len(CONTENT)} bytes"),
    "until-the-end-long": ([ws.sends(CONTENT + b"x", Content_Length="")], f"is longer than the {len(CONTENT)} bytes"),
    "page": ([ws.page], "127.0.0.1 sent a web page and not the file (a login?)"),
    "zipped": ([ws.zipped], "127.0.0.1 sent it encoded"),
    "hangs-up": ([ws.hangs_up] * 2, "the connection to 127.0.0.1 broke off"),
    "503": ([ws.says(503)] * 2, "127.0.0.1 cannot give it now (HTTP 503), 2 times over; from a file"),
    "429-for-long": ([ws.says(429, Retry_After="3600")], "asks to be left alone for 3600 s; try again then"),
    "circle": ([ws.leads_to("/again")] * 9, "127.0.0.1 redirects it more than 8 times"),
    "unencrypted": ([ws.leads_to("http://example.org/file")], "leads to http://example.org, which is not encrypted"),
    "no-http": ([ws.leads_to("file:///etc/passwd")], "leads to file://, which is not encrypted"),
    "no-address": ([ws.leads_to("https://example.org:x/")] * 2, "broke off (Invalid URL in location header"),
}  # fmt: skip


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_sentence_and_no_file(server: Server, name: str) -> None:
    acts, sentence = FAULTS[name]
    card = a_card(published(server))
    server.script.extend(acts)
    said = refused(card)
    assert sentence in said
    assert said.startswith("net: ")
    server.script.clear()
    weights.pull(card)
    proven(card)


def test_a_length_that_is_too_short_ends_the_file_there(server: Server) -> None:
    """What follows behind Content-Length is not part of the answer (RFC 9112, 6.3); the hash tells."""
    card = a_card(published(server, bytes=None))
    server.script.append(ws.sends(CONTENT, Content_Length=str(len(CONTENT) - 5)))
    assert "the card says" in refused(card)


def test_a_length_nobody_knows_is_refused_where_no_hash_is_known(server: Server) -> None:
    card = a_card(unpublished(server))
    server.script.append(ws.until_the_end)
    assert "does not say how long it is" in refused(card)
    known = a_card(published(server, bytes=None))
    server.script.append(ws.until_the_end)
    weights.pull(known)
    proven(known)


def test_silence_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redirects, "STALL", 0.2)
    server.script.extend([ws.stalls(100_000), ws.stalls(100_000)])
    card = a_card(published(server))
    assert "127.0.0.1 sent nothing for 0.2 s, 2 times over; 200000 bytes are kept" in refused(card)
    weights.pull(card)
    proven(card)


def test_a_busy_server_is_waited_for_as_long_as_it_asks(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(fetching.time, "sleep", waited.append)
    monkeypatch.setattr(fetching, "TRIES", 4)
    said: list[str] = []
    date = "Thu, 01 Jan 1970 00:00:00 GMT"
    server.script.extend([ws.says(429, Retry_After="7"), ws.says(503, Retry_After=date), ws.says(503)])
    card = a_card(published(server))
    weights.pull(card, say=said.append)
    proven(card)
    assert waited == [7, 0, 0]
    assert said[0] == "net: net.pth: 127.0.0.1 cannot give it now (HTTP 429); trying again in 7 s (1 of 3)"


def test_redirects_are_followed(server: Server) -> None:
    with Server(CONTENT) as place:
        server.script.extend([ws.leads_to("/elsewhere", 307), ws.leads_to(place.url("/stored?signed=x"), 301)])
        card = a_card(published(server))
        weights.pull(card)
        proven(card)
        assert [asked.path for asked in server.asked] == ["/file.bin", "/elsewhere"]
        assert [asked.path for asked in place.asked] == ["/stored?signed=x"]


def test_no_network_names_the_way_out(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    card = a_card({"file": "net.pth", "url": f"http://127.0.0.1:{port}/x"})
    said = refused(card)
    assert said.startswith("net: net.pth: 127.0.0.1 cannot be reached (")
    assert said.endswith("; from a file that was fetched elsewhere: inpaint models pull net --from FILE")


@pytest.mark.parametrize("url", ["http://example.org/x", "ftp://example.org/x", "http://127.0.0.1.example.org/x"])
def test_addresses_that_are_not_encrypted_are_not_asked(url: str) -> None:
    assert "lies at" in refused(a_card({"file": "net.pth", "url": url}))


def test_an_encrypted_address_never_leads_to_an_open_one_not_even_here() -> None:
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(str(request.url))
        return httpx.Response(302, headers={"location": "http://127.0.0.1:1/x"})

    with httpx.Client(transport=httpx.MockTransport(answer)) as client, pytest.raises(EngineError) as caught:
        with redirects.answer("net", "https://example.org/x", {}, lambda _: client):
            pass
    assert str(caught.value) == "net: leads to http://127.0.0.1, which is not encrypted"
    assert asked == ["https://example.org/x"]


def test_the_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as proxy:
        for name in ("HTTPS_PROXY", "HTTP_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        proxy.script.append(ws.says(407))
        said = refused(a_card({"file": "net.pth", "url": "https://example.org/net.pth"}))
        assert "example.org cannot be reached (407" in said
        assert [(asked.method, asked.path) for asked in proxy.asked] == [("CONNECT", "example.org:443")]
        card = a_card(published(server))
        weights.pull(card)  # loopback goes past it
        proven(card)
        monkeypatch.setenv("HTTPS_PROXY", "nonsense://x")
        said = refused(a_card({"file": "net.pth", "url": "https://example.org/net.pth"}, name="other"))
        assert "the proxy or certificates of the environment cannot be used" in said


# --- gated networks

TOKEN = "hf_0123456789abcdefSECRET"


def test_a_gated_network_without_a_token_is_one_sentence(server: Server) -> None:
    card = a_card(published(server), gated=True)
    assert refused(card) == (
        "net: is gated: accept the terms at https://example.org/terms, then give a token of that account with "
        "`inpaint keys set huggingface` or HF_TOKEN"
    )
    assert server.asked == []
    Path("net.pth").write_bytes(CONTENT)
    weights.pull(card, source=Path("net.pth"))
    proven(card)
    weights.pull(card)  # and nothing is asked for when it is there


@pytest.mark.parametrize("how", ["variable", "stored", "argument"])
def test_the_token_goes_to_its_own_host_only(server: Server, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(weights, "HUB", f"http://127.0.0.1:{server.port}")
    if how == "variable":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    elif how == "stored":
        assert call("keys", "set", "huggingface", stdin=TOKEN.encode()).code == 0
    with Server(CONTENT) as place:
        server.script.extend([ws.leads_to("/here"), ws.leads_to(place.url("/there"))])
        place.script.append(ws.leads_to(server.url("/back")))
        card = a_card(published(server), gated=True)
        weights.pull(card, token=SecretStr(TOKEN) if how == "argument" else None)
        proven(card)
        assert [asked.headers.get("authorization") for asked in server.asked] == [f"Bearer {TOKEN}"] * 3
        assert ["authorization" in asked.headers for asked in place.asked] == [False]


@pytest.mark.parametrize(
    "address",
    ["https://huggingface.co.example.org/x", "https://example.org/huggingface.co", "https://huggingface.co:8443/x",
     "https://huggingface.co@example.org/x", "https://cdn.huggingface.co/x", "https://example.org/?huggingface.co"],
)  # fmt: skip
@pytest.mark.parametrize("led", [False, True])
def test_hosts_that_look_alike_get_no_token(address: str, led: bool) -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(302, headers={"location": address}) if led and len(asked) == 1 else httpx.Response(200)

    token = redirects.Token(SecretStr(TOKEN), weights.HUB)
    first = "https://huggingface.co/x" if led else address
    with httpx.Client(transport=httpx.MockTransport(answer)) as client:
        with redirects.answer("net", first, {}, lambda _: client, token) as (response, _):
            assert response.status_code == 200
    assert all(TOKEN not in value for value in asked[-1].headers.values())
    assert not led or asked[0].headers["authorization"] == f"Bearer {TOKEN}"


def test_a_token_is_for_gated_networks_alone(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weights, "HUB", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    weights.pull(a_card(published(server)))
    assert "authorization" not in server.asked[0].headers


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_token_is_one_sentence_without_it(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    caplog.set_level(0)
    monkeypatch.setattr(weights, "HUB", f"http://127.0.0.1:{server.port}")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.script.append(ws.says(status))
    a_card(published(server), gated=True)
    answer = call("models", "pull", "net")
    assert answer.code == 1
    assert answer.err.splitlines()[-1] == (
        f"inpaint: net: net.pth: 127.0.0.1 refuses it (HTTP {status}): the terms at https://example.org/terms were "
        "not accepted with this account, or the token is wrong"
    )
    assert TOKEN not in answer.err + answer.text + caplog.text


# --- the promise, under any sequence of faults

PROMISE = (
    ws.honest, ws.breaks_off(1), ws.breaks_off(70_000), ws.breaks_off(250_000), ws.resets(130_000), ws.ignores_range,
    ws.says(416), ws.says(404), ws.says(503), ws.another_piece, ws.page, ws.zipped, ws.hangs_up, ws.chunked,
    ws.broken_chunks, ws.until_the_end,
)  # fmt: skip
LIES = (ws.sends(OTHER), ws.sends(CONTENT[:-7]), ws.sends(CONTENT[:-7], Content_Length=""), ws.sends(CONTENT + b"xx"))


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=st.lists(st.sampled_from([*PROMISE, *LIES]), max_size=7),
    versions=st.lists(st.sampled_from(["same", "changed", "changed, same etag"]), min_size=1, max_size=3),
    sized=st.booleans(),
)
def test_a_file_with_a_published_hash_is_right_or_not_there(
    tmp_path_factory: pytest.TempPathFactory, acts: list[ws.Act], versions: list[str], sized: bool
) -> None:
    with pytest.MonkeyPatch.context() as patch, Server(CONTENT) as server:
        patch.setenv("INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(fetching, "SYNC", 30_000)
        patch.setattr(disk, "sync", lambda _: None)  # no power is lost here
        card = a_card(published(server, bytes=len(CONTENT) if sized else None))
        server.script.extend(acts)
        for version in versions:
            server.content = CONTENT if version == "same" else OTHER
            server.etag = '"two"' if version == "changed" else '"one"'
            try:
                weights.pull(card)
            except EngineError:
                pass
            if weights.path(card).exists():
                assert weights.path(card).read_bytes() == CONTENT
        server.script.clear()
        server.content, server.etag = CONTENT, '"one"'
        weights.pull(card)
        proven(card)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    acts=st.lists(st.sampled_from(PROMISE), max_size=7),
    versions=st.lists(st.integers(0, 1), min_size=2, max_size=5),
)
def test_a_file_without_a_published_hash_is_one_the_server_had(
    tmp_path_factory: pytest.TempPathFactory, acts: list[ws.Act], versions: list[int]
) -> None:
    contents = (CONTENT, OTHER)
    with pytest.MonkeyPatch.context() as patch, Server(CONTENT) as server:
        patch.setenv("INPAINT_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(fetching, "SYNC", 30_000)
        patch.setattr(disk, "sync", lambda _: None)  # no power is lost here
        card, first = a_card(unpublished(server)), b""
        server.script.extend(acts)
        for version in versions:
            server.content, server.etag = contents[version], f'"{version}"'
            try:
                weights.pull(card)
            except EngineError:
                pass
            if weights.path(card).exists():
                now = weights.path(card).read_bytes()
                assert now in contents
                assert first in (b"", now)
                first = now
