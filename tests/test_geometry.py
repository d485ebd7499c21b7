"""Laws of boxes, sizes, limits and prices."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.errors import ParameterError
from toolkit.geometry import Box, Limits, Price, Size, scaled, snap

numbers = st.integers(-200, 200)
any_box = st.builds(Box, numbers, numbers, numbers, numbers)
boxes = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), numbers, numbers, st.integers(1, 150), st.integers(1, 150)
)
maybe_empty = st.builds(
    lambda x, y, w, h: Box(x, y, x + w, y + h), numbers, numbers, st.integers(0, 150), st.integers(0, 150)
)


def pixels(box: Box) -> set[tuple[int, int]]:
    return {(x, y) for x in range(box.left, box.right) for y in range(box.top, box.bottom)}


@given(
    st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), *[st.integers(-9, 9)] * 2, *[st.integers(0, 9)] * 2),
    st.builds(lambda x, y, w, h: Box(x, y, x + w, y + h), *[st.integers(-9, 9)] * 2, *[st.integers(0, 9)] * 2),
)
def test_boxes_are_sets_of_pixels(a: Box, b: Box) -> None:
    shared = a.intersect(b)
    assert pixels(shared) == pixels(a) & pixels(b)
    assert shared.width >= 0
    assert shared.height >= 0
    assert a.touches(b) == bool(pixels(a) & pixels(b))
    assert a.contains(b) == (pixels(b) <= pixels(a))
    assert pixels(a) | pixels(b) <= pixels(a.union(b))
    assert a.area == len(pixels(a))
    assert a.is_empty == (not pixels(a))


@given(any_box, any_box)
def test_intersection_is_never_reversed(a: Box, b: Box) -> None:
    shared = a.intersect(b)
    assert shared.left <= shared.right
    assert shared.top <= shared.bottom


@given(boxes, boxes, boxes)
def test_union_is_the_smallest_box_around_both(a: Box, b: Box, c: Box) -> None:
    both = a.union(b)
    assert both == b.union(a)
    assert both.contains(a)
    assert both.contains(b)
    assert a.union(b.union(c)) == both.union(c)
    if c.contains(a) and c.contains(b):
        assert c.contains(both)


@given(boxes, numbers, numbers)
def test_an_empty_box_adds_nothing(a: Box, x: int, y: int) -> None:
    assert a.union(Box(x, y, x, y + 5)) == a
    assert Box(x, y, x, y + 5).union(a) == a


@given(maybe_empty, maybe_empty)
def test_within_is_undone_by_shift(box: Box, origin: Box) -> None:
    moved = box.within(origin)
    assert moved.shift(origin.left, origin.top) == box
    assert moved.size == box.size
    assert origin.within(origin) == Box.of_size(origin.size)


@given(maybe_empty, boxes)
def test_moved_into_keeps_the_size_and_stays_inside_as_far_as_it_fits(box: Box, frame: Box) -> None:
    moved = box.moved_into(frame)
    assert moved.size == box.size
    assert moved.moved_into(frame) == moved
    sides = ((moved.left, moved.right, frame.left, frame.right), (moved.top, moved.bottom, frame.top, frame.bottom))
    for low, high, first, last in sides:
        if high - low <= last - first:
            assert first <= low
            assert high <= last
        else:
            assert low <= first
            assert last <= high
            assert abs((first - low) - (high - last)) <= 1
    if not box.is_empty and frame.contains(box):
        assert moved == box


@given(boxes, st.integers(0, 40), st.integers(0, 40))
def test_grow_is_undone_by_shrinking(box: Box, x: int, y: int) -> None:
    assert box.grow(x, y).grow(-x, -y) == box
    assert box.grow(x).contains(box)


@given(boxes)
def test_parse_reads_what_a_box_prints(box: Box) -> None:
    assert Box.parse(str(box)) == box
    assert Box.parse(f" {box.left} , {box.top},{box.right},  {box.bottom} ") == box
    assert Box.parse(f"{box.size}{box.left:+d}{box.top:+d}") == box
    assert box.checked() is box
    assert box.diagonal == math.hypot(*box.size)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "box '': expected left,top,right,bottom (whole pixels, e.g. 120,80,400,300) or WxH+X+Y"),
        ("1,2,3", "box '1,2,3': expected left,top,right,bottom (whole pixels, e.g. 120,80,400,300) or WxH+X+Y"),
        ("1.5,2,3,4", "box '1.5,2,3,4': expected left,top,right,bottom (whole pixels, e.g. 120,80,400,300) or WxH+X+Y"),
        ("10x10", "box '10x10': expected left,top,right,bottom (whole pixels, e.g. 120,80,400,300) or WxH+X+Y"),
        ("400,80,120,300", "box 400,80,120,300: reversed, left,top must come before right,bottom; did you mean "
                           "120,80,400,300?"),
        ("4,4,4,9", "box 4,4,4,9: has no area (0x5 pixels)"),
        ("0x5+1+1", "box 1,1,1,6: has no area (0x5 pixels)"),
    ],
)  # fmt: skip
def test_wrong_boxes_are_named(text: str, sentence: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Box.parse(text)
    assert str(caught.value) == sentence


def test_size_and_price() -> None:
    assert str(Size(1024, 768)) == "1024x768"
    assert Size(1000, 2000).area == 2_000_000
    assert Size(1000, 2000).megapixels == 2.0
    assert scaled((100, 3), 0.1) == Size(10, 1)
    assert Price(0.05).of(3) == 0.15


@given(st.integers(1, 5000), st.integers(1, 100))
def test_snap_finds_the_nearest_multiple(length: int, multiple: int) -> None:
    up, down = snap(length, multiple, up=True), snap(length, multiple, up=False)
    assert up % multiple == down % multiple == 0
    assert length <= up < length + multiple
    assert down == max(multiple, length - length % multiple)


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 64))
def test_limits_accept_their_own_extremes(a: int, b: int, multiple: int) -> None:
    low, high = min(a, b), max(a, b)
    try:
        limits = Limits(min_side=low, max_side=high, multiple_of=multiple)
    except ParameterError:
        assert multiple > high or high // multiple * multiple < low
        return
    smallest, largest = limits.smallest_side, limits.largest_side
    assert limits.accepts((smallest, largest))
    assert not limits.accepts((smallest - 1, largest))
    assert not limits.accepts((smallest, largest + 1))


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_side": 0},
        {"min_side": 100, "max_side": 50},
        {"multiple_of": 0},
        {"min_side": 17, "max_side": 31, "multiple_of": 16},
        {"best_pixels": 0},
        {"max_pixels": 0},
        {"min_side": 256, "max_pixels": 1000},
        {"context": 0.5},
        {"context": math.nan},
        {"upscale": 0},
        {"upscale": 0.5},
        {"upscale": math.inf},
    ],
)
def test_impossible_limits_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ParameterError, match=r"^limits: "):
        Limits(**wrong)  # type: ignore[arg-type]


def test_limits_count_the_area() -> None:
    limits = Limits(256, 1536, 16, max_pixels=1 << 20)
    assert limits.accepts((1024, 1024))
    assert not limits.accepts((1040, 1024))
    assert not limits.accepts((1024, 1023))
