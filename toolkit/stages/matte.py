"""Matte: give the selection a soft edge with clean colours, as a cutout."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from pydantic import Field

from toolkit import blend
from toolkit.blend.arrays import blocks, bounds
from toolkit.edit import Cutout, Edit
from toolkit.engines import Bytes, Matter
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.morphology import parsed_radius
from toolkit.patch import Pixels as Colours
from toolkit.run import Run
from toolkit.schema import RadiusField
from toolkit.stages import Log, Stage
from toolkit.stages._softness import softness

MOST = "3%"  # of the diagonal, where the band is measured
UNTOLD = 2 / 3  # of that where colours do not tell
CRISP, NARROWEST, WIDEST = 3.0, 4.0, 80.0  # pixels
LEAST = 512  # side of the cells the outline is worked in; wider bands have larger ones
MARGIN = 2, 48  # bands, and pixels besides, that are read around a cell
ALIGNED = 32
THIN = 2  # pixels; parts nowhere deeper are never sure, and never less than half opaque
PART = 128  # side of the parts that colours are kept in


class Matte(Stage):
    """Make the selection a cutout: soft alpha in a band along its outline, colours free of the old ground."""

    needs: ClassVar[tuple[str, ...]] = ("selected",)
    makes: ClassVar[tuple[str, ...]] = ("cutouts",)

    matte: str = Field(default="auto", description="engine that finds the soft edge")
    band: RadiusField | None = Field(
        default=None,
        description="how far from the outline the edge may be soft, inward and outward: pixels of the original, or a "
        "share of the largest part's diagonal (at least 4 px); without it as far as the colours are seen to mix",
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Work through cells along the outline; inside the band's inner rim alpha is 255, outside its outer rim 0."""
        assert edit.selected is not None
        card = log.card = run.card("matte", self.matte)
        radius = self._radius(edit)
        cells = list(_grid(edit.selected, radius))
        pieces: list[tuple[Box, Bytes]] = []
        edge: list[tuple[Box, Colours]] = []
        for number, cell in enumerate(cells):
            run.check()
            run.progress(self.name, number / len(cells))
            if _crossed(edit.selected, cell, radius):
                alpha, colours = _worked(edit, cell, radius, run.matter(card), run)
                pieces.append((cell, alpha))
                edge += colours
            else:
                pieces.append((cell, edit.selected.array(cell)))
        matte = Mask(edit.box, tuple(pieces))
        soft = sum(int(np.count_nonzero((values > 0) & (values < 255))) for _, values in matte.tiles)
        log.figures |= {"band": round(radius, 1), "soft_pixels": soft}
        return edit.replace(cutouts=(Cutout(matte.box, tuple(edge), matte),))

    def _radius(self, edit: Edit) -> float:
        assert edit.selected is not None
        share, pixels = parsed_radius(self.name, MOST if self.band is None else self.band)
        if share is None:
            return pixels
        widest = max(NARROWEST, share * max((part.box.diagonal for part in edit.selected.components()), default=0.0))
        if self.band is not None:
            return widest
        widest = min(widest, WIDEST)
        found = softness(edit, 1.25 * widest)
        if found is None:
            return max(NARROWEST, widest * UNTOLD)
        return min(widest, max(CRISP, 2.2 * found - 1))  # what is told is the steep part of the edge


def _grid(selected: Mask, radius: float) -> Iterator[Box]:
    side = max(LEAST, 12 * math.ceil(radius)) // ALIGNED * ALIGNED
    reach = selected.box.grow(math.ceil(radius) + 1).intersect(selected.frame)
    for top in range(reach.top // side * side, reach.bottom, side):
        for left in range(reach.left // side * side, reach.right, side):
            yield Box(left, top, left + side, top + side).intersect(selected.frame)


def _crossed(selected: Mask, cell: Box, radius: float) -> bool:
    """Whether the band reaches the cell."""
    values = selected.array(cell.grow(math.ceil(radius) + 1).intersect(selected.frame))
    return radius >= 1 and bool(values.min() != values.max())


def _worked(edit: Edit, cell: Box, radius: float, engine: Matter, run: Run) -> tuple[Bytes, list[tuple[Box, Colours]]]:
    """The alpha of a cell and the colours of the parts of it where alpha is soft."""
    assert edit.selected is not None
    margin = MARGIN[0] * math.ceil(radius) + MARGIN[1]
    reach = cell.grow(margin).intersect(edit.box)
    selected = edit.selected.array(reach)
    trimap = trimap_of(selected, radius)
    inner = cell.within(reach)
    unknown = (trimap[inner.slices] != 0) & (trimap[inner.slices] != 255)
    alpha = trimap[inner.slices].copy()
    if not unknown.any():
        return alpha, []
    # The engine sees what is unknown in the cell, and enough around it to know both sides.
    around = bounds(unknown).shift(cell.left, cell.top).grow(margin - math.ceil(radius))
    around = _aligned(around).intersect(reach)
    trimap = trimap[around.within(reach).slices]
    hidden = edit.hidden(around)
    if hidden is not None:
        trimap = np.where(hidden, np.uint8(0), trimap)
    pixels = edit.pixels(around)
    found = engine.matte(edit.photo.to_srgb(pixels), trimap, run)
    found = np.where(_thin(selected[around.within(reach).slices]), np.maximum(found, 128), found)
    alpha[around.intersect(cell).within(cell).slices] = found[around.intersect(cell).within(around).slices]
    soft = bounds((alpha > 0) & (alpha < 255))
    if soft.is_empty:
        return alpha, []
    # Colours are more local than alpha: less is read around what is soft.
    shared = _aligned(soft.shift(cell.left, cell.top).grow(ALIGNED)).intersect(around)
    found = found[shared.within(around).slices]
    pixels = pixels[shared.within(around).slices]
    if hidden is not None:
        opaque = pixels[..., -1] / np.float32(np.iinfo(pixels.dtype).max)
        found = np.where(found == 255, found, np.rint(found * opaque).astype(np.uint8))
    colours = blend.foreground(pixels[..., : edit.photo.channels], found)
    alpha[shared.intersect(cell).within(cell).slices] = found[shared.intersect(cell).within(shared).slices]
    parts = []
    for block in blocks((alpha > 0) & (alpha < 255), PART):
        place = block.shift(cell.left, cell.top).intersect(shared)
        parts.append((place, colours[place.within(shared).slices].copy()))
    return alpha, parts


def _aligned(box: Box) -> Box:
    """`box` grown to a fixed grid, so that engines that halve pictures halve neighbouring cells alike."""
    left, top, right, bottom = (edge // ALIGNED for edge in (box.left, box.top, -box.right, -box.bottom))
    return Box(left * ALIGNED, top * ALIGNED, -right * ALIGNED, -bottom * ALIGNED)


def trimap_of(selected: Bytes, radius: float) -> Bytes:
    """Sure foreground and background farther than `radius` from the outline, and along the middle of what is thinner.

    Parts narrower than about 4 pixels have nothing sure: hair is in a mask by chance.

    Args:
        selected: (h, w) uint8, 255 and 0.
        radius: pixels.

    Returns:
        (h, w) uint8: 0 = background, 128 = unknown, 255 = foreground.
    """
    step = max(1, round(radius / 4))
    trimap = selected.copy()
    outline = bounds(cv2.morphologyEx(selected, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)))
    if outline.is_empty:
        return trimap
    # Distances matter where the band is, and as far beyond as parts are looked at to know whether they are thin.
    near = outline.grow(math.ceil(2.5 * radius) + 4)
    near = Box(near.left // step * step, near.top // step * step, near.right, near.bottom)
    near = near.intersect(Box.of_size((selected.shape[1], selected.shape[0])))
    part = selected[near.slices]
    trimap[near.slices] = 128
    for level in (255, 0):
        depth = np.asarray(cv2.distanceTransform(cv2.inRange(part, level, level), cv2.DIST_L2, 3), np.float32)
        sure = depth > radius
        _add_middle(sure, depth, radius, step)
        trimap[near.slices][sure] = level
    return trimap


def _add_middle(sure: npt.NDArray[np.bool_], depth: npt.NDArray[np.float32], radius: float, step: int) -> None:
    """Set `sure` where a part that is nowhere as deep as the band is wide is nearly as deep as it gets close by."""
    highest = cv2.dilate(depth, np.ones((step, step), np.uint8))[::step, ::step]
    disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * math.ceil(radius / step) + 1,) * 2)
    deep = cv2.dilate(np.greater(highest, radius).view(np.uint8), disc)
    thin = bounds((deep == 0) & (cv2.dilate(highest, np.ones((3, 3), np.uint8)) >= 0.6 * THIN))
    if thin.is_empty:
        return
    where = Box(*(step * edge for edge in thin)).intersect(Box.of_size((depth.shape[1], depth.shape[0]))).slices
    rows, columns = depth[where].shape
    close, wide = (
        cv2.resize(one[thin.slices], None, fx=step, fy=step, interpolation=cv2.INTER_NEAREST)[:rows, :columns]
        for one in (cv2.dilate(highest, disc), deep)
    )
    sure[where] |= (wide == 0) & (close >= THIN) & (depth[where] >= np.maximum(0.6 * close, 0.6 * THIN))


def _thin(selected: Bytes) -> npt.NDArray[np.bool_]:
    """What is selected and a few pixels wide at most."""
    deeper = cv2.erode(selected, np.ones((2 * THIN - 1, 2 * THIN - 1), np.uint8))
    near = cv2.dilate(deeper, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (4 * THIN - 1, 4 * THIN - 1)))
    return np.asarray(selected > near)
