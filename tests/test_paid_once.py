"""Killed at every step, run twice at once, and disturbed at random: a job is never submitted twice."""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from wavespeed_server import Server

from tests.mortals import Mortals
from tests.paid import key_written
from toolkit.journal import Journal

pytestmark = pytest.mark.skipif(not hasattr(os, "fork") or sys.platform == "darwin", reason="forks")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photo.png"
    noise = np.random.default_rng(3).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    cv2.imwrite(str(path), cv2.resize(noise, (280, 260), interpolation=cv2.INTER_CUBIC))
    return path


@pytest.fixture
def mortals(service: Server, tmp_path: Path, photo: Path) -> Iterator[Mortals]:
    with Mortals(tmp_path, service.url, photo) as made:
        yield made


class Watch:
    """What the stand-in accepted since the last look."""

    def __init__(self, service: Server) -> None:
        self.service, self.seen = service, 0

    def accepted(self) -> int:
        before, self.seen = self.seen, len(self.service.accepted)
        return self.seen - before


def states(mortals: Mortals, name: str) -> list[str]:
    journal = Journal(mortals.state(name))
    return [job.state for run in journal.runs() for job in journal.run(run.id).jobs if job.kind == "fill"]


def undisturbed(mortals: Mortals) -> tuple[int, bytes]:
    """Steps that a run takes, and its picture."""
    said = mortals.run("undisturbed")
    assert said.startswith("done "), said
    return int(said.split()[1]), mortals.out("undisturbed").read_bytes()


def killed(mortals: Mortals, name: str, step: int) -> None:
    """Let a run die at a step; one that asked less often how far the task is has fewer steps, and ends before."""
    said = mortals.run(name, step)
    assert said == "killed 9" or (said.startswith("done ") and int(said.split()[1]) < step), (step, said)


def killed_and_run_again(service: Server, mortals: Mortals, steps: list[int], picture: bytes) -> None:
    watch = Watch(service)
    watch.accepted()
    for step in steps:
        name = f"step {step}"
        killed(mortals, name, step)
        said = mortals.run(name)
        assert said.startswith("done "), (step, said)
        assert mortals.out(name).read_bytes() == picture, step
        assert watch.accepted() == 1, step
        assert key_written(mortals.state(name)) == []


def test_killed_at_some_steps(service: Server, mortals: Mortals) -> None:
    count, picture = undisturbed(mortals)
    killed_and_run_again(service, mortals, [count // 2, count * 2 // 3, count * 3 // 4], picture)


@pytest.mark.heavy
def test_killed_at_every_step(service: Server, mortals: Mortals) -> None:
    count, picture = undisturbed(mortals)
    killed_and_run_again(service, mortals, list(range(1, count + 1)), picture)


def killed_without_a_list(service: Server, mortals: Mortals, steps: list[int], picture: bytes) -> set[str]:
    watch = Watch(service)
    watch.accepted()
    found = set()
    for step in steps:
        name = f"step {step}"
        killed(mortals, name, step)
        for _ in range(2):
            said = mortals.run(name)
            found.add(said.split()[0])
            if said.startswith("done "):
                assert mortals.out(name).read_bytes() == picture, step
                assert states(mortals, name) == ["done"]
            else:
                assert "perhaps paid" in said
                assert states(mortals, name) == ["unknown"]
                assert not mortals.out(name).exists()
        assert watch.accepted() <= 1, step
    return found


def test_killed_at_some_steps_without_a_list(service: Server, mortals: Mortals) -> None:
    count, picture = undisturbed(mortals)
    service.fault("list", 404, times=None)
    killed_without_a_list(service, mortals, [count * 5 // 8, count * 3 // 4], picture)


@pytest.mark.heavy
def test_killed_at_every_step_without_a_list(service: Server, mortals: Mortals) -> None:
    count, picture = undisturbed(mortals)
    service.fault("list", 404, times=None)
    assert killed_without_a_list(service, mortals, list(range(1, count + 1)), picture) == {"done", "error"}


@pytest.mark.parametrize("seed", [pytest.param(k, marks=[pytest.mark.heavy] if k else []) for k in range(6)])
def test_killed_at_random_times_again_and_again(service: Server, mortals: Mortals, seed: int) -> None:
    count, picture = undisturbed(mortals)
    draw = random.Random(seed)
    watch = Watch(service)
    watch.accepted()
    for name in "abc" if seed else "a":
        for _ in range(4):
            if draw.random() < 0.5:
                mortals.run(name, draw.randrange(1, count))
            else:
                pid = mortals.begin(name)
                time.sleep(draw.uniform(0, 1))
                os.kill(pid, signal.SIGKILL)
                mortals.end(pid)
        said = mortals.run(name)
        assert said.startswith("done "), said
        assert mortals.out(name).read_bytes() == picture
        assert watch.accepted() == 1


def test_two_processes_run_the_same_at_once(service: Server, mortals: Mortals) -> None:
    _, picture = undisturbed(mortals)
    before = service.counts["submit"]
    service.set(seconds=0.5)
    pids = [mortals.begin("both") for _ in range(3)]
    assert all(mortals.end(pid).startswith("done ") for pid in pids)
    assert service.counts["submit"] == before + 1
    assert mortals.out("both").read_bytes() == picture


def test_one_of_two_is_killed_while_the_other_waits(service: Server, mortals: Mortals) -> None:
    _, picture = undisturbed(mortals)
    before = service.counts
    service.fault("submit", "slow", seconds=30)
    first = mortals.begin("both")
    service.wait(lambda server: len(server.accepted) == 2)
    second = mortals.begin("both")
    time.sleep(0.3)
    os.kill(first, signal.SIGKILL)
    assert mortals.end(first) == "killed 9"
    assert mortals.end(second).startswith("done ")
    assert (service.counts - before)["submit"] == 1
    assert mortals.out("both").read_bytes() == picture
