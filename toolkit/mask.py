"""Mask: a few small tiles of values placed in a large frame, and every operation on it.

255 = regenerate, 0 = preserve, values between are soft. Coordinates are those of `Box`. The cost of an operation
follows the tiles and its radius, never the frame.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from toolkit import morphology
from toolkit.errors import MaskError, ParameterError
from toolkit.geometry import Box
from toolkit.morphology import Bytes
from toolkit.tiling import canonical, constant, edges_of, meeting, readings, windows

if TYPE_CHECKING:
    from PIL import Image

Radius = float | str
"""Pixels of the original, or a share of each component's diagonal such as ``"2%"`` (then at least 4 pixels)."""


@dataclass(frozen=True, eq=False)
class Mask:
    """A mask of a frame; equal when frame and values are equal.

    Attributes:
        frame: the box the mask speaks about; has an area.
        tiles: disjoint `(box, uint8 array (h, w), read-only)`, sorted by top and left. Whatever pieces are given
            (inside the frame, disjoint) are brought into one canonical form that depends on the values only.
        outside: 0 or 255, the value in the frame where no tile is; canonical too.

    Raises:
        MaskError: a frame without area; tiles of another dtype or shape than their box, or not in the frame.
    """

    frame: Box
    tiles: tuple[tuple[Box, Bytes], ...] = ()
    outside: int = 0

    def __post_init__(self) -> None:
        frame = Box(*(int(n) for n in self.frame))
        if frame.is_empty:
            raise MaskError(f"mask: frame {frame} has no area")
        if self.outside not in (0, 255):
            raise MaskError(f"mask: outside must be 0 or 255, got {self.outside!r}")
        for box, values in self.tiles:
            if values.dtype != np.uint8 or values.shape != (box.height, box.width):
                raise MaskError(f"mask: tile {box} must be uint8 {box.size}, got {values.dtype} {values.shape}")
            if not frame.contains(box):
                raise MaskError(f"mask: tile {box} is not inside the frame {frame}")
        tiles, outside = canonical(frame, self.tiles, self.outside)
        object.__setattr__(self, "frame", frame)
        object.__setattr__(self, "tiles", tiles)
        object.__setattr__(self, "outside", outside)

    # -- made from ------------------------------------------------------------------------------------------------

    @classmethod
    def empty(cls, frame: Box) -> Mask:
        """Nothing selected."""
        return cls(frame)

    @classmethod
    def full(cls, frame: Box) -> Mask:
        """Everything selected."""
        return cls(frame, (), 255)

    @classmethod
    def from_box(cls, frame: Box, box: Box) -> Mask:
        """255 in the part of `box` that lies in `frame`; `box` may be empty."""
        inner = box.intersect(frame)
        return cls(frame, ((inner, np.full((inner.height, inner.width), 255, np.uint8)),) if inner.area else ())

    @classmethod
    def from_array(cls, array: npt.NDArray[Any], frame: Box | None = None, origin: tuple[int, int] = (0, 0)) -> Mask:
        """Place `array` (h, w), bool or uint8 0-255, with its left top pixel at `origin` = (x, y) of the plane.

        Without `frame` the frame is the array's own box.

        Raises:
            MaskError: another dtype or shape, or an array that reaches beyond the frame.
        """
        if array.ndim != 2 or array.dtype not in (np.uint8, np.bool_):
            raise MaskError(f"mask array: must be (h, w) bool or uint8, got {array.dtype} {array.shape}")
        values = array.astype(np.uint8) * np.uint8(255) if array.dtype == np.bool_ else array
        box = Box(0, 0, array.shape[1], array.shape[0]).shift(*origin)
        if frame is not None and not frame.contains(box):
            raise MaskError(f"mask array: covers {box}, which is not inside the frame {frame}")
        return cls(box if frame is None else frame, ((box, values.astype(np.uint8, copy=False)),) if box.area else ())

    @classmethod
    def from_polygon(cls, frame: Box, points: Sequence[Any] | npt.NDArray[Any]) -> Mask:
        """255 where a pixel's centre lies inside a polygon; parts beyond the frame are cut off.

        Args:
            frame: the mask's frame.
            points: one ring as `(x, y)` pairs or flat `x, y, x, y, ...`, or a list of rings, of which the pixels
                inside an odd number are taken (so that a ring in a ring is a hole). Pixel (0, 0) covers 0-1.

        Raises:
            MaskError: fewer than three points, an odd number of coordinates, or values that are not finite.
        """
        from toolkit.maskfile import polygon_rings

        rings = polygon_rings(points)
        every = np.concatenate(rings)
        low, high = np.floor(every.min(axis=0)), np.ceil(every.max(axis=0))
        box = Box(int(low[0]), int(low[1]), int(high[0]), int(high[1])).intersect(frame)
        if box.is_empty:
            return cls(frame)
        values = morphology.polygon([ring - (box.left, box.top) for ring in rings], box.width, box.height)
        return cls(frame, ((box, values),))

    @classmethod
    def from_coco_rle(cls, counts: Sequence[int] | str | bytes, size: tuple[int, int]) -> Mask:
        """Read a COCO run-length code, plain (list) or compressed (str or bytes); `size` is (height, width).

        Raises:
            MaskError: runs that are negative or do not add up to the size.
        """
        from toolkit.maskfile import decode_rle

        return cls(Box(0, 0, int(size[1]), int(size[0])), decode_rle(counts, size))

    @classmethod
    def from_file(
        cls,
        source: str | os.PathLike[str] | bytes | Image.Image,
        frame: Box | None = None,
        *,
        fit: bool = False,
        name: str | None = None,
    ) -> tuple[Mask, str]:
        """Read a picture as a hard mask, white = selected, and say in one sentence how it was understood.

        Args:
            source: path, file content or PIL image: 1-bit, grey, palette, RGB, with alpha, 8 or 16 bit; EXIF
                orientation is applied.
            frame: what the mask must cover; its own size if None.
            fit: resize a mask of another size instead of refusing it.
            name: what errors and the sentence call it, instead of the path.

        Raises:
            MaskError: unreadable, too large, or of another size than `frame` without `fit`.
        """
        from toolkit.maskfile import read_mask

        values, sentence = read_mask(source, None if frame is None else frame.size, fit=fit, name=name)
        frame = frame or Box(0, 0, values.shape[1], values.shape[0])
        return cls.from_array(values, frame, (frame.left, frame.top)), sentence

    # -- looked at ------------------------------------------------------------------------------------------------

    def array(self, box: Box | None = None) -> Bytes:
        """The values in `box` (the frame if None) as a new uint8 array (h, w); 0 beyond the frame."""
        box = self.frame if box is None else box
        values = np.zeros((max(0, box.height), max(0, box.width)), np.uint8)
        if self.outside:
            values[box.intersect(self.frame).within(box).slices] = self.outside
        for index in meeting(self._edges, box):
            tile, content = self.tiles[index]
            shared = tile.intersect(box)
            values[shared.within(box).slices] = content[shared.within(tile).slices]
        return values

    @cached_property
    def _edges(self) -> npt.NDArray[np.int64]:
        return edges_of(box for box, _ in self.tiles)

    @cached_property
    def box(self) -> Box:
        """The smallest box around everything that is not 0; empty, at the frame's corner, when nothing is."""
        if self.outside:
            return self._bounds_of_mostly_set()
        if not self.tiles:
            return Box(self.frame.left, self.frame.top, self.frame.left, self.frame.top)
        low, high = self._edges.min(axis=0), self._edges.max(axis=0)
        return Box(int(low[0]), int(low[1]), int(high[2]), int(high[3]))

    def _bounds_of_mostly_set(self) -> Box:
        """The bounding box where `outside` is 255: the frame, less border rows and columns that are all 0."""
        frame = self.frame
        rows, columns = np.full(frame.height, frame.width), np.full(frame.width, frame.height)
        for box, values in self.tiles:
            inner = box.within(frame)
            rows[inner.top : inner.bottom] -= np.count_nonzero(values == 0, axis=1)
            columns[inner.left : inner.right] -= np.count_nonzero(values == 0, axis=0)
        y, x = np.flatnonzero(rows), np.flatnonzero(columns)
        return Box(int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1).shift(frame.left, frame.top)

    @cached_property
    def area(self) -> int:
        """How many pixels are not 0."""
        zeros = sum(values.size - cv2.countNonZero(values) for _, values in self.tiles)
        covered = self.frame.area if self.outside else sum(box.area for box, _ in self.tiles)
        return covered - zeros

    @property
    def is_empty(self) -> bool:
        """True when every pixel is 0."""
        return not self.outside and not self.tiles

    @property
    def is_full(self) -> bool:
        """True when every pixel is 255."""
        return bool(self.outside) and not self.tiles

    @cached_property
    def is_hard(self) -> bool:
        """True when there is no value but 0 and 255."""
        return all(not cv2.countNonZero(cv2.inRange(values, 1, 254)) for _, values in self.tiles)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of frame and values, in hexadecimal; equal for equal masks."""
        total = hashlib.sha256(f"{self.frame} {self.outside}".encode())
        for box, values in self.tiles:
            total.update(f" {box} ".encode())
            total.update(values.data)
        return total.hexdigest()

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Mask):
            return NotImplemented
        return (
            self.frame == other.frame
            and self.outside == other.outside
            and len(self.tiles) == len(other.tiles)
            and all(a == b and np.array_equal(x, y) for (a, x), (b, y) in zip(self.tiles, other.tiles, strict=True))
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def __reduce__(self) -> tuple[Any, ...]:
        """Made anew when unpickled, so that the arrays are read-only there too."""
        return Mask, (self.frame, self.tiles, self.outside)

    def __repr__(self) -> str:
        return f"Mask(frame={self.frame}, box={self.box}, area={self.area}, tiles={len(self.tiles)})"

    # -- grown, shrunk and softened ---------------------------------------------------------------------------------

    def dilate(self, radius: Radius) -> Mask:
        """Every pixel whose centre lies at most `radius` from a selected pixel's, cut off at the frame.

        Raises:
            ParameterError: a radius that is no number >= 0 and no percentage.
            MaskError: the mask has soft values.
        """
        return self._each("dilate", radius, lambda part, pixels: part._spread(pixels, 255))

    def erode(self, radius: Radius) -> Mask:
        """Without every pixel at most `radius` from a pixel of the frame that is not selected.

        What is beyond the frame does not count: a mask that touches the frame's border keeps it. Raises as `dilate`.
        """
        return self._each("erode", radius, lambda part, pixels: part._spread(pixels, 0))

    def feather(self, radius: Radius) -> Mask:
        """Blurred by a Gaussian of sigma = radius / 3 cut off at `radius`; the frame's border is repeated beyond it.

        Within 3 of 255 of the exact value. With a percentage the components' blurs are added.

        Raises:
            ParameterError: as `dilate`.
        """
        return self._each("feather", radius, Mask._blurred, join=cv2.add)

    def ramp(self, core: Mask, radius: Radius) -> Mask:
        """The blend weight: 255 on `core`, falling smoothly to 0 over the outer `radius` pixels of this mask.

        Never above 0 outside this mask. Where the margin between `core` and the edge is narrower than the radius
        the fall is steeper; `margin(core)` tells how narrow it gets. With d the distance to the outside and c that
        to the core, the weight is smoothstep(d / min(radius, d + c)).

        Args:
            core: a hard subset of this mask, in the same frame.
            radius: as in `dilate`; a percentage is of this mask's components.

        Raises:
            MaskError: `core` is not a subset, has another frame, or one of the two has soft values.
            ParameterError: as `dilate`.
        """
        self._check_core(core)
        return self._each("ramp", radius, lambda part, pixels: part._ramped(core, pixels))

    def margin(self, core: Mask) -> float:
        """The smallest distance in pixels from a pixel of `core` to a pixel of the frame outside this mask.

        Infinite when there is no core or no outside. Raises MaskError as `ramp`.
        """
        self._check_core(core)
        reach, farthest = 128.0, self.frame.diagonal
        while not core.is_empty and not self.is_full:
            narrowest = math.inf
            for window, source, inner in self._local(reach, grow=self.outside == 255):
                found = morphology.distance(self.array(source))[inner][core.array(window) != 0]
                narrowest = min(narrowest, float(found.min(initial=math.inf)))
            if narrowest <= reach:
                return math.sqrt(round(narrowest**2))  # a whole number, less its float32 rounding
            if reach > farthest:
                break
            reach *= 4
        return math.inf

    def _check_core(self, core: Mask) -> None:
        self._check_frame(core)
        self._check_hard("ramp")
        core._check_hard("ramp")
        if not core.subtract(self).is_empty:
            raise MaskError("ramp: the core must lie inside the mask")

    def _check_frame(self, other: Mask) -> None:
        if self.frame != other.frame:
            raise MaskError(f"masks of different frames: {self.frame} and {other.frame}")

    def _check_hard(self, operation: str) -> None:
        if not self.is_hard:
            raise MaskError(f"{operation}: the mask has soft values (between 0 and 255); threshold it first")

    def _each(
        self,
        operation: str,
        radius: Radius,
        apply: Callable[[Mask, float], Mask],
        join: Callable[[Bytes, Bytes], Any] = cv2.max,
    ) -> Mask:
        """`apply` with a radius in pixels, or to the components of each radius a percentage comes to."""
        share, pixels = morphology.parsed_radius(operation, radius)
        if operation in ("dilate", "erode"):
            self._check_hard(operation)
        if share is None:
            return apply(self, pixels) if pixels else self
        groups: dict[float, list[Mask]] = {}
        for part in self.components():
            groups.setdefault(max(4.0, share * part.box.diagonal), []).append(part)
        done = [apply(_together(parts), size) for size, parts in groups.items()] or [self]
        return functools.reduce(lambda one, two: one._combined(two, join), done)

    def _local(self, reach: float, *, grow: bool) -> Iterator[tuple[Box, Box, tuple[slice, slice]]]:
        return readings(self._edges, self.frame, math.ceil(reach), grow=grow)

    def _through(self, reach: float, grow: bool, change: Callable[[Bytes, Box], Bytes]) -> Mask:
        """The mask with `change(values, box)` done to every window; windows of one value are left as they are."""
        pieces = []
        for window, source, inner in self._local(reach, grow=grow):
            values = self.array(source)
            result = values if constant(values) else change(values, source)
            pieces.append((window, result[inner]))
        return Mask(self.frame, tuple(pieces), self.outside)

    def _spread(self, radius: float, value: int) -> Mask:
        if radius < 1:
            return self

        def change(values: Bytes, _: Box) -> Bytes:
            reached = morphology.near(values, radius, value)
            return reached if value else np.bitwise_not(reached)

        return self._through(radius, self.outside != value, change)

    def _blurred(self, radius: float) -> Mask:
        if radius < 1:
            return self
        return self._through(radius, True, lambda values, _: morphology.gaussian(values, radius))

    def _ramped(self, core: Mask, radius: float) -> Mask:
        def change(values: Bytes, box: Box) -> Bytes:
            return morphology.ramp(values, np.minimum(core.array(box), values), radius)

        return self._through(radius, self.outside == 255, change)

    def fill_holes(self, max_area: int | None = None) -> Mask:
        """Holes set to 255: zero pixels that no path of side-by-side zero pixels joins to the frame's border.

        Args:
            max_area: fill only holes of at most this many pixels.

        Raises:
            ParameterError: a negative `max_area`.
        """
        if max_area is not None and max_area < 0:
            raise ParameterError(f"fill_holes.max_area: expected a number of pixels >= 0, got {max_area!r}")
        pieces = []
        for box, _ in self.tiles:
            window = box.grow(1).intersect(self.frame)
            pieces.append((box, morphology.filled(self.array(window), max_area)[box.within(window).slices]))
        return Mask(self.frame, tuple(pieces), self.outside)

    # -- combined -------------------------------------------------------------------------------------------------

    def invert(self) -> Mask:
        """255 minus every value."""
        return Mask(self.frame, tuple((box, np.bitwise_not(v)) for box, v in self.tiles), 255 - self.outside)

    def union(self, other: Mask) -> Mask:
        """The larger of the two values. Raises MaskError when the frames differ."""
        return self._combined(other, cv2.max)

    def intersect(self, other: Mask) -> Mask:
        """The smaller of the two values. Raises MaskError when the frames differ."""
        return self._combined(other, cv2.min)

    def subtract(self, other: Mask) -> Mask:
        """The smaller of this value and 255 minus the other. Raises MaskError when the frames differ."""
        return self._combined(other, lambda mine, its: cv2.min(mine, cv2.bitwise_not(its)))

    def _combined(self, other: Mask, join: Callable[[Bytes, Bytes], Any]) -> Mask:
        self._check_frame(other)
        boxes = windows([box for box, _ in (*self.tiles, *other.tiles)], self.frame)
        pieces = [(box, np.asarray(join(self.array(box), other.array(box)), np.uint8)) for box in boxes]
        apart = join(np.full((1, 1), self.outside, np.uint8), np.full((1, 1), other.outside, np.uint8))
        return Mask(self.frame, tuple(pieces), int(apart[0, 0]))

    def __or__(self, other: Mask) -> Mask:
        return self.union(other)

    def __and__(self, other: Mask) -> Mask:
        return self.intersect(other)

    def __sub__(self, other: Mask) -> Mask:
        return self.subtract(other)

    def __invert__(self) -> Mask:
        return self.invert()

    def threshold(self, level: int = 128) -> Mask:
        """255 where the value is at least `level` (1-255), otherwise 0. Raises ParameterError for another level."""
        if not 1 <= level <= 255:
            raise ParameterError(f"threshold.level: expected 1 to 255, got {level!r}")
        pieces = ((box, np.greater_equal(v, level).view(np.uint8) * np.uint8(255)) for box, v in self.tiles)
        return Mask(self.frame, tuple(pieces), self.outside)

    # -- taken apart ----------------------------------------------------------------------------------------------

    def components(self, connectivity: int = 8) -> list[Mask]:
        """The connected groups of non-zero pixels, values kept, sorted by the top and left of their boxes.

        Raises:
            ParameterError: a connectivity other than 4 or 8.
        """
        if connectivity not in (4, 8):
            raise ParameterError(f"components.connectivity: expected 4 or 8, got {connectivity!r}")
        return list(self._touching) if connectivity == 8 else self._apart(4)

    @cached_property
    def _touching(self) -> tuple[Mask, ...]:
        return tuple(self._apart(8))

    def _apart(self, connectivity: int) -> list[Mask]:
        places, background = [box.grow(1).intersect(self.frame) for box, _ in self.tiles], self.outside
        if self.outside and any(box.width == self.frame.width or box.height == self.frame.height for box in places):
            # A tile as long as the frame may part what is outside the tiles; then only the frame itself tells.
            places, background = [self.frame], 0
        parts: list[Mask] = []
        rest: list[tuple[Box, Bytes]] = []
        for place in places:
            values = self.array(place)
            if connectivity == 8 and not background and _is_one(values):
                parts.append(Mask(self.frame, ((place, values),)))
                continue
            count, labels, stats, _ = cv2.connectedComponentsWithStats(values, connectivity=connectivity)
            outer: set[int] = set()
            if background:
                edges = (labels[:, 0], labels[0], labels[:, -1], labels[-1])
                for edge, mine, its in zip(edges, place, self.frame, strict=True):
                    if mine != its:  # beyond this edge lies what is outside the tiles
                        outer |= set(np.unique(edge).tolist())
            for label in range(1, count):
                if label in outer:
                    continue
                left, top, width, height, _ = (int(n) for n in stats[label])
                box = Box(left, top, left + width, top + height)
                piece = np.where(labels[box.slices] == label, values[box.slices], np.uint8(0))
                parts.append(Mask(self.frame, ((box.shift(place.left, place.top), piece),)))
            if background:
                rest.append((place, np.where(np.isin(labels, list(outer)), values, np.uint8(0))))
        if background:
            parts.append(Mask(self.frame, tuple(rest), 255))
        return sorted(parts, key=lambda part: (part.box.top, part.box.left))

    def largest(self, n: int = 1) -> Mask:
        """The `n` components with the most pixels (the upper left ones of equals). Raises ParameterError if n < 1."""
        if n < 1:
            raise ParameterError(f"largest.n: expected a whole number >= 1, got {n!r}")
        parts = sorted(self.components(), key=lambda part: -part.area)[:n]
        return _together(parts) if parts else self

    def keep(self, min_area: int) -> Mask:
        """The components of at least `min_area` pixels; may be empty."""
        parts = [part for part in self.components() if part.area >= min_area]
        return _together(parts) if parts else Mask.empty(self.frame)

    # -- placed and written -----------------------------------------------------------------------------------------

    def shift(self, x: int, y: int) -> Mask:
        """The mask with its frame moved by `x` to the right and `y` down."""
        return Mask(self.frame.shift(x, y), tuple((box.shift(x, y), v) for box, v in self.tiles), self.outside)

    def with_frame(self, frame: Box) -> Mask:
        """The same values in another frame: cut off where it is smaller, 0 where it is larger."""
        if self.outside:
            shared = frame.intersect(self.frame)
            boxes = [box.intersect(frame) for box, _ in self.tiles]
            inside = Mask(frame, tuple((box, self.array(box)) for box in boxes if box.area), 255 if shared.area else 0)
            return inside if shared == frame else inside.intersect(Mask.from_box(frame, shared))
        boxes = [box.intersect(frame) for box, _ in self.tiles]
        return Mask(frame, tuple((box, self.array(box)) for box in boxes if box.area))

    def to_polygons(self) -> list[npt.NDArray[np.int64]]:
        """Rings of (n, 2) points x, y along the pixels' edges; `from_polygon(frame, rings)` gives a hard mask back.

        Holes are rings too. Raises MaskError for soft values.
        """
        self._check_hard("to_polygons")
        places = [box for box, _ in self.tiles] if not self.outside else [self.frame]
        return [ring + np.array(box[:2]) for box in places for ring in morphology.outlines(self.array(box))]

    def to_coco_rle(self) -> dict[str, Any]:
        """`{"size": [height, width], "counts": str}`, COCO's compressed run-length code of a hard mask.

        Raises:
            MaskError: the mask has soft values.
        """
        from toolkit.maskfile import encode_rle

        self._check_hard("to_coco_rle")
        counts = encode_rle(self.frame, self.tiles, self.outside)
        return {"size": [self.frame.height, self.frame.width], "counts": counts}

    def save(self, path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a grey PNG, 1 bit a pixel if the mask is hard and 8 otherwise; whole or not at all.

        Raises:
            OutputError: the file exists and `overwrite` is False, or it cannot be written.
        """
        from toolkit.maskfile import write_mask

        write_mask(Path(path), self.array(), hard=self.is_hard, overwrite=overwrite)


def _together(parts: Sequence[Mask]) -> Mask:
    """The union of components of one mask, which share no pixel."""
    if len(parts) == 1:
        return parts[0]
    frame = parts[0].frame
    outer = next((part for part in parts if part.outside), Mask.empty(frame))
    boxes = windows([box for part in parts for box, _ in part.tiles], frame)
    pieces = [(box, outer.array(box)) for box in boxes]
    edges = edges_of(boxes)
    for part in parts:
        for box, values in part.tiles if part is not outer else ():
            for index in meeting(edges, box):
                window, joined = pieces[index]
                shared = box.intersect(window)
                target = joined[shared.within(window).slices]
                np.maximum(target, values[shared.within(box).slices], out=target)
    return Mask(frame, tuple(pieces), outer.outside)


def _is_one(values: Bytes) -> bool:
    """Whether the pixels of `values` that are not 0 hang together, corners counting."""
    ranks = cv2.findContours(values, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[1]
    return ranks is not None and int(np.count_nonzero(ranks[0, :, 3] < 0)) == 1
