"""Files that were fetched: each takes its name once its bytes are proven, and has a record of what it is beside it."""

from __future__ import annotations

import contextlib
import hashlib
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from pydantic import ValidationError

from toolkit import disk, fetching
from toolkit.fetching import Progress, Say, Want
from toolkit.liveness import claim
from toolkit.schema import Model

_PIECE = 1 << 20


class Record(Model):
    """What is known of a file that was fetched.

    Attributes:
        url: it was to come from, wherever the bytes came from.
        published: the hash is that of whoever published it; otherwise it is that of the first download.
        origin: "download" or "file".
        when: UTC.
    """

    url: str
    revision: str
    sha256: str
    bytes: int
    published: bool
    origin: str
    when: str

    @staticmethod
    def of(target: Path) -> Record | None:
        """What was noted of a file; None for one of which nothing was."""
        try:
            return Record.model_validate_json(record_path(target).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, target: Path) -> None:
        """Write it down beside the file: whole or not at all, and on the disk when this returns."""
        temporary = record_path(target).with_suffix(".tmp")
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(self.model_dump_json(indent=2) + "\n")
            file.flush()
            disk.sync(file.fileno())
        os.replace(temporary, record_path(target))


def part_path(target: Path) -> Path:
    """Where a file lies while it is fetched."""
    return target.with_name(f"{target.name}.part")


def record_path(target: Path) -> Path:
    """Where it is noted what a file is."""
    return target.with_name(f"{target.name}.pulled.json")


def now() -> str:
    """The time, as records hold it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def proven(want: Want, name: str, progress: Progress, say: Say) -> tuple[str, str]:
    """Bring a file to its part and read it: its sha256, and the one it should have instead; empty where it is right.

    It is held to the hash that is wanted, else to the server's. A part with another one is not kept.

    Args:
        name: told to `progress` while it is read.

    Raises:
        EngineError: when it cannot be had.
        OutputError: when it cannot be written.
    """
    for last in (False, True):
        part = fetching.fetch(want, progress, say)
        wanted = want.sha256 or part.stated
        got = sha256_of(want.part, name, progress)
        if wanted in ("", got):
            return got, ""
        fetching.discard(want.part)
        if last or not part.resumed:
            break
        say(f"{want.name} was put together from pieces that do not belong together; it begins anew")
    return got, wanted


def name_proven(part: Path, target: Path, record: Record) -> None:
    """Give a proven file its name. Its record is there before it, so that no file of ours is ever without one."""
    with open(part, "r+b") as file:
        disk.sync(file.fileno())
    target.unlink(missing_ok=True)  # never an old file beside a new record
    record.write(target)
    os.replace(part, target)
    disk.sync_folder(target.parent)


def sha256_of(target: Path, name: str, progress: Progress) -> str:
    """The hash of a file, in hexadecimal; `name` is told to `progress`."""
    digest, done, length = hashlib.sha256(), 0, target.stat().st_size
    with open(target, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
            done += len(piece)
            progress(f"checking {name}", done, length)
    return digest.hexdigest()


@contextlib.contextmanager
def held(target: Path, name: str, say: Say, waits: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Be the only one, of all threads and processes, to work on a file; wait while another does.

    Args:
        waits: called several times a second meanwhile; what it raises ends the wait.
    """
    said = False
    while (lock := claim(target.with_name(f"{target.name}.lock"))) is None:
        if not said:
            say(f"{name}: another process is fetching it; waiting for that")
            said = True
        waits()
        time.sleep(0.1)
    try:
        yield
    finally:
        os.close(lock)


def silent(name: str, done: int, whole: int | None) -> None:
    """No progress is shown."""
