"""Processes that pay for one edit and are killed at a chosen step: before and after each write to a database, before
and after each request leaves, and when bytes of its answer, and all of it, have come.

One process imports everything once and forks the others, so that each lives a fraction of a second.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.paid import quick_card

_CODE = """
import contextlib, json, os, signal, sys
import cv2, numpy as np
from toolkit import database, errors, journal, limits, recipe, run
from toolkit.engines.fill import wavespeed
from toolkit.wavespeed import account, messages, sockets
cv2.setNumThreads(1)
remove = recipe.Recipe.load("remove-object")
mask = np.zeros((260, 280), np.uint8)  # given, so that no worker process is needed
mask[80:150, 90:150] = 255

def mortal(last):
    passed = 0
    def step():
        nonlocal passed
        passed += 1
        if passed == last:
            os.kill(os.getpid(), signal.SIGKILL)
    write = database.Database.write
    @contextlib.contextmanager
    def writing(self):
        step()
        with write(self) as connection:
            yield connection
        step()
    database.Database.write = writing
    def around(owner, name):
        inner = getattr(owner, name)
        def wrapped(*arguments, **options):
            step()
            answer = inner(*arguments, **options)
            step()
            return answer
        setattr(owner, name, wrapped)
    around(database.Database, "change")
    around(database.Database, "_sync")
    around(sockets.Stream, "send")
    around(messages, "answer")
    around(sockets.Stream, "receive")
    return lambda: passed

def edit(wanted):
    steps = mortal(wanted["step"])
    os.environ.update(wanted["environment"])
    os.chdir(os.environ["INPAINT_CONFIG"])  # cards in the working folder would go before its own
    try:
        with run.Run(workers=1) as this:
            made = remove(
                wanted["photo"], this, mask=mask, model="wavespeed-ai/flux-fill-dev", prompt="a bench"
            )
            made.save(wanted["out"], overwrite=True)
    except errors.ToolkitError as problem:
        return f"error {problem}"
    return f"done {steps()}"

waiting = {}
print("ready", flush=True)
for line in sys.stdin:
    wanted = json.loads(line)
    if "wait" in wanted:
        pid = wanted["wait"]
        _, status = os.waitpid(pid, 0)
        with os.fdopen(waiting.pop(pid)) as pipe:
            said = pipe.read()
        print(f"killed {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said, flush=True)
        continue
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        try:
            said = edit(wanted)
        except BaseException as problem:
            said = f"broken {problem!r}"
        os.write(write, said.replace(chr(10), " ").encode())
        os._exit(0)
    os.close(write)
    waiting[pid] = read
    print(pid, flush=True)
"""


class Mortals:
    """`with Mortals(folder, url) as mortals: mortals.run(step=7)`: "killed 9", "done <steps>" or "error <sentence>"."""

    def __init__(self, folder: Path, url: str, photo: Path, settle: float = 0.3) -> None:
        self._folder, self._photo = folder, photo
        self._settings = f"wavespeed: {{base_url: '{url}', settle: {settle}, tier: ultra}}"

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-c", _CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._heard() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait(30)

    def state(self, name: str) -> Path:
        """The folder where runs called `name` keep their journal."""
        return self._folder / name / "state"

    def out(self, name: str) -> Path:
        """The picture they write."""
        return self._folder / name / "out.png"

    def begin(self, name: str, step: int = 0) -> int:
        """Start one that is killed at a step; 0 for never. Its process number."""
        place = self._folder / name
        configuration = place / "configuration"
        configuration.mkdir(parents=True, exist_ok=True)
        (configuration / "settings.yaml").write_text(self._settings)
        quick_card(configuration)
        environment = {
            "INPAINT_STATE": str(self.state(name)), "INPAINT_CONFIG": str(configuration),
            "WAVESPEED_API_KEY": "test-key",
        }  # fmt: skip
        return int(
            self._asked(
                {"step": step, "photo": str(self._photo), "out": str(self.out(name)), "environment": environment}
            )
        )

    def end(self, pid: int) -> str:
        """Wait for it; what it came to."""
        return self._asked({"wait": pid})

    def run(self, name: str, step: int = 0) -> str:
        """Start one and wait for it."""
        return self.end(self.begin(name, step))

    def _asked(self, wanted: dict[str, Any]) -> str:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(wanted) + "\n")
        self._process.stdin.flush()
        return self._heard()

    def _heard(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()
