"""The attention that FLUX computes fastest with on a device: probed once, with a call of the real size."""

from __future__ import annotations

import contextlib
import functools
import json
import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from toolkit import library
from toolkit.engines.pretrained import imported

CANDIDATES = ("native", "_native_cudnn", "_native_flash", "flash", "_flash_3")
"""Exact ones by diffusers' names; those that compute in 8 bits are not among them."""

_SHAPE = (1, 4608, 24, 128)  # 1024x1024 pixels and 512 words, as FLUX.1 has them
_TOLERANCE = 0.02
_ROUNDS = 5
_choosing = threading.Lock()
_DEVICES = 16
"""On how many, or in how many types, one process may probe."""


def best(device: str, dtype: Any) -> str:
    """The name of the fastest attention that works on `device`; remembered for this device and these libraries."""
    import torch

    diffusers = imported("diffusers")

    if not device.startswith("cuda"):
        return "native"
    key = f"{torch.cuda.get_device_name(device)} {dtype} torch {torch.__version__} diffusers {diffusers.__version__}"
    path = library.cache_folder() / "attention.json"
    known = _read(path)
    if known.get(key) not in CANDIDATES or not _installed(known[key]):
        known |= {key: probe(CANDIDATES, device, dtype)}
        with contextlib.suppress(OSError):
            _write(path, known)
    return str(known[key])


def use(transformer: Any, name: str) -> None:
    """Have a transformer, and nothing else, compute attention by `name`: diffusers would have all networks of the
    process do so that name none, on whatever device they are."""
    registry = imported("diffusers.models.attention_dispatch")._AttentionBackendRegistry
    with _choosing:
        before, _ = registry.get_active_backend()
        try:
            transformer.set_attention_backend(name)
        finally:
            registry.set_active_backend(before)


def probe(candidates: Sequence[str], device: str, dtype: Any, shape: Sequence[int] = _SHAPE) -> str:
    """The fastest of `candidates` that gives what the first, which must work, gives.

    Some can be chosen and fail when they are called, so each is called; some cannot be part of what is compiled, so
    each is traced.
    """
    import torch

    generator = torch.Generator().manual_seed(0)
    given = [torch.randn(shape, generator=generator).to(device, dtype) for _ in range(3)]
    wanted = _attend(candidates[0], given)
    scale = wanted.float().abs().max().item()
    fastest, least = candidates[0], math.inf
    for name in candidates:
        try:
            if not _installed(name):
                continue
            with torch._dynamo.config.patch(recompile_limit=_DEVICES * len(candidates)):
                got = torch.compile(_kernel(name), fullgraph=True, backend="eager")(*given)
            if not (got.float() - wanted.float()).abs().max().item() <= _TOLERANCE * scale:
                continue
            seconds = min(_seconds(name, given) for _ in range(_ROUNDS))
        except Exception:  # each library has its own for what is not installed or not for this device
            continue
        if seconds < least:
            fastest, least = name, seconds
    return fastest


def _installed(name: str) -> bool:
    """Whether what `name` needs is there still."""
    attention = imported("diffusers.models.attention_dispatch")
    try:
        attention._check_attention_backend_requirements(attention.AttentionBackendName(name))
    except RuntimeError:
        return False
    return True


def _kernel(name: str) -> Callable[..., Any]:
    attention = imported("diffusers.models.attention_dispatch")
    return functools.partial(attention.dispatch_attention_fn, backend=attention.AttentionBackendName(name))


def _attend(name: str, given: Sequence[Any]) -> Any:
    return _kernel(name)(*given)


def _seconds(name: str, given: Sequence[Any]) -> float:
    _settle(given[0])
    start = time.perf_counter()
    _attend(name, given)
    _settle(given[0])
    return time.perf_counter() - start


def _settle(tensor: Any) -> None:
    """Wait for all that was asked of the device: reading one number does."""
    tensor.flatten()[0].item()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(path: Path, known: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(known, indent=2), encoding="utf-8")
    os.replace(temporary, path)
