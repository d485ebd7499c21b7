"""Traffic with the WaveSpeed REST API v3: each method is one exchange, and says for certain what an error means.

Nothing is repeated here. The key goes to the service's own address only, never along a redirect, to a place for
uploads or to one for downloads; it stands in no error.
"""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx
from pydantic import SecretStr

from toolkit.errors import Cancelled
from toolkit.settings import is_loopback
from toolkit.wavespeed.replies import Lost, Prediction, ServiceError, Unreachable, refusal

MAX_REPLY = 8 << 20
"""Bytes of a reply in JSON."""

MAX_PICTURE = 64 << 20
"""Bytes of a picture that is downloaded; one of 1536x1536 has 7 million uncompressed."""

_PAGE = 100
_PAGES = 20
_REDIRECTS = 5

_NOT_SENT = (
    httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError,
    httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL,
)  # fmt: skip


class Client:
    """One account at the service; safe to use from several threads.

    Args:
        base_url: where the service is.
        key: of the account; None where nothing but planning is done.
        proxy: for all traffic; empty for none.
        connections: at once.
    """

    def __init__(self, base_url: str, key: SecretStr, *, proxy: str = "", connections: int = 64) -> None:
        self.base_url, self._key = base_url.rstrip("/"), key
        limits = httpx.Limits(max_connections=connections + 8, max_keepalive_connections=connections + 8)
        self._http = httpx.Client(
            timeout=httpx.Timeout(30.0, connect=10.0, pool=120.0),
            limits=limits,
            proxy=proxy or None,
            trust_env=not is_loopback(base_url),
            headers={"User-Agent": "inpaint-toolkit"},
        )

    def close(self) -> None:
        """End its connections."""
        self._http.close()

    def submit(self, model: str, inputs: Mapping[str, Any]) -> Prediction:
        """Have the service begin a task: the one call that is paid.

        Raises:
            ServiceError: when it certainly did not take it.
            Unreachable: when nothing was sent.
            Lost: when it may have taken it.
        """
        path = f"/api/v3/{quote(model, safe='/')}"
        status, body, again = self._exchange("POST", path, json_body=inputs, read=60.0)
        if status >= 500 or status in (408, 409, 425):
            raise Lost(f"WaveSpeed: no answer to a submission (HTTP {status})")
        if status >= 300:
            raise refusal(status, body, again)
        values = _json(body)
        if not isinstance(values, dict):
            raise Lost("WaveSpeed: the answer to a submission cannot be understood")
        prediction = Prediction.read(values.get("data"))
        if prediction is not None:
            return prediction
        if values.get("code") not in (200, 0, None):
            raise refusal(status, body, again)
        raise Lost("WaveSpeed: the answer to a submission names no task")

    def prediction(self, name: str) -> Prediction:
        """How a task stands.

        Raises:
            ServiceError: "missing" when the service does not know it.
            Unreachable, Lost: when it could not be asked; nothing is lost by asking again.
        """
        return self._prediction(self._got("GET", f"/api/v3/predictions/{quote(name, safe='')}/result"))

    def predictions(self, model: str, after: float) -> Iterator[Prediction]:
        """Tasks of a model that were created since `after` (seconds since the epoch), newest first.

        Raises:
            ServiceError, Unreachable, Lost: when the service does not answer in full, which proves nothing.
        """
        since = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(after))
        seen: set[str] = set()
        for page in range(1, _PAGES + 1):
            wanted = {
                "page": page, "page_size": _PAGE, "model": model, "created_after": since, "include_inputs": True,
            }  # fmt: skip
            data = self._got("POST", "/api/v3/predictions", json_body=wanted)
            items = data.get("items") if isinstance(data, dict) else None
            if not isinstance(items, list):
                raise Lost("WaveSpeed: its list of predictions cannot be understood")
            for item in items:
                one = Prediction.read(item)
                if one is None:
                    raise Lost("WaveSpeed: its list of predictions holds one without a name")
                if one.id not in seen:
                    yield one
                seen.add(one.id)
            if len(items) < _PAGE:
                return
        raise Lost(f"WaveSpeed: its list of predictions is longer than {_PAGES * _PAGE}")

    def upload(self, data: bytes, name: str, content_type: str) -> str:
        """Bring a file to the service and return its address there; by ticket, else as a form.

        Raises:
            ServiceError, Unreachable, Lost: when neither way works.
        """
        try:
            return self._by_ticket(data, name, content_type)
        except ServiceError as problem:
            if problem.kind in ("key", "busy", "credit"):
                raise
        except Lost:
            pass
        return self._by_form(data, name, content_type)

    def download(self, address: str, cancelled: Callable[[], bool] = lambda: False, seconds: float = 300.0) -> bytes:
        """A file from the address of an output, without the key.

        Raises:
            ServiceError: "missing" when it is no longer there; others for other refusals.
            Unreachable, Lost: when it did not come whole, is too large or took too long.
            Cancelled: when `cancelled` said so meanwhile.
        """
        if not address.startswith(("https://", "http://")):
            raise Lost("WaveSpeed: an output has no address that can be fetched")
        if address.startswith("http://") and self.base_url.startswith("https://"):
            raise Lost("WaveSpeed: an output lies at an unencrypted address, which is not fetched")
        until = time.monotonic() + seconds
        with self._errors("a download"):
            target = httpx.URL(address)
            for _ in range(_REDIRECTS):
                with self._http.stream("GET", target) as answer:
                    if answer.is_redirect:
                        target = target.join(answer.headers.get("location", ""))
                        if target.scheme != "https" and self.base_url.startswith("https://"):
                            raise Lost("WaveSpeed: an output is redirected to an unencrypted address")
                        continue
                    if answer.status_code != 200:
                        raise refusal(answer.status_code, b"")
                    return self._whole(answer, MAX_PICTURE, until, cancelled)
        raise Lost("WaveSpeed: an output is redirected in a circle")

    def balance(self) -> float | None:
        """Dollars left on the account; None when the service does not say.

        Raises:
            ServiceError, Unreachable, Lost: when it could not be asked.
        """
        data = self._got("GET", "/api/v3/balance")
        value = data.get("balance") if isinstance(data, dict) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _by_ticket(self, data: bytes, name: str, content_type: str) -> str:
        wanted = {"filename": name, "size": len(data), "content_type": content_type}
        ticket = self._got("POST", "/api/v3/media/uploads", json_body=wanted)
        upload = ticket.get("upload") if isinstance(ticket, dict) else None
        address = ticket.get("download_url") if isinstance(ticket, dict) else None
        if not isinstance(upload, dict) or not isinstance(upload.get("url"), str) or not _is_address(address):
            raise Lost("WaveSpeed: its ticket for an upload cannot be understood")
        headers = upload.get("headers")
        with self._errors("an upload"):
            # Exactly the ticket's headers, and not the key: the place may be another company's.
            answer = self._http.put(
                upload["url"],
                content=data,
                headers={str(k): str(v) for k, v in headers.items()} if isinstance(headers, dict) else {},
                timeout=httpx.Timeout(120.0, connect=10.0),
            )
        if not answer.is_success:
            raise refusal(answer.status_code, answer.content[:400])
        assert isinstance(address, str)
        return address

    def _by_form(self, data: bytes, name: str, content_type: str) -> str:
        with self._errors("an upload"):
            answer = self._http.post(
                f"{self.base_url}/api/v3/media/upload/binary",
                files={"file": (name, data, content_type)},
                headers=self._authorization(),
                timeout=httpx.Timeout(120.0, connect=10.0),
            )
        found = self._data(answer.status_code, answer.content, None)
        address = found.get("download_url") if isinstance(found, dict) else None
        if not _is_address(address):
            raise Lost("WaveSpeed: its answer to an upload cannot be understood")
        assert isinstance(address, str)
        return address

    def _prediction(self, data: Any) -> Prediction:
        found = Prediction.read(data)
        if found is None:
            raise Lost("WaveSpeed: its answer about a task cannot be understood")
        return found

    def _got(self, method: str, path: str, json_body: Any = None) -> Any:
        return self._data(*self._exchange(method, path, json_body=json_body, read=30.0))

    def _data(self, status: int, body: bytes, again: float | None) -> Any:
        """The envelope's `data`."""
        if not 200 <= status < 300:
            raise refusal(status, body, again)
        values = _json(body)
        if not isinstance(values, dict):
            raise Lost("WaveSpeed: an answer is not the JSON it should be")
        if values.get("code") not in (200, 0, None):
            raise refusal(status, body, again)
        return values.get("data")

    def _exchange(self, method: str, path: str, *, json_body: Any, read: float) -> tuple[int, bytes, float | None]:
        """Status, body and the seconds it asks to wait; redirects are followed where asking twice costs nothing."""
        target = httpx.URL(self.base_url + path)
        until = time.monotonic() + 2 * read
        content = None if json_body is None else json.dumps(json_body).encode()
        with self._errors(path):
            for _ in range(_REDIRECTS):
                headers = {"Content-Type": "application/json"} if content is not None else {}
                if _origin(target) == _origin(httpx.URL(self.base_url)):
                    headers |= self._authorization()
                timeout = httpx.Timeout(read, connect=10.0, pool=120.0)
                with self._http.stream(method, target, content=content, headers=headers, timeout=timeout) as answer:
                    if answer.is_redirect and method == "GET" and "location" in answer.headers:
                        target = target.join(answer.headers["location"])
                        continue
                    body = self._whole(answer, MAX_REPLY, until, lambda: False)
                    return answer.status_code, body, _seconds(answer.headers.get("retry-after"))
        raise Lost("WaveSpeed: an answer is redirected in a circle")

    def _whole(self, answer: httpx.Response, limit: int, until: float, cancelled: Callable[[], bool]) -> bytes:
        length = answer.headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            raise Lost(f"WaveSpeed: an answer of {int(length)} bytes, at most {limit} are taken")
        parts, total = [], 0
        for part in answer.iter_bytes():
            parts.append(part)
            total += len(part)
            if total > limit:
                raise Lost(f"WaveSpeed: an answer of more than {limit} bytes")
            if time.monotonic() > until:
                raise Lost("WaveSpeed: an answer took too long")
            if cancelled():
                raise Cancelled
        return b"".join(parts)

    def _authorization(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._key.get_secret_value()}"}

    @contextmanager
    def _errors(self, what: str) -> Iterator[None]:
        """httpx's errors as ours; they name no header."""
        try:
            yield
        except _NOT_SENT as problem:
            raise Unreachable(f"WaveSpeed: {self.base_url} cannot be reached ({_reason(problem)})") from None
        except httpx.HTTPError as problem:
            raise Lost(f"WaveSpeed: the connection was lost during {what} ({_reason(problem)})") from None


def data_address(data: bytes, content_type: str) -> str:
    """A file as a `data:` address, for a service that takes no uploads."""
    return f"data:{content_type};base64,{base64.b64encode(data).decode()}"


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("https://", "http://"))


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else min(600.0, max(0.0, float(text)))
    except ValueError:
        return None


def _reason(problem: Exception) -> str:
    return str(problem) or type(problem).__name__
