"""Processes that pull weights, die at it, are stopped, or meet."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
import weight_server as ws
from children import children
from commands import PYTHON, environment
from weight_cards import CONTENT, a_card, part, proven, published, unpublished
from weight_server import Server

from toolkit import fetching, weights

pytestmark = pytest.mark.usefixtures("home")


# --- processes that die, and processes that meet

_MORTAL = """
import os, signal
from toolkit import cards, disk, fetching, redirects, weights
fetching.SYNC, fetching._PAUSES = 90_000, (0.0,)
disk.sync = lambda _: None
redirects._trusted()
card = cards.find("segment", "net")
def mortal(last):
    passed = 0
    def around(owner, name):
        inner = getattr(owner, name)
        def wrapped(*a, **k):
            nonlocal passed
            passed += 1
            if passed == last:
                os.kill(os.getpid(), signal.SIGKILL)
            answer = inner(*a, **k)
            passed += 1
            if passed == last:
                os.kill(os.getpid(), signal.SIGKILL)
            return answer
        setattr(owner, name, wrapped)
    for owner, name in ((os, "replace"), (disk, "sync"), (fetching.Path, "unlink"), (weights, "sha256_of")):
        around(owner, name)
    for name in ("answer", "check_space"):
        around(fetching, name)
say("ready")
while (step := input()) != "end":
    pid = os.fork()
    if not pid:
        try:
            mortal(int(step))
            weights.pull(card)
            os._exit(0)
        except BaseException:
            os._exit(1)
    status = os.waitpid(pid, 0)[1]
    say("killed" if os.WIFSIGNALED(status) else f"ended {os.WEXITSTATUS(status)}")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(("entry", "step"), [(published, 0), (unpublished, -1)])
def test_a_process_killed_at_any_step_leaves_no_file_that_is_not_whole(
    server: Server, entry: Callable[..., Any], step: int
) -> None:
    card = a_card(entry(server))
    with children() as started:
        process = subprocess.Popen(
            [sys.executable, "-c", f"def say(*words): print(*words, flush=True)\n{_MORTAL}"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment(),
        )  # fmt: skip
        assert process.stdin
        assert process.stdout
        try:
            assert process.stdout.readline() == "ready\n"
            said = ""
            while said != "ended 0\n":
                step += 2  # the other case has those between
                assert step < 200
                shutil.rmtree(weights.folder(card), ignore_errors=True)
                server.script.append(ws.breaks_off(100_000))
                process.stdin.write(f"{step}\n")
                process.stdin.flush()
                said = process.stdout.readline()
                server.script.clear()
                assert said in ("killed\n", "ended 0\n")
                if weights.path(card).exists():
                    assert weights.path(card).read_bytes() == CONTENT
                    assert weights.record(card)
                weights.pull(card)
                proven(card)
            assert step > 30
        finally:
            process.kill()
            process.communicate()
        assert started == []


def pulling(**options: Any) -> subprocess.Popen[bytes]:
    quick = "from toolkit import fetching; fetching.SYNC = 20_000; from toolkit.cli import main; main()"
    return subprocess.Popen(
        [PYTHON[0], "-c", quick, "models", "pull", "net"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(), **options,
    )  # fmt: skip


def test_processes_killed_while_bytes_arrive(server: Server) -> None:
    card = a_card(unpublished(server))
    running: list[subprocess.Popen[bytes]] = []

    def noted() -> int:
        note = fetching._Note.read(part(card))
        return note.synced if note else 0

    def kill(sent: int) -> None:
        if sent >= 40_000 and running[0].poll() is None:
            for _ in range(10_000):  # well below the silence at whose end it would be noted anyway
                if noted() >= before + 20_000 or server.over.wait(0.001):
                    break
            running[0].kill()
            running[0].wait()

    server.watch, server.piece = kill, 5000
    for _ in range(3):
        before = noted()
        running[:] = [pulling()]
        running[0].communicate(timeout=60)
        assert running[0].returncode == -signal.SIGKILL
        assert not weights.path(card).exists()
    server.watch = lambda sent: None
    weights.pull(card)
    proven(card)
    assert ["range" in asked.headers for asked in server.asked] == [False, True, True, True]


def test_two_processes_and_a_thread_fetch_it_once(server: Server) -> None:
    card = a_card(published(server))
    both_there = threading.Event()
    server.watch = lambda sent: both_there.wait(30)  # type: ignore[assignment, return-value]
    one, two = pulling(), pulling()
    said: list[str] = []

    def heard(sentence: str) -> None:
        said.append(sentence)
        both_there.set()

    while not server.asked:  # one of the two holds the lock now
        both_there.wait(0.01)
    weights.pull(card, say=heard)
    proven(card)
    outs = [process.communicate(timeout=60) for process in (one, two)]
    assert [one.returncode, two.returncode] == [0, 0], outs
    assert len(server.asked) == 1
    assert said == ["net.pth: another process is fetching it; waiting for that"]
    assert sorted(b"here now" in out for out, _ in outs) == [False, True]


@pytest.mark.skipif(os.name != "posix", reason="needs signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_came_and_says_so(server: Server, number: int) -> None:
    card = a_card(published(server))
    server.script.append(ws.stalls(100_000))
    arrived = threading.Event()
    server.watch = lambda sent: arrived.set() if sent >= 100_000 else None
    process = pulling()
    assert arrived.wait(60)
    while weights.kept(card) < 100_000:
        arrived.wait(0.001)
    process.send_signal(number)
    _, err = process.communicate(timeout=15)  # the server is silent for longer
    assert process.returncode == 130
    last = err.decode().splitlines()[-1]
    assert last == "inpaint: net: cancelled; 98 KiB are kept, and the same command goes on from there"
    assert not weights.path(card).exists()
    weights.pull(card)
    proven(card)
    assert server.asked[-1].headers["range"] == "bytes=100000-"
