"""Open-vocabulary detectors of the Grounding DINO family, as transformers runs them: phrases to boxes.

Sources: Liu et al., Grounding DINO, 2023; Zhao et al., An Open and Comprehensive Pipeline for Unified Object Grounding
and Detection (MM-Grounding-DINO), 2024; Fu et al., LLMDet, 2025.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from toolkit import devices, weights
from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.engines import EngineRun, Picture
from toolkit.engines.pretrained import Held, heed, network, part
from toolkit.errors import EngineError, ParameterError
from toolkit.geometry import Box
from toolkit.schema import Model, build

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

STRIDE = 32  # pixels of the picture as the network gets it for one cell of its coarsest backbone level
SEPARATORS = re.compile(r"[.?\s]+")  # the network takes "." and "?" for the end of a phrase


def missing(card: Card) -> str:
    """What is not installed or not here, or nothing; nothing is imported."""
    return devices.installed("text", "torch", "transformers") or weights.missing(card)


class Settings(Model):
    """What a card of this adapter says in `settings`.

    Attributes:
        model: the class of transformers.
        threshold: the score from which a candidate counts as found, for whoever picks among them.
        floor: candidates that score no more are not worth a look.
        size: instead of the checkpoint's own rule: shortest side, and longest side it may lead to, in pixels.
    """

    model: Literal["GroundingDinoForObjectDetection", "MMGroundingDinoForObjectDetection"]
    threshold: float = Field(default=0.3, gt=0, lt=1)
    floor: float = Field(default=0.05, ge=0, lt=1)
    size: tuple[int, int] | None = Field(default=None, strict=False)


@dataclass(frozen=True)
class Pass:
    """Phrases the network reads at once.

    Attributes:
        text: all of them, each ended by a full stop.
        spans: where each begins and ends in the text.
        numbers: which of the cleaned phrases they are.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    numbers: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Candidates:
    """What one pass found, best first.

    Attributes:
        boxes: (n, 4) float32, left, top, right, bottom in the picture's pixels, not clipped.
        scores: (n,) float32, 0-1.
        phrases: (n,) int64, numbers of the cleaned phrases.
    """

    boxes: Floats
    scores: Floats
    phrases: npt.NDArray[np.int64]


def cleaned(phrases: Sequence[str]) -> dict[str, str]:
    """The phrases as the network reads them (lower case, no punctuation that ends one) -> as the user wrote them.

    Of phrases that read alike the first is kept.

    Raises:
        ParameterError: when there is none, or one has nothing to look for.
    """
    if not phrases:
        raise ParameterError('nothing to look for: give a phrase such as "red car"')
    read: dict[str, str] = {}
    for phrase in phrases:
        plain = SEPARATORS.sub(" ", phrase).strip().lower()
        if not any(sign.isalnum() for sign in plain):
            raise ParameterError(f'phrase {phrase!r}: has no word to look for; write what it is, such as "red car"')
        read.setdefault(plain, phrase)
    return read


class _Network:
    """A detector with its tokenizer and image processor."""

    def __init__(self, card: Card, settings: Settings, device: str) -> None:
        self._card = card
        self._tokenizer = part(card, "AutoTokenizer")
        where = "transformers.models.grounding_dino.image_processing_pil_grounding_dino"
        self._processor = part(card, "GroundingDinoImageProcessorPil", where)
        if not getattr(self._tokenizer, "is_fast", False):
            raise EngineError(f"{card.name}: its tokenizer does not tell where a token comes from; tokenizer.json does")
        if settings.size:
            self._processor.size = {"shortest_edge": settings.size[0], "longest_edge": settings.size[1]}
        self._model = network(card, settings.model, device)
        self._longest = int(self._model.config.max_text_len)

    def to(self, device: str) -> None:
        """Move to a device."""
        self._model.to(device)

    def passes(self, phrases: Sequence[str]) -> list[Pass]:
        """Cleaned phrases in as few passes as the text length allows, in their order.

        Raises:
            ParameterError: when one phrase alone is too long.
        """
        groups: list[list[int]] = []
        room = 0
        for number, phrase in enumerate(phrases):
            tokens = len(self._tokenizer(f"{phrase}.", add_special_tokens=False)["input_ids"])
            if tokens > self._longest - 2:  # the text begins and ends with a token of its own
                raise ParameterError(
                    f"phrase {phrase[:40]!r}...: has {tokens} tokens, {self._card.name} reads {self._longest - 2}"
                )
            if tokens > room:
                groups.append([])
                room = self._longest - 2
            groups[-1].append(number)
            room -= tokens
        return [_joined(phrases, numbers) for numbers in groups]

    def image(self, pixels: Bytes) -> dict[str, Any]:
        """The network's view of a picture (h, w, 3) uint8 sRGB.

        Raises:
            EngineError: when the picture is too narrow for it.
        """
        height, width = pixels.shape[:2]
        longest = dict(self._processor.size).get("longest_edge")
        shorter = 0
        if not longest or min(height, width) * longest >= max(height, width):  # else nothing would be left of it
            made = self._processor(images=pixels, input_data_format="channels_last", return_tensors="pt")
            shorter = min(made["pixel_values"].shape[-2:])
        if shorter < STRIDE:
            raise EngineError(
                f"{self._card.name}: a picture of {width}x{height} pixels is too narrow for it: its shorter side would "
                f"be {shorter} pixels in the network, which needs {STRIDE}"
            )
        return {name: made[name].to(self._model.device) for name in ("pixel_values", "pixel_mask")}

    def candidates(self, image: dict[str, Any], size: tuple[int, int], one: Pass, floor: float) -> Candidates:
        """What a pass finds above `floor` in a picture of `size` = (width, height).

        A candidate's score is the sigmoid of its best token, special ones included, as in transformers'
        `post_process_grounded_object_detection`; its phrase is the one with the best token of its own.
        """
        import torch

        words = self._tokenizer(one.text, return_tensors="pt", return_offsets_mapping=True)
        words = {name: value for name, value in words.items()}
        places = words.pop("offset_mapping")[0].tolist()
        with torch.inference_mode():
            # In float32 on every device: sampling points and boxes are formed in the network's own type, and in
            # bfloat16 they would lie on a grid of 1/256 of the picture.
            found = self._model(**image, **{name: value.to(self._model.device) for name, value in words.items()})
            every = torch.sigmoid(found.logits[0].float()).cpu().numpy()
            boxes = found.pred_boxes[0].float().cpu().numpy()
        per_phrase = np.zeros((len(every), len(one.spans)), np.float32)
        for column, (first, last) in enumerate(one.spans):
            own = [token for token, (start, end) in enumerate(places) if first <= start < last and end > start]
            per_phrase[:, column] = every[:, own].max(axis=1)
        scores = every.max(axis=1)
        order = np.argsort(-scores, kind="stable")
        order = order[scores[order] > floor]
        return Candidates(
            _corners(boxes, size)[order],
            scores[order],
            np.asarray(one.numbers, np.int64)[per_phrase.argmax(axis=1)][order],
        )


class Engine:
    """The adapter. The network is loaded at first use; threads may share it and are served one after another."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._settings = build(Settings, card.settings, f"{card.name}.settings")
        self._held = Held(card.name, lambda device: _Network(card, self._settings, device))

    def detect(self, picture: Picture, phrases: Sequence[str], run: EngineRun) -> tuple[Region, ...]:
        """Every candidate that scores above the card's `floor`, best first, with the user's phrase as label.

        Several phrases go through the network at once where its text length allows, otherwise in several passes.

        Raises:
            ParameterError: when a phrase is empty or too long.
            EngineError: when the network cannot be loaded, or the picture is too narrow for it.
            Cancelled: when the run was cancelled.
        """
        read = cleaned(phrases)
        labels = list(read.values())
        frame, found = picture.box, []
        with self._held.at(run) as net:
            passes = net.passes(list(read))
            image = net.image(picture.srgb(frame))
            for number, one in enumerate(passes):
                heed(run)
                run.progress("look for " + ", ".join(labels[k] for k in one.numbers)[:60], number / len(passes))
                found.append(net.candidates(image, frame.size, one, self._settings.floor))
        regions = [
            Region(box, labels[int(phrase)], float(score))
            for one in found
            for corners, score, phrase in zip(one.boxes, one.scores, one.phrases, strict=True)
            if not (box := _box(corners, frame)).is_empty
        ]
        return tuple(sorted(regions, key=lambda region: -region.score))


def _joined(phrases: Sequence[str], numbers: Sequence[int]) -> Pass:
    text, spans = "", []
    for number in numbers:
        text += " " if text else ""
        spans.append((len(text), len(text) + len(phrases[number])))
        text += f"{phrases[number]}."
    return Pass(text, tuple(spans), tuple(numbers))


def _corners(boxes: Floats, size: tuple[int, int]) -> Floats:
    """Boxes (n, 4) as centre and size, in shares of the picture, as corners in pixels."""
    centre, half = boxes[:, :2], boxes[:, 2:] * np.float32(0.5)
    return np.concatenate([centre - half, centre + half], axis=1) * np.asarray([*size, *size], np.float32)


def _box(corners: Floats, frame: Box) -> Box:
    """The nearest whole pixels of a box within the frame; empty where nothing is left."""
    if not np.isfinite(corners).all():
        return Box(frame.left, frame.top, frame.left, frame.top)
    left, top, right, bottom = (int(n) for n in np.rint(corners))
    return Box(left, top, right, bottom).shift(frame.left, frame.top).intersect(frame)
