"""Selection from a box: IoU and CPU time against plain GrabCut, on photos with reference masks.

    INPAINT_DATA=... python benchmarks/select_box.py [prompts] [coco]

`prompts` reads masks/prompts.json, `coco` the objects of coco/instances.json larger than 64x64 pixels.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from toolkit.engines.segment.edge import Binary, Pixels
from toolkit.engines.segment.grabcut import context_for, select
from toolkit.geometry import Box

Case = tuple[str, Pixels, Box, Binary]


def read(path: Path) -> Pixels:
    """An RGB picture, (h, w, 3) uint8."""
    picture = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if picture is None:
        raise FileNotFoundError(path)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB), np.uint8)


def prompts(data: Path) -> Iterator[Case]:
    """Ten photos with one object each."""
    for item in json.loads((data / "masks/prompts.json").read_text()):
        truth = read(data / item["mask"])[..., 0] > 127
        yield Path(item["image"]).stem, read(data / item["image"]), Box(*item["box_xyxy"]), truth


def coco(data: Path) -> Iterator[Case]:
    """The objects of everyday photos that are larger than 64x64 pixels and drawn as polygons."""
    found = json.loads((data / "coco/instances.json").read_text())
    names = {image["id"]: image["file_name"] for image in found["images"]}
    kinds = {kind["id"]: kind["name"] for kind in found["categories"]}
    for item in found["annotations"]:
        left, top, width, height = item["bbox"]
        if item["iscrowd"] or min(width, height) <= 64:
            continue
        photo = read(data / "coco/images" / names[item["image_id"]])
        truth = np.zeros(photo.shape[:2], np.uint8)
        for ring in item["segmentation"]:
            cv2.fillPoly(truth, [np.round(np.reshape(ring, (-1, 2))).astype(np.int32)], 1)
        box = Box(int(left), int(top), int(np.ceil(left + width)), int(np.ceil(top + height)))
        frame = Box.of_size((photo.shape[1], photo.shape[0]))
        yield f"{kinds[item['category_id']]} {item['id']}", photo, box.intersect(frame), truth > 0


def plain(photo: Pixels, box: Box) -> Binary:
    """OpenCV's GrabCut from the rectangle on the whole photo, five iterations."""
    labels, models = np.zeros(photo.shape[:2], np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.setRNGSeed(0)
    rectangle = (box.left, box.top, box.width, box.height)
    cv2.grabCut(photo, labels, rectangle, *models, 5, cv2.GC_INIT_WITH_RECT)
    return np.asarray(labels & 1, bool)


def overlap(first: Binary, second: Binary) -> float:
    """Intersection over union."""
    return int(np.count_nonzero(first & second)) / max(1, int(np.count_nonzero(first | second)))


def main() -> None:
    """Print a line an object, then the means and how confidence and success go together."""
    data = Path(os.environ["INPAINT_DATA"])
    cv2.setNumThreads(1)
    for source in (globals()[name] for name in sys.argv[1:] or ["prompts"]):
        rows = []
        for name, photo, box, truth in source(data):
            window = context_for(box, Box.of_size((photo.shape[1], photo.shape[0])))
            began = time.process_time()
            found = select(np.ascontiguousarray(photo[window.slices]), (box.within(window),), (), ())
            seconds = time.process_time() - began
            mask = np.zeros(truth.shape, bool)
            mask[window.slices] = found.mask > 0
            rows.append((overlap(mask, truth), overlap(plain(photo, box), truth), found.confidence, seconds))
            ours, theirs, confidence, cost = rows[-1]
            figures = f"{ours:5.3f} plain {theirs:5.3f} confidence {confidence:5.3f} {cost:5.2f} s"
            out(f"{name:24.24} {figures}  {found.reason}")
        table = np.array(rows)
        ours_all, theirs_all, confidences, costs = table.T
        out(
            f"{source.__name__}: mean {ours_all.mean():.3f} median {np.median(ours_all):.3f} min {ours_all.min():.3f}, "
            f"plain {theirs_all.mean():.3f} median {np.median(theirs_all):.3f} min {theirs_all.min():.3f}, "
            f"{costs.mean():.2f} CPU s"
        )
        order = np.argsort(confidences)
        low, high = order[: len(order) // 2], order[len(order) // 2 :]
        out(
            f"IoU < 0.7: {np.sum(ours_all[low] < 0.7)} of {len(low)} in the lower half of confidences, "
            f"{np.sum(ours_all[high] < 0.7)} of {len(high)} in the upper"
        )


def out(line: str) -> None:
    """Write a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
