"""Detect: find regions by words; `segment` gives them masks, `select` picks among them."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from toolkit.edit import Edit, Region
from toolkit.run import Run
from toolkit.schema import Names
from toolkit.stages import Log, Stage
from toolkit.stages._words import detected, phrases_of


class Detect(Stage):
    """Find the boxes of what words name."""

    makes: ClassVar[tuple[str, ...]] = ("regions",)

    text: Names = Field(default=(), description='what to look for, in words: "red car"; several are parted by commas')
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="score from which something counts as found; the engine's own"
    )
    detector: str = Field(default="auto", description="engine that finds what words say")

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Regions without masks, best first.

        Raises:
            MaskError: when nothing is found.
        """
        regions = self.look(edit, run, log, needed=True)
        return edit.replace(stacks=(edit.chosen,), regions=regions)

    def look(self, edit: Edit, run: Run, log: Log, *, needed: bool = False) -> tuple[Region, ...]:
        """The regions; none, unless something is `needed`, is an answer too."""
        return detected(edit, run, log, phrases_of(self.text), self.threshold, self.detector, needed=needed)
