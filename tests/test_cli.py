"""The command line: every verb, what it says and writes, and its exit codes."""

from __future__ import annotations

import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import BOX, ROOT, Answer, call, execute, files, make_pictures
from PIL import Image

from toolkit.cli import _session
from toolkit.photo.pngwriter import chunk
from toolkit.recipe import Recipe

FAST = ("-m", "telea")
MASK = ("--mask", "m.png", *FAST)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path / "none"))
    make_pictures()


def array(name: str) -> np.ndarray:
    with Image.open(name) as image:
        return np.asarray(image.convert("RGB")).astype(int)


def changed(name: str, source: str = "p.png") -> np.ndarray:
    return np.any(array(name) != array(source), axis=2)


def done(*arguments: str, **options: Any) -> Answer:
    answer = call(*arguments, **options)
    assert answer.code == 0, answer.err
    return answer


def report(*arguments: str, code: int = 0) -> dict[str, Any]:
    answer = call(*arguments, "--json")
    assert answer.code == code, answer.err
    said: dict[str, Any] = json.loads(answer.out)
    return said


@pytest.mark.parametrize("box", [BOX, "34x34+38+28", " 38, 28, 72, 62 "])
def test_a_box_takes_the_object_out_and_nothing_else(box: str) -> None:
    answer = done("remove-object", "p.png", "--box", box, *FAST)
    assert answer.err == "", "silent where standard error is no terminal"
    assert "p.png -> p-remove-object.png  (telea, 1 window, " in answer.text
    assert "box 38,28,72,62: 34x34 pixels" in answer.text
    moved = changed("p-remove-object.png")
    assert moved[32:58, 42:68].mean() > 0.95
    assert not moved[:15].any()
    assert not moved[:, 90:].any()
    assert abs(array("p-remove-object.png")[35:45, 45:65, 0].mean() - 105) < 25, "no red is left"


def test_masks_inverted_protected_and_fitted() -> None:
    done("remove-object", "p.png", *MASK, "-o", "a.png")
    inside = np.zeros((96, 128), bool)
    inside[28 - 8 : 62 + 8, 38 - 8 : 72 + 8] = True
    assert not (changed("a.png") & ~inside).any()
    Image.fromarray(255 - np.asarray(Image.open("m.png"))).save("inverted.png")
    done("remove-object", "p.png", "--mask", "inverted.png", "--invert-mask", *FAST, "-o", "b.png")
    assert np.array_equal(array("a.png"), array("b.png"))
    done("remove-object", "p.png", *MASK, "--protect", "50,40,60,50", "-o", "c.png")
    assert not changed("c.png")[40:50, 50:60].any()
    assert changed("c.png")[32:38, 42:48].any()
    said = done("remove-object", "p.png", "--mask", "half.png", "--fit-mask", *FAST, "-o", "d.png")
    assert "resized from 64x48 to 128x96" in said.text


def test_clicks() -> None:
    said = report("remove-object", "p.png", "--point", "55,45", "--not-point", "5,5", "--not-point", "120,90", *FAST)
    assert changed("p-remove-object.png")[34:56, 44:66].mean() > 0.9
    assert said["options"]["point"] == ["55,45"]


def test_a_folder_with_masks_paired_by_name() -> None:
    for name in ("s/a.png", "s/a.jpg", "s/sub/a.png"):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy("p" + name[-4:], name)
    answer = done("mask", "s", "--box", BOX, "-o", "masks", "--overlay", "look")
    assert {path.as_posix() for path in Path("masks").rglob("*.png")} == {
        "masks/a.png", "masks/a.jpg.png", "masks/sub/a.png",
    }  # fmt: skip
    assert {path.as_posix() for path in Path("look").rglob("*.png")} == {
        "look/a-overlay.png", "look/a.jpg-overlay.png", "look/sub/a-overlay.png",
    }  # fmt: skip
    before = {name: Path(name).read_bytes() for name in ("s/a.png", "s/a.jpg", "s/sub/a.png")}
    answer = done("remove-object", "s", "-o", "cleaned/", "--mask", "masks", "--preview", *FAST)
    assert "3 of 3 photos done" in answer.text
    written = {path.relative_to("cleaned").as_posix() for path in Path("cleaned").rglob("*") if path.is_file()}
    assert written == {
        "a.png", "a.jpg", "sub/a.png", "a-preview.png", "a-preview.jpg", "sub/a-preview.png",
    }  # fmt: skip
    assert before == {name: Path(name).read_bytes() for name in before}


def test_a_table_of_jobs_where_some_rows_are_bad() -> None:
    Path("jobs.csv").write_text(
        f'photo,mask,box,seed,output\np.png,m.png,,3,o/a.png\np.jpg,,"{BOX}; 1,1,9,9",,\nnone.png,m.png,,,\n'
        "p.png,,38;28,,o/b.png\np.png,m.png,,,o/a.png\n"
    )
    said = report("remove-object", "--jobs", "jobs.csv", *FAST, code=3)
    assert (said["done"], said["failed"]) == (2, 3)
    assert [item["ok"] for item in said["items"]] == [True, True, False, False, False]
    assert [item.get("error") for item in said["items"][2:]] == [
        "jobs.csv line 4: none.png: there is no such file",
        "select.box.0: box '38': expected left,top,right,bottom (whole pixels, e.g. 120,80,400,300) or WxH+X+Y",
        "p.png (jobs.csv line 6): would be written to o/a.png, as p.png (jobs.csv line 2) is",
    ]
    assert said["items"][0]["variations"][0]["seeds"] == [3]
    assert Path("o/a.png").exists()
    assert Path("p-remove-object.jpg").exists()
    assert not Path("o/b.png").exists()


def test_all_failed_is_1_and_one_alone_keeps_its_code() -> None:
    Path("jobs.jsonl").write_text('{"photo": "p.png", "box": "1"}\n{"photo": "p.jpg", "seed": -1, "mask": "m.png"}\n')
    assert call("remove-object", "--jobs", "jobs.jsonl").code == 1
    Path("jobs.jsonl").write_text('{"photo": "p.png", "box": "1"}\n')
    assert call("remove-object", "--jobs", "jobs.jsonl").code == 2


def hosted(service: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Options that have the stand-in service paint a ball."""
    beside = Path(f"{Path.cwd()}-beside")
    beside.mkdir()
    monkeypatch.setenv("INPAINT_CONFIG", str(beside))
    monkeypatch.setenv("INPAINT_STATE", str(beside / "state"))
    (beside / "settings.yaml").write_text(f"wavespeed: {{base_url: '{service.url}'}}")
    monkeypatch.setenv("WAVESPEED_API_KEY", service.settings.key)
    return ["-m", "wavespeed-ai/flux-fill-dev", "--prompt", "a ball"]


def test_a_dry_run_writes_nothing_and_says_what_would_be_done() -> None:
    before = files()
    answer = done("remove-object", "p.png", *MASK, "-n", "-o", "new/x.png")
    assert answer.text.startswith(
        "p.png: fill by telea, 1 window (128x96 at 0,0,128,96), 1 call, free, about 0 s; nothing leaves this machine; "
        "would read p.png, m.png, make 128x96 and write new/x.png\n"
    )
    said = report("remove-object", "p.png", *MASK, "-n", "--num-images", "3")["items"][0]
    assert (said["dry_run"], said["calls"], said["engines"]) == (True, 3, {"fill": ["telea"]})
    assert said["price"] == {"total": 0.0, "currency": "USD"}
    assert said["would_write"] == [*(f"p-remove-object-{k}.png" for k in (1, 2, 3)), "p-remove-object-sheet.jpg"]
    assert files() == before
    Path("there.png").touch()
    (warned,) = report("remove-object", "p.png", *MASK, "-n", "-o", "there.png")["items"]
    assert warned["warnings"] == ["there.png: already exists; name another output with -o, or say --overwrite"]
    assert warned["exists"] == ["there.png"]


@pytest.mark.parametrize("name", sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml")))
def test_every_recipe_has_a_dry_run_that_says_what_the_run_then_does(
    name: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    items = Recipe.load(name).items
    paid = any(item.values.get("own_prompt") for item in items)
    asked = [name, "p.png", *MASK[:2]]
    if paid:
        asked += hosted(request.getfixturevalue("service"), monkeypatch)
        monkeypatch.delenv("WAVESPEED_API_KEY")
    before = files()
    planned = report(*asked, "-n", "--preview")["items"][0]
    assert files() == before
    if paid:
        monkeypatch.setenv("WAVESPEED_API_KEY", request.getfixturevalue("service").settings.key)
    done_ = report(*asked, "--preview")["items"][0]
    assert planned["would_read"] == ["p.png", "m.png"]
    assert planned["would_write"] == [*(one["path"] for one in done_["outputs"]), done_["preview"]]
    assert planned["exists"] == []
    assert planned["canvas"] == done_["canvas"]
    assert planned["price"] == done_["price"] == {"total": 0.035 if paid else 0.0, "currency": "USD"}
    assert planned["data_leaves_machine"] == paid
    assert planned["leaves_for"] == (["127.0.0.1"] if paid else [])
    engines = {step["engine"] for step in done_["steps"]} - {""}
    assert {engine for names in planned["engines"].values() for engine in names} == engines
    windows = [window for step in done_["steps"] if step["stage"] == "crop" for window in step["figures"]["windows"]]
    assert planned["windows"] == windows
    assert planned["warnings"] == done_["warnings"]
    assert report(*asked, "-n")["items"][0]["exists"] == planned["would_write"][:1]


def test_a_dry_run_knows_the_canvas_and_what_is_read_for_it() -> None:
    answer = done(
        "swap-background", "p.png", "--mask", "m.png", "--background", "p.jpg", "--canvas", "64x64", "-n", "-o", "x.png"
    )
    assert "nothing leaves this machine; would read p.png, m.png, p.jpg, make 64x64" in answer.text
    assert not Path("x.png").exists()
    sentence = call("cutout", "p.png", "--mask", "m.png", "-n", "-o", "x.jpg").sentence
    assert sentence == "x.jpg: JPEG has no transparency; name a .png or .webp file, or say --format png"


def test_a_dry_run_plans_every_fill_of_a_recipe() -> None:
    Path("twice.yaml").write_text(
        "name: twice\nstages: [{select: {box: [[38, 28, 72, 62]]}}, crop, {fill: {model: telea}}, composite, "
        "{select: {box: [[80, 10, 100, 30]]}}, crop, {fill: {model: telea}}, composite]\n"
    )
    (said,) = report("run", "twice.yaml", "p.png", "-n")["items"]
    assert (said["calls"], len(said["windows"])) == (2, 2)
    assert said["engines"]["fill"] == ["telea"]


def test_pictures_that_are_alike_are_said_to_be() -> None:
    (said,) = report("remove-object", "p.png", *MASK, "-m", "telea", "--num-images", "2")["items"]
    assert "telea draws nothing at random here: the 2 pictures are alike" in said["notes"]


def test_variations_are_ranked_and_shown_on_a_sheet(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["add-content", "p.png", "--box", BOX, *hosted(service, monkeypatch), "--seed", "30"]
    (said,) = report(*asked, "--num-images", "3")["items"]
    names = [f"p-add-content-{k}.png" for k in (1, 2, 3)]
    assert [one["path"] for one in said["outputs"]] == names
    assert said["sheet"] == "p-add-content-sheet.jpg"
    with Image.open(said["sheet"]) as sheet:
        assert (sheet.format, sheet.width < 2000) == ("JPEG", True)
    seams = [one["seam"] for one in said["variations"]]
    assert seams == sorted(seams)
    seeds = [one["seeds"][0] for one in said["variations"]]
    assert sorted(seeds) == [30, 31, 32]
    (note,) = (note for note in said["notes"] if note.startswith("best seam first"))
    assert note.endswith(f"each can be had alone, the first with --seed {seeds[0]}")
    accepted = len(service.accepted)
    (alone,) = report(*asked[:-1], str(seeds[0]), "-o", "alone.png")["items"]
    assert np.array_equal(array("alone.png"), array(names[0]))
    assert len(service.accepted) == accepted == 3, "it was paid before"
    assert alone["price"]["total"] == 0
    assert "sheet" not in alone
    taken = call(*asked, "--num-images", "2", "-o", "p-add-content.png").sentence
    assert taken.startswith("p-add-content-1.png: already exists")


def test_a_seam_is_rounded_once() -> None:
    composite = {"stage": "composite", "figures": {"seam": [2.605]}}
    report = {"steps": [composite], "variations": [{"seam": 2.6052}], "price": {"total": 0}}
    assert "seam 2.61 (1 = as untouched)" in _session.summary("p.png", report, 1.0), "as the notes and the sheet say"


def test_a_table_gives_each_photo_its_own_prompt(service: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options = hosted(service, monkeypatch)[:2]
    Path("jobs.csv").write_text(f'photo,box,prompt,output\np.png,"{BOX}",a cat,cat.png\np.png,"{BOX}",,none.png\n')
    said = report("replace-object", "--jobs", "jobs.csv", *options, code=3)
    assert [item["ok"] for item in said["items"]] == [True, False]
    assert said["items"][1]["error"].endswith("prompt: is missing; say with --prompt what should be there")
    assert [one.inputs["prompt"] for one in service.accepted] == ["a cat"]


def test_the_report_says_everything() -> None:
    said = report("remove-object", "p.png", "--box", BOX, "--seed", "5", "--num-images", "2", "--prompt", "sky", *FAST)
    assert (said["version"], said["recipe"], said["seed"], said["done"], said["failed"]) == (
        1, "remove-object", 5, 1, 0,
    )  # fmt: skip
    assert said["options"] == {"prompt": "sky", "box": [BOX], "model": "telea", "seed": 5, "num_images": 2}
    (item,) = said["items"]
    assert item["ok"]
    assert item["seconds"] > 0
    assert item["photo"]["size"] == [128, 96]
    steps = {step["stage"]: step for step in item["steps"]}
    assert list(steps) == ["select", "dilate", "crop", "fill", "feather", "composite"]
    assert steps["crop"]["figures"]["windows"] == [{"box": [0, 0, 128, 96], "size": [128, 96], "scale": 1.0}]
    assert (steps["fill"]["engine"], steps["fill"]["seeds"]) == ("telea", [5, 6])
    assert 0 < steps["select"]["figures"]["confidence"] <= 1
    assert all(step["seconds"] >= 0 for step in item["steps"])
    assert [one["seeds"] for one in item["variations"]] == [[5], [6]]
    assert all(one["seam"] > 0 for one in item["variations"])
    assert item["warnings"] == ["telea takes no prompt; 'sky' was not used"]
    assert [one["path"] for one in item["outputs"]] == ["p-remove-object-1.png", "p-remove-object-2.png"]
    for one in item["outputs"]:
        assert one["verified"]
        assert one["pixels_changed_outside"] == 0
        assert one["pixels_changed"] == changed(one["path"]).sum()


def test_a_jpeg_report_counts_what_encoding_changed() -> None:
    (item,) = report("remove-object", "p.jpg", *MASK)["items"]
    (one,) = item["outputs"]
    assert one["pixels_changed_outside"] == changed("p-remove-object.jpg", "p.jpg").sum() - one["pixels_changed"]


def test_standard_input_and_output() -> None:
    answer = done("remove-object", "-", *MASK, "-o", "-", stdin=Path("p.png").read_bytes())
    Path("out.png").write_bytes(answer.out)
    done("remove-object", "p.png", *MASK, "-o", "file.png")
    assert Path("file.png").read_bytes() == answer.out
    assert answer.err.startswith("standard input -> -")
    mask = done("mask", "-", "--mask", "m.png", "-o", "-", stdin=Path("p.jpg").read_bytes())
    Path("mask.png").write_bytes(mask.out)
    assert np.array_equal(array("mask.png"), array("m.png"))
    done("remove-object", "-", "p.jpg", *MASK, "-o", "both", stdin=Path("p.png").read_bytes())
    assert sorted(path.name for path in Path("both").iterdir()) == ["p.jpg", "standard-input.png"]


def test_overwriting_is_asked_for() -> None:
    done("remove-object", "p.png", *MASK)
    first = Path("p-remove-object.png").read_bytes()
    answer = call("remove-object", "p.png", *MASK, "--set", "dilate.radius=1")
    assert answer.code == 1
    assert Path("p-remove-object.png").read_bytes() == first
    done("remove-object", "p.png", *MASK, "--set", "dilate.radius=12", "--overwrite")
    assert Path("p-remove-object.png").read_bytes() != first
    result = changed("p-remove-object.png")
    done("remove-object", "p.png", *MASK, "--set", "dilate.radius=12", "--overwrite", "-o", "p.png")
    assert not changed("p.png", "p-remove-object.png").any()
    assert result.any()


def test_settings_reach_any_stage() -> None:
    (small,) = report("remove-object", "p.png", *MASK, "--set", "dilate.radius=0", "-n")["items"]
    (large,) = report("remove-object", "p.png", *MASK, "--set", "dilate.radius=9", "-n")["items"]
    assert small["steps"][1]["figures"]["pixels"] == 34 * 34 < large["steps"][1]["figures"]["pixels"]


def test_a_seed_that_is_drawn_is_said_and_can_be_given_again() -> None:
    answer = call("remove-object", "p.png", "--mask", "m.png", "--seed", "random", "--json")
    said = json.loads(answer.out)
    assert answer.err.startswith(f"seed {said['seed']}\n")
    (item,) = said["items"]
    assert item["variations"][0]["seeds"] == [said["seed"]]
    done("remove-object", "p.png", "--mask", "m.png", "--seed", str(said["seed"]), "-o", "again.png")
    assert Path("again.png").read_bytes() == Path("p-remove-object.png").read_bytes()


def test_a_preview_shows_before_mask_and_after() -> None:
    answer = done("remove-object", "p.png", *MASK, "--preview", "--num-images", "2")
    assert "p-remove-object-1-preview.png" in answer.text
    with Image.open("p-remove-object-1-preview.png") as sheet:
        assert sheet.size == (4 * 128 + 3 * 12, 96)


def test_a_mask_and_its_overlay() -> None:
    answer = done("mask", "p.png", "--box", BOX, "-o", "mask.png", "--overlay", "check.png", "--dilate", "3")
    assert "p.png -> mask.png, check.png" in answer.text
    with Image.open("mask.png") as mask:
        assert mask.mode == "L"
        assert set(np.unique(np.asarray(mask))) == {0, 255}
        area = (np.asarray(mask) > 0).sum()
    assert changed("check.png").sum() >= area * 0.99
    said = report("mask", "p.png", "--box", BOX, "-o", "second.png")
    assert said["verb"] == "mask"
    assert said["items"][0]["outputs"] == [{"path": "second.png", "format": "PNG", "mode": "L"}]


RECIPE = """
name: my-recipe
about: Wider than usual.
inputs:
  width: {type: number, default: 3, about: how far to grow}
stages:
  - select
  - dilate: {radius: $width}
  - crop
  - fill: {model: telea}
  - composite
"""


def test_a_recipe_of_ones_own_is_run_checked_and_found() -> None:
    Path("mine.yaml").write_text(RECIPE)
    assert done("check", "mine.yaml", "remove-object").text.splitlines() == [
        "mine.yaml: in order (select -> dilate -> crop -> fill -> composite)",
        "remove-object: in order (select -> dilate -> crop -> fill -> feather -> composite)",
    ]
    assert "how far to grow [default: 3]" in done("run", "mine.yaml", "--help").text
    assert done("run", "mine.yaml", "--help").text.startswith("Usage: inpaint run mine.yaml [OPTIONS]")
    done("run", "mine.yaml", "p.png", "--mask", "m.png", "--width", "1", "-o", "a.png")
    done("run", "mine.yaml", "p.png", "--mask", "m.png", "--set", "dilate.radius=1", "-o", "b.png")
    assert Path("a.png").read_bytes() == Path("b.png").read_bytes()
    Path("recipes").mkdir()
    shutil.move("mine.yaml", "recipes/my-recipe.yaml")
    assert "my-recipe        Wider than usual." in done("--help").text
    assert "Wider than usual." in done("recipes").text
    assert "--width" in done("recipes", "show", "my-recipe").text
    done("my-recipe", "p.png", "--mask", "m.png", "--width", "1")
    assert Path("p-my-recipe.png").read_bytes() == Path("a.png").read_bytes()


def test_broken_recipes_and_cards_in_the_way_break_nothing_else() -> None:
    Path("recipes/folder.yaml").mkdir(parents=True)
    Path("recipes/bytes.yaml").write_bytes(b"about: \xff")
    Path("recipes/open.yaml").write_text("[")
    assert "remove-object" in done("--help").text
    listed = done("recipes").text
    assert "cannot be used" in listed
    assert "Take an object out" in listed
    done("remove-object", "p.png", *MASK)
    answer = call("doctor")
    assert (answer.code, answer.err.count("problem: ")) == (1, 2)
    Path("models/fill").mkdir(parents=True)
    Path("models/fill/bad.yaml").write_text("[")
    answer = call("doctor")
    assert "bad.yaml: line 1 expected the node content" in answer.err
    assert "segment: auto takes classical" in answer.text


def test_models_are_listed_and_shown() -> None:
    assert "patchmatch     free, ready" in done("models").text
    assert "telea          free, ready, never taken by auto" in done("models").text
    assert "licence: MIT (PyPatchMatch)" in done("models", "show", "patchmatch").text
    (card,) = json.loads(done("models", "show", "fill/telea", "--json").out)
    assert (card["name"], card["task"]) == ("telea", "fill")


def test_the_doctor_s_reasons_stand_below_each_other() -> None:
    fillers = call("doctor").text.partition("fill: auto takes")[2].partition("enhance: auto takes")[0].splitlines()[1:]
    assert len({len(line) - len(line[4:].partition(" ")[2].lstrip()) for line in fillers}) == 1


def test_check_goes_on_after_a_bad_file() -> None:
    Path("bad.yaml").write_text("stages: [grw]")
    answer = call("check", "bad.yaml", "remove-object")
    assert answer.code == 2
    assert answer.text.startswith("remove-object: in order")


def test_check_looks_at_detectors() -> None:
    Path("words.yaml").write_text(
        "stages: [{detect: {text: dog, detector: nobody}}, segment, select, crop, fill, composite]"
    )
    answer = call("check", "words.yaml", "remove-object")
    assert answer.code == 2
    assert answer.sentence.startswith("no detect model 'nobody'")


@pytest.mark.parametrize(("shell", "word"), [("bash", "complete "), ("zsh", "#compdef inpaint"), ("fish", "complete ")])
def test_completion(shell: str, word: str) -> None:
    assert word in done("completion", shell).text


def test_doctor_finds_pairs_of_packages_that_break_each_other() -> None:
    assert "fill: auto takes patchmatch" in done("doctor").text
    for name, release in (("opencv_python", "4.10.0"), ("torch", "2.0"), ("torchvision", "0.1")):
        folder = Path(f"site/{name}-{release}.dist-info")
        folder.mkdir(parents=True)
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {release}\n")
    Path("site/torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    answer = execute("doctor", env={"PYTHONPATH": os.pathsep.join([str(ROOT), "site"])})
    assert answer.code == 1
    assert "opencv-python and opencv-python-headless are installed side by side" in answer.err
    assert "pip uninstall opencv-python opencv-python-headless, then pip install opencv-python-headless" in answer.err
    assert "torch 2.0 and torchvision 0.1 do not belong together" in answer.err
    assert answer.text.endswith("2 problems found\n")


def test_the_demo_as_a_new_user_runs_it() -> None:
    answer = execute("demo")
    assert answer.code == 0, answer.err
    for name in ("before", "mask", "after", "sheet"):
        with Image.open(f"inpaint-demo/{name}.png") as image:
            image.load()
    assert ", 0 outside the mask" in answer.text
    assert answer.err == ""
    before, after = Path("inpaint-demo/before.png"), Path("inpaint-demo/after.png")
    assert before.read_bytes() != after.read_bytes()


def test_help_of_every_verb() -> None:
    assert "remove-object    Take an object out of a photo" in done("--help").text
    for verb in ("remove-object", "mask", "run", "check", "recipes", "models", "completion", "doctor", "demo"):
        assert done(verb, "--help").text.startswith("Usage: ")
    assert call().code == 2


@pytest.mark.parametrize("name", ["-dash.png", "sp ace ü\u2028.png", "(b)%[c]*.png", "x" * 236 + ".png"])
def test_odd_names(name: str) -> None:
    shutil.copy("p.png", name)
    done("remove-object", *MASK, "-o", "out.png", "--", name)
    assert changed("out.png").any()
    if len(name) < 200:
        done("remove-object", f"./{name}", *MASK)
        assert Path(name.replace(".png", "-remove-object.png")).exists()


@pytest.mark.skipif(os.name == "nt", reason="names are text there")
def test_names_that_are_no_text_and_terminals_that_cannot_show_them() -> None:
    name = os.fsdecode(b"b\xffd.png")
    try:
        shutil.copy("p.png", name)
    except OSError:
        pytest.skip("this file system takes text only")
    answer = execute("remove-object", name, *MASK, "--json", env={"PYTHONIOENCODING": "utf-8:strict"})
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["items"][0]["outputs"][0]["path"] == os.fsdecode(b"b\xffd-remove-object.png")
    shutil.copy("p.png", "ü.png")
    answer = execute(
        "remove-object", "ü.png", *MASK, env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    )
    assert answer.code == 0, answer.err
    assert Path("ü-remove-object.png").exists()


def test_odd_but_possible_recipes() -> None:
    mask = ("--mask", "m.png", "-m", "telea")
    for number, stages in enumerate([
        "[select, select, dilate, crop, fill, composite]",
        "[select, crop, fill, fill, composite]",
        "[select, dilate, crop, fill, composite, select, crop, fill, composite]",
        "[select, {dilate: {radius: 0%}}, crop, fill, {feather: {radius: 1000000}}, composite]",
    ]):  # fmt: skip
        Path("r.yaml").write_text(f"stages: {stages}")
        done("check", "r.yaml")
        done("run", "r.yaml", "p.png", *mask, "-o", f"{number}.png")
    Path("r.yaml").write_text(
        "stages: [select, crop, {fill: {num_images: 2}}, composite, select, crop, fill, composite]"
    )
    answer = call("run", "r.yaml", "p.png", *mask)
    assert (answer.code, "2 variations" in answer.sentence) == (2, True)


def test_a_photo_that_changes_meanwhile_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from toolkit.dataset import work

    begin = work.EditWork.begin

    def meddled(*arguments: Any) -> Any:
        begun = begin(*arguments)
        shutil.copy("full.png", "p.png")
        return begun

    monkeypatch.setattr(work.EditWork, "begin", meddled)
    answer = call("remove-object", "p.png", *MASK)
    assert (answer.code, answer.sentence) == (
        1, "p.png: the file has changed since it was opened; open it again",
    )  # fmt: skip
    assert not Path("p-remove-object.png").exists()


@pytest.mark.heavy
def test_as_many_variations_as_there_may_be() -> None:
    done("remove-object", "p.png", *MASK, "--num-images", "64", "-o", "x.png")
    assert len(list(Path().glob("x-*.png"))) == 64


def test_the_report_names_the_mode_that_was_written() -> None:
    rows = np.tile(np.arange(32, dtype=np.uint8) * 8, (32, 1))
    head = struct.pack(">IIBBBBB", 32, 32, 8, 0, 0, 0, 1)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    parts = [rows[y::down, x::right] for x, y, right, down in passes]
    data = b"".join(b"\0" + row.tobytes() for part in parts for row in part)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(data)) + chunk(b"IEND", b"")
    Path("adam7.png").write_bytes(b"\x89PNG\r\n\x1a\n" + body)
    answer = done("remove-object", "adam7.png", "--box", "10,10,16,16", "-m", "telea", "-o", "out.png", "--json")
    (item,) = json.loads(answer.text)["items"]
    assert item["outputs"][0]["mode"] == "8-bit grey PNG"
    assert "the file is no longer interlaced" in item["notes"]
