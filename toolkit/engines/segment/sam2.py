"""Boxes and clicks to masks with SAM 2.1, as transformers runs it.

Source: Ravi et al., SAM 2: Segment Anything in Images and Videos, 2024. Pictures and prompts are prepared as
transformers' `Sam2ImageProcessor` and `Sam2Processor` do it, which need torchvision; this file does not.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from toolkit import devices, weights
from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.engines.pretrained import Held, heed, network
from toolkit.engines.segment._logits import Floats, enlarged
from toolkit.errors import EngineError, ParameterError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.schema import Model, Point, build

Bytes = npt.NDArray[np.uint8]

REMEMBERED = 4  # pictures whose embedding is kept in memory, 16 MiB each
BATCH = 32  # boxes that go through the decoder at once
BILINEAR = 2  # Pillow's number of it, by which image processors call it
MAGIC = b"SAM2 state 1\n"


def missing(card: Card) -> str:
    """What is not installed or not here, or nothing; nothing is imported."""
    return devices.installed("text", "torch", "transformers") or weights.missing(card)


class Settings(Model):
    """What a card of this adapter says in `settings`: the class of transformers."""

    model: Literal["Sam2Model"]


@dataclass(frozen=True)
class Object:
    """What points at one object.

    Attributes:
        box: its box, if it has one.
        include: clicks on it.
        exclude: clicks beside it.
    """

    box: Box | None
    include: tuple[Point, ...] = ()
    exclude: tuple[Point, ...] = ()

    @property
    def clicks(self) -> tuple[Point, ...]:
        """All clicks, those on the object first."""
        return self.include + self.exclude

    def continues(self, other: Object) -> bool:
        """True when this is the same object with more clicks."""
        return (
            self.box == other.box
            and set(other.include) <= set(self.include)
            and set(other.exclude) <= set(self.exclude)
            and len(self.clicks) > len(other.clicks)
        )


def objects(prompts: Prompts) -> tuple[Object, ...]:
    """One object a box, with the clicks inside it, and one for the clicks on something outside all boxes.

    Clicks that exclude belong to each box they lie in, and to the object of the loose clicks.

    Raises:
        ParameterError: when nothing is pointed at, or a click is both included and excluded.
    """
    for x, y in set(prompts.include) & set(prompts.exclude):
        raise ParameterError(f"click {x},{y}: is both included and excluded")
    made = [
        Object(box, _inside(prompts.include, box), _inside(prompts.exclude, box))
        for box in (box.checked() for box in prompts.boxes)
    ]
    loose = tuple(point for point in prompts.include if not any(_holds(box, point) for box in prompts.boxes))
    if loose:
        made.append(Object(None, loose, tuple(prompts.exclude)))
    if not made:
        raise ParameterError("nothing to select: give a box, or a click on the object")
    return tuple(made)


class View:
    """How the network sees a picture: a square of `side` pixels, whatever the picture's shape, normalised.

    Args:
        side: of the square.
        mean: of each channel, 0-1.
        deviation: of each channel.
        factor: by which 0-255 become 0-1.
    """

    def __init__(self, side: int, mean: Sequence[float], deviation: Sequence[float], factor: float) -> None:
        import torch

        self.side = side
        # Rescaling and normalising in one step, as torchvision-backed processors do it.
        self._mean, self._deviation = (
            (torch.tensor(list(values)) * (1.0 / factor)).view(1, 3, 1, 1) for values in (mean, deviation)
        )

    @classmethod
    def read(cls, card: Card, side: int) -> View:
        """As the card's preprocessor_config.json says.

        Raises:
            EngineError: when it cannot be read, or asks for something else.
        """
        path = weights.path(card, "preprocessor_config.json")
        try:
            given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            size = given["size"]["height"], given["size"]["width"]
            resample, factor = given.get("resample", BILINEAR), given["rescale_factor"]
            mean, deviation = given["image_mean"], given["image_std"]
            if len(mean) != 3 or len(deviation) != 3 or not factor > 0:
                raise ValueError("image_mean, image_std or rescale_factor")
        except (OSError, ValueError, KeyError, TypeError) as problem:
            raise EngineError(f"{card.name}: cannot read {path} ({type(problem).__name__}: {problem})") from problem
        if size != (side, side) or resample != BILINEAR:
            raise EngineError(
                f"{card.name}: {path} asks for {size[1]}x{size[0]} pixels and resampling {resample}; "
                f"expected {side}x{side} and {BILINEAR}"
            )
        return cls(side, mean, deviation, factor)

    def values(self, pixels: Bytes) -> Any:
        """A picture (h, w, 3) uint8 sRGB as (1, 3, side, side) float32."""
        import torch

        picture = torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))[None]
        small = torch.nn.functional.interpolate(
            picture, (self.side, self.side), mode="bilinear", align_corners=False, antialias=True
        )
        return (small.to(torch.float32) - self._mean) / self._deviation


class Network:
    """A network that turns boxes and clicks into masks, with the view it takes of pictures."""

    def __init__(self, model: Any, view: View) -> None:
        self._model, self._view = model, view
        self.low = tuple(int(n) for n in model.prompt_encoder.mask_input_size)

    def to(self, device: str) -> None:
        """Move to a device."""
        self._model.to(device)

    def embedding(self, pixels: Bytes) -> list[Any]:
        """The picture's features at three scales, float32."""
        import torch

        device = self._model.device
        # Only the encoder holds in bfloat16: the decoder's coordinates would lose whole pixels.
        half = torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda")
        with torch.inference_mode(), half:
            return [one.float() for one in self._model.get_image_embeddings(self._view.values(pixels).to(device))]

    def decode(
        self, embedding: list[Any], some: Sequence[Object], frame: Box, previous: Floats | None
    ) -> tuple[Floats, Floats]:
        """Masks of objects that have equally many clicks, all of them a box or none.

        A single click asks for three masks and takes the one that is predicted to be best; everything else for one.

        Args:
            embedding: of the picture.
            some: the objects.
            frame: the picture's box.
            previous: (low, low) logits to go on from, of a single object.

        Returns:
            Logits (n, low, low), above 0 where the object is, and predicted intersections over unions (n,).
        """
        import torch

        device = self._model.device
        scale = torch.tensor([self._view.side / frame.width, self._view.side / frame.height])
        given: dict[str, Any] = {}
        if some[0].clicks:
            points = torch.tensor([[[list(p) for p in one.clicks] for one in some]], dtype=torch.float32)
            origin = torch.tensor([frame.left, frame.top])
            labels = [[[1] * len(one.include) + [0] * len(one.exclude) for one in some]]
            given["input_points"] = ((points - origin) * scale).to(device)
            given["input_labels"] = torch.tensor(labels).to(device)
        if some[0].box:
            boxes = torch.tensor([[list(one.box.within(frame)) for one in some if one.box]], dtype=torch.float32)
            given["input_boxes"] = (boxes * scale.repeat(2)).to(device)
        if previous is not None:
            given["input_masks"] = torch.from_numpy(previous.copy())[None, None].to(device)
        several = some[0].box is None and len(some[0].clicks) == 1 and previous is None
        with torch.inference_mode():
            found = self._model(
                image_embeddings=[one.to(device) for one in embedding], multimask_output=several, **given
            )
            logits = found.pred_masks[0].float().cpu().numpy()
            scores = found.iou_scores[0].float().cpu().numpy()
        best = scores.argmax(axis=1)
        rows = np.arange(len(best))
        return logits[rows, best], scores[rows, best]


class Engine:
    """The adapter. The network is loaded at first use; threads may share it and are served one after another.

    The embeddings of the few pictures used last are kept in memory; a missing one is computed again.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._held = Held(card.name, self._opener(card))
        self._known: OrderedDict[str, list[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def _opener(self, card: Card) -> Callable[[str], Network]:
        """Loads the network for a device."""
        kind = build(Settings, card.settings, f"{card.name}.settings").model

        def load(device: str) -> Network:
            model = network(card, kind, device)
            return Network(model, View.read(card, int(model.prompt_encoder.input_image_size)))

        return load

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        """Embed the picture; the key hashes its pixels, the card's name and its revision."""
        key = self._key(picture)
        self._embedding(picture, key, run)
        return key

    def _key(self, picture: Picture) -> str:
        told = f"{picture.digest} {picture.box} {self._card.name} {self._card.revision}"
        return hashlib.sha256(told.encode()).hexdigest()

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        """A region for each box, in their order, and one for the clicks outside all boxes.

        Clicks inside a box refine it. An object that `previous` knows, and that has got more clicks since, goes on from
        its logits. Clicked pixels are always part of their object, excluded ones of none. A region's score is the
        intersection over union that the network predicts.

        Raises:
            ParameterError: when nothing is pointed at, a box or click lies outside the picture, or a click is both
                included and excluded.
            EngineError: when the network cannot be loaded, or `previous` is no state of this engine.
            Cancelled: when the run was cancelled.
        """
        frame, wanted = picture.box, objects(prompts)
        _check_places(wanted, frame)
        with self._held.at(run) as net:
            before = self._read(previous, net.low)
            embedding = self._embedding(picture, key, run)
            logits: list[Floats] = [np.zeros(0, np.float32)] * len(wanted)
            scores = [0.0] * len(wanted)
            for numbers, earlier in _batches(wanted, before):
                heed(run)
                some = [wanted[number] for number in numbers]
                values, sure = net.decode(embedding, some, frame, earlier)
                for number, value, score in zip(numbers, values, sure, strict=True):
                    logits[number], scores[number] = value, float(score)
        regions = []
        for one, value, score in zip(wanted, logits, scores, strict=True):
            heed(run)
            regions.append(_region(one, value, score, frame, prompts.exclude))
        return Found(tuple(regions), self._written(wanted, logits))

    def _embedding(self, picture: Picture, key: str, run: EngineRun) -> list[Any]:
        with self._held.at(run) as net:
            with self._lock:
                if key in self._known:
                    self._known.move_to_end(key)
                    return self._known[key]
            found: list[Any] = net.embedding(picture.srgb(picture.box))
            with self._lock:
                self._known[key] = found
                while len(self._known) > REMEMBERED:
                    self._known.popitem(last=False)
            return found

    def _written(self, wanted: Sequence[Object], logits: Sequence[Floats]) -> bytes:
        """The state: a line of JSON that says which objects, then their logits as float32."""
        told = [[one.box, one.include, one.exclude] for one in wanted]
        head = {"card": self._card.name, "revision": self._card.revision, "objects": told}
        return MAGIC + json.dumps(head).encode() + b"\n" + b"".join(one.astype("<f4").tobytes() for one in logits)

    def _read(self, state: bytes | None, low: tuple[int, ...]) -> list[tuple[Object, Floats]]:
        if not state:
            return []
        try:
            if not state.startswith(MAGIC):
                raise ValueError("it begins otherwise")
            head, _, values = state[len(MAGIC) :].partition(b"\n")
            told = json.loads(head)
            if (told["card"], told["revision"]) != (self._card.name, self._card.revision):
                raise ValueError(f"it is one of {told['card']} {told['revision']}")
            known = [
                Object(Box(*box) if box else None, tuple(Point(*p) for p in include), tuple(Point(*p) for p in exclude))
                for box, include, exclude in told["objects"]
            ]
            logits = np.frombuffer(values, "<f4").astype(np.float32).reshape(len(known), *low)
            if not np.isfinite(logits).all():
                raise ValueError("it has values that are no numbers")
        except (ValueError, TypeError, KeyError) as problem:
            raise EngineError(f"{self._card.name}: the state to go on from is none of its own ({problem})") from problem
        return list(zip(known, logits, strict=True))


def _batches(
    wanted: Sequence[Object], before: Sequence[tuple[Object, Floats]]
) -> list[tuple[list[int], Floats | None]]:
    """Numbers of objects that can be decoded at once (boxes without clicks), and the logits to go on from."""
    plain = [number for number, one in enumerate(wanted) if one.box and not one.clicks]
    made: list[tuple[list[int], Floats | None]] = [
        (plain[first : first + BATCH], None) for first in range(0, len(plain), BATCH)
    ]
    for number, one in enumerate(wanted):
        if one.clicks:
            made.append(([number], next((logits for old, logits in before if one.continues(old)), None)))
    return made


def _region(one: Object, logits: Floats, score: float, frame: Box, exclude: Sequence[Point]) -> Region:
    part, values = enlarged(logits, frame.size)
    mask = Mask.from_array(values, frame, (frame.left + part.left, frame.top + part.top))
    reason = "nothing was found there" if mask.is_empty else ""
    for x, y in exclude:
        mask = mask.subtract(Mask.from_box(frame, Box(x, y, x + 1, y + 1)))
    for x, y in one.include:
        mask = mask.union(Mask.from_box(frame, Box(x, y, x + 1, y + 1)))
    return Region(mask.box, "", 0.0 if reason else min(1.0, max(0.0, score)), mask, reason)


def _check_places(wanted: Sequence[Object], frame: Box) -> None:
    for one in wanted:
        if one.box and not one.box.touches(frame):
            raise ParameterError(f"box {one.box}: lies outside the photo ({frame.size} pixels)")
        for x, y in one.clicks:
            if not _holds(frame, Point(x, y)):
                raise ParameterError(f"click {x},{y}: lies outside the photo ({frame.size} pixels)")


def _inside(points: Sequence[Point], box: Box) -> tuple[Point, ...]:
    return tuple(Point(*point) for point in points if _holds(box, point))


def _holds(box: Box, point: Point) -> bool:
    return box.left <= point[0] < box.right and box.top <= point[1] < box.bottom
