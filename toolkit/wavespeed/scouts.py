"""The first tasks of a model tell how long it takes, so that the others are not asked about in vain meanwhile."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator

from toolkit.liveness import after_fork

_FEW = 4
"""Others as old that must have been found under way before a task is not asked about."""

_LONGEST = 2.0
"""Times the time expected after which a task is asked about, whatever is known of others."""

_CONTEMPORARY = 1.5
"""Times as old others are at most: one that is stuck tells nothing of those that began later."""


class Scout:
    """One task that is waited for, among those of its model.

    Ages are shares of the time expected, so that tasks of several sizes compare. Once one has ended, the journal
    knows how long they take, and nobody is held back any more.
    """

    def __init__(self, model: _Model) -> None:
        self._model = model

    def needless(self, age: float, slack: float) -> bool:
        """Whether others, as old as this one is but for `slack`, tell that it has not ended."""
        if self._model.ended or age > _LONGEST:
            return False
        with self._model.mutex:
            others = (other for scout, other in self._model.ages.items() if scout is not self)
            return sum(age - slack <= other <= age * _CONTEMPORARY for other in others) >= _FEW

    def asked(self, age: float, *, ended: bool) -> None:
        """It was found to have ended, or to be under way."""
        self._model.ended |= ended
        if not self._model.ended:
            with self._model.mutex:
                self._model.ages[self] = age


class _Model:
    def __init__(self) -> None:
        self.ended = False
        self.ages: dict[Scout, float] = {}
        self.mutex = threading.Lock()


class Scouts:
    """The tasks of an account that are waited for; safe to use from several threads."""

    def __init__(self) -> None:
        self._fresh()
        after_fork(self, Scouts._fresh)

    def _fresh(self) -> None:
        self._models: dict[str, _Model] = {}

    @contextlib.contextmanager
    def joined(self, name: str) -> Iterator[Scout]:
        """One more task of the model with this name, for as long as the block waits for it."""
        model = self._models.setdefault(name, _Model())
        scout = Scout(model)
        try:
            yield scout
        finally:
            with model.mutex:
                model.ages.pop(scout, None)
