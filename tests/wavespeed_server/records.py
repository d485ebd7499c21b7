"""What the stand-in keeps: settings, predictions and uploads."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Literal
from urllib.parse import quote, unquote, urlsplit

from .models import Model

MEDIA = ("image", "mask_image")
TERMINAL = ("completed", "failed", "cancelled", "timeout", "deleted")


@dataclass
class Settings:
    """What a test or benchmark may set while the server runs (`server.set(...)`, `POST /_control`).

    seconds: from a prediction's turn to its end. key: the one API key that is let in. balance: dollars left.
    suffix: format and name ending of outputs. strict: a task whose image, mask and size differ fails (else all are
    stretched). list_delay: seconds before the predictions list shows a task. sync_limit: seconds that sync mode waits.
    concurrent: tasks processed at a time, the rest queue (None: all). per_minute: submissions accepted in any 60
    seconds, more get 429. ticket_headers: what an upload ticket tells the client to send. upload_seconds: lifetime of
    uploads. most_upload: bytes, more get 413. most_page: of a page of the list, whatever was asked for. clock: seconds
    that created_at is ahead of ours.
    """

    seconds: float = 0.02
    key: str = "test-key"
    balance: float = 1000.0
    suffix: Literal["png", "jpeg"] = "png"
    strict: bool = True
    list_delay: float = 0.0
    sync_limit: float = 90.0
    concurrent: int | None = None
    per_minute: int | None = None
    ticket_headers: Mapping[str, str] = field(default_factory=lambda: {"If-None-Match": "*"})
    upload_seconds: float = 7 * 86400.0
    most_upload: int = 300 * 1024 * 1024
    most_page: int = 100
    clock: float = 0.0


def timestamp(nanoseconds: int) -> str:
    """ISO time in UTC with nine fractional digits."""
    whole, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(whole, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"


def nanoseconds(text: str) -> int:
    """The inverse of `timestamp`, for any number of fractional digits. Raises ValueError."""
    head, _, rest = text.removesuffix("Z").partition(".")
    return int(datetime.fromisoformat(head + "+00:00").timestamp()) * 10**9 + int(f"{rest:0<9}"[:9] or 0)


@dataclass
class Upload:
    """A file that a client brought; `data` is None until it has arrived."""

    id: str
    filename: str
    size: int
    content_type: str
    headers: Mapping[str, str]
    expires: float
    data: bytes | None = field(default=None, repr=False)
    downloads: int = 0

    @property
    def expired(self) -> bool:
        return time.monotonic() > self.expires

    @property
    def path(self) -> str:
        return f"/_media/{self.id}/{quote(self.filename)}"


@dataclass
class Prediction:
    """An accepted submission, its inputs as they came, and how far it is.

    `key` is the API key it came with, `at` and `finished` are seconds of `time.monotonic`, `polls` and `downloads`
    count the results and outputs asked for.
    """

    model: Model
    inputs: Mapping[str, Any]
    key: str | None
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    created: int = field(default_factory=time.time_ns)
    at: float = field(default_factory=time.monotonic)
    status: str = "created"
    error: str = ""
    code: int = 0
    outputs: list[str | Callable[[], bytes]] = field(default_factory=list, repr=False)
    nsfw: list[bool] = field(default_factory=list)
    inference: int = 0
    finished: float | None = None
    polls: int = 0
    downloads: int = 0
    over: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    released: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def finish(self, status: str, error: str = "", code: int = 0) -> None:
        """Reach a terminal status, once."""
        if self.status not in TERMINAL:
            self.status, self.error, self.code, self.finished = status, error, code, time.monotonic()
            self.over.set()

    def data(self, origin: str, suffix: str) -> dict[str, Any]:
        """The prediction as JSON shows it to a client that talks to `origin`."""
        outputs: list[str] = []
        if self.status == "completed":
            for number, output in enumerate(self.outputs, start=1):
                if isinstance(output, str):
                    outputs.append(output)
                elif self.inputs.get("enable_base64_output"):
                    outputs.append(base64.b64encode(output()).decode())
                else:
                    outputs.append(f"{origin}/_outputs/{self.id}/{number}.{suffix}")
        value: dict[str, Any] = {
            "id": self.id,
            "model": self.model.name,
            "status": self.status,
            "outputs": outputs,
            "urls": {"get": f"{origin}/api/v3/predictions/{self.id}/result"},
            "has_nsfw_contents": self.nsfw if self.status == "completed" else [],
            "created_at": timestamp(self.created),
            "error": self.error,
            "timings": {"inference": self.inference},
        }
        if self.code:
            value["code"] = self.code
        return value


def upload_at(url: str, uploads: Mapping[str, Upload], origins: set[str]) -> Upload | None:
    """The upload that one of our own URLs names; None for every other URL."""
    parts = urlsplit(url)
    folder, _, name = unquote(parts.path).removeprefix("/_media/").partition("/")
    upload = uploads.get(folder)
    return upload if parts.netloc in origins and upload is not None and upload.filename == name else None


def inline(text: str) -> bytes | None:
    """The bytes of a data URI or naked base64; None if it is neither."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def media(text: str, uploads: Mapping[str, Upload], origins: set[str]) -> bytes | None:
    """The bytes behind an input: an upload that has not expired, a data URI or naked base64; None without any."""
    if text.startswith(("http://", "https://")):
        upload = upload_at(text, uploads, origins)
        return None if upload is None or upload.expired else upload.data
    return inline(text)


def identity(prediction: Prediction, uploads: Mapping[str, Upload], origins: set[str]) -> str:
    """A hash of model and inputs, pictures by their bytes: the same for two submissions that ask for the same thing."""
    shown = dict(prediction.inputs)
    for name in MEDIA:
        text = shown.get(name)
        if isinstance(text, str):
            upload = upload_at(text, uploads, origins)
            data = upload.data if upload else inline(text)
            shown[name] = hashlib.sha256(data).hexdigest() if data else text
    return hashlib.sha256(json.dumps([prediction.model.name, shown], sort_keys=True).encode()).hexdigest()
