"""The user's account at the service, opened from settings and key."""

from __future__ import annotations

import functools
import hashlib
import threading

from pydantic import SecretStr

from toolkit.cards import Card
from toolkit.errors import EngineError, RecipeError
from toolkit.journal import Journal
from toolkit.limits import Limits
from toolkit.settings import WaveSpeed, key_for, load
from toolkit.wavespeed import PACE
from toolkit.wavespeed.client import Client
from toolkit.wavespeed.tasks import Tasks

_KEYLESS = "it has no key: run `inpaint keys set wavespeed`, or set WAVESPEED_API_KEY"
_lock = threading.Lock()


def model_of(card: Card) -> str:
    """The service's name of the model on a card.

    Raises:
        RecipeError: when the card has none.
    """
    model = card.settings.get("model")
    if not isinstance(model, str) or not model:
        found = "is missing" if model is None else f"got {model!r}"
        raise RecipeError(f"{card.task}/{card.name}.settings.model: expected the service's name of the model, {found}")
    return model


def missing(card: Card) -> str:
    """What keeps a card's model from being used here, in one sentence; empty when nothing does."""
    try:
        model_of(card)
        load()
        key = key_for("wavespeed")
    except (EngineError, RecipeError) as problem:
        return str(problem)
    return "" if key else _KEYLESS


def open_tasks(journal: Journal) -> Tasks:
    """The account's tasks; one object a journal and account, shared by all engines of the process.

    Raises:
        EngineError: without a key.
        ParameterError: when the settings are wrong.
    """
    settings, key = load().wavespeed, key_for("wavespeed")
    if key is None:
        raise EngineError(f"WaveSpeed: {_KEYLESS}")
    with _lock:
        return _opened(journal, settings, key)


@functools.lru_cache(maxsize=4)
def _opened(journal: Journal, settings: WaveSpeed, key: SecretStr) -> Tasks:
    # Uploads and limits belong to an account at an address; the key itself is written nowhere.
    account = hashlib.sha256(f"{settings.base_url}\0{key.get_secret_value()}".encode()).hexdigest()[:16]
    client = Client(settings.base_url, key, proxy=settings.proxy)
    limits = Limits(journal.folder, account, *PACE[settings.tier])
    return Tasks(client, journal, limits, account, settle=settings.settle, patience=settings.patience)
