"""The stand-in in a process of its own, for benchmarks and for tests that kill their client."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self


class ServerProcess:
    """`with ServerProcess(seconds=5) as server:` serves at `server.url` until the block (or this process) ends.

    Script and record are those of `Server`, as far as JSON carries them.
    """

    def __init__(self, **settings: Any) -> None:
        self._settings = settings
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", __package__ or "", "--with-parent"]
        folder = Path(__file__).parents[len((__package__ or "").split("."))]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder, text=True)
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        assert self.url, "the stand-in did not start"
        self.set(**self._settings)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def control(self, **wanted: Any) -> None:
        """POST /_control: faults (list), clear, set, finish, expire_uploads. Raises ValueError with its complaint."""
        self._ask("/_control", json.dumps(wanted).encode())

    def fault(self, where: str, what: str | int, **options: Any) -> None:
        """As `Server.fault`."""
        self.control(faults=[{"where": where, "what": what, **options}])

    def set(self, **settings: Any) -> None:
        """As `Server.set`."""
        self.control(set=settings)

    def state(self, requests: bool = False) -> dict[str, Any]:
        """As `Server.state`."""
        value: dict[str, Any] = self._ask("/_state?requests=1" if requests else "/_state")["data"]
        return value

    def wait(self, condition: Callable[[dict[str, Any]], Any], seconds: float = 30.0) -> dict[str, Any]:
        """The first state for which `condition(state)` is true. Raises TimeoutError."""
        until = time.monotonic() + seconds
        while not condition(state := self.state()):
            if time.monotonic() > until:
                raise TimeoutError(f"not within {seconds:g} s; so far {state['counts']}")
            time.sleep(0.01)
        return state

    def _ask(self, path: str, body: bytes | None = None) -> dict[str, Any]:
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(self.url + path, body, timeout=30) as reply:
                value: dict[str, Any] = json.load(reply)
                return value
        except urllib.error.HTTPError as problem:
            with problem:
                raise ValueError(json.load(problem)["message"]) from None
