"""The two weight-free fill engines: exact outside the hole, repeatable, honest about what they cannot do."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from skimage import data

from benchmarks.fill import metrics
from toolkit import cards
from toolkit.engines import FillJob, open_engine
from toolkit.engines.fill import patchmatch, telea
from toolkit.errors import EngineError
from toolkit.run import Run

Pixels = NDArray[np.uint8]
Fill = Callable[..., Pixels]
ENGINES: list[Any] = [pytest.param(patchmatch.fill_hole, id="patchmatch"), pytest.param(telea.fill_hole, id="telea")]


def texture(height: int, width: int, seed: int = 0) -> Pixels:
    """Smoothed noise in three channels with a gradient from top to bottom."""
    random = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(random.normal(0, 1, (height, width, 3)), (0, 0), 1.2)
    ramp = np.linspace(-40, 40, height)[:, None, None]
    return np.clip(128 + 90 * noise + ramp, 0, 255).astype(np.uint8)


def disc(height: int, width: int, radius: float, centre: tuple[float, float] | None = None) -> Pixels:
    """A round hole, 255 inside."""
    y, x = centre or ((height - 1) / 2, (width - 1) / 2)
    rows, columns = np.ogrid[:height, :width]
    return np.where((rows - y) ** 2 + (columns - x) ** 2 <= radius**2, 255, 0).astype(np.uint8)


@pytest.mark.parametrize("fill", ENGINES)
def test_known_pixels_keep_their_bytes_and_inputs_are_not_written(fill: Fill) -> None:
    picture, hole = texture(120, 150), disc(120, 150, 22)
    given_picture, given_hole = picture.copy(), hole.copy()
    picture.setflags(write=False)
    hole.setflags(write=False)
    filled = fill(picture, hole, None, 3)
    assert filled.shape == picture.shape
    assert filled.dtype == np.uint8
    assert (filled[hole == 0] == given_picture[hole == 0]).all()
    assert (filled[hole > 0] != given_picture[hole > 0]).any()
    assert (picture == given_picture).all()
    assert (hole == given_hole).all()


@pytest.mark.parametrize("fill", ENGINES)
def test_what_lies_under_the_hole_changes_nothing(fill: Fill) -> None:
    picture, hole = texture(90, 90), disc(90, 90, 15)
    painted = picture.copy()
    painted[hole > 0] = (255, 0, 255)
    assert (fill(picture, hole, None, 0)[hole > 0] == fill(painted, hole, None, 0)[hole > 0]).all()


@pytest.mark.parametrize("fill", ENGINES)
def test_an_empty_hole_returns_a_copy(fill: Fill) -> None:
    picture = texture(20, 30)
    filled = fill(picture, np.zeros((20, 30), np.uint8), None, 0)
    assert filled is not picture
    assert (filled == picture).all()


@pytest.mark.parametrize("fill", ENGINES)
def test_a_covered_window_is_an_error(fill: Fill) -> None:
    picture, all_of_it = texture(12, 9), np.full((12, 9), 255, np.uint8)
    with pytest.raises(EngineError, match=r"the mask covers the whole window \(9x12 pixels\), nothing to copy from"):
        fill(picture, all_of_it, None, 0)
    half = all_of_it.copy()
    half[:, :4] = 0
    with pytest.raises(EngineError, match="nothing to copy from"):
        fill(picture, half, 255 - half, 0)


@pytest.mark.parametrize("fill", ENGINES)
def test_blocked_pixels_are_neither_filled_nor_copied(fill: Fill) -> None:
    picture, hole = texture(140, 160), disc(140, 160, 20)
    blocked = np.zeros_like(hole)
    blocked[40:100, 70:110] = 255  # lies over half of the hole and beyond it
    painted = picture.copy()
    painted[blocked > 0] = (255, 0, 255)
    filled = fill(painted, hole, blocked, 0)
    assert (filled[blocked > 0] == (255, 0, 255)).all()
    other = picture.copy()
    other[blocked > 0] = (0, 255, 0)
    inside = (hole > 0) & (blocked == 0)
    assert (fill(other, hole, blocked, 0)[inside] == filled[inside]).all()
    assert (np.abs(filled[inside].astype(int) - (255, 0, 255)).max(axis=1) > 40).all()


@pytest.mark.heavy
def test_blocked_pixels_of_a_large_window_are_not_copied() -> None:
    picture, hole = texture(900, 1001), disc(900, 1001, 150)
    blocked = np.zeros_like(hole)
    blocked[300:640, 520:760] = 255
    picture[blocked > 0] = (255, 0, 255)
    filled = patchmatch.fill_hole(picture, hole, blocked, 0)
    inside = (hole > 0) & (blocked == 0)
    assert (np.abs(filled[inside].astype(int) - (255, 0, 255)).max(axis=1) > 40).all()
    assert (filled[~inside] == picture[~inside]).all()


@pytest.mark.parametrize("fill", ENGINES)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 20),
    share=st.floats(0.05, 0.95),
    seed=st.integers(-(2**40), 2**40),
    with_blocked=st.booleans(),
)
def test_tiny_windows(fill: Fill, height: int, width: int, share: float, seed: int, with_blocked: bool) -> None:
    random = np.random.default_rng(abs(seed))
    picture = random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    hole = np.where(random.random((height, width)) < share, 255, 0).astype(np.uint8)
    blocked = np.where(random.random((height, width)) < 0.2, 255, 0).astype(np.uint8) if with_blocked else None
    keep = (hole == 0) if blocked is None else (hole == 0) | (blocked > 0)
    if not keep.all() and not ((hole == 0) & (True if blocked is None else blocked == 0)).any():
        with pytest.raises(EngineError):
            fill(picture, hole, blocked, seed)
        return
    filled = fill(picture, hole, blocked, seed)
    assert (filled[keep] == picture[keep]).all()


@pytest.mark.parametrize("size", [(1, 40), (40, 1), (2, 2), (7, 200), (3, 3)])
@pytest.mark.parametrize("fill", ENGINES)
def test_narrow_windows_take_only_colours_near_the_known_ones(fill: Fill, size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), (180, 90, 40), np.uint8)
    hole = np.zeros(size, np.uint8)
    hole[size[0] // 3 : size[0] // 3 + 1, size[1] // 3 : size[1] // 2 + 1] = 255
    picture[hole > 0] = 0
    filled = fill(picture, hole, None, 0)
    assert np.abs(filled.astype(int) - (180, 90, 40)).max() <= 4


def test_the_seed_decides_alone_in_threads() -> None:
    picture, hole = texture(96, 96), disc(96, 96, 16)
    alone = {seed: patchmatch.fill_hole(picture, hole, None, seed) for seed in range(4)}
    assert any((alone[0] != alone[seed]).any() for seed in (1, 2, 3))
    together: dict[tuple[int, int], Pixels] = {}

    def work(seed: int) -> None:
        for turn in range(2):
            together[seed, turn] = patchmatch.fill_hole(picture, hole, None, seed)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(together) == 8
    assert all((filled == alone[seed]).all() for (seed, _), filled in together.items())


@pytest.mark.heavy
def test_another_process_makes_the_same_bytes() -> None:
    script = (
        "import hashlib, sys\n"
        "from tests.test_fill_engines import disc, texture\n"
        "from toolkit.engines.fill.patchmatch import fill_hole\n"
        "filled = fill_hole(texture(700, 640), disc(700, 640, 90), None, 11)\n"
        "sys.stdout.write(hashlib.sha256(filled.tobytes()).hexdigest())\n"
    )
    runs = [
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
        for _ in range(2)
    ]
    assert len(runs[0]) == 64
    assert runs[0] == runs[1]


def test_a_periodic_pattern_is_continued() -> None:
    rows, columns = np.mgrid[:200, :200]
    tiles = np.where((rows // 8 + columns // 8) % 2, 210, 40)
    picture = np.stack([tiles, tiles * 0.8, tiles * 0.5], 2).astype(np.uint8)
    hole = disc(200, 200, 30)
    filled = patchmatch.fill_hole(np.where(hole[..., None] > 0, 0, picture).astype(np.uint8), hole, None, 0)
    smooth = telea.fill_hole(picture, hole, None, 0)
    assert metrics.psnr(picture, filled, hole > 0) > max(18, metrics.psnr(picture, smooth, hole > 0) + 6)


@pytest.mark.heavy
def test_a_large_window_is_filled_at_full_sharpness() -> None:
    picture, hole = texture(1600, 1600), disc(1600, 1600, 250)
    shares: list[float] = []
    filled = patchmatch.fill_hole(picture, hole, None, 0, shares.append)
    assert (filled[hole == 0] == picture[hole == 0]).all()
    assert 0.8 < metrics.grad(picture, filled, hole > 0) < 1.15
    assert shares == sorted(shares)
    assert shares[-1] == 1.0


@pytest.mark.parametrize("name", ["brick", "grass", "gravel"])
def test_texture_is_nearer_to_the_truth_than_telea(name: str) -> None:
    picture = cv2.cvtColor(getattr(data, name)(), cv2.COLOR_GRAY2BGR)[:360, :360]
    hole = disc(360, 360, 48)
    near, smooth = patchmatch.fill_hole(picture, hole, None, 0), telea.fill_hole(picture, hole, None, 0)
    distances = [metrics.swd(picture, filled, hole > 0) for filled in (near, smooth)]
    assert distances[0] < 0.5 * distances[1]
    assert metrics.grad(picture, near, hole > 0) > 0.7


def test_progress_may_stop_the_work() -> None:
    def stop(share: float) -> None:
        raise InterruptedError(f"at {share}")

    with pytest.raises(InterruptedError):
        patchmatch.fill_hole(texture(64, 64), disc(64, 64, 9), None, 0, stop)


def test_a_missing_native_library_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import patchmatch as native

    monkeypatch.setattr(native, "patchmatch_available", False)
    with pytest.raises(EngineError, match="native library did not load"):
        patchmatch.fill_hole(texture(32, 32), disc(32, 32, 5), None, 0)


@pytest.mark.parametrize("place", [(210, 210), (120, 690)])
@pytest.mark.parametrize("name", ["telea", "patchmatch"])
def test_parts_whose_surroundings_meet_are_all_filled(name: str, place: tuple[int, int]) -> None:
    """A part's surroundings reach into another part, which must not come back unfilled."""
    hole = np.zeros((760, 760), np.uint8)
    hole[300:600, 300:600] = 255
    hole[place[0] : place[0] + 20, place[1] : place[1] + 20] = 255
    picture = texture(760, 760) // 2
    picture[hole > 0] = (255, 0, 255)
    card = cards.find("fill", name)
    with Run(workers=1) as run:
        job = FillJob(picture, hole, np.zeros_like(hole))
        (result,) = open_engine(card).fill([job], run)
    assert not (result.images[0][hole > 0] == (255, 0, 255)).all(axis=1).any()
    assert (result.images[0][hole == 0] == picture[hole == 0]).all()
