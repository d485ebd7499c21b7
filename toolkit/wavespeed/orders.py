"""A task to be had, and what came of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol


class TaskRun(Protocol):
    """The little that is needed of a run."""

    @property
    def id(self) -> str:
        """The run's name in the journal."""
        ...

    @property
    def fresh(self) -> bool:
        """Ask anew although the journal holds the answer."""
        ...

    def reserve(self, price: float) -> None:
        """Set money aside before it is spent; raises when the limit would be passed."""
        ...

    def release(self, price: float) -> None:
        """Give back what was certainly not spent."""
        ...

    def progress(self, name: str, share: float) -> None:
        """Say that `name` is done to `share` (0-1)."""
        ...

    def cancelled(self, name: str = "") -> bool:
        """True once the work was cancelled."""
        ...


@dataclass(frozen=True)
class Order:
    """One task to be had.

    Attributes:
        key: hash of everything that shapes its answer.
        model: the service's name of the model.
        inputs: parameters as the service takes them, without pictures.
        pictures: PNG files by the parameter that takes their address.
        price: dollars.
        seconds: about how long it takes at a size ("WIDTH*HEIGHT", or "" where it has none); what the journal
            has seen goes before.
        name: in progress and errors.
        contents: hashes of what pictures show, by the parameter, where they are known: their files need no other.
        kind: the outputs are pictures to be downloaded, or texts.
        read: makes of a downloaded file what is wanted; raises EngineError when it is not what was asked for.
    """

    key: str
    model: str
    inputs: Mapping[str, Any]
    pictures: Mapping[str, bytes]
    price: float
    seconds: Callable[[str], float]
    name: str = ""
    contents: Mapping[str, str] = field(default_factory=dict)
    kind: Literal["fill", "enhance"] = "fill"
    read: Callable[[bytes], Any] = bytes

    @property
    def largest(self) -> int | None:
        """Bytes that a picture of the size asked for may have; None where none is asked for.

        Many are downloaded at once: 16-bit RGBA, uncompressed, and 1 MiB of whatever else a file holds, are enough.
        """
        size = re.fullmatch(r"([0-9]+)\*([0-9]+)", str(self.inputs.get("size", "")))
        return 8 * int(size[1]) * int(size[2]) + (1 << 20) if size else None


@dataclass(frozen=True)
class Answer:
    """What came of an order.

    Attributes:
        pictures: as `Order.read` made them, in the service's order; None for one its content check flagged.
        texts: instead of pictures.
        paid: dollars it cost in this run; 0 where an earlier one paid.
        facts: id, model, created_at, timings and urls as the service gave them, and whether it was kept from before.
    """

    pictures: tuple[Any, ...]
    texts: tuple[str, ...]
    paid: float
    facts: Mapping[str, Any] = field(default_factory=dict)
