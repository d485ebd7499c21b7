"""The command `inpaint`: one file a verb; every recipe is a verb by itself. Nothing heavy is imported for help."""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
import signal
import sys
import threading
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click
from click.exceptions import NoArgsIsHelpError

from toolkit import library
from toolkit.errors import ToolkitError


def _verbs() -> dict[str, Path]:
    """The files of this folder that are verbs, by name."""
    return {
        path.stem.replace("_", "-"): path
        for path in sorted(Path(__file__).parent.glob("*.py"))
        if not path.stem.startswith("_")
    }


def _first_sentence(path: Path) -> str:
    found = re.search(r'"""(.+?)(?:"""|\n)', path.read_text(encoding="utf-8"))
    return found[1] if found else ""


def _about(path: Path) -> str:
    # Broken files are named by `inpaint recipes`, and when they are called; help lists what it can.
    found = re.search(r"^about: *(.+)$", path.read_text(encoding="utf-8", errors="replace"), re.M)
    return found[1].strip("\"' ") if found else ""


class Verbs(click.Group):
    """Finds verbs by their files and recipes by theirs, and imports only the one that is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Verbs and recipes."""
        return [*self._recipes(), *_verbs()]

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        """The verb called `name`."""
        if name in _verbs():
            module = importlib.import_module(f"toolkit.cli.{name.replace('-', '_')}")
            command: click.Command = module.command
            return command
        if name in self._recipes():
            from toolkit.cli._recipe import recipe_command

            return recipe_command(name)
        return None

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        """As click does, with a suggestion for a verb nobody knows."""
        if args and not args[0].startswith("-") and args[0] not in self.list_commands(ctx):
            near = get_close_matches(args[0], self.list_commands(ctx), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else "; `inpaint --help` lists them"
            raise click.UsageError(f"no verb or recipe {args[0]!r}{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Recipes first, then the other verbs, from their files' first lines."""
        with formatter.section("Recipes"):
            formatter.write_dl([(name, _about(path)) for name, path in self._recipes().items()])
        with formatter.section("Other verbs"):
            formatter.write_dl([(name, _first_sentence(path)) for name, path in _verbs().items()])

    @staticmethod
    def _recipes() -> dict[str, Path]:
        return {name: path for name, path in library.names("recipes").items() if "/" not in name}


@click.command(cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="inpaint-toolkit", prog_name="inpaint")
def group() -> None:
    """Mask generation and inpainting that never touches a pixel outside the mask."""


def _plain(problem: click.ClickException) -> str:
    """click's message as one sentence that says where help is."""
    text = problem.format_message().rstrip(".")
    text = re.sub(r"\. \(Did you mean (?:one of: )?(.*)\)$", r"; did you mean \1", text)
    context = getattr(problem, "ctx", None)
    place = f"; see {context.command_path} --help" if context is not None and not text.endswith("?") else ""
    return text[:1].lower() + text[1:] + place


def _heed_termination() -> None:
    """Let SIGTERM and a closed terminal end the command as Ctrl-C does."""

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        return
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)


def _give_up(stream: Any) -> None:
    """Send what a stream still holds nowhere, so that the interpreter does not stumble over it when it ends."""
    with contextlib.suppress(OSError, AttributeError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and end the process.

    Exit codes: 0 done, 1 failed, 2 wrong use, 3 some of several photos failed, 130 cancelled.
    """
    _heed_termination()
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:  # closed by the caller: no pipe or file of ours may take its place
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")  # a file name may hold what the terminal cannot show
    try:
        code = group.main(
            arguments,
            prog_name="inpaint",
            standalone_mode=False,
            obj=tuple(sys.argv[1:] if arguments is None else arguments),
        )
    except ToolkitError as problem:
        click.echo(f"inpaint: {problem}", err=True)
        code = problem.exit_code
    except NoArgsIsHelpError as problem:
        problem.show()
        code = 2
    except click.ClickException as problem:
        click.echo(f"inpaint: {_plain(problem)}", err=True)
        code = problem.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("inpaint: cancelled", err=True)
        code = 130
    except BrokenPipeError:
        # The reader of our output went away: nothing more can be said.
        _give_up(sys.stdout)
        code = 1
    except OSError as problem:
        place = f"{os.fsdecode(problem.filename)}: " if isinstance(problem.filename, str | bytes) else "output: "
        click.echo(f"inpaint: {place}{problem.strerror or problem}", err=True)
        _give_up(sys.stdout)
        code = 1
    except Exception as problem:
        if os.environ.get("INPAINT_DEBUG"):
            raise
        click.echo(
            f"inpaint: internal error, please report it: {type(problem).__name__}: {problem} "
            "(INPAINT_DEBUG=1 shows where)",
            err=True,
        )
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
