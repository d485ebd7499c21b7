"""Salient-subject networks: equal to a bare onnxruntime session, and what is said where they cannot work."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from onnx_networks import contrast_network, random_network
from PIL import Image

from toolkit import cards, engines, weights
from toolkit.cards import Card
from toolkit.edit import Edit
from toolkit.engines import Prompts
from toolkit.engines.segment import saliency
from toolkit.engines.segment.saliency import Engine, Saliency, Settings, confidence_of, mask_of, providers_for
from toolkit.errors import Cancelled, EngineError, MaskError, RecipeError
from toolkit.geometry import Box, Size
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.stages.select import Select

Array = NDArray[Any]
SHIPPED = [card.name for card in cards.every("segment") if card.adapter == "saliency"]
IMAGENET = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
REMBG = {"filter": "lanczos", "brightest": True, "stretch": True}
SUBJECT = Prompts(subject=True)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def run() -> Iterator[Run]:
    with Run(workers=1, device="cpu") as one:
        yield one


def card_for(name: str = "birefnet-general", **changed: Any) -> Card:
    """A shipped card, of a smaller network, and without its claim to memory."""
    card = cards.find("segment", name)
    return card.model_copy(update={"settings": {**card.settings, **changed}, "memory": None})


def photo(width: int = 300, height: int = 200, seed: int = 0, brightest: int = 255) -> Array:
    """A soft red ellipse on a textured green ground; no value is above `brightest`."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    away = np.hypot((x - 0.55 * width) / (0.25 * width), (y - 0.5 * height) / (0.3 * height))
    share = np.clip((1.05 - away) * 10, 0, 1)[..., None]
    colours = share * [210, 60, 40] + (1 - share) * [60, 130, 70] + random.normal(0, 6, (height, width, 1))
    return np.clip(np.rint(colours * brightest / 255), 0, brightest).astype(np.uint8)


def reference(path: Path, pixels: Array, rules: Settings) -> Array:
    """The map as rembg and the networks' authors compute it: whole arrays and a bare session."""
    how = {"lanczos": Image.Resampling.LANCZOS, "bilinear": Image.Resampling.BILINEAR}[rules.filter]
    small = np.array(Image.fromarray(pixels).resize((rules.size, rules.size), how))
    scaled = small / max(small.max(), 1e-6) if rules.brightest else small / 255
    scaled = (scaled - np.array(rules.mean)) / np.array(rules.std)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    tensor = scaled.transpose(2, 0, 1)[None].astype(np.float32)
    answer = session.run(None, {session.get_inputs()[0].name: tensor})[0][:, 0].squeeze()
    if rules.activation == "sigmoid":
        answer = 1 / (1 + np.exp(-answer))
    if rules.stretch:
        answer = (answer - answer.min()) / (answer.max() - answer.min())
    return np.asarray(answer)


def interpolated(values: Array, size: Size) -> Array:
    """The map at the photo's size, as DIS makes it; averaged where that is smaller."""
    fit = min(size.width, values.shape[1]), min(size.height, values.shape[0])
    values = np.asarray(Image.fromarray(values).resize(fit, Image.Resampling.BILINEAR))
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(values.copy())[None, None], (size.height, size.width), mode="bilinear", align_corners=False
    )
    return np.asarray(whole[0, 0].numpy())


def balanced(path: Path, pixels: Array, rules: Settings, **kind: Any) -> Path:
    """A random network whose answer for the picture lies on both sides of 0.5."""
    logits = reference(random_network(path, rules.size, logits=True), pixels, rules.model_copy(update=RAW))
    return random_network(path, rules.size, bias=-float(np.median(logits)), **kind)


RAW = {"activation": "none", "stretch": False}


# -- parity ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SHIPPED)
def test_map_and_mask_are_those_of_a_bare_session(name: str, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the card's own size, the photo read in many strips, against whole arrays."""
    monkeypatch.setattr(saliency, "STRIP", 20_000)
    card, pixels = card_for(name), photo(900, 600, brightest=240)
    rules = Settings.model_validate(card.settings)
    outputs = 7 if name == "u2net" else 1
    logits = rules.activation == "sigmoid"
    path = balanced(weights.path(card), pixels, rules, logits=logits, outputs=outputs)
    engine, edit = Engine(card), Edit.of(pixels)
    key = engine.prepare(edit, run)
    (region,) = engine.segment(edit, key, SUBJECT, None, run).regions
    wanted = reference(path, pixels, rules)
    found = engine._maps[key].map
    assert found.dtype == np.float32
    assert np.abs(found - wanted).max() < 2e-6
    assert region.mask is not None
    assert region.mask.frame == edit.box
    assert region.box == region.mask.box
    assert region.label == "subject"
    full = interpolated(wanted.astype(np.float32), edit.box.size)
    apart = (region.mask.array() > 0) != (full > 0.5)
    assert not apart[np.abs(full - 0.5) > 1e-5].any()
    assert 0.05 < (full > 0.5).mean() < 0.95


@pytest.mark.parametrize("activation", ["none", "sigmoid"])
@pytest.mark.parametrize("brightest", [1, 90, 255])
def test_the_map_is_rembgs_with_rembgs_settings(activation: str, brightest: int, run: Run) -> None:
    pixels = photo(217, 331, brightest=brightest)
    card = card_for(size=64, activation=activation, **REMBG)
    rules = Settings.model_validate(card.settings)
    path = balanced(weights.path(card), pixels, rules, logits=activation == "sigmoid")
    engine, edit = Engine(card), Edit.of(pixels)
    key = engine.prepare(edit, run)
    engine.segment(edit, key, SUBJECT, None, run)
    wanted = reference(path, pixels, rules)
    assert np.abs(engine._maps[key].map - wanted).max() < 2e-6


def test_the_mask_is_nearly_rembgs_own(run: Run) -> None:
    """rembg enlarges bytes by Lanczos's filter, which rings; the outline is the same but for single pixels."""
    pixels = photo(640, 480)
    card = card_for(size=128, **REMBG)
    path = contrast_network(weights.path(card), 128)
    edit = Edit.of(pixels)
    (region,) = Engine(card).segment(edit, "a", SUBJECT, None, run).regions
    values = reference(path, pixels, Settings.model_validate(card.settings))
    enlarged = Image.fromarray((values * 255).astype(np.uint8)).resize((640, 480), Image.Resampling.LANCZOS)
    assert region.mask is not None
    ours, theirs = region.mask.array() > 0, np.asarray(enlarged) > 127
    assert (ours & theirs).sum() / (ours | theirs).sum() > 0.995


@settings(max_examples=30)
@given(
    st.integers(1, 300), st.integers(1, 300), st.integers(4, 64), st.sampled_from([0.3, 1.0, 4.0]), st.integers(0, 999)
)
def test_the_mask_is_the_interpolated_map_above_a_half(
    width: int, height: int, side: int, smooth: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(random.standard_normal((side, side)), (0, 0), smooth)
    values = (0.5 + 0.5 * np.tanh((noise - noise.mean()) / noise.std() - 1)).astype(np.float32)
    size = Size(width, height)
    wanted = interpolated(values, size)
    placed = mask_of(Saliency(values), size)
    found = np.zeros((height, width), np.uint8)
    if placed is not None:
        box, mask = placed
        assert Box.of_size(size).contains(box)
        assert np.isin(mask, (0, 255)).all()
        found[box.slices] = mask
    sure = np.abs(wanted - 0.5) > 1e-5
    assert np.array_equal((found > 0)[sure], (wanted > 0.5)[sure])


def test_only_the_part_with_the_subject_is_made() -> None:
    values = np.zeros((1024, 1024), np.float32)
    values[500:520, 100:130] = 1
    placed = mask_of(Saliency(values), Size(60_000, 40_000))
    assert placed is not None
    box, mask = placed
    assert box.area < 3000 * 1500
    assert mask.shape == (box.height, box.width)


# -- what is found --------------------------------------------------------------------------------------------------


def soft(radius: float, width: float, side: int = 200) -> Array:
    """A disc whose probability falls from 1 to 0 over `width` pixels."""
    y, x = np.mgrid[:side, :side] - (side - 1) / 2
    return np.clip(0.5 + (radius - np.hypot(x, y)) / max(width, 1e-6), 0, 1).astype(np.float32)


def test_the_confidence_follows_what_the_map_is_sure_of() -> None:
    crisp = confidence_of(Saliency(soft(50, 0)))
    assert crisp == (1.0, "")
    scores = [confidence_of(Saliency(soft(50, width)))[0] for width in (1, 10, 40, 90)]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.97
    assert scores[-1] < 0.65
    doubtful = soft(50, 1) * np.float32(0.55)
    score, reason = confidence_of(Saliency(doubtful))
    assert score == pytest.approx(0.55, abs=0.02)
    assert reason == "large parts of it are as likely ground"
    second = np.hstack([soft(50, 0), soft(50, 0) * np.float32(0.45)])
    assert confidence_of(Saliency(second))[0] == pytest.approx(1 / 1.45, abs=0.01), "perhaps half of what is meant"
    haze = np.maximum(soft(50, 0), np.float32(0.05))
    assert confidence_of(Saliency(haze))[0] == 1.0


def test_what_takes_the_whole_border_is_no_subject() -> None:
    ground = 1 - soft(50, 0)
    assert confidence_of(Saliency(ground)) == (0.0, "it takes most of the photo's border, as a ground does")
    portrait = soft(60, 0)[:130]
    assert 0.9 < confidence_of(Saliency(portrait))[0] < 1


def test_a_map_that_had_to_be_stretched_is_less_sure(run: Run) -> None:
    assert confidence_of(Saliency(soft(50, 0), 0.2)) == (0.2, "nothing in the photo stands out much")
    card = card_for("isnet-general-use", size=64)
    random_network(weights.path(card), 64, bias=-4, scale=0.1)
    (region,) = Engine(card).segment(Edit.of(photo()), "a", SUBJECT, None, run).regions
    assert region.score < 0.2


def test_nothing_found_is_a_clear_result(run: Run) -> None:
    card, edit = card_for(size=64), Edit.of(photo())
    random_network(weights.path(card), 64, logits=True, bias=-50)
    assert Engine(card).segment(edit, "a", SUBJECT, None, run).regions == ()
    with Run(workers=1, engines={"birefnet-general": (card, Engine(card))}) as other:
        with pytest.raises(MaskError) as caught:
            Select(subject=True, segmenter="birefnet-general")(edit, other)
    assert str(caught.value).startswith("birefnet-general: found nothing")
    card = card_for("isnet-general-use", size=64)
    random_network(weights.path(card), 64, scale=0)
    assert Engine(card).segment(edit, "a", SUBJECT, None, run).regions == (), "a flat map is not stretched"


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 2)])
def test_tiny_photos_are_no_trouble(size: tuple[int, int], run: Run) -> None:
    card = card_for(size=64)
    random_network(weights.path(card), 64, logits=True, bias=50)
    edit = Edit.of(np.full((size[1], size[0], 3), 90, np.uint8))
    (region,) = Engine(card).segment(edit, "a", SUBJECT, None, run).regions
    assert region.mask is not None
    assert region.mask.is_full
    assert region.score == 0.0


def test_only_the_subject_can_be_asked_for(run: Run) -> None:
    edit = Edit.of(photo())
    for prompts in (Prompts(boxes=(Box(0, 0, 9, 9),)), Prompts(text=("dog",)), Prompts(everything=True), Prompts()):
        with pytest.raises(EngineError) as caught:
            Engine(card_for()).segment(edit, "a", prompts, None, run)
        assert str(caught.value) == "birefnet-general: finds the main subject, and cannot be pointed at anything else"


# -- the work -------------------------------------------------------------------------------------------------------


def test_threads_never_mix_pictures_and_open_the_network_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    card = card_for(size=96)
    contrast_network(weights.path(card), 96)
    opened: list[Any] = []
    bare = onnxruntime.InferenceSession
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda *a, **k: opened.append(1) or bare(*a, **k))
    edits = [Edit.of(photo(200, 150)), Edit.of(np.ascontiguousarray(photo(200, 150)[:, ::-1]))]

    def masks(engine: Engine, index: int) -> Any:
        edit = edits[index % 2]
        return engine.segment(edit, engine.prepare(edit, run), SUBJECT, None, run).regions[0].mask

    alone = [masks(Engine(card), index) for index in (0, 1)]
    assert alone[0] != alone[1]
    opened.clear()
    engine = Engine(card)
    with ThreadPoolExecutor(6) as pool:
        found = list(pool.map(lambda index: masks(engine, index), range(12)))
    assert all(mask == alone[index % 2] for index, mask in enumerate(found))
    assert opened == [1]


def test_a_picture_is_looked_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    card, edit = card_for(size=64), Edit.of(photo())
    contrast_network(weights.path(card), 64)
    engine = Engine(card)
    key = engine.prepare(edit, run)
    first = engine.segment(edit, key, SUBJECT, None, run).regions[0]
    monkeypatch.setattr(saliency, "tensor_of", lambda *_: pytest.fail("looked again"))
    again = engine.segment(edit, engine.prepare(Edit.of(photo()), run), SUBJECT, None, run).regions[0]
    assert again.mask == first.mask
    assert engine.prepare(Edit.of(photo(seed=1)), run) != key
    assert Engine(card.model_copy(update={"revision": "2"})).prepare(edit, run) != key


class Endless:
    """A session that works until it is told to end."""

    def __init__(self) -> None:
        self.ended = False

    def get_inputs(self) -> list[Any]:
        return [type("Input", (), {"name": "input_image", "type": "tensor(float)", "shape": [1, 3, 64, 64]})]

    def get_outputs(self) -> list[Any]:
        return [type("Output", (), {"name": "output_image"})]

    def run(self, outputs: list[str], feed: dict[str, Array], options: Any) -> list[Array]:
        pause = threading.Event()
        while not options.terminate:
            pause.wait(0.01)
        self.ended = True
        raise RuntimeError("Exiting due to terminate flag being set to true")


def test_cancelling_ends_the_network(run: Run) -> None:
    engine, session = Engine(card_for(size=64)), Endless()
    engine._sessions["cpu"] = session
    threading.Timer(0.2, run.cancel).start()
    with pytest.raises(Cancelled):
        engine.segment(Edit.of(photo()), "a", SUBJECT, None, run)
    assert session.ended
    with pytest.raises(Cancelled):
        engine.segment(Edit.of(photo()), "a", SUBJECT, None, run)


# -- devices --------------------------------------------------------------------------------------------------------

PROCESSOR = ["CPUExecutionProvider"]
CUDA = ["CUDAExecutionProvider", *PROCESSOR]


@pytest.mark.parametrize(
    ("device", "available", "wanted"),
    [
        ("auto", PROCESSOR, PROCESSOR),
        ("auto", ["AzureExecutionProvider", *PROCESSOR], PROCESSOR),
        ("auto", ["CoreMLExecutionProvider", *PROCESSOR], PROCESSOR),
        ("auto", CUDA, [("CUDAExecutionProvider", {"device_id": "0"}), *PROCESSOR]),
        ("cpu", CUDA, PROCESSOR),
        ("cuda", CUDA, [("CUDAExecutionProvider", {"device_id": "0"}), *PROCESSOR]),
        ("cuda:1", CUDA, [("CUDAExecutionProvider", {"device_id": "1"}), *PROCESSOR]),
        ("mps", ["CoreMLExecutionProvider", *PROCESSOR], ["CoreMLExecutionProvider", *PROCESSOR]),
    ],
)
def test_the_device_says_which_provider(device: str, available: list[str], wanted: list[Any]) -> None:
    assert providers_for(device, available) == wanted


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cuda", "device cuda: this onnxruntime has no CUDA provider; "
         "install onnxruntime-gpu instead of onnxruntime, or use --device auto or cpu"),
        ("mps", "device mps: this onnxruntime has no CoreML provider; use --device auto or cpu"),
    ],
)  # fmt: skip
def test_a_device_that_is_not_there_is_named(device: str, sentence: str) -> None:
    card = card_for(size=64)
    contrast_network(weights.path(card), 64)
    with Run(workers=1, device=device) as run, pytest.raises(EngineError) as caught:
        Engine(card).segment(Edit.of(photo()), "a", SUBJECT, None, run)
    assert str(caught.value) == sentence


def test_onnxruntime_stays_silent(tmp_path: Path) -> None:
    """An unused weight makes it warn, were it not told not to."""
    card = card_for(size=64)
    path = contrast_network(weights.path(card), 64)
    model = onnx.load(path)
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, np.float32), "unused"))
    onnx.save(model, path)
    script = f"""
import numpy as np
from toolkit import cards
from toolkit.edit import Edit
from toolkit.engines import Prompts
from toolkit.engines.segment.saliency import Engine
from toolkit.run import Run
card = cards.find("segment", "birefnet-general")
card = card.model_copy(update={{"settings": {card.settings!r}, "memory": None}})
with Run(workers=1) as run:
    Engine(card).segment(Edit.of(np.zeros((40, 40, 3), np.uint8)), "a", Prompts(subject=True), None, run)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""


# -- bad files and cards --------------------------------------------------------------------------------------------


def other(path: Path, **kind: Any) -> None:
    random_network(path, kind.pop("size", 64), **kind)


def truncated(path: Path) -> None:
    other(path)
    path.write_bytes(path.read_bytes()[:-500])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (truncated, "birefnet-general: onnxruntime cannot open FILE (Protobuf parsing failed); "
         "if it is damaged, delete .*FILE and get it "
         "again: inpaint models pull birefnet-general"),
        (lambda path: path.write_bytes(b"<html>"), "birefnet-general: onnxruntime cannot open FILE (.*"),
        (lambda path: path.write_bytes(b""), "birefnet-general: onnxruntime cannot open FILE (.*"),
        (lambda path: other(path, size=32),
         "birefnet-general: its network takes tensor(float) [1, 3, 32, 32], its card says pictures of [1, 3, 64, 64]; "
         "the file or the card's settings are of another network"),
        (lambda path: other(path, inputs=4),
         "birefnet-general: its network takes tensor(float) [1, 4, 64, 64], its card says .*"),
        (lambda path: other(path, channels=2, logits=True),
         "birefnet-general: its network answered with float32 (1, 2, 64, 64), expected float (1, 1, 64, 64); "
         "the file or the card's settings are of another network"),
        (lambda path: other(path, logits=True, bias=float("nan")),
         "birefnet-general: its network answered with values that are no numbers"),
    ],
    ids=["truncated", "a page", "empty", "size", "channels", "answer", "nan"],
)  # fmt: skip
def test_a_wrong_file_is_one_sentence(make: Callable[[Path], Any], sentence: str, run: Run) -> None:
    card = card_for(size=64)
    path = weights.path(card)
    path.parent.mkdir(parents=True)
    make(path)
    with pytest.raises(EngineError) as caught:
        Engine(card).segment(Edit.of(photo()), "a", SUBJECT, None, run)
    assert "\n" not in str(caught.value)
    pattern = re.escape(sentence).replace(r"\.\*", ".*").replace("FILE", re.escape(path.name))
    assert re.fullmatch(pattern, str(caught.value))


def test_logits_taken_for_probabilities_are_noticed(run: Run) -> None:
    card = card_for(size=64, activation="none")
    random_network(weights.path(card), 64, logits=True, bias=7)
    with pytest.raises(EngineError, match=r"which are no probabilities; the card's settings\.activation says"):
        Engine(card).segment(Edit.of(photo()), "a", SUBJECT, None, run)


def test_a_side_that_is_free_is_the_cards(run: Run) -> None:
    card = card_for(size=48)
    random_network(weights.path(card), "side", logits=True, bias=50)
    assert Engine(card).segment(Edit.of(photo()), "a", SUBJECT, None, run).regions


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"mean": [0.5, 0.5]}, r"birefnet-general\.settings\.mean\.2: is missing"),
        ({"std": [1.0, 0.0, 1.0]}, r"birefnet-general\.settings\.std: must not be 0"),
        ({"size": 4}, r"birefnet-general\.settings\.size: must be at least 16, got 4"),
        ({"activation": "softmax"}, r"birefnet-general\.settings\.activation: must be 'none' or 'sigmoid'"),
        ({"sise": 64}, r"birefnet-general\.settings: no parameter 'sise'; did you mean 'size'\?"),
    ],
)
def test_wrong_settings_are_named(changed: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RecipeError, match=f"^{sentence}"):
        Engine(card_for(**changed))


def test_a_card_without_a_file_is_named(run: Run) -> None:
    card = card_for().model_copy(update={"weights": ()})
    with pytest.raises(EngineError, match="^birefnet-general: its card names no file of weights$"):
        Engine(card).segment(Edit.of(photo()), "a", SUBJECT, None, run)


def test_what_is_missing_is_said_with_the_command(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EngineError) as caught:
        engines.resolve("segment", "birefnet-general", takes=["subject"])
    assert str(caught.value) == (
        "birefnet-general cannot run: its weights are not here: inpaint models pull birefnet-general (928 MiB)"
    )
    with pytest.raises(EngineError, match="^isnet-general-use cannot run: its weights are not here"):
        Engine(cards.find("segment", "isnet-general-use")).segment(Edit.of(photo()), "a", SUBJECT, None, run)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in SHIPPED:
        with pytest.raises(EngineError) as caught:
            engines.resolve("segment", name)
        assert str(caught.value) == (
            f'{name} cannot run: onnxruntime is not installed: pip install "inpaint-toolkit[onnx]"'
        )


def test_auto_takes_the_best_whose_weights_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    assert engines.resolve("segment", takes=["subject"]).name == "classical"
    for name in ("u2net", "isnet-general-use", "birefnet-general-lite", "birefnet-general"):
        random_network(weights.path(cards.find("segment", name)), 16)
        assert engines.resolve("segment", takes=["subject"]).name == name
        assert engines.resolve("segment", takes=["box"]).name == "classical"


# -- the whole way --------------------------------------------------------------------------------------------------


def test_a_cutout_by_name_end_to_end(tmp_path: Path) -> None:
    """The shipped card and recipe with a network that tells a subject by its colour; the edge is the matte's."""
    pixels = photo(900, 640)
    card = cards.find("segment", "birefnet-general").model_copy(update={"memory": None})
    contrast_network(weights.path(card), 1024)
    with Run(workers=1, engines={card.name: (card, Engine(card))}) as run:
        edit = Recipe.load("cutout")(pixels, run, segmenter="birefnet-general")
        edit.save(tmp_path / "shoe.png")
    assert edit.steps[0].engine == "birefnet-general"
    assert edit.steps[0].figures["confidence"] > 0.9
    alpha = np.asarray(Image.open(tmp_path / "shoe.png"))[..., 3]
    y, x = np.mgrid[0:640, 0:900]
    away = np.hypot((x - 0.55 * 900) / (0.25 * 900), (y - 320) / (0.3 * 640))
    assert (alpha[away < 0.9] > 250).mean() > 0.99
    assert (alpha[away > 1.15] < 5).mean() > 0.99
    assert ((alpha > 0) & (alpha < 255)).any()
