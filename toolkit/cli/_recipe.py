"""A recipe as a verb: its options come from its inputs and its stages' declarations."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from toolkit import schema
from toolkit.cli._brake import approve, bill_of, paid_cards
from toolkit.cli._invocation import as_noted, current, numbered
from toolkit.cli._options import (
    VerbCommand,
    option_for,
    optional_values,
    parse_settings,
    paying_options,
    run_options,
    value_of,
)
from toolkit.cli._session import leave, megapixels, standard_input, standard_output, work_through
from toolkit.dataset.held import POINTING
from toolkit.dataset.inputs import STANDARD, Item, gather
from toolkit.dataset.targets import FileId, Output, file_id
from toolkit.dataset.work import EditWork, PlanWork
from toolkit.entries import RunEntry
from toolkit.errors import Cancelled, EngineError, RecipeError, UsageError
from toolkit.journal import SAVING, Journal
from toolkit.library import state_folder
from toolkit.photo.formats import SUFFIX_OF, format_named
from toolkit.recipe import Recipe
from toolkit.run import Run, draw_seed


def recipe_command(name: str | Path) -> click.Command:
    """The verb for a recipe, by its name or file.

    Raises:
        RecipeError: when its file cannot be understood.
    """
    recipe = Recipe.load(name)
    return command_for(recipe)


def command_for(recipe: Recipe) -> click.Command:
    """The verb for a recipe.

    Raises:
        RecipeError: when it changes nothing, or calls an input as an option is called that every recipe has.
    """
    check_command(recipe)
    options = recipe.options()

    def run(photos: tuple[str, ...], **given: Any) -> int:
        return _run(recipe, photos, given)

    return VerbCommand(
        recipe.name,
        optional=optional_values(options.values()),
        params=[
            click.Argument(["photos"], nargs=-1, metavar="[PHOTO|FOLDER|-]..."),
            *(option_for(option) for option in options.values()),
            *run_options(),
            *(paying_options() if any("model" in item.stage.model_fields for item in recipe.items) else []),
        ],
        callback=run,
        help=recipe.about or recipe.name,
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def check_command(recipe: Recipe) -> None:
    """Find out whether a recipe can be a command.

    Raises:
        RecipeError: as `command_for`.
    """
    if not any({"stacks", "canvas"} & set(item.stage.makes) for item in recipe.items):
        raise RecipeError(f"{recipe.name}: has no stage 'composite' or 'backdrop', so it would change nothing")
    taken = {"help", "photos", *(option.name for option in run_options())}
    for name in recipe.inputs:
        if name in taken:
            raise RecipeError(f"{recipe.name}.inputs.{name}: every recipe has an option of this name; choose another")


def _run(recipe: Recipe, photos: tuple[str, ...], given: dict[str, Any]) -> int:
    known = recipe.options()
    options = {name: value_of(known[name], given[name]) for name in known if given.get(name) not in (None, ())}
    settings = parse_settings(given["settings"])
    masks = options.get("mask")
    if isinstance(masks, str) and Path(masks).is_dir():
        options.pop("mask")
    else:
        masks = None
    resumed = current().resumed
    drawn = options.get("seed") == "random"
    if drawn:
        options["seed"] = int(resumed.about["seed"]) if resumed else draw_seed()
    bound = recipe.bind(options, settings)
    wanted = format_named(given["format"]) if given["format"] else None
    alpha = any(stage.gives_alpha for stage in bound.stages())
    results: list[Path] = []
    items = gather(
        photos,
        jobs=given["jobs"],
        output=given["output"],
        masks=masks,
        known=known,
        standard_input=standard_input(photos),
        verb=recipe.name,
        suffix=SUFFIX_OF[wanted] if wanted else ".png" if alpha else "",
        missing=resumed is not None,
        left_out=results.extend,
    )
    named = {os.path.realpath(item.source) for item in items if isinstance(item.source, Path)}
    if left_out := [one for one in results if os.path.realpath(one) not in named]:
        more = f" and {len(left_out) - 1} more" if len(left_out) > 1 else ""
        click.echo(
            f"inpaint: {left_out[0]}{more}: left out, by the name a result of {recipe.name}; name it to work on it",
            err=True,
        )
    if resumed:
        items = as_noted(items, resumed)
    if drawn:
        click.echo(f"seed {options['seed']}", err=True)
    to_stdout = given["output"] == STANDARD
    many = len(resumed.about["photos"] if resumed else items) > 1
    if to_stdout and given["as_json"]:
        raise UsageError("--json and -o - both want standard output; write the picture to a file")
    output = Output(
        recipe.name,
        overwrite=given["overwrite"],
        preview=given["preview"],
        measure=given["as_json"],
        format=wanted,
        quality=given["quality"],
        dpi=given["dpi"],
        srgb=given["srgb"],
        max_bytes=given["max_bytes"],
        standard=standard_output() if to_stdout else None,
        max_pixels=megapixels(given["max_megapixels"]),
        root=Path(given["output"]) if given["output"] and not to_stdout and many else None,
        own=_unfinished(resumed),
        foreign=_foreign(results, recipe.name),
        note=_noting(numbered(items, resumed)),
    )
    if all(set(item.options) <= POINTING for item in items):  # else each row is another matter
        with Run(seed=options.get("seed", 0), device=given["device"]) as run:
            for stage in bound.stages():
                stage.check(run, ready=not given["dry_run"])
    plan = PlanWork(recipe, output, options, settings)
    dry, max_cost, fresh = given["dry_run"], given.get("max_cost"), given.get("fresh", False)
    if not (dry or resumed or given.get("yes")) and paid_cards(bound, items):
        with Run(seed=options.get("seed", 0), fresh=fresh, device=given["device"]) as run:
            try:
                bill = bill_of(items, plan, run)
            except (KeyboardInterrupt, Cancelled):
                run.cancel()
                leave(items, paid=False)
        approve(bill, max_cost)
    return work_through(
        items,
        plan if dry else EditWork(recipe, output, options, settings),
        about={"recipe": recipe.name, "options": {key: _shown(value) for key, value in options.items()}},
        seed=options.get("seed", 0),
        max_cost=max_cost,
        fresh=fresh,
        device=given["device"],
        dry=dry,
        as_json=given["as_json"],
        to_stdout=to_stdout,
    )


def _unfinished(run: RunEntry | None) -> frozenset[FileId]:
    """Files that a run was writing when it was cut short, or when that failed."""
    found = set()
    for item in run.items if run else ():
        began, ended = item.detail.get("began", item.at), item.detail.get("ended", 0.0)
        if run and item.state == "saving":  # a run that was killed noted no end
            ended = run.ended or item.at + SAVING
        for path in item.detail.get("outputs", ()) if item.state in ("saving", "failed") else ():
            with contextlib.suppress(OSError):
                # What is of another time is somebody else's; some file systems keep it to 2 s.
                if began - 2 <= os.stat(path).st_mtime <= ended + 1:
                    found.add(file_id(path))
    return frozenset(found)


def _foreign(results: Sequence[Path], verb: str) -> frozenset[FileId]:
    """Those of the files called like a verb's results that no run is known to have written: they may be photos."""
    folders: dict[str, str] = {}  # looked up once each: thousands of results may lie in one

    def place(path: str) -> str:
        folder, name = os.path.split(os.path.abspath(path))
        if folder not in folders:
            folders[folder] = os.path.realpath(folder)
        return os.path.normcase(os.path.join(folders[folder], name))

    known: set[str] = set()
    with contextlib.closing(Journal(state_folder())) as journal, contextlib.suppress(EngineError):
        if results and journal.exists:
            known = {place(path) for path in journal.written(verb)}
    found = set()
    for path in results:
        with contextlib.suppress(OSError):
            found |= {file_id(path)} if place(str(path)) not in known else set()
    return frozenset(found)


def _noting(items: Mapping[int, Item]) -> Callable[[Item, Sequence[Path | str], Run], None]:
    """Notes what is about to be written, so that the run knows its own files when it is taken up."""
    numbers = {id(item): number for number, item in items.items()}

    def note(item: Item, targets: Sequence[Path | str], run: Run) -> None:
        paths = [str(target) for target in targets if target != STANDARD]
        run.journal.note(run.id, numbers[id(item)], item.name, "saving", {"outputs": paths})

    return note


def _shown(value: Any) -> Any:
    if isinstance(value, tuple) and not isinstance(value, schema.Point):
        return [_shown(part) for part in value]
    return value
