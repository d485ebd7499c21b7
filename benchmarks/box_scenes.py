"""Training scenes for selecting from a box: objects whose masks are known, pasted as a camera would have seen them.

Cut-outs with an alpha (pymatting's lemur, two of foamliu's Deep-Image-Matting) or traced by hand, thin and hollow
things drawn here, and pieces of photos, on photos of `photos/` and scikit-image's; also the traced objects where they
stand. No picture of BSDS (`masks/prompts.json`) or COCO is among them: those are what the selection is judged by.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import skimage.data

from toolkit.engines.segment.edge import Binary, Pixels
from toolkit.geometry import Box

Floats = npt.NDArray[np.float32]
Random = np.random.Generator
Part = tuple[float, float, float, float]

GROUNDS = (
    "barn_lanterns.jpg", "autumn_boat.jpg", "birdhouses.bmp", "groceries.jpg", "harbour_9mp.jpg", "highway_9mp.jpg",
    "leaf_8mp.jpg", "wisteria_8mp.jpg", "yard_cat.jpg", "truck.jpg", "prod_boot_4mp.jpg", "prod_sneaker_4mp.jpg",
    "prod_clock.jpg", "coffee", "rocket", "cat", "astronaut", "stereo_motorcycle", "brick", "grass", "gravel",
)  # fmt: skip
# Outlines by eye: the photo, the part of it looked at (0..1), and the corners in percent of that part.
TRACED: dict[str, tuple[str, Part, str]] = {
    "clock": (
        "prod_clock.jpg", (0.15, 0.05, 0.8, 0.9),
        "9,36 10,29 16,22 13,21 15,19 19,20 26,11 38,8 50,7 62,8 72,12 79,19 84,17 86,20 83,23 91,29 92,36 91,40 83,38 "
        "76,36.5 86,42 92,52 94,63 92,74 85,85 78,90.5 22,90.5 14,81 10,70 10,58 13,48 20,41 26,36.5 10,42",
    ),
    "can": (
        "prod_can.jpg", (0.2, 0.1, 0.85, 0.9),
        "24,6.5 70,6.5 70,9 75,19 75,83 68,86.5 50,89 30,87 20,83 18.5,70 18.5,19 24,9",
    ),
    "sneaker": (
        "prod_sneaker_4mp.jpg", (0.25, 0.25, 0.8, 0.65),
        "17,12 24,13 27,20 35,20 44,16 48,17 52,23 58,32 64,40 70,46 80,53 85,60 87,67 80,76 64,86 58,86 45,83 37,78 "
        "37,68 30,63 24,65 11,66 10,57 11,48 13,40 15,30 15,20",
    ),
    "boot": (
        "prod_boot_4mp.jpg", (0.1, 0.08, 0.75, 0.9),
        "3,7 75,8 70,36 66,57 70,64 75,79 91,80 91,84 76,93 64,96 53,91 41,91 40.5,95 24,94 22,92 10,89 7.5,47 6,19",
    ),
    "truck": (
        "truck.jpg", (0.03, 0.1, 0.98, 0.95),
        "8,19 11,17.5 46,16 49,18 63,18 71.5,28 89,31 93,38 96,39 97,51 92,54 91.5,62 87,64.5 83,64 79,61 70,61.5 "
        "69,56 38,58.5 36,66 30,70 24,67 20,61 18.5,59 2,58.5 5.5,57 4.5,40 4,34",
    ),
    "dark car": (
        "two_cars.jpg", (0, 0.4, 1, 0.85),
        "1.5,69 4.6,47 11,32 18,29 26,32 33.5,48.5 43,56 47.5,73 47.5,90 33.5,93 31,97.5 27,97 24,91 8.5,92.5 6.5,97.5 "
        "3,95",
    ),
    "pale car": (
        "two_cars.jpg", (0, 0.4, 1, 0.85),
        "51,84 51.5,73 56,63 64,56 71.5,40 80,36 93,40 96,43 97,58 98,80 96,95 91,99 87,97 64,97 60,99 55,96",
    ),
    "left bag": (
        "groceries.jpg", (0.42, 0.25, 0.85, 0.68),
        "11,29.5 32,31 31.5,48.5 28.6,71 27,90 11,89.5 9.5,71 10,48.5",
    ),
    "middle bag": (
        "groceries.jpg", (0.42, 0.25, 0.85, 0.68),
        "33,20 49.5,21 47,40 49.5,62 49,89 31,89.5 30.5,71 32.7,54 32,37",
    ),
    "right bag": (
        "groceries.jpg", (0.42, 0.25, 0.85, 0.68),
        "51,23.5 71,22 72,43 70.5,71 69,88 62,90 51,83 50,43",
    ),
    "cup": (
        "coffee", (0, 0, 0.9, 1),
        "14.5,53 17,38 24,25 32,20 33,19 37,9 52,4.5 67,8 75,20 75,17 78,19 77,28 84,35 89,50 87,68 78,85 63,95 52,97 "
        "37,93 22,78 16,65",
    ),
    "vase": (
        "prod_vase_white.jpg", (0.35, 0, 0.95, 1),
        "45,7 60,9 59,18 63,32 74,48 80,63 80,74.5 79,87.5 77,98 54,99 32,98 29,86 28,73 31,58 42,39 47,24 49,18",
    ),
    "dog": (
        "bench_dog.png", (0.3, 0.2, 0.7, 0.95),
        "42,5 50.5,4 61,6 71,14 71,18 66,22 74,32 73,47 76,58 73,67 63,68 57,66 38,67 21,67 16,62 17,55 25,47 24,32 "
        "33,23 28.5,16.5 31,11",
    ),
}  # fmt: skip
HOLES = {"clock": "24,17 36,9.5 50,8.8 62,9.5 72,14 79,22 70,22 60,28 58,30 50,31 46,30.5 41,29 35,24 28,22 20,22"}


@dataclass(frozen=True)
class Scene:
    """A photo with a known object: what it shows, (h, w, 3) uint8, the tight box and the object, (h, w) bool."""

    name: str
    photo: Pixels
    box: Box
    truth: Binary


@dataclass(frozen=True)
class Thing:
    """An object cut out: colours (h, w, 3) float32 0..255 and alpha (h, w) float32 0..1, cut to its bounds."""

    name: str
    colours: Floats
    alpha: Floats


@dataclass(frozen=True)
class Stock:
    """What scenes are made of."""

    grounds: dict[str, Pixels]
    things: dict[str, Thing]


def read(data: Path, name: str) -> Pixels:
    """A picture of `photos/`, or scikit-image's where the name has no suffix; RGB, the longer side at most 1400."""
    if "." in name:
        picture = cv2.imread(str(data / "photos" / name), cv2.IMREAD_COLOR)
        if picture is None:
            raise FileNotFoundError(data / "photos" / name)
        picture = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    else:
        picture = getattr(skimage.data, name)()
        picture = picture[0] if isinstance(picture, tuple) else picture
        picture = picture if picture.ndim == 3 else cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB)
    factor = min(1.0, 1400 / max(picture.shape))
    return np.asarray(cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA), np.uint8)


def stock(data: Path) -> Stock:
    """All grounds and things."""
    things = {}
    for name, (source, _, _) in TRACED.items():
        photo = read(data, source)
        inner = cv2.erode(traced(name, photo).astype(np.uint8), np.ones((3, 3), np.uint8))
        things[name] = _thing(name, photo, cv2.GaussianBlur(inner.astype(np.float32), (0, 0), 0.8))
    for name, image in (("lemur", "lemur"), ("dim3", "dim3_image"), ("dim6", "dim6_image")):
        photo = cv2.cvtColor(cv2.imread(str(data / f"matting/{image}.png")), cv2.COLOR_BGR2RGB)
        alpha = cv2.imread(str(data / f"matting/{name}_alpha.png"), cv2.IMREAD_GRAYSCALE)
        things[name] = _thing(name, np.asarray(photo, np.uint8), alpha.astype(np.float32) / 255)
    return Stock({name: read(data, name) for name in GROUNDS}, things)


def traced(name: str, photo: Pixels) -> Binary:
    """A traced object's mask, (h, w) bool."""
    mask = np.zeros(photo.shape[:2], np.uint8)
    _, part, corners = TRACED[name]
    for value, line in ((1, corners), (0, HOLES.get(name, ""))):
        if line:
            points = np.array([pair.split(",") for pair in line.split()], np.float64) / 100
            place = (np.array(part[:2]) + points * np.subtract(part[2:], part[:2])) * mask.shape[::-1]
            cv2.fillPoly(mask, [np.round(place).astype(np.int32)], value)
    return mask > 0


def standing(data: Path) -> Iterator[Scene]:
    """The traced objects where they stand."""
    for name, (source, _, _) in TRACED.items():
        photo = read(data, source)
        factor = min(1.0, 640 / max(photo.shape))
        truth = cv2.resize(traced(name, photo).astype(np.float32), None, fx=factor, fy=factor) > 0.5
        photo = np.asarray(cv2.resize(photo, truth.shape[::-1], interpolation=cv2.INTER_AREA), np.uint8)
        yield Scene(f"real {name}", photo, bounds(truth), truth)


def composed(held: Stock, kinds: Sequence[str], number: int, seed: int) -> Iterator[Scene]:
    """Scenes whose kinds take turns; the same seed gives the same scenes."""
    turn = 0
    while turn < number:
        random = np.random.default_rng((seed, turn))
        kind = kinds[turn % len(kinds)]
        scene = _scene(held, kind, random)
        if scene is not None:
            yield scene
        turn += 1


KINDS = (
    "assembled", "thin", "plain", "assembled", "alike", "camouflaged", "assembled", "covered", "thin", "touching",
    "assembled", "hollow", "piece", "pale", "assembled", "dark",
)  # fmt: skip
CROWDED = (
    "assembled", "thin", "plain", "cluttered", "alike", "camouflaged", "limbed", "covered", "thin", "cluttered",
    "touching", "assembled", "hollow", "limbed", "piece", "cluttered", "pale", "assembled", "dark", "limbed",
)  # fmt: skip

LAID = "slender", "row", "slender", "hollow", "slender", "row"
# What is long and thin, as widths from one end to the other, in parts of its greatest.
PROFILES = {
    "pen": ((0, 0.2), (0.07, 1), (1, 0.9)),
    "knife": ((0, 0.1), (0.12, 0.8), (0.55, 1), (0.56, 0.6), (0.7, 0.75), (1, 0.85)),
    "spoon": ((0, 0.3), (0.04, 0.75), (0.11, 1), (0.19, 0.8), (0.25, 0.3), (0.5, 0.25), (1, 0.5)),
    "fork": ((0, 0.9), (0.2, 1), (0.27, 0.35), (0.5, 0.25), (1, 0.5)),
    "bat": ((0, 0.9), (0.02, 1), (0.3, 0.95), (0.65, 0.4), (0.97, 0.35), (1, 0.5)),
    "bottle": ((0, 0.36), (0.06, 0.36), (0.07, 0.3), (0.25, 0.34), (0.4, 1), (0.98, 1), (1, 0.9)),
}


def bounds(mask: Binary) -> Box:
    """The box around what is set."""
    left, top, width, height = cv2.boundingRect(mask.astype(np.uint8))
    return Box(left, top, left + width, top + height)


def _thing(name: str, photo: Pixels, alpha: Floats) -> Thing:
    """Cut to its bounds; the colours of soft pixels are those of the nearest opaque ones, so that no old rim shows."""
    hidden = (alpha < 0.95).astype(np.uint8)
    nearest = cv2.distanceTransformWithLabels(hidden, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)[1]
    known = np.zeros((int(nearest.max()) + 1, 3), np.float32)
    known[nearest[hidden == 0]] = photo[hidden == 0]
    part = bounds(alpha > 0.5).slices
    return Thing(name, known[nearest][part], np.asarray(alpha[part], np.float32))


def _pick(random: Random, names: dict[str, Thing] | dict[str, Pixels]) -> str:
    return str(random.choice(sorted(names)))


def _ground(held: Stock, random: Random, side: int) -> tuple[str, Floats]:
    """A square part of a photo at a random scale, turned left to right half of the time."""
    name = _pick(random, held.grounds)
    photo = held.grounds[name]
    least = min(photo.shape[:2])
    size = int(random.uniform(min(least, max(200, 0.35 * least)), least + 1))
    top, left = (int(random.integers(0, n - size + 1)) for n in photo.shape[:2])
    part = cv2.resize(photo[top : top + size, left : left + size], (side, side), interpolation=cv2.INTER_AREA)
    return name, np.ascontiguousarray(part[:, :: random.choice((1, -1))]).astype(np.float32)


def _shaped(thing: Thing, random: Random, longer: float, thin: bool = False) -> Thing:
    """Turned, stretched, mirrored and scaled so that its longer side is `longer` pixels."""
    height, width = thing.alpha.shape
    angle = np.deg2rad(random.uniform(0, 360) if thin else random.normal(0, 12))
    drawn = thing.name == "drawn"
    stretch = np.exp(random.normal(0, 0.15)) / (random.uniform(1.5, 3.5) if thin and not drawn else 1)
    flip = random.choice((1.0, -1.0))
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = turn @ np.diag([flip * stretch, 1.0])
    corners = matrix @ np.array([[0, width, 0, width], [0, 0, height, height]], np.float64)
    factor = longer / max(np.ptp(corners, axis=1).max(), 1)
    matrix, corners = matrix * factor, corners * factor
    size = np.ceil(np.ptp(corners, axis=1)).astype(int) + 4
    move = np.hstack([matrix, (2 - corners.min(1))[:, None]])
    soft = max(0.01, 0.45 / factor) if factor < 1 else 0.01
    colours, alpha = (cv2.GaussianBlur(a, (0, 0), soft) if soft > 0.3 else a for a in (thing.colours, thing.alpha))
    shape = (int(size[0]), int(size[1]))
    return Thing(
        thing.name,
        np.asarray(cv2.warpAffine(colours, move, shape, borderMode=cv2.BORDER_REPLICATE), np.float32),
        np.asarray(cv2.warpAffine(alpha, move, shape), np.float32),
    )


def _drawn(random: Random, hollow: bool) -> Floats:
    """The alpha of a thin thing (rod, blade, spoon, fork, bow) upright, or of a hollow one (ring, loop, frame)."""
    alpha = np.zeros((480, 480), np.uint8)
    if hollow:
        wide, axes = int(random.integers(14, 60)), (int(random.integers(90, 200)), int(random.integers(120, 200)))
        if random.random() < 0.3:
            cv2.rectangle(alpha, (240 - axes[0], 240 - axes[1]), (240 + axes[0], 240 + axes[1]), 255, wide)
        else:
            cv2.ellipse(alpha, (240, 240), axes, 0, 0, random.choice((360, 360, 250)), 255, wide)
        if random.random() < 0.4:  # a handle
            cv2.line(alpha, (240, 240 + axes[1]), (240, 470), 255, wide)
        return alpha.astype(np.float32) / 255
    wide, kind = random.integers(12, 44), random.choice(("rod", "blade", "spoon", "fork", "bow"))
    head = int(random.uniform(1.6, 3.5) * wide)
    y = np.arange(10, 471)
    width = np.full(len(y), float(wide))
    centre = np.full(len(y), 240.0)
    if kind == "blade":
        width = wide * np.interp(y, (10, 60, 260, 270, 470), (0.2, 1.2, 1.4, 0.9, 1.1))
    elif kind == "spoon":
        width = np.where(y < 120, head * np.sqrt(np.clip(1 - ((y - 65) / 55) ** 2, 0, 1)), 0)
        width = np.maximum(width, wide * np.interp(y, (10, 115, 130, 470), (0, 0, 0.5, 1)))
    elif kind == "bow":
        centre = 240 + random.uniform(20, 110) * np.sin(np.pi * (y - 10) / 460)
    for row, middle, half in zip(y, centre, width / 2, strict=True):
        alpha[row, max(0, round(middle - half)) : max(0, round(middle + half)) + 1] = 255
    if kind == "fork":
        cv2.rectangle(alpha, (240 - head // 2, 70), (240 + head // 2, 130), 255, -1)
        for x in np.linspace(240 - head / 2, 240 + head / 2, 4):
            cv2.line(alpha, (round(x), 10), (round(x), 80), 255, max(2, head // 9))
    return alpha.astype(np.float32) / 255


def _slender(held: Stock, own: Stock, random: Random, kind: str = "") -> Thing:
    """A long thing upright: one of `PROFILES`, a little bent, of two or three materials, shaded like a cylinder."""
    length, kind = 460, kind or str(random.choice(sorted(PROFILES)))
    wide = {"bottle": random.uniform(90, 170), "pen": random.uniform(12, 34)}.get(kind, random.uniform(24, 64))
    along = np.linspace(0, 1, length)
    half = np.interp(along, *np.array(PROFILES[kind]).T) * wide / 2
    bend = 0 if kind in ("bottle", "pen") else random.normal(0, 10)
    across = np.arange(200)[None] - 100 - bend * np.sin(np.pi * along)[:, None]
    place = (across / np.maximum(half, 1)[:, None]).astype(np.float32)
    alpha = (np.abs(place) <= 1).astype(np.float32)
    if kind == "fork":
        gaps = np.abs(np.mod(1.75 * place + 0.5, 1) - 0.5) < 0.17
        alpha[:80] *= ~gaps[:80]
    colours = np.zeros((length, 200, 3), np.float32)
    ends = [0, *sorted(random.uniform(0.15, 0.9, int(random.integers(0, 3)))), 1]
    for start, end in pairwise(ends):
        rows = slice(round(start * length), round(end * length))
        if random.random() < 0.25:
            _, piece = _ground(own if random.random() < 0.5 else held, random, length)
            colours[rows] = piece[rows, :200]
        else:
            colours[rows] = random.uniform(20, 235) + random.normal(0, random.choice((4, 35)), 3)
    light = np.cos(random.uniform(1, 3) * place + random.uniform(-1, 1)) * random.uniform(5, 45)
    shine = np.exp(-(((place - random.uniform(-0.7, 0.7)) / 0.15) ** 2)) * max(0, random.normal(0, 50))
    uneven = 12 * cv2.GaussianBlur(random.standard_normal(alpha.shape).astype(np.float32), (0, 0), 12) * 12
    colours += (light + shine + uneven)[..., None].astype(np.float32)
    part = bounds(alpha > 0.5).slices
    return Thing("drawn", colours[part], cv2.GaussianBlur(alpha, (0, 0), 0.8)[part])


def _blob(random: Random) -> Floats:
    """The alpha of a smooth random shape."""
    field = cv2.GaussianBlur(random.standard_normal((256, 256)).astype(np.float32), (0, 0), random.uniform(14, 40))
    y, x = np.mgrid[:256, :256] / 127.5 - 1
    field = field / field.std() * 0.35 + (0.9 - 1.3 * np.hypot(x, y))
    _, parts, stats, _ = cv2.connectedComponentsWithStats((field > 0).astype(np.uint8))
    largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
    return (parts == largest).astype(np.float32)


def _limbed(random: Random) -> Floats:
    """The alpha of a body with a head and limbs, upright or on all fours."""
    alpha = np.zeros((480, 480), np.uint8)
    body = np.array([random.integers(34, 75), random.integers(70, 130)])
    cv2.ellipse(alpha, (240, 230), [int(n) for n in body], random.normal(0, 12), 0, 360, 255, -1)
    head = int(random.uniform(26, 48))
    cv2.circle(alpha, (240 + int(random.normal(0, 15)), int(230 - body[1] - 0.6 * head)), head, 255, -1)
    for side in (-1, 1):
        for height, reach in ((-0.7, 55), (0.75, 75)):  # arms and legs of two parts
            joint = np.array([240 + side * body[0] * random.uniform(0.4, 0.8), 230 + height * body[1]])
            wide, angle = random.uniform(18, 44), random.uniform(-0.3, 1.1) * side
            for _ in range(2):
                step = reach * random.uniform(0.7, 1.2) * np.array([np.sin(angle), np.cos(angle)])
                cv2.line(alpha, joint.astype(int).tolist(), (joint + step).astype(int).tolist(), 255, int(wide))
                joint, wide, angle = joint + step, 0.85 * wide, angle + random.normal(0, 0.5)
    if random.random() < 0.35:
        alpha = alpha.T
    return np.ascontiguousarray(alpha).astype(np.float32) / 255


def _filled(alpha: Floats, held: Stock, random: Random, metal: bool) -> Thing:
    """A shape filled with a piece of a photo, or with a colour, shaded like something round."""
    height, width = alpha.shape
    if metal or random.random() < 0.4:
        base = random.uniform(20, 235) + random.normal(0, 25, 3)
        colours = np.broadcast_to(base, (height, width, 3)).astype(np.float32)
    else:
        _, colours = _ground(held, random, max(height, width))
        colours = colours[:height, :width]
    depth = cv2.distanceTransform((alpha > 0.5).astype(np.uint8), cv2.DIST_L2, 5)
    rise = np.dstack(np.gradient(cv2.GaussianBlur(np.sqrt(depth), (0, 0), 2)))
    angle = random.uniform(0, 2 * np.pi)
    light = (rise @ np.array([np.sin(angle), np.cos(angle)])) / max(1e-6, float(np.abs(rise).max()))
    shade = light * random.uniform(10, 90) + 12 * cv2.GaussianBlur(random.standard_normal(alpha.shape), (0, 0), 20) * 20
    part = bounds(alpha > 0.5).slices
    soft = cv2.GaussianBlur(alpha, (0, 0), 0.8)
    return Thing("drawn", (colours + shade[..., None]).astype(np.float32)[part], soft[part])


def _assembled(alpha: Floats, held: Stock, own: Stock, random: Random) -> Thing:
    """A shape of several parts, each of another photo or colour, some of the ground's own."""
    whole = _filled(alpha, held, random, False)
    height, width = whole.alpha.shape
    y, x = np.mgrid[:height, :width].astype(np.float32)
    seeds = random.uniform(0, 1, (int(random.integers(2, 5)), 2)) * (height, width)
    reach = [np.hypot(y - row, x - column) * random.uniform(0.7, 1.4) for row, column in seeds]
    nearest = np.argmin(reach, axis=0)
    for number in range(1, len(seeds)):
        part = _filled(alpha, own if random.random() < 0.35 else held, random, False)
        weight = cv2.GaussianBlur((nearest == number).astype(np.float32), (0, 0), 1)[..., None]
        whole = Thing("assembled", whole.colours + weight * (part.colours - whole.colours), whole.alpha)
    return whole


def _strewn(canvas: Floats, held: Stock, random: Random, longer: float, number: int) -> None:
    """Things and pieces of things pasted all over, in place."""
    for _ in range(number):
        if random.random() < 0.5:
            other = held.things[_pick(random, held.things)]
        else:
            other = _assembled(
                np.pad(_limbed(random) if random.random() < 0.5 else _blob(random), 3), held, held, random
            )
        other = _lit(_shaped(other, random, longer * random.uniform(0.35, 1.1)), canvas, random, random.uniform(0, 0.4))
        sides = zip(canvas.shape[1::-1], other.alpha.shape[::-1], strict=True)
        left, top = (int(random.integers(-n // 2, side - n // 2 + 1)) for side, n in sides)
        _placed(canvas, other, (left, top))


def _lit(thing: Thing, ground: Floats, random: Random, share: float) -> Thing:
    """Its lightness and contrast moved by `share` of the way to the ground's, its saturation a little changed."""
    inside = thing.alpha > 0.5
    mean, aim = thing.colours[inside].mean(0), ground.reshape(-1, 3).mean(0)
    colours = (thing.colours - mean) * random.uniform(0.8, 1.15) + mean + share * (aim - mean)
    grey = colours.mean(-1, keepdims=True)
    return Thing(thing.name, np.asarray(grey + (colours - grey) * random.uniform(0.6, 1.2), np.float32), thing.alpha)


def _placed(canvas: Floats, thing: Thing, corner: tuple[int, int]) -> Floats:
    """Pastes in place, clipped to the canvas; the alpha of the whole canvas."""
    height, width = thing.alpha.shape
    alpha = np.zeros(canvas.shape[:2], np.float32)
    left, top = corner
    x0, y0, x1, y1 = max(0, left), max(0, top), min(canvas.shape[1], left + width), min(canvas.shape[0], top + height)
    if x0 >= x1 or y0 >= y1:
        return alpha
    part = slice(y0 - top, y1 - top), slice(x0 - left, x1 - left)
    alpha[y0:y1, x0:x1] = thing.alpha[part]
    weight = thing.alpha[part][..., None]
    canvas[y0:y1, x0:x1] += weight * (thing.colours[part] - canvas[y0:y1, x0:x1])
    return alpha


def _scene(held: Stock, kind: str, random: Random) -> Scene | None:
    """A scene of one kind; None where too little of the object is seen."""
    longer = float(np.exp(random.uniform(np.log(75), np.log(430))))
    side = int(random.uniform(2.0, 3.0) * longer if kind == "row" else random.uniform(1.3, 2.5) * longer)
    ground_name, canvas = _ground(held, random, side)
    if kind in ("thin", "hollow") and random.random() < 0.85:
        thing = _filled(_drawn(random, kind == "hollow"), held, random, random.random() < 0.6)
    elif kind == "slender" and random.random() < 0.8:
        thing = _slender(held, Stock({ground_name: held.grounds[ground_name]}, {}), random)
    elif kind == "row" and random.random() < 0.5:
        thing = _slender(held, held, random, "bottle")
    elif kind == "piece":
        thing = _filled(_blob(random), held, random, False)
    elif kind in ("camouflaged", "assembled", "limbed", "cluttered"):
        own = Stock({ground_name: held.grounds[ground_name]}, {})
        if kind == "cluttered":
            _strewn(canvas, held, random, longer, int(random.integers(4, 9)))
            own = Stock({ground_name: np.clip(canvas, 0, 255).astype(np.uint8)}, {})
        if kind == "limbed" or (kind == "cluttered" and random.random() < 0.4):
            alpha = _limbed(random)
        else:
            alpha = _blob(random) if random.random() < 0.4 else held.things[_pick(random, held.things)].alpha
        alpha = np.pad(alpha, 3)
        if kind == "camouflaged":
            thing = _filled(alpha, own, random, False)
        else:
            thing = _assembled(alpha, held, own, random)
    else:
        thing = held.things[_pick(random, held.things)]
    thing = _shaped(thing, random, longer, kind in ("thin", "slender"))
    near = {"camouflaged": 0.7, "pale": 0.9}.get(kind, random.uniform(0, 0.4))
    if kind == "pale":  # pale on pale
        canvas = 232 + (canvas - canvas.mean((0, 1))) * random.uniform(0.05, 0.3) + random.normal(0, 6, 3)
        canvas = canvas.astype(np.float32)
    thing = _lit(thing, canvas, random, near)
    height, width = thing.alpha.shape
    left, top = (int(random.integers(-n // 8, max(-n // 8 + 1, side - n + n // 8))) for n in (width, height))

    def beside(other: Thing) -> tuple[int, int]:
        angle = random.uniform(0, 2 * np.pi)
        reach = random.uniform(0.55, 1.05) * np.array([np.cos(angle), np.sin(angle)])
        return int(left + reach[0] * (width + other.alpha.shape[1]) / 2 + (width - other.alpha.shape[1]) / 2), int(
            top + reach[1] * (height + other.alpha.shape[0]) / 2 + (height - other.alpha.shape[0]) / 2
        )

    in_front: list[tuple[Thing, tuple[int, int]]] = []
    if kind == "row":  # on either side, some in front
        left, top = (int((side - n) * random.uniform(0.3, 0.7)) for n in (width, height))
        step, sink = random.uniform(0.75, 1.15) * width, random.normal(0, 0.05) * height
        for place in random.permutation([-3, -2, -1, 1, 2, 3]):
            turned = slice(None, None, random.choice((1, -1)))
            other = Thing(thing.name, thing.colours[:, turned], thing.alpha[:, turned])
            other = _lit(other, canvas, random, random.uniform(-0.05, 0.1))
            corner = int(left + place * step + random.normal(0, 0.04) * width), int(top + place * sink)
            if random.random() < 0.3:
                in_front.append((other, corner))
            elif random.random() < 0.9:
                _placed(canvas, other, corner)
    elif kind in ("alike", "touching"):  # behind or beside
        for _ in range(int(random.integers(1, 4))):
            same = kind == "alike"
            if same:
                other = Thing(thing.name, thing.colours[:, ::-1], thing.alpha[:, ::-1])
                other = _lit(other, canvas, random, random.uniform(-0.05, 0.1))
            else:
                other = _shaped(held.things[_pick(random, held.things)], random, longer * random.uniform(0.5, 1.2))
            _placed(canvas, other, beside(other))
    else:
        if random.random() < 0.4:  # something behind
            other = _shaped(held.things[_pick(random, held.things)], random, longer * random.uniform(0.4, 1.0))
            _placed(canvas, other, beside(other))
    if random.random() < 0.5:  # its shadow
        shadow = cv2.GaussianBlur(thing.alpha, (0, 0), 0.04 * longer) * np.float32(random.uniform(0.15, 0.5))
        dark = Thing("shadow", np.zeros_like(thing.colours), np.asarray(shadow, np.float32))
        _placed(canvas, dark, (left + int(random.normal(0, 0.05) * longer), top + int(0.05 * longer)))
    alpha = _placed(canvas, thing, (left, top))
    whole = float(alpha.sum())
    for other, corner in in_front:
        alpha = alpha * (1 - _placed(canvas, other, corner))
    if kind == "covered" or random.random() < (0.8 if kind == "cluttered" else 0.1):
        front = _shaped(held.things[_pick(random, held.things)], random, longer * random.uniform(0.3, 0.9))
        alpha = alpha * (1 - _placed(canvas, front, beside(front)))
    truth = alpha > 0.5
    if float(truth.sum()) < 0.4 * whole or float(truth.sum()) < 60:
        return None
    if kind == "dark":
        canvas = canvas * random.uniform(0.12, 0.35)
    box = bounds(truth)
    if min(box.width, box.height) < 24:
        return None
    return Scene(f"{kind} {thing.name} {ground_name}", _taken(canvas, random, kind == "dark"), box, truth)


def _taken(canvas: Floats, random: Random, dark: bool) -> Pixels:
    """What a camera makes of it: blur, noise and JPEG over object and ground alike."""
    blurred = cv2.GaussianBlur(canvas, (0, 0), random.uniform(0.35, 1.1))
    noise = cv2.GaussianBlur(random.standard_normal(canvas.shape).astype(np.float32), (0, 0), 0.6)
    noisy = np.clip(blurred + noise * random.uniform(1, 9 if dark else 6), 0, 255).astype(np.uint8)
    coded = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(random.integers(70, 96))])[1]
    return np.ascontiguousarray(cv2.imdecode(coded, cv2.IMREAD_COLOR)[..., ::-1])
