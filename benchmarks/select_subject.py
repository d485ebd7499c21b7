"""The main subject without a prompt: IoU on 36 product shots made here, how confidence parts clear from cluttered.

    INPAINT_DATA=... python -m benchmarks.select_subject [folder]

INPAINT_DATA holds `matting/` (pymatting's lemur; foamliu's Deep-Image-Matting pictures 3 and 6), `photos/` and `masks/`
(BSDS500 photos with an annotator's segment as the mask, libcom's tractor, the can, clock, boot, sneaker and vase of the
DreamBooth data set, as `prod_*.jpg`) and `coco/` (26 photos of COCO 2017). All of them lie in public repositories.
With a folder, each result is written there with its outline, to be judged by eye.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.measure import Row, costs, one_thread, photo, say
from toolkit.engines.segment._subject import select_subject

Pixels = npt.NDArray[np.uint8]
Float = npt.NDArray[np.float32]
Binary = npt.NDArray[np.bool_]

SIZE = 1200  # of the composites, square
MATTES = ("lemur", "dim3", "dim6")
PHOTOS = (
    "tractor_12mp", "bsds_113044", "bsds_159091", "bsds_183087", "bsds_207056", "bsds_254033", "bsds_326038",
    "bsds_353013", "bsds_42078",
)  # fmt: skip
PAPERS = {"white": [(250, 250, 250), (238, 240, 243)], "grey": [(190, 190, 190), (128, 130, 133)],
          "coloured": [(200, 60, 50), (90, 150, 200), (235, 205, 120), (90, 140, 90)]}  # fmt: skip


@dataclass(frozen=True)
class CutOut:
    """Straight colours (h, w, 3) float32 0..255, alpha (h, w) float32 0..1, and the sides where the object is cut off."""

    name: str
    colours: Float
    alpha: Float
    cut: tuple[bool, bool, bool, bool]  # left, top, right, bottom


def read(path: Path, flag: int = cv2.IMREAD_COLOR) -> Pixels:
    """A picture, RGB or grey."""
    picture = cv2.imread(str(path), flag)
    if picture is None:
        raise FileNotFoundError(path)
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2RGB) if picture.ndim == 3 else picture, np.uint8)


def cutouts(data: Path) -> Iterator[CutOut]:
    """The objects: three with a real alpha, nine with a hard mask softened by one pixel."""
    for name in MATTES:
        image = data / ("matting/lemur.png" if name == "lemur" else f"matting/{name}_image.png")
        yield cutout(name, read(image), read(data / f"matting/{name}_alpha.png", cv2.IMREAD_GRAYSCALE) / 255)
    for name in PHOTOS:
        image, mask = read(data / f"photos/{name}.jpg"), read(data / f"masks/{name}.png", cv2.IMREAD_GRAYSCALE)
        factor = min(1.0, 1000 / max(mask.shape))
        image, mask = (cv2.resize(a, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA) for a in (image, mask))
        yield cutout(name, image, cv2.GaussianBlur((mask > 127).astype(np.float32), (0, 0), 0.7))


def cutout(name: str, image: Pixels, alpha: npt.NDArray[np.floating]) -> CutOut:
    """Cut to the object's bounds; at its soft edge the colours are the nearest opaque pixel's, smoothed."""
    alpha = np.where(alpha < 0.02, 0, alpha).astype(np.float32)
    hidden = (alpha < 0.95).astype(np.uint8)
    nearest = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    known = np.zeros((int(nearest.max()) + 1, 3), np.uint8)
    known[nearest[hidden == 0]] = image[hidden == 0]
    spread = cv2.GaussianBlur(known[nearest], (0, 0), 2)
    colours = np.where(hidden[..., None] == 0, image, spread).astype(np.float32)
    left, top, width, height = cv2.boundingRect((alpha > 0.5).astype(np.uint8))
    part = slice(top, top + height), slice(left, left + width)
    sides = (alpha[:, 0], alpha[0], alpha[:, -1], alpha[-1])
    first, second, third, fourth = (bool((side > 0.5).sum() > 8) for side in sides)
    return CutOut(name, colours[part], alpha[part], (first, second, third, fourth))


def composite(one: CutOut, paper: tuple[int, int, int], random: np.random.Generator) -> tuple[Pixels, Binary]:
    """The object on a sheet of paper: light falling off, a soft cast and a contact shadow, noise, JPEG.

    Sides where the object is cut off lie at the photo's edge, as in a photo framed too tightly.
    """
    height, width = one.alpha.shape
    factor = random.uniform(0.5, 0.8) * SIZE / max(height, width)
    width, height = round(width * factor), round(height * factor)
    alpha = cv2.resize(one.alpha, (width, height), interpolation=cv2.INTER_LINEAR)
    colours = cv2.resize(one.colours, (width, height), interpolation=cv2.INTER_LINEAR)
    margin = round(0.06 * SIZE)
    left = 0 if one.cut[0] else SIZE - width if one.cut[2] else int(random.integers(margin, SIZE - width - margin + 1))
    top = 0 if one.cut[1] else SIZE - height if one.cut[3] else int(random.integers(margin, SIZE - height - margin + 1))
    cover, object_ = np.zeros((SIZE, SIZE), np.float32), np.zeros((SIZE, SIZE, 3), np.float32)
    part = slice(top, top + height), slice(left, left + width)
    cover[part], object_[part] = alpha, colours

    y, x = np.mgrid[:SIZE, :SIZE].astype(np.float32) / SIZE
    light_x, light_y = random.uniform(0.2, 0.8, 2)
    light = 1 - random.uniform(0.1, 0.35) * ((x - light_x) ** 2 + (y - light_y) ** 2)
    shift = np.array([[1, 0, random.uniform(-0.03, 0.03) * SIZE], [0, 1, 0.02 * SIZE]])
    cast = cv2.GaussianBlur(cv2.warpAffine(cover, shift, (SIZE, SIZE)), (0, 0), 0.025 * SIZE)
    foot = np.zeros_like(cover)
    centre = (left + width // 2, top + height - round(0.01 * SIZE))
    cv2.ellipse(foot, centre, (round(0.42 * width), max(4, round(0.02 * SIZE))), 0, 0, 360, 1, -1)
    foot = cv2.GaussianBlur(foot, (0, 0), 0.012 * SIZE)
    shadow = (1 - random.uniform(0.15, 0.4) * cast) * (1 - random.uniform(0.3, 0.6) * foot)
    ground = np.array(paper, np.float32) * (light * shadow)[..., None]
    picture = ground * (1 - cover[..., None]) + object_ * cover[..., None] * (0.5 + 0.5 * light[..., None])
    picture += random.normal(0, 2, picture.shape)
    quality = [cv2.IMWRITE_JPEG_QUALITY, 88]
    coded = cv2.imencode(".jpg", np.clip(np.rint(picture), 0, 255).astype(np.uint8)[..., ::-1], quality)[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_COLOR)
    assert decoded is not None
    return np.ascontiguousarray(decoded[..., ::-1].astype(np.uint8)), cover > 0.5


def composites(data: Path) -> Iterator[tuple[str, Pixels, Binary]]:
    """The 36 product shots, each with a name and its mask."""
    for number, one in enumerate(cutouts(data)):
        for kind, papers in PAPERS.items():
            random = np.random.default_rng([number, len(kind)])
            yield f"{one.name} {kind}", *composite(one, papers[number % len(papers)], random)


def plain_grabcut(picture: Pixels) -> Binary:
    """OpenCV's GrabCut at 320 px from a rectangle 3 % inside the frame."""
    factor = 320 / max(picture.shape)
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    inset = round(0.03 * min(height, width))
    labels, models = np.zeros(small.shape[:2], np.uint8), (np.zeros((1, 65)), np.zeros((1, 65)))
    cv2.setRNGSeed(0)
    rectangle = (inset, inset, width - 2 * inset, height - 2 * inset)
    cv2.grabCut(small, labels, rectangle, *models, 5, cv2.GC_INIT_WITH_RECT)
    full = cv2.resize((labels & 1).astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 0.5)


def flood(picture: Pixels) -> Binary:
    """What a flood fill from each border pixel with a tolerance of 6 levels from neighbour to neighbour leaves."""
    factor = 320 / max(picture.shape)
    small = cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)
    height, width = small.shape[:2]
    filled = np.zeros((height + 2, width + 2), np.uint8)
    edge = [(x, y) for x in range(width) for y in (0, height - 1)] + [(x, y) for y in range(height) for x in (0, width - 1)]
    for x, y in edge:
        if not filled[y + 1, x + 1]:
            cv2.floodFill(small, filled, (x, y), 0, (6, 6, 6), (6, 6, 6), 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8))
    full = cv2.resize(1 - filled[1:-1, 1:-1].astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 0.5)


def overlap(first: Binary, second: Binary) -> float:
    """Intersection over union."""
    return int(np.count_nonzero(first & second)) / max(1, int(np.count_nonzero(first | second)))
