"""Segment: outlines of what is pointed at, joined with or taken from what is selected already."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from toolkit.edit import Edit, Region
from toolkit.engines import Prompts
from toolkit.errors import MaskError, UsageError
from toolkit.mask import Mask
from toolkit.run import Run
from toolkit.stages import Log
from toolkit.stages._pointing import Pointing, segmented


class Segment(Pointing):
    """Find the outlines of objects, and join them with the selection so far, take them from it, or replace it.

    Where nothing is pointed at, of the regions that were detected.
    """

    makes: ClassVar[tuple[str, ...]] = ("selected", "mask", "regions")
    clears: ClassVar[tuple[str, ...]] = ("ramp", "passes", "fills")

    everything: bool = Field(default=False, description="everything there is, each for itself (networks alone)")
    combine: Literal["replace", "union", "difference", "intersection"] = Field(
        default="replace", description="what is done with the selection so far"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """The selection with what the segmenter finds.

        Raises:
            UsageError: when nothing is pointed at, or there is no selection to combine with.
            MaskError: when nothing is found, or nothing is left of the selection.
        """
        if self.combine != "replace" and edit.selected is None:
            raise UsageError(f"segment.combine: there is no selection yet to make a {self.combine} with")
        regions = self._regions(edit, run, log)
        found = union_of(regions, edit)
        if edit.selected is not None and self.combine != "replace":
            join = {"union": edit.selected.union, "difference": edit.selected.subtract}
            found = join.get(self.combine, edit.selected.intersect)(found)
        if edit.protected is not None:
            found = found.subtract(edit.protected)
        if found.is_empty:
            raise MaskError(f"segment: nothing is left of the selection after the {self.combine}")
        log.figures |= {"pixels": found.area, "confidence": round(min(region.score for region in regions), 3)}
        return edit.replace(
            stacks=(edit.chosen,), selected=found, mask=found, ramp=None, passes=(), fills=(),
            regions=regions if self.combine == "replace" or not self._points else (*edit.regions, *regions),
        )  # fmt: skip

    @property
    def _points(self) -> bool:
        """Whether it looks for something itself, and not at what was detected before."""
        return self.points or self.subject or self.everything

    def _regions(self, edit: Edit, run: Run, log: Log) -> tuple[Region, ...]:
        if self.everything:
            return segmented(edit, run, log, Prompts(everything=True), self.segmenter)
        if self.points or self.subject:
            return self.found(edit, run, log)
        if not edit.regions:
            raise UsageError("segment: nothing is pointed at: give box, point, text or subject, or detect before")
        self.check_words()
        return with_masks(edit.regions, edit, run, log, self.segmenter)


def with_masks(
    regions: tuple[Region, ...], edit: Edit, run: Run, log: Log, segmenter: str = "auto"
) -> tuple[Region, ...]:
    """The regions, those without a mask with the one the segmenter finds in their boxes.

    Raises:
        MaskError: when nothing is found.
    """
    bare = [region for region in regions if region.mask is None]
    if not bare:
        return regions
    prompts = Prompts(tuple(region.box for region in bare))
    made = segmented(edit, run, log, prompts, segmenter, labels=[region.label for region in bare])
    return (*(region for region in regions if region.mask is not None), *made)


def union_of(regions: tuple[Region, ...], edit: Edit) -> Mask:
    """All masks of regions together."""
    whole = Mask.empty(edit.box)
    for region in regions:
        if region.mask is not None:
            whole = whole.union(region.mask)
    return whole
