"""Weights of networks: brought into the user's cache, proven, and only then given their names.

Where they lie and how it is told that they are whole: `toolkit.weightfiles`, whose names are here too.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from pydantic import SecretStr

from toolkit import fetching
from toolkit.cards import Card, Weights
from toolkit.errors import EngineError, InputError, OutputError
from toolkit.fetching import Progress, Say, Want
from toolkit.redirects import HUB, Token
from toolkit.safekeeping import Record, held, name_proven, part_path, proven, record_path, sha256_of, silent
from toolkit.settings import KEYS, key_for
from toolkit.weightfiles import (
    Pulled,
    checked_path,
    entry,
    folder,
    is_own,
    kept,
    known_hash,
    misplaced,
    missing,
    needed,
    new_record,
    path,
    record,
    single_file,
    size,
    state,
    unlike,
    verify,
    without,
)

__all__ = [
    "HUB", "Pulled", "Record", "checked_path", "folder", "kept", "missing", "needed", "path", "pull", "record",
    "single_file", "size", "verify",
]  # fmt: skip

_PIECE = 1 << 20


def pull(
    card: Card,
    *,
    source: Path | None = None,
    progress: Progress | None = None,
    say: Say | None = None,
    token: SecretStr | None = None,
) -> tuple[Pulled, ...]:
    """Bring the card's weights here: each file is in its place when it is proven, and is left alone if it was before.

    Args:
        source: a file, or a folder with all of them, that is taken instead of a download.
        progress: told how far it is.
        say: told what goes otherwise than expected, a sentence each.
        token: for gated networks; by default `HF_TOKEN`, or what `inpaint keys set huggingface` stored.

    Raises:
        EngineError: when a file cannot be had or is not what it should be.
        InputError: when `source` is not what it should be, or the place that the settings name.
        OutputError: when a file cannot be written.
    """
    if wrong := misplaced(card):
        raise InputError(wrong)
    found = _sources(card, source)
    work = _Work(progress or silent, say or _unsaid, token, source)
    place = folder(card)
    try:
        place.mkdir(parents=True, exist_ok=True)
        done = []
        for one in needed(card):
            (place / one.file).parent.mkdir(parents=True, exist_ok=True)
            with held(place / one.file, one.file, work.say):
                done.append(_pulled(card, one, found.get(one.file), work))
        return tuple(done)
    except OSError as problem:
        raise OutputError(f"{place}: cannot be written: {problem.strerror or problem}") from None


@dataclass(frozen=True)
class _Work:
    progress: Progress
    say: Say
    token: SecretStr | None
    source: Path | None


def _pulled(card: Card, one: Weights, source: Path | None, work: _Work) -> Pulled:
    """One file of a card, whose lock is held."""
    target, known = path(card, one.file), known_hash(card, one)
    if target.is_file():
        noted = record(card, one.file)
        own = is_own(card) and (noted is None or noted.origin != "download")
        got = sha256_of(target, one.file, work.progress) if known or own else ""
        if known and got == known:
            return _settled(card, one, known, "file", fetched=False)
        if own:
            if known:
                why = unlike(card, one, got, known)
                raise EngineError(f"{card.name}: {target}: {why}; it is yours and was left as it is")
            return Pulled(one.file, target, target.stat().st_size, got, published=False, fetched=False)  # and no note
        if source is None or not source.samefile(target):
            why = "is damaged or of another revision" if known else "was never pulled, so nobody knows what it is"
            work.say(f"{card.name}: the {one.file} that is here {why}; it is fetched anew")
    if source is not None:
        return _copied(card, one, source, known, work)
    if work.source is not None:
        raise InputError(f"{work.source}: has no {one.file}, which {card.name} needs")
    want = _want(card, one, known, work)
    got, wanted = proven(want, one.file, work.progress, work.say)
    if not wanted:
        return _installed(card, one, want.part, got, "download")
    raise EngineError(f"{card.name}: {unlike(card, one, got, wanted)}; nothing was kept")


def _want(card: Card, one: Weights, known: str, work: _Work) -> Want:
    """What is asked of the server.

    Raises:
        EngineError: when there is no token though one is needed.
    """
    token, refused = None, ""
    if card.gated:
        terms = card.terms or one.url
        secret = work.token or key_for("huggingface")
        if secret is None:
            raise EngineError(
                f"{card.name}: is gated: accept the terms at {terms}, then give a token of that account with "
                f"`inpaint keys set huggingface` or {KEYS['huggingface']}"
            )
        token = Token(secret, HUB)
        refused = f"the terms at {terms} were not accepted with this account, or the token is wrong"
    trust = "" if one.sha256 else f"to trust the new one, delete {record_path(path(card, one.file))}"
    remedy = f"from a file that was fetched elsewhere: inpaint models pull {card.name} --from FILE"
    return Want(
        f"{card.name}: {one.file}", one.url, part_path(path(card, one.file)),
        bytes=one.bytes, sha256=known, token=token, trust=trust, refused=refused, remedy=remedy,
    )  # fmt: skip


def _sources(card: Card, source: Path | None) -> dict[str, Path]:
    """Which file each of the card's is taken from; none for a download.

    Raises:
        InputError: when something is not there.
    """
    if source is None:
        return {}
    names = [one.file for one in needed(card)]
    if source.is_dir():
        lacking = [name for name in names if not (source / name).is_file() and state(card, entry(card, name))]
        if lacking:
            raise InputError(f"{source}: {without(lacking)}, which {card.name} needs")
        return {name: source / name for name in names if (source / name).is_file()}
    if not source.is_file():
        raise InputError(f"{source}: {'is no file' if source.exists() else 'no such file'}")
    if len(names) > 1:
        raise InputError(f"{source}: {card.name} has several files; name a folder with {', '.join(names)}")
    return {name: source for name in names}


def _copied(card: Card, one: Weights, source: Path, known: str, work: _Work) -> Pulled:
    """A file of the user's, copied: a link would change with theirs.

    Raises:
        InputError: when it cannot be read, or is another file.
        OutputError: when there is no room for it.
    """
    target = path(card, one.file)
    copy = target.with_name(f"{target.name}.copy")
    noted = record(card, one.file) if known and not one.sha256 else None
    wanted = noted.bytes if noted else one.bytes
    try:
        file = open(source, "rb")
    except OSError as problem:
        raise InputError(f"{source}: cannot be read: {problem.strerror or problem}") from None
    with file:
        length = os.fstat(file.fileno()).st_size
        if wanted is not None and length != wanted:
            raise InputError(f"{source}: has {length} bytes, {one.file} has {wanted}: truncated, or another file")
        if not length:
            raise InputError(f"{source}: is empty")
        fetching.check_space(target.parent, length)
        got = _copy(file, copy, one.file, length, work.progress)
    try:
        if known not in ("", got):
            raise InputError(f"{source}: {unlike(card, one, got, known)}; nothing was kept")
        return _installed(card, one, copy, got, "file")
    finally:
        copy.unlink(missing_ok=True)


def _copy(file: BinaryIO, copy: Path, name: str, length: int, progress: Progress) -> str:
    """Copy an open file; the hash of what was written."""
    digest, done = hashlib.sha256(), 0
    try:
        with open(copy, "wb") as out:
            while piece := file.read(_PIECE):
                out.write(piece)
                digest.update(piece)
                done += len(piece)
                progress(name, done, length)
    except BaseException:
        copy.unlink(missing_ok=True)
        raise
    return digest.hexdigest()


def _installed(card: Card, one: Weights, part: Path, sha256: str, origin: str) -> Pulled:
    """Give a proven file its name."""
    target = path(card, one.file)
    name_proven(part, target, new_record(one, part.stat().st_size, sha256, origin))
    return _settled(card, one, sha256, origin, fetched=True)


def _settled(card: Card, one: Weights, sha256: str, origin: str, *, fetched: bool) -> Pulled:
    """A file whose bytes are proven, and have a record from now on."""
    target = path(card, one.file)
    fetching.discard(part_path(target))
    length = target.stat().st_size
    noted = record(card, one.file)
    if noted is None or (noted.sha256, noted.bytes, noted.published) != (sha256, length, bool(one.sha256)):
        origin = noted.origin if noted and noted.sha256 == sha256 else origin
        new_record(one, length, sha256, origin).write(target)
    return Pulled(one.file, target, length, sha256, bool(one.sha256), fetched)


def _unsaid(sentence: str) -> None:
    pass
