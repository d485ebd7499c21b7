"""FLUX.1 Fill on this machine's own GPU, through diffusers' FluxFillPipeline.

The mask is sent hard: soft edges are made here, when the answer is laid on the photo. Image k of a job starts from the
noise of its own seed, drawn on the processor, whatever else is in its batch; over batches of other make-up the answers
of a network in 16 bits differ by its rounding, so the batch is told with the answer.
"""

from __future__ import annotations

import gc
import json
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from toolkit import cards, devices, lorafiles, weights
from toolkit.cards import Card
from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.engines.fill._flux_lora import Loras
from toolkit.engines.fill._flux_memory import MODES, Need, Plan, plan
from toolkit.engines.fill._flux_network import Files, Network, Unit
from toolkit.engines.fill._flux_text import Embedding, Texts
from toolkit.engines.pretrained import heed, ran
from toolkit.engines.turn import Turn
from toolkit.errors import Cancelled, EngineError
from toolkit.geometry import Size
from toolkit.schema import Model

Bytes = npt.NDArray[np.uint8]

GIB = 2**30


class LoraSetting(Model):
    """A LoRA that belongs to a card."""

    path: str = Field(description="as after --lora: a file, an address, owner/name or owner/name/file.safetensors")
    scale: float = Field(default=1.0, strict=False)


class Settings(Model):
    """A card's settings."""

    base: str = Field(default="", description="card whose files are used for all that this one does not bring")
    transformer: str = Field(default="", description="of this card's weights, the file that is the transformer")
    single_file: str = Field(default="", description="part that a single file in the user's settings stands for")
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    text_tokens: int = Field(default=512, ge=1, le=512, description="words of a prompt that are read")
    first_block_threshold: float = Field(
        default=0.08, gt=0, description="speed fast: steps whose first block changes less than this share are skipped"
    )
    turbo: LoraSetting | None = Field(default=None, description="speed turbo: the LoRA that needs few steps")
    loras: tuple[LoraSetting, ...] = Field(default=(), strict=False, description="LoRAs that are always used")
    memory: Need | None = Field(default=None, description="what it takes; without it nothing is predicted")


def missing(card: Card) -> str:
    """What is not installed, or which weights are not there."""
    return (
        devices.installed("flux", "torch", "transformers", "diffusers", "accelerate", "peft", "torchao")
        or weights.missing(_base(card))
        or weights.missing(card)
    )


def missing_on(card: Card, device: str) -> str:
    """Why it does not run on a device: that is not there, or is a processor that nobody asked for. Imports torch."""
    try:
        if devices.chosen(device) != "cpu" or device == "cpu":
            return ""
    except EngineError as problem:
        return str(problem)
    files = _files(card)
    network = files.bytes("transformer", "vae") / GIB
    encoders = files.bytes("text_encoder", "text_encoder_2") / GIB
    free = devices.free_memory("cpu")
    return (
        f"needs a GPU, and torch finds none here; its network has {network:.3g} GiB, its text encoders "
        f"{encoders:.3g} GiB"
        + (f", {free / GIB:.3g} GiB of memory are free" if free is not None else "")
        + ", and a picture takes the processor hours; use -m wavespeed-flux-fill-dev, or go on with --device cpu"
    )


def _base(card: Card) -> Card:
    name = card.settings.get("base")
    return cards.find("fill", str(name)) if name else card


def _files(card: Card) -> Files:
    base, transformer = _base(card), str(card.settings.get("transformer", ""))
    if absent := weights.missing(base) or weights.missing(card):
        raise EngineError(f"{card.name}: {absent}")
    single = weights.checked_path(card, transformer) if transformer else weights.single_file(base)
    return Files(weights.folder(base), single)


@dataclass(frozen=True)
class _Request:
    """What images must have in common to be made in one batch."""

    size: Size
    steps: int
    guidance: float
    loras: str
    speed: str
    memory: str


@dataclass(eq=False)
class _Work:
    """A job, and what is done of it."""

    job: FillJob
    embedding: Embedding
    images: dict[int, Bytes] = field(default_factory=dict)
    seconds: float = 0.0
    facts: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def result(self) -> FillResult:
        told = {name: [one[name] for one in self.facts] for name in self.facts[0]}
        batches = told.pop("batch")  # how many images were made together
        # What was not the same for all images is told of each.
        facts = {name: of if any(one != of[0] for one in of) else of[0] for name, of in told.items()}
        facts["batches"] = batches
        images = tuple(self.images[number] for number in range(len(self.job.seeds)))
        return FillResult(self.job, images, seconds=self.seconds, facts=facts, notes=tuple(dict.fromkeys(self.notes)))


class Engine:
    """Has windows filled by a FLUX.1 Fill pipeline that is loaded at the first job; threads may share it."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._settings = Settings.model_validate(card.settings)
        self._lock = threading.Lock()
        self._texts: Texts | None = None
        self._network: Network | None = None
        self._loras: Loras | None = None
        self._modes = (
            MODES  # those that `auto` may take: it goes on from the one it took, and from less after a failure
        )

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """Images of one size, prompt or not, are made together as far as memory allows; jobs in any order.

        Raises:
            EngineError: when it cannot be loaded or run here, or a LoRA is not one for it.
            Cancelled: when a job was cancelled; those that were not are answered before.
        """
        device = self._device(run)
        with Turn(self._lock, run), ran(self._card.name, device):
            embeddings, notes = self._read([job.prompt for job in jobs], device)
        groups: dict[_Request, list[tuple[_Work, int]]] = {}
        for job in jobs:
            work = _Work(job, embeddings[job.prompt], notes=list(notes.get(job.prompt, ())))
            groups.setdefault(_request(job), []).extend((work, number) for number in range(len(job.seeds)))
        cancelled = False
        for request, units in groups.items():
            while units:
                wanted = [unit for unit in units if not run.cancelled(unit[0].job.name)]
                cancelled |= len(wanted) < len(units)
                if not (units := wanted):
                    break
                try:
                    with Turn(self._lock, run), ran(self._card.name, device):
                        count = self._batch(request, units, device, run)
                except Cancelled:
                    if run.cancelled():
                        raise
                    continue  # only those of this batch; others are made still
                done, units = units[:count], units[count:]
                for work in dict.fromkeys(work for work, _ in done):
                    if len(work.images) == len(work.job.seeds):
                        yield work.result()
        if cancelled:
            raise Cancelled

    def _batch(self, request: _Request, units: list[tuple[_Work, int]], device: str, run: EngineRun) -> int:
        """Make the first images of `units`, as many as fit; how many that were."""
        import torch

        notes: list[str] = []
        loras = self._lora_files(request, notes, run)
        for last in (False, True):
            planned = self._plan(request, len(units), device, loras)
            try:
                self._hold(planned, device, notes, run)
                return self._made(request, planned, units[: planned.batch], loras, notes, run)
            except torch.OutOfMemoryError as problem:
                said = " ".join(str(problem).partition("\n")[0].split())[:200]
            # Not before: the exception holds what filled the memory.
            self._drop()
            smaller = MODES[MODES.index(planned.mode) + 1 :]
            if request.memory == "auto":
                self._modes = smaller or MODES[-1:]
            if last or request.memory != "auto" or not smaller:
                raise EngineError(
                    f"{self._card.name}: {device} ran out of memory with memory {planned.mode} at {request.size} "
                    f"({said}); choose a smaller --size or mode, or close other programs"
                )
            notes.append(f"{device} ran out of memory with memory {planned.mode}; it went on with {smaller[0]}")
        raise AssertionError

    def _made(
        self, request: _Request, planned: Plan, units: list[tuple[_Work, int]], loras: Sequence[tuple[Path, float]],
        notes: list[str], run: EngineRun,
    ) -> int:  # fmt: skip
        assert self._network is not None
        assert self._loras is not None
        network = self._network
        counts = Counter(work for work, _ in units)

        def step(done: int) -> None:
            if all(run.cancelled(work.job.name) for work in counts):
                raise Cancelled
            for work, count in counts.items():
                share = (len(work.images) + count * done / request.steps) / len(work.job.seeds)
                run.progress(work.job.name, share)

        if request.memory == "auto" and planned.mode != MODES[0]:
            notes.append(f"memory auto took {planned.mode}: {network.device} has no room for more")
        given = []
        for work, number in units:
            # Other holes are no surroundings: what they show now is not what will be there.
            hole = np.where(np.maximum(work.job.mask, work.job.blocked) >= 128, np.uint8(255), np.uint8(0))
            given.append(Unit(work.job.pixels, hole, *work.embedding, seed=work.job.seeds[number]))
        notes += self._loras.use(loras)
        start = time.perf_counter()
        threshold = self._settings.first_block_threshold if request.speed == "fast" else 0.0
        images = network.images(given, request.steps, request.guidance, step, threshold=threshold, tiled=planned.tiled)
        seconds = (time.perf_counter() - start) / len(units)
        facts = {
            "device": devices.described(network.device), "memory": network.mode, "tiled": planned.tiled,
            "speed": request.speed, "attention": network.attention, "compiled": network.compiled, "batch": len(units),
            "gib_expected": None if planned.peak is None else round(planned.peak, 2),
        }  # fmt: skip
        for (work, number), image in zip(units, images, strict=True):
            work.images[number] = image
            work.seconds += seconds
            work.facts.append(facts)
            work.notes += notes
        return len(units)

    def _plan(self, request: _Request, count: int, device: str, loras: Sequence[tuple[Path, float]] = ()) -> Plan:
        # A step is skipped or not for all images of a batch: another image's must never decide.
        batch = 1 if request.speed == "fast" else min(count, self._card.in_flight)
        modes = self._modes if request.memory == "auto" else tuple(mode for mode in MODES if mode == request.memory)
        room = self._room(device)
        counted = any(scale for _, scale in loras)  # else none is loaded
        loaded = sum(path.stat().st_size for path, _ in loras if counted and path.is_file()) / GIB
        planned = plan(self._card.name, self._settings.memory, modes, room, request.size, batch, loaded)
        if self._texts is not None and room is not None and planned.peak is not None:
            if planned.peak > room - self._encoders_on(device):
                self._texts.release()
        if request.memory == "auto":  # it is not loaded anew because others made room
            self._modes = MODES[MODES.index(planned.mode) :]
        return planned

    def _room(self, device: str) -> float | None:
        """GiB that can be had on the device, with what is held there already: network, LoRAs and text encoders."""
        free = devices.free_memory(device)
        if free is None:
            return None
        held = 0.0
        network, need = self._network, self._settings.memory
        if network is not None and need is not None and network.device == device and network.mode != "offload":
            held = float(getattr(need, network.mode)) + (self._loras.bytes / GIB if self._loras else 0.0)
        return free / GIB + held + self._encoders_on(device)

    def _hold(self, planned: Plan, device: str, notes: list[str], run: EngineRun) -> None:
        """Have the network as planned."""
        if self._network is not None and (self._network.mode, self._network.device) != (planned.mode, device):
            self._drop()
        if self._network is None:
            heed(run)
            self._network = Network(self._card.name, _files(self._card), self._settings.dtype, device, planned.mode)
            self._loras = Loras(self._network.pipe, self._card.name)
            if not self._network.compiled and device.startswith("cuda") and planned.mode != "offload":
                notes.append("its blocks are not compiled: torch finds no working Triton here; it is slower so")
            heed(run)

    def _drop(self) -> None:
        import torch

        self._network = self._loras = None
        if self._texts is not None:
            self._texts.release()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _lora_files(self, request: _Request, notes: list[str], run: EngineRun) -> list[tuple[Path, float]]:
        """The card's and the request's LoRAs as files, fetched where need be, each with its scale."""
        wanted = [*self._settings.loras]
        if request.speed == "turbo":
            if self._settings.turbo is None:
                raise EngineError(f"{self._card.name}: its card names no LoRA for speed turbo")
            wanted.append(self._settings.turbo)
        wanted += [LoraSetting(path=one["path"], scale=one["scale"]) for one in json.loads(request.loras)]

        def progress(name: str, done: int, whole: int | None) -> None:
            heed(run)
            run.progress(name, done / whole if whole else 0.0)

        return [(lorafiles.located(one.path, say=notes.append, progress=progress), one.scale) for one in wanted]

    def _read(self, prompts: Sequence[str], device: str) -> tuple[dict[str, Embedding], dict[str, list[str]]]:
        """What the text encoders make of prompts, and what is to be said of each."""
        import torch

        settings = self._settings
        if self._texts is None:
            self._texts = Texts(self._card.name, _files(self._card), settings.dtype, settings.text_tokens)
        texts, notes = self._texts, {}
        found = {prompt: texts.get(prompt) for prompt in prompts}
        for prompt in found:
            if lost := texts.cut(prompt):
                notes[prompt] = [f"the prompt's last {lost} words (tokens) are too many and were not read"]
        unknown = [prompt for prompt, embedding in found.items() if embedding is None]
        if unknown:
            place, keep = self._place_for_encoders(device)
            why = "has no room for the text encoders"
            if place == device:
                try:
                    found |= texts.encode(unknown, device, keep=keep)
                    why = ""
                except torch.OutOfMemoryError:
                    why = "ran out of memory with the text encoders"
            if why:
                found |= texts.encode(unknown, "cpu", keep=keep and place != device)
                for prompt in unknown:
                    notes.setdefault(prompt, []).append(f"the prompt was read on the processor: {device} {why}")
            for prompt in unknown:
                if folder := texts.unkept(prompt):
                    notes.setdefault(prompt, []).append(
                        f"{folder} cannot be written, so the text encoders are loaded for this prompt another time; "
                        "INPAINT_CACHE names another place"
                    )
        return {prompt: embedding for prompt, embedding in found.items() if embedding is not None}, notes

    def _place_for_encoders(self, device: str) -> tuple[str, bool]:
        """Where they are loaded, and whether they may stay there."""
        need, free = self._settings.memory, devices.free_memory(device)
        if need is None or free is None:
            return device, False
        room = free / GIB + self._encoders_on(device)
        place = device if room >= need.encoders + need.spare else "cpu"
        held = 0.0 if self._network is None else need.full
        return place, room + held >= need.encoders + need.peak("full", Size(1024, 1024), 1, False)

    def _encoders_on(self, device: str) -> float:
        """GiB that text encoders which were left on the device take there."""
        need = self._settings.memory
        return need.encoders if need is not None and self._texts is not None and self._texts.device == device else 0.0

    def _device(self, run: EngineRun) -> str:
        """The device asked for.

        Raises:
            EngineError: when there is no GPU and nobody said to go on without.
        """
        device = devices.chosen(run.device)
        if reason := missing_on(self._card, run.device):
            raise EngineError(f"{self._card.name}: {reason}")
        return device


def _request(job: FillJob) -> _Request:
    given = job.parameters
    return _Request(
        job.size,
        int(given.get("steps") or 28),
        30.0 if (guidance := given.get("guidance")) is None else float(guidance),
        json.dumps(given.get("lora") or []),
        str(given.get("speed") or "exact"),
        str(given.get("memory") or "auto"),
    )
