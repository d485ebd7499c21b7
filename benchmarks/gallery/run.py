"""Real removals through `remove-object`, beside cv2.inpaint: pictures to look at, and a table.

    INPAINT_DATA=... python -m benchmarks.gallery.run [JOB ...]

Each job of `jobs.json` is a photo and what a user would point at in it. It runs through the recipe as the command
runs it, all jobs in one `Run`; cv2.inpaint (TELEA, radius 5) fills the very same dilated mask of the same windows at
full resolution. Into `benchmarks/out/gallery/` go one PNG a job and `sheet.png`, which also shows the jobs of earlier
calls. Columns are the photo with box and clicks, the mask (red: selected, yellow: dilated), ours, cv2.inpaint; the
first row is the whole photo and the rows below zoom in on the hole of each window, at most four.

Table: job, photo size, share of the photo that is masked, confidence of the selection, windows and the coarsest scale
one was filled at, seam score (1 = no seam), CPU seconds of this process and its workers: whole job, and by stage, and
of cv2.inpaint. A line starting with `!` is a warning the command would print, or an error.

Where the photos can be had publicly (GitHub repository: path):
    bsds_*, coco/images   BIDS/BSDS500: BSDS500/data/images/train; cocodataset.org (train2017, by number)
    truck                 facebookresearch/segment-anything: notebooks/images/truck.jpg
    harbour_9mp           ianare/exif-samples: jpg/mobile/HMD_Nokia_8.3_5G.jpg
    highway_9mp           ianare/exif-samples: jpg/tests/30-type_error.jpg
    leaf_8mp              ianare/exif-samples: jpg/mobile/jolla.jpg
    tractor_12mp          bcmi/libcom: tests/harmony_score_prediction/composite/benches-560435_harm.jpg
                          (mask: ../composite_mask, same name)
    yard_cat, autumn_boat geekyutao/Inpaint-Anything: example/remove-anything/cat.jpg, boat.jpg
    barn_lanterns         Sanster/IOPaint: assets/unwant_object.jpg
    bench_dog             Sanster/IOPaint: iopaint/tests/overture-creations-5sI6fQgYIuo.png (mask: ..._mask.png)
    birdhouses            vacancy/PyPatchMatch: examples/images/forest.bmp (mask: the white of forest_pruned.bmp)
    prod_*                google/dreambooth: dataset/can/00.jpg, vase/03.jpg, shiny_sneaker/00.jpg
"""

from __future__ import annotations

import time
from pathlib import Path

import cv2
import numpy as np

from benchmarks.gallery.sheets import OUT as FOLDER
from benchmarks.gallery.sheets import Job, Pixels, padded, resized, run_gallery, save
from benchmarks.measure import cpu_seconds
from toolkit.edit import Edit
from toolkit.geometry import Box
from toolkit.recipe import Recipe
from toolkit.run import Run

JOBS = Path(__file__).with_name("jobs.json")
OUT = FOLDER / "gallery"
CELL, SMALL, ZOOMS = 560, 240, 4
OPTIONS = ("box", "point", "not_point", "mask")


class Clock:
    """CPU seconds by stage, told by the run's progress."""

    def __init__(self) -> None:
        self.began: dict[str, float] = {}
        self.spent: dict[str, float] = {}

    def __call__(self, name: str, share: float) -> None:
        """`name` ends with the stage's name, or with that of work inside a stage."""
        stage = name.rpartition(": ")[2]
        if share == 0:
            self.began.setdefault(stage, cpu_seconds())
        elif share == 1 and stage in self.began:
            self.spent[stage] = cpu_seconds() - self.began[stage]


def telea(edit: Edit) -> tuple[Pixels, float]:
    """The whole photo with cv2.inpaint in the windows of `edit`, and its CPU seconds."""
    assert edit.mask is not None
    picture = edit.photo.to_srgb(edit.photo.crop(edit.box)).copy()
    seconds = 0.0
    for fill in edit.fills:
        window = fill.window.box.intersect(edit.box)
        given = np.ascontiguousarray(picture[window.slices])
        mask = np.ascontiguousarray(edit.mask.array(window))
        began = time.process_time()
        filled = cv2.inpaint(given, mask, 5, cv2.INPAINT_TELEA)
        seconds += time.process_time() - began
        hole = fill.window.hole.array(window) > 0
        picture[window.slices][hole] = filled[hole]
    return picture, seconds


def marked(photo: Pixels, job: Job, part: Box, scale: float) -> Pixels:
    """`part` of the photo at `scale`, with the job's boxes (red) and clicks (green, blue for those beside)."""
    picture = resized(photo[part.slices], scale)
    for values in job.get("box", ()):
        corners = [round((value - edge) * scale) for value, edge in zip(values, (part.left, part.top) * 2, strict=True)]
        cv2.rectangle(picture, corners[:2], corners[2:], (255, 0, 0), 2)
    for name, colour in (("point", (0, 255, 0)), ("not_point", (0, 0, 255))):
        for x, y in job.get(name, ()):
            cv2.circle(picture, (round((x - part.left) * scale), round((y - part.top) * scale)), 4, colour, -1)
    return picture


def overlaid(photo: Pixels, edit: Edit) -> Pixels:
    """The photo with what was selected in red and what dilating added in yellow."""
    assert edit.mask is not None
    assert edit.selected is not None
    picture = photo.copy()
    for mask, colour in ((edit.mask.subtract(edit.selected), (255, 255, 0)), (edit.selected, (255, 0, 0))):
        inside = mask.box
        where = mask.array(inside) > 0
        part = picture[inside.slices]
        part[where] = (part[where] * 0.45 + np.array(colour) * 0.55).astype(np.uint8)
    return picture


def row(pictures: list[Pixels], job: Job, part: Box, cell: int) -> Pixels:
    """Four cells of `part`: photo with marks, mask, ours, cv2.inpaint."""
    scale = min(cell / part.width, cell / part.height, 8.0)
    cells = [marked(pictures[0], job, part, scale), *(resized(picture[part.slices], scale) for picture in pictures[1:])]
    height = cells[0].shape[0]
    return np.hstack([padded(one, cell + 6, height + 6) for one in cells])


def views(edit: Edit) -> list[Box]:
    """The whole photo, then one zoom a window, largest holes first."""
    holes = sorted((fill.window.hole for fill in edit.fills), key=lambda hole: -hole.area)[:ZOOMS]
    parts = []
    for hole in holes:
        around = max(24, max(hole.box.size) // 3)
        parts.append(hole.box.grow(around).intersect(edit.box))
    return [edit.box, *parts]


def picture_of(edit: Edit, job: Job) -> float:
    """Write the job's two PNGs; the CPU seconds of cv2.inpaint."""
    photo = edit.photo.to_srgb(edit.photo.crop(edit.box))
    theirs, seconds = telea(edit)
    pictures = [photo, overlaid(photo, edit), edit.preview(edit.box), theirs]
    parts = views(edit)
    save(OUT / f"{job['name']}.png", np.vstack([row(pictures, job, part, CELL) for part in parts]))
    strip = [row(pictures, job, part, SMALL) for part in parts[:2]]
    height = max(one.shape[0] for one in strip)
    (OUT / "rows").mkdir(exist_ok=True)
    save(OUT / "rows" / f"{job['name']}.png", np.hstack([padded(one, one.shape[1], height) for one in strip]))
    return seconds


def run_job(job: Job, data: Path, run: Run) -> str:
    """Run one job and write its pictures; its line of the table, and a line for each warning."""
    options = {name: job[name] for name in OPTIONS if name in job}
    if "mask" in options:
        options["mask"] = str(data / options["mask"])
    recipe = Recipe.load("remove-object").bind({**options, **job.get("options", {})})
    clock, began, start = Clock(), cpu_seconds(), time.perf_counter()
    edit = recipe(data / job["photo"], run.child(job["name"], progress=clock))
    seconds, wall = cpu_seconds() - began, time.perf_counter() - start
    assert edit.mask is not None
    theirs = picture_of(edit, job)
    select = next(step for step in edit.steps if step.stage == "select")
    stages = " ".join(f"{clock.spent.get(name, 0):6.1f}" for name in ("select", "fill", "composite"))
    scale = max(fill.window.scale for fill in edit.fills)
    line = (
        f"{job['name']:16} {edit.box.size!s:>10} {100 * edit.mask.area / edit.box.area:6.2f}% "
        f"{select.figures['confidence']:5.2f} {len(edit.fills):3}/{scale:<4.1f} {edit.stacks[0].seam:5.2f} "
        f"{seconds:6.1f} {stages} {theirs:6.1f} {wall:6.1f}\n"
    )
    return line + "".join(f"  ! {warning}\n" for step in edit.steps for warning in step.warnings)


def main() -> None:
    heads = f"{'job':16} {'photo':>10} {'mask':>7}  conf win/scale seam    CPU select   fill  compo  TELEA   wall"
    run_gallery(__doc__, JOBS, OUT, heads, run_job)


if __name__ == "__main__":
    main()
