"""What networks computed of pictures, kept in memory and on disk, so that no process computes it a second time."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit import library

Array = npt.NDArray[Any]

REMEMBERED = 4
"""Embeddings kept in memory."""

LARGEST = 2 * 2**30
"""Bytes kept on disk: about 500 pictures of a network that makes 4 MiB of each."""

_SUFFIX = ".embedding"


class Embeddings:
    """Arrays by key, those used last in memory and more of them on disk. Threads and processes may share a folder.

    A file is a line of JSON (type, shape, checksum) and the values; it appears whole or not at all. One that is
    damaged counts as not there. What cannot be written is kept in memory only: it costs time and no answer.

    Args:
        folder: where files lie; `embeddings` in the user's cache by default. Made at the first `put`.
        remembered: arrays kept in memory.
        largest: bytes kept on disk; those used longest ago go first.
    """

    def __init__(self, folder: Path | None = None, *, remembered: int = REMEMBERED, largest: int = LARGEST) -> None:
        self._given, self._remembered, self._largest = folder, remembered, largest
        self._memory: OrderedDict[str, Array] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def folder(self) -> Path:
        """Where the files lie."""
        return self._given or library.cache_folder() / "embeddings"

    def path(self, key: str) -> Path:
        """Where the array called `key` lies, whatever characters the key has."""
        return self.folder / (hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest() + _SUFFIX)

    def get(self, key: str) -> Array | None:
        """The array, read-only; None where there is none or its file is damaged."""
        with self._lock:
            if key in self._memory:
                self._memory.move_to_end(key)
                return self._memory[key]
        path = self.path(key)
        found = _read(path)
        if found is not None:
            with contextlib.suppress(OSError):
                os.utime(path)
            self._remember(key, found)
        return found

    def put(self, key: str, array: Array) -> Array:
        """Keep a copy of `array`; it is returned, read-only."""
        kept = np.ascontiguousarray(array).copy()
        kept.flags.writeable = False
        self._remember(key, kept)
        with contextlib.suppress(OSError):
            self._write(self.path(key), kept)
        return kept

    def _remember(self, key: str, array: Array) -> None:
        with self._lock:
            self._memory[key] = array
            self._memory.move_to_end(key)
            while len(self._memory) > self._remembered:
                self._memory.popitem(last=False)

    def _write(self, path: Path, array: Array) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._make_room(array.nbytes)
        head = {
            "dtype": array.dtype.str,
            "shape": array.shape,
            "crc32": _checksum(array.dtype.str, array.shape, array.data),
        }
        temporary = path.with_name(f".{path.stem}.{os.getpid()}-{threading.get_ident()}.tmp")
        try:
            with open(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
                file.write(json.dumps(head).encode() + b"\n")
                file.write(array.data)
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _make_room(self, wanted: int) -> None:
        files = []
        for path in self.folder.iterdir():
            with contextlib.suppress(OSError):  # another process may clear up, too
                about = path.stat()
                files.append((about.st_mtime, about.st_size, path))
        total = wanted + sum(size for _, size, _ in files)
        for _, size, path in sorted(files):
            if total <= self._largest:
                return
            with contextlib.suppress(OSError):
                path.unlink()
            total -= size


def _read(path: Path) -> Array | None:
    try:
        head, _, values = path.read_bytes().partition(b"\n")
        about = json.loads(head)
        kind, shape = str(about["dtype"]), tuple(about["shape"])
        if _checksum(kind, shape, values) != about["crc32"]:
            return None
        return np.frombuffer(values, np.dtype(kind)).reshape(shape)
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _checksum(dtype: str, shape: tuple[int, ...], values: Any) -> int:
    return zlib.crc32(values, zlib.crc32(f"{dtype} {list(shape)}".encode()))
