"""What tests of the WaveSpeed API send, and a whole run over bare HTTP."""

from __future__ import annotations

import base64
from typing import Any

import cv2
import httpx
import numpy as np
from wavespeed_server import Server

FLUX = "wavespeed-ai/flux-fill-dev"
OPTIMIZER = "wavespeed-ai/prompt-optimizer"
SIZE = (320, 256)


def png(value: int = 90, size: tuple[int, int] = SIZE) -> bytes:
    """A grey picture with a gradient."""
    rows = np.linspace(value, value + 60, size[1]).astype(np.uint8)
    return bytes(cv2.imencode(".png", np.repeat(np.repeat(rows[:, None, None], size[0], 1), 3, 2))[1])


def mask_png(size: tuple[int, int] = SIZE) -> bytes:
    mask = np.zeros(size[::-1], np.uint8)
    mask[80:180, 100:220] = 255
    return bytes(cv2.imencode(".png", mask)[1])


def decoded(data: bytes) -> np.ndarray:
    made = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    assert made is not None
    return made.astype(int)


def inputs(**others: Any) -> dict[str, Any]:
    """A whole submission whose pictures are data URIs."""
    shown = {
        name: "data:image/png;base64," + base64.b64encode(data).decode()
        for name, data in (("image", png()), ("mask_image", mask_png()))
    }
    return {**shown, "prompt": "a red chair", "size": f"{SIZE[0]}*{SIZE[1]}", "seed": 1, **others}


def finished(http: httpx.Client, service: Server, sent: dict[str, Any], model: str = FLUX) -> dict[str, Any]:
    """Submit, wait, and the prediction's data."""
    reply = http.post(f"/api/v3/{model}", json=sent)
    assert reply.status_code == 200, reply.text
    name = reply.json()["data"]["id"]
    service.wait(lambda one: next(p for p in one.accepted if p.id == name).finished)
    data: dict[str, Any] = http.get(f"/api/v3/predictions/{name}/result").json()["data"]
    return data
