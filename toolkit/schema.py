"""The base of every declared model (stages, cards, recipes) and the one function that words its errors.

Field types that appear in more than one declaration live here too, so that the command line, recipes
and JSON Schema read them alike.
"""

from __future__ import annotations

import re
import reprlib
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, NamedTuple, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from toolkit.errors import ParameterError, RecipeError, ToolkitError
from toolkit.geometry import Box, Size


class Model(BaseModel):
    """Frozen, strict, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", arbitrary_types_allowed=True)


M = TypeVar("M", bound=Model)


def build(model: type[M], values: Mapping[str, Any], place: str, *, error: type[ToolkitError] = ParameterError) -> M:
    """Make a `model` from `values`.

    Raises:
        ToolkitError: of type `error`, one sentence that begins with `place` and names the field.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as problem:
        raise error(explain(problem, model, place)) from None


def explain(problem: ValidationError, model: type[BaseModel], place: str) -> str:
    """One sentence for the first thing pydantic found: where, what was expected, what came, what was meant."""
    first = problem.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"] if not _is_noise(str(part))]
    kind, given = first["type"], first.get("input")
    if kind == "extra_forbidden":
        name = str(first["loc"][-1])
        path = path[: -1 if path and path[-1] == name else None]
        known = [field.replace("-", "_") for field in model.model_fields] if not path else []
        near = get_close_matches(name, known, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else (f"; known: {', '.join(sorted(known))}" if known else "")
        return f"{_join(place, path)}: no parameter {name!r}{hint}"
    where = _join(place, path)
    context = first.get("ctx", {})
    if kind == "missing":
        return f"{where}: is missing"
    if kind == "value_error":
        return f"{where}: {context.get('error', first['msg'])}"
    bounds = {
        "greater_than_equal": ("at least", "ge"),
        "less_than_equal": ("at most", "le"),
        "greater_than": ("more than", "gt"),
        "less_than": ("less than", "lt"),
    }
    if kind in bounds and given != given:  # which no bound holds
        return f"{where}: expected a number, got nan"
    if kind in bounds:
        words, key = bounds[kind]
        return f"{where}: must be {words} {context[key]}, got {shown(given)}"
    if kind == "literal_error":
        near = get_close_matches(str(given), re.findall(r"'([^']*)'", context["expected"]), n=1)
        return f"{where}: must be {context['expected']}, got {shown(given)}" + (
            f"; did you mean {near[0]!r}?" if near else ""
        )
    if kind == "string_too_long":
        return f"{where}: must have at most {context['max_length']} characters, got {len(given)}"
    expected = first["msg"].removeprefix("Input should be ").removeprefix("a valid ").replace("tuple", "a list")
    hint = " (quote it to make it text)" if expected == "string" and isinstance(given, bool | int | float) else ""
    return f"{where}: expected {expected}, got {shown(given)}{hint}"


_shorter = reprlib.Repr()
_shorter.maxstring = _shorter.maxother = _shorter.maxlong = 80
_shorter.maxlevel = 2


def shown(value: Any) -> str:
    """`value` as an error sentence quotes it: its repr, shortened where it is long."""
    return _shorter.repr(value)


def _is_noise(part: str) -> bool:
    return bool(re.search(r"[\[(-]", part)) or part in {"str", "int", "float", "bool", "tuple", "Box"}


def _join(place: str, path: list[str]) -> str:
    return ".".join([*([place] if place else []), *path]) or "value"


class Point(NamedTuple):
    """A pixel `(x, y)` of the upright photo."""

    x: int
    y: int


def parse_point(text: str) -> Point:
    """Read ``"x,y"``.

    Raises:
        ParameterError: when the text is anything else.
    """
    found = re.fullmatch(r"\s*(\d+)\s*,\s*(\d+)\s*", text)
    if not found:
        raise ParameterError(f"point {text!r}: expected x,y (whole pixels, e.g. 210,160)")
    return Point(int(found[1]), int(found[2]))


def parse_size(text: str) -> Size:
    """Read ``"WxH"`` or one number for a square.

    Raises:
        ParameterError: when the text is neither.
    """
    found = re.fullmatch(r"\s*(\d+)\s*(?:[xX]\s*(\d+)\s*)?", text)
    if not found or not int(found[1]) or found[2] == "0":
        raise ParameterError(f"size {text!r}: expected WxH (e.g. 1024x768) or one number")
    return Size(int(found[1]), int(found[2] or found[1]))


def _numbers(value: Any, count: int, form: str) -> tuple[int, ...]:
    if (
        isinstance(value, list | tuple)
        and len(value) == count
        and all(isinstance(n, int) and not isinstance(n, bool) for n in value)
    ):
        return tuple(value)
    raise ValueError(f"expected {form}, got {shown(value)}")


def _reading(value: Any, parse: Any, make: Any, count: int, form: str) -> Any:
    try:
        return parse(value) if isinstance(value, str) else make(*_numbers(value, count, form))
    except ToolkitError as error:
        raise ValueError(str(error)) from None


def _box(value: Any) -> Box:
    box: Box = _reading(value, Box.parse, lambda *n: Box(*n).checked(), 4, "four whole pixels left,top,right,bottom")
    return box


def _point(value: Any) -> Point:
    point: Point = _reading(value, parse_point, Point, 2, "two whole pixels x,y")
    return point


def _size(value: Any) -> Size:
    size: Size = _reading(value, parse_size, Size, 2, "two whole numbers, width and height")
    return size


LARGEST_RADIUS = 1_000_000
"""Pixels; more than any photo measures."""

LARGEST_SHARE = 10_000
"""Percent of an object's diagonal."""


def _radius(value: Any) -> float | str:
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?|\.\d+)\s*(%|px)?\s*", value)
        if not found:
            raise ValueError(f'expected pixels (12) or a share of the object\'s diagonal ("2%"), got {shown(value)}')
        if found[2] != "%":
            return _radius(float(found[1]))
        if float(found[1]) > LARGEST_SHARE:
            raise ValueError(f"must be at most {LARGEST_SHARE}%, got {shown(value)}")
        return f"{found[1]}%"
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'expected pixels (12) or a share of the object\'s diagonal ("2%"), got {shown(value)}')
    if not 0 <= value <= LARGEST_RADIUS:
        raise ValueError(f"must be between 0 and {LARGEST_RADIUS} pixels, got {shown(value)}")
    return value


def _many(value: Any) -> Any:
    """Let one item stand for a list of one."""
    if value is None:
        return ()
    if isinstance(value, str) or (
        isinstance(value, list | tuple) and value and all(isinstance(n, int | float) for n in value)
    ):
        return (value,)
    return tuple(value) if isinstance(value, list | tuple) else value


BoxField = Annotated[Box, BeforeValidator(_box), WithJsonSchema({"type": "string", "format": "box"})]
PointField = Annotated[Point, BeforeValidator(_point), WithJsonSchema({"type": "string", "format": "point"})]
SizeField = Annotated[Size, BeforeValidator(_size), WithJsonSchema({"type": "string", "format": "size"})]
RadiusField = Annotated[
    float | str, BeforeValidator(_radius), WithJsonSchema({"type": ["number", "string"], "format": "radius"})
]
Boxes = Annotated[tuple[BoxField, ...], BeforeValidator(_many)]
Points = Annotated[tuple[PointField, ...], BeforeValidator(_many)]
Names = Annotated[tuple[str, ...], BeforeValidator(_many)]
Bare = Annotated[
    str,
    BeforeValidator(lambda value: ("auto" if value else "") if isinstance(value, bool) else value),
    WithJsonSchema({"type": "string", "bare": "auto"}),
]
"""A name, or nothing but that it is wanted: then "auto", written `true` in YAML and as a bare option."""

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]


JSON_SCALARS = (
    ("null", r"^(?:null|~|)$", ["n", "~", ""]),
    ("bool", r"^(?:true|false)$", ["t", "f"]),
    ("int", r"^-?(?:0|[1-9][0-9]*)$", list("-0123456789")),
    ("float", r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?$", list("-0123456789")),
)
"""Tags, patterns and first characters of the plain YAML scalars that are read as anything but text."""


class _UniqueKeyLoader(yaml.SafeLoader):
    """PyYAML's safe loader, with duplicate keys refused and nothing but JSON's types resolved."""


def _mapping(loader: _UniqueKeyLoader, node: yaml.MappingNode, deep: bool = True) -> dict[Any, Any]:
    seen: dict[Any, Any] = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise RecipeError(f"line {key_node.start_mark.line + 1}: the name {key!r} must be text; put it in quotes")
        if key in seen:
            raise RecipeError(f"line {key_node.start_mark.line + 1}: {key!r} is written twice")
        seen[key] = loader.construct_object(value_node, deep=True)
    return seen


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)
# YAML 1.1 reads 12:30 as 750, 2026-01-01 as a date, 010 as 8, yes as true and 1e-3 as text; JSON's rules read none so.
_UniqueKeyLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in JSON_SCALARS:
    _UniqueKeyLoader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        RecipeError: when it cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) else "is not UTF-8 text"
        raise RecipeError(f"{path}: cannot be read: {reason}") from None


def read_yaml(source: Path | str, *, name: str | None = None) -> Any:
    """Parse YAML text, or the file at a `Path`, with JSON's scalar rules and without duplicate keys.

    Raises:
        RecipeError: naming the file and line of what cannot be understood.
    """
    if isinstance(source, Path):
        name, text = name or str(source), read_text(source)
    else:
        name, text = name or "text", source
    try:
        return yaml.load(text, Loader=_UniqueKeyLoader)
    except RecipeError as problem:
        raise RecipeError(f"{name}: {problem}") from None
    except yaml.YAMLError as problem:
        mark = getattr(problem, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise RecipeError(f"{name}:{line} {getattr(problem, 'problem', None) or problem}") from None
    except (ArithmeticError, LookupError, ValueError, TypeError, AttributeError) as problem:
        raise RecipeError(f"{name}: a value does not fit its own !!tag ({problem})") from None
    except RecursionError:
        raise RecipeError(f"{name}: is nested too deeply") from None


class _Dumper(yaml.SafeDumper):
    """PyYAML's safe dumper, which quotes text that `read_yaml` would read as something else."""


for _tag, _pattern, _first in JSON_SCALARS:
    _Dumper.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(_pattern), _first)


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # PyYAML folds Unicode's own line ends into spaces unless they are escaped.
    style = '"' if re.search("[\x85\u2028\u2029]", value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)


def write_yaml(value: Any) -> str:
    """YAML text that `read_yaml` reads as `value` again, keys in their order.

    Raises:
        RecipeError: when the value holds something YAML has no form for, an array say.
    """
    try:
        return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    except yaml.representer.RepresenterError as problem:
        raise RecipeError(f"cannot be written as YAML: {shown(problem.args[-1])}") from None


def read_value(text: str) -> Any:
    """Read one value as a recipe would write it: ``"3%"`` and ``"#fff"`` stay text, ``"12"`` becomes a number."""
    return text if text.lstrip().startswith("#") else read_yaml(text, name="value")
