"""LoRAs of a tiny FLUX Fill pipeline: diffusers' own numbers with them, the original ones without."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import logging
import os
import pickle
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import flux_networks
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from toolkit.engines.fill._flux_lora import Loras
from toolkit.engines.fill._flux_lora_file import read
from toolkit.errors import EngineError, InputError

Q, K, V = (f"transformer_blocks.0.attn.to_{letter}" for letter in "qkv")
LAST, SINGLE = "proj_out", "single_transformer_blocks.0.proj_out"
NAME = "flux-fill-dev"
SIZES = {LAST: (128, 64), SINGLE: (640, 128), "x_embedder": (384, 128), "context_embedder": (64, 128),
         "norm_out.linear": (128, 256)}  # fmt: skip
"""Inputs and outputs of layers that have not 128 of both."""


pytestmark = pytest.mark.usefixtures("one_thread")


@functools.cache
def shared() -> tuple[Any, Loras]:
    """A pipeline without text encoders and its LoRAs, for all tests: each leaves it as it was."""
    return opened()


def opened(**options: Any) -> tuple[Any, Loras]:
    from diffusers import FluxFillPipeline

    parts = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    with quietly():
        pipe = FluxFillPipeline.from_pretrained(flux_networks.saved(), local_files_only=True, **parts, **options)
    pipe.set_progress_bar_config(disable=True)
    return pipe, Loras(pipe, NAME)


@functools.cache
def direct() -> Any:
    """The pipeline that diffusers itself puts LoRAs into."""
    with quietly():
        return flux_networks.reference()


class quietly(warnings.catch_warnings):
    """What diffusers, peft and torchao warn of by themselves is not what is tested."""

    def __enter__(self) -> None:  # type: ignore[override]
        super().__enter__()
        warnings.simplefilter("ignore")


@pytest.fixture
def loras() -> Iterator[Loras]:
    _, one = shared()
    yield one
    one.use([])
    assert torch.equal(predicted(), original())


@torch.no_grad()
def predicted(pipe: Any = None) -> Tensor:
    """What the transformer makes of fixed inputs, (1, 4, 64)."""
    transformer = (pipe or shared()[0]).transformer
    random = torch.Generator().manual_seed(3)

    def given(*shape: int) -> Tensor:
        return torch.randn(shape, generator=random).to(transformer.dtype)

    ids = torch.zeros(4, 3)
    ids[:, 1], ids[:, 2] = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 0, 1])
    return transformer(
        hidden_states=given(1, 4, 384), encoder_hidden_states=given(1, 6, 64), pooled_projections=given(1, 32),
        timestep=torch.tensor([0.5]), guidance=torch.tensor([30.0]), img_ids=ids, txt_ids=torch.zeros(6, 3),
        return_dict=False,
    )[0].clone()  # fmt: skip


@functools.cache
def original() -> Tensor:
    return predicted(direct())


def tensors(
    *modules: str,
    rank: int = 4,
    seed: int = 1,
    before: str = "transformer.",
    sides: str = "lora_A lora_B",
    **shape: int,
) -> dict[str, Tensor]:
    """A LoRA for these modules; `inputs` and `outputs` in place of the network's own."""
    random = torch.Generator().manual_seed(seed)
    made = {}
    for module in modules:
        wide, high = SIZES.get(module, (128, 128))
        down, up = sides.split()
        down_shape = rank, shape.get("inputs", wide)
        made[f"{before}{module}.{down}.weight"] = torch.randn(down_shape, generator=random) * 0.3
        made[f"{before}{module}.{up}.weight"] = torch.randn((shape.get("outputs", high), rank), generator=random) * 0.3
    return made


Make = Callable[..., Path]


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """Writes a LoRA: given tensors, or those for the modules named."""
    folder, numbers = tmp_path_factory.mktemp("loras"), itertools.count()

    def write(*given: Any, metadata: Mapping[str, str] | None = None, **options: Any) -> Path:
        path = folder / f"style{next(numbers)}.safetensors"
        (content,) = given if given and isinstance(given[0], dict) else (tensors(*given, **options),)
        save_file({key: value.contiguous() for key, value in content.items()}, path, metadata=dict(metadata or {}))
        return path

    return write


@pytest.fixture(scope="module")
def three(make: Make) -> tuple[Path, Path, Path]:
    """LoRAs for parts of the network, some the same; one of two ranks, and one as FLUX.1 [dev] has them."""
    return (
        make(Q, K, SINGLE, seed=1),
        make({**tensors(Q, LAST, seed=2, rank=8), **tensors("norm_out.linear", V, seed=4, rank=2)}),
        make({**tensors("x_embedder", inputs=64, seed=3), **tensors(Q, seed=5)}),
    )


def by_diffusers(files: Sequence[tuple[Path, float]], pipe: Any = None) -> Tensor:
    """What diffusers itself makes with these LoRAs."""
    pipe = pipe or direct()
    with quietly():
        for k, (path, _) in enumerate(files):
            pipe.load_lora_weights(path.parent, weight_name=path.name, adapter_name=f"direct{k}")
        pipe.set_adapters([f"direct{k}" for k in range(len(files))], [scale for _, scale in files])
        answer = predicted(pipe)
        pipe.unload_lora_weights()
    return answer


def refused(loras: Loras, path: Path, *more: Path, kind: type[Exception] = InputError) -> str:
    """The sentence a file ends in; the network is the original one then."""
    with pytest.raises(kind) as caught:
        loras.use([*((one, 1.0) for one in more), (path, 1.0)])
    said = str(caught.value)
    assert "\n" not in said
    assert torch.equal(predicted(), original())
    assert not hasattr(shared()[0].transformer, "peft_config")
    if kind is InputError:
        assert said.startswith(f"lora {path}: ")
    return said.removeprefix(f"lora {path}: ")


# --- the same as diffusers


@pytest.mark.parametrize(
    "scales", [(1.0, 1.0, 1.0), (0.8, 2.5, 4.0), (0.3, 0.0, 1.0), (0.0, 0.0, 1.0), (1.0, 0.0, 0.0)]
)
def test_three_loras_count_as_diffusers_has_them(loras: Loras, three: Sequence[Path], scales: Sequence[float]) -> None:
    wanted = list(zip(three, scales, strict=True))
    assert loras.use(wanted) == ()
    expected = by_diffusers([(path, scale) for path, scale in wanted if scale])
    assert torch.equal(predicted(), expected)
    assert not torch.equal(expected, original())


@pytest.mark.parametrize("number", range(3))
def test_each_alone_counts_as_diffusers_has_it(loras: Loras, three: Sequence[Path], number: int) -> None:
    loras.use([(three[number], 0.7)])
    assert torch.equal(predicted(), by_diffusers([(three[number], 0.7)]))


def test_the_order_is_kept(loras: Loras, three: Sequence[Path]) -> None:
    for order in (three[::-1], (three[1], three[0], three[2])):
        wanted = [(path, 1.3) for path in order]
        loras.use(wanted)
        assert torch.equal(predicted(), by_diffusers(wanted))


def test_the_same_file_twice_counts_twice(loras: Loras, three: Sequence[Path]) -> None:
    loras.use([(three[0], 0.5), (three[0], 0.25)])
    assert torch.equal(predicted(), by_diffusers([(three[0], 0.5), (three[0], 0.25)]))


def test_a_whole_picture_is_the_one_diffusers_makes(loras: Loras, three: Sequence[Path]) -> None:
    from PIL import Image

    random = torch.Generator().manual_seed(0)
    given = {
        "image": Image.effect_noise((32, 32), 60).convert("RGB"), "mask_image": Image.new("L", (32, 32), 255),
        "prompt_embeds": torch.randn((1, 6, 64), generator=random), "height": 32, "width": 32,
        "pooled_prompt_embeds": torch.randn((1, 32), generator=random), "num_inference_steps": 2, "output_type": "pt",
    }  # fmt: skip

    def painted(pipe: Any) -> Tensor:
        return pipe(**given, generator=torch.Generator().manual_seed(7)).images

    plain = painted(shared()[0])
    loras.use([(three[0], 1.0), (three[2], 0.5)])
    ours = painted(shared()[0])
    with quietly():
        for k in (0, 2):
            direct().load_lora_weights(three[k].parent, weight_name=three[k].name, adapter_name=f"one{k}")
        direct().set_adapters(["one0", "one2"], [1.0, 0.5])
        assert torch.equal(ours, painted(direct()))
        direct().unload_lora_weights()
    assert not torch.equal(ours, plain)
    loras.use([])
    assert torch.equal(painted(shared()[0]), plain)


# --- scales and swaps


def test_scale_0_and_an_empty_list_leave_the_original(loras: Loras, three: Sequence[Path]) -> None:
    untouched = modules()
    for between in ([], [(path, 0.0) for path in three], [(three[0], 0.0)]):
        loras.use([(path, 1.0) for path in three])
        loras.use(between)
        assert torch.equal(predicted(), original())
        assert modules() == untouched


def test_swapping_there_and_back_gives_the_same(loras: Loras, three: Sequence[Path]) -> None:
    seen = []
    for number in (0, 1, 0, 2, 1):
        loras.use([(three[number], 1.0)])
        seen.append(predicted())
    assert torch.equal(seen[0], seen[2])
    assert torch.equal(seen[1], seen[4])
    assert not torch.equal(seen[0], seen[1])


def test_files_in_use_are_not_read_again(loras: Loras, three: Sequence[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    loras.use([(three[0], 1.0), (three[1], 0.0)])
    loras.use([(three[2], 0.0)])
    loras.use([(three[0], 1.0), (three[1], 0.0)])
    monkeypatch.setattr("toolkit.engines.fill._flux_lora.read", None)
    for scales in ((0.5, 2.0), (0.0, 2.0), (1.0, 0.0)):
        wanted = list(zip(three[:2], scales, strict=True))
        loras.use(wanted)
        assert torch.equal(predicted(), by_diffusers([one for one in wanted if one[1]]))
    loras.use([(path, 0.0) for path in three])
    assert torch.equal(predicted(), original())


def test_a_file_that_changed_is_read_again(loras: Loras, make: Make) -> None:
    path = make(Q, seed=1)
    loras.use([(path, 1.0)])
    save_file(tensors(Q, seed=2), path)
    os.utime(path, ns=(1, 1))
    loras.use([(path, 1.0)])
    assert torch.equal(predicted(), by_diffusers([(path, 1.0)]))


def test_a_file_that_is_written_anew_while_it_is_in_use_changes_nothing(loras: Loras, make: Make) -> None:
    path = make(Q, seed=1)
    loras.use([(path, 1.0)])
    before = predicted()
    with open(path, "r+b") as file:
        file.seek(-2000, os.SEEK_END)
        file.write(bytes(2000))
    assert torch.equal(predicted(), before)
    os.truncate(path, 100)
    assert torch.equal(predicted(), before)


def test_nothing_is_left_in_memory(loras: Loras, three: Sequence[Path]) -> None:
    loras.use([(path, 1.0) for path in three])
    layers = [weakref.ref(one) for one in shared()[0].transformer.modules() if hasattr(one, "lora_A")]
    assert len(layers) > 5
    loras.use([])
    gc.collect()
    assert not any(layer() for layer in layers)


# --- strengths


def alphas(*modules: str, value: float) -> dict[str, Tensor]:
    return {f"transformer.{module}.alpha": torch.tensor(value) for module in modules}


def test_alphas_count_as_diffusers_has_them(loras: Loras, make: Make) -> None:
    path = make({**tensors(Q, K, LAST), **alphas(Q, K, LAST, value=2.0)})
    loras.use([(path, 1.0)])
    assert torch.equal(predicted(), by_diffusers([(path, 1.0)]))
    path = make({**tensors(Q, K, V, rank=8), **alphas(Q, V, value=2.0), **alphas(K, value=16.0)})
    loras.use([(path, 0.5)])
    assert torch.equal(predicted(), by_diffusers([(path, 0.5)]))


def scaled(content: Mapping[str, Tensor], *modules: str, by: float) -> dict[str, Tensor]:
    """A LoRA with some modules stronger."""
    return {
        key: value * by if any(key == f"transformer.{module}.lora_B.weight" for module in modules) else value
        for key, value in content.items()
    }


def test_an_alpha_is_for_its_own_module_alone(loras: Loras, make: Make) -> None:
    """Of the last layer, whose name is the end of others; and where others say nothing."""
    content = tensors(LAST, SINGLE, Q)
    loras.use([(make({**content, **alphas(LAST, value=2.0)}), 1.0)])
    ours = predicted()
    assert torch.equal(ours, by_diffusers([(make(scaled(content, LAST, by=0.5)), 1.0)]))


@pytest.mark.parametrize("rooted", [False, True])
def test_what_peft_says_in_the_file_counts(loras: Loras, make: Make, rooted: bool) -> None:
    content = tensors(Q, K, rank=4)
    said = {
        "r": 4,
        "lora_alpha": 8,
        "alpha_pattern": {"to_k": 16},
        "use_rslora": rooted,
        "target_modules": ["to_q", "to_k"],
    }
    told = {"lora_adapter_metadata": json.dumps({f"transformer.{key}": value for key, value in said.items()})}
    path = make(content, metadata=told)
    loras.use([(path, 0.5)])
    ours = predicted()
    assert torch.equal(ours, by_diffusers([(path, 0.5)]))
    half = 2 if rooted else 1
    stronger = scaled(scaled(content, Q, by=2.0 * half), K, by=4.0 * half)
    assert torch.equal(ours, by_diffusers([(make(stronger), 0.5)]))


@pytest.mark.parametrize(
    "said", [{"init_lora_weights": "pissa"}, {"bias": "all"}, {"modules_to_save": ["proj_out"]},
             {"target_modules": ".*"}, {"lora_dropout": 0.5}, {"exclude_modules": "transformer_blocks.*"},
             {"use_bdlora": True}]
)  # fmt: skip
def test_nothing_else_in_the_file_is_heeded(loras: Loras, make: Make, said: dict[str, Any]) -> None:
    content = tensors(Q)
    told = json.dumps(
        {"transformer.r": 4, "transformer.lora_alpha": 4} | {f"transformer.{k}": v for k, v in said.items()}
    )
    loras.use([(make(content, metadata={"lora_adapter_metadata": told}), 1.0)])
    assert torch.equal(predicted(), by_diffusers([(make(content), 1.0)]))


# --- formats


def kohya(module: str, **options: Any) -> dict[str, Tensor]:
    return tensors(module, before="", sides="lora_down lora_up", **options)


def test_kohya_keys_are_understood(loras: Loras, make: Make) -> None:
    path = make(
        {
            **kohya("lora_unet_double_blocks_0_img_attn_proj"),
            **kohya("lora_unet_double_blocks_1_txt_mlp_0", outputs=512),
            **kohya("lora_unet_double_blocks_0_img_attn_qkv", outputs=384, seed=2),
            "lora_unet_double_blocks_0_img_attn_proj.alpha": torch.tensor(2.0),
        }
    )  # fmt: skip
    assert loras.use([(path, 1.0)]) == ()
    assert torch.equal(predicted(), by_diffusers([(path, 1.0)]))
    assert not torch.equal(predicted(), original())


def test_kohya_keys_of_single_blocks_are_understood(make: Make) -> None:
    """The converter knows only the real network's sizes, so that this is read and not loaded."""
    from diffusers import FluxFillPipeline

    block = "single_transformer_blocks.37"
    real = {f"{block}.attn.to_{letter}": (3072, 3072) for letter in "qkv"} | {f"{block}.proj_mlp": (3072, 12288)}
    path = make(kohya("lora_unet_single_blocks_37_linear1", rank=3, inputs=3072, outputs=21504))
    found = read(path, real, FluxFillPipeline.lora_state_dict, NAME)
    up = load_file(path)["lora_unet_single_blocks_37_linear1.lora_up.weight"]
    assert torch.equal(torch.cat([found.weights[f"transformer.{module}.lora_B.weight"] for module in real]), up)
    assert found.scaling == dict.fromkeys(real, 1.0)


@pytest.mark.parametrize(
    ("theirs", "ours", "shape"),
    [("lora_unet_img_in", "x_embedder", {"inputs": 64}), ("lora_unet_txt_in", "context_embedder", {"inputs": 64}),
     ("diffusion_model.final_layer.linear", "proj_out", {"outputs": 64})],
)  # fmt: skip
def test_parts_that_diffusers_loses_are_used(
    loras: Loras, make: Make, theirs: str, ours: str, shape: dict[str, int]
) -> None:
    """Its converter leaves their prefix away, and the strength of the last layer."""
    path = make({**kohya(theirs, **shape), f"{theirs}.alpha": torch.tensor(2.0)})
    loras.use([(path, 1.0)])
    content = tensors(ours, **shape)
    assert torch.equal(predicted(), by_diffusers([(make(scaled(content, ours, by=0.5)), 1.0)]))


def test_xlabs_keys_are_understood(loras: Loras, make: Make) -> None:
    path = make(
        {
            **tensors("double_blocks.0.processor.qkv_lora1", before="", sides="down up", outputs=384),
            **tensors("double_blocks.1.processor.proj_lora2", before="", sides="down up", seed=2),
            **tensors("single_blocks.0.processor.qkv_lora", before="", sides="down up", outputs=384, seed=3),
        }
    )
    loras.use([(path, 1.0)])
    assert torch.equal(predicted(), by_diffusers([(path, 1.0)]))
    assert not torch.equal(predicted(), original())


@pytest.mark.parametrize(
    ("before", "sides"),
    [("", "lora_A lora_B"), ("base_model.model.", "lora_A lora_B"), ("diffusion_model.", "lora_A lora_B"),
     ("transformer.", "lora_down lora_up"), ("transformer.", "lora.down lora.up")],
)  # fmt: skip
def test_other_ways_to_write_the_same(loras: Loras, make: Make, before: str, sides: str) -> None:
    loras.use([(make(tensors(Q, SINGLE, before=before, sides=sides)), 1.0)])
    assert torch.equal(predicted(), by_diffusers([(make(Q, SINGLE), 1.0)]))


def test_comfyui_keys_are_understood(loras: Loras, make: Make) -> None:
    theirs, ours = "double_blocks.0.img_attn.proj", "transformer_blocks.0.attn.to_out.0"
    path = make({**tensors(theirs, before="diffusion_model."), f"diffusion_model.{theirs}.alpha": torch.tensor(2.0)})
    loras.use([(path, 1.0)])
    assert torch.equal(predicted(), by_diffusers([(make(scaled(tensors(ours), ours, by=0.5)), 1.0)]))


@pytest.mark.parametrize(
    "key",
    ["text_encoder.text_model.encoder.layers.0.mlp.fc1.lora_A.weight", "lora_te1_text_model_x.lora_down.weight",
     "text_encoders.t5xxl.transformer.x.lora_down.weight", "text_encoder_2.x.dora_scale"],
)  # fmt: skip
def test_a_part_for_the_text_encoder_is_told(loras: Loras, make: Make, key: str) -> None:
    path = make({**tensors(Q), key: torch.ones(4, 32)})
    note = f"{path.name}: its part for the text encoder is not used"
    for scale in (0.0, 1.0, 0.5):
        assert loras.use([(path, scale)]) == (note,)
    assert torch.equal(predicted(), by_diffusers([(make(Q), 0.5)]))
    path = make({key: torch.ones(4, 32)})
    assert refused(loras, path) == f"is for the text encoder alone ({key}), and that is not what paints"


def test_parts_without_effect_are_passed_over(loras: Loras, make: Make) -> None:
    path = make({**tensors(Q), f"transformer.{Q}.diff_b": torch.zeros(128)})
    loras.use([(path, 1.0)])
    assert torch.equal(predicted(), by_diffusers([(make(Q), 1.0)]))


# --- files that are none of its


def changed(down: Tensor) -> dict[str, Tensor]:
    """A LoRA with another first matrix."""
    return {**tensors(K), f"transformer.{K}.lora_A.weight": down}


@pytest.mark.parametrize(
    ("module", "shape", "sentence"),
    [
        (Q, {"inputs": 136}, f"136 inputs at {Q}, {NAME} has 128"),
        (Q, {"inputs": 64}, f"64 inputs at {Q}, {NAME} has 128"),
        (Q, {"outputs": 136}, f"136 outputs at {Q}, {NAME} has 128"),
        (Q, {"outputs": 64}, f"64 outputs at {Q}, {NAME} has 128"),
        (Q, {"inputs": 136, "outputs": 136}, f"136 inputs at {Q}, {NAME} has 128"),
        ("x_embedder", {"inputs": 128}, f"128 inputs at x_embedder, {NAME} has 384"),
        ("x_embedder", {"inputs": 448}, f"448 inputs at x_embedder, {NAME} has 384"),
        (
            "transformer_blocks.2.attn.to_q",
            {},
            f"it changes transformer_blocks.2.attn.to_q, which {NAME} does not have",
        ),
        ("transformer_blocks.0.attn.norm_q", {}, f"it changes transformer_blocks.0.attn.norm_q, which {NAME} does not"),
        ("transformer_blocks.0", {}, f"it changes transformer_blocks.0, which {NAME} does not have"),
    ],
)
def test_a_lora_for_another_network_is_refused(
    loras: Loras, make: Make, three: Sequence[Path], module: str, shape: dict[str, int], sentence: str
) -> None:
    assert f"is for another network: {sentence}" in refused(loras, make(module, **shape))
    assert f"is for another network: {sentence}" in refused(
        loras, make({**tensors(K), **tensors(module, **shape)}), *three
    )


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (
            {"double_blocks.0.img_attn.qkv.weight": torch.ones(4, 4)},
            "is no LoRA: it holds double_blocks.0.img_attn.qkv",
        ),
        ({"garbage": torch.ones(3)}, "is no LoRA: it holds garbage"),
        ({"two\nlines": torch.ones(3)}, "is no LoRA: it holds two lines"),
        (tensors("x", before="unet."), f"is for another network: it changes unet.x, which {NAME} does not have"),
        (kohya("lora_unet_down_blocks_0_attentions_0_proj_in"), f"is for another network than {NAME}, or of a format"),
        (kohya("double_blocks_0_img_attn_proj"), "or of a format that is not known (double_blocks_0_img_attn_proj"),
        (kohya("lora_unet_double_blocks_0_img_attn_proj") | kohya("lora_transformer_x_embedder", seed=2), "not known"),
        (tensors("x.processor.to_q_lora", before="", sides="down up"), "holds x.processor.to_q_lora."),
        ({"base_model.model.x.lora_A.weight": torch.ones(4, 4)}, f"is for another network than {NAME}, or of a format"),
        ({"transformer.x.alpha": torch.tensor(1.0)}, f"holds nothing for {NAME}, or is of a format"),
        ({f"transformer.{Q}.lora_A.weight": torch.ones(4, 128)}, f"has only lora_A at {Q}"),
        ({f"transformer.{Q}.dora_scale": torch.zeros(4)}, f"is a DoRA (transformer.{Q}.dora_scale); only plain LoRAs"),
        ({f"transformer.{Q}.lora_magnitude_vector.weight": torch.ones(128)}, "is a DoRA"),
        ({f"transformer.{Q}.lokr_w1": torch.ones(4, 4)}, "is a LoKr"),
        ({"lora_unet_double_blocks_0_img_attn_proj.hada_w1_a": torch.ones(4, 4)}, "is a LoHa"),
        ({f"transformer.{Q}.oft_blocks": torch.ones(4, 4)}, "is an OFT"),
    ],
)
def test_other_files_are_refused(loras: Loras, make: Make, content: dict[str, Tensor], sentence: str) -> None:
    assert sentence in refused(loras, make(content))


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({f"transformer.{K}.lora_B.bias": torch.ones(128)}, f"holds transformer.{K}.lora_B.bias, which is no part of"),
        ({"transformer.transformer_blocks.0.attn.norm_q.weight": torch.ones(32)}, "norm_q.weight, which is no part of"),
        ({f"transformer.{K}.diff_b": torch.ones(128)}, f"holds transformer.{K}.diff_b, which is no part of a plain"),
        ({f"transformer.{K}.lora_mid.weight": torch.ones(4, 4)}, "lora_mid.weight, which is no part of a plain LoRA"),
        (tensors("down_blocks.0.attn", before="unet."), "it changes unet.down_blocks.0.attn"),
        ({f"transformer.{K}.lora_B.weight": torch.ones(128, 4)}, f"has only lora_B at {K}"),
        (changed(torch.ones(2, 128)), f"its two matrices at {K} do not go together: ranks 2 and 4"),
        (tensors(K, rank=0), "do not go together: ranks 0 and 0"),
        (changed(torch.ones(4, 128, 1, 1)), f"has no two matrices of real numbers at {K}"),
        (changed(torch.ones(4, 128, dtype=torch.int32)), f"has no two matrices of real numbers at {K}"),
        (changed(torch.full((4, 128), torch.nan)), f"holds values that are no numbers, at {K}"),
        (changed(torch.full((4, 128), -torch.inf)), f"holds values that are no numbers, at {K}"),
        (alphas(Q, value=torch.nan), f"its alpha at {Q} is no number"),
        ({f"transformer.{Q}.alpha": torch.ones(2)}, f"its alpha at {Q} is no number"),
    ],
)  # fmt: skip
def test_one_wrong_part_is_enough(
    loras: Loras, make: Make, three: Sequence[Path], more: dict[str, Tensor], sentence: str
) -> None:
    loras.use([(three[1], 1.0)])
    path = make({**tensors(Q), **more})
    assert sentence in refused(loras, path, three[0])
    loras.use([(three[0], 1.0)])
    with pytest.raises(InputError):
        loras.use([(three[0], 1.0), (path, 0.0)])  # though it would not count
    assert torch.equal(predicted(), original())


@pytest.mark.parametrize(
    "told", ["{", "[]", '{"transformer.lora_alpha": "x"}',
             '{"transformer.lora_alpha": 1, "transformer.alpha_pattern": 5}',
             '{"transformer.lora_alpha": 1, "transformer.alpha_pattern": {"(": 5}}', '{"transformer.use_dora": true}',
             '{"transformer.lora_alpha": NaN}', '{"transformer.lora_alpha": 1' + "0" * 400 + "}", "[" * 100_000,
     '{"transformer.lora_alpha": 1, "transformer.alpha_pattern": {"(.|.|.)*(.*.*.*.*.*.*.*)*x": 5}}']
)  # fmt: skip
def test_what_a_file_says_of_itself_may_be_wrong(loras: Loras, make: Make, told: str) -> None:
    said = refused(loras, make(tensors(Q), metadata={"lora_adapter_metadata": told}))
    assert any(
        word in said for word in ("what it says of itself cannot be read", "is a DoRA", "lora_alpha is no number")
    )


class _Trap:
    def __reduce__(self) -> Any:
        return (os.mkdir, (os.environ["TRAP"],))


@pytest.mark.parametrize("what", ["empty", "text", "truncated", "header", "no tensors", "pickle", "torch", "folder"])
def test_what_is_no_safetensors_file_is_never_opened_as_anything_else(
    loras: Loras, make: Make, three: Sequence[Path], what: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAP", str(tmp_path / "sprung"))
    path, whole = tmp_path / "x.safetensors", three[0].read_bytes()
    contents = {
        "empty": b"", "text": b"<html>please log in</html>", "truncated": whole[:-100], "header": whole[:40],
        "no tensors": (2).to_bytes(8, "little") + b"{}",
        "pickle": pickle.dumps(_Trap()),
    }  # fmt: skip
    if what == "folder":
        path.mkdir()
    elif what == "torch":
        torch.save({"x": _Trap()}, path)
    else:
        path.write_bytes(contents[what])
    assert ("is no LoRA: it is empty" if what == "no tensors" else "is no whole .safetensors file") in refused(
        loras, path
    )
    assert not (tmp_path / "sprung").exists()
    assert "cannot be read: No such file" in refused(loras, tmp_path / "nowhere.safetensors")


# --- what goes wrong half-way


@pytest.mark.parametrize(
    ("where", "kind"),
    [
        ("peft.inject_adapter_in_model", RuntimeError),
        ("peft.set_peft_model_state_dict", ValueError),
        ("peft.set_peft_model_state_dict", KeyboardInterrupt),
        ("peft.set_peft_model_state_dict", torch.OutOfMemoryError),
        ("verify", RuntimeError),
        ("scales", RuntimeError),
    ],
)
def test_a_failure_half_way_leaves_the_original(
    loras: Loras, three: Sequence[Path], where: str, kind: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    untouched = modules()
    loras.use([(three[1], 1.0)])
    transformer = type(shared()[0].transformer)
    with monkeypatch.context() as patch:
        calls = 0

        def failing(inner: Callable[..., Any]) -> Callable[..., Any]:
            def call(*given: Any, **options: Any) -> Any:
                nonlocal calls
                calls += 1
                answer = inner(*given, **options)
                if calls == (1 if where == "scales" else 2):
                    raise kind("half-way")
                return answer

            return call

        if where == "verify":
            patch.setattr(Loras, "_verify", failing(Loras._verify))
        elif where == "scales":
            patch.setattr(transformer, "set_adapters", failing(transformer.set_adapters))
        else:
            import peft

            name = where.partition(".")[2]
            patch.setattr(peft, name, failing(getattr(peft, name)))
        with pytest.raises(BaseException) as caught:  # noqa: PT011
            loras.use([(path, 1.0) for path in three])
    wrapped = kind in (RuntimeError, ValueError) and where != "scales"
    assert type(caught.value) is (EngineError if wrapped else kind)
    if wrapped:
        assert str(caught.value) == f"{NAME}: a LoRA could not be loaded (half-way)"
    assert torch.equal(predicted(), original())
    assert modules() == untouched
    loras.use([(path, 1.0) for path in three])
    assert torch.equal(predicted(), by_diffusers([(path, 1.0) for path in three]))


def modules() -> list[tuple[str, int]]:
    return [(name, id(one)) for name, one in shared()[0].transformer.named_modules()]


# --- other states of the network


def test_a_quantised_network_takes_them(three: Sequence[Path], make: Make) -> None:
    with quietly():
        from diffusers import FluxTransformer2DModel, TorchAoConfig
        from torchao.quantization import Int8WeightOnlyConfig

        def quantised() -> Any:
            return FluxTransformer2DModel.from_pretrained(
                flux_networks.saved() / "transformer", local_files_only=True, torch_dtype=torch.bfloat16,
                quantization_config=TorchAoConfig(Int8WeightOnlyConfig()),
            )  # fmt: skip

        pipe, loras = opened(transformer=quantised(), dtype=torch.bfloat16)
        theirs, _ = opened(transformer=quantised(), dtype=torch.bfloat16)
    plain = predicted(pipe)
    for wanted in ([(three[0], 1.0)], [(three[0], 0.5), (three[1], 2.0)], [(three[2], 1.0)]):
        loras.use(wanted)
        with quietly():
            for k, (path, _) in enumerate(wanted):
                theirs.transformer.load_lora_adapter(padded(path), adapter_name=f"direct{k}", low_cpu_mem_usage=True)
            theirs.transformer.set_adapters([f"direct{k}" for k in range(len(wanted))], [one[1] for one in wanted])
            expected = predicted(theirs)
            theirs.transformer.unload_lora()
        assert torch.equal(predicted(pipe), expected)
        assert not torch.equal(expected, plain)
    with pytest.raises(InputError, match="136 inputs at"):
        loras.use([(make(Q, inputs=136), 1.0)])
    assert torch.equal(predicted(pipe), plain)
    loras.use([(three[0], 1.0)])
    loras.use([(three[0], 0.0)])
    assert torch.equal(predicted(pipe), plain)


def padded(path: Path) -> dict[str, Tensor]:
    """The tensors of a file, with inputs of FLUX.1 [dev] filled up."""
    found = load_file(path)
    key = "transformer.x_embedder.lora_A.weight"
    if key in found:
        found[key] = torch.nn.functional.pad(found[key], (0, 384 - found[key].shape[1]))
    return found


@pytest.mark.parametrize("kind", ["block_level", "leaf_level"])
def test_an_offloaded_network_takes_them(three: Sequence[Path], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, loras = opened()
    here = torch.device("cpu")
    options = {"num_blocks_per_group": 1} if kind == "block_level" else {}
    pipe.transformer.enable_group_offload(onload_device=here, offload_device=here, offload_type=kind, **options)
    for wanted in ([(three[0], 1.0)], [(three[1], 0.5), (three[2], 1.0)], [(three[0], 1.0)]):
        loras.use(wanted)
        assert torch.equal(predicted(pipe), by_diffusers(wanted))
    loras.use([])
    assert torch.equal(predicted(pipe), original())
    with monkeypatch.context() as patch:
        patch.setattr("peft.set_peft_model_state_dict", None)
        with pytest.raises(EngineError):
            loras.use([(three[0], 1.0)])
    assert torch.equal(predicted(pipe), original())
    loras.use([(three[2], 1.0)])
    assert torch.equal(predicted(pipe), by_diffusers([(three[2], 1.0)]))


@pytest.mark.heavy
def test_compiled_blocks_take_them(three: Sequence[Path]) -> None:
    pipe, loras = opened()
    block = pipe.transformer.transformer_blocks[0]
    block.forward = torch.compile(block.forward, backend="eager")
    with quietly():
        assert torch.equal(predicted(pipe), original())
        loras.use([(three[0], 0.5)])
        assert torch.equal(predicted(pipe), by_diffusers([(three[0], 0.5)]))
        loras.use([])
        assert torch.equal(predicted(pipe), original())
    torch.compiler.reset()


def test_a_network_in_bfloat16_takes_them(three: Sequence[Path]) -> None:
    pipe, loras = opened(dtype=torch.bfloat16)
    theirs, _ = opened(dtype=torch.bfloat16)
    plain = predicted(pipe)
    loras.use([(three[0], 0.7), (three[1], 1.0)])
    with quietly():
        for k in range(2):
            theirs.transformer.load_lora_adapter(load_file(three[k]), adapter_name=f"direct{k}", low_cpu_mem_usage=True)
        theirs.transformer.set_adapters(["direct0", "direct1"], [0.7, 1.0])
    assert torch.equal(predicted(pipe), predicted(theirs))
    loras.use([])
    assert torch.equal(predicted(pipe), plain)


# --- not a word


def test_libraries_say_nothing_of_it(
    loras: Loras, make: Make, three: Sequence[Path], capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    logging.getLogger("diffusers").propagate = True
    try:
        with caplog.at_level(logging.DEBUG, "diffusers"):
            loras.use([(path, 1.0) for path in three])
            with pytest.raises(InputError):
                loras.use([(make(kohya("lora_unet_double_blocks_0_img_attn_nothing")), 1.0)])
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("peft.set_peft_model_state_dict", None)
                with pytest.raises(EngineError):
                    loras.use([(three[0], 1.0)])
            loras.use([])
            assert caplog.records == []
            logging.getLogger("diffusers.loaders.peft").error("heard")
            assert {record.message for record in caplog.records} == {"heard"}
    finally:
        logging.getLogger("diffusers").propagate = False
    said = capfd.readouterr()
    assert (said.out, said.err.replace("heard\n", "")) == ("", "")


def test_other_threads_may_speak(loras: Loras, three: Sequence[Path], caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("diffusers.loaders.peft")
    inner = Loras._verify

    def verify(self: Loras, *given: Any) -> None:
        thread = threading.Thread(target=lambda: logger.error("from elsewhere"))
        thread.start()
        thread.join()
        logger.error("from here")
        inner(self, *given)

    logging.getLogger("diffusers").propagate = True
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Loras, "_verify", verify)
            loras.use([(three[0], 1.0)])
    finally:
        logging.getLogger("diffusers").propagate = False
    assert {record.message for record in caplog.records} == {"from elsewhere"}
