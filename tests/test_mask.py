"""Laws of Mask, against full-frame references in float64."""

from __future__ import annotations

import math
import pickle
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage

from toolkit import morphology
from toolkit.errors import MaskError, ParameterError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.tiling import windows

EIGHT = np.ones((3, 3))
laws = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def arrays(draw: st.DrawFn, soft: bool = False, most: int = 220) -> np.ndarray:
    """Frames from 1x1 up with boxes, specks and noise in them, or the inverse of that."""
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = np.zeros((height, width), np.uint8)
    for _ in range(draw(st.integers(0, 6))):
        x, y = int(generator.integers(width)), int(generator.integers(height))
        w, h = generator.integers(1, draw(st.sampled_from([2, 12, 90])), 2)
        value = int(generator.integers(1, 256)) if soft else 255
        array[y : y + h, x : x + w] = value
    if draw(st.booleans()):
        array[generator.random(array.shape) < draw(st.sampled_from([0.0005, 0.01, 0.5]))] = 255
    if draw(st.booleans()):
        array = 255 - array
    return array


def placed(array: np.ndarray) -> Mask:
    """In a frame that does not begin at (0, 0)."""
    frame = Box(-9, 4, array.shape[1] - 9, array.shape[0] + 4)
    return Mask.from_array(array, frame, (-9, 4))


def apart(array: np.ndarray) -> np.ndarray:
    """Exact distance to the nearest non-zero pixel."""
    return ndimage.distance_transform_edt(array == 0) if array.any() else np.full(array.shape, np.inf)


def blurred(array: np.ndarray, radius: float) -> np.ndarray:
    offsets = np.arange(-math.floor(radius), math.floor(radius) + 1)
    kernel = np.exp(-0.5 * (offsets / (radius / 3)) ** 2)
    kernel /= kernel.sum()
    once = ndimage.correlate1d(array.astype(np.float64), kernel, axis=0, mode="nearest")
    return ndimage.correlate1d(once, kernel, axis=1, mode="nearest")


RADII = st.sampled_from([0.5, 1, 1.4, math.sqrt(2), math.sqrt(3), 2, math.sqrt(5), 5, 7.3, 20, 33.3, 80])


# -- form ---------------------------------------------------------------------------------------------------------


@laws
@given(arrays(soft=True))
def test_an_array_comes_back(array: np.ndarray) -> None:
    mask = placed(array)
    np.testing.assert_array_equal(mask.array(), array)
    assert mask.area == np.count_nonzero(array)
    assert mask.is_hard == bool(np.isin(array, (0, 255)).all())
    assert mask.is_empty == (not array.any())
    assert mask.is_full == bool((array == 255).all())
    y, x = np.nonzero(array)
    if len(y):
        assert mask.box.within(mask.frame) == Box(int(x.min()), int(y.min()), int(x.max()) + 1, int(y.max()) + 1)
    else:
        assert mask.box.is_empty


@laws
@given(arrays(soft=True), st.integers(-20, 240), st.integers(-20, 240), st.integers(0, 90), st.integers(0, 90))
def test_a_window_is_the_array_cut_out_and_zero_beyond_the_frame(
    array: np.ndarray, x: int, y: int, width: int, height: int
) -> None:
    mask = placed(array)
    beyond = np.pad(array, 350)
    box = Box(x, y, x + width, y + height)
    np.testing.assert_array_equal(mask.array(box), beyond[box.shift(9 + 350, -4 + 350).slices])


@laws
@given(arrays(soft=True), st.integers(1, 97), st.integers(1, 97), st.sampled_from([0, 255]))
def test_equal_content_is_an_equal_mask_whatever_the_pieces(
    array: np.ndarray, width: int, height: int, outside: int
) -> None:
    mask = placed(array)
    pieces = []
    for top in range(0, array.shape[0], height):
        for left in range(0, array.shape[1], width):
            part = array[top : top + height, left : left + width]
            if (part != outside).any():
                pieces.append((Box(left, top, left + part.shape[1], top + part.shape[0]).shift(-9, 4), part))
    other = Mask(mask.frame, tuple(pieces[::-1]), outside)
    assert other == mask
    assert hash(other) == hash(mask)
    assert other.digest == mask.digest


@laws
@given(arrays(soft=True), st.integers(0, 10**6))
def test_other_content_is_another_mask(array: np.ndarray, place: int) -> None:
    changed = array.copy()
    changed.flat[place % array.size] ^= 255
    assert placed(changed) != placed(array)
    assert placed(changed).digest != placed(array).digest
    assert placed(array) != placed(array).shift(1, 0)
    assert placed(array) != "mask"


@laws
@given(arrays(soft=True))
def test_tiles_are_disjoint_sorted_trimmed_and_read_only(array: np.ndarray) -> None:
    mask = placed(array)
    boxes = [box for box, _ in mask.tiles]
    assert boxes == sorted(boxes, key=lambda box: (box.top, box.left))
    for index, (box, values) in enumerate(mask.tiles):
        assert mask.frame.contains(box)
        assert not any(box.touches(other) for other in boxes[index + 1 :])
        assert values.dtype == np.uint8
        assert values.shape == (box.height, box.width)
        assert not values.flags.writeable
        for edge in (values[0], values[-1], values[:, 0], values[:, -1]):
            assert (edge != mask.outside).any()


def test_far_things_are_tiles_of_their_own() -> None:
    frame = Box(0, 0, 6000, 4000)
    mask = Mask.from_box(frame, Box(0, 0, 3, 3)) | Mask.from_box(frame, Box(5997, 3998, 6000, 4000))
    assert [box for box, _ in mask.tiles] == [Box(0, 0, 3, 3), Box(5997, 3998, 6000, 4000)]
    assert mask.dilate(2).tiles[0][0] == Box(0, 0, 5, 5)


def test_what_is_no_mask_is_refused() -> None:
    frame = Box(0, 0, 4, 4)
    values = np.zeros((2, 2), np.uint8)
    wrong: list[Any] = [
        lambda: Mask(Box(0, 0, 0, 4)),
        lambda: Mask(frame, (), 7),
        lambda: Mask(frame, ((Box(0, 0, 3, 2), values),)),
        lambda: Mask(frame, ((Box(3, 3, 5, 5), values),)),
        lambda: Mask(frame, ((Box(0, 0, 2, 2), values.astype(np.float32)),)),
        lambda: Mask.from_array(np.zeros((2, 2), np.float32)),
        lambda: Mask.from_array(np.zeros((2, 2, 3), np.uint8)),
        lambda: Mask.from_array(values, frame, (3, 0)),
        lambda: Mask.empty(frame) | Mask.empty(frame.grow(1)),
    ]
    for call in wrong:
        with pytest.raises(MaskError, match=r"^mask"):
            call()


def test_an_array_given_is_not_shared() -> None:
    array = np.full((3, 3), 255, np.uint8)
    mask = Mask.from_array(array, Box(0, 0, 9, 9))
    array[:] = 0
    assert mask.area == 9


def test_a_pickled_mask_is_equal_and_read_only() -> None:
    mask = Mask.from_box(Box(0, 0, 900, 700), Box(3, 4, 50, 60)).feather(6)
    back = pickle.loads(pickle.dumps(mask))
    assert back == mask
    assert not back.tiles[0][1].flags.writeable


# -- distances ------------------------------------------------------------------------------------------------------


@laws
@given(arrays(), RADII)
def test_dilate_is_the_exact_distance(array: np.ndarray, radius: float) -> None:
    assert np.array_equal(placed(array).dilate(radius).array() > 0, apart(array) <= radius)


@laws
@given(arrays(), RADII)
def test_erode_is_the_exact_distance_and_not_from_the_frame(array: np.ndarray, radius: float) -> None:
    mask = placed(array)
    assert np.array_equal(mask.erode(radius).array() > 0, apart(255 - array) > radius)
    assert mask.erode(radius) == mask.invert().dilate(radius).invert()


@pytest.mark.parametrize("radius", [1, 4, 30, 250.5])
@pytest.mark.parametrize("share", [0.00002, 0.02, 0.6])
def test_wide_masks_cut_in_windows_are_exact(radius: float, share: float) -> None:
    array = (np.random.default_rng(3).random((700, 2600)) < share).astype(np.uint8) * 255
    array[100:500, 900:2300] = 255
    mask = Mask.from_array(array)
    assert np.array_equal(mask.dilate(radius).array() > 0, apart(array) <= radius)
    assert np.array_equal(mask.erode(radius).array() > 0, apart(255 - array) > radius)


@pytest.mark.parametrize("radius", [3, 100, 126, 127, 400])
def test_both_ways_to_dilate_agree(radius: float) -> None:
    generator = np.random.default_rng(5)
    window = np.zeros((300, 1500), np.uint8)
    window[generator.integers(0, 300, 9), generator.integers(0, 1500, 9)] = 255
    window[:3, 700:720] = 255
    limit = morphology.squared(radius)
    by_distance = morphology.distance(255 - window) <= np.float32(math.sqrt(limit + 0.5))
    assert np.array_equal(morphology.near(window, radius, 255) > 0, by_distance)
    assert np.array_equal(by_distance, apart(window) <= radius)
    # The worst case for the counter of chords: every other pixel.
    window[::2] = 255
    steps = np.flatnonzero(window[:, 0]), np.flatnonzero(window[:, 0]) + 1
    rows = [np.repeat(step, 1500) for step in steps]
    columns = np.tile(np.arange(1500), len(steps[0]))
    found = morphology._chords(window.shape, ((rows[0], columns), (rows[1], columns)), (0, 0, 1500, 300), 100**2)
    assert found.all()


@pytest.mark.parametrize("n", [0, 1, 2, 3, 5, 8, 25, 1 << 20, 999983])
def test_squared_is_the_inverse_of_the_root(n: int) -> None:
    assert morphology.squared(math.sqrt(n)) == n
    assert morphology.squared(math.nextafter(math.sqrt(n), -1)) == n - 1 or n == 0


@laws
@given(arrays())
def test_a_radius_below_one_pixel_changes_nothing(array: np.ndarray) -> None:
    mask = placed(array)
    assert mask.dilate(0) == mask.erode(0.9) == mask.feather(0.5) == mask


@pytest.mark.parametrize("radius", [-1, math.nan, math.inf, True, None, "2", "x%", "-1%", "nan%", "%", [3]])
@pytest.mark.parametrize("operation", ["dilate", "erode", "feather", "ramp"])
def test_a_radius_that_is_none_is_refused(radius: Any, operation: str) -> None:
    mask = Mask.full(Box(0, 0, 5, 5))
    with pytest.raises(ParameterError, match=rf"^{operation}\.radius: expected pixels"):
        mask.ramp(mask, radius) if operation == "ramp" else getattr(mask, operation)(radius)


def test_a_soft_mask_is_not_dilated() -> None:
    with pytest.raises(MaskError, match="dilate: the mask has soft values"):
        Mask.from_array(np.full((3, 3), 9, np.uint8)).dilate(2)


def test_a_percentage_is_of_each_component() -> None:
    frame = Box(0, 0, 2000, 900)
    large, small = Mask.from_box(frame, Box(100, 100, 700, 560)), Mask.from_box(frame, Box(1500, 300, 1530, 340))
    assert (large | small).dilate("2%") == large.dilate(0.02 * math.hypot(600, 460)) | small.dilate(4)
    assert (large | small).erode("1 %") == large.erode(0.01 * math.hypot(600, 460)) | small.erode(4)
    assert (large | small).feather("2%") == large.feather(0.02 * math.hypot(600, 460)) | small.feather(4)
    assert Mask.empty(frame).dilate("2%").is_empty
    assert Mask.full(frame).dilate("2%").is_full
    assert Mask.full(frame).erode("2%").is_full


def test_two_hundred_specks() -> None:
    generator = np.random.default_rng(0)
    array = np.zeros((1500, 2100), np.uint8)
    for x, y in generator.integers((2095, 1495), size=(200, 2)).tolist():
        array[y : y + 5, x : x + 5] = 255
    mask = Mask.from_array(array)
    for radius in (3.0, 60.0):
        assert np.array_equal(mask.dilate(radius).array() > 0, apart(array) <= radius)
        error = np.abs(mask.feather(radius).array() - blurred(array, radius)).max()
        assert error <= 3
    assert np.array_equal(mask.dilate("2%").array() > 0, apart(array) <= 4)


# -- soft -----------------------------------------------------------------------------------------------------------


@laws
@given(arrays(soft=True), st.sampled_from([1, 2.5, 6, 15, 24, 31, 47, 75, 140]))
def test_feather_is_a_gaussian_within_three_levels(array: np.ndarray, radius: float) -> None:
    assert np.abs(placed(array).feather(radius).array() - blurred(array, radius)).max() <= 3


@pytest.mark.parametrize("radius", [24, 36, 37, 45, 54, 75, 119])
@pytest.mark.parametrize("period", [2, 3, 4, 6, 9])
def test_feather_of_fine_stripes_that_meet_the_border(radius: float, period: int) -> None:
    array = np.zeros((150, 170), np.uint8)
    array[np.arange(150) // max(1, period // 2) % 2 == 0] = 255
    for values in (array, np.where(np.arange(170) // period % 2, array, np.uint8(0))):
        assert np.abs(Mask.from_array(values).feather(radius).array() - blurred(values, radius)).max() <= 3


@laws
@given(arrays(), st.sampled_from([6, 30, 75]))
def test_feather_reaches_no_farther_than_its_radius(array: np.ndarray, radius: float) -> None:
    far = apart(array) > radius * math.sqrt(2) + 1
    assert not placed(array).feather(radius).array()[far].any()


@laws
@given(arrays(), RADII, st.sampled_from([1, 3.5, 12, 40]))
def test_ramp_is_full_on_the_core_and_nothing_outside(array: np.ndarray, grown: float, radius: float) -> None:
    core = placed(array)
    mask = core.dilate(grown)
    weight = mask.ramp(core, radius)
    inside, values = apart(255 - mask.array()), weight.array()
    assert (values[array > 0] == 255).all()
    assert not values[mask.array() == 0].any()
    assert (values[inside >= radius] == 255).all()
    # The formula, in float64.
    reach = np.minimum(inside, radius)
    share = reach / np.maximum(np.minimum(radius, reach + np.minimum(apart(array), radius)), 1e-9)
    expected = np.where(mask.array() > 0, 255 * share * share * (3 - 2 * share), 0)
    expected[array > 0] = 255
    assert np.abs(values - expected).max() <= 0.51


def test_ramp_rises_with_the_distance_from_the_edge() -> None:
    frame = Box(0, 0, 400, 300)
    core = Mask.from_box(frame, Box(150, 120, 250, 180))
    mask = core.dilate(40)
    row = mask.ramp(core, 25).array()[150].astype(int)
    assert (np.diff(row[:200]) >= 0).all()
    assert row[109] == 0
    assert 0 < row[115] < row[130] < 255
    assert row[140] == 255
    assert mask.margin(core) == pytest.approx(math.sqrt(1601))  # 40 across and 1 along: the nearest beyond 40
    assert core.dilate(3).margin(core) == math.sqrt(10)
    # Narrower than the radius: steeper, but whole.
    steep = core.dilate(3).ramp(core, 25).array()[150].astype(int)
    assert steep[146] == 0 < steep[147] < steep[148] < steep[149] < steep[150] == 255


@laws
@given(arrays(), arrays())
def test_margin_is_the_least_distance(array: np.ndarray, other: np.ndarray) -> None:
    height, width = min(array.shape[0], other.shape[0]), min(array.shape[1], other.shape[1])
    array, core = array[:height, :width], other[:height, :width] & array[:height, :width]
    found = placed(array).margin(placed(core))
    expected = apart(255 - array)[core > 0].min(initial=np.inf)
    assert found == pytest.approx(expected)


def test_margin_beyond_the_first_reach() -> None:
    frame = Box(0, 0, 1500, 1200)
    assert Mask.from_box(frame, Box(100, 100, 1400, 1100)).margin(Mask.from_box(frame, Box(700, 500, 710, 510))) == 401
    assert Mask.full(frame).margin(Mask.full(frame)) == math.inf


def test_a_core_must_lie_inside() -> None:
    frame = Box(0, 0, 20, 20)
    inner = Mask.from_box(frame, Box(5, 5, 9, 9))
    with pytest.raises(MaskError, match="the core must lie inside"):
        inner.ramp(inner.dilate(1), 2)
    with pytest.raises(MaskError, match="different frames"):
        inner.ramp(Mask.empty(frame.grow(1)), 2)


# -- sets -------------------------------------------------------------------------------------------------------------


@laws
@given(arrays(soft=True), arrays(soft=True))
def test_sets_are_those_of_arrays(one: np.ndarray, two: np.ndarray) -> None:
    height, width = min(one.shape[0], two.shape[0]), min(one.shape[1], two.shape[1])
    one, two = one[:height, :width], two[:height, :width]
    a, b = placed(one), placed(two)
    np.testing.assert_array_equal((a | b).array(), np.maximum(one, two))
    np.testing.assert_array_equal((a & b).array(), np.minimum(one, two))
    np.testing.assert_array_equal((a - b).array(), np.minimum(one, 255 - two))
    np.testing.assert_array_equal((~a).array(), 255 - one)
    assert a | a == a & a == a == ~~a
    assert a | b == b | a
    assert ~(a | b) == ~a & ~b


@laws
@given(arrays(soft=True), st.integers(1, 255))
def test_threshold(array: np.ndarray, level: int) -> None:
    hard = placed(array).threshold(level)
    assert np.array_equal(hard.array() == 255, array >= level)
    assert hard.is_hard
    assert hard.threshold(level) == hard


def test_wrong_numbers_are_refused() -> None:
    mask = Mask.full(Box(0, 0, 5, 5))
    for call in (
        lambda: mask.threshold(0),
        lambda: mask.threshold(256),
        lambda: mask.components(6),
        lambda: mask.largest(0),
        lambda: mask.fill_holes(-1),
    ):
        with pytest.raises(ParameterError, match="expected"):
            call()


@laws
@given(arrays(soft=True), st.sampled_from([4, 8]))
def test_components_part_the_mask(array: np.ndarray, connectivity: int) -> None:
    mask = placed(array)
    assume(ndimage.label(array > 0)[1] < 300)
    parts = mask.components(connectivity)
    assert len(parts) == ndimage.label(array > 0, EIGHT if connectivity == 8 else None)[1]
    total = np.zeros(array.shape, int)
    for part in parts:
        total += part.array()
        assert len(part.components(connectivity)) == 1
        assert part == placed(part.array())
    np.testing.assert_array_equal(total, array)
    corners = [(part.box.top, part.box.left) for part in parts]
    assert corners == sorted(corners)


@laws
@given(arrays(soft=True), st.integers(1, 4), st.integers(0, 200))
def test_largest_and_keep(array: np.ndarray, n: int, least: int) -> None:
    mask = placed(array)
    parts = mask.components()
    assume(len(parts) < 300)
    areas = sorted((part.area for part in parts), reverse=True)
    assert mask.largest(n).area == sum(areas[:n])
    assert mask.largest(max(1, len(parts))) == mask
    assert mask.keep(least).area == sum(area for area in areas if area >= least)
    assert (mask.keep(least) - mask).is_empty or not mask.is_hard


@laws
@given(arrays(), st.none() | st.integers(0, 400))
def test_holes_are_filled(array: np.ndarray, most: int | None) -> None:
    filled = placed(array).fill_holes(most)
    labels, count = ndimage.label(array == 0)
    edge = set(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]).tolist())
    sizes = np.bincount(labels.ravel())
    holes = [n for n in range(1, count + 1) if n not in edge and (most is None or sizes[n] <= most)]
    np.testing.assert_array_equal(filled.array() > 0, (array > 0) | np.isin(labels, holes))
    assert filled.fill_holes(most) == filled


def test_the_outside_of_an_inverse_may_be_parted() -> None:
    """A black bar across the frame leaves two components; one that stops short leaves one."""
    frame = Box(0, 0, 900, 700)
    bar = Mask.from_box(frame, Box(400, 0, 430, 700))
    assert [part.box for part in (~bar).components()] == [Box(0, 0, 400, 700), Box(430, 0, 900, 700)]
    short = Mask.from_box(frame, Box(400, 0, 430, 699))
    assert (~short).components() == [~short]
    ring = Mask.from_box(frame, Box(100, 100, 300, 300)) - Mask.from_box(frame, Box(150, 150, 250, 250))
    assert [part.area for part in (~ring).components()] == [900 * 700 - 200 * 200, 100 * 100]
    assert (~ring).largest() == ~Mask.from_box(frame, Box(100, 100, 300, 300))
    assert (~ring).largest(2) == ~ring


# -- placed -----------------------------------------------------------------------------------------------------------


@laws
@given(arrays(soft=True), *[st.integers(-60, 60)] * 4)
def test_another_frame(array: np.ndarray, left: int, top: int, right: int, bottom: int) -> None:
    mask = placed(array)
    frame = Box(mask.frame.left + left, mask.frame.top + top, mask.frame.right + right, mask.frame.bottom + bottom)
    assume(not frame.is_empty)
    other = mask.with_frame(frame)
    assert other.frame == frame
    np.testing.assert_array_equal(other.array(), mask.array(frame))
    assert other == Mask.from_array(mask.array(frame), frame, (frame.left, frame.top))
    assert mask.shift(left, top).shift(-left, -top) == mask


@pytest.mark.parametrize("value", [0, 255])
def test_one_pixel(value: int) -> None:
    mask = Mask.from_array(np.full((1, 1), value, np.uint8))
    assert mask == (Mask.full(mask.frame) if value else Mask.empty(mask.frame))
    for other in (mask.dilate(9), mask.erode(9), mask.feather(30), mask.ramp(mask, 5), mask.fill_holes(), ~~mask):
        assert other == mask
    assert len(mask.components()) == bool(value)


def test_cost_does_not_follow_the_frame() -> None:
    """A mask in a frame of 10 gigapixels: nothing the size of the frame is ever made."""
    frame = Box(0, 0, 100_000, 100_000)
    mask = Mask.from_box(frame, Box(70_000, 50_000, 70_050, 50_040)) | Mask.from_box(frame, Box(10, 10, 20, 20))
    soft = mask.dilate(20).feather(9)
    assert Box(0, 0, 70_079, 50_069).contains((soft - mask).box)
    assert (~(~mask).erode(20)) == mask.dilate(20)
    assert mask.dilate(9).ramp(mask, 5).area == mask.dilate(9).area
    assert len((~mask).components()) == 1
    assert mask.fill_holes() == mask
    assert (~mask).box == frame


@laws
@given(st.lists(st.tuples(*[st.integers(0, 900)] * 2, st.integers(1, 300), st.integers(1, 300)), max_size=12))
def test_windows_are_disjoint_and_cover(places: list[tuple[int, int, int, int]]) -> None:
    frame = Box(5, -8, 905, 892)
    boxes = [Box(x, y, x + w, y + h) for x, y, w, h in places]
    count, wanted = np.zeros((900, 900), int), np.zeros((900, 900), bool)
    for box in windows(boxes, frame):
        assert frame.contains(box)
        count[box.within(frame).slices] += 1
    for box in boxes:
        wanted[box.intersect(frame).within(frame).slices] = True
    assert count.max(initial=0) <= 1
    assert (count[wanted] == 1).all()
