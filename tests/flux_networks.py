"""A FluxFillPipeline of the real structure and tiny size, random but the same in every test; nothing is downloaded.

The autoencoder has the real one's four levels and 16 latent channels, so that the packing of the mask is exercised.
The official folder layout is written, so that it is loaded as the real one is.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from toolkit import cards
from toolkit.cards import Card
from toolkit.engines import FillJob

CARD: dict[str, Any] = {
    "task": "fill", "adapter": "flux_fill", "about": "A tiny random FLUX.1 Fill.", "revision": "1",
    "licence": "Apache-2.0", "commercial_use": True, "output_terms": "none", "data_leaves_machine": False,
    "concurrency": "gpu", "in_flight": 4, "batch_seeds": True, "prompt": "required",
    "limits": {"min_side": 64, "max_side": 256, "multiple_of": 16, "best_pixels": 9216, "context": 2.0},
    "parameters": {
        "steps": {"default": 3, "minimum": 1, "maximum": 50, "at_speed": {"turbo": 2}},
        "guidance": {"default": 30, "minimum": 28, "maximum": 35},
        "lora": {"default": [], "minimum": 0, "maximum": 4, "most": 3}, "num_images": {},
        "memory": {"default": "auto"}, "speed": {"default": "exact"},
    },
    "settings": {"dtype": "float32", "single_file": "transformer"},
}  # fmt: skip
NEED = {
    "full": 0.01, "quantized": 0.005, "offload": 0.002, "encoders": 0.001, "denoise": 0.1, "decode": 0.2,
    "tile": 0.05, "spare": 0.01,
}  # fmt: skip


@contextlib.contextmanager
def home(place: Path, weights: Path | None = None) -> Iterator[None]:
    """Configuration and cache of its own, where the card `tiny` has the saved pipeline's files, or those given."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setenv("INPAINT_CONFIG", str(place / "config"))
        monkeypatch.setenv("INPAINT_CACHE", str(place / "cache"))
        monkeypatch.setenv("INPAINT_STATE", str(place / "state"))
        (place / "config").mkdir(parents=True, exist_ok=True)
        given = {"weights": {"tiny": str(weights or saved())}}
        (place / "config" / "settings.yaml").write_text(yaml.safe_dump(given))
        yield


def card(place: Path, **settings: Any) -> Card:
    """The card `tiny` in the configuration of `home`, read as any other."""
    path = place / "config" / "models" / "fill" / "tiny.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({**CARD, "settings": {**CARD["settings"], **settings}}))
    return cards.find("fill", "tiny")


def job(seed: int = 0, prompt: str = "a cat", size: tuple[int, int] = (96, 64), **rest: Any) -> FillJob:
    """A window of noise, the same for a seed, with a hole somewhere in it."""
    draw = np.random.default_rng(seed)
    width, height = size
    pixels = draw.integers(0, 256, (height, width, 3), dtype=np.uint8)
    mask = np.zeros((height, width), np.uint8)
    left, top = (int(draw.integers(0, side // 2)) for side in size)
    mask[top : top + height // 3, left : left + width // 3] = 255
    given = {"steps": 3, "guidance": 30.0, **rest.pop("parameters", {})}
    seeds = rest.pop("seeds", (seed,))
    return FillJob(pixels, mask, np.zeros_like(mask), prompt, seeds, given, ("tiny", "1"), f"job {seed}", **rest)


def direct(pipe: Any, job: FillJob, k: int = 0, **options: Any) -> Any:
    """Image k of a job as a direct call of diffusers gives it, (h, w, 3) uint8."""
    import PIL.Image

    hole = np.where(np.maximum(job.mask, job.blocked) >= 128, 255, 0).astype(np.uint8)
    given: dict[str, Any] = {
        "prompt": job.prompt, "image": PIL.Image.fromarray(job.pixels), "mask_image": PIL.Image.fromarray(hole),
        "height": job.size.height, "width": job.size.width, "num_inference_steps": job.parameters["steps"],
        "guidance_scale": job.parameters["guidance"], "generator": torch.Generator().manual_seed(job.seeds[k]),
    }  # fmt: skip
    return np.asarray(pipe(**given | options).images[0])


def build(seed: int = 0) -> Any:
    """The pipeline, in float32 on the processor."""
    from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, FluxFillPipeline, FluxTransformer2DModel
    from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

    torch.manual_seed(seed)
    clip, t5 = _clip_tokenizer(), _t5_tokenizer()
    transformer = FluxTransformer2DModel(
        patch_size=1, in_channels=384, out_channels=64, num_layers=2, num_single_layers=2, num_attention_heads=4,
        attention_head_dim=32, joint_attention_dim=64, pooled_projection_dim=32, guidance_embeds=True,
        axes_dims_rope=(8, 12, 12),
    )  # fmt: skip
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=8, latent_channels=16,
        use_quant_conv=False, use_post_quant_conv=False, scaling_factor=0.3611, shift_factor=0.1159,
    )  # fmt: skip
    text_encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(clip), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
            projection_dim=32, max_position_embeddings=77, hidden_act="quick_gelu", bos_token_id=clip.bos_token_id,
            eos_token_id=clip.eos_token_id, pad_token_id=clip.pad_token_id,
        )
    )  # fmt: skip
    text_encoder_2 = T5EncoderModel(
        T5Config(
            vocab_size=len(t5), d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4,
            feed_forward_proj="gated-gelu", tie_word_embeddings=False,
        )
    )  # fmt: skip
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
        base_image_seq_len=256, max_image_seq_len=4096,
    )  # fmt: skip
    pipe = FluxFillPipeline(
        scheduler=scheduler, vae=vae, text_encoder=text_encoder, tokenizer=clip, text_encoder_2=text_encoder_2,
        tokenizer_2=t5, transformer=transformer,
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    return pipe


@functools.cache
def saved() -> Path:
    """A folder with the pipeline in the official layout, written once a process; not to be changed."""
    place = Path(tempfile.mkdtemp(prefix="flux-")) / "pipeline"
    build().save_pretrained(place)
    return place


def copy_to(place: Path) -> Path:
    """A copy of the saved folder that may be changed."""
    shutil.copytree(saved(), place, dirs_exist_ok=True)
    return place


def reference() -> Any:
    """The saved pipeline as diffusers itself loads it."""
    from diffusers import FluxFillPipeline

    pipe = FluxFillPipeline.from_pretrained(saved(), local_files_only=True)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _clip_tokenizer() -> Any:
    from transformers import CLIPTokenizer

    letters = [*_byte_characters(), *(letter + "</w>" for letter in _byte_characters())]
    vocabulary = {word: number for number, word in enumerate([*letters, "<|startoftext|>", "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def _t5_tokenizer() -> Any:
    from transformers import T5TokenizerFast

    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *(chr(code) for code in range(33, 127))]
    return T5TokenizerFast(vocab=[(piece, 0.0 if number < 3 else -3.0) for number, piece in enumerate(pieces)],
                           extra_ids=0, model_max_length=512)  # fmt: skip


def _byte_characters() -> list[str]:
    """The 256 characters that stand for bytes in byte-level BPE (GPT-2)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    rest = [code for code in range(256) if code not in plain]
    return [chr(code) for code in plain] + [chr(256 + number) for number in range(len(rest))]
