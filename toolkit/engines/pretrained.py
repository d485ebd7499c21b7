"""Networks of `transformers` from a card's folder: safe files only, no network access, not a word on the terminal."""

from __future__ import annotations

import contextlib
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from toolkit import devices, weights
from toolkit.cards import Card
from toolkit.engines import EngineRun
from toolkit.errors import Cancelled, EngineError

_talk = threading.Lock()
_loading = threading.Lock()
_silent = 0
_before: list[tuple[Any, int, bool]] = []


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Have transformers and diffusers say nothing.

    How much they say is set for the whole process: the last to leave sets it back.
    """
    global _silent
    with _talk:
        if _silent == 0:
            for name in ("transformers", "diffusers"):
                if name == "diffusers" and name not in sys.modules:  # it takes seconds, and others need it not
                    continue
                library: Any = importlib.import_module(f"{name}.utils.logging")
                _before.append((library, library.get_verbosity(), library.is_progress_bar_enabled()))
                library.set_verbosity_error()
                library.disable_progress_bar()
        _silent += 1
    try:
        yield
    finally:
        with _talk:
            _silent -= 1
            if _silent == 0:
                for library, verbosity, bar in _before:
                    library.set_verbosity(verbosity)
                    if bar:
                        library.enable_progress_bar()
                _before.clear()


def imported(name: str, *wanted: str) -> Any:
    """A module, whose own and whose libraries' remarks while they are loaded nobody needs.

    Args:
        wanted: of a module that loads what it holds only when that is asked for, what is to be loaded now.
    """
    if name in sys.modules and not wanted:
        return sys.modules[name]
    with _loading:
        before = logging.root.manager.disable
        logging.disable(max(before, logging.WARNING))
        try:
            module = importlib.import_module(name)
            for one in wanted:
                getattr(module, one)
            return module
        finally:
            logging.disable(before)


def part(card: Card, kind: str, where: str = "transformers") -> Any:
    """What the class `kind` of the module `where` makes of the card's folder (a tokenizer, an image processor).

    Raises:
        EngineError: when its files are not there or cannot be read.
    """
    _whole(card)
    with quiet(), _worded(card):
        return _class(card, kind, where).from_pretrained(weights.folder(card), local_files_only=True)


def network(card: Card, kind: str, device: str) -> Any:
    """The card's network of the class `kind` on `device`, in float32, for inference only.

    Raises:
        EngineError: when its files are not there, cannot be read, are not of this network, or it does not fit.
    """
    import torch

    _whole(card)
    devices.check_memory(card, device)
    with quiet(), _worded(card):
        made, report = _class(card, kind, "transformers").from_pretrained(
            weights.folder(card), local_files_only=True, use_safetensors=True, output_loading_info=True,
            dtype=torch.float32,
        )  # fmt: skip
    # Parameters too many are no fault: a file may hold more than this network, such as a video tracker's memory.
    absent = sorted(str(name) for name in report["missing_keys"])
    check_whole(card.name, kind, weights.folder(card), absent, _anew(card))
    return made.eval().requires_grad_(False).to(device)


class Held:
    """Something that takes long to load: loaded once, at first use, and moved where a later run wants it.

    Args:
        name: of its card, for sentences.
        load: makes it for a device; what it returns has a method `to(device)`.
    """

    def __init__(self, name: str, load: Callable[[str], Any]) -> None:
        self._name, self._load = name, load
        self._lock = threading.RLock()
        self._held: Any = None
        self._device = ""

    @contextlib.contextmanager
    def at(self, run: EngineRun) -> Iterator[Any]:
        """It, on the run's device, for one thread at a time; the wait for another ends when the run is cancelled.

        Raises:
            EngineError: when it cannot be loaded or run there, for want of memory as a rule.
            Cancelled: when the run was cancelled.
        """
        while not self._lock.acquire(timeout=0.1):
            heed(run)
        try:
            heed(run)
            device = devices.chosen(run.device)
            with ran(self._name, device):
                if self._held is None:
                    self._held = self._load(device)
                elif device != self._device:
                    self._device = ""  # a move that fails may have moved a part
                    self._held.to(device)
                self._device = device
                heed(run)
                yield self._held
        finally:
            self._lock.release()


@contextlib.contextmanager
def ran(name: str, device: str) -> Iterator[None]:
    """What torch raises where a network is run, as one sentence.

    Raises:
        EngineError: in place of a RuntimeError, which lack of memory is too.
    """
    try:
        yield
    except RuntimeError as problem:
        said = " ".join(str(problem).partition("\n")[0].split()).rstrip(".:") or type(problem).__name__
        raise EngineError(f"{name}: its network could not be run on {device} ({said[:200]})") from problem


def heed(run: EngineRun) -> None:
    """Go on only while the run is wanted.

    Raises:
        Cancelled: when it was cancelled.
    """
    if run.cancelled():
        raise Cancelled()


def _whole(card: Card) -> None:
    if absent := weights.missing(card):
        raise EngineError(f"{card.name}: {absent}")


def _class(card: Card, kind: str, where: str) -> Any:
    try:
        return getattr(importlib.import_module(where), kind)
    except (AttributeError, ImportError) as problem:
        raise EngineError(f"{card.name}: this transformers has no {kind} ({problem})") from problem


def check_whole(name: str, kind: str, where: object, absent: Sequence[str], remedy: str = "") -> None:
    """Find out whether weights are those of their network: libraries would draw what is not there at random.

    Args:
        kind: the network's class.
        absent: parameters that are not there.
        remedy: what to do, as a clause.

    Raises:
        EngineError: when there are any.
    """
    if absent:
        raise EngineError(
            f"{name}: the weights in {where} are not those of {kind}: {len(absent)} of its parameters are not there, "
            f"{absent[0]} first{remedy and '; '}{remedy}"
        )


@contextlib.contextmanager
def worded(name: str, where: object, remedy: str = "") -> Iterator[None]:
    """What libraries raise about the files in `where`, as one sentence; lack of memory is left as it is."""
    import torch

    try:
        yield
    except (EngineError, torch.OutOfMemoryError):
        raise
    except Exception as problem:
        # Each of them raises what it likes (OSError, ValueError, SafetensorError, KeyError, bare Exception).
        said = " ".join(str(problem).split()) or type(problem).__name__
        raise EngineError(f"{name}: cannot load it from {where} ({said[:200]}){remedy and '; '}{remedy}") from problem


def _worded(card: Card) -> contextlib.AbstractContextManager[None]:
    return worded(card.name, weights.folder(card), _anew(card))


def _anew(card: Card) -> str:
    return f"fetch it again with `inpaint models pull {card.name}`"
