"""Every error the toolkit raises, grouped by what the caller can do about it.

ToolkitError                  base of all; `str(error)` is one sentence fit for a user
├── UsageError                the command, recipe or parameter is wrong: change the call          exit 2
│   ├── UnknownNameError      a name nobody knows; the sentence suggests a near one
│   ├── ParameterError        a value of the wrong type or out of range
│   └── RecipeError           a recipe or card file that cannot be understood
├── InputError                a file or array given cannot be used: give another                  exit 1
│   ├── PhotoError            missing, empty, truncated, corrupt, too large or unsupported photo
│   └── MaskError             empty, full, wrongly sized or unreadable mask; nothing selected
├── OutputError               the result cannot be written, or would overwrite something          exit 1
├── HeldBack                  a mask too unsure to pay for: look at it and give it as a mask       exit 1
├── EngineError               an engine is missing, failed, or answered with something unusable   exit 1
├── FidelityError             our own check found a pixel changed that must not be                exit 1
└── Cancelled                 the user or the caller stopped the work                             exit 130
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from typing import Any, ClassVar


class ToolkitError(Exception):
    """Base of all errors; `exit_code` is what the command line ends with."""

    exit_code: ClassVar[int] = 1


class UsageError(ToolkitError):
    """The call itself is wrong."""

    exit_code = 2


class UnknownNameError(UsageError):
    """A name that is not in the list of known names.

    Args:
        place: where the name was written, e.g. ``"recipe.stages[0]"``; may be empty.
        kind: what the name should name, e.g. ``"stage"``.
        name: the name as written.
        known: the names that would have been right.
    """

    def __init__(self, place: str, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        near = get_close_matches(name, known, n=1, cutoff=0.6)
        if near:
            hint = f"; did you mean {near[0]!r}?"
        elif known:
            hint = f"; known: {', '.join(known)}"
        else:
            hint = ""
        super().__init__(f"{place + ': ' if place else ''}no {kind} {name!r}{hint}")
        self.place, self.kind, self.name, self.known = place, kind, name, tuple(known)

    def __reduce__(self) -> tuple[type[UnknownNameError], tuple[str, str, str, tuple[str, ...]]]:
        return type(self), (self.place, self.kind, self.name, self.known)


class ParameterError(UsageError):
    """A value of the wrong type or out of range."""


class RecipeError(UsageError):
    """A recipe or card file that cannot be understood."""


class InputError(ToolkitError):
    """A file or array that cannot be used."""


class PhotoError(InputError):
    """A photo that is missing, empty, truncated, corrupt, too large or of an unsupported kind."""


class MaskError(InputError):
    """A mask that is empty, full, of another size or unreadable, or a selection that found nothing."""


class OutputError(ToolkitError):
    """A result that cannot be written, or that would overwrite something."""


class HeldBack(ToolkitError):
    """A mask that is too unsure to be paid for; nothing was sent.

    Args:
        message: one sentence.
        edit: the edit with its selection.
        row: of the table by which it is released, once its mask is written.
        folder: where that table belongs.
    """

    def __init__(self, message: str, edit: Any, row: Mapping[str, Any] | None = None, folder: Any = None) -> None:
        super().__init__(message)
        self.edit, self.row, self.folder = edit, row or {}, folder


class EngineError(ToolkitError):
    """An engine that is missing, that failed, or that answered with something unusable."""


class FidelityError(ToolkitError):
    """A pixel outside the blend band changed; this is a fault of the toolkit, nothing was written."""


class Cancelled(ToolkitError):
    """The work was stopped before it was finished."""

    exit_code = 130

    def __init__(self, message: str = "cancelled; nothing half-written was left") -> None:
        super().__init__(message)
