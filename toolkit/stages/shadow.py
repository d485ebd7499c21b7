"""Shadow: what a subject throws on the ground, kept from the photo or made, for laying it on another backdrop."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from toolkit.edit import Cutout, Edit
from toolkit.edit import Shadow as Layer
from toolkit.geometry import Box
from toolkit.reduced import enlarged, reduced_mask, reduced_pixels, step_for
from toolkit.run import Run
from toolkit.shadows import contact_shadow, kept_shadow
from toolkit.stages import Log, Stage
from toolkit.stages.backdrop import begun

_PLAIN = 0.5
"""Confidence in the kept shadow from which it is taken unasked."""

_SIDE = 640
"""Longest side of the copy shadows are computed on, in pixels."""

_REACH = 0.5
"""How far beyond the subject's box its shadow is looked for, as a share of the box's longer side."""


_FADE = 0.15
"""Share of a side over which a kept shadow falls to nothing where the canvas goes on beyond it."""

Bytes = npt.NDArray[np.uint8]


class Shadow(Stage):
    """The shadow of every cut-out: the photo's own, taken off plain ground, or a contact shadow made for it."""

    needs: ClassVar[tuple[str, ...]] = ("cutouts",)
    makes: ClassVar[tuple[str, ...]] = ("shadows",)
    public: ClassVar[bool] = True

    shadow: Literal["auto", "keep", "contact", "off"] = Field(
        default="auto",
        description="keep: the photo's own, where the ground is plain; contact: one made for the product; "
        "auto: keep where that works, else contact; off: none. An engine that paints the ground around the product "
        "paints its shadow too: then auto and contact make none",
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """A layer for each cut-out; it may reach beyond the photo, where a canvas may."""
        layers, figures = [], []
        if self.shadow in ("auto", "contact") and _painted(edit):
            log.notes.append(
                "the engine paints the shadow with the ground, none is made; --shadow keep keeps the photo's"
            )
            log.figures["shadows"] = []
            return edit.replace(shadows=())
        for cutout in edit.cutouts if self.shadow != "off" else ():
            run.check()
            box = cutout.matte.box
            if box.is_empty:
                continue
            kind, layer, confidence = self._layer(edit, cutout, log)
            figures.append({"kind": kind, "box": list(layer.box), "kept_confidence": confidence})
            if not layer.strength.is_empty:
                layers.append(layer)
        log.figures["shadows"] = figures
        return edit.replace(shadows=tuple(layers))

    def _layer(self, edit: Edit, cutout: Cutout, log: Log) -> tuple[str, Layer, float | None]:
        confidence, why = None, ""
        if self.shadow != "contact":
            layer, confidence, why = _kept(edit, cutout)
            if self.shadow == "keep" or confidence >= _PLAIN:
                log.notes.append(f"the photo's own shadow is kept (confidence {confidence:.2f})")
                if confidence < _PLAIN:
                    log.warnings.append(
                        f"the kept shadow may hold more than the shadow (confidence {confidence:.2f}: {why}); "
                        "--shadow contact makes one instead"
                    )
                return "keep", layer, confidence
        because = f", for the photo's own cannot be told from the ground ({why})" if why else ""
        log.notes.append(f"a contact shadow is made{because}")
        if cutout.matte.box.bottom >= edit.box.bottom:
            log.warnings.append(
                "the subject reaches the photo's lower edge: the contact shadow lies where it is cut off; "
                "--shadow off leaves it away"
            )
        return "contact", _made(cutout), confidence


def _painted(edit: Edit) -> bool:
    """Whether the ground is painted by an engine that sees the subject."""
    painters = [step for step in begun(edit) if step.stage == "generate" and step.engine]
    return any(not step.parameters["share_background"] for step in painters)


def _kept(edit: Edit, cutout: Cutout) -> tuple[Layer, float, str]:
    """The layer estimated from the photo, how sure it is, and what speaks against it."""
    box = _around(cutout.matte.box).intersect(edit.box)
    step = step_for(box, _SIDE)
    kept = kept_shadow(reduced_pixels(edit, box, step), reduced_mask(cutout.matte, box, step))
    faded = _faded(kept.strength, box, edit)
    return Layer(box, enlarged(faded, step, (box.left, box.top), box)), round(kept.confidence, 3), kept.reason


def _faded(strength: Bytes, box: Box, edit: Edit) -> Bytes:
    """`strength` (h, w) of `box`, falling to nothing at the sides beyond which the canvas goes on without it."""
    shown = edit.canvas.box
    sides = zip(box, shown, (1, 1, -1, -1), strict=True)
    left, top, right, bottom = ((mine - its) * sign > 0 for mine, its, sign in sides)
    ramps = [
        np.minimum(_rise(length) if first else 1.0, _rise(length)[::-1] if last else 1.0)
        for length, first, last in ((strength.shape[0], top, bottom), (strength.shape[1], left, right))
    ]
    falling = np.broadcast_to(ramps[0], strength.shape[:1])[:, None] * np.broadcast_to(ramps[1], strength.shape[1:])
    return np.asarray(np.rint(strength * falling), np.uint8)


def _rise(length: int) -> npt.NDArray[np.float64]:
    """From 0 to 1 over the first `_FADE` of a side, level at both ends."""
    share = np.minimum(np.arange(length) / max(1.0, _FADE * length), 1.0)
    return np.asarray(share * share * (3 - 2 * share))


def _made(cutout: Cutout) -> Layer:
    """A contact shadow; its box may reach beyond the photo."""
    box = cutout.matte.box
    step = step_for(box, _SIDE)
    around = _around(box)
    # Whole squares around the box, so that matte and shadow share their grid.
    left, top = -(-(box.left - around.left) // step), -(-(box.top - around.top) // step)
    right, bottom = -(-(around.right - box.left) // step), -(-(around.bottom - box.top) // step)
    strength = contact_shadow(reduced_mask(cutout.matte, box, step), Box(-left, -top, right, bottom))
    origin = (box.left - left * step, box.top - top * step)
    frame = Box.of_size((strength.shape[1] * step, strength.shape[0] * step)).shift(*origin)
    return Layer(frame, enlarged(strength, step, origin, frame))


def _around(box: Box) -> Box:
    return box.grow(round(_REACH * max(box.size)) + 8)
