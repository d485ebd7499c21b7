"""Segment: objects by boxes, clicks or as the main subject, joined with or taken from what is selected already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from toolkit.edit import Edit, Region
from toolkit.engines import Prompts
from toolkit.errors import MaskError, ParameterError, UsageError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.run import Run
from toolkit.schema import Boxes, Point, Points
from toolkit.stages import Log, Stage

_LOW = 0.5
"""Below this confidence the user is told to look at the mask first."""


class Segment(Stage):
    """Find the outlines of objects, and join them with the selection so far, take them from it, or replace it."""

    makes: ClassVar[tuple[str, ...]] = ("selected", "mask")
    clears: ClassVar[tuple[str, ...]] = ("ramp", "passes", "fills")

    box: Boxes = Field(default=(), description="box around an object: left,top,right,bottom or WxH+X+Y")
    point: Points = Field(default=(), description="click on the object: x,y")
    not_point: Points = Field(default=(), description="click beside the object: x,y")
    subject: bool = Field(default=False, description="the photo's main subject, where nothing is pointed at")
    segmenter: str = Field(default="auto", description="engine that turns boxes and clicks into masks")
    combine: Literal["replace", "union", "difference", "intersection"] = Field(
        default="replace", description="what is done with the selection so far"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """The selection with what the segmenter finds.

        Raises:
            UsageError: when nothing is pointed at, or there is no selection to combine with.
            MaskError: when nothing is left of the selection.
        """
        if not (self.box or self.point or self.subject):
            raise UsageError("segment: nothing is pointed at: give box, point or subject")
        if self.combine != "replace" and edit.selected is None:
            raise UsageError(f"segment.combine: there is no selection yet to make a {self.combine} with")
        regions = segmented(edit, run, log, self.box, self.point, self.not_point, self.segmenter)
        found = regions[0].mask
        for region in regions[1:]:
            assert found is not None
            assert region.mask is not None
            found = found.union(region.mask)
        assert found is not None
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
            regions=regions if self.combine == "replace" else (*edit.regions, *regions),
        )  # fmt: skip


def segmented(
    edit: Edit,
    run: Run,
    log: Log,
    boxes: Sequence[Box],
    include: Sequence[Point],
    exclude: Sequence[Point],
    segmenter: str,
) -> tuple[Region, ...]:
    """Regions with masks for boxes and clicks, or of the main subject where there are neither.

    Raises:
        ParameterError: for a box or click outside the photo, or a click that both includes and excludes.
        MaskError: when nothing is found.
    """
    clipped = []
    for box in boxes:
        inside = box.intersect(edit.box)
        if inside.is_empty:
            raise ParameterError(f"box {box}: lies outside the photo, which is {edit.box.size} pixels")
        if inside != box:
            log.warnings.append(f"box {box} reaches beyond the photo ({edit.box.size}); {inside} is used")
        log.notes.append(f"box {inside}: {inside.size} pixels")
        clipped.append(inside)
    check_clicks(edit, include, exclude)
    card = log.card = run.card("segment", segmenter)
    engine = run.segmenter(card)
    key = engine.prepare(edit, run)
    prompts = Prompts(tuple(clipped), tuple(include), tuple(exclude), subject=not (clipped or include))
    found = engine.segment(edit, key, prompts, None, run)
    regions = tuple(_kept_out(region, exclude, edit) for region in found.regions)
    regions = tuple(region for region in regions if region.mask is not None and not region.mask.is_empty)
    if not regions:
        raise MaskError(f"{card.name}: found nothing there")
    for region in regions:
        if region.score < max(_LOW, card.min_confidence):
            log.warnings.append(
                f"low confidence ({region.score:.2f}) in the mask of {region.box}: "
                f"{region.reason or 'it may miss parts'}; look at it with `inpaint mask ... --overlay`, point at it "
                "with more clicks, or give the mask of a network such as SAM with --mask"
            )
        elif region.reason and region.score == 1:
            log.notes.append(region.reason)
    return regions


def check_clicks(edit: Edit, include: Sequence[Point], exclude: Sequence[Point]) -> None:
    """Find out whether clicks can be obeyed.

    Raises:
        ParameterError: for a click outside the photo, or one that both includes and excludes.
    """
    for x, y in (*include, *exclude):
        if not (0 <= x < edit.box.width and 0 <= y < edit.box.height):
            raise ParameterError(f"point {x},{y}: lies outside the photo, which is {edit.box.size} pixels")
    for x, y in include:
        if (x, y) in exclude:
            raise ParameterError(f"point {x},{y}: is both included and excluded")


def _kept_out(region: Region, exclude: Sequence[Point], edit: Edit) -> Region:
    """The region without what exclude clicks point at, where the engine could not heed them."""
    assert region.mask is not None
    mask = without(region.mask, exclude, edit)
    return region if mask is region.mask else replace(region, box=mask.box, mask=mask)


def without(mask: Mask, exclude: Sequence[Point], edit: Edit) -> Mask:
    """The mask less a disc around each exclude click that lies in it; the same one where none does."""
    pixels = [Box(x, y, x + 1, y + 1) for x, y in exclude]
    inside = [Mask.from_box(edit.box, pixel) for pixel in pixels if mask.array(pixel).any()]
    radius = max(2, round(0.005 * max(edit.box.size)))
    for click in inside:
        mask = mask.subtract(click.dilate(radius))
    return mask
