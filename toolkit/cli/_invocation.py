"""How the command was called, for the journal, and the run it goes on with."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import click

from toolkit.dataset.inputs import STANDARD, Item
from toolkit.entries import RunEntry


@dataclass(frozen=True)
class Invocation:
    """The command as it was called.

    Attributes:
        arguments: all behind `inpaint`.
        resumed: the run that is taken up, if it is one.
    """

    arguments: tuple[str, ...] = ()
    resumed: RunEntry | None = None


def numbered(items: Sequence[Item], run: RunEntry | None) -> dict[int, Item]:
    """The photos that are to be worked on, by their numbers in the run that is taken up; all of them where none is.

    Photos are known by their names (rows of a table by their photo's, wherever they stand now), and what was not in the
    run is left out: it was neither planned nor approved.
    """
    if run is None:
        return dict(enumerate(items))
    count: Counter[str] = Counter()
    places = {}
    for number, name in enumerate(map(_photo, run.about.get("photos", ()))):
        places[name, count[name]] = number
        count[name] += 1
    count.clear()
    found = {}
    for item in items:
        name = _photo(item.name)
        if (place := (name, count[name])) in places:
            found[places[place]] = item
        count[name] += 1
    return found


def as_noted(items: Sequence[Item], run: RunEntry) -> list[Item]:
    """`items` under the names they have in a run, which seeds that were drawn depend on, and with their outputs there.

    Where a result goes may follow from the other photos, of which some may be gone.
    """
    photos = run.about.get("photos", ())
    outputs = run.about.get("outputs", [None] * len(photos))
    numbers = {id(item): number for number, item in numbered(items, run).items()}

    def noted(item: Item) -> Item:
        if (number := numbers.get(id(item))) is None:
            return item
        output = outputs[number]
        output = item.output if output is None else output if output == STANDARD else Path(output)
        return replace(item, name=photos[number], output=output)

    return [noted(item) for item in items]


def _photo(name: str) -> str:
    """An item's name without its place in a table."""
    return re.sub(r" \([^()]* line \d+\)$", "", name)


def current() -> Invocation:
    """That of the command now running; nothing is known of one called from a test or from Python."""
    context = click.get_current_context(silent=True)
    found = context.find_root().obj if context else None
    if isinstance(found, tuple):
        return Invocation(found)
    return found if isinstance(found, Invocation) else Invocation()
