"""The package `segment_anything` without torchvision, of which it needs four functions.

A torchvision that works is used. Where it is missing, or is a build for CUDA beside a torch without (importing it then
fails with a RuntimeError), the package's own `import torchvision...` statements, and nobody else's, are answered with
the four functions below: its modules are run with an `__import__` of their own. `sys.modules` never holds a stand-in,
so a later `import torchvision` anywhere does what it did before.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.machinery
import importlib.util
import sys
import threading
from collections.abc import Mapping, Sequence
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from toolkit.errors import EngineError

if TYPE_CHECKING:
    import PIL.Image
    import torch

PACKAGE = "segment_anything"
_LOCK = threading.Lock()


def segment_anything() -> Any:
    """The package, imported once, however many threads ask for it.

    Raises:
        EngineError: when it is not installed or cannot be imported.
    """
    with _LOCK:
        loaded = sys.modules.get(PACKAGE)
        if loaded is not None and hasattr(loaded, "SamAutomaticMaskGenerator"):
            return loaded
        try:
            if _works():
                return importlib.import_module(PACKAGE)
            finder = _Finder()
            sys.meta_path.insert(0, finder)
            try:
                return importlib.import_module(PACKAGE)
            finally:
                sys.meta_path.remove(finder)
        except ImportError as problem:
            raise EngineError(f"{PACKAGE} cannot be imported: {problem}") from problem


def _works() -> bool:
    """Whether there is a torchvision that works. One that fails leaves no half-imported modules behind."""
    before = {name for name in sys.modules if _is_torchvision(name)}
    try:
        importlib.import_module("torchvision.ops.boxes")
        importlib.import_module("torchvision.transforms.functional")
    except Exception:  # whatever a broken build raises
        for name in [name for name in sys.modules if _is_torchvision(name) and name not in before]:
            del sys.modules[name]
        return False
    return True


def _is_torchvision(name: str) -> bool:
    return name == "torchvision" or name.startswith("torchvision.")


class _Finder:
    """Finds the package's modules as always, and gives them the stand-ins."""

    def find_spec(self, name: str, path: Sequence[str] | None = None, target: Any = None) -> Any:
        """The spec of a module of the package; None for all others."""
        if name != PACKAGE and not name.startswith(f"{PACKAGE}."):
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                module.__dict__["__builtins__"] = {**vars(builtins), "__import__": _import}
                run(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _import(
    name: str,
    globals: Mapping[str, Any] | None = None,
    locals: Mapping[str, Any] | None = None,
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> Any:
    if level == 0 and _is_torchvision(name):
        return _STAND_IN
    return builtins.__import__(name, globals, locals, fromlist or (), level)


def resize(image: PIL.Image.Image, size: Sequence[int]) -> PIL.Image.Image:
    """A PIL image at `size` = (height, width), bilinear."""
    import PIL.Image

    return image.resize((size[1], size[0]), PIL.Image.Resampling.BILINEAR)


def to_pil_image(array: npt.NDArray[np.uint8]) -> PIL.Image.Image:
    """An array (h, w, 3) as a PIL image."""
    import PIL.Image

    return PIL.Image.fromarray(array)


def box_area(boxes: torch.Tensor) -> torch.Tensor:
    """Areas (n,) of boxes (n, 4) as left, top, right, bottom."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def batched_nms(
    boxes: torch.Tensor, scores: torch.Tensor, idxs: torch.Tensor, iou_threshold: float
) -> torch.Tensor:  # fmt: skip
    """Non-maximum suppression in each class: indices (int64) of what is kept, best first.

    Args:
        boxes: (n, 4) as left, top, right, bottom.
        scores: (n,).
        idxs: (n,) the boxes' classes; boxes of two classes do not suppress each other.
        iou_threshold: a box is dropped where its overlap with a better one that is kept is above.
    """
    import torch

    if not len(boxes):
        return torch.empty(0, dtype=torch.int64, device=boxes.device)
    # Moved apart by class, so that those of different classes never meet.
    apart = boxes + (idxs.to(boxes) * (boxes.max() + 1))[:, None]
    area = box_area(apart)
    waiting = scores.sort(stable=True, descending=True).indices
    kept = []
    while len(waiting):
        best, waiting = waiting[0], waiting[1:]
        kept.append(best)
        low = torch.maximum(apart[best, :2], apart[waiting, :2])
        high = torch.minimum(apart[best, 2:], apart[waiting, 2:])
        shared = (high - low).clamp(min=0).prod(1)
        waiting = waiting[~(shared / (area[best] + area[waiting] - shared) > iou_threshold)]
    return torch.stack(kept)


_STAND_IN = SimpleNamespace(resize=resize, to_pil_image=to_pil_image, box_area=box_area, batched_nms=batched_nms)
