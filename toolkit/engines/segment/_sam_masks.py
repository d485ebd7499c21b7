"""SAM's small logits as masks at a photo's full size, at a cost that follows the object's outline and not the frame.

The reference enlarges the logits bilinearly to the network's square, cuts its padding off and enlarges the rest
bilinearly to the photo, all of it in floating point. Between four values on one side of the threshold every
interpolated value is on that side, too; so only pixels between values on both sides, along the outline, are computed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box, Size

Bytes = npt.NDArray[np.uint8]
Logits = npt.NDArray[np.float32]

FACTOR = 4  # from logits to the network's square
MARGIN = 2  # logits around the object that enlarging it can reach


@dataclass(frozen=True)
class Axis:
    """Where the values of one axis come from when `source` values are enlarged or reduced bilinearly to `target`.

    As `torch.nn.functional.interpolate` has it with `align_corners=False`.
    """

    source: int
    target: int

    @cached_property
    def first(self) -> npt.NDArray[np.intp]:
        """(target,) index of the value before."""
        return self._real.astype(np.intp).clip(0, self.source - 1)

    @cached_property
    def second(self) -> npt.NDArray[np.intp]:
        """(target,) index of the value after; at the end the same again."""
        return np.minimum(self.first + 1, self.source - 1)

    @cached_property
    def share(self) -> Logits:
        """(target,) weight of `second`, 0-1."""
        shares: Logits = (self._real - self.first.astype(np.float32)).clip(0, 1)
        return shares

    @cached_property
    def _real(self) -> Logits:
        # Rounded once, as processors that multiply and add in one step do it.
        scale = np.float64(np.float32(self.source) / np.float32(self.target))
        places = (scale * (np.arange(self.target) + 0.5) - 0.5).astype(np.float32)
        real: Logits = np.maximum(places, np.float32(0))
        return real

    def within(self, low: int, high: int) -> slice:
        """Those whose two values lie in [low, high)."""
        begin = np.searchsorted(self.first, low, "left")
        return slice(int(begin), max(int(begin), int(np.searchsorted(self.second, high - 1, "right"))))


@dataclass(frozen=True)
class Enlarging:
    """From logits to a photo.

    Attributes:
        side: of the network's square.
        photo: the photo's size.
    """

    side: int
    photo: Size

    @cached_property
    def inner(self) -> Size:
        """The size of the photo in the square, its longer side all of it."""
        scale = self.side * 1.0 / max(self.photo)
        return Size(int(self.photo.width * scale + 0.5), int(self.photo.height * scale + 0.5))

    @cached_property
    def across(self) -> Axis:
        """From the square to the photo, along x."""
        return Axis(self.inner.width, self.photo.width)

    @cached_property
    def down(self) -> Axis:
        """From the square to the photo, along y."""
        return Axis(self.inner.height, self.photo.height)

    def mask(self, logits: Logits, threshold: float = 0.0) -> tuple[Box, Bytes] | None:
        """Where the enlarged logits are above the threshold: a box in the photo and its values (h, w), 0 or 255.

        None where they are nowhere.

        Args:
            logits: (side / 4, side / 4).
            threshold: what is above is inside.
        """
        place, middle = self._middle(logits, threshold)
        if middle is None:
            return None
        rows, columns = self.down.within(place.top, place.bottom), self.across.within(place.left, place.right)
        if rows.start == rows.stop or columns.start == columns.stop:
            return None
        # Of the four values around each: 0 none, 255 all above, 1 some.
        above = middle > threshold
        ends = np.pad(above, ((0, 1), (0, 1)), "edge")
        both = np.stack([ends[:-1, :-1], ends[:-1, 1:], ends[1:, :-1], ends[1:, 1:]])
        kind = np.where(both.all(0), np.uint8(255), both.any(0).astype(np.uint8))
        y, x = self.down.first[rows] - place.top, self.across.first[columns] - place.left
        values = kind.take(x, 1).take(y, 0)
        at_y, at_x = np.nonzero(values == 1)
        values[at_y, at_x] = self._between(middle, place, rows.start + at_y, columns.start + at_x) > threshold
        values[values == 1] = 255
        return Box(columns.start, rows.start, columns.stop, rows.stop), values

    def area(self, logits: Logits, threshold: float) -> int:
        """How many of the photo's pixels are above the threshold."""
        found = self.mask(logits, threshold)
        return 0 if found is None else int(np.count_nonzero(found[1]))

    def _middle(self, logits: Logits, threshold: float) -> tuple[Box, Logits | None]:
        """The part of the square, without its padding, where something may be above the threshold."""
        import torch

        above = logits > threshold
        y, x = np.flatnonzero(above.any(1)), np.flatnonzero(above.any(0))
        if not y.size:
            return Box(0, 0, 0, 0), None
        part = Box(int(x[0]), int(y[0]), int(x[-1]) + 1, int(y[-1]) + 1).grow(MARGIN)
        part = part.intersect(Box(0, 0, logits.shape[1], logits.shape[0]))
        values = torch.tensor(logits[part.slices], dtype=torch.float32)[None, None]
        size = (part.height * FACTOR, part.width * FACTOR)
        middle = torch.nn.functional.interpolate(values, size, mode="bilinear", align_corners=False)[0, 0].numpy()
        place = Box(*(FACTOR * n for n in part))
        inside = place.intersect(Box.of_size(self.inner))
        if inside.is_empty:
            return inside, None
        return inside, middle[inside.within(place).slices]

    def _between(self, middle: Logits, place: Box, y: npt.NDArray[Any], x: npt.NDArray[Any]) -> Logits:
        """The enlarged logits at some of the photo's pixels."""
        top, bottom = self.down.first[y] - place.top, self.down.second[y] - place.top
        left, right = self.across.first[x] - place.left, self.across.second[x] - place.left
        to_right, to_bottom = self.across.share[x], self.down.share[y]
        one = np.float32(1)
        upper = middle[top, left] * (one - to_right) + middle[top, right] * to_right
        lower = middle[bottom, left] * (one - to_right) + middle[bottom, right] * to_right
        found: Logits = upper * (one - to_bottom) + lower * to_bottom
        return found
