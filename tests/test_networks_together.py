"""Networks behind the command line: words to boxes to masks, everything there is, clicks, and the subject."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests import onnx_networks, sam_networks, test_detect
from tests.commands import call
from toolkit import cards, engines, weights
from toolkit.cards import Card, Weights
from toolkit.edit import Edit
from toolkit.engines import Prompts
from toolkit.mask import Mask
from toolkit.picking import suppress
from toolkit.run import Run
from toolkit.schema import write_yaml
from toolkit.stages._words import OVERLAP

KIND = test_detect.MODELS[1]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A configuration folder with cards of three tiny networks, a cache with their weights, and a photo."""
    home = tmp_path_factory.mktemp("home")
    (home / "work").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("INPAINT_CACHE", str(home / "cache"))
        detector = test_detect.card_of(KIND).model_copy(update={"name": "tiny-words"})
        test_detect.build(home / "built", KIND)
        weights.folder(detector).mkdir(parents=True)
        for one in detector.weights:
            shutil.copy(home / "built" / one.file, weights.folder(detector))
        sam = sam_networks.card(pred_iou_thresh=-1000.0, stability_score_thresh=0.0, points_per_side_cpu=3)
        sam_networks.saved(sam_networks.reference(), sam)
        subject = cards.find("segment", "birefnet-general").model_copy(
            update={
                "name": "tiny-subject", "memory": None, "rank": 99,
                "weights": (Weights(file="tiny.onnx", url="https://example.org/tiny.onnx"),),
            }
        )  # fmt: skip
        subject = subject.model_copy(update={"settings": {**subject.settings, "size": 64}})
        onnx_networks.contrast_network(weights.path(subject), 64)
    for card in (detector, sam, subject):
        path = home / "config" / "models" / card.task / f"{card.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(write_yaml(card.model_dump(mode="json", exclude_defaults=True)), encoding="utf-8")
    return home


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INPAINT_CACHE", str(home / "cache"))
    monkeypatch.setenv("INPAINT_CONFIG", str(home / "config"))
    monkeypatch.chdir(tmp_path)
    Image.fromarray(sam_networks.photo(150, 110)).save("photo.png")


def reported(*arguments: str) -> dict[str, Any]:
    answer = call(*arguments, "--json")
    assert answer.code == 0, answer.err
    report: dict[str, Any] = json.loads(answer.out)["items"][0]
    return report


def card(name: str) -> Card:
    return cards.find("detect" if name == "tiny-words" else "segment", name)


def test_words_become_boxes_and_boxes_masks() -> None:
    words = ("--text", "dog, leash", "--detector", "tiny-words", "--threshold", "0.06")
    report = reported("regions", "photo.png", *words, "--masks", "--segmenter", "tiny-sam", "--overlay", "found.png")
    edit = Edit.of(Path("photo.png"))
    with Run() as run:
        detector = engines.open_engine(card("tiny-words"))
        wanted = suppress([one for one in detector.detect(edit, ("dog", "leash"), run) if one.score >= 0.06], OVERLAP)
        sam = engines.open_engine(card("tiny-sam"))
        prompts = Prompts(tuple(one.box for one in wanted))
        masks = sam.segment(edit, sam.prepare(edit, run), prompts, None, run).regions
    assert wanted
    expected = {(one.label, tuple(one.box)): mask.mask for one, mask in zip(wanted, masks, strict=True)}
    assert report["regions"]
    for found in report["regions"]:
        assert Mask.from_coco_rle(**found["segmentation"]) == expected[found["label"], tuple(found["box"])]
    assert Path("found.png").exists()
    answer = call("mask", "photo.png", *words, "--segmenter", "tiny-sam", "-o", "m.png", "--overlay", "o.png")
    assert answer.code == 0, answer.err
    whole = Mask.empty(edit.box)
    for one in expected.values():
        assert one is not None
        whole = whole.union(one)
    np.testing.assert_array_equal(np.asarray(Image.open("m.png")), whole.array())


def test_everything_there_is() -> None:
    report = reported("regions", "photo.png", "--everything", "--segmenter", "tiny-sam")
    assert report["engine"] == "tiny-sam"
    assert all(found["area"] == Mask.from_coco_rle(**found["segmentation"]).area for found in report["regions"])
    answer = call("regions", "photo.png", "--everything", "--segmenter", "tiny-subject")
    assert answer.code == 2
    assert "tiny-subject does not take everything there is, only the photo's main subject; choose" in answer.err


def test_a_click_by_name_is_the_references_mask() -> None:
    assert call("mask", "photo.png", "--point", "70,50", "--segmenter", "tiny-sam", "-o", "m.png").code == 0
    predictor = sam_networks.segment_anything().SamPredictor(sam_networks.reference())
    predictor.set_image(sam_networks.photo(150, 110))
    masks, scores, _ = predictor.predict(np.array([[70, 50]]), np.array([1]), multimask_output=True)
    found, wanted = np.asarray(Image.open("m.png")) > 0, masks[int(scores.argmax())].copy()
    assert found[50, 70]
    found[45:56, 65:76] = wanted[45:56, 65:76]  # the click itself is always inside
    np.testing.assert_array_equal(found, wanted)


def test_the_subject_is_found_by_the_highest_ranked_network_that_looks_for_it() -> None:
    pixels = np.full((120, 160, 3), 235, np.uint8)
    pixels[30:90, 50:110] = (40, 60, 160)
    Image.fromarray(pixels).save("product.png")
    report = reported("cutout", "product.png")
    assert report["steps"][0]["engine"] == "tiny-subject"
    alpha = np.asarray(Image.open("product-cutout.png"))[..., 3]
    assert alpha[60, 80] == 255
    assert alpha[5, 5] == 0
    assert (
        reported("cutout", "product.png", "--box", "45,25,115,95", "-o", "b.png")["steps"][0]["engine"]
        != "tiny-subject"
    )
    # Where a network is asked for what it does not do, those that can are named.
    answer = call("cutout", "product.png", "--segmenter", "tiny-sam", "-o", "c.png")
    assert answer.code == 2
    assert "tiny-sam does not take the photo's main subject" in answer.err
    assert "tiny-subject" in answer.err


def test_models_lists_them() -> None:
    answer = call("models")
    assert answer.code == 0, answer.err
    for name in ("tiny-words", "tiny-sam", "tiny-subject", "sam-vit-b", "llmdet-tiny", "birefnet-general", "vitmatte"):
        assert name in answer.text
