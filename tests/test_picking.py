"""Which of the found regions are meant: laws of non-maximum suppression, and the grammar of choices."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.edit import Region
from toolkit.errors import ParameterError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.picking import WORDS, overlap, parse, pick, size_of, suppress

FRAME = Box(0, 0, 100, 100)


@st.composite
def boxes(draw: st.DrawFn) -> Box:
    left, top = draw(st.integers(0, 12)), draw(st.integers(0, 12))
    return Box(left, top, left + draw(st.integers(1, 12)), top + draw(st.integers(1, 12)))


regions = st.lists(
    st.builds(Region, boxes(), st.sampled_from(["car", "dog"]), st.sampled_from([0.0, 0.1, 0.5, 0.5000001, 1.0])),
    max_size=12,
)
limits = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 1 / 3, 0.5, 1.0]))


def of(box: tuple[int, int, int, int], label: str = "", score: float = 0.5) -> Region:
    return Region(Box(*box), label, score)


@given(regions, limits)
def test_kept_boxes_of_a_label_never_overlap_above_the_limit(found: list[Region], limit: float) -> None:
    kept = suppress(found, limit)
    for one, other in combinations(kept, 2):
        assert one.label != other.label or overlap(one.box, other.box) <= limit


@given(regions, limits)
def test_what_is_dropped_overlaps_something_kept_that_is_no_worse(found: list[Region], limit: float) -> None:
    kept = suppress(found, limit)
    for region in found:
        if not any(region is one for one in kept):
            assert any(
                one.label == region.label and one.score >= region.score and overlap(one.box, region.box) > limit
                for one in kept
            )


@given(regions, limits)
def test_the_best_of_each_label_is_kept_and_the_order_is_by_score(found: list[Region], limit: float) -> None:
    kept = suppress(found, limit)
    for label in {region.label for region in found}:
        best = max(region.score for region in found if region.label == label)
        assert any(one.label == label and one.score == best for one in kept)
    assert [one.score for one in kept] == sorted((one.score for one in kept), reverse=True)


@given(regions, limits, st.randoms())
def test_suppression_is_idempotent_and_blind_to_the_order_given(
    found: list[Region], limit: float, random: object
) -> None:
    kept = suppress(found, limit)
    assert suppress(kept, limit) == kept
    shuffled = list(found)
    random.shuffle(shuffled)  # type: ignore[attr-defined]

    def told(some: tuple[Region, ...]) -> list[tuple[Box, str, float]]:
        return [(one.box, one.label, one.score) for one in some]

    assert told(suppress(shuffled, limit)) == told(kept)


@given(boxes(), boxes())
def test_overlap_is_that_of_the_pixels(one: Box, other: Box) -> None:
    first, second = (Mask.from_box(FRAME, box).array() > 0 for box in (one, other))
    assert overlap(one, other) == np.count_nonzero(first & second) / np.count_nonzero(first | second)
    assert overlap(one, other) == overlap(other, one)
    assert overlap(one, one) == 1


@pytest.mark.parametrize("limit", [-0.1, 1.1, float("nan")])
def test_a_limit_that_is_no_share_is_refused(limit: float) -> None:
    with pytest.raises(ParameterError, match=r"^overlap: must be 0 to 1, got"):
        suppress([], limit)


FOUND = {
    "big": of((0, 0, 50, 50), "car", 0.5),
    "small": of((90, 40, 95, 45), "car", 0.9),
    "low": of((40, 80, 60, 100), "dog", 0.3),
    "middle": of((45, 45, 57, 57), "dog", 0.8),
}


@pytest.mark.parametrize(
    ("which", "names"),
    [
        ("all", ["big", "small", "low", "middle"]),
        ("best", ["small"]),
        ("best 3", ["small", "middle", "big"]),
        ("largest", ["big"]),
        ("Largest  2 ", ["big", "low"]),
        ("smallest", ["small"]),
        ("smallest 2", ["small", "middle"]),
        ("leftmost", ["big"]),
        ("leftmost 2", ["big", "low"]),
        ("rightmost", ["small"]),
        ("topmost", ["big"]),
        ("bottommost 2", ["low", "middle"]),
        ("central", ["middle"]),
        ("central 9", ["middle", "big", "low", "small"]),
    ],
)
def test_choices(which: str, names: list[str]) -> None:
    for given_ in permutations(FOUND.values()):
        picked = pick(given_, which, frame=FRAME)
        wanted = [FOUND[name] for name in names]
        assert list(picked) == (list(given_) if which == "all" else wanted)


def test_labels_limit_the_choice_and_may_have_one_each() -> None:
    found = list(FOUND.values())
    assert pick(found, "largest", ["dog"]) == (FOUND["low"],)
    assert pick(found, "largest", ["unicorn"]) == ()
    assert pick(found, "all", ["dog"]) == (FOUND["low"], FOUND["middle"])
    assert pick(found, "best", per_label=True) == (FOUND["small"], FOUND["middle"])
    assert pick(found, "best", ["dog", "car"], per_label=True) == (FOUND["middle"], FOUND["small"])


@given(regions, st.sampled_from(WORDS[1:]), st.integers(1, 5))
def test_a_number_takes_that_many_of_each_label_and_the_first_is_the_choice_without(
    found: list[Region], word: str, count: int
) -> None:
    some = pick(found, f"{word} {count}", frame=FRAME)
    assert len(some) == min(count, len(found))
    assert pick(found, word, frame=FRAME) == some[:1]
    each = pick(found, f"{word} {count}", per_label=True, frame=FRAME)
    for label in ("car", "dog"):
        own = [region for region in found if region.label == label]
        assert [one for one in each if one.label == label] == list(pick(own, f"{word} {count}", frame=FRAME))


def test_size_is_the_masks_where_there_is_one() -> None:
    thin = Region(Box(0, 0, 50, 50), mask=Mask.from_box(FRAME, Box(0, 0, 50, 2)))
    solid = of((60, 60, 75, 75))
    assert (size_of(thin), size_of(solid)) == (100, 225)
    assert pick([thin, solid], "largest") == (solid,)


def test_ties_go_to_the_better_score_then_to_the_upper_left() -> None:
    same = [of((10, 0, 20, 10), score=0.5), of((0, 10, 10, 20), score=0.5), of((0, 0, 10, 10), score=0.4)]
    for given_ in permutations(same):
        assert pick(given_, "largest 3") == tuple(same)


@pytest.mark.parametrize(
    ("which", "sentence"),
    [
        ("bigest", "pick 'bigest': no such choice; did you mean 'best'?"),
        ("largets 2", "pick 'largets 2': no such choice; did you mean 'largest'?"),
        ("", "pick '': no such choice; one of all, best, largest, smallest, leftmost, rightmost, topmost, bottommost, "
         'central, e.g. "largest 2"'),
        ("2 largest", None),
        ("all 2", "pick 'all 2': all takes no number"),
        ("largest 0", "pick 'largest 0': expected a whole number from 1 after largest, got '0'"),
        ("largest two", "pick 'largest two': expected a whole number from 1 after largest, got 'two'"),
        ("largest -1", "pick 'largest -1': expected a whole number from 1 after largest, got '-1'"),
        ("largest 2 3", None),
    ],
)  # fmt: skip
def test_wrong_choices_are_refused_with_a_suggestion(which: str, sentence: str | None) -> None:
    with pytest.raises(ParameterError) as caught:
        parse(which)
    assert sentence is None or str(caught.value) == sentence
    assert str(caught.value).startswith(f"pick {which!r}: ")


def test_the_centre_needs_the_photos_box() -> None:
    with pytest.raises(ParameterError, match=r"^pick 'central': needs the photo's box$"):
        pick([], "central")
