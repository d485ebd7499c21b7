"""The brake: before much is paid it is shown what, and asked whether."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import click

from toolkit import cards, planning
from toolkit.cards import Card
from toolkit.dataset.inputs import Item
from toolkit.dataset.runner import Work, run_all
from toolkit.engines import configured
from toolkit.errors import UsageError
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.settings import load
from toolkit.wavespeed import PACE

CALLS, DOLLARS = 10, 1.0
"""A run of no more than these goes ahead unasked."""


@dataclass(frozen=True)
class Bill:
    """What a run is going to take.

    Attributes:
        calls: of paid engines.
        price: dollars, at most.
        seconds: expected; None where a card does not say.
        photos: that could be planned.
        kept: images that an earlier run paid for and that are there, besides the calls.
        held: photos whose masks would be held back.
        refused: photos whose results could not be written.
    """

    calls: int
    price: float
    seconds: float | None
    photos: int
    kept: int = 0
    held: int = 0
    refused: int = 0

    @property
    def is_small(self) -> bool:
        """It goes ahead unasked."""
        return self.calls <= CALLS and self.price <= DOLLARS + 1e-9

    def __str__(self) -> str:
        said = ["no calls, nothing to pay"]
        if self.calls:
            cents = math.ceil(self.price * 100 - 1e-6)  # rounded down it would not be "at most"
            time = "an unknown time" if self.seconds is None else f"about {spoken(self.seconds)}"
            said = ["1 call" if self.calls == 1 else f"{self.calls} calls", f"${cents / 100:.2f} at most", time]
        said += [f"{self.kept} paid before and kept"] if self.kept else []
        said += [f"{self.held} held back"] if self.held else []
        said += [f"{self.refused} refused: what they would write is there"] if self.refused else []
        return ", ".join(said)


def paid_cards(recipe: Recipe, items: Sequence[Item]) -> dict[str, Card]:
    """The engines named that cost money, by name; those of a table's rows too."""
    options = recipe.options()
    named = {
        str(value)
        for stage in recipe.stages()
        for name in ("model", "enhance")
        if (value := getattr(stage, name, None))
    }
    named |= {str(item.options[name]) for item in items for name in ("model", "enhance") if name in item.options}
    tasks: tuple[cards.Task, ...] = ("fill", "enhance")
    known = (configured(card) for task in tasks for card in cards.every(task))
    every = {name: card for card in known for name in (card.name, *card.also)}
    return {name: every[name] for name in named if name in every and not every[name].free} if options else {}


def bill_of(items: Sequence[Item], plan: Work, run: Run) -> Bill:
    """What all photos take together, each planned as a dry run does.

    One that cannot be planned counts for nothing.
    """
    return total([outcome.report for outcome in run_all(items, plan, run) if outcome.error is None])


def total(plans: Sequence[Mapping[str, Any]]) -> Bill:
    """What photos take together, by their reports of a dry run; what several share counts once."""
    calls, kept, price, seconds, longest = 0, 0, 0.0, 0.0, 0.0
    known, bought = True, set[str]()
    refused = sum(report["refused"] for report in plans)
    plans = [report for report in plans if not report["refused"]]
    for report in plans:
        shared = report["shared"]
        if shared and shared in bought:
            continue
        bought.add(shared)
        calls += report["calls"]
        kept += report["kept"]
        price += report["price"]["total"]
        if report["seconds_expected"] is None:
            known = False
        else:
            seconds += report["seconds_of_calls"]
            longest = max(longest, report["seconds_expected"])
    rates = [report["rate"] for report in plans]
    at_once = min((rate["at_once"] for rate in rates if rate["at_once"]), default=1)
    per_minute = min((rate["per_minute"] for rate in rates if rate["per_minute"]), default=None)
    wall = planning.wall_clock(calls, seconds, longest, at_once, per_minute)
    held = sum(report["held"] for report in plans)
    return Bill(calls, round(price, 6), wall if known else None, len(plans) + refused, kept, held, refused)


def approve(bill: Bill, max_cost: float | None) -> None:
    """Show a bill that is not small, and ask.

    Raises:
        UsageError: when nobody can be asked.
        click.Abort: when the answer is no.
    """
    if bill.is_small:
        return
    tier = load().wavespeed.tier
    per_minute, concurrent = PACE[tier]
    level = f"at the account level {tier} ({per_minute} a minute, {concurrent} at once; wavespeed.tier in the settings)"
    click.echo(f"{'1 photo' if bill.photos == 1 else f'{bill.photos} photos'}: {bill}, {level}", err=True)
    if max_cost is not None:
        if max_cost < bill.price:
            click.echo(f"it stops before it has spent more than ${max_cost:g}", err=True)
        return
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(f"{bill}: say --yes, or --max-cost DOLLARS, where nobody can be asked")
    click.confirm("go ahead?", abort=True, err=True)


def spoken(seconds: float) -> str:
    """A time in the unit people would say it in."""
    if seconds < 90:
        return f"{math.ceil(seconds)} s"
    if seconds < 5400:
        return f"{math.ceil(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"
