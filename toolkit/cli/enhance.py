"""Write a better prompt for a hole, and nothing else: the prompt enhancer alone."""

from __future__ import annotations

import json
import time
from typing import Any

import click

from toolkit.cli._options import option_for, photo_options, value_of
from toolkit.cli._session import ProgressLine, megapixels, standard_input
from toolkit.dataset.inputs import STANDARD
from toolkit.edit import Edit
from toolkit.errors import Cancelled, UsageError
from toolkit.photo import Photo
from toolkit.prompts import hint
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.stages._enhancing import asked_of, enhance_job
from toolkit.stages.crop import Crop
from toolkit.stages.select import Select


def _run(photo: str, prompt: str, enhancer: str, recipe: str, as_json: bool, **given: Any) -> int:
    if not prompt.strip():
        raise UsageError("--prompt: say what should be there")
    whole = Recipe.load(recipe)
    if Crop not in [item.stage for item in whole.items]:
        raise UsageError(f"--recipe {recipe}: has no stage 'crop', so it fills no hole; take replace-object, say")
    known = Recipe([Select()]).options()
    options = {name: value_of(known[name], given[name]) for name in known if given.get(name) not in (None, ())}
    bound = whole.bind(options, {"dilate.radius": given["dilate"]} if given["dilate"] else {})
    data, pixels = standard_input([photo]), megapixels(given["max_megapixels"])
    limit = {} if pixels is None else {"max_pixels": pixels}
    name = None if data is None else "standard input"
    source = Photo.open(photo if data is None else data, name=name, **limit)
    line = ProgressLine(1)
    with Run(progress=line, fresh=given["fresh"], max_cost=given["max_cost"], device=given["device"]) as run:
        card = run.card("enhance", enhancer)
        run.begin({"verb": "enhance", "photos": [source.name], "prompt": prompt, "enhancer": card.name})
        try:
            edit = Edit.of(source)
            for stage in bound.stages():
                if isinstance(stage, Crop):
                    break
                edit = stage(edit, run)
            assert edit.mask is not None
            job = enhance_job(edit, edit.mask, prompt, card)
            start = time.perf_counter()
            found = asked_of(job, card, run)
            run.journal.note(run.id, 0, source.name, "failed" if found.trouble else "done", {"error": found.trouble})
            if found.trouble:
                run.end("failed")
        except (KeyboardInterrupt, Cancelled):
            run.cancel()
            run.end("cancelled")
            raise KeyboardInterrupt from None
        except Exception:
            run.end("failed")
            raise
        finally:
            line.clear()
    seconds = time.perf_counter() - start
    for warning in (*(text for step in edit.steps for text in step.warnings), hint(prompt)):
        if warning:
            click.echo(f"  warning: {warning}", err=True)
    before = "paid before" if found.facts.get("kept") and not card.free else "free"
    cost = f"${found.price:g}" if found.price else before
    if found.trouble:
        paid = f" (${found.price:g} paid)" if found.price else ""
        click.echo(f"inpaint: {card.name}: {found.trouble}{paid}; the prompt is as it was given", err=True)
    if as_json:
        report = {
            "given": prompt, "prompt": found.prompt, "enhancer": card.name, "revision": card.revision,
            "price": found.price, "currency": card.price.currency, "seconds": round(seconds, 3),
            "hole": job.surroundings.text, "hint": hint(prompt), "trouble": found.trouble, **found.facts,
        }  # fmt: skip
        click.echo(json.dumps(report, indent=2, ensure_ascii=False, default=str))
    else:
        click.echo(found.prompt)
        if not found.trouble:
            click.echo(f"{card.name}, {cost}, {seconds:.1f} s", err=True)
    return 1 if found.trouble else 0


command = click.Command(
    "enhance",
    params=[
        click.Argument(["photo"], metavar=f"PHOTO|{STANDARD}"),
        *(option_for(option) for option in Recipe([Select()]).options().values()),
        click.Option(
            ["--dilate"], metavar="RADIUS", help="around what is pointed at: pixels or 2% [default: the recipe's]"
        ),
        click.Option(["--prompt"], required=True, help="what should be there"),
        click.Option(
            ["--recipe"], default="replace-object", metavar="NAME", help="whose hole it is [default: replace-object]"
        ),
        click.Option(["--enhancer"], default="auto", metavar="NAME", help="who writes it [default: auto]"),
        click.Option(["--fresh"], is_flag=True, help="ask anew although the answer is kept from before"),
        click.Option(["--max-cost"], type=click.FloatRange(min=0), metavar="DOLLARS", help="spend no more"),
        click.Option(["as_json", "--json"], is_flag=True, help="print a report of what was asked and answered"),
        *photo_options(),
    ],
    callback=_run,
    help="Write the prompt that a recipe's --enhance would send for a hole, and nothing else: only it goes to standard "
    "output. Where the enhancer fails that is the prompt as given, which is said; it ends with 1 then.",
)
