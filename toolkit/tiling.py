"""Which boxes of a large frame hold something: the canonical tiles of a mask, and windows to work in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box

Bytes = npt.NDArray[np.uint8]
Tiles = tuple[tuple[Box, Bytes], ...]

CELL = 64
"""Side in pixels of the cells by which values are told to be near each other."""


def edges_of(boxes: Iterable[Box]) -> npt.NDArray[np.int64]:
    """Boxes as an array (n, 4) of left, top, right, bottom."""
    return np.array(list(boxes), np.int64).reshape(-1, 4)


def meeting(edges: npt.NDArray[np.int64], box: Box) -> list[int]:
    """Which of the boxes in `edges` share a pixel with `box`."""
    left, top, right, bottom = edges.T
    hit = (left < box.right) & (right > box.left) & (top < box.bottom) & (bottom > box.top)
    found: list[int] = np.flatnonzero(hit).tolist()
    return found


def constant(values: Bytes) -> bool:
    """True when all values are the same."""
    return bool((values.min() == values.max()) if values.size else True)


def canonical(frame: Box, pieces: Sequence[tuple[Box, Bytes]], outside: int) -> tuple[Tiles, int]:
    """The tiles and the outside value that stand for these disjoint pieces in this frame.

    Both depend on the values alone. `outside` is 255 when more than half of the frame is 128 or above. Cells of
    64 pixels (counted from the frame's corner) that hold something are joined where they touch, and their boxes
    where those touch; each tile is such a box, trimmed to what differs from `outside`.
    """
    pieces = [(box, values) for box, values in pieces if values.size]
    apart = sum(box.area for box, _ in pieces)
    if 2 * apart >= frame.area:
        # Only then can most of the frame differ from `outside`.
        high = sum(int(np.count_nonzero(values >= 128)) for _, values in pieces)
        high += (frame.area - apart) if outside else 0
        if (255 if 2 * high > frame.area else 0) != outside:
            whole = np.full((frame.height, frame.width), outside, np.uint8)
            for box, values in pieces:
                whole[box.within(frame).slices] = values
            pieces, outside = [(frame, whole)], 255 - outside
    tiles, edges = [], edges_of(box for box, _ in pieces)
    for box in _joined(_cells(frame, pieces, outside)):
        place = Box(*(CELL * n for n in box)).shift(frame.left, frame.top).intersect(frame)
        inside = [pieces[index] for index in meeting(edges, place)]
        if len(inside) == 1:
            piece, values = inside[0]
            place = place.intersect(piece)
            block = values[place.within(piece).slices]
        else:
            block = np.full((place.height, place.width), outside, np.uint8)
            for piece, values in inside:
                shared = piece.intersect(place)
                block[shared.within(place).slices] = values[shared.within(piece).slices]
        x, y, width, height = cv2.boundingRect(np.bitwise_not(block) if outside else block)
        trimmed = block[y : y + height, x : x + width].copy()
        trimmed.flags.writeable = False
        tiles.append((Box(x, y, x + width, y + height).shift(place.left, place.top), trimmed))
    return tuple(sorted(tiles, key=lambda tile: (tile[0].top, tile[0].left))), outside


def _cells(frame: Box, pieces: Sequence[tuple[Box, Bytes]], outside: int) -> list[Box]:
    """Boxes, in cells, of the groups of touching cells that hold a value other than `outside`."""
    if not pieces:
        return []
    found = []
    for box, values in pieces:
        inner = box.within(frame)
        rows, columns = (
            np.unique([first, *range((first // CELL + 1) * CELL, last, CELL)]) - first
            for first, last in ((inner.top, inner.bottom), (inner.left, inner.right))
        )
        choose = np.minimum if outside else np.maximum
        ends = [*rows[1:], box.height]
        bands = np.stack([choose.reduce(values[a:b], axis=0) for a, b in zip(rows, ends, strict=True)])
        held = choose.reduceat(bands, columns, axis=1) != outside
        y, x = np.nonzero(held)
        found.append(np.stack([x + inner.left // CELL, y + inner.top // CELL], axis=1))
    cells = np.concatenate(found)
    if not len(cells):
        return []
    low = cells.min(axis=0)
    grid = np.zeros(tuple((cells.max(axis=0) - low + 1)[::-1]), np.uint8)
    grid[cells[:, 1] - low[1], cells[:, 0] - low[0]] = 1
    _, _, stats, _ = cv2.connectedComponentsWithStats(grid, connectivity=8)
    corner = (int(low[0]), int(low[1]))
    return [Box(int(x), int(y), int(x + w), int(y + h)).shift(*corner) for x, y, w, h, _ in stats[1:]]


def _joined(boxes: list[Box]) -> list[Box]:
    """The fewest boxes around `boxes` that neither overlap nor touch, not even by a corner."""
    if len(boxes) < 2:
        return boxes
    edges = edges_of(boxes)
    done = 0
    while done < len(edges):
        left, top, right, bottom = edges[done]
        near = (edges[:, 0] <= right) & (edges[:, 2] >= left) & (edges[:, 1] <= bottom) & (edges[:, 3] >= top)
        if near.sum() > 1:
            group = edges[near]
            around = np.concatenate([group[:, :2].min(axis=0), group[:, 2:].max(axis=0)])
            edges = np.concatenate([edges[~near], around[None]])
            done = 0
        else:
            done += 1
    return [Box(*(int(n) for n in edge)) for edge in edges]


def windows(boxes: Iterable[Box], frame: Box) -> list[Box]:
    """Disjoint boxes in `frame` that cover `boxes`: these themselves if they are disjoint, else runs of cells."""
    inside = [box for box in (box.intersect(frame) for box in boxes) if box.area]
    if len(inside) < 2 or (len(inside) <= 2000 and not _overlapping(inside)):
        return inside
    spans = [
        Box(box.left // CELL, box.top // CELL, -(-box.right // CELL), -(-box.bottom // CELL))
        for box in (box.within(frame) for box in inside)
    ]
    around = Box(*(choose(edge) for choose, edge in zip((min, min, max, max), zip(*spans, strict=True), strict=True)))
    # An empty row below and an empty column on each side, so that every run ends.
    held = np.zeros((around.height + 1, around.width + 2), bool)
    for span in spans:
        held[span.within(around).shift(1, 0).slices] = True
    changes = held[:, 1:] != held[:, :-1]
    found: list[Box] = []
    open_runs: dict[tuple[int, int], int] = {}
    for y, row in enumerate(changes, around.top):
        turns = (np.flatnonzero(row) + around.left).tolist()
        runs = dict.fromkeys(zip(turns[0::2], turns[1::2], strict=True), y)
        for run, top in open_runs.items():
            if run in runs:
                runs[run] = top
            else:
                found.append(Box(run[0] * CELL, top * CELL, run[1] * CELL, y * CELL))
        open_runs = runs
    return [box.shift(frame.left, frame.top).intersect(frame) for box in found]


def _overlapping(boxes: list[Box]) -> bool:
    left, top, right, bottom = edges_of(boxes).T
    shared = (left < right[:, None]) & (right > left[:, None]) & (top < bottom[:, None]) & (bottom > top[:, None])
    return int(shared.sum()) > len(boxes)


def chunks(boxes: Iterable[Box], side: int) -> Iterator[Box]:
    """`boxes`, each cut into nearly equal parts of about `side` pixels."""
    for box in boxes:
        columns = np.linspace(box.left, box.right, max(1, round(box.width / side)) + 1).astype(int).tolist()
        rows = np.linspace(box.top, box.bottom, max(1, round(box.height / side)) + 1).astype(int).tolist()
        for top, bottom in pairwise(rows):
            for left, right in pairwise(columns):
                yield Box(left, top, right, bottom)


def readings(
    edges: npt.NDArray[np.int64], frame: Box, reach: int, *, grow: bool
) -> Iterator[tuple[Box, Box, tuple[slice, slice]]]:
    """Windows for an operation that looks `reach` pixels far on tiles at `edges`.

    They cover the tiles, grown by the reach if `grow` (the result can differ from the outside value there). With
    each comes the box it must read and its place in that: beyond what is read every pixel within reach equals the
    nearest one read, or is beyond the frame. Windows stay narrow enough for an exact `morphology.distance`.
    """
    tiles = [Box(*edge) for edge in edges.tolist()]
    boxes = [box.grow(reach) if grow else box for box in tiles]
    for window in chunks(windows(boxes, frame), max(512, min(8 * reach, 1024), 2 * reach)):
        around = window.grow(reach).intersect(frame)
        source = window
        for index in meeting(edges, around):
            source = source.union(tiles[index].intersect(around))
        source = source.grow(1).intersect(frame)
        yield window, source, window.within(source).slices
