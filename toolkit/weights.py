"""Files of weights in the user's cache: where a card's lie, and whether they are whole."""

from __future__ import annotations

from pathlib import Path

from toolkit import library
from toolkit.cards import Card, Weights

__all__ = ["folder", "missing", "path"]


def folder(card: Card) -> Path:
    """Where the card's files lie. Not created."""
    return library.cache_folder() / "weights" / f"{card.task}-{card.name}"


def path(card: Card, file: str | None = None) -> Path:
    """Where one of the card's files lies, its only one unless named; it takes that name once it is whole."""
    return folder(card) / (card.weights[0].file if file is None else file)


def missing(card: Card) -> str:
    """What is not there of a card's weights, and how to get it, in one clause; empty when nothing is missing."""
    absent = [one for one in card.weights if not path(card, one.file).is_file()]
    return f"its weights are not here: inpaint models pull {card.name}{_size(absent)}" if absent else ""


def _size(files: list[Weights]) -> str:
    known = [one.bytes for one in files if one.bytes]
    return f" ({sum(known) / 2**20:.0f} MiB)" if len(known) == len(files) else ""
