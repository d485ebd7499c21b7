"""200 predictions of 5 s at concurrency 64, against the scripted stand-in in a process of its own on this machine.

What is ours in it: threads, journal, limits. Encoding and decoding the pictures is measured apart and taken off, and
what httpx takes for the exchanges is told apart. One prediction goes before, of another size so that nothing is learnt
of how long they take: loading the libraries costs the same for one as for 200.
The stand-in shares the processor, so that a busy or small machine makes the wall clock worse than it is.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import httpx
import numpy as np
import psutil
from pydantic import SecretStr

from benchmarks.measure import Row, load, say
from tests.wavespeed_server import ServerProcess
from toolkit import cards
from toolkit.engines import FillJob
from toolkit.engines.fill import wavespeed
from toolkit.journal import Journal
from toolkit.limits import Limits
from toolkit.run import Run
from toolkit.wavespeed import PACE, traffic
from toolkit.wavespeed.client import Client
from toolkit.wavespeed.tasks import Tasks

KEY = "test-key"
MODEL = "wavespeed-ai/flux-fill-dev"


def jobs(count: int, side: int) -> Iterator[FillJob]:
    """Windows that differ, as smooth and as noisy as photos are."""
    draw = np.random.default_rng(0)
    mask = np.zeros((side, side), np.uint8)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 255
    for number in range(count):
        small = draw.integers(0, 255, (16, 16, 3), dtype=np.uint8)
        pixels = cv2.resize(small, (side, side), interpolation=cv2.INTER_CUBIC)
        own = mask.copy()
        own[0, number] = 255
        yield FillJob(pixels, own, np.zeros_like(mask), "a bench", (number,), {}, ("bench", "1"), f"window {number}")


@contextmanager
def spent(owner: ModuleType | type, *names: str) -> Iterator[dict[str, float]]:
    """CPU seconds of this process's threads in some functions of a module."""
    taken = {"seconds": 0.0}
    lock = threading.Lock()
    before = {name: getattr(owner, name) for name in names}

    def timed(function: Any) -> Any:
        def call(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*arguments)
            finally:
                with lock:
                    taken["seconds"] += time.thread_time() - began

        return call

    for name, function in before.items():
        setattr(owner, name, timed(function))
    try:
        yield taken
    finally:
        for name, function in before.items():
            setattr(owner, name, function)


def plain(url: str, rounds: int = 40) -> float:
    """CPU seconds of the least traffic a prediction needs, by an `httpx.Client` and nothing else, one after the other.

    Two tickets, two uploads, a submission, two polls and a download.
    """
    ticket = {"filename": "image.png", "size": 9, "content_type": "image/png"}
    key = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=url, headers={"Accept-Encoding": "identity"}, trust_env=False) as client:

        def prediction() -> None:
            pictures = []
            for _ in range(2):
                given = client.post("/api/v3/media/uploads", json=ticket, headers=key).json()["data"]
                place = given["upload"]
                client.put(place["url"], content=b"not a PNG", headers=place["headers"]).raise_for_status()
                pictures.append(given["download_url"])
            inputs = {
                "image": pictures[0],
                "mask_image": pictures[1],
                "prompt": "a bench",
                "size": "256*256",
                "seed": 1,
            }
            sent = client.post(f"/api/v3/{MODEL}", json=inputs, headers=key).json()["data"]["id"]
            for _ in range(2):
                client.get(f"/api/v3/predictions/{sent}/result", headers=key).raise_for_status()
            client.get(output).raise_for_status()

        listed = client.post("/api/v3/predictions", json={"page": 1, "page_size": 100}, headers=key).json()["data"]
        output = next(url for one in listed["items"] for url in one.get("outputs") or () if url)
        prediction()
        began = time.process_time()
        for _ in range(rounds):
            prediction()
        return (time.process_time() - began) / rounds


def main(count: int = 200, seconds: float = 5.0, concurrent: int = 64, side: int = 256) -> list[Row]:
    """The rows of the table."""
    cv2.setNumThreads(1)
    card = cards.find("fill", "wavespeed-flux-fill-dev")
    engine = wavespeed.Engine(card)
    process = psutil.Process()
    with (
        ServerProcess(seconds=seconds) as server,
        tempfile.TemporaryDirectory() as name,
        spent(wavespeed, "_png", "_read") as coded,
        spent(traffic.Traffic, "_exchanged") as exchanged,
    ):
        folder = Path(name)
        journal = Journal(folder)
        limits = Limits(folder, "benchmark", PACE["gold"][0], concurrent)
        tasks = Tasks(Client(server.url, SecretStr(KEY)), journal, limits, "benchmark")
        with Run(journal=journal, workers=1) as run:
            given = list(jobs(count, side))
            memory: list[int] = []
            done = 0

            def one(job: FillJob) -> int:
                nonlocal done
                answer = tasks.get(engine._order(job), run)
                assert answer.pictures[0].shape == job.pixels.shape
                done += 1
                if done % concurrent == 0 or done == count:
                    memory.append(process.memory_info().rss)
                return len(answer.pictures)

            tasks.get(engine._order(next(jobs(1, side + 16))), run)
            first, coded["seconds"], exchanged["seconds"] = server.state(), 0.0, 0.0
            with ThreadPoolExecutor(concurrent + wavespeed.AHEAD) as threads:
                cpu, wall = time.process_time(), time.perf_counter()
                assert sum(threads.map(one, given)) == count
                wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        state = server.state()
        alone = plain(server.url)
        journal.close()
    ideal = -(-count // concurrent) * seconds
    pictures, library = (each["seconds"] / count * 1000 for each in (coded, exchanged))
    whole = cpu / count * 1000
    beyond = whole - pictures
    polls = (state["counts"]["poll"] - first["counts"]["poll"]) / count
    grown = (max(memory[1:]) - memory[0]) / 2**20 if len(memory) > 1 else 0.0
    assert state["accepted_once"]
    assert len(state["accepted"]) == count + 1
    say(f"{count} predictions of {seconds:g} s at {concurrent}, windows of {side}x{side}, {load()}")
    say(f"requests {state['counts']}, most at once {state['most_unfinished']}, {os.cpu_count()} cores")
    say(f"CPU {whole:.2f} ms a call: pictures {pictures:.2f}, httpx {library:.2f}, ours {beyond - library:.2f}")
    say(f"the least traffic of a prediction by httpx.Client, hot in one thread: {alone * 1000:.2f} ms")
    ratio = wall / ideal
    return [
        Row("hosted fill: wall clock", f"{wall:.2f} s", f"ideal {ideal:g} s", f"{ratio:.3f}", "<= 1.05", ratio <= 1.05),
        Row("hosted fill: CPU a call beyond pictures", f"{beyond:.2f} ms, ours {beyond - library:.2f}",
            f"httpx {library:.2f} ms", "", "<= 5 ms", beyond <= 5),
        Row("hosted fill: polls a prediction", f"{polls:.2f}", "", "", "<= 3", polls <= 3),
        Row("hosted fill: memory after the first round", f"{grown:+.1f} MiB", "", "", "flat", grown < 16),
    ]  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--concurrent", type=int, default=64)
    parser.add_argument("--side", type=int, default=256)
    for row in main(**vars(parser.parse_args())):
        say(str(row))
