"""What SAM hands out so that a selection can be refined: its logits and the prompts they came of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from toolkit.engines.segment._sam_masks import Logits
from toolkit.errors import EngineError
from toolkit.geometry import Box
from toolkit.schema import Point

MAGIC = b"SAM state 1\n"
_SUM = 32


@dataclass(frozen=True, eq=False)
class Answer:
    """One region's prompts, a box or None and its clicks, its logits (s/4, s/4) float32, and its score."""

    box: Box | None
    include: tuple[Point, ...]
    exclude: tuple[Point, ...]
    logits: Logits
    score: float

    def leads_to(self, box: Box | None, include: Sequence[Point], exclude: Sequence[Point]) -> bool:
        """Whether these prompts are the answer's own, or more of them."""
        return self.box == box and set(self.include) <= set(include) and set(self.exclude) <= set(exclude)

    def is_for(self, box: Box | None, include: Sequence[Point], exclude: Sequence[Point]) -> bool:
        """Whether these prompts are the answer's own."""
        return self.leads_to(box, include, exclude) and len(self.include + self.exclude) == len([*include, *exclude])


def packed(owner: str, answers: Sequence[Answer]) -> bytes:
    """A state for `owner`, the picture and network it belongs to."""
    if not answers:
        return b""
    about = {
        "owner": owner,
        "side": answers[0].logits.shape[0],
        "answers": [[one.box, one.include, one.exclude, one.score] for one in answers],
    }
    values = b"".join(one.logits.astype("<f4").tobytes() for one in answers)
    content = json.dumps(about).encode() + b"\n" + values
    return MAGIC + hashlib.sha256(content).digest() + content


def unpacked(owner: str, state: bytes | None, name: str) -> list[Answer]:
    """The answers of a state; none of an empty one.

    Raises:
        EngineError: when it is damaged, or no state of this network and picture.
    """
    if not state:
        return []
    content = state[len(MAGIC) + _SUM :]
    if not state.startswith(MAGIC) or hashlib.sha256(content).digest() != state[len(MAGIC) : len(MAGIC) + _SUM]:
        raise EngineError(f"{name}: the state to go on from is none of its own, or is damaged")
    head, _, values = content.partition(b"\n")
    about = json.loads(head)
    if about["owner"] != owner:
        raise EngineError(f"{name}: the state to go on from belongs to another picture or network")
    side = about["side"]
    logits = np.frombuffer(values, "<f4").astype(np.float32).reshape(-1, side, side)
    return [
        Answer(None if box is None else Box(*box), _points(include), _points(exclude), one, score)
        for (box, include, exclude, score), one in zip(about["answers"], logits, strict=True)
    ]


def _points(given: Sequence[Sequence[int]]) -> tuple[Point, ...]:
    return tuple(Point(*one) for one in given)
