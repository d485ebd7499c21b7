"""How well the seam score tells pastes with a level offset from the untouched photo: AUC, values and CPU time.

Run: python -m benchmarks.seam [blobs a picture]. Pictures come from scikit-image, and from the folder `photos` of
INPAINT_DATA when that is set.
"""

from __future__ import annotations

import sys
import time

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.colour import pictures
from benchmarks.measure import Row
from toolkit.blend import seam_score


def blob(random: np.random.Generator, height: int, width: int) -> NDArray[np.uint8]:
    """A random roundish hole of 8 to 25 % of the shorter side in radius."""
    radius = random.uniform(0.08, 0.25) * min(height, width)
    waves = cv2.resize(
        cv2.GaussianBlur(random.standard_normal((40, 40)).astype(np.float32), (0, 0), 3), (width, height)
    )
    y, x = np.mgrid[0:height, 0:width]
    away = np.hypot(x - random.uniform(0.2, 0.8) * width, y - random.uniform(0.2, 0.8) * height) / radius
    inside = ((1 - away + 0.3 * waves / waves.std() > 0) & (away < 1.6)) | (away < 0.4)
    return inside.astype(np.uint8) * 255


def area_under_curve(truth: list[float], pasted: list[float]) -> float:
    """Chance that a paste scores above an untouched photo."""
    low, high = np.array(truth), np.array(pasted)[:, None]
    return float((high > low).mean() + 0.5 * (high == low).mean())


def main(blobs: int = 4) -> list[Row]:
    random = np.random.default_rng(0)
    scores: dict[str, list[float]] = {}
    by_kind: dict[str, list[list[float]]] = {}
    spent = 0.0
    for name, photo in pictures(900):
        kind = "texture plates" if name in ("brick", "grass", "gravel") else "photos"
        for _ in range(blobs):
            hole = blob(random, *photo.shape[:2])
            offset = random.uniform(4, 8) * random.choice([-1, 1])
            away = cv2.distanceTransform((hole > 0).astype(np.uint8), cv2.DIST_L2, 5)[:, :, None]
            slope = np.linspace(-1, 1, photo.shape[1], dtype=np.float32)[None, :, None]
            pastes = {
                "truth": photo.astype(np.float32),
                "offset 4 to 8, hard": photo + offset * (away > 0),
                "offset 8, hard": photo + 8.0 * (away > 0),
                "offset 16, hard": photo + 16.0 * (away > 0),
                "offset 4 to 8, feathered 8 px": photo + offset * np.clip(away / 8, 0, 1),
                "drift -8 to 8 over the window, hard": photo + 8.0 * slope * (away > 0),
            }
            start = time.process_time()
            for paste, pixels in pastes.items():
                # Truth is scored on another blob, so that both lists are independent.
                place = blob(random, *photo.shape[:2]) if paste == "truth" else hole
                score = seam_score(np.clip(np.rint(pixels), 0, 255).astype(np.uint8), place)
                scores.setdefault(paste, []).append(score)
                by_kind.setdefault(kind, [[], []])
                if paste in ("truth", "offset 4 to 8, hard"):
                    by_kind[kind][paste != "truth"].append(score)
            spent += time.process_time() - start
    truth = scores["truth"]
    write = sys.stdout.write
    write(f"{len(truth)} holes; truth: mean {np.mean(truth):.2f}, median {np.median(truth):.2f}\n")
    for paste, found in scores.items():
        if paste != "truth":
            write(f"{paste:40s} AUC {area_under_curve(truth, found):.3f}  median score {np.median(found):.2f}\n")
    for kind, (low, high) in by_kind.items():
        write(f"{'  of these, ' + kind + ', 4 to 8 hard':40s} AUC {area_under_curve(low, high):.3f}\n")
    write(f"CPU ms a call, with making the hole: {1e3 * spent / len(truth) / len(scores):.1f}\n")
    told = area_under_curve(truth, scores["offset 4 to 8, hard"])
    what = "seam score tells pastes 4 to 8 levels off from the truth, AUC"
    return [Row(what, f"{told:.3f}", promise=">= 0.9", kept=told >= 0.9)]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 4)
