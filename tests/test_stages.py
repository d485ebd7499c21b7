"""Every stage and recipe there is, over every kind of photo, with a stand-in for the engine."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import StandIn, card

from toolkit import library, stages
from toolkit.cards import Removal
from toolkit.edit import Edit, Window
from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.errors import EngineError, MaskError, ParameterError, UsageError
from toolkit.geometry import Box, Limits, Size
from toolkit.mask import Mask
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.stages import Stage
from toolkit.stages.composite import Composite
from toolkit.stages.crop import Crop
from toolkit.stages.dilate import Dilate
from toolkit.stages.erode import Erode
from toolkit.stages.feather import Feather
from toolkit.stages.fill import Fill, make_job
from toolkit.stages.fill_holes import FillHoles
from toolkit.stages.select import Select

RECIPES = sorted(library.names("recipes"))


def noise(height: int, width: int, channels: int = 3, dtype: str = "uint8", seed: int = 0) -> np.ndarray:
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, (height, width, channels)).astype(dtype)


def palette() -> PIL.Image.Image:
    return PIL.Image.fromarray(noise(60, 80)).quantize(16)


def transparent_palette() -> PIL.Image.Image:
    image = palette()
    image.info["transparency"] = 3
    return image


def oriented() -> bytes:
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    PIL.Image.fromarray(noise(60, 80)).save(file, "PNG", exif=exif)
    return file.getvalue()


PHOTOS: dict[str, Callable[[], Any]] = {
    "grey": lambda: noise(60, 80, 1)[..., 0],
    "grey-alpha": lambda: noise(60, 80, 2),
    "rgb": lambda: noise(60, 80),
    "rgba": lambda: noise(60, 80, 4),
    "grey-16": lambda: noise(60, 80, 1, "uint16")[..., 0],
    "rgb-16": lambda: noise(60, 80, 3, "uint16"),
    "rgba-16": lambda: noise(60, 80, 4, "uint16"),
    "flat": lambda: np.full((60, 80, 3), 255, np.uint8),
    "pil": lambda: PIL.Image.fromarray(noise(60, 80)),
    "1-bit": lambda: PIL.Image.fromarray(noise(60, 80)[..., 0]).convert("1"),
    "palette": palette,
    "palette-alpha": transparent_palette,
    "oriented-file": oriented,
    "2x1": lambda: noise(1, 2),
    "1x3": lambda: noise(3, 1),
    "3x3": lambda: noise(3, 3, 4),
    "strip": lambda: noise(20, 900),
    "column": lambda: noise(900, 7, 1)[..., 0],
}


@pytest.fixture
def engine() -> StandIn:
    """Answers with the upside of what it was given, so that the fill differs from the photo."""
    return StandIn(lambda job, seed: 255 - job.pixels)


@pytest.fixture
def run(engine: StandIn) -> Iterator[Run]:
    engines = {"stand-in": (card(), engine), "painter": (card("painter", prompt="required"), engine)}
    with Run(workers=1, engines=engines) as one:
        yield one


def central(size: Size) -> np.ndarray:
    """A mask of the photo's middle, never all of it."""
    mask = np.zeros((size.height, size.width), np.uint8)
    x, y = size.width // 2, size.height // 2
    mask[y : y + max(1, size.height // 4), x : x + max(1, size.width // 4)] = 255
    return mask


@pytest.mark.parametrize("name", sorted(stages.stages()))
def test_every_stage_describes_itself(name: str) -> None:
    kind = stages.find(name)
    assert kind.__doc__
    assert kind.__doc__ != Stage.__doc__
    assert kind.apply is not Stage.apply
    assert kind.apply.__doc__
    assert kind.makes, "a stage makes something"
    for need in (*kind.needs, *kind.makes):
        assert need in Edit.__dataclass_fields__
    for field, info in kind.model_fields.items():
        assert info.description, field
        assert not info.is_required(), f"{field} has no default, so the stage cannot be named alone in a recipe"
    schema = kind.model_json_schema()
    assert json.loads(json.dumps(schema)) == schema
    assert schema["additionalProperties"] is False
    assert set(schema.get("properties", {})) == set(kind.model_fields)
    assert kind().model_dump() == kind.model_validate(kind().model_dump()).model_dump()


@pytest.mark.parametrize("kind", PHOTOS)
@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_over_every_kind_of_photo(name: str, kind: str, run: Run, engine: StandIn) -> None:
    recipe = Recipe.load(name)
    own_prompt = any(item.values.get("own_prompt") for item in recipe.items)
    source = PHOTOS[kind]()
    edit = Edit.of(source)
    original = edit.array()
    fills = any(item.stage is Fill for item in recipe.items)
    options = {"model": "stand-in"} if fills else {}
    if own_prompt:
        options = {"model": "painter", "prompt": "a red ball"}
    if fills and edit.box.area < 10:
        with pytest.raises(MaskError, match=r"^the mask covers the whole photo: there is nothing to copy from$"):
            recipe(source, run, mask=central(edit.box.size), **options)
        recipe, options = Recipe([Select(), Crop(), Fill(), Feather(), Composite()]), {"model": "stand-in"}
    done = recipe(source, run, mask=central(edit.box.size), **options)
    result = done.array()
    assert done.mask is not None
    assert done.selected is not None
    alpha = any(stage.gives_alpha for stage in recipe.stages()) and not edit.photo.has_alpha
    assert result.shape == (*original.shape[:2], original.shape[2] + alpha)
    assert result.dtype == original.dtype
    outside = done.mask.array() == 0
    assert np.array_equal(result[outside][:, : original.shape[2]], original[outside]), "law 1"
    assert not fills or done.mask.intersect(done.selected) == done.selected
    assert len(done.steps) == len(recipe.items)
    json.dumps(done.report())
    for one in engine.jobs:
        assert one.pixels.shape[:2] == one.mask.shape == one.blocked.shape
        assert not ((one.mask > 0) & (one.blocked > 0)).any()
        assert (one.mask > 0).any()
        assert ((one.mask == 0) & (one.blocked == 0)).any(), "there is something to copy from"
    if kind == "rgb" and fills:
        changed = (result != original).any(axis=2)
        assert changed[done.selected.array() > 0].mean() > 0.9


def filled(
    source: Any, run: Run, mask: np.ndarray, *before: Stage, select: dict[str, Any] | None = None, **fill: Any
) -> Edit:
    items = [
        Select(mask=mask, **(select or {})), *before,
        Crop(model="stand-in"), Fill(model="stand-in", **fill), Composite(),
    ]  # fmt: skip
    return Recipe(items)(source, run)


def test_what_is_protected_stays_after_dilation(run: Run) -> None:
    picture = noise(80, 80)
    mask = np.zeros((80, 80), np.uint8)
    mask[30:50, 30:50] = 255
    protected = Box(48, 0, 80, 80)
    for shape in (protected, "48,0,80,80", Mask.from_box(Box(0, 0, 80, 80), protected).array()):
        for after in ([Dilate(radius=10)], [Dilate(radius=10), Feather(radius=5)], [FillHoles(), Dilate(radius=30)]):
            edit = filled(picture, run, mask, *after, select={"protect": shape})
            assert edit.mask is not None
            assert edit.mask.intersect(Mask.from_box(edit.box, protected)).is_empty
            assert np.array_equal(edit.array()[:, 48:], picture[:, 48:])
            assert (edit.array()[:, :48] != picture[:, :48]).any()


def test_parameters_are_recorded_unless_they_are_arrays() -> None:
    picture = noise(40, 40)
    mask = central(Size(40, 40))
    recorded = Select(mask=mask, protect="0,0,5,5")(Edit.of(picture)).steps[0].parameters
    assert recorded["protect"] == (Box(0, 0, 5, 5),)
    assert "mask" not in recorded
    assert recorded["segmenter"] == "auto"  # defaults too: a report is enough to repeat the edit
    recorded = Select(mask=mask, protect=[mask, "0,0,5,5"], invert_mask=True)(Edit.of(picture)).steps[0].parameters
    assert recorded["invert_mask"] is True
    assert "protect" not in recorded


def test_inverting_selects_the_rest(run: Run) -> None:
    picture = noise(60, 60)
    mask = np.full((60, 60), 255, np.uint8)
    mask[20:40, 20:40] = 0
    edit = filled(picture, run, mask, select={"invert_mask": True})
    assert edit.selected is not None
    assert edit.selected.box == Box(20, 20, 40, 40)
    assert np.array_equal(edit.array()[mask > 0], picture[mask > 0])


def test_stages_of_the_selection() -> None:
    mask = np.zeros((60, 60), np.uint8)
    mask[10:40, 10:40] = 255
    mask[20:25, 20:25] = 0
    edit = Select(mask=mask)(Edit.of(noise(60, 60)))
    assert edit.mask is edit.selected
    whole = FillHoles()(edit)
    assert whole.selected is not None
    assert whole.selected.area == 900
    assert FillHoles(max_area=24)(edit).selected == edit.selected
    smaller = Erode(radius=3)(whole)
    assert smaller.selected is not None
    assert smaller.selected.box == Box(13, 13, 37, 37)
    wider = Dilate(radius=3)(edit)
    assert wider.selected == edit.selected
    assert wider.mask is not None
    assert wider.mask.area > edit.selected.area  # type: ignore[union-attr]
    with pytest.raises(MaskError, match=r"^erode: nothing is left of the selection after a radius of 20"):
        Erode(radius=20)(edit)
    soft = Feather(radius=2)(wider)
    assert soft.ramp is not None
    assert soft.ramp.threshold(255).intersect(edit.selected) == edit.selected  # type: ignore[arg-type]
    assert soft.ramp.threshold(1).subtract(wider.mask).is_empty


@pytest.mark.parametrize(
    ("mask", "error", "sentence"),
    [
        (np.zeros((40, 50), np.uint8), MaskError, "mask: is empty, nothing in it is white"),
        (np.full((40, 50), 255, np.uint8), MaskError, "the mask covers the whole photo: there is nothing to copy from"),
        (np.zeros((41, 50), np.uint8), MaskError, "mask: is 50x41, the photo is 50x40"),
        (np.zeros((40, 50, 3), np.uint8), MaskError,
         "mask: must be an array (height, width) of uint8 or bool, got (40, 50, 3) uint8"),
        (np.zeros((40, 50)), MaskError,
         "mask: must be an array (height, width) of uint8 or bool, got (40, 50) float64"),
    ],
)  # fmt: skip
def test_unusable_masks_are_named(run: Run, mask: np.ndarray, error: type[Exception], sentence: str) -> None:
    with pytest.raises(error) as caught:
        filled(noise(40, 50), run, mask)
    assert str(caught.value) == sentence


def test_wrong_selections_are_named() -> None:
    edit = Edit.of(noise(40, 50))
    mask = central(edit.box.size)
    with pytest.raises(UsageError, match=r"^nothing is selected: give --box, --point, --text or --mask$"):
        Select()(edit)
    with pytest.raises(ParameterError, match=r"^box 60,0,70,9: lies outside the photo, which is 50x40 pixels$"):
        Select(box="60,0,70,9")(edit)
    with pytest.raises(ParameterError, match=r"^point 50,0: lies outside the photo, which is 50x40 pixels$"):
        Select(point="50,0")(edit)
    with pytest.raises(ParameterError, match=r"^protect '1,2,3': is neither a box nor a file$"):
        Select(mask=mask, protect="1,2,3")(edit)
    with pytest.raises(ParameterError, match=r"^protect 50,0,60,9: lies outside the photo, which is 50x40 pixels$"):
        Select(mask=mask, protect="50,0,60,9")(edit)
    with pytest.raises(MaskError, match=r"^nothing is left of the selection outside what is protected$"):
        Select(mask=mask, protect=[(0, 0, 50, 40)])(edit)
    with pytest.raises(MaskError, match=r"^mask: is 10x10, the photo is 50x40$"):
        Select(mask=Mask.full(Box(0, 0, 10, 10)))(edit)


def test_stages_say_what_they_need() -> None:
    edit = Edit.of(noise(40, 50))
    sentences = {
        Dilate(): "dilate: needs a mask, which 'dilate' or 'erode' or 'fill-holes' or 'segment' or 'select' makes",
        Erode(): "erode: needs a selection, which 'erode' or 'fill-holes' or 'segment' or 'select' makes",
    }
    for stage, sentence in sentences.items():
        with pytest.raises(UsageError) as caught:
            stage(edit)
        assert str(caught.value) == f"{sentence}; put it before"
    selected = Select(mask=central(edit.box.size))(edit)
    for stage, need in ((Fill(), "windows, which 'crop' makes"), (Composite(), "fills, which 'fill' makes")):
        with pytest.raises(UsageError, match=f"needs {need}"):
            stage(selected)


def test_variations_have_seed_plus_k(run: Run, engine: StandIn) -> None:
    engine.answer = lambda job, seed: np.full_like(job.pixels, seed)
    picture, mask = noise(60, 60), central(Size(60, 60))
    edit = filled(picture, run, mask, seed=40, num_images=3)
    assert sorted(job.seeds for job in engine.jobs) == [(40,), (41,), (42,)]
    assert edit.steps[-2].seeds == (40, 41, 42)
    assert sorted(stack.seeds for stack in edit.stacks) == [(40,), (41,), (42,)]
    seams = [stack.seam or 0.0 for stack in edit.stacks]
    assert seams == sorted(seams), "the best first"
    assert [fill.seeds for fill in edit.fills] == [tuple(stack.seeds[0] for stack in edit.stacks)]
    assert [fill.images[k][0, 0, 0] for fill in edit.fills for k in range(3)] == list(edit.fills[0].seeds)
    assert [one["seam"] for one in edit.steps[-1].figures["windows"]] == [round(seam, 3) for seam in seams]
    (note,) = edit.steps[-1].notes
    first = edit.stacks[0]
    assert note.startswith(f"best seam first: -1 seed {first.seeds[0]} ({first.seam:.2f}), -2 seed ")
    alone = filled(picture, run, mask, seed=first.seeds[0])
    assert np.array_equal(alone.array(), edit.array(0)), "each can be had alone"
    with pytest.raises(UsageError, match=r"the edit holds 3 variations: call"):
        Select(mask=mask)(edit, run)
    with pytest.raises(UsageError, match=r"the edit holds 3 variations: call"):
        Fill(model="stand-in")(edit, run)
    again = filled(edit.choose(2), run, mask[::-1])
    assert len(again.chosen.patches) == 2


def test_an_engine_that_batches_seeds_gets_one_job(engine: StandIn) -> None:
    with Run(workers=1, seed=3, engines={"stand-in": (card(batch_seeds=True), engine)}) as run:
        edit = filled(noise(60, 60), run, central(Size(60, 60)), num_images=4)
    assert [job.seeds for job in engine.jobs] == [(3, 4, 5, 6)]
    assert next(step.figures["calls"] for step in edit.steps if step.stage == "fill") == 1
    assert len(edit.stacks) == 4


def test_a_drawn_seed_is_said(run: Run) -> None:
    edit = filled(noise(60, 60), run, central(Size(60, 60)), seed="random")
    assert edit.steps[-2].notes == (f"seed {edit.steps[-2].seeds[0]} was drawn",)


def test_several_windows_each_get_their_own_hole(run: Run, engine: StandIn) -> None:
    picture = noise(400, 600)
    mask = np.zeros((400, 600), np.uint8)
    for x, y in ((20, 20), (560, 30), (300, 370)):
        mask[y : y + 12, x : x + 12] = 255
    edit = filled(picture, run, mask, Dilate(radius=3), num_images=2)
    assert len(edit.passes[0]) == 3
    assert len(edit.fills) == 3
    assert len(engine.jobs) == 6
    assert edit.mask is not None
    for k in range(2):
        changed = (edit.array(k) != picture).any(axis=2)
        assert not changed[edit.mask.array() == 0].any()
        assert changed[mask > 0].mean() > 0.9


def test_other_parts_of_the_mask_are_blocked(engine: StandIn, run: Run) -> None:
    mask = Mask.from_box(Box(0, 0, 80, 60), Box(10, 10, 20, 20)).union(
        Mask.from_box(Box(0, 0, 80, 60), Box(60, 40, 70, 50))
    )
    edit = Select(mask=mask)(Edit.of(noise(60, 80)))
    first, second = mask.components()
    windows = tuple(Window(edit.box, edit.box.size, part) for part in (first, second))
    done = Composite()(Fill(model="stand-in")(edit.replace(passes=(windows,)), run), run)
    for job, own, other in zip(engine.jobs, (first, second), (second, first), strict=True):
        assert np.array_equal(job.mask, own.array())
        assert np.array_equal(job.blocked, other.array())
    assert done.band() == mask


def test_a_later_pass_reads_what_the_earlier_filled(engine: StandIn, run: Run) -> None:
    engine.answer = lambda job, seed: np.full_like(job.pixels, 10 + seed)
    picture = np.full((60, 80, 3), 200, np.uint8)
    frame = Box(0, 0, 80, 60)
    first, second = Mask.from_box(frame, Box(10, 10, 20, 20)), Mask.from_box(frame, Box(20, 10, 30, 20))
    edit = Select(mask=first.union(second))(Edit.of(picture))
    passes = tuple((Window(frame, frame.size, part),) for part in (first, second))
    done = Fill(model="stand-in", num_images=2)(edit.replace(passes=passes), run)
    later = {job.seeds[0]: job for job in engine.jobs if job.mask[15, 25]}
    assert sorted(later) == [0, 1]
    for seed, job in later.items():
        assert (job.pixels[10:20, 10:20] == 10 + seed).all(), "each variation sees its own surroundings"
        assert not job.blocked.any()
    assert len(done.fills) == 2


def test_filling_again_replaces_the_fills(run: Run) -> None:
    edit = Crop(model="stand-in")(Select(mask=central(Size(60, 60)))(Edit.of(noise(60, 60))), run)
    once = Fill(model="stand-in")(edit, run)
    twice = Fill(model="stand-in", seed=8)(once, run)
    assert len(once.fills) == len(twice.fills) == 1
    assert twice.fills[0].seeds == (8,)


def rgba(alpha: np.ndarray) -> np.ndarray:
    return np.dstack([noise(*alpha.shape), alpha])


def test_what_is_wholly_transparent_is_neither_filled_nor_copied_from(run: Run, engine: StandIn) -> None:
    alpha = np.full((60, 80), 255, np.uint8)
    alpha[:, 40:] = 0
    picture = rgba(alpha)
    mask = np.zeros((60, 80), np.uint8)
    mask[20:40, 30:50] = 255
    edit = filled(picture, run, mask)
    (job,) = engine.jobs
    box = edit.passes[0][0].box
    hidden = alpha[box.slices] == 0
    assert not job.mask[hidden].any()
    assert job.blocked[hidden].all()
    result = edit.array()
    assert np.array_equal(result[alpha == 0], picture[alpha == 0]), "values under alpha 0 are kept too"
    assert (result[..., :3] != picture[..., :3]).any(axis=2)[mask.astype(bool) & (alpha > 0)].mean() > 0.9


def test_a_hole_in_transparent_ground_becomes_transparent(run: Run, engine: StandIn) -> None:
    alpha = np.zeros((60, 80), np.uint8)
    alpha[25:35, 35:45] = 255
    picture = rgba(alpha)
    edit = filled(picture, run, alpha.copy(), Dilate(radius=4))
    assert not engine.jobs, "no engine is needed"
    assert "lies on transparent ground" in edit.steps[-2].notes[0]
    assert not edit.array()[..., 3].any()
    assert np.array_equal(edit.array()[alpha == 0], picture[alpha == 0])


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
def test_alpha_is_interpolated_from_the_ring(run: Run, dtype: str) -> None:
    top = np.iinfo(dtype).max
    ramp = np.linspace(0.2, 0.8, 80)[None].repeat(60, 0)
    picture = np.dstack([noise(60, 80, 3, dtype), (ramp * top).astype(dtype)])
    picture[25:35, 35:45, 3] = top
    mask = np.zeros((60, 80), np.uint8)
    mask[25:35, 35:45] = 255
    got = filled(picture, run, mask).array()[25:35, 35:45, 3] / top
    assert np.abs(got - ramp[25:35, 35:45]).max() < 0.08
    picture[..., 3] = top
    assert (filled(picture, run, mask).array()[..., 3] == top).all()


@given(
    st.integers(1, 40), st.integers(1, 40), st.data(),
    st.sampled_from(
        [Limits(), Limits(32, 96, 16, 64 * 64), Limits(8, 32, 8, 24 * 24), Limits(upscale=3.0, best_pixels=9999)]
    ),
)  # fmt: skip
@settings(max_examples=60)
def test_nothing_of_the_object_counts_as_known(height: int, width: int, data: st.DataObject, limits: Limits) -> None:
    """Two photos that differ under the mask alone, mirrored or not, shrunk or enlarged, give the same known pixels."""
    frame = Box(0, 0, width, height)
    left, top = data.draw(st.integers(0, width - 1)), data.draw(st.integers(0, height - 1))
    box = Box(left, top, data.draw(st.integers(left + 1, width)), data.draw(st.integers(top + 1, height)))
    if box == frame:
        return
    mask = Mask.from_box(frame, box)
    pair = []
    for value in (0, 255):
        picture = noise(height, width)
        picture[box.slices] = value
        edit = Select(mask=mask)(Edit.of(picture))
        with Run(workers=1, engines={"stand-in": (card(limits=limits), StandIn())}) as run:
            edit = Crop(model="stand-in")(edit, run)
        try:
            pair.append(make_job(edit, edit.passes[0][0]))
        except MaskError:
            return
    (pixels, hole, blocked), (others, same_hole, same_blocked) = pair
    assert np.array_equal(hole, same_hole)
    assert np.array_equal(blocked, same_blocked)
    known = (hole == 0) & (blocked == 0)
    assert np.abs(pixels[known].astype(int) - others[known]).max(initial=0) <= 1, "rounding"


@pytest.mark.parametrize(
    ("limits", "kind"),
    [(Limits(256, 1536, 16, 1 << 20, context=2), "rgb"), (Limits(64, 64, 64, 4096, context=2), "strip"),
     (Limits(8, 32, 8, 24 * 24), "rgb"), (Limits(512, 512, 512), "1x3"), (Limits(best_pixels=400), "rgb-16")],
)  # fmt: skip
def test_law_1_at_any_working_size(limits: Limits, kind: str, engine: StandIn) -> None:
    source = PHOTOS[kind]()
    edit = Edit.of(source)
    mask = central(edit.box.size)
    with Run(workers=1, engines={"stand-in": (card(limits=limits), engine)}) as run:
        done = filled(source, run, mask, Dilate(radius=4) if kind != "1x3" else FillHoles())
    assert done.mask is not None
    outside = done.mask.array() == 0
    assert np.array_equal(done.array()[outside], edit.array()[outside])
    assert all(limits.accepts(job.size) for job in engine.jobs)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (lambda job, seed: job.pixels[1:], r"expected an image of shape \(\d+, \d+, 3\) uint8, got"),
        (lambda job, seed: job.pixels[..., 0], r"expected an image of shape \(\d+, \d+, 3\) uint8, got"),
        (lambda job, seed: job.pixels / 255, r"expected an image of shape .* got \(\d+, \d+, 3\) float64$"),
    ],
)
def test_unusable_answers_of_engines_are_named(run: Run, engine: StandIn, answer: Any, sentence: str) -> None:
    engine.answer = answer
    with pytest.raises(EngineError, match=f"^stand-in: {sentence}"):
        filled(noise(40, 40), run, central(Size(40, 40)))


def test_a_wrong_number_of_answers_is_named() -> None:
    class Twice(StandIn):
        def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
            for job in jobs:
                yield FillResult(job, (job.pixels, job.pixels))

    with Run(workers=1, engines={"stand-in": (card(), Twice())}) as run:
        with pytest.raises(EngineError, match=r"^stand-in: returned 2 images, asked for 1$"):
            filled(noise(40, 40), run, central(Size(40, 40)))


def test_parameters_an_engine_does_not_take_are_refused(run: Run, engine: StandIn) -> None:
    picture, mask = noise(40, 40), central(Size(40, 40))
    for given_ in ({"steps": 5}, {"guidance": 2.5}, {"lora": "one"}):
        ((name, _),) = given_.items()
        with pytest.raises(ParameterError, match=f"^{name}: stand-in does not take it$"):
            filled(picture, run, mask, **given_)
    edit = filled(picture, run, mask, prompt="grass")
    assert edit.steps[-2].warnings == ("stand-in takes no prompt; 'grass' was not used",)
    rules = {"steps": {"default": 28, "minimum": 1, "maximum": 50}}
    needing = card("needing", prompt="required", parameters=rules)
    with Run(workers=1, engines={"stand-in": (needing, engine)}) as other:
        other._shared.given["needing"] = (needing, engine)
        with pytest.raises(ParameterError, match=r"^prompt: needing needs one; say what should be there$"):
            filled(picture, other, mask)
        with pytest.raises(ParameterError, match=r"^steps: needing takes 1 to 50, got 60$"):
            filled(picture, other, mask, prompt="grass", steps=60)
        filled(picture, other, mask, prompt="grass")
    assert engine.jobs[-1].parameters == {"steps": 28}
    assert engine.jobs[-1].prompt == "grass"


def test_a_size_the_engine_does_not_take_is_refused() -> None:
    limits = Limits(256, 1536, 16, 1 << 20)
    edit = Select(mask=central(Size(60, 60)))(Edit.of(noise(60, 60)))
    with Run(workers=1, engines={"stand-in": (card(limits=limits), StandIn())}) as run:
        with pytest.raises(ParameterError, match=r"^size 100x100: the engine takes sides 256-1536, multiples of 16$"):
            Crop(model="stand-in", size="100")(edit, run)
        done = Crop(model="stand-in", size="512x256")(edit, run)
        assert done.passes[0][0].size == Size(512, 256)
        assert any("reaches beyond the photo" in note for note in done.steps[-1].notes)
        with pytest.raises(EngineError, match=r"^telea: does not take windows of"):
            Fill(model="telea")(done.replace(passes=((Window(edit.box, Size(9000, 9000), done.mask),),)), run)  # type: ignore[arg-type]


def test_edits_of_one_photo_stack(run: Run) -> None:
    picture = noise(120, 120)
    left, right = np.zeros((120, 120), np.uint8), np.zeros((120, 120), np.uint8)
    left[50:60, 20:30], right[50:60, 90:100] = 255, 255
    first = filled(picture, run, left)
    both = filled(first, run, right)
    assert np.array_equal(both.array()[left > 0], first.array()[left > 0])
    assert (both.array() != picture).any(axis=2)[right > 0].mean() > 0.9
    assert len(both.chosen.patches) == 2
    assert np.array_equal(both.array()[(left == 0) & (right == 0)], picture[(left == 0) & (right == 0)])


def test_a_protected_box_that_reaches_beyond_the_photo_is_cut_and_said(run: Run) -> None:
    edit = Select(mask=central(Size(80, 60)), protect="70,50,500,500")(Edit.of(noise(60, 80)), run)
    assert edit.steps[-1].warnings == ("protect 70,50,500,500 reaches beyond the photo (80x60); 70,50,80,60 is used",)
    assert edit.protected == Mask.from_box(edit.box, Box(70, 50, 80, 60))


def test_changed_pixels_are_counted_for_each_variation(run: Run) -> None:
    picture = noise(60, 80)
    recipe = Recipe(
        [Select(mask=central(Size(80, 60))), Crop(model="telea"), Fill(model="telea", num_images=2), Composite()]
    )
    edit = recipe(picture, run)
    counted = [int((edit.array(k) != picture).any(axis=2).sum()) for k in range(2)]
    assert edit.steps[-1].figures["pixels_changed"] == counted


def test_a_prompt_of_ones_own_is_needed_where_something_is_put(run: Run, engine: StandIn) -> None:
    picture, mask = noise(60, 60), central(Size(60, 60))
    for name in ("replace-object", "add-content"):
        recipe = Recipe.load(name)
        assert "own_prompt" not in recipe.options()
        with pytest.raises(ParameterError, match=r"^prompt: is missing; say with --prompt what should be there$"):
            recipe(picture, run, mask=mask, model="painter")
        with pytest.raises(
            ParameterError, match=r"^stand-in follows no prompt, so it cannot paint one; choose one that"
        ):
            recipe(picture, run, mask=mask, model="stand-in", prompt="a ball")
        with pytest.raises(
            EngineError,
            match=r"^no free engine that follows a prompt can run here \(flux-fill-dev: .+\); choose one that "
            r"does with -m wavespeed-flux-fill-dev \(\$0\.035 an image\)$",  # and none that cannot run
        ):
            recipe(picture, run, mask=mask, prompt="a ball")
        assert not engine.jobs
        recipe(picture, run, mask=mask, model="painter", prompt="a ball")
        assert [job.prompt for job in engine.jobs] == ["a ball"]
        engine.jobs.clear()
    removal = card("remover", prompt="required", removal=Removal(prompt="plain ground", sources={"prompt": "a paper"}))
    with Run(workers=1, engines={"remover": (removal, engine)}) as other:
        Recipe.load("remove-object")(picture, other, mask=mask, model="remover")
        assert [job.prompt for job in engine.jobs] == ["plain ground"]
        with pytest.raises(ParameterError, match=r"^prompt: is missing"):
            Recipe.load("replace-object")(picture, other, mask=mask, model="remover")


def test_where_something_is_added_a_box_is_taken_as_it_is(run: Run, engine: StandIn) -> None:
    picture, recipe = noise(200, 300), Recipe.load("add-content")
    done = recipe(picture, run, box="40,50,90,120", model="painter", prompt="a ball")
    assert done.selected == Mask.from_box(done.box, Box(40, 50, 90, 120))
    assert done.steps[0].engine == "box"
    assert done.steps[0].figures["confidence"] == 1
    assert done.mask is not None
    assert Box(32, 42, 98, 128).contains(done.mask.box)
    clicked = recipe(picture, run, point=[(10, 100), (200, 100)], model="painter", prompt="a ball")
    assert clicked.selected is not None
    assert [part.box for part in clicked.selected.components()] == [Box(0, 67, 66, 133), Box(167, 67, 233, 133)]
    assert clicked.steps[0].notes[0].startswith("point 10,100: the square 0,67,66,133 around it is taken")
    with pytest.raises(ParameterError, match=r"^not_point: box looks for nothing that could be beside it; give a box$"):
        recipe(picture, run, point=(10, 10), not_point=(20, 20), model="painter", prompt="a ball")
    with pytest.raises(
        UsageError, match=r"^box does not take the photo's main subject, only boxes and clicks; choose "
    ):
        Select(subject=True, segmenter="box")(Edit.of(picture), run)


def test_what_replaces_may_be_larger_than_what_was_there(run: Run) -> None:
    mask = central(Size(300, 300))
    done = Recipe.load("replace-object")(noise(300, 300), run, mask=mask, model="painter", prompt="a ball")
    assert done.mask is not None
    assert done.selected is not None
    assert done.mask.box == done.selected.box.grow(16).intersect(done.box)
