"""Edges of cut-outs on new grounds: the error against the true composite, and what a cut-out costs.

Run: INPAINT_DATA=... python -m benchmarks matte_edges. Pictures: `matting` of INPAINT_DATA (lemur of PyMatting with
foreground; two crops of fur without, whose foreground is PyMatting's estimate from picture and true alpha, so they are
left out where PyMatting is not installed). The masks are the true alpha, 128 or more, and the same with an outline
that wanders by 1.5 px (RMS). Grounds: white, saturated green, beach. Errors are taken within 7 px of every pixel that
is neither opaque nor transparent. rembg's two ways of pasting a mask, putalpha and alpha matting, run where it is
installed.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from benchmarks.measure import Row, costs, ellipse, one_thread, peak, photo, say
from toolkit.edit import Edit
from toolkit.mask import Mask
from toolkit.run import Run
from toolkit.stages.matte import Matte

Bytes = NDArray[np.uint8]
Floats = NDArray[np.floating[Any]]
FEATHERS = 2, 4, 6, 9, 12, 16, 24
NEAR = 7


class Inline(Run):
    """Computes in this process, so that its CPU time is counted."""

    def compute(self, function: Callable[..., Any], *arguments: Any, name: str = "") -> Any:
        """As `Run` says."""
        return function(*arguments)


@dataclass(frozen=True)
class Case:
    """A picture with its true alpha and foreground, new grounds, and a hard mask."""

    name: str
    pixels: Bytes
    alpha: Bytes
    foreground: Floats
    grounds: tuple[Bytes, ...]
    mask: Bytes

    def error(self, colours: Floats | Bytes, alpha: Bytes) -> tuple[float, float]:
        """Mean absolute and mean squared error, over grounds and channels."""
        disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * NEAR + 1, 2 * NEAR + 1))
        near = cv2.dilate(cv2.inRange(self.alpha, 3, 252), disc) > 0
        away = [
            (_laid(colours, alpha, ground) - _laid(self.foreground, self.alpha, ground))[near]
            for ground in self.grounds
        ]
        return float(np.mean([np.abs(one).mean() for one in away])), float(np.mean([(one**2).mean() for one in away]))


def _laid(colours: Floats | Bytes, alpha: Bytes, ground: Bytes) -> Floats:
    share = alpha[..., None] / np.float32(255)
    return colours * share + ground * (1 - share)


def _read(path: Path, how: int = cv2.IMREAD_COLOR_RGB) -> Bytes:
    array = cv2.imread(str(path), how)
    if array is None:
        raise FileNotFoundError(path)
    return np.asarray(array, np.uint8)


def _wandering(mask: Bytes) -> Bytes:
    waves = cv2.GaussianBlur(np.random.default_rng(0).standard_normal(mask.shape).astype(np.float32), (0, 0), 6)
    inside, outside = (cv2.distanceTransform(one, cv2.DIST_L2, 5) for one in (mask, cv2.bitwise_not(mask)))
    return np.where(inside - outside + 1.5 * waves / waves.std() > 0, 255, 0).astype(np.uint8)


def cases(folder: Path) -> Iterator[Case]:
    """Each picture with each of its masks."""
    beach = _read(folder / "beach.png")
    for name in ("lemur", "dim3", "dim6"):
        pixels = _read(folder / ("lemur.png" if name == "lemur" else f"{name}_image.png"))
        alpha = _read(folder / f"{name}_alpha.png", cv2.IMREAD_GRAYSCALE)
        if name == "lemur":
            foreground: Floats = _read(folder / "lemur_foreground.png").astype(np.float32)
        else:
            try:
                from pymatting import estimate_foreground_ml
            except ImportError:
                say(f"{name}: left out, PyMatting is not installed")
                continue
            foreground = 255 * estimate_foreground_ml(pixels / 255.0, alpha / 255.0)
        size = (alpha.shape[1], alpha.shape[0])
        green = np.zeros_like(pixels)
        green[..., 1] = 255
        grounds = (np.full_like(pixels, 255), green, np.asarray(cv2.resize(beach, size), np.uint8))
        mask = np.where(alpha >= 128, 255, 0).astype(np.uint8)
        for kind, one in (("exact", mask), ("1.5 px off", _wandering(mask))):
            yield Case(f"{name}, mask {kind}", pixels, alpha, foreground, grounds, one)


def cut_out(pixels: Bytes, mask: Bytes, run: Run, engine: str = "guided") -> tuple[Bytes, Bytes]:
    """The toolkit's colours (h, w, 3) and alpha (h, w)."""
    edit = Edit.of(pixels).replace(selected=Mask.from_array(mask))
    done = Matte(matte=engine)(edit, run)
    (cutout,) = done.cutouts
    return np.asarray(cutout.over(edit.box, pixels), np.uint8), cutout.matte.array()


def rembg_matting(pixels: Bytes, mask: Bytes) -> tuple[Bytes, Bytes] | None:
    """The alpha matting of rembg with its own settings; None where it is not installed."""
    try:
        from rembg.bg import alpha_matting_cutout
    except (ImportError, SystemExit):
        return None
    cutout = alpha_matting_cutout(PIL.Image.fromarray(pixels), PIL.Image.fromarray(mask), 240, 10, 10)
    array = np.asarray(cutout)
    return array[..., :3], array[..., 3]


def _feathered(mask: Bytes, radius: float) -> Bytes:
    return np.asarray(cv2.GaussianBlur(mask, (0, 0), radius / 3), np.uint8)


def edges(folder: Path, run: Run) -> list[Row]:
    """One row a case, and the means."""
    rows, ratios = [], []
    for case in cases(folder):
        ours = case.error(*cut_out(case.pixels, case.mask, run))
        feathered = {radius: case.error(case.pixels, _feathered(case.mask, radius)) for radius in FEATHERS}
        best = min(feathered, key=lambda radius: feathered[radius][0])
        rival = feathered[best]
        pasted = case.error(case.pixels, case.mask)
        matting = rembg_matting(case.pixels, case.mask)
        lines = {"best feather": rival, "rembg putalpha": pasted}
        if matting:
            lines["rembg alpha matting"] = case.error(*matting)
        try:
            lines["closed-form engine"] = case.error(*cut_out(case.pixels, case.mask, run, "closed-form"))
        except Exception as problem:
            say(f"closed-form engine: {problem}")
        text = "".join(f"; {name} {one[0]:.2f} / {one[1]:.0f}" for name, one in lines.items())
        say(f"{case.name}: ours {ours[0]:.2f} / {ours[1]:.0f}{text} (mean absolute / squared)")
        ratios.append((ours[0] / rival[0], ours[1] / rival[1]))
        below = ours[0] < min(one[0] for name, one in lines.items() if name.startswith("rembg"))
        rows.append(Row(
            f"edge on new grounds: {case.name}", f"{ours[0]:.2f}", f"{rival[0]:.2f} feather {best} px",
            f"{ratios[-1][0]:.2f}", "below rembg", below,
        ))  # fmt: skip
    mean, squared = (float(np.mean(one)) for one in zip(*ratios, strict=True))
    rows.append(
        Row("edge on new grounds: mean of the ratios", "", "best feather", f"{mean:.2f}", "<= 0.6", mean <= 0.6)
    )
    rows.append(Row("edge on new grounds: the same, squared error", "", "best feather", f"{squared:.2f}"))
    return rows


def product(width: int, height: int, size: tuple[int, int]) -> Edit:
    """A selected ellipse darker than the picture around it, with an edge 1 px soft."""
    picture, mask = photo(width, height), ellipse(width, height, size)
    share = cv2.GaussianBlur(mask, (0, 0), 1)
    for top in range(0, height, 512):
        part = picture[top : top + 512]
        dark = np.float32(0.6) / 255 * share[top : top + 512, :, None]
        picture[top : top + 512] = np.rint(part * (1 - dark))
    return Edit.of(picture).replace(selected=Mask.from_array(mask))


def cost(folder: Path, run: Run) -> list[Row]:
    """CPU seconds at 12 megapixels, memory at 50."""
    pixels = _read(folder / "lemur.png")
    alpha = _read(folder / "lemur_alpha.png", cv2.IMREAD_GRAYSCALE)
    size = (4284, 2772)
    large = Edit.of(np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_CUBIC), np.uint8))
    mask = cv2.threshold(cv2.resize(alpha, size, interpolation=cv2.INTER_LINEAR), 127, 255, cv2.THRESH_BINARY)[1]
    large = large.replace(selected=Mask.from_array(np.asarray(mask, np.uint8)))
    crisp = product(4000, 3000, (2400, 2200))
    rows = []
    stage = Matte(matte="guided")
    found = costs({"fur": lambda: stage(large, run), "crisp outline": lambda: stage(crisp, run)}, 5)
    for name, one in found.items():
        what = f"matte and colours at 12 MP, {name}, CPU s"
        rows.append(Row(what, f"{one.cpu:.2f}", promise="<= 1.2", kept=one.cpu <= 1.2))
    huge = product(8660, 5773, (6000, 5000))
    traced, resident = peak(lambda: stage(huge, run))
    decoded = huge.box.area * 3 / 1e6
    say(f"50 MP: {traced:.0f} MB traced, {resident:.0f} MB resident above the photo's {decoded:.0f} MB")
    rows.append(Row("memory of matte and colours at 50 MP, traced MB", f"{traced:.0f}", f"{decoded:.0f} decoded",
                    f"{traced / decoded:.2f}", "<= 2, the photo apart", traced <= 2 * decoded))  # fmt: skip
    return rows


def main() -> list[Row]:
    """Edges, then cost."""
    folder = Path(os.environ["INPAINT_DATA"]) / "matting"
    with one_thread(), Inline(workers=1) as run:
        return [*edges(folder, run), *cost(folder, run)]


if __name__ == "__main__":
    for row in main():
        say(str(row))
