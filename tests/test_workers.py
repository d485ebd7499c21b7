"""Worker processes: answers, errors, progress, crashes, cancellation; nothing is left behind."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import jobs
import psutil
import pytest

from toolkit.errors import Cancelled, EngineError, UnknownNameError
from toolkit.workers import Pool


@pytest.fixture
def pool() -> Iterator[Pool]:
    one = Pool(2)
    yield one
    one.close()
    assert not children()


def children() -> list[psutil.Process]:
    found = psutil.Process().children(recursive=True)
    return [child for child in found if "toolkit.workers" in child.cmdline()]


def test_answers_and_errors_come_back(pool: Pool) -> None:
    assert [pool.submit(divmod, n, 3) for n in range(5)][4].result() == (1, 1)
    with pytest.raises(ZeroDivisionError):
        pool.submit(divmod, 1, 0).result()
    assert pool.submit(os.getpid).result() != os.getpid()


@pytest.mark.parametrize(
    ("function", "kind", "sentence"),
    [
        (jobs.raise_unknown, UnknownNameError, "here: no thing 'appel'; did you mean 'apple'?"),
        (jobs.raise_stubborn, EngineError, "Stubborn: one and two"),
        (jobs.raise_end_of_file, EOFError, "the file ended"),
        (jobs.raise_broken_pipe, BrokenPipeError, "of the function's own"),
        (jobs.unsendable, EngineError, "the answer of a worker cannot be sent: cannot pickle '_thread.lock' object"),
    ],
)
def test_errors_are_what_they_were(pool: Pool, function: object, kind: type[Exception], sentence: str) -> None:
    process = pool.submit(os.getpid).result()
    with pytest.raises(kind) as caught:
        pool.submit(function).result()  # type: ignore[arg-type]
    assert str(caught.value) == sentence
    assert pool.submit(os.getpid).result() == process, "an error ends no process"


def test_a_job_that_cannot_be_sent_fails_alone(pool: Pool) -> None:
    with pytest.raises((AttributeError, TypeError)):
        pool.submit(repr, threading.Lock()).result()
    assert pool.submit(abs, -1).result() == 1


def test_progress_is_told_in_order(pool: Pool) -> None:
    told: list[float] = []
    assert pool.submit(jobs.stepwise, 4, progress=told.append).result() == 4
    assert told == [0.25, 0.5, 0.75, 1.0]


def test_what_a_library_prints_is_no_answer(pool: Pool) -> None:
    assert pool.submit(jobs.talk).result() == "heard"


@pytest.mark.parametrize(
    ("function", "argument", "sentence"),
    [
        (os._exit, 3, "a worker process crashed (exit code 3); the job was not finished"),
        (signal.raise_signal, signal.SIGSEGV, "a worker process crashed (exit code -11); the job was not finished"),
        (signal.raise_signal, signal.SIGTERM,
         "a worker process was ended from outside (out of memory?); the job was not finished"),
    ],
)  # fmt: skip
@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_a_crash_fails_one_job_and_the_pool_goes_on(pool: Pool, function: object, argument: int, sentence: str) -> None:
    others = [pool.submit(abs, -n) for n in range(3)]
    crashing = pool.submit(function, argument)  # type: ignore[arg-type]
    later = [pool.submit(abs, -n) for n in range(3)]
    with pytest.raises(EngineError) as caught:
        crashing.result(timeout=30)
    assert str(caught.value) == sentence
    assert [one.result(timeout=30) for one in others + later] == [0, 1, 2, 0, 1, 2]


def meet(folder: str, name: str, other: str) -> bool:
    """Whether the other job runs while this one does."""
    (Path(folder) / name).touch()
    for _ in range(6000):
        if (Path(folder) / other).exists():
            return True
        time.sleep(0.01)
    return False


def test_jobs_run_beside_each_other(pool: Pool, tmp_path: Path) -> None:
    met = [pool.submit(meet, str(tmp_path), name, other) for name, other in ("ab", "ba")]
    assert [one.result(timeout=90) for one in met] == [True, True]
    assert len(children()) == 2


def test_a_long_call_is_cancelled_before_it_ends(pool: Pool) -> None:
    pool.submit(abs, 1).result()
    long = pool.submit(time.sleep, 60)
    time.sleep(0.1)
    pool.cancel(long)
    with pytest.raises(Cancelled):
        long.result(timeout=30)
    assert pool.submit(abs, -2).result() == 2


def test_a_job_that_waits_is_cancelled_without_being_begun(pool: Pool) -> None:
    naps = [pool.submit(time.sleep, 0.3) for _ in range(2)]
    waiting = pool.submit(os._exit, 1)
    pool.cancel(waiting)
    assert waiting.cancelled()
    for nap in naps:
        assert nap.result() is None


def test_cancelling_a_finished_job_harms_no_other(pool: Pool) -> None:
    for _ in range(30):
        first, second = pool.submit(abs, -1), pool.submit(abs, -2)
        first.add_done_callback(lambda done: None)
        pool.cancel(first)
        assert second.result(timeout=10) == 2


def test_closing_ends_running_and_waiting_jobs_at_once() -> None:
    pool = Pool(1)
    pool.warm()
    running, waiting = pool.submit(time.sleep, 3600), pool.submit(abs, 1)
    time.sleep(0.2)
    pool.close()  # returns with the job unfinished
    with pytest.raises(Cancelled):
        running.result(timeout=1)
    assert waiting.cancelled()
    assert not children()
    with pytest.raises(Cancelled):
        pool.submit(abs, 1)


def test_a_warm_pool_that_was_never_used_leaves_nothing() -> None:
    pool = Pool(2)
    pool.warm()
    pool.warm()
    assert len(children()) == 1
    pool.close()
    assert not children()


def test_a_script_needs_no_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from toolkit.workers import Pool\n"
        "import os\n"
        "pool = Pool(2)\n"
        "answers = [pool.submit(abs, -n) for n in range(4)]\n"
        "print([answer.result() for answer in answers])\n"
        "pool.close()\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, env=environment)
    assert done.stdout == "[0, 1, 2, 3]\n"
    assert done.stderr == ""


def test_workers_end_with_a_killed_parent(tmp_path: Path) -> None:
    script = (
        "import os, time\n"
        "from toolkit.workers import Pool\n"
        "pool = Pool(1)\n"
        "print(pool.submit(os.getpid).result(), flush=True)\n"
        "time.sleep(60)\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout
        worker = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    worker.wait(timeout=30)


def test_a_worker_that_cannot_be_started_fails_its_job_and_the_pool_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    pool = Pool(1)
    try:
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", refuse)
            with pytest.raises(EngineError, match="cannot be started .Resource temporarily unavailable"):
                pool.submit(abs, -1).result(timeout=10)
        assert pool.submit(abs, -2).result(timeout=30) == 2
    finally:
        pool.close()


def test_a_job_whose_worker_is_still_being_started_is_cancelled_too(monkeypatch: pytest.MonkeyPatch) -> None:
    pool, starting, begin = Pool(1), threading.Event(), threading.Event()
    start = pool._new

    def slowly() -> object:
        starting.set()
        begin.wait(10)
        return start()

    monkeypatch.setattr(pool, "_new", slowly)
    try:
        job = pool.submit(time.sleep, 60)
        assert starting.wait(10)
        pool.cancel(job)
        begin.set()
        with pytest.raises(Cancelled):
            job.result(timeout=10)
        assert pool.submit(abs, -2).result(timeout=30) == 2
    finally:
        begin.set()
        pool.close()
