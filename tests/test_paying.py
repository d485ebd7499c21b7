"""Paid engines from the command line: what is asked, sent, paid, held back, written down and taken up again."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call, make_pictures
from paid import quick_card
from PIL import Image
from wavespeed_server import Server

from toolkit.cli._recipe import _unfinished
from toolkit.dataset import work
from toolkit.dataset.held import write_table
from toolkit.dataset.targets import file_id
from toolkit.entries import ItemEntry, RunEntry
from toolkit.errors import HeldBack
from toolkit.journal import Journal

MODEL = ("-m", "wavespeed-flux-fill-dev")
MASK = ("--mask", "m.png", *MODEL)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, service: Server) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INPAINT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path / "configuration"))
    monkeypatch.setenv("WAVESPEED_API_KEY", service.settings.key)
    (tmp_path / "configuration").mkdir()
    Path("configuration/settings.yaml").write_text(
        f"wavespeed: {{base_url: '{service.url}', settle: 0.5, tier: gold}}\n"
    )
    quick_card(Path("configuration"))
    make_pictures()


def report(*arguments: str, code: int = 0) -> dict[str, Any]:
    answer = call(*arguments, "--json")
    assert answer.code == code, answer.err
    said: dict[str, Any] = json.loads(answer.out)
    return said


def runs() -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = json.loads(call("runs", "--json").out)
    return listed


def folder(count: int) -> None:
    """`in/` with so many photos that differ."""
    Path("in").mkdir()
    photo = np.asarray(Image.open("p.png").convert("RGB"))
    for k in range(count):
        changed = photo.copy()
        changed[0, 0] = k
        Image.fromarray(changed).save(f"in/{k:02}.png")


def test_a_small_run_goes_ahead_and_is_on_the_bill(service: Server) -> None:
    said = report("remove-object", "p.png", *MASK, "--prompt", "a meadow")
    (item,) = said["items"]
    assert item["price"]["total"] == 0.035
    fill = next(step for step in item["steps"] if step["stage"] == "fill")
    (facts,) = fill["figures"]["service"]
    (sent,) = service.accepted
    assert facts["id"] == sent.id
    assert {"model", "created_at", "timings", "urls"} <= set(facts)
    assert sent.inputs["prompt"] == "a meadow"
    assert sent.inputs["seed"] == 0
    assert item["outputs"][0]["pixels_changed_outside"] == 0
    (run,) = runs()
    assert (run["state"], run["paid"], run["perhaps_paid"]) == ("ended", 0.035, 0.0)
    shown = call("runs", "show", run["id"][:6]).text
    assert sent.id in shown
    assert "$0.035 paid" in shown
    assert "--prompt 'a meadow'" in shown, "as a shell takes it"


def test_without_a_prompt_the_card_s_own_is_sent(service: Server) -> None:
    assert call("remove-object", "p.png", *MASK).code == 0
    assert service.accepted[0].inputs["prompt"].startswith("background of the image")


def test_the_same_request_is_paid_once_and_anew_only_when_asked(service: Server) -> None:
    for _ in range(2):
        assert call("remove-object", "p.png", *MASK, "--overwrite").code == 0
    first = Path("p-remove-object.png").read_bytes()
    assert len(service.accepted) == 1
    assert call("remove-object", "p.png", *MASK, "--overwrite", "--fresh").code == 0
    assert len(service.accepted) == 2
    assert Path("p-remove-object.png").read_bytes() == first
    assert [run["paid"] for run in runs()] == [0.035, 0.0, 0.035]


def test_the_service_s_own_name_is_understood(service: Server) -> None:
    answer = call("remove-object", "p.png", "--mask", "m.png", "-m", "wavespeed-ai/flux-fill-dev")
    assert answer.code == 0, answer.err
    assert len(service.accepted) == 1


def test_a_dry_run_needs_no_key_and_sends_nothing(service: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAVESPEED_API_KEY")
    answer = call("remove-object", "p.png", *MASK, "--num-images", "3", "-n")
    assert answer.code == 0, answer.err
    assert "3 calls" in answer.text
    assert "$0.105" in answer.text
    assert "go to 127.0.0.1" in answer.text
    assert service.requests == []
    refused = call("remove-object", "p.png", *MASK)
    assert refused.code == 1
    assert "inpaint keys set wavespeed" in refused.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--guidance", "25"), "guidance: wavespeed-flux-fill-dev takes 28 to 35, got 25"),
        (("--steps", "51"), "steps: wavespeed-flux-fill-dev takes 1 to 50, got 51"),
        (("--lora", "a/b:5"), "takes scales 0 to 4, got 5"),
        (("--lora", "style.safetensors"), "name a repository"),
        (("--lora", "@brand"), "no list in the settings 'brand'"),
        (tuple("--lora a/b --lora a/c --lora a/d --lora a/e".split()), "at most 3, got 4"),
        (("--size", "2000x1000"), "256-1536"),
        (("--seed", "2147483647", "--num-images", "2"), "takes 0 to 2147483647"),
    ],
)
def test_what_the_card_does_not_take_is_refused_before_anything_is_sent(
    service: Server, arguments: tuple[str, ...], sentence: str
) -> None:
    answer = call("remove-object", "p.png", *MASK, *arguments)
    assert answer.code == 2
    assert sentence in answer.err
    assert service.requests == []


def test_many_calls_need_a_yes(service: Server) -> None:
    folder(11)
    command = ("remove-object", "in", *MASK, "-o", "out")
    answer = call(*command)
    assert answer.code == 2
    assert "11 photos: 11 calls, $0.39 at most, about" in answer.err
    assert "--yes, or --max-cost" in answer.err
    assert service.requests == []
    assert not Path("out").exists()
    answer = call(*command, "--yes")
    assert answer.code == 0, answer.err
    assert len(service.accepted) == 11


def test_a_shared_background_is_paid_once_for_a_folder(service: Server) -> None:
    folder(11)
    painted = ("--background-prompt", "a plain wall", "--share-background")
    said = report("swap-background", "in", *MASK, *painted, "-o", "out")
    assert len(service.accepted) == 1, "one call is no reason to ask"
    assert sum(item["price"]["total"] for item in said["items"]) == pytest.approx(0.035)
    assert len(list(Path("out").glob("*.png"))) == 11
    answer = call("swap-background", "in", *MASK, *painted[:2], "-o", "each")
    assert answer.code == 2
    assert "11 photos: 11 calls" in answer.err


def test_painted_backgrounds_in_variations(service: Server) -> None:
    painted = ("swap-background", "p.png", *MASK, "--background-prompt", "a plain wall", "--num-images", "3")
    (planned,) = report(*painted, "-n")["items"]
    (said,) = report(*painted)["items"]
    assert planned["calls"] == len(service.accepted) == 3
    assert planned["price"]["total"] == pytest.approx(said["price"]["total"])
    written = [*(one["path"] for one in said["outputs"]), said["sheet"]]
    assert written == planned["would_write"]
    assert [one["seeds"] for one in said["variations"]] == [[0], [1], [2]]
    mask, before = np.asarray(Image.open("m.png")), np.asarray(Image.open("p.png"))
    for one in said["outputs"]:
        after = np.asarray(Image.open(one["path"]))
        assert np.array_equal(after[32:58, 42:68], before[32:58, 42:68]), "the product is untouched"
        assert (after != before)[mask == 0].mean() > 0.5


def test_a_limit_is_never_passed(service: Server) -> None:
    folder(12)
    answer = call("remove-object", "in", *MASK, "-o", "out", "--max-cost", "0.1")
    assert answer.code == 3
    assert "it stops before it has spent more than $0.1" in answer.err
    assert "the limit of $0.1 would be passed" in answer.err
    assert len(service.accepted) == 2
    assert len(list(Path("out").glob("*.png"))) == 2


def test_a_photo_s_calls_are_paid_all_or_none_within_a_limit(service: Server) -> None:
    command = ("remove-object", "p.png", *MASK, "--overwrite", "--num-images")
    answer = call(*command, "4", "--max-cost", "0.1")
    assert answer.code == 1
    assert answer.sentence == "the limit of $0.1 would be passed: $0 spent or under way, $0.14 more asked for"
    assert service.requests == []
    assert (runs()[-1]["paid"], runs()[-1]["perhaps_paid"]) == (0, 0)
    assert call(*command, "2", "--max-cost", "0.1").code == 0
    assert call(*command, "4", "--max-cost", "0.07").code == 0, "two of the four are paid and kept"
    assert len(service.accepted) == 4


def test_a_run_that_met_its_limit_is_taken_up_with_another(service: Server) -> None:
    folder(4)
    assert call("remove-object", "in", *MASK, "-o", "out", "--max-cost", "0.07").code == 3
    answer = call("resume")
    assert answer.code == 3
    assert "the limit of $0.07 would be passed: $0.07 spent" in answer.err
    answer = call("resume", "--max-cost", "0.14")
    assert answer.code == 0, answer.err
    assert "2 of 2 photos done; 2 were before" in answer.text
    assert len(service.accepted) == 4
    assert [run["paid"] for run in runs()] == [pytest.approx(0.14)]


def test_what_is_paid_and_kept_is_neither_planned_nor_asked_about(service: Server) -> None:
    folder(12)
    command = ("remove-object", "in", *MASK, "-o", "out", "--overwrite")
    assert call(*command, "--yes").code == 0
    planned = report(*command, "-n")["items"]
    assert [(item["calls"], item["kept"], item["price"]["total"]) for item in planned] == [(0, 1, 0)] * 12
    assert not any(item["data_leaves_machine"] or item["leaves_for"] for item in planned)
    said = call(*command, "-n").text
    assert "1 picture paid before and kept, free" in said
    assert "12 of 12 photos planned: no calls, nothing to pay, 12 paid before and kept in all" in said
    again = call(*command)
    assert again.code == 0, again.err
    assert len(service.accepted) == 12
    for changes in (("--fresh",), ("--prompt", "a meadow"), ("--seed", "1"), ("--num-images", "4")):
        planned = report(*command, *changes, "-n")["items"]
        owed = 3 if changes[0] == "--num-images" else 1
        assert [item["calls"] for item in planned] == [owed] * 12, changes
    assert call(*command, "--fresh").code == 2
    assert len(service.accepted) == 12


def test_painted_backgrounds_that_are_kept_are_not_planned_again(service: Server) -> None:
    painted = ("swap-background", "p.png", *MASK, "--background-prompt", "a plain wall", "--overwrite")
    for shared in ((), ("--share-background",)):
        (before,) = report(*painted, *shared, "-n")["items"]
        assert call(*painted, *shared).code == 0
        (after,) = report(*painted, *shared, "-n")["items"]
        assert (before["calls"], before["kept"], after["calls"], after["kept"]) == (1, 0, 0, 1)


def test_the_time_expected_of_calls_made_together_is_not_their_sum() -> None:
    card = Path("configuration/models/fill/wavespeed-flux-fill-dev.yaml")
    card.write_text(card.read_text().replace("per_call: 0", "per_call: 5"))
    planned = report("remove-object", "p.png", *MASK, "--num-images", "4", "-n")["items"][0]
    assert planned["seconds_expected"] == pytest.approx(5, abs=0.2)
    assert planned["seconds_of_calls"] == pytest.approx(20, abs=0.2)
    assert planned["rate"] == {"per_minute": 3000, "at_once": 128}
    settings = Path("configuration/settings.yaml")
    settings.write_text(settings.read_text().replace("gold", "bronze"))
    folder(11)
    answer = call("remove-object", "in", *MASK, "-o", "out", "-n")
    assert "11 calls, $0.39 at most, about 65 s in all" in answer.text, "ten in a minute, then one"


def test_a_dry_run_names_the_enhancer_and_what_keeps_it_from_running() -> None:
    command = ("remove-object", "p.png", *MASK, "--prompt", "a meadow", "-n", "--enhance")
    planned = report(*command, "chat")["items"][0]
    assert planned["engines"]["enhance"] == ["chat"]
    assert any("chat cannot run here: it has no model" in note for note in planned["notes"])
    assert "enhance by offline" in call(*command, "offline").text


def test_a_dry_run_of_a_mask_that_would_be_held_sends_nothing() -> None:
    noise = np.random.default_rng(0).integers(100, 130, (200, 300, 3)).astype(np.uint8)
    Image.fromarray(noise).save("noise.png")
    command = ("remove-object", "noise.png", "--point", "150,100", *MODEL, "-n")
    planned = report(*command)["items"][0]
    assert (planned["held"], planned["calls"], planned["data_leaves_machine"], planned["leaves_for"]) == (
        True, 0, False, [],
    )  # fmt: skip
    assert "its mask would be held back, so nothing leaves this machine" in call(*command).text
    Path("two").mkdir()
    for name in ("a", "b"):
        Path(f"two/{name}.png").write_bytes(Path("noise.png").read_bytes())
    assert (
        "2 of 2 photos planned: no calls, nothing to pay, 2 held back in all"
        in call("remove-object", "two", *command[2:], "-o", "out").text
    )


def test_what_is_wrong_for_all_photos_is_said_before_any_is_looked_at(
    service: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("in").mkdir()
    for name in ("a", "b"):
        Path(f"in/{name}.png").write_bytes(b"no picture, which would be said first")
    command = ("remove-object", "in", *MASK, "-o", "out")
    for changes, sentence in [
        (("--steps", "51"), "steps: wavespeed-flux-fill-dev takes 1 to 50, got 51"),
        (("--num-images", "5"), "num_images: wavespeed-flux-fill-dev takes 1 to 4, got 5"),
        (("--seed", "2147483647", "--num-images", "2"), "takes 0 to 2147483647"),
    ]:
        answer = call(*command, *changes)
        assert answer.code == 2
        assert sentence in answer.sentence
        assert call(*command, *changes, "-n").sentence == answer.sentence
    painted = call("swap-background", "in", *MASK, "--background-prompt", "a wall", "--lora", "x:5", "-o", "out")
    assert "takes scales 0 to 4" in painted.sentence
    monkeypatch.delenv("WAVESPEED_API_KEY")
    assert "inpaint keys set wavespeed" in call(*command).sentence
    assert runs() == []
    Path("jobs.csv").write_text("photo,mask,model\np.png,m.png,wavespeed-flux-fill-dev\np.jpg,m.png,telea\n")
    assert "0 to 50" not in call("remove-object", "--jobs", "jobs.csv", "--steps", "30").err, "each row by itself"
    assert service.requests == []


def test_photos_whose_results_are_there_are_on_no_bill() -> None:
    folder(3)
    Path("out").mkdir()
    Path("out/00.png").write_bytes(b"there")
    said = call("remove-object", "in", *MASK, "-o", "out", "-n").text
    assert "3 of 3 photos planned: 2 calls, $0.07 at most" in said
    assert "1 refused: what they would write is there in all" in said


def test_a_run_that_failed_in_part_says_how_it_goes_on(service: Server) -> None:
    folder(2)
    Path("in/02.png").write_bytes(b"no picture")
    answer = call("remove-object", "in", *MASK, "-o", "out")
    assert answer.code == 3
    assert "`inpaint resume` goes on with what failed; nothing is paid twice" in answer.err


def test_what_was_being_written_when_a_run_was_cut_short_is_written_over(service: Server) -> None:
    folder(2)
    command = ("remove-object", "in", *MASK, "-o", "out", "--num-images", "2")
    assert call(*command).code == 0
    whole = {path: path.read_bytes() for path in Path("out").iterdir()}
    assert len(whole) == 6
    journal = Journal(Path("state"))
    (run,) = journal.runs()
    outputs = journal.run(run.id).items[1].detail["outputs"]
    journal.note(run.id, 1, str(Path("in/01.png")), "saving", {"outputs": [*outputs, "out/01-sheet.jpg"]})
    journal.end(run.id, "failed")
    journal.close()
    Path(outputs[0]).write_bytes(b"of another kind")
    answer = call("resume")
    assert answer.code == 0, answer.err
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == whole
    assert len(service.accepted) == 4


def test_what_was_written_before_saving_failed_is_written_over(
    service: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(2)

    def full(edit: Any) -> Any:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(work, "variation_sheet", full)
        assert call("remove-object", "in", *MASK, "-o", "out", "--num-images", "2").code == 1
        Path("in/00.png").rename("away.png")
        assert call("resume").code == 1
    assert len(list(Path("out").iterdir())) == 4
    Path("away.png").rename("in/00.png")
    kept, written = Path("out/00-1.png").read_bytes(), Path("out/00-1.png").stat().st_mtime
    Path("out/00-1.png").write_bytes(b"of somebody else")
    later = time.time() + 60
    os.utime("out/00-1.png", (later, later))
    for _ in range(2):
        assert "already exists" in call("resume").err
        assert Path("out/00-1.png").read_bytes() == b"of somebody else"
        os.utime("out/00-1.png", (later - 58, later - 58))
    Path("out/00-1.png").write_bytes(kept)
    os.utime("out/00-1.png", (written, written))
    answer = call("resume")
    assert answer.code == 0, answer.err
    assert len(list(Path("out").iterdir())) == 6
    assert len(service.accepted) == 4


def test_refused_calls_give_their_money_back(service: Server) -> None:
    service.fault("submit", 429, times=2, retry_after=0)
    answer = call("remove-object", "p.png", *MASK, "--max-cost", "0.035")
    assert answer.code == 0, answer.err
    assert len(service.accepted) == 1


def test_a_run_that_is_still_running_is_named_by_resume() -> None:
    journal = Journal(Path("state"))
    run = journal.begin({"arguments": ["remove-object", "p.png"], "photos": ["p.png"]})
    assert call("resume").sentence == f"no run is open but {run}, still running; wait for it or stop it first"
    journal.end(run)
    journal.close()


def test_an_unsure_mask_is_held_back_and_released_by_hand(service: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(100, 130, (200, 300, 3)).astype(np.uint8)
    Image.fromarray(noise).save("noise.png")
    command = ("remove-object", "noise.png", "--point", "150,100", *MODEL, "--prompt", "a lake")
    answer = call(*command)
    assert answer.code == 1
    assert "held back: the mask's confidence" in answer.err
    assert service.requests == []
    (run,) = runs()
    assert [item["state"] for item in run_of(run["id"])["items"]] == ["held"]
    assert run["state"] == "ended"
    assert "no run is open: all that was begun is done or held back" in call("resume").sentence
    said = call("resume", run["id"])
    assert said.code == 0
    shown = call("runs", "show", run["id"]).text
    assert "0 of 1 photos, 1 held back, free" in shown
    table = Path(f"held/{run['id']}/jobs.jsonl")
    assert {path.name for path in table.parent.iterdir()} == {
        "jobs.jsonl",
        "noise-remove-object.png",
        "noise-remove-object-overlay.png",
    }
    released = f"run `inpaint remove-object --jobs {table}` with the same options but those that point"
    assert all(released in text for text in (answer.err, shown, said.text))
    assert said.text.startswith(f"run {run['id']}: nothing is open; held back: 1 of 1\n")
    released = call("remove-object", "--jobs", str(table), *MODEL, "--prompt", "a lake")
    assert released.code == 0, released.err
    assert released.text.startswith("../../noise.png (jobs.jsonl line 1) -> noise-remove-object.png  (")
    assert Path("noise-remove-object.png").is_file()
    assert [sent.inputs["prompt"] for sent in service.accepted] == ["a lake"]


def test_a_box_taken_as_it_was_drawn_is_no_guess(service: Server) -> None:
    noise = np.random.default_rng(0).integers(100, 130, (200, 300, 3)).astype(np.uint8)
    Image.fromarray(noise).save("noise.png")
    answer = call("remove-object", "noise.png", "--box", "100,60,200,140", *MODEL)
    assert answer.code == 0, answer.err
    assert "the whole box" in answer.text
    assert len(service.accepted) == 1


def run_of(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(call("runs", "show", name, "--json").out)
    return found


def test_a_run_is_taken_up_where_it_stopped(service: Server) -> None:
    folder(4)
    service.fault("submit", 503, times=None, accepted=False, match=None, after=2)
    service.fault("list", 503, times=None)
    first = call("remove-object", "in", *MASK, "-o", "out")
    assert first.code == 3, first.err
    assert first.err.count("perhaps paid") >= 2
    assert len(service.accepted) == 2
    assert runs()[-1]["perhaps_paid"] == pytest.approx(0.07)
    again = call("resume")
    assert again.code == 3
    assert len(service.accepted) == 2, "not sent again while nobody knows"
    service.clear()
    last = call("resume")
    assert last.code == 0, last.err
    assert "2 of 2 photos done; 2 were before" in last.text
    assert len(service.accepted) == 4
    assert len(runs()) == 1
    assert (runs()[0]["paid"], runs()[0]["perhaps_paid"]) == (pytest.approx(0.14), 0)
    assert "no run is open" in call("resume").err
    assert "all of its 4 photos are done" in call("resume", runs()[0]["id"]).text


def test_a_drawn_seed_is_kept_when_a_run_is_taken_up(service: Server) -> None:
    service.fault("submit", 400)
    assert call("remove-object", "p.png", *MASK, "--seed", "random").code == 1
    drawn = runs()[0]["about"]["seed"]
    assert call("resume").code == 0
    assert service.accepted[0].inputs["seed"] == drawn


def test_flagged_pictures_are_paid_and_not_used(service: Server) -> None:
    service.fault("task", "nsfw")
    answer = call("remove-object", "p.png", *MASK)
    assert answer.code == 1
    assert re.search(r"content check flagged.*counts as paid", answer.err)
    assert not Path("p-remove-object.png").exists()
    assert runs()[0]["paid"] == 0.035
    again = call("remove-object", "p.png", *MASK)
    assert again.code == 1
    assert again.sentence.endswith(
        "it was paid before and nothing is left to use: try another seed or prompt; --fresh pays for the same anew"
    )
    assert len(service.accepted) == 1, "the same is not paid twice"


def test_the_key_is_written_nowhere(service: Server) -> None:
    service.set(key="secret-key-0123456789")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WAVESPEED_API_KEY", "secret-key-0123456789")
        said = [
            call("remove-object", "p.png", *MASK),
            call("runs", "--json"),
            call("remove-object", "p.png", *MASK, "--json"),
        ]
    assert len(service.accepted) == 1
    assert service.keys_leaked() == []
    assert all("secret-key" not in answer.text for answer in said)
    for path in Path("state").rglob("*"):
        if path.is_file():
            assert b"secret-key" not in path.read_bytes(), path


def test_no_number_is_no_limit(service: Server) -> None:
    answer = call("remove-object", "p.png", *MASK, "--max-cost", "nan")
    assert answer.code == 2
    assert answer.sentence == "max-cost: expected dollars, 0 or more, got nan"
    assert service.requests == []


def test_a_dry_run_is_no_run_and_adds_up_a_folder(service: Server) -> None:
    folder(2)
    answer = call("remove-object", "in", *MASK, "-o", "out", "-n")
    assert "2 of 2 photos planned: 2 calls, $0.07 at most" in answer.text
    assert runs() == []


def test_a_photo_s_line_says_what_it_cost() -> None:
    command = ("remove-object", "p.png", *MASK, "--overwrite")
    assert ", $0.035, " in call(*command).text
    assert ", paid before, " in call(*command).text


def test_a_seed_drawn_for_a_row_is_kept_when_its_run_is_taken_up(service: Server) -> None:
    Path("jobs.csv").write_text("photo,mask,seed,output\np.png,m.png,random,a.png\np.jpg,m.png,random,b.png\n")
    service.fault("download", 404, times=None)
    assert call("remove-object", "--jobs", "jobs.csv", *MODEL).code == 1
    service.clear()
    assert call("resume").code == 0
    assert len(service.accepted) == 2, "what was paid is fetched, not asked for anew"
    assert len({sent.inputs["seed"] for sent in service.accepted}) == 2


def test_resume_passes_over_what_came_from_standard_input(service: Server) -> None:
    service.fault("submit", 400, times=2)
    assert call("remove-object", "p.png", *MASK).code == 1
    assert call("remove-object", "-", *MASK, "-o", "o.png", stdin=Path("p.png").read_bytes()).code == 1
    assert call("resume").code == 0
    assert Path("p-remove-object.png").is_file()


def test_masks_held_of_photos_that_share_a_stem_are_kept_apart() -> None:
    Path("in").mkdir()
    for k, name in enumerate(("a.png", "a.jpg")):
        noise = np.random.default_rng(k).integers(100, 130, (200, 300, 3)).astype(np.uint8)
        Image.fromarray(noise).save(f"in/{name}")
    assert call("remove-object", "in", "--point", "150,100", *MODEL, "-o", "out").code == 1
    (table,) = Path("out/held").glob("*/jobs.jsonl")
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert {row["mask"] for row in rows} == {"a.png", "a.jpg.png"}
    assert all((table.parent / row["mask"]).is_file() for row in rows)


def test_masks_held_when_a_run_is_taken_up_join_those_held_before(tmp_path: Path) -> None:
    def problem(name: str) -> HeldBack:
        row = {"photo": "p.png", "mask": str(tmp_path / "held" / name), "output": "x.png"}
        return HeldBack("held back", None, row, tmp_path / "held")

    write_table(tmp_path / "held", [problem("a.png"), problem("b.png")])
    table = write_table(tmp_path / "held", [problem("b.png"), problem("c.png")])
    masks = [json.loads(line)["mask"] for line in table.read_text().splitlines()]
    assert masks == ["a.png", "b.png", "c.png"]


def test_a_run_taken_up_names_the_photos_that_changed(service: Server) -> None:
    folder(2)
    service.fault("submit", 400, times=2)
    assert call("remove-object", "in", *MASK, "-o", "out").code == 1
    changed = np.asarray(Image.open("in/01.png")).copy()
    changed[-1, -1] = 255
    Image.fromarray(changed).save("in/01.png")
    answer = call("resume")
    assert answer.code == 0, answer.err
    assert [line for line in answer.err.splitlines() if "was changed" in line] == [
        f"  warning: {Path('in/01.png')} was changed since the run began; what it asks for is paid anew"
    ]


def test_a_run_taken_up_works_on_its_own_photos_and_on_no_others(service: Server) -> None:
    folder(4)
    service.fault("submit", 400, times=4)
    assert call("remove-object", "in", *MASK, "-o", "out").code == 1
    Path("in/00.png").unlink()
    for name in ("0.png", "9.png"):
        Path(f"in/{name}").write_bytes(Path("in/01.png").read_bytes())
    answer = call("resume")
    assert answer.code == 3, "one is not done"
    assert f"{Path('in/0.png')}: not in the run, left as it is" in answer.err
    assert f"{Path('in/00.png')}: was in the run and is gone" in answer.err
    assert sorted(path.name for path in Path("out").iterdir()) == ["01.png", "02.png", "03.png"]
    assert len(service.accepted) == 3
    items = run_of(runs()[0]["id"])["items"]
    assert [(item["number"], item["state"], item["name"]) for item in items] == [
        (0, "failed", str(Path("in/00.png"))),
        *((k, "done", str(Path(f"in/0{k}.png"))) for k in (1, 2, 3)),
    ]
    assert "no run is open" in call("resume").err, "what is gone keeps no run open"


def test_a_run_taken_up_finishes_what_failed_wherever_it_now_stands_in_its_folder(service: Server) -> None:
    folder(3)
    good = Path("in/01.png").read_bytes()
    Path("in/01.png").write_bytes(good[:200])
    assert call("remove-object", "in", *MASK, "-o", "out").code == 3
    Path("in/00.png").unlink()
    Path("in/01.png").write_bytes(good)
    answer = call("resume")
    assert answer.code == 0, answer.err
    assert Path("out/01.png").is_file()
    assert len(service.accepted) == 3


@pytest.mark.parametrize("model", ["wavespeed-flux-fill-dev", "telea"])
def test_a_run_taken_up_writes_over_nothing_but_its_own(service: Server, model: str) -> None:
    folder(2)
    command = ("remove-object", "in", "--mask", "m.png", "-m", model)
    assert call(*command, "-o", "in").code == 1
    mended = np.asarray(Image.open("in/01.png")).copy()
    mended[-1, -1] = 255
    Image.fromarray(mended).save("in/01.png")
    before = {path: path.read_bytes() for path in Path("in").iterdir()}
    answer = call("resume")
    assert answer.code == 1
    assert answer.err.count("is the photo itself") == 2
    assert {path: path.read_bytes() for path in Path("in").iterdir()} == before
    Path("out").mkdir()
    for k in (0, 1):
        Path(f"out/0{k}.png").write_bytes(b"of somebody else")
    assert call(*command, "-o", "out").code == 1
    Path("out/00.png").unlink()
    Path("out/01.png").write_bytes(b"written after the run began")
    answer = call("resume")
    assert "already exists" in answer.err
    assert Path("out/01.png").read_bytes() == b"written after the run began"
    assert np.asarray(Image.open("out/00.png")).shape == mended.shape


def test_a_seed_drawn_for_a_photo_is_kept_when_the_others_are_gone(service: Server) -> None:
    Path("jobs.csv").write_text("photo,mask,seed,output\np.png,m.png,random,a.png\np.jpg,m.png,random,b.png\n")
    service.fault("download", 404, times=None)
    assert call("remove-object", "--jobs", "jobs.csv", *MODEL).code == 1
    service.clear()
    Path("jobs.csv").write_text("photo,mask,seed,output\n\np.png,m.png,random,a.png\n")
    assert call("resume").code == 3, "the other is gone"
    assert Path("a.png").is_file(), "though its line is another one now"
    assert len(service.accepted) == 2, "what was paid is fetched, not asked for anew"


def test_what_is_paid_and_not_fetched_is_not_asked_about_again(service: Server) -> None:
    folder(11)
    command = ("remove-object", "in", *MASK, "-o", "out")
    service.fault("download", 404, times=None)
    assert call(*command, "--yes").code == 1
    service.clear()
    answer = call(*command)
    assert answer.code == 0, answer.err
    assert len(service.accepted) == 11


def test_a_table_of_held_masks_that_was_edited_is_gone_on_with(tmp_path: Path) -> None:
    held = [
        HeldBack("held", None, {"photo": f"/p{k}.png", "mask": str(tmp_path / f"{k}.png")}, tmp_path) for k in (0, 1)
    ]
    table = write_table(tmp_path, held[:1])
    table.write_text(table.read_text() + "\n{not JSON\n[1]\n")
    lines = write_table(tmp_path, held).read_text().splitlines()
    assert lines[:2] == ["{not JSON", "[1]"]
    assert [json.loads(line)["mask"] for line in lines[2:]] == ["0.png", "1.png"]


def test_a_picture_that_cannot_be_fetched_is_on_the_bill(service: Server) -> None:
    service.fault("download", 500, times=None)
    answer = call("remove-object", "p.png", *MASK)
    assert answer.code == 1
    assert "it is paid: the same command or `inpaint resume` tries again" in answer.err
    (run,) = runs()
    assert (run["paid"], run["perhaps_paid"]) == (0.035, 0)
    assert "$0.035 paid  20" in call("runs", "show", run["id"]).text
    service.clear()
    assert call("resume").code == 0
    assert [one["paid"] for one in runs()] == [0.035]


def test_resume_takes_a_run_that_paid_before_a_mistake_made_later(service: Server) -> None:
    folder(2)
    service.fault("download", 404, times=None)
    assert call("remove-object", "in", *MASK, "-o", "out").code == 1
    service.clear()
    Path("x.png").write_bytes(b"no picture")
    assert call("remove-object", "x.png", *MASK).code == 1
    answer = call("resume")
    assert answer.code == 0, answer.err
    assert len(list(Path("out").glob("*.png"))) == 2
    assert "x.png" in call("resume").err


def test_results_beside_their_photos_are_no_photos(service: Server) -> None:
    folder(2)
    command = ("remove-object", "in", *MASK, "--num-images", "2", "--preview")
    assert call(*command).code == 0
    names = {path.name for path in Path("in").iterdir()}
    assert len(names) == 2 + 2 * 2 + 2 * 1 + 2, names
    again = call(*command, "--overwrite")
    assert again.code == 0, again.err
    assert "and 7 more: left out, by the name a result of remove-object; name it to work on it" in again.err
    assert {path.name for path in Path("in").iterdir()} == names
    assert len(service.accepted) == 4


def test_a_photo_called_like_a_result_is_not_written_over(service: Server) -> None:
    folder(2)
    photo = Path("in/00-remove-object.png")
    photo.write_bytes(Path("in/00.png").read_bytes())
    before = photo.read_bytes()
    for more in ((), ("--overwrite",), ("--overwrite", "-n"), ("--overwrite",)):
        answer = call("remove-object", "in", *MASK, *more)
        assert f"{photo}: may be a photo" in answer.err
        assert photo.read_bytes() == before
    assert answer.code == 3
    assert Path("in/01-remove-object.png").exists(), "a result of an earlier run is written over"
    assert len(service.accepted) == 1
    photo.unlink()
    for _ in range(2):
        assert call("remove-object", "in", *MASK, "--overwrite").code == 0
    assert photo.read_bytes() != before


def test_a_run_of_named_photos_is_taken_up_without_one_that_is_gone(service: Server) -> None:
    folder(2)
    service.fault("submit", 400, times=2)
    assert call("remove-object", "in/00.png", "in/01.png", *MASK, "-o", "out").code == 1
    kept = Path("in/01.png").rename("kept.png")
    answer = call("resume")
    assert answer.code == 3, answer.err
    assert f"{Path('in/01.png')}: was in the run and is gone" in answer.err
    assert Path("out/00.png").exists(), "what was to be a folder is one"
    kept.rename("in/01.png")
    assert call("resume", runs()[0]["id"]).code == 0, "by its name also what was gone and is back"
    assert {path.name for path in Path("out").iterdir()} == {"00.png", "01.png"}
    assert len(service.accepted) == 2


def test_what_an_engine_lacks_is_said_once_unless_each_row_is_another_matter(
    service: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder(2)
    monkeypatch.delenv("WAVESPEED_API_KEY")
    Path("boxes.csv").write_text("image,boxes\nin/00.png,'1,1,9,9'\nin/01.png,'1,1,9,9'\n".replace("'", '"'))
    answer = call("remove-object", "--jobs", "boxes.csv", *MASK[2:], "-o", "out")
    assert answer.err.count("no key") == 1, answer.err
    assert "00.png" not in answer.err, "no photo was looked at"
    Path("models.jsonl").write_text(
        '{"image": "in/00.png", "model": "patchmatch"}\n{"image": "in/01.png", "guidance": 30}\n'
    )
    answer = call("remove-object", "--jobs", "models.jsonl", *MASK, "-o", "out")
    assert answer.code == 3, answer.err
    assert answer.err.count("no key") == 1, answer.err
    assert [path.name for path in Path("out").rglob("*.png")] == ["00.png"]


def test_a_run_owns_only_what_was_written_while_it_wrote() -> None:
    now = time.time()
    for name, at in {"older": -3600, "written": 0, "after": 60, "long_after": 3600}.items():
        Path(name).touch()
        os.utime(name, (now + at, now + at))
    paths = [os.path.abspath(name) for name in ("older", "written", "after", "long_after", "gone")]
    saving = ItemEntry(0, "a", "saving", {"outputs": paths, "began": now}, now)
    run = RunEntry("1", {}, "cancelled", now - 9, now, items=(saving,))
    assert _unfinished(run) == {file_id("written")}
    both = {file_id("written"), file_id("after")}
    assert _unfinished(replace(run, ended=None)) == both, "it was killed: no end is noted"
    failed = replace(saving, state="failed", detail={**saving.detail, "ended": now + 60}, at=now + 60)
    assert _unfinished(replace(run, items=(failed,))) == both


@contextmanager
def full_at(name: str) -> Iterator[None]:
    """The disk is full when the result of this name is written."""
    real = work.EditWork._saved

    def saved(self: Any, edit: Any, k: int, target: Any, report: Any) -> Any:
        if Path(target).name == name:
            raise OSError(28, "No space left on device")
        return real(self, edit, k, target, report)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(work.EditWork, "_saved", saved)
        yield


def test_what_was_written_by_the_first_of_several_tries_stays_the_run_s_own(service: Server) -> None:
    folder(1)
    with full_at("00-2.png"):
        assert call("remove-object", "in", *MASK, "--num-images", "2", "-o", "out").code == 1
    earlier = time.time() - 3600  # the next try is an hour later
    os.utime("out/00-1.png", (earlier, earlier))
    with closing(sqlite3.connect("state/journal.sqlite3")) as journal, journal:
        journal.execute("UPDATE item SET detail = json_set(detail, '$.began', ?, '$.ended', ?)", (earlier, earlier))
    with full_at("00-1.png"):
        assert "No space left" in call("resume").err
    answer = call("resume")
    assert answer.code == 0, answer.err


@pytest.mark.parametrize("end", ["cancelled", "killed"])
def test_a_file_put_where_a_run_was_cut_short_stays_however_often_it_is_taken_up(service: Server, end: str) -> None:
    folder(2)
    assert call("remove-object", "in", *MASK, "-o", "out").code == 0
    then = time.time() - 7200
    detail = json.dumps({"outputs": ["out/00.png"], "began": then})
    with closing(sqlite3.connect("state/journal.sqlite3")) as journal, journal:
        journal.execute("UPDATE item SET state = 'saving', detail = ?, at = ? WHERE number = 0", (detail, then))
        if end == "cancelled":
            journal.execute("UPDATE run SET state = 'cancelled', ended = ?", (then + 1,))
        else:
            journal.execute("UPDATE run SET state = 'running', ended = NULL, owner = 'gone'")
    Path("out/00.png").write_bytes(b"of somebody else")
    os.utime("out/00.png", (then + 3600, then + 3600))
    for _ in range(2):
        assert "already exists" in call("resume").err
        assert Path("out/00.png").read_bytes() == b"of somebody else"


@pytest.mark.parametrize("photos", [("a/x.png", "b/x.png"), ("a", "b")])
def test_a_result_goes_where_the_run_meant_it_also_when_others_are_gone(
    service: Server, photos: tuple[str, str]
) -> None:
    folder(3)
    for number, name in enumerate(("a/x.png", "b/x.png", "a/y.png")):
        Path(name).parent.mkdir(exist_ok=True)
        Path(f"in/0{number}.png").rename(name)
    assert call("remove-object", *photos, *MASK, "-o", "out", "--overwrite").code == 0
    first, second = Path("out/x.png"), Path("out/b/x.png")
    before, after = first.read_bytes(), second.read_bytes()
    with closing(sqlite3.connect("state/journal.sqlite3")) as journal, journal:
        journal.execute("DELETE FROM item WHERE name LIKE '%b_x.png'")
        journal.execute("UPDATE run SET state = 'cancelled'")
    second.unlink()
    Path("a/x.png").unlink()
    answer = call("resume")
    assert answer.code == 0, "the one that is gone was done"
    assert (first.read_bytes(), second.read_bytes()) == (before, after)


def test_a_run_is_taken_up_beside_a_folder_that_was_emptied(service: Server) -> None:
    folder(1)
    Path("other").mkdir()
    Path("other/b.png").write_bytes(Path("in/00.png").read_bytes())
    service.fault("submit", 400, times=2)
    assert call("remove-object", "in", "other", *MASK, "-o", "out").code == 1
    Path("other/b.png").unlink()
    answer = call("resume")
    assert answer.code == 3, answer.err
    assert Path("out/00.png").exists()


def test_a_photo_called_like_one_of_several_results_is_not_written_over_though_named(service: Server) -> None:
    folder(1)
    photo = Path("in/00-remove-object-1.png")
    photo.write_bytes(Path("in/00.png").read_bytes())
    before = photo.read_bytes()
    for named in ((), (str(photo),)):
        answer = call("remove-object", "in", *named, *MASK, "--overwrite", "--num-images", "2")
        assert f"{photo}: may be a photo" in answer.err
        assert photo.read_bytes() == before


def test_results_are_known_through_links_and_whatever_else_was_run(service: Server, tmp_path: Path) -> None:
    folder(1)
    Path("link").symlink_to("in")
    odd = os.fsdecode(b"odd \xff")
    if sys.platform == "linux":  # elsewhere names are text
        Path(odd).mkdir()
        Path(odd, "p.png").write_bytes(Path("p.png").read_bytes())
        os.chdir(odd)
        assert call("remove-object", "p.png", "--mask", "../m.png", "-m", "patchmatch").code == 0
        os.chdir(tmp_path)
    assert call("remove-object", "link", *MASK).code == 0
    answer = call("remove-object", "in", *MASK, "--overwrite")
    assert answer.code == 0, answer.err
