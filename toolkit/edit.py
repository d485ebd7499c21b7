"""The values that flow between stages. All are frozen; arrays handed out are read-only.

An `Edit` is a photo and a stack of small patches on it: the photo itself is never touched, and every
stage reads pixels only through `Edit.pixels(box)`, which is the original with all patches so far.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.drawing import Drawing, Record, beyond
from toolkit.errors import UsageError
from toolkit.geometry import Box, Price, Size
from toolkit.mask import Mask
from toolkit.patch import Canvas as Canvas
from toolkit.patch import Ground as Ground
from toolkit.patch import Patch as Patch
from toolkit.patch import Pixels, frozen
from toolkit.patch import Shadow as Shadow
from toolkit.patch import Stack as Stack
from toolkit.photo import Photo, Saved
from toolkit.tiling import edges_of, meeting

if TYPE_CHECKING:
    import PIL.Image

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Region:
    """Something that was found: its box, what it is, how sure the finder is (0-1), and its mask if known."""

    box: Box
    label: str = ""
    score: float = 1.0
    mask: Mask | None = None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Cutout:
    """A subject with a soft edge.

    Attributes:
        box: the subject's box: outside it the matte is 0.
        edge: foreground colours where the matte is soft: disjoint boxes and (h, w, C) arrays in the photo's space and
            depth, C without alpha. Inside the edge the photo's own colours are the subject's.
        matte: 0-255, the subject's share of each pixel.
    """

    box: Box
    edge: tuple[tuple[Box, Pixels], ...]
    matte: Mask

    def __post_init__(self) -> None:
        object.__setattr__(self, "edge", tuple((box, frozen(colours)) for box, colours in self.edge))

    def over(self, box: Box, pixels: Pixels) -> Pixels:
        """`pixels` (h, w, C or more) of `box` with the edge's colours instead; alpha, if any, is kept."""
        laid = pixels.copy()
        for index in meeting(self._edges, box):
            place, colours = self.edge[index]
            shared = place.intersect(box)
            laid[shared.within(box).slices][..., : colours.shape[2]] = colours[shared.within(place).slices]
        return laid

    @cached_property
    def digest(self) -> str:
        """Equal for equal colours and mattes."""
        state = hashlib.sha256(f"{self.box} {self.matte.digest}".encode())
        for box, colours in self.edge:
            state.update(f"{box}".encode() + np.ascontiguousarray(colours).tobytes())
        return state.hexdigest()

    @cached_property
    def _edges(self) -> npt.NDArray[np.int64]:
        return edges_of(box for box, _ in self.edge)


@dataclass(frozen=True, eq=False)
class Window:
    """A box of the photo's plane, the size an engine gets it at, and the part of the mask it is to fill.

    `box` may reach beyond the photo; what lies there is mirrored, known, and cut off again. Width and
    height are scaled by exactly the same factor.
    """

    box: Box
    size: Size
    hole: Mask

    @property
    def scale(self) -> float:
        """Photo pixels for one working pixel; 1 = full resolution."""
        return self.box.width / self.size.width


@dataclass(frozen=True, eq=False)
class Fill:
    """What an engine returned for a window: image k, (h, w, 3) uint8 sRGB at working size, is made with `seeds[k]`.

    `keeps_grain` says that the engine's pixels have the photo's own grain at full resolution.
    """

    window: Window
    images: tuple[Bytes, ...]
    seeds: tuple[int, ...]
    engine: str = ""
    seconds: float = 0.0
    price: float = 0.0
    keeps_grain: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "images", tuple(frozen(image) for image in self.images))


@dataclass(frozen=True)
class Step:
    """What one stage did: enough to repeat the edit and to explain its bill.

    Attributes:
        stage: the stage's name.
        parameters: the stage's fields as written.
        engine: name of the card of the engine that did the work; empty where none was needed.
        task: what that engine was asked for (segment, matte, fill, ...).
        data_leaves_machine: whether that engine works on another machine.
        card_revision: the revision of that card.
        seeds: the seeds drawn or given.
        seconds: wall-clock seconds.
        price: what was paid.
        reads: files it read besides the photo.
        figures: measurements (windows, seam scores, confidence, ...), JSON-ready.
        notes: sentences for the user.
        warnings: sentences for the user that ask for attention.
    """

    stage: str
    parameters: Mapping[str, Any]
    engine: str = ""
    task: str = ""
    data_leaves_machine: bool = False
    card_revision: str = ""
    seeds: tuple[int, ...] = ()
    seconds: float = 0.0
    price: float = 0.0
    currency: str = Price().currency
    reads: tuple[str, ...] = ()
    figures: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class Edit:
    """A photo, what was selected in it, and the patches laid on it so far.

    Attributes:
        photo: the picture as its owner made it; never touched.
        canvas: the part shown; the whole photo unless a stage moved it.
        regions: what was found.
        selected: what was pointed at (hard); `dilate` never changes it.
        mask: what may be regenerated (hard): `selected`, dilated.
        ramp: the blend weight 0-255, never outside `mask`.
        protected: what must never change, whatever the mask says.
        cutouts: subjects with soft edges.
        shadows: what `backdrop` lays between the ground and the subjects, in this order.
        grounds: painted backgrounds, one a variation, for `backdrop` to lay.
        passes: windows to fill; within a pass they are independent.
        fills: what the engines returned.
        stacks: one stack of patches a variation; a single one once chosen.
        steps: what was done.
    """

    photo: Photo
    canvas: Canvas
    regions: tuple[Region, ...] = ()
    selected: Mask | None = None
    mask: Mask | None = None
    ramp: Mask | None = None
    protected: Mask | None = None
    cutouts: tuple[Cutout, ...] = ()
    shadows: tuple[Shadow, ...] = ()
    grounds: tuple[Ground, ...] = ()
    passes: tuple[tuple[Window, ...], ...] = ()
    fills: tuple[Fill, ...] = ()
    stacks: tuple[Stack, ...] = (Stack(),)
    steps: tuple[Step, ...] = ()

    @classmethod
    def of(cls, source: Any) -> Edit:
        """An untouched edit of a photo: a path, bytes, open file, URL, array, PIL image, `Photo` or `Edit`.

        Raises:
            PhotoError: when it cannot be read as a photo.
        """
        if isinstance(source, Edit):
            return source
        photo = Photo.open(source)
        return cls(photo, Canvas(photo.box, photo.size))

    def replace(self, **changes: Any) -> Edit:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    @property
    def box(self) -> Box:
        """The upright photo's box, origin (0, 0)."""
        return self.photo.box

    @cached_property
    def digest(self) -> str:
        """A hash of the pixels as they stand: the photo's own and all patches."""
        state = hashlib.sha256(self.photo.digest.encode())
        for patch in self.chosen.patches:
            state.update(patch.digest.encode())
        return state.hexdigest()

    @property
    def chosen(self) -> Stack:
        """The one stack of patches.

        Raises:
            UsageError: when there are several variations and none was chosen.
        """
        if len(self.stacks) != 1:
            raise UsageError(f"the edit holds {len(self.stacks)} variations: call edit.choose(k) before going on")
        return self.stacks[0]

    def choose(self, k: int) -> Edit:
        """The edit with variation `k` (from 0) alone.

        Raises:
            UsageError: when there is no such variation.
        """
        return self.replace(stacks=(self._variation(k),))

    def _variation(self, k: int) -> Stack:
        if not 0 <= k < len(self.stacks):
            raise UsageError(f"no variation {k}: there are {len(self.stacks)}, counted from 0")
        return self.stacks[k]

    def pixels(self, box: Box, k: int | None = None) -> Pixels:
        """The photo's pixels (h, w, C) in `box`, all patches of variation `k` laid on; mirrored beyond the photo.

        With `k` given and fills that are not composited yet, image k of each is laid on under its hard hole.
        Read-only; in the photo's own space and depth; C counts alpha.
        """
        inside = box.intersect(self.box)
        if inside != box:
            return frozen(beyond(box, self.box, lambda part: self.pixels(part, k)))
        stack = self.chosen if k is None or len(self.stacks) == 1 else self._variation(k)
        laid = Drawing(self.photo, stack.patches, self.canvas).plane(box)
        if k is not None:
            for fill in self.fills:
                laid = self._under(fill, k, box, laid)
        return frozen(laid)

    def _under(self, fill: Fill, k: int, box: Box, pixels: Pixels) -> Pixels:
        shared = fill.window.box.intersect(box).intersect(self.box)
        hole = fill.window.hole.array(shared) if not shared.is_empty else None
        if hole is None or not hole.any():
            return pixels
        image = fill.images[min(k, len(fill.images) - 1)]
        whole = cv2.resize(image, fill.window.box.size, interpolation=cv2.INTER_CUBIC)
        # The whole window at once: dithered alike whatever part of it is read.
        colour = self.photo.from_srgb(whole)[shared.within(fill.window.box).slices]
        laid = pixels.copy()
        inner = laid[shared.within(box).slices]
        inner[..., : self.photo.channels][hole > 0] = colour[hole > 0]
        return laid

    def srgb(self, box: Box, k: int | None = None) -> Bytes:
        """`pixels(box, k)` as engines get them: (h, w, 3) uint8 sRGB, colour only."""
        return frozen(self.photo.to_srgb(self.pixels(box, k)))

    def hidden(self, box: Box) -> npt.NDArray[np.bool_] | None:
        """Where `box` is wholly transparent, as (h, w) bool; None without alpha."""
        if Drawing(self.photo, self.chosen.patches, self.canvas).bands == self.photo.channels:
            return None
        hidden: npt.NDArray[np.bool_] = self.pixels(box)[..., -1] == 0
        return hidden

    def mirrored_mask(self, mask: Mask, box: Box) -> Bytes:
        """`mask` in `box` (h, w) uint8, mirrored beyond the photo just as `pixels` is."""
        if self.box.contains(box):
            return mask.array(box)
        return frozen(beyond(box, self.box, mask.array))

    def drawing(self, k: int = 0) -> Drawing:
        """Variation `k` as the canvas shows it: what `save` writes."""
        return Drawing(self.photo, self._variation(k).patches, self.canvas)

    def render(self, k: int = 0) -> Iterator[tuple[Box, Pixels]]:
        """The windows of variation `k` that differ from the photo: boxes and their pixels (h, w, C).

        Windows share no pixel, so that each is given once and whole. All in the photo's pixels, whatever the canvas.

        Raises:
            FidelityError: when a pixel of weight 0 came out changed (law 1).
        """
        for box, laid, _ in self.compared(k):
            yield box, laid

    def compared(self, k: int = 0) -> Iterator[tuple[Box, Pixels, npt.NDArray[np.bool_]]]:
        """What `render` gives, and for each window where it differs from the photo, (h, w).

        Raises:
            FidelityError: as `render`.
        """
        for box, laid, changed in self.drawing(k).windows():
            yield box, frozen(laid), changed

    def band(self, k: int = 0) -> Mask:
        """Where variation `k` may differ from the photo: every pixel some patch has weight on (hard)."""
        whole = Mask.empty(self.box)
        for patch in self._variation(k).patches:
            whole = whole.union(patch.weight.with_frame(self.box).threshold(1))
        return whole

    def array(self, k: int = 0) -> Pixels:
        """Variation `k` as one whole upright array (h, w, C) in the photo's own space and depth: what is saved."""
        drawing = self.drawing(k)
        if drawing.is_whole:
            size = self.canvas.size
            canvas = np.empty((size.height, size.width, drawing.bands), self.photo.dtype)
            for box, pixels in drawing.strips():
                canvas[box.slices] = pixels
            return canvas
        whole = self.photo.array()
        whole.flags.writeable = True  # made for this call alone
        for box, pixels in self.render(k):
            whole[box.slices] = pixels
        return whole

    def image(self, k: int = 0) -> PIL.Image.Image:
        """Variation `k` as an upright 8-bit sRGB PIL image, for looking at; `save` is what loses nothing.

        RGB; RGBA where a stage made the ground transparent.
        """
        import PIL.Image

        pixels = self.array(k)
        colours = self.photo.to_srgb(pixels)
        if self.drawing(k).bands == self.photo.channels + self.photo.has_alpha:
            return PIL.Image.fromarray(colours)
        alpha = pixels[..., -1] if self.photo.depth == 8 else (pixels[..., -1] // 257).astype(np.uint8)
        return PIL.Image.fromarray(np.dstack([colours, alpha]))

    def preview(self, box: Box, k: int = 0) -> Bytes:
        """Variation `k` of a box of the photo's plane as (h, w, 3) uint8 sRGB."""
        return self.choose(k).srgb(box)

    def save(self, target: str | Path | BinaryIO, k: int = 0, *, record: Record | None = None, **options: Any) -> Saved:
        """Write variation `k` with everything the photo carries; see `Photo.save` for the options.

        Args:
            record: told what was found on the way, where the whole picture is made anew.

        Raises:
            OutputError: when it cannot be written, or the file exists and `overwrite` was not given.
            FidelityError: when a pixel of weight 0 came out changed (law 1); nothing is written.
        """
        drawing = self.drawing(k)
        if not drawing.is_whole:
            return self.photo.save(target, self.render(k), **options)
        saved = self.photo.save(
            target, drawing.strips(record), size=self.canvas.size, in_place=not drawing.moved, **options
        )
        if drawing.shows_mirrored:
            saved = dataclasses.replace(saved, notes=(*saved.notes, "beyond the photo lies its mirror image"))
        return saved

    def report(self) -> dict[str, Any]:
        """What was done, JSON-ready: the photo, each step, each variation."""
        return {
            "photo": {
                "name": self.photo.name,
                "size": list(self.photo.size),
                "format": self.photo.format,
                "mode": self.photo.mode,
                "depth": self.photo.depth,
            },
            "canvas": {
                "box": list(self.canvas.box),
                "size": list(self.canvas.size),
                "scale": round(self.canvas.scale, 6),
            },
            "steps": [{**dataclasses.asdict(step), "parameters": dict(step.parameters)} for step in self.steps],
            "variations": [
                {"seeds": list(stack.seeds), "seam": stack.seam, "patches": [list(p.box) for p in stack.patches]}
                for stack in self.stacks
                if stack.patches
            ],
            "price": {"total": round(sum(step.price for step in self.steps), 6), "currency": Price().currency},
            "notes": [note for step in self.steps for note in step.notes],
            "warnings": [warning for step in self.steps for warning in step.warnings],
        }
