"""A photo with its patches as the canvas shows it: window by window where little changed, otherwise strip by strip."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit import blend
from toolkit.errors import FidelityError
from toolkit.geometry import Box
from toolkit.patch import Canvas, Patch, Pixels, differing, with_alpha
from toolkit.photo import Photo
from toolkit.photo.raster import strips

_STRIP = 1 << 19
"""Pixels of the photo's plane that are worked on at once."""


@dataclass
class Record:
    """What was found while a drawing was made; lets a written file be checked without the photo's pixels.

    Attributes:
        kept: for each strip of the picture a hash of the photo's own pixels that no patch touches.
        changed: how many pixels of the photo came out different.
    """

    kept: dict[Box, bytes] = field(default_factory=dict)
    changed: int = 0


@dataclass(frozen=True, eq=False)
class Drawing:
    """What is saved: `photo` with `patches` laid on from the bottom up, as `canvas` shows it."""

    photo: Photo
    patches: tuple[Patch, ...]
    canvas: Canvas

    @property
    def bands(self) -> int:
        """C of the pixels: the photo's bands, or with an alpha if a patch makes one."""
        return max([self.photo.channels + self.photo.has_alpha, *(patch.bands for patch in self.patches)])

    @property
    def moved(self) -> bool:
        """Whether another part of the plane is shown than the photo, or at another scale."""
        return self.canvas != Canvas(self.photo.box, self.photo.size)

    @property
    def is_whole(self) -> bool:
        """Whether the picture is to be made anew rather than the photo's changed in some windows."""
        return self.moved or any(patch.by_box for patch in self.patches)

    @property
    def shows_mirrored(self) -> bool:
        """Whether parts beyond the photo are shown on which no backdrop lies."""
        shown = self.canvas.box
        laid = any(patch.by_box and patch.box.contains(shown) for patch in self.patches)
        return not laid and not self.photo.box.contains(shown)

    def plane(self, box: Box) -> Pixels:
        """The pixels (h, w, C) of a box of the photo's plane, all patches laid on; mirrored beyond the photo."""
        inside = box.intersect(self.photo.box)
        laid = self.photo.crop(box) if inside == box else beyond(box, self.photo.box, self.photo.crop)
        for patch in self.patches:
            laid = patch.over(box, laid)
        return with_alpha(laid, self.bands)

    def touched(self, box: Box) -> npt.NDArray[np.bool_]:
        """Where some patch has weight, (h, w)."""
        found = np.zeros((box.height, box.width), bool)
        for patch in self.patches:
            shared = patch.box.intersect(box)
            if not shared.is_empty:
                found[shared.within(box).slices] |= patch.weight.array(shared) > 0
        return found

    def windows(self) -> Iterator[tuple[Box, Pixels, npt.NDArray[np.bool_]]]:
        """Boxes of the photo that no two share, their pixels, and where these differ from the photo.

        Raises:
            FidelityError: when a pixel of weight 0 came out changed (law 1).
        """
        for group in _groups([patch.box.intersect(self.photo.box) for patch in self.patches]):
            for strip in strips(group.size, _STRIP):
                box = strip.shift(group.left, group.top)
                laid = self.plane(box)
                changed, _, _ = self._compared(box, laid)
                yield box, laid, changed

    def strips(self, record: Record | None = None) -> Iterator[tuple[Box, Pixels]]:
        """The picture of `canvas.size` from top to bottom: boxes over its full width, and their pixels.

        Raises:
            FidelityError: as `windows`; where the picture is resampled, before that.
        """
        canvas = self.canvas
        if canvas.scale == 1:
            for strip in strips(canvas.size, _STRIP):
                yield strip, self._checked(strip.shift(canvas.box.left, canvas.box.top), strip, record)
            return
        noise = any(patch.smooth for patch in self.patches)
        # What lies between the two directions of resampling is as wide as the result and as high as its source.
        rows = _STRIP * min(1.0, canvas.scale) / canvas.size.width - 6
        for strip in strips(canvas.size, max(4, round(rows)) * canvas.size.width):
            values = blend.resampled(
                lambda box: self._checked(box), canvas.box, strip, canvas.scaling, alpha=self.bands in (2, 4)
            )
            yield strip, blend.levels(values, self.photo.dtype, blend.dither(strip) if noise else None)

    def _checked(self, box: Box, strip: Box | None = None, record: Record | None = None) -> Pixels:
        """The plane's pixels, law 1 verified."""
        laid = self.plane(box)
        inside = box.intersect(self.photo.box)
        if inside.is_empty:
            return laid
        changed, original, free = self._compared(inside, laid[inside.within(box).slices])
        if record is not None and strip is not None:
            record.kept[strip] = fingerprint(original[free])
            record.changed += int(np.count_nonzero(changed))
        return laid

    def _compared(self, box: Box, laid: Pixels) -> tuple[npt.NDArray[np.bool_], Pixels, npt.NDArray[np.bool_]]:
        """Where a box of the photo changed; the photo's pixels in it; and where no patch has weight."""
        original = with_alpha(self.photo.crop(box), self.bands)
        changed = differing(laid, original)
        free = ~self.touched(box)
        count = int(np.count_nonzero(changed & free))
        if count:
            raise FidelityError(f"{self.photo.name}: {count} pixels outside the blend band changed in {box}")
        return changed, original, free


def fingerprint(pixels: npt.NDArray[Any]) -> bytes:
    """A hash of pixels (n, C)."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).tobytes(), digest_size=16).digest()


def beyond(box: Box, photo: Box, read: Callable[[Box], npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """What `read` gives inside the photo, mirrored at its border pixels in the rest of `box`."""
    rows, columns = reflected(box.top, box.bottom, photo.height), reflected(box.left, box.right, photo.width)
    reach = Box(int(columns.min()), int(rows.min()), int(columns.max()) + 1, int(rows.max()) + 1)
    mirrored: npt.NDArray[Any] = read(reach)[(rows - reach.top)[:, None], (columns - reach.left)[None, :]]
    return mirrored


def reflected(start: int, stop: int, length: int) -> npt.NDArray[np.intp]:
    """Indices `start..stop` folded into `0..length` by mirroring at the border pixels (edge pixels not repeated)."""
    if length == 1:
        return np.zeros(stop - start, np.intp)
    period = 2 * (length - 1)
    folded = np.abs(np.arange(start, stop)) % period
    return np.asarray(np.where(folded < length, folded, period - folded), np.intp)


def _groups(boxes: list[Box]) -> list[Box]:
    """Boxes that share no pixel, around all of `boxes`."""
    groups: list[Box] = []
    for box in boxes:
        if box.is_empty:
            continue
        merged = box
        while meeting := [group for group in groups if group.touches(merged)]:
            for group in meeting:
                groups.remove(group)
                merged = merged.union(group)
        groups.append(merged)
    return sorted(groups)
