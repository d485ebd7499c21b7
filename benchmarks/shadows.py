"""Shadows found, kept and left, and parts of objects left, where the truth is known.

    INPAINT_DATA=... python -m benchmarks shadows

Cut-outs of matting/ stand on grounds of photos/ and on paper, with soft shadows multiplied in (IoU, and how often one
is taken), with none (false alarms), and with a mirror image. Every reference mask of masks/ and coco/, eroded or
dilated, is judged for leftovers. The limits of the leftover score were chosen on these masks.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.measure import Row, one_thread
from benchmarks.select_box import coco, overlap, read
from toolkit.geometry import Box
from toolkit.leftovers import leftover_score
from toolkit.mask import Mask
from toolkit.shadows import find_shadow, kept_shadow
from toolkit.stages.crop import _LEFT
from toolkit.stages.select import _SURE

Pixels = NDArray[np.uint8]
SIDE = 440

GROUNDS = {
    "sand": ("yard_cat.jpg", (0.02, 0.84, 0.3, 1.0)),
    "concrete": ("prod_boot_4mp.jpg", (0.1, 0.87, 0.5, 1.0)),
    "road": ("truck.jpg", (0.3, 0.8, 0.7, 1.0)),
    "asphalt": ("highway_9mp.jpg", (0.1, 0.8, 0.35, 0.97)),
    "grass": ("bsds_309004.jpg", (0.1, 0.78, 0.5, 1.0)),
    "linen": ("prod_clock.jpg", (0.1, 0.87, 0.6, 1.0)),
}
PAPERS = {"white": (246, 246, 245), "grey": (170, 170, 172), "beige": (214, 200, 178)}


@dataclass(frozen=True)
class Scene:
    """A composite: pixels, the object's alpha (0-1), and the strength (0-1) of the shadow laid under it."""

    name: str
    pixels: Pixels
    alpha: NDArray[np.float32]
    strength: NDArray[np.float32]


def scenes(data: Path, kind: str, paper: bool) -> Iterator[Scene]:
    """One composite a cut-out and ground; `kind` is "shadow", "none" or "mirror"."""
    names = PAPERS if paper else GROUNDS
    for number, (ground, name) in enumerate((g, n) for g in names for n in ("lemur", "dim3", "dim6")):
        random = np.random.default_rng(number)
        canvas = _paper(ground, random) if paper else _ground(data, ground)
        colour, alpha = _cut_out(data, name)
        height, width = alpha.shape
        left, top = (SIDE - width) // 2 + int(random.integers(-40, 40)), int(random.integers(110, 150))
        whole = np.zeros((SIDE, SIDE), np.float32)
        whole[top : top + height, left : left + width] = alpha
        foreground = np.zeros((SIDE, SIDE, 3), np.float32)
        foreground[top : top + height, left : left + width] = colour
        strength = _shadow(whole, random) if kind == "shadow" else np.zeros_like(whole)
        canvas = canvas * (1 - strength[..., None])
        if kind == "mirror":
            below = min(height, SIDE - top - height)
            image = cv2.GaussianBlur(np.ascontiguousarray(colour[::-1][:below]), (0, 0), 2)
            part = canvas[top + height : top + height + below, left : left + width]
            share = 0.6 * np.ascontiguousarray(alpha[::-1][:below])[..., None]
            part += share * (0.8 * image - part)
            strength[top + height : top + height + below, left : left + width] = share[..., 0]
        picture = canvas + whole[..., None] * (foreground - canvas) + random.normal(0, 2, canvas.shape)
        pixels = np.clip(np.rint(picture), 0, 255).astype(np.uint8)
        packed = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 88])[1]
        decoded = np.ascontiguousarray(cv2.imdecode(packed, cv2.IMREAD_COLOR)[..., ::-1])
        yield Scene(f"{name} on {ground}", decoded, whole, strength)


def _cut_out(data: Path, name: str) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Colours and alpha of an object, about 150 pixels high, cut to its box."""
    image = "lemur_foreground" if name == "lemur" else f"{name}_image"
    colour, alpha = read(data / f"matting/{image}.png"), read(data / f"matting/{name}_alpha.png")[..., 0]
    rows, columns = (np.flatnonzero((alpha > 40).any(axis=axis)) for axis in (1, 0))
    box = Box(int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    factor = 150 / box.height
    size = (round(box.width * factor), 150)
    small = cv2.resize(colour[box.slices], size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32), np.asarray(cv2.resize(alpha[box.slices] / np.float32(255), size), np.float32)


def _ground(data: Path, name: str) -> NDArray[np.float32]:
    file, (left, top, right, bottom) = GROUNDS[name]
    photo = read(data / "photos" / file)
    height, width = photo.shape[:2]
    part = photo[int(top * height) : int(bottom * height), int(left * width) : int(right * width)]
    # Mirrored to a square rather than stretched, so that its grain stays as it is.
    part = cv2.resize(part, None, fx=min(1.0, 260 / part.shape[0]), fy=min(1.0, 260 / part.shape[0]))
    tall, wide = max(0, SIDE - part.shape[0]), max(0, SIDE - part.shape[1])
    while part.shape[0] < SIDE or part.shape[1] < SIDE:
        step_y, step_x = min(tall, part.shape[0] - 1), min(wide, part.shape[1] - 1)
        part = cv2.copyMakeBorder(part, step_y, 0, 0, step_x, cv2.BORDER_REFLECT)
    return part[:SIDE, :SIDE].astype(np.float32)


def _paper(name: str, random: np.random.Generator) -> NDArray[np.float32]:
    y, x = np.mgrid[0:SIDE, 0:SIDE] / SIDE - 0.5
    slope = 1 - 0.08 * (random.uniform(-1, 1) * x + random.uniform(-1, 1) * y) - 0.1 * (x * x + y * y)
    return np.asarray(slope[..., None] * np.array(PAPERS[name]), np.float32)


def _shadow(alpha: NDArray[np.float32], random: np.random.Generator) -> NDArray[np.float32]:
    """The silhouette thrown to one side on the ground, softer than its edge, 0.35-0.65 strong."""
    rows, columns = np.nonzero(alpha > 0.5)
    foot, middle = float(rows.max()), float(np.median(columns))
    lean, flat = random.uniform(0.4, 0.9) * random.choice([-1, 1]), random.uniform(0.25, 0.4)
    # Upright height h becomes `flat` h toward the viewer and `lean` h to the side.
    matrix = np.array([[1, -lean, lean * foot], [0, -flat, foot + flat * foot - 4]], np.float64)
    thrown = cv2.warpAffine(alpha, matrix, (SIDE, SIDE))
    cv2.ellipse(thrown, (int(middle), int(foot) - 2), (int(0.3 * np.ptp(columns)), 7), 0, 0, 360, 1, -1)
    soft = cv2.GaussianBlur(thrown, (0, 0), random.uniform(1.5, 4))
    return np.asarray(soft * random.uniform(0.35, 0.65), np.float32)


def found(data: Path) -> list[Row]:
    """Removal: regions and confidences."""
    rows = []
    seconds = []
    for kind, word in (("shadow", "shadow"), ("mirror", "reflection")):
        hits, shares = [], []
        for scene in scenes(data, kind, False):
            mask = (scene.alpha > 0.5).astype(np.uint8)
            began = time.process_time()
            answer = find_shadow(scene.pixels, mask)
            seconds.append(time.process_time() - began)
            truth = (scene.strength > 0.35 * scene.strength.max()) & (mask == 0)
            hits.append(answer.confidence >= _SURE and answer.kind == word)
            if hits[-1]:
                shares.append(overlap(answer.region, truth))
        rows.append(Row(f"known {word} taken", f"{np.mean(hits):.0%} of {len(hits)}"))
        rows.append(
            Row(f"IoU of those {word}s", f"mean {np.mean(shares):.2f} min {np.min(shares):.2f}" if shares else "-")
        )
    wrong = [
        find_shadow(scene.pixels, (scene.alpha > 0.5).astype(np.uint8)).confidence >= _SURE
        for paper in (False, True)
        for scene in scenes(data, "none", paper)
    ]
    rows.append(Row("taken where there is none", f"{np.sum(wrong)} of {len(wrong)}"))
    rows.append(Row("finding one, CPU s", f"{np.mean(seconds):.2f}"))
    return rows


def kept(data: Path) -> list[Row]:
    """Layers for another background: error of the strength on paper, veil without a shadow, trust in other grounds."""
    errors, veils, trusted = [], [], []
    for kind, error in (("shadow", errors), ("none", veils)):
        for scene in scenes(data, kind, True):
            answer = kept_shadow(scene.pixels, np.rint(scene.alpha * 255).astype(np.uint8))
            outside = cv2.dilate((scene.alpha > 0.02).astype(np.uint8), np.ones((7, 7), np.uint8)) == 0
            near = outside & (scene.strength > 0.03) if kind == "shadow" else outside
            error.append(float(np.abs(answer.strength / 255 - scene.strength)[near].mean()))
            trusted.append(answer.confidence >= 0.5)
    others = [
        kept_shadow(s.pixels, np.rint(s.alpha * 255).astype(np.uint8)).confidence for s in scenes(data, "shadow", False)
    ]
    return [
        Row("kept shadow, mean error of its strength in it", f"mean {np.mean(errors):.3f} max {np.max(errors):.3f}"),
        Row("veil on paper without a shadow", f"mean {np.mean(veils):.4f} max {np.max(veils):.4f}"),
        Row("plain paper trusted", f"{np.mean(trusted):.0%} of {len(trusted)}"),
        Row("other grounds trusted", f"{np.sum(np.array(others) >= 0.5)} of {len(others)}"),
    ]


def references(data: Path) -> Iterator[tuple[Pixels, NDArray[np.bool_]]]:
    """Photos with a reference mask."""
    for path in sorted((data / "masks").glob("*.png")):
        picture = next((data / "photos").glob(path.stem + ".*"), None)
        if picture is not None:
            yield read(picture), read(path)[..., 0] > 127


def left(cases: Iterator[tuple[Pixels, NDArray[np.bool_]]], what: str) -> list[Row]:
    """Leftover scores of eroded masks against those of whole ones, dilated as by default."""
    whole: list[float] = []
    eroded: list[float] = []
    off: list[float] = []
    for photo, truth in cases:
        mask = Mask.from_array(truth)
        box = mask.box.grow(max(mask.box.size) // 2 + 16).intersect(mask.frame)
        pixels, inside = photo[box.slices], truth[box.slices]
        scale = max(1.0, max(box.size) / 480)  # 2 to 12 pixels of a small photo
        final = mask.dilate("2%").union(mask.dilate(6)).array(box) > 0
        whole.append(leftover_score(pixels, inside, final)[0])
        depth = cv2.distanceTransform(inside.astype(np.uint8), cv2.DIST_L2, 5)
        for radius in (2, 4, 6, 8, 12):
            smaller = depth > radius * scale
            if np.count_nonzero(smaller) < 0.3 * np.count_nonzero(inside):
                continue
            score, suggested = leftover_score(pixels, smaller, smaller)
            eroded.append(score)
            if score >= _LEFT and suggested is not None:
                off.append(suggested / scale - radius)
    auc = float(np.mean(np.array(eroded)[:, None] > np.array(whole)[None]))
    return [
        Row(f"leftovers, {what}: AUC", f"{auc:.3f} ({len(eroded)} eroded, {len(whole)} whole)"),
        Row(
            "  warned: eroded, whole",
            f"{np.mean(np.array(eroded) >= _LEFT):.0%}, {np.mean(np.array(whole) >= _LEFT):.0%}",
        ),
        Row("  radius suggested less that needed, px", f"median {np.median(off):+.1f}, 10-90 % {_range(off)}"),
    ]


def _range(values: list[float]) -> str:
    low, high = np.quantile(values, [0.1, 0.9])
    return f"{low:+.1f} to {high:+.1f}"


def main() -> list[Row]:
    """Every figure, one OpenCV thread."""
    data = Path(os.environ["INPAINT_DATA"])
    with one_thread():
        return [
            *found(data),
            *kept(data),
            *left(references(data), "masks/"),
            *left(((photo, truth) for _, photo, _, truth in coco(data)), "coco/"),
        ]
