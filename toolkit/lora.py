"""LoRAs as they are written: `user/style:0.8`, `https://host/x.safetensors`, or `@name` for a list of the settings."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from toolkit.errors import ParameterError, UnknownNameError

_STEP = r'/(?!\.)[^/\\:*?"<>|\x00-\x1f]+'
_FILE = rf"(?:(?:{_STEP})+(?<=\.safetensors))?"
"""Folders and a file in a repository, with names that every disk takes."""


@dataclass(frozen=True)
class Lora:
    """Where a LoRA lies, and how strongly it counts."""

    path: str
    scale: float = 1.0


def parse(text: str) -> Lora:
    """Read ``path`` or ``path:scale``; only a number after the last colon is a scale.

    Raises:
        ParameterError: when no path is left.
    """
    found = re.fullmatch(r"(.*):([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)", text.strip())
    # The port of an address is no scale: it has a host before it and nothing behind it.
    if found and not re.fullmatch(r"[a-z]+://[^/]*", found[1]):
        path, scale = found[1].strip(), float(found[2])
    else:
        path, scale = text.strip(), 1.0
    if not path:
        raise ParameterError(f"lora {text!r}: expected a path with :scale if wanted, e.g. user/style:0.8")
    return Lora(path, scale)


def parsed(texts: Iterable[str], named: Mapping[str, Sequence[str]]) -> tuple[Lora, ...]:
    """All LoRAs in `texts`, with those of the named lists in place of each `@name`.

    Raises:
        UnknownNameError: for a list nobody knows.
        ParameterError: for anything that is no LoRA.
    """
    loras: list[Lora] = []
    for text in texts:
        if not text.startswith("@"):
            loras.append(parse(text))
        elif text[1:] in named:
            loras += [parse(one) for one in named[text[1:]]]
        else:
            raise UnknownNameError("lora", "list in the settings", text[1:], named)
    return tuple(loras)


def is_remote(path: str, *, files: bool = False) -> bool:
    """Whether a path is a web address or the name of a public repository, `owner/name`.

    Args:
        files: the name of a file in a repository, `owner/name/folder/file.safetensors`, counts too.
    """
    if "://" in path:
        return bool(re.fullmatch(r"https?://[^/\s]+/\S+", path))
    within = _FILE if files else ""
    return bool(re.fullmatch(rf"[\w-][\w.-]*/[\w-][\w.-]*{within}", path))
