"""Generate: have a fill engine paint the ground behind the cutouts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from toolkit import blend, engines, grounds, planning
from toolkit.cards import Card
from toolkit.edit import Edit, Ground, Window
from toolkit.engines import Bytes, FillJob
from toolkit.errors import ParameterError, UsageError
from toolkit.geometry import Box
from toolkit.grounds import Sheet, Tile
from toolkit.patch import frozen
from toolkit.run import Run
from toolkit.schema import SizeField
from toolkit.sources import Painted
from toolkit.stages import Log, Stage
from toolkit.stages._enhancing import enhanced
from toolkit.stages._painting import Asked, Painting, answers, groups, hold_back
from toolkit.stages.backdrop import Background, begun, joint_matte

_ONLY = (
    "model", "num_images", "steps", "guidance", "lora", "memory", "speed", "size", "detail", "share_background",
    "enhance",
)  # fmt: skip
"""Parameters that mean nothing without a prompt."""

_SAMPLE = 512
"""Longest side of the parts that grain is measured on, in pixels."""


@dataclass(frozen=True, eq=False)
class _Order:
    """What is asked for: the sheet, its tiles in passes, and what of the photo is shown."""

    sheet: Sheet
    passes: list[list[Tile]]


class Generate(Background, Painting, Stage):
    """Paint the ground that `backdrop` lays behind the cutouts, by a prompt; without one nothing is done."""

    needs: ClassVar[tuple[str, ...]] = ("cutouts",)
    makes: ClassVar[tuple[str, ...]] = ("grounds",)
    public: ClassVar[bool] = True

    background_prompt: str = Field(
        default="",
        max_length=4000,
        description="what an engine is to paint behind the product, in place of a background",
    )
    size: SizeField | None = Field(
        default=None, description="size WxH the background is painted at; chosen by the card's limits without it"
    )
    detail: Literal["once", "full"] = Field(
        default="once",
        description="once: painted in one call of at most 2 megapixels and enlarged; full: at the result's own "
        "resolution, in as many calls as that takes",
    )
    share_background: bool = Field(
        default=False, description="one background for all photos: painted once, without regard to the product"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Grounds, one a variation.

        Raises:
            UsageError: when shadows were made already, which `shadow` leaves to an engine that sees the product.
            ParameterError: for an engine that follows no prompt, and parameters that do not go together or that the
                card does not take.
            HeldBack: when the selection is likely wrong and the engine is paid.
            EngineError: when the engine fails.
        """
        if not self._wanted():
            return edit
        card = log.card = run.card("fill", self._engine(), ready=False)  # what was asked wrongly is told first
        prompt = self._prompt(card)
        parameters = self.parameters_for(card)
        seeds = self.seeds_for(card, run, log)
        run.card("fill", card.name)
        if len(edit.stacks) != 1:
            raise UsageError(f"the edit holds {len(edit.stacks)} variations: call edit.choose(k) before painting")
        order = self._order(edit, card)
        hold_back(edit, card)
        if (enhancer := self._enhancer(card, prompt, run, log)) is not None:
            product = joint_matte([cutout.matte for cutout in edit.cutouts], edit.box)
            prompt = enhanced(edit, product.invert().threshold(), prompt, enhancer, run, log)
        job = _Job(prompt, parameters, card)
        pictures, kept = self._painted(edit, run, log, order, job, seeds)
        made = [
            self._ground(edit, order.sheet, picture, seed, log) for picture, seed in zip(pictures, kept, strict=True)
        ]
        log.seeds = tuple(kept)
        log.figures |= {
            "prompt": prompt,
            "parameters": parameters,
            "windows": planning.described(_windows(order)),
        }
        scale = order.sheet.step * edit.canvas.scale
        if scale > 1.005:
            log.notes.append(
                f"the background was painted at {order.sheet.size} and enlarged {scale:.3g} times"
                + ("" if self.share_background else "; --detail full paints it at the result's own resolution")
            )
        return edit.replace(grounds=tuple(made))

    def check(self, run: Run, *, ready: bool = True) -> None:
        """The engine and what it takes, where something is to be painted."""
        if self._wanted():
            card = run.card("fill", self._engine(), ready=False)
            self._prompt(card)
            self.checked(run, card, self.parameters_for(card), ready)

    def plan(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Windows, calls, price and expected seconds; nothing is painted.

        Raises:
            UsageError, ParameterError: as `apply`.
        """
        if not self._wanted():
            return edit
        card = log.card = run.card("fill", self._engine(), ready=False)
        prompt = self._prompt(card)
        parameters = self.parameters_for(card)
        order = self._order(edit, card)
        enhancer = self._enhancer(card, prompt, run, log, ready=False)

        def first(seeds: tuple[int, ...]) -> Sequence[Asked]:
            blank, known = self._shown(edit, order.sheet)
            holes = [_hole(tile, known, known) for tile in order.passes[0]]
            return _Job(prompt, parameters, card).asked(order, 0, [blank] * len(seeds), holes, known, seeds)

        self.planned(edit, run, card, _windows(order), parameters, prompt, enhancer, first, log)
        log.figures |= {
            "prompt": prompt,
            "parameters": parameters,
            "shared": repr((card.name, prompt, parameters, self.seed, self.num_images, order.sheet.size))
            if self.share_background
            else "",
        }
        return edit

    def _wanted(self) -> bool:
        """Whether there is something to paint.

        Raises:
            ParameterError: for parameters that do not go together.
        """
        if self.background_prompt.strip():
            if "background" in self.model_fields_set:
                raise ParameterError("background and background_prompt: both say what lies behind; give one of them")
            if self.share_background and self.detail == "full":
                raise ParameterError(
                    "share_background: one background for all photos is painted in one call; leave out detail full"
                )
            return True
        if "background_prompt" in self.model_fields_set:
            raise ParameterError(
                "background_prompt: is empty; say what an engine is to paint behind the product, or leave it out"
            )
        for name in _ONLY:
            if name in self.model_fields_set and getattr(self, name) != type(self).model_fields[name].default:
                raise ParameterError(f"{name}: has a meaning only with a background_prompt; nothing is painted here")
        return False

    def _engine(self) -> str:
        return "prompted" if self.model == "auto" else self.model

    def _prompt(self, card: Card) -> str:
        if card.prompt == "none":
            raise ParameterError(
                f"{card.name} follows no prompt, so it cannot paint a background; {engines.prompted()}"
            )
        return self.background_prompt.strip()

    def _enhancer(self, card: Card, prompt: str, run: Run, log: Log, *, ready: bool = True) -> Card | None:
        if self.enhance and self.share_background:
            log.notes.append("the prompt of a shared background is sent as given: it must be the same for all photos")
            return None
        return self.enhancer_for(card, prompt, run, log, ready=ready)

    def _order(self, edit: Edit, card: Card) -> _Order:
        if not self.share_background and any(step.figures.get("shadows") for step in begun(edit)):
            raise UsageError("generate: put it before shadow, which leaves the shadow to the painting engine")
        if self.detail == "full":
            sheet, size = grounds.in_full(edit.canvas, card.limits, self.size)
            passes = grounds.tiled(sheet, size, grounds.painted_first(edit, sheet))
            return _Order(sheet, list(grounds.seen(passes, edit, sheet)))
        place = grounds.for_any if self.share_background else grounds.at_once
        sheet = place(edit.canvas, card.limits, self.size)
        return _Order(sheet, [[Tile(sheet.box, sheet.box)]])

    def _painted(
        self, edit: Edit, run: Run, log: Log, order: _Order, job: _Job, seeds: Sequence[int]
    ) -> tuple[list[Bytes], list[int]]:
        """A picture (h, w, 3) of the sheet for each seed that was not refused, and these seeds."""
        seeds = list(seeds)
        blank, known = self._shown(edit, order.sheet)
        pictures = [blank] * len(seeds)
        done = known.copy()
        for number, tiles in enumerate(order.passes):
            holes = [_hole(tile, known, done) for tile in tiles]
            asked = job.asked(order, number, pictures, holes, done, seeds)
            answer = answers(run, job.card, log, asked, len(tiles), seeds)
            laid = []
            for k in answer.kept:
                run.check()
                picture = pictures[k].copy()
                for tile, hole, images in zip(tiles, holes, answer.images, strict=True):
                    if k in images:
                        _lay(picture, images[k], tile, hole, (done > 0) & (known == 0))
                laid.append(picture)
            pictures, seeds = laid, [seeds[k] for k in answer.kept]
            for tile in tiles:
                done[tile.cell.slices] = 255
        return pictures, seeds

    def _shown(self, edit: Edit, sheet: Sheet) -> tuple[Bytes, Bytes]:
        """What the sheet shows before anything is painted, (h, w, 3), and where, (h, w)."""
        if not self.share_background:
            return grounds.shown_product(edit, sheet)
        shape = (sheet.size.height, sheet.size.width)
        return np.full((*shape, 3), grounds.BLANK, np.uint8), np.zeros(shape, np.uint8)

    def _ground(self, edit: Edit, sheet: Sheet, picture: Bytes, seed: int, log: Log) -> Ground:
        """The picture as a source with the photo's grain."""
        painted = Painted(frozen(picture), sheet.corner, sheet.step, edit.canvas.box, edit.photo)
        shown = painted.shown(_part(edit.canvas.box))
        parts = [edit.srgb(_part(cell)) for cell in _ninths(edit.box)]
        grain = blend.GrainField.between(np.rint(shown).astype(np.uint8), parts, seed)
        log.figures.setdefault("grain_added", []).append([round(one, 2) for one in grain.added] if grain else [0.0] * 3)
        return Ground(dataclasses.replace(painted, grain=grain), seed)


@dataclass(frozen=True, eq=False)
class _Job:
    """What all jobs of an order have in common."""

    prompt: str
    parameters: dict[str, Any]
    card: Card

    def asked(
        self, order: _Order, number: int, pictures: Sequence[Bytes], holes: Sequence[Bytes], done: Bytes,
        seeds: Sequence[int],
    ) -> list[Asked]:  # fmt: skip
        """The jobs of a pass; tiles without a hole need none."""
        before, total = (sum(map(len, passes)) for passes in (order.passes[:number], order.passes))
        asked = []
        for index, (tile, hole) in enumerate(zip(order.passes[number], holes, strict=True)):
            for group in groups(self.card, len(seeds), number == 0) if hole.any() else ():
                name = f"window {before + index + 1} of {total}"
                job = self.of(pictures[group[0]], tile, hole, done, [seeds[k] for k in group], name)
                asked.append(Asked(job, index, group))
        return asked

    def of(self, picture: Bytes, tile: Tile, hole: Bytes, done: Bytes, seeds: list[int], name: str) -> FillJob:
        """The job for a tile; what is neither known nor its own is blocked."""
        where = tile.window.slices
        blocked = np.where((done[where] == 0) & (hole == 0), 255, 0).astype(np.uint8)
        pixels = picture[where].copy()
        pixels[hole > 0] = grounds.BLANK
        card = (self.card.name, self.card.revision)
        return FillJob(pixels, hole, blocked, self.prompt, tuple(seeds), self.parameters, card, name)


def _hole(tile: Tile, known: Bytes, done: Bytes) -> Bytes:
    """What a tile is to paint, (h, w) of its window: its cell, and what was painted close around it; no product."""
    where = tile.window.slices
    weight = grounds.ramp(tile)
    return np.where((known[where] == 0) & ((weight == 1) | ((weight > 0) & (done[where] > 0))), 255, 0).astype(np.uint8)


def _lay(picture: Bytes, image: Bytes, tile: Tile, hole: Bytes, before: npt.NDArray[np.bool_]) -> None:
    """Lay an answer on the sheet, passing over into what was painted before, with its colours.

    Those of the product are never matched: an engine that changed it would leave a halo around it.
    """
    where = tile.window.slices
    below = picture[where]
    filled: npt.NDArray[Any] = image
    known = before[where] & (hole == 0)
    if known.any():
        filled, _ = blend.match_colour(image, below, hole, known)
    weight = grounds.ramp(tile)[..., None]
    mixed = np.clip(np.rint(below * (1 - weight) + filled * weight), 0, 255).astype(np.uint8)
    below[hole > 0] = mixed[hole > 0]


def _windows(order: _Order) -> tuple[tuple[Window, ...], ...]:
    return tuple(tuple(order.sheet.window(tile.window) for tile in tiles) for tiles in order.passes)


def _ninths(box: Box) -> list[Box]:
    """The box in three rows of three, fewer where it is very small."""
    across, down = (np.linspace(0, n, min(3, n) + 1).astype(int).tolist() for n in box.size)
    return [
        Box(left, top, right, bottom).shift(box.left, box.top)
        for top, bottom in pairwise(down)
        for left, right in pairwise(across)
    ]


def _part(box: Box) -> Box:
    """The middle of `box`, at most `_SAMPLE` pixels a side."""
    return box.grow(*(min(0, (_SAMPLE - n) // 2) for n in box.size))
