"""Fill the known-answer holes and compare with TELEA: quality ratios, CPU seconds, a table, side-by-side pictures.

    INPAINT_DATA=... python -m benchmarks.fill.run [--cases FILE] [--only WORD] [--pictures FOLDER]

CPU seconds are process time with OpenCV on one thread.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.fill import cases as listed
from benchmarks.fill import metrics
from benchmarks.measure import Row
from toolkit import Composite, Crop, Feather, Fill, Recipe, Run, Select, cards
from toolkit.engines.fill import patchmatch, telea

Pixels = NDArray[np.uint8]
CONTEXT, MIN_CONTEXT = 3.0, 64
GREEN = (0, 255, 0)


def window_of(hole: Pixels) -> tuple[slice, slice]:
    """Rows and columns of the window: `CONTEXT` times the hole's box, at least `MIN_CONTEXT` px around, slid inside."""
    spans = []
    for axis in (1, 0):
        used, length = np.flatnonzero(hole.any(axis=axis)), hole.shape[1 - axis]
        low, high = int(used[0]), int(used[-1]) + 1
        size = min(length, max(round(CONTEXT * (high - low)), high - low + 2 * MIN_CONTEXT))
        start = min(max(0, (low + high - size) // 2), length - size)
        spans.append(slice(start, start + size))
    return spans[0], spans[1]


def read(photo: Path) -> Pixels:
    """The stored pixels as (h, w, 3) uint8 BGR."""
    picture = cv2.imread(str(photo), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    if picture is None:
        raise SystemExit(f"{photo}: cannot be read")
    return np.asarray(picture, np.uint8)


def turned(picture: Pixels) -> Pixels:
    """BGR to RGB and back."""
    return np.ascontiguousarray(picture[..., ::-1])


def painted(photo: Path, mask: Pixels) -> Pixels:
    """The photo (h, w, 3) uint8 sRGB, its hole painted over so that nothing of the answer can leak."""
    picture = turned(read(photo))
    picture[mask > 0] = GREEN
    return picture


def with_telea(photo: Path, mask: Pixels) -> tuple[Pixels, float]:
    """The photo with `mask` (255 = hole) filled by cv2.inpaint on the window, and the CPU seconds of that."""
    picture = painted(photo, mask)
    window = window_of(mask)
    given = np.ascontiguousarray(picture[window])
    started = time.process_time()
    filled = telea.fill_hole(given, np.ascontiguousarray(mask[window], np.uint8), None, 0)
    seconds = time.process_time() - started
    picture[window] = filled
    return picture, seconds


def fill_photo(photo: Path, mask: Pixels) -> tuple[Pixels, float]:
    """The photo with `mask` filled by remove-object's own chain (less its dilation), and the CPU seconds of all of it.

    The engine runs in a thread of this process, so that its CPU time is counted.
    """
    picture = painted(photo, mask)
    card = cards.find("fill", "patchmatch")
    here = card.model_copy(update={"name": "here", "concurrency": "network"})
    stages = [Select(mask=mask), Crop(model="here"), Fill(model="here"), Feather(radius=3), Composite()]
    with Run(engines={"here": (here, patchmatch.Engine(card))}) as run:
        started = time.process_time()
        filled = Recipe(stages)(picture, run).array()
        seconds = time.process_time() - started
    return np.asarray(filled, np.uint8), seconds


def main() -> list[Row]:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=Path, default=listed.CASES, help="another list of cases")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--pictures", type=Path, help="folder for truth | telea | patchmatch pictures")
    options = parser.parse_args()
    cv2.setNumThreads(1)
    rows: list[tuple[bool, dict[str, float], dict[str, float]]] = []
    say = sys.stdout.write
    say(f"{'case':24}{'px':>5} | TELEA psnr   swd  band  cpu | fill psnr   swd  band  grad  seam   cpu\n")
    for case in listed.load(options.cases):
        photo = listed.photo_path(case)
        if photo is None or options.only not in case["name"]:
            continue
        picture = read(photo)
        mask = listed.hole_of(case, (picture.shape[1], picture.shape[0]))
        window = window_of(mask)
        truth, hole = picture[window], mask[window] > 0
        figures, pictures = [], [truth]
        for fill in (with_telea, fill_photo):
            filled, seconds = fill(photo, mask)
            filled = turned(filled[window])
            if (filled[~hole] != truth[~hole]).any():
                raise SystemExit(f"{case['name']}: a pixel outside the hole changed")
            figures.append({**metrics.measure(truth, filled, hole), "cpu": seconds})
            pictures.append(filled)
        longest = max(case["box"][2] - case["box"][0], case["box"][3] - case["box"][1])
        low, high = figures
        rows.append((longest > 600, low, high))
        say(f"{case['name']:24}{longest:5} | ")
        say(f"    {low['psnr']:6.2f}{low['swd']:6.2f}{low['band']:6.2f}{low['cpu']:5.2f} |")
        say(f"    {high['psnr']:6.2f}{high['swd']:6.2f}{high['band']:6.2f}{high['grad']:6.2f}{high['seam']:6.2f}")
        say(f"{high['cpu']:6.2f}\n")
        sys.stdout.flush()
        if options.pictures:
            options.pictures.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(options.pictures / f"{case['name'].replace(' ', '_')}.png"), np.hstack(pictures))
    table: list[Row] = []
    for title, large in (("up to 600 px", False), ("larger", True)):
        chosen = [(smooth, ours) for is_large, smooth, ours in rows if is_large == large]
        if not chosen:
            continue
        values = {name: ([a[name] for a, _ in chosen], [b[name] for _, b in chosen]) for name in chosen[0][0]}
        say(
            f"{title} ({len(chosen)} holes): SWD / TELEA {metrics.ratio(values['swd'][1], values['swd'][0]):.3f}, "
            f"band / TELEA {metrics.ratio(values['band'][1], values['band'][0]):.3f}, "
            f"grad {metrics.geometric(values['grad'][1]):.3f} (TELEA {metrics.geometric(values['grad'][0]):.3f}), "
            f"seam {metrics.geometric(values['seam'][1]):.3f}, "
            f"PSNR {np.mean(values['psnr'][1]):.2f} (TELEA {np.mean(values['psnr'][0]):.2f}), "
            f"SSIM {np.mean(values['ssim'][1]):.3f} (TELEA {np.mean(values['ssim'][0]):.3f}), "
            f"CPU x TELEA {metrics.ratio(values['cpu'][1], values['cpu'][0]):.1f}, most {max(values['cpu'][1]):.1f} s\n"
        )
        telea_psnr, psnr = (float(np.mean(one)) for one in values["psnr"])
        swd, band = (metrics.ratio(values[name][1], values[name][0]) for name in ("swd", "band"))
        cpu, most = metrics.ratio(values["cpu"][1], values["cpu"][0]), max(values["cpu"][1])
        grad = metrics.geometric(values["grad"][1])
        limits = (0.50, 0.25, 0.75, 1.2) if large else (0.45, 0.20, 0.8, 1.15)
        where = f"fill, {len(low)} holes {title}"
        table += [
            Row(f"{where}: SWD", f"{swd:.2f}", "TELEA: 1", f"{swd:.2f}", f"<= {limits[0]}", swd <= limits[0]),
            Row(f"{where}: band", f"{band:.2f}", "TELEA: 1", f"{band:.2f}", f"<= {limits[1]}", band <= limits[1]),
            Row(
                f"{where}: grad", f"{grad:.2f}", f"TELEA: {metrics.geometric(values['grad'][0]):.2f}", "",
                f"{limits[2]}-{limits[3]}", limits[2] <= grad <= limits[3],
            ),
            Row(
                f"{where}: CPU", f"most {most:.1f} s", "TELEA: 1", f"{cpu:.0f}",
                "<= 60, <= 20 s", cpu <= 60 and most <= 20,
            ),
        ]  # fmt: skip
        if not large:
            table.append(
                Row(
                    f"{where}: PSNR",
                    f"{psnr:.2f} dB",
                    f"TELEA: {telea_psnr:.2f} dB",
                    "",
                    ">= TELEA",
                    psnr >= telea_psnr,
                )
            )
    return table


if __name__ == "__main__":
    main()
