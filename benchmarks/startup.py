"""CPU time of `inpaint --help` and `import toolkit` against importing what any such command line is built on.

Run: python -m benchmarks.startup

Medians of fresh processes that take turns; CPU time of the child, its start included.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from statistics import median

from benchmarks.measure import Row, load, say

RUNS, RATIO = 21, 2.5
RIVAL = "python -c 'import click, pydantic'"
CODES = {
    "inpaint --help": "import sys; sys.argv = ['inpaint', '--help']; from toolkit.cli import main; main()",
    RIVAL: "import click, pydantic",
    "import toolkit": "import toolkit",
    "python alone": "pass",
    "import numpy": "import numpy",
    "import cv2": "import cv2",
}


def child_cpu(code: str) -> float:
    """CPU seconds of one fresh interpreter running `code`."""
    before = _children()
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL, cwd=Path(__file__).parents[1])
    return _children() - before


def _children() -> float:
    try:
        import resource
    except ImportError:  # Windows: in steps of a clock tick
        times = os.times()
        return times.children_user + times.children_system
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> list[Row]:
    taken: dict[str, list[float]] = {name: [] for name in CODES}
    for code in CODES.values():
        child_cpu(code)  # compiles and warms the disk cache
    for _ in range(RUNS):
        for name, code in CODES.items():
            taken[name].append(child_cpu(code))
    middle = {name: median(values) for name, values in taken.items()}
    say(f"medians of {RUNS} runs, CPU ms of the child; {load()}")
    for name, seconds in middle.items():
        say(f"  {name:36}{1000 * seconds:8.0f}")
    ours, theirs = middle["inpaint --help"], middle[RIVAL]
    return [
        Row(
            "inpaint --help, CPU", f"{1000 * ours:.0f} ms", f"{RIVAL}: {1000 * theirs:.0f} ms",
            f"{ours / theirs:.2f}", f"<= {RATIO}", ours <= RATIO * theirs,
        )
    ]  # fmt: skip


if __name__ == "__main__":
    main()
