"""Model cards: every one that is shipped, where cards are looked for, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from toolkit import cards, engines, library
from toolkit.cards import Parameter
from toolkit.errors import EngineError, ParameterError, RecipeError, UnknownNameError
from toolkit.geometry import Limits

SHIPPED = sorted((Path(__file__).parents[1] / "models").rglob("*.yaml"))

CARD = """
task: fill
adapter: patchmatch
about: A card of the user's own.
revision: "1"
licence: MIT
commercial_use: true
output_terms: none
data_leaves_machine: false
concurrency: process
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder, and an empty configuration folder `config` in it."""
    (tmp_path / "config").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path / "config"))
    return tmp_path


def write(folder: Path, name: str, text: str = CARD) -> Path:
    path = folder / "models" / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_shipped_cards_are_whole(path: Path) -> None:
    card = cards.read(path)
    assert card.name == path.stem
    assert card.task == path.parent.name
    module = engines.adapter(card)
    assert callable(module.Engine)
    assert module.Engine(card)
    assert card.about.endswith(".")
    assert card.revision
    assert card.licence
    assert card.output_terms
    if card.task == "fill":
        assert card.limits != Limits(), "limits are the card's own"
        assert card.pace is not None
    for name, rule in card.parameters.items():
        assert rule.checked(name, rule.default, card.name) == rule.default, "the default is in its own range"
        for value in rule.at_speed.values():
            assert rule.checked(name, value, card.name) == value, "so is that of each speed"
    assert len({weights.file for weights in card.weights}) == len(card.weights)
    for weights in card.weights:
        assert weights.url.startswith("https://")
        assert weights.revision in weights.url
        assert weights.source or not weights.sha256
        assert len(weights.sha256) in (0, 64)
    if card.data_leaves_machine or card.price.per_image:
        assert card.concurrency == "network"


def test_a_card_on_anothers_weights_takes_what_that_takes() -> None:
    for card in cards.every():
        if base := card.settings.get("base"):
            other = cards.find(card.task, base)
            same = ("adapter", "limits", "parameters", "prompt", "pace", "batch_seeds", "in_flight", "concurrency")
            assert [getattr(card, name) for name in same] == [getattr(other, name) for name in same]
            for name in other.settings:
                assert card.settings[name] == other.settings[name]


def test_some_engine_needs_nothing() -> None:
    for task in ("fill", "segment"):
        card = engines.resolve(task)
        assert card.rank is not None
        assert card.free
        assert not card.data_leaves_machine


def test_cards_without_rank_come_last_and_are_never_taken_by_auto(home: Path) -> None:
    write(home, "fill/best", CARD + "rank: 99\n")
    write(home, "fill/paid", CARD + "rank: 100\nprice: {per_image: 0.05}\n")
    write(home, "fill/broken", CARD.replace("patchmatch", "nothing_there") + "rank: 98\n")
    names = [card.name for card in cards.every("fill")]
    assert names[:3] == ["paid", "best", "broken"]
    assert names[-2:] == ["telea", "wavespeed-flux-fill-dev"]
    assert engines.resolve("fill").name == "best"
    with pytest.raises(EngineError, match=r"^broken cannot run: broken: no adapter 'nothing_there' for fill$"):
        engines.resolve("fill", "broken")


def test_the_working_folder_comes_first_then_the_users_own(home: Path) -> None:
    assert cards.find("fill", "telea").licence != "mine"
    write(home / "config", "fill/telea", CARD.replace("MIT", "mine"))
    assert cards.find("fill", "telea").licence == "mine"
    write(home, "fill/telea", CARD.replace("MIT", "here"))
    assert cards.find("fill", "telea").licence == "here"
    assert library.configuration_folder() == home / "config"
    assert [card.name for card in cards.every("fill")].count("telea") == 1


def test_other_yaml_in_a_models_folder_is_none_of_our_business(home: Path) -> None:
    write(home, "resnet/config", "layers: [1, 2")
    write(home, "notes", "- a list")
    assert {card.name for card in cards.every()} >= {"patchmatch", "telea", "classical"}


def test_unknown_names_are_suggested(home: Path) -> None:
    with pytest.raises(UnknownNameError) as caught:
        cards.find("fill", "tela")
    assert str(caught.value) == "no fill model 'tela'; did you mean 'telea'?"
    with pytest.raises(UnknownNameError) as caught:
        cards.find("fill", "xyz")
    assert str(caught.value) == (
        "no fill model 'xyz'; known: flux-fill-dev, flux-fill-dev-removal, patchmatch, telea, wavespeed-flux-fill-dev"
    )
    with pytest.raises(ParameterError) as wrong:
        cards.find("segment", "telea")
    assert str(wrong.value) == "'telea' is a fill model, not a segment one"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("rang: 3", ": no parameter 'rang'; did you mean 'rank'?"),
        ("in-flight: 3", ": no parameter 'in-flight'; did you mean 'in_flight'?"),
        ("rank: high", ".rank: expected integer, got 'high'"),
        ("concurrency: thread", ": 'concurrency' is written twice"),
        ("limits: {min_side: a}", ".limits: min_side: expected integer, got 'a'"),
        ("limits: {min_side: 4.5}", ".limits: min_side: expected integer, got 4.5"),
        ("limits: {min_size: 4}", ".limits: no parameter 'min_size'; did you mean 'min_side'?"),
        ("limits: {min_side: 99, max_side: 9}",
         ".limits: min_side 99, max_side 9 and multiple_of 1 cannot be met together"),
        ("limits: {best_pixels: 0}", ".limits: best_pixels must be at least 1, got 0"),
        ("limits: 7", ".limits: expected parameters by name, got 7"),
        ("price: {per_image: free}", ".price: per_image: expected number, got 'free'"),
        ("weights: {file: x}", ".weights: expected a list, got {'file': 'x'}"),
        ("weights: [{file: x}]", ".weights.0.url: is missing"),
        ("parameters: {steps: {default: 5, least: 1}}",
         ".parameters.steps: no parameter 'least'"),
        ("prompt: maybe", ".prompt: must be 'none', 'optional' or 'required', got 'maybe'"),
        ("name: other", ".name: must be 'mine', as the file lies there, got 'other'"),
    ],
)  # fmt: skip
def test_wrong_cards_are_named(home: Path, change: str, sentence: str) -> None:
    path = write(home, "fill/mine", CARD + change + "\n")
    with pytest.raises(RecipeError) as caught:
        cards.read(path)
    text = str(caught.value).replace("line 11: ", "")
    assert text == f"{path}{sentence}"


def test_a_card_in_the_folder_of_another_task_is_refused(home: Path) -> None:
    path = write(home, "segment/mine")
    with pytest.raises(RecipeError) as caught:
        cards.find("segment", "mine")
    assert (
        str(caught.value)
        == f"{home / 'models/segment/mine.yaml'}.task: must be 'segment', as the file lies there, got 'fill'"
    )
    path.write_text("- a list")
    with pytest.raises(RecipeError, match=r"mine\.yaml: expected a mapping of fields$"):
        cards.read(path)


def test_ranges_are_refused_and_never_clamped() -> None:
    rule = Parameter(default=28, minimum=1, maximum=50)
    assert rule.checked("steps", None, "flux") == 28
    assert rule.checked("steps", 50, "flux") == 50
    for value in (0, 51):
        with pytest.raises(ParameterError) as caught:
            rule.checked("steps", value, "flux")
        assert str(caught.value) == f"steps: flux takes 1 to 50, got {value}"
    with pytest.raises(ParameterError, match=r"^guidance: flux takes any to 5, got 6$"):
        Parameter(maximum=5).checked("guidance", 6, "flux")


@pytest.mark.parametrize(("steps", "pace"), [(None, 4.0), (28, 4.0), (56, 8.0), (7, 1.0)])
def test_more_steps_take_as_much_longer(steps: int | None, pace: float) -> None:
    card = cards.find("fill", "wavespeed-flux-fill-dev").model_copy(update={"pace": 4.0})
    assert card.pace_at({"steps": steps}) == pace
    assert card.model_copy(update={"pace": None}).pace_at({"steps": steps}) is None
    assert card.model_copy(update={"parameters": {}}).pace_at({"steps": steps}) == 4.0
