"""How the command was called, for the journal, and the run it goes on with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import click

from toolkit.dataset.inputs import Item
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

    Photos are known by their names, and what was not in the run is left out: it was neither planned nor approved.
    """
    if run is None:
        return dict(enumerate(items))
    count: Counter[str] = Counter()
    places = {}
    for number, name in enumerate(run.about.get("photos", ())):
        places[name, count[name]] = number
        count[name] += 1
    count.clear()
    found = {}
    for item in items:
        if (place := (item.name, count[item.name])) in places:
            found[places[place]] = item
        count[item.name] += 1
    return found


def current() -> Invocation:
    """That of the command now running; nothing is known of one called from a test or from Python."""
    context = click.get_current_context(silent=True)
    found = context.find_root().obj if context else None
    if isinstance(found, tuple):
        return Invocation(found)
    return found if isinstance(found, Invocation) else Invocation()
