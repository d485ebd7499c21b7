"""Run a recipe file of your own on photos."""

from __future__ import annotations

import click

from toolkit.cli._recipe import recipe_command


@click.command(
    "run",
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "help_option_names": []},
    add_help_option=False,
)
@click.argument("recipe", metavar="RECIPE.yaml", required=False)
@click.argument("rest", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(ctx: click.Context, recipe: str | None, rest: tuple[str, ...]) -> int:
    """Run a recipe file (or a recipe's name) on photos; `inpaint run my-recipe.yaml --help` lists its options."""
    if recipe is None or recipe in ("-h", "--help"):
        click.echo(ctx.get_help())
        return 0
    verb = recipe_command(recipe)
    with verb.make_context(f"run {recipe}", list(rest), parent=ctx.parent) as inner:
        code: int = verb.invoke(inner)
        return code
