"""Fill: have an engine regenerate what is masked in each window."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, ClassVar

import cv2
import numpy as np
from pydantic import Field

from toolkit import blend, engines
from toolkit.cards import Card, Removal
from toolkit.edit import Edit, Window
from toolkit.edit import Fill as Filled
from toolkit.engines import Bytes, FillJob
from toolkit.errors import EngineError, MaskError, ParameterError, UsageError
from toolkit.prompts import hint
from toolkit.run import Run
from toolkit.stages import Log, Stage
from toolkit.stages._enhancing import enhanced
from toolkit.stages._painting import Asked, Painting, answers, groups, hold_back


class Fill(Painting, Stage):
    """Fill the windows with an engine chosen by its card."""

    needs: ClassVar[tuple[str, ...]] = ("mask", "passes")
    makes: ClassVar[tuple[str, ...]] = ("fills",)
    public: ClassVar[bool] = True

    prompt: str = Field(default="", max_length=4000, description="what should be there instead")
    own_prompt: bool = Field(
        default=False,
        description="a prompt of one's own is needed; what the card says on removing does not count",
        json_schema_extra={"option": False},
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Fill pass after pass; windows of one pass go to the engine together.

        Raises:
            ParameterError: for a parameter the card does not take, or out of its range.
            EngineError: when the engine fails.
        """
        card = log.card = run.card("fill", self.model, ready=False)  # what was asked wrongly is told first
        parameters = self.parameters_for(card, self._removal(card))
        seeds = self.seeds_for(card, run, log)
        prompt = self._prompt(card, log)
        self._say_advice(card, prompt, parameters, log)
        run.card("fill", card.name)
        if len(edit.stacks) != 1:
            raise UsageError(f"the edit holds {len(edit.stacks)} variations: call edit.choose(k) before filling again")
        hold_back(edit, card)
        if (enhancer := self.enhancer_for(card, self.prompt, run, log)) is not None:
            assert edit.mask is not None
            prompt = enhanced(edit, edit.mask, prompt, enhancer, run, log)
        edit = edit.replace(fills=())
        for number, windows in enumerate(edit.passes):
            edit = self._pass(edit, run, log, card, windows, number, seeds, prompt, parameters)
            seeds = edit.fills[0].seeds if edit.fills else seeds
        if len(seeds) > 1 and all(
            np.array_equal(fill.images[0], image) for fill in edit.fills for image in fill.images
        ):
            log.notes.append(f"{card.name} draws nothing at random here: the {len(seeds)} pictures are alike")
        log.figures = {"calls": 0, **log.figures, "prompt": prompt, "parameters": parameters}
        return edit

    def check(self, run: Run, *, ready: bool = True) -> None:
        """The engine and what it takes."""
        card = run.card("fill", self.model, ready=False)
        self.checked(run, card, self.parameters_for(card, self._removal(card)), ready)

    def plan(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Windows, calls, price and expected seconds, without a fill.

        Raises:
            ParameterError: as `apply`.
        """
        card = log.card = run.card("fill", self.model, ready=False)
        parameters = self.parameters_for(card, self._removal(card))
        prompt = self._prompt(card, log)
        self._say_advice(card, prompt, parameters, log)
        enhancer = self.enhancer_for(card, self.prompt, run, log, ready=False)

        def first(seeds: tuple[int, ...]) -> Sequence[Asked]:
            return self._asked(edit.replace(fills=()), card, edit.passes[0], 0, seeds, prompt, parameters)[0]

        self.planned(edit, run, card, edit.passes, parameters, prompt, enhancer, first, log)
        log.figures |= {"prompt": prompt, "parameters": parameters}
        return edit.replace(fills=())

    def _pass(
        self, edit: Edit, run: Run, log: Log, card: Card, windows: tuple[Window, ...], number: int,
        seeds: tuple[int, ...], prompt: str, parameters: dict[str, Any],
    ) -> Edit:  # fmt: skip
        asked, bare = self._asked(edit, card, windows, number, seeds, prompt, parameters)
        done = answers(run, card, log, asked, len(windows), seeds)
        for index in bare:
            log.notes.append(f"window {windows[index].box}: lies on transparent ground, no engine was needed")
            done.images[index] |= dict.fromkeys(range(len(seeds)), without_engine(edit, windows[index]))
        kept = done.kept
        fills = tuple(
            Filled(
                window,
                tuple(done.images[i][k] for k in kept),
                tuple(seeds[k] for k in kept),
                card.name,
                keeps_grain=card.keeps_grain,
                **done.spent[i],
            )
            for i, window in enumerate(windows)
        )
        if len(kept) < len(seeds):  # a variation holds all windows, those of earlier passes too
            fills = (
                tuple(
                    dataclasses.replace(
                        fill, images=tuple(fill.images[k] for k in kept), seeds=tuple(fill.seeds[k] for k in kept)
                    )
                    for fill in edit.fills
                )
                + fills
            )
            return edit.replace(fills=fills)
        return edit.replace(fills=(*edit.fills, *fills))

    def _asked(
        self, edit: Edit, card: Card, windows: tuple[Window, ...], number: int, seeds: tuple[int, ...], prompt: str,
        parameters: dict[str, Any],
    ) -> tuple[list[Asked], list[int]]:  # fmt: skip
        """The jobs of a pass, and the windows that lie on transparent ground, which need none."""
        asked: list[Asked] = []
        bare: list[int] = []
        for index, window in enumerate(windows):
            if not card.limits.accepts(window.size):
                raise EngineError(f"{card.name}: does not take windows of {window.size}; crop for this model first")
            for group in groups(card, len(seeds), number == 0):
                given = make_job(edit, window, group[0] if number else None)
                if given is None:
                    bare.append(index)
                    break
                job = FillJob(
                    *given, prompt, tuple(seeds[k] for k in group), parameters,
                    (card.name, card.revision), f"window {index + 1} of {len(windows)}",
                )  # fmt: skip
                asked.append(Asked(job, index, group))
        return asked, bare

    def _removal(self, card: Card) -> Removal | None:
        """What the card says on removing; None where the user says what is to be there."""
        return None if self.prompt or self.own_prompt else card.removal

    def _say_advice(self, card: Card, prompt: str, parameters: dict[str, Any], log: Log) -> None:
        """Note what goes to the engine that the user did not say."""
        removal = self._removal(card)
        if removal is None:
            return
        said = [f"the prompt {prompt!r}"] if removal.prompt and prompt else []
        for name in ("steps", "guidance"):
            value = getattr(removal, name)
            if value is not None and getattr(self, name) is None and parameters.get(name) == value:
                said.append(f"{name} {value:g}")
        if said:
            log.notes.append(f"for removing, {card.name} gets {', '.join(said)}, as its card advises")

    def _prompt(self, card: Card, log: Log) -> str:
        if self.own_prompt and card.prompt == "none":
            raise ParameterError(f"{card.name} follows no prompt, so it cannot paint one; {engines.prompted()}")
        if self.own_prompt and not self.prompt.strip():
            raise ParameterError("prompt: is missing; say with --prompt what should be there")
        if card.prompt == "none":
            if self.prompt:
                log.warnings.append(f"{card.name} takes no prompt; {self.prompt!r} was not used")
            return ""
        if self.prompt and (problem := hint(self.prompt)):
            log.notes.append(problem)
        removal = self._removal(card)
        prompt = self.prompt or (removal.prompt if removal else "")
        if card.prompt == "required" and not prompt:
            raise ParameterError(f"prompt: {card.name} needs one; say what should be there")
        return prompt


def make_job(edit: Edit, window: Window, k: int | None = None) -> tuple[Bytes, Bytes, Bytes] | None:
    """What an engine gets for a window: pixels, hole and blocked, all at working size.

    Other parts of the mask and wholly transparent pixels are blocked. None when nothing in the window may be
    copied from and the photo has alpha: such a hole lies on transparent ground.

    Raises:
        MaskError: when nothing is left to copy from.
    """
    assert edit.mask is not None
    pixels = edit.srgb(window.box, k)
    hole = edit.mirrored_mask(window.hole, window.box)
    blocked = np.asarray(cv2.subtract(edit.mirrored_mask(edit.mask, window.box), hole), np.uint8)
    if k is not None and edit.fills:
        filled = window.hole
        for fill in edit.fills:
            filled = filled.union(fill.window.hole)
        blocked[edit.mirrored_mask(filled.subtract(window.hole), window.box) > 0] = 0
    hidden = edit.hidden(window.box)
    if hidden is not None and hidden.any():
        blocked = np.where(hidden, 255, blocked).astype(np.uint8)
        hole = np.where(hidden, 0, hole).astype(np.uint8)
        if not hole.any() or cv2.countNonZero(cv2.bitwise_or(hole, blocked)) == hole.size:
            return None
    if window.size != window.box.size:
        pixels, hole, blocked = _resized(pixels, hole, blocked, window)
    if cv2.countNonZero(cv2.bitwise_or(hole, blocked)) == hole.size:
        raise MaskError(f"the mask covers all of window {window.box}: there is nothing to copy from")
    return pixels, hole, blocked


def _resized(pixels: Bytes, hole: Bytes, blocked: Bytes, window: Window) -> tuple[Bytes, Bytes, Bytes]:
    # A little shrinking by cubic keeps 2 dB more of the photo than by area, in half the time; much would alias.
    how = cv2.INTER_CUBIC if window.scale < 1.5 else cv2.INTER_AREA
    small = np.asarray(cv2.resize(pixels, window.size, interpolation=how), np.uint8)
    # Any share of a hole makes a working pixel hole: the object must not bleed into what counts as known. The cubic
    # filter reaches two pixels far: both when shrinking, one farther than the linear one when enlarging.
    if window.scale > 1:
        if how == cv2.INTER_CUBIC:
            reach = np.ones((5, 5), np.uint8)
            hole, blocked = (np.asarray(cv2.dilate(mask, reach), np.uint8) for mask in (hole, blocked))
        hole, blocked = (_touched(mask, window.size) for mask in (hole, blocked))
    else:
        wider = [cv2.dilate(mask, np.ones((3, 3), np.uint8)) for mask in (hole, blocked)]
        larger = [cv2.resize(mask, window.size, interpolation=cv2.INTER_LINEAR) for mask in wider]
        hole, blocked = (cv2.threshold(mask, 0, 255, cv2.THRESH_BINARY)[1].astype(np.uint8) for mask in larger)
    return small, hole, np.asarray(cv2.subtract(blocked, hole), np.uint8)


def _touched(mask: Bytes, size: tuple[int, int]) -> Bytes:
    """`mask` (hard) at a smaller size: 255 where any of the pixels that a new pixel overlaps is set."""
    x, y, width, height = cv2.boundingRect(mask)
    touched = np.zeros((size[1], size[0]), np.uint8)
    if not width:
        return touched
    total = cv2.integral(mask[y : y + height, x : x + width] >> 7)
    spans = []
    for start, length, old, new in ((y, height, mask.shape[0], size[1]), (x, width, mask.shape[1], size[0])):
        at = np.arange(start * new // old, -(-(start + length) * new // old))
        first = np.maximum(at * old // new - start, 0)
        behind = np.minimum(-(-(at + 1) * old // new) - start, length)
        spans.append((slice(int(at[0]), int(at[-1]) + 1), first, behind))
    (rows, top, bottom), (columns, left, right) = spans
    below, above = total[bottom], total[top]
    count = below[:, right] - below[:, left] - above[:, right] + above[:, left]
    touched[rows, columns] = (count > 0) * np.uint8(255)
    return touched


def without_engine(edit: Edit, window: Window) -> Bytes:
    """Colours for a hole on transparent ground: continued from what lies under its rim."""
    pixels = np.ascontiguousarray(cv2.resize(edit.srgb(window.box), window.size, interpolation=cv2.INTER_AREA))
    hole = cv2.resize(edit.mirrored_mask(window.hole, window.box), window.size, interpolation=cv2.INTER_NEAREST)
    return blend.continued(np.asarray(pixels, np.uint8), np.asarray(hole, np.uint8), 3)
