"""SAM 2.1 against transformers' own processor and model, on the same random network in the official file layout."""

from __future__ import annotations

import importlib
import json
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torchvision_stand_in import image_processor

from tests.scenes import blocks
from toolkit import cards, engines, weights
from toolkit.cards import Card, Weights
from toolkit.edit import Edit, Region
from toolkit.engines import Prompts
from toolkit.engines.segment import _logits, sam2
from toolkit.engines.segment._logits import enlarged
from toolkit.engines.segment.sam2 import Object, objects
from toolkit.errors import Cancelled, EngineError, ParameterError
from toolkit.geometry import Box
from toolkit.run import Run
from toolkit.schema import Point

SIDE = 128
CONFIGURATION: dict[str, Any] = {
    "vision_config": {
        "model_type": "sam2_vision_model",
        "backbone_config": {
            "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1,
            "image_size": [SIDE, SIDE], "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
            "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [4, 4, 4, 2],
            "global_attention_blocks": [3], "window_positional_embedding_background_size": [4, 4],
        },
        "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[32, 32], [16, 16], [8, 8]],
        "fpn_hidden_size": 32,
    },
    "prompt_encoder_config": {"hidden_size": 32, "image_size": SIDE, "patch_size": 16},
    "mask_decoder_config": {"hidden_size": 32, "mlp_dim": 32, "num_attention_heads": 2, "iou_head_hidden_dim": 32},
    "image_size": SIDE, "memory_attention_hidden_size": 32, "memory_attention_num_layers": 1,
    "memory_attention_feed_forward_hidden_size": 32, "memory_encoder_hidden_size": 32,
    "memory_encoder_output_channels": 16, "mask_downsampler_embed_dim": 32, "memory_fuser_embed_dim": 32,
    "memory_fuser_intermediate_dim": 32, "memory_fuser_num_layers": 1, "memory_attention_rope_feat_sizes": [8, 8],
}  # fmt: skip


@pytest.fixture(scope="module")
def processors() -> Iterator[tuple[Any, Any]]:
    """The real Sam2ImageProcessor and Sam2Processor of transformers."""
    whole = importlib.import_module("transformers.models.sam2.processing_sam2").Sam2Processor
    with image_processor("sam2", "Sam2ImageProcessor") as kind:
        yield kind, whole


class Reference:
    """transformers as its documentation says."""

    def __init__(self, folder: Path, processors: tuple[Any, Any]) -> None:
        import transformers

        self.network = transformers.Sam2Model.from_pretrained(folder).eval()
        self.processor = processors[1](processors[0].from_pretrained(folder))

    def segment(
        self, pixels: np.ndarray[Any, Any], *, multimask: bool, previous: Any = None, **prompts: Any
    ) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any], torch.Tensor]:
        """Masks (n, k, h, w) bool, their scores (n, k), and their logits."""
        inputs = self.processor(images=pixels, return_tensors="pt", **prompts)
        sizes = inputs.pop("original_sizes")
        with torch.inference_mode():
            out = self.network(**inputs, multimask_output=multimask, input_masks=previous)
        masks = self.processor.post_process_masks(out.pred_masks, sizes)[0]
        return masks.numpy(), out.iou_scores[0].numpy(), out.pred_masks[0]


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory, processors: tuple[Any, Any]) -> Path:
    """A folder as the official repositories have it: the whole video network, of which this is a part."""
    import transformers

    folder = tmp_path_factory.mktemp("sam2")
    torch.manual_seed(0)
    network = transformers.Sam2VideoModel(transformers.Sam2VideoConfig(**CONFIGURATION))
    with torch.no_grad():
        for name, values in network.named_parameters():
            # As initialised, masks hardly depend on anything.
            if "mask_decoder" in name or "prompt_encoder" in name or "vision_encoder.neck" in name:
                values.add_(torch.randn(values.shape) * (0.6 if "iou_prediction_head" in name else 0.15))
    network.save_pretrained(folder)
    processors[0](size={"height": SIDE, "width": SIDE}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def reference(official: Path, processors: tuple[Any, Any]) -> Reference:
    return Reference(official, processors)


def tiny() -> Card:
    files = ("config.json", "preprocessor_config.json", "model.safetensors")
    return cards.find("segment", "sam2.1-hiera-tiny").model_copy(
        update={
            "name": "sam2-smallest",
            "memory": None,
            "weights": tuple(Weights(file=file, url=f"https://example.org/{file}") for file in files),
        }
    )


@pytest.fixture
def card(official: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Card:
    """A card whose weights are in the cache: only the files it lists."""
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path / "cache"))
    one = tiny()
    weights.folder(one).mkdir(parents=True)
    for file in one.weights:
        shutil.copy(official / file.file, weights.folder(one))
    return one


@pytest.fixture
def run() -> Iterator[Run]:
    with Run(workers=1, device="cpu") as run:
        yield run


def clicked(mask: np.ndarray[Any, Any], include: Sequence[Any] = (), exclude: Sequence[Any] = ()) -> Any:
    mask = mask.copy()
    for x, y in exclude:
        mask[y, x] = False
    for x, y in include:
        mask[y, x] = True
    return mask


def array(region: Region) -> Any:
    assert region.mask is not None
    return region.mask.array() > 0


def points(*some: tuple[int, int]) -> tuple[Point, ...]:
    return tuple(Point(*one) for one in some)


SIZES = pytest.mark.parametrize("size", [(150, 100), (61, 97), (300, 20)], ids=lambda size: f"{size[0]}x{size[1]}")


@SIZES
def test_a_click_gives_the_best_of_three_masks(
    reference: Reference, card: Card, run: Run, size: tuple[int, int]
) -> None:
    pixels, engine = blocks(*size), engines.open_engine(card)
    picture = Edit.of(pixels)
    key = engine.prepare(picture, run)
    chosen, telling = set(), 0
    for x, y in ((size[0] // 2, size[1] // 2), (3, 4), (size[0] - 1, size[1] - 1)):
        masks, scores, _ = reference.segment(
            pixels, multimask=True, input_points=[[[[x, y]]]], input_labels=[[[1]]]
        )  # fmt: skip
        best = int(scores[0].argmax())
        chosen.add(best)
        (region,) = engine.segment(picture, key, Prompts(include=points((x, y))), None, run).regions
        telling += masks[0, best].any() and not masks[0, best].all()
        assert np.array_equal(array(region), clicked(masks[0, best], [(x, y)]))
        assert region.score == pytest.approx(float(scores[0, best]) if masks[0, best].any() else 0.0, abs=1e-6)
        assert region.mask is not None
        assert region.box == region.mask.box
    assert telling
    assert chosen != {0}, "it is not always the first"


@SIZES
def test_several_boxes_go_through_at_once(reference: Reference, card: Card, run: Run, size: tuple[int, int]) -> None:
    pixels, engine = blocks(*size), engines.open_engine(card)
    width, height = size
    boxes = [(0, 0, width // 2, height // 2), (width // 3, 2, width, height), (5, 3, 25, 15)]
    masks, scores, _ = reference.segment(pixels, multimask=False, input_boxes=[[list(box) for box in boxes]])
    picture = Edit.of(pixels)
    key = engine.prepare(picture, run)
    found = engine.segment(picture, key, Prompts(boxes=tuple(Box(*box) for box in boxes)), None, run)
    assert len(found.regions) == 3
    for region, mask, score in zip(found.regions, masks[:, 0], scores[:, 0], strict=True):
        assert np.array_equal(array(region), mask)
        assert region.score == pytest.approx(float(score) if mask.any() else 0.0, abs=1e-6)


def test_clicks_in_a_box_refine_it_and_others_form_one_region(reference: Reference, card: Card, run: Run) -> None:
    pixels, engine = blocks(150, 100), engines.open_engine(card)
    picture = Edit.of(pixels)
    key = engine.prepare(picture, run)
    prompts = Prompts(
        boxes=(Box(10, 10, 60, 60), Box(80, 10, 140, 50)),
        include=points((20, 30), (100, 80), (30, 90)),
        exclude=points((50, 50), (120, 90)),
    )
    first, second, third = engine.segment(picture, key, prompts, None, run).regions
    masks, scores, _ = reference.segment(
        pixels, multimask=False, input_points=[[[[20, 30], [50, 50]]]], input_labels=[[[1, 0]]],
        input_boxes=[[[10, 10, 60, 60]]],
    )  # fmt: skip
    assert np.array_equal(array(first), clicked(masks[0, 0], [(20, 30)], prompts.exclude))
    assert first.score == pytest.approx(float(scores[0, 0]), abs=1e-6)
    masks, _, _ = reference.segment(pixels, multimask=False, input_boxes=[[[80, 10, 140, 50]]])
    assert np.array_equal(array(second), clicked(masks[0, 0], (), prompts.exclude))
    masks, _, _ = reference.segment(
        pixels, multimask=False, input_points=[[[[100, 80], [30, 90], [50, 50], [120, 90]]]],
        input_labels=[[[1, 1, 0, 0]]],
    )  # fmt: skip
    assert np.array_equal(array(third), clicked(masks[0, 0], [(100, 80), (30, 90)], prompts.exclude))


@pytest.mark.parametrize("boxed", [False, True])
def test_a_further_click_goes_on_from_the_logits_before(
    reference: Reference, card: Card, run: Run, boxed: bool
) -> None:
    pixels, engine = blocks(150, 100), engines.open_engine(card)
    picture = Edit.of(pixels)
    key = engine.prepare(picture, run)
    box = {"input_boxes": [[[10, 10, 90, 90]]]} if boxed else {}
    boxes = (Box(10, 10, 90, 90),) if boxed else ()
    one, two = points((40, 40)), points((40, 40), (70, 80))
    before = engine.segment(picture, key, Prompts(boxes, one), None, run)
    after = engine.segment(picture, key, Prompts(boxes, two), before.state, run)
    _, scores, logits = reference.segment(
        pixels, multimask=not boxed, input_points=[[[[40, 40]]]], input_labels=[[[1]]], **box
    )
    best = int(scores[0].argmax())
    masks, scores, _ = reference.segment(
        pixels, multimask=False, previous=logits[:1, best : best + 1], input_points=[[[[40, 40], [70, 80]]]],
        input_labels=[[[1, 1]]], **box,
    )  # fmt: skip
    assert np.array_equal(array(after.regions[0]), clicked(masks[0, 0], two))
    assert after.regions[0].score == pytest.approx(float(scores[0, 0]), abs=1e-6)
    anew = engine.segment(picture, key, Prompts(boxes, two), None, run)
    assert anew.state != after.state, "what went before has a say"
    # A click taken back, or another object: nothing to go on from.
    for prompts in (Prompts(boxes, one), Prompts((Box(0, 0, 99, 99),), two)):
        from_state = engine.segment(picture, key, prompts, after.state, run)
        assert from_state.state == engine.segment(picture, key, prompts, None, run).state


def test_a_second_click_needs_no_second_embedding_and_a_missing_one_is_made_again(
    card: Card, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    real = sam2.Network.embedding
    monkeypatch.setattr(sam2.Network, "embedding", lambda self, pixels: made.append(pixels.shape) or real(self, pixels))
    engine = engines.open_engine(card)
    pictures = [Edit.of(blocks(40, 30, seed)) for seed in range(sam2.REMEMBERED + 1)]
    keys = [engine.prepare(picture, run) for picture in pictures]
    assert len(set(keys)) == len(keys)
    assert len(made) == len(pictures)
    prompts = Prompts(include=points((5, 5)))
    last = engine.segment(pictures[-1], keys[-1], prompts, None, run)
    assert engine.segment(pictures[-1], keys[-1], prompts, None, run).state == last.state
    assert len(made) == len(pictures)
    engine.segment(pictures[0], keys[0], prompts, None, run)
    assert len(made) == len(pictures) + 1
    other = engines.open_engine(card)
    assert other.segment(pictures[-1], keys[-1], prompts, None, run).state == last.state


def test_threads_share_one_network_and_never_mix(card: Card, run: Run) -> None:
    pictures = [Edit.of(blocks(50, 40, seed)) for seed in range(4)]
    prompts = Prompts(include=points((20, 20)), boxes=(Box(2, 2, 15, 15),))

    def answer(engine: Any, picture: Edit) -> bytes:
        state: bytes = engine.segment(picture, engine.prepare(picture, run), prompts, None, run).state
        return state

    alone = [answer(engines.open_engine(card), picture) for picture in pictures]
    engine = engines.open_engine(card)
    found: dict[int, bytes] = {}
    threads = [
        threading.Thread(target=lambda n=number: found.update({n: answer(engine, pictures[n])})) for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[number] for number in range(4)] == alone
    assert len(set(alone)) == 4


@given(
    arrays.arrays(np.float32, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(-4, 3)),
    st.integers(1, 70),
    st.integers(1, 70),
)
def test_enlarging_only_around_the_object_gives_the_whole_mask(
    logits: np.ndarray[Any, Any], width: int, height: int
) -> None:
    whole = torch.nn.functional.interpolate(
        torch.from_numpy(logits)[None, None], (height, width), mode="bilinear", align_corners=False
    )[0, 0].numpy()
    box, values = enlarged(logits, (width, height))
    found = np.zeros((height, width), bool)
    found[box.slices] = values
    # Where whole numbers meet, a sum may be 0 to one rounding and not to another.
    assert not ((found != (whole > 0)) & (np.abs(whole) > 1e-5)).any()


def test_only_the_objects_part_is_enlarged() -> None:
    logits = np.full((256, 256), -1, np.float32)
    logits[100:104, 20:30] = 1
    box, values = enlarged(logits, (4000, 3000))
    assert values.any()
    assert box.area < 4000 * 3000 / 100


def test_strips_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    box, whole = enlarged(logits, (150, 100))
    monkeypatch.setattr(_logits, "STRIP", 1000)
    assert enlarged(logits, (150, 100))[0] == box
    assert np.array_equal(enlarged(logits, (150, 100))[1], whole)


def test_an_empty_mask_is_said_and_keeps_the_click() -> None:
    nothing = np.full((8, 8), -1, np.float32)
    frame = Box(0, 0, 20, 20)
    region = sam2._region(Object(None, points((3, 4))), nothing, 0.7, frame, ())
    assert (region.box, region.score, region.reason) == (Box(3, 4, 4, 5), 0.0, "nothing was found there")
    region = sam2._region(Object(Box(1, 1, 9, 9)), nothing, 0.7, frame, ())
    assert region.mask is not None
    assert region.mask.is_empty


def test_what_points_at_what() -> None:
    box, other = Box(0, 0, 10, 10), Box(5, 5, 20, 20)
    prompts = Prompts((box, other), points((7, 7), (30, 30)), points((1, 1), (40, 40)))
    assert objects(prompts) == (
        Object(box, points((7, 7)), points((1, 1))),
        Object(other, points((7, 7)), ()),
        Object(None, points((30, 30)), points((1, 1), (40, 40))),
    )


@pytest.mark.parametrize(
    ("prompts", "sentence"),
    [
        (Prompts(), "nothing to select: give a box, or a click on the object"),
        (Prompts(exclude=points((1, 1))), "nothing to select: give a box, or a click on the object"),
        (Prompts(include=points((1, 1)), exclude=points((1, 1))), "click 1,1: is both included and excluded"),
        (Prompts(include=points((40, 1))), "click 40,1: lies outside the photo (40x30 pixels)"),
        (Prompts(include=points((1, 1)), exclude=points((1, -1))), "click 1,-1: lies outside the photo (40x30 pixels)"),
        (Prompts((Box(50, 0, 60, 10),)), "box 50,0,60,10: lies outside the photo (40x30 pixels)"),
        (Prompts((Box(5, 5, 5, 9),)), "box 5,5,5,9: has no area (0x4 pixels)"),
    ],
)
def test_prompts_that_point_nowhere_are_refused(card: Card, run: Run, prompts: Prompts, sentence: str) -> None:
    engine = engines.open_engine(card)
    with pytest.raises(ParameterError) as caught:
        engine.segment(Edit.of(blocks(40, 30)), "key", prompts, None, run)
    assert str(caught.value) == sentence


def test_a_foreign_state_is_refused_and_a_cancelled_run_ends(card: Card, run: Run) -> None:
    engine, picture = engines.open_engine(card), Edit.of(blocks(40, 30))
    key = engine.prepare(picture, run)
    prompts = Prompts(include=points((1, 1)))
    good = engine.segment(picture, key, prompts, None, run).state
    for state in (b"[[0, true]]", good[:-4], good + b"\0\0\0\0", sam2.MAGIC + b"{}\n", sam2.MAGIC + b"\xff\n"):
        with pytest.raises(EngineError, match=r"^sam2-smallest: the state to go on from is none of its own"):
            engine.segment(picture, key, prompts, state, run)
    run.cancel()
    with pytest.raises(Cancelled):
        engine.segment(picture, key, prompts, None, run)


def test_missing_weights_and_a_strange_processor_file_are_named(
    card: Card, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = weights.path(card, "preprocessor_config.json")
    good = json.loads(path.read_text())

    def attempt(given: str) -> str:
        path.write_text(given)
        with pytest.raises(EngineError) as caught:
            engines.open_engine(card).prepare(Edit.of(blocks(40, 30)), run)
        return str(caught.value)

    assert "cannot read" in attempt("{")
    assert "cannot read" in attempt("{}")
    assert "asks for 64x64 pixels and resampling 2; expected 128x128" in attempt(
        json.dumps({**good, "size": {"height": 64, "width": 64}})
    )
    assert "resampling 3" in attempt(json.dumps({**good, "resample": 3}))
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path / "empty"))
    assert sam2.missing(card) == "its weights are not here: inpaint models pull sam2-smallest"


def test_nothing_is_said(card: Card, run: Run, capfd: pytest.CaptureFixture[str]) -> None:
    engine, picture = engines.open_engine(card), Edit.of(blocks(40, 30))
    engine.segment(picture, engine.prepare(picture, run), Prompts(include=points((1, 1))), None, run)
    assert tuple(capfd.readouterr()) == ("", "")


def test_only_the_encoder_may_run_in_bfloat16(card: Card, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines.open_engine(card)
    pixels = blocks(150, 100)
    with engine._held.at(run) as net:
        exact = net.embedding(pixels)
        real: Callable[..., Any] = torch.autocast
        monkeypatch.setattr(torch, "autocast", lambda kind, dtype, enabled: real(kind, dtype, enabled=True))
        near = net.embedding(pixels)
    for one, other in zip(exact, near, strict=True):
        assert other.dtype == torch.float32
        assert not torch.equal(one, other)
        assert torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), 0) > 0.999
