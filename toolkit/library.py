"""Finds model cards and recipes: the user's working folder first, then the user's own, then the ones shipped."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from toolkit.errors import UnknownNameError

APPLICATION = "inpaint-toolkit"


def configuration_folder() -> Path:
    """Where the user's own cards, recipes and settings lie; `INPAINT_CONFIG` names another place. Not created."""
    if given := os.environ.get("INPAINT_CONFIG"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / APPLICATION
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / APPLICATION
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / APPLICATION


def state_folder() -> Path:
    """Where the journal and the results that were paid lie; `INPAINT_STATE` names another place. Not created."""
    if given := os.environ.get("INPAINT_STATE"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / APPLICATION
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / APPLICATION / "state"
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / APPLICATION


def cache_folder() -> Path:
    """Where weights lie, and what can be had again; `INPAINT_CACHE` names another place. Not created."""
    if given := os.environ.get("INPAINT_CACHE"):
        return Path(given)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / APPLICATION / "cache"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / APPLICATION
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / APPLICATION


def folders(kind: str) -> list[Path]:
    """The folders in which files of `kind` ("models", "recipes") are looked for, in this order."""
    package = Path(__file__).resolve().parent
    shipped = package / kind if (package / kind).is_dir() else package.parent / kind
    found = [Path.cwd() / kind, configuration_folder() / kind, shipped]
    return [folder for i, folder in enumerate(found) if folder.is_dir() and folder not in found[:i]]


def names(kind: str) -> dict[str, Path]:
    """Every file of `kind` by name (its path below the folder without the suffix), nearest folder first."""
    found: dict[str, Path] = {}
    for folder in folders(kind):
        for path in sorted(folder.rglob("*.yaml")):
            if path.is_file():
                found.setdefault(path.relative_to(folder).with_suffix("").as_posix(), path)
    return found


def find(kind: str, name: str, *, word: str) -> Path:
    """The file of `kind` called `name`.

    Raises:
        UnknownNameError: when there is none; `word` is what such a file is called in the sentence.
    """
    known = names(kind)
    if name not in known:
        raise UnknownNameError("", word, name, known)
    return known[name]
