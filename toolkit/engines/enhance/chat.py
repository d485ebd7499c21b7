"""Any OpenAI-compatible chat endpoint: `POST {base_url}/chat/completions`, as Ollama, llama.cpp, vLLM and hosts speak.

Address, model, price and whether it takes pictures stand in the user's settings under `chat`. Redirects are not
followed, and the key goes to an encrypted address or this machine only.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import httpx

from toolkit.cards import Card
from toolkit.engines import EngineRun, EnhanceJob, EnhanceResult
from toolkit.engines.enhance._asking import ORDERS, picture_file, question
from toolkit.errors import Cancelled, EngineError, ToolkitError
from toolkit.geometry import Price
from toolkit.library import configuration_folder
from toolkit.prompts import cleaned
from toolkit.settings import Chat, is_loopback, key_for, load

MAX_REPLY = 1 << 20
"""Bytes of a reply."""

_TICK = 0.1
"""Seconds between looks at whether the run was cancelled."""

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.UnsupportedProtocol, httpx.InvalidURL)

_PERHAPS = ": perhaps paid; `inpaint enhance --recipe NAME --fresh` asks anew, and pays for no fill"


def missing(card: Card) -> str:
    """What keeps it from running here."""
    try:
        model = load().chat.model
        key_for("chat")
    except ToolkitError as problem:
        return str(problem)
    return "" if model else f"it has no model: set chat.model in {configuration_folder() / 'settings.yaml'}"


def configured(card: Card) -> Card:
    """The card with the price in the settings, and whether the endpoint is on this machine."""
    try:
        chat = load().chat
    except ToolkitError:
        return card
    changes = {"price": Price(per_image=chat.price), "data_leaves_machine": not is_loopback(chat.base_url)}
    return card.model_copy(update=changes)


def destination(card: Card) -> str:
    """The host that the prompt, and the picture where the model takes one, are sent to."""
    return urlsplit(load().chat.base_url).hostname or ""


class Engine:
    """Has prompts written by the endpoint; each answer is journalled, and had once for the same question."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def enhance(self, job: EnhanceJob, run: EngineRun) -> EnhanceResult:
        """The model's prompt; from the journal where it was had before.

        Raises:
            EngineError: when the endpoint cannot be reached, refused, or did not answer in time.
            Cancelled: when the run was cancelled.
        """
        chat = load().chat
        state = f"{chat.base_url}\0{chat.model}\0{chat.pictures}\0{job.key}".encode()
        key = hashlib.sha256(state).hexdigest()
        facts = {"model": chat.model, "url": chat.base_url}
        with run.journal.claim(
            key, "enhance", run=run.id, fresh=run.fresh, cancelled=lambda: run.cancelled(job.name)
        ) as claim:
            entry = claim.entry
            if entry.state == "done":
                return EnhanceResult(str(entry.answer["prompt"]), 0.0, {**facts, "kept": True})
            if entry.state != "intended":  # an earlier process ended before the answer came
                if entry.price:
                    claim.unknown(entry.error or f"{_place(chat)}: no answer came")
                    raise EngineError(f"{claim.entry.error} (when it was last asked){_PERHAPS}")
                claim.failed("no answer came")
            request = _request(chat, job)
            run.reserve(chat.price)
            try:
                claim.sending({"model": chat.model, "url": chat.base_url, "prompt": job.prompt}, chat.price)
                text = _asked(chat, request, job.name, run)
            except _Refused as problem:
                claim.failed(str(problem))
                run.release(chat.price)
                raise EngineError(str(problem)) from None
            except (EngineError, Cancelled) as problem:
                if claim.entry.state != "sending":  # it could not be written down, so nothing was sent
                    run.release(chat.price)
                elif chat.price:
                    if isinstance(problem, Cancelled):
                        claim.unknown(f"{_place(chat)}: cancelled before an answer came")
                        raise
                    claim.unknown(str(problem))
                    raise EngineError(f"{problem}{_PERHAPS}") from None
                else:
                    claim.failed(str(problem) or "cancelled")
                raise
            prompt = cleaned(text)
            if not prompt:
                claim.failed("no usable prompt came", paid=chat.price)
                return EnhanceResult("", chat.price, facts, f"{_place(chat)}: no usable prompt came")
            claim.done({"prompt": prompt, "outputs": [text]})
        return EnhanceResult(prompt, chat.price, {**facts, "kept": False})


class _Refused(Exception):
    """Certainly not answered, so not paid."""


def _request(chat: Chat, job: EnhanceJob) -> tuple[dict[str, str], bytes]:
    """Headers and body.

    Raises:
        EngineError: when the stored key cannot be read.
    """
    headers = {"Content-Type": "application/json", "User-Agent": "inpaint-toolkit"}
    key = key_for("chat")
    if key is not None and _is_private(chat):
        headers["Authorization"] = f"Bearer {key.get_secret_value()}"
    return headers, json.dumps({"model": chat.model, "messages": _messages(chat, job), "stream": False}).encode()


def _asked(chat: Chat, request: tuple[dict[str, str], bytes], name: str, run: EngineRun) -> str:
    """The model's words.

    Raises:
        _Refused: when nothing was sent, or it was refused.
        EngineError: when no answer came that can be understood.
        Cancelled: when the run was cancelled; the connection is closed.
    """
    headers, content = request
    address = f"{chat.base_url}/chat/completions"
    answers: list[tuple[int, bytes]] = []
    problems: list[Exception] = []
    ended = threading.Event()
    timeout = httpx.Timeout(chat.timeout, connect=min(10.0, chat.timeout))
    with httpx.Client(timeout=timeout, trust_env=not is_loopback(chat.base_url)) as client:

        def exchange() -> None:
            try:
                with client.stream("POST", address, content=content, headers=headers) as answer:
                    body = b""
                    for part in answer.iter_bytes():
                        body += part
                        if len(body) > MAX_REPLY or ended.is_set():
                            break
                    answers.append((answer.status_code, body))
            except Exception as problem:
                problems.append(problem)
            ended.set()

        threading.Thread(target=exchange, name=f"ask {name}", daemon=True).start()
        until = time.monotonic() + chat.timeout
        while not ended.wait(_TICK):
            if run.cancelled(name):
                ended.set()
                raise Cancelled
            if time.monotonic() > until:
                ended.set()
                raise EngineError(f"{_place(chat)}: no answer within {chat.timeout:g} s (chat.timeout in the settings)")
    if problems:
        reason = str(problems[0]) or type(problems[0]).__name__
        if isinstance(problems[0], _NOT_SENT):
            raise _Refused(f"{_place(chat)}: cannot be reached ({reason})")
        raise EngineError(f"{_place(chat)}: the connection was lost ({reason})")
    return _words(chat, *answers[0])


def _words(chat: Chat, status: int, body: bytes) -> str:
    """What the model wrote; "" where an answer came and holds none.

    Raises:
        _Refused, EngineError: as `_asked`.
    """
    if status >= 300:
        advice = ""
        if status in (401, 403):
            advice = "; `inpaint keys set chat` stores a key"
            if not _is_private(chat):
                advice = "; the key is not sent to it, because its address is not encrypted: use https"
        elif status == 404:
            advice = "; check chat.base_url (up to and with /v1) and chat.model in the settings"
        elif status < 400:
            advice = "; it leads elsewhere: name the right address as chat.base_url in the settings"
        said = _said(body)
        problem = f"{_place(chat)}: HTTP {status}{f' ({said})' if said else ''}{advice}"
        raise EngineError(problem) if status >= 500 else _Refused(problem)
    if len(body) > MAX_REPLY:
        raise EngineError(f"{_place(chat)}: an answer of more than {MAX_REPLY} bytes")
    choices = _dict(_json(body)).get("choices")
    choice = _dict(choices[0]) if isinstance(choices, list) and choices else {}
    if choice.get("finish_reason") in ("length", "content_filter"):
        return ""
    words = _dict(choice.get("message")).get("content")
    if isinstance(words, list):
        words = "".join(str(_dict(part).get("text") or "") for part in words)
    return words if isinstance(words, str) else ""


def _messages(chat: Chat, job: EnhanceJob) -> list[dict[str, Any]]:
    asked: Any = question(job, chat.pictures)
    if chat.pictures:
        url = f"data:image/jpeg;base64,{base64.b64encode(picture_file(job, '.jpg')).decode()}"
        asked = [{"type": "text", "text": asked}, {"type": "image_url", "image_url": {"url": url}}]
    return [{"role": "system", "content": ORDERS}, {"role": "user", "content": asked}]


def _is_private(chat: Chat) -> bool:
    """Whether nobody on the way can read what is sent."""
    return chat.base_url.startswith("https://") or is_loopback(chat.base_url)


def _place(chat: Chat) -> str:
    return chat.base_url


def _said(body: bytes) -> str:
    """The endpoint's own words about an error, short; never what looks like a key."""
    values = _dict(_json(body))
    error = values.get("error", values.get("message", values.get("detail")))
    text = " ".join(str(_dict(error).get("message") or (error if isinstance(error, str) else "")).split())
    key = key_for("chat")
    secret = key.get_secret_value() if key else ""
    return "" if secret and any(part in text for part in (secret, secret[-8:])) else text[:200]


def _dict(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None
