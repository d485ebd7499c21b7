"""Where a photo's bytes come from: a path, bytes in memory, an open stream or a web address."""

from __future__ import annotations

import hashlib
import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from toolkit.errors import PhotoError

if TYPE_CHECKING:
    import httpx

LARGEST_DOWNLOAD = 1 << 30
_BLOCK = 1 << 20


class Range(NamedTuple):
    """A stretch of a source: `length` bytes from `offset`."""

    offset: int
    length: int


class Source:
    """Bytes that can be opened again and again, and that are refused once they have changed."""

    def __init__(self, name: str, *, path: Path | None = None, data: bytes | None = None) -> None:
        self.name = name
        self.path = path
        self._data = data
        self._digest = ""
        if path is not None:
            state = _state(path, name)
            self.length = state.st_size
            self.permissions: int | None = state.st_mode & 0o777
            self._stamp = (state.st_size, state.st_mtime_ns, state.st_ino)
        else:
            self.length = len(data or b"")
            self.permissions = None
        if self.length == 0:
            raise PhotoError(f"{name}: the file is empty (0 bytes)")

    def open(self) -> BinaryIO:
        """A new seekable stream at byte 0.

        Raises:
            PhotoError: when the file cannot be read or is no longer the one that was opened first.
        """
        if self.path is None:
            return io.BytesIO(self._data or b"")
        try:
            stream = open(self.path, "rb")
        except OSError as error:
            raise PhotoError(f"{self.name}: cannot be read ({reason(error)})") from error
        state = os.fstat(stream.fileno())
        if (state.st_size, state.st_mtime_ns, state.st_ino) != self._stamp:
            stream.close()
            raise PhotoError(f"{self.name}: the file has changed since it was opened; open it again")
        return stream

    def read(self, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`."""
        with self.open() as stream:
            stream.seek(offset)
            return stream.read(length)

    @property
    def digest(self) -> str:
        """The sha256 of all bytes in hex, computed once."""
        if not self._digest:
            with self.open() as stream:
                total = hashlib.sha256()
                while block := stream.read(_BLOCK):
                    total.update(block)
            self._digest = total.hexdigest()
        return self._digest


class Splice(io.RawIOBase):
    """A seekable stream over pieces: bytes in memory and ranges of another stream, one after the other.

    The decoders see only the parts of a file that make its picture, so that broken metadata cannot stop them.
    """

    def __init__(self, stream: BinaryIO, pieces: list[bytes | Range]) -> None:
        super().__init__()
        self._stream = stream
        self._pieces: list[tuple[int, bytes | Range]] = []
        self._length = 0
        for piece in pieces:
            self._pieces.append((self._length, piece))
            self._length += piece.length if isinstance(piece, Range) else len(piece)
        self._position = 0
        self._index = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = 0) -> int:
        self._position = max(0, offset + (0, self._position, self._length)[whence])
        self._index = 0
        return self._position

    def read(self, size: int = -1) -> bytes:
        wanted = self._length - self._position if size is None or size < 0 else size
        found: list[bytes] = []
        while wanted > 0 and self._position < self._length:
            start, piece = self._pieces[self._index]
            inside = self._position - start
            if isinstance(piece, Range):
                part = b""
                if inside < piece.length:
                    self._stream.seek(piece.offset + inside)
                    part = self._stream.read(min(wanted, piece.length - inside))
                    if not part:
                        break
                end = start + piece.length
            else:
                part = piece[inside : inside + wanted]
                end = start + len(piece)
            found.append(part)
            self._position += len(part)
            wanted -= len(part)
            if self._position >= end:
                if self._index + 1 == len(self._pieces):
                    break
                self._index += 1
        return found[0] if len(found) == 1 else b"".join(found)

    def readall(self) -> bytes:
        return self.read(-1)

    def bytes_array(self) -> npt.NDArray[np.uint8]:
        """Everything from the start, without a second copy."""
        whole = np.zeros(self._length, np.uint8)
        self.seek(0)
        at = 0
        while part := self.read(_BLOCK):
            whole[at : at + len(part)] = np.frombuffer(part, np.uint8)
            at += len(part)
        return whole[:at]


def reason(error: OSError) -> str:
    """The system's own words for `error`, in lower case."""
    text = error.strerror or str(error) or type(error).__name__
    return text[0].lower() + text[1:]


def from_path(path: Path, name: str | None) -> Source:
    """The source for a file on disk; `PhotoError` when it is missing, a directory, empty or unreadable."""
    return Source(name or str(path), path=path)


def from_stream(stream: BinaryIO, name: str | None) -> Source:
    """The source for everything that is left in `stream`."""
    given = getattr(stream, "name", None)
    name = name or (given if isinstance(given, str) else "stream")
    try:
        data = stream.read()
    except OSError as error:
        raise PhotoError(f"{name}: cannot be read ({reason(error)})") from error
    if not isinstance(data, bytes):
        raise PhotoError(f"{name}: must be a binary stream, got one of {type(data).__name__}; open it with mode 'rb'")
    return Source(name, data=data)


def from_url(url: str, name: str | None, transport: httpx.BaseTransport | None = None) -> Source:
    """The source for a picture on the web, read whole, at most `LARGEST_DOWNLOAD` bytes.

    Raises:
        PhotoError: when the address does not answer, answers with an error, or sends too much.
    """
    import httpx  # only here: no photo on disk needs the network

    name = name or url
    found = bytearray()
    try:
        with (
            httpx.Client(transport=transport, follow_redirects=True, timeout=30) as client,
            client.stream("GET", url) as answer,
        ):
            if answer.status_code != 200:
                raise PhotoError(f"{name}: the server answered {answer.status_code} {answer.reason_phrase}".rstrip())
            for block in answer.iter_bytes(_BLOCK):
                found += block
                if len(found) > LARGEST_DOWNLOAD:
                    raise PhotoError(
                        f"{name}: is larger than {LARGEST_DOWNLOAD >> 20} MB; download it and open the file instead"
                    )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise PhotoError(f"{name}: cannot be downloaded ({error or type(error).__name__})") from error
    return Source(name, data=bytes(found))


def _state(path: Path, name: str) -> os.stat_result:
    try:
        state = os.stat(path)
    except FileNotFoundError:
        raise PhotoError(f"{name}: no such file") from None
    except (OSError, ValueError) as error:
        why = reason(error) if isinstance(error, OSError) else str(error)
        raise PhotoError(f"{name}: cannot be read ({why})") from error
    if path.is_dir():
        raise PhotoError(f"{name}: is a folder, not a photo")
    if not path.is_file():
        raise PhotoError(f"{name}: is not a regular file")
    return state
