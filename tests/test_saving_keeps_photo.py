"""Saving pastes new windows into the decoded photo and takes them out again: nobody may see them afterwards."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from picture_files import noise, pillow
from PIL import Image

from toolkit.dataset import work
from toolkit.dataset.inputs import Item
from toolkit.errors import FidelityError, ParameterError
from toolkit.geometry import Box
from toolkit.photo import Photo
from toolkit.photo.output import whole_file
from toolkit.recipe import Recipe
from toolkit.run import Run

FILES = {
    "JPEG": ("RGB", {}),
    "PNG": ("RGB", {}),
    "PNG with alpha": ("RGBA", {}),
    "PNG palette": ("P", {}),
    "TIFF": ("RGB", {}),
    "WEBP": ("RGB", {"lossless": True}),
    "BMP": ("RGB", {}),
}
BOX = Box(3, 2, 19, 14)


@pytest.fixture(params=[*FILES, "array of 16 bits"])
def photo(request: pytest.FixtureRequest) -> Photo:
    """A photo of each kind of raster."""
    if request.param not in FILES:
        return Photo.open(noise(3, np.uint16))
    mode, options = FILES[request.param]
    return Photo.open(pillow(mode, request.param.split()[0], **options))


def test_photo_is_what_it_was(photo: Photo) -> None:
    before = photo.array()
    window = before[BOX.slices] ^ np.array(1, before.dtype)
    stream = io.BytesIO()
    photo.save(stream, [(BOX, window), (BOX.grow(-3), before[BOX.grow(-3).slices])])
    assert np.array_equal(photo.array(), before)


def test_photo_is_what_it_was_after_a_failure(photo: Photo) -> None:
    before = photo.array()
    with pytest.raises(ParameterError):
        photo.save(io.BytesIO(), [(BOX, before[BOX.slices] // 2), (BOX, before[:1, :1])])
    assert np.array_equal(photo.array(), before)


def test_windows_may_be_read_from_the_photo_while_it_is_saved() -> None:
    photo = Photo.open(Image.fromarray(noise(3)))
    left, right = Box(0, 0, 9, 9), Box(9, 0, 18, 9)

    def swapped() -> list[tuple[Box, np.ndarray]]:
        return [(left, photo.crop(right)), (right, photo.crop(left))]

    stream = io.BytesIO()
    photo.save(stream, (window for window in swapped()))
    written = Photo.open(stream.getvalue())
    assert np.array_equal(written.crop(left), photo.crop(right))
    assert np.array_equal(written.crop(right), photo.crop(left))


def test_other_threads_see_only_the_photo() -> None:
    photo = Photo.open(noise(3, size=(900, 700)))
    before = photo.array()
    wrong, done = [], threading.Event()

    def read() -> None:
        while not done.is_set():
            if not np.array_equal(photo.crop(BOX), before[BOX.slices]):
                wrong.append(1)

    thread = threading.Thread(target=read)
    thread.start()
    for _ in range(5):
        photo.save(io.BytesIO(), [(BOX, 255 - before[BOX.slices])])
    done.set()
    thread.join()
    assert not wrong


def test_a_file_that_fails_its_check_never_takes_the_place_of_another(tmp_path: Path) -> None:
    """The check sees the written file, and the photo as it was."""
    path = tmp_path / "photo.png"
    Image.fromarray(noise(3)).save(path)
    owned = path.read_bytes()
    photo = Photo.open(path)
    before = photo.array()
    seen = []

    def refuse(written: Path) -> None:
        seen.append((Photo.open(written).crop(BOX), photo.crop(BOX)))
        raise FidelityError("no")

    with pytest.raises(FidelityError):
        photo.save(path, [(BOX, 255 - before[BOX.slices])], overwrite=True, check=refuse)
    ((written, kept),) = seen
    assert np.array_equal(written, 255 - before[BOX.slices])
    assert np.array_equal(kept, before[BOX.slices])
    assert path.read_bytes() == owned
    assert [one.name for one in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.skipif(os.name == "nt", reason="permission bits")
def test_nobody_else_can_read_the_file_while_it_is_written(tmp_path: Path) -> None:
    with whole_file(tmp_path / "new.png", overwrite=False, permissions=0o600):
        (temporary,) = tmp_path.iterdir()
        assert temporary.stat().st_mode & 0o077 == 0


def test_an_edit_in_place_that_would_break_the_promise_leaves_the_photo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.png"
    Image.fromarray(noise(3, size=(120, 120))).save(path)
    owned = path.read_bytes()

    def wrong(photo: Photo, other: Photo) -> Iterator[tuple[Box, np.ndarray]]:
        yield photo.box, np.ones((photo.size.height, photo.size.width), bool)

    monkeypatch.setattr(work, "differences", wrong)
    edit = work.EditWork(
        Recipe.load("remove-object"),
        work.Output("remove-object", overwrite=True),
        {"box": ("40,40,60,60",), "model": "telea"},
    )
    with Run(workers=1) as run, pytest.raises(FidelityError, match="nothing was written"):
        edit(Item("photo", path, output=path), run)
    assert path.read_bytes() == owned
    assert [one.name for one in tmp_path.iterdir()] == ["photo.png"]
