"""FLUX's pipeline without its text encoders: loaded in one way, on one device, and run for a batch of images."""

from __future__ import annotations

import contextlib
import importlib.util
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL.Image

from toolkit.engines.fill import _flux_attention
from toolkit.engines.fill._flux_memory import Mode
from toolkit.engines.pretrained import check_whole, imported, quiet, worded
from toolkit.errors import EngineError

Bytes = npt.NDArray[np.uint8]

_TILE = 512
"""Side, in pixels, of the autoencoder's tiles where it works in tiles."""

_VARIANTS = 64
"""How often a block may be compiled until all of them begin anew: once for each number of LoRAs, set of layers they
change, ranks they have there, and for one image or several. At torch's own limit, 8, one LoRA of many ranks would not
run."""

_SCALE = re.compile(r"scaled_fp8|\.(scale_weight|weight_scale|scale_input|input_scale|comfy_quant)$")
"""Names of what belongs to weights in 8 bits, as ComfyUI's files have them."""

_ORDER_HOOK = "lazy_prefetch_group_offloading"  # diffusers.hooks.group_offloading


@dataclass(frozen=True)
class Files:
    """Where the parts of a pipeline lie.

    Attributes:
        folder: in diffusers' layout.
        single: a file that is the transformer in place of the folder's, in diffusers' or its makers' own layout.
    """

    folder: Path
    single: Path | None = None

    def bytes(self, *parts: str) -> int:
        """Length of the weights of some parts (subfolders)."""
        if self.single is not None and "transformer" in parts:
            return self.single.stat().st_size + self.bytes(*(part for part in parts if part != "transformer"))
        return sum(file.stat().st_size for part in parts for file in (self.folder / part).glob("*.safetensors"))


@dataclass(frozen=True, eq=False)
class Unit:
    """One image to be made.

    Attributes:
        pixels: (h, w, 3) uint8 sRGB.
        hole: (h, w) uint8, 255 = to be filled, 0 = known.
        embeds: what the T5 encoder makes of the prompt, (1, words, channels).
        pooled: what CLIP's makes of it, (1, channels).
        seed: of its noise, which is drawn on the processor: the same in any batch and on any device.
    """

    pixels: Bytes
    hole: Bytes
    embeds: Any
    pooled: Any
    seed: int


class Network:
    """A pipeline that is held in `mode` on `device`; for one thread at a time.

    Args:
        name: of the card, for sentences.

    Raises:
        EngineError: when its files cannot be read or are not this network's.
        torch.OutOfMemoryError: when it does not fit.
    """

    def __init__(self, name: str, files: Files, dtype: str, device: str, mode: Mode) -> None:
        import torch

        diffusers = imported("diffusers", "FluxFillPipeline")

        self.name, self.device, self.mode = name, device, mode
        kind = getattr(torch, dtype)
        with quiet():
            transformer = _transformer(name, files, kind, device, mode)
            self.attention = _flux_attention.best(device, kind)
            _flux_attention.use(transformer, self.attention)
            vae = whole(name, files.folder / "vae", diffusers.AutoencoderKL, use_safetensors=True, dtype=kind)
            with worded(name, files.folder):
                scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(
                    files.folder, subfolder="scheduler", local_files_only=True
                )
        transformer.requires_grad_(False).eval()
        vae.requires_grad_(False).eval().to(device)
        vae.enable_slicing()  # one image after the other: it takes more memory than a step does
        blocks = [*transformer.transformer_blocks, *transformer.single_transformer_blocks]
        # Blocks of one kind share what is compiled. Compiled themselves, not called as compiled modules: so the cache
        # and offloading put their hooks around it. Any size by one compilation, lest a size decide on the bits.
        self.compiled = mode != "offload" and _can_compile(device)
        if self.compiled:
            for block in blocks:
                block.forward = torch.compile(block.forward, fullgraph=True, dynamic=True)
        if mode == "offload":
            transformer.enable_group_offload(
                onload_device=torch.device(device), offload_device=torch.device("cpu"), offload_type="block_level",
                num_blocks_per_group=1, use_stream=device.startswith("cuda"), low_cpu_mem_usage=True,
            )  # fmt: skip
        self.pipe = diffusers.FluxFillPipeline(
            scheduler=scheduler, vae=vae, text_encoder=None, tokenizer=None, text_encoder_2=None, tokenizer_2=None,
            transformer=transformer,
        )  # fmt: skip
        self.pipe.set_progress_bar_config(disable=True)

    def images(
        self, units: Sequence[Unit], steps: int, guidance: float, done: Callable[[int], None], *,
        threshold: float = 0.0, tiled: bool = False,
    ) -> list[Bytes]:  # fmt: skip
        """One image a unit, (h, w, 3) uint8; all units are of one size.

        What `done` raises ends it between two steps and leaves nothing behind.

        Args:
            done: called with the number of steps done, after each.
            threshold: of the first-block cache; steps that change less than this share are not computed. 0 for none.
            tiled: the autoencoder works in tiles.

        Raises:
            EngineError: when it computes no numbers.
            torch.OutOfMemoryError: when it does not fit.
        """
        import torch

        height, width = units[0].hole.shape
        self._set_tiled(tiled)

        def after(pipe: Any, step: int, time: Any, values: dict[str, Any]) -> dict[str, Any]:
            done(step + 1)
            return {}

        def call() -> Any:
            with torch._dynamo.config.patch(recompile_limit=_VARIANTS), self._skipping(threshold):
                # Lists, one generator an image: with several images of one prompt diffusers would mix the noise.
                return self.pipe(
                    image=[PIL.Image.fromarray(unit.pixels) for unit in units],
                    mask_image=[PIL.Image.fromarray(unit.hole) for unit in units],
                    prompt_embeds=torch.cat([unit.embeds for unit in units]).to(self.device),
                    pooled_prompt_embeds=torch.cat([unit.pooled for unit in units]).to(self.device),
                    generator=[torch.Generator().manual_seed(unit.seed) for unit in units],
                    height=height, width=width, num_inference_steps=steps, guidance_scale=guidance,
                    max_sequence_length=units[0].embeds.shape[1], output_type="np",
                    callback_on_step_end=after, callback_on_step_end_tensor_inputs=[],
                ).images  # fmt: skip

        try:
            try:
                made = call()
            except torch._dynamo.exc.FailOnRecompileLimitHit:  # most were for LoRAs that are not in use any more
                torch.compiler.reset()
                made = call()
        finally:
            self.pipe.maybe_free_model_hooks()
        if not np.isfinite(made).all():
            raise EngineError(f"{self.name}: its network gave no numbers on {self.device}; the picture would be black")
        return list((made * 255).round().astype(np.uint8))

    @contextlib.contextmanager
    def _skipping(self, threshold: float) -> Iterator[None]:
        """The first-block cache, only while images are made: what LoRAs and offloading change below its hooks would
        leave it without effect, or with the weights of before."""
        transformer = self.pipe.transformer
        if not threshold:
            yield
            return
        self._find_order()
        transformer.enable_cache(imported("diffusers").FirstBlockCacheConfig(threshold=threshold))
        try:
            with transformer.cache_context("fill"):
                yield
        finally:
            transformer._reset_stateful_cache()
            transformer.disable_cache()

    def _find_order(self) -> None:
        """Have offloading see which block follows which, where it has not yet: after its first pass it takes hooks off,
        and with them the cache's, were they there."""
        import torch

        hooks = imported("diffusers.hooks")
        registry = hooks.HookRegistry.check_if_exists_or_initialize(self.pipe.transformer)
        if registry.get_hook(_ORDER_HOOK) is None:
            return
        settings = self.pipe.transformer.config
        options = {"device": self.device, "dtype": self.pipe.transformer.dtype}
        with torch.no_grad():  # of the least size
            self.pipe.transformer(
                hidden_states=torch.zeros(1, 1, settings.in_channels, **options),
                encoder_hidden_states=torch.zeros(1, 1, settings.joint_attention_dim, **options),
                pooled_projections=torch.zeros(1, settings.pooled_projection_dim, **options),
                timestep=torch.zeros(1, **options), guidance=torch.zeros(1, device=self.device),
                img_ids=torch.zeros(1, 3, **options), txt_ids=torch.zeros(1, 3, **options), return_dict=False,
            )  # fmt: skip

    def _set_tiled(self, tiled: bool) -> None:
        vae = self.pipe.vae
        vae.tile_sample_min_size = _TILE
        vae.tile_latent_min_size = _TILE // self.pipe.vae_scale_factor
        (vae.enable_tiling if tiled else vae.disable_tiling)()


def _transformer(name: str, files: Files, dtype: Any, device: str, mode: Mode) -> Any:
    import torch

    diffusers = imported("diffusers")
    place = "cpu" if mode == "offload" else device
    kind = diffusers.FluxTransformer2DModel
    if files.single is None:
        where = files.folder / "transformer"
        options: dict[str, Any] = {"dtype": dtype}
        if mode == "quantized":
            options["quantization_config"] = diffusers.TorchAoConfig(_eight_bits())
        if place != "cpu":  # straight there; with the processor named, torchao would leave all as it is
            options["device_map"] = {"": place}
        network = whole(name, where, kind, use_safetensors=True, **options)
    else:
        _check_unscaled(name, files.single)
        with worded(name, files.single):
            network = kind.from_single_file(
                str(files.single), config=str(files.folder), subfolder="transformer", local_files_only=True, dtype=dtype
            )
        absent = [key for key, value in network.named_parameters() if value.is_meta]
        check_whole(name, kind.__name__, files.single, absent)
        with worded(name, files.single):
            if mode == "quantized":  # not by diffusers: it takes a single file for one that is quantised already
                imported("torchao.quantization").quantize_(network, _eight_bits(), device=place)
            network = network.to(torch.device(place))
    if mode == "quantized":
        weight = network.transformer_blocks[0].attn.to_q.weight
        assert isinstance(weight, imported("torchao.quantization").Int8Tensor), type(weight)
    return network


def _check_unscaled(name: str, file: Path) -> None:
    """See to it that weights are what the numbers say: diffusers would leave their scales away, and paint noise.

    Raises:
        EngineError: when there are scales, or it cannot be read.
    """
    with worded(name, file), imported("safetensors").safe_open(file, framework="pt") as opened:
        if scale := next(filter(_SCALE.search, opened.keys()), ""):
            raise EngineError(
                f"{name}: {file} holds {scale}: its weights are in 8 bits with scales, which are not read here; take a "
                "file of 16 bits (--memory quantized makes 8 bits of it)"
            )


def _eight_bits() -> Any:
    return imported("torchao.quantization").Int8WeightOnlyConfig()


def whole(name: str, where: Path, kind: Any, **options: Any) -> Any:
    """The network of the class `kind` in a folder, all of whose parameters are there.

    Raises:
        EngineError: when it cannot be read, or is of another class.
    """
    with worded(name, where):
        network, report = kind.from_pretrained(where, local_files_only=True, output_loading_info=True, **options)
    check_whole(name, kind.__name__, where, sorted(str(key) for key in report["missing_keys"]))
    return network


def _can_compile(device: str) -> bool:
    """Whether compiling is worth its wait, and works: the processor would compile longer than most pictures take, and a
    GPU needs Triton and a C compiler. Tried with a line of arithmetic."""
    if not device.startswith("cuda") or importlib.util.find_spec("triton") is None:
        return False
    import torch

    try:
        torch.compile(lambda x: 2 * x + 1, fullgraph=True)(torch.ones(16, device=device))
    except torch.OutOfMemoryError:
        raise
    except Exception:  # what is not there is told in many ways
        return False
    return True
