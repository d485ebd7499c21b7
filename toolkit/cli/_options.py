"""Command-line options made from declarations: a recipe's options and the ones every recipe has."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from toolkit import library
from toolkit.errors import ParameterError
from toolkit.recipe import Option
from toolkit.schema import read_value


def option_for(option: Option) -> click.Option:
    """The click option for one thing a recipe can be told."""
    flag = "--" + option.name.replace("_", "-")
    declarations = [option.name, flag, *([option.short] if option.short else [])]
    schema = _plain(option.schema)
    help_text = option.about + _default(option.default)
    kind = schema.get("type")
    if kind == "boolean":
        return click.Option(declarations, is_flag=True, default=None, help=help_text)
    many = kind == "array"
    return click.Option(declarations, type=str, multiple=many, help=help_text, metavar=_metavar(schema, option.schema))


Optional = Mapping[str, tuple[str, Callable[[], set[str]]]]
"""Flags whose value may be left away: the value a bare one stands for, and those that may follow as a word."""


class VerbCommand(click.Command):
    """A command whose options of an optional value take the next word only where it is one they know.

    Args:
        optional: those flags; a value that is not known is written `--flag=value`.
    """

    def __init__(self, *arguments: Any, optional: Optional, **rest: Any) -> None:
        super().__init__(*arguments, **rest)
        self._optional = optional

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click does, so that the photo behind a bare flag stays a photo.

        Raises:
            ParameterError: when a word behind one is neither a value it knows nor a photo.
        """
        end = args.index("--") if "--" in args else len(args)
        written = list(args)
        for index in reversed(range(end)):
            if args[index] not in self._optional:
                continue
            bare, known = self._optional[args[index]]
            word = args[index + 1] if index + 1 < end else ""
            if word not in known():
                if word and not word.startswith("-") and not os.path.exists(word) and not ctx.resilient_parsing:
                    raise ParameterError(
                        f"{args[index]} {word}: there is no enhancer and no photo of this name; enhancers: "
                        f"{', '.join(sorted(known()))}"
                    )
                written[index] = f"{args[index]}={bare}"
        return super().parse_args(ctx, written)


def optional_values(options: Iterable[Option]) -> Optional:
    """What `VerbCommand` is told of options whose value may be left away: they name engines."""
    return {
        "--" + option.name.replace("_", "-"): (str(option.schema["bare"]), lambda: engine_names("enhance"))
        for option in options
        if "bare" in option.schema
    }


def engine_names(task: str) -> set[str]:
    """Names that may be given for an engine of `task`; no card is read."""
    return {"auto", *(key.split("/", 1)[1] for key in library.names("models") if key.startswith(f"{task}/"))}


def value_of(option: Option, given: Any) -> Any:
    """What the user wrote as the value the stage's field expects."""
    if isinstance(given, tuple):
        return tuple(_one(_plain(option.schema).get("items", {}), option.name, text) for text in given)
    return _one(_plain(option.schema), option.name, given)


def _one(schema: Mapping[str, Any], name: str, text: Any) -> Any:
    kind = schema.get("type")
    if not isinstance(text, str):
        return text
    if kind in ("integer", "number") or (isinstance(kind, list) and "string" not in kind):
        try:
            number = float(text)
        except ValueError:
            if "string" in _others(schema):
                return text
            expected = "a whole number" if kind == "integer" else "a number"
            raise ParameterError(f"--{name.replace('_', '-')}: expected {expected}, got {text!r}") from None
        return int(text) if text.strip().lstrip("+-").isdigit() else number
    return text


def _others(schema: Mapping[str, Any]) -> tuple[str, ...]:
    others: tuple[str, ...] = schema.get("others", ())
    return others


def _plain(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """A schema without its null alternative; of several the first, the others' types under `others`."""
    choices = [part for part in schema.get("anyOf", []) if part.get("type") != "null"]
    if not choices:
        return schema
    others = tuple("string" if "const" in part else str(part.get("type")) for part in choices[1:])
    return {**choices[0], "others": others}


def _metavar(schema: Mapping[str, Any], whole: Mapping[str, Any]) -> str:
    if "bare" in schema:
        return "[NAME]"
    if "enum" in schema:
        return "|".join(map(str, schema["enum"]))
    item = schema.get("items", schema) if schema.get("type") == "array" else schema
    words = {"box": "BOX", "point": "X,Y", "size": "WxH", "path": "FILE", "box or path": "BOX|FILE"}
    if item.get("format") in words:
        return words[str(item["format"])]
    if item.get("type") in ("integer", "number"):
        constants = [str(part["const"]) for part in whole.get("anyOf", []) if "const" in part]
        return "|".join(["N", *constants])
    return "TEXT"


def _default(value: Any) -> str:
    if value in (None, "", ()) or isinstance(value, bool) or str(value) == "PydanticUndefined":
        return ""
    return f" [default: {value}]"


def parse_settings(texts: tuple[str, ...]) -> dict[str, Any]:
    """`--set stage.field=value`, values read as in a recipe.

    Raises:
        ParameterError: when there is no `=`.
    """
    settings = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise ParameterError(f"--set {text}: expected stage.field=value, e.g. dilate.radius=3%")
        settings[key.strip()] = read_value(value)
    return settings


def file_length(text: str) -> int:
    """Bytes, written as 300000, 300k or 1.5MB; k and M are thousands and millions.

    Raises:
        click.BadParameter: for anything else.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kKmM]?)[bB]?\s*", text)
    length = round(float(found[1]) * {"": 1, "k": 1000, "m": 1000_000}[found[2].lower()]) if found else 0
    if length < 1:
        raise click.BadParameter(f"expected bytes such as 300000, 300k or 1.5MB, got {text!r}")
    return length


def picture_options() -> list[click.Parameter]:
    """Options of how results are written, which every verb has that writes photos."""
    return [
        click.Option(["--format"], metavar="NAME", help="of the result: jpeg, png, tiff, webp or bmp"),
        click.Option(["--quality"], type=click.IntRange(1, 100), help="of JPEG and lossy WebP"),
        click.Option(["--max-bytes"], type=file_length, metavar="N|Nk|NMB", help="lower the quality until it fits"),
        click.Option(["--dpi"], type=click.FloatRange(1, 65535), help="pixels per inch to be written into it"),
        click.Option(["--srgb"], is_flag=True, help="convert its colours to sRGB"),
        click.Option(["--preview"], is_flag=True, help="write before, mask and after side by side, too"),
    ]


def photo_options() -> list[click.Parameter]:
    """Options of every verb that looks at photos."""
    return [
        click.Option(
            ["--max-megapixels"], type=click.FloatRange(min=0.001, max=1e6), help="refuse larger photos [default: 500]"
        ),
        click.Option(
            ["--device"], default="auto", metavar="NAME", help="where networks run: auto, cpu, cuda, cuda:1 or mps"
        ),
    ]


def run_options(*, saves: bool = True) -> list[click.Parameter]:
    """Options every verb that works on photos has.

    Args:
        saves: it writes photos, which can be planned first.
    """
    options = [
        click.Option(
            ["output", "-o", "--output"],
            metavar="PATH",
            help="file, folder (for several photos) or - for standard output",
        ),
        click.Option(
            ["--overwrite"],
            is_flag=True,
            help="replace existing files, but none that may be a photo; the photo itself only if -o names it",
        ),
        click.Option(
            ["--jobs"],
            type=click.Path(path_type=Path),
            help="table (.csv, .jsonl) with a row a photo: photo, output and any option",
        ),
        click.Option(
            ["settings", "--set"],
            multiple=True,
            metavar="STAGE.FIELD=VALUE",
            help="reaches any stage's parameter; may be repeated",
        ),
        click.Option(["as_json", "--json"], is_flag=True, help="print a report of everything done"),
        *photo_options(),
    ]
    dry = click.Option(
        ["dry_run", "-n", "--dry-run"],
        is_flag=True,
        help="say what would be read, done, called, paid and written; fill and write nothing",
    )
    return [*options, *([dry, *picture_options()] if saves else [])]


def paying_options() -> list[click.Parameter]:
    """Options of recipes whose engines may cost money."""
    return [
        click.Option(["--max-cost"], type=click.FloatRange(min=0), metavar="DOLLARS", help="spend no more"),
        click.Option(["-y", "--yes"], is_flag=True, help="do not ask before more than 10 calls or $1 are paid"),
        click.Option(["--fresh"], is_flag=True, help="pay for a new answer though the same request has one already"),
    ]
