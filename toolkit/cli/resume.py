"""Take up a run that was interrupted: what is done and paid stays so."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from toolkit.cli._invocation import Invocation
from toolkit.cli.runs import releases
from toolkit.entries import RunEntry
from toolkit.errors import InputError, UsageError
from toolkit.journal import Journal
from toolkit.library import state_folder


@click.command("resume")
@click.argument("name", metavar="[ID]", required=False)
@click.option(
    "--max-cost",
    type=click.FloatRange(min=0),
    metavar="DOLLARS",
    help="spend no more on the whole run, what it paid before included; in place of the limit it began with",
)
@click.pass_context
def command(ctx: click.Context, name: str | None, max_cost: float | None) -> int:
    """Go on with a run: the last one that is not whole, or the one named; calls that were paid are not paid again."""
    journal = Journal(state_folder())
    run = journal.run(name) if name else _last_open(journal)
    arguments = list(run.about.get("arguments", ()))
    if not arguments and (verb := run.about.get("verb")):
        raise UsageError(f"run {run.id}: was one of `inpaint {verb}`, which is simply run again")
    if not arguments:
        raise UsageError(f"run {run.id}: was made from Python, not by a command; run the same code again")
    if not is_open(run):
        photos, held = len(run.about["photos"]), sum(item.state == "held" for item in run.items)
        done = f"all of its {photos} photos are done" if photos > 1 else "its photo is done"
        waiting = f"nothing is open; held back: {held} of {photos}"
        click.echo(f"run {run.id}: {waiting if held else done}")
        for sentence in releases(run):
            click.echo(sentence)
        return 0
    if _from_stream(run):
        raise InputError(f"run {run.id}: its photo came from standard input, which is gone; run the command again")
    folder = Path(run.about.get("folder", "."))
    if not folder.is_dir():
        raise InputError(f"run {run.id}: its folder {folder} is gone")
    if max_cost is not None:  # the last one counts
        end = arguments.index("--") if "--" in arguments else len(arguments)
        arguments[end:end] = ["--max-cost", f"{max_cost:g}"]
    os.chdir(folder)
    click.echo(f"resuming run {run.id}: inpaint {shlex.join(arguments)}", err=True)
    group = ctx.find_root().command
    code: int = group.main(arguments, prog_name="inpaint", standalone_mode=False, obj=Invocation(tuple(arguments), run))
    return code


def is_open(run: RunEntry) -> bool:
    """Whether a run has photos that are not done; those held back wait for their owner."""
    finished = {item.number for item in run.items if item.state in ("done", "held")}
    return bool(set(range(len(run.about.get("photos", ())))) - finished)


def _from_stream(run: RunEntry) -> bool:
    return "standard input" in run.about.get("photos", ())


def _last_open(journal: Journal) -> RunEntry:
    fruitless, runs = None, journal.runs(200)
    for run in reversed(runs):
        if run.state in ("interrupted", "cancelled", "failed") and run.about.get("arguments"):
            whole = journal.run(run.id)
            if is_open(whole) and not _from_stream(run):
                if whole.jobs or not whole.items or any(item.state != "failed" for item in whole.items):
                    return whole
                fruitless = fruitless or whole  # each of its photos failed, and none cost anything: a mistake, likely
    if fruitless:
        return fruitless
    if living := [run.id for run in runs if run.state == "running" and run.about.get("arguments")]:
        raise UsageError(f"no run is open but {', '.join(living)}, still running; wait for it or stop it first")
    raise UsageError("no run is open: all that was begun is done or held back; `inpaint runs` lists them")
