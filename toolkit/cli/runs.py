"""List what was run and paid, or show one run."""

from __future__ import annotations

import dataclasses
import json
import shlex
import time
from typing import Any

import click

from toolkit.dataset.held import release
from toolkit.entries import Entry, RunEntry
from toolkit.errors import UsageError
from toolkit.journal import Journal
from toolkit.library import state_folder


@click.command("runs")
@click.argument("show", type=click.Choice(["show"]), required=False)
@click.argument("name", metavar="ID", required=False)
@click.option("--last", type=click.IntRange(min=1), default=20, show_default=True, help="how many are listed")
@click.option("as_json", "--json", is_flag=True, help="print all that is known as JSON")
def command(show: str | None, name: str | None, last: int, as_json: bool) -> int:
    """List what was run and paid; `inpaint runs show ID` tells one run photo by photo and call by call."""
    journal = Journal(state_folder())
    if show is not None:
        if name is None:
            raise UsageError("name a run: inpaint runs show ID")
        return _show(journal, journal.run(name), as_json)
    runs = journal.runs(last)
    if as_json:
        click.echo(json.dumps([_plain(journal, run) for run in runs], indent=2, default=str))
        return 0
    if not runs:
        click.echo("nothing has been run yet")
    for run in runs:
        click.echo(_line(journal, journal.run(run.id)))
    return 0


def _line(journal: Journal, run: RunEntry) -> str:
    done = sum(item.state == "done" for item in run.items)
    photos = run.about.get("photos") or ()
    count = f"{done} of {len(photos)} photos" if photos else "from Python"
    held = sum(item.state == "held" for item in run.items)
    count += f", {held} held back" if held else ""
    verb = run.about.get("recipe") or run.about.get("verb") or "-"
    return f"{run.id}  {_when(run.at)}  {run.state:11}  {verb:16}  {count}, {bill(journal, run.id)}"


def bill(journal: Journal, run: str) -> str:
    """What a run cost, in words."""
    paid, perhaps = journal.paid(run)
    parts = [_dollars(paid, "paid")] if paid else []
    parts += [_dollars(perhaps, "perhaps paid")] if perhaps else []
    return ", ".join(parts) or "free"


def _dollars(amount: float, word: str, nothing: str = "free") -> str:
    return f"${round(amount, 6):g} {word}" if amount else nothing


def _show(journal: Journal, run: RunEntry, as_json: bool) -> int:
    if as_json:
        click.echo(json.dumps(_plain(journal, run), indent=2, default=str))
        return 0
    click.echo(_line(journal, run))
    if folder := run.about.get("folder"):
        click.echo(f"in {folder}: inpaint {shlex.join(run.about.get('arguments', ()))}")
    for item in run.items:
        told = item.detail.get("error") or ", ".join(item.detail.get("outputs", ()))
        click.echo(f"  {item.state:6} {item.name}  {told}")
    for sentence in releases(run):
        click.echo(f"  {sentence}")
    for job in run.jobs:
        click.echo(f"  {_job(job)}")
    return 0


def releases(run: RunEntry) -> list[str]:
    """How the photos that a run holds back are released, a sentence a table."""
    tables = dict.fromkeys(item.detail["table"] for item in run.items if "table" in item.detail)
    return [release(table, run.about.get("arguments", ())) for table in tables]


def _job(job: Entry) -> str:
    cost = {
        "done": _dollars(job.price, "paid"),
        "failed": _dollars(job.paid or 0.0, "paid", "not paid"),
        "intended": "not sent",
    }.get(job.state, _dollars(job.paid or job.price, "paid" if job.paid else "perhaps paid"))
    parts = [f"{job.state:8} {job.kind:7}", job.remote or "-", cost]
    if "sending" in job.times:
        parts.append(_when(job.times["sending"]))
    return "  ".join([*parts, *([job.error] if job.error else [])])


def _plain(journal: Journal, run: RunEntry) -> dict[str, Any]:
    values = dataclasses.asdict(run)
    paid, perhaps = journal.paid(run.id)
    return {**values, "paid": round(paid, 6), "perhaps_paid": round(perhaps, 6)}


def _when(at: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at))
