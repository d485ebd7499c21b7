"""Boxes, sizes, limits and prices: pure arithmetic, no pixels.

Coordinates are whole pixels of the upright original (EXIF orientation applied), x to the right and
y down. Boxes are half-open: `right` and `bottom` are one past the last pixel.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import NamedTuple

from toolkit.errors import ParameterError


class Size(NamedTuple):
    """Width and height in pixels."""

    width: int
    height: int

    @property
    def area(self) -> int:
        """Width times height."""
        return self.width * self.height

    @property
    def megapixels(self) -> float:
        """Area in millions of pixels."""
        return self.area / 1e6

    def __str__(self) -> str:
        return f"{self.width}x{self.height}"


class Box(NamedTuple):
    """A half-open rectangle `(left, top, right, bottom)`; may be negative where a canvas grows."""

    left: int
    top: int
    right: int
    bottom: int

    @classmethod
    def of_size(cls, size: tuple[int, int]) -> Box:
        """The box from (0, 0) to `size` = (width, height)."""
        return cls(0, 0, size[0], size[1])

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read ``"left,top,right,bottom"`` or ``"WxH+X+Y"`` (X and Y may be negative).

        Raises:
            ParameterError: when the text is neither form, or the box is reversed or has no area.
        """
        numbers = re.fullmatch(r"\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*,\s*(-?\d+)\s*", text)
        placed = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*([+-]\d+)\s*([+-]\d+)\s*", text)
        if numbers:
            box = cls(*(int(n) for n in numbers.groups()))
        elif placed:
            width, height, x, y = (int(n) for n in placed.groups())
            box = cls(x, y, x + width, y + height)
        else:
            raise ParameterError(
                f"box {text!r}: expected left,top,right,bottom (whole pixels, e.g. 120,80,400,300) or WxH+X+Y"
            )
        return box.checked()

    def checked(self) -> Box:
        """Return the box itself if it has an area.

        Raises:
            ParameterError: when left >= right or top >= bottom; a reversed box is told from one without area.
        """
        if self.left > self.right or self.top > self.bottom:
            fixed = ",".join(str(n) for n in (*map(min, self[:2], self[2:]), *map(max, self[:2], self[2:])))
            raise ParameterError(f"box {self}: reversed, left,top must come before right,bottom; did you mean {fixed}?")
        if self.is_empty:
            raise ParameterError(f"box {self}: has no area ({self.width}x{self.height} pixels)")
        return self

    @property
    def width(self) -> int:
        """Pixels from left to right."""
        return self.right - self.left

    @property
    def height(self) -> int:
        """Pixels from top to bottom."""
        return self.bottom - self.top

    @property
    def size(self) -> Size:
        """Width and height."""
        return Size(self.width, self.height)

    @property
    def area(self) -> int:
        """Pixels inside; 0 for an empty box."""
        return max(0, self.width) * max(0, self.height)

    @property
    def diagonal(self) -> float:
        """Length of the diagonal in pixels."""
        return math.hypot(self.width, self.height)

    @property
    def is_empty(self) -> bool:
        """True when no pixel is inside."""
        return self.right <= self.left or self.bottom <= self.top

    @property
    def slices(self) -> tuple[slice, slice]:
        """`(rows, columns)` for indexing an array whose origin is (0, 0)."""
        return slice(self.top, self.bottom), slice(self.left, self.right)

    def grow(self, x: int, y: int | None = None) -> Box:
        """Move every side outward by `x` pixels (`y` at top and bottom if given); negative shrinks."""
        y = x if y is None else y
        return Box(self.left - x, self.top - y, self.right + x, self.bottom + y)

    def shift(self, x: int, y: int) -> Box:
        """The same box moved by `x` to the right and `y` down."""
        return Box(self.left + x, self.top + y, self.right + x, self.bottom + y)

    def within(self, origin: Box) -> Box:
        """This box in coordinates whose origin is the left top corner of `origin`."""
        return self.shift(-origin.left, -origin.top)

    def intersect(self, other: Box) -> Box:
        """The common part; empty (never reversed) where there is none."""
        left, top = max(self.left, other.left), max(self.top, other.top)
        return Box(left, top, max(left, min(self.right, other.right)), max(top, min(self.bottom, other.bottom)))

    def union(self, other: Box) -> Box:
        """The smallest box around both; an empty box adds nothing."""
        if self.is_empty:
            return other
        if other.is_empty:
            return self
        return Box(
            min(self.left, other.left),
            min(self.top, other.top),
            max(self.right, other.right),
            max(self.bottom, other.bottom),
        )

    def contains(self, other: Box) -> bool:
        """True when no pixel of `other` lies outside."""
        return other.is_empty or (
            self.left <= other.left
            and self.top <= other.top
            and other.right <= self.right
            and other.bottom <= self.bottom
        )

    def touches(self, other: Box) -> bool:
        """True when the two share at least one pixel."""
        return not self.intersect(other).is_empty

    def moved_into(self, frame: Box) -> Box:
        """Slid, not cut, so that it lies inside `frame` as far as it fits; centred on an axis where it does not."""

        def slide(low: int, high: int, first: int, last: int) -> int:
            if high - low > last - first:
                return (first + last - (high - low)) // 2 - low
            return max(first - low, 0) or min(last - high, 0)

        return self.shift(
            slide(self.left, self.right, frame.left, frame.right),
            slide(self.top, self.bottom, frame.top, frame.bottom),
        )

    def __str__(self) -> str:
        return f"{self.left},{self.top},{self.right},{self.bottom}"


@dataclass(frozen=True)
class Limits:
    """What sizes an engine accepts, and which it likes best.

    Attributes:
        min_side: smallest width or height in pixels.
        max_side: largest width or height in pixels.
        multiple_of: both sides are multiples of this.
        best_pixels: the area at which the engine works best; a window is never enlarged beyond it.
        max_pixels: the largest area accepted; None where `max_side` is the only limit.
        context: the window is at least this many times the hole's box on each axis, where the photo allows.
        upscale: how far a small window may be enlarged on its way to `best_pixels` (1 = never beyond
            what `min_side` demands).
    """

    min_side: int = 1
    max_side: int = 1 << 16
    multiple_of: int = 1
    best_pixels: int = 1 << 20
    max_pixels: int | None = None
    context: float = 2.0
    upscale: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.multiple_of <= self.max_side or not 1 <= self.min_side <= self.max_side:
            raise ParameterError(
                f"limits: min_side {self.min_side}, max_side {self.max_side} and "
                f"multiple_of {self.multiple_of} cannot be met together"
            )
        if self.smallest_side > self.largest_side:
            raise ParameterError(
                f"limits: no multiple of {self.multiple_of} lies between {self.min_side} and {self.max_side}"
            )
        if self.best_pixels < 1:
            raise ParameterError(f"limits: best_pixels must be at least 1, got {self.best_pixels}")
        if self.max_pixels is not None and self.max_pixels < self.smallest_side**2:
            raise ParameterError(
                f"limits: max_pixels {self.max_pixels} is less than the smallest size, {self.smallest_side} squared"
            )
        for name in ("context", "upscale"):
            if not 1 <= getattr(self, name) < math.inf:
                raise ParameterError(f"limits: {name} must be at least 1 and finite, got {getattr(self, name)}")

    @property
    def smallest_side(self) -> int:
        """The smallest side that is accepted: `min_side` rounded up to a multiple."""
        return snap(self.min_side, self.multiple_of, up=True)

    @property
    def largest_side(self) -> int:
        """The largest side that is accepted: `max_side` rounded down to a multiple."""
        return snap(self.max_side, self.multiple_of, up=False)

    @property
    def largest_area(self) -> int:
        """The largest area that is accepted."""
        return self.max_pixels or self.largest_side**2

    def accepts(self, size: tuple[int, int]) -> bool:
        """True when both sides are allowed lengths and the area is within `max_pixels`."""
        return (
            all(self.min_side <= n <= self.max_side and n % self.multiple_of == 0 for n in size)
            and size[0] * size[1] <= self.largest_area
        )


@dataclass(frozen=True)
class Price:
    """What an engine costs: `per_image` in `currency`; 0 = free."""

    per_image: float = 0.0
    currency: str = "USD"

    def of(self, images: int) -> float:
        """The price of `images` images."""
        return round(self.per_image * images, 6)


def snap(length: float, multiple: int, *, up: bool) -> int:
    """The nearest multiple not below (`up`) or not above `length`, at least one multiple."""
    steps = math.ceil(length / multiple - 1e-9) if up else math.floor(length / multiple + 1e-9)
    return max(1, steps) * multiple


def scaled(size: tuple[int, int], factor: float) -> Size:
    """`size` times `factor`, rounded, at least one pixel a side."""
    return Size(max(1, round(size[0] * factor)), max(1, round(size[1] * factor)))
