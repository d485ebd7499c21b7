"""Every fault that can be scripted really happens on the wire."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

import cv2
import httpx
import numpy as np
import pytest
from wavespeed_calls import FLUX, finished, inputs, png
from wavespeed_server import NoSuchFault, Server
from wavespeed_server.faults import CONNECT, FABRICATED, JSON, PICTURE, STATUSES, TASK, TASK_ERRORS, WIRE

SUBMIT = f"/api/v3/{FLUX}"


def raw(service: Server, request: bytes, seconds: float = 10.0) -> bytes:
    """What comes back on a bare socket until it is closed, reset or silent for so long."""
    host, port = service.url.removeprefix("http://").split(":")
    got = b""
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(request)
        try:
            while piece := connection.recv(65536):
                got += piece
        except (ConnectionError, TimeoutError):
            pass
    return got


BALANCE = b"GET /api/v3/balance HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer test-key\r\nConnection: close\r\n\r\n"


# Connections.


def test_connections_can_be_dropped_or_stalled_before_a_byte_is_read(service: Server) -> None:
    service.fault("connect", "drop")
    assert raw(service, BALANCE) == b""
    assert service.requests == []
    service.fault("connect", "stall", seconds=0.3)
    began = time.monotonic()
    assert raw(service, BALANCE).startswith(b"HTTP/1.1 200 OK")
    assert time.monotonic() - began >= 0.3


@pytest.mark.parametrize("what", ["drop-unread", "drop", "drop-after", "drop-amid"])
def test_drops(service: Server, http: httpx.Client, what: str) -> None:
    service.fault("submit", what)
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        http.post(SUBMIT, json=inputs())
    assert len(service.accepted) == (what in ("drop-after", "drop-amid"))
    (request,) = service.requests
    assert request.fault == what
    assert (request.size > 0) == (what != "drop-unread")
    assert http.post(SUBMIT, json=inputs(seed=2)).status_code == 200  # once only


def test_reply_broken_off_in_the_middle(service: Server) -> None:
    whole = raw(service, BALANCE)
    service.fault("balance", "drop-amid")
    half = raw(service, BALANCE)
    head, _, body = whole.partition(b"\r\n\r\n")
    assert half == whole[: len(head) + 4 + len(body) // 2]


@pytest.mark.parametrize("what", ["slow", "late", "stall", "trickle"])
def test_slow_replies(service: Server, http: httpx.Client, what: str) -> None:
    service.fault("submit", what, seconds=1.0)
    began = time.monotonic()
    with http.stream("POST", SUBMIT, json=inputs()) as reply:
        headed = time.monotonic() - began
        reply.read()
    took = time.monotonic() - began
    assert reply.json()["data"]["status"] == "created"
    assert took >= 0.95
    assert (headed >= 0.95) == (what in ("slow", "late"))
    at = service.accepted[0].at - service.requests[0].at
    assert (at >= 0.95) == (what == "late")


def test_late_submission_is_accepted_after_the_client_gave_up(service: Server, http: httpx.Client) -> None:
    service.fault("submit", "late", seconds=1.5)
    with pytest.raises(httpx.ReadTimeout):
        http.post(SUBMIT, json=inputs(), timeout=0.05)
    assert service.accepted == []
    service.wait(lambda one: one.accepted)


@pytest.mark.parametrize("what", ["huge", "endless"])
def test_replies_without_end(service: Server, http: httpx.Client, what: str) -> None:
    url = finished(http, service, inputs())["outputs"][0]
    service.fault("download", what)
    got = 0
    with http.stream("GET", url) as reply:
        assert reply.headers.get("content-length") == (str(5 * 1024**3) if what == "huge" else None)
        for piece in reply.iter_raw():
            got += len(piece)
            if got > 3_000_000:
                break
    service.wait(lambda one: one.requests[-1].done)
    assert service.requests[-1].sent < 50_000_000  # it ended with the client


# Statuses and redirects.


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("status", STATUSES)
def test_statuses(service: Server, http: httpx.Client, status: int, accepted: bool) -> None:
    service.fault("submit", status, accepted=accepted)
    reply = http.post(SUBMIT, json=inputs())
    assert reply.status_code == reply.json()["code"] == status
    assert reply.json()["message"]
    assert "retry-after" not in reply.headers
    assert len(service.accepted) == accepted
    if accepted:
        service.wait(lambda one: one.accepted[0].status == "completed")


def test_retry_after_and_gateway_pages(service: Server, http: httpx.Client) -> None:
    service.fault("poll", 429, retry_after=7)
    assert http.get("/api/v3/predictions/x").headers["retry-after"] == "7"
    service.fault("poll", 502, html=True, message="ignored")
    assert http.get("/api/v3/predictions/x").text.startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("code", TASK_ERRORS)
def test_refused_submissions(service: Server, http: httpx.Client, code: int) -> None:
    service.fault("submit", "refuse", code=code)
    reply = http.post(SUBMIT, json=inputs())
    assert (reply.status_code, reply.json()) == (400, {"code": code, "message": TASK_ERRORS[code]})
    service.fault("submit", "refuse", code=code, status=200, message="no")
    reply = http.post(SUBMIT, json=inputs())
    assert (reply.status_code, reply.json()) == (200, {"code": code, "message": "no"})
    assert service.accepted == []


@pytest.mark.parametrize("where", ["download", "poll"])
def test_redirects_to_another_host(service: Server, http: httpx.Client, where: str) -> None:
    data = finished(http, service, inputs())
    url = data["outputs"][0] if where == "download" else data["urls"]["get"]
    service.fault(where, "redirect", status=307)
    reply = http.get(url)
    assert reply.status_code == 307
    assert reply.headers["location"] == url.replace(service.url, service.other_url)
    service.fault(where, "redirect")
    followed = http.get(url, follow_redirects=True)  # httpx keeps the key to itself
    assert followed.status_code == (200 if where == "download" else 401)
    assert [one.key for one in service.elsewhere] == [None]
    leaked = len(service.keys_leaked())
    httpx.get(reply.headers["location"], headers={"Authorization": "Bearer test-key"}, trust_env=False)
    assert len(service.keys_leaked()) == leaked + 1
    service.fault("poll", "redirect", to="http://example.invalid/")
    assert http.get("/api/v3/predictions/x").headers["location"] == "http://example.invalid/"


# JSON.


def test_replies_that_are_not_what_they_should_be(service: Server, http: httpx.Client) -> None:
    def submitted(what: str, **options: Any) -> httpx.Response:
        service.fault("submit", what, **options)
        reply = http.post(SUBMIT, json=inputs())
        assert reply.status_code == 200
        return reply

    for what in ("not-json", "html", "empty"):
        with pytest.raises(ValueError, match="Expecting"):
            submitted(what).json()
    assert len(service.accepted) == 3
    submitted("html", accepted=False)
    assert len(service.accepted) == 3
    assert submitted("null-data").json()["data"] is None
    assert "data" not in submitted("missing").json()
    assert set(submitted("missing", fields=["data.id", "data.status"]).json()["data"]).isdisjoint({"id", "status"})
    wrong = submitted("wrong-types").json()["data"]
    assert (wrong["id"], wrong["outputs"], wrong["urls"]) == (7, 7, "wrong")
    changed = submitted("change", values={"data.status": "paused", "code": 5003, "data.error": None}).json()
    assert (changed["code"], changed["data"]["status"], changed["data"]["error"]) == (5003, "paused", None)
    service.fault("poll", "change", values={"data.outputs": ["file:///etc/hosts"]})
    name = service.accepted[0].id
    assert http.get(f"/api/v3/predictions/{name}").json()["data"]["outputs"] == ["file:///etc/hosts"]


def test_predictions_list_switched_off_or_without_inputs(service: Server, http: httpx.Client) -> None:
    finished(http, service, inputs())
    asked = {"page": 1, "page_size": 10, "include_inputs": True}
    service.fault("list", "no-inputs")
    (item,) = http.post("/api/v3/predictions", json=asked).json()["data"]["items"]
    assert "inputs" not in item
    service.fault("list", 404, times=None)
    assert [http.post("/api/v3/predictions", json=asked).status_code for _ in range(3)] == [404] * 3
    service.clear()
    assert http.post("/api/v3/predictions", json=asked).json()["data"]["items"][0]["inputs"]["seed"] == 1


# Tasks.


@pytest.mark.parametrize("code", TASK_ERRORS)
def test_failed_tasks(service: Server, http: httpx.Client, code: int) -> None:
    service.fault("task", "fail", code=code)
    data = finished(http, service, inputs())
    assert (data["status"], data["code"], data["error"]) == ("failed", code, TASK_ERRORS[code])
    assert data["outputs"] == []
    service.fault("task", "fail", code=code, error="in other words")
    assert finished(http, service, inputs())["error"] == "in other words"


def test_nsfw_flags(service: Server, http: httpx.Client) -> None:
    service.fault("task", "nsfw")
    assert finished(http, service, inputs(num_images=2))["has_nsfw_contents"] == [True, True]
    service.fault("task", "nsfw", flags=[False, True])
    assert finished(http, service, inputs(num_images=2))["has_nsfw_contents"] == [False, True]


def test_other_statuses_and_times(service: Server, http: httpx.Client) -> None:
    def status(number: int) -> str:
        word: str = http.get(f"/api/v3/predictions/{service.accepted[number].id}").json()["data"]["status"]
        return word

    service.fault("task", "stuck")
    http.post(SUBMIT, json=inputs(seed=1))
    service.wait(lambda one: one.accepted[0].outputs)
    assert status(0) == "processing"
    service.finish()
    service.wait(lambda one: one.accepted[0].finished)
    assert status(0) == "completed"
    service.fault("task", "unknown-status", status="queued")
    service.fault("task", "seconds", seconds=60)
    http.post(SUBMIT, json=inputs(seed=2))
    service.wait(lambda one: one.accepted[1].finished)  # the word alone changes no time
    http.post(SUBMIT, json=inputs(seed=3))
    service.wait(lambda one: one.accepted[2].outputs)
    assert status(2) == "processing"
    service.fault("task", "end", status="cancelled")
    assert finished(http, service, inputs(seed=4))["status"] == "cancelled"
    service.set(seconds=60)
    service.fault("task", "unknown-status", status="queued")
    http.post(SUBMIT, json=inputs(seed=5))
    service.wait(lambda one: one.accepted[4].outputs)
    assert status(4) == "queued"


# Uploads and outputs.


def test_uploads_fail_and_expire(service: Server, http: httpx.Client) -> None:
    service.fault("ticket", 503)
    ticket = {"filename": "a.png", "size": len(png())}
    assert http.post("/api/v3/media/uploads", json=ticket).status_code == 503
    data = http.post("/api/v3/media/uploads", json=ticket).json()["data"]
    service.fault("put", 500, match={"filename": "a.png"})
    service.fault("put", "drop-amid")
    with httpx.Client(trust_env=False) as bare:
        put = {"url": data["upload"]["url"], "content": png(), "headers": data["upload"]["headers"]}
        assert bare.put(**put).status_code == 500
        with pytest.raises(httpx.RemoteProtocolError):
            bare.put(**put)
        assert bare.put(**put).status_code == 412  # it had arrived
    assert service.uploads[0].data == png()
    service.fault("multipart", 413)
    files = {"file": ("m.png", png(), "image/png")}
    assert http.post("/api/v3/media/upload/binary", files=files).status_code == 413
    service.expire_uploads()
    assert finished(http, service, inputs(image=data["download_url"]))["code"] == 1402


def test_outputs_that_are_no_good(service: Server, http: httpx.Client) -> None:
    url = finished(http, service, inputs())["outputs"][0]
    good = http.get(url).content

    def bad(what: str | int, **options: Any) -> httpx.Response:
        service.fault("download", what, **options)
        return http.get(url)

    assert bad(404).status_code == 404
    assert bad("truncated").content == good[: len(good) // 2]
    assert bad("html").headers["content-type"] == "text/html"
    assert bad("empty").content == b""
    gif = bad("gif")
    assert gif.content.startswith(b"GIF8")
    assert bad("noise").headers["content-type"] == "image/png"
    assert cv2.imdecode(np.frombuffer(bad("other-size").content, np.uint8), 1).shape == (260, 300, 3)
    assert cv2.imdecode(np.frombuffer(bad("other-size", size=[64, 32]).content, np.uint8), 1).shape == (32, 64, 3)
    bomb = bad("bomb").content
    assert len(bomb) < 100_000
    assert bomb[16:24] == (20000).to_bytes(4, "big") * 2
    with pytest.raises(httpx.RemoteProtocolError):
        bad("drop-amid")
    assert http.get(url).content == good


# The script itself.


def test_order_number_and_choice_of_faults(service: Server, http: httpx.Client) -> None:
    def polled(name: str = "x") -> int:
        return http.get(f"/api/v3/predictions/{name}").status_code

    fault = service.fault("poll", 500, times=2, after=1)
    service.fault("poll", 503)
    assert [polled() for _ in range(5)] == [503, 500, 500, 404, 404]
    assert (fault.used, fault.seen) == (2, 5)
    service.fault("poll", 429, match="special")
    assert [polled(), polled("special"), polled("special")] == [404, 429, 404]
    service.fault("submit", 500, match={"seed": 2}, times=None)
    service.fault("task", "fail", match=lambda one: one["seed"] == 3)
    assert http.post(SUBMIT, json=inputs(seed=2)).status_code == 500
    assert finished(http, service, inputs(seed=1))["status"] == "completed"
    assert finished(http, service, inputs(seed=3))["status"] == "failed"
    url = service.accepted[0].id
    service.fault("any", 502, times=2)
    assert [polled(url), http.get("/api/v3/balance").status_code, polled(url)] == [502, 502, 200]


@pytest.mark.parametrize(
    ("where", "what", "options"),
    [
        ("nowhere", "drop", {}),
        ("submit", "explode", {}),
        ("submit", 299, {}),
        ("submit", "status", {}),
        ("submit", "bomb", {}),
        ("task", "drop", {}),
        ("poll", "slow", {"minutes": 1}),
        ("submit", "drop", {"accepted": True}),
        ("submit", "slow", {"accepted": False}),
        ("submit", "drop-unread", {"match": {"seed": 1}}),
    ],
)
def test_faults_that_do_not_exist(service: Server, where: str, what: str | int, options: dict[str, Any]) -> None:
    with pytest.raises(NoSuchFault):
        service.fault(where, what, **options)


def test_every_fault_has_a_test() -> None:
    """A name added to the tables without a line here is noticed."""
    text = Path(__file__).read_text(encoding="utf-8")
    names = {*CONNECT, *TASK, *WIRE, *JSON, *PICTURE, *FABRICATED} - {"status"}
    assert [name for name in sorted(names) if f'"{name}"' not in text] == []
