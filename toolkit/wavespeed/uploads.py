"""Pictures brought to the service: once for the same bytes, while they live there."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import MappingProxyType

from blake3 import blake3

from toolkit.errors import EngineError
from toolkit.journal import Journal
from toolkit.wavespeed.client import Client, data_address
from toolkit.wavespeed.replies import Lost, ServiceError, Unreachable

LIFETIME = 6 * 86400.0
"""Seconds an upload is used again; the service keeps it for seven days."""

ATTEMPTS = 6
"""Times a call is made that costs nothing, or that was certainly not taken."""

FEW_ATTEMPTS = 4
"""The same where each time nobody is there: a proxy or the service may start anew, but an address may also be wrong."""

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

    def addresses(
        self, files: Mapping[str, bytes], cancelled: Callable[[], bool], wait: Callable[[float], None],
        contents: Mapping[str, str] = MappingProxyType({}),
    ) -> tuple[dict[str, str], bool]:  # fmt: skip
        """Where the service finds PNG files, and whether any was brought there before.

        Args:
            files: by their names without ending.
            cancelled: asked several times a second.
            wait: sleeps so many seconds.
            contents: hashes of what they show, by name, where known.

        Returns:
            Addresses by name; a file itself as one where no upload works.

        Raises:
            ServiceError: when the key is refused or the account empty.
            Unreachable: when no connection can be made.
            EngineError: when no upload works and a file is too large to be sent within the request.
            Cancelled: when `cancelled` said so.
        """
        if not files:
            return {}, False
        keys = self._keys(files, contents)
        with self._journal.addresses.bring(keys.values(), cancelled) as held:
            new: dict[str, str] = {}
            try:
                for name, data in files.items():
                    key = keys[name]
                    if key in held.missing and key not in new and (url := self._brought(data, name, cancelled, wait)):
                        new[key] = url
            finally:
                held.keep(new, time.time() + LIFETIME)
        there = {**held.known, **new}
        urls = {name: there.get(keys[name]) or data_address(data, "image/png") for name, data in files.items()}
        return urls, bool(held.known)

    def _brought(
        self, data: bytes, name: str, cancelled: Callable[[], bool], wait: Callable[[float], None]
    ) -> str | None:
        """The address of a file that is brought now; None when no upload works, and it may be sent inline."""
        problem: EngineError = Lost("")
        nobody = True
        for attempt in range(ATTEMPTS):
            if attempt:
                asked = problem.again if isinstance(problem, ServiceError) else None
                wait(min(8.0, 0.5 * 2.0**attempt) if asked is None else asked)
            try:
                return self._client.upload(data, f"{name}.png", "image/png", cancelled)
            except ServiceError as failure:
                if failure.kind in ("key", "credit"):
                    raise
                problem = failure
                if failure.kind not in ("busy", "fault"):
                    break
            except (Unreachable, Lost) as failure:
                problem = failure
            nobody &= isinstance(problem, Unreachable) and problem.nobody
            if nobody and attempt + 1 == FEW_ATTEMPTS:
                break
        busy = isinstance(problem, ServiceError) and problem.kind == "busy"
        if busy or isinstance(problem, Unreachable) or len(data) > _LARGEST_INLINE:
            raise problem
        return None

    def forget(self, files: Mapping[str, bytes], contents: Mapping[str, str] = MappingProxyType({})) -> None:
        """Have files brought anew when they are next needed: the service could not read them.

        Raises:
            EngineError: when the journal cannot be written.
        """
        self._journal.addresses.forget(list(self._keys(files, contents).values()))

    def _keys(self, files: Mapping[str, bytes], contents: Mapping[str, str]) -> dict[str, str]:
        keys = {}
        for name, data in files.items():
            state = blake3(f"{self._account}\0".encode())
            state.update(f"pixels\0{contents[name]}".encode() if name in contents else data)
            keys[name] = state.hexdigest()
        return keys
