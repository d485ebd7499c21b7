"""What can be asked of the WaveSpeed REST API v3: each method says for certain what an error means.

Nothing is repeated here. The key goes to the service's own address only, never along a redirect, to a place for
uploads or to one for downloads; it stands in no error and no answer, not even where the service repeats it.
"""

from __future__ import annotations

import base64
import contextlib
import email.utils
import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urljoin

import httpx
from pydantic import SecretStr

from toolkit.wavespeed.messages import Reply
from toolkit.wavespeed.replies import Lost, Prediction, ServiceError, Unreachable, refusal
from toolkit.wavespeed.traffic import Traffic

MAX_REPLY = 32 << 20
"""Bytes of a reply in JSON; a list of predictions may hold pictures that were sent within their requests."""

MAX_PICTURE = 64 << 20
"""Bytes of a picture that is downloaded, at most, whatever its size."""

_PAGE = 100
_PAGES = 50
_REDIRECTS = 5
_REDIRECTED = (301, 302, 303, 307, 308)
_MAYBE_TAKEN = (300, 302, 303, 304, 408, 409, 425, 499)
"""HTTP statuses below 500, and codes like them, that do not say for certain that a submission was refused."""
_LATER = (408, 425, 429)
"""Those that say that the same may be taken at another time."""

Cancel = Callable[[], bool]


def _never() -> bool:
    return False


@dataclass(frozen=True)
class Timeouts:
    """Seconds: until a connection stands, of silence for an answer, a submission, an upload and a download.

    All of an exchange may take twice its time, a download ten times.
    """

    connect: float = 10.0
    answer: float = 30.0
    submit: float = 60.0
    upload: float = 120.0
    download: float = 30.0


class Client:
    """One account at the service; safe to use from several threads.

    Args:
        base_url: where the service is.
        key: of the account.
        proxy: for all traffic; empty for the environment's.
        timeouts: how long it may take.

    Attributes:
        service: the address as given.
        base_url: the address as the network knows it.
    """

    def __init__(self, base_url: str, key: SecretStr, *, proxy: str = "", timeouts: Timeouts | None = None) -> None:
        self.service, self.base_url = base_url, str(httpx.URL(base_url)).rstrip("/")
        self._key, self._timeouts, self._takes_forms = key, timeouts or Timeouts(), True
        self._traffic = Traffic(self.base_url, proxy, self._timeouts.connect)
        self._mark = secrets.token_hex(16)  # between the parts of a form; no file holds it

    def close(self) -> None:
        """End its connections."""
        self._traffic.close()

    def submit(self, model: str, inputs: Mapping[str, Any], cancelled: Cancel = _never) -> Prediction:
        """Have the service begin a task: the one call that is paid.

        Raises:
            ServiceError: when it certainly did not take it.
            Unreachable: when nothing was sent.
            Lost: when it may have taken it.
            Cancelled: when `cancelled` said so; it may have taken it.
        """
        reply = self._exchange("POST", f"/api/v3/{quote(model, safe='/')}", inputs, self._timeouts.submit, cancelled)
        values = self._json(reply)
        prediction = Prediction.read(values.get("data")) if isinstance(values, dict) else None
        if prediction is not None and reply.status < 300:
            return prediction
        problem, code = self._refusal(reply, values), _code(values)
        if reply.status >= 500 or reply.status in _MAYBE_TAKEN:
            raise Lost(str(problem), problem)
        if reply.status >= 300:
            raise Lost(str(problem), problem) if code >= 5000 else problem
        if code in (0, 200):
            raise Lost("WaveSpeed: the answer to a submission names no task")
        if code < 300 or code in _MAYBE_TAKEN or 500 <= code < 600 or code >= 5000:
            raise Lost(str(problem), problem)
        raise problem

    def prediction(self, name: str, cancelled: Cancel = _never) -> Prediction:
        """How a task stands.

        Raises:
            ServiceError: "missing" when the service does not know it.
            Unreachable, Lost: when it could not be asked; nothing is lost by asking again.
            Cancelled: when `cancelled` said so.
        """
        found = Prediction.read(self._got("GET", f"/api/v3/predictions/{quote(name, safe='')}/result", None, cancelled))
        if found is None or found.id != name:
            raise Lost("WaveSpeed: its answer about a task cannot be understood")
        return found

    def predictions(self, after: float, model: str = "", cancelled: Cancel = _never) -> Iterator[Prediction]:
        """Tasks that were created since `after` (seconds since the epoch), newest first.

        Args:
            after: by the service's clock.
            model: only those of one model; empty for all.
            cancelled: asked several times a second.

        Raises:
            ServiceError, Unreachable, Lost: when the service does not answer in full, which proves nothing.
            Cancelled: when `cancelled` said so.
        """
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(max(0.0, after)))
        wanted = {"page_size": _PAGE, "created_after": since, "include_inputs": True}
        if model:
            wanted["model"] = model
        seen: set[str] = set()
        for page in range(1, _PAGES + 1):
            data = self._got("POST", "/api/v3/predictions", {**wanted, "page": page}, cancelled)
            items = data.get("items") if isinstance(data, dict) else None
            if not isinstance(items, list):
                raise Lost("WaveSpeed: its list of predictions cannot be understood")
            new = 0
            for item in items:
                one = Prediction.read(item)
                if one is None:
                    raise Lost("WaveSpeed: its list of predictions holds one without a name")
                if one.id not in seen:
                    new += 1
                    seen.add(one.id)
                    yield one
            total = data.get("total")
            # A short page is the last one, unless the service gives shorter pages than it was asked for.
            if not items or (len(items) < _PAGE and (not isinstance(total, int) or len(seen) >= total)):
                return
            if not new:
                raise Lost("WaveSpeed: its list of predictions repeats itself")
        raise Lost(f"WaveSpeed: its list of predictions is longer than {_PAGES} pages")

    def upload(self, data: bytes, name: str, content_type: str, cancelled: Cancel = _never) -> str:
        """Bring a file to the service and return its address there; as a form, else by ticket (two exchanges).

        Raises:
            ServiceError, Unreachable, Lost: when neither way works.
            Cancelled: when `cancelled` said so.
        """
        try:
            if self._takes_forms:
                return self._by_form(data, name, content_type, cancelled)
        except ServiceError as problem:
            if problem.kind in ("key", "busy", "credit"):
                raise
            self._takes_forms = problem.kind not in ("missing", "moved")
        except Lost:
            pass
        return self._by_ticket(data, name, content_type, cancelled)

    def download(self, address: str, cancelled: Cancel = _never, limit: int = MAX_PICTURE) -> bytes:
        """A file from the address of an output, without the key.

        Args:
            address: given by the service.
            cancelled: asked several times a second.
            limit: bytes at most; never more than MAX_PICTURE.

        Raises:
            ServiceError: "missing" when it is no longer there; others for other refusals.
            Unreachable, Lost: when it did not come whole, is too large or took too long.
            Cancelled: when `cancelled` said so.
        """
        seconds = self._timeouts.download
        for _ in range(_REDIRECTS):
            if not address.startswith(("https://", "http://")):
                raise Lost("WaveSpeed: an output has no address that can be fetched")
            if address.startswith("http://") and self.base_url.startswith("https://"):
                raise Lost("WaveSpeed: an output lies at an unencrypted address, which is not fetched")
            reply = self._traffic.ask(
                "GET", address, {"User-Agent": "inpaint-toolkit"},
                limit=min(limit, MAX_PICTURE), read=seconds, total=10 * seconds, cancelled=cancelled,
            )  # fmt: skip
            if reply.status in _REDIRECTED and "location" in reply.headers:
                address = _led(address, reply.headers["location"])
                continue
            if reply.status in (401, 403, 404, 410):  # no key was asked for: what ran out is often forbidden
                raise ServiceError("missing", f"HTTP {reply.status}")
            if reply.status != 200:
                raise self._refusal(reply, None)
            return reply.body
        raise Lost("WaveSpeed: an output is redirected in a circle")

    def balance(self) -> float | None:
        """Dollars left on the account; None when the service does not say.

        Raises:
            ServiceError, Unreachable, Lost: when it could not be asked.
        """
        data = self._got("GET", "/api/v3/balance")
        value = data.get("balance") if isinstance(data, dict) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _by_ticket(self, data: bytes, name: str, content_type: str, cancelled: Cancel) -> str:
        wanted = {"filename": name, "size": len(data), "content_type": content_type}
        ticket = self._got("POST", "/api/v3/media/uploads", wanted, cancelled)
        upload = ticket.get("upload") if isinstance(ticket, dict) else None
        address = ticket.get("download_url") if isinstance(ticket, dict) else None
        if not isinstance(upload, dict) or not _is_address(upload.get("url")) or not _is_address(address):
            raise Lost("WaveSpeed: its ticket for an upload cannot be understood")
        headers = upload.get("headers")
        # Exactly the ticket's headers, and not the key: the place may be another company's.
        given = {str(k): str(v) for k, v in headers.items()} if isinstance(headers, dict) else {}
        seconds = self._timeouts.upload
        try:
            reply = self._traffic.ask(
                "PUT", upload["url"], given, (data,),
                limit=MAX_REPLY, read=seconds, total=2 * seconds, cancelled=cancelled,
            )  # fmt: skip
        except Unreachable as problem:  # the place for uploads, not the service
            raise Lost(str(problem)) from None
        if reply.status in _REDIRECTED or (400 <= reply.status < 500 and reply.status not in _LATER):
            raise ServiceError("storage", f"HTTP {reply.status}")  # its words are about a signature, not the account
        if not 200 <= reply.status < 300:
            raise Lost(f"WaveSpeed: the place for uploads did not take a file (HTTP {reply.status})")
        assert isinstance(address, str)
        return address

    def _by_form(self, data: bytes, name: str, content_type: str, cancelled: Cancel) -> str:
        mark = self._mark
        head = f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
        parts = (f"{head}Content-Type: {content_type}\r\n\r\n".encode(), data, f"\r\n--{mark}--\r\n".encode())
        seconds = self._timeouts.upload
        headers = {**self._authorization(), "Content-Type": f"multipart/form-data; boundary={mark}"}
        reply = self._traffic.ask(
            "POST", f"{self.base_url}/api/v3/media/upload/binary", headers, parts,
            limit=MAX_REPLY, read=seconds, total=2 * seconds, cancelled=cancelled,
        )  # fmt: skip
        found = self._data(reply)
        address = found.get("download_url") if isinstance(found, dict) else None
        if not _is_address(address):
            raise Lost("WaveSpeed: its answer to an upload cannot be understood")
        assert isinstance(address, str)
        return address

    def _got(self, method: str, path: str, body: Any = None, cancelled: Cancel = _never) -> Any:
        return self._data(self._exchange(method, path, body, self._timeouts.answer, cancelled))

    def _data(self, reply: Reply) -> Any:
        """The envelope's `data`."""
        values = self._json(reply)
        if not 200 <= reply.status < 300:
            raise self._refusal(reply, values)
        if not isinstance(values, dict):
            raise Lost("WaveSpeed: an answer is not the JSON it should be")
        if values.get("code") not in (200, 0, None):
            raise self._refusal(reply, values)
        return values.get("data")

    def _exchange(self, method: str, path: str, body: Any, seconds: float, cancelled: Cancel) -> Reply:
        """One exchange; redirects are followed where asking twice costs nothing."""
        address, known = self.base_url + path, True
        content = None if body is None else (json.dumps(body).encode(),)
        headers = {"User-Agent": "inpaint-toolkit"} | ({"Content-Type": "application/json"} if content else {})
        for _ in range(_REDIRECTS):
            reply = self._traffic.ask(
                method, address, headers | self._authorization() if known else headers, content,
                limit=MAX_REPLY, read=seconds, total=2 * seconds, cancelled=cancelled,
            )  # fmt: skip
            if method != "GET" or reply.status not in _REDIRECTED or "location" not in reply.headers:
                return reply if known else self._of_another(address, reply)
            address = _led(address, reply.headers["location"])
            known = _same_origin(address, self.base_url)
        raise Lost("WaveSpeed: an answer is redirected in a circle")

    def _of_another(self, address: str, reply: Reply) -> Reply:
        """An answer from where a redirect led; what refuses one who shows no key is not the service's word.

        Raises:
            Lost: when it is a refusal.
        """
        try:
            self._data(reply)
        except ServiceError as problem:
            said = f"WaveSpeed: it redirects to {_place(address)}, where the key is not sent ({problem.said})"
            raise Lost(said) from None
        return reply

    def _refusal(self, reply: Reply, values: Any) -> ServiceError:
        if reply.status in _REDIRECTED and "location" in reply.headers:
            with contextlib.suppress(Lost):
                to = _place(_led(self.base_url, reply.headers["location"]))
                return ServiceError("moved", f"HTTP {reply.status} to {to}")
        text = reply.body[:400].decode("utf-8", "replace").replace(self._key.get_secret_value(), "***")
        return refusal(reply.status, values, text, _seconds(reply.headers.get("retry-after")))

    def _json(self, reply: Reply) -> Any:
        """The answer; None when it is none. A key that the service repeats is blotted out."""
        try:
            text = reply.body.decode()
            values = json.loads(text)
        except (ValueError, RecursionError):
            return None
        key = self._key.get_secret_value()
        return _without(key, values) if key in text or "\\u" in text else values

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key.get_secret_value()}"}


def data_address(data: bytes, content_type: str) -> str:
    """A file as a `data:` address, for a service that takes no uploads."""
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def _without(key: str, value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(key, "***")
    if isinstance(value, dict):
        return {name.replace(key, "***"): _without(key, one) for name, one in value.items()}
    return [_without(key, one) for one in value] if isinstance(value, list) else value


def _code(values: Any) -> int:
    code = values.get("code") if isinstance(values, dict) else None
    return code if isinstance(code, int) and not isinstance(code, bool) else 0


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("https://", "http://"))


def _led(address: str, location: str) -> str:
    """Where a redirect leads.

    Raises:
        Lost: when that is no address.
    """
    try:
        led = urljoin(address, location)  # as it is written: what is signed must not be written otherwise
        if _place(led):
            return led
    except (ValueError, httpx.InvalidURL):
        pass
    raise Lost("WaveSpeed: it redirects to what is no address on the web")


def _place(address: str) -> str:
    """The host of an address, with the port where it is not the scheme's own."""
    return httpx.URL(address).netloc.decode()


def _same_origin(one: str, other: str) -> bool:
    first, second = httpx.URL(one), httpx.URL(other)  # without the port where it is the scheme's own
    return (first.scheme, first.host, first.port) == (second.scheme, second.host, second.port)


def _seconds(text: str | None) -> float | None:
    """What `Retry-After` asks for, in either of its forms; ten minutes at most."""
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(text).timestamp() - time.time()
        except ValueError:
            return None
    return min(600.0, max(0.0, seconds))
