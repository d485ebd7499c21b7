"""Masks too unsure to be paid for: written beside the outputs, to be looked at, corrected and released by hand.

`held/<run>/` holds a mask and an overlay a photo, and `jobs.jsonl`, a table for `--jobs` that names each photo with
its mask and the rest of its options.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from toolkit.dataset.inputs import HELD, TABLE, Item
from toolkit.dataset.targets import make_folder
from toolkit.errors import HeldBack

POINTING = frozenset(
    "box point not_point mask invert_mask subject text pick threshold segmenter detector generous".split()
)
"""Options that say where; in a table of held masks the mask says it."""


def folder_for(root: Path, run: str) -> Path:
    """Where a run's masks are held."""
    return root / HELD / run


def row(item: Item, mask: Path, target: Path) -> dict[str, Any]:
    """A held photo as the table has it, paths absolute."""
    assert isinstance(item.source, Path)
    kept = {name: value for name, value in item.options.items() if name not in POINTING}
    return {"photo": str(item.source.resolve()), "mask": str(mask.resolve()), "output": str(target.resolve()), **kept}


def release(table: Path | str, arguments: Sequence[str]) -> str:
    """How what is held back by the command with these arguments is released, as a sentence."""
    verb = next((text for text in arguments if not text.startswith("-")), "RECIPE")
    return (
        f"masks held back lie in {Path(table).parent}; correct what is wrong and run `inpaint {verb} --jobs {table}` "
        "with the same options but those that point"
    )


def write_table(folder: Path, held: Sequence[HeldBack]) -> Path:
    """The table of what was held back, now and before the run was taken up; returns its file."""
    path = folder / TABLE
    make_folder(path)
    rows = [_relative(problem.row, folder) for problem in held]
    kept: list[str] = []
    if path.exists():
        new = {one["mask"] for one in rows}
        kept = [
            line for line in path.read_text(encoding="utf-8").splitlines() if line.strip() and _mask(line) not in new
        ]
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with open(temporary, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in (*kept, *(json.dumps(row, default=str) for row in rows)))
    os.replace(temporary, path)
    return path


def _mask(line: str) -> Any:
    """The mask that a row of the table names; a person may have edited it."""
    try:
        return json.loads(line)["mask"]
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def _relative(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Paths as they count from the table's folder, so that the whole may be moved."""

    def shorter(path: str) -> str:
        try:
            return os.path.relpath(path, folder.resolve())
        except ValueError:  # on another drive
            return path

    return {name: shorter(value) if name in ("photo", "mask", "output") else value for name, value in values.items()}
