"""Painted grounds: what the engine is shown, how its answer lies behind the product, tiles, sharing, what is said."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jobs import StandIn, card
from scenes import after, product, ready, written
from scenes import cut as cut_out

from toolkit import grounds
from toolkit.edit import Edit
from toolkit.engines import FillJob
from toolkit.errors import EngineError, HeldBack, ParameterError, UsageError
from toolkit.geometry import Box, Limits, Price, Size
from toolkit.patch import Canvas as Shown
from toolkit.run import Run
from toolkit.sources import Painted
from toolkit.stages.backdrop import Backdrop
from toolkit.stages.canvas import Canvas
from toolkit.stages.generate import Generate
from toolkit.stages.select import Select
from toolkit.stages.shadow import Shadow

LIMITS = Limits(min_side=64, max_side=512, multiple_of=16, best_pixels=128 * 128, upscale=2.0)
KINDS = [(1, np.uint8), (2, np.uint8), (3, np.uint8), (4, np.uint8), (1, np.uint16), (3, np.uint16), (4, np.uint16)]


@pytest.fixture
def engine() -> StandIn:
    """Paints red, darker with the seed, and gives back what it knows."""

    def painted(job: FillJob, seed: int) -> np.ndarray:
        red = np.full_like(job.pixels, (200 - seed, 40, 40))
        return np.where((job.mask > 0)[..., None], red, job.pixels)

    return StandIn(painted)


@pytest.fixture
def run(engine: StandIn) -> Iterator[Run]:
    with Run(workers=1, engines={"painter": (card("painter", prompt="required", limits=LIMITS), engine)}) as one:
        yield one


def generate(**values: Any) -> Generate:
    return Generate(background_prompt="on oak", model="painter", **values)


def laid(edit: Edit, run: Run, **values: Any) -> Edit:
    return Backdrop()(generate(**values)(edit, run), run)


@pytest.mark.parametrize(("bands", "dtype"), KINDS)
@pytest.mark.parametrize("detail", ["once", "full"])
def test_the_product_is_untouched_and_the_ground_painted(bands: int, dtype: Any, detail: str, run: Run) -> None:
    photo, colours, alpha = product(150, 200, bands=bands, dtype=dtype)
    edit = laid(cut_out(photo, colours, alpha), run, detail=detail)
    result = edit.array()
    assert result.dtype == dtype
    assert np.array_equal(result[alpha == 255], photo.reshape(*photo.shape[:2], -1)[alpha == 255])
    top = np.iinfo(dtype).max
    ground = edit.photo.to_srgb(result)[:10, :10].astype(int)
    wanted = np.array((200, 40, 40) if edit.photo.channels == 3 else (87, 87, 87))
    assert np.abs(ground - wanted).mean() < 12
    if bands in (2, 4):
        assert (result[..., -1][alpha == 0] == top).all(), "the ground is opaque"
    assert np.array_equal(written(edit, format="PNG").array(), result)


def test_one_call_whatever_the_canvas(run: Run, engine: StandIn) -> None:
    edit = laid(ready(), run)
    large = laid(ready(Canvas(size="900x600", product_size="40%")), run)
    assert [len(job.seeds) for job in engine.jobs] == [1, 1]
    assert all(LIMITS.accepts(job.size) for job in engine.jobs)
    assert engine.jobs[1].size == Size(512, 352)
    assert large.array().shape == (600, 900, 3)
    figures = large.steps[-2].figures
    assert (figures["calls"], figures["prompt"]) == (1, "on oak")
    assert any("enlarged" in note for note in large.steps[-2].notes)
    json.dumps([edit.report(), large.report()])


def test_the_engine_sees_the_product_alone(run: Run, engine: StandIn) -> None:
    photo, colours, alpha = product(150, 200)
    generate(size="208x160")(cut_out(photo, colours, alpha), run)
    (job,) = engine.jobs
    assert job.size == Size(208, 160)
    assert set(np.unique(job.mask)) == {0, 255}
    assert not job.blocked.any()
    assert (job.pixels[job.mask > 0] == grounds.BLANK).all(), "nothing of the old ground"
    assert (job.mask == 0).mean() == pytest.approx((alpha >= 128).mean(), rel=0.1)
    # At the scale of the photo the product's own colours are given exactly.
    generate(detail="full", size="208x160")(cut_out(photo, colours, alpha), run)
    shown = engine.jobs[-1]
    inside = shown.mask[:150, :200] == 0
    assert np.array_equal(inside, alpha >= 128)
    assert np.array_equal(shown.pixels[:150, :200][inside & (alpha == 255)], photo[inside & (alpha == 255)])
    soft = inside & (alpha < 255)
    assert np.array_equal(shown.pixels[:150, :200][soft], colours[soft]), "the edge without the old ground"


@pytest.mark.parametrize("detail", ["once", "full"])
def test_an_engine_that_changes_the_product_leaves_no_halo(detail: str, run: Run, engine: StandIn) -> None:
    engine.answer = lambda job, seed: np.full_like(job.pixels, (30, 60, 90))
    flat = np.full((300, 400, 3), 220, np.uint8)
    alpha = np.zeros((300, 400), np.uint8)
    alpha[100:200, 120:280] = 255
    result = laid(cut_out(flat, flat, alpha), run, detail=detail).array()
    assert (result[alpha > 0] == 220).all()
    assert np.abs(result[alpha == 0].astype(int) - (30, 60, 90)).max() <= 1


def test_variations_are_stacks(run: Run, engine: StandIn) -> None:
    edit = laid(ready(), run, num_images=3, seed=20)
    assert [job.seeds for job in sorted(engine.jobs, key=lambda job: job.seeds)] == [(20,), (21,), (22,)]
    assert [stack.seeds for stack in edit.stacks] == [(20,), (21,), (22,)]
    assert not edit.grounds
    red = [int(edit.array(k)[0, 0, 0]) for k in range(3)]
    assert all(abs(value - wanted) < 12 for value, wanted in zip(red, (180, 179, 178), strict=True))
    alone = laid(ready(), run, seed=22)
    assert np.array_equal(alone.array(), edit.array(2))


def test_an_engine_that_batches_seeds_gets_one_job(engine: StandIn) -> None:
    painter = card("painter", prompt="required", limits=LIMITS, batch_seeds=True)
    with Run(workers=1, engines={"painter": (painter, engine)}) as run:
        laid(ready(), run, num_images=3)
    assert [job.seeds for job in engine.jobs] == [(0, 1, 2)]


def test_the_grain_of_the_photo(run: Run, engine: StandIn) -> None:
    rng = np.random.default_rng(0)
    photo = np.clip(rng.normal(128, 6, (240, 320, 3)), 0, 255).astype(np.uint8)
    alpha = np.zeros((240, 320), np.uint8)
    alpha[80:160, 100:220] = 255
    edit = laid(cut_out(photo, photo, alpha), run)
    ground = edit.array()[:60].astype(float)
    assert ground.std(axis=(0, 1)) == pytest.approx([6, 6, 6], rel=0.25)
    assert ground.mean(axis=(0, 1)) == pytest.approx([200, 40, 40], abs=1.5)
    flat = np.full_like(photo, 128)
    engine.jobs.clear()
    smooth = laid(cut_out(flat, flat, alpha), run)
    assert smooth.array()[:60].std() == pytest.approx(np.std([200, 40, 40]), abs=0.1), "none where it has none"


@settings(max_examples=25)
@given(seed=st.integers(0, 99), data=st.data())
def test_a_ground_is_the_same_however_it_is_read(seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    picture = rng.integers(0, 255, (24, 32, 3)).astype(np.uint8)
    noisy = np.clip(rng.normal(128, 8, (128, 128, 3)), 0, 255).astype(np.uint8)
    from toolkit.blend import GrainField

    grain = GrainField.between(np.full_like(noisy, 120), [noisy], seed)
    assert grain is not None
    frame = Box(-300, -20, -300 + 320, 220)
    ground = Painted(picture, (-300.0, -20.0), 10.0, frame, Edit.of(noisy).photo, grain)
    whole = ground.shown(frame)
    left, top = data.draw(st.integers(0, 300)), data.draw(st.integers(0, 220))
    width, height = data.draw(st.integers(1, 320 - left)), data.draw(st.integers(1, 240 - top))
    part = Box(left, top, left + width, top + height)
    read = ground.shown(part.shift(frame.left, frame.top))
    assert np.abs(read - whole[part.slices]).max() < 1e-3
    assert not np.array_equal(whole, np.rint(whole)), "what is between levels is kept for 16 bit"


def test_contact_shadows_are_left_to_the_engine(run: Run) -> None:
    painted = generate()(ready(), run)
    for shadow, laid_on in (("auto", 0), ("contact", 0), ("off", 0), ("keep", 1)):
        edit = Shadow(shadow=shadow)(painted)
        assert len(edit.shadows) == len(edit.steps[-1].figures["shadows"]) == laid_on
    for plan in (False, True):  # one sentence, and no other
        (note,) = Shadow()(generate()(ready(), run, plan=plan), run, plan=plan).steps[-1].notes
        assert note.startswith("the engine paints the shadow with the ground")
    shared = generate(share_background=True)(ready(), run)
    assert Shadow()(shared).shadows, "an engine that sees no product paints no shadow of it"
    assert Shadow()(Generate()(ready(), run)).shadows
    with pytest.raises(UsageError, match="put it before shadow"):
        generate()(Shadow()(ready()), run)
    assert Shadow()(laid(ready(), run)).shadows, "a ground that is laid already is of another backdrop"


@given(
    width=st.integers(1, 3000), height=st.integers(1, 3000), low=st.integers(1, 256), high=st.integers(256, 1536),
    step=st.sampled_from([1, 8, 16, 64]), x=st.integers(-50, 3050), y=st.integers(-50, 3050),
    scale=st.sampled_from([1.0, 0.37, 2.5]),
)  # fmt: skip
def test_sheets_and_tiles(
    width: int, height: int, low: int, high: int, step: int, x: int, y: int, scale: float
) -> None:
    limits = Limits(min_side=low, max_side=high, multiple_of=step, best_pixels=1 << 20)
    canvas = Shown.placed((-7.0, 3.0), scale, Size(width, height))
    for make in (grounds.at_once, grounds.for_any):
        sheet = make(canvas, limits)
        assert limits.accepts(sheet.size)
        assert sheet.size.area <= max(grounds.LARGEST, limits.smallest_side**2 * 4)
        assert sheet.plane(sheet.box).contains(canvas.box.grow(-1) if scale != 1 else canvas.box)
    full, size = grounds.in_full(canvas, limits)
    assert limits.accepts(size)
    assert (full.size.width >= width, full.size.height >= height) == (True, True)
    passes = grounds.tiled(full, size, (x, y))
    painted = np.zeros((full.size.height // 8 + 1, full.size.width // 8 + 1), np.int32)
    done: list[Box] = []
    for tiles in passes:
        for tile in tiles:
            assert tile.window.size == size
            assert tile.window.contains(tile.cell)
            assert full.box.contains(tile.window)
            if done:
                assert any(tile.window.touches(one) for one in done), "it goes on from what was painted"
            left, top, right, bottom = (-(-n // 8) for n in tile.cell)
            painted[top:bottom, left:right] += 1
            assert grounds.ramp(tile)[tile.cell.within(tile.window).slices].min() == 1
        done += [tile.cell for tile in tiles]
    assert sum(one.area for one in done) == full.size.area
    assert painted.max() == 1, "no pixel is painted twice"


def test_tiles_pass_into_each_other(run: Run, engine: StandIn) -> None:
    def shifted(job: FillJob, seed: int) -> np.ndarray:
        """A ground whose level is another one in each call, and that gives back what it knows as it paints."""
        shift = 4 * (int(job.name.split()[1]) % 3)
        known = np.clip(job.pixels.astype(int) + shift, 0, 255)
        return np.where((job.mask > 0)[..., None], 120 + shift, known).astype(np.uint8)

    engine.answer = shifted
    flat = np.full((400, 600, 3), 90, np.uint8)
    alpha = np.zeros((400, 600), np.uint8)
    alpha[190:210, 290:310] = 255
    edit = laid(cut_out(flat, flat, alpha), run, detail="full", num_images=2)
    assert len(edit.stacks) == 2
    windows = edit.steps[-2].figures["windows"]
    assert len(engine.jobs) == 2 * len(windows) == edit.steps[-2].figures["calls"]
    assert len(windows) > 10
    for result in (edit.array(0).astype(int), edit.array(1).astype(int)):
        result[185:215, 285:315] = result[180, 280]
        assert max(np.abs(np.diff(result, axis=axis)).max() for axis in (0, 1)) <= 2, "no seam"
    later = [job for job in engine.jobs if not job.name.startswith("window 1 ")]
    assert all(((job.mask == 0) & (job.blocked == 0)).any() for job in later)
    planned = generate(detail="full", num_images=2)(cut_out(flat, flat, alpha), run, plan=True).steps[-1].figures
    assert planned["windows"] == windows
    assert planned["calls"] == len(engine.jobs)


def test_a_dry_run_says_what_would_be_paid() -> None:
    painter = card("painter", prompt="required", limits=LIMITS, price=Price(0.035), pace=5.0, measured_on="a machine")
    with Run(workers=1, engines={"painter": (painter, StandIn())}) as run:
        edit = generate(num_images=4)(ready(), run, plan=True)
    figures = edit.steps[-1].figures
    assert (figures["calls"], figures["price_expected"], figures["measured_on"]) == (4, 0.14, "a machine")
    assert len(figures["windows"]) == 1
    assert figures["seconds_expected"] is not None
    assert not edit.grounds
    assert not edit.steps[-1].price


def test_a_shared_background_is_the_same_request_for_every_photo(run: Run, engine: StandIn) -> None:
    for photo in (ready(), ready(height=90, width=50, seed=4), ready(Canvas(size="300x200", product_size="30%"))):
        edit = laid(photo, run, share_background=True)
        assert len(edit.stacks) == 1
    assert len({job.key for job in engine.jobs}) == 1
    assert engine.jobs[0].size == Size(512, 512), "1024 where the engine takes it"
    assert (engine.jobs[0].mask == 255).all()
    planned = [generate(share_background=True)(one, run, plan=True) for one in (ready(), ready(height=90))]
    keys = {one.steps[-1].figures["shared"] for one in planned}
    assert len(keys) == 1


def test_what_does_not_go_together_is_named(run: Run, engine: StandIn) -> None:
    silent = card("silent", prompt="none")
    with Run(workers=1, engines={"silent": (silent, engine)}) as other:
        with pytest.raises(ParameterError, match=r"^silent follows no prompt, so it cannot paint a background; choose"):
            Generate(background_prompt="x", model="silent")(ready(), other)
    for values, sentence in [
        ({"background_prompt": "x", "background": "white"}, r"both say what lies behind; give one of them"),
        ({"background_prompt": "x", "share_background": True, "detail": "full"}, r"^share_background: one background"),
        ({"background_prompt": " "}, r"^background_prompt: is empty; say what an engine is to paint"),
        ({"num_images": 3}, r"^num_images: has a meaning only with a background_prompt"),
        ({"model": "painter"}, r"^model: has a meaning only with"),
        ({"background_prompt": "x", "model": "painter", "size": "100x100"}, r"^size 100x100: the engine takes sides"),
        ({"background_prompt": "x", "model": "painter", "steps": 3}, r"^steps: painter does not take it"),
    ]:
        for plan in (False, True):
            with pytest.raises(ParameterError, match=sentence):
                Generate(**values)(ready(), run, plan=plan)
    with pytest.raises(EngineError, match=r"^no free engine that follows a prompt can run here.*\$0\.035 an image"):
        Generate(background_prompt="x")(ready(), run)
    assert not engine.jobs
    again = Generate()(ready(), run)
    assert not again.grounds
    assert not again.steps[-1].engine


def test_nothing_is_paid_on_a_mask_that_is_likely_wrong(engine: StandIn) -> None:
    painter = card("painter", prompt="required", limits=LIMITS, price=Price(0.035), min_confidence=1.0)
    rng = np.random.default_rng(0)
    photo = rng.integers(90, 110, (120, 160, 3), np.uint8)
    photo[40:80, 50:110] = (200, 40, 40)
    with Run(workers=1, engines={"painter": (painter, engine)}) as run:
        found = Select(box="45,35,115,85")(Edit.of(photo), run)
        edit = cut_out(photo, photo, found.selected.array()).replace(steps=found.steps, selected=found.selected)  # type: ignore[union-attr]
        with pytest.raises(HeldBack, match=r"^held back: the mask's confidence is 0\.\d+, below the 1 "):
            generate()(edit, run)
        planned = generate()(edit, run, plan=True).steps[-1]
    assert not engine.jobs
    assert planned.figures["calls"] == 0
    assert planned.warnings[0].startswith("held back")


def test_a_variation_that_is_refused_leaves_the_others(engine: StandIn) -> None:
    from toolkit.engines import FillResult

    class Flagging(StandIn):
        def fill(self, jobs: Any, run: Any) -> Iterator[FillResult]:
            for result in super().fill(jobs, run):
                refused = result.job.seeds == (1,)
                yield FillResult(
                    result.job, (None,) if refused else result.images, refused="flagged" if refused else ""
                )

    painter = card("painter", prompt="required", limits=LIMITS)
    for detail in ("once", "full"):
        with Run(workers=1, engines={"painter": (painter, Flagging(engine.answer))}) as run:
            edit = laid(ready(height=150, width=300), run, num_images=3, detail=detail)
        assert [stack.seeds for stack in edit.stacks] == [(0,), (2,)]
        (warning,) = edit.steps[-2].warnings
        assert warning.startswith("seed 1: flagged; it counts as paid and was not used: try another seed or prompt; ")


def test_a_background_of_ones_own_in_a_recipe_is_said_not_to_be_used(run: Run) -> None:
    painted = after(generate()(ready(), run), Backdrop(background="white"))
    assert painted.steps[-1].warnings == ("the background was painted; 'white' was not used",)


def test_the_prompt_of_a_ground_is_enhanced_once_a_photo(run: Run, engine: StandIn) -> None:
    edit = laid(ready(), run, enhance="offline", num_images=2)
    step = edit.steps[-2]
    assert step.figures["enhance"]["given"] == "on oak"
    (sent,) = {job.prompt for job in engine.jobs}
    assert sent == step.figures["prompt"] == step.figures["enhance"]["prompt"]
    assert sent.startswith("on oak")
    assert sent != "on oak"
    planned = generate(enhance="offline")(ready(), run, plan=True).steps[-1].figures
    assert planned["enhancer"] == "offline"
    shared = laid(ready(), run, enhance="offline", share_background=True)
    assert engine.jobs[-1].prompt == "on oak"
    assert any("sent as given" in note for note in shared.steps[-2].notes)
