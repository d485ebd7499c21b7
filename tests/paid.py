"""What the tests of paid tasks share: a run's little, orders for the stand-in, and an account with short waits."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from pydantic import SecretStr

from toolkit.engines.fill.wavespeed import _read
from toolkit.geometry import Size
from toolkit.journal import Journal
from toolkit.limits import Limits
from toolkit.run import Budget
from toolkit.wavespeed.client import Client, Timeouts
from toolkit.wavespeed.tasks import Order, Tasks

if TYPE_CHECKING:
    from wavespeed_server import Server

MODEL = "wavespeed-ai/flux-fill-dev"
KEY = "test-key"
PRICE = 0.035
SHORT = Timeouts(connect=2.0, answer=0.5, submit=0.5, upload=0.5, download=0.5)


def quick_card(configuration: Path) -> None:
    """Have the hosted engine's first poll come at once: the stand-in takes no seconds."""
    name = "models/fill/wavespeed-flux-fill-dev.yaml"
    text = (Path(__file__).parent.parent / name).read_text(encoding="utf-8")
    text = re.sub(r"(?m)^per_call: .*$", "per_call: 0", re.sub(r"(?m)^pace: .*$", "pace: 0.01", text))
    (configuration / name).parent.mkdir(parents=True, exist_ok=True)
    (configuration / name).write_text(text, encoding="utf-8")


class PaidRun:
    """The little that tasks see of a run; `cancel` may be set, or replaced by a condition."""

    def __init__(self, journal: Journal, limit: float | None = None, fresh: bool = False, id: str = "") -> None:
        self.id = id or journal.begin({})
        self.fresh = fresh
        self.budget = Budget(limit)
        self.reserve, self.release = self.budget.reserve, self.budget.release
        self.shares: list[float] = []
        self.told: list[str] = []
        self.cancel = threading.Event()
        self.cancel_when: Callable[[], bool] = self.cancel.is_set

    def progress(self, name: str, share: float) -> None:
        self.shares.append(share)
        self.told.append(name)

    def cancelled(self, name: str = "") -> bool:
        return self.cancel_when()


@cache
def pictures(number: int = 0, side: int = 256) -> tuple[bytes, bytes]:
    """A crop and its hard mask as PNG files; another `number` gives another crop."""
    y, x = np.mgrid[:side, :side]
    crop = np.stack([x % 256, y % 256, np.full_like(x, number % 256)], axis=-1).astype(np.uint8)
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 255
    return cv2.imencode(".png", crop)[1].tobytes(), cv2.imencode(".png", mask)[1].tobytes()


def order(number: int = 0, prompt: str = "a red bicycle", **inputs: Any) -> Order:
    """A job of one image; orders are the same when number, prompt and inputs are."""
    image, mask = pictures(number)
    sent = {"prompt": prompt, "size": "256*256", "seed": 0, "guidance_scale": 30, "num_images": 1, "loras": []} | inputs
    return Order(
        key=hashlib.sha256(repr((number, sorted(sent.items()))).encode()).hexdigest(),
        model=MODEL,
        inputs=sent,
        pictures={"image": image, "mask_image": mask},
        price=PRICE * sent["num_images"],
        seconds=lambda size: 0.02,
        name=f"window {number}",
        read=lambda data: _read(data, Size(256, 256)),
    )


def account(
    server: Server | str, folder: Path | None, *, settle: float = 0.4, patience: float = 20.0,
    timeouts: Timeouts = SHORT, concurrent: int = 16,
) -> tuple[Tasks, Journal]:  # fmt: skip
    """Tasks of the stand-in's account and their journal, in `folder` or in memory."""
    journal = Journal(folder)
    limits = Limits(folder, "an account", 100000, concurrent)
    client = Client(server if isinstance(server, str) else server.url, SecretStr(KEY), timeouts=timeouts)
    return Tasks(client, journal, limits, "an account", settle=settle, patience=patience), journal


def key_written(folder: Path) -> list[Path]:
    """Files below the folder that hold the key's bytes."""
    return [path for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]
