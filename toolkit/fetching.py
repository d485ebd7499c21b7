"""Brings one file over HTTP into a part file, goes on where an earlier try broke off, and says why it cannot.

A part is never the file itself: whoever asked for it checks its hash and gives it its name. Of a part only what has
certainly reached the disk is gone on with, and only where the server says that its file is still the same one
(RFC 9110, sections 13.1.5 and 14).
"""

from __future__ import annotations

import contextlib
import email.utils
import os
import re
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from pydantic import Field, ValidationError

from toolkit import disk, redirects
from toolkit.errors import EngineError, OutputError
from toolkit.redirects import ClientFor, Token, answer, clients, host_of
from toolkit.schema import Model

if TYPE_CHECKING:
    import httpx

TRIES = 5
"""In a row that bring nothing new, until it is given up."""

PATIENCE = 60.0
"""Seconds a server may ask to be waited for."""

SYNC = 16 << 20
"""Bytes after which what came is forced onto the disk; so much is fetched again when the machine goes down."""

_PAUSES = (1.0, 2.0, 4.0, 8.0)
_ENOUGH = 1 << 20
_LATER = (408, 425, 429, 500, 502, 503, 504)

Progress = Callable[[str, int, int | None], None]
"""Called with a file's name, the bytes that are there and all there will be, None while nobody knows."""

Say = Callable[[str], None]
"""Called with a sentence on what goes otherwise than expected and is no error."""


@dataclass(frozen=True)
class Want:
    """A file that is wanted.

    Attributes:
        name: what it is called in sentences.
        url: https, or http on this machine.
        part: where it is to be brought; a note of how far it got lies beside it.
        bytes: it must have; None where nobody says.
        sha256: it will be held to, in lower case; empty where none is known.
        token: that the server asks for.
        trust: what is to be done where that hash is to count no longer, as a clause.
        refused: why the server may refuse it, as a clause.
        remedy: what else can be done, as a clause.
    """

    name: str
    url: str
    part: Path
    bytes: int | None = None
    sha256: str = ""
    token: Token | None = None
    trust: str = ""
    refused: str = ""
    remedy: str = ""


@dataclass(frozen=True)
class Part:
    """What came, whole by its length.

    Attributes:
        bytes: of the part file.
        stated: the sha256 the server gives for its file; empty where it gives none.
        resumed: it was put together from several answers.
    """

    bytes: int
    stated: str
    resumed: bool


class _Note(Model):
    """How a part file stands."""

    url: str
    validator: str = ""
    total: int | None = Field(default=None, ge=0)
    stated: str = ""
    synced: int = Field(default=0, ge=0)

    @staticmethod
    def read(part: Path) -> _Note | None:
        try:
            return _Note.model_validate_json(note_path(part).read_bytes())
        except (OSError, ValidationError):
            return None

    def write(self, part: Path) -> None:
        temporary = note_path(part).with_suffix(".tmp")
        temporary.write_text(self.model_dump_json(), encoding="utf-8")
        os.replace(temporary, note_path(part))


class _AgainError(Exception):
    """A try that failed and may be repeated, after `wait` seconds where the server names them."""

    def __init__(self, message: str, wait: float | None = None) -> None:
        super().__init__(message)
        self.wait = wait


def note_path(part: Path) -> Path:
    """Where it is noted how far a part file got."""
    return part.with_name(f"{part.name}.json")


def discard(part: Path) -> None:
    """Take a part file and its note away."""
    for path in (note_path(part), part):
        path.unlink(missing_ok=True)


def fetch(want: Want, progress: Progress, say: Say) -> Part:
    """Bring the file; a part of it that is there already is gone on with. One process at a time.

    Raises:
        EngineError: when it cannot be had, or is certainly not the one wanted.
        OutputError: when it cannot be written.
    """
    before = _kept(want)[0]
    failures, furthest = 0, before
    with clients() as client_for:
        while True:
            try:
                return _attempt(want, client_for, progress, furthest > before)
            except _AgainError as problem:
                length = _kept(want)[0]
                failures = 1 if length >= furthest + _ENOUGH else failures + 1
                furthest = max(furthest, length)
                if failures >= TRIES:
                    kept = f"; {length} bytes are kept, and the next try goes on from there" if length else ""
                    raise EngineError(f"{want.name}: {problem}, {TRIES} times over{kept}; {want.remedy}") from None
                wait = _PAUSES[min(failures, len(_PAUSES)) - 1] if problem.wait is None else problem.wait
                say(f"{want.name}: {problem}; trying again in {wait:g} s ({failures} of {TRIES - 1})")
                time.sleep(wait)
            except OSError as problem:
                raise OutputError(
                    f"{want.part}: cannot be written: {problem.strerror or problem}; what came is kept"
                ) from None


def _attempt(want: Want, client_for: ClientFor, progress: Progress, moving: bool) -> Part:
    """One request, and all of its answer.

    Raises:
        _AgainError: when another may go better.
    """
    import httpx

    offset, note = _kept(want)
    if note and offset and note.total == offset:
        return Part(offset, note.stated, resumed=True)
    wanted = {"User-Agent": "inpaint-toolkit", "Accept": "*/*", "Accept-Encoding": "identity"}
    if note and offset:
        wanted |= {"Range": f"bytes={offset}-", "If-Range": note.validator}
    host = host_of(want.url)
    try:
        with answer(want.name, want.url, wanted, client_for, want.token) as (response, stated):
            host = response.request.url.host
            offset, total = _checked(want, response, offset, note, stated)
            if total is not None and offset == total:
                return Part(offset, stated, resumed=True)
            whole = total if total is not None else want.bytes
            check_space(want.part.parent, (whole or 0) - offset)
            note = _Note(
                url=want.url, validator=_validator(response.headers), total=total, stated=stated, synced=offset
            )
            done = _written(want, response, offset, whole, note, progress)
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError) as problem:
        said = f"{host} cannot be reached ({_reason(problem)})"
        if moving:
            raise _AgainError(said) from None
        raise EngineError(f"{want.name}: {said}; {want.remedy}") from None
    except httpx.TimeoutException:
        raise _AgainError(f"{host} sent nothing for {redirects.STALL:g} s") from None
    except (httpx.UnsupportedProtocol, httpx.LocalProtocolError, httpx.InvalidURL) as problem:
        raise EngineError(f"{want.name}: {host} cannot be asked ({_reason(problem)})") from None
    except (httpx.HTTPError, httpx.StreamError) as problem:
        raise _AgainError(f"the connection to {host} broke off ({_reason(problem)})") from None
    if whole is not None and done < whole:
        raise _AgainError(f"{host} sent {done} of {whole} bytes", 0.0 if done > offset else None)
    return Part(done, stated, resumed=offset > 0)


def _kept(want: Want) -> tuple[int, _Note | None]:
    """How much of a part can be gone on with, and its note; nothing where the server could not say it is the same."""
    note = _Note.read(want.part)
    if note is None or note.url != want.url or not note.validator:
        return 0, None
    try:
        return min(want.part.stat().st_size, note.synced), note
    except OSError:
        return 0, None


def _checked(
    want: Want, response: httpx.Response, offset: int, note: _Note | None, stated: str
) -> tuple[int, int | None]:
    """From which byte on the answer goes, and how long the file is; both the same where nothing is missing.

    Raises:
        _AgainError: when the part is of no use, or the server is to be asked later.
        EngineError: for an answer that is not the file.
    """
    status, headers, host = response.status_code, response.headers, response.request.url.host
    if status == 416 and offset:
        if note and headers.get("content-range") == f"bytes */{offset}" and note.total in (None, offset):
            return offset, offset
        _begin_anew(want, f"{host} has no more of it, though {offset} bytes are not all")
    if status in _LATER:
        _put_off(want, response)
    if status in (401, 403):
        raise EngineError(f"{want.name}: {host} refuses it (HTTP {status}){want.refused and ': '}{want.refused}")
    if status in (404, 410):
        raise EngineError(f"{want.name}: is not at {host} any more (HTTP {status}); {want.remedy}")
    if status not in (200, 206) or (status == 206 and not offset):
        raise EngineError(f"{want.name}: {host} answered HTTP {status}, which is not the file; {want.remedy}")
    if headers.get("content-type", "").partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml"):
        raise EngineError(f"{want.name}: {host} sent a web page and not the file (a login?); {want.remedy}")
    if headers.get("content-encoding", "identity").lower() not in ("identity", ""):
        raise EngineError(f"{want.name}: {host} sent it encoded, though asked for the file itself; {want.remedy}")
    if stated and want.sha256 and stated != want.sha256:
        raise EngineError(
            f"{want.name}: {host} has another file now, by its own word with sha256 {stated}, expected {want.sha256}"
            f"{'; ' if want.trust else ''}{want.trust}"
        )
    length = int(headers["content-length"]) if headers.get("content-length", "").isdigit() else None
    if status == 206:
        assert note
        found = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", headers.get("content-range", ""))
        total = int(found[3]) if found and found[3] != "*" else note.total
        same = note.validator in (headers.get("etag"), headers.get("last-modified")) or "etag" not in headers
        if not found or int(found[1]) != offset or (note.total is not None and total != note.total) or not same:
            _begin_anew(want, f"{host} sent another piece than asked for")
    else:
        offset, total = 0, length
        if total is None and want.bytes is None and not want.sha256 and "transfer-encoding" not in headers:
            raise EngineError(f"{want.name}: {host} does not say how long it is, so that nobody could tell it is whole")
    if total == 0:
        raise EngineError(f"{want.name}: is empty at {host}; {want.remedy}")
    if total is not None and want.bytes is not None and total != want.bytes:
        discard(want.part)
        raise EngineError(f"{want.name}: has {total} bytes at {host}, expected {want.bytes}: it is another file")
    return offset, total


def _written(
    want: Want, response: httpx.Response, offset: int, whole: int | None, note: _Note, progress: Progress
) -> int:
    """Write the answer's body behind the part's first `offset` bytes; its length then."""
    done, synced, too_long = offset, offset, False
    with open(want.part, "r+b" if offset else "wb", buffering=0) as file:
        file.truncate(offset)
        file.seek(offset)
        note.write(want.part)
        progress(want.name, done, whole)
        try:
            for piece in response.iter_raw():
                if too_long := whole is not None and done + len(piece) > whole:
                    break
                view = memoryview(piece)
                while view:
                    count = file.write(view)
                    done, view = done + count, view[count:]
                if done - synced >= SYNC:
                    disk.sync(file.fileno())
                    synced = done
                    note.model_copy(update={"synced": synced}).write(want.part)
                progress(want.name, done, whole)
        finally:
            with contextlib.suppress(OSError):  # the disk is full: then less of it is gone on with
                disk.sync(file.fileno())
                note.model_copy(update={"synced": done}).write(want.part)
    if too_long:
        discard(want.part)
        raise EngineError(f"{want.name}: is longer than the {whole} bytes it should have; nothing is kept")
    return done


def _begin_anew(want: Want, why: str) -> NoReturn:
    discard(want.part)
    raise _AgainError(f"{why}; it begins anew", 0.0)


def _put_off(want: Want, response: httpx.Response) -> NoReturn:
    """Raise for a server that is to be asked later: a refusal where that is too late."""
    said = f"{response.request.url.host} cannot give it now (HTTP {response.status_code})"
    wait = _seconds(response.headers.get("retry-after", ""))
    if wait is not None and wait > PATIENCE:
        raise EngineError(f"{want.name}: {said} and asks to be left alone for {wait:.0f} s; try again then")
    raise _AgainError(said, wait)


def _seconds(text: str) -> float | None:
    """A Retry-After header: seconds or a date."""
    if text.strip().isascii() and text.strip().isdigit():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (ValueError, OverflowError, TypeError):
        return None


def _validator(headers: Mapping[str, str]) -> str:
    """By what the server can tell that its file is the same one: a strong ETag, or its date."""
    tag = headers.get("etag", "")
    return headers.get("last-modified", "") if not tag or tag.startswith("W/") else tag


def check_space(folder: Path, wanted: int) -> None:
    """Find out whether so many bytes can be written.

    Raises:
        OutputError: when they cannot.
    """
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise OutputError(
            f"{folder}: {spoken(wanted)} are needed there, {spoken(free)} are free; "
            "make room, or name a folder on another disk with INPAINT_CACHE"
        )


def spoken(length: int) -> str:
    """Bytes in the unit people would say them in."""
    if length < 1 << 20:
        return f"{length} bytes" if length < 1 << 10 else f"{length / (1 << 10):.0f} KiB"
    return f"{length / (1 << 20):.0f} MiB" if length < 10 << 30 else f"{length / (1 << 30):.1f} GiB"


def _reason(problem: Exception) -> str:
    """A library's error as a clause."""
    text = re.sub(r"^\[.*?\]\s*", "", str(problem).partition("\n")[0]).rstrip(". ")
    return text or type(problem).__name__
