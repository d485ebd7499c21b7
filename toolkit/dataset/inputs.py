"""What to work on: files, folders and job tables, each photo with its options and where its result goes."""

from __future__ import annotations

import csv
import io
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from toolkit.errors import InputError, MaskError, ParameterError, ToolkitError, UnknownNameError, UsageError
from toolkit.geometry import Box

PICTURES = frozenset(".jpg .jpeg .jpe .jfif .png .tif .tiff .webp .bmp .mpo".split())
"""Suffixes of files that a folder is searched for."""

NOT_OPENED = frozenset(".heic .heif .avif .gif .psd .cr2 .cr3 .nef .arw .dng .raf .orf .rw2 .jxl .jp2".split())
"""Suffixes of pictures that are not understood: they are reported, not passed over."""

HELD, TABLE = "held", "jobs.jsonl"
"""Masks that were held back lie in a folder `held/<run>`, with a table; they are no photos."""

STANDARD = "-"
"""Standard input or output."""

_ALIASES = {"photo": "photo", "image": "photo", "points": "point", "not_points": "not_point", "boxes": "box"}


@dataclass(frozen=True)
class Item:
    """One photo of a set.

    Attributes:
        name: what it is called in messages and reports.
        source: a path, or the bytes read from standard input.
        output: where the result goes; None = beside the source, under the name of the verb; "-" = standard output.
        options: values by the recipe's option names, over those given for the whole set.
        problem: why it cannot be worked on, known already from the table or the pairing.
    """

    name: str
    source: Path | bytes
    output: Path | str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    problem: ToolkitError | None = None


def gather(
    paths: Sequence[str],
    *,
    jobs: Path | None = None,
    output: str | None = None,
    masks: str | None = None,
    known: Iterable[str] = (),
    standard_input: bytes | None = None,
    verb: str = "",
    suffix: str = "",
    missing: bool = False,
    left_out: Callable[[Sequence[Path]], None] = lambda results: None,
) -> list[Item]:
    """Every photo named, in a stable order, each with its output.

    Args:
        paths: files and folders (searched to the bottom), or "-".
        jobs: a table with a row a photo; its paths count from the table's folder.
        output: a file (for one photo), or a folder under which the names are nested.
        masks: a mask file for all, or a folder in which masks are paired by name.
        known: the option names a table may use as columns.
        standard_input: what "-" stands for.
        verb: added to a photo's name where no output is named; outputs beside the photos stay None without it.
        suffix: of every output whose name is made here; the photo's own without it.
        missing: leave out files and folders that are not there or hold none, as long as there is another photo.
        left_out: told what lies in the folders and is no photo, since by its name it is a result of `verb`; it may be
            named besides.

    Raises:
        UsageError: when nothing is named, or one output is given for several photos.
        InputError: when a path does not exist or a folder holds no photo.
    """
    items: list[tuple[Item, Path]] = []
    results: list[Path] = []
    gone = ""
    if jobs is not None:
        if paths:
            raise UsageError("give photos or --jobs, not both; a table names its own photos")
        items = [(item, jobs.parent) for item in read_jobs(jobs, known)]
        if not items:
            raise InputError(f"{jobs}: holds no row")
    for text in paths:
        if text == STANDARD:
            items.append((Item("standard input", standard_input or b""), Path()))
            continue
        path = Path(text)
        if os.path.isdir(text):
            photos = pictures(path, beside=output)
            made = _made_before(photos, verb) if verb and output is None else set()
            results += sorted(made)
            found = [Item(str(one), one) for one in photos if one not in made]
            if not found:
                gone = gone or f"{path}: holds no photo ({' '.join(sorted(PICTURES))})"
                if not missing:
                    raise InputError(gone)
            items += [(item, path) for item in found]
        elif os.path.exists(text):
            items.append((Item(text, path), path.parent))
        else:
            gone = gone or f"{text}: there is no such file{_near(path)}"
            if not missing:
                raise InputError(gone)
    left_out(results)
    if not items:
        raise InputError(gone) if gone else UsageError("no photo is named: give files, a folder, - or --jobs")
    paired = [(_paired(item, root, masks), root) for item, root in items]
    if output == STANDARD and len(paired) > 1:
        raise UsageError("standard output takes one photo")
    folder = output is not None and output != STANDARD and takes_names(output, len(paired), paths)
    if output is not None and not folder:
        return [replace(paired[0][0], output=paired[0][0].output or (output if output == STANDARD else Path(output)))]
    if folder and output is not None and os.path.isfile(output):
        raise UsageError(f"{output}: is a file, and several photos are to be written; name a folder")
    if folder and output is not None and Path(output).suffix.lower() in PICTURES and not _is_folder(output):
        raise UsageError(f"{output}: names one picture, and several photos are to be written; name a folder")
    return list(_placed(paired, Path(output) if output is not None else None, verb, suffix))


def pictures(folder: Path, *, beside: str | None = None) -> list[Path]:
    """Files below `folder` that are pictures by their suffix, sorted; hidden ones are left out.

    Args:
        beside: a folder that results go to; what lies in it is left out where it lies below `folder`.
    """
    found = []
    results = None if beside is None else os.path.realpath(beside)
    for directory, names, files in os.walk(folder):
        names[:] = sorted(
            name
            for name in names
            if not name.startswith(".")
            and os.path.realpath(os.path.join(directory, name)) != results
            and not (os.path.basename(directory) == HELD and os.path.isfile(os.path.join(directory, name, TABLE)))
        )
        for file in files:
            if not file.startswith(".") and Path(file).suffix.lower() in PICTURES | NOT_OPENED:
                found.append(Path(directory) / file)
    return sorted(found)


def _made_before(photos: Sequence[Path], verb: str) -> set[Path]:
    """Those of `photos` that are what this verb made of others, which lie beside them."""
    stems = {(photo.parent, photo.stem) for photo in photos}
    made = re.compile(rf"(.+)-{re.escape(verb)}(-\d+|-sheet|-preview|-\d+-preview)?")
    named = ((photo, made.fullmatch(photo.stem)) for photo in photos)
    return {photo for photo, match in named if match and (photo.parent, match[1]) in stems}


def read_jobs(path: Path, known: Iterable[str]) -> Iterator[Item]:
    """The rows of a .csv or .jsonl table; a bad row becomes an item with its problem.

    Columns are `photo`, `output` and the names of the recipe's options; several boxes or points in one CSV cell are
    parted by `;`. Paths count from the table's folder.

    Raises:
        InputError: when the file cannot be read.
        UsageError: when it is neither kind, or has a column nobody knows.
    """
    columns = {"photo", "output", *known}
    for place, row in _rows(path):
        if isinstance(row, ToolkitError):
            yield Item(place, b"", problem=row)
            continue
        given = [(_ALIASES.get(key, key.replace("-", "_")), value) for key, value in row if value not in (None, "")]
        values = dict(given)
        if not _writable(values.values()):
            yield Item(place, b"", problem=InputError(f"{place}: holds a character that no file name or text can have"))
            continue
        if len(values) < len(given):
            twice = next(key for i, (key, _) in enumerate(given) if key in {earlier for earlier, _ in given[:i]})
            yield Item(place, b"", problem=InputError(f"{place}: {twice!r} is given twice"))
            continue
        unknown = sorted(set(values) - columns)
        if unknown:
            raise UnknownNameError(place, "column", unknown[0], columns)
        photo = values.pop("photo", None)
        if not isinstance(photo, str):
            yield Item(place, b"", problem=InputError(f"{place}: names no photo"))
            continue
        output = values.pop("output", None)
        if output is not None and not isinstance(output, str):
            yield Item(place, b"", problem=InputError(f"{place}: output must be a path, got {output!r}"))
            continue
        try:
            options = {key: _cell(key, value, path.parent) for key, value in values.items()}
        except ToolkitError as problem:
            yield Item(place, b"", problem=ParameterError(f"{place}: {problem}"))
            continue
        source = _plain(path.parent / photo)
        if not os.path.isfile(source):
            yield Item(place, b"", problem=InputError(f"{place}: {photo}: there is no such file"))
            continue
        yield Item(f"{photo} ({place})", source, _plain(path.parent / output) if output else None, options)


def _plain(path: Path) -> Path:
    """The same place without `..` in it; as it is where a link would lead that elsewhere."""
    plain = os.path.normpath(path)
    return Path(plain) if os.path.realpath(plain) == os.path.realpath(path) else path


def _writable(values: Iterable[Any]) -> bool:
    """False where some text holds a null or half a surrogate pair, as JSON can."""
    for value in values:
        if isinstance(value, str) and ("\0" in value or re.search("[\ud800-\udfff]", value)):
            return False
        if isinstance(value, list | tuple) and not _writable(value):
            return False
    return True


def _rows(path: Path) -> Iterator[tuple[str, Sequence[tuple[str, Any]] | ToolkitError]]:
    """Each row's place and its cells by column, in the order and number they are written."""
    if path.suffix.lower() not in (".csv", ".jsonl", ".ndjson"):
        raise UsageError(f"{path}: a job table ends in .csv or .jsonl")
    if os.path.exists(path) and not os.path.isfile(path):
        raise InputError(f"{path}: cannot be read: is not a regular file")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "is not UTF-8 text"
        raise InputError(f"{path}: cannot be read: {reason}") from None
    return _csv_rows(path.name, text) if path.suffix.lower() == ".csv" else _json_rows(path.name, text)


def _json_rows(name: str, text: str) -> Iterator[tuple[str, Sequence[tuple[str, Any]] | ToolkitError]]:
    for number, line in enumerate(text.split("\n"), 1):
        place = f"{name} line {number}"
        if not line.strip():
            continue
        try:
            # Objects come as tuples of pairs, so that a name written twice is seen and lists are told from them.
            row = json.loads(line, object_pairs_hook=tuple)
        except json.JSONDecodeError as problem:
            yield place, InputError(f"{place}: is not JSON: {problem.msg}")
        except RecursionError:
            yield place, InputError(f"{place}: is nested too deeply")
        else:
            known = isinstance(row, tuple)
            yield place, row if known else InputError(f"{place}: expected an object, got {line[:40].strip()}")


def _csv_rows(name: str, text: str) -> Iterator[tuple[str, Sequence[tuple[str, Any]] | ToolkitError]]:
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    header: list[str] = []
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as problem:
            place = f"{name} line {reader.line_num}"
            yield place, InputError(f"{place}: is not CSV: {problem}")
            continue
        place = f"{name} line {reader.line_num}"
        if not any(cell.strip() for cell in row):
            continue
        if not header:
            header = [cell.strip() for cell in row]
        elif len(row) > len(header):
            yield place, InputError(f"{place}: has more cells than the header has columns; quote cells with commas")
        else:
            yield place, [(key, cell.strip()) for key, cell in zip(header, row, strict=False)]


def _cell(key: str, value: Any, folder: Path) -> Any:
    """A cell as the recipe's option: several boxes or points apart, numbers as numbers, files from `folder`."""
    if isinstance(value, str) and key in ("box", "point", "not_point", "protect"):
        value = [part.strip() for part in value.split(";") if part.strip()]
    if key == "protect" and isinstance(value, list):
        return tuple(str(folder / part) if isinstance(part, str) and not _is_box(part) else part for part in value)
    if not isinstance(value, str):
        return tuple(value) if isinstance(value, list) else value
    if key == "mask":
        return str(folder / value)
    if key == "background":
        return str(folder / value) if os.path.exists(folder / value) else value
    if key in ("prompt", "text"):  # words, whatever YAML takes them for
        return value
    from toolkit.schema import read_value

    return read_value(value)


def _paired(item: Item, root: Path, masks: str | None) -> Item:
    if masks is None or "mask" in item.options or item.problem is not None:
        return item
    folder = Path(masks)
    if not folder.is_dir():
        return replace(item, options={**item.options, "mask": masks})
    if isinstance(item.source, bytes):
        return replace(item, problem=MaskError("standard input has no name to pair a mask with; give a mask file"))
    relative = _below(item.source, root)
    for stem in (relative.name, relative.stem, f"{relative.stem}_mask", f"{relative.stem}-mask"):
        for place in (folder / relative.parent, folder):
            for suffix in (".png", ".tif", ".tiff", ".bmp", ".webp", ".jpg", ".jpeg", ".gif"):
                candidate = place / f"{stem}{suffix}"
                if candidate.is_file():
                    return replace(item, options={**item.options, "mask": str(candidate)})
    problem = MaskError(f"{item.name}: no mask named {relative.stem}.png (or the like) lies in {masks}")
    return replace(item, problem=problem)


def _is_box(text: str) -> bool:
    try:
        Box.parse(text)
    except ParameterError:
        return False
    return True


def _placed(items: Sequence[tuple[Item, Path]], folder: Path | None, verb: str, suffix: str) -> Iterator[Item]:
    """Items with their outputs, names nested under `folder`; what would meet there is kept apart, or is a problem."""
    made = [_made(item, root, folder, verb, suffix) for item, root in items]
    meeting = {target for target, count in Counter(made).items() if count > 1}
    sources = {os.path.realpath(item.source): item.name for item, _ in items if isinstance(item.source, Path)}
    taken: dict[Path, str] = {}
    for (item, _), target in zip(items, made, strict=True):
        if item.problem is not None or target is None:
            yield item
            continue
        if item.output is None and isinstance(item.source, Path):
            if target in meeting and suffix and item.source.suffix.lower() != suffix:
                target = target.with_name(f"{target.stem}{item.source.suffix}{suffix}")  # a.jpg.png beside a.png
            if target in taken and folder is not None:
                target = folder / item.source.resolve().parent.name / target.relative_to(folder)
        over = sources.get(os.path.realpath(target))
        if target in taken:
            item = replace(
                item, problem=UsageError(f"{item.name}: would be written to {target}, as {taken[target]} is")
            )
        elif over not in (None, item.name):
            problem = UsageError(f"{item.name}: would be written over {over}, which is to be worked on too")
            item = replace(item, problem=problem)
        taken.setdefault(target, item.name)
        yield replace(item, output=target)


def _made(item: Item, root: Path, folder: Path | None, verb: str, suffix: str) -> Path | None:
    """Where an item goes as far as it alone decides; None where that is not known here."""
    if item.output is not None:
        given = Path(item.output)
        return given / item.source.name if isinstance(item.source, Path) and os.path.isdir(given) else given
    if isinstance(item.source, bytes):
        return None if folder is None or item.problem else folder / f"standard-input{suffix or '.png'}"
    if folder is not None:
        target = folder / _below(item.source, root)
    elif verb:
        target = item.source.with_name(f"{item.source.stem}-{verb}{item.source.suffix}")
    else:
        return None
    return target.with_suffix(suffix) if suffix else target


def _below(photo: Path, root: Path) -> Path:
    """The photo's path from `root`; its name alone where it lies elsewhere, as a table's rows may."""
    try:
        return Path(os.path.abspath(photo)).relative_to(os.path.abspath(root))
    except ValueError:
        return Path(photo.name)


def takes_names(output: str, count: int, paths: Sequence[str]) -> bool:
    """Whether `output` names a folder for what is made of `count` photos of `paths`, and not a file."""
    return count > 1 or _is_folder(output) or any(os.path.isdir(path) for path in paths)


def _is_folder(output: str) -> bool:
    return output.endswith(("/", os.sep)) or os.path.isdir(output)


def _near(path: Path) -> str:
    from difflib import get_close_matches

    try:
        names = os.listdir(path.parent)
    except OSError:
        return ""
    near = get_close_matches(path.name, names, n=1)
    return f"; did you mean {path.parent / near[0]}?" if near else ""
