"""Error sentences and the traps of YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from toolkit.errors import ParameterError, RecipeError
from toolkit.geometry import Box, Size
from toolkit.schema import Model, Point, build, parse_point, parse_size, read_value, read_yaml, shown, write_yaml
from toolkit.stages.crop import Crop
from toolkit.stages.dilate import Dilate
from toolkit.stages.fill import Fill
from toolkit.stages.select import Select


class Mixed(Model):
    needed: int
    near_by: float = Field(default=1.0, gt=0, lt=10)


@pytest.mark.parametrize(
    ("model", "values", "sentence"),
    [
        (Fill, {"prompt": 3}, "place.prompt: expected string, got 3 (quote it to make it text)"),
        (Fill, {"prompt": False}, "place.prompt: expected string, got False (quote it to make it text)"),
        (Fill, {"promt": ""}, "place: no parameter 'promt'; did you mean 'prompt'?"),
        (Fill, {"num-images": 2}, "place: no parameter 'num-images'; did you mean 'num_images'?"),
        (Fill, {"num_images": "2"}, "place.num_images: expected integer, got '2'"),
        (Fill, {"num_images": 2.0}, "place.num_images: expected integer, got 2.0"),
        (Fill, {"num_images": True}, "place.num_images: expected integer, got True"),
        (Fill, {"num_images": 0}, "place.num_images: must be at least 1, got 0"),
        (Fill, {"num_images": 65}, "place.num_images: must be at most 64, got 65"),
        (Fill, {"guidance": float("nan")}, "place.guidance: expected a number, got nan"),
        (Fill, {"seed": -1}, "place.seed: must be at least 0, got -1"),
        (Mixed, {}, "place.needed: is missing"),
        (Mixed, {"needed": 1, "near_by": 0}, "place.near_by: must be more than 0.0, got 0"),
        (Mixed, {"needed": 1, "near_by": 10.0}, "place.near_by: must be less than 10.0, got 10.0"),
        (Mixed, {"needed": 1, "zzz": 1}, "place: no parameter 'zzz'; known: near_by, needed"),
        (Dilate, {"radius": -1}, "place.radius: must be between 0 and 1000000 pixels, got -1"),
        (Dilate, {"radius": float("nan")}, "place.radius: must be between 0 and 1000000 pixels, got nan"),
        (Dilate, {"radius": "wide"},
         "place.radius: expected pixels (12) or a share of the object's diagonal (\"2%\"), got 'wide'"),
        (Dilate, {"radius": True},
         "place.radius: expected pixels (12) or a share of the object's diagonal (\"2%\"), got True"),
        (Select, {"box": "9,9,1,1"},
         "place.box.0: box 9,9,1,1: reversed, left,top must come before right,bottom; did you mean 1,1,9,9?"),
        (Select, {"box": [1, 2, 3]}, "place.box.0: expected four whole pixels left,top,right,bottom, got [1, 2, 3]"),
        (Select, {"box": ["1,2,3,4", "5,5,5,9"]}, "place.box.1: box 5,5,5,9: has no area (0x4 pixels)"),
        (Select, {"point": "1;2"}, "place.point.0: point '1;2': expected x,y (whole pixels, e.g. 210,160)"),
        (Select, {"mask": 7}, "place.mask: expected a mask file, array or Mask, got int"),
        (Select, {"invert_mask": "yes"}, "place.invert_mask: expected boolean, got 'yes'"),
        (Crop, {"size": "0x5"}, "place.size: size '0x5': expected WxH (e.g. 1024x768) or one number"),
        (Crop, {"size": [10]}, "place.size: expected two whole numbers, width and height, got [10]"),
    ],
)  # fmt: skip
def test_wrong_values_are_named(model: type[Model], values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ParameterError) as caught:
        build(model, values, "place")
    assert str(caught.value) == sentence


def test_sentences_stay_short() -> None:
    with pytest.raises(ParameterError) as caught:
        build(Fill, {"prompt": "word " * 2000}, "fill")
    assert str(caught.value) == "fill.prompt: must have at most 4000 characters, got 10000"
    assert len(str(caught.value)) < 300
    deep: list[Any] = []
    for _ in range(30):
        deep = [deep] * 9
    assert len(shown(deep)) < 2000


@pytest.mark.parametrize(
    ("model", "written", "meant"),
    [
        (Select, {"box": "1,2,3,4"}, (Box(1, 2, 3, 4),)),
        (Select, {"box": "10x20+5-6"}, (Box(5, -6, 15, 14),)),
        (Select, {"box": [1, 2, 3, 4]}, (Box(1, 2, 3, 4),)),
        (Select, {"box": [[1, 2, 3, 4], "5,6,7,8"]}, (Box(1, 2, 3, 4), Box(5, 6, 7, 8))),
        (Select, {"box": None}, ()),
        (Select, {"point": (4, 5)}, (Point(4, 5),)),
        (Select, {"point": ["4,5", [6, 7]]}, (Point(4, 5), Point(6, 7))),
        (Crop, {"size": "1024"}, Size(1024, 1024)),
        (Crop, {"size": "640 x 480"}, Size(640, 480)),
        (Crop, {"size": [640, 480]}, Size(640, 480)),
        (Dilate, {"radius": "3%"}, "3%"),
        (Dilate, {"radius": " 12 px"}, 12.0),
        (Dilate, {"radius": 4}, 4),
        (Fill, {"lora": "one:0.5"}, ("one:0.5",)),
        (Fill, {"seed": "random"}, "random"),
    ],
)
def test_forms_that_are_understood(model: type[Model], written: dict[str, Any], meant: Any) -> None:
    ((name, _),) = written.items()
    built = build(model, written, "place")
    assert getattr(built, name) == meant
    assert build(model, {name: meant}, "place") == built, "what was understood is understood again"


def test_points_and_sizes() -> None:
    assert parse_point(" 3 ,4 ") == Point(3, 4)
    assert parse_size("7x8") == Size(7, 8)
    for text in ("", "3", "3,-4", "a,b"):
        with pytest.raises(ParameterError, match=r"^point"):
            parse_point(text)
    for text in ("", "0", "x", "3x", "-3x4"):
        with pytest.raises(ParameterError, match=r"^size"):
            parse_size(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("yes", "yes"), ("on", "on"), ("Off", "Off"), ("Null", "Null"), ("True", "True"),
        ("true", True), ("false", False), ("null", None), ("~", None), ("", None),
        ("1e-3", 0.001), ("1.5", 1.5), ("-2", -2), ("0", 0), ("1E5", 1e5),
        ("012", "012"), ("0x1F", "0x1F"), ("0o17", "0o17"), ("1_000", "1_000"), ("+5", "+5"), (".5", ".5"),
        ("12:30", "12:30"), ("12:30:00", "12:30:00"), ("2026-01-01", "2026-01-01"), (".inf", ".inf"), ("3%", "3%"),
        ("=", "="), ("<<", "<<"), ("1,2,3,4", "1,2,3,4"), ("'7'", "7"), ("[1, no]", [1, "no"]),
    ],
)  # fmt: skip
def test_scalars_are_read_as_json_reads_them(text: str, value: Any) -> None:
    got = read_value(text)
    assert got == value
    assert type(got) is type(value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: 1\nb: 2\na: 3", "text: line 3: 'a' is written twice"),
        ("x:\n  - {b: 1, b: 2}", "text: line 2: 'b' is written twice"),
        ("1: a", "text: line 1: the name 1 must be text; put it in quotes"),
        ("true: a", "text: line 1: the name True must be text; put it in quotes"),
        ("a: [1, 2", "text: line 1 expected ',' or ']', but got '<stream end>'"),
        ("a: b: c", "text: line 1 mapping values are not allowed here"),
        ("a: !!python/name:os.system x", "text: line 1 could not determine a constructor for the tag "
                                         "'tag:yaml.org,2002:python/name:os.system'"),
        ("a: &x [*x]", "text: line 1 found unconstructable recursive node"),
        ("a: !!int five", "text: a value does not fit its own !!tag (invalid literal for int() with base 10: 'five')"),
        ("[" * 1500, "text: is nested too deeply"),
    ],
)  # fmt: skip
def test_yaml_that_cannot_be_understood_is_named(text: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        read_yaml(text)
    assert str(caught.value) == sentence


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"missing\.yaml: cannot be read: No such file or directory$"):
        read_yaml(tmp_path / "missing.yaml")
    bad = tmp_path / "bad.yaml"
    bad.write_bytes(b"name: \xff\xfe")
    with pytest.raises(RecipeError, match=r"bad\.yaml: cannot be read: is not UTF-8 text$"):
        read_yaml(bad)
    bad.write_bytes(b"a: \x00")
    with pytest.raises(RecipeError, match=r"bad\.yaml: "):
        read_yaml(bad)


plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
    | st.sampled_from(["1e-3", "no", "012", "12:30", "null", "~", "true", "-0", "1e5", "=", "<<", "$x", "a: b", "#"])
    | st.sampled_from(["a\x85b", "\u2028"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc_", min_size=1), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(plain)
def test_what_is_written_is_read_again(value: Any) -> None:
    assert read_yaml(write_yaml({"value": value})) == {"value": value}


def test_what_yaml_has_no_form_for_is_named() -> None:
    with pytest.raises(RecipeError, match=r"^cannot be written as YAML: <object object"):
        write_yaml({"mask": object()})
