"""ViTMatte: equal to transformers' own model and processor on the same small random network, and its bad files."""

from __future__ import annotations

import importlib.util
import json
import pickle
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import VitDetConfig, VitMatteConfig, VitMatteForImageMatting
from transformers.models.vitmatte.image_processing_pil_vitmatte import VitMatteImageProcessorPil

from toolkit import cards, engines, weights
from toolkit.engines.matte import vitmatte
from toolkit.engines.matte.vitmatte import Engine
from toolkit.errors import Cancelled, EngineError
from toolkit.recipe import Recipe
from toolkit.run import Run

Array = NDArray[Any]
CARD = cards.find("matte", "vitmatte").model_copy(update={"memory": None})
BACKBONE = {
    "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "num_channels": 4, "image_size": 64,
    "pretrain_image_size": 32, "window_size": 3, "window_block_indices": [0, 2], "residual_block_indices": [1, 3],
    "use_relative_position_embeddings": True, "out_features": ["stage4"],
}  # fmt: skip
SIZES = {"hidden_size": 32, "convstream_hidden_sizes": [8, 12, 16], "fusion_hidden_sizes": [24, 16, 8, 8]}
PROCESSOR = {
    "do_normalize": True, "do_pad": True, "do_rescale": True, "image_mean": [0.5, 0.5, 0.5],
    "image_processor_type": "VitMatteImageProcessor", "image_std": [0.5, 0.5, 0.5], "rescale_factor": 1 / 255,
    "size_divisibility": 32,
}  # fmt: skip


def randomised(seed: int = 0) -> Any:
    """A small network whose alpha varies over all of 0..1; as it is made by default it answers 0.5 everywhere."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = VitMatteForImageMatting(VitMatteConfig(backbone_config=VitDetConfig(**BACKBONE), **SIZES)).eval()
        state = {}
        for name, values in model.state_dict().items():
            if "num_batches_tracked" in name:
                state[name] = values
            elif "running_var" in name or (name.endswith("weight") and values.ndim == 1):
                state[name] = 0.5 + torch.rand_like(values)
            else:
                fan = max(1, values[0].numel()) if values.ndim > 1 else 25
                state[name] = torch.randn_like(values) * (1.4 / fan**0.5)
        model.load_state_dict(state)
    return model


def write(folder: Path, model: Any, file: str = "model.safetensors") -> Path:
    """The network in the layout of the published ones: their files and the names in their configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {
        "architectures": ["VitMatteForImageMatting"], "backbone_config": {"model_type": "vitdet", **BACKBONE}, **SIZES,
        "batch_norm_eps": 1e-05, "initializer_range": 0.02, "model_type": "vitmatte", "torch_dtype": "float32",
        "transformers_version": "4.33.0.dev0",
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    if file.endswith(".bin"):
        torch.save(model.state_dict(), folder / file)
    else:
        save_file(model.state_dict(), folder / file, metadata={"format": "pt"})
    return folder


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the card's weights lie; nothing is in it."""
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path / "cache"))
    return weights.folder(CARD)


@pytest.fixture
def network(folder: Path) -> Any:
    """The network that lies there."""
    model = randomised()
    write(folder, model)
    return model


@pytest.fixture
def run() -> Iterator[Run]:
    with Run(workers=1, device="cpu") as one:
        yield one


def scene(height: int, width: int, seed: int = 0) -> tuple[Array, Array]:
    """Noise, and a trimap with a band between its two sides."""
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    across = np.linspace(0, 3, width, endpoint=False).astype(int)
    trimap = np.array([0, 128, 255], np.uint8)[across][None].repeat(height, 0)
    return pixels, trimap


def reference(model: Any, pixels: Array, trimap: Array) -> Array:
    """Alpha (h, w) 0..1 as transformers' documentation has it."""
    processor = VitMatteImageProcessorPil(image_mean=[0.5] * 3, image_std=[0.5] * 3, size_divisor=32)
    inputs = processor(images=pixels, trimaps=trimap, input_data_format="channels_last", return_tensors="pt")
    with torch.no_grad():
        alphas = model(**inputs).alphas
    return np.asarray(alphas[0, 0, : trimap.shape[0], : trimap.shape[1]].numpy())


# -- parity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(64, 64), (75, 100), (33, 130), (3, 50), (1, 3), (200, 40)])
@pytest.mark.parametrize("level", [128, 100])
def test_the_alpha_is_that_of_transformers_itself(size: tuple[int, int], level: int, network: Any, run: Run) -> None:
    pixels, trimap = scene(*size)
    wanted = reference(network, pixels, trimap)
    found = Engine(CARD).matte(pixels, np.where(trimap == 128, np.uint8(level), trimap), run)
    assert found.shape == trimap.shape
    assert found.dtype == np.uint8
    assert np.array_equal(found[trimap != 128], trimap[trimap != 128])
    apart = np.abs(found[trimap == 128] - 255.0 * wanted[trimap == 128])
    assert apart.max() <= 0.501, "nothing but rounded"
    if size == (64, 64):
        assert wanted[trimap == 128].std() > 0.1, "the network is not the same everywhere"


def test_from_pretrained_reads_the_same_files_alike(network: Any, folder: Path, run: Run) -> None:
    pixels, trimap = scene(64, 96, 1)
    loaded = VitMatteForImageMatting.from_pretrained(folder, local_files_only=True).eval()
    processor = VitMatteImageProcessorPil.from_pretrained(folder, local_files_only=True)
    with torch.no_grad():
        inputs = processor(images=pixels, trimaps=trimap, input_data_format="channels_last", return_tensors="pt")
        wanted = loaded(**inputs).alphas[0, 0].numpy()
    found = Engine(CARD).matte(pixels, trimap, run)
    assert np.abs(found - 255.0 * wanted)[trimap == 128].max() <= 0.501


def test_the_older_kind_of_file_is_read_alike(network: Any, run: Run) -> None:
    card = cards.find("matte", "vitmatte-small-distinctions-646").model_copy(update={"memory": None})
    write(weights.folder(card), network, "pytorch_model.bin")
    pixels, trimap = scene(64, 64)
    assert np.array_equal(Engine(card).matte(pixels, trimap, run), Engine(CARD).matte(pixels, trimap, run))


def test_what_is_sure_needs_no_network(run: Run) -> None:
    trimap = np.array([[0, 255], [255, 0]], np.uint8)
    pixels = np.zeros((2, 2, 3), np.uint8)
    assert np.array_equal(Engine(CARD).matte(pixels, trimap, run), trimap)
    with pytest.raises(EngineError, match="^vitmatte cannot run: its weights are not here: inpaint models pull"):
        Engine(CARD).matte(pixels, np.full((2, 2), 128, np.uint8), run)


# -- large pictures -------------------------------------------------------------------------------------------------


@given(st.integers(1, 9000))
def test_windows_cover_a_side_and_pass_into_each_other(length: int) -> None:
    spans = vitmatte._spans(length)
    total = np.zeros(length)
    for number, (start, stop, share) in enumerate(spans):
        assert 0 < stop - start <= vitmatte.LARGEST + vitmatte.ALIGNED
        assert start % vitmatte.ALIGNED == 0
        assert len(share) == stop - start
        assert share.min() > 0
        assert share.max() == 1
        if number:
            assert spans[number - 1][1] - start >= vitmatte.SHARED
        total[start:stop] += share
    assert spans[0][0] == 0
    assert spans[-1][1] == length
    assert total.min() > 0


def test_a_large_picture_is_the_mean_of_its_windows(network: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vitmatte, "LARGEST", 128)
    monkeypatch.setattr(vitmatte, "SHARED", 32)
    pixels, trimap = scene(130, 400)
    whole, total = np.zeros(trimap.shape), np.zeros(trimap.shape)
    for top, bottom, down in vitmatte._spans(130):
        for left, right, across in vitmatte._spans(400):
            part = np.s_[top:bottom, left:right]
            share = np.outer(down, across)
            whole[part] += share * reference(network, pixels[part], trimap[part])
            total[part] += share
    asked: list[tuple[int, int]] = []
    bare = vitmatte._Network.alpha

    def watched(self: Any, pixels: Array, trimap: Array, run: Run) -> Array:
        asked.append(trimap.shape)
        return bare(self, pixels, trimap, run)

    monkeypatch.setattr(vitmatte._Network, "alpha", watched)
    found = Engine(CARD).matte(pixels, trimap, run)
    unknown = trimap == 128
    assert np.abs(found[unknown] - 255 * (whole / total)[unknown]).max() <= 0.501
    assert 1 < len(asked) < len(vitmatte._spans(130)) * len(vitmatte._spans(400)), "only those with something unknown"
    assert max(max(shape) for shape in asked) <= 128 + 32


# -- the work -------------------------------------------------------------------------------------------------------


def test_threads_never_mix_and_open_the_network_once(network: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scenes = [scene(64, 64, seed) for seed in range(3)]
    alone = [Engine(CARD).matte(*one, run) for one in scenes]
    opened: list[int] = []
    bare = vitmatte._model
    monkeypatch.setattr(vitmatte, "_model", lambda *a: opened.append(1) or bare(*a))
    engine = Engine(CARD)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda index: engine.matte(*scenes[index % 3], run), range(12)))
    assert all(np.array_equal(one, alone[index % 3]) for index, one in enumerate(found))
    assert opened == [1]


@pytest.mark.parametrize("after", [0, 1, 40])
def test_cancelling_ends_it_between_layers(after: int, network: Any, run: Run) -> None:
    class Patient(Run):
        asked = 0

        def cancelled(self, name: str = "") -> bool:
            self.asked += 1
            return self.asked > after

    engine, given = Engine(CARD), scene(64, 64)
    with Patient(workers=1, device="cpu") as other, pytest.raises(Cancelled):
        engine.matte(*given, other)
    assert other.asked == after + 1
    assert np.array_equal(engine.matte(*given, run), Engine(CARD).matte(*given, run)), "it goes on for others"


def test_it_is_silent_and_leaves_the_random_state_alone(
    network: Any, run: Run, capfd: pytest.CaptureFixture[str]
) -> None:
    before = torch.random.get_rng_state()
    Engine(CARD).matte(*scene(40, 40), run)
    assert torch.equal(before, torch.random.get_rng_state())
    assert capfd.readouterr() == ("", "")


# -- bad files and what is missing ----------------------------------------------------------------------------------


def change(name: str, text: str | bytes) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)

    return apply


def truncate(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def rewrite(edit: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        state = {name: values.clone() for name, values in load_file(folder / "model.safetensors").items()}
        edit(state)
        save_file(state, folder / "model.safetensors")

    return apply


HEAD = "decoder.matting_head.matting_convs.3.weight"


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (truncate, "Error while deserializing header: incomplete metadata"),
        (change("model.safetensors", "<html>"), "Error while deserializing header: header too small"),
        (change("model.safetensors", b""), "Error while deserializing header: header too small"),
        (change("config.json", '{"model_type": "vitm'), "Unterminated string"),
        (change("config.json", '{"model_type": "bert"}'), "config.json is of 'bert'"),
        (change("preprocessor_config.json", "nothing"), "Expecting value"),
        (rewrite(lambda state: state.pop(HEAD)),
         f"model.safetensors is of another network: {HEAD} is not in both"),
        (rewrite(lambda state: state.update(more=torch.zeros(2))),
         "model.safetensors is of another network: more is not in both"),
        (rewrite(lambda state: state.update({HEAD: torch.zeros(2, 2)})), "Error(s) in loading state_dict"),
    ],
    ids=["truncated", "page", "empty", "config", "other", "processor", "less", "more", "shape"],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence(
    spoil: Callable[[Path], None], why: str, network: Any, folder: Path, run: Run
) -> None:
    spoil(folder)
    with pytest.raises(EngineError) as caught:
        Engine(CARD).matte(*scene(32, 32), run)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith(f"vitmatte: {folder} holds no network of ViTMatte that can be opened ({why}")
    assert text.endswith("delete it and get it again: inpaint models pull vitmatte")


def test_a_pickle_with_code_in_it_is_not_run(tmp_path: Path, run: Run) -> None:
    class Harmful:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.write_text, (tmp_path / "harm", "done")

    card = cards.find("matte", "vitmatte-small-distinctions-646").model_copy(update={"memory": None})
    folder = write(weights.folder(card), randomised(), "pytorch_model.bin")
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(EngineError, match="holds no network of ViTMatte that can be opened"):
        Engine(card).matte(*scene(32, 32), run)
    assert not (tmp_path / "harm").exists()


def test_counts_of_training_steps_may_lack(network: Any, folder: Path, run: Run) -> None:
    pixels, trimap = scene(64, 64)
    before = Engine(CARD).matte(pixels, trimap, run)
    rewrite(lambda state: [state.pop(name) for name in list(state) if "num_batches_tracked" in name])(folder)
    assert np.array_equal(Engine(CARD).matte(pixels, trimap, run), before)


def test_what_is_missing_is_said_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError) as caught:
        engines.resolve("matte", "vitmatte")
    assert str(caught.value) == "vitmatte cannot run: its weights are not here: inpaint models pull vitmatte (99 MiB)"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError) as caught:
        engines.resolve("matte", "vitmatte")
    assert str(caught.value) == (
        'vitmatte cannot run: torch and transformers are not installed: pip install "inpaint-toolkit[text]"; '
        'without CUDA, far smaller: uv pip install --torch-backend=cpu "inpaint-toolkit[text]"'
    )


def test_it_is_taken_by_name_only(network: Any) -> None:
    assert engines.resolve("matte").name == "guided"
    for name in ("vitmatte", "hustvl/vitmatte-small-composition-1k"):
        assert engines.resolve("matte", name).name == "vitmatte"
    assert cards.find("matte", "hustvl/vitmatte-small-distinctions-646").name == "vitmatte-small-distinctions-646"


def test_too_little_memory_is_said_before(network: Any, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toolkit.devices.free_memory", lambda device: 2**30)
    with pytest.raises(EngineError, match=r"^vitmatte: takes 2 GiB on cpu, 1\.0 GiB are free"):
        Engine(cards.find("matte", "vitmatte")).matte(*scene(32, 32), run)


def test_a_cutout_with_it_end_to_end(network: Any) -> None:
    """The recipe with `--matte vitmatte`: what the network says within the band, what was selected beyond it."""
    pixels = scene(200, 240)[0]
    mask = np.zeros((200, 240), np.uint8)
    mask[60:150, 70:180] = 255
    with Run(workers=1, engines={"vitmatte": (CARD, Engine(CARD))}) as run:
        edit = Recipe.load("cutout")(pixels, run, mask=mask, matte="vitmatte")
    (cutout,) = edit.cutouts
    alpha, radius = cutout.matte.array(), edit.steps[1].figures["band"]
    assert edit.steps[1].engine == "vitmatte"
    inner, outer = edit.selected.erode(radius + 2).array(), edit.selected.dilate(radius + 2).array()
    assert (alpha[inner == 255] == 255).all()
    assert (alpha[outer == 0] == 0).all()
    assert len(np.unique(alpha)) > 20
