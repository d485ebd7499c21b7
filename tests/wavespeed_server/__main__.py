"""`python -m tests.wavespeed_server [--port 0] [--seconds 0.02] [--log]`: the stand-in in a process of its own.

Prints its URL, then serves until it is interrupted or told to end, or with --with-parent until its standard input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import threading

import cv2

from .server import Server


def main() -> None:
    """Serve until told to end."""
    parser = argparse.ArgumentParser(description="Stand-in for the WaveSpeed REST API v3.")
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=0.02, help="what a prediction takes")
    parser.add_argument("--log", action="store_true", help="a line for each request, to standard error")
    parser.add_argument("--with-parent", action="store_true", help="end when standard input ends")
    given = parser.parse_args()
    cv2.setNumThreads(1)
    log = (lambda line: print(line, file=sys.stderr, flush=True)) if given.log else None  # noqa: T201
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    with contextlib.suppress(KeyboardInterrupt), Server(given.port, log, seconds=given.seconds) as server:
        print(server.url, flush=True)  # noqa: T201
        if given.with_parent:
            threading.Thread(target=_wait_for_end, args=(ended,), daemon=True).start()
        ended.wait()


def _wait_for_end(ended: threading.Event) -> None:
    while os.read(0, 4096):
        pass
    ended.set()


if __name__ == "__main__":
    main()
