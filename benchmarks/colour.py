"""Colour error inside the hole after the composite, for engines with a known colour fault and seven ways to correct it.

Run: python -m benchmarks.colour [side [ways]], e.g. 1000 toolkit,none. Pictures come from scikit-image, and from the
folder `photos` of INPAINT_DATA when that is set. The engine returns its input with a fault; the figure is the largest
error, in levels, of the composite blurred with sigma 16, anywhere inside the hole.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import skimage.data
from numpy.typing import NDArray

from benchmarks.measure import Row
from toolkit.blend import composite, match_colour

Pixels = NDArray[np.uint8]
BUNDLED = ("astronaut", "coffee", "rocket", "cat", "camera", "brick", "grass", "gravel")


def pictures(side: int) -> Iterator[tuple[str, Pixels]]:
    """Name and (h, w, C) uint8, cut (not scaled) to at most side x side pixels."""
    for name in BUNDLED:
        picture = getattr(skimage.data, name)()
        yield name, np.ascontiguousarray(np.atleast_3d(picture)[:side, :side])
    folder = os.environ.get("INPAINT_DATA")
    for path in sorted(Path(folder, "photos").iterdir()) if folder else ():
        picture = cv2.imread(str(path))
        if picture is not None:
            top, left = (max(0, (n - side) // 2) for n in picture.shape[:2])
            yield path.stem, np.ascontiguousarray(picture[top : top + side, left : left + side, ::-1])


def ellipse(height: int, width: int, x: float, y: float, radius_x: float, radius_y: float) -> Pixels:
    """A hole; all lengths in pixels."""
    hole = np.zeros((height, width), np.uint8)
    cv2.ellipse(hole, (int(x), int(y)), (int(radius_x), int(radius_y)), 20, 0, 360, 255, -1)
    return hole


def faults(picture: Pixels) -> dict[str, Pixels]:
    """What an engine with each fault makes of the picture."""
    levels = picture.astype(np.float32)
    slope = np.linspace(-8, 8, picture.shape[1], dtype=np.float32)[None, :, None]
    gains = np.array([0.95, 1, 1.05], np.float32)[-picture.shape[2] :]
    # (a) to (c) ask for pictures without clipping, (d) for one with.
    calm = np.clip(levels, 12, 238)
    made = {"a +8": calm + 8, "b -8..8": calm + slope, "c gains": calm * gains, "d +8 clip": levels + 8}
    return {name: np.clip(np.rint(v), 0, 255).astype(np.uint8) for name, v in made.items()}


def largest_error(found: NDArray[np.generic], truth: Pixels, hole: Pixels, sigma: float = 16) -> float:
    """Largest absolute error of the blurred composite inside the hole."""
    error = (found.astype(np.float32) - truth) * (hole > 0)[:, :, None]
    return float(np.abs(cv2.GaussianBlur(error, (0, 0), sigma).reshape(error.shape)[hole > 0]).max())


def global_mean(fill: Pixels, original: Pixels, hole: Pixels) -> NDArray[np.generic]:
    """One shift a channel, from all known pixels."""
    known = hole == 0
    return fill + (original[known].mean(axis=0) - fill[known].mean(axis=0))


def lab_statistics(fill: Pixels, original: Pixels, hole: Pixels) -> NDArray[np.generic]:
    """Mean and deviation of each Lab channel over the whole window (Reinhard et al. 2001), as peers do it."""
    if fill.shape[2] == 1:
        a, b = fill.astype(np.float32), original.astype(np.float32)
        return (a - a.mean()) / max(a.std(), 1e-6) * b.std() + b.mean()
    a, b = (cv2.cvtColor(v.astype(np.float32) / 255, cv2.COLOR_RGB2Lab) for v in (fill, original))
    moved = (a - a.mean((0, 1))) / np.maximum(a.std((0, 1)), 1e-6) * b.std((0, 1)) + b.mean((0, 1))
    return cv2.cvtColor(moved.astype(np.float32), cv2.COLOR_Lab2RGB) * 255


def seamless(fill: Pixels, original: Pixels, hole: Pixels) -> NDArray[np.generic]:
    """cv2.seamlessClone, which wants the hole away from the border."""
    left, top, width, height = cv2.boundingRect(hole)
    centre = (left + width // 2, top + height // 2)
    a, b = (np.repeat(v, 3, 2) if v.shape[2] == 1 else v for v in (fill, original))
    # It writes into the mask it is given.
    return cv2.seamlessClone(a, b, hole.copy(), centre, cv2.NORMAL_CLONE)[:, :, : fill.shape[2]]


WAYS: dict[str, Callable[[Pixels, Pixels, Pixels], NDArray[np.generic]]] = {
    "toolkit": lambda fill, original, hole: match_colour(fill, original, hole)[0],
    "none": lambda fill, original, hole: fill,
    "global mean": global_mean,
    "Lab mean/std": lab_statistics,
    "seamlessClone": seamless,
}


ALL = (*WAYS, "blurred mask", "overlay")


def blended(way: str, fill: Pixels, original: Pixels, hole: Pixels) -> NDArray[np.generic]:
    """The finished window: our composite, or a paste with a blurred mask as Pillow and diffusers users do it."""
    if way in ("blurred mask", "overlay"):
        blurred = cv2.GaussianBlur(hole, (0, 0), 4 if way == "overlay" else 12)
        return composite(original, fill, blurred)
    found = WAYS[way](fill, original, hole)
    return composite(original, np.ascontiguousarray(found, np.float32), hole)


def main(side: int = 1000, names: Sequence[str] = ALL) -> list[Row]:
    worst: dict[tuple[str, str], list[float]] = {}
    for name, picture in pictures(side):
        height, width = picture.shape[:2]
        for share in (0.1, 0.2):
            hole = ellipse(height, width, width * 0.47, height * 0.52, share * width, share * 0.8 * height)
            for fault, fill in faults(picture).items():
                truth = picture if fault.startswith("d") else np.clip(picture, 12, 238)
                for way in names:
                    error = largest_error(blended(way, fill, truth, hole), truth, hole)
                    worst.setdefault((way, fault), []).append(error)
                    if way == "toolkit" and error > (2 if fault.startswith("d") else 1):
                        sys.stdout.write(f"misses the aim: {name}, hole {share:.0%}, {fault}: {error:.2f}\n")
    columns = sorted({fault for _, fault in worst})
    sys.stdout.write(f"{'median / 95 % / worst error':16s}" + "".join(f"{c:>22s}" for c in columns) + "\n")
    for way in names:
        cells = [worst[way, c] for c in columns]
        text = "".join(f"{np.median(v):8.2f}{np.quantile(v, 0.95):7.2f}{max(v):7.2f}" for v in cells)
        sys.stdout.write(f"{way:16s}{'':11s}{text}\n")
    sys.stdout.write(f"{len(cells[0])} holes a figure\n")
    rows = []
    for column in columns if "toolkit" in names else ():
        most, promised = max(worst["toolkit", column]), 2 if column.startswith("d") else 1
        others = {way: max(worst[way, column]) for way in names if way != "toolkit"}
        best = min(others, key=others.__getitem__, default="")
        rows.append(
            Row(
                f"engine returns its input with fault {column}: worst error of {len(cells[0])} holes",
                f"{most:.2f} levels",
                f"{best}: {others[best]:.2f} levels" if best else "",
                f"{most / others[best]:.2f}" if best and others[best] >= 0.005 else "",
                f"<= {promised}",
                most <= promised,
            )
        )
    return rows


if __name__ == "__main__":
    ways = sys.argv[2].split(",") if len(sys.argv) > 2 else ALL
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000, ways)
