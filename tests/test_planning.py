"""From masks to windows: every law of the plan, over many shapes and the limits of real engines."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toolkit import cards, planning
from toolkit.edit import Window
from toolkit.errors import ParameterError
from toolkit.geometry import Box, Limits, Price, Size
from toolkit.mask import Mask

FLUX = Limits(256, 1536, 16, 1 << 20, context=2)
PATCHMATCH = cards.read(Path(__file__).parents[1] / "models/fill/patchmatch.yaml").limits
ENLARGING = Limits(512, 2048, 64, 1 << 20, max_pixels=1 << 21, context=2.5, upscale=4)
ALL = [FLUX, PATCHMATCH, ENLARGING]


def masked(frame: Box, *holes: Box) -> Mask:
    around = holes[0]
    for hole in holes[1:]:
        around = around.union(hole)
    array = np.zeros((around.height, around.width), np.uint8)
    for hole in holes:
        array[hole.within(around).slices] = 255
    return Mask.from_array(array, frame, (around.left, around.top))


def windows_of(mask: Mask, limits: Limits, **options: object) -> tuple[Window, ...]:
    passes = planning.plan(mask, limits, **options)  # type: ignore[arg-type]
    assert len(passes) <= 1
    return passes[0] if passes else ()


def check(mask: Mask, windows: tuple[Window, ...], limits: Limits) -> None:
    """What holds for every plan."""
    frame, box = mask.frame, mask.box
    count, labels = cv2.connectedComponents(mask.array(box), connectivity=8)
    owners: list[set[int]] = []
    for window in windows:
        assert limits.accepts(window.size), window
        assert window.box.width * window.size.height == window.box.height * window.size.width, window
        assert window.box.contains(window.hole.box), window
        assert window.box.moved_into(frame) == window.box, "it could lie further inside the photo"
        assert window.scale == window.box.width / window.size.width
        inside = window.hole.array(box) > 0
        assert inside.sum() == window.hole.area > 0
        owners.append({int(n) for n in np.unique(labels[inside])})
    assert sorted(n for own in owners for n in own) == list(range(1, count)), "each part is in one window's hole"
    assert sum(window.hole.area for window in windows) == mask.area


@st.composite
def holes(draw: st.DrawFn) -> tuple[Box, Box]:
    side = st.one_of(st.integers(1, 64), st.integers(1, 6000))
    frame = Box.of_size((draw(side), draw(side)))
    left, top = draw(st.integers(0, frame.width - 1)), draw(st.integers(0, frame.height - 1))
    right, bottom = draw(st.integers(left + 1, frame.width)), draw(st.integers(top + 1, frame.height))
    return frame, Box(left, top, right, bottom)


@st.composite
def some_limits(draw: st.DrawFn) -> Limits:
    multiple = draw(st.sampled_from([1, 2, 8, 14, 16, 32, 64]))
    least = draw(st.integers(1, 512))
    most = draw(st.integers(max(least, multiple) + multiple, 4096))
    smallest = -(-least // multiple) * multiple
    best = draw(st.integers(4096, 1 << 22))
    area = draw(st.one_of(st.none(), st.integers(max(smallest**2, 4096), 1 << 24)))
    return Limits(
        least, most, multiple, best, area,
        draw(st.floats(1, 6)), draw(st.sampled_from([1.0, 1.5, 2.0, 4.0])),
    )  # fmt: skip


@given(holes(), st.one_of(st.sampled_from(ALL), some_limits()))
@settings(max_examples=300, deadline=None)
def test_every_hole_gets_a_window_the_engine_accepts(place: tuple[Box, Box], limits: Limits) -> None:
    frame, hole = place
    assume(hole != frame)
    mask = masked(frame, hole)
    windows = windows_of(mask, limits)
    check(mask, windows, limits)
    assert len(windows) == 1
    if limits.upscale == 1:
        # Never enlarged beyond what the smallest side demands.
        window = windows[0]
        assert window.scale >= 1 or min(window.size) <= limits.smallest_side + 7 + limits.multiple_of


@given(
    st.integers(200, 3000), st.integers(200, 3000),
    st.lists(st.tuples(*[st.floats(0, 0.98)] * 2), min_size=1, max_size=30),
    st.integers(1, 120), st.sampled_from(ALL),
)  # fmt: skip
@settings(max_examples=40, deadline=None)
def test_many_holes_keep_the_laws(
    width: int, height: int, places: list[tuple[float, float]], side: int, limits: Limits
) -> None:
    frame = Box.of_size((width, height))
    corners = [(int(x * width), int(y * height)) for x, y in places]
    mask = masked(frame, *(Box(x, y, x + side, y + side).intersect(frame) for x, y in corners))
    windows = windows_of(mask, limits)
    check(mask, windows, limits)
    assert len(windows) <= planning.MAX_WINDOWS


@given(holes(), st.sampled_from([FLUX, ENLARGING]), st.integers(4, 30), st.integers(4, 30))
@settings(max_examples=100, deadline=None)
def test_a_size_asked_for_is_used(place: tuple[Box, Box], limits: Limits, columns: int, rows: int) -> None:
    frame, hole = place
    size = Size(columns * 64, rows * 64)
    mask = masked(frame, hole)
    if not limits.accepts(size):
        with pytest.raises(ParameterError, match=f"^size {size}: the engine takes sides "):
            planning.plan(mask, limits, size=size)
        return
    windows = windows_of(mask, limits, size=size)
    check(mask, windows, limits)
    assert {window.size for window in windows} == {size}


def test_near_parts_share_a_window_and_far_ones_get_their_own() -> None:
    frame = Box.of_size((4000, 3000))
    near = [Box(100, 100, 200, 200), Box(250, 110, 350, 210)]
    far = Box(3600, 2700, 3700, 2800)
    mask = masked(frame, *near, far)
    windows = windows_of(mask, PATCHMATCH)
    check(mask, windows, PATCHMATCH)
    assert [window.hole.box for window in windows] == [near[0].union(near[1]), far]


def test_two_hundred_specks_become_at_most_twelve_windows() -> None:
    frame = Box.of_size((4000, 3000))
    random = np.random.default_rng(0)
    specks = [
        Box(x, y, x + 3, y + 3)
        for x, y in zip(random.integers(0, 3990, 200), random.integers(0, 2990, 200), strict=True)
    ]
    mask = masked(frame, *(Box(*(int(n) for n in speck)) for speck in specks))
    for limits in ALL:
        windows = windows_of(mask, limits)
        check(mask, windows, limits)
        assert 1 <= len(windows) <= 12
    assert len(windows_of(mask, FLUX, max_windows=3)) <= 3


def specks(frame: Box, count: int) -> Mask:
    random = np.random.default_rng(1)
    array = np.zeros((frame.height, frame.width), bool)
    places = random.choice((frame.width // 4) * (frame.height // 4), count, replace=False)
    array[places // (frame.width // 4) * 4, places % (frame.width // 4) * 4] = True
    return Mask.from_array(array, frame)


@pytest.mark.parametrize("size", [(3000, 2000), (60_000, 100), (100, 60_000), (100_000, 12)])
def test_thousands_of_specks_are_gathered_first(size: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    mask = specks(Box.of_size(size), 5000)
    measured: list[int] = []
    areas = planning._areas

    def counting(hulls: np.ndarray, frame: Box, context: float) -> np.ndarray:
        measured.append(len(hulls))
        return areas(hulls, frame, context)

    monkeypatch.setattr(planning, "_areas", counting)
    boxes = [part.box for part in mask.components()]
    assert len(boxes) == 5000
    groups = planning.cluster(boxes, mask.frame, 2, 12)
    assert len(groups) <= 12
    assert sorted(i for group in groups for i in group) == list(range(5000))
    assert max(measured) <= planning._MANY
    assert len(measured) <= 3 * planning._MANY


def test_thousands_of_specks_are_joined_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = specks(Box.of_size((1500, 1000)), 5000)
    unions = []
    union = Mask.union
    monkeypatch.setattr(Mask, "union", lambda self, other: unions.append(1) or union(self, other))
    windows = windows_of(mask, PATCHMATCH)
    assert not unions
    assert sum(window.hole.area for window in windows) == 5000


@given(
    st.lists(
        st.tuples(st.integers(0, 250), st.integers(0, 250), st.integers(1, 60), st.booleans()), min_size=1, max_size=12
    )
)
def test_joined_is_the_union(places: list[tuple[int, int, int, bool]]) -> None:
    frame = Box.of_size((300, 200))
    parts = [Mask.from_box(frame, Box(x, y, x + side, y + side)) for x, y, side, _ in places]
    parts = [part.invert() if inverted else part for part, (*_, inverted) in zip(parts, places, strict=True)]
    whole = Mask.empty(frame)
    for part in parts:
        whole = whole.union(part)
    assert planning.joined(parts) == whole


@pytest.mark.parametrize("limits", ALL)
@pytest.mark.parametrize(
    ("size", "hole"),
    [
        ((4000, 200), Box(1900, 40, 2100, 160)),
        ((4000, 200), Box(0, 0, 60, 200)),
        ((4000, 200), Box(100, 0, 3900, 200)),
        ((200, 4000), Box(0, 3900, 200, 4000)),
        ((90, 90), Box(30, 30, 60, 60)),
        ((90, 90), Box(0, 0, 89, 90)),
        ((3000, 2000), Box(0, 900, 120, 1100)),
        ((3000, 2000), Box(2900, 1900, 3000, 2000)),
        ((3000, 2000), Box(0, 0, 1, 1)),
        ((6000, 4000), Box(10, 2000, 5990, 2004)),
        ((6000, 4000), Box(3000, 10, 3003, 3990)),
        ((2600, 1900), Box(1, 1, 2599, 1899)),
        ((2, 1), Box(0, 0, 1, 1)),
        ((1, 6000), Box(0, 0, 1, 5999)),
        ((2000, 2000), Box(0, 0, 2000, 1999)),
    ],
)
def test_hard_shapes(size: tuple[int, int], hole: Box, limits: Limits) -> None:
    mask = masked(Box.of_size(size), hole)
    check(mask, windows_of(mask, limits), limits)


def test_a_window_has_the_context_its_card_asks_for() -> None:
    mask = masked(Box.of_size((4000, 3000)), Box(1800, 1400, 2200, 1600))
    (window,) = windows_of(mask, PATCHMATCH)
    assert window.size == window.box.size, "full resolution"
    assert window.box.width >= 3 * 400
    assert window.box.height >= 3 * 200
    (window,) = windows_of(mask, PATCHMATCH, context=5)
    assert window.box.width >= 5 * 400


def test_a_large_hole_is_worked_at_the_best_size() -> None:
    mask = masked(Box.of_size((6000, 4000)), Box(1000, 1000, 4000, 3000))
    (window,) = windows_of(mask, FLUX)
    assert window.scale > 3
    assert 0.8 * FLUX.best_pixels <= window.size.area <= 1.05 * FLUX.best_pixels


def test_nothing_selected_needs_no_window() -> None:
    assert planning.plan(Mask.empty(Box.of_size((100, 100))), FLUX) == ()


def test_estimate() -> None:
    mask = masked(Box.of_size((3000, 2000)), Box(0, 0, 100, 100), Box(2800, 1800, 2900, 1900))
    passes = planning.plan(mask, FLUX)
    known = planning.estimate(passes, 3, Price(0.05), pace=2.0, per_call=1.0)
    assert known.calls == 6
    assert known.price == 0.3
    assert known.currency == "USD"
    megapixels = sum(window.size.megapixels for window in passes[0])
    assert known.seconds == pytest.approx(3 * (2 * 1.0 + megapixels * 2.0))
    assert known.longest == pytest.approx(max(1.0 + window.size.megapixels * 2.0 for window in passes[0]))
    unknown = planning.estimate(passes, 1, Price(), pace=None)
    assert (unknown.seconds, unknown.longest) == (None, None)
    rest = planning.estimate(passes, 3, Price(0.05), pace=2.0, per_call=1.0, kept={0: 3, 1: 1})
    assert (rest.calls, rest.price) == (2, 0.1)
    assert rest.seconds == pytest.approx(2 * (1.0 + passes[0][1].size.megapixels * 2.0))
    assert planning.estimate(passes, 1, Price(0.05), pace=2.0, kept={0: 1, 1: 1}).longest == 0
    batched = planning.estimate((*passes, passes[0][:1]), 3, Price(0.05), pace=2.0, kept={0: 3}, batched=True)
    assert (batched.calls, batched.price) == (1 + 3, 0.3)


@pytest.mark.parametrize(
    ("calls", "at_once", "per_minute", "seconds"),
    [
        (1, 3, 10, 5.0),
        (3, 3, 10, 5.0),
        (6, 3, 10, 10.0),
        (10, 3, 10, 50 / 3),
        (11, 100, 10, 65.0),
        (21, 100, 10, 125.0),
        (200, 64, None, 1000 / 64),
        (0, 3, 10, 0.0),
    ],
)
def test_the_time_calls_take_follows_from_how_many_may_be_under_way_and_begin(
    calls: int, at_once: int, per_minute: int | None, seconds: float
) -> None:
    longest = 5.0 if calls else 0.0
    assert planning.wall_clock(calls, 5.0 * calls, longest, at_once, per_minute) == pytest.approx(seconds)
