"""Whether a task in the service's list of predictions is the one that was sent."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit


def noted(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs as the journal keeps them: pictures sent within the request by their hash."""
    return {
        name: f"data:sha256,{hashlib.sha256(value.encode()).hexdigest()}"
        if isinstance(value, str) and value.startswith("data:")
        else value
        for name, value in inputs.items()
    }


def compared(ours: Mapping[str, Any], listed: Mapping[str, Any] | None) -> bool | None:
    """Whether what the service lists is what was sent (as `noted`): True, False, or None where that cannot be told.

    Only numbers, and addresses at the same host, tell two tasks about the same pictures apart for certain: the service
    may list texts otherwise than they were sent, leave out what is empty, and move pictures to another host.
    """
    if not listed:
        return None
    certain, differs, same_pictures = True, False, False
    for name, value in ours.items():
        other = listed.get(name)
        if other is None:
            certain = certain and not value and value != 0
        elif isinstance(value, str) and value.startswith("data:"):
            same = isinstance(other, str) and noted({"": other})[""] == value
            same_pictures, certain = same_pictures or same, certain and same
        elif isinstance(value, str) and value.startswith(("http://", "https://")):
            alike = _same_address(value, other)
            if alike is False:
                return False
            same_pictures, certain = same_pictures or alike is True, certain and alike is True
        elif isinstance(value, int | float):
            number = _number(other)
            if number is not None and abs(value - number) > 1e-6:
                return False
            certain = certain and number is not None
        elif not _equal(value, other):
            differs = True
    if differs:
        return None if same_pictures else False
    return True if certain else None


def _same_address(ours: str, other: Any) -> bool | None:
    try:
        mine, theirs = urlsplit(ours), urlsplit(str(other))
    except ValueError:
        return None
    if mine.netloc != theirs.netloc:
        return None
    return mine.path == theirs.path  # what follows may be a signature that runs out


def _number(value: Any) -> float | None:
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except (ValueError, OverflowError):
        return None


def _equal(ours: Any, other: Any) -> bool:
    if isinstance(ours, list) and isinstance(other, list):
        return len(ours) == len(other) and all(map(_equal, ours, other))
    if isinstance(ours, dict) and isinstance(other, dict):
        return all(_equal(value, other.get(name)) for name, value in ours.items())
    if isinstance(ours, str) and isinstance(other, str):
        return _plain(ours) == _plain(other)
    if isinstance(ours, int | float) and isinstance(other, int | float):
        return abs(ours - other) < 1e-6
    return bool(ours == other)


def _plain(text: str) -> str:
    return " ".join(unicodedata.normalize("NFKC", text).split())
