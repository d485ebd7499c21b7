"""What the galleries share: running the jobs of a list, and pictures beside each other."""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.errors import ToolkitError
from toolkit.run import Run

OUT = Path(__file__).parents[1] / "out"

Pixels = NDArray[np.uint8]
Job = dict[str, Any]


def run_gallery(about: str | None, listed: Path, out: Path, heads: str, work: Callable[[Job, Path, Run], str]) -> None:
    """Run the jobs named on the command line, all without any, print a line for each, and make the sheet.

    Args:
        about: help.
        listed: JSON with the jobs.
        out: the folder of the pictures, which is made.
        heads: the table's first line.
        work: runs a job on a photo in the folder given, writes its pictures and returns its lines of the table.
    """
    jobs: list[Job] = json.loads(listed.read_text(encoding="utf-8"))
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=f"names from {listed.name}; all without any")
    chosen = parser.parse_args().jobs
    unknown = set(chosen) - {job["name"] for job in jobs}
    if unknown:
        raise SystemExit(f"no job called {sorted(unknown)[0]!r}; there are {', '.join(job['name'] for job in jobs)}")
    root = os.environ.get("INPAINT_DATA")
    if not root:
        raise SystemExit("INPAINT_DATA is not set: it must name the folder that holds photos/, masks/ and coco/")
    cv2.setNumThreads(1)
    out.mkdir(parents=True, exist_ok=True)
    say = sys.stdout.write
    say(f"{heads}\n")
    with Run() as run:
        for job in jobs:
            if chosen and job["name"] not in chosen:
                continue
            try:
                say(work(job, Path(root), run))
            except ToolkitError as problem:
                say(f"{job['name']:16} ! {problem}\n")
            except Exception:
                # One job must not hide the others, and a traceback is what the table is to show.
                say(f"{job['name']:16} ! crashed\n{traceback.format_exc()}")
            sys.stdout.flush()
    sheet(jobs, out)


def resized(picture: Pixels, scale: float) -> Pixels:
    """At `scale`, averaging where it shrinks."""
    size = (max(1, round(picture.shape[1] * scale)), max(1, round(picture.shape[0] * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(np.ascontiguousarray(picture), size, interpolation=how), np.uint8)


def padded(picture: Pixels, width: int, height: int) -> Pixels:
    """On a grey cell of `width` x `height`."""
    cell = np.full((height, width, 3), 60, np.uint8)
    cell[: picture.shape[0], : picture.shape[1]] = picture
    return cell


def save(path: Path, picture: Pixels) -> None:
    """As PNG."""
    cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))


def sheet(jobs: list[Job], out: Path) -> None:
    """`sheet.png` of the `rows/` of all jobs that have been run so far, in the order of the list."""
    strips = []
    for job in jobs:
        path = out / "rows" / f"{job['name']}.png"
        if path.is_file():
            title = f"{job['name']} ({job['kind']})" if "kind" in job else job["name"]
            strips.append((title, np.asarray(cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB), np.uint8)))
    width = max((strip.shape[1] for _, strip in strips), default=0)
    rows = []
    for title, strip in strips:
        head = np.full((18, width, 3), 20, np.uint8)
        cv2.putText(head, title, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.42, (255, 255, 255))
        rows += [head, padded(strip, width, strip.shape[0])]
    if rows:
        save(out / "sheet.png", np.vstack(rows))
