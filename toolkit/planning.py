"""From a mask to windows an engine accepts: cluster, fit to the limits, count calls, price and time.

Pure decisions: nothing here reads a pixel of the photo or runs an engine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit import tiling
from toolkit.edit import Window
from toolkit.errors import ParameterError
from toolkit.geometry import Box, Limits, Price, Size, snap
from toolkit.mask import Mask

MAX_WINDOWS = 12
"""A mask never becomes more windows than this, whatever the number of its parts."""

MIN_CONTEXT = 64
"""Pixels of surroundings on each side of a hole, where the photo has them, whatever the context factor."""

_TOGETHER = 1.5
"""Parts share a window that costs up to this much more than one each: it is one call, and the fills agree."""

_MANY = 400
"""Boxes are first gathered on a grid down to about this number, so that clustering stays quick."""


@dataclass(frozen=True)
class Plan:
    """What filling will take: windows, calls, price and expected seconds (None where the card does not say).

    Attributes:
        seconds: of all calls together.
        longest: from the first to the last where all calls of a pass are under way at once.
    """

    passes: tuple[tuple[Window, ...], ...]
    calls: int
    price: float
    currency: str
    seconds: float | None
    longest: float | None


def plan(
    mask: Mask,
    limits: Limits,
    *,
    size: Size | None = None,
    context: float | None = None,
    max_windows: int = MAX_WINDOWS,
) -> tuple[tuple[Window, ...], ...]:
    """Windows for all parts of `mask`, in passes; all are independent here, so there is one pass.

    Near parts share a window, far ones get their own. `mask.frame` is the photo's box.

    Args:
        mask: what is to be filled (hard).
        limits: what the engine accepts.
        size: a working size asked for, instead of the limits' own choice.
        context: how many times the hole's box the window measures, instead of the limits' own factor.
        max_windows: the largest number of windows.

    Raises:
        ParameterError: when `size` is not one the engine accepts.
    """
    if size is not None and not limits.accepts(size):
        raise ParameterError(refusal(size, limits))
    factor = limits.context if context is None else context
    parts = mask.components()
    groups = cluster([part.box for part in parts], mask.frame, factor, max_windows)
    windows = []
    for members in groups:
        windows.append(fit(joined([parts[i] for i in members]), mask.frame, limits, size=size, context=factor))
    return (tuple(windows),) if windows else ()


def joined(parts: Sequence[Mask]) -> Mask:
    """The union of `parts` (at least one, of one frame), each tile painted once: there may be thousands."""
    if len(parts) == 1:
        return parts[0]
    frame = parts[0].frame
    tiles = [tile for part in parts if not part.outside for tile in part.tiles]
    places = tiling.windows([box for box, _ in tiles], frame)
    painted = [np.zeros((place.height, place.width), np.uint8) for place in places]
    left, top, right, bottom = np.array(places, np.int64).reshape(-1, 4).T
    for box, values in tiles:
        for i in np.flatnonzero((left < box.right) & (right > box.left) & (top < box.bottom) & (bottom > box.top)):
            shared = box.intersect(places[i])
            target = painted[i][shared.within(places[i]).slices]
            np.maximum(target, values[shared.within(box).slices], out=target)
    whole = Mask(frame, tuple(zip(places, painted, strict=True)))
    for part in parts:
        if part.outside:
            whole = whole.union(part)
    return whole


def cluster(boxes: Sequence[Box], frame: Box, context: float, most: int) -> list[list[int]]:
    """Group boxes that are near each other, then until at most `most` groups are left.

    The cost of a group is the area of its window (its box with context, inside `frame`). Two are near when one window
    costs less than 1.5 times the two: equal objects side by side, when the gap is no wider than one of them.

    Returns:
        Indices into `boxes`, each once, groups and members in reading order.
    """
    groups = _gathered(boxes, frame)
    hulls = np.array([_hull([boxes[i] for i in group]) for group in groups], np.int64).reshape(-1, 4)
    costs = _areas(hulls, frame, context)
    gains = np.full((len(groups), len(groups)), np.inf)

    def measure(i: int) -> None:
        """The cost of joining group `i` with each other group, less what may be spent on it."""
        joint = np.concatenate([np.minimum(hulls[:, :2], hulls[i, :2]), np.maximum(hulls[:, 2:], hulls[i, 2:])], axis=1)
        gain = np.where(alive, _areas(joint, frame, context) - _TOGETHER * (costs + costs[i]), np.inf)
        gain[i] = np.inf
        gains[i], gains[:, i] = gain, gain

    alive = np.ones(len(groups), bool)
    for i in range(len(groups)):
        measure(i)
    while alive.sum() > 1:
        i, j = sorted(int(n) for n in np.unravel_index(np.argmin(gains), gains.shape))
        if gains[i, j] > 0 and alive.sum() <= most:
            break
        groups[i] = groups[i] + groups[j]
        hulls[i, :2] = np.minimum(hulls[i, :2], hulls[j, :2])
        hulls[i, 2:] = np.maximum(hulls[i, 2:], hulls[j, 2:])
        alive[j] = False
        gains[j], gains[:, j] = np.inf, np.inf
        costs[i] = _areas(hulls[i : i + 1], frame, context)[0]
        measure(i)
    order = sorted(np.flatnonzero(alive), key=lambda g: (hulls[g, 1], hulls[g, 0]))
    return [sorted(groups[g]) for g in order]


def fit(hole: Mask, frame: Box, limits: Limits, *, size: Size | None = None, context: float | None = None) -> Window:
    """One window around `hole`: a box with context and the working size the engine gets it at.

    Both sides are scaled by exactly the same factor: the working size is (a, b) steps of a whole number of
    pixels, the box (a, b) steps of another. Where no box inside `frame` has that shape it reaches beyond.

    Raises:
        ParameterError: when no window can hold the hole within the limits.
    """
    needed = surroundings(hole.box, frame, limits.context if context is None else context)
    if size is not None:
        step = math.gcd(size.width, size.height)
        shape = (size.width // step, size.height // step)
        reach = max(math.ceil(needed.width / shape[0]), math.ceil(needed.height / shape[1]))
        # A small hole gets more surroundings rather than more pixels, as far as the photo reaches.
        inside = min(frame.width // shape[0], frame.height // shape[1])
        reach = max(reach, min(inside, math.ceil(step / limits.upscale)))
        return _placed(hole, needed, shape, reach, size)
    width = max(needed.width, limits.smallest_side)
    height = max(needed.height, limits.smallest_side)
    scale = _scale(width, height, limits)
    if scale == 1:
        working = Size(
            _side(width, needed.width, frame.width, hole.box.width, limits),
            _side(height, needed.height, frame.height, hole.box.height, limits),
        )
        return _placed(hole, needed, (working.width, working.height), 1, working)
    step = limits.multiple_of if limits.multiple_of >= 8 else snap(8, limits.multiple_of, up=True)
    least = snap(limits.min_side, step, up=True)
    if least > limits.largest_side or least**2 > limits.largest_area:  # then only the engine's own multiples fit
        step = limits.multiple_of
    low, high = math.ceil(limits.smallest_side / step), limits.largest_side // step
    reach = max(1, math.ceil(float(scale) * step))
    columns = min(max(math.ceil(width / reach), low), high)
    rows = min(max(math.ceil(height / reach), low), high)
    while columns * rows * step * step > limits.largest_area and (columns > low or rows > low):
        reach += 1
        columns = min(max(math.ceil(width / reach), low), high)
        rows = min(max(math.ceil(height / reach), low), high)
    # A little less context is better than mirrored pixels.
    if columns * reach > frame.width and low < columns and (columns - 1) * reach >= hole.box.width + 2 * MIN_CONTEXT:
        columns -= 1
    if rows * reach > frame.height and low < rows and (rows - 1) * reach >= hole.box.height + 2 * MIN_CONTEXT:
        rows -= 1
    while columns * reach < hole.box.width or rows * reach < hole.box.height:
        reach += 1
    return _placed(hole, needed, (columns, rows), reach, Size(columns * step, rows * step))


def estimate(
    passes: tuple[tuple[Window, ...], ...], images: int, price: Price, pace: float | None, per_call: float = 0.0,
    kept: Mapping[int, int] = MappingProxyType({}), batched: bool = False,
) -> Plan:  # fmt: skip
    """Calls, price and expected seconds: `per_call` a call and `pace` seconds for each working megapixel.

    Args:
        kept: for windows of the first pass, by number, how many of their images are there already.
        batched: a window's images are one call in the first pass, after which each has surroundings of its own.
    """
    calls, made, seconds, longest = 0, 0, 0.0, 0.0
    for number, windows in enumerate(passes):
        owed = [images - (kept.get(index, 0) if number == 0 else 0) for index in range(len(windows))]
        each = [(window.size.megapixels * (pace or 0.0) + per_call) for window in windows]
        calls += sum(map(bool, owed)) if batched and number == 0 else sum(owed)
        made += sum(owed)
        seconds += sum(one * count for one, count in zip(each, owed, strict=True))
        longest += max((one for one, count in zip(each, owed, strict=True) if count), default=0.0)
    known = pace is not None
    return Plan(
        passes, calls, price.of(made), price.currency, seconds if known else None, longest if known else None
    )  # fmt: skip


def wall_clock(calls: int, seconds: float, longest: float, at_once: int, per_minute: int | None) -> float:
    """Seconds that calls take, so many at once, of which no more begin in a minute.

    Args:
        calls: how many.
        seconds: they take together.
        longest: the longest of them, or of those that wait for each other.
        at_once: how many are under way at the same time.
        per_minute: how many may begin in any 60 seconds; None for any number.
    """
    turns = 0 if per_minute is None or not calls else (calls - 1) // per_minute
    return max(seconds / max(1, min(at_once, calls)), longest + 60.0 * turns)


def described(passes: tuple[tuple[Window, ...], ...]) -> list[dict[str, Any]]:
    """The windows of all passes, JSON-ready: box, working size and photo pixels for a working one."""
    return [
        {"box": list(window.box), "size": list(window.size), "scale": round(window.scale, 4)}
        for one in passes
        for window in one
    ]


def refusal(size: Size, limits: Limits) -> str:
    """The sentence that says why `size` is not accepted."""
    rules = [f"sides {limits.min_side}-{limits.max_side}"]
    if limits.multiple_of > 1:
        rules.append(f"multiples of {limits.multiple_of}")
    if limits.max_pixels:
        rules.append(f"at most {limits.max_pixels / 1e6:g} megapixels")
    return f"size {size}: the engine takes {', '.join(rules)}"


def surroundings(hole: Box, frame: Box, context: float) -> Box:
    """The hole's box with context, slid into the frame and cut to it.

    Each side is at least `context` times the hole's, with `MIN_CONTEXT` pixels or an eighth of the hole's longer side
    around it.
    """
    extra_x = max(MIN_CONTEXT, math.ceil(hole.width * (context - 1) / 2))
    extra_y = max(MIN_CONTEXT, math.ceil(hole.height * (context - 1) / 2))
    # A long thin hole wants surroundings in proportion to its length too, not to its thickness alone.
    longest = max(hole.width, hole.height)
    extra_x, extra_y = max(extra_x, longest // 8), max(extra_y, longest // 8)
    return hole.grow(extra_x, extra_y).moved_into(frame).intersect(frame)


def _scale(width: int, height: int, limits: Limits) -> Fraction:
    """Photo pixels for one working pixel."""
    area = Fraction(width * height)
    down = max(
        Fraction(max(width, height), limits.largest_side),
        Fraction(math.isqrt(math.ceil(area / min(limits.best_pixels, limits.largest_area) * 10**8) - 1) + 1, 10**4),
    )
    if down > 1:
        return down
    return max(down, 1 / Fraction(limits.upscale).limit_denominator(100))


def _side(length: int, needed: int, available: int, hole: int, limits: Limits) -> int:
    """A side at full resolution: up to the next multiple, or down where only that stays inside the photo."""
    side = snap(length, limits.multiple_of, up=True)
    if side > available >= limits.smallest_side:
        inside = snap(available, limits.multiple_of, up=False)
        if inside >= min(needed, hole + 2 * MIN_CONTEXT) and inside >= limits.smallest_side:
            side = inside
    return min(side, limits.largest_side)


def _placed(hole: Mask, needed: Box, shape: tuple[int, int], reach: int, working: Size) -> Window:
    width, height = shape[0] * reach, shape[1] * reach
    if width < hole.box.width or height < hole.box.height:
        raise ParameterError(f"no window of {working} pixels can hold a hole of {hole.box.size} pixels")
    left = (needed.left + needed.right - width) // 2
    top = (needed.top + needed.bottom - height) // 2
    # Never leave the hole outside a window that had to be smaller than the context wished.
    left = min(max(left, hole.box.right - width), hole.box.left)
    top = min(max(top, hole.box.bottom - height), hole.box.top)
    box = Box(left, top, left + width, top + height).moved_into(hole.frame)
    return Window(box, working, hole)


def _areas(hulls: npt.NDArray[np.int64], frame: Box, context: float) -> npt.NDArray[np.float64]:
    """The area of `surroundings` for each of `hulls` (n, 4)."""
    sides = (hulls[:, 2:] - hulls[:, :2]).astype(np.float64)
    least = np.maximum(MIN_CONTEXT, sides.max(axis=1) // 8)
    extra = np.maximum(np.ceil(sides * (context - 1) / 2), least[:, None])
    area: npt.NDArray[np.float64] = np.minimum(sides + 2 * extra, (frame.width, frame.height)).prod(axis=1)
    return area


def _hull(boxes: Sequence[Box]) -> Box:
    hull = boxes[0]
    for box in boxes[1:]:
        hull = hull.union(box)
    return hull


def _gathered(boxes: Sequence[Box], frame: Box) -> list[list[int]]:
    """Each box alone, or, where there are very many, those of one grid cell together."""
    if len(boxes) <= _MANY:
        return [[i] for i in range(len(boxes))]
    cell = math.ceil(math.sqrt(frame.area / (_MANY / 2)))
    while (frame.width // cell + 1) * (frame.height // cell + 1) > _MANY:  # a strip is cut along one axis only
        cell += cell // 4 + 1
    cells: dict[tuple[int, int], list[int]] = {}
    for i, box in enumerate(boxes):
        cells.setdefault(((box.top + box.bottom) // 2 // cell, (box.left + box.right) // 2 // cell), []).append(i)
    return [cells[key] for key in sorted(cells)]
