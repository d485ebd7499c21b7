"""Soft edges: the engines, foreground colours, the stage, and pictures whose alpha and colours are known."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from toolkit import blend, cards, engines
from toolkit.edit import Cutout, Edit
from toolkit.engines.matte import closed_form, guided
from toolkit.errors import EngineError, InputError, MaskError, ParameterError, UsageError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.schema import build
from toolkit.stages import matte as stage_file
from toolkit.stages.matte import Matte, trimap_of
from toolkit.stages.select import Select

Array = NDArray[Any]


class Inline(Run):
    """Computes in this process: the worker processes have tests of their own."""

    def compute(self, function: Callable[..., Any], *arguments: Any, name: str = "") -> Any:
        return function(*arguments)


@pytest.fixture
def run() -> Iterator[Run]:
    with Inline(workers=1) as one:
        yield one


def scene(size: int = 320, softness: float = 3.0, seed: int = 0) -> tuple[Array, Array, Array]:
    """A red blob with shading before a green ground with shading: picture uint8, alpha 0..1, the blob's colours."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:size, 0:size] / size
    waves = cv2.GaussianBlur(random.standard_normal((size, size)), (0, 0), size / 24)
    away = np.hypot(x - 0.5, y - 0.5) + 0.04 * waves / waves.std()
    alpha = np.clip(0.5 + (0.28 - away) * size / (2 * softness), 0, 1)
    front = np.dstack([200 + 40 * x, 60 + 30 * y, 50 + 20 * x])
    back = np.dstack([40 + 40 * y, 140 + 40 * x, 60 + 30 * y])
    grain = random.normal(0, 1, front.shape)
    pixels = front * alpha[..., None] + back * (1 - alpha[..., None]) + grain
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8), alpha, front


def hard(alpha: Array) -> Array:
    return np.where(alpha >= 0.5, 255, 0).astype(np.uint8)


def selected(source: Any, mask: Array) -> Edit:
    edit = Edit.of(source)
    return edit.replace(selected=Mask.from_array(mask))


def cutout_of(edit: Edit) -> Cutout:
    (cutout,) = edit.cutouts
    return cutout


# -- engines ------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 99), st.sampled_from([1, 5]))
def test_what_the_trimap_is_sure_of_is_kept(height: int, width: int, seed: int, blocks: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
    coarse = random.choice(np.array([0, 128, 255], np.uint8), (-(-height // blocks), -(-width // blocks)))
    trimap = np.repeat(np.repeat(coarse, blocks, 0), blocks, 1)[:height, :width]
    before = pixels.copy(), trimap.copy()
    alpha = guided.alpha_of(pixels, trimap)
    assert alpha.shape == trimap.shape
    assert alpha.dtype == np.uint8
    assert (alpha[trimap == 255] == 255).all()
    assert (alpha[trimap == 0] == 0).all()
    assert np.array_equal(alpha, guided.alpha_of(pixels, trimap)), "the same again"
    assert np.array_equal(pixels, before[0])
    assert np.array_equal(trimap, before[1])


@pytest.mark.parametrize("softness", [1.0, 3.0, 8.0])
def test_a_known_alpha_is_recovered(softness: float) -> None:
    pixels, alpha, _ = scene(softness=softness)
    trimap = trimap_of(hard(alpha), 14)
    found = guided.alpha_of(pixels, trimap) / 255
    near = (alpha > 0.01) & (alpha < 0.99)
    assert np.abs(found - alpha)[near].mean() < 0.05
    assert np.abs(found - alpha)[~near].mean() < 0.01


def test_a_wrong_outline_is_moved_to_the_edge() -> None:
    pixels, alpha, _ = scene()
    larger = cv2.dilate(hard(alpha), np.ones((9, 9), np.uint8))
    found = guided.alpha_of(pixels, trimap_of(larger, 14)) / 255
    assert np.abs(found - alpha).mean() < 0.25 * np.abs(larger / 255 - alpha).mean()


def test_flat_and_grey_pictures_have_an_edge_too() -> None:
    trimap = trimap_of(hard(scene(64)[1]), 6)
    for pixels in (np.full((64, 64, 3), 255, np.uint8), np.repeat(scene(64)[0][..., :1], 3, axis=2)):
        alpha = guided.alpha_of(pixels, trimap)
        assert alpha[trimap == 128].min() < 100
        assert alpha[trimap == 128].max() > 155


def test_closed_form_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    card = cards.find("matte", "closed-form")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(EngineError) as caught:
        engines.resolve("matte", "closed-form")
    assert str(caught.value) == (
        'closed-form cannot run: PyMatting is not installed: pip install "inpaint-toolkit[matting]"'
    )
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    assert closed_form.missing(card) == ""
    assert engines.resolve("matte").name == "guided"


def test_closed_form_with_one_side_only_needs_no_library() -> None:
    pixels = scene(24)[0]
    for level in (0, 255):
        trimap = np.full((24, 24), 128, np.uint8)
        assert np.array_equal(closed_form.alpha_of(pixels, np.full_like(trimap, level)), np.full_like(trimap, level))
        trimap[:4] = level
        assert (closed_form.alpha_of(pixels, trimap) == level).all()


def test_closed_form_recovers_a_known_alpha() -> None:
    pixels, alpha, _ = scene(120)
    trimap = trimap_of(hard(alpha), 8)
    found = closed_form.alpha_of(pixels, trimap)
    assert np.abs(found / 255 - alpha)[trimap == 128].mean() < 0.05
    assert np.array_equal(found[trimap != 128], trimap[trimap != 128])


# -- trimaps --------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.integers(6, 30), st.integers(2, 20), st.booleans())
def test_what_is_thinner_than_the_band_is_sure_in_its_middle(width: int, radius: int, gap: bool) -> None:
    mask = np.zeros((120, 120), np.uint8)
    mask[:, 45 : 45 + width] = 255
    trimap = trimap_of(255 - mask if gap else mask, radius)
    sure, other = (0, 255) if gap else (255, 0)
    inside = trimap[:, 45 : 45 + width]
    assert (inside == sure).any(axis=1).all()
    assert not (inside == other).any()
    assert not (trimap[mask == 0] == sure).any()


# -- colours --------------------------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 3]), st.sampled_from(["uint8", "uint16"]),
    st.integers(0, 99),
)  # fmt: skip
def test_opaque_pixels_keep_their_colours(height: int, width: int, channels: int, kind: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    pixels = random.integers(0, np.iinfo(kind).max + 1, (height, width, channels)).astype(kind)
    alpha = random.choice(np.array([0, 90, 200, 255], np.uint8), (height, width))
    before = pixels.copy()
    found = blend.foreground(pixels, alpha)
    assert (found.shape, found.dtype) == (pixels.shape, pixels.dtype)
    assert np.array_equal(found[alpha == 255], pixels[alpha == 255])
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("kind", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_known_colours_are_recovered(kind: str, channels: int) -> None:
    pixels, alpha, front = scene(softness=6)
    scale = np.iinfo(kind).max // 255
    found = blend.foreground((pixels[..., :channels].astype(kind) * scale), np.rint(alpha * 255).astype(np.uint8))
    soft = (alpha > 0.1) & (alpha < 0.99)
    away = np.abs(found / scale - front[..., :channels])[soft]
    untouched = np.abs(pixels[..., :channels] - front[..., :channels])[soft]
    assert away.mean() < 0.15 * untouched.mean()
    assert away.mean() < 4


def test_wrong_arrays_are_named() -> None:
    with pytest.raises(InputError, match=r"^pixels: expected \(h, w, 1\) or \(h, w, 3\) uint8 or uint16, got \(4, 4\)"):
        blend.foreground(np.zeros((4, 4), np.uint8), np.zeros((4, 4), np.uint8))
    with pytest.raises(MaskError, match=r"^alpha: expected \(4, 4\) uint8, got \(4, 5\) uint8$"):
        blend.foreground(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8))


# -- the stage ------------------------------------------------------------------------------------------------------


def kinds() -> dict[str, Callable[[Array], Array]]:
    return {
        "rgb": lambda pixels: pixels,
        "grey": lambda pixels: pixels[..., 0],
        "grey-16": lambda pixels: pixels[..., 0].astype(np.uint16) * 257,
        "rgb-16": lambda pixels: pixels.astype(np.uint16) * 257,
        "rgba": lambda pixels: np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)]),
    }


@pytest.mark.parametrize("kind", kinds())
def test_a_cutout_lies_on_a_new_ground_without_a_halo(kind: str, run: Run) -> None:
    pixels, alpha, front = scene()
    source = kinds()[kind](pixels)
    edit = Matte(band=12)(selected(source, hard(alpha)), run)
    cutout, photo = cutout_of(edit), edit.pixels(edit.box)
    matte, laid = cutout.matte.array(), cutout.over(edit.box, edit.pixels(edit.box))
    assert cutout.box == cutout.matte.box
    assert (laid.shape, laid.dtype) == (photo.shape, photo.dtype)
    assert np.array_equal(laid[matte == 255], photo[matte == 255])
    for place, colours in cutout.edge:
        assert colours.shape == (place.height, place.width, edit.photo.channels)
        assert not colours.flags.writeable
    channels = edit.photo.channels
    scale = np.iinfo(photo.dtype).max / 255

    def error(colours: Array, share: Array) -> float:
        true = front[..., :channels] * alpha[..., None] + 255 * (1 - alpha[..., None])
        return float(np.abs(colours * share[..., None] + 255 * (1 - share[..., None]) - true)[near].mean())

    near = (alpha > 0) & (alpha < 1)
    feathered = cv2.GaussianBlur(hard(alpha), (0, 0), 1.5) / 255
    assert error(laid[..., :channels] / scale, matte / 255) < 0.6 * error(photo[..., :channels] / scale, feathered)
    assert edit.steps[-1].engine == "guided"


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(0, 99), st.sampled_from([0.0, 1.0, 4.0, 30.0, "2%"]))
def test_the_matte_is_sure_beyond_the_band(height: int, width: int, seed: int, band: float | str) -> None:
    random = np.random.default_rng(seed)
    mask = cv2.resize(random.integers(0, 2, (3, 3)).astype(np.uint8) * 255, (width, height))
    mask = np.where(mask > 127, 255, 0).astype(np.uint8)
    edit = selected(random.integers(0, 256, (height, width, 3)).astype(np.uint8), mask)
    with Inline(workers=1) as run:
        cutout = cutout_of(Matte(band=band)(edit, run))
        again = cutout_of(Matte(band=band)(edit, run))
    assert edit.selected is not None
    radius = max(4.0, 0.02 * np.hypot(height, width)) if isinstance(band, str) else band
    radius = 1.05 * radius + 1  # distances are measured to 5 %
    assert edit.selected.erode(radius).subtract(cutout.matte).is_empty
    assert cutout.matte.threshold(1).subtract(edit.selected.dilate(radius)).is_empty
    assert cutout.matte == again.matte
    assert all(np.array_equal(one[1], two[1]) for one, two in zip(cutout.edge, again.edge, strict=True))


def test_the_band_is_as_wide_as_colours_mix(run: Run) -> None:
    bands = []
    for softness in (1, 8, 14):
        pixels, alpha, _ = scene(640, softness)
        bands.append(Matte()(selected(pixels, hard(alpha)), run).steps[-1].figures["band"])
    assert 3 <= bands[0] < 5
    assert 6 < bands[1] < 16
    assert bands[1] < bands[2] < 24
    flat = selected(np.full((640, 640, 3), 255, np.uint8), hard(scene(640)[1]))
    assert Matte()(flat, run).steps[-1].figures["band"] == pytest.approx(10, abs=2), "a share where nothing tells"


def test_wholly_selected_and_tiny_selections(run: Run) -> None:
    pixels = scene(64)[0]
    whole = cutout_of(Matte()(selected(pixels, np.full((64, 64), 255, np.uint8)), run))
    assert whole.matte.is_full
    assert whole.edge == ()
    for width in (1, 2, 5):
        mask = np.zeros((64, 64), np.uint8)
        mask[30 : 30 + width, 5:60] = 255
        matte = cutout_of(Matte()(selected(pixels, mask), run)).matte.array()
        assert (matte.max(axis=0)[5:60] >= 128).all(), "thin parts do not vanish"


def test_a_subject_at_the_border_is_whole_there(run: Run) -> None:
    pixels, alpha, _ = scene()
    edit = selected(pixels[160:, :200].copy(), hard(alpha)[160:, :200])
    assert edit.selected is not None
    matte = cutout_of(Matte(band=10)(edit, run)).matte
    inner = edit.selected.erode(11).array()
    assert inner[0].any(), "the subject touches the border"
    assert (matte.array()[inner > 0] == 255).all()


def test_what_is_transparent_is_no_subject(run: Run) -> None:
    pixels, alpha, _ = scene()
    own = np.full(alpha.shape, 255, np.uint8)
    own[:, 160:] = 0
    own[:, 150:160] = 128
    matte = cutout_of(Matte(band=40)(selected(np.dstack([pixels, own]), hard(alpha)), run)).matte.array()
    soft = (matte > 0) & (matte < 255)
    assert not soft[own == 0].any()
    assert matte[(own == 128) & soft].max() <= 128


def test_cells_and_the_whole_agree(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels, alpha, _ = scene(700, softness=4)
    edit = selected(pixels, hard(alpha))
    monkeypatch.setattr(stage_file, "LEAST", 2048)
    whole = cutout_of(Matte(band=12)(edit, run))
    monkeypatch.setattr(stage_file, "LEAST", 128)
    parts = cutout_of(Matte(band=12)(edit, run))
    away = np.abs(whole.matte.array().astype(int) - parts.matte.array())
    soft = (alpha > 0) & (alpha < 1)
    assert away[soft].mean() < 1
    assert away.max() < 40
    laid = [one.over(edit.box, pixels).astype(int) for one in (whole, parts)]
    visible = (alpha > 0.2) & (alpha < 1)
    assert np.abs(laid[0] - laid[1])[visible].mean() < 3


def test_the_cost_follows_the_outline(run: Run) -> None:
    pixels = np.zeros((1500, 2000, 3), np.uint8)
    mask = np.zeros((1500, 2000), np.uint8)
    mask[700:760, 900:980] = 255
    edit = selected(pixels, mask)
    read: list[int] = []

    class Watched:
        def matte(self, pixels: Array, trimap: Array, run: Any) -> Array:
            read.append(trimap.size)
            return guided.alpha_of(pixels, trimap)

    card = cards.find("matte", "guided")
    with Inline(workers=1, engines={"guided": (card, Watched())}) as watched:
        done = Matte(matte="guided")(edit, watched)
    assert 0 < sum(read) < 500 * 500
    assert sum(colours.size for _, colours in cutout_of(done).edge) < 3 * 300 * 300


def test_the_engine_and_the_band_can_be_told() -> None:
    pixels, alpha, _ = scene(64)
    edit = selected(pixels, hard(alpha))
    with pytest.raises(ParameterError, match=r"band: expected pixels"):
        build(Matte, {"band": "wide"}, "matte")
    with pytest.raises(UsageError, match=r"^no matte model 'guide'; did you mean 'guided'\?$"):
        Matte(matte="guide")(edit)
    with pytest.raises(UsageError, match=r"^matte: needs a selection"):
        Matte()(Edit.of(pixels))
    options = Recipe([Select(), Matte()]).options()
    assert "matte" in options
    assert "band" not in options


def test_the_worker_gives_the_same_bytes() -> None:
    pixels, alpha, _ = scene(96)
    edit = selected(pixels, hard(alpha))
    with Run(workers=1) as run, Inline(workers=1) as inline:
        one, two = cutout_of(Matte()(edit, run)), cutout_of(Matte()(edit, inline))
    assert one.matte == two.matte
    assert one.box == Box(*two.box)
