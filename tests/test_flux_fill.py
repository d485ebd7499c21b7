"""FLUX.1 Fill on a tiny random pipeline of the real structure, against direct calls of diffusers."""

from __future__ import annotations

import contextlib
import json
import logging
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests import flux_networks
from tests.flux_networks import direct, job
from tests.weight_server import Server
from toolkit import devices
from toolkit.cards import Card
from toolkit.engines import FillJob
from toolkit.engines.fill import _flux_attention, _flux_network
from toolkit.engines.fill._flux_lora import Loras
from toolkit.engines.fill._flux_memory import MODES, Need, plan
from toolkit.engines.fill._flux_network import Files, Network, Unit
from toolkit.engines.fill._flux_text import Texts
from toolkit.engines.fill.flux_fill import Engine, _request
from toolkit.errors import Cancelled, EngineError, InputError, ToolkitError
from toolkit.geometry import Size
from toolkit.queues import BatchQueue
from toolkit.run import Run

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def pipe() -> Any:
    return flux_networks.reference()


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    with flux_networks.home(tmp_path):
        yield tmp_path


@pytest.fixture
def card(place: Path) -> Card:
    return flux_networks.card(place)


@pytest.fixture
def run(place: Path) -> Iterator[Run]:
    with Run(device="cpu", workers=1) as run:
        yield run


def test_an_image_is_that_of_a_direct_call(card: Card, run: Run, pipe: Any) -> None:
    asked = job(3)
    (result,) = Engine(card).fill([asked], run)
    assert np.array_equal(result.images[0], direct(pipe, asked))


def _unit(asked: FillJob) -> Unit:
    """Image 0 of a job, with random embeddings of few words."""
    generator = torch.Generator().manual_seed(asked.seeds[0])
    words, pooled = torch.randn(1, 16, 64, generator=generator), torch.randn(1, 32, generator=generator)
    return Unit(asked.pixels, asked.mask, words, pooled, seed=asked.seeds[0])


@pytest.fixture
def pretended_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offloading does on the processor what it does with a stream on a GPU."""
    from diffusers import FluxTransformer2DModel
    from diffusers.hooks import group_offloading

    class Stream:
        def synchronize(self) -> None:
            pass

    class Backend:
        def __init__(self, device: Any) -> None:
            pass

        def stream(self, stream: Any) -> Any:
            return contextlib.nullcontext()

        def current_stream(self) -> Any:
            return Stream()

    def enable(self: Any, *, offload_type: str, use_stream: bool, **options: Any) -> None:
        kind = group_offloading.GroupOffloadingType(offload_type)
        config = group_offloading.GroupOffloadingConfig(
            offload_type=kind, non_blocking=False, record_stream=False, stream=Stream(), **options
        )
        group_offloading._apply_group_offloading(self, config)

    monkeypatch.setattr(group_offloading, "TorchDeviceBackend", Backend)
    monkeypatch.setattr(
        group_offloading.ModuleGroup, "_pinned_memory_tensors",
        lambda self: contextlib.nullcontext(self.cpu_param_dict),
    )  # fmt: skip
    monkeypatch.setattr(FluxTransformer2DModel, "enable_group_offload", enable)


def black_forest_labs_shapes(width: int, words: int, pooled: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors in their own layout, for one double and one single block."""
    linear = {
        "img_in": (384, width), "txt_in": (words, width), "time_in.in_layer": (256, width),
        "time_in.out_layer": (width, width), "vector_in.in_layer": (pooled, width),
        "vector_in.out_layer": (width, width), "guidance_in.in_layer": (256, width),
        "guidance_in.out_layer": (width, width), "final_layer.adaLN_modulation.1": (width, 2 * width),
        "final_layer.linear": (width, 64), "single_blocks.0.modulation.lin": (width, 3 * width),
        "single_blocks.0.linear1": (width, 7 * width), "single_blocks.0.linear2": (5 * width, width),
    }  # fmt: skip
    scales = ["single_blocks.0.norm."]
    for kind in ("img", "txt"):
        block = f"double_blocks.0.{kind}"
        linear |= {
            f"{block}_mod.lin": (width, 6 * width), f"{block}_attn.qkv": (width, 3 * width),
            f"{block}_attn.proj": (width, width), f"{block}_mlp.0": (width, 4 * width),
            f"{block}_mlp.2": (4 * width, width),
        }  # fmt: skip
        scales.append(f"{block}_attn.norm.")
    shapes: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs) in linear.items():
        shapes |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return shapes | {f"{name}{which}_norm.scale": (128,) for name in scales for which in ("query", "key")}


def close(one: Any, other: Any) -> bool:
    """Within one level: sums of a batch are added in another order."""
    return int(np.abs(one.astype(int) - other.astype(int)).max()) <= 1


@pytest.mark.parametrize("count", [2, 4, 5])
def test_image_k_is_made_from_seed_k_alone_or_in_a_batch(card: Card, run: Run, pipe: Any, count: int) -> None:
    asked = job(1, seeds=tuple(range(7, 7 + count)))
    (result,) = Engine(card).fill([asked], run)
    assert len(result.images) == count
    for k, image in enumerate(result.images):
        assert close(image, direct(pipe, asked, k))
    assert result.facts["batches"] == [min(4, count)] * min(4, count) + [1] * (count - 4)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_windows_and_prompts_of_several_photos_mix_in_a_batch(
    card: Card, run: Run, pipe: Any, order: tuple[int, ...]
) -> None:
    jobs = [job(k, prompt=f"a thing with {k} legs", seeds=(k, 90 + k) if k == 1 else (k,)) for k in order]
    results = {result.job.name: result for result in Engine(card).fill(jobs, run)}
    for asked in jobs:
        for k, image in enumerate(results[asked.name].images):
            assert close(image, direct(pipe, asked, k))
        assert results[asked.name].facts["batches"] == [4] * len(asked.seeds)


def test_what_cannot_be_batched_is_not(card: Card, run: Run, pipe: Any) -> None:
    jobs = [
        job(0), job(1, size=(64, 96)), job(2, parameters={"steps": 2}), job(3, parameters={"guidance": 35.0})
    ]  # fmt: skip
    results = list(Engine(card).fill(jobs, run))
    assert [result.facts["batches"] for result in results] == [[1]] * 4
    for result in results:
        assert np.array_equal(result.images[0], direct(pipe, result.job))


def test_guidance_of_a_card_that_takes_none_is_none(card: Card, run: Run, pipe: Any) -> None:
    asked = job(0, parameters={"guidance": 0.0})
    (result,) = Engine(card).fill([asked], run)
    assert np.array_equal(result.images[0], direct(pipe, asked))


def test_other_holes_are_sent_as_holes(card: Card, run: Run, pipe: Any) -> None:
    asked = job(0)
    blocked = np.zeros_like(asked.mask)
    blocked[:9, -9:] = 255
    asked = job(0, parameters={})
    asked = type(asked)(asked.pixels, asked.mask, blocked, "a cat", (0,), asked.parameters, asked.card, "blocked")
    (result,) = Engine(card).fill([asked], run)
    assert np.array_equal(result.images[0], direct(pipe, asked))
    assert not np.array_equal(result.images[0], direct(pipe, job(0)))


class TestPrompts:
    def test_encoders_are_never_loaded_for_prompts_known_on_disk(
        self, card: Card, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (first,) = Engine(card).fill([job(0)], run)

        def loaded(self: Any) -> Any:
            raise AssertionError("the encoders were loaded")

        monkeypatch.setattr(Texts, "_loaded", loaded)
        (again,) = Engine(card).fill([job(0)], run)
        assert np.array_equal(first.images[0], again.images[0])
        with pytest.raises(AssertionError, match="were loaded"):
            list(Engine(card).fill([job(0, prompt="another")], run))

    def test_other_encoders_make_other_embeddings(self, tmp_path: Path) -> None:
        folder = flux_networks.copy_to(tmp_path / "own")
        with flux_networks.home(tmp_path, folder):
            texts = Texts("tiny", Files(folder), "float32", 512)
            texts.encode(["a cat"], "cpu", keep=False)
            assert texts.get("a cat") is not None
            (folder / "text_encoder" / "config.json").touch()
            assert Texts("tiny", Files(folder), "float32", 512).get("a cat") is None
            assert Texts("tiny", Files(folder), "bfloat16", 512).get("a cat") is None
            assert Texts("tiny", Files(folder), "float32", 128).get("a cat") is None

    @pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
    def test_what_comes_from_disk_is_bit_for_bit_what_was_encoded(self, place: Path, dtype: str) -> None:
        files = Files(flux_networks.saved())
        made = Texts("tiny", files, dtype, 512).encode(["a cat"], "cpu", keep=False)["a cat"]
        found = Texts("tiny", files, dtype, 512).get("a cat")
        assert found is not None
        for one, other in zip(made, found, strict=True):
            assert one.dtype == other.dtype == getattr(torch, dtype)
            assert torch.equal(one, other)

    def test_words_too_many_are_said(self, card: Card, run: Run) -> None:
        (result,) = Engine(card).fill([job(0, prompt="x" * 600)], run)
        assert result.notes == ("the prompt's last 90 words (tokens) are too many and were not read",)
        (result,) = Engine(card).fill([job(0, prompt="x" * 511)], run)
        assert result.notes == ("the prompt's last 1 words (tokens) are too many and were not read",)
        (result,) = Engine(card).fill([job(0, prompt="x" * 510)], run)
        assert result.notes == ()

    def test_the_libraries_do_not_speak_of_it(
        self, card: Card, run: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging.getLogger("diffusers"), "propagate", True)
        list(Engine(card).fill([job(0, prompt="many words that no one reads " * 30)], run))
        assert "truncated" not in caplog.text


def together(card: Card, asked: Sequence[tuple[FillJob, Run]]) -> list[Any]:
    """Answers, or what was raised, of jobs that meet in one batch of the queue."""
    begun, going = threading.Event(), threading.Event()
    engine = Engine(card)
    fill = engine.fill

    def held(jobs: Any, run: Any) -> Any:
        begun.set()
        assert going.wait(60)
        return fill(jobs, run)

    engine.fill = held  # type: ignore[method-assign]
    queue = BatchQueue(card, engine)
    with ThreadPoolExecutor(1 + len(asked)) as pool:
        first = pool.submit(lambda: list(queue.submit([job(99)], asked[-1][1].child("first"))))
        assert begun.wait(60)
        futures = []
        for number, (one, run) in enumerate(asked, start=1):
            futures.append(pool.submit(lambda one=one, run=run: next(queue.submit([one], run))))
            while queue._waiting.qsize() < number:
                time.sleep(0.001)
        going.set()
        first.result()
        answers = [future.exception() or future.result() for future in futures]
    queue.close()
    return answers


class TestCancelling:
    @pytest.mark.parametrize("speed", ["exact", "fast"])
    def test_between_steps_leaves_it_clean(self, card: Card, run: Run, speed: str) -> None:
        engine, asked = Engine(card), job(0, parameters={"speed": speed, "steps": 4})
        (before,) = engine.fill([asked], run)
        seen = []

        def progress(name: str, share: float) -> None:
            seen.append(share)
            if share == 0.5:
                stopped.cancel()

        stopped = run.child("stopped", progress=progress)
        with pytest.raises(Cancelled):
            list(engine.fill([job(5, parameters={"speed": speed, "steps": 4})], stopped))
        assert seen == [0.25, 0.5]
        (after,) = engine.fill([asked], run)
        assert np.array_equal(before.images[0], after.images[0])

    def test_one_of_a_batch_does_not_drop_the_other(self, card: Card, run: Run, pipe: Any) -> None:
        queue = BatchQueue(card, Engine(card))
        stopped, going = run.child("stopped"), run.child("going")
        stopped._progress = lambda name, share: stopped.cancel()
        with ThreadPoolExecutor(2) as pool:
            one = pool.submit(lambda: list(queue.submit([job(1)], stopped)))
            other = pool.submit(lambda: list(queue.submit([job(2)], going)))
            with pytest.raises(Cancelled):
                one.result()
            assert close(other.result()[0].images[0], direct(pipe, job(2)))
        queue.close()

    def test_of_one_made_alone_does_not_drop_what_waits_behind_it(self, card: Card, run: Run, pipe: Any) -> None:
        stopped, going = run.child("stopped"), run.child("going")
        stopped._progress = lambda name, share: stopped.cancel()
        fast = {"speed": "fast"}
        answers = together(card, [(job(1, parameters=fast), stopped), (job(2, parameters=fast), going)])
        assert isinstance(answers[0], Cancelled)
        assert np.array_equal(answers[1].images[0], direct(pipe, job(2)))

    def test_before_it_began_nothing_is_made(self, card: Card, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        run.cancel()
        with pytest.raises(Cancelled):
            list(Engine(card).fill([job(0)], run))


def test_threads_share_one_pipeline(card: Card, run: Run, pipe: Any) -> None:
    engine = Engine(card)
    jobs = [job(k, parameters={"steps": 2 + k % 2}) for k in range(6)]
    with ThreadPoolExecutor(3) as pool:
        made = list(pool.map(lambda one: next(iter(engine.fill([one], run))), jobs))
    for asked, result in zip(jobs, made, strict=True):
        assert np.array_equal(result.images[0], direct(pipe, asked))


def test_progress_of_a_job_with_several_images_never_goes_back(card: Card, run: Run) -> None:
    seen: list[float] = []
    watched = run.child("watched", progress=lambda name, share: seen.append(share))
    list(Engine(card).fill([job(0, seeds=tuple(range(5)))], watched))
    assert seen == pytest.approx([4 / 15, 8 / 15, 12 / 15, 13 / 15, 14 / 15, 1.0])


def test_what_was_not_the_same_for_all_images_is_told_of_each(
    card: Card, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, calls = Network.images, []

    def failing(self: Network, *arguments: Any, **rest: Any) -> Any:
        calls.append(self.mode)
        if calls == ["full", "full"]:
            raise torch.OutOfMemoryError("no")
        return images(self, *arguments, **rest)

    monkeypatch.setattr(Network, "images", failing)
    (result,) = Engine(card).fill([job(0, seeds=tuple(range(5)))], run)
    assert result.facts["memory"] == ["full"] * 4 + ["quantized"]
    assert (result.facts["batches"], result.facts["speed"]) == ([4, 4, 4, 4, 1], "exact")


def test_windows_of_several_photos_meet_in_the_queue(card: Card, run: Run) -> None:
    started, release = threading.Event(), threading.Event()
    engine = Engine(card)
    fill = engine.fill

    def held(jobs: Any, run: Any) -> Any:
        started.set()
        release.wait()
        return fill(jobs, run)

    engine.fill = held  # type: ignore[method-assign]
    queue = BatchQueue(card, engine)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(lambda: list(queue.submit([job(0)], run.child("a"))))
        started.wait()
        rest = [pool.submit(lambda k=k: list(queue.submit([job(k)], run.child(str(k))))) for k in (1, 2)]
        while queue._waiting.qsize() < 2:
            time.sleep(0.001)
        release.set()
        assert first.result()[0].facts["batches"] == [1]
        assert [one.result()[0].facts["batches"] for one in rest] == [[2], [2]]
    queue.close()


class TestMemory:
    def test_offloading_changes_no_bit(self, card: Card, run: Run, pipe: Any) -> None:
        engine = Engine(card)
        for seed in (0, 1):
            (result,) = engine.fill([job(seed, parameters={"memory": "offload"})], run)
            assert result.facts["memory"] == "offload"
            assert np.array_equal(result.images[0], direct(pipe, job(seed)))

    def test_quantized_is_eight_bits_as_torchao_does_them(self, card: Card, run: Run, pipe: Any) -> None:
        from diffusers import FluxFillPipeline, FluxTransformer2DModel, TorchAoConfig
        from torchao.quantization import Int8Tensor, Int8WeightOnlyConfig

        config = TorchAoConfig(Int8WeightOnlyConfig())
        transformer = FluxTransformer2DModel.from_pretrained(
            flux_networks.saved() / "transformer", quantization_config=config, dtype=torch.float32
        )
        assert isinstance(transformer.transformer_blocks[0].attn.to_q.weight, Int8Tensor)
        quantized = FluxFillPipeline(**{**pipe.components, "transformer": transformer})
        quantized.set_progress_bar_config(disable=True)
        engine = Engine(card)
        (result,) = engine.fill([job(0, parameters={"memory": "quantized"})], run)
        assert result.facts["memory"] == "quantized"
        assert engine._network is not None
        linear = [one for one in engine._network.pipe.transformer.modules() if isinstance(one, torch.nn.Linear)]
        assert all(isinstance(one.weight, Int8Tensor) for one in linear)
        assert np.array_equal(result.images[0], direct(quantized, job(0)))
        difference = np.abs(result.images[0].astype(int) - direct(pipe, job(0)).astype(int))
        assert difference.max() <= 4

    def test_modes_may_change_between_requests(self, card: Card, run: Run, pipe: Any) -> None:
        engine = Engine(card)
        for mode in ("full", "offload", "full"):
            (result,) = engine.fill([job(0, parameters={"memory": mode})], run)
            assert result.facts["memory"] == mode
            assert np.array_equal(result.images[0], direct(pipe, job(0)))

    def test_out_of_memory_steps_down_once_and_says_so(
        self, card: Card, run: Run, pipe: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        images = Network.images

        def failing(self: Network, *arguments: Any, **rest: Any) -> Any:
            if self.mode in full:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.\nand more")
            return images(self, *arguments, **rest)

        monkeypatch.setattr(Network, "images", failing)
        full, engine = ["full"], Engine(card)
        (result,) = engine.fill([job(0, parameters={"memory": "auto"})], run)
        took = "memory auto took quantized: cpu has no room for more"
        assert result.notes == ("cpu ran out of memory with memory full; it went on with quantized", took)
        assert result.facts["memory"] == "quantized"
        (result,) = engine.fill([job(0)], run)
        assert (result.notes, result.facts["memory"]) == ((took,), "quantized")
        full += ["quantized", "offload"]
        with pytest.raises(EngineError, match="ran out of memory with memory offload at 96x64") as caught:
            list(engine.fill([job(0)], run))
        assert "\n" not in str(caught.value)

    def test_a_mode_asked_for_is_never_left(self, card: Card, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def failing(self: Network, *arguments: Any, **rest: Any) -> Any:
            raise torch.OutOfMemoryError("no")

        monkeypatch.setattr(Network, "images", failing)
        with pytest.raises(EngineError, match="ran out of memory with memory full"):
            list(Engine(card).fill([job(0, parameters={"memory": "full"})], run))

    def test_a_mode_asked_for_once_is_not_what_auto_takes(self, place: Path, run: Run, pipe: Any) -> None:
        engine = Engine(flux_networks.card(place, memory=flux_networks.NEED))
        for mode in ("quantized", "offload"):
            (asked,) = engine.fill([job(0, parameters={"memory": mode})], run)
            assert (asked.facts["memory"], asked.notes) == (mode, ())
            (result,) = engine.fill([job(0)], run)
            assert (result.facts["memory"], result.notes) == ("full", ())
            assert np.array_equal(result.images[0], direct(pipe, job(0)))

    @pytest.mark.parametrize(
        ("gib", "mode", "tiled", "batches"),
        [(9.0, "full", False, [2, 2]), (0.023, "full", True, [1, 1]), (0.018, "quantized", True, [1, 1])],
    )
    def test_auto_takes_the_largest_that_fits(
        self, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, gib: float, mode: str, tiled: bool,
        batches: list[int],
    ) -> None:  # fmt: skip
        need = {**flux_networks.NEED, "denoise": 0.5, "decode": 1.0, "tile": 0.0005}
        monkeypatch.setattr(devices, "free_memory", lambda device: int((gib - held()) * 2**30))
        engine = Engine(flux_networks.card(place, memory=need))

        def held() -> float:
            return need[engine._network.mode] if engine._network else 0.0

        (result,) = engine.fill([job(0, seeds=(0, 1))], run)
        assert (result.facts["memory"], result.facts["tiled"], result.facts["batches"]) == (mode, tiled, batches)
        assert bool(result.notes) == (mode != "full")

    def test_loras_take_room_too(self, place: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        need = {**flux_networks.NEED, "full": 2.0, "quantized": 1.0, "offload": 0.5}
        monkeypatch.setattr(devices, "free_memory", lambda device: int(2.8 * 2**30))
        engine = Engine(flux_networks.card(place, memory=need))
        lora = tmp_path / "one.safetensors"
        with lora.open("wb") as file:
            file.truncate(2**30)
        request = _request(job(0))
        alone, beside, unused = (
            engine._plan(request, 1, "cuda", [*given]) for given in ((), [(lora, 1.0)], [(lora, 0.0)])
        )
        assert alone.mode == "full"
        assert beside.mode == "quantized"
        assert beside.peak is not None
        assert beside.peak > 2.0
        assert unused.mode == "quantized"  # once less was taken `auto` stays with it

    def test_where_nothing_fits_the_sizes_are_said(
        self, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(devices, "free_memory", lambda device: 2**20)
        engine = Engine(flux_networks.card(place, memory=flux_networks.NEED))
        with pytest.raises(EngineError, match=r"takes 0.0 GiB full, 0.0 GiB quantized, 0.0 GiB offload; 0.0 GiB can"):
            list(engine.fill([job(0)], run))

    def test_tiles_are_those_of_diffusers(self, place: Path, pipe: Any) -> None:
        network = Network("tiny", Files(flux_networks.saved()), "float32", "cpu", "full")
        asked = job(0, size=(576, 528))
        embedding = Texts("tiny", Files(flux_networks.saved()), "float32", 512).encode(["a cat"], "cpu", keep=False)
        unit = Unit(asked.pixels, asked.mask, *embedding["a cat"], seed=0)
        tiled, plain = (network.images([unit], 1, 30.0, lambda step: None, tiled=tiled)[0] for tiled in (True, False))
        assert not np.array_equal(tiled, plain)
        assert np.array_equal(plain, direct(pipe, asked, num_inference_steps=1))


class TestEncoders:
    """A device that is none, so that it can be short of memory."""

    @pytest.fixture(autouse=True)
    def pretended(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.read: list[tuple[str, bool]] = []
        self.failing = False
        encode = Texts.encode

        def pretended(texts: Texts, prompts: Any, device: str, *, keep: bool) -> Any:
            self.read.append((device, keep))
            if device != "cpu" and self.failing:
                raise torch.OutOfMemoryError("no")
            made = encode(texts, prompts, "cpu", keep=keep)
            texts.device = device if keep else ""
            return made

        monkeypatch.setattr(Texts, "encode", pretended)
        monkeypatch.setattr(devices, "free_memory", lambda device: None)

    def test_where_they_run_out_of_memory_the_processor_reads(self, card: Card) -> None:
        self.failing = True
        found, notes = Engine(card)._read(["a cat"], "cuda")
        assert self.read == [("cuda", False), ("cpu", False)]
        assert list(found) == list(notes) == ["a cat"]
        assert notes["a cat"] == [
            "the prompt was read on the processor: cuda ran out of memory with the text encoders"
        ]  # fmt: skip

    def test_what_is_read_in_part_leaves_no_encoders(self, card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.undo()
        texts = Texts("tiny", Files(flux_networks.saved()), "float32", 512)
        texts.encode(["a cat"], "cpu", keep=True)
        monkeypatch.setattr(texts._kept, "put", None)
        with pytest.raises(TypeError):
            texts.encode(["a dog"], "cpu", keep=True)
        assert (texts._encoders, texts.device) == (None, "")

    def test_those_that_stay_are_room_for_themselves_and_for_pictures(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        need = {**flux_networks.NEED, "encoders": 0.5, "decode": 0.2}
        engine = Engine(flux_networks.card(place, memory=need))
        free = 1.0
        monkeypatch.setattr(devices, "free_memory", lambda device: int(free * 2**30))
        assert engine._read(["a cat"], "cuda")[1] == {}
        free = 0.5  # they are there
        assert engine._read(["a dog"], "cuda")[1] == {}
        assert self.read == [("cuda", True), ("cuda", True)]
        free = 0.1
        assert engine._plan(_request(job(0)), 1, "cuda").mode == "full"
        assert engine._texts is not None
        assert engine._texts.device == "cuda"
        free = 0.01
        assert engine._plan(_request(job(0)), 1, "cuda").mode == "full"
        assert engine._texts.device == ""


class TestPlan:
    need = Need(
        full=22.4, quantized=11.4, offload=1.7, encoders=9.2, denoise=0.46, decode=1.5, tile=0.4, spare=1.0
    )  # fmt: skip

    @given(st.floats(0, 100), st.integers(16, 96), st.integers(16, 96), st.integers(1, 8))
    def test_what_is_planned_fits_and_more_would_not(self, room: float, width: int, height: int, batch: int) -> None:
        size = Size(16 * width, 16 * height)
        least = self.need.peak("offload", size, 1, True)
        try:
            made = plan("flux", self.need, MODES, room, size, batch)
        except EngineError:
            assert room < least
            return
        assert made.peak == self.need.peak(made.mode, size, made.batch, made.tiled)
        assert made.peak <= room
        for better in MODES[: MODES.index(made.mode)]:
            assert self.need.peak(better, size, 1, True) > room
        if made.batch < batch:
            assert self.need.peak(made.mode, size, made.batch + 1, made.tiled) > room

    @given(st.floats(3.2, 100), st.floats(0, 50))
    def test_more_room_is_never_used_worse(self, room: float, more: float) -> None:
        size = Size(1024, 1024)
        one, other = (plan("flux", self.need, MODES, gib, size, 4) for gib in (room, room + more))
        assert MODES.index(other.mode) <= MODES.index(one.mode)

    @pytest.mark.parametrize("mode", MODES)
    def test_a_mode_by_name_is_taken_or_refused(self, mode: Any) -> None:
        assert plan("flux", self.need, (mode,), 80.0, Size(512, 512), 2).mode == mode
        with pytest.raises(EngineError, match="close other programs") as caught:
            plan("flux", self.need, (mode,), 0.5, Size(512, 512), 2)
        assert ("choose memory auto" in str(caught.value)) == (mode != "offload")

    def test_where_nothing_is_known_the_first_is_taken(self) -> None:
        assert plan("flux", None, MODES, 1.0, Size(512, 512), 2).mode == "full"
        assert plan("flux", self.need, MODES, None, Size(512, 512), 2).mode == "full"


class TestSpeed:
    def test_fast_is_the_first_block_cache_of_diffusers(self, place: Path, run: Run) -> None:
        from diffusers import FirstBlockCacheConfig

        pipe = flux_networks.reference()
        pipe.transformer.enable_cache(FirstBlockCacheConfig(threshold=0.9))
        asked = job(0, seeds=(0, 1), parameters={"speed": "fast", "steps": 6})
        engine = Engine(flux_networks.card(place, first_block_threshold=0.9))
        (result,) = engine.fill([asked], run)
        for k in (0, 1):
            with pipe.transformer.cache_context("fill"):
                assert np.array_equal(result.images[k], direct(pipe, asked, k))
        assert result.facts["batches"] == [1, 1]
        pipe.transformer.disable_cache()
        exact = direct(pipe, asked)
        assert not np.array_equal(result.images[0], exact)  # steps were skipped
        (after,) = engine.fill([job(0, parameters={"steps": 6})], run)
        assert np.array_equal(after.images[0], exact)

    @pytest.mark.parametrize("speed", ["exact", "fast"])
    def test_compiled_blocks_give_the_same(
        self, place: Path, run: Run, monkeypatch: pytest.MonkeyPatch, speed: str
    ) -> None:
        asked = job(0, parameters={"speed": speed, "steps": 4})
        card = flux_networks.card(place, first_block_threshold=0.9)
        (plain,) = Engine(card).fill([asked], run)
        calls = []

        def eager(function: Any, **options: Any) -> Any:
            calls.append(options)
            return compile_(function, backend="eager", **options)

        compile_ = torch.compile
        monkeypatch.setattr(torch, "compile", eager)
        monkeypatch.setattr(_flux_network, "_can_compile", lambda device: True)
        (result,) = Engine(card).fill([asked], run)
        assert calls == [{"fullgraph": True, "dynamic": True}] * 4
        assert result.facts["compiled"]
        assert np.array_equal(result.images[0], plain.images[0])

    def test_blocks_may_be_compiled_more_often_than_torch_itself_lets_them(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compile_ = torch.compile
        monkeypatch.setattr(torch, "compile", lambda function, **rest: compile_(function, backend="eager", **rest))
        monkeypatch.setattr(_flux_network, "_can_compile", lambda device: True)
        torch.compiler.reset()
        network = Network("tiny", Files(flux_networks.saved()), "float32", "cpu", "full")
        unit = _unit(job(0))
        with torch._dynamo.config.patch(recompile_limit=1), monkeypatch.context() as patch:
            patch.setattr(torch.compiler, "reset", None)
            network.images([unit], 1, 30.0, lambda step: None)
            network.images([unit, unit], 1, 30.0, lambda step: None)  # several images are compiled anew
        torch.compiler.reset()

    def test_more_loras_than_blocks_may_be_compiled_for_are_no_end(
        self, place: Path, pipe: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        compile_ = torch.compile
        monkeypatch.setattr(torch, "compile", lambda function, **rest: compile_(function, backend="eager", **rest))
        plain = Network("tiny", Files(flux_networks.saved()), "float32", "cpu", "full")
        monkeypatch.setattr(_flux_network, "_can_compile", lambda device: True)
        monkeypatch.setattr(_flux_network, "_VARIANTS", 2)
        compiled = Network("tiny", Files(flux_networks.saved()), "float32", "cpu", "full")
        networks = [(network, Loras(network.pipe, "tiny")) for network in (plain, compiled)]
        for rank in (2, 3, 4):
            path = written(pipe, place / f"{rank}.safetensors", seed=1, rank=rank)
            made = []
            for network, loras in networks:
                loras.use([(path, 1.0)])
                made += network.images([_unit(job(0))], 3, 30.0, lambda step: None, threshold=0.9)
            assert np.array_equal(*made)
        torch.compiler.reset()

    @pytest.mark.parametrize("works", [True, False])
    def test_where_compiling_fails_it_is_not_used(self, monkeypatch: pytest.MonkeyPatch, works: bool) -> None:
        def compiled(function: Any, **rest: Any) -> Any:
            if not works:
                raise RuntimeError("Failed to find C compiler")
            return function

        ones = torch.ones
        monkeypatch.setattr(torch, "compile", compiled)
        monkeypatch.setattr(torch, "ones", lambda count, device: ones(count))
        monkeypatch.setattr(_flux_network.importlib.util, "find_spec", lambda name: name)
        assert _flux_network._can_compile("cuda:0") == works
        assert not _flux_network._can_compile("cpu")

    def test_a_cache_under_which_offloading_learns_the_order_of_blocks_still_skips(
        self, place: Path, pretended_stream: None
    ) -> None:
        unit = _unit(job(0))
        made: dict[Any, Any] = {}
        for mode, order in (("full", (0.9, 0.0)), ("offload", (0.9, 0.0, 0.9)), ("offload", (0.0, 0.9, 0.0))):
            network = Network("tiny", Files(flux_networks.saved()), "float32", "cpu", mode)  # type: ignore[arg-type]
            for threshold in order:
                (image,) = network.images([unit], 6, 30.0, lambda step: None, threshold=threshold)
                assert np.array_equal(image, made.setdefault(threshold, image)), (mode, order, threshold)
        assert not np.array_equal(made[0.9], made[0.0])

    def test_attention_that_fails_when_called_is_not_taken(self) -> None:
        shape = (1, 64, 2, 16)
        assert _flux_attention.probe(["native", "_native_cudnn", "flash"], "cpu", torch.float32, shape) == "native"
        assert _flux_attention.probe(["native", "_native_math"], "cpu", torch.float32, shape) in (
            "native", "_native_math",
        )  # fmt: skip

    def test_attention_is_chosen_for_this_network_alone(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry

        def taken(network: Network) -> set[Any]:
            blocks = network.pipe.transformer.transformer_blocks
            return {block.attn.processor._attention_backend for block in blocks}

        monkeypatch.setattr(_flux_attention, "best", lambda device, dtype: names.pop(0))
        names = ["_native_math", "native"]
        one, other = (Network("tiny", Files(flux_networks.saved()), "float32", "cpu", "full") for _ in range(2))
        assert taken(one) == {AttentionBackendName._NATIVE_MATH}
        assert taken(other) == {AttentionBackendName.NATIVE}
        assert _AttentionBackendRegistry.get_active_backend()[0] == AttentionBackendName.NATIVE

    def test_attention_that_is_no_longer_installed_is_probed_anew(
        self, place: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        answers = ["flash", "native"]
        monkeypatch.setattr(_flux_attention, "probe", lambda *arguments: answers.pop(0))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "a card")
        assert [_flux_attention.best("cuda", torch.bfloat16) for _ in range(3)] == ["flash", "native", "native"]

    @pytest.mark.parametrize("fault", ["another answer", "cannot be compiled"])
    def test_attention_that_is_of_no_use_is_not_taken(self, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
        kernel = _flux_attention._kernel

        def wrong(*given: Any) -> Any:
            if fault == "cannot be compiled":
                torch._dynamo.graph_break()
            return kernel("native")(*given) * (2 if fault == "another answer" else 1)

        monkeypatch.setattr(_flux_attention, "_kernel", lambda name: wrong if name == "_native_math" else kernel(name))
        monkeypatch.setattr(_flux_attention, "_seconds", lambda name, given: 0.1 if name == "_native_math" else 1.0)
        found = _flux_attention.probe(["native", "_native_math"], "cpu", torch.float32, (1, 64, 2, 16))
        assert found == "native"
        monkeypatch.setattr(_flux_attention, "_kernel", kernel)
        found = _flux_attention.probe(["native", "_native_math"], "cpu", torch.float32, (1, 64, 2, 16))
        assert found == "_native_math"


class TestFiles:
    @pytest.fixture
    def single(self, tmp_path: Path) -> Path:
        """The transformer alone, other than the folder's."""
        from safetensors.torch import load_file, save_file

        state = load_file(flux_networks.saved() / "transformer" / "diffusion_pytorch_model.safetensors")
        save_file({name: value * 1.01 for name, value in state.items()}, tmp_path / "own.safetensors")
        return tmp_path / "own.safetensors"

    def test_a_single_file_is_the_transformer(self, place: Path, run: Run, single: Path) -> None:
        from safetensors.torch import load_file

        pipe = flux_networks.reference()
        pipe.transformer.load_state_dict(load_file(single))
        with flux_networks.home(place, single):
            flux_networks.copy_to(place / "cache" / "weights" / "fill-tiny")
            (result,) = Engine(flux_networks.card(place)).fill([job(0)], run)
        assert np.array_equal(result.images[0], direct(pipe, job(0)))

    @pytest.mark.parametrize("key", ["scaled_fp8", "transformer_blocks.0.attn.to_q.scale_weight"])
    def test_a_single_file_with_scales_is_refused(self, single: Path, key: str) -> None:
        from safetensors.torch import load_file, save_file

        save_file({**load_file(single), key: torch.ones(1)}, single)
        with pytest.raises(EngineError, match=f"holds {key}: its weights are in 8 bits with scales"):
            Network("tiny", Files(flux_networks.saved(), single), "float32", "cpu", "full")

    def test_a_single_file_is_quantized_as_the_folder_is(self, place: Path) -> None:
        from torchao.quantization import Int8Tensor

        folder = flux_networks.saved()
        (file,) = (folder / "transformer").glob("*.safetensors")
        networks = [
            Network("tiny", files, "float32", "cpu", "quantized") for files in (Files(folder), Files(folder, file))
        ]
        linear = [one for one in networks[1].pipe.transformer.modules() if isinstance(one, torch.nn.Linear)]
        assert all(isinstance(one.weight, Int8Tensor) for one in linear)
        one, other = (network.images([_unit(job(0))], 2, 30.0, lambda step: None)[0] for network in networks)
        assert np.array_equal(one, other)

    @pytest.mark.heavy
    def test_black_forest_labs_own_layout_is_read(self, tmp_path: Path) -> None:
        """Every tensor of a file with their names finds its place; one of each kind of block at the real width."""
        from safetensors.torch import save_file

        folder = flux_networks.copy_to(tmp_path / "own")
        config = folder / "transformer" / "config.json"
        wide = {
            "num_layers": 1, "num_single_layers": 1, "num_attention_heads": 24, "attention_head_dim": 128,
            "axes_dims_rope": [16, 56, 56],
        }  # fmt: skip
        config.write_text(json.dumps(json.loads(config.read_text()) | wide))
        shapes = black_forest_labs_shapes(3072, words=64, pooled=32)
        state = {
            name: torch.full(shape, number + 1.0, dtype=torch.bfloat16)
            for number, (name, shape) in enumerate(shapes.items())
        }
        save_file(state, tmp_path / "flux1-fill-dev.safetensors")
        network = _flux_network._transformer(
            "tiny", Files(folder, tmp_path / "flux1-fill-dev.safetensors"), torch.bfloat16, "cpu", "full"
        )
        number = {name: k + 1.0 for k, name in enumerate(shapes)}
        places = {
            "x_embedder.weight": "img_in.weight", "context_embedder.bias": "txt_in.bias",
            "transformer_blocks.0.attn.to_k.weight": "double_blocks.0.img_attn.qkv.weight",
            "transformer_blocks.0.attn.add_v_proj.bias": "double_blocks.0.txt_attn.qkv.bias",
            "transformer_blocks.0.ff.net.2.weight": "double_blocks.0.img_mlp.2.weight",
            "single_transformer_blocks.0.attn.to_q.weight": "single_blocks.0.linear1.weight",
            "single_transformer_blocks.0.proj_out.weight": "single_blocks.0.linear2.weight",
            "norm_out.linear.weight": "final_layer.adaLN_modulation.1.weight",
        }  # fmt: skip
        found = dict(network.named_parameters())
        assert not any(parameter.is_meta for parameter in found.values())
        for ours, theirs in places.items():
            assert found[ours].unique().tolist() == [number[theirs]]

    @pytest.mark.parametrize("part", ["transformer", "vae", "text_encoder", "text_encoder_2"])
    @pytest.mark.parametrize("damage", ["truncated", "another's", "gone"])
    def test_files_that_are_wrong_are_said_in_a_sentence(
        self, tmp_path: Path, run: Run, part: str, damage: str
    ) -> None:
        folder = flux_networks.copy_to(tmp_path / "own")
        (file,) = (folder / part).glob("*.safetensors")
        if damage == "truncated":
            file.write_bytes(file.read_bytes()[:-999])
        elif damage == "gone":
            file.unlink()
        else:
            other = {"vae": "text_encoder"}.get(part, "vae")
            file.write_bytes(next((flux_networks.saved() / other).glob("*.safetensors")).read_bytes())
        with flux_networks.home(tmp_path, folder):
            with pytest.raises(EngineError) as caught:
                list(Engine(flux_networks.card(tmp_path)).fill([job(0)], run))
        assert "\n" not in str(caught.value)
        assert str(folder) in str(caught.value)


def test_without_a_gpu_it_says_what_it_would_take(card: Card, place: Path) -> None:
    with Run(workers=1) as run, pytest.raises(EngineError) as caught:
        list(Engine(card).fill([job(0)], run))
    assert "needs a GPU" in str(caught.value)
    assert "GiB" in str(caught.value)
    assert "--device cpu" in str(caught.value)


def test_a_network_that_gives_no_numbers_is_an_error(card: Card, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = Engine(card)
    list(engine.fill([job(0)], run))
    assert engine._network is not None
    weight = engine._network.pipe.vae.decoder.conv_out.weight
    weight.data.fill_(float("nan"))
    with pytest.raises(EngineError, match="gave no numbers"):
        list(engine.fill([job(0)], run))


class TestLoras:
    @pytest.fixture
    def lora(self, tmp_path: Path, pipe: Any) -> Path:
        return written(pipe, tmp_path / "style.safetensors", seed=1)

    def test_scales_and_going_without(self, card: Card, run: Run, lora: Path) -> None:
        engine = Engine(card)
        (plain,) = engine.fill([job(0)], run)
        for scale in (0.8, 0.0, 2.0):
            pipe = flux_networks.reference()
            pipe.load_lora_weights(lora.parent, weight_name=lora.name, adapter_name="style")
            pipe.set_adapters(["style"], [scale])
            wanted = {"lora": [{"path": str(lora), "scale": scale}]}
            (result,) = engine.fill([job(0, parameters=wanted)], run)
            assert np.array_equal(result.images[0], direct(pipe, job(0)))
            assert np.array_equal(result.images[0], plain.images[0]) == (scale == 0)
            (after,) = engine.fill([job(0)], run)
            assert np.array_equal(after.images[0], plain.images[0])

    @pytest.mark.parametrize("memory", ["quantized", "offload"])
    def test_in_every_mode(self, card: Card, run: Run, lora: Path, memory: str) -> None:
        engine, mode = Engine(card), {"memory": memory}
        (plain,) = engine.fill([job(0, parameters=mode)], run)
        wanted = {"lora": [{"path": str(lora), "scale": 1.0}], **mode}
        (result,) = engine.fill([job(0, parameters=wanted)], run)
        assert not np.array_equal(result.images[0], plain.images[0])
        (after,) = engine.fill([job(0, parameters=mode)], run)
        assert np.array_equal(after.images[0], plain.images[0])

    def test_jobs_with_other_loras_are_no_batch(self, card: Card, run: Run, lora: Path) -> None:
        wanted = {"lora": [{"path": str(lora), "scale": 1.0}]}
        results = list(Engine(card).fill([job(0), job(1, parameters=wanted)], run))
        assert [result.facts["batches"] for result in results] == [[1], [1]]

    def test_one_that_is_fetched_is_used_like_a_file(self, card: Card, run: Run, lora: Path) -> None:
        told: list[str] = []
        watched = run.child("photo", progress=lambda name, share: told.append(name))
        with Server(lora.read_bytes()) as server:
            url = server.url("/fetched.safetensors")
            (fetched,) = together(card, [(job(0, parameters={"lora": [{"path": url, "scale": 1.0}]}), watched)])
        (own,) = Engine(card).fill([job(0, parameters={"lora": [{"path": str(lora), "scale": 1.0}]})], run)
        assert np.array_equal(fetched.images[0], own.images[0])
        assert any("fetching fetched.safetensors" in note for note in fetched.notes)
        assert f"photo: lora {url}" in told

    def test_a_wrong_one_of_one_edit_fails_no_other(self, card: Card, run: Run, pipe: Any, tmp_path: Path) -> None:
        (tmp_path / "no.safetensors").write_bytes(b"nothing")
        wanted = {"lora": [{"path": str(tmp_path / "no.safetensors"), "scale": 1.0}]}
        wrong, right = together(card, [(job(1, parameters=wanted), run.child("a")), (job(2), run.child("b"))])
        assert isinstance(wrong, InputError)
        assert np.array_equal(right.images[0], direct(pipe, job(2)))

    def test_a_wrong_one_damages_nothing(self, card: Card, run: Run, tmp_path: Path) -> None:
        engine = Engine(card)
        (plain,) = engine.fill([job(0)], run)
        (tmp_path / "no.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0nothing!")
        with pytest.raises(ToolkitError, match=r"no.safetensors"):
            wanted = {"lora": [{"path": str(tmp_path / "no.safetensors"), "scale": 1.0}]}
            list(engine.fill([job(0, parameters=wanted)], run))
        (after,) = engine.fill([job(0)], run)
        assert np.array_equal(after.images[0], plain.images[0])

    def test_turbo_and_the_cards_own_come_before_the_users(self, place: Path, run: Run, pipe: Any, lora: Path) -> None:
        own, turbo = (written(pipe, place / f"{name}.safetensors", seed) for name, seed in (("own", 2), ("turbo", 3)))
        card = flux_networks.card(
            place, loras=[{"path": str(own), "scale": 0.5}], turbo={"path": str(turbo), "scale": 1.0}
        )
        engine = Engine(card)
        for speed, files in (("exact", [(own, 0.5), (lora, 0.7)]), ("turbo", [(own, 0.5), (turbo, 1.0), (lora, 0.7)])):
            reference = flux_networks.reference()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # that there are several already
                for number, (file, _) in enumerate(files):
                    reference.load_lora_weights(file.parent, weight_name=file.name, adapter_name=f"slot{number}")
            reference.set_adapters([f"slot{n}" for n in range(len(files))], [scale for _, scale in files])
            given = {"speed": speed, "lora": [{"path": str(lora), "scale": 0.7}]}
            (result,) = engine.fill([job(0, parameters=given)], run)
            assert np.array_equal(result.images[0], direct(reference, job(0)))

    def test_turbo_without_a_lora_on_the_card_is_refused(self, card: Card, run: Run) -> None:
        with pytest.raises(EngineError, match="its card names no LoRA for speed turbo"):
            list(Engine(card).fill([job(0, parameters={"speed": "turbo"})], run))


def written(pipe: Any, path: Path, seed: int, rank: int = 4) -> Path:
    """A LoRA for some layers of the tiny network, in diffusers' own format."""
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, module in pipe.transformer.named_modules():
        if isinstance(module, torch.nn.Linear) and name.endswith(("attn.to_q", "attn.to_v", "ff.net.2")):
            outputs, inputs = module.weight.shape
            for side, shape in (("A", (rank, inputs)), ("B", (outputs, rank))):
                weight = torch.randn(shape, generator=generator) * 0.3
                state[f"transformer.{name}.lora_{side}.weight"] = weight
    save_file(state, path)
    return path
