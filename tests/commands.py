"""Calls of the command line in this process and in one of its own, and the small pictures they work on."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parent.parent
PYTHON = [sys.executable, "-m", "toolkit"]
BOX = "38,28,72,62"


@dataclass
class Answer:
    """What a command ended with and said."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def sentence(self) -> str:
        """The one sentence on standard error."""
        lines = self.err.splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("inpaint: ")
        return lines[0].removeprefix("inpaint: ")


def make_pictures() -> None:
    """p.png and p.jpg (a red square on two grounds), its mask m.png, and masks that cannot be used."""
    random = np.random.default_rng(0)
    photo = random.integers(90, 120, (96, 128, 3), np.uint8)
    photo[48:] += 60
    photo[30:60, 40:70] = (200, 40, 40)
    mask = np.zeros((96, 128), np.uint8)
    mask[28:62, 38:72] = 255
    Image.fromarray(photo).save("p.png")
    Image.fromarray(photo).save("p.jpg", quality=90)
    Image.fromarray(mask).save("m.png")
    Image.fromarray(np.zeros_like(mask)).save("empty.png")
    Image.fromarray(np.full_like(mask, 255)).save("full.png")
    Image.fromarray(mask[:48, :64]).save("half.png")


def call(*arguments: str, stdin: bytes = b"") -> Answer:
    """Run the command in this process."""
    from toolkit.cli import main

    streams = {
        "stdin": io.TextIOWrapper(io.BytesIO(stdin)),
        "stdout": io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True),
        "stderr": io.TextIOWrapper(io.BytesIO(), "utf-8", write_through=True),
    }
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, getattr(signal, "SIGHUP", 15))}
    with pytest.MonkeyPatch.context() as patch:
        for name, stream in streams.items():
            patch.setattr(sys, name, stream)
        with pytest.raises(SystemExit) as ended:
            main(list(arguments))
    for number, handler in handlers.items():
        signal.signal(number, handler)
    out, err = (streams[name].buffer.getvalue() for name in ("stdout", "stderr"))  # type: ignore[attr-defined]
    assert isinstance(ended.value.code, int)
    return Answer(ended.value.code, out, err.decode())


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **changes}


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    """Begin the command in a process of its own."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL} | options
    return subprocess.Popen([*PYTHON, *arguments], env=environment(**options.pop("env", {})), **options)


def execute(*arguments: str, stdin: bytes | None = None, **options: Any) -> Answer:
    """Run the command in a process of its own."""
    if stdin is not None:
        options["stdin"] = subprocess.PIPE
    process = start(*arguments, **options)
    out, err = process.communicate(stdin, timeout=120)
    return Answer(process.returncode, out or b"", (err or b"").decode(errors="replace"))


def files() -> dict[str, bytes]:
    """Every file and folder below the working folder, with its content."""
    return {path.as_posix(): path.read_bytes() if path.is_file() else b"" for path in sorted(Path().rglob("*"))}
