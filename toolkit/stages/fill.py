"""Fill: have an engine regenerate what is masked in each window."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, ClassVar, Literal

import cv2
import numpy as np
from pydantic import Field

from toolkit import blend, engines, planning, settings
from toolkit.cards import Card
from toolkit.edit import Edit, Window
from toolkit.edit import Fill as Filled
from toolkit.engines import Bytes, FillJob
from toolkit.errors import EngineError, HeldBack, MaskError, ParameterError, UsageError
from toolkit.lora import is_remote, parsed
from toolkit.prompts import hint
from toolkit.run import Run, draw_seed
from toolkit.schema import Bare, Names, Seed
from toolkit.stages import Log, Stage
from toolkit.stages._enhancing import enhanced

_TUNABLE = ("steps", "guidance", "lora")


class Fill(Stage):
    """Fill the windows with an engine chosen by its card."""

    needs: ClassVar[tuple[str, ...]] = ("mask", "passes")
    makes: ClassVar[tuple[str, ...]] = ("fills",)
    public: ClassVar[bool] = True

    model: str = Field(default="auto", description="engine that fills", json_schema_extra={"short": "-m"})
    prompt: str = Field(default="", max_length=4000, description="what should be there instead")
    seed: Seed | Literal["random"] | None = Field(
        default=None, description="whole number, or random (the one drawn is printed); 0 without it"
    )
    num_images: Annotated[int, Field(ge=1, le=64)] = Field(
        default=1, description="variations; number k is made with seed + k"
    )
    steps: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="denoising steps; the card's own without it"
    )
    guidance: Annotated[float, Field(ge=0, le=1000)] | None = Field(
        default=None, strict=False, description="guidance scale; the card's own without it"
    )
    lora: Names = Field(default=(), description="LoRA, with :scale if wanted; may be repeated")
    enhance: Bare = Field(
        default="", description="have the prompt written better for the hole, by this enhancer; without a name by auto"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Fill pass after pass; windows of one pass go to the engine together.

        Raises:
            ParameterError: for a parameter the card does not take, or out of its range.
            EngineError: when the engine fails.
        """
        card = log.card = run.card("fill", self.model)
        parameters = self._parameters(card)
        seed = draw_seed() if self.seed == "random" else run.seed if self.seed is None else int(self.seed)
        if self.seed == "random":
            log.notes.append(f"seed {seed} was drawn")
        seeds = log.seeds = tuple(seed + k for k in range(self.num_images))
        if "seed" in card.parameters:
            card.parameters["seed"].checked("seed", seeds[-1], card.name)
        prompt = self._prompt(card, log)
        if len(edit.stacks) != 1:
            raise UsageError(f"the edit holds {len(edit.stacks)} variations: call edit.choose(k) before filling again")
        hold_back(edit, card)
        if (enhancer := self._enhancer(card, run, log)) is not None:
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
        log.figures |= {"calls": sum(len(fill.images) for fill in edit.fills), "prompt": prompt}
        return edit

    def plan(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Windows, calls, price and expected seconds, without a fill.

        Raises:
            ParameterError: as `apply`.
        """
        card = log.card = run.card("fill", self.model, ready=False)
        self._parameters(card)
        prompt = self._prompt(card, log)
        enhancer = self._enhancer(card, run, log, ready=False)
        passes = edit.passes
        try:
            hold_back(edit, card)
        except HeldBack as problem:
            log.warnings.append(str(problem))
            passes = ()
        planned = planning.estimate(passes, self.num_images, card.price, card.pace, card.per_call)
        calls, price, seconds = planned.calls, planned.price, planned.seconds
        if enhancer is not None and passes:
            log.figures["enhancer"] = enhancer.name
            calls, price = calls + (not enhancer.free), round(price + enhancer.price.of(1), 6)
            seconds = None if seconds is None else seconds + enhancer.per_call
        log.figures |= {
            "leaves_for": sorted({engines.destination(one) for one in (card, enhancer) if one} - {""}),
            "windows": planning.described(passes),
            "calls": calls,
            "price_expected": price,
            "seconds_expected": None if seconds is None else round(seconds, 1),
            "measured_on": card.measured_on,
            "prompt": prompt,
        }
        return edit.replace(fills=())

    def _enhancer(self, card: Card, run: Run, log: Log, *, ready: bool = True) -> Card | None:
        """The card of the enhancer that is asked, once a photo; None where none is, and `log` is told why."""
        if not self.enhance:
            return None
        if card.prompt != "none" and self.prompt:
            return run.card("enhance", self.enhance, ready=ready)
        reason = f"{card.name} takes no prompt"
        if card.prompt != "none":
            reason = "no prompt was given, and the card's own is for removing"
        log.notes.append(f"{reason}: nothing was enhanced")
        return None

    def _pass(
        self, edit: Edit, run: Run, log: Log, card: Card, windows: tuple[Window, ...], number: int,
        seeds: tuple[int, ...], prompt: str, parameters: dict[str, Any],
    ) -> Edit:  # fmt: skip
        jobs: dict[int, tuple[FillJob, int, tuple[int, ...]]] = {}
        images: list[dict[int, Bytes]] = [{} for _ in windows]
        spent = [{"seconds": 0.0, "price": 0.0} for _ in windows]
        refused: dict[int, str] = {}
        for index, window in enumerate(windows):
            if not card.limits.accepts(window.size):
                raise EngineError(f"{card.name}: does not take windows of {window.size}; crop for this model first")
            # After the first pass each variation sees its own surroundings; one job an image unless seeds batch.
            alone = number > 0 or not card.batch_seeds
            for group in [(k,) for k in range(len(seeds))] if alone else [tuple(range(len(seeds)))]:
                given = make_job(edit, window, group[0] if number else None)
                if given is None:
                    log.notes.append(f"window {window.box}: lies on transparent ground, no engine was needed")
                    images[index] |= dict.fromkeys(group, without_engine(edit, window))
                    continue
                job = FillJob(
                    *given, prompt, tuple(seeds[k] for k in group), parameters,
                    (card.name, card.revision), f"window {index + 1} of {len(windows)}",
                )  # fmt: skip
                jobs[id(job)] = (job, index, group)
        for result in run.fill(card, [job for job, _, _ in jobs.values()]) if jobs else ():
            _, index, group = self._owner(jobs, result.job)
            if result.refused:
                refused |= dict.fromkeys(group, result.refused)
            else:
                images[index] |= dict(zip(group, result.images, strict=True))
            spent[index]["seconds"] += result.seconds
            spent[index]["price"] += result.price
            if result.facts:
                log.figures.setdefault("service", []).append(
                    {"window": index, "seeds": result.job.seeds, **result.facts}
                )
        log.price += sum(one["price"] for one in spent)
        kept = [k for k in range(len(seeds)) if k not in refused]
        for k, reason in sorted(refused.items()):
            log.warnings.append(f"seed {seeds[k]}: {reason}; it counts as paid and was not used")
        if not kept:
            raise EngineError(
                f"{card.name}: {next(iter(refused.values()))}; it counts as paid and nothing is left to use"
            )
        fills = tuple(
            Filled(
                window,
                tuple(images[i][k] for k in kept),
                tuple(seeds[k] for k in kept),
                card.name,
                keeps_grain=card.keeps_grain,
                **spent[i],
            )
            for i, window in enumerate(windows)
        )
        if refused:  # a variation holds all windows, those of earlier passes too
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

    @staticmethod
    def _owner(
        jobs: dict[int, tuple[FillJob, int, tuple[int, ...]]], job: FillJob
    ) -> tuple[FillJob, int, tuple[int, ...]]:
        if id(job) in jobs:
            return jobs.pop(id(job))
        # It came back from another process: same job, other object.
        match = next(i for i, (mine, _, _) in jobs.items() if (mine.name, mine.seeds) == (job.name, job.seeds))
        return jobs.pop(match)

    def _parameters(self, card: Card) -> dict[str, Any]:
        for name in _TUNABLE:
            if name not in card.parameters and getattr(self, name):
                raise ParameterError(f"{name}: {card.name} does not take it")
        if "num_images" in card.parameters:
            card.parameters["num_images"].checked("num_images", self.num_images, card.name)
        chosen = {"steps": self.steps, "guidance": self.guidance, "lora": self._loras(card) if self.lora else None}
        return {
            name: rule.checked(name, chosen[name], card.name)
            for name, rule in card.parameters.items()
            if name in chosen
        }

    def _loras(self, card: Card) -> list[dict[str, Any]]:
        rule = card.parameters["lora"]
        loras = parsed(self.lora, settings.load().loras if any(text.startswith("@") for text in self.lora) else {})
        if rule.most is not None and len(loras) > rule.most:
            raise ParameterError(f"lora: {card.name} takes at most {rule.most}, got {len(loras)}")
        for lora in loras:
            low, high = rule.minimum, rule.maximum
            if (low is not None and lora.scale < low) or (high is not None and lora.scale > high):
                raise ParameterError(f"lora {lora.path}: {card.name} takes scales {low} to {high}, got {lora.scale:g}")
            if card.concurrency == "network" and not is_remote(lora.path):
                raise ParameterError(
                    f"lora {lora.path!r}: {card.name} fetches LoRAs itself; name a repository (owner/name) "
                    "or an address"
                )
        return [{"path": lora.path, "scale": lora.scale} for lora in loras]

    def _prompt(self, card: Card, log: Log) -> str:
        if card.prompt == "none":
            if self.prompt:
                log.warnings.append(f"{card.name} takes no prompt; {self.prompt!r} was not used")
            return ""
        if self.prompt and (problem := hint(self.prompt)):
            log.notes.append(problem)
        prompt = self.prompt or card.removal_prompt
        if card.prompt == "required" and not prompt:
            raise ParameterError(f"prompt: {card.name} needs one; say what should be there")
        return prompt


def hold_back(edit: Edit, card: Card) -> None:
    """See to it that nothing is paid on a mask that is likely wrong.

    Raises:
        HeldBack: when the selection's confidence is below what the card of a paid engine wants.
    """
    found = [step for step in edit.steps if step.stage in ("select", "segment")]
    if card.free or not found or not found[-1].engine:
        return
    confidence = found[-1].figures.get("confidence", 1.0)
    if confidence < card.min_confidence:
        raise HeldBack(
            f"held back: the mask's confidence is {confidence:.2f}, below the {card.min_confidence:g} that "
            f"{card.name} is paid for; nothing was sent. Point at it better, or give the mask itself with --mask",
            edit,
        )


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
