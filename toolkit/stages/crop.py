"""Crop: cut the mask into windows of a size the engine accepts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from toolkit import planning
from toolkit.edit import Edit
from toolkit.errors import MaskError
from toolkit.leftovers import EDGE_SIDE, leftover_score
from toolkit.mask import Mask
from toolkit.reduced import reduced_mask, reduced_pixels, step_for
from toolkit.run import Run
from toolkit.schema import SizeField
from toolkit.stages import Log, Stage

_LEFT = 0.55
"""Leftover score from which a part of the object has probably been left."""

_PARTS = 4
"""Parts of the mask whose edges are judged, the largest first."""


class Crop(Stage):
    """Plan the windows: near parts share one, far ones get their own, all in the engine's limits."""

    needs: ClassVar[tuple[str, ...]] = ("mask",)
    makes: ClassVar[tuple[str, ...]] = ("passes",)
    clears: ClassVar[tuple[str, ...]] = ("fills",)

    model: str | None = Field(default=None, description="engine whose limits count; in a recipe that of the next fill")
    context: Annotated[float, Field(ge=1, le=20)] | None = Field(
        default=None, description="how many times the hole's box a window measures; the card's own without it"
    )
    size: SizeField | None = Field(
        default=None, description="working size WxH of every window; chosen by the card's limits without it"
    )
    max_windows: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=planning.MAX_WINDOWS, description="the mask never becomes more windows than this"
    )
    removes: bool = Field(
        default=False,
        description="what is masked is to go: the context that suits the engine for that counts; in a recipe true "
        "where the next fill needs no prompt",
    )
    leftovers: bool = Field(default=True, description="look for parts of the object along the mask's edge, and warn")

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Decide boxes and working sizes; pixels are read only to judge the mask's edge.

        Raises:
            MaskError: when the mask covers the whole photo.
            ParameterError: when the size asked for is not one the engine accepts.
        """
        assert edit.mask is not None
        if edit.mask.is_full:
            raise MaskError("the mask covers the whole photo: there is nothing to copy from")
        card = log.card = run.card("fill", self.model or "auto", ready=False)
        context = self.context
        if context is None and self.removes and card.removal:
            context = card.removal.context
        passes = planning.plan(edit.mask, card.limits, size=self.size, context=context, max_windows=self.max_windows)
        for window in (window for one in passes for window in one):
            if not edit.box.contains(window.box):
                log.notes.append(f"window {window.box} reaches beyond the photo: mirrored there, cut off again")
        log.figures["windows"] = planning.described(passes)
        if not self.leftovers:
            return edit.replace(passes=passes, fills=())
        score, radius = _leftover(edit, edit.mask, run)
        log.figures["leftover"] = round(score, 3)
        if score >= _LEFT:
            log.warnings.append(
                f"part of the object may be left along the mask's edge ({score:.2f}): {_advice(edit, radius)}"
            )
        return edit.replace(passes=passes, fills=())


def _leftover(edit: Edit, mask: Mask, run: Run) -> tuple[float, int | None]:
    """The highest leftover score of the mask's parts and the radius that part needs."""
    worst: tuple[float, int | None] = (0.0, None)
    for part in sorted((edit.selected or mask).components(), key=lambda part: -part.area)[:_PARTS]:
        run.check()
        if part.area == part.box.area:  # a plain box holds ground too: its colours tell nothing of the object
            continue
        box = part.box.grow(max(part.box.size) // 2 + 16).intersect(edit.box)
        step = step_for(box, 2 * EDGE_SIDE)
        selected, final = (reduced_mask(one, box, step) > 127 for one in (edit.selected or mask, mask))
        score, radius = leftover_score(reduced_pixels(edit, box, step), selected, final)
        if score > worst[0]:
            worst = score, None if radius is None else radius * step
    return worst


def _advice(edit: Edit, radius: int | None) -> str:
    if radius is None:
        return "select more of it"
    if any(step.stage == "dilate" for step in edit.steps):
        return f"--set dilate.radius={radius} would take it"
    return f"a dilate stage of radius {radius} would take it"
