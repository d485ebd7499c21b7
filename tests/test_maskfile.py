"""Masks from and to files, polygons and run-length codes."""

from __future__ import annotations

import importlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from toolkit.errors import MaskError, OutputError
from toolkit.geometry import Box
from toolkit.mask import Mask

laws = settings(max_examples=60, deadline=None)


@st.composite
def arrays(draw: st.DrawFn, soft: bool = False, most: int = 220) -> np.ndarray:
    """Boxes and noise, from 1x1 up."""
    height, width = draw(st.integers(1, most)), draw(st.integers(1, most))
    generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    array = np.where(generator.random((height, width)) < draw(st.sampled_from([0, 0.001, 0.5, 1])), 255, 0)
    for _ in range(draw(st.integers(0, 4))):
        x, y, w, h = (int(n) for n in generator.integers((width, height, 90, 90)))
        array[y : y + h, x : x + w] = generator.integers(256) if soft else generator.integers(2) * 255
    return array.astype(np.uint8)


def placed(array: np.ndarray) -> Mask:
    """In a frame that does not begin at (0, 0)."""
    frame = Box(-9, 4, array.shape[1] - 9, array.shape[0] + 4)
    return Mask.from_array(array, frame, (-9, 4))


def shape() -> np.ndarray:
    """An L, so that turning and mirroring show."""
    array = np.zeros((40, 60), np.uint8)
    array[5:35, 10:20] = 255
    array[25:35, 10:50] = 255
    return array


def content(picture: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# -- codes ------------------------------------------------------------------------------------------------------------


@laws
@given(arrays())
def test_coco_codes_come_back(array: np.ndarray) -> None:
    mask = placed(array)
    code = mask.to_coco_rle()
    assert code["size"] == list(array.shape)
    back = Mask.from_coco_rle(code["counts"], code["size"])
    np.testing.assert_array_equal(back.array(), array)
    assert Mask.from_coco_rle(code["counts"].encode(), code["size"]) == back
    turns = np.flatnonzero(np.diff(array.T.ravel(), prepend=np.uint8(0)))
    counts = np.diff(np.concatenate([[0], turns, [array.size]])).tolist()
    assert Mask.from_coco_rle(counts, code["size"]) == back


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@laws
@given(arrays())
def test_coco_codes_are_those_of_pycocotools(array: np.ndarray) -> None:
    coco = importlib.import_module("pycocotools.mask")
    theirs = coco.encode(np.asfortranarray((array > 0).astype(np.uint8)))
    ours = placed(array).to_coco_rle()
    assert ours["counts"] == theirs["counts"].decode()
    np.testing.assert_array_equal(coco.decode(ours) * np.uint8(255), array)


def test_a_known_coco_code() -> None:
    mask = Mask.from_coco_rle([4, 2, 1, 2, 3], (3, 4))
    assert mask.array().tolist() == [[0, 0, 0, 0], [0, 255, 255, 0], [0, 255, 255, 0]]
    # From the fourth run on differences to the last but one: 2 - 2 and 3 - 1.
    assert mask.to_coco_rle() == {"size": [3, 4], "counts": "42102"}


@pytest.mark.parametrize("counts", [[1, 2], [-1, 13], "~~~", "0", b"\xff", "o", [2**70], ["x"], "é"])
def test_broken_codes_are_refused(counts: Any) -> None:
    with pytest.raises(MaskError, match=r"^run-length code: "):
        Mask.from_coco_rle(counts, (3, 4))


@laws
@given(arrays(most=90))
def test_polygons_come_back(array: np.ndarray) -> None:
    mask = placed(array)
    rings = mask.to_polygons()
    assert (Mask.from_polygon(mask.frame, rings) if rings else Mask.empty(mask.frame)) == mask


def test_polygons_by_pixel_centres() -> None:
    frame = Box(0, 0, 10, 10)
    square = Mask.from_box(frame, Box(2, 3, 5, 7))
    assert Mask.from_polygon(frame, [(2, 3), (5, 3), (5, 7), (2, 7)]) == square
    assert Mask.from_polygon(frame, [2.4, 3.4, 5.4, 3.4, 5.4, 7.4, 2.4, 7.4]) == square
    assert Mask.from_polygon(frame, [[2, 3, 5, 3, 5, 7, 2, 7]]) == square
    assert Mask.from_polygon(frame, np.array([(-9, -9), (90, -9), (90, 90), (-9, 90)])).is_full
    assert Mask.from_polygon(frame, [(20, 20), (30, 20), (30, 30)]).is_empty
    triangle = Mask.from_polygon(Box(0, 0, 400, 400), [(0, 0), (400, 0), (0, 400)])
    assert abs(triangle.area - 80_000) <= 200


@pytest.mark.parametrize(
    "points",
    [[], 3, "abc", [(1, 2), (3, 4)], [1, 2, 3, 4, 5, 6, 7], [(0, 0), (1, float("nan")), (2, 2)], [("a", "b")] * 3],
)
def test_broken_polygons_are_refused(points: Any) -> None:
    with pytest.raises(MaskError, match=r"^polygon: "):
        Mask.from_polygon(Box(0, 0, 9, 9), points)


# -- files ------------------------------------------------------------------------------------------------------------


def kinds() -> list[tuple[str, Any, str]]:
    array = shape()
    rgba = np.dstack([np.full((40, 60, 3), 80, np.uint8), array])
    opaque = np.dstack([array, array, array, np.full((40, 60), 255, np.uint8)])
    half = np.where(array, 200, 60).astype(np.uint8)
    palette = Image.fromarray((array > 0).astype(np.uint8), "L").convert("P")
    palette.putpalette([20, 0, 0, 250, 250, 250])
    return [
        ("grey", Image.fromarray(array), "read as 8-bit grey"),
        ("1-bit", Image.fromarray(array > 0), "read as 1-bit"),
        ("16-bit", Image.fromarray(array.astype(np.uint16) * 257), "read as 16-bit grey"),
        ("rgb", Image.fromarray(np.dstack([array] * 3)), "read the luminance of RGB colour"),
        ("palette", palette, "read the luminance of palette colours"),
        ("alpha", Image.fromarray(rgba), "took the alpha channel: colour is constant"),
        ("opaque", Image.fromarray(opaque), "took the luminance: alpha is constant"),
        ("both", Image.fromarray(np.dstack([half] * 3 + [array])), "took luminance times alpha: both vary"),
        ("grey and alpha", Image.fromarray(np.dstack([array, array])), "took luminance times alpha: both vary"),
    ]


@pytest.mark.parametrize(("name", "picture", "said"), kinds(), ids=[kind[0] for kind in kinds()])
def test_every_kind_of_picture(name: str, picture: Image.Image, said: str, tmp_path: Path) -> None:
    path = tmp_path / "mask.png"
    picture.save(path)
    frame = Box(3, 4, 63, 44)
    for source in (path, str(path), path.read_bytes(), picture):
        mask, sentence = Mask.from_file(source, frame, name="m")
        assert mask == Mask.from_array(shape(), frame, (3, 4))
        assert sentence.startswith(f"m: {said}")
        assert "25.0 % white" in sentence


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    raw = Image.fromarray(shape())
    turn = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}.get(orientation)
    upright = raw if turn is None else raw.transpose(Image.Transpose(turn))
    mask, _ = Mask.from_file(content(raw, exif=exif), Box(0, 0, *upright.size))
    np.testing.assert_array_equal(mask.array(), np.asarray(upright))


def test_soft_values_are_counted() -> None:
    array = shape()
    array[0, :7] = [1, 100, 127, 128, 200, 254, 255]
    mask, sentence = Mask.from_file(Image.fromarray(array), None, name="m.png")
    assert mask.array()[0, :7].tolist() == [0, 0, 0, 255, 255, 255, 255]
    assert sentence == "m.png: read as 8-bit grey; 25.2 % white; 6 soft values thresholded at 128"


def test_zeros_and_ones_are_said_to_select_nothing() -> None:
    mask, sentence = Mask.from_file(Image.fromarray((shape() > 0).astype(np.uint8)))
    assert mask.is_empty
    assert sentence.endswith("nothing selected, because the brightest value is 1 of 255")


def test_a_mask_of_another_size() -> None:
    picture = Image.fromarray(shape())
    with pytest.raises(MaskError, match=r"^m\.png: the mask is 60x40 but the photo is 120x80; --fit-mask resizes"):
        Mask.from_file(picture, Box(0, 0, 120, 80), name="m.png")
    mask, sentence = Mask.from_file(picture, Box(0, 0, 120, 80), fit=True)
    np.testing.assert_array_equal(mask.array(), shape().repeat(2, 0).repeat(2, 1))
    assert "resized from 60x40 to 120x80 by nearest pixel" in sentence
    assert "shape changed" not in sentence
    assert "shape changed: 1.500 to 1.000" in Mask.from_file(picture, Box(0, 0, 50, 50), fit=True)[1]


def test_unreadable_files(tmp_path: Path) -> None:
    good = content(Image.fromarray(np.random.default_rng(0).integers(0, 255, (99, 99), np.uint8)))
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "short.png").write_bytes(good[:600])
    (tmp_path / "empty.png").write_bytes(b"")
    # A GIF of 65535 x 66601 pixels declared in its header.
    (tmp_path / "bomb.gif").write_bytes(
        b"GIF89a\xff\xff\xff\xff\x00\x00\x00,\x00\x00\x00\x00\xff\xff\xff\xff\x00\x02\x00;"
    )
    limit = Image.MAX_IMAGE_PIXELS
    for name in ("text.png", "short.png", "empty.png", "bomb.gif", "missing.png", "."):
        with pytest.raises(MaskError) as caught:
            Mask.from_file(tmp_path / name, name="it")
        assert str(caught.value).startswith("it: ")
        assert "\n" not in str(caught.value)
    assert Image.MAX_IMAGE_PIXELS == limit


@laws
@given(arrays(soft=True, most=60))
def test_saved_masks_come_back(array: np.ndarray) -> None:
    from tempfile import TemporaryDirectory

    mask = placed(array)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "mask.png"
        mask.save(path)
        with Image.open(path) as picture:
            assert picture.mode == ("1" if mask.is_hard else "L")
            np.testing.assert_array_equal(np.asarray(picture.convert("L")), array)
        assert Mask.from_file(path, mask.frame)[0] == mask.threshold()
        assert [entry.name for entry in Path(folder).iterdir()] == ["mask.png"]


def test_saving_overwrites_only_when_told(tmp_path: Path) -> None:
    mask = Mask.from_array(shape())
    path = tmp_path / "mask.png"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="already exists; name another output"):
        mask.save(path)
    assert path.read_bytes() == b"mine"
    mask.save(path, overwrite=True)
    assert Mask.from_file(path)[0] == mask
    with pytest.raises(OutputError, match="there is no folder"):
        mask.save(tmp_path / "no" / "mask.png")
    assert len(list(tmp_path.iterdir())) == 1
