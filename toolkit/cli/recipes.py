"""List the recipes there are, or show one."""

from __future__ import annotations

import click

from toolkit import library
from toolkit.errors import RecipeError, UsageError
from toolkit.recipe import Recipe, describe


@click.command("recipes")
@click.argument("show", type=click.Choice(["show"]), required=False)
@click.argument("name", required=False)
def command(show: str | None, name: str | None) -> int:
    """List the recipes there are; `inpaint recipes show NAME` prints one and its options."""
    if show is None:
        for key, path in library.names("recipes").items():
            try:
                about = describe(path)[1]
            except RecipeError as problem:
                about = f"cannot be used: {problem}"
            click.echo(f"{key:20} {about}")
        return 0
    if name is None:
        raise UsageError("name a recipe: inpaint recipes show NAME")
    path = library.find("recipes", name, word="recipe")
    recipe = Recipe.load(name)
    click.echo(path.read_text(encoding="utf-8").rstrip())
    click.echo(f"\n# {path}\n# options:")
    for option in recipe.options().values():
        click.echo(f"#   --{option.name.replace('_', '-'):14} {option.about}")
    return 0
