"""Phrases, boxes and clicks to masks with SAM 3, as transformers runs it.

Source: Carion et al., SAM 3: Segment Anything with Concepts, 2025. Phrases go through its detector, boxes and clicks
through its tracker, whose interface is that of SAM 2.1; each is loaded when it is first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from toolkit import devices, weights
from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.engines.pretrained import Held, heed, network, part
from toolkit.engines.segment import sam2
from toolkit.engines.segment._logits import Floats, enlarged
from toolkit.engines.segment.sam2 import Bytes, Network, View
from toolkit.errors import ParameterError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.schema import Model, build

LONGEST = 32  # tokens of a phrase


def missing(card: Card) -> str:
    """What is not installed or not here, or nothing; nothing is imported."""
    return devices.installed("text", "torch", "transformers") or weights.missing(card)


class Settings(Model):
    """What a card of this adapter says in `settings`.

    Attributes:
        model: the class of transformers for phrases.
        tracker: the class for boxes and clicks.
        threshold: the score from which a candidate counts as found, for whoever picks among them.
        floor: candidates that score no more are not worth a look.
        mean: of each channel, 0-1, by which pictures are normalised.
        deviation: of each channel.
    """

    model: Literal["Sam3Model"]
    tracker: Literal["Sam3TrackerModel"]
    threshold: float = Field(default=0.3, gt=0, lt=1)
    floor: float = Field(default=0.05, ge=0, lt=1)
    mean: tuple[float, float, float] = Field(default=(0.5, 0.5, 0.5), strict=False)
    deviation: tuple[float, float, float] = Field(default=(0.5, 0.5, 0.5), strict=False)

    def view(self, side: int) -> View:
        """How its networks see a picture."""
        return View(side, self.mean, self.deviation, 1 / 255)


class _Finder:
    """The detector with its tokenizer."""

    def __init__(self, card: Card, settings: Settings, device: str) -> None:
        self._card = card
        self._tokenizer = part(card, "AutoTokenizer")
        self._model = network(card, settings.model, device)
        side = self._model.config.vision_config.backbone_config.image_size
        self._view = settings.view(int(side if isinstance(side, int) else side[0]))

    def to(self, device: str) -> None:
        """Move to a device."""
        self._model.to(device)

    def words(self, phrase: str) -> dict[str, Any]:
        """A phrase as the network reads it.

        Raises:
            ParameterError: when it is empty or too long.
        """
        if not any(sign.isalnum() for sign in phrase):
            raise ParameterError(f'phrase {phrase!r}: has no word to look for; write what it is, such as "red car"')
        read = self._tokenizer(phrase, return_tensors="pt", padding="max_length", max_length=LONGEST)
        if (tokens := read["input_ids"].shape[1]) > LONGEST:
            raise ParameterError(f"phrase {phrase[:40]!r}...: has {tokens} tokens, {self._card.name} reads {LONGEST}")
        return {name: read[name].to(self._model.device) for name in ("input_ids", "attention_mask")}

    def look(self, pixels: Bytes) -> Any:
        """The picture's features."""
        import torch

        with torch.inference_mode():
            return self._model.get_vision_features(self._view.values(pixels).to(self._model.device))

    def find(self, features: Any, words: dict[str, Any], floor: float) -> tuple[Floats, Floats]:
        """Candidates above `floor`, best first: probabilities (n, low, low) less a half, and scores (n,)."""
        import torch

        with torch.inference_mode():
            found = self._model(vision_embeds=features, **words)
            scores = found.pred_logits.sigmoid()
            if found.presence_logits is not None:
                scores = scores * found.presence_logits.sigmoid()
            sure: Floats = scores[0].float().cpu().numpy()
            order = np.argsort(-sure, kind="stable")
            order = order[sure[order] > floor]
            # Probabilities and not logits are enlarged, as transformers does it; a half is the outline.
            shares = found.pred_masks[0, torch.from_numpy(order).to(scores.device)].sigmoid().float().cpu().numpy()
        return shares - np.float32(0.5), sure[order]


class Engine(sam2.Engine):
    """The adapter: boxes and clicks as with SAM 2.1, and phrases."""

    def __init__(self, card: Card) -> None:
        self._settings = build(Settings, card.settings, f"{card.name}.settings")
        super().__init__(card)
        self._finder = Held(card.name, lambda device: _Finder(card, self._settings, device))

    def _opener(self, card: Card) -> Callable[[str], Network]:
        def load(device: str) -> Network:
            model = network(card, self._settings.tracker, device)
            return Network(model, self._settings.view(int(model.prompt_encoder.input_image_size)))

        return load

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        """A key that hashes the picture's pixels, the card's name and its revision.

        Nothing is embedded: phrases and clicks need different networks.
        """
        return self._key(picture)

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        """As `sam2.Engine.segment`; then every candidate for the phrases above the card's `floor`, best first.

        Candidates score far below the card's `threshold` too: the caller decides what is taken. Their label is the
        phrase as it was written. The state is that of boxes and clicks.

        Raises:
            ParameterError: as there, and when a phrase is empty or too long.
            EngineError: as there.
            Cancelled: when the run was cancelled.
        """
        pointed = Found(())
        if prompts.boxes or prompts.include or not prompts.text:
            pointed = super().segment(picture, key, prompts, previous, run)
        named = self._named(picture, list(dict.fromkeys(prompts.text)), run) if prompts.text else []
        return Found((*pointed.regions, *named), pointed.state)

    def _named(self, picture: Picture, phrases: Sequence[str], run: EngineRun) -> list[Region]:
        frame, found = picture.box, []
        with self._finder.at(run) as finder:
            words = [finder.words(phrase) for phrase in phrases]
            features = finder.look(picture.srgb(frame))
            for number, (phrase, read) in enumerate(zip(phrases, words, strict=True)):
                heed(run)
                run.progress(f"look for {phrase[:40]}", number / len(phrases))
                found.append((phrase, *finder.find(features, read, self._settings.floor)))
        regions = []
        for phrase, shares, scores in found:
            for values, score in zip(shares, scores, strict=True):
                heed(run)
                if not (mask := _mask(values, frame)).is_empty:
                    regions.append(Region(mask.box, phrase, float(score), mask))
        return sorted(regions, key=lambda region: -region.score)


def _mask(shares: Floats, frame: Box) -> Mask:
    part_, values = enlarged(shares, frame.size)
    return Mask.from_array(values, frame, (frame.left + part_.left, frame.top + part_.top))
