"""Peak memory of `swap-background` of 50 megapixels, from file to file, in units of the decoded photo.

    python -m benchmarks memory

The photo is a product on paper that takes a third of the frame; the background is white, or a picture of 50 megapixels
as JPEG and as PNG. Each case runs in a process of its own, with one worker. Resident memory is sampled and
counted above what the process had once its modules were loaded and its worker was ready; beside the process alone
stands that with its worker, which loads the libraries it needs after that.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import Row, ellipse, one_thread, photo, resident, say
from toolkit import stages
from toolkit.dataset.inputs import Item
from toolkit.dataset.work import EditWork, Output
from toolkit.photo import Photo
from toolkit.recipe import Recipe
from toolkit.run import Run

WIDTH, HEIGHT = 8660, 5774
LIMIT = 3.0


def make(folder: Path) -> None:
    """Write photo and backgrounds."""
    ground = photo(WIDTH, HEIGHT)
    cv2.imwrite(str(folder / "ground.jpg"), ground, [cv2.IMWRITE_JPEG_QUALITY, 92])
    cv2.imwrite(str(folder / "ground.png"), ground, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    shape = ellipse(WIDTH, HEIGHT, (WIDTH * 3 // 5, HEIGHT * 7 // 10))
    for top in range(0, HEIGHT, 256):
        part = ground[top : top + 256]
        part //= 3  # a dark product before light paper
        grain = np.random.default_rng(top).integers(-3, 4, part.shape, np.int16)
        paper = np.clip(232 + grain, 0, 255).astype(np.uint8)
        np.copyto(part, paper, where=shape[top : top + 256, :, None] == 0)
    cv2.imwrite(str(folder / "photo.jpg"), ground, [cv2.IMWRITE_JPEG_QUALITY, 92])


def measured(source: Path, background: str, target: Path) -> tuple[float, float]:
    """Peaks of this process, and of it and its worker, above the start; in units of the decoded photo."""
    stages.stages()  # loads all modules
    with one_thread(), Run(workers=1) as run:
        run.compute(abs, 1)
        work = EditWork(Recipe.load("swap-background"), Output("benchmark"), {"background": background})
        with resident() as highest:
            work(Item("photo", source, target), run)
    decoded = 3 * Photo.open(source).size.area
    return highest.alone / decoded, highest.together / decoded


def main() -> list[Row]:
    """A row for each background."""
    rows = []
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make(folder)
        for background in ("white", str(folder / "ground.jpg"), str(folder / "ground.png")):
            target = folder / f"result-{len(rows)}.jpg"
            command = [sys.executable, "-m", "benchmarks.memory", str(folder / "photo.jpg"), background, str(target)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
            alone, together = json.loads(answer)
            what = background if background == "white" else f"{Path(background).suffix[1:].upper()} of 50 megapixels"
            rows.append(
                Row(f"swap-background of 50 megapixels, {what}: peak / decoded photo", f"{alone:.2f}",
                    f"with its worker {together:.2f}", promise=f"< {LIMIT:g}", kept=alone < LIMIT)
            )  # fmt: skip
    return rows


if __name__ == "__main__":
    say(json.dumps(measured(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))))
