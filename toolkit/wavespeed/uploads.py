"""Pictures brought to the service: once for the same bytes, while they live there."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from toolkit.errors import EngineError
from toolkit.journal import Journal
from toolkit.wavespeed.client import Client, data_address
from toolkit.wavespeed.replies import Lost, ServiceError, Unreachable

LIFETIME = 6 * 86400.0
"""Seconds an upload is used again; the service keeps it for seven days."""

_ATTEMPTS = 6
"""Times an upload is tried."""

_LARGEST_INLINE = 8 << 20
"""Bytes of a picture that may be sent within the request when no upload works."""


class Uploads:
    """What one account has brought to the service; safe to use from several threads and processes.

    Args:
        client: traffic.
        journal: where uploads are written down.
        account: hash that tells accounts apart.
    """

    def __init__(self, client: Client, journal: Journal, account: str) -> None:
        self._client, self._journal, self._account = client, journal, account

    def address(
        self, data: bytes, name: str, run: str, cancelled: Callable[[], bool], wait: Callable[[float], None]
    ) -> tuple[str, bool]:
        """Where the service finds a PNG file, and whether it was brought there before; itself when no upload works.

        Args:
            data: the file.
            name: without ending.
            run: on whose account in the journal it goes.
            cancelled: asked several times a second.
            wait: sleeps so many seconds.

        Raises:
            ServiceError: when the key is refused or the account empty.
            Unreachable: when no connection can be made.
            EngineError: when no upload works and the file is too large to be sent within the request.
            Cancelled: when `cancelled` said so.
        """
        problem: EngineError = Lost("")
        with self._journal.claim(self._key(data), "upload", run=run, cancelled=cancelled) as claim:
            if claim.entry.state == "done":
                return str(claim.entry.answer["url"]), True
            for attempt in range(_ATTEMPTS):
                if attempt:
                    asked = problem.again if isinstance(problem, ServiceError) else None
                    wait(min(8.0, 0.5 * 2.0**attempt) if asked is None else asked)
                try:
                    url = self._client.upload(data, f"{name}.png", "image/png", cancelled)
                except ServiceError as failure:
                    if failure.kind in ("key", "credit"):
                        raise
                    problem = failure
                    if failure.kind not in ("busy", "fault"):
                        break
                except (Unreachable, Lost) as failure:
                    problem = failure
                else:
                    claim.done({"url": url, "expires": time.time() + LIFETIME})
                    return url, False
        busy = isinstance(problem, ServiceError) and problem.kind == "busy"
        if busy or isinstance(problem, Unreachable) or len(data) > _LARGEST_INLINE:
            raise problem
        return data_address(data, "image/png"), False

    def forget(self, data: bytes) -> None:
        """Have a file brought anew when it is next needed: the service could not read it.

        Raises:
            EngineError: when the journal cannot be written.
        """
        self._journal.forget_upload(self._key(data))

    def _key(self, data: bytes) -> str:
        state = hashlib.sha256(f"{self._account}\0".encode())
        state.update(data)
        return state.hexdigest()
