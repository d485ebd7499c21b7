"""A whole edit around an engine that returns its input, against other ways to paste a fill back.

Run: python -m benchmarks.composite

Photo 3000x2000 (decoded), mask an ellipse of 600x400, working size 1024, warm process, OpenCV on one thread. Every way
gets the decoded photo and the mask and ends with the whole finished picture. Beside the costs stand what it did to
the picture: pixels changed outside the mask it was given (ours: outside its dilated mask, the blend band), and the
error inside the mask, which for this engine is what scaling down and up alone costs.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import types
from collections.abc import Callable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from typing import Any

import cv2
import numpy as np
from PIL import Image, ImageFilter

from benchmarks.measure import Pixels, Row, costs, ellipse, load, one_thread, peak, photo, say
from toolkit.cards import Card
from toolkit.edit import Edit
from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.geometry import Box, Limits
from toolkit.mask import Mask
from toolkit.photo import Photo
from toolkit.recipe import Recipe
from toolkit.run import Run

WIDTH, HEIGHT, WORKING = 3000, 2000, 1024
SECONDS, MEGABYTES = 0.15, 60.0


class Identity:
    """Returns its input, once a seed."""

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """The jobs' own pixels."""
        for job in jobs:
            yield FillResult(job, (job.pixels,) * len(job.seeds))


def card(name: str = "identity", *, keeps_grain: bool = False, **limits: Any) -> Card:
    """A card for an engine of the benchmark's own; its limits are those of FLUX.1 Fill unless given."""
    return Card(
        name=name, task="fill", adapter=name, about="benchmark", revision="1", licence="none", commercial_use=True,
        output_terms="none", data_leaves_machine=False, concurrency="network", keeps_grain=keeps_grain,
        limits=Limits(**({"min_side": 256, "max_side": 1536, "multiple_of": 16, "max_pixels": 1 << 21} | limits)),
    )  # fmt: skip


class Scene:
    """The decoded photo and the mask in the forms the ways want them; the picture under the mask is the truth."""

    def __init__(self) -> None:
        self.pixels = photo(WIDTH, HEIGHT)
        self.mask = ellipse(WIDTH, HEIGHT, (600, 400), (1300, 900))
        self.image, self.mask_image = Image.fromarray(self.pixels), Image.fromarray(self.mask)


def toolkit_way(scene: Scene) -> Callable[[], Edit]:
    """The recipe remove-object from a decoded photo and a Mask to the patches."""
    stream = io.BytesIO()
    scene.image.save(stream, "PNG", compress_level=1)
    opened = Photo.open(stream.getvalue())
    opened.crop(Box(0, 0, 1, 1))  # decodes
    mask = Mask.from_array(scene.mask)
    run = Run(engines={"identity": (card(), Identity())})
    recipe = Recipe.load("remove-object")
    settings = {"crop.size": f"{WORKING}x{WORKING}"}
    return lambda: recipe.bind({"mask": mask, "model": "identity"}, settings)(opened, run)


def crop_and_paste(scene: Scene) -> Pixels:
    """As guides for cv2 show it: the mask's box with context, scaled, filled, scaled back, pasted hard."""
    x, y, width, height = cv2.boundingRect(scene.mask)
    box = Box(x, y, x + width, y + height).grow(width // 2, height // 2).intersect(Box.of_size((WIDTH, HEIGHT)))
    part = scene.pixels[box.slices]
    given = cv2.resize(part, (WORKING, WORKING), interpolation=cv2.INTER_AREA)
    answer = cv2.resize(given, box.size, interpolation=cv2.INTER_CUBIC)
    result = scene.pixels.copy()
    chosen = scene.mask[box.slices] > 0
    result[box.slices][chosen] = answer[chosen]
    return result


def seamless_clone(scene: Scene) -> Pixels:
    """cv2.seamlessClone of the same crop."""
    x, y, width, height = cv2.boundingRect(scene.mask)
    box = Box(x, y, x + width, y + height).grow(width // 2, height // 2).intersect(Box.of_size((WIDTH, HEIGHT)))
    given = cv2.resize(scene.pixels[box.slices], (WORKING, WORKING), interpolation=cv2.INTER_AREA)
    answer = cv2.resize(given, box.size, interpolation=cv2.INTER_CUBIC)
    # The clone is centred on the mask's bounding box, one pixel of which it takes away on each side.
    centre = (x + width // 2, y + height // 2)
    return np.asarray(
        cv2.seamlessClone(answer, scene.pixels, scene.mask[box.slices], centre, cv2.NORMAL_CLONE), np.uint8
    )


def blurred_paste(scene: Scene) -> Pixels:
    """Pillow: the whole frame scaled to the working size and back, laid on through a blurred mask."""
    small = scene.image.resize((WORKING, WORKING * HEIGHT // WIDTH), Image.Resampling.LANCZOS)
    large = small.resize(scene.image.size, Image.Resampling.LANCZOS)
    return np.asarray(Image.composite(large, scene.image, scene.mask_image.filter(ImageFilter.GaussianBlur(8))))


def diffusers_way(scene: Scene) -> Callable[[], Pixels]:
    """`VaeImageProcessor` as the inpainting pipelines use it with `padding_mask_crop`."""
    _without_torch()
    from diffusers.image_processor import VaeImageProcessor

    processor = VaeImageProcessor()

    def work() -> Pixels:
        region = processor.get_crop_region(scene.mask_image, WORKING, WORKING, pad=32)
        cut = scene.image.crop(region)
        answer = processor.resize(cut, WORKING, WORKING)
        return np.asarray(processor.apply_overlay(scene.mask_image, scene.image, answer, region))

    return work


def _without_torch() -> None:
    """Let diffusers be imported where torch is missing: the methods used here work on Pillow images alone."""
    if find_spec("torch") is not None:
        return

    class Absent(types.ModuleType):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("__"):
                raise AttributeError(name)
            return type(name, (), {})

    for name in ("torch", "torch.nn", "torch.nn.functional"):
        module = Absent(name)
        module.__spec__, module.__path__, module.__version__ = ModuleSpec(name, None, is_package=True), [], "0"
        sys.modules[name] = module
        parent, _, child = name.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)


def rembg_way(scene: Scene) -> Callable[[], Pixels]:
    """rembg's composite: the fill, whole frame, cut out by its mask and laid on the photo."""
    from rembg.bg import naive_cutout

    def work() -> Pixels:
        small = scene.image.resize((WORKING, WORKING * HEIGHT // WIDTH), Image.Resampling.LANCZOS)
        cutout = naive_cutout(small.resize(scene.image.size, Image.Resampling.LANCZOS), scene.mask_image)
        result = scene.image.convert("RGBA")
        result.alpha_composite(cutout)
        return np.asarray(result.convert("RGB"))

    return work


Way = Callable[[Scene], Callable[[], Any]]
WAYS: dict[str, Way] = {
    "toolkit, whole picture": lambda scene: (lambda work: lambda: work().array())(toolkit_way(scene)),
    "toolkit, patches": lambda scene: (lambda work: lambda: list(work().render()))(toolkit_way(scene)),
    "cv2: crop, scale, hard paste": lambda scene: lambda: crop_and_paste(scene),
    "cv2: crop, seamlessClone": lambda scene: lambda: seamless_clone(scene),
    "Pillow: blurred mask, whole frame": lambda scene: lambda: blurred_paste(scene),
    "diffusers: VaeImageProcessor": diffusers_way,
    "rembg: naive_cutout": rembg_way,
}


def memory(name: str) -> tuple[float, float]:
    """`peak` of one way in a fresh process, imports and all."""
    command = [sys.executable, "-m", "benchmarks.composite", "--memory", name]
    return tuple(
        json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])
    )


def damage(result: Any, scene: Scene, band: Pixels) -> tuple[int, int, float, int]:
    """Pixels changed outside mask and band, and mean and largest error inside the mask."""
    if isinstance(result, list):
        whole = scene.pixels.copy()
        for box, pixels in result:
            whole[box.slices] = pixels
        result = whole
    error = np.abs(result.astype(np.int16) - scene.pixels).max(axis=2)
    inside = error[scene.mask > 0]
    outside = error > 0
    return (
        int((outside & (scene.mask == 0)).sum()),
        int((outside & (band == 0)).sum()),
        float(inside.mean()),
        int(inside.max()),
    )


def main() -> list[Row]:
    scene = Scene()
    jobs: dict[str, Callable[[], Any]] = {}
    with one_thread():
        for name, way in WAYS.items():
            try:
                jobs[name] = way(scene)
                jobs[name]()
            except ImportError as problem:
                jobs.pop(name, None)
                say(f"{name}: not run, {problem}")
        found = costs(jobs, 9)
        edit = toolkit_way(scene)()
        say(f"{WIDTH}x{HEIGHT}, ellipse 600x400, working size {WORKING}; {load()}")
        say(
            f"{'':36}{'CPU s':>8}{'wall s':>8}{'MB traced':>11}{'resident':>9}"
            f"{'changed outside':>17}{'inside mean':>12}{'max':>5}"
        )
        peaks = {}
        for name, job in jobs.items():
            band = edit.band().array() if name.startswith("toolkit") else scene.mask
            _, outside, mean, most = damage(job(), scene, band)
            peaks[name] = memory(name)
            say(
                f"{name:36}{found[name].cpu:8.3f}{found[name].wall:8.3f}{peaks[name][0]:11.1f}{peaks[name][1]:9.1f}"
                f"{outside:17}{mean:12.2f}{most:5}"
            )
    ours = "toolkit, whole picture"
    output = scene.pixels.nbytes / 1e6
    above = max(peaks[ours]) - output
    rivals = {name: cost.cpu for name, cost in found.items() if not name.startswith("toolkit")}
    rows = [
        Row("edit around an identity engine, 3000x2000, CPU", f"{found[ours].cpu:.3f} s", f"{name}: {cost:.3f} s",
            f"{found[ours].cpu / cost:.2f}", f"<= {SECONDS} s", found[ours].cpu <= SECONDS)
        for name, cost in rivals.items()
    ]  # fmt: skip
    lean = {name: max(peaks[name]) - output for name in rivals}
    rows += [
        Row("the same, memory above photo and output", f"{above:.0f} MB", f"{name}: {lean[name]:.0f} MB",
            f"{above / max(lean[name], 0.1):.2f}", f"<= {MEGABYTES:g} MB", above <= MEGABYTES)
        for name in lean
    ]  # fmt: skip
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["--memory"]:
        with one_thread():
            say(json.dumps(peak(WAYS[sys.argv[2]](Scene()))))
    else:
        main()
