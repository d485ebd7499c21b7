"""Where networks run: a CUDA card, Apple's GPU or the processor; and whether they fit there."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

from toolkit.cards import Card
from toolkit.errors import EngineError, ParameterError

FORM = re.compile(r"auto|cpu|mps|cuda(:\d+)?")


def checked(name: str) -> str:
    """The name of a device as it was written.

    Raises:
        ParameterError: when it is none.
    """
    if not FORM.fullmatch(name):
        raise ParameterError(f"device {name!r}: expected auto, cpu, cuda, cuda:0 or mps")
    return name


def chosen(name: str) -> str:
    """The device torch is to use: `auto` takes the first of cuda, mps and cpu that works. Imports torch.

    Raises:
        ParameterError: when `name` is no device.
        EngineError: when it is not to be had here, or torch cannot be loaded.
    """
    checked(name)
    try:
        import torch
    except (ImportError, OSError) as problem:
        raise EngineError(
            f"torch cannot be loaded ({problem}); install it anew: pip install --force-reinstall torch"
        ) from problem
    if name == "cpu":
        return name
    if name == "auto":
        if torch.cuda.is_available():
            return "cuda"
        return "mps" if torch.backends.mps.is_available() else "cpu"
    if name == "mps":
        if not torch.backends.mps.is_available():
            raise EngineError("device mps: torch finds no Apple GPU here; use --device auto or cpu")
        return name
    number = int(name.partition(":")[2] or 0)
    if not torch.cuda.is_available():
        why = "this torch is a CPU build" if torch.version.cuda is None else "torch finds no working CUDA card"
        raise EngineError(f"device {name}: {why}; use --device auto or cpu")
    if number >= torch.cuda.device_count():
        raise EngineError(f"device {name}: there are {torch.cuda.device_count()} CUDA cards, counted from 0")
    return name


def free_memory(device: str) -> int | None:
    """Bytes that are free on a device, or kept there by torch for its next tensors; None where nobody says."""
    if device.startswith("cuda"):
        import torch

        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    if device == "cpu":
        try:
            text = Path("/proc/meminfo").read_text(encoding="ascii")
        except OSError:
            return None
        found = re.search(r"^MemAvailable:\s+(\d+) kB", text, re.M)
        return int(found[1]) * 1024 if found else None
    return None


def described(device: str) -> str:
    """A device with the name its maker gave it. Imports torch."""
    if not device.startswith("cuda"):
        return device
    import torch

    return f"{device} ({torch.cuda.get_device_name(device)})"


def check_memory(card: Card, device: str) -> None:
    """Find out whether the card's network fits.

    Raises:
        EngineError: when less is free than it takes at its peak.
    """
    free = free_memory(device)
    if card.memory is not None and free is not None and free < card.memory * 2**30:
        raise EngineError(
            f"{card.name}: takes {card.memory:g} GiB on {device}, {free / 2**30:.1f} GiB are free; close other "
            "programs, choose another --device, or a smaller model (`inpaint models`)"
        )


def installed(extra: str, *packages: str) -> str:
    """Which of the packages are not installed and how to get them, in one clause; empty when all are. Imports none."""
    absent = [package for package in packages if importlib.util.find_spec(package) is None]
    if not absent:
        return ""
    verb = "is" if len(absent) == 1 else "are"
    named = f"{', '.join(absent[:-1])} and {absent[-1]}" if absent[1:] else absent[0]
    said = f'{named} {verb} not installed: pip install "inpaint-toolkit[{extra}]"'
    if "torch" in absent:
        said += f'; without CUDA, far smaller: uv pip install --torch-backend=cpu "inpaint-toolkit[{extra}]"'
    return said
