"""What lies around a hole, measured and in words: light, warmth, colours, sharpness, grain, place and size.

Everything is read from the hole's neighbourhood on a reduced copy, so that its cost follows the hole.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from toolkit import planning
from toolkit.edit import Edit
from toolkit.geometry import Box, Size
from toolkit.mask import Mask
from toolkit.reduced import reduced_hidden, reduced_mask, reduced_pixels, step_for

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

CONTEXT = 2.0
"""How many times the hole's box is looked at; what fill engines get to see is about that."""

_SIDE = 1024
"""Longest side of the copy that is measured, in pixels; about what fill engines work at."""

_ENOUGH = 64
"""Pixels below which nothing is said of a part."""

_SAME = 10.0
"""CIE76 colour difference below which two sides count as one surface."""

_SIDES = ("left", "right", "above", "below")


@dataclass(frozen=True)
class Surroundings:
    """What is known of a hole's surroundings; an empty word says that it could not be measured or is ordinary.

    Attributes:
        photo: size of the photo.
        hole: the box around the hole, in the photo's pixels.
        share: the hole's share of the photo, 0-1.
        filled: the hole's share of what was looked at (its box with context), 0-1.
        compact: the hole fills most of its box; not so where it has parts far apart.
        place: where it lies in the photo ("lower left").
        view: where it lies in what was looked at, which is about what an engine sees ("centre").
        edges: edges of the photo it reaches ("left", "right", "top", "bottom").
        light: "very dark", "dim", "medium", "bright" or "very bright".
        warmth: "warm" or "cool".
        brighter: the side that is clearly brighter ("left", "right", "above", "below").
        colours: names of the main colours with their shares, most first.
        sides: the colour on each side that lies within the photo, by "left", "right", "above", "below".
        through: pairs of opposite sides that look alike: the surface goes on behind the hole ("across", "upright").
        focus: "sharp", "slightly soft" or "out of focus".
        grain: standard deviation of the grain in levels of 255, 0 where there is no flat part to see it on.
    """

    photo: Size
    hole: Box
    share: float
    filled: float
    compact: bool = True
    place: str = "centre"
    view: str = "centre"
    edges: tuple[str, ...] = ()
    light: str = ""
    warmth: str = ""
    brighter: str = ""
    colours: Mapping[str, float] = field(default_factory=dict)
    sides: Mapping[str, str] = field(default_factory=dict)
    through: tuple[str, ...] = ()
    focus: str = ""
    grain: float = 0.0

    @property
    def is_grainy(self) -> bool:
        """Grain that is seen."""
        return self.grain >= 4.0

    @property
    def text(self) -> str:
        """All of it in a few plain sentences, for models that read."""
        width, height = self.hole.size
        shape = "" if not self.compact else ", wider than high" if width > 1.5 * height else ""
        shape = ", higher than wide" if self.compact and height > 1.5 * width else shape
        reach = f", and reaches the photo's {_listed(self.edges)} edge" if self.edges else ""
        parts = [
            f"The hole measures {width}x{height} of the photo's {self.photo.width}x{self.photo.height} pixels"
            f"{shape}; it takes {_percent(self.share)} of the photo and lies {_in(self.place)}{reach}."
        ]
        light = " ".join(word for word in (self.light, self.warmth) if word)
        if light:
            side = f", brighter {_towards(self.brighter)}" if self.brighter else ""
            parts.append(f"The light around it is {light}{side}.")
        if self.colours:
            parts.append(f"Main colours around it: {_listed([f'{c} {s:.0%}' for c, s in self.colours.items()])}.")
        if self.sides:
            parts.append(f"Beside it: {_listed([f'{colour} {_at(side)}' for side, colour in self.sides.items()])}.")
        for pair in self.through:
            ends = "left and right" if pair == "across" else "above and below"
            parts.append(f"What lies {ends} of it looks alike and goes on behind it.")
        if self.focus:
            parts.append(f"It is {self.focus} there{', with visible grain' if self.is_grainy else ''}.")
        return " ".join(parts)


def look(edit: Edit, hole: Mask) -> tuple[Surroundings, Bytes, Bytes]:
    """Look at what lies around `hole` (hard, not empty).

    Returns:
        What was measured; a copy of the neighbourhood, (h, w, 3) uint8 sRGB, longest side at most 1024 pixels, with
        the hole in mid-grey, so that what is to go is neither measured nor shown; and the hole there, (h, w) uint8.
    """
    view = planning.surroundings(hole.box, edit.box, CONTEXT)
    step = step_for(view, _SIDE)
    picture = reduced_pixels(edit, view, step).copy()
    inside = np.where(reduced_mask(hole, view, step) > 0, 255, 0).astype(np.uint8)
    picture[inside > 0] = 127
    known = inside == 0
    hidden = reduced_hidden(edit, view, step)
    if hidden is not None:
        known &= hidden == 0
    box = hole.box.intersect(edit.box)
    found = Surroundings(
        photo=edit.box.size,
        hole=box,
        share=hole.area / edit.box.area,
        filled=float((inside > 0).mean()),
        compact=hole.area > 0.4 * box.area,
        place=_place(box, edit.box),
        view=_place(box, view),
        edges=_reached(box, edit.box),
        **(_measured(picture, inside, known) if int(known.sum()) >= _ENOUGH else {}),
    )
    return found, picture, inside


def _measured(picture: Bytes, inside: Bytes, known: npt.NDArray[np.bool_]) -> dict[str, Any]:
    lab: Floats = np.asarray(cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2Lab), np.float32)
    seen = lab[known]
    lightness, chroma = seen[:, 0], np.hypot(seen[:, 1], seen[:, 2])
    # Only near-grey things tell the light's colour: a lawn is no cool light.
    greyish = seen[(chroma < 20) & (lightness > 15) & (lightness < 97)]
    tint = float(np.median(greyish[:, 2])) if len(greyish) >= max(_ENOUGH, 0.05 * len(seen)) else 0.0
    sides = _sides(lab, inside, known)
    pairs = {"across": ("left", "right"), "upright": ("above", "below")}
    steps = {pair: sides[pair[0]][0] - sides[pair[1]][0] for pair in pairs.values() if set(pair) <= set(sides)}
    steepest = max(steps, key=lambda pair: abs(steps[pair]), default=None)
    brighter = steepest[steps[steepest] < 0] if steepest and abs(steps[steepest]) > 15 else ""
    return {
        "light": _level(float(np.median(lightness))),
        "warmth": "warm" if tint > 4 else "cool" if tint < -4 else "",
        "brighter": brighter,
        "colours": _colours(seen),
        "sides": {side: colour_name(*sides[side]) for side in _SIDES if side in sides},
        "through": tuple(
            name
            for name, (one, other) in pairs.items()
            if one in sides and other in sides and math.dist(sides[one], sides[other]) < _SAME
        ),
        **_fineness(picture, known),
    }


def _level(lightness: float) -> str:
    for limit, word in ((15, "very dark"), (35, "dim"), (65, "medium"), (85, "bright")):
        if lightness < limit:
            return word
    return "very bright"


def _colours(lab: Floats) -> dict[str, float]:
    """Main colours: those of the cells of a coarse cube that hold most pixels, at most three with 15 % or more."""
    coarse = lab[:: max(1, len(lab) // 20_000)]
    cells, index = np.unique(np.floor(coarse / (20, 16, 16)).astype(np.int64), axis=0, return_inverse=True)
    counts = np.bincount(index.ravel(), minlength=len(cells))
    shares: dict[str, float] = {}
    for cell in range(len(cells)):
        name = colour_name(*(float(v) for v in np.median(coarse[index.ravel() == cell], axis=0)))
        shares[name] = shares.get(name, 0.0) + float(counts[cell]) / len(coarse)
    most = sorted(shares.items(), key=lambda one: (-one[1], one[0]))[:3]
    return {name: round(share, 2) for name, share in most if share >= 0.15}


def _sides(lab: Floats, inside: Bytes, known: npt.NDArray[np.bool_]) -> dict[str, tuple[float, float, float]]:
    """The median colour (L, a, b) of what touches the hole's box on each side."""
    x, y, width, height = cv2.boundingRect(inside)
    reach = max(4, round(0.15 * math.sqrt(width * height)))
    rows, columns = slice(y, y + height), slice(x, x + width)
    strips = {
        "left": (rows, slice(max(0, x - reach), x)),
        "right": (rows, slice(x + width, x + width + reach)),
        "above": (slice(max(0, y - reach), y), columns),
        "below": (slice(y + height, y + height + reach), columns),
    }
    found: dict[str, tuple[float, float, float]] = {}
    for side, strip in strips.items():
        pixels = lab[strip][known[strip]]
        if len(pixels) >= _ENOUGH:
            lightness, red, yellow = (float(value) for value in np.median(pixels, axis=0))
            found[side] = (lightness, red, yellow)
    return found


def _fineness(picture: Bytes, known: npt.NDArray[np.bool_]) -> dict[str, Any]:
    """How wide the strongest edges are, and how much grain the flattest parts hold.

    An edge of width s seen through Gaussians of 1 and 4 pixels has gradients of a ratio sqrt((s^2 + 16) / (s^2 + 1)).
    """
    grey: Bytes = np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), np.uint8)
    # The grey hole has edges of its own: nothing within their reach counts.
    clear = cv2.erode(known.astype(np.uint8), np.ones((25, 25), np.uint8)) > 0
    found: dict[str, Any] = {}
    if int(clear.sum()) < 16 * _ENOUGH:
        return found
    steep = [float(np.percentile(_gradient(grey, sigma)[clear], 99)) for sigma in (1.0, 4.0)]
    grain = _grain(grey, clear)
    if steep[0] > max(4.0, 2 * grain) and steep[1] > 0:
        ratio = min(steep[0] / steep[1], 3.99)
        width = math.inf if ratio <= 1 else math.sqrt(max(0.0, (16 - ratio**2) / (ratio**2 - 1)))
        found["focus"] = "sharp" if width < 1.8 else "slightly soft" if width < 4 else "out of focus"
    return found | {"grain": round(grain, 1)}


def _gradient(grey: Bytes, sigma: float) -> Floats:
    smooth = cv2.GaussianBlur(grey, (0, 0), sigma).astype(np.float32)
    return np.asarray(cv2.magnitude(cv2.Sobel(smooth, -1, 1, 0, scale=1 / 8), cv2.Sobel(smooth, -1, 0, 1, scale=1 / 8)))


def _grain(grey: Bytes, clear: npt.NDArray[np.bool_]) -> float:
    """Standard deviation of the noise (Immerkaer 1996) in 16x16 blocks that are flat and not clipped; 0 without any."""
    kernel = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32)
    noise = np.abs(cv2.filter2D(grey, cv2.CV_32F, kernel))
    usable = clear & (grey > 5) & (grey < 250)
    size = (grey.shape[1] // 16, grey.shape[0] // 16)
    if not all(size):
        return 0.0
    crop = (slice(0, size[1] * 16), slice(0, size[0] * 16))
    smooth = cv2.GaussianBlur(grey, (0, 0), 2.0)[crop].astype(np.float32)
    mean, square, share = (
        cv2.resize(values, size, interpolation=cv2.INTER_AREA)
        for values in (smooth, smooth**2, usable[crop].astype(np.float32))
    )
    flat = (share > 0.999) & (square - mean**2 < 3.0**2)
    means = cv2.resize(noise[crop], size, interpolation=cv2.INTER_AREA)[flat]
    return float(np.median(means) * math.sqrt(math.pi / 2) / 6) if len(means) >= 4 else 0.0


def colour_name(lightness: float, red: float, yellow: float) -> str:
    """A plain name for a CIE Lab colour (D65): "grey", "dark green", "light blue", "brown", ..."""
    chroma = math.hypot(red, yellow)
    if chroma < 9:
        for limit, word in ((14, "black"), (35, "dark grey"), (68, "grey"), (90, "light grey")):
            if lightness < limit:
                return word
        return "white"
    hue = math.degrees(math.atan2(yellow, red)) % 360
    if 25 <= hue < 112 and lightness >= 68 and chroma < 35:
        return "beige"
    if 25 <= hue < 92 and lightness < 68 and chroma < 60:
        return "brown" if lightness >= 30 else "dark brown"
    if 92 <= hue < 112 and lightness < 60:
        return "olive green"
    strong = "pink" if lightness > 60 else "red" if hue < 180 else "purple"
    limits = (
        (25, strong), (50, "red"), (80, "orange"), (108, "yellow"), (180, "green"), (222, "teal"), (308, "blue"),
        (335, "purple"), (361, strong),
    )  # fmt: skip
    word = next(word for limit, word in limits if hue < limit)
    if word in ("yellow", "orange", "pink"):
        return word
    return f"dark {word}" if lightness < 28 else f"light {word}" if lightness > 72 else word


def _place(box: Box, frame: Box) -> str:
    """Where the middle of `box` lies in `frame`, in thirds."""
    x = ((box.left + box.right) / 2 - frame.left) / frame.width
    y = ((box.top + box.bottom) / 2 - frame.top) / frame.height
    column = "left" if x < 0.35 else "right" if x > 0.65 else ""
    row = "upper" if y < 0.35 else "lower" if y > 0.65 else ""
    if row and column:
        return f"{row} {column}"
    return {"upper": "top", "lower": "bottom", "": column or "centre"}[row]


def _reached(box: Box, frame: Box) -> tuple[str, ...]:
    sides = {
        "left": box.left <= frame.left, "right": box.right >= frame.right,
        "top": box.top <= frame.top, "bottom": box.bottom >= frame.bottom,
    }  # fmt: skip
    return tuple(side for side, reached in sides.items() if reached)


def _percent(share: float) -> str:
    return f"{share:.1%}" if share < 0.1 else f"{share:.0%}"


def _in(place: str) -> str:
    return f"at its {place}" if place in ("left", "right", "top", "bottom") else f"in its {place}"


def _at(side: str) -> str:
    return side if side in ("above", "below") else f"on the {side}"


def _towards(side: str) -> str:
    return side if side in ("above", "below") else f"towards the {side}"


def _listed(words: tuple[str, ...] | list[str]) -> str:
    return " and ".join(", ".join(words).rsplit(", ", 1)) if len(words) > 1 else "".join(words)
