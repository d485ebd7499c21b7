"""Take an object out of a photo that comes along, and show before, mask and after."""

from __future__ import annotations

import time
from pathlib import Path

import click

BOX = "296,118,350,408"
"""Around the rocket on the photo that comes along."""


@click.command("demo")
@click.option(
    "folder", "-o", "--output", type=click.Path(path_type=Path), default=Path("inpaint-demo"), show_default=True
)
def command(folder: Path) -> int:
    """Take the rocket off its launch pad: writes before, mask, after and a contact sheet into a folder."""
    from toolkit.dataset.pictures import contact_sheet
    from toolkit.dataset.targets import Output, check_free, make_folder
    from toolkit.dataset.work import fidelity
    from toolkit.edit import Edit
    from toolkit.photo import Photo
    from toolkit.recipe import Recipe
    from toolkit.run import Run

    start = time.perf_counter()
    source = Path(__file__).parent.parent / "demo" / "rocket.jpg"
    photo = Photo.open(source)
    output = Output("demo", overwrite=True)
    check_free(folder / "before.png", photo, output)
    with Run() as run:
        run.warm()
        make_folder(folder / "before.png")
        edit: Edit = Recipe.load("remove-object")(photo, run, box=BOX)
    assert edit.mask is not None
    Photo.open(edit.photo.array()).save(folder / "before.png", (), overwrite=True)
    edit.mask.save(folder / "mask.png", overwrite=True)
    after = folder / "after.png"
    edit.save(after, overwrite=True)
    Photo.open(contact_sheet(edit)).save(folder / "sheet.png", (), overwrite=True)
    checked = fidelity(edit, 0, after, str(after), measure=True)
    fill = next(step for step in edit.steps if step.stage == "fill")
    click.echo(f"box {BOX} of the demo photo ({photo.size}), filled by {fill.engine}")
    click.echo(
        f"{checked['pixels_changed']} pixels changed, {checked['pixels_changed_outside']} outside the mask; "
        f"{time.perf_counter() - start:.1f} s"
    )
    for name in ("before.png", "mask.png", "after.png", "sheet.png"):
        click.echo(f"  {folder / name}")
    click.echo("now on a photo of yours:  inpaint remove-object photo.jpg --box LEFT,TOP,RIGHT,BOTTOM --preview")
    return 0
