"""What every stage that has a fill engine paint something shares: its parameters, seeds, and asking for pictures."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import Field

from toolkit import engines, lorafiles, planning, settings
from toolkit.cards import Card, Memory, Removal, Speed
from toolkit.edit import Edit, Window
from toolkit.engines import Bytes, FillJob, FillResult
from toolkit.errors import EngineError, HeldBack, ParameterError
from toolkit.lora import is_remote, parsed
from toolkit.run import Run
from toolkit.schema import Bare, Model, Names, Seed
from toolkit.stages import Log

TUNABLE = ("steps", "guidance", "lora", "memory", "speed")
"""Parameters that are passed on to the engine as the card takes them."""


_WAY_OUT = ": try another seed or prompt; --fresh pays for the same anew"


class Seeded(Model):
    """The seed of a stage that chooses something; a base beside `Stage`."""

    seed: Seed | Literal["random"] | None = Field(
        default=None, description="whole number, or random (the one drawn is printed); 0 without it"
    )

    def first_seed(self, run: Run, log: Log) -> int:
        """The seed given, drawn or the run's own; said where it was drawn."""
        seed = run.draw_seed() if self.seed == "random" else run.seed if self.seed is None else int(self.seed)
        if self.seed == "random":
            log.notes.append(f"seed {seed} was drawn")
        return seed


class Painting(Seeded):
    """Parameters of a stage that has a fill engine paint; a base beside `Stage`."""

    model: str = Field(default="auto", description="engine that fills", json_schema_extra={"short": "-m"})
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
    memory: Memory | None = Field(
        default=None,
        description="of networks that run here, where their weights lie: full, on the GPU; quantized, there and "
        "smaller; offload, in part beside it; auto, the first of these that fits; the card's own without it",
    )
    speed: Speed | None = Field(
        default=None,
        description="of networks that run here: exact; fast, which skips steps that change little; turbo, a LoRA that "
        "needs few steps; the card's own without it",
    )

    enhance: Bare = Field(
        default="", description="have the prompt written better for the hole, by this enhancer; without a name by auto"
    )

    def enhancer_for(self, card: Card, prompt: str, run: Run, log: Log, *, ready: bool = True) -> Card | None:
        """The card of the enhancer that is asked, once a photo; None where none is, and `log` is told why."""
        if not self.enhance:
            return None
        if card.prompt != "none" and prompt:
            return run.card("enhance", self.enhance, ready=ready)
        reason = f"{card.name} takes no prompt"
        if card.prompt != "none":
            reason = "no prompt was given, and the card's own is for removing"
        log.notes.append(f"{reason}: nothing was enhanced")
        return None

    def checked(self, run: Run, card: Card, parameters: Mapping[str, Any], ready: bool) -> None:
        """Find out whether the card takes size and seeds, besides its `parameters`, and its engine runs here.

        Raises:
            ParameterError: when it does not take them.
            EngineError: when it cannot run here.
        """
        size = getattr(self, "size", None)
        if size is not None and not card.limits.accepts(size):
            raise ParameterError(planning.refusal(size, card.limits))
        if self.seed != "random":
            self.seeds_for(card, run, Log())
        if ready:
            run.card("fill", card.name)

    def planned(
        self, edit: Edit, run: Run, card: Card, passes: tuple[tuple[Window, ...], ...], parameters: Mapping[str, Any],
        prompt: str, enhancer: Card | None, first: Callable[[tuple[int, ...]], Sequence[Asked]], log: Log,
    ) -> None:  # fmt: skip
        """Note windows, calls, price and expected seconds; none where the mask would be held back, which is said.

        What an earlier run paid for and is there costs nothing. That an engine could not run here is said too.

        Args:
            first: the jobs of the first pass, by the seeds; asked for where some of them may be there.
        """
        wanted = [card] if enhancer is None else [card, enhancer]
        for one in wanted:
            if reason := run.missing(one):
                log.notes.append(f"{one.name} cannot run here: {reason}")
        try:
            hold_back(edit, card)
        except HeldBack as problem:
            log.warnings.append(str(problem))
            log.figures["held"] = True
            passes = ()
        kept = {} if enhancer or not passes else self._kept(run, card, passes[0], prompt, first, log)
        plan = planning.estimate(
            passes, self.num_images, card.price, card.pace_at(parameters), card.per_call, kept, card.batch_seeds
        )
        calls, price, seconds, longest = plan.calls, plan.price, plan.seconds, plan.longest
        if enhancer is not None and passes:
            log.figures["enhancer"] = enhancer.name
            calls, price = calls + (not enhancer.free), round(price + enhancer.price.of(1), 6)
            seconds, longest = (None if one is None else one + enhancer.per_call for one in (seconds, longest))
        per_minute, at_once = engines.rate(card)
        wall = None
        if seconds is not None and longest is not None:
            wall = planning.wall_clock(calls, seconds, longest, at_once, per_minute)
        log.figures |= {
            "leaves_for": sorted({engines.destination(one) for one in wanted} - {""}) if calls else [],
            "windows": planning.described(passes),
            "calls": calls,
            "kept": sum(kept.values()),
            "price_expected": price,
            "seconds_expected": None if wall is None else round(wall, 1),
            "seconds_of_calls": None if seconds is None else round(seconds, 1),
            "rate": {"per_minute": per_minute, "at_once": at_once},
            "measured_on": card.measured_on,
        }

    def _kept(
        self, run: Run, card: Card, windows: Sequence[Window], prompt: str,
        first: Callable[[tuple[int, ...]], Sequence[Asked]], log: Log,
    ) -> dict[int, int]:  # fmt: skip
        """How many images of each window are there already, paid for by an earlier run."""
        if run.fresh or card.free or self.seed == "random":
            return {}
        if not any(engines.may_be_kept(card, window.size, prompt, run.journal) for window in windows):
            return {}
        kept: Counter[int] = Counter()
        for one in first(self.seeds_for(card, run, log)):
            if engines.is_kept(card, one.job, run.journal):
                kept[one.window] += len(one.variations)
        return kept

    def seeds_for(self, card: Card, run: Run, log: Log) -> tuple[int, ...]:
        """One seed a variation; noted in `log`, and said where it was drawn.

        Raises:
            ParameterError: when the card does not take the last of them.
        """
        seed = self.first_seed(run, log)
        seeds = log.seeds = tuple(seed + k for k in range(self.num_images))
        if "seed" in card.parameters:
            card.parameters["seed"].checked("seed", seeds[-1], card.name)
        return seeds

    def parameters_for(self, card: Card, removal: Removal | None = None) -> dict[str, Any]:
        """The card's parameters with their values, as a job holds them.

        What the user does not give is what a speed that is not the card's own asks for, else what `removal` says, else
        the card's default.

        Raises:
            ParameterError: for one the card does not take, or out of its range.
            InputError: for a LoRA that is nowhere.
        """
        for name in TUNABLE:
            if name not in card.parameters and getattr(self, name):
                raise ParameterError(f"{name}: {card.name} does not take it")
        if "num_images" in card.parameters:
            card.parameters["num_images"].checked("num_images", self.num_images, card.name)
        given = {name: getattr(self, name) for name in TUNABLE if name != "lora"}
        speed: Any = self.speed or (card.parameters["speed"].default if "speed" in card.parameters else None)
        for name, rule in card.parameters.items():
            if name in given and given[name] is None:
                given[name] = rule.at_speed.get(speed, getattr(removal, name, None))
        given["lora"] = self._loras(card) if self.lora else None
        return {
            name: rule.checked(name, given[name], card.name) for name, rule in card.parameters.items() if name in given
        }

    def _loras(self, card: Card) -> list[dict[str, Any]]:
        """The LoRAs as a job holds them; one that lies here and is used here with its hash, so that its content counts.

        Raises:
            ParameterError: for one the card does not take.
            InputError: for one that is nowhere.
        """
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
        listed: list[dict[str, Any]] = []
        for lora in loras:
            listed.append({"path": lora.path, "scale": lora.scale})
            if card.concurrency != "network" and (file := lorafiles.local(lora.path)) is not None:
                listed[-1]["sha256"] = lorafiles.content_hash(file)
        return listed


@dataclass(frozen=True, eq=False)
class Asked:
    """A job with the number of its window and of the variations its images are."""

    job: FillJob
    window: int
    variations: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Answers:
    """What came of jobs.

    Attributes:
        images: for each window, its images by variation.
        spent: for each window, seconds and price.
        kept: the variations that were not refused.
    """

    images: list[dict[int, Bytes]]
    spent: list[dict[str, float]]
    kept: list[int]


def groups(card: Card, count: int, first_pass: bool) -> list[tuple[int, ...]]:
    """The variations of one window that go into one job.

    After the first pass each variation sees its own surroundings; one job an image unless seeds batch.
    """
    if first_pass and card.batch_seeds:
        return [tuple(range(count))]
    return [(k,) for k in range(count)]


def answers(run: Run, card: Card, log: Log, asked: Sequence[Asked], windows: int, seeds: Sequence[int]) -> Answers:
    """Have jobs done; how many, what they cost, what the engine says of them and what was refused is noted in `log`.

    Raises:
        EngineError: when the engine fails, or nothing is left because all was refused.
    """
    log.figures["calls"] = log.figures.get("calls", 0) + len(asked)
    waiting = {id(one.job): one for one in asked}
    images: list[dict[int, Bytes]] = [{} for _ in range(windows)]
    spent = [{"seconds": 0.0, "price": 0.0} for _ in range(windows)]
    refused: dict[int, str] = {}
    for result in _results(run, card, [one.job for one in asked]) if asked else ():
        one = _owner(waiting, result.job)
        counts = "it counts as paid" if result.price or card.free else "it was paid before"
        for k, image in zip(one.variations, result.images, strict=True):
            if image is None:
                refused[k] = f"{result.refused}; {counts}"
            else:
                images[one.window][k] = image
        spent[one.window]["seconds"] += result.seconds
        spent[one.window]["price"] += result.price
        log.notes += [f"{card.name}: {note}" for note in result.notes if f"{card.name}: {note}" not in log.notes]
        if result.facts:
            log.figures.setdefault("service" if card.concurrency == "network" else "engine", []).append(
                {"window": one.window, "seeds": result.job.seeds, **result.facts}
            )
    log.price += sum(one["price"] for one in spent)
    for k, reason in sorted(refused.items()):
        log.warnings.append(f"seed {seeds[k]}: {reason} and was not used{_WAY_OUT}")
    kept = [k for k in range(len(seeds)) if k not in refused]
    if not kept:
        raise EngineError(f"{card.name}: {next(iter(refused.values()))} and nothing is left to use{_WAY_OUT}")
    return Answers(images, spent, kept)


def _results(run: Run, card: Card, jobs: Sequence[FillJob]) -> Iterator[FillResult]:
    """The jobs' results; where dollars are limited, none is sent unless there are enough for all of them."""
    with contextlib.ExitStack() as stack:
        if run.budget.limit is not None and not card.free and not run.fresh and len(jobs) > 1:
            owed = [job for job in jobs if not engines.is_kept(card, job, run.journal)]
            run = stack.enter_context(run.allotted(card.price.of(sum(len(job.seeds) for job in owed))))
        yield from run.fill(card, jobs)


def _owner(waiting: dict[int, Asked], job: FillJob) -> Asked:
    if id(job) in waiting:
        return waiting.pop(id(job))
    # It came back from another process: same job, other object.
    match = next(i for i, one in waiting.items() if (one.job.name, one.job.seeds) == (job.name, job.seeds))
    return waiting.pop(match)


def hold_back(edit: Edit, card: Card) -> None:
    """See to it that nothing is paid on a mask that is likely wrong.

    Raises:
        HeldBack: when the selection's confidence is below what the card of a paid engine wants.
    """
    found = [step for step in edit.steps if step.stage in ("select", "segment")]
    if card.free or not found or not found[-1].engine:
        return
    figures = found[-1].figures
    confidence = figures.get("confidence_of_guesses", figures.get("confidence", 1.0))
    if confidence < card.min_confidence:
        raise HeldBack(
            f"held back: the mask's confidence is {confidence:.2f}, below the {card.min_confidence:g} that "
            f"{card.name} is paid for; nothing was sent. Point at it better, or give the mask itself with --mask",
            edit,
        )
