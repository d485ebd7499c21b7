"""Fill holes: what the selection surrounds becomes part of it."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from toolkit.edit import Edit
from toolkit.run import Run
from toolkit.stages import Log, Stage


class FillHoles(Stage):
    """Add to the selection what it surrounds on all sides."""

    needs: ClassVar[tuple[str, ...]] = ("selected",)
    makes: ClassVar[tuple[str, ...]] = ("selected", "mask")
    clears: ClassVar[tuple[str, ...]] = ("ramp", "passes", "fills")

    max_area: Annotated[int, Field(ge=1)] | None = Field(
        default=None, description="only holes of up to this many pixels; all without it"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Fill background that does not reach the photo's border; what is protected stays out."""
        assert edit.selected is not None
        mask = edit.selected.fill_holes(self.max_area)
        if edit.protected is not None and not edit.protected.is_empty:
            mask = mask.subtract(edit.protected)
        log.figures["pixels"] = mask.area
        return edit.replace(selected=mask, mask=mask, ramp=None, passes=(), fills=())
