"""The stand-in for the WaveSpeed API answers by the book."""

from __future__ import annotations

import base64
import gc
import re
import threading
from typing import Any

import httpx
import numpy as np
import pytest
from wavespeed_calls import FLUX, OPTIMIZER, decoded, finished, inputs, mask_png, png
from wavespeed_server import Server, ServerProcess


def test_predictions_look_as_documented(service: Server, http: httpx.Client) -> None:
    created = http.post(f"/api/v3/{FLUX}", json=inputs()).json()
    assert (created["code"], created["message"], created["data"]["status"]) == (200, "success", "created")
    name = created["data"]["id"]
    assert re.fullmatch("[0-9a-f]{32}", name)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", created["data"]["created_at"])
    service.wait(lambda one: one.accepted[0].finished)
    paths = [f"/api/v3/predictions/{name}/result", f"/api/v3/predictions/{name}", f"/api/v2/predictions/{name}/result"]
    first, *others = [http.get(path).json()["data"] for path in paths]
    assert all(one == first for one in others)
    assert first["status"] == "completed"
    assert first["outputs"] == [f"{service.url}/_outputs/{name}/1.png"]
    assert first["has_nsfw_contents"] == [False]
    assert first["error"] == ""
    assert isinstance(first["timings"]["inference"], int)
    assert first["urls"]["get"] == service.url + paths[0]
    assert service.accepted[0].polls == 3


def test_statuses_follow_time(service: Server, http: httpx.Client) -> None:
    service.set(seconds=0.3)
    name = http.post(f"/api/v3/{FLUX}", json=inputs()).json()["data"]["id"]
    seen = []
    while not seen or seen[-1] != "completed":
        seen.append(http.get(f"/api/v3/predictions/{name}").json()["data"]["status"])
    assert sorted(set(seen), key=seen.index) in (
        ["created", "processing", "completed"],
        ["processing", "completed"],
    )


def test_pictures_differ_by_seed_and_nowhere_are_exact(service: Server, http: httpx.Client) -> None:
    def pictures(**others: Any) -> list[np.ndarray]:
        return [decoded(http.get(url).content) for url in finished(http, service, inputs(**others))["outputs"]]

    (one,) = pictures(seed=1)
    (again,) = pictures(seed=1)
    (other,) = pictures(seed=2)
    (worded,) = pictures(prompt="a blue chair")
    hole = decoded(mask_png())[..., 0] > 0
    source = decoded(png())
    assert np.array_equal(one, again)
    for different in (other, worded):
        assert np.abs(one - different)[hole].mean() > 20
        assert np.array_equal(one[~hole], different[~hole])
    assert (np.abs(one - source)[~hole].max(axis=-1) > 0).mean() > 0.99  # a client must composite by itself
    four = pictures(num_images=4)
    assert np.array_equal(four[0], one)
    assert len({picture.tobytes() for picture in four}) == 4
    service.set(suffix="jpeg")
    data = finished(http, service, inputs())
    assert data["outputs"][0].endswith("/1.jpeg")
    assert http.get(data["outputs"][0]).content.startswith(b"\xff\xd8")


def test_base64_outputs(service: Server, http: httpx.Client) -> None:
    data = finished(http, service, inputs(enable_base64_output=True))
    assert base64.b64decode(data["outputs"][0]).startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("others", "said"),
    [
        ({"prompt": ""}, "prompt"),
        ({"image": None}, "image"),
        ({"size": "320x256"}, "size"),
        ({"size": "1600*256"}, "256 and 1536"),
        ({"num_inference_steps": 51}, "between 1 and 50"),
        ({"seed": -2}, "seed"),
        ({"seed": True}, "seed"),
        ({"guidance_scale": 25}, "between 28 and 35"),
        ({"num_images": 5}, "between 1 and 4"),
        ({"loras": [{"path": "a/b", "scale": 1}] * 4}, "loras"),
        ({"loras": [{"path": "a/b"}]}, "path"),
        ({"loras": [{"path": "a/b", "scale": 5}]}, "between 0 and 4"),
        ({"loras": [{"path": "nobody", "scale": 1}]}, "LoRA path"),
    ],
)
def test_wrong_parameters_are_refused(service: Server, http: httpx.Client, others: dict[str, Any], said: str) -> None:
    reply = http.post(f"/api/v3/{FLUX}", json=inputs(**others))
    assert reply.status_code == 400
    assert said in reply.json()["message"]
    assert not service.accepted


@pytest.mark.parametrize(
    ("others", "code"),
    [
        ({"image": "https://elsewhere.invalid/a.png"}, 1402),
        ({"image": base64.b64encode(b"no picture").decode()}, 1402),
        ({"mask_image": base64.b64encode(mask_png((256, 256))).decode()}, 1401),
        ({"size": "512*512"}, 1401),
    ],
)
def test_wrong_pictures_fail_the_task(service: Server, http: httpx.Client, others: dict[str, Any], code: int) -> None:
    data = finished(http, service, inputs(**others))
    assert (data["status"], data["code"], data["outputs"]) == ("failed", code, [])
    assert service.state()["spent"] == 0


def test_list_is_newest_first_in_pages_and_by_time(service: Server, http: httpx.Client) -> None:
    names = [finished(http, service, inputs(seed=seed))["id"] for seed in range(3)]
    finished(http, service, {"text": "a"}, OPTIMIZER)

    def listed(**wanted: Any) -> list[dict[str, Any]]:
        data = http.post("/api/v3/predictions", json={"page": 1, "page_size": 100, **wanted}).json()["data"]
        items: list[dict[str, Any]] = data["items"]
        return items

    assert [one["id"] for one in listed(model=FLUX)] == names[::-1]
    assert [one["id"] for one in listed(model=FLUX, page=2, page_size=2)] == names[:1]
    middle = listed(model=FLUX)[1]["created_at"]
    assert [one["id"] for one in listed(model=FLUX, created_after=middle)] == names[:0:-1]
    assert [one["id"] for one in listed(created_before=middle)] == names[1::-1]
    assert listed(status="failed") == []
    assert "inputs" not in listed()[0]
    assert [one["inputs"]["seed"] for one in listed(model=FLUX, include_inputs=True)] == [2, 1, 0]
    assert http.post("/api/v3/predictions", json={"page_size": 101}).status_code == 400
    service.set(list_delay=60)
    assert listed() == []


def test_upload_tickets_are_strict(service: Server, http: httpx.Client) -> None:
    service.set(ticket_headers={"If-None-Match": "*", "X-Signed": "a"})
    data = png()
    reply = http.post("/api/v3/media/uploads", json={"filename": "a b.png", "size": len(data)}).json()["data"]
    url, headers = reply["upload"]["url"], reply["upload"]["headers"]
    with httpx.Client(trust_env=False) as bare:
        assert bare.put(url, content=data).status_code == 403
        assert http.put(url, content=data, headers=headers).status_code == 400  # with Authorization
        assert bare.put(url, content=data[:-1], headers=headers).status_code == 403
        assert bare.put(url, content=iter([data]), headers=headers).status_code == 411
        assert bare.put(url, content=data, headers=headers).status_code == 200
        assert bare.put(url, content=data, headers=headers).status_code == 412
        assert bare.get(reply["download_url"]).content == data
        service.expire_uploads()
        assert bare.get(reply["download_url"]).status_code == 404
    assert [one.method for one in service.keys_leaked()] == ["PUT"]
    service.set(most_upload=10)
    assert http.post("/api/v3/media/uploads", json={"filename": "a.png", "size": 11}).status_code == 413


@pytest.mark.parametrize("version", [2, 3])
def test_multipart_upload(service: Server, http: httpx.Client, version: int) -> None:
    path = f"/api/v{version}/media/upload/binary"
    data = http.post(path, files={"file": ("m.png", mask_png(), "image/png")}).json()["data"]
    assert data["size"] == len(mask_png())
    assert service.media(data["download_url"]) == mask_png()
    assert http.post(path, data={"other": "x"}).status_code == 400


def test_same_request_is_known_again_wherever_its_pictures_lie(service: Server, http: httpx.Client) -> None:
    for _ in range(2):
        path = "/api/v3/media/upload/binary"
        url = http.post(path, files={"file": ("i.png", png(), "image/png")}).json()["data"]["download_url"]
        finished(http, service, inputs(image=url))
    finished(http, service, inputs())
    with pytest.raises(AssertionError, match="more than once"):
        service.accepted_once()
    assert len({service.identity(one) for one in service.accepted}) == 1


def test_account_and_catalogue(service: Server, http: httpx.Client) -> None:
    service.set(balance=1.0)
    finished(http, service, inputs(num_images=2))
    assert http.get("/api/v3/balance").json()["data"] == {"balance": 0.93}
    assert http.get("/api/v3/account/balance").json()["data"] == {"balance": 0.93, "currency": "USD"}
    asked = {"model_id": FLUX, "inputs": {"num_images": 3}}
    assert http.post("/api/v3/model/price", json=asked).json()["data"]["price"] == pytest.approx(0.105)
    assert http.post("/api/v3/model/pricing", json=asked).json()["data"]["unit_price"] == pytest.approx(0.105)
    models = http.get("/api/v3/models").json()["data"]
    assert {one["model_id"] for one in models} >= {FLUX, OPTIMIZER, "wavespeed-ai/molmo2/prompt-optimizer"}
    service.set(balance=0.01)
    reply = http.post(f"/api/v3/{FLUX}", json=inputs())
    assert (reply.status_code, reply.json()["code"]) == (400, 1407)
    assert http.post("/api/v3/nobody/nothing", json={}).status_code == 404
    assert http.get("/api/v3/predictions/nothing").json() == {"code": 404, "message": "Prediction not found"}


def test_deleted_predictions_end(service: Server, http: httpx.Client) -> None:
    service.set(seconds=60)
    name = http.post(f"/api/v3/{FLUX}", json=inputs()).json()["data"]["id"]
    assert http.delete(f"/api/v3/predictions/{name}").json()["data"] == {"id": name, "status": "deleted"}
    assert http.get(f"/api/v3/predictions/{name}").json()["data"]["status"] == "deleted"
    assert http.delete("/api/v3/predictions/nothing").status_code == 404


def test_limits_of_an_account(service: Server, http: httpx.Client) -> None:
    service.set(concurrent=1, per_minute=3, seconds=60)
    for seed in range(3):
        assert http.post(f"/api/v3/{FLUX}", json=inputs(seed=seed)).status_code == 200
    assert http.post(f"/api/v3/{FLUX}", json=inputs(seed=9)).status_code == 429
    service.wait(lambda one: one.accepted[0].status == "processing")
    assert [one.status for one in service.accepted[1:]] == ["created", "created"]
    assert service.state()["most_unfinished"] == 3


def test_nothing_is_left_behind() -> None:
    before = threading.active_count()
    with Server(seconds=60) as server, httpx.Client(trust_env=False) as client:
        client.post(server.url + f"/api/v3/{FLUX}", json=inputs(), headers={"Authorization": "Bearer test-key"})
        server.fault("balance", "slow", seconds=60)
        with pytest.raises(httpx.ReadTimeout):
            client.get(server.url + "/api/v3/balance", timeout=0.05)
    gc.collect()
    assert threading.active_count() == before


def test_a_process_of_its_own_is_scripted_and_read_over_http() -> None:
    with ServerProcess(seconds=0.05) as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        client.headers["Authorization"] = "Bearer test-key"
        server.fault("submit", 504, accepted=True, match={"seed": 1})
        assert client.post(f"/api/v3/{FLUX}", json=inputs(seed=2)).status_code == 200
        assert client.post(f"/api/v3/{FLUX}", json=inputs(seed=1)).status_code == 504
        state = server.wait(lambda one: all(task["status"] == "completed" for task in one["accepted"]))
        assert [task["inputs"]["seed"] for task in state["accepted"]] == [2, 1]
        assert state["accepted_once"] is True
        assert state["counts"] == {"submit": 2}
        assert state["faults"][0]["used"] == 1
        assert server.state(requests=True)["requests"][1]["fault"] == "status"
        with pytest.raises(ValueError, match="no setting 'second'"):
            server.set(second=1)
        with pytest.raises(ValueError, match="cannot happen there"):
            server.fault("submit", "bomb")
