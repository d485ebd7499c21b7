"""Products on new backgrounds through `swap-background`, beside a paste of the same mask: pictures to look at.

    INPAINT_DATA=... python -m benchmarks.gallery.products [JOB ...]

Each job of `products.json` is a photo, maybe a box around the product (without one it is the photo's main subject),
and a background. The rival lays the same hard mask's pixels, as they are, on the same background, which is what
`rembg` does without its matting option. Into `benchmarks/out/products/` go one PNG a job and `sheet.png`: the photo,
the product's outline, ours, the rival; below them zooms on the top, the foot and the sides of the product.

Table: job, photo size, share of the photo that is the product, confidence, kind of shadow, scale, CPU seconds of this
process and its workers. Where the photos can be had publicly stands in `run.py`; prod_boot, prod_clock:
google/dreambooth: dataset/fancy_boot, dataset/clock.
"""

from __future__ import annotations

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
from toolkit.stages.backdrop import Backdrop

JOBS = Path(__file__).with_name("products.json")
OUT = FOLDER / "products"
CELL = 520


def shown(edit: Edit) -> Pixels:
    """The result as saved, (h, w, 3) uint8 sRGB; on magenta where it is transparent, so that any halo shows."""
    image = edit.image()
    if image.mode == "RGBA":
        pixels = np.asarray(image).astype(np.float32)
        alpha = pixels[..., 3:] / 255
        return np.asarray(np.rint(pixels[..., :3] * alpha + np.float32((200, 40, 160)) * (1 - alpha)), np.uint8)
    return np.asarray(image.convert("RGB"))


def pasted(edit: Edit) -> Pixels:
    """The photo's pixels under the hard mask on the same background, rendered as ours is."""
    assert edit.selected is not None
    hard = edit.replace(cutouts=(type(edit.cutouts[0])(edit.selected.box, (), edit.selected),), shadows=())
    bare = hard.replace(stacks=(type(edit.stacks[0])(),))
    background = next(step.parameters["background"] for step in edit.steps if step.stage == "backdrop")
    return shown(Backdrop(background=background)(bare))


def outlined(edit: Edit) -> Pixels:
    """The photo with the matte's half-way contour in red."""
    picture = edit.photo.to_srgb(edit.photo.crop(edit.box)).copy()
    matte = edit.cutouts[0].matte.threshold(128).array()
    contours, _ = cv2.findContours(np.ascontiguousarray(matte), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(picture, contours, -1, (255, 0, 0), max(1, round(max(edit.box.size) / 500)))
    return picture


def zooms(edit: Edit) -> list[Box]:
    """Top, foot, left and right of the product, in the photo's pixels."""
    box = edit.cutouts[0].matte.threshold(128).box
    side = max(48, max(box.size) // 4)
    x, y = (box.left + box.right) // 2, (box.top + box.bottom) // 2
    middles = ((x, box.top), (x, box.bottom), (box.left, y), (box.right, y))
    return [Box(x - side // 2, y - side // 2, x + side // 2, y + side // 2).intersect(edit.box) for x, y in middles]


def on_canvas(edit: Edit, box: Box) -> Box:
    """Where a box of the photo lies in the rendered result."""
    canvas, scale = edit.canvas, edit.canvas.scale
    left, top = canvas.origin or (canvas.box.left, canvas.box.top)
    moved = [round((n - start) * scale) for n, start in zip(box, (left, top, left, top), strict=True)]
    return Box(*moved).intersect(Box.of_size(canvas.size))


def picture_of(edit: Edit, name: str) -> None:
    """Write the job's PNG."""
    photo = edit.photo.to_srgb(edit.photo.crop(edit.box))
    sources, results = [photo, outlined(edit)], [shown(edit), pasted(edit)]
    rows = []
    for number, box in enumerate([edit.box, *zooms(edit)]):
        place = Box.of_size(edit.canvas.size) if not number else on_canvas(edit, box)
        cells = [one[box.slices] for one in sources] + [one[place.slices] for one in results]
        cells = [one for one in cells if one.size]
        fitted = [resized(one, min(CELL / one.shape[1], CELL / one.shape[0])) for one in cells]
        height = max(one.shape[0] for one in fitted)
        rows.append(np.hstack([padded(one, CELL + 6, height + 6) for one in fitted]))
    save(OUT / f"{name}.png", np.vstack(rows))
    (OUT / "rows").mkdir(exist_ok=True)
    save(OUT / "rows" / f"{name}.png", resized(rows[0], 0.5))


def run_job(job: Job, data: Path, run: Run) -> str:
    """Run one job and write its pictures; its line of the table, and a line for each warning."""
    options = {name: value for name, value in job.items() if name not in ("name", "photo")}
    if options["background"].startswith("photos/"):
        options["background"] = str(data / options["background"])
    recipe = Recipe.load("swap-background").bind(options)
    began = cpu_seconds()
    edit = recipe(data / job["photo"], run.child(job["name"]))
    seconds = cpu_seconds() - began
    picture_of(edit, job["name"])
    figures = {step.stage: step.figures for step in edit.steps}
    shadows = "+".join(one["kind"] for one in figures["shadow"]["shadows"]) or "none"
    assert edit.selected is not None
    line = (
        f"{job['name']:16} {edit.box.size!s:>10} {100 * edit.selected.area / edit.box.area:6.2f}% "
        f"{figures['select']['confidence']:5.2f} {shadows:>8} {edit.canvas.scale:5.2f} {seconds:6.1f}\n"
    )
    return line + "".join(f"  ! {warning}\n" for step in edit.steps for warning in step.warnings)


def main() -> None:
    heads = f"{'job':16} {'photo':>10} {'product':>7}  conf   shadow scale    CPU"
    run_gallery(__doc__, JOBS, OUT, heads, run_job)


if __name__ == "__main__":
    main()
