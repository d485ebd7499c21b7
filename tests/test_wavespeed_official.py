"""The official client runs against the stand-in, so that it is known to be a fair one."""

from __future__ import annotations

import io
from pathlib import Path

import httpx
import pytest
import wavespeed
from wavespeed_calls import FLUX, OPTIMIZER, inputs, mask_png, png
from wavespeed_server import Server


@pytest.fixture
def official(service: Server, monkeypatch: pytest.MonkeyPatch) -> wavespeed.Client:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    return wavespeed.Client(api_key=service.settings.key, base_url=service.url + "/", retry_interval=0.01)


def test_official_client_uploads_runs_and_polls(service: Server, official: wavespeed.Client, tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    path.write_bytes(png())
    urls = [official.upload(str(path)), official.upload(io.BytesIO(mask_png()))]
    sent = inputs(image=urls[0], mask_image=urls[1])
    result = official.run(FLUX, sent, poll_interval=0.01)
    (url,) = result["outputs"]
    assert httpx.get(url, trust_env=False).content.startswith(b"\x89PNG")
    assert [one.data for one in service.uploads] == [png(), mask_png()]
    assert [one.filename for one in service.uploads] == ["photo.png", "upload"]
    (prediction,) = service.accepted_once(1)
    assert prediction.inputs == sent
    assert prediction.polls >= 1
    assert prediction.downloads == 1
    assert not service.keys_leaked()
    assert service.requests[0].headers["x-client-name"] == "wavespeed-python"


def test_official_client_in_sync_mode(service: Server, official: wavespeed.Client) -> None:
    result = official.run(OPTIMIZER, {"text": "a chair"}, enable_sync_mode=True)
    assert result["outputs"][0].startswith("a chair")
    assert service.counts == {"submit": 1}
    service.set(sync_limit=0.02, seconds=5)
    with pytest.raises(RuntimeError, match=r"Sync mode timed out \(task_id: [0-9a-f]{32}\)"):
        official.run(FLUX, inputs(), enable_sync_mode=True)


def test_official_client_sees_failures(service: Server, official: wavespeed.Client) -> None:
    service.fault("task", "fail", code=1402)
    with pytest.raises(RuntimeError, match=r"Prediction failed .* Failed to download image"):
        official.run(FLUX, inputs(), poll_interval=0.01)
    service.fault("task", "end", status="timeout")
    with pytest.raises(RuntimeError, match="Prediction timeout"):
        official.run(FLUX, inputs(), poll_interval=0.01)
    service.fault("submit", 503)
    with pytest.raises(RuntimeError, match="HTTP 503"):
        official.run(FLUX, inputs())
    with pytest.raises(RuntimeError, match="HTTP 400.*guidance_scale"):
        official.run(FLUX, inputs(guidance_scale=25))
    with pytest.raises(RuntimeError, match="HTTP 401"):
        wavespeed.Client(api_key="wrong", base_url=service.url).run(FLUX, inputs())
    assert len(service.accepted) == 2


def test_official_client_retries_results_and_never_submissions(service: Server, official: wavespeed.Client) -> None:
    for what in (429, 500, 502, 503, 504):
        service.fault("poll", what)
    assert official.run(FLUX, inputs(), poll_interval=0.01)["outputs"]
    assert [one.status for one in service.requests if one.kind == "poll"][:6] == [429, 500, 502, 503, 504, 200]
    service.fault("poll", "drop")
    assert official.run(FLUX, inputs(), poll_interval=0.01)["outputs"]
    service.fault("submit", "drop-after")
    with pytest.raises(RuntimeError, match="did not return a response"):
        official.run(FLUX, inputs())
    assert len(service.accepted) == 3
    with pytest.raises(AssertionError, match="more than once"):
        service.accepted_once()
