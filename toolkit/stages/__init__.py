"""Stages: one class a file; a new file here is a new stage, with no list to edit.

A stage is a frozen pydantic model whose fields are its parameters, and a call `stage(edit, run) -> Edit`.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, final

from toolkit.cards import Card
from toolkit.edit import Edit, Step
from toolkit.errors import UnknownNameError, UsageError
from toolkit.heap import give_back
from toolkit.run import Run
from toolkit.schema import Model

_REGISTRY: dict[str, type[Stage]] = {}


@dataclass
class Log:
    """What a stage says of its work while it does it; becomes the edit's `Step`."""

    card: Card | None = None
    seeds: tuple[int, ...] = ()
    price: float = 0.0
    reads: list[str] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


class Stage(Model):
    """One step of a recipe.

    Attributes:
        name: what recipes call it: the class name in kebab case.
        needs: fields of the edit that must be set before it runs.
        makes: fields of the edit it sets.
        clears: fields of the edit it empties, because they no longer fit.
        public: whether its fields are options of every recipe that holds it.
    """

    name: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ()
    makes: ClassVar[tuple[str, ...]] = ()
    clears: ClassVar[tuple[str, ...]] = ()
    public: ClassVar[bool] = False

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        super().__pydantic_init_subclass__(**kwargs)
        cls.name = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "-", cls.__name__).lower()
        if not cls.__module__.rpartition(".")[2].startswith("_"):  # what several stages share is none itself
            _REGISTRY[cls.name] = cls

    @final
    def __call__(self, edit: Edit, run: Run | None = None, *, plan: bool = False) -> Edit:
        """Do the stage's work on `edit` and note it as a step; without `run` a run of its own is used.

        Do not override this: write `apply`.

        Args:
            edit: what is worked on.
            run: its surroundings.
            plan: only find out what would be done, see `plan`.

        Raises:
            UsageError: when an earlier stage is missing.
        """
        if run is None:
            with Run() as own:
                return self(edit, own, plan=plan)
        run.check()
        for need in self.needs:
            if not getattr(edit, need):
                raise UsageError(
                    f"{self.name}: needs {_WORDS.get(need, need)}, which {_maker(need)} makes; put it before"
                )
        run.progress(self.name, 0.0)
        log, start = Log(), time.perf_counter()
        done = (self.plan if plan else self.apply)(edit, run, log)
        run.check()
        if edit.photo.is_large:
            give_back()
        run.progress(self.name, 1.0)
        step = Step(
            stage=self.name,
            parameters=self.model_dump(mode="python", exclude=self.unrecorded()),
            engine=log.card.name if log.card else "",
            task=log.card.task if log.card else "",
            data_leaves_machine=bool(log.card and log.card.data_leaves_machine),
            card_revision=log.card.revision if log.card else "",
            seeds=log.seeds,
            seconds=round(time.perf_counter() - start, 4),
            price=log.price,
            reads=tuple(log.reads),
            figures=log.figures,
            notes=tuple(log.notes),
            warnings=tuple(log.warnings),
        )
        return done.replace(steps=(*done.steps, step))

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """The stage's own work: a new edit; what is worth telling goes into `log`."""
        raise TypeError(f"stage {self.name!r} has no apply()")

    def plan(self, edit: Edit, run: Run, log: Log) -> Edit:
        """What a dry run does in place of `apply`: the same, unless the stage waits for or pays an engine."""
        return self.apply(edit, run, log)

    def check(self, run: Run, *, ready: bool = True) -> None:
        """Find out what can be told to be wrong before any photo is looked at.

        Args:
            run: where engines are looked up.
            ready: the engine must be able to run here, as for `apply` and not for `plan`.

        Raises:
            ParameterError, EngineError: as `apply` would.
        """

    @property
    def gives_alpha(self) -> bool:
        """Whether it makes a picture with transparency of one without, which not every format can hold."""
        return False

    def unrecorded(self) -> set[str]:
        """Fields whose value is no plain data (an array) and is left out of the step's parameters."""
        return set()


_WORDS = {"mask": "a mask", "selected": "a selection", "passes": "windows", "fills": "fills", "cutouts": "a cutout"}


def _maker(need: str) -> str:
    makers = [name for name, kind in stages().items() if need in kind.makes]
    return " or ".join(repr(name) for name in makers) or "no stage"


def stages() -> dict[str, type[Stage]]:
    """Every stage there is, by name."""
    _import_files()
    return dict(sorted(_REGISTRY.items()))


@cache
def _import_files() -> None:
    for module in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{module.name}")


def find(name: str, place: str = "") -> type[Stage]:
    """The stage called `name`.

    Raises:
        UnknownNameError: when there is none.
    """
    known = stages()
    if name not in known:
        raise UnknownNameError(place, "stage", name, known)
    return known[name]
