"""Segment Anything: objects by boxes and clicks, refined from what was found before, and everything there is.

A picture is looked at once (`prepare`, seconds); what was seen is kept in memory and on disk, so that each further
click, in any process, is a pass of the small decoder. Source: Kirillov et al., Segment Anything, 2023, and the package
`segment-anything`, whose networks are used.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Sequence

import numpy as np

from toolkit import devices, weights
from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.embeddings import Embeddings
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.engines.segment._sam_everything import everything, scale
from toolkit.engines.segment._sam_masks import Enlarging, Logits
from toolkit.engines.segment._sam_network import Bytes, Floats, Network, Settings, held
from toolkit.engines.segment._sam_state import Answer, packed, unpacked
from toolkit.errors import Cancelled, EngineError, ParameterError, RecipeError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask
from toolkit.schema import Point, build

SMALLEST = 32
"""Shorter side of a picture, in pixels, below which there is too little to see."""

STRIP = 4 * 2**20  # pixels of the photo that are read at once


def missing(card: Card) -> str:
    """What is not installed, or which weights are not there; nothing is imported."""
    return devices.installed("sam", "torch", "segment_anything") or weights.missing(card)


class Engine:
    """The adapter. Threads may share it; nothing is imported or read before its first use."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._settings = build(Settings, card.settings, f"{card.name}.settings", error=RecipeError)
        self._embeddings = Embeddings()
        self._networks: dict[str, Network] = {}
        self._lock, self._looking = threading.Lock(), threading.Lock()
        if len(card.weights) != 1:
            raise RecipeError(f"{card.name}.weights: expected one file, got {len(card.weights)}")

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        """Look at the picture, unless that was done before; the key hashes pixels, card, weights and precision.

        Raises:
            EngineError: when the picture is too small, the checkpoint is damaged, or memory does not suffice.
            Cancelled: when the run was cancelled; what was seen so far is lost.
        """
        network = self._network(run)
        enlarging = self._enlarging(picture)
        key = self._key(picture, network)
        self._embedding(picture, key, network, enlarging, run)
        return key

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        """A region for each box, one for the clicks outside all boxes, and one for each thing of everything.

        Clicks inside a box refine it. A single click gets the best of three masks. Include clicks are always inside,
        exclude clicks outside: where the network does not heed one, a disc around it is added or taken away. A
        region's score is the IoU the network expects. What `previous` answered is left as it was for the same box and
        clicks, and refined where clicks were added; a region whose clicks were taken back is found anew.

        The key is made again from the picture, so that one of another picture can do no harm.

        Raises:
            ParameterError: when a click is both included and excluded.
            EngineError: when `previous` is damaged or of another picture or network, or the prompts are words; and
                as `prepare`.
            Cancelled: when the run was cancelled.
        """
        if prompts.subject or prompts.text:
            asked = "text" if prompts.text else "subject"
            raise EngineError(
                f"{self._card.name} cannot be pointed with {asked}, only with {' or '.join(self._card.takes)}"
            )
        for x, y in set(prompts.include) & set(prompts.exclude):
            raise ParameterError(f"click {x},{y}: is both included and excluded")
        network, enlarging = self._network(run), self._enlarging(picture)
        owner = self._owner(picture, network)
        known = unpacked(owner, previous, self._card.name)
        embedding = self._embedding(picture, self._key(picture, network), network, enlarging, run)
        asked_for = _asked(prompts)
        answers = self._answers(network, embedding, enlarging, asked_for, known, picture.box, run)
        regions = [_region(answer, enlarging, picture.box, prompts.exclude) for answer in answers]
        if prompts.everything:
            name = "find everything"
            found = everything(network, embedding, enlarging, lambda share: _check(run, name, share))
            for one in found:
                mask = _mask(one.logits, enlarging, picture.box)
                regions.append(Region(mask.box, "", _clipped(one.score), mask))
        return Found(tuple(regions), packed(owner, answers))

    def _network(self, run: EngineRun) -> Network:
        device = devices.chosen(run.device)
        with self._lock:
            if device not in self._networks:
                network = Network(self._card, self._settings, device)
                network.open()
                self._networks[device] = network
            return self._networks[device]

    def _enlarging(self, picture: Picture) -> Enlarging:
        size = picture.box.size
        enlarging = Enlarging(self._settings.image_size, size)
        if min(size) < SMALLEST or min(enlarging.inner) < 1:
            raise EngineError(
                f"{self._card.name}: the photo is {size} pixels; it needs {SMALLEST} on each side, and no side more "
                f"than {2 * self._settings.image_size} times as long as the other"
            )
        return enlarging

    def _owner(self, picture: Picture, network: Network) -> str:
        card = self._card
        # Which file it is; reading it all for a hash would take longer than a click.
        about = [picture.digest, picture.box, card.name, card.revision, card.weights[0].sha256, network.file]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def _key(self, picture: Picture, network: Network) -> str:
        about = [self._owner(picture, network), network.precision, self._settings.model_dump(mode="json")]
        return hashlib.sha256(json.dumps(about).encode()).hexdigest()

    def _embedding(
        self, picture: Picture, key: str, network: Network, enlarging: Enlarging, run: EngineRun
    ) -> Floats:  # fmt: skip
        known = self._embeddings.get(key)
        if known is not None:
            return known
        name = "look at the picture"
        _check(run, name, 0)
        with held(self._looking, lambda: _check(run, name, 0)):
            known = self._embeddings.get(key)  # another thread may have looked meanwhile
            if known is not None:
                return known
            copy = _reduced(picture, enlarging.inner)
            return self._embeddings.put(key, network.embed(copy, lambda share: _check(run, name, share)))

    def _answers(
        self, network: Network, embedding: Floats, enlarging: Enlarging, asked: Sequence[_Prompt],
        known: Sequence[Answer], frame: Box, run: EngineRun,
    ) -> list[Answer]:  # fmt: skip
        """Logits and scores for each prompt, in their order; prompts of one form share a pass of the decoder."""
        before = [next((one for one in known if one.leads_to(*prompt)), None) for prompt in asked]
        forms: dict[tuple[bool, int, bool], list[int]] = {}
        found: dict[int, Answer] = {}
        for number, (box, include, exclude) in enumerate(asked):
            if (earlier := before[number]) is not None and earlier.is_for(box, include, exclude):
                found[number] = earlier
                continue
            form = (box is not None, len(include) + len(exclude), before[number] is not None)
            forms.setdefault(form, []).append(number)
        step = self._settings.boxes_at_once
        for (boxed, clicks, refined), members in forms.items():
            single = not boxed and clicks == 1 and not refined
            for part in (members[start : start + step] for start in range(0, len(members), step)):
                _check(run, "select", len(found) / len(asked))
                some = [asked[number] for number in part]
                to = scale(enlarging)
                points = boxes = logits = None
                if clicks:
                    places = [[(x - frame.left, y - frame.top) for x, y in (*i, *e)] for _, i, e in some]
                    labels = [[1] * len(i) + [0] * len(e) for _, i, e in some]
                    points = (np.array(places, np.float64) * to).astype(np.float32), labels
                if boxed:
                    corners = np.array([box.within(frame) for box, _, _ in some if box is not None], np.float64)
                    boxes = (corners.reshape(-1, 2, 2) * to).reshape(-1, 4).astype(np.float32)
                if refined:
                    answers = [before[number] for number in part]
                    logits = np.stack([one.logits for one in answers if one is not None])[:, None]
                low, scores = network.decode(
                    embedding, points=points, boxes=boxes, logits=logits, several=single,
                    check=lambda: _check(run, "select", 0),
                )  # fmt: skip
                for number, prompt, masks, values in zip(part, some, low, scores, strict=True):
                    best = int(values.argmax())
                    found[number] = Answer(*prompt, masks[best], float(values[best]))
        return [found[number] for number in range(len(asked))]


_Prompt = tuple[Box | None, tuple[Point, ...], tuple[Point, ...]]


def _asked(prompts: Prompts) -> list[_Prompt]:
    """Boxes, each with the clicks in it, and then the clicks that are in none."""
    asked: list[_Prompt] = []
    for box in prompts.boxes:
        inside = (tuple(p for p in clicks if _holds(box, p)) for clicks in (prompts.include, prompts.exclude))
        asked.append((box, *inside))  # type: ignore[arg-type]
    loose = [tuple(p for p in clicks if not any(_holds(box, p) for box in prompts.boxes))
             for clicks in (prompts.include, prompts.exclude)]  # fmt: skip
    if loose[0]:
        asked.append((None, loose[0], loose[1]))
    return asked


def _holds(box: Box, point: Point) -> bool:
    return box.left <= point[0] < box.right and box.top <= point[1] < box.bottom


def _region(answer: Answer, enlarging: Enlarging, frame: Box, exclude: Sequence[Point]) -> Region:
    mask = _mask(answer.logits, enlarging, frame)
    radius = max(2, round(0.005 * max(frame.size)))
    for points, wanted in ((answer.include, True), (exclude, False)):
        for x, y in points:
            pixel = Box(x, y, x + 1, y + 1)
            if bool(mask.array(pixel).any()) is not wanted:
                disc = Mask.from_box(frame, pixel).dilate(radius)
                mask = mask.union(disc) if wanted else mask.subtract(disc)
    for x, y in answer.include:  # where a disc around an exclude click beside it took it away again
        mask = mask.union(Mask.from_box(frame, Box(x, y, x + 1, y + 1)))
    if mask.is_empty:
        return Region(answer.box or mask.box, "", 0.0, mask, "the network found nothing there")
    return Region(mask.box, "", _clipped(answer.score), mask)


def _mask(logits: Logits, enlarging: Enlarging, frame: Box) -> Mask:
    found = enlarging.mask(logits)
    if found is None:
        return Mask.empty(frame)
    box, values = found
    return Mask.from_array(values, frame, (frame.left + box.left, frame.top + box.top))


def _clipped(score: float) -> float:
    return min(1.0, max(0.0, score))


def _check(run: EngineRun, name: str, share: float) -> None:
    if run.cancelled(name):
        raise Cancelled
    run.progress(name, share)


def _reduced(picture: Picture, size: Size) -> Bytes:
    """The picture (h, w, 3) uint8 RGB at `size`, as PIL's bilinear resize of all of it has it.

    It is read in strips, but reduced at once: whether PIL reduces rows or columns first, each rounded to 8 bits,
    depends on the picture's shape and on PIL's version.
    """
    import PIL.Image

    frame = picture.box
    whole = PIL.Image.new("RGB", frame.size)
    step = max(1, STRIP // frame.width)
    for top in range(frame.top, frame.bottom, step):
        strip = picture.srgb(Box(frame.left, top, frame.right, min(frame.bottom, top + step)))
        whole.paste(PIL.Image.fromarray(np.ascontiguousarray(strip)), (0, top - frame.top))
    return np.asarray(whole.resize(size, PIL.Image.Resampling.BILINEAR))
