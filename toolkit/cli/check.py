"""Check recipe files without running them."""

from __future__ import annotations

from pathlib import Path

import click

from toolkit import engines
from toolkit.cli._recipe import check_command
from toolkit.errors import ToolkitError
from toolkit.recipe import Recipe

_ENGINES = (("model", "fill"), ("detector", "detect"), ("segmenter", "segment"), ("matte", "matte"))


@click.command("check")
@click.argument("files", nargs=-1, required=True, metavar="RECIPE.yaml...")
def command(files: tuple[str, ...]) -> int:
    """Check recipe files: names, types, ranges, the order of the stages, and whether their engines run here."""
    code = 0
    for file in files:
        try:
            recipe = Recipe.load(Path(file) if Path(file).exists() else file)
            check_command(recipe)
            for stage in recipe.stages():
                for field, task in _ENGINES:
                    name = getattr(stage, field, None)
                    if field == "detector" and name == "auto" and not getattr(stage, "text", ()):
                        continue  # a stage without words asks no detector, and without weights there is none
                    if isinstance(name, str):
                        engines.resolve(task, name)  # type: ignore[arg-type]
        except ToolkitError as problem:
            click.echo(f"inpaint: {problem}", err=True)
            code = max(code, problem.exit_code)
        else:
            click.echo(f"{file}: in order ({' -> '.join(item.stage.name for item in recipe.items)})")
    return code
