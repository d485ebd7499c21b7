"""What is found by words: phrases, thresholds, and what is said where nothing is found."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from unicodedata import category

from toolkit.cards import Card
from toolkit.edit import Edit, Region
from toolkit.errors import MaskError, ParameterError
from toolkit.picking import suppress
from toolkit.run import Run
from toolkit.stages import Log

OVERLAP = 0.5
"""Intersection over union from which two boxes of the same phrase are taken for the same thing."""


def phrases_of(texts: Iterable[str]) -> tuple[str, ...]:
    """The phrases in texts that hold several parted by commas: each once, however often written, and on one line.

    Raises:
        ParameterError: when one is empty, or of signs only.
    """
    phrases = [_in_one_line(phrase) for text in texts for phrase in text.split(",")]
    if not all(phrases or [""]):
        raise ParameterError('text: a phrase is empty; say what to look for, e.g. --text "red car"')
    once: dict[str, str] = {}
    for phrase in phrases:
        if not any(sign.isalnum() for sign in phrase):
            raise ParameterError(f'text: {phrase!r} has no word to look for; write what it is, e.g. --text "red car"')
        once.setdefault(phrase.casefold(), phrase)
    return tuple(once.values())


def _in_one_line(phrase: str) -> str:
    """Control characters and what is no text (lone surrogates) are gaps between words, as blanks are."""
    return " ".join("".join(" " if category(sign) in ("Cc", "Cs") else sign for sign in phrase).split())


def detected(
    edit: Edit, run: Run, log: Log, phrases: Sequence[str], threshold: float | None, detector: str, *,
    needed: bool = True,
) -> tuple[Region, ...]:  # fmt: skip
    """Boxes of what phrases name, best first; as `sifted` says.

    Raises:
        MaskError: when something is needed, and nothing is found for any of them.
    """
    card = run.card("detect", detector)
    log.card = log.card or card
    candidates = run.detector(card).detect(edit, phrases, run)
    return sifted(candidates, card, phrases, threshold, log, needed=needed)


def sifted(
    candidates: Sequence[Region], card: Card, phrases: Sequence[str], threshold: float | None, log: Log, *,
    needed: bool = True,
) -> tuple[Region, ...]:  # fmt: skip
    """Which of the candidates count as found, best first; a phrase that names nothing is noted with its best score.

    Args:
        candidates: with a phrase as label each.
        card: of the engine they come from.
        threshold: score from which something counts as found; the card's own for None.
        needed: nothing at all is no answer.

    Raises:
        MaskError: when something is needed, and nothing is found for any of the phrases.
    """
    least = float(card.settings.get("threshold", 0.3)) if threshold is None else threshold
    found = suppress([region for region in candidates if region.score >= least], OVERLAP)
    missed = {
        phrase: max((region.score for region in candidates if region.label == phrase), default=None)
        for phrase in phrases
        if not any(region.label == phrase for region in found)
    }
    log.figures["detected"] = {
        "engine": card.name, "revision": card.revision, "phrases": list(phrases), "threshold": least,
        "found": [{"label": one.label, "score": round(one.score, 3), "box": list(one.box)} for one in found],
        "missed": [{"phrase": phrase, "best": best and round(best, 3)} for phrase, best in missed.items()],
    }  # fmt: skip
    said = [not_found(phrase, best, least) for phrase, best in missed.items()]
    if needed and not found:
        raise MaskError(f"{card.name}: {'; '.join(said)}")
    log.warnings += [f"{card.name}: {sentence}" for sentence in said]
    return found


def not_found(phrase: str, best: float | None, threshold: float) -> str:
    """That a phrase names nothing in the photo, as a clause."""
    if best is None:
        return f"found no {phrase!r}"
    return f"found no {phrase!r}; the best was {best:.2f}, below the threshold {threshold:.2f}"
