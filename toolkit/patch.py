"""What is laid on a photo, and the part of its plane that is shown."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt

from toolkit import blend
from toolkit.geometry import Box, Size
from toolkit.mask import Mask

Pixels = npt.NDArray[Any]


class Source(Protocol):
    """Pixels of the photo's plane, read by box, so that a backdrop is never held whole."""

    @property
    def bands(self) -> int:
        """C: the photo's bands, or one more, for a source that makes an alpha channel."""
        ...

    @property
    def digest(self) -> str:
        """Equal for equal pixels."""
        ...

    @property
    def smooth(self) -> bool:
        """Whether it falls so gently that rounding would show bands, so that it is dithered."""
        ...

    def read(self, box: Box) -> Pixels:
        """The pixels (h, w, C) of a box of the photo's plane, which may lie beyond the photo; in the photo's type."""
        ...


@dataclass(frozen=True, eq=False)
class Patch:
    """New pixels for a box, mixed in by `weight` (0-255).

    Attributes:
        box: of the photo's plane; beyond the photo only where a canvas reaches there.
        source: an array (h, w, C) in the photo's space and depth, or a `Source` of such.
        weight: 0 = as below, 255 = the source.
    """

    box: Box
    source: Pixels | Source
    weight: Mask

    def __post_init__(self) -> None:
        if isinstance(self.source, np.ndarray):
            object.__setattr__(self, "source", frozen(self.source))

    @property
    def bands(self) -> int:
        """C of the source."""
        return int(self.source.shape[2]) if isinstance(self.source, np.ndarray) else self.source.bands

    @property
    def by_box(self) -> bool:
        """Whether the source is read by box; then it may be as large as the frame."""
        return not isinstance(self.source, np.ndarray)

    @property
    def smooth(self) -> bool:
        """As `Source` says; false for an array."""
        return not isinstance(self.source, np.ndarray) and self.source.smooth

    @property
    def digest(self) -> str:
        """Equal for patches that change a photo alike."""
        state = hashlib.sha256(str(self.box).encode())
        if isinstance(self.source, np.ndarray):
            state.update(np.ascontiguousarray(self.source).tobytes())
        else:
            state.update(self.source.digest.encode())
        state.update(self.weight.digest.encode())
        return state.hexdigest()

    def read(self, box: Box) -> Pixels:
        """The source's pixels of a box inside `self.box`."""
        if isinstance(self.source, np.ndarray):
            return self.source[box.within(self.box).slices]
        return self.source.read(box)

    def over(self, box: Box, pixels: Pixels) -> Pixels:
        """`pixels` (h, w, C) of `box` with this patch laid on; the same array where the two do not meet.

        A source with alpha gives pixels without one an alpha; a source without alpha leaves theirs as it is.
        """
        shared = self.box.intersect(box)
        if shared.is_empty:
            return pixels
        weight = self.weight.array(shared)
        if not weight.any():
            return pixels
        pixels = with_alpha(pixels, self.bands)
        below = pixels if shared == box else pixels[shared.within(box).slices]
        source = self.read(shared)
        if source.shape[2] < below.shape[2]:
            source = np.concatenate([source, below[..., -1:]], axis=2)
        mixed = blend.composite(below, source, weight)
        if shared == box:
            return mixed
        laid = pixels.copy()
        laid[shared.within(box).slices] = mixed
        return laid


@dataclass(frozen=True, eq=False)
class Stack:
    """Variation k of all windows: patches from the bottom up, and a seam score (1 = no seam, higher is worse)."""

    patches: tuple[Patch, ...] = ()
    seam: float | None = None
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class Ground:
    """A background that was painted: its pixels, and the seed they were made with."""

    source: Source
    seed: int


@dataclass(frozen=True, eq=False)
class Shadow:
    """Darkness between the backdrop and the subject: the ground times (1 - s) plus `colour` times s.

    Attributes:
        box: where it lies on the photo's plane; nothing beyond it, whatever `strength` says.
        strength: 255 s; 255 = nothing but `colour`.
        colour: sRGB, 0-255.
    """

    box: Box
    strength: Mask
    colour: tuple[int, int, int] = (0, 0, 0)

    def read(self, box: Box) -> npt.NDArray[np.uint8]:
        """The strength (h, w) in a box of the plane."""
        shared = self.box.intersect(box)
        if shared == box:
            return self.strength.array(box)
        values = np.zeros((box.height, box.width), np.uint8)
        values[shared.within(box).slices] = self.strength.array(shared)
        return values


@dataclass(frozen=True)
class Canvas:
    """The part of the photo's plane that is shown, and the pixels it is rendered to.

    Attributes:
        box: the photo pixels that are shown, also those of which only a part is; may reach beyond the photo.
        size: the pixels it is rendered to.
        scale: rendered pixels for one pixel of the photo, on both axes alike.
        origin: where its left top corner lies on the plane; a corner of `box` unless the scale is another than 1.
    """

    box: Box
    size: Size
    scale: float = 1.0
    origin: tuple[float, float] | None = None

    @classmethod
    def placed(cls, origin: tuple[float, float], scale: float, size: Size) -> Canvas:
        """The canvas of `size` whose left top corner is at `origin`; moved to whole pixels at scale 1."""
        left, top = origin
        if scale == 1:
            x, y = round(left), round(top)
            return cls(Box(x, y, x + size.width, y + size.height), size)
        right, bottom = left + size.width / scale, top + size.height / scale
        # A millionth of a pixel is no pixel.
        low = (int(np.floor(n + 1e-6)) for n in (left, top))
        high = (int(np.ceil(n - 1e-6)) for n in (right, bottom))
        return cls(Box(*low, *high), size, scale, (left, top))

    @property
    def scaling(self) -> blend.Scaling:
        """How rendered pixels lie on the plane."""
        return blend.Scaling(self.origin or (self.box.left, self.box.top), 1 / self.scale)


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A read-only view of `array`."""
    view = array.view()
    view.flags.writeable = False
    return view


def with_alpha(pixels: Pixels, bands: int) -> Pixels:
    """`pixels` (h, w, C) with an opaque alpha behind them if `bands` is more than C."""
    if pixels.shape[2] >= bands:
        return pixels
    if (pixels.shape[2], bands) == (3, 4) and pixels.size:  # OpenCV refuses what is empty
        return np.asarray(cv2.cvtColor(pixels, cv2.COLOR_RGB2RGBA))  # many times as fast
    opaque = np.full((*pixels.shape[:2], 1), np.iinfo(pixels.dtype).max, pixels.dtype)
    return np.concatenate([pixels, opaque], axis=2)


def differing(one: Pixels, other: Pixels) -> npt.NDArray[np.bool_]:
    """Where two arrays (h, w, C) of one shape differ in any channel, (h, w); several times as fast as `any(axis=2)`."""
    found: npt.NDArray[np.bool_] = one[..., 0] != other[..., 0]
    for channel in range(1, one.shape[2]):
        found |= one[..., channel] != other[..., channel]
    return found
