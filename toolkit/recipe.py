"""Recipes: YAML <-> stages, one to one.

A recipe is a list of stages. As a file it may leave values open (`$prompt`); those are its inputs. Bound, it is a
callable `recipe(photo, run) -> Edit`, just like a stage.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from toolkit import library, stages
from toolkit.edit import Edit
from toolkit.errors import ParameterError, RecipeError, UnknownNameError
from toolkit.geometry import Box, Size
from toolkit.run import Run
from toolkit.schema import Model, build, read_yaml, shown, write_yaml
from toolkit.stages import Stage


class Input(Model):
    """A value a recipe leaves open."""

    type: Literal["text", "number", "whole number", "yes or no"] = "text"
    default: str | float | int | bool | None = None
    about: str = ""


@dataclass(frozen=True)
class Reference:
    """A value left open: the input called `name`. YAML writes `$name`; text that begins with $ is written `$$...`."""

    name: str


@dataclass(frozen=True)
class Item:
    """One stage of a recipe as written: its class and values, a `Reference` standing for an input."""

    stage: type[Stage]
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Option:
    """One thing a recipe can be told by name: an input, or a public field of one of its stages.

    Attributes:
        name: as in Python and JSON; the command line writes `-` for `_`.
        targets: (index of the stage, field) that get the value.
        schema: JSON Schema of the field.
        about: help.
        default: what it is when nothing is said.
        short: one-letter form on the command line, with its dash; may be empty.
    """

    name: str
    targets: tuple[tuple[int, str], ...]
    schema: Mapping[str, Any]
    about: str
    default: Any = None
    short: str = ""


_EXTRA_OPTIONS = (("crop", "size"), ("matte", "matte"))
"""Fields of stages that are not public as a whole but are options of every recipe that holds them."""


class Recipe:
    """A list of stages with a name.

    Args:
        items: stages, or `Item`s with open values.
        name: what the command is called.
        about: one sentence of help.
        inputs: the open values.
        place: what error sentences begin with; empty names the stage alone, as fits values given one by one.

    Raises:
        RecipeError: when a stage comes before what it needs, or an input is named that does not exist.
    """

    def __init__(
        self,
        items: Sequence[Stage | Item],
        *,
        name: str = "recipe",
        about: str = "",
        inputs: Mapping[str, Input] | None = None,
        place: str = "recipe",
    ) -> None:
        self.name, self.about, self.inputs, self._place = name, about, dict(inputs or {}), place
        self.items = tuple(
            item
            if isinstance(item, Item)
            else Item(type(item), {n: getattr(item, n) for n in type(item).model_fields if n in item.model_fields_set})
            for item in items
        )
        self.items = tuple(self._checked())

    @classmethod
    def load(cls, name: str | Path) -> Recipe:
        """The recipe called `name` (shipped or the user's own), or the one in a file whose path ends in .yaml.

        Raises:
            UnknownNameError: when there is no such recipe.
            RecipeError: when the file cannot be understood.
        """
        path = Path(name)
        if path.suffix in (".yaml", ".yml"):
            return cls.from_yaml(path)
        return cls.from_yaml(library.find("recipes", str(name), word="recipe"))

    @classmethod
    def from_yaml(cls, source: Path | str) -> Recipe:
        """Read a recipe from a file (`Path`) or from text.

        Raises:
            RecipeError: naming the place of what is wrong.
        """
        place = source.name if isinstance(source, Path) else "recipe"
        values = read_yaml(source)
        if not isinstance(values, dict) or "stages" not in values:
            raise RecipeError(f"{place}: expected a mapping with name, about, inputs and stages")
        unknown = set(values) - {"name", "about", "inputs", "stages"}
        if unknown:
            error = UnknownNameError(place, "field", sorted(unknown)[0], ("name", "about", "inputs", "stages"))
            raise RecipeError(str(error))
        name = values.get("name") or (source.stem if isinstance(source, Path) else "recipe")
        about = values.get("about") or ""
        if not isinstance(name, str) or not re.fullmatch(r"[a-z][a-z0-9-]*", name):
            raise RecipeError(f"{place}.name: expected small letters, digits and dashes, got {shown(name)}")
        if not isinstance(about, str):
            raise RecipeError(f"{place}.about: expected text, got {shown(about)}")
        given = values.get("inputs") or {}
        if not isinstance(given, dict):
            raise RecipeError(f"{place}.inputs: expected a mapping, got {shown(given)}")
        for key in given:
            if not re.fullmatch(r"[a-z][a-z0-9_]*", key):
                raise RecipeError(f"{place}.inputs: expected small letters, digits and _ in a name, got {shown(key)}")
        inputs = {
            key: build(
                Input,
                value if isinstance(value, dict) else {"default": value},
                f"{place}.inputs.{key}",
                error=RecipeError,
            )
            for key, value in given.items()
        }
        if not isinstance(values["stages"], list) or not values["stages"]:
            raise RecipeError(f"{place}.stages: expected a list of stages")
        items = [_item(entry, f"{place}.stages[{i}]") for i, entry in enumerate(values["stages"])]
        return cls(items, name=name, about=about, inputs=inputs, place=place)

    def to_yaml(self) -> str:
        """The recipe as `from_yaml` reads it."""
        body: dict[str, Any] = {"name": self.name}
        if self.about:
            body["about"] = self.about
        if self.inputs:
            body["inputs"] = {key: one.model_dump(exclude_unset=True) for key, one in self.inputs.items()}
        body["stages"] = [
            {item.stage.name: {key: _written(value) for key, value in item.values.items()}}
            if item.values
            else item.stage.name
            for item in self.items
        ]
        return write_yaml(body)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and (self.name, self.about, self.inputs, self.items) == (
            other.name, other.about, other.inputs, other.items,
        )  # fmt: skip

    def __hash__(self) -> int:
        return hash((self.name, self.about))

    def __repr__(self) -> str:
        return f"Recipe({self.name!r}, {[item.stage.name for item in self.items]})"

    def options(self) -> dict[str, Option]:
        """Everything the recipe can be told by name: its inputs, then public fields of its stages."""
        found: dict[str, Option] = {}
        for key, one in self.inputs.items():
            targets = [
                (i, name)
                for i, item in enumerate(self.items)
                for name, value in item.values.items()
                if value == Reference(key)
            ]
            index, name = targets[0]
            info = self.items[index].stage.model_fields[name]
            found[key] = Option(
                key, tuple(targets), _schemas(self.items[index].stage)[name], one.about or info.description or "",
                one.default if one.default is not None else info.default,
            )  # fmt: skip
        for index, item in enumerate(self.items):
            for name, info in item.stage.model_fields.items():
                if not (item.stage.public or (item.stage.name, name) in _EXTRA_OPTIONS):
                    continue
                extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
                if isinstance(item.values.get(name), Reference) or extra.get("option") is False:
                    continue
                if name in found:
                    if found[name].targets[0][0] == index or name in self.inputs:
                        continue
                    found[name] = Option(**{**vars(found[name]), "targets": (*found[name].targets, (index, name))})
                    continue
                found[name] = Option(
                    name, ((index, name),), _schemas(item.stage)[name], info.description or "",
                    item.values.get(name, info.default), str(extra.get("short", "")),
                )  # fmt: skip
        return found

    def bind(self, options: Mapping[str, Any] | None = None, settings: Mapping[str, Any] | None = None) -> Recipe:
        """The recipe with values given.

        Args:
            options: values by the names of `options()`.
            settings: values by `"stage.field"` or `"stage[n].field"`, reaching any stage.

        Raises:
            UnknownNameError: for a name the recipe does not know.
            ParameterError: for a value of the wrong type or out of range.
        """
        known = self.options()
        filled = {key: one.default for key, one in self.inputs.items()}
        written = [dict(item.values) for item in self.items]
        for key, value in (options or {}).items():
            if key not in known:
                raise UnknownNameError(self.name, "option", key, known)
            if key in self.inputs:
                filled[key] = value
            else:
                for index, name in known[key].targets:
                    written[index][name] = value
        for key, value in (settings or {}).items():
            index, name = self._setting(key)
            written[index][name] = value
        for values in written:
            for name, value in list(values.items()):
                if isinstance(value, Reference):
                    values[name] = filled[value.name]
                    if values[name] is None:
                        del values[name]
        items = [Item(item.stage, values) for item, values in zip(self.items, written, strict=True)]
        return Recipe(items, name=self.name, about=self.about, place="")

    def _setting(self, key: str) -> tuple[int, str]:
        found = re.fullmatch(r"([a-z-]+)(?:\[(\d+)\])?\.([a-z_-]+)", key)
        if not found:
            raise ParameterError(f"--set {key}: expected stage.field=value, e.g. dilate.radius=3%")
        stage, number, name = found[1], found[2], found[3].replace("-", "_")
        places = [i for i, item in enumerate(self.items) if item.stage.name == stage]
        if not places:
            raise UnknownNameError(f"--set {key}", "stage", stage, {item.stage.name for item in self.items})
        if number is None and len(places) > 1:
            raise ParameterError(
                f"--set {key}: {stage} occurs {len(places)} times; write {stage}[0].{name} or the like"
            )
        if int(number or 0) >= len(places):
            raise ParameterError(f"--set {key}: {stage} occurs {len(places)} times, counted from 0")
        index = places[int(number or 0)]
        if name not in self.items[index].stage.model_fields:
            raise UnknownNameError(f"--set {key}", "parameter", name, self.items[index].stage.model_fields)
        return index, name

    def stages(self) -> Iterator[Stage]:
        """The stages, made and checked; open inputs take their defaults.

        Raises:
            ParameterError: naming the stage and field of a wrong value.
        """
        if self.inputs:
            yield from self.bind().stages()
            return
        for index, item in enumerate(self.items):
            values = dict(item.values)
            fill = next((later.values for later in self.items[index:] if later.stage.name == "fill"), None)
            removes = fill is not None and not fill.get("own_prompt")
            if item.stage.name == "crop":
                values.setdefault("removes", removes)
                if values.get("model") is None:
                    values["model"] = fill.get("model", "auto") if fill else "auto"
            elif item.stage.name == "dilate" and removes and fill and values.get("radius") is None:
                values.setdefault("model", fill.get("model", "auto"))
            yield build(item.stage, values, item.stage.name)

    def __call__(self, source: Any, run: Run | None = None, *, plan: bool = False, **options: Any) -> Edit:
        """Run all stages on a photo (anything `Edit.of` takes); options as in `options()`.

        Args:
            source: path, bytes, open file, URL, array, PIL image, Photo or Edit.
            run: its surroundings; one of its own without it.
            plan: a dry run: fill nothing, and leave out what needs fills. The edit's steps say what would be done;
                later selections see the photo as it is.
            options: values by the names of `options()`.

        Raises:
            UnknownNameError: for an option the recipe does not have.
            ParameterError: for a value of the wrong type or out of range.
        """
        recipe = self.bind(options) if options or self.inputs else self
        if run is None:
            with Run() as own:
                return recipe(source, own, plan=plan)
        edit = Edit.of(source)
        for stage in recipe.stages():
            if not (plan and "fills" in stage.needs):
                edit = stage(edit, run, plan=plan)
        return edit

    def _checked(self) -> Iterator[Item]:
        """The items with their values read, once the order of the stages and the names of the inputs are right.

        Raises:
            RecipeError: saying which stage comes too early, or which input is unknown or unused.
        """
        made: set[str] = set()
        used: set[str] = set()
        for index, item in enumerate(self.items):
            place = f"{self._place}.stages[{index}].{item.stage.name}" if self._place else item.stage.name
            for need in item.stage.needs:
                if need not in made:
                    makers = [n for n, kind in stages.stages().items() if need in kind.makes]
                    raise RecipeError(f"{place}: needs what {' or '.join(map(repr, makers))} makes; put it before")
            made = (made - set(item.stage.clears)) | set(item.stage.makes)
            for name, value in item.values.items():
                if name not in item.stage.model_fields:
                    raise RecipeError(str(UnknownNameError(place, "parameter", name, item.stage.model_fields)))
                if isinstance(value, Reference):
                    if value.name not in self.inputs:
                        raise RecipeError(str(UnknownNameError(f"{place}.{name}", "input", value.name, self.inputs)))
                    used.add(value.name)
            fixed = {name: value for name, value in item.values.items() if not isinstance(value, Reference)}
            built = build(item.stage, fixed, place, error=RecipeError if self._place else ParameterError)
            yield Item(
                item.stage,
                {name: item.values[name] if name not in fixed else getattr(built, name) for name in item.values},
            )
        for name in self.inputs:
            if name not in used:
                raise RecipeError(f"{self._place}.inputs.{name}: no stage uses ${name}")


def _item(entry: Any, place: str) -> Item:
    if isinstance(entry, str):
        return Item(stages.find(entry, place))
    if not isinstance(entry, dict) or len(entry) != 1:
        raise RecipeError(f"{place}: expected a stage's name, or one name with its parameters, got {shown(entry)}")
    ((name, values),) = entry.items()
    kind = stages.find(name, place)
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise RecipeError(f"{place}.{name}: expected parameters by name, got {shown(values)}")
    return Item(kind, {key: _read(value) for key, value in values.items()})


def _read(value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("$"):
        return value
    return value[1:] if value.startswith("$$") else Reference(value[1:])


@cache
def _schemas(stage: type[Stage]) -> Mapping[str, Any]:
    """JSON Schema of each field."""
    schemas: Mapping[str, Any] = stage.model_json_schema()["properties"]
    return schemas


def _written(value: Any) -> Any:
    """A value as YAML holds it; the other way round than `_read`."""
    if isinstance(value, Reference):
        return f"${value.name}"
    plain = _plain(value)
    return f"${plain}" if isinstance(plain, str) and plain.startswith("$") else plain


def _plain(value: Any) -> Any:
    if isinstance(value, Box | Size | Path):
        return str(value)
    return [_plain(part) for part in value] if isinstance(value, tuple) else value


def describe(path: Path) -> tuple[str, str]:
    """Name and first sentence of a recipe file, read without checking its stages; for lists and help."""
    values = read_yaml(path)
    about = values.get("about", "") if isinstance(values, dict) else ""
    return path.stem, str(about)
