"""The main subject without a prompt: IoU on 36 product shots made here, how confidence parts clear from cluttered.

    INPAINT_DATA=... python -m benchmarks.select_subject [folder]

INPAINT_DATA holds `matting/` (pymatting's lemur; foamliu's Deep-Image-Matting picture 6), `photos/` and `masks/`
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
MATTES = ("lemur", "dim6")
PHOTOS = (
    "tractor_12mp", "bsds_113044", "bsds_159091", "bsds_183087", "bsds_207056", "bsds_254033", "bsds_299091",
    "bsds_326038", "bsds_353013", "bsds_42078",
)  # fmt: skip
PAPERS = {"white": [(250, 250, 250), (238, 240, 243)], "grey": [(190, 190, 190), (128, 130, 133)],
          "coloured": [(200, 60, 50), (90, 150, 200), (235, 205, 120), (90, 140, 90)]}  # fmt: skip


@dataclass(frozen=True)
class CutOut:
    """Colours (h, w, 3) float32 0..255, alpha (h, w) float32 0..1, and the sides where the object is cut off."""

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
    """The objects: two with a real alpha, ten with a hard mask softened by one pixel."""
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
    edge = [(x, y) for x in range(width) for y in (0, height - 1)] + [
        (x, y) for y in range(height) for x in (0, width - 1)
    ]
    for x, y in edge:
        if not filled[y + 1, x + 1]:
            cv2.floodFill(small, filled, (x, y), 0, (6, 6, 6), (6, 6, 6), 4 | cv2.FLOODFILL_MASK_ONLY | (1 << 8))
    full = cv2.resize(1 - filled[1:-1, 1:-1].astype(np.float32), picture.shape[1::-1], interpolation=cv2.INTER_LINEAR)
    return np.asarray(full > 0.5)


def overlap(first: Binary, second: Binary) -> float:
    """Intersection over union."""
    return int(np.count_nonzero(first & second)) / max(1, int(np.count_nonzero(first | second)))


def outlined(picture: Pixels, mask: Binary, side: int = 1000) -> Pixels:
    """The picture around the mask with its outline, the longer side `side`."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    margin = round(0.1 * max(width, height))
    part = slice(max(0, top - margin), top + height + margin), slice(max(0, left - margin), left + width + margin)
    factor = side / max(picture[part].shape)
    shown = np.ascontiguousarray(cv2.resize(picture[part], None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA))
    flat = cv2.resize(mask[part].astype(np.uint8), shown.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    lines = cv2.findContours(flat, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0]
    return np.asarray(cv2.drawContours(shown, lines, -1, (255, 0, 255), 1), np.uint8)


def above(first: list[float], second: list[float]) -> float:
    """How often a value of the first is above one of the second, ties half: the area under the ROC curve."""
    pairs = np.subtract.outer(first, second)
    return float((pairs > 0).mean() + (pairs == 0).mean() / 2)


def main() -> list[Row]:
    """The table; with INPAINT_DATA unset only the cost."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 and Path(sys.argv[1]).is_dir() else None
    rows = []
    if "INPAINT_DATA" in os.environ:
        data = Path(os.environ["INPAINT_DATA"])
        with one_thread():
            rows = on_paper(data, folder) + in_life(data, folder)
    made = composite(CutOut("disc", *disc(), (False,) * 4), PAPERS["white"][0], np.random.default_rng(0))[0]
    large = cv2.resize(made, (4000, 3000), interpolation=cv2.INTER_CUBIC)
    with one_thread():
        cost = costs({"ours": lambda: select_subject(large)}, 3)["ours"].cpu
    return [*rows, Row("main subject, 12 megapixels", f"{cost:.2f} s CPU", promise="< 1 s", kept=cost < 1)]


def disc() -> tuple[Float, Float]:
    """A disc of a photo's detail: colours and alpha."""
    y, x = np.mgrid[:600, :600]
    alpha = ((x - 300) ** 2 + (y - 300) ** 2 < 290**2).astype(np.float32)
    return photo(600, 600).astype(np.float32), cv2.GaussianBlur(alpha, (0, 0), 1)


def on_paper(data: Path, folder: Path | None) -> list[Row]:
    """The composites: ours and two rivals."""
    rivals: dict[str, Callable[[Pixels], Binary]] = {"grabCut 3 %": plain_grabcut, "flood fill": flood}
    scores: dict[str, list[float]] = {"ours": [], **{name: [] for name in rivals}}
    for name, picture, truth in composites(data):
        found = select_subject(picture)
        mask = found.mask > 0
        scores["ours"].append(overlap(mask, truth))
        for rival, method in rivals.items():
            scores[rival].append(overlap(method(picture), truth))
        figures = "  ".join(f"{who} {values[-1]:.3f}" for who, values in scores.items())
        say(f"{name:24.24} {figures}  confidence {found.confidence:.2f} {found.reason}")
        if folder:
            cv2.imwrite(str(folder / f"{name}.png"), outlined(picture, mask)[..., ::-1])
    ours = np.array(scores["ours"])
    return [
        Row(
            f"main subject, {len(ours)} composites on paper, IoU against {rival}",
            f"mean {ours.mean():.3f}, min {ours.min():.3f}",
            f"mean {np.mean(scores[rival]):.3f}, min {np.min(scores[rival]):.3f}",
            promise="mean >= 0.955, min >= 0.75",kept=bool(ours.mean() >= 0.955 and ours.min() >= 0.75),
        )
        for rival in rivals
    ]  # fmt: skip


def in_life(data: Path, folder: Path | None) -> list[Row]:
    """Confidence on product photos and composites against everyday photos."""
    confidences: dict[str, list[float]] = {"paper": [], "product": [], "everyday": []}
    sources = [("product", path) for path in sorted((data / "photos").glob("prod_*.jpg"))]
    sources += [("everyday", path) for path in sorted((data / "coco/images").glob("*.jpg"))]
    for kind, path in sources:
        picture = read(path)
        found = select_subject(picture)
        confidences[kind].append(found.confidence)
        say(f"{path.stem:24.24} {kind:9} confidence {found.confidence:.2f} {found.reason}")
        if folder:
            cv2.imwrite(str(folder / f"{path.stem}.png"), outlined(picture, found.mask > 0)[..., ::-1])
    confidences["paper"] = [select_subject(picture).confidence for _, picture, _ in composites(data)]
    return [
        Row(f"confidence: {kind} above everyday photos", f"AUC {above(confidences[kind], confidences['everyday']):.3f}")
        for kind in ("paper", "product")
    ]


if __name__ == "__main__":
    for row in main():
        say(f"{row.what}: {row.ours}  {row.rival}  {row.promise}")
