"""Recipes: YAML and stages are one to one; names, order and values are checked; options reach the stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jobs import StandIn, card

from toolkit import library
from toolkit.errors import ParameterError, RecipeError, UnknownNameError, UsageError
from toolkit.geometry import Box, Size
from toolkit.recipe import Input, Item, Recipe, Reference, describe
from toolkit.run import Run
from toolkit.stages.composite import Composite
from toolkit.stages.crop import Crop
from toolkit.stages.dilate import Dilate
from toolkit.stages.erode import Erode
from toolkit.stages.feather import Feather
from toolkit.stages.fill import Fill
from toolkit.stages.fill_holes import FillHoles
from toolkit.stages.select import Select

SHIPPED = sorted(library.names("recipes"))

texts = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    st.sampled_from(["$5 bill", "$prompt", "$$", "1e5", "no", "012", "null", "~", "12:30", "a: b # c"]),
)
radii = st.one_of(st.integers(0, 90), st.floats(0, 90), st.sampled_from(["2%", "12 px", "0.5%"]))
box = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h),
    st.integers(-9, 90), st.integers(-9, 90), st.integers(1, 9), st.integers(1, 9),
)  # fmt: skip


def optional(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=fields)


selects = st.builds(
    lambda values: Select(**values),
    optional(box=st.lists(box, max_size=3),
             point=st.lists(st.tuples(st.integers(0, 99), st.integers(0, 99)), max_size=3),
             mask=texts, invert_mask=st.booleans(), protect=st.lists(box | texts, max_size=3)),
)  # fmt: skip
between = st.one_of(
    st.builds(lambda v: Dilate(**v), optional(radius=radii)),
    st.builds(lambda v: Erode(**v), optional(radius=radii)),
    st.builds(lambda v: FillHoles(**v), optional(max_area=st.none() | st.integers(1, 99))),
)
crops = st.builds(
    lambda v: Crop(**v),
    optional(context=st.floats(1, 20), size=st.builds(Size, st.integers(1, 99), st.integers(1, 99)), model=texts),
)
fills = st.builds(
    lambda v: Fill(**v),
    optional(prompt=texts, seed=st.none() | st.integers(0, 99) | st.just("random"), num_images=st.integers(1, 9),
             guidance=st.floats(0, 9), lora=st.lists(texts, max_size=2), model=texts),
)  # fmt: skip
recipes = st.builds(
    lambda select, middle, crop, fill, feather, about: Recipe(
        [select, *middle, crop, fill, *feather, Composite()], name="some-recipe", about=about
    ),
    selects, st.lists(between, max_size=3), crops, fills, st.lists(st.builds(Feather, radius=radii), max_size=1), texts,
)  # fmt: skip


@given(recipes)
def test_yaml_and_stages_are_one_to_one(recipe: Recipe) -> None:
    again = Recipe.from_yaml(recipe.to_yaml())
    assert again == recipe
    assert list(again.stages()) == list(recipe.stages())
    assert again.to_yaml() == recipe.to_yaml()
    assert hash(again) == hash(recipe)


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_recipes_are_whole(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.name == name
    assert recipe.about.endswith(".")
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert list(recipe.stages())
    assert describe(library.find("recipes", name, word="recipe")) == (name, recipe.about)
    for option in recipe.options().values():
        assert option.about, option.name
        assert option.schema, option.name
        for index, field in option.targets:
            assert field in recipe.items[index].stage.model_fields


def test_python_and_yaml_are_equal_peers() -> None:
    python = Recipe(
        [
            Select(box="1,2,30,40"),
            Dilate(radius=12),
            Crop(),
            Fill(prompt="an empty street"),
            Feather(radius=8),
            Composite(),
        ],
        name="mine",
    )
    written = Recipe.from_yaml(
        "name: mine\nstages:\n  - select: {box: [[1, 2, 30, 40]]}\n  - dilate: {radius: 12}\n  - crop\n"
        "  - fill: {prompt: an empty street}\n  - feather:\n      radius: 8\n  - composite:\n"
    )
    assert python == written
    assert repr(python) == "Recipe('mine', ['select', 'dilate', 'crop', 'fill', 'feather', 'composite'])"
    assert python != Recipe([Select(box="1,2,30,40")], name="mine")


BODY = "stages:\n  - select\n  - dilate: {radius: 2%}\n  - crop\n  - fill: {prompt: $prompt}\n  - composite\n"
OPEN = "name: open\ninputs:\n  prompt: {default: grass, about: what should be there}\n" + BODY


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[]", "recipe: expected a mapping with name, about, inputs and stages"),
        ("name: x", "recipe: expected a mapping with name, about, inputs and stages"),
        ("stages: []", "recipe.stages: expected a list of stages"),
        ("stages: select", "recipe.stages: expected a list of stages"),
        ("stage: []\nstages: [select]", "recipe: no field 'stage'; did you mean 'stages'?"),
        ("name: My Recipe\nstages: [select]",
         "recipe.name: expected small letters, digits and dashes, got 'My Recipe'"),
        ("about: 5\nstages: [select]", "recipe.about: expected text, got 5"),
        ("inputs: [a]\nstages: [select]", "recipe.inputs: expected a mapping, got ['a']"),
        ("inputs: {a: {kind: text}}\nstages: [select]",
         "recipe.inputs.a: no parameter 'kind'; known: about, default, type"),
        ("stages: [selct]", "recipe.stages[0]: no stage 'selct'; did you mean 'select'?"),
        ("stages: [{select: {bax: 1}}]", "recipe.stages[0].select: no parameter 'bax'; did you mean 'box'?"),
        ("stages: [{select: 5}]", "recipe.stages[0].select: expected parameters by name, got 5"),
        ("stages: [{select: {}, crop: {}}]",
         "recipe.stages[0]: expected a stage's name, or one name with its parameters, got {'crop': {}, 'select': {}}"),
        ("stages: [null]", "recipe.stages[0]: expected a stage's name, or one name with its parameters, got None"),
        ("stages: [select, {dilate: {radius: -1}}]",
         "recipe.stages[1].dilate.radius: must be between 0 and 1000000 pixels, got -1"),
        ("stages: [select, {fill: {prompt: 5}}]",
         "recipe.stages[1].fill: needs what 'crop' makes; put it before"),
        ("stages: [dilate, select]",
         "recipe.stages[0].dilate: needs what 'dilate' or 'erode' or 'fill-holes' or 'segment' or 'select' makes; "
         "put it before"),
        ("stages: [select, crop, composite]", "recipe.stages[2].composite: needs what 'fill' makes; put it before"),
        ("stages: [select, crop, {fill: {prompt: $promt}}]\ninputs: {prompt: x}",
         "recipe.stages[2].fill.prompt: no input 'promt'; did you mean 'prompt'?"),
        ("stages: [select]\ninputs: {prompt: x}", "recipe.inputs.prompt: no stage uses $prompt"),
        ("stages: [select]\nstages: [select]", "text: line 2: 'stages' is written twice"),
    ],
)  # fmt: skip
def test_wrong_recipes_are_named(text: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        Recipe.from_yaml(text)
    assert str(caught.value) == sentence


def test_files_are_named_in_errors(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("stages: [selct]")
    with pytest.raises(UnknownNameError, match=r"^bad\.yaml\.stages\[0\]: no stage 'selct'"):
        Recipe.load(path)
    with pytest.raises(UnknownNameError) as caught:
        Recipe.load("remove-objekt")
    assert str(caught.value) == "no recipe 'remove-objekt'; did you mean 'remove-object'?"


def test_recipes_of_the_users_own_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/remove-object.yaml").write_text(
        "name: remove-object\nabout: Mine.\n" + BODY.replace("$prompt", "x")
    )
    monkeypatch.chdir(tmp_path)
    assert Recipe.load("remove-object").about == "Mine."


def test_options_are_inputs_and_public_fields() -> None:
    options = Recipe.from_yaml(OPEN).options()
    assert options["prompt"].default == "grass"
    assert options["prompt"].about == "what should be there"
    assert {"box", "point", "mask", "invert_mask", "protect", "seed", "num_images", "model", "size"} <= set(options)
    assert not {"radius", "context", "match_colour"} & set(options)
    assert options["model"].short == "-m"
    assert options["num_images"].default == 1
    assert [field for _, field in options["prompt"].targets] == ["prompt"]


def test_an_option_reaches_every_stage_that_has_it() -> None:
    text = "stages: [select, crop, {fill: {model: telea}}, composite, select, crop, fill, composite]"
    recipe = Recipe.from_yaml(text).bind({"seed": 5, "model": "patchmatch"})
    found = [stage for stage in recipe.stages() if isinstance(stage, Fill)]
    assert [(stage.seed, stage.model) for stage in found] == [(5, "patchmatch")] * 2


def test_crop_takes_the_limits_of_the_next_fill() -> None:
    text = "stages: [select, crop, {fill: {model: telea}}, composite, crop, fill, {crop: {model: mine}}]"
    crops = [stage.model for stage in Recipe.from_yaml(text).stages() if isinstance(stage, Crop)]
    assert crops == ["telea", "auto", "mine"]


def last_fill(recipe: Recipe) -> Fill:
    return next(stage for stage in recipe.stages() if isinstance(stage, Fill))


@given(texts)
def test_inputs_are_bound_whatever_they_hold(prompt: str) -> None:
    recipe = Recipe.from_yaml(OPEN)
    assert last_fill(recipe).prompt == "grass"
    assert last_fill(recipe.bind({"prompt": prompt})).prompt == prompt
    assert last_fill(recipe.bind(settings={"fill.prompt": prompt})).prompt == prompt
    bound = recipe.bind({"prompt": prompt})
    assert not bound.inputs
    assert Recipe.from_yaml(bound.to_yaml()) == bound
    assert last_fill(Recipe([Select(), Crop(), Fill(prompt=prompt)])).prompt == prompt


def test_an_input_can_be_left_open_in_python() -> None:
    items = [Select(), Crop(), Item(Fill, {"prompt": Reference("what")})]
    recipe = Recipe(items, name="open", inputs={"what": Input(default="sand")})
    assert recipe == Recipe.from_yaml(
        "name: open\ninputs: {what: sand}\nstages: [select, crop, {fill: {prompt: $what}}]"
    )
    assert last_fill(recipe.bind({"what": "water"})).prompt == "water"


def test_an_input_without_value_leaves_the_stages_own_default() -> None:
    recipe = Recipe.from_yaml("inputs: {n: {type: whole number}}\nstages: [select, crop, {fill: {num_images: $n}}]")
    assert last_fill(recipe).num_images == 1
    assert last_fill(recipe.bind({"n": 3})).num_images == 3
    assert recipe.options()["n"].default == 1


@pytest.mark.parametrize(
    ("options", "settings", "sentence"),
    [
        ({"promt": "x"}, {}, "open: no option 'promt'; did you mean 'prompt'?"),
        ({"radius": 5}, {}, "open: no option 'radius'; known: "),
        ({"num_images": 0}, {}, "fill.num_images: must be at least 1, got 0"),
        ({"box": "5,5,1,1"}, {}, "select.box.0: box 5,5,1,1: reversed, "),
        ({"prompt": 7}, {}, "fill.prompt: expected string, got 7 (quote it to make it text)"),
        ({}, {"dilate.radius": -1}, "dilate.radius: must be between 0 and 1000000 pixels, got -1"),
        ({}, {"dilat.radius": 1}, "--set dilat.radius: no stage 'dilat'; did you mean 'dilate'?"),
        ({}, {"dilate.radios": 1}, "--set dilate.radios: no parameter 'radios'; did you mean 'radius'?"),
        ({}, {"dilate": 1}, "--set dilate: expected stage.field=value, e.g. dilate.radius=3%"),
        ({}, {"dilate[1].radius": 1}, "--set dilate[1].radius: dilate occurs 1 times, counted from 0"),
    ],
)
def test_wrong_values_are_named(options: dict[str, Any], settings: dict[str, Any], sentence: str) -> None:
    with pytest.raises((ParameterError, UnknownNameError)) as caught:
        Recipe.from_yaml(OPEN).bind(options, settings)
    assert str(caught.value).startswith(sentence)


def test_settings_reach_repeated_stages_by_number() -> None:
    recipe = Recipe([Select(), Dilate(radius=1), Dilate(radius=2)])
    with pytest.raises(ParameterError) as caught:
        recipe.bind(settings={"dilate.radius": 9})
    assert str(caught.value) == "--set dilate.radius: dilate occurs 2 times; write dilate[0].radius or the like"
    bound = recipe.bind(settings={"dilate[1].radius": 9})
    assert [stage.radius for stage in bound.stages() if isinstance(stage, Dilate)] == [1, 9]
    assert Recipe([Select(), FillHoles()]).bind(settings={"fill-holes.max-area": 9}) == Recipe(
        [Select(), FillHoles(max_area=9)]
    )


def test_an_array_has_no_form_in_yaml() -> None:
    with pytest.raises(RecipeError, match=r"^cannot be written as YAML: array"):
        Recipe([Select(mask=np.zeros((4, 4), np.uint8))]).to_yaml()


def test_a_recipe_is_called_like_a_stage() -> None:
    picture = np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)
    mask = np.zeros((60, 60), np.uint8)
    mask[20:30, 20:30] = 255
    recipe = Recipe([Select(), Dilate(radius=2), Crop(), Fill(model="stand-in"), Composite()])
    with Run(workers=1, engines={"stand-in": (card(), StandIn())}) as run:
        edit = recipe(picture, run, mask=mask)
        assert [step.stage for step in edit.steps] == ["select", "dilate", "crop", "fill", "composite"]
        planned = recipe(picture, run, mask=mask, plan=True)
        assert [step.stage for step in planned.steps] == ["select", "dilate", "crop", "fill"]
        assert planned.steps[-1].figures["calls"] == 1
        assert not planned.fills
        with pytest.raises(UnknownNameError, match="no option 'maks'; did you mean 'mask'"):
            recipe(picture, run, maks=mask)
