"""Laws and figures of blend: nothing changes that need not, and what is corrected comes out right."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import skimage.data
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from toolkit import blend
from toolkit.blend import grain
from toolkit.errors import InputError, MaskError, ParameterError

Pixels = NDArray[np.uint8]


def ellipse(height: int, width: int, share: float = 0.2, x: float = 0.5, y: float = 0.5) -> Pixels:
    hole = np.zeros((height, width), np.uint8)
    centre, axes = (int(x * width), int(y * height)), (int(share * width), int(0.8 * share * height))
    cv2.ellipse(hole, centre, axes, 15, 0, 360, 255, -1)
    return hole


def wavy(height: int = 300, width: int = 400, low: float = 40, high: float = 210) -> NDArray[np.float64]:
    y, x = np.mgrid[0:height, 0:width] / 60
    waves = np.stack([np.sin(x + y), np.cos(1.3 * x - y), np.sin(0.7 * x) * np.cos(y)], axis=2)
    return low + (waves + 1) / 2 * (high - low)


def grainy(seed: int = 0, **size: int) -> Pixels:
    random = np.random.default_rng(seed)
    levels = wavy(**size)
    return np.clip(np.rint(levels + 3 * random.standard_normal(levels.shape)), 0, 255).astype(np.uint8)


def error(found: NDArray[np.generic], truth: Pixels, hole: Pixels) -> float:
    """Largest error inside the hole of the composite blurred with sigma 16."""
    missed = (found.astype(np.float32) - truth) * (hole > 0)[:, :, None]
    return float(np.abs(cv2.GaussianBlur(missed, (0, 0), 16).reshape(missed.shape)[hole > 0]).max())


def rounded(levels: NDArray[np.generic]) -> Pixels:
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


PHOTOS: dict[str, Callable[[], Pixels]] = {
    "wavy": lambda: rounded(wavy()),
    "grainy": grainy,
    "coffee": skimage.data.coffee,
    "cat": skimage.data.cat,
    "camera": lambda: np.atleast_3d(skimage.data.camera()),
    "astronaut": skimage.data.astronaut,
}


# --- colour


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("kind", [np.uint8, np.float32])
def test_an_identity_engine_changes_nothing(name: str, kind: type) -> None:
    photo = PHOTOS[name]()
    hole = ellipse(*photo.shape[:2])
    fill = photo.astype(kind)
    fill[hole > 0] = 77  # what the engine drew is its own affair
    corrected, match = blend.match_colour(fill, photo, hole)
    assert np.array_equal(corrected, fill)
    assert corrected.dtype == np.float32
    assert match.max_shift == 0
    assert np.array_equal(blend.composite(photo, corrected, hole)[hole == 0], photo[hole == 0])


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("fault", ["offset", "drift", "gain"])
def test_known_faults_are_undone_within_one_level(name: str, fault: str) -> None:
    photo = np.clip(PHOTOS[name](), 12, 238)
    hole = ellipse(*photo.shape[:2])
    slope = np.linspace(-8, 8, photo.shape[1])[None, :, None]
    gains = np.array([0.95, 1, 1.05])[-photo.shape[2] :]
    fill = rounded({"offset": photo + 8.0, "drift": photo + slope, "gain": photo * gains}[fault])
    assert error(fill, photo, hole) > 1.5
    corrected, match = blend.match_colour(fill, photo, hole)
    assert error(corrected, photo, hole) < 1
    assert match.trusted > 0.8


@pytest.mark.parametrize("name", PHOTOS)
@pytest.mark.parametrize("fault", ["gamma", "waves"])
def test_tone_and_slow_waves_are_undone(name: str, fault: str) -> None:
    photo = np.clip(PHOTOS[name](), 12, 238)
    height, width = photo.shape[:2]
    hole = ellipse(height, width)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = 6 * np.sin(5 * x + 3 * y)[:, :, None]
    fill = rounded(255 * (photo / 255) ** 1.08 if fault == "gamma" else photo + waves)
    corrected, _ = blend.match_colour(fill, photo, hole)
    assert error(corrected, photo, hole) < min(1.5, error(fill, photo, hole) / 3)


@pytest.mark.parametrize("name", ["coffee", "astronaut", "bright"])
def test_highlights_are_not_darkened_by_a_shift(name: str) -> None:
    photo = rounded(wavy(low=120, high=290)) if name == "bright" else PHOTOS[name]()
    hole = ellipse(*photo.shape[:2])
    fill = rounded(photo + 8.0)
    assert np.any(fill[hole > 0] == 255)
    corrected, _ = blend.match_colour(fill, photo, hole)
    assert error(corrected, photo, hole) < 2


def test_gain_is_learnt_beyond_a_flat_ring() -> None:
    photo = rounded(wavy(600, 600))
    hole = ellipse(600, 600, share=0.1)
    photo[100:500, 100:500] = 230
    photo[hole > 0] = 60
    corrected, _ = blend.match_colour(rounded(photo * 0.95), photo, hole)
    assert error(corrected, photo, hole) < 1


def test_a_shadow_that_went_with_its_object_does_not_count() -> None:
    truth = grainy()
    hole = ellipse(*truth.shape[:2])
    photo = truth.copy()
    photo[170:215, 120:330] //= 2
    corrected, match = blend.match_colour(rounded(truth + 6.0), photo, hole)
    assert error(corrected, truth, hole) < 1.5
    assert match.trusted < 0.95


@pytest.mark.parametrize("name", ["coffee", "cat"])
def test_texture_out_of_place_by_a_pixel_does_not_throw_it_off(name: str) -> None:
    photo = np.clip(PHOTOS[name](), 12, 238)
    hole = ellipse(*photo.shape[:2])
    fill = rounded(np.roll(photo, 1, axis=1) + 8.0)
    corrected, _ = blend.match_colour(fill, photo, hole)
    assert error(corrected, np.roll(photo, 1, axis=1), hole) < 1.5


def test_the_original_inside_the_hole_and_unknown_pixels_are_not_read() -> None:
    photo, hole = grainy(), ellipse(300, 400)
    fill = rounded(photo + 5.0)
    known = np.ones(hole.shape, np.bool_)
    known[:, :150] = False
    expected, _ = blend.match_colour(fill, photo, hole, known)
    other = photo.copy()
    other[hole > 0] = 0
    other[:, :150] = 255
    assert np.array_equal(blend.match_colour(fill, other, hole, known)[0], expected)


def test_without_a_ring_nothing_is_corrected() -> None:
    photo, full = grainy(), np.full((300, 400), 255, np.uint8)
    for hole, known in ((full, None), (ellipse(300, 400), np.zeros((300, 400), np.bool_)), (full * 0, None)):
        corrected, match = blend.match_colour(rounded(photo + 9.0), photo, hole, known)
        assert np.array_equal(corrected, rounded(photo + 9.0))
        assert match.ring_pixels == 0 or not hole.any()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70), st.integers(0, 2**32 - 1), st.sampled_from([1, 3]), st.booleans())
def test_any_size_and_hole_gives_finite_levels(height: int, width: int, seed: int, channels: int, soft: bool) -> None:
    random = np.random.default_rng(seed)
    photo = random.integers(0, 256, (height, width, channels), np.uint8)
    fill = rounded(photo + random.integers(-20, 20)) if soft else random.integers(0, 256, photo.shape, np.uint8)
    hole = (random.random((height, width)) < random.random()).astype(np.uint8) * 255
    corrected, _ = blend.match_colour(fill, photo, hole)
    assert corrected.shape == photo.shape
    assert np.isfinite(corrected).all()
    assert corrected.min() >= 0
    assert corrected.max() <= 255
    assert np.isfinite(blend.match_grain(corrected, photo, hole)[0]).all()
    assert np.isfinite(blend.seam_score(photo, hole))


def test_the_same_shift_on_both_sides_commutes() -> None:
    photo, hole = np.clip(grainy(), 30, 200), ellipse(300, 400)
    fill = rounded(photo * 0.97 + 6)
    plain = blend.match_colour(fill, photo, hole)[0]
    raised = blend.match_colour(fill + np.uint8(20), photo + np.uint8(20), hole)[0]
    assert np.abs(raised - plain - 20)[hole > 0].max() < 0.25


# --- grain


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("softness", [0.0, 0.6])
def test_grain_reaches_the_ring(seed: int, softness: float) -> None:
    random = np.random.default_rng(seed)
    mixing = np.linalg.cholesky(np.array([[9, 3, 0], [3, 6, 1], [0, 1, 12.0]]))
    noise = random.standard_normal((400, 500, 3)) @ mixing.T
    if softness:
        noise = cv2.GaussianBlur(noise, (0, 0), softness) * 1.5
    smooth = wavy(400, 500, 60, 190)
    photo, hole = rounded(smooth + noise), ellipse(400, 500, 0.3)
    filled, match = blend.match_grain(rounded(smooth), photo, hole, seed=seed)
    added = (filled - rounded(smooth))[hole > 0]
    assert np.abs(added.std(axis=0) / noise.std(axis=(0, 1)) - 1).max() < 0.15
    assert np.abs(added.mean(axis=0)).max() < 0.1
    assert np.abs(np.corrcoef(added.T) - np.corrcoef(noise.reshape(-1, 3).T)).max() < 0.1
    assert np.allclose(match.added, added.std(axis=0), rtol=0.1)
    assert np.array_equal(filled[hole == 0], rounded(smooth)[hole == 0])

    def neighbour(levels: NDArray[np.generic]) -> float:
        part = levels[120:280, 180:320, 0].astype(np.float64)
        return float(np.corrcoef(part[:, 1:].ravel(), part[:, :-1].ravel())[0, 1])

    assert abs(neighbour(filled - rounded(smooth)) - neighbour(noise)) < 0.12


@pytest.mark.parametrize("name", PHOTOS)
def test_grain_is_not_added_to_the_photo_itself(name: str) -> None:
    photo = PHOTOS[name]()
    for share in (0.1, 0.25):
        hole = ellipse(*photo.shape[:2], share)
        filled, _ = blend.match_grain(photo, photo, hole)
        assert np.array_equal(filled, photo)


def test_grain_is_never_added_to_a_grainier_fill() -> None:
    smooth, hole = wavy(), ellipse(300, 400)
    fill = rounded(smooth + 6 * np.random.default_rng(5).standard_normal(smooth.shape))
    filled, match = blend.match_grain(fill, grainy(), hole)
    assert np.array_equal(filled, fill)
    assert match.added == (0.0, 0.0, 0.0)
    assert min(match.fill) > max(match.ring)


def test_grain_follows_brightness() -> None:
    random = np.random.default_rng(2)
    smooth = np.repeat(np.repeat(np.linspace(40, 220, 500)[None, :, None], 400, 0), 3, 2)
    photo = rounded(smooth + random.standard_normal(smooth.shape) * np.linspace(1, 5, 500)[None, :, None])
    hole = ellipse(400, 500, 0.3)
    added = blend.match_grain(rounded(smooth), photo, hole)[0] - rounded(smooth)
    dark, bright = added[150:250, 130:180].std(), added[150:250, 320:370].std()
    assert 1.4 < bright / dark < 2.6  # 3.8 / 2.2 = 1.7


def test_brightness_that_is_flat_nowhere_is_passed_over() -> None:
    """A bright half whose blocks are either fine or coarse: none is among the flattest in both bands."""
    random, (height, width) = np.random.default_rng(3), (320, 320)
    rows, columns = np.mgrid[:height, :width]
    photo = 60 + random.standard_normal((height, width))
    fine, coarse = 8 * ((rows + columns) % 2) - 4, 6 * np.sin(columns * np.pi / 3) * np.sin(rows * np.pi / 3)
    textured = np.where((rows // 16 + columns // 16) % 2, fine, coarse)
    photo = np.where(rows >= height // 2, 180 + textured, photo)
    photo = rounded(np.repeat(photo[:, :, None], 3, 2))
    found = grain._Grain.of(photo, np.ones((height, width), np.uint8), strict=False)
    assert found is not None
    assert np.isfinite(found.levels).all()
    assert np.isfinite(found.shape).all()
    filled, match = blend.match_grain(photo, photo, ellipse(height, width, 0.4))
    assert np.isfinite(filled).all()
    assert np.isfinite([*match.ring, *match.fill, *match.added]).all()


def test_grain_is_fixed_by_its_seed() -> None:
    photo, hole, fill = grainy(), ellipse(300, 400), rounded(wavy())
    first, again, other = (blend.match_grain(fill, photo, hole, seed=s)[0] for s in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_white_noise_is_the_same_everywhere() -> None:
    white = grain._white((4, 5), 7)
    assert white[0, :, 0].tolist() == WHITE_7
    large = grain._white((400, 400), 1)
    assert abs(large.mean()) < 2
    assert large.std() / grain._WHITE_DEVIATION == pytest.approx(1, abs=0.01)


WHITE_7: list[float] = [-160.0, 192.0, -207.0, 17.0, -33.0]


# --- composite


@settings(max_examples=80, deadline=None)
@given(st.data(), st.sampled_from([np.uint8, np.uint16]), st.booleans())
def test_composite_is_exact_at_both_ends_and_nearest_between(data: st.DataObject, kind: type, real: bool) -> None:
    shape = data.draw(st.tuples(st.integers(1, 6), st.integers(1, 6), st.integers(1, 4)))
    original = data.draw(arrays.arrays(kind, shape))
    source = data.draw(arrays.arrays(kind, shape))
    weight = data.draw(arrays.arrays(np.uint8, shape[:2]))
    laid = blend.composite(original, source.astype(np.float32) if real else source, weight)
    share = weight[:, :, None].astype(np.int64)
    exact = original * (255 - share) + source * share
    assert laid.dtype == kind
    assert np.array_equal(laid, (exact + 127) // 255)
    assert np.array_equal(laid[weight == 0], original[weight == 0])
    assert np.array_equal(laid[weight == 255], source[weight == 255])


@given(st.integers(0, 255), st.integers(0, 255))
def test_composite_is_monotone_in_weight_and_source(low: int, high: int) -> None:
    weight = np.arange(256, dtype=np.uint8)[None]
    a, b = (np.full((1, 256, 1), v, np.uint8) for v in (low, high))
    steps = np.diff(blend.composite(a, b, weight)[0, :, 0].astype(int))
    assert np.all(steps >= 0) if high >= low else np.all(steps <= 0)


def test_composite_has_no_bias() -> None:
    random = np.random.default_rng(0)
    original, source = (random.integers(0, 256, (300, 300, 3)).astype(np.uint8) for _ in range(2))
    weight = random.integers(0, 256, (300, 300)).astype(np.uint8)
    share = weight[:, :, None] / 255
    exact = original * (1 - share) + source * share
    assert abs((blend.composite(original, source, weight) - exact).mean()) < 0.005
    halves = np.full((300, 300, 3), 100.5, np.float32) + random.integers(0, 2, (300, 300, 3), np.uint8)
    assert abs((blend.composite(original, halves, np.full((300, 300), 255, np.uint8)) - halves).mean()) < 0.01


def test_composite_clips_and_leaves_its_arguments() -> None:
    original, weight = np.full((2, 2, 3), 9, np.uint8), np.full((2, 2), 255, np.uint8)
    source = np.array([-5, 300, 7.4], np.float32) * np.ones((2, 2, 1), np.float32)
    assert blend.composite(original, source, weight)[0, 0].tolist() == [0, 255, 7]
    assert source[0, 0, 1] == 300
    assert original.max() == 9


# --- seam


def test_truth_scores_one_in_the_mean_and_offsets_raise_it() -> None:
    truth: list[float] = []
    raised: list[list[float]] = []
    for name in ("coffee", "cat", "astronaut", "camera"):
        photo = PHOTOS[name]()
        for x in (0.35, 0.5, 0.65):
            for share in (0.1, 0.15, 0.2):
                hole = ellipse(*photo.shape[:2], share, x)
                scores = [blend.seam_score(rounded(photo + k * (hole > 0)[:, :, None]), hole) for k in (0.0, 6, 12, 24)]
                truth.append(scores[0])
                raised.append(scores)
    assert 0.75 < np.mean(truth) < 1.25
    assert np.all(np.diff(np.mean(raised, axis=0)) > 0.3)


def test_a_flat_picture_has_no_seam_and_a_step_in_it_has() -> None:
    flat, hole = np.full((200, 200, 3), 120, np.uint8), ellipse(200, 200)
    assert blend.seam_score(flat, hole) <= 1
    assert blend.seam_score(flat + (hole > 0)[:, :, None].astype(np.uint8) * 6, hole) > 2


@pytest.mark.parametrize("kind", ["none", "full", "dot", "line", "half", "noise", "frame"])
def test_odd_holes_give_a_finite_score(kind: str) -> None:
    hole = np.zeros((120, 160), np.uint8)
    match kind:
        case "full":
            hole[:] = 255
        case "dot":
            hole[60, 80] = 255
        case "line":
            hole[60:63] = 255
        case "half":
            hole[:, 80:] = 255
        case "noise":
            hole[np.random.default_rng(0).random(hole.shape) < 0.5] = 255
        case "frame":
            hole[:] = 255
            hole[5:-5, 5:-5] = 0
    photo = grainy(height=120, width=160)
    score = blend.seam_score(photo, hole)
    assert np.isfinite(score)
    assert score >= 0
    if kind in ("none", "full"):
        assert score == 1
    if kind in ("line", "half"):
        assert blend.seam_score(rounded(photo + 20.0 * (hole > 0)[:, :, None]), hole) > score


def test_depths_score_alike() -> None:
    photo, hole = skimage.data.coffee(), ellipse(400, 600)
    scores = [blend.seam_score(p, hole) for p in (photo, photo.astype(np.uint16) * 257, photo.astype(np.float32))]
    assert np.ptp(scores) < 1e-3


# --- the door


def test_wrong_arrays_are_named() -> None:
    photo, hole = np.zeros((4, 5, 3), np.uint8), np.zeros((4, 5), np.uint8)
    for broken in (photo[:, :, :2], photo.astype(np.float64), photo[0]):
        with pytest.raises(InputError, match="expected"):
            blend.match_colour(broken, photo, hole)
    with pytest.raises(InputError, match="equal"):
        blend.match_grain(photo, photo[:3], hole)
    with pytest.raises(MaskError, match="hole"):
        blend.match_colour(photo, photo, hole[:3])
    with pytest.raises(MaskError, match="known"):
        blend.match_colour(photo, photo, hole, hole)
    with pytest.raises(ParameterError, match="seed"):
        blend.match_grain(photo, photo, hole, seed=-1)
    with pytest.raises(InputError, match="source"):
        blend.composite(photo, photo.astype(np.uint16), hole)
    with pytest.raises(InputError, match="original"):
        blend.composite(photo.astype(np.float32), photo, hole)
    with pytest.raises(MaskError, match="weight"):
        blend.composite(photo, photo, hole[:2])
    with pytest.raises(MaskError, match="hole"):
        blend.seam_score(photo, hole.astype(np.float32))


def test_arguments_stay_as_they_were() -> None:
    photo, hole, fill = grainy(), ellipse(300, 400), rounded(wavy() + 5)
    copies = [a.copy() for a in (photo, hole, fill)]
    for array in (photo, hole, fill):
        array.setflags(write=False)
    corrected, _ = blend.match_colour(fill, photo, hole)
    corrected.setflags(write=False)
    filled, _ = blend.match_grain(corrected, photo, hole)
    blend.seam_score(blend.composite(photo, filled, hole), hole)
    assert all(np.array_equal(a, b) for a, b in zip((photo, hole, fill), copies, strict=True))
