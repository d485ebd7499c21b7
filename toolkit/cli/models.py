"""List the engines there are and whether they run here, or show one card."""

from __future__ import annotations

import json

import click

from toolkit import cards, engines
from toolkit.errors import UnknownNameError, UsageError


@click.command("models")
@click.argument("show", type=click.Choice(["show"]), required=False)
@click.argument("name", required=False)
@click.option("as_json", "--json", is_flag=True, help="print the cards as JSON")
def command(show: str | None, name: str | None, as_json: bool) -> int:
    """List the engines there are; `inpaint models show NAME` prints one card."""
    every = cards.every()
    if show is not None:
        if name is None:
            raise UsageError("name a model: inpaint models show NAME")
        found = [card for card in every if name in (card.name, f"{card.task}/{card.name}")]
        if not found:
            raise UnknownNameError("", "model", name, {card.name for card in every})
        every = found
    if as_json:
        click.echo(json.dumps([card.model_dump(mode="json") for card in every], indent=2, default=str))
        return 0
    for card in every:
        reason = engines.missing(card)
        state = (
            f"cannot run: {reason}" if reason else ("ready" if card.rank is not None else "ready, never taken by auto")
        )
        if show is None:
            price = "free" if card.free else f"${card.price.per_image:g} an image"
            click.echo(f"{card.task:8} {card.name:14} {price}, {state}\n{'':23} {card.about}")
        else:
            for field, value in card.model_dump(mode="json", exclude_defaults=True).items():
                click.echo(f"{field}: {value}")
            click.echo(f"here: {state}")
    return 0
