"""How the command was called, for the journal, and the run it goes on with."""

from __future__ import annotations

from dataclasses import dataclass

import click

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


def current() -> Invocation:
    """That of the command now running; nothing is known of one called from a test or from Python."""
    context = click.get_current_context(silent=True)
    found = context.find_root().obj if context else None
    if isinstance(found, tuple):
        return Invocation(found)
    return found if isinstance(found, Invocation) else Invocation()
