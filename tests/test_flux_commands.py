"""Recipes on a real photo through the tiny FLUX pipeline, from the command line to the saved files."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from PIL import Image

from tests import flux_networks
from tests.commands import call
from toolkit.photo import Photo

BOX = "90,20,145,100"
PHOTO = skimage.data.astronaut()[::2, ::2]


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    Image.fromarray(PHOTO).save("photo.png")
    with flux_networks.home(tmp_path / "home"):
        flux_networks.card(tmp_path / "home")
        yield tmp_path


def replaced(*options: str) -> dict:
    said = call(
        "replace-object", "photo.png", "--box", BOX, "--prompt", "a red bicycle", "-m", "tiny", "--device", "cpu",
        "--json", *options,
    )  # fmt: skip
    assert said.code == 0, said.err
    return json.loads(said.text)


def filled(report: dict) -> dict:
    (photo,) = report["items"]
    return next(step for step in photo["steps"] if step["stage"] == "fill")


def test_replace_object_on_a_real_photo(place: Path) -> None:
    report = replaced("--seed", "7", "--num-images", "2", "-o", "out.png")
    step = filled(report)
    assert step["seeds"] == [7, 8]
    assert step["figures"]["prompt"] == "a red bicycle"
    facts = step["figures"]["engine"][0]
    assert (facts["device"], facts["memory"], facts["speed"]) == ("cpu", "full", "exact")
    original = PHOTO
    made = [np.asarray(Image.open(f"out-{k}.png")) for k in (1, 2)]
    for picture in made:
        changed = np.argwhere((picture != original).any(axis=2))
        top, left = changed.min(axis=0)
        bottom, right = changed.max(axis=0)
        assert top >= 0 and bottom < 120 and left >= 70 and right < 165  # noqa: PT018
        assert len(changed) > 50 * 75
    assert not np.array_equal(*made)


def test_libraries_say_nothing(place: Path) -> None:
    said = subprocess.run(
        [
            sys.executable, "-m", "toolkit", "replace-object", "photo.png", "--box", BOX, "--prompt", "a red bicycle",
            "-m", "tiny", "--device", "cpu", "--memory", "full", "-o", "out.png",
        ],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = (said.stdout + said.stderr).splitlines()
    assert [line for line in lines if not line.startswith(("photo.png -> out.png", "  "))] == []


def test_image_k_comes_again_alone(place: Path) -> None:
    replaced("--seed", "7", "--num-images", "2", "-o", "many.png")
    ranked = [np.asarray(Image.open(f"many-{k}.png")).astype(int) for k in (1, 2)]
    replaced("--seed", "8", "-o", "alone.png")
    alone = np.asarray(Image.open("alone.png")).astype(int)
    assert min(np.abs(alone - picture).max() for picture in ranked) <= 1


def test_a_cache_that_cannot_be_written_is_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "file").touch()
    monkeypatch.setenv("INPAINT_CACHE", str(place / "file"))
    (photo,) = replaced("-o", "out.png")["items"]
    assert f"tiny: {place / 'file' / 'prompts'} cannot be written, so the text encoders" in " ".join(photo["notes"])
    monkeypatch.setenv("INPAINT_CACHE", str(place / "folder"))
    assert "cannot be written" not in str(replaced("-o", "out.png", "--overwrite"))


def test_options_reach_the_engine(place: Path) -> None:
    report = replaced("--memory", "offload", "--speed", "fast", "--steps", "2", "--guidance", "35", "-o", "out.png")
    step = filled(report)
    facts = step["figures"]["engine"][0]
    assert (facts["memory"], facts["speed"]) == ("offload", "fast")
    assert step["figures"]["parameters"] | {"steps": 2, "guidance": 35} == step["figures"]["parameters"]


def test_removal_and_background_by_the_same_card(place: Path) -> None:
    said = call(
        "remove-object", "photo.png", "--box", BOX, "--prompt", "plain wall", "-m", "tiny", "--device", "cpu",
        "-o", "removed.png",
    )  # fmt: skip
    assert said.code == 0, said.err
    said = call(
        "swap-background", "photo.png", "--box", "30,10,200,250", "--background-prompt", "a meadow", "-m", "tiny",
        "--device", "cpu", "-o", "swapped.png",
    )  # fmt: skip
    assert said.code == 0, said.err
    assert Photo.open("swapped.png").size == (256, 256)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--guidance", "25"], "guidance: tiny takes 28 to 35, got 25"),
        (["--speed", "warp"], "speed"),
        (["--lora", "gone.safetensors"], "gone.safetensors"),
        (["--lora", "x.safetensors:5"], "takes scales 0 to 4, got 5"),
        (["--memory", "tiny"], "memory"),
    ],
)
def test_what_cannot_be_is_said_in_a_sentence(place: Path, options: list[str], sentence: str) -> None:
    (place / "x.safetensors").write_bytes(b"none")
    said = call(
        "replace-object", "photo.png", "--box", BOX, "--prompt", "a cat", "-m", "tiny", "--device", "cpu",
        "-o", "out.png", *options,
    )  # fmt: skip
    assert said.code != 0
    assert sentence in said.err
    assert "Traceback" not in said.err
    assert not Path("out.png").exists()


def test_without_a_gpu_the_refusal_says_the_sizes_and_what_to_do() -> None:
    said = call("replace-object", "photo.png", "--box", BOX, "--prompt", "a cat", "-m", "tiny", "-o", "out.png")
    assert said.code == 1
    assert "tiny: needs a GPU, and torch finds none here" in said.err
    told = "tiny cannot run here: needs a GPU, and torch finds none here"
    asked = ("replace-object", "photo.png", "--box", BOX, "--prompt", "a cat", "-m", "tiny", "-n")
    assert told in call(*asked).text
    assert told not in call(*asked, "--device", "cpu").text
    assert "cannot run here: device cuda:" in call(*asked, "--device", "cuda").text
    for verb in ("models", "doctor"):
        assert re.search("tiny .*: needs a GPU|tiny +needs a GPU", call(verb).text)
    assert "--device cpu" in said.err
