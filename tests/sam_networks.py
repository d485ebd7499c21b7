"""A tiny SAM with random weights, saved as the official checkpoints are, its card, and the reference built of it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from toolkit import weights
from toolkit.cards import Card, Weights
from toolkit.engines.segment._torchvision import segment_anything

SIDE = 128
SETTINGS: dict[str, Any] = {
    "image_size": SIDE, "embed_dim": 32, "depth": 2, "heads": 2, "global_attention": [1], "window": 3,
    "prompt_dim": 32, "decoder_depth": 2, "decoder_heads": 2, "decoder_mlp": 64, "precision": "float32",
}  # fmt: skip


def reference(seed: int = 0) -> Any:
    """A `Sam` of the package itself; windows that do not divide its 8x8 tokens, so that they are padded."""
    from_package = segment_anything().modeling
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        sam = from_package.Sam(
            image_encoder=from_package.ImageEncoderViT(
                depth=2, embed_dim=32, img_size=SIDE, mlp_ratio=4, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                num_heads=2, patch_size=16, qkv_bias=True, use_rel_pos=True, global_attn_indexes=[1], window_size=3,
                out_chans=32,
            ),
            prompt_encoder=from_package.PromptEncoder(
                embed_dim=32, image_embedding_size=(8, 8), input_image_size=(SIDE, SIDE), mask_in_chans=16
            ),
            mask_decoder=from_package.MaskDecoder(
                num_multimask_outputs=3, transformer_dim=32, iou_head_depth=3, iou_head_hidden_dim=256,
                transformer=from_package.TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=2),
            ),
        )  # fmt: skip
        for name, values in sam.named_parameters():
            if "rel_pos" in name or "pos_embed" in name or name.endswith("qkv.bias"):  # zeros as they are made
                torch.nn.init.normal_(values, std=0.5)
            if name.startswith("mask_decoder.output_hypernetworks_mlps") and "layers.2" in name:
                values.data *= 200  # logits of some size
            if name == "mask_decoder.iou_prediction_head.layers.2.weight":
                values.data *= 4
    return sam.eval()


def card(name: str = "tiny-sam", **settings: Any) -> Card:
    """Its card; settings may be changed."""
    return Card(
        name=name, task="segment", adapter="sam", about="A tiny one.", revision="1", licence="MIT",
        commercial_use=True, output_terms="none", data_leaves_machine=False, concurrency="gpu",
        takes=("box", "point", "everything"), settings={**SETTINGS, **settings},
        weights=(Weights(file="tiny.pth", url="https://example.org/tiny.pth"),),
    )  # fmt: skip


def saved(sam: Any, of: Card, **options: Any) -> Path:
    """The checkpoint's file, where the card's weights lie."""
    path = weights.path(of)
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(sam.state_dict(), path, **options)
    return path


def photo(width: int, height: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Something to look at (height, width, 3): soft shapes and noise."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)
    waves = [np.sin(random.uniform(5, 25) * x + random.uniform(5, 25) * y + random.uniform(0, 6)) for _ in range(3)]
    values = np.stack(waves, axis=-1) * 90 + 128 + random.normal(0, 8, (height, width, 3))
    return np.clip(values, 0, 255).astype(np.uint8)
