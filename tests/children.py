"""Real processes that share a folder with the test, speak to it in lines, and can be killed."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
from collections.abc import Iterator


class Child:
    """A process running `code`; its `say(...)` comes out of `hear()`."""

    def __init__(self, code: str, *arguments: object) -> None:
        preamble = (
            "import sys\ndef say(*words): sys.stdout.write(' '.join(map(str, words)) + '\\n'); sys.stdout.flush()\n"
        )
        self.process = subprocess.Popen(
            [sys.executable, "-c", preamble + textwrap.dedent(code), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def hear(self) -> str:
        """The next line it said; empty when it has ended."""
        assert self.process.stdout
        return self.process.stdout.readline().strip()

    def tell(self) -> None:
        """Let its `input()` return."""
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def kill(self) -> None:
        """SIGKILL, and wait for its end."""
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """Wait for its own end; its exit code."""
        return self.process.wait(60)


@contextlib.contextmanager
def children() -> Iterator[list[Child]]:
    """A list; what is put there is killed at the end, if it still lives."""
    started: list[Child] = []
    try:
        yield started
    finally:
        for child in started:
            child.kill()
            for stream in (child.process.stdin, child.process.stdout):
                with contextlib.suppress(OSError):
                    assert stream
                    stream.close()
