"""SAM 3 against transformers' own processors and models, on the same random networks in the official file layout."""

from __future__ import annotations

import importlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torchvision_stand_in import image_processor

from tests.scenes import blocks
from toolkit import cards, engines, weights
from toolkit.cards import Card, Weights
from toolkit.edit import Edit
from toolkit.engines import Prompts
from toolkit.errors import ParameterError
from toolkit.geometry import Box
from toolkit.run import Run
from toolkit.schema import Point

SIDE = 112
SMALL = {"hidden_size": 32, "num_attention_heads": 2}
LAYERS = {**SMALL, "num_layers": 1, "intermediate_size": 32}
VISION = {
    "model_type": "sam3_vision_model",
    "backbone_config": {
        "model_type": "sam3_vit_model", **SMALL, "intermediate_size": 32, "num_hidden_layers": 2, "image_size": SIDE,
        "pretrain_image_size": SIDE, "patch_size": 14, "window_size": 4, "global_attn_indexes": [1],
    },
    "fpn_hidden_size": 32, "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
}  # fmt: skip
DETECTOR = {
    "model_type": "sam3", "vision_config": VISION,
    "text_config": {
        "model_type": "clip_text_model", "vocab_size": 600, **SMALL, "intermediate_size": 32, "projection_dim": 32,
        "num_hidden_layers": 1, "max_position_embeddings": 32, "bos_token_id": 0, "eos_token_id": 1,
    },
    "geometry_encoder_config": LAYERS, "detr_encoder_config": LAYERS,
    "detr_decoder_config": {**LAYERS, "num_layers": 2, "num_queries": 12}, "mask_decoder_config": SMALL,
}  # fmt: skip
TRACKER = {
    "model_type": "sam3_tracker_video", "vision_config": VISION,
    "prompt_encoder_config": {"hidden_size": 32, "image_size": SIDE, "patch_size": 14},
    "mask_decoder_config": {**SMALL, "mlp_dim": 32, "iou_head_hidden_dim": 32},
    "image_size": SIDE, "memory_attention_hidden_size": 32, "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": 32, "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 16, "mask_downsampler_embed_dim": 32, "memory_fuser_embed_dim": 32,
    "memory_fuser_intermediate_dim": 32, "memory_fuser_num_layers": 1, "memory_attention_rope_feat_sizes": [8, 8],
}  # fmt: skip


def tokenizer() -> Any:
    """CLIP's, with the letters alone."""
    from transformers import CLIPTokenizer

    signs = [chr(n) for n in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *signs, *(f"{sign}</w>" for sign in signs)]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[])


@pytest.fixture(scope="module")
def processor() -> Iterator[Any]:
    with image_processor("sam3", "Sam3ImageProcessor") as kind:
        yield kind(size={"height": SIDE, "width": SIDE})


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory, processor: Any) -> Path:
    """A folder as the official repository has it: the video network, of which both networks are parts."""
    import transformers
    from safetensors.torch import load_file, save_file

    folder = tmp_path_factory.mktemp("sam3")
    torch.manual_seed(0)
    whole = transformers.Sam3VideoModel(
        transformers.Sam3VideoConfig(detector_config=DETECTOR, tracker_config=TRACKER)
    )  # fmt: skip
    with torch.no_grad():
        for values in whole.parameters():
            values.add_(torch.randn(values.shape) * 0.05)  # as initialised, masks hardly depend on anything
    whole.save_pretrained(folder)
    path = folder / "model.safetensors"
    # This transformers writes the tracker's prefix twice, and reads it once.
    named = {name.replace("tracker_model.tracker_model.", "tracker_model."): v for name, v in load_file(path).items()}
    save_file(named, path, metadata={"format": "pt"})
    tokenizer().save_pretrained(folder)
    assert json.loads((folder / "config.json").read_text())["model_type"] == "sam3_video"
    return folder


@pytest.fixture
def card(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path / "cache"))
    shipped = cards.find("segment", "sam3")
    files = tuple(Weights(file=one.file, url=one.url) for one in shipped.weights)
    one = shipped.model_copy(update={"name": "sam3-smallest", "weights": files})
    one = one.model_copy(update={"settings": {**shipped.settings, "floor": 0.0}})
    weights.folder(one).mkdir(parents=True)
    for file in one.weights:
        shutil.copy(official / file.file, weights.folder(one))
    return one


@pytest.fixture
def run() -> Iterator[Run]:
    with Run(workers=1, device="cpu") as run:
        yield run


@pytest.mark.parametrize("size", [(150, 100), (61, 97)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_phrases_give_the_masks_and_scores_of_transformers(
    official: Path, processor: Any, card: Card, run: Run, size: tuple[int, int]
) -> None:
    import transformers

    pixels, phrases = blocks(*size), ("red car", "Dog")
    whole = importlib.import_module("transformers.models.sam3.processing_sam3").Sam3Processor(processor, tokenizer())
    model = transformers.Sam3Model.from_pretrained(official).eval()
    wanted = []
    for phrase in phrases:
        inputs = whole(images=pixels, text=phrase, return_tensors="pt")
        sizes = inputs.pop("original_sizes").tolist()
        with torch.inference_mode():
            outputs = model(**inputs)
        (one,) = whole.post_process_instance_segmentation(outputs, threshold=0.0, target_sizes=sizes)
        wanted += [
            (float(score), phrase, mask.numpy() > 0)
            for score, mask in zip(one["scores"], one["masks"], strict=True)
            if mask.any()
        ]
    wanted.sort(key=lambda one: -one[0])
    engine, picture = engines.open_engine(card), Edit.of(pixels)
    found = engine.segment(picture, engine.prepare(picture, run), Prompts(text=phrases), None, run).regions
    assert len({mask.tobytes() for _, _, mask in wanted if not mask.all()}) > 3, "the network tells candidates apart"
    assert [region.score for region in found] == pytest.approx([score for score, _, _ in wanted], abs=1e-5)
    assert [region.label for region in found] == [phrase for _, phrase, _ in wanted]
    for region, (_, _, mask) in zip(found, wanted, strict=True):
        assert region.mask is not None
        assert np.array_equal(region.mask.array() > 0, mask)


def test_boxes_and_clicks_are_those_of_the_tracker_and_phrases_come_last(
    official: Path, processor: Any, card: Card, run: Run
) -> None:
    import transformers

    pixels = blocks(150, 100)
    place = "transformers.models.sam3_tracker.processing_sam3_tracker"
    whole = importlib.import_module(place).Sam3TrackerProcessor(processor)
    model = transformers.Sam3TrackerModel.from_pretrained(official).eval()

    def reference(multimask: bool, **prompts: Any) -> tuple[Any, Any]:
        inputs = whole(images=pixels, return_tensors="pt", **prompts)
        sizes = inputs.pop("original_sizes")
        with torch.inference_mode():
            outputs = model(**inputs, multimask_output=multimask)
        masks, scores = whole.post_process_masks(outputs.pred_masks, sizes)[0], outputs.iou_scores[0]
        best = int(scores[0].argmax())
        return masks[0, best].numpy(), float(scores[0, best])

    engine, picture = engines.open_engine(card), Edit.of(pixels)
    prompts = Prompts(boxes=(Box(10, 10, 90, 70),), include=(Point(120, 80),), text=("dog",))
    first, second, *named = engine.segment(picture, engine.prepare(picture, run), prompts, None, run).regions
    assert named
    assert all(region.label == "dog" for region in named)
    boxed, score = reference(False, input_boxes=[[[10, 10, 90, 70]]])
    assert boxed.any()
    assert np.array_equal(first.mask.array() > 0, boxed)
    assert first.score == pytest.approx(score, abs=1e-5)
    clicked, _ = reference(True, input_points=[[[[120, 80]]]], input_labels=[[[1]]])
    clicked[80, 120] = True
    assert np.array_equal(second.mask.array() > 0, clicked)


def test_clicks_beside_go_with_words_alone(card: Card, run: Run) -> None:
    engine, picture = engines.open_engine(card), Edit.of(blocks(60, 40))
    key = engine.prepare(picture, run)
    alone = engine.segment(picture, key, Prompts(text=("dog",)), None, run).regions
    beside = engine.segment(picture, key, Prompts(exclude=(Point(5, 5),), text=("dog",)), None, run).regions
    assert alone
    assert [region.box for region in beside] == [region.box for region in alone]


@pytest.mark.parametrize(
    ("phrase", "sentence"),
    [(" ", r"^phrase ' ': has no word"), ("word" * 20, r"has 82 tokens, sam3-smallest reads 32$")],
)
def test_phrases_it_cannot_read_are_refused(card: Card, run: Run, phrase: str, sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        engines.open_engine(card).segment(Edit.of(blocks(40, 30)), "key", Prompts(text=(phrase,)), None, run)
