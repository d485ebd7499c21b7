"""Erode: shrink the selection, for masks drawn too wide."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from toolkit.edit import Edit
from toolkit.errors import MaskError
from toolkit.run import Run
from toolkit.schema import RadiusField
from toolkit.stages import Log, Stage


class Erode(Stage):
    """Shrink the selection by a radius; the mask becomes the smaller selection."""

    needs: ClassVar[tuple[str, ...]] = ("selected",)
    makes: ClassVar[tuple[str, ...]] = ("selected", "mask")
    clears: ClassVar[tuple[str, ...]] = ("ramp", "passes", "fills")

    radius: RadiusField = Field(
        default=2.0, description="pixels of the original, or a share of each part's diagonal (at least 4 px)"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Shrink by an exact Euclidean disk.

        Raises:
            MaskError: when nothing is left.
        """
        assert edit.selected is not None
        mask = edit.selected.erode(self.radius)
        if mask.is_empty:
            raise MaskError(f"erode: nothing is left of the selection after a radius of {self.radius}")
        log.figures["pixels"] = mask.area
        return edit.replace(selected=mask, mask=mask, ramp=None, passes=(), fills=())
