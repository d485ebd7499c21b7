"""Files kept by content: each is named by its BLAKE3 hash, so that damage shows and the same bytes lie there once."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
import threading
import weakref
from pathlib import Path

from blake3 import blake3

from toolkit.errors import EngineError


class Results:
    """`<first digit>/<hash>.<suffix>` in a folder; a file system takes longer for a new folder than for a new file.

    Args:
        folder: where; None for a temporary folder that goes with this object.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self._making = threading.Lock()

    def path(self, name: str) -> Path:
        """Where the file called `name`, with the folder it lies in, lies."""
        if self._folder is None:
            with self._making:
                if self._folder is None:
                    folder = Path(tempfile.mkdtemp(prefix="inpaint-results-"))
                    weakref.finalize(self, _remove, folder, os.getpid())
                    self._folder = folder
        return self._folder / name

    def put(self, data: bytes, suffix: str) -> Path:
        """Keep `data`, whole or not at all; where it lies. A power cut may damage it, which shows.

        Args:
            data: the file.
            suffix: like ``"png"``.

        Raises:
            EngineError: when it cannot be written.
        """
        digest = blake3(data).hexdigest()
        name = f"{digest}.{suffix.lstrip('.')}"
        path = self.path(f"{digest[0]}/{name}")
        try:
            try:
                # Straight to its name: one that is not whole shows, whoever was killed while writing.
                _write(f"{path}", data)
            except FileExistsError:
                if not whole(path):
                    temporary = f"{path.parent}/.{name}.{secrets.token_hex(4)}.tmp"
                    _write(temporary, data)
                    os.replace(temporary, path)
        except OSError as problem:
            raise EngineError(
                f"{path}: a result cannot be kept ({problem.strerror}); make room and run the same again: "
                "what was paid is fetched"
            ) from problem
        return path


def _write(path: str, data: bytes) -> None:
    """A new file, or none; folders are made where there are none."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileNotFoundError:
        for folder in (Path(path).parent.parent, Path(path).parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(path, flags, 0o600)
    try:
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(descriptor, left) :]
        finally:
            os.close(descriptor)
    except BaseException:
        if not whole(Path(path)):  # else another thread put one in its place
            Path(path).unlink(missing_ok=True)
        raise


def whole(path: Path) -> bool:
    """Whether the file is there and its bytes are those it is named by."""
    try:
        return blake3(path.read_bytes()).hexdigest() == path.stem
    except OSError:
        return False


def _remove(folder: Path, process: int) -> None:
    if os.getpid() == process:  # a forked child leaves its parent's
        shutil.rmtree(folder, ignore_errors=True)
