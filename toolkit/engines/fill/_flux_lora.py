"""The LoRAs of a FLUX Fill pipeline: swapped between requests, never merged into it, and gone without a trace."""

from __future__ import annotations

import contextlib
import logging
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from toolkit.engines.fill._flux_lora_file import PREFIX, LoraWeights, read
from toolkit.errors import EngineError, InputError

_loading = threading.Lock()


@dataclass(frozen=True)
class _Identity:
    """A file as it is now."""

    path: Path
    bytes: int
    changed: int

    @staticmethod
    def of(path: Path) -> _Identity:
        try:
            about = path.stat()
        except OSError as problem:
            raise InputError(f"lora {path}: cannot be read: {problem.strerror or problem}") from None
        return _Identity(path.absolute(), about.st_size, about.st_mtime_ns)


class Loras:
    """The LoRAs of one `FluxFillPipeline`, whose prompts come as embeddings. For one thread at a time.

    The transformer may be quantised, offloaded in groups, or have compiled blocks; its projections are not fused.

    Args:
        pipe: the pipeline, without LoRAs.
        name: of the card, for sentences.
    """

    def __init__(self, pipe: Any, name: str) -> None:
        self._pipe, self._name = pipe, name
        # Asked of the layers and not of their weights, whose shape is another where they are quantised.
        self._sizes = {
            path: (int(module.in_features), int(module.out_features))
            for path, module in pipe.transformer.named_modules()
            if hasattr(module, "in_features") and hasattr(module, "out_features")
        }
        self._original: list[tuple[Any, str, Any]] | None = None
        self._loaded: tuple[_Identity, ...] = ()
        self._notes: dict[_Identity, tuple[str, ...]] = {}

    @property
    def bytes(self) -> int:
        """Of the files in use."""
        return sum(one.bytes for one in self._loaded)

    def use(self, wanted: Sequence[tuple[Path, float]]) -> tuple[str, ...]:
        """Make exactly these LoRAs count, each with its scale and in this order, until the next call.

        With none, or with all scales 0, the network is the original one, bit for bit. Files are checked whatever their
        scale, all of them before the network is touched. Where the files are those in use, only scales change.

        Whatever is raised, no LoRA is in use afterwards, those of before neither: the network is the original one.

        Returns:
            What of the files is not used, a clause each.

        Raises:
            InputError: for a file that cannot be read, or is no LoRA for this network.
            EngineError: when one cannot be loaded.
            torch.OutOfMemoryError: when there is no room for them.
        """
        try:
            files = tuple(_Identity.of(path) for path, _ in wanted)
            needed = files if any(scale for _, scale in wanted) else ()
            reload = needed != self._loaded
            parts = [self._read(one) for one in files if (needed and reload) or one not in self._notes]
            if reload:
                self._unload()
            if needed and reload:
                self._load(parts)
                self._loaded = needed
            if needed:
                scales = {_slot(k): scale for k, (_, scale) in enumerate(wanted) if scale}
                self._pipe.transformer.set_adapters(list(scales), list(scales.values()))
            return tuple(dict.fromkeys(note for one in files for note in self._notes[one]))
        except BaseException:
            self._unload()
            raise

    def _read(self, file: _Identity) -> LoraWeights:
        with _quiet():
            part = read(file.path, self._sizes, self._pipe.lora_state_dict, self._name)
        self._notes[file] = part.notes
        return part

    def _load(self, parts: Sequence[LoraWeights]) -> None:
        """Put them into the network, which has none."""
        import torch

        transformer = self._pipe.transformer
        self._original = [
            (parent, name, child) for parent in transformer.modules() for name, child in parent.named_children()
        ]
        try:
            with _quiet():
                for k, part in enumerate(parts):
                    transformer.load_lora_adapter(
                        dict(part.weights), prefix=PREFIX.rstrip("."), adapter_name=_slot(k), metadata=part.config,
                        _pipeline=self._pipe, low_cpu_mem_usage=True,
                    )  # fmt: skip
                    self._verify(_slot(k), part)
        except torch.OutOfMemoryError:
            raise
        except Exception as problem:
            said = " ".join(str(problem).split()) or type(problem).__name__
            raise EngineError(f"{self._name}: a LoRA could not be loaded ({said[:200]})") from problem

    def _verify(self, slot: str, part: LoraWeights) -> None:
        """See to it that a LoRA is where it belongs, as strong as its file says, and nowhere else."""
        found = {
            path: module.scaling[slot]
            for path, module in self._pipe.transformer.named_modules()
            if slot in getattr(module, "scaling", ())
        }
        if found != part.scaling:
            raise EngineError(f"{len(found)} layers have it, {len(part.scaling)} should, or with other strengths")

    def _unload(self) -> None:
        """Give the network its own modules back, whatever happened to them."""
        if self._original is None:
            return
        for parent, name, child in self._original:
            if getattr(parent, name, None) is not child:
                setattr(parent, name, child)
        self._original, self._loaded = None, ()
        with _quiet():
            self._pipe.transformer.unload_lora()


def _slot(number: int) -> str:
    """What peft calls the LoRA at a place: the same for whichever is there, so that compiled code stays of use."""
    return f"slot{number}"


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Have diffusers and peft say nothing to this thread.

    Warnings are set for the whole process, so that one thread at a time loads.
    """
    me = threading.get_ident()

    def of_others(record: logging.LogRecord) -> bool:
        return record.thread != me

    with _loading, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # At the loggers themselves: levels and handlers are others' too, who set them back to what they found.
        loggers = [logging.getLogger(name) for name in [*logging.root.manager.loggerDict] if _is_theirs(name)]
        for logger in loggers:
            logger.addFilter(of_others)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeFilter(of_others)


def _is_theirs(name: str) -> bool:
    return name.partition(".")[0] in ("diffusers", "peft")
