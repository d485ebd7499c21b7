"""Where results go, and whether they may."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from toolkit.dataset.inputs import STANDARD, Item
from toolkit.errors import OutputError, UsageError
from toolkit.photo import Photo
from toolkit.photo.formats import format_named, format_of
from toolkit.run import Run

FileId = tuple[int, int]
"""Device and number of a file: what it is, whatever it is called."""


def file_id(path: Path | str) -> FileId:
    """Which file lies there.

    Raises:
        OSError: when there is none.
    """
    found = os.stat(path)
    return found.st_dev, found.st_ino


@dataclass(frozen=True)
class Output:
    """Where and how results are written.

    Attributes:
        verb: added to the source's name where no output is named: `photo-<verb>.jpg`.
        overwrite: replace existing files; the source itself only where it is named as the output.
        preview: write before, mask and after side by side, too.
        measure: count changed pixels in what was written also where the format is lossy.
        format: of every result, where it is not to be what its name says or the source's.
        quality: of JPEG and lossy WebP, 1 to 100.
        dpi: pixels per inch that are written into it.
        srgb: convert its colours to sRGB.
        max_bytes: what it may measure.
        standard: the stream "-" stands for.
        max_pixels: photos of more pixels are refused.
        root: the folder under which all results lie, where there is one.
        own: files that the run which is taken up was writing when it was cut short; they may be replaced.
        foreign: files that are called like results and that no run is known to have written; they may not.
        note: told what is about to be written, by photo.
    """

    verb: str
    overwrite: bool = False
    preview: bool = False
    measure: bool = False
    format: str | None = None
    quality: int | None = None
    dpi: float | None = None
    srgb: bool = False
    max_bytes: int | None = None
    standard: BinaryIO | None = None
    max_pixels: int | None = None
    root: Path | None = None
    own: frozenset[FileId] = frozenset()
    foreign: frozenset[FileId] = frozenset()
    note: Callable[[Item, Sequence[Path | str], Run], None] = lambda item, targets, run: None

    def may_replace(self, target: Path | str) -> bool:
        """Whether a file that is there may be written over."""
        try:
            found = file_id(target)
        except OSError:  # there is none yet
            return self.overwrite
        return found in self.own or (self.overwrite and found not in self.foreign)


def target_of(item: Item, photo: Photo, output: Output) -> Path | str:
    """Where the result of an item goes.

    Raises:
        UsageError: when the photo came from standard input and no output is named.
    """
    if item.output is not None:
        if item.output == STANDARD:
            return STANDARD
        path = Path(item.output)
        name = item.source.name if isinstance(item.source, Path) else "standard-input.png"
        return path / name if path.is_dir() else path
    if isinstance(item.source, bytes):
        raise UsageError("the photo came from standard input: name an output with -o (or -o -)")
    return item.source.with_name(f"{item.source.stem}-{output.verb}{item.source.suffix}")


def numbered(target: Path | str, count: int) -> list[Path | str]:
    """`count` targets: the one itself, or with -1, -2, ... before the suffix.

    Raises:
        UsageError: when several pictures would go to standard output.
    """
    if count == 1:
        return [target]
    if target == STANDARD:
        raise UsageError("standard output takes one picture; --num-images needs a file")
    path = Path(target)
    return [path.with_name(f"{path.stem}-{k + 1}{path.suffix}") for k in range(count)]


def sheet_of(target: Path | str) -> Path:
    """Where the sheet of a result's variations goes: beside them, as `<name>-sheet.jpg`."""
    path = Path(target)
    return path.with_name(f"{path.stem}-sheet.jpg")


def check_free(target: Path | str, photo: Photo, output: Output) -> None:
    """Find out before the work whether its result could be written.

    Raises:
        OutputError: when the target exists, its format is not one that can be written, or its folder cannot be made.
    """
    if target == STANDARD:
        return
    path = Path(target)
    format_of(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if path.exists():
        if file_id(path) in output.foreign:
            raise OutputError(
                f"{path}: may be a photo: it is called like a result, and no run is known to have written it; move "
                "it away, or name another output with -o"
            )
        same = photo.path is not None and path.samefile(photo.path) and not output.overwrite
        if same or not output.may_replace(path):
            what = "is the photo itself" if same else "already exists"
            raise OutputError(f"{path}: {what}; name another output with -o, or say --overwrite")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise OutputError(f"{nearest}: is a file, {path} cannot lie in it")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: cannot be written (no permission to write in {nearest})")


def check_holds(target: Path | str, photo: Photo, output: Output, alpha: bool) -> None:
    """Find out before the work whether the result's format is clear and can hold it.

    Raises:
        UsageError: when the target's name contradicts the format, or the format has no transparency and needs it.
    """
    named = None if target == STANDARD else format_of(Path(target))
    wanted = format_named(output.format) if output.format else named
    if named and wanted != named:
        raise UsageError(f"{target}: is the name of a {named} file, and --format asks for {wanted}; leave one away")
    if alpha and (wanted or photo.format) == "JPEG":
        raise UsageError(f"{target}: JPEG has no transparency; name a .png or .webp file, or say --format png")


def make_folder(target: Path) -> None:
    """Make the folder `target` is to lie in.

    Raises:
        OutputError: when that is not possible.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(f"{target.parent}: cannot be made ({problem.strerror})") from None


def preview_of(target: Path | str) -> Path:
    """Where the contact sheet of a result goes: beside it, as `<name>-preview`, in the same format."""
    path = Path(target)
    return path.with_name(f"{path.stem}-preview{path.suffix}")
