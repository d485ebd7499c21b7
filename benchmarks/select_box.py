"""Selection from a box: IoU and CPU time against plain GrabCut, on photos with reference masks.

    INPAINT_DATA=... python -m benchmarks select_box
    INPAINT_DATA=... PYTHONPATH=. python benchmarks/select_box.py [prompts] [coco]

`prompts` reads masks/prompts.json, `coco` the objects of coco/instances.json larger than 64x64 pixels. Nothing was
tuned on the latter.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import cv2
import numpy as np

from benchmarks.measure import Row, one_thread, say
from toolkit.engines.segment.classical import context_for, select
from toolkit.engines.segment.edge import Binary, Pixels
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


@dataclass(frozen=True)
class Result:
    """What one object came to: IoU of ours and of plain GrabCut, our confidence, CPU seconds of both."""

    ours: float
    plain: float
    confidence: float
    seconds: float
    plain_seconds: float


def measured(cases: Iterator[Case]) -> list[Result]:
    """Every case selected by both, a line each."""
    results = []
    for name, photo, box, truth in cases:
        window = context_for(box, Box.of_size((photo.shape[1], photo.shape[0])))
        began = time.process_time()
        found = select(np.ascontiguousarray(photo[window.slices]), (box.within(window),), (), ())
        mask = np.zeros(truth.shape, bool)
        mask[window.slices] = found.mask > 0
        middle = time.process_time()
        theirs = plain(photo, box)
        ended = time.process_time()
        result = Result(overlap(mask, truth), overlap(theirs, truth), found.confidence, middle - began, ended - middle)
        results.append(result)
        figures = f"{result.ours:5.3f} plain {result.plain:5.3f} confidence {result.confidence:5.3f}"
        say(f"{name:24.24} {figures} {result.seconds:5.2f} s  {found.reason}")
    return results


def rows(source: str, results: list[Result]) -> list[Row]:
    """The table's lines for one source, with what was promised for it."""
    ours, theirs, confidences, costs, their_costs = np.array([astuple(result) for result in results]).T
    mean, rival = float(ours.mean()), float(theirs.mean())
    least, margin = (0.85, 0.0) if source == "prompts" else (0.65, 0.08)
    order = np.argsort(confidences, kind="stable")
    low, high = (int(np.sum(ours[half] < 0.7)) for half in (order[: len(order) // 2], order[len(order) // 2 :]))
    worst, lost = float(ours.min()), float(np.mean(ours < 0.3))
    what = f"box selection, {source} ({len(ours)} objects)"
    lines = [
        Row(
            f"{what}: mean IoU, grabCut", f"{mean:.3f}", f"{rival:.3f}", f"{mean - rival:+.3f}",
            f">= {least}, +{margin}", mean >= least and mean >= rival + margin and mean > rival,
        ),
        Row(f"{what}: median IoU, grabCut", f"{np.median(ours):.3f}", f"{np.median(theirs):.3f}"),
        Row(
            f"{what}: least IoU, grabCut", f"{worst:.3f}", f"{theirs.min():.3f}",
            promise=">= 0.5" if source == "prompts" else "", kept=worst >= 0.5 if source == "prompts" else None,
        ),
        Row(
            f"{what}: below IoU 0.3, grabCut", f"{lost:.1%}", f"{np.mean(theirs < 0.3):.1%}",
            promise="< 5 %" if source == "coco" else "", kept=lost < 0.05 if source == "coco" else None,
        ),
        Row(
            f"{what}: IoU < 0.7 in the lower and upper half of confidences", f"{low}, {high}",
            ratio=f"{low / high:.1f}x" if high else "", promise=">= 2x" if source == "coco" else "",
            kept=low >= 2 * high if source == "coco" else None,
        ),
        Row(f"{what}: CPU a box, grabCut", f"{costs.mean():.2f} s", f"{their_costs.mean():.2f} s"),
    ]  # fmt: skip
    return lines


def main(sources: Sequence[str] = ("prompts", "coco")) -> list[Row]:
    """Print a line an object; how well, how surely and how fast the object in a box is found."""
    data = Path(os.environ["INPAINT_DATA"])
    table: list[Row] = []
    with one_thread():
        for source in sources:
            say(source)
            table += rows(source, measured(SOURCES[source](data)))
    return table


SOURCES: dict[str, Callable[[Path], Iterator[Case]]] = {"prompts": prompts, "coco": coco}

if __name__ == "__main__":
    for row in main(sys.argv[1:] or ("prompts",)):
        say(f"{row.what}: {row.ours}  {row.rival}  {row.ratio}  {row.promise}")
