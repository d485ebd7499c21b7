"""SAM: equal to the package's own predictor and mask generator on the same random network, and hard to break."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sam_networks import SIDE, card, photo, reference, saved

from toolkit import cards, engines, weights
from toolkit.edit import Edit, Region
from toolkit.embeddings import Embeddings
from toolkit.engines import Prompts
from toolkit.engines.segment import _sam_network, _torchvision
from toolkit.engines.segment._sam_encoder import encode
from toolkit.engines.segment._sam_masks import Axis, Enlarging
from toolkit.engines.segment.sam import Engine, _reduced
from toolkit.errors import Cancelled, EngineError, ParameterError, RecipeError, ToolkitError
from toolkit.geometry import Box, Size
from toolkit.mask import Mask
from toolkit.schema import Point

SAM = reference()
SIZES = [(301, 200), (97, 260), (128, 128), (500, 33), (64, 64), (1100, 700)]


@dataclass
class Surroundings:
    """A run that is cancelled after some checks."""

    device: str = "cpu"
    after: float = float("inf")
    told: list[tuple[str, float]] = field(default_factory=list)

    def progress(self, name: str, share: float) -> None:
        self.told.append((name, share))

    def cancelled(self, name: str = "") -> bool:
        self.after -= 1
        return self.after < 0


RUN: Any = Surroundings()


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path))
    return tmp_path


@pytest.fixture
def engine() -> Engine:
    one = card()
    saved(SAM, one)
    return Engine(one)


def predictor(pixels: npt.NDArray[np.uint8]) -> Any:
    made = _torchvision.segment_anything().SamPredictor(SAM)
    made.set_image(pixels)
    return made


def values(region: Region) -> npt.NDArray[np.bool_]:
    assert region.mask is not None
    return region.mask.array() > 0


def clipped(score: Any) -> float:
    return min(1.0, max(0.0, float(score)))


def same(region: Region, logits: npt.NDArray[np.float32]) -> None:
    """The mask is where the reference's logits are above 0, wherever those are not 0 but for rounding."""
    decided = np.abs(logits) > 1e-4 * np.abs(logits).max()
    assert decided.mean() > 0.99
    np.testing.assert_array_equal(values(region)[decided], (logits > 0)[decided])


# -- parity -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_the_encoder_sees_what_set_image_sees(width: int, height: int) -> None:
    _, engine = _shared()
    pixels = photo(width, height)
    edit = Edit.of(pixels)
    key = engine.prepare(edit, RUN)
    ours = engine._embeddings.get(key)
    theirs = predictor(pixels).get_image_embedding().numpy()
    assert ours is not None
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cache_bytes", [1, 2000, 1 << 14, 1 << 24])
@pytest.mark.parametrize("batch", [1, 2])
def test_strips_of_any_size_give_the_references_embedding(
    monkeypatch: pytest.MonkeyPatch, cache_bytes: int, batch: int
) -> None:
    monkeypatch.setattr("toolkit.engines.segment._sam_encoder.CACHE", cache_bytes)
    pictures = torch.randn(batch, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        ours, theirs = encode(SAM.image_encoder, pictures, lambda _: None), SAM.image_encoder(pictures)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_pictures_are_reduced_as_pil_does_it_at_once(width: int, height: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = photo(width, height)
    edit = Edit.of(pixels)
    monkeypatch.setattr("toolkit.engines.segment.sam.STRIP", 7 * width)
    ours = _reduced(edit, Enlarging(SIDE, edit.box.size).inner)
    theirs = _torchvision.segment_anything().utils.transforms.ResizeLongestSide(SIDE).apply_image(pixels)
    np.testing.assert_array_equal(ours, theirs)


def clicks(include: tuple[Point, ...], exclude: tuple[Point, ...]) -> dict[str, Any]:
    both = np.array([*include, *exclude])
    return {"point_coords": both, "point_labels": np.array([1] * len(include) + [0] * len(exclude))}


INSIDE, BESIDE = (Point(30, 20), Point(41, 12)), (Point(60, 25),)
BOX = Box(20, 4, 70, 31)


@pytest.mark.parametrize(("width", "height"), [(301, 200), (97, 260), (500, 33)])
@pytest.mark.parametrize(
    ("prompts", "asked"),
    [
        (Prompts(include=INSIDE[:1]), {**clicks(INSIDE[:1], ()), "multimask_output": True}),
        (Prompts(include=INSIDE), {**clicks(INSIDE, ()), "multimask_output": False}),
        (Prompts(include=INSIDE, exclude=BESIDE), {**clicks(INSIDE, BESIDE), "multimask_output": False}),
        (Prompts(boxes=(BOX,)), {"box": np.array(BOX), "multimask_output": False}),
        (
            Prompts(boxes=(BOX,), include=INSIDE[:1], exclude=BESIDE),
            {"box": np.array(BOX), **clicks(INSIDE[:1], BESIDE), "multimask_output": False},
        ),
    ],
    ids=["click", "clicks", "include-exclude", "box", "box-clicks"],
)
def test_masks_and_scores_equal_the_predictors(
    width: int, height: int, prompts: Prompts, asked: dict[str, Any]
) -> None:
    _, engine = _shared()
    pixels = photo(width, height)
    edit = Edit.of(pixels)
    (region,) = engine.segment(edit, engine.prepare(edit, RUN), prompts, None, RUN).regions
    logits, scores, _ = predictor(pixels).predict(**asked, return_logits=True)
    best = int(scores.argmax())
    assert region.score == pytest.approx(clipped(scores[best]), abs=1e-4)
    obeyed = logits[best].copy()
    radius = max(2, round(0.005 * max(width, height)))
    for points, wanted in ((prompts.include, True), (prompts.exclude, False)):
        for x, y in points:
            if (obeyed[y, x] > 0) is not np.bool_(wanted):
                disc = Mask.from_box(edit.box, Box(x, y, x + 1, y + 1)).dilate(radius).array() > 0
                obeyed[disc] = 10 if wanted else -10
    same(region, obeyed)


def test_refining_equals_the_predictors_mask_input(engine: Engine) -> None:
    pixels = photo(301, 200)
    edit = Edit.of(pixels)
    key = engine.prepare(edit, RUN)
    first = engine.segment(edit, key, Prompts(boxes=(BOX,), include=(Point(200, 100),)), None, RUN)
    more = Prompts(boxes=(BOX,), include=(Point(200, 100), Point(210, 90)))
    second = engine.segment(edit, key, more, first.state, RUN)
    rival = predictor(pixels)
    inner = Point(25, 10)
    boxed = engine.segment(edit, key, Prompts(boxes=(BOX,), include=(inner,)), first.state, RUN).regions[0]
    asked = [
        (clicks(more.include[:1], ()), clicks(more.include, ()), second.regions[1]),
        (
            {"box": np.array(BOX), "multimask_output": False},
            {"box": np.array(BOX), **clicks((inner,), ())},
            boxed,
        ),
    ]
    for before, after, region in asked:
        _, scores, low = rival.predict(**before)
        kept = low[[int(scores.argmax())]]
        logits, scores, _ = rival.predict(**after, mask_input=kept, multimask_output=False, return_logits=True)
        assert region.score == pytest.approx(clipped(scores[0]), abs=2e-3)
        agree = values(region) == (logits[0] > 0)
        assert agree.mean() > 0.999, "the earlier logits are equal to within rounding"
    assert second.regions[0].mask == first.regions[0].mask, "nothing new was said of the box"
    assert second.regions[0].score == first.regions[0].score
    alone = engine.segment(edit, key, more, None, RUN)
    assert alone.regions[1].mask != second.regions[1].mask, "the state matters"


def test_logits_are_dropped_when_a_click_is_taken_back(engine: Engine) -> None:
    edit = Edit.of(photo(301, 200))
    key = engine.prepare(edit, RUN)
    first = engine.segment(edit, key, Prompts(include=INSIDE), None, RUN)
    fewer = engine.segment(edit, key, Prompts(include=INSIDE[:1]), first.state, RUN)
    fresh = engine.segment(edit, key, Prompts(include=INSIDE[:1]), None, RUN)
    assert fewer.regions[0].mask == fresh.regions[0].mask
    assert fewer.regions[0].score == fresh.regions[0].score


def test_many_boxes_come_in_order_and_as_each_alone(engine: Engine) -> None:
    pixels = photo(301, 200)
    edit = Edit.of(pixels)
    key = engine.prepare(edit, RUN)
    random = np.random.default_rng(3)
    boxes = tuple(
        Box(int(x), int(y), int(x) + 20 + int(w), int(y) + 15 + int(w))
        for x, y, w in zip(random.integers(0, 200, 19), random.integers(0, 120, 19), random.integers(0, 60, 19),
                           strict=True)
    )  # fmt: skip
    inside = Point(boxes[4].left + 3, boxes[4].top + 3)
    loose = Point(299, 199)
    found = engine.segment(edit, key, Prompts(boxes=boxes, include=(inside, loose)), None, RUN)
    assert len(found.regions) == len(boxes) + 1
    rival = predictor(pixels)
    for box, region in zip(boxes, found.regions, strict=False):
        points = tuple(p for p in (inside,) if box.left <= p.x < box.right and box.top <= p.y < box.bottom)
        asked = clicks(points, ()) if points else {}
        logits, scores, _ = rival.predict(**asked, box=np.array(box), multimask_output=False, return_logits=True)
        assert region.score == pytest.approx(clipped(scores[0]), abs=1e-4)
        if not points:
            same(region, logits[0])


GENERATOR = {"points_per_side_cpu": 5, "pred_iou_thresh": 0.1, "stability_score_thresh": 0.6, "box_nms_thresh": 0.7}


@pytest.fixture
def focused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Masks are spots around their highest value, for random networks' are spread over the whole picture."""
    kind = _torchvision.segment_anything().modeling.MaskDecoder
    forward = kind.forward

    def spots(self: Any, *arguments: Any, **named: Any) -> Any:
        masks, scores = forward(self, *arguments, **named)
        side = masks.shape[-1]
        peak = masks.flatten(2).argmax(-1)[..., None, None]
        y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        return masks + 9 - 2 * torch.hypot((y - peak // side).float(), (x - peak % side).float()), scores

    monkeypatch.setattr(kind, "forward", spots)


@pytest.mark.parametrize(("width", "height"), [(201, 130), (97, 260)])
@pytest.mark.parametrize(
    "changed", [{}, {"pred_iou_thresh": 0.0}, {"stability_score_thresh": 0.0}, {"box_nms_thresh": 0.3}], ids=str
)
def test_everything_equals_the_mask_generators(
    focused: None, width: int, height: int, changed: dict[str, float]
) -> None:
    options = {**GENERATOR, **changed}
    one = card(**options)
    saved(SAM, one)
    engine, pixels = Engine(one), photo(width, height)
    edit = Edit.of(pixels)
    found = engine.segment(edit, engine.prepare(edit, RUN), Prompts(everything=True), None, RUN).regions
    sides = {"points_per_side": options.pop("points_per_side_cpu")}
    theirs = _torchvision.segment_anything().SamAutomaticMaskGenerator(SAM, **sides, **options).generate(pixels)
    assert len(found) == len(theirs) > 1
    for ours, other in zip(found, theirs, strict=True):
        assert ours.score == pytest.approx(clipped(other["predicted_iou"]), abs=1e-4)
        np.testing.assert_array_equal(values(ours), other["segmentation"])


def test_everything_of_nothing_is_an_empty_answer() -> None:
    one = card(points_per_side_cpu=3, pred_iou_thresh=50.0)
    saved(SAM, one)
    edit = Edit.of(photo(64, 64))
    engine = Engine(one)
    found = engine.segment(edit, engine.prepare(edit, RUN), Prompts(everything=True), None, RUN)
    assert found.regions == ()
    assert found.state == b""


# -- enlarging --------------------------------------------------------------------------------------------------------


@given(source=st.integers(1, 300), target=st.integers(1, 900))
@settings(max_examples=60)
def test_weights_of_an_axis_are_torchs(source: int, target: int) -> None:
    axis = Axis(source, target)
    for parity in (0, 1):
        line = torch.tensor([float(i % 2 == parity) for i in range(source)])[None, None, None]
        theirs = torch.nn.functional.interpolate(line, (1, target), mode="bilinear", align_corners=False)[0, 0, 0]
        ours = np.zeros(target, np.float32)
        ours += np.where(axis.first % 2 == parity, np.float32(1) - axis.share, 0)
        ours += np.where(axis.second % 2 == parity, axis.share, 0)
        np.testing.assert_allclose(ours, theirs.numpy(), atol=2e-5)  # rounded once or twice, as the machine has it


@given(
    width=st.integers(1, 400), height=st.integers(1, 400), seed=st.integers(0, 10**6),
    smooth=st.integers(0, 4), shift=st.floats(-1.5, 1.5), threshold=st.sampled_from([0.0, 1.0, -1.0]),
)  # fmt: skip
@settings(max_examples=100)
def test_only_the_outline_is_computed_and_the_mask_is_the_whole_frames(
    width: int, height: int, seed: int, smooth: int, shift: float, threshold: float
) -> None:
    enlarging = Enlarging(SIDE, Size(width, height))
    if min(enlarging.inner) < 1:
        return
    random = np.random.default_rng(seed)
    coarse = random.normal(shift, 2, (32 >> smooth, 32 >> smooth)).astype(np.float32)
    low = np.kron(coarse, np.ones((1 << smooth, 1 << smooth), np.float32))
    whole = SAM.postprocess_masks(
        torch.from_numpy(low)[None, None], (enlarging.inner.height, enlarging.inner.width), (height, width)
    )[0, 0].numpy()
    ours = np.zeros((height, width), bool)
    if (found := enlarging.mask(low, threshold)) is not None:
        box, part = found
        assert set(np.unique(part)) <= {0, 255}
        ours[box.slices] = part > 0
    decided = np.abs(whole - threshold) > 1e-5 * np.abs(low).max()
    np.testing.assert_array_equal(ours[decided], (whole > threshold)[decided])
    assert abs(enlarging.area(low, threshold) - (whole > threshold).sum()) <= (~decided).sum()


def test_the_cost_follows_the_object() -> None:
    low = np.full((256, 256), -5, np.float32)
    low[100:110, 50:60] = 5
    found = Enlarging(1024, Size(4000, 3000)).mask(low)
    assert found is not None
    assert found[0].area < 300 * 300


# -- clicks and bad input ---------------------------------------------------------------------------------------------


@given(
    include=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 69)), min_size=1, max_size=4, unique=True),
    exclude=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 69)), max_size=4, unique=True),
    boxed=st.booleans(),
)
@settings(max_examples=25)
def test_clicks_are_obeyed(include: list[tuple[int, int]], exclude: list[tuple[int, int]], boxed: bool) -> None:
    edit, engine = _shared()
    inside = tuple(Point(*p) for p in include)
    outside = tuple(Point(*p) for p in exclude if p not in include)
    prompts = Prompts((Box(10, 10, 60, 50),) if boxed else (), inside, outside)
    whole = np.zeros((70, 100), bool)
    for region in engine.segment(edit, "", prompts, None, RUN).regions:
        assert 0 <= region.score <= 1
        whole |= values(region)
        assert not any(values(region)[y, x] for x, y in outside)
    assert all(whole[y, x] for x, y in inside)


_SHARED: list[tuple[Edit, Engine]] = []


def _shared() -> tuple[Edit, Engine]:
    """One engine, opened once, for many examples and tests."""
    if not _SHARED:
        one = card("tiny-shared")
        saved(SAM, one)
        edit, engine = Edit.of(photo(100, 70)), Engine(one)
        engine.prepare(edit, RUN)
        _SHARED.append((edit, engine))
    return _SHARED[0]


@pytest.mark.parametrize(("width", "height"), [(31, 200), (200, 31), (1, 1), (12000, 32)])
def test_pictures_too_small_or_too_long_are_refused(engine: Engine, width: int, height: int) -> None:
    edit = Edit.of(np.zeros((height, width, 3), np.uint8))
    with pytest.raises(EngineError, match=rf"^tiny-sam: the photo is {width}x{height} pixels; it needs 32 on each"):
        engine.prepare(edit, RUN)


def test_words_and_subjects_are_refused(engine: Engine) -> None:
    edit = Edit.of(photo(64, 64))
    for prompts, word in ((Prompts(text=("dog",)), "text"), (Prompts(subject=True), "subject")):
        with pytest.raises(EngineError, match=f"^tiny-sam cannot be pointed with {word}, only with box or point"):
            engine.segment(edit, "", prompts, None, RUN)
    with pytest.raises(ParameterError, match="is both included and excluded"):
        engine.segment(edit, "", Prompts(include=INSIDE, exclude=INSIDE), None, RUN)
    assert engine.segment(edit, "", Prompts(), None, RUN).regions == ()


def test_foreign_states_are_refused(engine: Engine) -> None:
    one, two = Edit.of(photo(64, 64, 1)), Edit.of(photo(64, 64, 2))
    state = engine.segment(one, "", Prompts(include=INSIDE), None, RUN).state
    assert len(state) < 4 * 32 * 32 + 500
    for wrong in (b"[]", b"SAM state 1\n", state[:-1], state[:-4] + b"abcd", b"\0" * 100):
        with pytest.raises(EngineError, match="^tiny-sam: the state to go on from is none of its own, or is damaged$"):
            engine.segment(one, "", Prompts(include=INSIDE), wrong, RUN)
    with pytest.raises(EngineError, match="belongs to another picture or network$"):
        engine.segment(two, "", Prompts(include=INSIDE), state, RUN)


def _failure(engine: Engine) -> str:
    with pytest.raises(EngineError) as caught:
        engine.prepare(Edit.of(photo(64, 64)), RUN)
    return str(caught.value)


def test_wrong_checkpoints_are_named() -> None:
    one = card()
    path = saved(SAM, one)
    whole = path.read_bytes()
    pull = "; fetch it again with `inpaint models pull tiny-sam`"
    for damaged in (whole[: len(whole) // 2], whole[:100], b"", b"<html>not found</html>", b"PK\x03\x04" + b"x" * 99):
        path.write_bytes(damaged)
        assert _failure(Engine(one)) == f"{path}: is damaged or no checkpoint of torch{pull}"
    sized = one.model_copy(update={"weights": (one.weights[0].model_copy(update={"bytes": len(whole)}),)})
    assert _failure(Engine(sized)) == f"{path}: has {103} bytes, the whole file has {len(whole)}{pull}"
    torch.save({"a": 1}, path)
    assert _failure(Engine(one)) == f"{path}: is no list of named tensors, as SAM's checkpoints are{pull}"
    content = dict(SAM.state_dict())
    torch.save({**content, "more": torch.zeros(1)}, path)
    assert _failure(Engine(one)) == f"{path}: is no checkpoint of tiny-sam: it holds more, too{pull}"
    name = "mask_decoder.iou_token.weight"
    torch.save({**content, name: torch.zeros(2, 32)}, path)
    assert _failure(Engine(one)) == f"{path}: is no checkpoint of tiny-sam: {name} is (2, 32), not (1, 32){pull}"
    del content[name]
    torch.save(content, path)
    assert _failure(Engine(one)) == f"{path}: is no checkpoint of tiny-sam: {name} is missing{pull}"
    path.unlink()
    assert "its weights are not here: inpaint models pull tiny-sam" in _failure(Engine(one))


class Harmful:
    """What a pickle must not be able to do."""

    def __reduce__(self) -> tuple[Any, ...]:
        return print, ("harm",)


def test_checkpoints_run_no_code(capfd: pytest.CaptureFixture[str]) -> None:
    one = card()
    path = saved(SAM, one)
    torch.save({"a": Harmful()}, path)
    assert "is damaged or no checkpoint" in _failure(Engine(one))
    assert "harm" not in capfd.readouterr().out


def test_checkpoints_of_both_layouts_are_read(engine: Engine) -> None:
    edit = Edit.of(photo(64, 64))
    new = engine.segment(edit, "", Prompts(include=INSIDE), None, RUN)
    old = card("old-sam")
    saved(SAM, old, _use_new_zipfile_serialization=False)
    found = Engine(old).segment(edit, "", Prompts(include=INSIDE), None, RUN)
    assert found.regions[0].mask == new.regions[0].mask


def test_wrong_settings_are_named() -> None:
    with pytest.raises(RecipeError, match=r"^tiny-sam\.settings: no parameter 'head'; did you mean 'heads'\?$"):
        Engine(card(head=3))
    with pytest.raises(RecipeError, match=r"^tiny-sam\.settings\.precision: must be 'auto', 'float32'"):
        Engine(card(precision="int8"))


def test_a_card_without_a_checkpoint_is_named() -> None:
    with pytest.raises(RecipeError, match=r"^tiny-sam\.weights: expected one file, got 0$"):
        Engine(card().model_copy(update={"weights": ()}))


def test_devices_that_are_not_there_and_memory_that_does_not_suffice(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    edit, wrong = Edit.of(photo(64, 64)), Surroundings(device="cuda:7")
    with pytest.raises(EngineError, match="^device cuda:7: "):
        engine.prepare(edit, wrong)  # type: ignore[arg-type]
    monkeypatch.setattr("toolkit.devices.free_memory", lambda device: 2**30)
    large = card().model_copy(update={"memory": 5.0})
    with pytest.raises(EngineError, match=r"^tiny-sam: takes 5 GiB on cpu, 1\.0 GiB are free"):
        Engine(large).prepare(edit, RUN)


# -- cache, threads, cancelling ---------------------------------------------------------------------------------------

ELSEWHERE = """
import sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from sam_networks import card, photo
from toolkit.edit import Edit
from toolkit.engines import Prompts
from toolkit.engines.segment import _sam_network
from toolkit.engines.segment.sam import Engine
from toolkit.schema import Point

class Run:
    device = "cpu"
    progress = cancelled = lambda *_: None

def encode(*_):
    raise AssertionError("looked at again")

_sam_network.encode, RUN = encode, Run()
engine, edit = Engine(card()), Edit.of(photo(301, 200))
key = engine.prepare(edit, RUN)
found = engine.segment(edit, key, Prompts(include=(Point(30, 20), Point(41, 12))), None, RUN)
print(key, found.regions[0].mask.digest, found.regions[0].score, "torchvision" in sys.modules)
"""


def test_another_process_finds_the_embedding_on_disk(engine: Engine) -> None:
    edit = Edit.of(photo(301, 200))
    key = engine.prepare(edit, RUN)
    found = engine.segment(edit, key, Prompts(include=INSIDE), None, RUN)
    command = [sys.executable, "-c", ELSEWHERE, str(Path(__file__).parent)]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    assert found.regions[0].mask is not None
    assert answer == [key, found.regions[0].mask.digest, str(found.regions[0].score), "False"]


def counted(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []

    def count(*arguments: Any) -> Any:
        calls.append(1)
        return encode(*arguments)

    monkeypatch.setattr(_sam_network, "encode", count)
    return calls


def test_a_picture_is_looked_at_once_and_damage_is_noticed(
    engine: Engine, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = counted(monkeypatch)
    edit = Edit.of(photo(64, 64))
    key = engine.prepare(edit, RUN)
    first = engine.segment(edit, key, Prompts(include=INSIDE), None, RUN)
    assert engine.prepare(edit, RUN) == key
    assert len(calls) == 1
    (kept,) = (cache / "embeddings").iterdir()
    whole = kept.read_bytes()
    for damaged in (whole[:-1], whole[:40], b"", whole[:-9] + b"123456789", b"{}\n", b"\xff" * 90):
        kept.write_bytes(damaged)
        calls.clear()
        again = Engine(card()).segment(edit, key, Prompts(include=INSIDE), None, RUN)
        assert len(calls) == 1
        assert again.regions[0].mask == first.regions[0].mask
        assert kept.read_bytes() == whole
    other = card().model_copy(update={"revision": "2"})
    assert Engine(other).prepare(edit, RUN) != key
    assert engine.prepare(Edit.of(photo(64, 64, 5)), RUN) != key


def test_other_weights_are_another_key(engine: Engine) -> None:
    edit = Edit.of(photo(64, 64))
    key = engine.prepare(edit, RUN)
    one = card()
    saved(reference(1), one)
    assert Engine(one).prepare(edit, RUN) != key


def test_weights_that_are_replaced_under_a_process_are_not_mixed(engine: Engine) -> None:
    edit = Edit.of(photo(64, 64))
    engine._network(RUN)  # the decoder was read, the encoder not yet
    saved(reference(1), card())
    with pytest.raises(EngineError, match="was replaced while this process worked with it; begin anew"):
        engine.prepare(edit, RUN)
    assert Engine(card()).prepare(edit, RUN)
    # What was read before goes on under its own key.
    saved(SAM, card())
    known = Engine(card())
    key = known.prepare(edit, RUN)
    saved(reference(2), card())
    assert known.prepare(edit, RUN) == key


def test_embeddings_are_limited_in_memory_and_on_disk(tmp_path: Path) -> None:
    arrays = [np.full((10, 10), i, np.float32) for i in range(8)]
    kept = Embeddings(tmp_path / "a", remembered=2, largest=2200)
    for i, array in enumerate(arrays):
        put = kept.put(f"../{i}", array)
        assert not put.flags.writeable
        path = kept.path(f"../{i}")
        assert path.parent == tmp_path / "a"
        times = 1_000_000_000 + i
        if path.exists():
            os.utime(path, (times, times))
    assert len(list((tmp_path / "a").iterdir())) <= 5
    for i in (6, 7):
        other = Embeddings(tmp_path / "a").get(f"../{i}")
        assert other is not None
        np.testing.assert_array_equal(other, arrays[i])
    assert Embeddings(tmp_path / "a").get("../0") is None
    (tmp_path / "file").write_text("no folder")
    nowhere = Embeddings(tmp_path / "file")
    np.testing.assert_array_equal(nowhere.put("k", arrays[3]), arrays[3])
    assert nowhere.get("k") is not None


def test_threads_never_mix_pictures(engine: Engine) -> None:
    edits = [Edit.of(photo(100 + 7 * i, 90, i)) for i in range(6)]
    prompts = Prompts(boxes=(BOX,), include=INSIDE)
    alone = card("tiny-alone")
    saved(SAM, alone)
    expected = [Engine(alone).segment(edit, "", prompts, None, RUN).regions for edit in edits]
    wrong: list[str] = []

    def work(number: int) -> None:
        for turn in range(2):
            index = (number + turn) % len(edits)
            found = engine.segment(edits[index], "", prompts, None, RUN).regions
            if [r.mask for r in found] != [r.mask for r in expected[index]]:
                wrong.append(f"{number} {index}")

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


@pytest.mark.parametrize("after", [0, 1, 2, 3, 4])
def test_cancelling_leaves_the_engine_usable(engine: Engine, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = counted(monkeypatch)
    edit = Edit.of(photo(64, 64))
    stopped: Any = Surroundings(after=after)
    with pytest.raises(Cancelled):
        engine.prepare(edit, stopped)
    told: Any = Surroundings()
    found = engine.segment(edit, engine.prepare(edit, told), Prompts(include=INSIDE), None, told)
    assert len(found.regions) == 1
    assert len(calls) <= 2
    shares = [share for name, share in told.told if name == "look at the picture"]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    stopped.after = 0
    with pytest.raises(Cancelled):
        engine.segment(edit, "", Prompts(everything=True), None, stopped)


def test_nothing_global_is_touched(engine: Engine) -> None:
    def state() -> tuple[Any, ...]:
        kinds = torch.get_default_dtype(), torch.get_num_threads(), torch.is_grad_enabled()
        return (*kinds, torch.get_rng_state().tolist(), np.random.get_state()[1].tolist())  # type: ignore[index, union-attr]

    before, edit = state(), Edit.of(photo(64, 64))
    engine.segment(edit, engine.prepare(edit, RUN), Prompts(boxes=(BOX,), include=INSIDE), None, RUN)
    assert state() == before


@pytest.mark.parametrize("kind", ["bfloat16", "float16"])
def test_half_precision_is_close_and_lossless_on_disk(kind: str) -> None:
    full, half = card(), card("tiny-half", precision=kind)
    saved(SAM, full)
    saved(SAM, half)
    edit = Edit.of(photo(301, 200))
    one, two = Engine(full), Engine(half)
    exact, near = (e._embeddings.get(e.prepare(edit, RUN)) for e in (one, two))
    assert exact is not None
    assert near is not None
    assert near.dtype == np.float16
    a, b = exact.ravel(), near.astype(np.float32).ravel()
    assert a @ b / np.linalg.norm(a) / np.linalg.norm(b) > 0.998
    assert len(two.segment(edit, "", Prompts(include=INSIDE), None, RUN).regions) == 1


def test_a_processor_without_half_precision_computes_in_full(monkeypatch: pytest.MonkeyPatch) -> None:
    for found, expected in ((False, "float32"), (True, "bfloat16")):
        monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda found=found: found, raising=False)
        monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False, raising=False)
        assert _sam_network.precision("auto", "cpu") == expected
    assert _sam_network.precision("float32", "cpu") == "float32"
    assert _sam_network.precision("auto", "mps") == "float32"


# -- torchvision ------------------------------------------------------------------------------------------------------


@pytest.fixture
def unloaded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """segment_anything not imported yet; afterwards all is as it was."""

    def ours() -> list[str]:
        return [name for name in sys.modules if name.split(".")[0] in ("segment_anything", "torchvision")]

    before = {name: sys.modules.pop(name) for name in ours()}
    yield
    for name in ours():
        del sys.modules[name]
    sys.modules.update(before)


def fake(folder: Path, start: str) -> None:
    for name in ("ops", "transforms"):
        (folder / "torchvision" / name).mkdir(parents=True)
        (folder / "torchvision" / name / "__init__.py").write_text("")
    (folder / "torchvision" / "__init__.py").write_text(start)
    (folder / "torchvision/ops/boxes.py").write_text("def batched_nms(): pass\ndef box_area(): pass\n")
    (folder / "torchvision/transforms/functional.py").write_text("def resize(): pass\ndef to_pil_image(): pass\n")


@pytest.mark.parametrize("kind", ["absent", "broken", "working"])
def test_the_stand_ins_are_for_the_package_alone(
    unloaded: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    broken = "import torchvision.ops.boxes\nraise RuntimeError('operator torchvision::nms does not exist')\n"
    if kind != "absent":
        fake(tmp_path / "site", broken if kind == "broken" else "")
        monkeypatch.syspath_prepend(tmp_path / "site")
    finders, names = list(sys.meta_path), set(sys.modules)
    package = _torchvision.segment_anything()
    assert package is _torchvision.segment_anything()
    assert sys.meta_path == finders
    nms = package.automatic_mask_generator.batched_nms
    there = {name for name in set(sys.modules) - names if name.startswith("torchvision")}
    if kind == "working":
        assert nms is sys.modules["torchvision.ops.boxes"].batched_nms
        return
    assert nms is _torchvision.batched_nms
    assert not there
    with pytest.raises(ModuleNotFoundError if kind == "absent" else RuntimeError):
        importlib.import_module("torchvision")


@given(st.integers(0, 10**6), st.integers(0, 40), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
@settings(max_examples=40)
def test_suppression_keeps_the_best_of_each_place(seed: int, count: int, limit: float) -> None:
    random = np.random.default_rng(seed)
    corners = random.integers(0, 30, (count, 2))
    boxes = np.concatenate([corners, corners + random.integers(1, 20, (count, 2))], 1).astype(np.float32)
    scores, kinds = random.integers(0, 9, count).astype(np.float32), random.integers(0, 3, count)
    kept = _torchvision.batched_nms(
        torch.from_numpy(boxes).view(-1, 4), torch.from_numpy(scores), torch.from_numpy(kinds), limit
    ).tolist()
    expected: list[int] = []
    for i in np.argsort(-scores, kind="stable").tolist():

        def overlap(j: int, i: int = i) -> float:
            a, b = Box(*boxes[i].astype(int).tolist()), Box(*boxes[j].astype(int).tolist())
            shared = a.intersect(b)
            area = 0 if shared.is_empty else shared.area
            return float(np.float32(area) / np.float32(a.area + b.area - area))

        if all(kinds[i] != kinds[j] or overlap(j) <= np.float32(limit) for j in expected):
            expected.append(i)
    assert kept == expected


# -- cards ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("letter", ["b", "l", "h"])
def test_shipped_cards_describe_the_packages_networks(letter: str) -> None:
    one = cards.find("segment", f"sam-vit-{letter}")
    engine = Engine(one)
    with torch.device("meta"):
        official = _torchvision.segment_anything().sam_model_registry[f"vit_{letter}"]()
    network = _sam_network.Network(one, engine._settings, "cpu")
    parts = network._empty()
    ours = {f"{p}.{n}": tuple(t.shape) for p, module in parts.items() for n, t in module.state_dict().items()}
    assert ours == {name: tuple(tensor.shape) for name, tensor in official.state_dict().items()}
    theirs, encoder = official.image_encoder, parts["image_encoder"]
    assert [b.window_size for b in encoder.blocks] == [b.window_size for b in theirs.blocks]
    assert [b.attn.num_heads for b in encoder.blocks] == [b.attn.num_heads for b in theirs.blocks]
    decoder = parts["mask_decoder"].transformer
    assert decoder.layers[0].self_attn.num_heads == official.mask_decoder.transformer.layers[0].self_attn.num_heads
    assert one.weights[0].sha256
    assert one.weights[0].source
    assert set(one.takes) == {"box", "point", "everything"}
    with pytest.raises(ToolkitError, match=f"inpaint models pull {one.name}"):
        engine.prepare(Edit.of(photo(64, 64)), RUN)
    assert f"inpaint models pull {one.name}" in engines.missing(one)
    assert not weights.path(one).exists()
