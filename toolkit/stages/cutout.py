"""Cutout: nothing but the subject."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from toolkit.edit import Edit
from toolkit.errors import MaskError
from toolkit.geometry import Size
from toolkit.patch import Canvas
from toolkit.run import Run
from toolkit.stages import Log, Stage
from toolkit.stages.backdrop import before


class Cutout(Stage):
    """Make everything but the subject transparent; where the subject is opaque not a pixel changes."""

    needs: ClassVar[tuple[str, ...]] = ("cutouts",)
    makes: ClassVar[tuple[str, ...]] = ("stacks",)
    clears: ClassVar[tuple[str, ...]] = ("passes", "fills")
    public: ClassVar[bool] = True

    trim: bool = Field(default=False, description="leave only the subject's own box of the photo")

    @property
    def gives_alpha(self) -> bool:
        """As `Stage` says."""
        return True

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Lay the cutouts on nothing.

        Raises:
            MaskError: when nothing of them is left to trim to.
        """
        if self.trim:
            box = edit.cutouts[0].box
            for cutout in edit.cutouts[1:]:
                box = box.union(cutout.box)
            if box.is_empty:
                raise MaskError("cutout.trim: the cutout holds nothing")
            edit = edit.replace(canvas=Canvas(box, Size(*box.size)))
            log.figures["canvas"] = list(box)
        return before(edit, None, log)
