"""What the service answers, read with care, and what its errors mean.

Two fields are called `code`: that of the envelope (like HTTP, or a business code) and that of a failed task.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from toolkit.errors import EngineError

Kind = Literal["moderation", "parameter", "media", "storage", "credit", "key", "busy", "fault", "missing", "moved"]

FINISHED = ("completed",)
FAILED = ("failed", "cancelled", "canceled", "timeout", "deleted")
"""Words for the end; on any other the service is still at it."""

_KIND_OF_CODE: Mapping[int, Kind] = {
    1200: "moderation",
    1400: "parameter",
    1401: "parameter",
    1402: "media",
    1403: "fault",
    1405: "fault",
    1406: "fault",
    1407: "credit",
    5000: "fault",
    5003: "fault",
    5004: "fault",
    400: "parameter",
    401: "key",
    402: "credit",
    403: "key",
    404: "missing",
    410: "missing",
    413: "media",
    422: "parameter",
    429: "busy",
}

_ADVICE: Mapping[Kind, str] = {
    "moderation": "its content check refused this; change the prompt or the picture",
    "parameter": "it refused a parameter",
    "media": "it could not read the pictures sent; try again",
    "storage": "its place for uploads refuses files",
    "credit": "the account has no credit left; top it up at the service",
    "key": "it refused the key; `inpaint keys set wavespeed` stores another (one works after the first top-up only)",
    "busy": "too many requests; the account's level is `wavespeed.tier` in the settings",
    "fault": "a fault of the service; try again later",
    "missing": "it knows nothing of this",
    "moved": "it sends this on to another address, where it does not go; correct `wavespeed.base_url` in the settings",
}


class ServiceError(EngineError):
    """The service said no.

    Args:
        kind: what sort of no.
        said: the service's own words.
        again: seconds it asked to wait, where it did.
    """

    def __init__(self, kind: Kind, said: str = "", again: float | None = None) -> None:
        self.kind, self.said, self.again = kind, said, again
        words = f" ({said})" if said else ""
        super().__init__(f"WaveSpeed: {_ADVICE[kind]}{words}")

    def __reduce__(self) -> tuple[type[ServiceError], tuple[Kind, str, float | None]]:
        return type(self), (self.kind, self.said, self.again)


class Unreachable(EngineError):
    """Nothing was sent: no connection was made.

    Args:
        message: one sentence.
        nobody: the connection was refused, the name is unknown or the proxy of no use, which hardly passes by itself.
    """

    def __init__(self, message: str, nobody: bool = False) -> None:
        super().__init__(message)
        self.nobody = nobody


class Lost(EngineError):
    """Something was sent, or may have been, and no answer that can be understood came back.

    Args:
        message: one sentence.
        refused: what the answer would mean if it could be trusted.
    """

    def __init__(self, message: str, refused: ServiceError | None = None) -> None:
        super().__init__(message)
        self.refused = refused


@dataclass(frozen=True)
class Prediction:
    """A task at the service.

    Attributes:
        id: its name there.
        model: which model does it.
        status: the service's word.
        outputs: addresses, or texts of a model that writes.
        flagged: one truth a picture: its content check found something in it.
        created_at: as the service writes it.
        error: its words when it failed.
        code: the task's own error code; 0 without one.
        timings: milliseconds by name.
        urls: addresses by name.
        inputs: what was sent; None where the service does not say.
    """

    id: str
    model: str = ""
    status: str = ""
    outputs: tuple[str, ...] = ()
    flagged: tuple[bool, ...] = ()
    created_at: str = ""
    error: str = ""
    code: int = 0
    timings: Mapping[str, float] = field(default_factory=dict)
    urls: Mapping[str, str] = field(default_factory=dict)
    inputs: Mapping[str, Any] | None = None

    @classmethod
    def read(cls, data: Any) -> Prediction | None:
        """What `data` tells; None without a usable id. Missing, null and wrongly typed fields count as empty."""
        name = data.get("id") if isinstance(data, dict) else None
        if not isinstance(name, str) or not re.fullmatch(r"[!-~]{1,200}", name):
            return None
        inputs = next((data[name] for name in ("inputs", "input") if isinstance(data.get(name), dict)), None)
        outputs = data.get("outputs", data.get("output"))
        code = data.get("code")
        return cls(
            id=name,
            model=_text(data.get("model")),
            status=_text(data.get("status")).strip().lower(),
            outputs=tuple(one if isinstance(one, str) else "" for one in _list(outputs)),
            flagged=tuple(one is True for one in _list(data.get("has_nsfw_contents"))),
            created_at=_text(data.get("created_at")),
            error=_text(data.get("error")),
            code=code if isinstance(code, int) and not isinstance(code, bool) else 0,
            timings={key: value for key, value in _dict(data.get("timings")).items() if _is_duration(value)},
            urls={key: value for key, value in _dict(data.get("urls")).items() if isinstance(value, str)},
            inputs=inputs,
        )

    @property
    def is_finished(self) -> bool:
        """It came to its end and may have outputs."""
        return self.status in FINISHED

    @property
    def is_failed(self) -> bool:
        """It came to its end and has none."""
        return self.status in FAILED

    @property
    def is_ended(self) -> bool:
        """Nothing more will come of it."""
        return self.is_finished or self.is_failed

    @property
    def pictures(self) -> tuple[str | None, ...]:
        """The outputs, None in place of one that is flagged; some services give no address for these."""
        if len(self.outputs) + sum(self.flagged) == len(self.flagged):
            urls = iter(self.outputs)
            return tuple(None if flag else next(urls) for flag in self.flagged)
        count = max(len(self.outputs), sum(self.flagged))
        outputs = (*self.outputs, *("" for _ in range(count - len(self.outputs))))
        flagged = (*self.flagged, *(False for _ in outputs))
        return tuple(None if flag else url for url, flag in zip(outputs, flagged, strict=False))

    def failure(self) -> ServiceError:
        """Why it failed."""
        kind = _KIND_OF_CODE.get(self.code) or _kind_of_words(self.error) or "fault"
        said = self.error or f"status {self.status}"
        return ServiceError(kind, f"{said}, code {self.code}" if self.code else said)


def refusal(status: int, values: Any, text: str, again: float | None = None) -> ServiceError:
    """What an answer other than OK means.

    Args:
        status: of HTTP; 400 or more, or an envelope's code is no 200.
        values: the answer's JSON; None where it is none.
        text: how the answer begins, for want of JSON.
        again: seconds it asked to wait.
    """
    said, code = "", 0
    if isinstance(values, dict):
        said = next((t for name in ("message", "error", "detail") if (t := _text(values.get(name)))), "")
        outer = values.get("code")
        code = outer if isinstance(outer, int) and not isinstance(outer, bool) else 0
    elif values is None and "<" not in text:
        said = text
    kind = _KIND_OF_CODE.get(code) if code not in (0, 200, status) else None
    kind = kind or _kind_of_words(said) or _KIND_OF_CODE.get(status)
    if kind is None:
        kind = "fault" if status >= 500 or code >= 5000 or status < 400 else "parameter"
    numbers = f"HTTP {status}" + (f", code {code}" if code not in (0, status) else "")
    return ServiceError(kind, f"{short(said)}, {numbers}" if said else numbers, again)


def _kind_of_words(said: str) -> Kind | None:
    words = said.lower()
    if re.search(r"insufficient (credit|balance|fund)|not enough (credit|balance)|top.?up", words):
        return "credit"
    if re.search(r"too many requests|rate limit", words):
        return "busy"
    if re.search(r"moderation|nsfw|sensitive content", words):
        return "moderation"
    return None


def _is_duration(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e10


def short(text: str) -> str:
    """What somebody else wrote, as part of a sentence: in one line, with nothing in it that a terminal obeys."""
    if not text.isprintable():
        text = "".join(sign if sign.isprintable() else " " for sign in text)
    text = " ".join(text.split())
    return text if len(text) <= 200 else text[:197] + "..."


def _text(value: Any) -> str:
    return short(value) if isinstance(value, str) else ""


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value] if isinstance(value, str) else []


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
