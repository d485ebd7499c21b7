"""What a card says on removing, at a speed and on memory, from the card to the job, the report and the command line."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import call, make_pictures
from jobs import StandIn, card

from toolkit import cards, devices
from toolkit.cards import Card, Parameter, Removal
from toolkit.edit import Edit, Step
from toolkit.errors import ParameterError, RecipeError
from toolkit.geometry import Box, Limits
from toolkit.mask import Mask
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.stages.crop import Crop
from toolkit.stages.dilate import Dilate
from toolkit.stages.fill import Fill
from toolkit.stages.generate import Generate

REMOVAL = Removal(
    prompt="plain ground", steps=50, guidance=31, dilate="5%", context=3,
    sources=dict.fromkeys(("prompt", "steps", "guidance", "dilate", "context"), "a paper"),
)  # fmt: skip

PARAMETERS = {
    "steps": Parameter(default=28, minimum=1, maximum=50, at_speed={"turbo": 8}),
    "guidance": Parameter(default=30, minimum=28, maximum=35),
    "memory": Parameter(default="auto"),
    "speed": Parameter(default="exact"),
}

PAINTER = card("painter", prompt="required", removal=REMOVAL, parameters=PARAMETERS, limits=Limits(context=2.0))
PLAIN = card("plain", parameters={"steps": Parameter(default=28)})


@pytest.fixture
def engine() -> StandIn:
    return StandIn()


@pytest.fixture
def run(engine: StandIn) -> Iterator[Run]:
    with Run(workers=1, engines={one.name: (one, engine) for one in (PAINTER, PLAIN)}) as one:
        yield one


def photo() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (400, 500, 3), np.uint8)


def central() -> np.ndarray:
    mask = np.zeros((400, 500), np.uint8)
    mask[150:250, 200:300] = 255
    return mask


def steps(edit: Edit) -> dict[str, Step]:
    return {step.stage: step for step in edit.steps}


# --- the card's fields


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("removal: {prompt: sand}", ".removal: sources: who says so is missing for prompt"),
        ("removal: {steps: 50, dilate: 3%, sources: {steps: ' '}}",
         ".removal: sources: who says so is missing for dilate and steps"),
        ("removal: {prompt: sand, sources: {prompt: a paper, steps: a paper}}",
         ".removal: sources: steps: no such value is given"),
        ("removal: {sources: {promt: a paper}}", ".removal: sources: promt: no such value is given"),
        ("removal: {promt: sand}", ".removal: no parameter 'promt'"),
        ("removal: {dilate: wide, sources: {dilate: a paper}}", ".removal.dilate: expected pixels (12) or a share"),
        ("removal: {context: 0.5, sources: {context: a paper}}", ".removal.context: must be at least 1.0, got 0.5"),
        ("removal_prompt: sand", ": no parameter 'removal_prompt'"),
        ("parameters: {steps: {at_speed: {slow: 3}}}", ".parameters.steps.at_speed.slow"),
    ],
)  # fmt: skip
def test_wrong_fields_are_named(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "fill" / "mine.yaml"
    path.parent.mkdir()
    path.write_text(
        "task: fill\nadapter: telea\nabout: Mine.\nrevision: '1'\nlicence: MIT\ncommercial_use: true\n"
        f"output_terms: none\ndata_leaves_machine: false\nconcurrency: process\n{text}\n"
    )
    with pytest.raises(RecipeError) as caught:
        cards.read(path)
    assert str(caught.value).startswith(f"{path}{sentence}")


@pytest.mark.parametrize("one", [card for card in cards.every("fill") if card.removal], ids=lambda card: card.name)
def test_what_shipped_cards_say_on_removing_is_in_their_own_range(one: Card) -> None:
    assert one.removal
    for name in ("steps", "guidance"):
        if (value := getattr(one.removal, name)) is not None:
            assert one.parameters[name].checked(name, value, one.name) == value
    for name, rule in one.parameters.items():
        for value in rule.at_speed.values():
            assert rule.checked(name, value, one.name) == value
    assert not rule.at_speed or "speed" in one.parameters


# --- removing


@pytest.mark.parametrize("plan", [False, True])
@pytest.mark.parametrize(
    ("options", "prompt", "sent"),
    [
        ({}, "plain ground", {"steps": 50, "guidance": 31, "memory": "auto", "speed": "exact"}),
        ({"steps": 20}, "plain ground", {"steps": 20, "guidance": 31, "memory": "auto", "speed": "exact"}),
        ({"guidance": 35.0, "memory": "offload"}, "plain ground",
         {"steps": 50, "guidance": 35.0, "memory": "offload", "speed": "exact"}),
        ({"speed": "turbo"}, "plain ground", {"steps": 8, "guidance": 31, "memory": "auto", "speed": "turbo"}),
        ({"speed": "turbo", "steps": 12}, "plain ground",
         {"steps": 12, "guidance": 31, "memory": "auto", "speed": "turbo"}),
        ({"speed": "fast"}, "plain ground", {"steps": 50, "guidance": 31, "memory": "auto", "speed": "fast"}),
        ({"prompt": "sand"}, "sand", {"steps": 28, "guidance": 30, "memory": "auto", "speed": "exact"}),
        ({"prompt": "sand", "speed": "turbo"}, "sand",
         {"steps": 8, "guidance": 30, "memory": "auto", "speed": "turbo"}),
    ],
)  # fmt: skip
def test_remove_object_sends_what_suits_the_engine_and_says_so(
    run: Run, engine: StandIn, options: dict[str, Any], prompt: str, sent: dict[str, Any], plan: bool
) -> None:
    done = Recipe.load("remove-object")(photo(), run, mask=central(), model="painter", plan=plan, **options)
    figures = steps(done)["fill"].figures
    assert (figures["prompt"], figures["parameters"]) == (prompt, sent)
    assert [(job.prompt, dict(job.parameters)) for job in engine.jobs] == ([] if plan else [(prompt, sent)])
    advised = [f"{name} {value}" for name, value in (("steps", 50), ("guidance", 31)) if sent[name] == value]
    said = f"for removing, painter gets {', '.join(['the prompt ' + repr(prompt), *advised])}, as its card advises"
    assert [note for note in steps(done)["fill"].notes if "removing" in note] == ([] if "prompt" in options else [said])


@pytest.mark.parametrize("name", ["replace-object", "add-content"])
def test_what_suits_removing_does_not_count_where_something_is_put(run: Run, engine: StandIn, name: str) -> None:
    done = Recipe.load(name)(photo(), run, box="200,150,300,250", mask=None, model="painter", prompt="a ball")
    (job,) = engine.jobs
    assert (job.prompt, job.parameters["steps"], job.parameters["guidance"]) == ("a ball", 28, 30)
    assert steps(done)["crop"].parameters["removes"] is False
    written = next(item.values for item in Recipe.load(name).items if item.stage is Dilate)
    assert steps(done)["dilate"].figures["radius"] == written["radius"]


def widths(edit: Edit) -> tuple[int, int]:
    """Of the mask, and of the only window."""
    assert edit.mask is not None
    ((window,),) = edit.passes
    return edit.mask.box.width, window.box.width


def test_the_mask_grows_and_the_window_reaches_as_suits_the_engine(run: Run) -> None:
    grown = Mask.from_box(Box(0, 0, 500, 400), Box(200, 150, 300, 250))
    wide = grown.dilate("5%").union(grown.dilate(6)).box.width
    usual = grown.dilate("2%").union(grown.dilate(6)).box.width
    assert wide > usual
    recipe = Recipe.load("remove-object")
    done = recipe(photo(), run, mask=central(), model="painter", plan=True)
    assert steps(done)["dilate"].figures["radius"] == "5%"
    assert steps(done)["dilate"].parameters["radius"] is None
    assert widths(done)[0] == wide
    assert widths(done)[1] >= 3 * wide - 2
    plain = recipe(photo(), run, mask=central(), model="plain", plan=True)
    assert steps(plain)["dilate"].figures["radius"] == "2%"
    assert widths(plain)[0] == usual
    assert widths(plain)[1] < 2.7 * usual
    told = recipe.bind({"model": "painter"}, {"dilate.radius": 4, "crop.context": 2.0})
    edit = told(photo(), run, mask=central(), plan=True)
    assert steps(edit)["dilate"].figures["radius"] == 4
    assert widths(edit) == (108, widths(edit)[1])
    assert widths(edit)[1] < 2.7 * 108
    assert widths(recipe(photo(), run, mask=central(), model="painter", prompt="sand", plan=True)) == widths(done)


def test_stages_take_it_from_the_next_fill_that_removes() -> None:
    text = (
        "stages: [select, dilate, crop, {fill: {model: a, own_prompt: true, prompt: x}}, composite, select, dilate, "
        "{dilate: {radius: 3}}, {dilate: {model: mine}}, crop, {fill: {model: b}}, composite, dilate, crop]"
    )
    made = list(Recipe.from_yaml(text).stages())
    assert [(one.radius, one.model) for one in made if isinstance(one, Dilate)] == [
        (None, None), (None, "b"), (3, None), (None, "mine"), (None, None),
    ]  # fmt: skip
    assert [(one.removes, one.model) for one in made if isinstance(one, Crop)] == [
        (False, "a"), (True, "b"), (False, "auto"),
    ]  # fmt: skip


def test_a_radius_alone_asks_no_engine(run: Run) -> None:
    edit = Edit.of(photo()).replace(mask=Mask.from_array(central(), Box(0, 0, 500, 400)))
    assert steps(Dilate()(edit, run))["dilate"].figures["radius"] == "2%"
    assert steps(Dilate(radius=7, model="nobody")(edit, run))["dilate"].figures["radius"] == 7
    assert steps(Dilate(model="painter")(edit, run))["dilate"].figures["radius"] == "5%"


# --- memory and speed


@pytest.mark.parametrize(("name", "value"), [("memory", "offload"), ("speed", "turbo")])
def test_engines_without_a_choice_refuse_it(run: Run, name: str, value: str) -> None:
    for plan in (False, True):
        with pytest.raises(ParameterError, match=f"^{name}: plain does not take it$"):
            Recipe.load("remove-object")(photo(), run, mask=central(), model="plain", plan=plan, **{name: value})
    with pytest.raises(ParameterError, match=f"^{name}: has a meaning only with a background_prompt; nothing is paint"):
        Recipe.load("swap-background")(photo(), run, mask=central(), **{name: value})


def test_they_reach_a_background_too(run: Run, engine: StandIn) -> None:
    done = Recipe.load("swap-background")(
        photo(), run, mask=central(), matte="guided", background_prompt="a beach", model="painter", speed="turbo",
        memory="full",
    )  # fmt: skip
    sent = {"steps": 8, "guidance": 30, "memory": "full", "speed": "turbo"}
    assert [dict(job.parameters) for job in engine.jobs] == [sent]
    assert steps(done)["generate"].figures["parameters"] == sent


@pytest.mark.parametrize("stage", [Fill, Generate])
def test_a_choice_that_is_none_is_named(stage: type[Fill] | type[Generate]) -> None:
    from toolkit.schema import build

    with pytest.raises(ParameterError) as caught:
        build(stage, {"speed": "turb"}, "fill")
    assert str(caught.value) == "fill.speed: must be 'exact', 'fast' or 'turbo', got 'turb'; did you mean 'turbo'?"


@pytest.mark.parametrize("verb", ["remove-object", "replace-object", "add-content", "swap-background"])
def test_the_command_line_shows_the_choices(verb: str) -> None:
    text = call(verb, "--help").text
    assert "--memory auto|full|quantized|offload" in text
    assert "--speed exact|fast|turbo" in text


def test_several_missing_packages_are_one_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert devices.installed("flux", "torch", "peft", "torchao").startswith(
        'torch, peft and torchao are not installed: pip install "inpaint-toolkit[flux]"; without CUDA'
    )
    assert devices.installed("matting", "pymatting").startswith("pymatting is not installed")


@pytest.mark.parametrize(
    "recipe", [("replace-object", "--mask", "m.png", "--prompt"), ("swap-background", "--background-prompt")]
)
def test_a_wrong_value_is_told_before_what_is_missing(
    recipe: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INPAINT_CACHE", str(tmp_path))  # no weights are there
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path))
    make_pictures()
    asked = (recipe[0], "p.png", *recipe[1:], "a cat", "-m", "flux-fill-dev")
    for options, sentence in (
        (("--guidance", "900"), "guidance: flux-fill-dev takes 28 to 35, got 900"),
        (("--lora", "gone.safetensors"), "lora gone.safetensors: no such file"),
        ((), "flux-fill-dev cannot run: its weights are not here"),
    ):
        assert sentence in call(*asked, *options).err


def test_the_command_line_refuses_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    make_pictures()
    for options, sentence in (
        (("--memory", "full", "-m", "patchmatch"), "memory: patchmatch does not take it"),
        (("--speed", "turbo", "-m", "wavespeed-flux-fill-dev"), "speed: wavespeed-flux-fill-dev does not take it"),
        (("--memory", "ful"),
         "fill.memory: must be 'auto', 'full', 'quantized' or 'offload', got 'ful'; did you mean 'full'?"),
    ):  # fmt: skip
        answer = call("remove-object", "p.png", "--mask", "m.png", *options, "-n")
        assert (answer.code, answer.sentence) == (2, sentence)
