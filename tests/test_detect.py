"""Text to regions: the Grounding DINO family against transformers' own processor, on the same random networks."""

from __future__ import annotations

import shutil
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.scenes import blocks
from toolkit import cards, engines, weights
from toolkit.cards import Card, Weights
from toolkit.edit import Edit, Region
from toolkit.engines.detect import grounding
from toolkit.engines.detect.grounding import cleaned
from toolkit.errors import Cancelled, EngineError, ParameterError
from toolkit.geometry import Box
from toolkit.run import Run

MODELS = ("GroundingDinoForObjectDetection", "MMGroundingDinoForObjectDetection")
WORDS = "a red blue car person dog leash street lamp hat tree cat ##s ##ing walk sign st bernard , -".split()
FULL_STOP = 1012  # the number transformers knows it by


@dataclass(frozen=True)
class Reference:
    """A tiny network of random weights, run as transformers' documentation says."""

    folder: Path
    network: Any
    processor: Any

    def outputs(self, pixels: np.ndarray[Any, Any], phrases: Sequence[str]) -> tuple[Any, Any]:
        inputs = self.processor(images=pixels, text=[list(phrases)], return_tensors="pt")
        with torch.inference_mode():
            return self.network(**inputs), inputs["input_ids"]

    def detect(
        self, pixels: np.ndarray[Any, Any], phrases: Sequence[str], threshold: float
    ) -> list[tuple[float, list[float], str]]:
        """(score, box, phrase) of each candidate; the phrase is that of its best token between full stops."""
        outputs, ids = self.outputs(pixels, phrases)
        found = self.processor.post_process_grounded_object_detection(
            outputs, ids, threshold=threshold, text_threshold=0.0, target_sizes=[pixels.shape[:2]]
        )[0]
        groups = torch.cumsum((ids[0] == FULL_STOP).int(), 0)
        words = [n for n, token in enumerate(ids[0].tolist()) if token not in (101, 102, FULL_STOP)]
        kept = outputs.logits[0][torch.sigmoid(outputs.logits[0]).max(-1)[0] > threshold]
        names = [phrases[int(groups[words[int(row[words].argmax())]])] for row in kept]
        return list(zip(found["scores"].tolist(), found["boxes"].tolist(), names, strict=True))


def build(folder: Path, kind: str) -> None:
    """Write a tiny network of random weights, its tokenizer and image processor in the official layout."""
    import transformers
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    vocabulary = [f"[unused{n}]" for n in range(1040)]
    special = {0: "[PAD]", 100: "[UNK]", 101: "[CLS]", 102: "[SEP]", 103: "[MASK]", FULL_STOP: ".", 1029: "?"}
    for number, word in {**special, **dict(enumerate(WORDS, 200))}.items():
        vocabulary[number] = word
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    transformers.BertTokenizer(vocab=str(folder / "vocab.txt")).save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 72, "longest_edge": 108}).save_pretrained(folder)
    swin = {
        "model_type": "swin", "image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 1, 1], "window_size": 2, "out_features": ["stage2", "stage3", "stage4"],
    }  # fmt: skip
    bert = {
        "model_type": "bert", "vocab_size": 1040, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 256,
    }  # fmt: skip
    configuration = getattr(transformers, kind.replace("ForObjectDetection", "Config"))(
        backbone_config=swin, text_config=bert, d_model=32, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=16,
        decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2, num_queries=30, encoder_n_points=2,
        decoder_n_points=2,
    )  # fmt: skip
    torch.manual_seed(1)
    network = getattr(transformers, kind)(configuration).eval()
    with torch.no_grad():
        for name, values in network.named_parameters():
            # As initialised, all boxes and scores are nearly the same: too easy to get right.
            if "bbox_embed" in name or "reference_points" in name or "text_projection" in name:
                values.add_(torch.randn(values.shape) * 0.2)
    network.save_pretrained(folder)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def references(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reference]:
    import transformers
    from transformers.models.grounding_dino.image_processing_pil_grounding_dino import GroundingDinoImageProcessorPil

    made = {}
    for kind in MODELS:
        folder = tmp_path_factory.mktemp("weights") / kind
        build(folder, kind)
        processor = transformers.GroundingDinoProcessor(
            GroundingDinoImageProcessorPil.from_pretrained(folder), transformers.BertTokenizer.from_pretrained(folder)
        )
        made[kind] = Reference(folder, getattr(transformers, kind).from_pretrained(folder).eval(), processor)
    return made


def card_of(kind: str, **settings: Any) -> Card:
    files = ("config.json", "model.safetensors", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json")
    return cards.find("detect", "llmdet-tiny").model_copy(
        update={
            "name": f"tiny-{kind}",
            "settings": {"model": kind, **settings},
            "memory": None,
            "weights": tuple(Weights(file=file, url=f"https://example.org/{file}") for file in files),
        }
    )


@pytest.fixture
def card(references: dict[str, Reference], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Card]:
    """Makes a card whose weights are in the cache."""
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path / "cache"))

    def make(kind: str = MODELS[1], **settings: Any) -> Card:
        one = card_of(kind, **settings)
        folder = weights.folder(one)
        if not folder.exists():
            folder.mkdir(parents=True)
            for file in one.weights:  # only those the card lists: nothing else may be needed
                shutil.copy(references[kind].folder / file.file, folder)
        return one

    return make


@pytest.fixture
def run() -> Iterator[Run]:
    with Run(workers=1, device="cpu") as run:
        yield run


def check(found: Sequence[Region], wanted: list[tuple[float, list[float], str]], frame: Box) -> None:
    """Our regions are the reference's candidates, boxes rounded to whole pixels and clipped."""
    expected = []
    for score, corners, phrase in wanted:
        box = Box(*(round(n) for n in corners)).intersect(frame)
        if not box.is_empty:
            expected.append((score, box, phrase))
    expected.sort(key=lambda one: -one[0])
    assert [region.score for region in found] == pytest.approx([score for score, _, _ in expected], abs=1e-6)
    assert [region.box for region in found] == [box for _, box, _ in expected]
    assert [region.label for region in found] == [phrase for _, _, phrase in expected]


@pytest.mark.parametrize("size", [(150, 100), (48, 20), (61, 97), (9, 9)], ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize("kind", MODELS)
def test_boxes_scores_and_phrases_are_those_of_transformers(
    references: dict[str, Reference], card: Callable[..., Card], run: Run, kind: str, size: tuple[int, int]
) -> None:
    phrases = ["red car", "dogs", "a person walking"]
    pixels = blocks(*size)
    outputs, _ = references[kind].outputs(pixels, phrases)
    scores = torch.sigmoid(outputs.logits[0]).max(-1)[0]
    assert scores.max() > scores.min() + 0.01, "the network tells its candidates apart"
    everything = engines.open_engine(card(kind, floor=0.0)).detect(Edit.of(pixels), phrases, run)
    assert len({region.label for region in everything}) > 1
    assert len({region.box for region in everything}) > 1
    for threshold in (0.0, float(scores.quantile(0.3)), float(scores.quantile(0.8))):
        found = [region for region in everything if region.score > threshold]
        check(found, references[kind].detect(pixels, phrases, threshold), Box.of_size(size))


def test_labels_are_the_users_phrases_and_reading_them_is_forgiving(
    references: dict[str, Reference], card: Callable[..., Card], run: Run
) -> None:
    pixels = blocks(80, 80)
    engine = engines.open_engine(card(floor=0.0))
    found = engine.detect(Edit.of(pixels), ["  Red\n CAR.", "St. Bernard", "dogs?", "red car"], run)
    wanted = references[MODELS[1]].detect(pixels, ["red car", "st bernard", "dogs"], 0.0)
    names = {"red car": "  Red\n CAR.", "st bernard": "St. Bernard", "dogs": "dogs?"}
    check(found, [(score, box, names[phrase]) for score, box, phrase in wanted], Box(0, 0, 80, 80))


def test_candidates_below_the_threshold_are_told_too_but_none_below_the_floor(
    references: dict[str, Reference], card: Callable[..., Card], run: Run
) -> None:
    pixels = blocks(64, 64)
    wanted = references[MODELS[1]].detect(pixels, ["unicorn"], 0.0)
    floor = sorted(score for score, _, _ in wanted)[len(wanted) // 2]
    engine = engines.open_engine(card(floor=floor, threshold=0.99))
    found = engine.detect(Edit.of(pixels), ["unicorn"], run)
    assert found
    assert all(floor < region.score < 0.99 for region in found)
    check(found, [one for one in wanted if one[0] > floor], Box(0, 0, 64, 64))


def test_more_phrases_than_the_text_may_be_long_take_several_passes(
    references: dict[str, Reference], card: Callable[..., Card], run: Run
) -> None:
    phrases = [f"{one} {other}" for one in WORDS[:9] for other in WORDS[:12] if one != other]
    pixels = blocks(64, 64)
    # Each phrase is two tokens and a full stop, and the text has room for 254 of them.
    groups = [phrases[n : n + 84] for n in range(0, len(phrases), 84)]
    assert len(groups) == 2
    wanted = [one for group in groups for one in references[MODELS[1]].detect(pixels, group, 0.0)]
    with torch.inference_mode():
        found = engines.open_engine(card(floor=0.0)).detect(Edit.of(pixels), phrases, run)
    check(found, wanted, Box(0, 0, 64, 64))


@pytest.mark.parametrize(
    ("phrases", "sentence"),
    [
        ([], r'^nothing to look for: give a phrase such as "red car"$'),
        (["dog", " "], r"^phrase ' ': has no word to look for"),
        (["..?"], r"^phrase '\.\.\?': has no word to look for"),
    ],
)
def test_empty_phrases_are_refused_in_one_sentence(phrases: list[str], sentence: str) -> None:
    with pytest.raises(ParameterError, match=sentence):
        cleaned(phrases)


def test_what_the_network_cannot_take_is_refused_in_one_sentence(card: Callable[..., Card], run: Run) -> None:
    engine = engines.open_engine(card())
    with pytest.raises(ParameterError, match=r"has 301 tokens, tiny-MM.* reads 254$"):
        engine.detect(Edit.of(blocks(64, 64)), ["dog " * 300], run)
    for width, height in ((900, 8), (900, 3), (3, 900)):  # the last ones leave nothing of the shorter side
        with pytest.raises(
            EngineError, match=rf"a picture of {width}x{height} pixels is too narrow for it: .* needs 32$"
        ):
            engine.detect(Edit.of(blocks(width, height)), ["dog"], run)
    run.cancel()
    with pytest.raises(Cancelled):
        engine.detect(Edit.of(blocks(64, 64)), ["dog"], run)


def test_nothing_is_said_and_no_network_is_reached_for(
    card: Callable[..., Card], run: Run, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    from transformers.utils import logging

    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("the network was reached for")

    for name in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, name, refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    engine = engines.open_engine(card(size=[96, 200]))
    engine.detect(Edit.of(blocks(64, 64)), ["dog", "cat"], run)
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")


def test_threads_share_one_network_and_never_mix(card: Callable[..., Card], run: Run) -> None:
    pictures = [Edit.of(blocks(64, 64, seed)) for seed in range(4)]
    one = card(floor=0.0)
    engine = engines.open_engine(one)
    wanted = [engine.detect(picture, ["dog", "cat"], run) for picture in pictures]
    engine = engines.open_engine(one)
    found: dict[int, tuple[Region, ...]] = {}

    def work(number: int) -> None:
        found[number] = engine.detect(pictures[number], ["dog", "cat"], run)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number in range(4):
        assert [(r.box, r.label, r.score) for r in found[number]] == [(r.box, r.label, r.score) for r in wanted[number]]


def test_the_size_rule_of_the_card_comes_before_the_checkpoints(card: Callable[..., Card], run: Run) -> None:
    pixels = blocks(128, 64)
    as_is, larger = (
        engines.open_engine(card(floor=0.0, **more)).detect(Edit.of(pixels), ["dog"], run)
        for more in ({}, {"size": [96, 200]})
    )
    assert [region.box for region in as_is] != [region.box for region in larger]


def test_weights_that_are_not_there_are_named(
    card: Callable[..., Card], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path / "empty"))
    one = card_of(MODELS[0])
    said = f"its weights are not here: inpaint models pull {one.name}"
    assert grounding.missing(one) == said
    with pytest.raises(EngineError, match=f"{one.name}: {said}$"):
        engines.open_engine(one).detect(Edit.of(blocks(64, 64)), ["dog"], run)


def shortened(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])


def torn(folder: Path) -> None:
    (folder / "tokenizer.json").write_text('{"version": ')


def another(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    path = folder / "model.safetensors"
    save_file({f"other.{name}": one for name, one in load_file(path).items()}, path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("harm", "sentence"),
    [
        (shortened, r"cannot load it from .*inpaint models pull tiny"),
        (torn, r"cannot load it from .*inpaint models pull tiny"),
        (another, r"are not those of MMGroundingDinoForObjectDetection: \d+ of its parameters are not there"),
    ],
)
def test_wrong_files_are_one_sentence(
    card: Callable[..., Card], run: Run, harm: Callable[[Path], None], sentence: str
) -> None:
    one = card()
    harm(weights.folder(one))
    with pytest.raises(EngineError, match=sentence) as caught:
        engines.open_engine(one).detect(Edit.of(blocks(64, 64)), ["dog"], run)
    assert "\n" not in str(caught.value)


def test_wrong_settings_are_named() -> None:
    with pytest.raises(ParameterError, match=r"settings: no parameter 'treshold'; did you mean 'threshold'\?$"):
        grounding.Engine(card_of(MODELS[0], treshold=0.3))
    with pytest.raises(ParameterError, match=r"settings\.model: must be .*did you mean 'GroundingDino"):
        grounding.Engine(card_of("GroundingDinoForDetection"))
