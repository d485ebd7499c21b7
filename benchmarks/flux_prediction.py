"""What FLUX.1 Fill takes, found without any device: the real architecture on tensors that have a shape and no memory.

Every storage that comes to be is counted until nothing refers to it. Weights are counted apart. A fused attention
kernel keeps no matrix, so attention is replaced by its result's shape while memory is counted, and not while
operations are.
"""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

GIB = 2**30
MIB = 2**20
SPARE = 1.0  # of the CUDA context, the libraries' workspaces and what the allocator leaves unused: assumed, not counted


@dataclass(frozen=True)
class Architecture:
    """Settings of the parts, as their config.json has them."""

    transformer: dict[str, Any]
    vae: dict[str, Any]
    t5: dict[str, Any]
    clip: dict[str, Any]


_BLOCKS = {"down_block_types": ("DownEncoderBlock2D",) * 4, "up_block_types": ("UpDecoderBlock2D",) * 4}
_LATENTS = {
    "latent_channels": 16, "use_quant_conv": False, "use_post_quant_conv": False, "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
}  # fmt: skip

REAL = Architecture(
    transformer={
        "patch_size": 1, "in_channels": 384, "out_channels": 64, "num_layers": 19, "num_single_layers": 38,
        "num_attention_heads": 24, "attention_head_dim": 128, "joint_attention_dim": 4096,
        "pooled_projection_dim": 768, "guidance_embeds": True, "axes_dims_rope": (16, 56, 56),
    },
    vae={**_BLOCKS, **_LATENTS, "block_out_channels": (128, 256, 512, 512), "layers_per_block": 2, "sample_size": 1024},
    t5={
        "vocab_size": 32128, "d_model": 4096, "d_kv": 64, "d_ff": 10240, "num_layers": 24, "num_heads": 64,
        "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False,
    },
    clip={
        "vocab_size": 49408, "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "projection_dim": 768, "max_position_embeddings": 77, "hidden_act": "quick_gelu",
    },
)  # fmt: skip
"""FLUX.1 Fill [dev]."""


def architecture(pipe: Any) -> Architecture:
    """That of a pipeline which is there."""
    return Architecture(
        *(
            {name: value for name, value in part.config.items() if name[0] != "_"}
            for part in (pipe.transformer, pipe.vae)
        ),
        pipe.text_encoder_2.config.to_dict(),
        pipe.text_encoder.config.to_dict(),
    )


class Live(TorchDispatchMode):
    """Counts the bytes of storages that live, of tensors made under it; `peak` is the most at one time.

    Args:
        owned: tensors that count nothing.
    """

    def __init__(self, owned: Iterable[torch.Tensor] = ()) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._sizes = {storage._cdata: 0 for tensor in owned for storage in storages(tensor)}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage())
        return made

    def _add(self, storage: Any) -> None:
        key = storage._cdata
        if key not in self._sizes:
            self._sizes[key] = storage.nbytes()
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


def storages(tensor: torch.Tensor) -> list[Any]:
    """Storages of a tensor, of its parts where it is made of several."""
    parts = [getattr(tensor, name) for name in getattr(tensor, "tensor_data_names", ())]
    return [one.untyped_storage() for one in parts or [tensor]]


def weights(module: torch.nn.Module, *, blocks: bool | None = None) -> int:
    """Bytes of a module's parameters and buffers; of a transformer with or without its blocks."""
    found = {}
    for name, value in [*module.named_parameters(), *module.named_buffers()]:
        if blocks is None or ("transformer_blocks." in name) == blocks:
            found |= {storage._cdata: storage.nbytes() for storage in storages(value)}
    return sum(found.values())


@contextlib.contextmanager
def made(device: str = "meta", dtype: torch.dtype = torch.bfloat16) -> Iterator[None]:
    """Modules and tensors made inside lie on `device` and are of `dtype`."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.device(device):
            yield
    finally:
        torch.set_default_dtype(before)


def parts(architecture: Architecture) -> tuple[Any, Any]:
    """Transformer and autoencoder, on the default device and of the default dtype."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel

    return FluxTransformer2DModel(**architecture.transformer).eval(), AutoencoderKL(**architecture.vae).eval()


def encoders(architecture: Architecture) -> tuple[Any, Any]:
    """T5's encoder and CLIP's."""
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    return (
        T5EncoderModel(T5Config(**architecture.t5)).eval(),
        CLIPTextModel(CLIPTextConfig(**architecture.clip)).eval(),
    )


def peak(module: torch.nn.Module, call: Callable[[], Any]) -> int:
    """The most bytes at one time that `call` has beside the weights of `module`."""
    owned = [*module.parameters(), *module.buffers()]
    attention = mock.patch.object(
        torch.nn.functional, "scaled_dot_product_attention", lambda query, *_, **__: torch.empty_like(query)
    )
    with attention, torch.no_grad(), Live(owned) as live:
        call()
    return live.peak


def step(transformer: Any, size: tuple[int, int], batch: int = 1, words: int = 512) -> Callable[[], Any]:
    """A denoising step of pictures of `size` (width, height), with inputs of its own, which are counted."""
    settings, tokens = transformer.config, size[0] * size[1] // 256

    def call() -> Any:
        return transformer(
            hidden_states=torch.empty(batch, tokens, settings.in_channels),
            encoder_hidden_states=torch.empty(batch, words, settings.joint_attention_dim),
            pooled_projections=torch.empty(batch, settings.pooled_projection_dim),
            timestep=torch.empty(batch), guidance=torch.empty(batch, dtype=torch.float32),
            img_ids=torch.empty(tokens, 3), txt_ids=torch.empty(words, 3), return_dict=False,
        )  # fmt: skip

    return call


def decode(vae: Any, size: tuple[int, int]) -> Callable[[], Any]:
    """Latents of `size` made a picture."""
    return lambda: vae.decode(torch.empty(1, vae.config.latent_channels, size[1] // 8, size[0] // 8), return_dict=False)


def encode(vae: Any, size: tuple[int, int]) -> Callable[[], Any]:
    """A picture of `size` made latents."""
    return lambda: vae.encode(torch.empty(1, 3, size[1], size[0]), return_dict=False)


def operations(architecture: Architecture = REAL, size: tuple[int, int] = (1024, 1024)) -> dict[str, float]:
    """Floating-point operations of a step, an encoding and a decoding."""
    from torch.utils.flop_counter import FlopCounterMode

    found = {}
    with made(), torch.no_grad():
        transformer, vae = parts(architecture)
        calls = {"step": step(transformer, size), "encode": encode(vae, size), "decode": decode(vae, size)}
        for name, call in calls.items():
            with FlopCounterMode(display=False) as counter:
                call()
            found[name] = float(counter.get_total_flops())
    return found


def predicted(
    architecture: Architecture = REAL, size: tuple[int, int] = (1024, 1024), tile: int = 512
) -> dict[str, float]:
    """Numbers of parameters, bytes of weights, and bytes at the peak beside them, as {name: number}."""
    from diffusers import FirstBlockCacheConfig
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    found: dict[str, float] = {}
    with made():
        transformer, vae = parts(architecture)
        t5, clip = encoders(architecture)
        for name, module in {"transformer": transformer, "vae": vae, "t5": t5, "clip": clip}.items():
            found[f"parameters {name}"] = sum(value.numel() for value in module.parameters())
            found[f"weights {name}"] = weights(module)
        for batch in (1, 2, 4):
            found[f"step x{batch}"] = peak(transformer, step(transformer, size, batch))
        found["step of a quarter"] = peak(transformer, step(transformer, (size[0] // 2, size[1] // 2)))
        transformer.enable_cache(FirstBlockCacheConfig(threshold=0.08))
        with transformer.cache_context("fill"):
            found["step fast"] = peak(transformer, step(transformer, size))
        transformer.disable_cache()
        found["encode"], found["decode"] = peak(vae, encode(vae, size)), peak(vae, decode(vae, size))
        vae.tile_sample_min_size, vae.tile_latent_min_size = tile, tile // 8
        vae.enable_tiling()
        found["decode tiled"] = peak(vae, decode(vae, size))
        ids = torch.zeros(1, 512, dtype=torch.long)
        found["read t5"] = peak(t5, lambda: t5(ids))
        blocks = [weights(one) for one in (*transformer.transformer_blocks, *transformer.single_transformer_blocks)]
        found["weights two blocks"] = max(one + other for one, other in itertools.pairwise(blocks))
        found["weights no block"] = weights(transformer, blocks=False)
        quantize_(transformer, Int8WeightOnlyConfig())
        found["weights transformer, 8 bits"] = weights(transformer)
        found["step, 8 bits"] = peak(transformer, step(transformer, size))
    return found


def need(found: dict[str, float], size: tuple[int, int] = (1024, 1024)) -> dict[str, float]:
    """What a card states in settings.memory, in GiB and for each 2**20 pixels."""
    pixels = size[0] * size[1] / MIB
    vae = found["weights vae"]
    return {
        "full": (found["weights transformer"] + vae) / GIB,
        "quantized": (found["weights transformer, 8 bits"] + vae) / GIB,
        "offload": (found["weights two blocks"] + found["weights no block"] + vae) / GIB,
        "encoders": (found["weights t5"] + found["weights clip"] + found["read t5"]) / GIB,
        "denoise": found["step x1"] / GIB / pixels,
        "decode": max(found["decode"], found["encode"]) / GIB / pixels,
        "tile": found["decode tiled"] / GIB,
        "spare": SPARE,
    }
