"""Say what is installed, which engine auto takes and why, and what is broken."""

from __future__ import annotations

import importlib.metadata
import os
import platform

import click

from toolkit import cards, engines, library, settings
from toolkit.cards import TASKS
from toolkit.errors import EngineError, ParameterError, ToolkitError
from toolkit.recipe import Recipe
from toolkit.run import cores

_PACKAGES = (
    "numpy", "opencv-python-headless", "pillow", "pydantic", "click", "httptools", "httpx", "pyyaml", "pypatchmatch",
    "segment-anything", "tifffile", "torch", "torchvision", "transformers", "diffusers", "accelerate", "peft",
    "torchao", "onnxruntime", "pymatting",
)  # fmt: skip

_OPENCV = ("opencv-python", "opencv-contrib-python", "opencv-python-headless", "opencv-contrib-python-headless")


@click.command("doctor")
def command() -> int:
    """Say what is installed, which engine `auto` takes and why, and what is broken (exit code 1 then)."""
    problems = find_problems()
    click.echo(f"inpaint-toolkit {_version('inpaint-toolkit') or 'not installed as a package'}")
    click.echo(f"Python {platform.python_version()} on {platform.platform()}, {cores()} cores")
    for name in _PACKAGES:
        click.echo(f"  {name:24} {_version(name) or '-'}")
    click.echo(f"your own cards and recipes: {library.configuration_folder()}{os.sep}models and recipes")
    click.echo(f"settings and keys: {library.configuration_folder()}; runs and what was paid: {library.state_folder()}")
    for kind in ("models", "recipes"):
        click.echo(f"{kind} are looked for in, nearest first:")
        for folder in library.folders(kind):
            click.echo(f"  {folder}")
    try:
        settings.load()
    except ToolkitError as error:
        problems.append(str(error))
    for task in TASKS:
        try:
            every = cards.every(task)
        except ToolkitError as error:
            problems.append(str(error))
            continue
        if not every:
            continue
        try:
            taken = engines.resolve(task).name
        except ParameterError as error:
            taken = ""
            if str(error) not in problems:
                problems.append(str(error))
        except EngineError as error:
            taken = ""
            # Where every engine's weights have to be fetched, not having done so is no fault.
            if any(card.rank is not None and not card.weights for card in every):
                problems.append(str(error))
        click.echo(f"{task}: auto takes {taken or 'nothing'}")
        widest = max(len(card.name) for card in every)
        for card in every:
            try:
                reason = engines.missing(card, "auto")
            except ToolkitError as error:
                reason = str(error)
            why = reason or ("no rank: only by name" if card.rank is None else f"rank {card.rank}")
            why += "" if card.free else ", costs money: only by name"
            click.echo(f"  {'*' if card.name == taken else ' '} {card.name:{widest}} {why}")
    for path in library.names("recipes").values():
        try:
            Recipe.load(path)
        except ToolkitError as error:
            problems.append(str(error))
    for problem in problems:
        click.echo(f"problem: {problem}", err=True)
    click.echo("no problem found" if not problems else f"{len(problems)} problem{'s' * (len(problems) > 1)} found")
    return 1 if problems else 0


def find_problems() -> list[str]:
    """Broken pairs of packages, one sentence each with what to do."""
    problems = []
    found = [name for name in _OPENCV if _version(name)]
    if len(found) > 1:
        problems.append(
            f"{' and '.join(found)} are installed side by side and overwrite each other's files: "
            f"pip uninstall {' '.join(found)}, then pip install opencv-python-headless"
        )
    try:
        import cv2

        cv2.inpaint  # noqa: B018 - a half-removed OpenCV still imports
    except (ImportError, AttributeError) as problem:
        problems.append(f"OpenCV does not work ({problem}): pip install --force-reinstall opencv-python-headless")
    torch, vision = _version("torch"), _version("torchvision")
    if torch and vision:
        try:
            importlib.import_module("torchvision")
        except Exception as problem:  # a mismatched pair raises RuntimeError or worse
            problems.append(f"torch {torch} and torchvision {vision} do not belong together ({problem})")
    return problems


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
