"""The image processors of transformers that need torchvision, which is not installed: for references only.

Stand-ins for the three functions of torchvision that are called are put in its place, each a single call of torch, as
torchvision has them.
"""

from __future__ import annotations

import contextlib
import enum
import importlib
import sys
import types
from collections.abc import Iterator
from typing import Any

import pytest
import torch


class Interpolation(enum.Enum):
    """torchvision's names of what Pillow numbers."""

    BILINEAR = "bilinear"
    LANCZOS = "lanczos"


def _resize(image: torch.Tensor, size: Any, interpolation: Interpolation, antialias: bool) -> torch.Tensor:
    return torch.nn.functional.interpolate(
        image, size, mode=interpolation.value, align_corners=False, antialias=antialias
    )


def _normalize(image: torch.Tensor, mean: Any, std: Any, inplace: bool = False) -> torch.Tensor:
    return image.sub(torch.as_tensor(mean).view(-1, 1, 1)).div_(torch.as_tensor(std).view(-1, 1, 1))


@contextlib.contextmanager
def image_processor(model: str, kind: str) -> Iterator[Any]:
    """The class `kind` of transformers' model `model`, usable until the end; torch works in one thread meanwhile."""
    backends = importlib.import_module("transformers.image_processing_backends")
    place = f"transformers.models.{model}.image_processing_{model}"
    functions = types.SimpleNamespace(
        InterpolationMode=Interpolation, resize=_resize, normalize=_normalize, grayscale_to_rgb=lambda image: image
    )
    before = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        for name in ("torchvision", "torchvision.ops", "torchvision.ops.boxes"):
            patch.setitem(sys.modules, name, types.ModuleType(name))
        patch.setattr(sys.modules["torchvision.ops.boxes"], "batched_nms", None, raising=False)
        made = getattr(importlib.import_module(place), kind)
        patch.undo()
        patch.setattr(backends, "tvF", functions, raising=False)
        patch.setattr(backends, "pil_torch_interpolation_mapping", {2: Interpolation.BILINEAR}, raising=False)
        torch.set_num_threads(1)  # networks this small only lose by sharing work among threads
        yield made
    torch.set_num_threads(before)
    sys.modules.pop(place, None)
