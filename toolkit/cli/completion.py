"""Print the shell completion script for bash, zsh or fish."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def command(shell: str) -> int:
    """Print the completion script of a shell; add `eval "$(inpaint completion bash)"` to ~/.bashrc or the like."""
    from toolkit.cli import group

    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(group, {}, "inpaint", "_INPAINT_COMPLETE").source())
    return 0
