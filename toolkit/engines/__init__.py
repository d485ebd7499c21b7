"""What an engine is, and how one is opened by its card.

An adapter is the file `toolkit/engines/<task>/<adapter>.py` with a class `Engine(card)` that follows the
protocol of its task, and, where something might be missing on a machine, a function `missing(card)` that
says in one sentence what, or returns "". Where an engine runs on some devices only, a function `missing_on(card,
device)` says so in the same way. Where the user's settings decide what an engine costs, a function
`configured(card)` returns the card with that. Of an engine elsewhere a function `rate(card)` says how many calls it
takes a minute and at once, and functions `may_be_kept` and `is_kept` what it was asked before (see below). Adapters
import heavy libraries when opened, never at import.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from blake3 import blake3

from toolkit import cards
from toolkit.cards import Card, Hint, Task
from toolkit.edit import Region
from toolkit.errors import EngineError, UsageError
from toolkit.geometry import Box, Size
from toolkit.journal import Journal
from toolkit.schema import Point
from toolkit.surroundings import Surroundings

Bytes = npt.NDArray[np.uint8]
T = TypeVar("T")

HINTS: Mapping[Hint, str] = {
    "box": "boxes", "point": "clicks", "subject": "the photo's main subject", "text": "words",
    "everything": "everything there is",
}  # fmt: skip
"""What a segmenter can be pointed with, in words."""


@dataclass(frozen=True, eq=False)
class FillJob:
    """One window to be filled: pure, picklable data.

    Attributes:
        pixels: (h, w, 3) uint8 sRGB at working size; what lies under `mask` is not to be trusted.
        mask: (h, w) uint8, 255 = to be filled, 0 = known.
        blocked: (h, w) uint8, 255 = neither filled nor copied from (other holes, transparent ground).
        prompt: what should be there; empty where the engine takes none.
        seeds: one a wanted image.
        parameters: the card's parameters with their values (steps, guidance, ...), JSON-ready.
        card: name and revision of the card the job is meant for.
        name: what it is called in progress and errors.
    """

    pixels: Bytes
    mask: Bytes
    blocked: Bytes
    prompt: str = ""
    seeds: tuple[int, ...] = (0,)
    parameters: Mapping[str, Any] = field(default_factory=dict)
    card: tuple[str, str] = ("", "")
    name: str = ""

    @property
    def size(self) -> Size:
        """Working size."""
        return Size(self.pixels.shape[1], self.pixels.shape[0])

    @property
    def key(self) -> str:
        """Hash (BLAKE3, hexadecimal) of everything that shapes the answer; the job's name does not."""
        return self._keys[0]

    @property
    def picture_key(self) -> str:
        """Hash (BLAKE3, hexadecimal) of the pixels alone."""
        return self._keys[1]

    @cached_property
    def _keys(self) -> tuple[str, str]:
        state = blake3()
        _add_to(state, self.pixels)
        picture = state.hexdigest()
        for array in (self.mask, self.blocked):
            _add_to(state, array)
        rest = {"prompt": self.prompt, "seeds": self.seeds, "parameters": dict(self.parameters), "card": self.card}
        state.update(json.dumps(rest, sort_keys=True).encode())
        return state.hexdigest(), picture


@dataclass(frozen=True, eq=False)
class FillResult:
    """The answer to a job.

    Attributes:
        images: (h, w, 3) uint8 sRGB, one for each of the job's seeds, at the job's size; None for one that was refused.
        seconds: it took.
        price: dollars it cost now; 0 where it was paid before.
        facts: what the engine tells of it besides, JSON-ready (a service: its id, times, addresses).
        refused: why images are None though they were paid, as one clause; empty where none is.
        notes: what went otherwise than asked or expected, a clause each, to be told the user.
    """

    job: FillJob
    images: tuple[Bytes | None, ...]
    seconds: float = 0.0
    price: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    notes: tuple[str, ...] = ()

    def checked(self, card: Card) -> FillResult:
        """The result itself.

        Raises:
            EngineError: when the engine answered with another number or size of images than asked for.
        """
        if len(self.images) != len(self.job.seeds):
            raise EngineError(f"{card.name}: returned {len(self.images)} images, asked for {len(self.job.seeds)}")
        if self.refused and all(image is not None for image in self.images):
            raise EngineError(f"{card.name}: says {self.refused!r} and returned all images")
        for image in self.images:
            if image is None and self.refused:
                continue
            if image is None or image.shape != self.job.pixels.shape or image.dtype != np.uint8:
                raise EngineError(
                    f"{card.name}: expected an image of shape {self.job.pixels.shape} uint8, "
                    f"got {'none' if image is None else f'{image.shape} {image.dtype}'}"
                )
        return self


@dataclass(frozen=True, eq=False)
class EnhanceJob:
    """A prompt to be written better for one hole: pure, picklable data.

    Attributes:
        prompt: as the user wrote it; not empty.
        surroundings: what lies around the hole.
        picture: (h, w, 3) uint8 sRGB, the hole's neighbourhood with the hole in mid-grey, longest side 1024 at most.
        hole: (h, w) uint8, 255 = hole.
        card: name and revision of the card the job is meant for.
        name: what it is called in progress and errors.
    """

    prompt: str
    surroundings: Surroundings
    picture: Bytes
    hole: Bytes
    card: tuple[str, str] = ("", "")
    name: str = "prompt"

    @cached_property
    def key(self) -> str:
        """Hash (BLAKE3, hexadecimal) of everything that shapes the answer; the job's name does not."""
        state = blake3()
        for array in (self.picture, self.hole):
            _add_to(state, array)
        state.update(json.dumps([self.prompt, self.surroundings.text, self.card]).encode())
        return state.hexdigest()


@dataclass(frozen=True)
class EnhanceResult:
    """The answer to an `EnhanceJob`.

    Attributes:
        prompt: the better one, on one line; empty where none came.
        price: dollars it cost now; 0 where it was paid before.
        facts: what the engine tells of it besides, JSON-ready.
        trouble: why there is no prompt though it may be paid, as one clause; empty otherwise.
    """

    prompt: str
    price: float = 0.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    trouble: str = ""


@dataclass(frozen=True)
class Prompts:
    """What points at objects: boxes, clicks inside and outside, words, that it is the main subject, or everything."""

    boxes: tuple[Box, ...] = ()
    include: tuple[Point, ...] = ()
    exclude: tuple[Point, ...] = ()
    text: tuple[str, ...] = ()
    subject: bool = False
    everything: bool = False


@dataclass(frozen=True, eq=False)
class Found:
    """Regions, best first, and the engine's own opaque state for refining them."""

    regions: tuple[Region, ...]
    state: bytes = b""


class EngineRun(Protocol):
    """The little an engine sees of the run it works for."""

    @property
    def journal(self) -> Journal:
        """What was asked, sent and paid."""
        ...

    @property
    def seed(self) -> int:
        """The seed for choices the engine makes itself."""
        ...

    @property
    def device(self) -> str:
        """Where networks are to run: "auto", "cpu", "cuda", "cuda:1", "mps"."""
        ...

    @property
    def id(self) -> str:
        """The run's name in the journal; empty where it is in none."""
        ...

    @property
    def fresh(self) -> bool:
        """Have everything done anew although the journal holds the answer."""
        ...

    def reserve(self, price: float) -> None:
        """Set dollars aside before they are spent.

        Raises:
            EngineError: when the limit would be passed.
        """
        ...

    def release(self, price: float) -> None:
        """Give back what was set aside and certainly not spent."""
        ...

    def progress(self, name: str, share: float) -> None:
        """Say that `name` is done to `share` (0-1)."""
        ...

    def cancelled(self, name: str = "") -> bool:
        """True once the work was cancelled."""
        ...

    def compute(self, function: Callable[..., T], *arguments: Any, name: str = "") -> T:
        """Call a picklable function in a worker process, where Ctrl-C and crashes cannot hurt."""
        ...


class Picture(Protocol):
    """Something whose pixels are read by box: an Edit."""

    @property
    def box(self) -> Box:
        """The upright photo's box."""
        ...

    @property
    def digest(self) -> str:
        """A hash of its pixels."""
        ...

    def srgb(self, box: Box) -> Bytes:
        """Pixels (h, w, 3) uint8 sRGB of `box`, mirrored beyond the photo."""
        ...


class Filler(Protocol):
    """Fills holes."""

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """Results in any order; partial results are kept. What costs money is reserved with the run just before.

        Raises:
            EngineError: when a job cannot be done.
        """
        ...


class Segmenter(Protocol):
    """Turns into masks what points at objects, in the ways its card `takes`."""

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        """Do what a picture needs once; the key hashes its pixels and the card revision."""
        ...

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        """Regions for `prompts`, refining `previous` state where given.

        One region a box, in their order; one for all clicks that lie in no box; then those for the rest.

        Raises:
            EngineError: when the engine fails.
        """
        ...


class Detector(Protocol):
    """Finds regions by words."""

    def detect(self, picture: Picture, phrases: Sequence[str], run: EngineRun) -> tuple[Region, ...]:
        """Every candidate worth a look, best first: its box, the phrase it answers as label, its score (0-1).

        Scores begin far below the card's threshold, and boxes may overlap: the caller decides what is taken.

        Raises:
            EngineError: when the engine fails.
        """
        ...


class Matter(Protocol):
    """Turns a hard mask into a soft alpha."""

    def matte(self, pixels: Bytes, trimap: Bytes, run: EngineRun) -> Bytes:
        """Alpha (h, w) uint8 for (h, w, 3) uint8 sRGB and a trimap of 0, 128 (unknown), 255."""
        ...


class Enhancer(Protocol):
    """Writes a better prompt."""

    def enhance(self, job: EnhanceJob, run: EngineRun) -> EnhanceResult:
        """A prompt for the job's hole; what was paid is in the journal before it is returned.

        Raises:
            EngineError: when none can be had.
            Cancelled: when the run was cancelled.
        """
        ...


def _add_to(state: blake3, array: Bytes) -> None:
    """Have an array's shape, dtype and values count in a hash."""
    state.update(f"{array.shape}{_dtype_name(array.dtype)}".encode())
    state.update(np.ascontiguousarray(array).data)


_dtype_name = cache(str)
"""Kept: numpy takes longer to say it than to hash a small array."""


def adapter(card: Card) -> Any:
    """The module that drives the card's engine.

    Raises:
        EngineError: when there is no such adapter.
    """
    name = f"toolkit.engines.{card.task}.{card.adapter}"
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as problem:
        if problem.name != name:
            raise
        raise EngineError(f"{card.name}: no adapter {card.adapter!r} for {card.task}") from None


def missing(card: Card, device: str | None = None) -> str:
    """What keeps the card's engine from running here, in one sentence; empty when nothing does.

    Args:
        device: as `Run.device` says; without it nothing is asked of devices, and no heavy library imported.
    """
    try:
        module = adapter(card)
    except EngineError as problem:
        return str(problem)
    except ImportError as problem:
        return f"{card.name}: {problem}"
    check, check_on = getattr(module, "missing", None), getattr(module, "missing_on", None)
    reason = str(check(card)) if check else ""
    return str(check_on(card, device)) if check_on and device is not None and not reason else reason


def configured(card: Card) -> Card:
    """The card as the user's settings make it: price and place of an engine that is set up there."""
    change = _hook(card, "configured")
    changed: Card = change(card) if change else card
    return changed


def _hook(card: Card, name: str) -> Callable[..., Any] | None:
    """A function of the card's adapter, where that can be had and has it."""
    try:
        hook: Callable[..., Any] | None = getattr(adapter(card), name, None)
    except (EngineError, ImportError):
        return None
    return hook


def destination(card: Card) -> str:
    """The host that what is filled is sent to; empty where nothing leaves this machine."""
    module = adapter(card) if card.data_leaves_machine else None
    return str(module.destination(card)) if module else ""


def rate(card: Card) -> tuple[int | None, int]:
    """Calls the card's engine takes in a minute (None for any number), and at once."""
    if card.concurrency != "network":
        return None, 1
    say = _hook(card, "rate")
    per_minute, at_once = say(card) if say else (None, card.in_flight)
    return per_minute, min(at_once, card.in_flight)


def may_be_kept(card: Card, size: Size, prompt: str, journal: Journal) -> bool:
    """Whether the engine was asked for a fill of this size by this prompt, so that it is worth a look which it was."""
    say = _hook(card, "may_be_kept") if journal.exists else None
    return bool(say and say(card, size, prompt, journal))


def is_kept(card: Card, job: FillJob, journal: Journal) -> bool:
    """Whether a job costs nothing more: its answer lies here, or may still come."""
    say = _hook(card, "is_kept") if journal.exists else None
    return bool(say and say(card, job, journal))


def resolve(task: Task, name: str = "auto", *, ready: bool = True, takes: Collection[Hint] = ()) -> Card:
    """The card, as configured, called `name`; two names are reserved: `auto`, `prompted`.

    `auto` is the highest-ranked card that is free of charge and runs here, `prompted` the same of those that follow a
    prompt. Unless `ready`, one given by name need not be able to run here, as is enough for planning.

    Args:
        takes: what a segmenter must understand.

    Raises:
        UnknownNameError: for a name nobody knows.
        UsageError: when the engine named does not take what points.
        EngineError: when the engine named, or every ranked one, is missing something.
    """
    wants_prompt = name == "prompted" and task == "fill"
    if name != "auto" and not wants_prompt:
        card = cards.find(task, name)
        check_takes(card, takes)
        if ready and (reason := missing(card)):
            raise EngineError(f"{card.name} cannot run: {reason}")
        return configured(card)
    reasons = []
    for card in cards.every(task):
        if card.rank is None or not card.free or (wants_prompt and card.prompt == "none"):
            continue
        if not set(takes) <= set(card.takes):
            continue
        reason = missing(card)
        if not reason:
            return configured(card)
        reasons.append(f"{card.name}: {reason}")
    if wants_prompt:
        why = f" ({'; '.join(reasons)})" if reasons else ""
        raise EngineError(f"no free engine that follows a prompt can run here{why}; {prompted()}")
    raise EngineError(f"no engine for {task} can run here ({'; '.join(reasons) or 'no card has a rank'})")


def check_takes(card: Card, takes: Collection[Hint]) -> None:
    """Find out whether a segmenter can be pointed at objects in these ways.

    Raises:
        UsageError: when it cannot; those that can are named.
    """
    if lacking := [hint for hint in takes if hint not in card.takes]:
        able = [one.name for one in cards.every(card.task) if set(takes) <= set(one.takes)]
        raise UsageError(
            f"{card.name} does not take {' and '.join(map(HINTS.__getitem__, lacking))}, only "
            f"{' and '.join(map(HINTS.__getitem__, card.takes))}" + (f"; choose {' or '.join(able)}" if able else "")
        )


def prompted() -> str:
    """How to choose an engine that follows a prompt, as the end of a sentence: with their price those that run here and
    the paid ones, which are set up in a minute; where there is none, all there are."""
    every = [card for card in cards.every("fill") if card.prompt != "none"]
    if not every:
        return "there is no card of one that does"
    known = [card for card in every if not card.free or not missing(card)] or every
    offered = [f"-m {card.name} ({'free' if card.free else f'${card.price.per_image:g} an image'})" for card in known]
    return f"choose one that does with {' or '.join(offered)}"


def open_engine(card: Card) -> Any:
    """The card's engine, ready to work; this is where heavy libraries are imported."""
    return adapter(card).Engine(card)
