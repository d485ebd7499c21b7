"""Backdrop: a new ground behind the cutouts."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
from PIL import ImageColor
from pydantic import Field

from toolkit import blend
from toolkit.blend.arrays import blocks
from toolkit.edit import Cutout, Edit, Patch, Shadow, Stack, Step
from toolkit.errors import InputError, ParameterError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.patch import Source, with_alpha
from toolkit.photo import Photo
from toolkit.photo.formats import SUFFIXES
from toolkit.run import Run
from toolkit.schema import Model, shown
from toolkit.sources import Gradient, Placed, Plain, colour_of
from toolkit.stages import Log, Stage
from toolkit.stages._painting import Seeded

Pixels = npt.NDArray[Any]
TRANSPARENT = "transparent"
_LARGEST = 1.5
_BLOCK = 128  # side of the parts that are worked out where a layer lies on nothing
"""A picture enlarged by more than this is said to be."""


class Background(Model):
    """What lies behind; a base beside `Stage`."""

    background: str = Field(
        default="white",
        max_length=4000,
        description='colour (white, "#f4f1ec"), two for a gradient ("#fff,#ddd"), picture, folder of pictures '
        "(one is chosen by the seed for each photo), or transparent",
    )


class Backdrop(Background, Seeded, Stage):
    """Lay a colour, a gradient, a picture, nothing or what was painted behind; opaque cutouts keep every pixel."""

    needs: ClassVar[tuple[str, ...]] = ("cutouts",)
    makes: ClassVar[tuple[str, ...]] = ("stacks",)  # `mask` and `ramp` follow from the cutouts
    clears: ClassVar[tuple[str, ...]] = ("passes", "fills")
    public: ClassVar[bool] = True

    @property
    def gives_alpha(self) -> bool:
        """As `Stage` says."""
        return self.background.strip().lower() == TRANSPARENT

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Lay the backdrop on the canvas's whole box; grounds that were painted before, one a variation, go first.

        Raises:
            ParameterError: when the background is nothing that can be understood.
            InputError: when its picture cannot be read.
        """
        if not edit.grounds:
            return before(edit, self._ground(edit, run, log), log)
        if "background" in self.model_fields_set:
            log.warnings.append(f"the background was painted; {self.background!r} was not used")
        log.figures["background"] = "painted"
        log.seeds = tuple(ground.seed for ground in edit.grounds)
        laid = [before(edit, ground.source, log, (ground.seed,)) for ground in edit.grounds]
        return laid[0].replace(stacks=tuple(one.chosen for one in laid), grounds=())

    def _ground(self, edit: Edit, run: Run, log: Log) -> Source | None:
        """What lies behind; None for nothing."""
        photo, text = edit.photo, self.background.strip()
        if self.gives_alpha:
            return None
        colours = _colours(text)
        if colours:
            if photo.channels == 1 and any(len(set(one)) > 1 for one in colours):
                log.warnings.append("the photo is grey, and so is its new background: the colour became a grey")
            own = [colour_of(photo, one) for one in colours]
            return (
                Plain(own[0], photo.dtype) if len(own) == 1 else Gradient(edit.canvas.box, own[0], own[1], photo.dtype)
            )
        path = self._chosen(Path(text).expanduser(), edit, run, log)
        picture = Photo.open(path)
        placed = Placed(picture, edit.canvas.box, photo)
        if picture.is_large:
            photo.release()  # two large pictures need not be decoded at a time
        corner = edit.canvas.box
        placed.read(Box(corner.left, corner.top, corner.left + 1, corner.top + 1))  # damage is said now, not on saving
        log.reads.append(str(path))
        log.figures["background"] = str(path)
        enlarged = placed.scale * edit.canvas.scale
        if enlarged > _LARGEST:
            log.warnings.append(f"{path.name}: is {picture.size}, and was enlarged {enlarged:.2g} times to cover")
        if photo.channels == 1 and picture.channels == 3:
            log.warnings.append("the photo is grey, and so is its new background: the picture lost its colours")
        return placed

    def _chosen(self, path: Path, edit: Edit, run: Run, log: Log) -> Path:
        """The picture itself, or one of a folder's."""
        if os.path.isfile(path):  # Path's own methods raise for names no system has
            return path
        if not os.path.isdir(path):
            near = get_close_matches(str(path), [TRANSPARENT, *ImageColor.colormap], n=1, cutoff=0.7)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise ParameterError(
                f"background {shown(self.background)}: is neither a colour, two colours, a picture, a folder nor "
                f"transparent{hint}"
            )
        pictures = sorted(one for one in path.iterdir() if one.suffix.lower() in SUFFIXES and one.is_file())
        if not pictures:
            raise InputError(f"{path}: has no pictures in it")
        seed = self.first_seed(run, log)
        log.seeds = (seed,)
        # Each photo of a set gets its own, and always the same one.
        state = hashlib.sha256(f"{seed} {edit.photo.digest}".encode()).digest()
        return pictures[int.from_bytes(state[:8], "big") % len(pictures)]


def before(edit: Edit, ground: Source | None, log: Log, seeds: tuple[int, ...] | None = None) -> Edit:
    """The edit with its cutouts and their shadows laid before `ground`, None for nothing, on the canvas's whole box."""
    matte = joint_matte([cutout.matte for cutout in edit.cutouts], edit.box)
    ramp = matte.invert()
    mask = ramp.threshold(1)
    plane = edit.canvas.box.union(edit.box)
    weight = mask if plane == edit.box else matte.with_frame(plane).invert().threshold(1)
    scene = Scene(ground, edit.cutouts, edit.shadows, edit.photo)
    patch = Patch(edit.canvas.box, scene, weight)
    log.figures |= {"product_pixels": mask.frame.area - mask.area, "band_pixels": mask.area}
    stack = Stack((*edit.chosen.patches, patch), None, log.seeds if seeds is None else seeds)
    return edit.replace(stacks=(stack,), ramp=ramp, mask=mask, passes=(), fills=())


@dataclass(frozen=True, eq=False)
class Scene:
    """A ground with shadows on it and the soft edges of the cutouts before it: a `Source`.

    Where a cutout is opaque its pixels are meaningless: there the photo's own are kept.

    Attributes:
        ground: what lies behind everything; None for nothing, which makes an alpha channel.
        cutouts: from the back to the front.
        shadows: on the ground, in this order.
        photo: the photo whose bands and type the pixels have.
    """

    ground: Source | None
    cutouts: tuple[Cutout, ...]
    shadows: tuple[Shadow, ...]
    photo: Photo

    @property
    def bands(self) -> int:
        """As `Source` says."""
        return self.photo.channels + (self.ground is None or self.photo.has_alpha)

    @property
    def smooth(self) -> bool:
        """As `Source` says."""
        return self.ground is not None and self.ground.smooth

    @cached_property
    def digest(self) -> str:
        """As `Source` says."""
        state = hashlib.sha256((self.ground.digest if self.ground else TRANSPARENT).encode())
        for shadow in self.shadows:
            state.update(f"{shadow.box} {shadow.colour} {shadow.strength.digest}".encode())
        for cutout in self.cutouts:
            state.update(cutout.digest.encode())
        return state.hexdigest()

    def read(self, box: Box) -> Pixels:
        """As `Source` says."""
        layers = [(self._shade(shadow, box), shadow.read(box)) for shadow in self.shadows]
        blank = np.zeros((box.height, box.width, self.photo.channels), self.photo.dtype)
        layers += [(cutout.over(box, blank), cutout.matte.array(box)) for cutout in self.cutouts]
        if self.ground is None:
            return self._straight(box, layers)
        pixels = with_alpha(self.ground.read(box), self.bands)
        for colours, alpha in layers:
            if alpha.any():
                pixels = blend.composite(pixels, with_alpha(colours, self.bands), alpha)
        return pixels

    def _shade(self, shadow: Shadow, box: Box) -> Pixels:
        colour = np.array(colour_of(self.photo, shadow.colour)[: self.photo.channels], self.photo.dtype)
        return np.broadcast_to(colour, (box.height, box.width, self.photo.channels))

    def _straight(self, box: Box, layers: list[tuple[Pixels, npt.NDArray[np.uint8]]]) -> Pixels:
        """Layers over nothing, colour and alpha straight; white where nothing is seen at all."""
        channels, top = self.photo.channels, np.iinfo(self.photo.dtype).max
        result = np.full((box.height, box.width, channels + 1), top, self.photo.dtype)
        result[..., channels] = 0
        for block in blocks(np.any([alpha > 0 for _, alpha in layers], axis=0), _BLOCK):
            parts = [(colours[block.slices], alpha[block.slices]) for colours, alpha in layers]
            result[block.slices] = self._mixed(parts)
        return result

    def _mixed(self, layers: list[tuple[Pixels, npt.NDArray[np.uint8]]]) -> Pixels:
        """The same for a part where something lies."""
        channels, top = self.photo.channels, np.iinfo(self.photo.dtype).max
        colours, alpha = layers[-1]
        if alpha.min() == 255:
            return with_alpha(colours[..., :channels], channels + 1)
        light = np.zeros((*alpha.shape, channels), np.float32 if top == 255 else np.float64)
        seen = np.zeros((*alpha.shape, 1), light.dtype)
        for colours, alpha in layers:
            share = alpha[..., None] / light.dtype.type(255)
            light *= 1 - share
            light += colours[..., :channels] * share
            seen *= 1 - share
            seen += share
        straight = np.full_like(light, top)
        np.divide(light, seen, out=straight, where=seen > 0)
        return np.concatenate(
            [blend.levels(straight, self.photo.dtype), blend.levels(seen * top, self.photo.dtype)], axis=2
        )


def begun(edit: Edit) -> tuple[Step, ...]:
    """The steps that lead to the backdrop that is laid next."""
    last = max((k for k, step in enumerate(edit.steps) if step.stage == Backdrop.name), default=-1)
    return edit.steps[last + 1 :]


def joint_matte(mattes: list[Mask], frame: Box) -> Mask:
    """Opaque where one of the mattes is; otherwise the more opaque of them."""
    whole = mattes[0].with_frame(frame) if mattes[0].frame != frame else mattes[0]
    for matte in mattes[1:]:
        whole = whole.union(matte.with_frame(frame))
    return whole


def _colours(text: str) -> list[tuple[int, int, int]]:
    """One sRGB colour, or two parted by a comma; none where the text is neither."""
    one = _colour(text)
    if one:
        return [one]
    for at, letter in enumerate(text):
        if letter == ",":
            pair = _colour(text[:at]), _colour(text[at + 1 :])
            if pair[0] and pair[1]:
                return [pair[0], pair[1]]
    return []


def _colour(text: str) -> tuple[int, int, int] | None:
    try:
        found = ImageColor.getrgb(text.strip())
    except ValueError:
        return None
    return found if len(found) == 3 else None
