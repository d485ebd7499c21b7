"""Dilate: grow the mask, so that the object's edge and its glow are regenerated too."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from toolkit.edit import Edit
from toolkit.run import Run
from toolkit.schema import RadiusField
from toolkit.stages import Log, Stage


class Dilate(Stage):
    """Grow the mask by a radius; the selection itself and what is protected stay as they are."""

    needs: ClassVar[tuple[str, ...]] = ("mask",)
    makes: ClassVar[tuple[str, ...]] = ("mask",)
    clears: ClassVar[tuple[str, ...]] = ("ramp", "passes", "fills")

    radius: RadiusField = Field(
        default="2%", description="pixels of the original, or a share of each part's diagonal (at least 4 px)"
    )

    at_least: Annotated[float, Field(ge=0, le=1000)] = Field(
        default=6, strict=False, description="pixels; the smallest radius where the radius is a share"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Grow by an exact Euclidean disk."""
        assert edit.mask is not None
        mask = edit.mask.dilate(self.radius)
        if isinstance(self.radius, str):
            mask = mask.union(edit.mask.dilate(self.at_least))
        if edit.protected is not None and not edit.protected.is_empty:
            mask = mask.subtract(edit.protected)
        log.figures["pixels"] = mask.area
        return edit.replace(mask=mask, ramp=None, passes=(), fills=())
