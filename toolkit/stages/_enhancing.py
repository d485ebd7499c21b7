"""Have a prompt enhanced for a hole, once a photo and run."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from toolkit.cards import Card
from toolkit.edit import Edit
from toolkit.engines import EnhanceJob, EnhanceResult
from toolkit.errors import EngineError
from toolkit.mask import Mask
from toolkit.run import Run
from toolkit.stages import Log
from toolkit.surroundings import look


@dataclass(frozen=True)
class Decision:
    """The prompt to be sent, and what came of asking for it."""

    prompt: str
    price: float = 0.0
    trouble: str = ""
    facts: Mapping[str, Any] = field(default_factory=dict)


def enhance_job(edit: Edit, hole: Mask, prompt: str, card: Card) -> EnhanceJob:
    """What an enhancer gets for `hole` (hard, not empty)."""
    around, picture, inside = look(edit, hole)
    return EnhanceJob(prompt, around, picture, inside, (card.name, card.revision), "enhance")


def enhanced(edit: Edit, hole: Mask, prompt: str, card: Card, run: Run, log: Log) -> str:
    """The better prompt for `hole`, or the one given where the enhancer fails, which is said; noted in `log`.

    What was decided is in the journal before it is returned: the same run never sends another prompt.

    Raises:
        Cancelled: when the run was cancelled.
    """
    job = enhance_job(edit, hole, prompt, card)
    decision = _decided(job, card, run)
    log.price += decision.price
    log.figures["enhance"] = {
        "given": prompt, "prompt": decision.prompt, "enhancer": card.name, "revision": card.revision,
        "price": decision.price, "trouble": decision.trouble, **decision.facts,
    }  # fmt: skip
    if decision.trouble:
        log.warnings.append(f"{card.name}: {decision.trouble}; the prompt was sent as it was given")
    elif decision.prompt == prompt:
        log.notes.append(f"{card.name} left the prompt as it was")
    else:
        log.notes.append(f"prompt by {card.name}: {decision.prompt}")
    return decision.prompt


def _decided(job: EnhanceJob, card: Card, run: Run) -> Decision:
    name = run.id
    if run.journal.trouble and card.free:
        return asked_of(job, card, run)
    # Under the run and the enhancer's name alone: a newer enhancer must not change a run that is taken up again.
    whole = EnhanceJob(job.prompt, job.surroundings, job.picture, job.hole, (card.name, ""))
    key = hashlib.sha256(f"decided\0{name}\0{whole.key}".encode()).hexdigest()
    with run.journal.claim(key, "enhance", run=name, cancelled=run.cancelled) as claim:
        if claim.entry.state == "done":
            return Decision(**{**claim.entry.answer, "price": 0.0})
        decision = asked_of(job, card, run)
        if claim.entry.state == "intended":
            claim.sending({"given": job.prompt, "enhancer": card.name, "revision": card.revision}, 0.0)
        claim.done({"prompt": decision.prompt, "trouble": decision.trouble, "facts": decision.facts})
    return decision


def asked_of(job: EnhanceJob, card: Card, run: Run) -> Decision:
    """What an enhancer makes of the prompt; the one given where it fails.

    Raises:
        Cancelled: when the run was cancelled.
    """
    try:
        with run.elsewhere(card):
            found: EnhanceResult = run.enhancer(card).enhance(job, run)
    except EngineError as problem:
        return Decision(job.prompt, trouble=str(problem))
    return Decision(found.prompt or job.prompt, found.price, found.trouble, found.facts)
