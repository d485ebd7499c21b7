"""Dilate: grow the mask, so that the object's edge and its glow are regenerated too."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from toolkit.edit import Edit
from toolkit.run import Run
from toolkit.schema import RadiusField
from toolkit.stages import Log, Stage

_USUAL = "2%"
"""Radius where nothing else is known."""


class Dilate(Stage):
    """Grow the mask by a radius; the selection itself and what is protected stay as they are."""

    needs: ClassVar[tuple[str, ...]] = ("mask",)
    makes: ClassVar[tuple[str, ...]] = ("mask",)
    clears: ClassVar[tuple[str, ...]] = ("ramp", "passes", "fills")

    radius: RadiusField | None = Field(
        default=None,
        description="pixels of the original, or a share of each part's diagonal (at least 4 px); without it what is "
        "known to suit the engine, else 2%",
    )
    model: str | None = Field(
        default=None,
        description="engine that is to remove what is masked; in a recipe that of the next fill, if it needs no prompt",
    )

    at_least: Annotated[float, Field(ge=0, le=1000)] = Field(
        default=6, strict=False, description="pixels; the smallest radius where the radius is a share"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Grow by an exact Euclidean disk."""
        assert edit.mask is not None
        radius = log.figures["radius"] = self._radius(run)
        mask = edit.mask.dilate(radius)
        if isinstance(radius, str):
            mask = mask.union(edit.mask.dilate(self.at_least))
        if edit.protected is not None and not edit.protected.is_empty:
            mask = mask.subtract(edit.protected)
        log.figures["pixels"] = mask.area
        return edit.replace(mask=mask, ramp=None, passes=(), fills=())

    def _radius(self, run: Run) -> float | str:
        if self.radius is not None:
            return self.radius
        removal = run.card("fill", self.model, ready=False).removal if self.model else None
        return _USUAL if removal is None or removal.dilate is None else removal.dilate
