"""Feather: the blend weight, from whole on the object to nothing at the mask's edge."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from toolkit.edit import Edit
from toolkit.run import Run
from toolkit.schema import RadiusField
from toolkit.stages import Log, Stage


class Feather(Stage):
    """Let the blend weight fall over the outer pixels of the mask, never beyond it."""

    needs: ClassVar[tuple[str, ...]] = ("mask", "selected")
    makes: ClassVar[tuple[str, ...]] = ("ramp",)

    radius: RadiusField = Field(
        default=8.0, description="pixels of the original, or a share of each part's diagonal (at least 4 px)"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """255 on all of the selection, 0 outside the mask; steeper where the margin between them is narrower."""
        assert edit.mask is not None
        assert edit.selected is not None
        ramp = edit.mask.ramp(edit.selected.intersect(edit.mask), self.radius)
        log.figures["soft_pixels"] = ramp.area - ramp.threshold(255).area
        return edit.replace(ramp=ramp)
