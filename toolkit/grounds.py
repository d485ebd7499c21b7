"""The ground behind a product as an engine paints it: at which scale, in which tiles, and what it sees of the photo.

A sheet is the picture that is painted. It covers the canvas, and may be coarser than the photo.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from toolkit.blend import Scaling, levels, resampled
from toolkit.edit import Canvas, Edit, Window
from toolkit.errors import ParameterError
from toolkit.geometry import Box, Limits, Size, snap
from toolkit.mask import Mask
from toolkit.photo.raster import strips
from toolkit.planning import refusal

Bytes = npt.NDArray[np.uint8]

LARGEST = 2_000_000
"""Pixels that are painted at once at most: beyond, engines repeat themselves."""

SHARED = 1024
"""Side of a background that is made for any canvas."""

BLANK = 127
"""Value of what is not known; nothing of the old ground is shown to the engine."""

_CONTEXT = 0.25
"""Share of a tile that lies on what was painted before."""

_BAND = 1 / 16
"""Share of a tile's shorter side over which it passes into what was painted before."""

_STRIP = 1 << 18


@dataclass(frozen=True)
class Sheet:
    """Where a painted picture lies on the photo's plane.

    Attributes:
        size: its pixels.
        corner: x, y of its left top corner on the plane.
        step: photo pixels for one of its own.
    """

    size: Size
    corner: tuple[float, float]
    step: float

    @property
    def box(self) -> Box:
        """Its own pixels, origin (0, 0)."""
        return Box.of_size(self.size)

    def plane(self, box: Box) -> Box:
        """The photo pixels that a box of the sheet touches."""
        left, top, right, bottom = (self.corner[i % 2] + n * self.step for i, n in enumerate(box))
        low = (math.floor(n + 1e-6) for n in (left, top))
        high = (math.ceil(n - 1e-6) for n in (right, bottom))
        return Box(*low, *high)

    def on_sheet(self, box: Box) -> Box:
        """The sheet's pixels that a box of the plane touches; may reach beyond the sheet."""
        left, top, right, bottom = ((n - self.corner[i % 2]) / self.step for i, n in enumerate(box))
        low = (math.floor(n + 1e-6) for n in (left, top))
        high = (math.ceil(n - 1e-6) for n in (right, bottom))
        return Box(*low, *high)

    def window(self, box: Box) -> Window:
        """A box of the sheet as a window of the photo's plane, for reports and estimates."""
        plane = self.plane(box)
        return Window(plane, box.size, Mask.empty(plane))


@dataclass(frozen=True)
class Tile:
    """A part of a sheet that is painted by itself: `cell` is kept, `window` is what the engine gets."""

    cell: Box
    window: Box


def at_once(canvas: Canvas, limits: Limits, size: Size | None = None) -> Sheet:
    """The sheet on which all of `canvas` is painted in one call: as fine as the limits allow, 2 megapixels at most.

    Args:
        canvas: what is to be covered.
        limits: what the engine accepts.
        size: the sheet's size, instead of the limits' own choice.

    Raises:
        ParameterError: when `size` is not one the engine accepts.
    """
    if size is None:
        size = _size_for(canvas.size, limits)
    _check(size, limits)
    return _covering(canvas, size)


def for_any(canvas: Canvas, limits: Limits, size: Size | None = None) -> Sheet:
    """The sheet of a background that is the same for every canvas, laid over this one; arguments as `at_once`."""
    if size is None:
        side = min(max(SHARED, limits.smallest_side), limits.largest_side, math.isqrt(limits.largest_area))
        side = max(limits.smallest_side, snap(side, limits.multiple_of, up=False))
        size = Size(side, side)
    _check(size, limits)
    return _covering(canvas, size)


def in_full(canvas: Canvas, limits: Limits, size: Size | None = None) -> tuple[Sheet, Size]:
    """The sheet with a pixel for each of the canvas' own, and the size of the tiles it is painted in.

    Where the canvas is smaller than a tile the sheet reaches beyond it, to the right and below.

    Args:
        canvas: what is to be covered.
        limits: what the engine accepts.
        size: that of a tile, instead of the limits' own choice.

    Raises:
        ParameterError: when `size` is not one the engine accepts.
    """
    if size is None:
        best = math.isqrt(min(limits.best_pixels, limits.largest_area))
        side = max(limits.smallest_side, snap(min(limits.largest_side, best), limits.multiple_of, up=False))
        size = Size(*(max(limits.smallest_side, min(side, snap(n, limits.multiple_of, up=True))) for n in canvas.size))
    _check(size, limits)
    whole = Size(*(max(n, tile) for n, tile in zip(canvas.size, size, strict=True)))
    corner = canvas.origin or (float(canvas.box.left), float(canvas.box.top))
    return Sheet(whole, corner, 1 / canvas.scale), size


def tiled(sheet: Sheet, size: Size, start: tuple[int, int]) -> list[list[Tile]]:
    """Tiles of `size` that cover the sheet, in passes outwards from the one that holds `start` (x, y).

    Those of one pass share no side, and each of a later pass overlaps with all its neighbours of the pass before by a
    quarter of a tile.
    """
    edges = [_edges(whole, tile) for whole, tile in zip(sheet.size, size, strict=True)]
    first = [
        min(max(int(np.searchsorted(cuts, at, side="right")) - 1, 0), len(cuts) - 2)
        for cuts, at in zip(edges, start, strict=True)
    ]
    passes: dict[int, list[Tile]] = {}
    for row in range(len(edges[1]) - 1):
        for column in range(len(edges[0]) - 1):
            cell = Box(edges[0][column], edges[1][row], edges[0][column + 1], edges[1][row + 1])
            left = _beginning(cell.left, cell.right, size.width, column - first[0])
            top = _beginning(cell.top, cell.bottom, size.height, row - first[1])
            window = Box(left, top, left + size.width, top + size.height).moved_into(sheet.box)
            distance = abs(column - first[0]) + abs(row - first[1])
            passes.setdefault(distance, []).append(Tile(cell, window))
    return [passes[distance] for distance in sorted(passes)]


def covered(edit: Edit, box: Box) -> bool:
    """Whether every pixel of a box of the plane is a product's, so that nothing is to be painted there."""
    return bool((_matte(edit, box) >= 128).all())


def shown_product(edit: Edit, sheet: Sheet) -> tuple[Bytes, Bytes]:
    """What an engine sees of the photo: the products in their own colours, and where they are.

    Returns:
        The sheet's pixels (h, w, 3) uint8 sRGB, `BLANK` beyond the products, and (h, w) uint8: 255 where a product is
        more than half, 0 elsewhere.
    """
    pixels = np.full((sheet.size.height, sheet.size.width, 3), BLANK, np.uint8)
    known = np.zeros((sheet.size.height, sheet.size.width), np.uint8)
    for cutout in edit.cutouts:
        place = sheet.on_sheet(cutout.matte.box).grow(4).intersect(sheet.box)
        if place.is_empty:
            continue
        reach = sheet.plane(place.grow(8))
        scaling = Scaling(sheet.corner, sheet.step)
        for strip in strips(place.size, _STRIP):
            box = strip.shift(place.left, place.top)
            values = resampled(lambda part: _layers(edit, part), reach, box, scaling, alpha=True)
            inside = values[..., 3] >= 127.5
            pixels[box.slices][inside] = levels(values[..., :3], np.uint8)[inside]
            known[box.slices][inside] = 255
    return pixels, known


def ramp(tile: Tile) -> npt.NDArray[np.float32]:
    """How much a tile counts in its window, (h, w) 0-1: whole in its cell, falling to 0 around it."""
    box = tile.window
    band = max(1.0, _BAND * min(box.size))
    across = _away(np.arange(box.left, box.right), tile.cell.left, tile.cell.right)
    down = _away(np.arange(box.top, box.bottom), tile.cell.top, tile.cell.bottom)
    away = np.hypot(across[None, :], down[:, None])
    return np.clip(1 - away / band, 0, 1).astype(np.float32)


def _away(at: npt.NDArray[np.int64], first: int, behind: int) -> npt.NDArray[np.float64]:
    return np.maximum(np.maximum(first - at, at - (behind - 1)), 0).astype(np.float64)


def _layers(edit: Edit, box: Box) -> Bytes:
    """The products (h, w, 4) uint8: sRGB, free of the old ground, and their share."""
    pixels = edit.pixels(box)
    for cutout in edit.cutouts:
        pixels = cutout.over(box, pixels)
    return np.dstack([edit.photo.to_srgb(pixels), _matte(edit, box)])


def _matte(edit: Edit, box: Box) -> Bytes:
    """The products' share of each pixel (h, w) uint8, less where the photo itself is transparent."""
    whole = np.zeros((box.height, box.width), np.uint8)
    for cutout in edit.cutouts:
        np.maximum(whole, cutout.matte.array(box), out=whole)
    hidden = edit.hidden(box)
    if hidden is not None:
        whole[hidden] = 0
    return whole


def _size_for(canvas: Size, limits: Limits) -> Size:
    most = min(LARGEST, limits.largest_area)
    factor = min(math.sqrt(most / canvas.area), *(limits.largest_side / n for n in canvas))
    if factor > 1:
        factor = min(factor, max(1.0, min(limits.upscale, math.sqrt(limits.best_pixels / canvas.area))))
    step, low, high = limits.multiple_of, limits.smallest_side, limits.largest_side
    width, height = (min(max(snap(n * factor, step, up=True), low), high) for n in canvas)
    while width * height > most and max(width, height) > low:
        width, height = (width - step, height) if width >= height else (width, height - step)
    return Size(width, height)


def _check(size: Size, limits: Limits) -> None:
    if not limits.accepts(size):
        raise ParameterError(refusal(size, limits))


def _covering(canvas: Canvas, size: Size) -> Sheet:
    """The sheet of `size` laid over the canvas: centred, never stretched, what sticks out cut off."""
    step = max(whole / n for whole, n in zip(canvas.size, size, strict=True)) / canvas.scale
    origin = canvas.origin or (float(canvas.box.left), float(canvas.box.top))
    corner = (
        start + (whole / canvas.scale - n * step) / 2 for start, whole, n in zip(origin, canvas.size, size, strict=True)
    )
    return Sheet(size, tuple(corner), step)  # type: ignore[arg-type]


def _edges(whole: int, tile: int) -> list[int]:
    """Where cells begin and end along an axis."""
    if whole <= tile:
        return [0, whole]
    count = math.ceil(whole / (tile - round(_CONTEXT * tile)))
    return [round(i * whole / count) for i in range(count + 1)]


def _beginning(first: int, behind: int, length: int, away: int) -> int:
    """Where a window begins, that reaches from its cell towards the first tile."""
    if away > 0:
        return behind - length
    return first if away < 0 else (first + behind - length) // 2


def painted_first(edit: Edit, sheet: Sheet) -> tuple[int, int]:
    """The middle of the products on the sheet, x, y: where painting in tiles begins."""
    box = Box(0, 0, 0, 0)
    for cutout in edit.cutouts:
        box = box.union(cutout.matte.box)
    place = sheet.on_sheet(box if not box.is_empty else edit.canvas.box)
    return (place.left + place.right) // 2, (place.top + place.bottom) // 2


def seen(passes: list[list[Tile]], edit: Edit, sheet: Sheet) -> Iterator[list[Tile]]:
    """The passes without the tiles a product covers; none is empty."""
    for tiles in passes:
        left = [tile for tile in tiles if not covered(edit, sheet.plane(tile.cell))]
        if left:
            yield left
