"""Fill models of the WaveSpeed API; which one, and what it calls its parameters, stands on the card.

The card's `settings`: `model` (the service's name), `fields` (our parameter: the service's), `inputs` (sent as they
are). The mask is sent hard: soft edges are made here, when the answer is laid on the photo.
"""

from __future__ import annotations

import hashlib
import io
import time
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from toolkit.cards import Card
from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.errors import EngineError, ToolkitError
from toolkit.geometry import Size
from toolkit.journal import Journal
from toolkit.settings import load
from toolkit.wavespeed import PACE, account
from toolkit.wavespeed.tasks import Order

AHEAD = 32
"""Calls that bring their pictures to the service while all tasks the account may have are under way."""

Bytes = npt.NDArray[np.uint8]


def missing(card: Card) -> str:
    """What keeps it from running here."""
    return account.missing(card)


def configured(card: Card) -> Card:
    """The card with as many calls at once as the account may have, and a few that prepare the next."""
    try:
        tier = load().wavespeed.tier
    except ToolkitError:
        return card
    return card.model_copy(update={"in_flight": min(card.in_flight, PACE[tier][1] + AHEAD)})


def rate(card: Card) -> tuple[int, int]:
    """Calls it takes a minute and at once, by the account's level."""
    return PACE[load().wavespeed.tier]


def may_be_kept(card: Card, size: Size, prompt: str, journal: Journal) -> bool:
    """Whether the model was asked for a picture of this size by this prompt."""
    field = dict(card.settings.get("fields", {})).get("prompt", "prompt")
    return journal.has_asked(account.model_of(card), _size(size), field, prompt)


def is_kept(card: Card, job: FillJob, journal: Journal) -> bool:
    """Whether a job costs nothing more, since it was sent and did not fail."""
    entry = journal.lookup(_key(card, job, load().wavespeed.base_url))
    return entry is not None and entry.state not in ("intended", "failed")


def destination(card: Card) -> str:
    """The host it sends crops and prompts to."""
    return urlsplit(load().wavespeed.base_url).hostname or ""


class Engine:
    """Has windows filled by a model of the service."""

    def __init__(self, card: Card) -> None:
        self._card = card

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """One task a job; safe to call from several threads.

        Raises:
            EngineError: when the service refused, failed, or its answer cannot be had.
        """
        tasks = account.open_tasks(run.journal)
        for job in jobs:
            start = time.perf_counter()
            answer = tasks.get(self._order(job, tasks.service), run)
            seconds = time.perf_counter() - start
            if len(answer.pictures) < len(job.seeds):
                raise EngineError(
                    f"{self._card.name}: {len(answer.pictures)} pictures came, {len(job.seeds)} were asked for"
                )
            pictures = answer.pictures[: len(job.seeds)]
            flagged = any(picture is None for picture in pictures)
            yield FillResult(
                job,
                pictures,
                seconds=seconds,
                price=answer.paid,
                facts=answer.facts,
                refused="the service's content check flagged the picture" if flagged else "",
            )

    def _order(self, job: FillJob, service: str) -> Order:
        settings = self._card.settings
        names = dict(settings.get("fields", {}))
        inputs: dict[str, Any] = {
            **settings.get("inputs", {}),
            names.get("prompt", "prompt"): job.prompt,
            names.get("size", "size"): _size(job.size),
            names.get("seed", "seed"): job.seeds[0],
            **{names.get(name, name): value for name, value in job.parameters.items()},
        }
        if "num_images" in names:
            inputs[names["num_images"]] = len(job.seeds)
        # Other holes are no surroundings: what they show now is not what will be there. 128 and more is hole.
        hole = np.asarray(cv2.threshold(job.mask | job.blocked, 127, 255, cv2.THRESH_BINARY)[1], np.uint8)
        pictures = {
            names.get("image", "image"): _png(job.pixels),
            names.get("mask", "mask_image"): _png(hole),
        }
        pace = self._card.pace_at(job.parameters) or 0.0
        return Order(
            key=_key(self._card, job, service),
            model=account.model_of(self._card),
            inputs=inputs,
            pictures=pictures,
            price=self._card.price.of(len(job.seeds)),
            seconds=lambda size: self._card.per_call + pace * _megapixels(size),
            name=job.name,
            contents={names.get("image", "image"): job.picture_key},
            read=lambda data: _read(data, job.size),
        )


def _key(card: Card, job: FillJob, service: str) -> str:
    """The job's key in the journal."""
    return hashlib.sha256(f"{service}\0{account.model_of(card)}\0{job.key}".encode()).hexdigest()


def _size(size: Size) -> str:
    """A size as the service writes it."""
    return f"{size.width}*{size.height}"


def _megapixels(size: str) -> float:
    return Size(*map(int, size.split("*"))).megapixels


def _png(pixels: Bytes) -> bytes:
    """A PNG with nothing in it but the pixels: (h, w, 3) RGB or (h, w)."""
    return cv2.imencode(".png", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels)[1].tobytes()


def _read(data: bytes, size: Size) -> Bytes:
    """The picture (h, w, 3) uint8 in a file.

    Raises:
        EngineError: when it is no whole picture of `size`.
    """
    try:
        with PIL.Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as picture:
            if picture.size != tuple(size):
                got = Size(*picture.size)
                raise EngineError(f"the picture measures {got}, asked for {size}")
            pixels = np.asarray(picture.convert("RGB"))
    except PIL.UnidentifiedImageError:
        raise EngineError("no whole picture came (it is neither PNG, JPEG nor WebP)") from None
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as problem:
        raise EngineError(f"no whole picture came ({problem})") from None
    return pixels
