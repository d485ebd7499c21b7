"""Composite: lay the fills back on the photo at full resolution, matched in colour and grain."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from toolkit import blend
from toolkit.edit import Edit, Fill, Patch, Stack
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.run import Run
from toolkit.stages import Log, Stage

_RING = 96
"""Pixels of known surroundings that colour and grain are matched to."""


_SEAM = 32
"""Pixels around the hole that the seam score looks at."""


class Composite(Stage):
    """Lay the fills on the untouched photo; outside the ramp not a pixel changes, and this is verified."""

    needs: ClassVar[tuple[str, ...]] = ("mask", "fills")
    makes: ClassVar[tuple[str, ...]] = ("stacks",)

    match_colour: bool = Field(default=True, description="match the fill's colours to the ring around the hole")
    match_grain: bool = Field(default=True, description="give the fill the grain of the ring around the hole")

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """One stack of patches a variation, that with the best seam score first.

        Raises:
            FidelityError: when a pixel outside the blend band would change.
        """
        assert edit.mask is not None
        ramp = edit.ramp or edit.mask
        if edit.protected is not None and not edit.protected.is_empty:
            ramp = ramp.subtract(edit.protected)
        below = edit.chosen
        stacks, figures = [], []
        for k in range(max(len(fill.images) for fill in edit.fills)):
            patches, seams, weights, windows = [], [], [], []
            for fill in edit.fills:
                run.check()
                patch, seam, measured = self._patch(edit, fill, k, ramp)
                patches.append(patch)
                seams.append(seam)
                weights.append(fill.window.hole.area)
                windows.append({"box": list(fill.window.box), "seam": round(seam, 3), **measured})
            seeds = (edit.fills[0].seeds[k],)
            stacks.append(Stack((*below.patches, *patches), float(np.average(seams, weights=weights)), seeds))
            figures.append(windows)
        best = sorted(range(len(stacks)), key=lambda k: stacks[k].seam or 0.0)
        stacks = [stacks[k] for k in best]
        fills = tuple(
            dataclasses.replace(
                fill, images=tuple(fill.images[k] for k in best), seeds=tuple(fill.seeds[k] for k in best)
            )
            for fill in edit.fills
        )
        if len(stacks) > 1:
            ranked = ", ".join(f"-{n} seed {one.seeds[0]} ({one.seam:.2f})" for n, one in enumerate(stacks, start=1))
            log.notes.append(
                f"best seam first: {ranked}; each can be had alone, the first with --seed {stacks[0].seeds[0]}"
            )
        done = edit.replace(stacks=tuple(stacks), fills=fills, ramp=ramp)
        changed = [sum(int(np.count_nonzero(where)) for _, _, where in done.compared(k)) for k in range(len(stacks))]
        log.figures |= {
            "windows": [{"variation": n, **one} for n, k in enumerate(best) for one in figures[k]],
            "seam": [round(stack.seam or 0.0, 3) for stack in stacks],
            "band_pixels": ramp.area,
            "pixels_changed": changed,
        }
        return done

    def _patch(self, edit: Edit, fill: Fill, k: int, ramp: Mask) -> tuple[Patch, float, dict[str, Any]]:
        """The patch of one window, its seam score, and figures for the report."""
        window = fill.window
        hole_box = window.hole.box
        near = hole_box.grow(_RING).intersect(window.box).intersect(edit.box)
        image = _at_full_size(fill, k, near)
        pixels = edit.pixels(near)
        original = edit.photo.to_srgb(pixels)
        hole = window.hole.array(near)
        assert edit.mask is not None
        known = edit.mask.array(near) == 0
        hidden = pixels[..., -1] == 0 if edit.photo.has_alpha else None
        if hidden is not None:
            known &= ~hidden
        figures: dict[str, Any] = {}
        filled: npt.NDArray[Any] = image
        if self.match_colour:
            filled, colour = blend.match_colour(filled, original, hole, known)
            figures["colour_shift"] = [round(value, 2) for value in colour.mean_shift]
        if self.match_grain and not (fill.keeps_grain and window.scale == 1):
            filled, grain = blend.match_grain(filled, original, hole, known, seed=fill.seeds[k])
            figures["grain_added"] = [round(value, 2) for value in grain.added]
        inner = hole_box.within(near).slices
        source = edit.photo.from_srgb(filled[inner], seed=fill.seeds[k])
        weight = ramp.intersect(window.hole) if len(edit.fills) > 1 else ramp
        if hidden is not None:
            alpha = _alpha(pixels[..., -1], hole)[inner]
            source = np.concatenate([source, alpha[..., None]], axis=2)
            unseen = hidden[inner]
            if unseen.any():
                weight = weight.subtract(Mask.from_array(unseen, edit.box, (hole_box.left, hole_box.top)))
        patch = Patch(hole_box, source, weight)
        close = hole_box.grow(_SEAM).intersect(near)
        around = close.within(near).slices
        finished = edit.photo.to_srgb(patch.over(close, pixels[around]))
        return patch, blend.seam_score(finished, hole[around]), figures


def _at_full_size(fill: Fill, k: int, box: Box) -> npt.NDArray[np.uint8]:
    """Image `k` of a fill in `box` (h, w, 3) uint8, at the photo's resolution."""
    image, window = fill.images[k], fill.window
    inner = box.within(window.box)
    if window.size == window.box.size:
        return image[inner.slices]
    scale = window.scale
    how = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    # Only the part that is needed is resized, with a margin for the filter, cut where photo and working pixels have
    # an edge in common; where such edges are far apart it is cut between pixels, ten times as slow for each pixel.
    columns, across = _shared_edges(inner.left, inner.right, window.box.width, window.size.width)
    rows, down = _shared_edges(inner.top, inner.bottom, window.box.height, window.size.height)
    part = Box(across.start, down.start, across.stop, down.stop)
    if scale < 1 or part.area <= 4 * box.area:
        resized = cv2.resize(image[rows, columns], part.size, interpolation=how)
        return np.asarray(resized[inner.within(part).slices], np.uint8)
    columns = slice(max(0, int(inner.left / scale) - 4), min(window.size.width, int(inner.right / scale) + 5))
    rows = slice(max(0, int(inner.top / scale) - 4), min(window.size.height, int(inner.bottom / scale) + 5))
    matrix = np.array(
        [
            [scale, 0, (columns.start + 0.5) * scale - 0.5 - inner.left],
            [0, scale, (rows.start + 0.5) * scale - 0.5 - inner.top],
        ]
    )
    warped = cv2.warpAffine(image[rows, columns], matrix, box.size, flags=how, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(warped, np.uint8)


def _shared_edges(start: int, stop: int, length: int, working: int) -> tuple[slice, slice]:
    """`start..stop` of `length` photo pixels, widened by 4 working pixels and to common edges: in working, in photo."""
    parts = math.gcd(length, working)
    margin = -(-4 * parts // working)
    first = max(0, start * parts // length - margin)
    last = min(parts, -(-stop * parts // length) + margin)
    return tuple(slice(first * n // parts, last * n // parts) for n in (working, length))  # type: ignore[return-value]


def _alpha(alpha: npt.NDArray[Any], hole: npt.NDArray[np.uint8]) -> npt.NDArray[Any]:
    """The hole's alpha (h, w), interpolated from its ring: a hole in transparent ground stays transparent."""
    ring = alpha[hole == 0]
    if ring.size and (ring == ring[0]).all():
        return np.where(hole > 0, ring[0], alpha).astype(alpha.dtype)
    whole = float(np.iinfo(alpha.dtype).max)
    eight = np.ascontiguousarray((alpha * (255.0 / whole)).round().astype(np.uint8))
    inpainted = blend.continued(eight, hole, 3)
    return np.where(hole > 0, (inpainted * (whole / 255.0)).round(), alpha).astype(alpha.dtype)
