"""The known-answer holes of `cases.json` as pictures and masks.

Each case is a hole on background that a person can predict from its surroundings; the pixels under it are the
answer. `box` is (left, top, right, bottom) in the photo; `shape` and `seed` draw the hole inside it. `photo` is a
path under the folder that the environment variable INPAINT_DATA names, or `skimage:NAME` for a picture that
scikit-image brings along.

Where the photos can be had publicly (GitHub repository: path):
    harbour_9mp   ianare/exif-samples: jpg/mobile/HMD_Nokia_8.3_5G.jpg
    highway_9mp   ianare/exif-samples: jpg/tests/30-type_error.jpg
    leaf_8mp      ianare/exif-samples: jpg/mobile/jolla.jpg
    wisteria_8mp  ianare/exif-samples: jpg/hdr/iphone_hdr_YES.jpg
    tractor_12mp  bcmi/libcom: tests/harmony_score_prediction/composite/benches-560435_harm.jpg
    truck         facebookresearch/segment-anything: notebooks/images/truck.jpg
    yard_cat      geekyutao/Inpaint-Anything: example/remove-anything/cat.jpg
    prod_boot_4mp, prod_sneaker_4mp  google/dreambooth: dataset/fancy_boot/00.jpg, dataset/shiny_sneaker/00.jpg
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import skimage
from numpy.typing import NDArray

CASES = Path(__file__).with_name("cases.json")


def load(path: Path = CASES) -> list[dict[str, Any]]:
    """The list of cases: name, photo, shape, box, seed."""
    cases: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return cases


def photo_path(case: dict[str, Any]) -> Path | None:
    """The file of a case's photo, None where it is not on this machine."""
    name = str(case["photo"])
    if name.startswith("skimage:"):
        folder, stem = Path(skimage.__file__).parent / "data", name.removeprefix("skimage:")
        found = sorted(folder.glob(f"{stem}.*"))
        return found[0] if found else None
    root = os.environ.get("INPAINT_DATA")
    path = Path(root) / name if root else None
    return path if path and path.is_file() else None


def hole_of(case: dict[str, Any], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The hole as an (h, w) uint8 mask, 255 = hole; `size` is (width, height) of the photo."""
    mask = np.zeros((size[1], size[0]), np.uint8)
    left, top, right, bottom = case["box"]
    draw = {"rectangle": _rectangle, "blob": _blob, "strokes": _strokes}[case["shape"]]
    mask[top:bottom, left:right] = draw(right - left, bottom - top, np.random.default_rng(case["seed"]))
    return mask


def _rectangle(width: int, height: int, _: np.random.Generator) -> NDArray[np.uint8]:
    return np.full((height, width), 255, np.uint8)


def _blob(width: int, height: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """An ellipse whose radius carries cosines of order 2, 3 and 5, scaled to touch the box."""
    angles = np.linspace(0, 2 * np.pi, 400, endpoint=False)
    radius = np.ones_like(angles)
    for order in (2, 3, 5):
        radius += random.uniform(0.06, 0.2) * np.cos(order * angles + random.uniform(0, 2 * np.pi))
    points = np.stack([radius * np.cos(angles), radius * np.sin(angles)], 1)
    points = (points - points.min(0)) / np.ptp(points, axis=0) * (width - 1, height - 1)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [np.rint(points).astype(np.int32)], 255)
    return mask


def _strokes(width: int, height: int, random: np.random.Generator) -> NDArray[np.uint8]:
    """Random walks of 3-6 segments, as in a scribble, until a fifth of the box is covered."""
    mask, scale = np.zeros((height, width), np.uint8), float(np.hypot(width, height)) / 300
    while np.count_nonzero(mask) < 0.2 * width * height:
        point = random.uniform((0, 0), (width, height))
        angle, thickness = random.uniform(0, 2 * np.pi), round(random.uniform(10, 25) * scale)
        for _ in range(int(random.integers(3, 7))):
            angle += random.uniform(-0.9, 0.9)
            end = point + random.uniform(25, 60) * scale * np.array([np.cos(angle), np.sin(angle)])
            start_xy, end_xy = np.rint(point).astype(int).tolist(), np.rint(end).astype(int).tolist()
            cv2.line(mask, start_xy, end_xy, 255, thickness)
            point = end
    return mask
