"""Files of weights in the user's cache: where a card's lie, what is known of each, and whether they are whole.

A file takes its name only once its bytes are proven: by the card's sha256, or where nobody publishes one, by that of
the first download, which is noted in `<file>.pulled.json` beside it. What is not whole yet is called `<file>.part`.

The user's settings may name another folder for a card (`weights: {NAME: PATH}`), whose files are the user's own: what
is there is never replaced. For cards with the setting `single_file: SUBFOLDER` they may name one .safetensors file,
which then stands for that subfolder.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG

from toolkit import cards, library, settings
from toolkit.cards import Card, Weights
from toolkit.errors import EngineError, UnknownNameError
from toolkit.fetching import Progress, spoken
from toolkit.safekeeping import Record, now, part_path, record_path, sha256_of, silent


@dataclass(frozen=True)
class Pulled:
    """A file of weights that is here and proven.

    Attributes:
        fetched: it was brought now, and not here before.
    """

    file: str
    path: Path
    bytes: int
    sha256: str
    published: bool
    fetched: bool


def folder(card: Card) -> Path:
    """Where the card's files lie: in the folder the settings name, else in the cache. Not created.

    Raises:
        ParameterError: when the settings cannot be read.
    """
    named = settings.load().weights_of(card.task, card.name)
    if named is not None and not os.path.isfile(named):  # which minds no forbidden folder
        return named
    return library.cache_folder() / "weights" / f"{card.task}-{card.name}"


def single_file(card: Card) -> Path | None:
    """The file the settings name in place of one of the card's subfolders; None where they name none it takes.

    Raises:
        ParameterError: when the settings cannot be read.
    """
    named = settings.load().weights_of(card.task, card.name)
    return named if named is not None and os.path.isfile(named) and not misplaced(card) else None


def is_own(card: Card) -> bool:
    """Whether the card's files lie in a folder that the user named, where nothing is replaced."""
    return folder(card) == settings.load().weights_of(card.task, card.name)


def misplaced(card: Card) -> str:
    """What is wrong with the place the settings name for a card's weights, in one clause; empty for nothing.

    Raises:
        ParameterError: when the settings cannot be read.
    """
    named = settings.load().weights_of(card.task, card.name)
    if named is None or os.path.isdir(named):
        return ""
    said = f"{settings.settings_file()}: weights of {card.name}: {named}"
    if not os.path.exists(named):
        return f"{said} is not there"
    if not os.path.isfile(named):
        return f"{said} is neither a folder nor a file"
    if not card.settings.get("single_file"):
        return f"{said} is a file; {card.name} takes a folder with its files"
    return "" if named.suffix.lower() == ".safetensors" else f"{said}: only .safetensors files are taken"


def needed(card: Card) -> tuple[Weights, ...]:
    """The card's files but those that the file named in the settings stands for."""
    if single_file(card) is None:
        return card.weights
    part, weights = f"{card.settings['single_file']}/", (".safetensors", ".safetensors.index.json")
    return tuple(one for one in card.weights if not (one.file.startswith(part) and one.file.endswith(weights)))


def path(card: Card, file: str | None = None) -> Path:
    """Where one of the card's files lies, its only one unless named; it takes that name once it is whole."""
    return folder(card) / entry(card, file).file


def checked_path(card: Card, file: str | None = None) -> Path:
    """`path`, of a file that is there and as long as when it was pulled; its bytes are not read.

    Raises:
        EngineError: when it is not.
    """
    if problem := misplaced(card):
        raise EngineError(problem)
    if reason := state(card, entry(card, file)):
        raise EngineError(f"{card.name}: {path(card, file)} {reason}: inpaint models pull {card.name}")
    return path(card, file)


def missing(card: Card) -> str:
    """What is not there of a card's weights, and how to get it, in one clause; empty when nothing is missing.

    Raises:
        ParameterError: when the settings cannot be read.
    """
    if problem := misplaced(card):
        return problem
    lacking = {one.file: reason for one in needed(card) if (reason := state(card, one))}
    if not lacking:
        return ""
    length = size(card, *lacking)
    how = f"inpaint models pull {card.name}{f' ({spoken(length)})' if length else ''}"
    absent = [file for file in lacking if not path(card, file).is_file()]
    if absent and is_own(card):
        named = f"{settings.settings_file()}: weights of {card.name}: {folder(card)}"
        return f"{named} {without(absent)}: {how}"
    if absent:
        return f"its weights are not here: {how}{strays()}"
    return f"{' and '.join(f'{file} {reason}' for file, reason in lacking.items())}: {how}"


def without(absent: Sequence[str]) -> str:
    """That files are not there, as a clause that names two at most."""
    more = f" and {len(absent) - 2} more" if len(absent) > 2 else ""
    return f"has no {' and no '.join(absent[:2])}{more}"


def strays() -> str:
    """Models the settings name weights of that use none under that name, as the end of a sentence; empty for none.

    Raises:
        ParameterError: when the settings cannot be read.
    """
    said, place = "", f"{settings.settings_file()}: weights"
    known = library.names("models")
    by_name = {name: path for key, path in known.items() for name in (key, key.partition("/")[2])}
    for name in settings.load().weights:
        if name not in by_name:
            said += f"; {UnknownNameError(place, 'model', name, {key.partition('/')[2] for key in known})}"
        elif not (card := cards.read(by_name[name])).weights and (base := card.settings.get("base")):
            said += f"; {place}: {name} uses those of {base}; name that"
    return said


def size(card: Card, *files: str) -> int | None:
    """Bytes of the card's files, of some of them if named; None where the card does not say."""
    wanted = [one for one in card.weights if one.file in (files or {one.file for one in needed(card)})]
    if all(one.bytes for one in wanted):
        return sum(one.bytes or 0 for one in wanted)
    return card.weights_bytes if len(wanted) == len(card.weights) else None


def record(card: Card, file: str | None = None) -> Record | None:
    """What was noted when a file was pulled; None for one that was not."""
    return Record.of(path(card, file))


def kept(card: Card) -> int:
    """Bytes of the card's files that came and are not whole yet."""
    return sum(part.stat().st_size for one in needed(card) if (part := part_path(path(card, one.file))).is_file())


def verify(card: Card, *, progress: Progress | None = None) -> tuple[Pulled, ...]:
    """Read all of the card's files and hold them to their hashes.

    Raises:
        EngineError: when one is not here, is not what it should be, or no hash of it is known.
    """
    if problem := misplaced(card):
        raise EngineError(problem)
    return tuple(_verified(card, one, progress or silent) for one in needed(card))


def new_record(one: Weights, length: int, sha256: str, origin: str) -> Record:
    """What is to be noted of a file."""
    return Record(
        url=one.url, revision=one.revision, sha256=sha256, bytes=length,
        published=bool(one.sha256), origin=origin, when=now(),
    )  # fmt: skip


def _verified(card: Card, one: Weights, progress: Progress) -> Pulled:
    target, known = checked_path(card, one.file), known_hash(card, one)
    if not known:
        raise EngineError(
            f"{card.name}: {target} was put there by hand and no hash of it is published, so nobody knows what it is; "
            f"inpaint models pull {card.name}"
        )
    try:
        got, length = sha256_of(target, one.file, progress), target.stat().st_size
    except OSError as problem:
        raise EngineError(f"{card.name}: {target} cannot be read: {problem.strerror or problem}") from None
    if got != known:
        again = f"`inpaint models pull {card.name}` brings it anew"
        raise EngineError(f"{card.name}: {target}: {unlike(card, one, got, known)}; {again}")
    return Pulled(one.file, target, length, got, bool(one.sha256), fetched=False)


def state(card: Card, one: Weights) -> str:
    """What is the matter with a file as far as can be told without reading it, as a clause; empty for nothing."""
    target = path(card, one.file)
    try:
        about = target.stat()
    except OSError:
        return "is not here"
    if not S_ISREG(about.st_mode):  # loaders pass over a folder, or wait for a pipe
        return "is no file"
    length = about.st_size
    noted = Record.of(target)
    if noted is None:
        return ""
    if length != noted.bytes:
        return f"has {length} bytes, and had {noted.bytes} when it was pulled"
    return "" if _binds(noted, one) else "is not the file the card names now"


def _binds(noted: Record, one: Weights) -> bool:
    """Whether a record is about the file that the card names now."""
    if one.sha256:
        return noted.sha256 == one.sha256.lower()
    return (noted.url, noted.revision) == (one.url, one.revision)


def known_hash(card: Card, one: Weights) -> str:
    """The hash a file is held to: the card's, else that of the first download; empty where there is none."""
    noted = record(card, one.file)
    return one.sha256.lower() or (noted.sha256 if noted and _binds(noted, one) else "")


def unlike(card: Card, one: Weights, got: str, wanted: str) -> str:
    """That a hash is another one, and whose word it is held to."""
    if one.sha256:
        return f"its sha256 is {got}, the card says {wanted}"
    noted = record(card, one.file)
    if noted and noted.sha256 == wanted:
        place = record_path(path(card, one.file))
        return f"its sha256 is {got}, at the first download it was {wanted}; to trust the new one, delete {place}"
    return f"its sha256 is {got}, the server says {wanted}"


def entry(card: Card, file: str | None) -> Weights:
    """The card's entry for a file, its only one unless named."""
    return card.weights[0] if file is None else next(one for one in card.weights if one.file == file)
