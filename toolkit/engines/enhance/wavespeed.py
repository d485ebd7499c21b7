"""Prompt optimizers of the WaveSpeed API; which one stands on the card (`settings`: `model`, `inputs`).

They expand any text into a scene, and know of no hole: so they are told of it in the text, and shown where it lies.
"""

from __future__ import annotations

import hashlib
from urllib.parse import urlsplit

from toolkit.cards import Card
from toolkit.engines import EngineRun, EnhanceJob, EnhanceResult
from toolkit.engines.enhance._asking import picture_file
from toolkit.prompts import cleaned
from toolkit.settings import load
from toolkit.wavespeed import account
from toolkit.wavespeed.tasks import Order


def missing(card: Card) -> str:
    """What keeps it from running here."""
    return account.missing(card)


def destination(card: Card) -> str:
    """The host that prompt and picture are sent to."""
    return urlsplit(load().wavespeed.base_url).hostname or ""


class Engine:
    """Has prompts written by a model of the service, each paid once."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def enhance(self, job: EnhanceJob, run: EngineRun) -> EnhanceResult:
        """The optimizer's prompt; from the journal where it was had before.

        Raises:
            EngineError: when the service refused, failed, or its answer cannot be had.
        """
        tasks = account.open_tasks(run.journal)
        answer = tasks.get(self._order(job, tasks.service), run)
        # One that only adds to what it was given says again what it was told of the hole.
        prompt = cleaned(answer.texts[0].replace(_told(job), "")) if answer.texts else ""
        facts = {name: value for name, value in answer.facts.items() if name != "flagged"}
        return EnhanceResult(prompt, answer.paid, facts, "" if prompt else "no usable prompt came")

    def _order(self, job: EnhanceJob, service: str) -> Order:
        model = account.model_of(self._card)
        state = f"{service}\0{model}\0{job.key}".encode()
        return Order(
            key=hashlib.sha256(state).hexdigest(),
            model=model,
            inputs={**self._card.settings.get("inputs", {}), "text": job.prompt + _told(job)},
            pictures={"image": picture_file(job, ".png")},
            price=self._card.price.of(1),
            seconds=lambda size: self._card.per_call,
            name=job.name,
            kind="enhance",
        )


def _told(job: EnhanceJob) -> str:
    return (
        ". It fills a hole in an existing photo: describe this thing alone, in one sentence, with the light and "
        f"sharpness of its surroundings, and no scene around it. {job.surroundings.text} "
        "The picture shows the hole in plain grey."
    )
