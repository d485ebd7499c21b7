"""Runs the benchmarks and prints one table: what, ours, rival, ratio, promise, kept.

    [INPAINT_DATA=...] python -m benchmarks [NAME ...]

Every module here with a `main`, and every package whose module `run` has one, is a benchmark; what `main` returns as
a list of rows goes into the table, what it prints comes before. Most build their pictures from those of scikit-image;
`fill`, `select_box`, `shadows` and `io_corpus` need photos, which are looked for in the folder INPAINT_DATA names:
COCO 2017 with its annotations (cocodataset.org), the test pictures of Pillow and sharp, photos of your own with masks.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import platform
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import benchmarks
from benchmarks.measure import Row, load, say

VERSIONS = ("numpy", "opencv-python-headless", "pillow", "pydantic", "scipy", "scikit-image", "diffusers", "rembg")


def found() -> list[str]:
    """Names of the modules that may be benchmarks."""
    names = []
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.name not in ("__main__", "measure"):
            names.append(f"{module.name}.run" if module.ispkg else module.name)
    return names


def work_of(name: str) -> Callable[[], Any] | None:
    """The benchmark's `main` with its own defaults, None where there is none."""
    try:
        main = getattr(importlib.import_module(f"benchmarks.{name}"), "main", None)
    except ModuleNotFoundError as problem:
        if problem.name != f"benchmarks.{name}":
            raise
        return None
    if main is None:
        return None
    # A main that reads the command line itself finds it empty; one with a list of arguments gets its own default.
    needed = [p for p in inspect.signature(main).parameters.values() if p.default is p.empty]
    return None if needed else main


def machine() -> str:
    """The machine and the versions the figures belong to."""
    versions = [f"Python {platform.python_version()}"]
    for name in VERSIONS:
        try:
            versions.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            versions.append(f"no {name}")
    return f"{platform.platform()}, {_processor()}, {load()}\n{', '.join(versions)}"


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "processor unknown"


def table(rows: Sequence[Row]) -> str:
    """The rows in columns."""
    heads = ("what", "ours", "rival", "ratio", "promise", "kept")
    kept = {None: "", True: "yes", False: "NO"}
    cells = [heads, *((row.what, row.ours, row.rival, row.ratio, row.promise, kept[row.kept]) for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(heads))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def main(wanted: Sequence[str]) -> int:
    """Run the benchmarks named, all without names; the exit code is 1 when a promise is not kept."""
    names = [name for name in found() if not wanted or name.split(".")[0] in wanted]
    unknown = set(wanted) - {name.split(".")[0] for name in found()}
    if unknown:
        say(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(n.split('.')[0] for n in found())}")
        return 2
    rows: list[Row] = []
    about = machine()
    sys.argv = sys.argv[:1]
    for name in names:
        work = work_of(name)
        if work is None:
            continue
        say(f"\n=== {name.split('.')[0]}")
        try:
            answer = work()
            rows += answer if isinstance(answer, list) else []
        except (KeyError, FileNotFoundError, SystemExit) as problem:
            say(f"not run: {type(problem).__name__}: {problem}; INPAINT_DATA must name the folder with its photos")
    say(f"\n{about}\n\n{table(rows)}")
    return 1 if any(row.kept is False for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
