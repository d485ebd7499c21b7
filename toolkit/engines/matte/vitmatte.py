"""Alpha by ViTMatte: a plain vision transformer that looks at colours and trimap together, through transformers.

Source: Yao, Wang, Yang, Wang: ViTMatte: Boosting Image Matting with Pretrained Plain Vision Transformers, 2023.
"""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toolkit import devices, weights
from toolkit.cards import Card
from toolkit.engines import EngineRun
from toolkit.engines.turn import Turn
from toolkit.errors import Cancelled, EngineError
from toolkit.geometry import Box

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

LARGEST = 1024  # side of what the network gets at once: its attention takes memory with the fourth power
SHARED = 256  # pixels at least that neighbours have in common, over which one passes into the other
ALIGNED = 32  # what the network's halvings go by


def missing(card: Card) -> str:
    """What is not installed or not there, in one clause; nothing is imported."""
    return devices.installed("text", "torch", "transformers") or weights.missing(card)


class Engine:
    """The adapter: the network is opened at its first use and takes one window at a time, whatever the threads.

    Cancelling ends it between two of its layers.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._opened: dict[str, _Network] = {}
        self._lock = threading.Lock()

    def matte(self, pixels: Bytes, trimap: Bytes, run: EngineRun) -> Bytes:
        """The alpha of what lies between sure foreground and sure background.

        What is larger than `LARGEST` is worked in windows that overlap and pass into each other.

        Args:
            pixels: (h, w, 3) uint8 sRGB.
            trimap: (h, w) uint8: 0 = background, 255 = foreground, anything else = unknown.
            run: tells the device.

        Returns:
            (h, w) uint8; 0 and 255 exactly where the trimap has them.

        Raises:
            EngineError: when the network cannot be opened or run here.
            Cancelled: when the run was cancelled.
        """
        result = trimap.copy()
        unknown = (trimap != 0) & (trimap != 255)
        if not unknown.any():
            return result
        asked = np.where(unknown, np.uint8(128), trimap)
        total, weight = np.zeros(trimap.shape, np.float32), np.zeros(trimap.shape, np.float32)
        for window, share in _windows(trimap.shape[1], trimap.shape[0]):
            part = window.slices
            if not unknown[part].any():
                continue
            with Turn(self._lock, run):
                network = self._network(run.device)
                try:
                    alpha = network.alpha(pixels[part], asked[part], run)
                except RuntimeError as problem:  # torch.OutOfMemoryError is one, too
                    raise EngineError(
                        f"{self._card.name}: its network could not be run on {network.device} ({_first(problem)})"
                    ) from problem
            total[part] += share * alpha
            weight[part] += share
        found = total[unknown] / weight[unknown]
        if not np.isfinite(found).all():
            raise EngineError(f"{self._card.name}: its network answered with values that are no numbers")
        result[unknown] = np.rint(found * 255).astype(np.uint8)
        return result

    def _network(self, device: str) -> _Network:
        if device not in self._opened:
            if reason := missing(self._card):
                raise EngineError(f"{self._card.name} cannot run: {reason}")
            chosen = devices.chosen(device)
            devices.check_memory(self._card, chosen)
            self._opened[device] = _Network(self._card, chosen)
        return self._opened[device]


class _Network:
    """The network and its processor, on a device."""

    def __init__(self, card: Card, device: str) -> None:
        self.device = device
        folder = weights.folder(card)
        try:
            self._processor = _processor(folder)
            self._model = _model(folder, _file(card)).to(device)
        except Exception as problem:
            raise EngineError(
                f"{card.name}: {folder} holds no network of ViTMatte that can be opened ({_first(problem)}); if a file "
                f"is damaged, delete it and get it again: inpaint models pull {card.name}"
            ) from problem
        self._run: EngineRun | None = None
        for layer in self._model.modules():
            if not any(layer.children()):
                layer.register_forward_pre_hook(self._heed)

    def _heed(self, *_: object) -> None:
        if self._run is not None and self._run.cancelled():
            raise Cancelled

    def alpha(self, pixels: Bytes, trimap: Bytes, run: EngineRun) -> Floats:
        """Alpha (h, w) 0..1 of a window, known or not."""
        import torch

        given = self._processor(
            images=np.ascontiguousarray(pixels), trimaps=np.ascontiguousarray(trimap),
            input_data_format="channels_last", return_tensors="pt",
        )["pixel_values"]  # fmt: skip
        # In bfloat16 alpha strays by up to 8 of 255 (the backbone alone, random weights): too much for an edge.
        self._run = run
        with torch.inference_mode():
            alpha = self._model(pixel_values=given.to(self.device)).alphas
        height, width = trimap.shape
        return np.asarray(alpha[0, 0, :height, :width].cpu().numpy(), np.float32)


def _processor(folder: Path) -> Any:
    from transformers.models.vitmatte.image_processing_pil_vitmatte import VitMatteImageProcessorPil

    rules = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
    return VitMatteImageProcessorPil.from_dict(rules)


def _model(folder: Path, file: Path) -> Any:
    """The network with all its weights. transformers' own loading fills in at random what a file lacks, and prints."""
    import torch
    from transformers import VitMatteConfig, VitMatteForImageMatting

    rules = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    if rules.get("model_type") != "vitmatte":
        raise ValueError(f"config.json is of {rules.get('model_type')!r}")
    config = VitMatteConfig.from_dict(rules)
    config.fusion_hidden_sizes = list(config.fusion_hidden_sizes)  # its own default, a tuple, cannot be added to a list
    with torch.random.fork_rng(devices=[]):  # it is made with random weights first
        model: Any = VitMatteForImageMatting(config)
    if file.suffix == ".safetensors":
        from safetensors.torch import load_file

        state = load_file(file)
    else:
        state = torch.load(file, map_location="cpu", weights_only=True)
    missing, unexpected = model.load_state_dict(state, strict=False)
    missing = [name for name in missing if not name.endswith("num_batches_tracked")]  # of use in training only
    if missing or unexpected:
        raise ValueError(f"{file.name} is of another network: {(missing or unexpected)[0]} is not in both")
    return model.float().eval()


def _file(card: Card) -> Path:
    """The card's file of weights proper."""
    for one in card.weights:
        if one.file.endswith((".safetensors", ".bin")):
            return weights.path(card, one.file)
    raise EngineError(f"{card.name}: its card names no file of weights")


def _windows(width: int, height: int) -> Iterator[tuple[Box, Floats]]:
    """Windows of at most `LARGEST` a side that cover a picture, and how much each counts where, (h, w), above 0."""
    columns, rows = _spans(width), _spans(height)
    for top, bottom, down in rows:
        for left, right, across in columns:
            yield Box(left, top, right, bottom), down[:, None] * across


def _spans(length: int) -> list[tuple[int, int, Floats]]:
    """Start, stop and weights of equal parts of a side, on a grid; weights fall towards ends that are shared."""
    if length <= LARGEST:
        return [(0, length, np.ones(length, np.float32))]
    count = math.ceil((length - SHARED) / (LARGEST - SHARED - ALIGNED))
    starts = [round((length - LARGEST) * n / (count - 1)) // ALIGNED * ALIGNED for n in range(count)]
    spans = []
    for number, start in enumerate(starts):
        stop = length if number == count - 1 else start + LARGEST
        place = np.arange(stop - start) + 0.5
        before = place if number else np.full(stop - start, np.inf)
        after = place[::-1] if number < count - 1 else np.full(stop - start, np.inf)
        spans.append((start, stop, np.minimum(np.minimum(before, after) / SHARED, 1).astype(np.float32)))
    return spans


def _first(problem: BaseException) -> str:
    """The first line of what a library says."""
    lines = str(problem).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(problem).__name__
