"""Crop: cut the mask into windows of a size the engine accepts."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from toolkit import planning
from toolkit.edit import Edit
from toolkit.errors import MaskError
from toolkit.run import Run
from toolkit.schema import SizeField
from toolkit.stages import Log, Stage


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

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Decide boxes and working sizes; no pixel is read.

        Raises:
            MaskError: when the mask covers the whole photo.
            ParameterError: when the size asked for is not one the engine accepts.
        """
        assert edit.mask is not None
        if edit.mask.is_full:
            raise MaskError("the mask covers the whole photo: there is nothing to copy from")
        log.card = run.card("fill", self.model or "auto")
        passes = planning.plan(
            edit.mask, log.card.limits, size=self.size, context=self.context, max_windows=self.max_windows
        )
        for window in (window for one in passes for window in one):
            if not edit.box.contains(window.box):
                log.notes.append(f"window {window.box} reaches beyond the photo: mirrored there, cut off again")
        log.figures["windows"] = [
            {"box": list(window.box), "size": list(window.size), "scale": round(window.scale, 4)}
            for one in passes
            for window in one
        ]
        return edit.replace(passes=passes, fills=())
