"""The engine through a recipe: what is sent of a photo, and what is made of the answers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import PIL.Image
import pytest

from tests.paid import KEY, PRICE, key_written, quick_card
from toolkit import library
from toolkit.edit import Edit
from toolkit.engines import resolve
from toolkit.errors import EngineError, ParameterError
from toolkit.recipe import Recipe
from toolkit.run import Run

if TYPE_CHECKING:
    from wavespeed_server import Server

SECRETS = (b"Exif", b"GPS", b"Secret Camera", b"eXIf", b"iTXt", b"tEXt")


@pytest.fixture(autouse=True)
def own(service: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    configuration = tmp_path / "configuration"
    configuration.mkdir()
    text = f"wavespeed: {{base_url: '{service.url}', settle: 0.3, tier: ultra}}"
    (configuration / "settings.yaml").write_text(text)
    quick_card(configuration)
    monkeypatch.chdir(configuration)  # cards in the working folder would go before its own
    monkeypatch.setenv("INPAINT_CONFIG", str(configuration))
    monkeypatch.setenv("INPAINT_STATE", str(tmp_path / "state"))
    monkeypatch.setenv("WAVESPEED_API_KEY", KEY)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A JPEG that says who took it and where."""
    noise = np.random.default_rng(3).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    picture = PIL.Image.fromarray(cv2.resize(noise, (300, 280), interpolation=cv2.INTER_CUBIC))
    exif = PIL.Image.Exif()
    exif[0x010F] = "Secret Camera"
    exif.get_ifd(0x8825)[1] = "N"
    exif.get_ifd(0x8825)[2] = (52.0, 31.0, 12.0)
    path = tmp_path / "photo.jpg"
    picture.save(path, exif=exif, quality=92)
    return path


def edited(photo: Path, **options: Any) -> tuple[Edit, Run]:
    with Run(workers=1) as run:
        values = {"box": "90,80,150,150", "model": "wavespeed-ai/flux-fill-dev", "prompt": "a bench"} | options
        return Recipe.load("remove-object")(photo, run, **values), run


def test_what_leaves_the_machine(service: Server, photo: Path) -> None:
    edited(photo)
    (sent,) = service.accepted_once(1)
    assert sent.inputs["seed"] == 0
    assert sent.inputs["num_images"] == 1
    width, height = map(int, sent.inputs["size"].split("*"))
    image, mask = (service.media(sent.inputs[name]) for name in ("image", "mask_image"))
    assert image
    assert mask
    for data in (image, mask):
        assert not any(secret in data for secret in SECRETS)
        with PIL.Image.open(io.BytesIO(data)) as picture:
            assert picture.size == (width, height)
            assert not picture.getexif()
            assert not picture.info
    hard = cv2.imdecode(np.frombuffer(mask, np.uint8), cv2.IMREAD_UNCHANGED)
    assert hard.ndim == 2
    assert set(np.unique(hard)) == {0, 255}
    assert service.keys_leaked() == []


def test_report_says_what_the_service_said_and_no_key(service: Server, photo: Path, tmp_path: Path) -> None:
    edit, run = edited(photo)
    report = edit.report()
    assert report["price"]["total"] == pytest.approx(PRICE)
    assert run.budget.spent == pytest.approx(service.service.spent)
    (facts,) = next(step for step in report["steps"] if step["stage"] == "fill")["figures"]["service"]
    assert facts["id"] == service.accepted[0].id
    assert facts["model"] == "wavespeed-ai/flux-fill-dev"
    assert facts["created_at"].endswith("Z")
    assert facts["timings"]["inference"] >= 0
    assert facts["urls"]["get"].endswith("/result")
    assert KEY not in repr(report)
    assert key_written(tmp_path / "state") == []
    again, second = edited(photo)
    assert again.report()["price"]["total"] == 0
    assert second.budget.spent == 0
    first, other = tmp_path / "first.png", tmp_path / "other.png"
    edit.save(first)
    again.save(other)
    assert first.read_bytes() == other.read_bytes()
    service.accepted_once(1)


def test_flagged_variation_is_paid_said_and_left_out(service: Server, photo: Path) -> None:
    service.fault("task", "nsfw", match={"seed": 6})
    edit, run = edited(photo, seed=5, num_images=3)
    assert len(edit.stacks) == 2
    assert run.budget.spent == pytest.approx(3 * PRICE) == pytest.approx(service.service.spent)
    said = " ".join(repr(step) for step in edit.report()["steps"])
    assert "content check flagged" in said
    assert "seed 6" in said
    assert [one.inputs["seed"] for one in sorted(service.accepted, key=lambda one: one.inputs["seed"])] == [5, 6, 7]
    assert len(service.uploads) == 2


def test_a_flagged_picture_of_a_batch_leaves_the_others(service: Server, photo: Path, tmp_path: Path) -> None:
    with (tmp_path / "configuration/models/fill/wavespeed-flux-fill-dev.yaml").open("a") as card:
        card.write("batch_seeds: true\n")
    service.fault("task", "nsfw", flags=[False, True, False])
    for paid, counts in ((3 * PRICE, "it counts as paid"), (0.0, "it was paid before")):
        edit, run = edited(photo, seed=5, num_images=3)
        assert run.budget.spent == pytest.approx(paid)
        assert sorted(stack.seeds for stack in edit.stacks) == [(5,), (7,)]
        said = [warning for step in edit.steps for warning in step.warnings if "seed 6" in warning]
        assert said[0].startswith(f"seed 6: the service's content check flagged the picture; {counts} and was not used")
    (sent,) = service.accepted_once(1)
    assert sent.inputs["num_images"] == 3


def test_everything_flagged_is_an_error_and_paid(service: Server, photo: Path) -> None:
    service.fault("task", "nsfw", times=None)
    with pytest.raises(EngineError, match="counts as paid and nothing is left"):
        edited(photo)
    with pytest.raises(EngineError, match="was paid before and nothing is left"):
        edited(photo)
    service.accepted_once(1)


@pytest.mark.parametrize(("options", "said"), [({"guidance": 25}, "28"), ({"steps": 51}, "50"), ({"seed": -1}, "seed")])
def test_parameters_out_of_range_are_refused_before_anything_is_sent(
    service: Server, photo: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(ParameterError, match=said):
        edited(photo, **options)
    assert not service.requests


def test_jpeg_outputs(service: Server, photo: Path) -> None:
    service.set(suffix="jpeg")
    edit, _ = edited(photo)
    assert len(edit.stacks) == 1
    assert [path.suffix for path in (library.state_folder() / "results").rglob("*.*")] == [".jpg"]


def test_without_a_key(service: Server, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WAVESPEED_API_KEY")
    with pytest.raises(EngineError, match="inpaint keys set wavespeed"):
        edited(photo)
    monkeypatch.setenv("WAVESPEED_API_KEY", "another-key")
    with pytest.raises(EngineError, match="refused the key") as problem:
        edited(photo)
    assert "another-key" not in str(problem.value)
    assert not service.accepted


@pytest.mark.parametrize(("written", "said"), [("", "is missing"), ("model: 7, ", "got 7"), ("model: '', ", "got ''")])
def test_a_card_that_names_no_model_is_said(
    written: str, said: str, service: Server, photo: Path, tmp_path: Path
) -> None:
    card = tmp_path / "configuration/models/fill/wavespeed-flux-fill-dev.yaml"
    text = card.read_text()
    head, _, _ = text.partition("settings:")
    card.write_text(f"{head}settings: {{{written}fields: {{image: image}}}}\n")
    with pytest.raises(
        EngineError, match=rf"cannot run: fill/wavespeed-flux-fill-dev\.settings\.model: expected .*, {said}"
    ):
        edited(photo)
    assert not service.requests


@pytest.mark.parametrize(("tier", "calls"), [("bronze", 35), ("silver", 128), ("ultra", 128)])
def test_no_more_calls_wait_than_the_account_has_use_for(tier: str, calls: int, tmp_path: Path) -> None:
    (tmp_path / "configuration" / "settings.yaml").write_text(f"wavespeed: {{tier: {tier}}}")
    assert resolve("fill", "wavespeed-flux-fill-dev").in_flight == calls
