"""Runs: what edits share, budget, cancellation, and the same bytes with any number of workers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
import pytest
from jobs import StandIn, card, job, stepwise

from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.errors import Cancelled, EngineError, ParameterError, UnknownNameError
from toolkit.geometry import Price
from toolkit.journal import Journal
from toolkit.recipe import Recipe
from toolkit.run import Budget, Run, draw_seed


def photo(height: int = 80, width: int = 120, seed: int = 0) -> np.ndarray:
    """Ground with grain and a step, which a fill can be seen against."""
    random = np.random.default_rng(seed)
    picture = random.integers(90, 120, (height, width, 3), np.uint8)
    picture[height // 2 :] += 60
    return picture


def hole(height: int = 80, width: int = 120) -> np.ndarray:
    mask = np.zeros((height, width), np.uint8)
    mask[30:50, 40:60] = 255
    mask[5:15, 100:110] = 255
    return mask


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers() -> None:
    recipe = Recipe.load("remove-object")
    answers = []
    for count in (1, 2, 4):
        with Run(workers=count, seed=5) as run:
            edit = recipe(photo(), run, mask=hole(), model="patchmatch", num_images=2)
            assert {stack.seeds for stack in edit.stacks} == {(5,), (6,)}
            ranked = sorted(range(2), key=lambda k: edit.stacks[k].seeds)
            answers.append([edit.array(k) for k in ranked])
            if count == 2:
                alone = recipe(photo(), run, mask=hole(), model="patchmatch", seed=6).array()
    for other in answers[1:]:
        for one, same in zip(answers[0], other, strict=True):
            assert np.array_equal(one, same)
    assert not np.array_equal(*answers[0]), "another seed gives another answer"
    assert np.array_equal(alone, answers[0][1]), "variation k is what seed + k gives alone"


def test_children_share_and_differ() -> None:
    told: list[tuple[str, float]] = []
    with Run(seed=7, workers=1, progress=lambda name, share: told.append((name, share))) as run:
        child, other = run.child("a.jpg"), run.child("b.jpg", seed=9)
        assert (child.seed, other.seed) == (7, 9)
        assert child.journal is run.journal
        assert child.budget is other.budget
        child.progress("fill", 1.7)
        child.child("window").progress("", -1)
        child.cancel()
        assert child.cancelled()
        assert child.child("x").cancelled()
        assert not other.cancelled()
        assert not run.cancelled()
        with pytest.raises(Cancelled):
            child.check()
        run.cancel()
        assert other.cancelled()
    assert told == [("a.jpg: fill", 1.0), ("window", 0.0)]


def test_compute_works_in_a_process_and_tells_progress() -> None:
    told: list[tuple[str, float]] = []
    with Run(workers=1, progress=lambda name, share: told.append((name, share))) as run:
        assert run.compute(os.getpid) != os.getpid()
        assert run.compute(stepwise, 2, name="steps") == 2
    assert told == [("steps", 0.5), ("steps", 1.0)]


def test_compute_is_cancelled_before_it_ends() -> None:
    with Run(workers=1) as run:
        run.compute(abs, 1)
        child = run.child("one")
        threading.Timer(0.2, child.cancel).start()
        with pytest.raises(Cancelled):
            child.compute(time.sleep, 3600)
        assert run.compute(abs, -3) == 3
    assert not [child for child in psutil.Process().children() if "toolkit.workers" in child.cmdline()]


def test_a_budget_refuses_what_would_pass_it() -> None:
    class Paid(StandIn):
        def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
            run.reserve(0.05 * sum(len(job.seeds) for job in jobs))
            yield from super().fill(jobs, run)

    engine = Paid()
    paid = card("paid", price=Price(0.05), in_flight=2)
    with Run(workers=1, max_cost=0.12, engines={"paid": (paid, engine)}) as run:
        list(run.fill(paid, [job(seeds=(1, 2))]))
        assert run.budget.spent == pytest.approx(0.10)
        with pytest.raises(EngineError) as caught:
            list(run.child("other").fill(paid, [job()]))
        assert str(caught.value) == "the limit of $0.12 would be passed: $0.1 spent or under way, $0.05 more asked for"
        assert len(engine.jobs) == 1
        run.budget.release(0.05)
        list(run.fill(paid, [job()]))


def test_a_budget_that_got_everything_back_has_spent_nothing() -> None:
    budget = Budget()
    for price in (0.1, 0.2):
        budget.reserve(price)
    for price in (0.1, 0.2):
        budget.release(price)
    assert budget.spent == 0.0


def test_what_is_still_under_way_when_a_run_has_ended_begins_no_other() -> None:
    journal = Journal()
    with Run(workers=1, journal=journal) as run:
        child = run.child("photo")
        name = child.id
        run.end("failed")
        for one in (run, child):
            with pytest.raises(Cancelled):
                _ = one.id
    assert [(one.id, one.state) for one in journal.runs()] == [(name, "failed")]


def test_a_budget_is_never_passed_by_many_at_once() -> None:
    budget = Budget(1.0)
    start = threading.Barrier(40)
    refused = []

    def spend() -> None:
        start.wait()
        try:
            budget.reserve(0.05)
        except EngineError:
            refused.append(1)

    threads = [threading.Thread(target=spend) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert budget.spent == pytest.approx(1.0)
    assert len(refused) == 20


def test_what_is_allotted_is_spent_by_its_calls_and_the_rest_given_back() -> None:
    with Run(workers=1, max_cost=1.0) as run:
        with run.allotted(0.6) as photo:
            with pytest.raises(EngineError):
                run.reserve(0.5)
            photo.reserve(0.2)
            photo.release(0.2)  # it was refused, and is asked again
            photo.reserve(0.2)
            photo.reserve(0.2)
            assert run.budget.spent == pytest.approx(0.6)
        assert run.budget.spent == pytest.approx(0.4)
        photo.release(0.2)  # a call that was given up ends later
        photo.reserve(0.3)
        assert run.budget.spent == pytest.approx(0.5)
        with pytest.raises(EngineError, match=r"the limit of \$1 would be passed"), run.allotted(0.6):
            pytest.fail("was allotted")
        assert run.budget.spent == pytest.approx(0.5)


def test_an_allotment_takes_more_than_was_set_aside_only_within_the_limit() -> None:
    with Run(workers=1, max_cost=1.0) as run, run.allotted(0.5) as photo:
        photo.reserve(0.7)
        with pytest.raises(EngineError):
            photo.reserve(0.4)
        photo.reserve(0.3)
        assert run.budget.spent == pytest.approx(1.0)


def test_engines_given_are_found_by_name_and_task() -> None:
    given = card("mine")
    with Run(workers=1, engines={"mine": (given, StandIn())}) as run:
        assert run.card("fill", "mine") is given
        assert run.card("fill").name == "patchmatch"
        with pytest.raises(UnknownNameError):
            run.card("segment", "mine")
        with pytest.raises(UnknownNameError, match=r"no fill model 'patchmach'; did you mean 'patchmatch'\?"):
            run.card("fill", "patchmach")


def test_drawn_seeds_are_seeds() -> None:
    drawn = {draw_seed() for _ in range(20)}
    assert len(drawn) == 20
    assert all(0 <= seed < 2**31 for seed in drawn)


_SCRIPT = """
import sys, numpy as np, toolkit
picture = np.random.default_rng(0).integers(0, 255, (80, 90, 3), np.uint8)
edit = toolkit.Recipe([toolkit.Select(mask=np.pad(np.full((9, 9), 255, np.uint8), ((30, 41), (30, 51)))),
    toolkit.Crop(model="patchmatch"), toolkit.Fill(model="patchmatch"), toolkit.Composite()])(picture)
print((edit.array() != picture).any(axis=2).sum() > 0)
"""


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(_SCRIPT)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=90, env=environment)
    assert (done.stdout, done.stderr) == ("True\n", "")


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_ctrl_c_ends_a_script_and_its_workers() -> None:
    script = "import time\nfrom toolkit.run import Run\nwith Run(workers=1) as run:\n    run.compute(abs, 1)\n"
    script += "    print('ready', flush=True)\n    run.compute(time.sleep, 3600)\n"
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as parent:
        assert parent.stdout
        assert parent.stdout.readline() == "ready\n"
        workers = psutil.Process(parent.pid).children()
        time.sleep(0.3)
        parent.send_signal(signal.SIGINT)
        parent.wait(60)
    psutil.wait_procs(workers, timeout=30)
    assert not any(worker.is_running() for worker in workers)


@pytest.mark.parametrize("device", ["tpu", "gpu", "cuda:", "cuda:x", "", "CPU"])
def test_a_device_nobody_knows_is_refused(device: str) -> None:
    with pytest.raises(ParameterError, match=r"^device '.*': expected auto, cpu, cuda, cuda:0 or mps$"):
        Run(device=device)
