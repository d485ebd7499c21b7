"""Model cards: what an engine is, takes, costs and promises. Reads models/, looks cards up by task and name."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, model_validator

from toolkit import library
from toolkit.errors import ParameterError, RecipeError, UnknownNameError
from toolkit.geometry import Limits, Price
from toolkit.schema import Model, RadiusField, build, explain, read_text, read_yaml, shown

Task = Literal["detect", "segment", "matte", "fill", "enhance"]
TASKS: tuple[Task, ...] = ("detect", "segment", "matte", "fill", "enhance")

Hint = Literal["box", "point", "subject", "text", "everything"]
"""What a segmenter can be pointed at an object with."""

Memory = Literal["auto", "full", "quantized", "offload"]
"""Where a network's weights lie while it works: all on the card, all there and smaller, or in part beside it."""

Speed = Literal["exact", "fast", "turbo"]
"""What a network may leave out: nothing, steps that change little, or most steps by means of a distilled LoRA."""


class Parameter(Model):
    """How one card narrows a parameter that a stage declares."""

    default: float | int | str | bool | list[Any] | None = None
    minimum: float | int | None = None
    maximum: float | int | None = None
    most: int | None = Field(default=None, ge=0, description="of a list, how many")
    at_speed: dict[Speed, float | int] = Field(default={}, description="the default at a speed, where it is another")

    def checked(self, name: str, value: Any, card: str) -> Any:
        """`value`, or the default for None.

        Raises:
            ParameterError: when it lies outside the card's range; it is never clamped.
        """
        if value is None:
            return self.default
        if isinstance(value, list):
            return value
        too_low = self.minimum is not None and value < self.minimum
        too_high = self.maximum is not None and value > self.maximum
        if too_low or too_high:
            low = "any" if self.minimum is None else self.minimum
            high = "any" if self.maximum is None else self.maximum
            shown = f"{value:g}" if isinstance(value, float) else value
            raise ParameterError(f"{name}: {card} takes {low} to {high}, got {shown}")
        return value


class Weights(Model):
    """One file of weights: where it comes from and what it must hash to."""

    file: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*$",
        description="what it is called in the card's folder; below it, after folders with / between",
    )
    url: str
    revision: str = ""
    sha256: str = Field(default="", description="hexadecimal; empty where no published source gives it")
    source: str = Field(default="", description="who publishes that hash")
    bytes: int | None = None


class Removal(Model):
    """How an engine is best told to take an object out, where the user does not say; with a source for each value."""

    prompt: str = Field(default="", description="sent where the user gives none")
    steps: int | None = Field(default=None, ge=1)
    guidance: float | None = Field(default=None, ge=0)
    dilate: RadiusField | None = Field(default=None, description="radius by which the mask is dilated")
    context: float | None = Field(
        default=None, ge=1, le=20, description="how many times the hole's box a window measures"
    )
    sources: dict[str, str] = Field(default={}, description="of each value, who found it good or how it was derived")

    @model_validator(mode="after")
    def _sourced(self) -> Removal:
        given = {
            name for name in type(self).model_fields if name != "sources" and getattr(self, name) not in (None, "")
        }
        if lacking := sorted(given - {name for name, text in self.sources.items() if text.strip()}):
            raise ValueError(f"sources: who says so is missing for {' and '.join(lacking)}")
        if idle := sorted(set(self.sources) - given):
            raise ValueError(f"sources: {' and '.join(idle)}: no such value is given")
        return self


def _plain(kind: type) -> Any:
    """Let a mapping in YAML stand for one of geometry's plain dataclasses."""
    adapter: TypeAdapter[Any] = TypeAdapter(kind)

    def read(value: Any) -> Any:
        if isinstance(value, kind):
            return value
        if not isinstance(value, dict):
            raise ValueError(f"expected parameters by name, got {shown(value)}")
        known = [field.name for field in dataclasses.fields(kind)]
        try:
            for name in value:
                if name not in known:
                    raise UnknownNameError("", "parameter", name, known)
            return adapter.validate_json(json.dumps(value), strict=True)  # JSON, for a mapping is no strict dataclass
        except ValidationError as problem:
            raise ValueError(explain(problem, Model, "")) from None
        except ParameterError as problem:
            raise ValueError(str(problem).removeprefix(f"{kind.__name__.lower()}: ")) from None
        except UnknownNameError as problem:
            raise ValueError(str(problem)) from None

    return BeforeValidator(read)


class Card(Model):
    """An engine's description; data, never code."""

    name: str
    task: Task
    also: tuple[str, ...] = Field(default=(), strict=False, description="other names by which it is known")
    adapter: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="file under toolkit/engines/<task>/")
    about: str
    revision: str = Field(description="changes whenever the same job would get another answer")
    licence: str
    commercial_use: bool
    output_terms: str
    data_leaves_machine: bool
    concurrency: Literal["process", "gpu", "network"]
    rank: int | None = Field(default=None, description="the highest free and usable one is taken by `auto`")
    weights: tuple[Weights, ...] = Field(default=(), strict=False)
    weights_bytes: int | None = Field(
        default=None, description="all of them together, where the length of each is not known"
    )
    terms: str = Field(default="", description="address of the weights' licence and terms")
    gated: bool = Field(default=False, description="the terms must be accepted there, and a token given")
    memory: float | None = Field(default=None, description="GiB it takes at its peak, weights and all")
    not_run: str = Field(default="", description="what of it was never run here, as a clause")
    takes: tuple[Hint, ...] = Field(default=("box", "point"), strict=False, description="of a segmenter")
    limits: Annotated[Limits, _plain(Limits)] = Limits()
    parameters: dict[str, Parameter] = Field(default={}, description="what it takes of the stage's parameters")
    settings: dict[str, Any] = Field(default={}, description="constants of the adapter")
    prompt: Literal["none", "optional", "required"] = "none"
    removal: Removal | None = Field(default=None, description="what remove-object tells it where the user does not")
    batch_seeds: bool = Field(default=False, description="image k of one call is made with seed + k")
    keeps_grain: bool = Field(default=False, description="its answers have the photo's own grain at full resolution")
    in_flight: int = Field(default=1, ge=1, description="calls (network) or jobs of a batch (gpu) at once")
    min_confidence: float = Field(default=0.0, ge=0, le=1, description="masks below are warned of before they are used")
    price: Annotated[Price, _plain(Price)] = Price()
    pace: float | None = Field(default=None, description="seconds for each working megapixel, on the machine below")
    per_call: float = Field(default=0.0, description="seconds a call takes besides")
    measured_on: str = Field(default="", description="the machine `pace` was measured on")

    @property
    def free(self) -> bool:
        """True when a call costs nothing."""
        return self.price.per_image == 0

    def pace_at(self, parameters: Mapping[str, Any]) -> float | None:
        """Seconds for each working megapixel with these parameters: those of `pace`, by as many steps as are asked for.

        None where the card does not say.
        """
        usual = self.parameters["steps"].default if "steps" in self.parameters else None
        steps = parameters.get("steps")
        return self.pace * steps / usual if self.pace is not None and steps and usual else self.pace


def read(path: Path) -> Card:
    """The card in a file.

    Raises:
        RecipeError: naming file and field of what is wrong.
    """
    return _parsed(path, read_text(path))


@lru_cache(maxsize=256)
def _parsed(path: Path, text: str) -> Card:
    """Each text is parsed once: it takes milliseconds, and every edit looks through the cards of its tasks."""
    values = read_yaml(text, name=str(path))
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: expected a mapping of fields")
    card = build(Card, {"name": path.stem, **values}, str(path), error=RecipeError)
    for field, given, place in (("name", card.name, path.stem), ("task", card.task, path.parent.name)):
        if given != place:
            raise RecipeError(f"{path}.{field}: must be {place!r}, as the file lies there, got {given!r}")
    return card


def find(task: Task, name: str) -> Card:
    """The card called `name` for `task`.

    Raises:
        UnknownNameError: when there is none; a card of another task is named as such.
    """
    known = library.names("models")
    if f"{task}/{name}" in known:
        return read(known[f"{task}/{name}"])
    if "/" in name:  # as a service or hub writes it
        for card in every(task):
            if name in card.also:
                return card
    for other in TASKS:
        if f"{other}/{name}" in known:
            raise ParameterError(f"{name!r} is a {other} model, not a {task} one")
    raise UnknownNameError(
        "", f"{task} model", name, [key.split("/", 1)[1] for key in known if key.startswith(f"{task}/")]
    )


def every(task: Task | None = None) -> list[Card]:
    """All cards, of one task if given, highest rank first, those without rank last."""
    found = [
        read(path)
        for key, path in library.names("models").items()
        if key.partition("/")[0] in ((task,) if task else TASKS)
    ]
    return sorted(found, key=lambda card: (TASKS.index(card.task), card.rank is None, -(card.rank or 0), card.name))
