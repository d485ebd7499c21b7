"""The command as a process among others: signals, terminals, closed streams, what is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import PYTHON, environment, execute, make_pictures, start
from PIL import Image

from toolkit.photo import Photo

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals and terminals of another kind")

MASK = ("--mask", "m.png", "-m", "telea")


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("INPAINT_CONFIG", str(tmp_path / "none"))
    make_pictures()


def make_slow() -> tuple[str, ...]:
    """A photo whose filling takes many seconds, and the arguments for it."""
    Path("slow").mkdir()
    random = np.random.default_rng(0)
    Image.fromarray(random.integers(0, 255, (1400, 1800, 3), np.uint8)).save("slow/p.png", compress_level=1)
    mask = np.zeros((1400, 1800), np.uint8)
    mask[200:1200, 200:1600] = 255
    Image.fromarray(mask).save("slow.png")
    return ("remove-object", "slow/p.png", "--mask", "slow.png", "--num-images", "8")


def busy(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    """The workers of a command, once one of them computes."""
    parent = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        workers = parent.children(recursive=True)
        if any(worker.cpu_times().user > 1.0 for worker in workers):
            return workers
        time.sleep(0.05)
    raise AssertionError(f"no worker was busy: {process.communicate()}")


def wait_for_end(workers: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(workers, timeout=60)
    assert not alive


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_and_leaves_nothing(number: signal.Signals) -> None:
    process = start(*make_slow(), "-o", "out/x.png")
    workers = busy(process)
    process.send_signal(number)
    time.sleep(0.05)
    process.send_signal(signal.SIGINT)  # people press it twice
    out, err = process.communicate(timeout=120)  # how long it takes stands in benchmarks/cancel.py
    assert process.returncode == 130
    assert out == b""
    assert err.decode() == "inpaint: cancelled; photos already written stay, nothing half-written is left\n"
    wait_for_end(workers)
    assert [path.name for path in Path("slow").iterdir()] == ["p.png"]
    assert not Path("out").exists()


def test_photos_already_written_stay() -> None:
    slow = make_slow()
    Path("jobs.csv").write_text(
        "photo,mask,output,model,num_images\np.png,m.png,x.png,telea,1\nslow/p.png,slow.png,,,\n"
    )
    process = start("remove-object", "--jobs", "jobs.csv", *slow[4:])
    busy(process)
    assert process.stdout
    said = b""
    while b"-> x.png" not in said and process.poll() is None:
        said += process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert b"p.png (jobs.csv line 2) -> x.png" in said + process.communicate(timeout=120)[0]
    assert process.returncode == 130
    with Image.open("x.png") as image:
        image.load()


def test_a_killed_command_leaves_no_worker_and_no_half_output() -> None:
    process = start(*make_slow(), "-o", "x.png")
    workers = busy(process)
    process.kill()
    process.communicate()
    wait_for_end(workers)
    assert not list(Path().glob("x*.png"))


def test_progress_is_shown_on_a_terminal_only() -> None:
    import pty

    leader, follower = pty.openpty()
    process = start("remove-object", "p.png", *MASK, stderr=follower)
    os.close(follower)
    shown = b""
    while True:
        try:
            part = os.read(leader, 4096)
        except OSError:
            break
        if not part:
            break
        shown += part
    os.close(leader)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert b"%\x1b[K" in shown
    assert shown.endswith(b"\r\x1b[K"), "the line is taken away at the end"
    assert b"\r" not in out
    assert execute("remove-object", "p.png", *MASK, "--overwrite").err == ""


def test_a_reader_that_goes_away_gets_no_traceback() -> None:
    for arguments in (("recipes", "show", "remove-object"), ("remove-object", "p.png", *MASK, "--json")):
        reader, writer = os.pipe()
        os.close(reader)
        process = start(*arguments, stdout=writer)
        os.close(writer)
        _, err = process.communicate(timeout=120)
        assert process.returncode in (0, 1)
        assert b"Traceback" not in err
        assert b"rror" not in err
    assert Path("p-remove-object.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_behind_standard_output_is_said() -> None:
    with open("/dev/full", "wb") as full:
        answer = execute("models", stdout=full)
        assert (answer.code, answer.sentence) == (1, "output: No space left on device")
        answer = execute("remove-object", "p.png", *MASK, "-o", "-", stdout=full)
        assert answer.code == 1
        assert "No space left" in answer.sentence


def test_closed_streams_stop_nothing() -> None:
    line = " ".join([*PYTHON, "remove-object", "p.png", *MASK, "--overwrite"])
    for closed in ("<&-", "2>&-", ">&-", "<&- >&- 2>&-"):
        done = subprocess.run(f"{line} {closed}", shell=True, env=environment(), capture_output=True, timeout=60)
        assert done.returncode == 0, (closed, done)
    done = subprocess.run(f"{' '.join(PYTHON)} remove-object - {' '.join(MASK)} -o x.png <&-", shell=True,
                          env=environment(), capture_output=True, timeout=60)  # fmt: skip
    assert (done.returncode, done.stderr) == (1, b"inpaint: standard input: is closed\n")


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is limited otherwise elsewhere")
@pytest.mark.heavy
def test_a_photo_of_100_megapixels_needs_less_than_four_gigabytes() -> None:
    Image.linear_gradient("L").resize((12500, 8000)).convert("RGB").save("large.jpg", quality=85)
    arguments = " ".join([*PYTHON, "remove-object", "large.jpg", "--box", "6000,4000,6200,4150", "-o", "out.jpg"])
    done = subprocess.run(
        f"ulimit -v {4 << 20}; {arguments}", shell=True, env=environment(), capture_output=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert Photo.open("out.jpg").size == (12500, 8000)
