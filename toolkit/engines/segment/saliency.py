"""The main subject by a salient-object network in ONNX: BiRefNet, IS-Net, U^2-Net and their kin, on onnxruntime.

What such networks differ in are the card's settings, so that another one is a card and no code.

Sources: Zheng et al.: Bilateral Reference for High-Resolution Dichotomous Image Segmentation, 2024 (BiRefNet); Qin et
al.: Highly Accurate Dichotomous Image Segmentation, 2022 (IS-Net), and U^2-Net, 2020.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image
from pydantic import Field

from toolkit import devices, weights
from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.engines.turn import Turn
from toolkit.errors import Cancelled, EngineError, RecipeError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask
from toolkit.schema import Model, build
from toolkit.tiling import chunks

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

STRIP = 4_000_000  # pixels of the photo read at once
TILE = 128  # side of the tiles, of which only those that the outline crosses are computed
REMEMBERED = 4  # pictures whose map is kept, 4 MiB each at 1024 pixels
UNSURE = 0.1  # probability below which the network is as good as sure that there is ground
TOLD = 0.65  # confidence below which it is said why
SILENT = 4  # onnxruntime's level of what is logged: what goes wrong comes as an exception, too


class Settings(Model):
    """What a network gets and what it answers with."""

    size: int = Field(ge=16, description="side of the square the photo is resized to, whatever its shape")
    filter: Literal["bilinear", "lanczos"] = Field(default="bilinear", description="how; antialiased, as Pillow does")
    brightest: bool = Field(default=False, description="values are divided by the highest one instead of 255")
    mean: tuple[float, float, float] = Field(strict=False, description="subtracted then, of red, green, blue")
    std: tuple[float, float, float] = Field(strict=False, description="divided by at last")
    activation: Literal["none", "sigmoid"] = Field(default="none", description="sigmoid where the graph gives logits")
    stretch: bool = Field(default=False, description="the map is stretched to 0..1")


@dataclass(frozen=True, eq=False)
class Saliency:
    """How likely each pixel of the reduced photo is the subject's.

    Attributes:
        map: (size, size) float32, 0..1.
        span: highest less lowest probability before the map was stretched; 1 for one that was not.
    """

    map: Floats
    span: float = 1.0


def missing(card: Card) -> str:
    """What is not installed or not there, in one clause; nothing is imported."""
    return devices.installed("onnx", "onnxruntime") or weights.missing(card)


def tensor_of(picture: Picture, settings: Settings) -> Floats:
    """What the network gets: (1, 3, size, size) float32.

    The photo is read in strips. Pillow resizes rows first, then columns, and rounds between: rows can be resized strip
    by strip, and what comes out is bit for bit what Pillow makes of the whole.
    """
    how = Image.Resampling[settings.filter.upper()]
    width, height = picture.box.size
    rows = max(1, STRIP // width)
    strips = []
    for top in range(0, height, rows):
        strip = picture.srgb(Box(0, top, width, min(height, top + rows)).shift(picture.box.left, picture.box.top))
        narrow = Image.fromarray(np.ascontiguousarray(strip)).resize((settings.size, len(strip)), how)
        strips.append(np.asarray(narrow))
    small = np.asarray(Image.fromarray(np.concatenate(strips)).resize((settings.size, settings.size), how))
    divisor = max(int(small.max()), 1e-6) if settings.brightest else 255
    levels = np.arange(256)[:, None] / divisor
    table = ((levels - np.array(settings.mean)) / np.array(settings.std)).astype(np.float32)
    planes = [table[small[..., channel], channel] for channel in range(3)]
    return np.stack(planes)[None]


def saliency_of(answer: npt.NDArray[Any], settings: Settings, name: str) -> Saliency:
    """What the network's answer says.

    Args:
        answer: its first output.
        settings: of its card.
        name: of its card.

    Raises:
        EngineError: when it is no map of `settings.size`, not finite, or no probabilities.
    """
    wanted = (1, 1, settings.size, settings.size)
    if answer.shape != wanted or answer.dtype.kind != "f":
        raise EngineError(
            f"{name}: its network answered with {answer.dtype} {answer.shape}, expected float {wanted}; "
            "the file or the card's settings are of another network"
        )
    values = np.asarray(answer[0, 0], np.float32)
    if not np.isfinite(values).all():
        raise EngineError(f"{name}: its network answered with values that are no numbers")
    if settings.activation == "sigmoid":
        values = np.float32(0.5) * (np.tanh(np.float32(0.5) * values) + np.float32(1))
    low, high = float(values.min()), float(values.max())
    if not settings.stretch:
        if low < -1e-3 or high > 1 + 1e-3:
            raise EngineError(
                f"{name}: its network answered with {low:.3g} to {high:.3g}, which are no probabilities; "
                "the card's settings.activation says whether they are logits"
            )
        return Saliency(np.clip(values, 0, 1))
    if high <= low:
        return Saliency(np.zeros_like(values), 0.0)
    return Saliency((values - values.min()) / (values.max() - values.min()), min(1.0, high - low))


def confidence_of(found: Saliency) -> tuple[float, str]:
    """How far the mask above 0.5 is to be trusted (0-1), and why not further, as a clause or nothing.

    Three factors: the expected overlap (intersection over union) of mask and subject, were the map's values
    probabilities (Nowozin: Optimal Decisions from Probabilistic Models, 2014); a subject that takes most of the photo's
    border is more likely the ground: 1 less the square of its share of the border; and the span of a map that was
    stretched, for where nothing stands out stretching makes something of nothing.
    """
    inside = found.map > 0.5
    beyond = found.map[~inside]
    likely = float(found.map[inside].sum())
    overlap = likely / max(1.0, np.count_nonzero(inside) + float(beyond[beyond >= UNSURE].sum()))
    rim = np.concatenate([inside[0], inside[-1], inside[:, 0], inside[:, -1]])
    border = float(rim.mean())
    score = overlap * (1 - border**2) * found.span
    if score >= TOLD:
        return score, ""
    reasons = {
        overlap: "large parts of it are as likely ground",
        1 - border**2: "it takes most of the photo's border, as a ground does",
        found.span: "nothing in the photo stands out much",
    }
    return score, reasons[min(reasons)]


def mask_of(found: Saliency, size: Size) -> tuple[Box, Bytes] | None:
    """Where the map, bilinearly interpolated at the photo's size, is above 0.5; computed only where the outline runs.

    Where the photo is smaller than the map, the map is averaged instead.

    Args:
        found: the map.
        size: the photo's.

    Returns:
        The part of the photo that holds the mask and the mask there, (h, w) uint8 0 or 255; None when it is empty.
    """
    values = found.map
    height, width = values.shape
    fit = min(width, size.width), min(height, size.height)
    if fit != (width, height):
        values = np.asarray(Image.fromarray(values).resize(fit, Image.Resampling.BILINEAR))
        width, height = fit
    left, top, across, down = cv2.boundingRect((values > 0.5).astype(np.uint8))
    if not across:
        return None
    x_scale, y_scale = size.width / width, size.height / height
    # No interpolated value is above 0.5 unless one of its four neighbours is.
    box = Box(
        math.floor((left - 1) * x_scale), math.floor((top - 1) * y_scale),
        math.ceil((left + across + 1) * x_scale), math.ceil((top + down + 1) * y_scale),
    ).intersect(Box.of_size(size))  # fmt: skip
    columns, rows = _Places(box.left, box.right, width, x_scale), _Places(box.top, box.bottom, height, y_scale)
    mask = np.zeros((box.height, box.width), np.uint8)
    for tile in chunks([Box.of_size(box.size)], TILE):
        x, y = columns.part(tile.left, tile.right), rows.part(tile.top, tile.bottom)
        part = values[y.first[0] : y.second[-1] + 1, x.first[0] : x.second[-1] + 1]
        if part.max() <= 0.5:
            continue
        if part.min() > 0.5:
            mask[tile.slices] = 255
            continue
        part = x.mixed(part.T - np.float32(0.5)).T
        mask[tile.slices][y.mixed(part) > 0] = 255
    return box, mask


class _Places:
    """Where the pixels `start` to `stop` of a side lie between the values of a map: neighbours, share of the second."""

    def __init__(self, start: int, stop: int, count: int, scale: float) -> None:
        places = np.clip((np.arange(start, stop) + 0.5) / scale - 0.5, 0, count - 1)
        self.first = places.astype(np.intp)
        self.second = np.minimum(self.first + 1, count - 1)
        self.share = (places - self.first).astype(np.float32)[:, None]

    def part(self, start: int, stop: int) -> _Places:
        part = object.__new__(_Places)
        part.first, part.second = self.first[start:stop], self.second[start:stop]
        part.share = self.share[start:stop]
        return part

    def mixed(self, values: Floats) -> Floats:
        """Rows between rows of `values`, whose first is that of the first place."""
        first, second = (values[index - self.first[0]] for index in (self.first, self.second))
        return np.asarray(first + self.share * (second - first), np.float32)


def providers_for(device: str, available: list[str]) -> list[Any]:
    """onnxruntime's execution providers for a device: the one meant, and the processor for what that cannot do.

    Raises:
        ParameterError: when `device` is no device.
        EngineError: when this onnxruntime has no provider for it.
    """
    devices.checked(device)
    processor: list[Any] = ["CPUExecutionProvider"]
    kind, _, number = device.partition(":")
    if kind == "cpu" or (kind == "auto" and "CUDAExecutionProvider" not in available):
        return processor
    provider = "CoreMLExecutionProvider" if kind == "mps" else "CUDAExecutionProvider"
    if provider not in available:
        install = "" if kind == "mps" else "install onnxruntime-gpu instead of onnxruntime, or "
        raise EngineError(
            f"device {device}: this onnxruntime has no {provider.removesuffix('ExecutionProvider')} provider; "
            f"{install}use --device auto or cpu"
        )
    return [provider if kind == "mps" else (provider, {"device_id": number or "0"}), *processor]


class Engine:
    """The adapter: one region, the photo's main subject, or none.

    The network is opened at its first use. One picture at a time goes through it, whatever the threads; cancelling ends
    it between two of its layers. The maps of the pictures used last are kept; that saves work and never changes an
    answer.

    Raises:
        RecipeError: when the card's settings are none of a saliency network.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._settings = build(Settings, card.settings, f"{card.name}.settings", error=RecipeError)
        if 0 in self._settings.std:
            raise RecipeError(f"{card.name}.settings.std: must not be 0")
        self._sessions: dict[str, Any] = {}
        self._maps: OrderedDict[str, Saliency] = OrderedDict()
        self._lock = threading.Lock()

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        """A hash of the picture's pixels and the card's revision; the network waits for the first question."""
        text = f"{picture.digest} {picture.box} {self._card.name} {self._card.revision}"
        return hashlib.sha256(text.encode()).hexdigest()

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        """The main subject with its confidence (see `confidence_of`), or nothing where no pixel is above 0.5.

        Raises:
            EngineError: when something else is asked for, or the network cannot be opened or run here.
            Cancelled: when the run was cancelled.
        """
        if not prompts.subject or prompts.boxes or prompts.include or prompts.text or prompts.everything:
            raise EngineError(f"{self._card.name}: finds the main subject, and cannot be pointed at anything else")
        found = self._seen(picture, key, run)
        placed = mask_of(found, picture.box.size)
        if placed is None:
            return Found(())
        box, values = placed
        mask = Mask.from_array(values, picture.box, (picture.box.left + box.left, picture.box.top + box.top))
        if mask.is_empty:
            return Found(())
        score, reason = confidence_of(found)
        return Found((Region(mask.box, "subject", score, mask, reason),))

    def _seen(self, picture: Picture, key: str, run: EngineRun) -> Saliency:
        with Turn(self._lock, run):
            if key in self._maps:
                self._maps.move_to_end(key)
                return self._maps[key]
            session = self._session(run.device)
            answer = self._answer(session, tensor_of(picture, self._settings), run)
            self._maps[key] = saliency_of(answer, self._settings, self._card.name)
            while len(self._maps) > REMEMBERED:
                self._maps.popitem(last=False)
            return self._maps[key]

    def _session(self, device: str) -> Any:
        """The network on a device, opened once."""
        if device in self._sessions:
            return self._sessions[device]
        if not self._card.weights:
            raise EngineError(f"{self._card.name}: its card names no file of weights")
        if reason := missing(self._card):
            raise EngineError(f"{self._card.name} cannot run: {reason}")
        import onnxruntime

        providers = providers_for(device, onnxruntime.get_available_providers())
        if len(providers) == 1:
            devices.check_memory(self._card, "cpu")
        path = weights.path(self._card)
        options = onnxruntime.SessionOptions()
        options.log_severity_level = SILENT
        options.intra_op_num_threads = _cores()  # its own choice is all of the machine's, pinned
        try:
            session = onnxruntime.InferenceSession(path, options, providers=providers)
        except Exception as problem:
            raise EngineError(
                f"{self._card.name}: onnxruntime cannot open {path.name} ({_plain(problem)}); if it is damaged, "
                f"delete {path} and get it again: inpaint models pull {self._card.name}"
            ) from problem
        if device != "auto" and len(session.get_providers()) < len(providers):
            raise EngineError(
                f"device {device}: onnxruntime could not start it, though it has a provider for it "
                "(its CUDA or cuDNN libraries may be missing); use --device auto or cpu"
            )
        self._check(session)
        self._sessions[device] = session
        return session

    def _check(self, session: Any) -> None:
        """Find out whether the network takes what the card says."""
        inputs = session.get_inputs()
        wanted = [1, 3, self._settings.size, self._settings.size]
        takes = ", ".join(f"{one.type} {one.shape}" for one in inputs)
        fits = len(inputs) == 1 and inputs[0].type in ("tensor(float)", "tensor(float16)")
        fits = fits and len(inputs[0].shape) == 4
        if fits:  # a side that is free has a name instead of a number
            sides = zip(inputs[0].shape, wanted, strict=True)
            fits = all(not isinstance(one, int) or one == side for one, side in sides)
        if not fits:
            raise EngineError(
                f"{self._card.name}: its network takes {takes or 'nothing'}, its card says pictures of {wanted}; "
                "the file or the card's settings are of another network"
            )

    def _answer(self, session: Any, tensor: Floats, run: EngineRun) -> npt.NDArray[Any]:
        """The network's first output; its work is ended when the run is cancelled or the thread interrupted."""
        import onnxruntime

        given = session.get_inputs()[0]
        feed = {given.name: tensor.astype(np.float16) if "float16" in given.type else tensor}
        output = session.get_outputs()[0].name
        options = onnxruntime.RunOptions()
        options.log_severity_level = SILENT
        run.progress("find the subject", 0)
        with ThreadPoolExecutor(1) as pool:
            future = pool.submit(session.run, [output], feed, options)
            try:
                while True:
                    try:
                        answer = future.result(timeout=0.1)[0]
                        break
                    except TimeoutError:
                        if run.cancelled():
                            raise Cancelled from None
            except Cancelled:
                raise
            except Exception as problem:
                raise EngineError(f"{self._card.name}: its network could not be run ({_plain(problem)})") from problem
            finally:
                options.terminate = True  # of no effect once it is done
        run.progress("find the subject", 1)
        return np.asarray(answer)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def _plain(problem: Exception) -> str:
    """The first line of what onnxruntime says, without its codes and the file, which is named anyway."""
    line = str(problem).strip().splitlines()[0] if str(problem).strip() else type(problem).__name__
    line = line.rpartition(" : ")[2].rstrip(".")
    return line.rpartition(" failed:")[2] if line.startswith("Load model from") else line
