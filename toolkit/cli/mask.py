"""Write only the mask, and an overlay to check it by."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from toolkit.cli._options import option_for, parse_settings, run_options, value_of
from toolkit.cli._session import megapixels, standard_input, standard_output, work_through
from toolkit.dataset.inputs import STANDARD, gather, takes_names
from toolkit.dataset.targets import Output
from toolkit.dataset.work import MaskWork
from toolkit.errors import UsageError
from toolkit.recipe import Recipe
from toolkit.schema import build
from toolkit.stages.dilate import Dilate
from toolkit.stages.select import Select

_DILATE = click.Option(["--dilate"], metavar="RADIUS", help="grow it: pixels, or a share of each part's diagonal (2%)")
_OVERLAY = click.Option(["--overlay"], type=click.Path(), help="picture (or folder) with the mask drawn on the photo")


def _run(photos: tuple[str, ...], **given: Any) -> int:
    radius = given["dilate"]
    stages = [Select(), *([] if radius is None else [build(Dilate, {"radius": radius}, "dilate")])]
    recipe = Recipe(stages, name="mask")
    known = recipe.options()
    options = {name: value_of(known[name], given[name]) for name in known if given.get(name) not in (None, ())}
    masks = options.get("mask")
    if isinstance(masks, str) and Path(masks).is_dir():
        options.pop("mask")
    else:
        masks = None
    settings = parse_settings(given["settings"])
    recipe.bind(options, settings)
    items = gather(
        photos, jobs=given["jobs"], output=given["output"], masks=masks, known=known,
        standard_input=standard_input(photos), verb="mask", suffix=".png",
    )  # fmt: skip
    to_stdout = given["output"] == STANDARD
    if to_stdout and given["as_json"]:
        raise UsageError("--json and -o - both want standard output; write the mask to a file")
    output = Output(
        "mask", overwrite=given["overwrite"], standard=standard_output() if to_stdout else None,
        max_pixels=megapixels(given["max_megapixels"]),
    )  # fmt: skip
    folder = Path(given["output"]) if given["output"] is not None and not to_stdout else None
    overlay = None if given["overlay"] is None else Path(given["overlay"])
    many = overlay is not None and takes_names(given["overlay"], len(items), photos)
    if many and overlay is not None and overlay.is_file():
        raise UsageError(f"{overlay}: is a file, and several overlays are to be written; name a folder")
    work = MaskWork(recipe, output, options, settings, overlay, folder, many)
    return work_through(
        items, work, about={"verb": "mask"}, device=given["device"],
        as_json=given["as_json"], to_stdout=to_stdout,
    )  # fmt: skip


command = click.Command(
    "mask",
    params=[
        click.Argument(["photos"], nargs=-1, metavar="[PHOTO|FOLDER|-]..."),
        *(option_for(option) for option in Recipe([Select()]).options().values()),
        _DILATE,
        _OVERLAY,
        *run_options(saves=False),
    ],
    callback=_run,
    help="Write only the mask: 8-bit PNG, white = selected.",
)
