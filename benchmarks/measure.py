"""What benchmarks share: pictures made of scikit-image's, CPU seconds, peak memory, and the rows of the table.

A benchmark is a module or package here with `main() -> list[Row] | None`; `python -m benchmarks` runs all of them.
"""

from __future__ import annotations

import os
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import psutil
import skimage.data
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
COLOURED = ("astronaut", "coffee", "rocket", "cat")


@dataclass(frozen=True)
class Row:
    """One line of the table; figures carry their unit, `kept` is None where nothing was promised."""

    what: str
    ours: str
    rival: str = ""
    ratio: str = ""
    promise: str = ""
    kept: bool | None = None


@dataclass(frozen=True)
class Cost:
    """The least of several runs, in seconds: `cpu` of all threads of this process, `wall` by the clock."""

    cpu: float
    wall: float


def costs(jobs: dict[str, Callable[[], Any]], runs: int) -> dict[str, Cost]:
    """What each job costs at least; the jobs take turns, so that a busy machine disturbs all of them alike."""
    best: dict[str, Cost] = {}
    for _ in range(runs):
        for name, job in jobs.items():
            wall, cpu = time.perf_counter(), time.process_time()
            job()
            cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
            known = best.get(name, Cost(cpu, wall))
            best[name] = Cost(min(known.cpu, cpu), min(known.wall, wall))
    return best


def peak(job: Callable[[], Any]) -> tuple[float, float]:
    """Megabytes above the start while `job` runs: traced (Python and numpy), and resident (everything), sampled.

    Resident memory counts only what is new to the process: ask in a fresh one.
    """
    with resident() as highest:
        result = job()
    del result
    tracemalloc.start()
    result = job()
    traced = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    del result
    return traced / 1e6, highest.alone / 1e6


@dataclass
class Resident:
    """The most resident bytes above the start: of this process `alone`, and `together` with its workers."""

    alone: int = 0
    together: int = 0


@contextmanager
def resident() -> Iterator[Resident]:
    """Memory while the block runs, sampled; pages that processes share count in each."""
    own, done, highest = psutil.Process(), threading.Event(), Resident()

    def now() -> tuple[int, int]:
        mine = own.memory_info().rss
        return mine, mine + sum(child.memory_info().rss for child in own.children())

    def watch() -> None:
        while not done.is_set():
            alone, together = now()
            highest.alone = max(highest.alone, alone - before[0])
            highest.together = max(highest.together, together - before[1])
            time.sleep(0.0005)

    before = now()
    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield highest
    finally:
        done.set()
        thread.join()


def cpu_seconds() -> float:
    """CPU seconds of this process and its living worker processes."""
    own = psutil.Process()
    total = 0.0
    for process in (own, *own.children(recursive=True)):
        times = process.cpu_times()
        total += times.user + times.system
    return total


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV on one thread inside the block."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)


def photo(width: int, height: int, seed: int = 0, grain: float = 5.0) -> Pixels:
    """A picture (height, width, 3) uint8 with the detail and grain of a camera's: enlarged pictures side by side."""
    random = np.random.default_rng(seed)
    side = max(512, width // 4)
    tiles = [
        cv2.resize(np.ascontiguousarray(getattr(skimage.data, name)()), (side, side), interpolation=cv2.INTER_CUBIC)
        for name in COLOURED
    ]
    rows = []
    for row in range(-(-height // side)):
        rows.append(np.hstack([tiles[(row + column) % len(tiles)] for column in range(-(-width // side))])[:, :width])
    picture = np.vstack(rows)[:height]
    for top in range(0, height, 256):  # in strips: a whole float copy of a large picture is large
        part = picture[top : top + 256]
        noise = cv2.GaussianBlur(random.standard_normal(part.shape, np.float32), (0, 0), 0.6) * grain
        picture[top : top + 256] = np.clip(np.rint(part + noise), 0, 255)
    return picture


def ellipse(width: int, height: int, size: tuple[int, int], centre: tuple[int, int] | None = None) -> Pixels:
    """A hard mask (height, width) with one ellipse of `size` = (width, height)."""
    mask = np.zeros((height, width), np.uint8)
    cv2.ellipse(mask, centre or (width // 2, height // 2), (size[0] // 2, size[1] // 2), 0, 0, 360, 255, -1)
    return mask


def load() -> str:
    """The machine's load when a figure was taken, where it is known."""
    if not hasattr(os, "getloadavg"):
        return "load unknown"
    return f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def say(line: str = "") -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
