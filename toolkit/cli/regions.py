"""Find what words name, or everything there is: boxes, labels, scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolkit.cli._options import option_for, photo_options, value_of
from toolkit.cli._session import megapixels, standard_input, work_through
from toolkit.dataset.inputs import gather, takes_names
from toolkit.dataset.targets import Output
from toolkit.dataset.work import RegionsWork
from toolkit.errors import UsageError
from toolkit.recipe import Input, Item, Recipe, Reference
from toolkit.stages.detect import Detect

_WORDS = Recipe(
    [Item(Detect, {name: Reference(name) for name in Detect.model_fields})],
    name="regions",
    inputs={name: Input() for name in Detect.model_fields},
)


def _run(photos: tuple[str, ...], everything: bool, masks: bool, overlay: str | None, **given: Any) -> int:
    known = _WORDS.options()
    options = {name: value_of(known[name], given[name]) for name in known if given.get(name) not in (None, ())}
    if everything and set(options) & {"text", "threshold", "detector"}:
        raise UsageError("--everything looks for no words: leave --text, --threshold and --detector away")
    if not everything and not options.get("text"):
        raise UsageError('say what to look for: --text "dog, leash", or --everything')
    items = gather(
        photos, jobs=None, output=overlay, masks=None, known=known, standard_input=standard_input(photos),
        verb="regions", suffix=".png",
    )  # fmt: skip
    folder = overlay is not None and takes_names(overlay, len(items), photos)
    output = Output("regions", overwrite=given["overwrite"], max_pixels=megapixels(given["max_megapixels"]))
    work = RegionsWork(
        _WORDS, output, options, everything=everything, masks=masks, segmenter=given["segmenter"],
        overlay=None if overlay is None else Path(overlay), many=folder,
    )  # fmt: skip
    return work_through(items, work, about={"verb": "regions"}, device=given["device"], as_json=given["as_json"])


command = click.Command(
    "regions",
    params=[
        click.Argument(["photos"], nargs=-1, metavar="[PHOTO|FOLDER|-]..."),
        *(option_for(option) for option in _WORDS.options().values()),
        click.Option(["--everything"], is_flag=True, help="whatever there is, each with its mask"),
        click.Option(["--masks"], is_flag=True, help="give each region a mask: area and COCO RLE in the report"),
        click.Option(
            ["--segmenter"],
            default="auto",
            metavar="NAME",
            help="engine that makes the masks; one that reads words finds the regions, too",
        ),
        click.Option(["--overlay"], type=click.Path(), help="picture (or folder) with the regions on the photo"),
        click.Option(["--overwrite"], is_flag=True, help="replace an existing overlay"),
        click.Option(["as_json", "--json"], is_flag=True, help="print a report of everything found"),
        *photo_options(),
    ],
    callback=_run,
    help="Find what words name, or everything there is: boxes (left,top,right,bottom), labels and scores.",
)
