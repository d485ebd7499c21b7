"""Traffic with the service: what each fault on the wire means, and where the key goes."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from pydantic import SecretStr

from tests.paid import KEY, MODEL, SHORT, pictures
from toolkit.errors import Cancelled, EngineError
from toolkit.wavespeed.client import Client, Timeouts
from toolkit.wavespeed.matching import compared, noted
from toolkit.wavespeed.replies import Lost, Prediction, ServiceError, Unreachable

if TYPE_CHECKING:
    from wavespeed_server import Server


@pytest.fixture
def client(service: Server) -> Iterator[Client]:
    made = Client(service.url, SecretStr(KEY), timeouts=SHORT)
    yield made
    made.close()


def inputs(client: Client, **others: Any) -> dict[str, Any]:
    image, mask = (client.upload(data, "picture.png", "image/png") for data in pictures())
    return {"image": image, "mask_image": mask, "prompt": "p", "size": "256*256", "seed": 0} | others


KINDS = {
    1200: "moderation", 1400: "parameter", 1401: "parameter", 1402: "media", 1403: "fault", 1405: "fault",
    1406: "fault", 1407: "credit",
}  # fmt: skip


@pytest.mark.parametrize("code", KINDS)
@pytest.mark.parametrize("status", [400, 200])
def test_codes_of_refused_submissions(service: Server, client: Client, code: int, status: int) -> None:
    sent = inputs(client)
    service.fault("submit", "refuse", code=code, status=status)
    with pytest.raises(ServiceError, match="WaveSpeed: ") as problem:
        client.submit(MODEL, sent)
    assert problem.value.kind == KINDS[code]
    assert f"code {code}" in str(problem.value)
    assert not service.accepted


@pytest.mark.parametrize("code", [5000, 5003, 5004])
@pytest.mark.parametrize("status", [400, 200, 500])
def test_codes_of_a_fault_leave_open_whether_it_was_taken(
    service: Server, client: Client, code: int, status: int
) -> None:
    sent = inputs(client)
    service.fault("submit", "refuse", code=code, status=status)
    with pytest.raises(Lost, match=rf"code {code}\)"):
        client.submit(MODEL, sent)


@pytest.mark.parametrize("code", [-1, 100, 202, 302, 408, 409, 425, 499])
@pytest.mark.parametrize("status", [200, 202])
def test_codes_that_leave_open_whether_it_was_taken(service: Server, client: Client, code: int, status: int) -> None:
    sent = inputs(client)
    service.fault("submit", "refuse", code=code, status=status)
    with pytest.raises(Lost):
        client.submit(MODEL, sent)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "parameter"), (401, "key"), (402, "credit"), (403, "key"), (404, "missing"), (413, "media"),
     (422, "parameter"), (429, "busy"), (415, "parameter")],
)  # fmt: skip
def test_statuses_that_refuse(service: Server, client: Client, status: int, kind: str) -> None:
    sent = inputs(client)
    service.fault("submit", status, html=status == 403)
    with pytest.raises(ServiceError) as problem:
        client.submit(MODEL, sent)
    assert problem.value.kind == kind
    assert "<" not in str(problem.value)


@pytest.mark.parametrize("status", [409, 500, 502, 503, 504])
@pytest.mark.parametrize("accepted", [False, True])
def test_statuses_that_leave_it_open(service: Server, client: Client, status: int, accepted: bool) -> None:
    sent = inputs(client)
    service.fault("submit", status, accepted=accepted, html=True)
    with pytest.raises(Lost):
        client.submit(MODEL, sent)
    assert len(service.accepted) == accepted


def test_accepted_with_202(service: Server, client: Client) -> None:
    sent = inputs(client)
    service.fault("submit", "change", values={"code": 201})
    assert client.submit(MODEL, sent).id == service.accepted[0].id


@pytest.mark.parametrize(
    ("what", "options", "accepted"),
    [
        ("drop-unread", {}, 0), ("drop", {}, 0), ("drop-after", {}, 1), ("drop-amid", {}, 1),
        ("late", {"seconds": 3}, 0),
        ("slow", {"seconds": 3}, 1), ("stall", {"seconds": 3}, 1), ("trickle", {"seconds": 8}, 1), ("endless", {}, 1),
        ("huge", {}, 1), ("not-json", {"accepted": True}, 1), ("html", {"accepted": True}, 1), ("empty", {}, 1),
        ("null-data", {}, 1), ("missing", {"fields": ["data.id"]}, 1), ("missing", {"fields": ["data"]}, 1),
        ("wrong-types", {}, 1), ("change", {"values": {"data.id": None}}, 1), ("change", {"values": {"data": []}}, 1),
        ("change", {"values": {"data.id": "\ud800"}}, 1), ("redirect", {"status": 302}, 0),
        ("redirect", {"status": 303}, 0),
    ],
)  # fmt: skip
def test_no_answer_to_a_submission(
    service: Server, client: Client, what: str, options: dict[str, Any], accepted: int
) -> None:
    sent = inputs(client)
    service.fault("submit", what, **options)
    began = time.monotonic()
    with pytest.raises(Lost):
        client.submit(MODEL, sent)
    assert time.monotonic() - began < 30
    assert len(service.accepted) == accepted


def test_nobody_listens() -> None:
    with pytest.raises(Unreachable, match=r"127\.0\.0\.1:9 cannot be reached"):
        Client("http://127.0.0.1:9", SecretStr(KEY), timeouts=SHORT).submit(MODEL, {})


def test_wait_that_is_asked_for(service: Server, client: Client) -> None:
    later = time.strftime("%a, %d %b %Y %H:%M:%S GMT", time.gmtime(time.time() + 30))
    for said, low, high in [("7", 7, 7), (later, 20, 31), ("-3", 0, 0), ("1e9", 600, 600), ("nan", 0, 0)]:
        service.fault("balance", 429, retry_after=said)
        with pytest.raises(ServiceError) as problem:
            client.balance()
        assert problem.value.kind == "busy"
        assert problem.value.again is not None
        assert low <= problem.value.again <= high
    for said in (None, "soon"):
        service.fault("balance", 429, retry_after=said)
        with pytest.raises(ServiceError) as problem:
            client.balance()
        assert problem.value.again is None


@pytest.mark.parametrize(
    ("what", "options"),
    [("drop", {}), ("drop-amid", {}), ("stall", {"seconds": 3}), ("not-json", {}), ("html", {}), ("empty", {}),
     ("null-data", {}), ("missing", {"fields": ["data"]}), ("wrong-types", {}), ("endless", {}), ("huge", {}),
     ("change", {"values": {"data.id": "another"}})],
)  # fmt: skip
def test_polls_without_an_answer(service: Server, client: Client, what: str, options: dict[str, Any]) -> None:
    name = client.submit(MODEL, inputs(client)).id
    service.fault("poll", what, **options)
    with pytest.raises(Lost):
        client.prediction(name)
    assert client.prediction(name).id == name


def test_fields_that_are_null_missing_or_wrong(service: Server, client: Client) -> None:
    name = client.submit(MODEL, inputs(client)).id
    service.wait(lambda server: server.accepted[0].finished)
    fields = ["model", "outputs", "urls", "has_nsfw_contents", "created_at", "error", "timings"]
    for value in (None, 7, "text", [None, {}], {"inference": 10**400}, {"get": None}, True, -1e308):
        service.fault("poll", "change", values={f"data.{field}": value for field in fields})
        found = client.prediction(name)
        assert found.is_finished
        assert isinstance(found.error, str)
        assert all(isinstance(one, str) for one in found.outputs)
        assert all(0 <= one < 1e10 for one in found.timings.values())
    service.fault("poll", "missing", fields=[f"data.{field}" for field in fields])
    assert client.prediction(name) == Prediction(name, status="completed")


def test_sentences_hold_nothing_that_hurts_a_terminal(service: Server, client: Client) -> None:
    service.fault("balance", 400, message="\x1b[31mred\x07 \ud800 " + "long " * 100)
    with pytest.raises(ServiceError) as problem:
        client.balance()
    assert str(problem.value).isprintable()
    assert len(str(problem.value)) < 400


def test_key_stays_with_the_service(service: Server, client: Client) -> None:
    service.fault("poll", "redirect")
    service.fault("download", "redirect", status=307)
    service.set(ticket_headers={"If-None-Match": "*", "x-amz-acl": "private"})
    name = client.submit(MODEL, inputs(client)).id
    service.wait(lambda server: server.accepted[0].finished)
    other = service.other_url.removeprefix("http://")
    with pytest.raises(Lost, match=rf"redirects to {other}, where the key is not sent \(.*HTTP 401\)"):
        client.prediction(name)  # the other host lets nobody in without a key
    assert client.download(client.prediction(name).outputs[0]).startswith(b"\x89PNG")
    assert len(service.elsewhere) == 2
    assert service.keys_leaked() == []


@pytest.mark.parametrize("status", [301, 307, 308])
def test_submission_that_is_redirected_says_where_to(service: Server, client: Client, status: int) -> None:
    sent = inputs(client)
    service.fault("submit", "redirect", status=status, to="http://user:secret@elsewhere.invalid:81/x?token=secret")
    with pytest.raises(
        ServiceError, match=r"`wavespeed\.base_url`.* \(HTTP 30. to elsewhere\.invalid:81\)$"
    ) as problem:
        client.submit(MODEL, sent)
    assert problem.value.kind == "moved"
    service.fault("submit", "redirect", status=status, to="http://[nowhere")
    with pytest.raises(ServiceError, match="fault of the service"):
        client.submit(MODEL, sent)
    assert not service.accepted


def test_redirects_to_no_address(service: Server, client: Client) -> None:
    name = client.submit(MODEL, inputs(client)).id
    service.wait(lambda server: server.accepted[0].finished)
    output = client.prediction(name).outputs[0]
    for to in ("http://[nowhere", "http://host:port/", "mailto:nobody"):
        for where, call in (("poll", lambda: client.prediction(name)), ("download", lambda: client.download(output))):
            service.fault(where, "redirect", to=to)
            with pytest.raises(Lost, match="no address on the web"):
                call()


def test_redirected_uploads_are_not_followed(service: Server, client: Client) -> None:
    """What was meant for the service, or for the place that its ticket names, goes nowhere else."""
    data = pictures()[0]
    service.fault("multipart", "redirect", status=307, times=None)
    for _ in range(2):
        assert service.media(client.upload(data, "image.png", "image/png")) == data
    assert service.counts["multipart"] == 1, "by ticket from then on"
    service.fault("put", "redirect", status=307)
    with pytest.raises(ServiceError, match=r"place for uploads refuses files \(HTTP 307\)"):
        client.upload(data, "image.png", "image/png")
    service.fault("ticket", "redirect", status=307)
    with pytest.raises(ServiceError, match=r"`wavespeed\.base_url`"):
        client.upload(data, "image.png", "image/png")
    assert service.elsewhere == service.keys_leaked() == []


def test_key_that_the_service_repeats_is_blotted_out(service: Server, client: Client) -> None:
    for body in (f"bad header Bearer {KEY}", KEY):
        service.fault("balance", 400, message=body)
        with pytest.raises(ServiceError) as problem:
            client.balance()
        assert KEY not in str(problem.value)
        assert "***" in str(problem.value)
    name = client.submit(MODEL, inputs(client)).id
    service.fault("poll", "change", values={"data.urls": {KEY: KEY}, "data.created_at": f"x{KEY}"})
    found = client.prediction(name)
    assert KEY not in repr(found)
    assert KEY not in repr(client.__dict__)


def test_redirects_in_a_circle(service: Server, client: Client) -> None:
    name = client.submit(MODEL, inputs(client)).id
    service.wait(lambda server: server.accepted[0].finished)
    output = client.prediction(name).outputs[0]
    service.fault("poll", "redirect", times=None, to=f"{service.url}/api/v3/predictions/{name}/result")
    with pytest.raises(Lost, match="circle"):
        client.prediction(name)
    service.fault("download", "redirect", times=None, to=output)
    with pytest.raises(Lost, match="circle"):
        client.download(output)


@pytest.mark.parametrize(
    ("what", "options", "kind"),
    [(404, {}, "missing"), (403, {}, "missing"), (500, {}, "fault"), ("drop", {}, ""),
     ("drop-amid", {}, ""), ("stall", {"seconds": 3}, ""),
     ("huge", {}, ""), ("trickle", {"seconds": 12}, ""), ("redirect", {"to": "file:///etc/passwd"}, "")],
)  # fmt: skip
def test_downloads_that_fail(
    service: Server, client: Client, what: str | int, options: dict[str, Any], kind: str
) -> None:
    name = client.submit(MODEL, inputs(client)).id
    service.wait(lambda server: server.accepted[0].finished)
    output = client.prediction(name).outputs[0]
    service.fault("download", what, **options)
    with pytest.raises(EngineError) as problem:
        client.download(output)
    assert getattr(problem.value, "kind", "") == kind
    assert client.download(output).startswith(b"\x89PNG")


def test_uploads_as_a_form_then_by_ticket(service: Server, client: Client) -> None:
    data = pictures()[0]
    assert service.media(client.upload(data, "image.png", "image/png")) == data
    assert service.counts["ticket"] == 0
    for what in (413, 500, "not-json", "drop", "endless", "stall"):
        before = service.counts
        service.fault("multipart", what)
        address = client.upload(data, "image.png", "image/png")
        assert service.media(address) == data
        assert (service.counts - before)["ticket"] == (service.counts - before)["put"] == 1
    service.fault("multipart", 401)
    with pytest.raises(ServiceError) as problem:
        client.upload(data, "image.png", "image/png")
    assert problem.value.kind == "key"
    assert service.keys_leaked() == []


def test_service_that_takes_no_forms_is_not_sent_them_again(service: Server, client: Client) -> None:
    service.fault("multipart", 404, times=None)
    data = pictures()[0]
    for _ in range(3):
        assert service.media(client.upload(data, "image.png", "image/png")) == data
    assert service.counts["multipart"] == 1
    for where, what, options in [
        ("ticket", 404, {}), ("ticket", 500, {}), ("ticket", "not-json", {}), ("put", 403, {}), ("put", "drop", {}),
        ("put", "endless", {}), ("put", "stall", {}),
        ("ticket", "change", {"values": {"data.upload.url": "http://127.0.0.1:9/x"}}),  # nobody there
        ("ticket", "change", {"values": {"data.upload.headers": {"x": "a\r\nInjected: b"}}}),
    ]:  # fmt: skip
        service.fault(where, what, **options)
        with pytest.raises((Lost, ServiceError)):
            client.upload(data, "image.png", "image/png")
        assert service.media(client.upload(data, "image.png", "image/png")) == data
    assert service.keys_leaked() == []


def test_cancelled_within_a_second_in_every_exchange(service: Server) -> None:
    client, without_forms = (Client(service.url, SecretStr(KEY), timeouts=Timeouts()) for _ in range(2))
    service.fault("multipart", 404)
    without_forms.upload(b"x", "a.png", "image/png")
    sent = inputs(client)
    name = client.submit(MODEL, sent).id
    service.wait(lambda server: server.accepted[0].finished)
    output = client.prediction(name).outputs[0]
    calls = {
        "submit": lambda cancelled: client.submit(MODEL, sent, cancelled),
        "poll": lambda cancelled: client.prediction(name, cancelled),
        "list": lambda cancelled: list(client.predictions(0.0, "", cancelled)),
        "download": lambda cancelled: client.download(output, cancelled),
        "multipart": lambda cancelled: client.upload(b"x" * 1000, "a.png", "image/png", cancelled),
        "ticket": lambda cancelled: without_forms.upload(b"x" * 1000, "a.png", "image/png", cancelled),
        "put": lambda cancelled: without_forms.upload(b"x" * 1000, "a.png", "image/png", cancelled),
        "connect": lambda cancelled: Client(service.url, SecretStr(KEY)).submit(MODEL, sent, cancelled),
    }
    for where, call in calls.items():
        for what in ("stall",) if where == "connect" else ("stall", "late"):
            service.fault(where, what, seconds=15)
            flag = threading.Event()
            timer = threading.Timer(0.3, flag.set)
            timer.start()
            began = time.monotonic()
            with pytest.raises(Cancelled):
                call(flag.is_set)
            assert time.monotonic() - began < 5  # a tick after 0.3 s; the machine may be busy
            timer.join()
    client.close()
    without_forms.close()


def test_connections_are_used_again_and_no_threads_made(service: Server, client: Client) -> None:
    client.balance()
    before = set(threading.enumerate())
    for _ in range(20):
        client.balance()
    assert not set(threading.enumerate()) - before
    assert len(service._connections) == 1


def test_connection_that_was_closed_meanwhile_is_not_used(service: Server, client: Client) -> None:
    client.balance()
    service.fault("balance", "drop-amid")
    with pytest.raises(Lost):
        client.balance()
    for _ in range(3):
        client.balance()
    gc.collect()


def test_list_in_pages(service: Server, client: Client) -> None:
    for number in range(7):
        client.submit(MODEL, inputs(client, seed=number))
    names = [one.id for one in reversed(service.accepted)]
    assert [one.id for one in client.predictions(time.time() - 60, MODEL)] == names
    service.set(most_page=3)
    assert [one.id for one in client.predictions(time.time() - 60)] == names
    service.set(most_page=100)
    for what, options in [("not-json", {}), ("null-data", {}), ("missing", {"fields": ["data.items"]}),
                          ("missing", {"fields": ["data.items.2.id"]}), (500, {}), ("drop", {})]:  # fmt: skip
        service.fault("list", what, **options)
        with pytest.raises((Lost, ServiceError)):
            list(client.predictions(time.time() - 60, MODEL))
    service.fault("list", "missing", fields=[f"data.items.{k}.created_at" for k in range(7)])
    assert [one.id for one in client.predictions(time.time() - 60, MODEL)] == names


def test_which_listed_task_is_the_one_that_was_sent() -> None:
    ours = noted({
        "image": "https://cdn.example/1/image.png", "mask_image": "data:image/png;base64,AAAA", "prompt": "a  dog",
        "size": "256*256", "seed": 0, "loras": [], "guidance_scale": 30,
    })  # fmt: skip
    theirs: dict[str, Any] = {**ours, "mask_image": "data:image/png;base64,AAAA"}
    assert compared(ours, theirs) is True
    assert compared(ours, {**theirs, "loras": None, "guidance_scale": 30.0, "prompt": "a dog ", "more": 1}) is True
    assert compared(ours, {**theirs, "image": "https://cdn.example/1/image.png?signature=x"}) is True
    assert compared(ours, {**theirs, "seed": "0"}) is True
    assert compared(ours, {**theirs, "seed": 1}) is False
    assert compared(ours, {**theirs, "image": "https://cdn.example/2/image.png"}) is False
    for name, value in [("image", "https://other.example/1/image.png"), ("mask_image", "data:image/png;base64,BBBB"),
                        ("seed", None), ("prompt", "a cat"), ("prompt", None), ("size", "256x256"), ("seed", "x"),
                        ("image", 7)]:  # fmt: skip
        assert compared(ours, {**theirs, name: value}) is None, name
    assert compared(ours, None) is None
    assert compared(ours, {}) is None
    texts = {"text": "a dog", "style": "default"}
    assert compared(texts, {"text": "a cat", "style": "default"}) is False


def test_pictures_of_a_prediction() -> None:
    def of(outputs: Any, flags: Any) -> tuple[str | None, ...]:
        found = Prediction.read({"id": "a", "outputs": outputs, "has_nsfw_contents": flags})
        assert found
        return found.pictures

    assert of(["x", "y"], [False, True]) == ("x", None)
    assert of(["x"], None) == ("x",)
    assert of(["x", "z"], [False, True, False]) == ("x", None, "z")
    assert of([], [True]) == (None,)
    assert of(["x"], [True, True]) == (None, None)
    assert of(None, [False]) == ()
    assert of(["x", "y"], [True]) == (None, "y")
    assert np.all([of(bad, None) == () for bad in (None, 7, {}, True)])


def test_the_address_is_known_as_given_too() -> None:
    """Keys of paid jobs hold it: were it written otherwise, what was paid would not be found."""
    client = Client("http://LOCALHOST:80/ws", SecretStr(KEY))
    assert (client.service, client.base_url) == ("http://LOCALHOST:80/ws", "http://localhost/ws")
    client.close()
