"""Finding by words: phrases, thresholds, picks, what is said where nothing is found; with a detector made for it."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from tests.commands import call
from toolkit import cards, engines
from toolkit.cards import Card
from toolkit.edit import Edit, Region
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.errors import EngineError, MaskError, ParameterError, UsageError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.stages._pointing import better
from toolkit.stages._words import phrases_of
from toolkit.stages.detect import Detect
from toolkit.stages.segment import Segment
from toolkit.stages.select import Select

BALLS = {"red ball": ((50, 50), 20, (200, 40, 40)), "blue ball": ((180, 60), 30, (40, 40, 200))}
BOXES = {"red ball": Box(28, 28, 73, 73), "blue ball": Box(148, 28, 213, 93), "second red": Box(90, 95, 121, 126)}


def photo() -> np.ndarray:
    """A large and a small red ball and a blue one on grey."""
    pixels = np.random.default_rng(0).integers(150, 156, (160, 240, 3), np.uint8)
    for place, radius, colour in (*BALLS.values(), ((105, 110), 14, (200, 40, 40))):
        cv2.circle(pixels, place, radius, colour, -1)
    return pixels


class Colours:
    """Knows red and blue balls, and takes the second red one for 0.4 sure."""

    def __init__(self, card: Card | None = None) -> None:
        self.asked: list[tuple[str, ...]] = []

    def detect(self, picture: Picture, phrases: Sequence[str], run: EngineRun) -> tuple[Region, ...]:
        self.asked.append(tuple(phrases))
        found = []
        for phrase in phrases:
            if "red" in phrase.lower():
                found += [Region(BOXES["red ball"], phrase, 0.9), Region(BOXES["second red"], phrase, 0.4)]
                found += [Region(Box(27, 29, 74, 73), phrase, 0.5)]  # the first once more
            elif "blue" in phrase.lower():
                found += [Region(BOXES["blue ball"], phrase, 0.7)]
            elif phrase == "unicorn":
                found += [Region(Box(0, 0, 40, 40), phrase, 0.19)]
        return tuple(sorted(found, key=lambda region: -region.score))


class Words(Colours):
    """A segmenter that understands words by itself."""

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        return "key"

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        found = self.detect(picture, prompts.text, run)
        return Found(tuple(replace(one, mask=Mask.from_box(picture.box, one.box)) for one in found))


def card(task: Any, name: str, **more: Any) -> Card:
    return Card(
        name=name, task=task, adapter="made_up", about="Made up.", revision="1", licence="MIT", commercial_use=True,
        output_terms="none", data_leaves_machine=False, concurrency="gpu", settings={"threshold": 0.3}, **more,
    )  # fmt: skip


@pytest.fixture
def run() -> Any:
    given = {
        "colours": (card("detect", "colours"), Colours()),
        "words": (card("segment", "words", takes=("text",)), Words()),
    }
    with Run(engines=given) as run:
        yield run


def select(run: Run, **values: Any) -> Edit:
    return Recipe([Select(detector="colours", **values)])(Edit.of(photo()), run)


def centres(edit: Edit) -> set[str]:
    """Which of the balls are selected."""
    assert edit.selected is not None
    mask = edit.selected.array()
    places = {"red": (50, 50), "blue": (180, 60), "small": (105, 110)}
    return {name for name, (x, y) in places.items() if mask[y, x]}


@pytest.mark.parametrize(
    ("text", "pick", "expected"),
    [
        ("red ball", "all", {"red", "small"}),
        ("red ball", "largest", {"red"}),
        ("red ball", "smallest", {"small"}),
        ("red ball, blue ball", "all", {"red", "blue", "small"}),
        (["red ball", "blue ball"], "best", {"red", "blue"}),
        ("red ball", "rightmost", {"small"}),
    ],
)
def test_words_select_what_they_name(run: Run, text: Any, pick: str, expected: set[str]) -> None:
    edit = select(run, text=text, pick=pick)
    assert centres(edit) == expected
    assert {region.label for region in edit.regions} <= {"red ball", "blue ball"}
    assert all(region.mask is not None for region in edit.regions)


def test_the_same_thing_found_twice_is_one(run: Run) -> None:
    edit = select(run, text="red ball")
    assert [region.box for region in edit.regions] == [BOXES["red ball"], BOXES["second red"]]
    assert len(edit.steps[-1].figures["detected"]["found"]) == 2


def test_the_threshold_is_the_cards_unless_given(run: Run) -> None:
    assert centres(select(run, text="red ball", threshold=0.45)) == {"red"}
    with pytest.raises(MaskError, match="found no 'red ball'; the best was 0.90, below the threshold 0.95"):
        select(run, text="red ball", threshold=0.95)


def test_nothing_found_is_said_with_the_best_score(run: Run) -> None:
    with pytest.raises(MaskError, match="found no 'unicorn'; the best was 0.19, below the threshold 0.30"):
        select(run, text="unicorn")
    with pytest.raises(MaskError, match="found no 'pony'$"):
        select(run, text="pony")


def test_what_is_missed_beside_something_found_is_warned_of(run: Run) -> None:
    edit = select(run, text="blue ball, unicorn")
    assert centres(edit) == {"blue"}
    assert "colours: found no 'unicorn'; the best was 0.19, below the threshold 0.30" in edit.steps[-1].warnings
    assert edit.steps[-1].figures["detected"]["missed"] == [{"phrase": "unicorn", "best": 0.19}]


@pytest.mark.parametrize("text", ["", " ", "dog,,cat", "dog, ", ["dog", ""], "\n"])
def test_empty_phrases_are_refused(run: Run, text: Any) -> None:
    with pytest.raises(ParameterError, match="phrase is empty"):
        select(run, text=text)


@pytest.mark.parametrize("text", ["!?", "dog, \N{DOG FACE}"])
def test_phrases_of_signs_only_are_refused_by_name(run: Run, text: str) -> None:
    with pytest.raises(ParameterError, match=rf"^text: '{re.escape(text.split(', ')[-1])}' has no word to look for"):
        select(run, text=text)


def test_phrases_are_one_line_each() -> None:
    assert phrases_of(["red\n car,\x1b[31mleash", "Stra\u00dfe \udcff", "red  car"]) == (
        "red car", "[31mleash", "Stra\u00dfe",
    )  # fmt: skip


def test_words_join_boxes_and_clicks(run: Run) -> None:
    assert centres(select(run, text="blue ball", box=[(28, 28, 73, 73)])) == {"red", "blue"}
    assert centres(select(run, text="blue ball", point=[(105, 110)])) == {"blue", "small"}
    found = select(run, text="blue ball", not_point=[(180, 60)]).selected
    assert found is not None
    assert found.array()[60, 180] == 0


def test_detect_segment_select_as_stages(run: Run) -> None:
    stages = [
        Detect(text="red ball, blue ball", detector="colours"),
        Segment(),
        Select(label="red ball", pick="largest"),
    ]
    assert centres(Recipe(stages)(Edit.of(photo()), run)) == {"red"}
    # Without masks made in between, select has them made for what it picks.
    edit = Recipe([stages[0], Select(label="blue ball")])(Edit.of(photo()), run)
    assert centres(edit) == {"blue"}
    assert [region.label for region in edit.regions] == ["blue ball"]
    with pytest.raises(MaskError, match="called 'green ball': 'blue ball', 'red ball'"):
        Recipe([stages[0], Select(label="green ball")])(Edit.of(photo()), run)


def test_the_main_subject_is_not_what_an_earlier_stage_found(run: Run) -> None:
    before = Edit.of(photo()).replace(regions=(Region(BOXES["second red"], "small"),))
    subject = Recipe([Select(subject=True, segmenter="classical")])
    found, alone = subject(before, run).selected, subject(Edit.of(photo()), run).selected
    assert found == alone
    assert centres(Recipe([Select(subject=True, label="small")])(before, run)) == {"small"}


def test_what_was_detected_is_there_once_after_it_is_joined_with_the_selection(run: Run) -> None:
    stages = [Select(box=[BOXES["blue ball"]]), Detect(text="red ball", detector="colours"), Segment(combine="union")]
    edit = Recipe(stages)(Edit.of(photo()), run)
    assert centres(edit) == {"red", "blue", "small"}
    assert [(region.label, region.mask is None) for region in edit.regions] == [("red ball", False)] * 2


class HalfBlind:
    """Outlines nothing but the first box."""

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        return "key"

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        whole, nothing = Mask.from_box(picture.box, prompts.boxes[0]), Mask.empty(picture.box)
        masks = [whole if number == 0 else nothing for number in range(len(prompts.boxes))]
        return Found(tuple(Region(mask.box, "", 0.9, mask) for mask in masks))


def test_a_region_without_a_mask_is_not_lost_silently() -> None:
    given = {
        "colours": (card("detect", "colours"), Colours()),
        "half": (card("segment", "half", takes=("box",)), HalfBlind()),
    }
    with Run(engines=given) as run:
        edit = select(run, text="red ball", segmenter="half")
    assert centres(edit) == {"red"}
    place = BOXES["second red"]
    said = f"half: 'red ball' in {place} has no mask and is left out: nothing was found there"
    assert edit.steps[-1].warnings == (said,)


def test_a_segmenter_that_understands_words_needs_no_detector(run: Run) -> None:
    edit = Recipe([Select(text="blue ball, unicorn", segmenter="words")])(Edit.of(photo()), run)
    assert centres(edit) == {"blue"}
    assert edit.steps[-1].engine == "words"
    assert edit.steps[-1].figures["detected"]["missed"] == [{"phrase": "unicorn", "best": 0.19}]
    largest = Recipe([Select(text="red ball", segmenter="words", pick="largest")])(Edit.of(photo()), run)
    assert [region.box for region in largest.regions] == [BOXES["red ball"]]
    with pytest.raises(MaskError, match="words: found no 'unicorn'; the best was 0.19, below the threshold 0.30"):
        Recipe([Select(text="unicorn", segmenter="words")])(Edit.of(photo()), run)


@pytest.mark.parametrize("said", [{"pick": "largest"}, {"threshold": 0.5}, {"detector": "colours"}])
def test_what_is_said_of_words_needs_words(run: Run, said: dict[str, Any]) -> None:
    mask = np.zeros((160, 240), np.uint8)
    mask[40:60, 40:60] = 255
    for pointed in ({"box": [(28, 28, 73, 73)]}, {"mask": mask}, {"subject": True}):
        with pytest.raises(
            UsageError, match="pick, threshold and detector are said of what words find: give text, too"
        ):
            Recipe([Select(**pointed, **said)])(Edit.of(photo()), run)
    with pytest.raises(UsageError, match="label: chooses among what was found before"):
        Recipe([Select(mask=mask, label="dog")])(Edit.of(photo()), run)


def test_a_phrase_that_is_written_twice_is_one(run: Run) -> None:
    edit = select(run, text="Blue ball, blue  BALL")
    assert [region.label for region in edit.regions] == ["Blue ball"]
    assert not edit.steps[-1].warnings


def test_words_that_find_nothing_beside_a_box_are_warned_of(run: Run) -> None:
    edit = select(run, text="unicorn", box=[(28, 28, 73, 73)])
    assert centres(edit) == {"red"}
    assert any("found no 'unicorn'" in warning for warning in edit.steps[-1].warnings)


def test_a_segmenter_is_only_pointed_with_what_it_takes(run: Run) -> None:
    with pytest.raises(UsageError, match="words does not take boxes, only words; choose .*classical"):
        Recipe([Select(box=[(28, 28, 73, 73)], segmenter="words")])(Edit.of(photo()), run)
    with pytest.raises(UsageError, match="classical does not take everything there is"):
        Recipe([Segment(everything=True, segmenter="classical")])(Edit.of(photo()), run)
    assert engines.resolve("segment", takes=("subject",)).name == "classical"


def test_without_a_detector_it_is_said_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path))
    assert cards.every("detect")
    assert engines.missing(cards.every("detect")[0])
    with Run() as run, pytest.raises(EngineError, match="no engine for detect can run here .*inpaint models pull"):
        Recipe([Select(text="dog")])(Edit.of(photo()), run)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two photos, where `auto` takes the made-up detector."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(photo()).save("a.png")
    Image.fromarray(np.full((60, 80, 3), 150, np.uint8)).save("b.png")
    made = card("detect", "colours")
    monkeypatch.setattr(
        engines,
        "resolve",
        lambda task, *a, resolve=engines.resolve, **k: made if task == "detect" else resolve(task, *a, **k),
    )
    monkeypatch.setattr(engines, "open_engine", lambda c, o=engines.open_engine: Colours() if c is made else o(c))
    return tmp_path


def test_the_verb_regions_lists_what_was_found(folder: Path) -> None:
    answer = call("regions", "a.png", "--text", "red ball, blue ball", "--overlay", "found.png")
    assert answer.code == 0, answer.err
    lines = answer.text.splitlines()
    assert lines[0].startswith("a.png: 3 regions")
    assert lines[1:4] == [
        "  red ball  0.90  28,28,73,73", "  blue ball  0.70  148,28,213,93", "  red ball  0.40  90,95,121,126",
    ]  # fmt: skip
    shown = np.asarray(Image.open("found.png"))
    assert shown.shape == photo().shape
    assert (shown != photo()).any(axis=2).mean() < 0.2
    again = call("regions", "a.png", "--text", "red ball", "--overlay", "found.png")
    assert again.code == 1
    assert "found.png" in again.sentence


@pytest.mark.parametrize("overlay", ["look", "look/"])
def test_overlays_of_a_folder_lie_in_the_one_that_is_named(folder: Path, overlay: str) -> None:
    for name in ("one/a.png", "two/a.png", "two/sub/a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("a.png", name)
    for photos, wanted in ((folder / "one", {"a"}), ("two", {"a", "sub/a"})):
        for verb in ("regions", "mask"):
            masks = ("-o", f"{overlay.rstrip('/')}-masks") if verb == "mask" else ()
            answer = call(verb, str(photos), "--text", "red ball", "--overlay", overlay, *masks)
            assert answer.code == 0, answer.err
            written = {path.relative_to("look").as_posix() for path in Path("look").rglob("*") if path.is_file()}
            assert written == {f"{name}-overlay.png" for name in wanted}
            shutil.rmtree("look")
            shutil.rmtree("look-masks", ignore_errors=True)
    assert call("regions", "a.png", "--text", "red ball", "--overlay", "new/").code == 0
    assert Path("new/a-overlay.png").exists()


def test_the_verb_regions_as_json_with_masks(folder: Path) -> None:
    answer = call("regions", "a.png", "--text", "blue ball, unicorn", "--masks", "--json")
    report = json.loads(answer.out)["items"][0]
    assert report["missed"] == [{"phrase": "unicorn", "best": 0.19}]
    (found,) = report["regions"]
    assert found["box"] == list(BOXES["blue ball"])
    mask = Mask.from_coco_rle(**found["segmentation"])
    assert mask.area == found["area"]
    assert mask.array()[60, 180]


def test_nothing_found_is_an_answer_to_regions_and_a_failure_to_an_edit(folder: Path) -> None:
    answer = call("regions", "b.png", "--text", "unicorn", "--json")
    assert answer.code == 0
    report = json.loads(answer.out)["items"][0]
    assert report["regions"] == []
    assert report["missed"] == [{"phrase": "unicorn", "best": 0.19}]
    answer = call("remove-object", "a.png", "b.png", "--text", "unicorn", "-o", "out")
    assert answer.code == 1
    assert answer.err.count("found no 'unicorn'; the best was 0.19, below the threshold 0.30") == 2
    assert not list(folder.glob("out/*"))


def test_words_in_a_recipe_and_in_a_job_table(folder: Path) -> None:
    Path("jobs.csv").write_text(
        'photo,text,pick,output\na.png,"red ball, blue ball",largest,one.png\na.png,unicorn,,two.png\n'
    )
    dry = json.loads(call("remove-object", "--jobs", "jobs.csv", "--json", "-n").out)["items"][0]["engines"]
    assert dry["detect"] == ["colours"]
    assert dry["segment"]
    answer = call("remove-object", "--jobs", "jobs.csv", "--json")
    assert answer.code == 3, answer.err
    first, second = json.loads(answer.out)["items"]
    assert not second["ok"]
    assert first["steps"][0]["figures"]["detected"]["phrases"] == ["red ball", "blue ball"]
    assert first["steps"][0]["figures"]["parts"] == 2
    assert np.asarray(Image.open("one.png"))[50, 50, 0] < 180  # the ball is gone


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "say what to look for"),
        (("--text", ""), "phrase is empty"),
        (("--everything", "--text", "dog"), "--everything looks for no words"),
        (("--text", "dog", "--threshold", "2"), "at most 1"),
        (("--text", "dog", "--device", "gpu"), "device 'gpu'"),
    ],
)
def test_wrong_calls_of_regions(folder: Path, arguments: tuple[str, ...], said: str) -> None:
    answer = call("regions", "a.png", *arguments)
    assert answer.code == 2
    assert said in answer.sentence


def test_the_mask_verb_draws_labels_on_its_overlay(folder: Path) -> None:
    answer = call("mask", "a.png", "--text", "red ball", "--text", "blue ball", "--overlay", "found.png", "-o", "m.png")
    assert answer.code == 0, answer.err
    mask = np.asarray(Image.open("m.png"))
    assert mask[50, 50] == mask[60, 180] == mask[110, 105] == 255
    assert mask[5, 5] == 0
    assert (np.asarray(Image.open("found.png")) == (255, 80, 80)).all(axis=2).any()


@pytest.mark.parametrize(
    ("prompts", "named"), [(Prompts((Box(0, 0, 9, 9),)), "sam-vit-b"), (Prompts(subject=True), "birefnet-general")]
)
def test_where_the_mask_is_unsure_the_network_that_auto_would_take_is_named(prompts: Prompts, named: str) -> None:
    assert f"--segmenter {named} " in better(cards.find("segment", "classical"), prompts)
    assert better(cards.find("segment", named), prompts) == ""
