"""What an edit needs from its surroundings: engines and their queues, seed, budget, journal, progress, cancel."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, TypeVar

from toolkit import devices, engines, library
from toolkit.cards import Card, Hint, Task
from toolkit.engines import Detector, Enhancer, Filler, FillJob, FillResult, Matter, Segmenter
from toolkit.errors import Cancelled, EngineError, ParameterError
from toolkit.journal import Journal
from toolkit.queues import FillQueue, finished, open_queue
from toolkit.workers import Pool

T = TypeVar("T")

Elsewhere = Callable[[], contextlib.AbstractContextManager[None]]
"""Goes around waiting for another machine, so that another edit can be worked on here meanwhile."""


class Progress(Protocol):
    """Told how far something is."""

    def __call__(self, name: str, share: float) -> None:
        """`name` is done to `share` (0-1)."""
        ...


class Budget:
    """What a command may spend, shared by all its edits.

    Raises:
        ParameterError: when `limit` is negative or no number.
    """

    def __init__(self, limit: float | None = None) -> None:
        if limit is not None and not limit >= 0:  # NaN, too: nothing would ever pass it
            raise ParameterError(f"max-cost: expected dollars, 0 or more, got {limit:g}")
        self.limit = limit
        self.spent = 0.0
        self._lock = threading.Lock()

    def reserve(self, price: float) -> None:
        """Set `price` aside before it is spent.

        Raises:
            EngineError: when the limit would be passed; nothing is set aside then.
        """
        with self._lock:
            if self.limit is not None and self.spent + price > self.limit + 1e-9:
                raise EngineError(
                    f"the limit of ${self.limit:g} would be passed: ${self.spent:g} spent or under way, "
                    f"${price:g} more asked for"
                )
            self.spent += price

    def release(self, price: float) -> None:
        """Give back what was set aside and certainly not spent."""
        with self._lock:
            self.spent = round(self.spent - price, 9)  # nothing is nothing, and no 1e-17


class _Allotment:
    """Dollars of a budget that are set aside for calls which are of use together only."""

    def __init__(self, budget: Budget, price: float) -> None:
        self._budget, self._left, self._is_open = budget, price, True
        self._lock = threading.Lock()
        budget.reserve(price)

    def reserve(self, price: float) -> None:
        """As `Budget.reserve`, from what is set aside as far as it goes."""
        with self._lock:
            own = min(price, self._left)
            self._budget.reserve(price - own)
            self._left -= own

    def release(self, price: float) -> None:
        """As `Budget.release`."""
        with self._lock:
            if self._is_open:
                self._left += price
            else:
                self._budget.release(price)

    def close(self) -> None:
        """Give back what was not needed; calls still under way may release theirs later."""
        with self._lock:
            self._budget.release(self._left)
            self._left, self._is_open = 0.0, False


def cores() -> int:
    """Processor cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


class _Shared:
    """What all edits of a command have in common."""

    def __init__(
        self, workers: int, budget: Budget, fresh: bool, journal: Journal, device: str,
        given: Mapping[str, tuple[Card, Any]],
    ) -> None:  # fmt: skip
        self.pool = Pool(workers)
        self.budget, self.fresh, self.device = budget, fresh, device
        self.journal = journal
        self.id, self.has_ended = "", False  # in the journal, once something asks for it
        self.given = dict(given)
        self.queues: dict[str, FillQueue] = {}
        self.calls_at_once = 0
        self.opened: dict[str, Any] = {}
        self.lock = threading.Lock()


class Run:
    """The surroundings of an edit; use as a context manager, so that workers stop with it.

    Args:
        seed: the seed edits start from; 0 by default, as with every engine.
        workers: worker processes for CPU engines; one a core by default.
        max_cost: what may be spent, in dollars; None for no limit of its own.
        fresh: have everything done anew although the journal holds the answer.
        journal: where paid requests are written down; the user's own by default.
        device: where networks run: "auto", "cpu", "cuda", "cuda:1" or "mps".
        progress: told how far each stage is.
        engines: engines to use besides those with a card file: name -> (card, engine).

    Raises:
        ParameterError: when `max_cost` or `device` cannot be one.
    """

    def __init__(
        self,
        *,
        seed: int = 0,
        workers: int | None = None,
        max_cost: float | None = None,
        fresh: bool = False,
        journal: Journal | None = None,
        device: str = "auto",
        progress: Progress | None = None,
        engines: Mapping[str, tuple[Card, Any]] | None = None,
    ) -> None:
        self.name = ""
        self.seed = seed
        self._drawn = 0
        self._progress = progress
        self._cancel = threading.Event()
        self._parent: Run | None = None
        self._elsewhere: Elsewhere = contextlib.nullcontext
        self._allotment: _Allotment | None = None
        journal = journal or Journal(library.state_folder())
        budget = Budget(max_cost)
        self._shared = _Shared(workers or cores(), budget, fresh, journal, devices.checked(device), engines or {})

    def child(
        self, name: str, seed: int | None = None, progress: Progress | None = None, elsewhere: Elsewhere | None = None
    ) -> Run:
        """A run for one edit: it shares queues, budget and journal, and has its own seed, progress and cancel."""
        child = Run.__new__(Run)
        child.name = name
        child.seed = self.seed if seed is None else seed
        child._drawn = 0
        child._progress = progress or self._progress
        child._cancel = threading.Event()
        child._parent = self
        child._elsewhere = elsewhere or self._elsewhere
        child._allotment = self._allotment
        child._shared = self._shared
        return child

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop queues and worker processes, and note the end of a run that is in the journal."""
        self._cancel.set()
        self._shared.pool.close()
        with self._shared.lock:
            queues, self._shared.queues = list(self._shared.queues.values()), {}
        for one in queues:
            one.close()
        self.end()

    @property
    def journal(self) -> Journal:
        """What was asked, sent and paid."""
        return self._shared.journal

    @property
    def budget(self) -> Budget:
        """What may be spent and was."""
        return self._shared.budget

    @property
    def id(self) -> str:
        """The run's name in the journal, where it is noted now if it is not yet.

        Raises:
            Cancelled: when it has ended: what is still under way begins nothing more.
        """
        return self.begin({})

    def begin(self, about: Mapping[str, Any], resumed: str = "") -> str:
        """Note the run in the journal, once: what it is about, or that it goes on with `resumed`; returns its name.

        Raises:
            Cancelled: when it has ended.
        """
        with self._shared.lock:
            if self._shared.has_ended:
                raise Cancelled
            if not self._shared.id:
                if resumed:
                    self.journal.reopen(resumed)
                self._shared.id = resumed or self.journal.begin(about)
            return self._shared.id

    def end(self, state: Literal["ended", "failed", "cancelled"] = "ended") -> None:
        """Note how it ended, if it is in the journal."""
        with self._shared.lock:
            name, self._shared.id, self._shared.has_ended = self._shared.id, "", True
        if name:
            self.journal.end(name, state)

    def draw_seed(self) -> int:
        """A seed at random, 0 to 2**31 - 1: another with every call, and the same ones when a noted run is taken up."""
        self._drawn += 1
        if not self._shared.id:
            return draw_seed()
        text = f"{self._shared.id} {self._drawn} {self.name}"
        return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:4], "big") >> 1

    @property
    def fresh(self) -> bool:
        """Have everything done anew although the journal holds the answer."""
        return self._shared.fresh

    @property
    def device(self) -> str:
        """Where networks are to run: "auto", "cpu", "cuda", "cuda:1", "mps"."""
        return self._shared.device

    def reserve(self, price: float) -> None:
        """Set dollars aside before they are spent.

        Raises:
            EngineError: when the limit would be passed.
        """
        (self._allotment or self.budget).reserve(price)

    def release(self, price: float) -> None:
        """Give back what was set aside and certainly not spent."""
        (self._allotment or self.budget).release(price)

    @contextlib.contextmanager
    def allotted(self, price: float) -> Iterator[Run]:
        """A child for which dollars are set aside as long as the block takes: its calls are paid all or none.

        Raises:
            EngineError: when the limit would be passed; nothing is set aside then.
        """
        child = self.child(self.name)
        child._allotment = _Allotment(self.budget, price)
        try:
            yield child
        finally:
            child._allotment.close()

    def warm(self) -> None:
        """Start a worker process now, so that it is ready when the first stage asks for it."""
        self._shared.pool.warm()

    def progress(self, name: str, share: float) -> None:
        """Say that `name` is done to `share` (0-1)."""
        if self._progress:
            self._progress(": ".join(part for part in (self.name, name) if part), min(1.0, max(0.0, share)))

    def cancel(self) -> None:
        """Stop this run's work, and that of its children, as soon as possible."""
        self._cancel.set()

    def cancelled(self, name: str = "") -> bool:
        """True once this run or the one it is a child of was cancelled."""
        return self._cancel.is_set() or (self._parent is not None and self._parent.cancelled())

    def check(self) -> None:
        """Raise `Cancelled` if the work was cancelled."""
        if self.cancelled():
            raise Cancelled

    def compute(self, function: Callable[..., T], *arguments: Any, name: str = "") -> T:
        """Call a picklable function in a worker process, where Ctrl-C and crashes cannot hurt.

        Raises:
            Cancelled: when the run was cancelled meanwhile; the process is ended.
            EngineError: when the process died.
        """
        future = self._shared.pool.submit(function, *arguments, progress=lambda share: self.progress(name, share))
        answer: T
        (answer,) = finished({future: None}, self, self._shared.pool.cancel)  # type: ignore[dict-item]
        return answer

    def card(self, task: Task, name: str = "auto", *, ready: bool = True, takes: Collection[Hint] = ()) -> Card:
        """The card called `name`, or the one `auto` takes; unless `ready`, one by name need not run here.

        Args:
            takes: what a segmenter must understand.

        Raises:
            UnknownNameError: for a name nobody knows.
            UsageError: when the engine named does not take what points.
            EngineError: when its engine cannot run here.
        """
        given = self._shared.given.get(name)
        if given and given[0].task == task:
            engines.check_takes(given[0], takes)
            return given[0]
        return engines.resolve(task, name, ready=ready, takes=takes)

    def missing(self, card: Card) -> str:
        """What keeps a card's engine from running here, on the run's device, in one sentence; empty for nothing."""
        return "" if card.name in self._shared.given else engines.missing(card, self.device)

    def fill(self, card: Card, jobs: Sequence[FillJob]) -> Iterator[FillResult]:
        """Have jobs filled by the card's engine, together with the jobs of other edits; results in any order."""
        with self._shared.lock:
            if card.name not in self._shared.queues:
                engine: Filler | None = self._shared.given.get(card.name, (card, None))[1]
                self._shared.queues[card.name] = open_queue(card, self._shared.pool, engine)
                if card.concurrency == "network":
                    self._shared.calls_at_once += card.in_flight
            waiting = self._shared.queues[card.name]
        results = waiting.submit(jobs, self)
        for _ in jobs:
            with self.elsewhere(card):
                result = next(results)
            yield result

    def elsewhere(self, card: Card) -> contextlib.AbstractContextManager[None]:
        """Goes around waiting for the card's engine: while that works on another machine, another edit does on this.

        Raises:
            Cancelled: at its end, when the run was cancelled meanwhile.
        """
        return self._elsewhere() if card.concurrency == "network" else contextlib.nullcontext()

    @property
    def calls_at_once(self) -> int:
        """Calls that the engines on the network that were asked so far take at once."""
        return self._shared.calls_at_once

    def segmenter(self, card: Card) -> Segmenter:
        """The card's segmenter, opened once."""
        segmenter: Segmenter = self._opened(card)
        return segmenter

    def detector(self, card: Card) -> Detector:
        """The card's detector, opened once."""
        detector: Detector = self._opened(card)
        return detector

    def matter(self, card: Card) -> Matter:
        """The card's matter, opened once."""
        matter: Matter = self._opened(card)
        return matter

    def enhancer(self, card: Card) -> Enhancer:
        """The card's enhancer, opened once."""
        enhancer: Enhancer = self._opened(card)
        return enhancer

    def _opened(self, card: Card) -> Any:
        key = f"{card.task}/{card.name}"
        with self._shared.lock:
            if key not in self._shared.opened:
                given = self._shared.given.get(card.name)
                self._shared.opened[key] = given[1] if given else engines.open_engine(card)
            return self._shared.opened[key]


def draw_seed() -> int:
    """A seed from the system's randomness, for `--seed random`; it is printed and recorded before it is used."""
    return secrets.randbelow(2**31)
