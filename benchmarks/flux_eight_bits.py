"""What fewer bits cost FLUX.1 Fill, as far as it shows without a GPU: matrices of its shapes, and a tiny pipeline.

No image of the real network is made: this says how far its products move, not how far its pictures do.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

SHAPES = {
    "attention": (3072, 3072), "feed forward, in": (12288, 3072), "feed forward, out": (3072, 12288),
    "modulation": (18432, 3072), "single block, out": (3072, 15360),
}  # fmt: skip
"""Of the transformer's matrices: (out, in)."""

DEVIATION = 0.02  # of the weights; 8-bit floats without a scale depend on it, the others do not
_ROWS = 64

# The 16 levels of NormalFloat4 (Dettmers et al., QLoRA, 2023, appendix E).
_NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
_BLOCK = 64


def int8(weight: torch.Tensor) -> torch.Tensor:
    """What torchao's Int8WeightOnlyConfig, one scale a row, makes of a matrix."""
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype, device="meta")
    linear.weight = torch.nn.Parameter(weight, requires_grad=False)
    quantize_(linear, Int8WeightOnlyConfig())
    made: torch.Tensor = linear.weight.dequantize()
    return made


def fp8(weight: torch.Tensor) -> torch.Tensor:
    """A cast to float8_e4m3fn without a scale, as diffusers' layerwise casting does it."""
    return weight.to(torch.float8_e4m3fn).to(weight.dtype)


def nf4(weight: torch.Tensor) -> torch.Tensor:
    """The nearest of 16 levels, times the largest of each 64 weights: what bitsandbytes does, computed here."""
    levels = torch.tensor(_NF4)
    blocks = weight.float().reshape(-1, _BLOCK)
    scale = blocks.abs().amax(1, keepdim=True).clamp_min(1e-12)
    nearest = torch.bucketize(blocks / scale, (levels[1:] + levels[:-1]) / 2)
    return (levels[nearest] * scale).reshape(weight.shape).to(weight.dtype)


WAYS: dict[str, tuple[Callable[[torch.Tensor], torch.Tensor], float]] = {
    "int8": (int8, 1.0), "fp8": (fp8, 1.0), "nf4": (nf4, 0.5 + 4 / _BLOCK),
}  # fmt: skip
"""How a matrix is rounded, and bytes a weight."""

ABOUT = {
    "int8": "torchao, a scale a row", "fp8": "e4m3, no scale",
    "nf4": "own computation, blocks of 64" + (
        "" if importlib.util.find_spec("bitsandbytes") else "; bitsandbytes is not installed"
    ),
}  # fmt: skip


def errors(shapes: dict[str, tuple[int, int]] | None = None) -> dict[str, dict[str, float]]:
    """Relative error of a product with Gaussian weights of 16 bits, by matrix and way: |x (w' - w)| / |x w|."""
    found = {}
    for number, (name, shape) in enumerate((shapes or SHAPES).items()):
        generator = torch.Generator().manual_seed(number)
        weight = (torch.randn(shape, generator=generator) * DEVIATION).bfloat16()
        given = torch.randn(_ROWS, shape[1], generator=generator)
        exact = given @ weight.float().T
        found[name] = {
            way: float((given @ rounded(weight).float().T - exact).norm() / exact.norm())
            for way, (rounded, _) in WAYS.items()
        }
    return found


def levels(folder: Path, unit: Any, steps: int) -> dict[str, tuple[int, float]]:
    """Largest and mean difference, in levels of 8-bit pixels, of a tiny pipeline's picture with its linear layers
    rounded; all else is in float32."""
    from toolkit.engines.fill._flux_network import Files, Network

    def image(mode: Any, rounded: Callable[[torch.Tensor], torch.Tensor] | None = None) -> Any:
        network = Network("tiny", Files(folder), "float32", "cpu", mode)
        if rounded is not None:
            for module in network.pipe.transformer.modules():
                if isinstance(module, torch.nn.Linear):
                    module.weight.data = rounded(module.weight.data)
        return network.images([unit], steps, 30.0, lambda step: None)[0].astype(int)

    exact = image("full")
    made = {"int8": image("quantized"), "fp8": image("full", fp8), "nf4": image("full", nf4)}
    differences = {way: np.abs(picture - exact) for way, picture in made.items()}
    return {way: (int(one.max()), float(one.mean())) for way, one in differences.items()}
