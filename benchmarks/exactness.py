"""Pixels changed outside the blend band after a whole edit, for every lossless format and depth.

Run: python -m benchmarks.exactness

The engine returns noise, so whatever leaks shows. The written file is decoded by a reader the toolkit does not use to
verify itself: Pillow for 8 bits, cv2 for 16-bit PNG, tifffile for TIFF; source and result are read by the same one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from benchmarks.composite import card
from benchmarks.measure import Row, ellipse, photo, say
from toolkit.engines import EngineRun, FillJob, FillResult
from toolkit.mask import Mask
from toolkit.photo import Photo
from toolkit.recipe import Recipe
from toolkit.run import Run

WIDTH, HEIGHT = 613, 407
Pixels = NDArray[Any]


class Noise:
    """Fills whole windows, known pixels too, with noise."""

    def fill(self, jobs: Sequence[FillJob], run: EngineRun) -> Iterator[FillResult]:
        """Noise by seed."""
        for job in jobs:
            images = (np.random.default_rng(seed).integers(0, 256, job.pixels.shape, np.uint8) for seed in job.seeds)
            yield FillResult(job, tuple(images))


def by_pillow(path: Path) -> Pixels:
    """Colours as RGBA, whatever the mode."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGBA"))


def by_cv2(path: Path) -> Pixels:
    """Samples as they are, 16 bits kept."""
    return np.atleast_3d(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))


def by_tifffile(path: Path) -> Pixels:
    """Samples as they are."""
    return np.atleast_3d(tifffile.imread(path))


Writer = Callable[[Path], Any]
Reader = Callable[[Path], Pixels]


def files() -> Iterator[tuple[str, str, Writer, Reader]]:
    """Name, suffix, how the source is written, how source and result are read."""
    colour = photo(WIDTH, HEIGHT)
    alpha = np.full((HEIGHT, WIDTH), 255, np.uint8)
    alpha[:, : WIDTH // 3] = np.linspace(0, 255, WIDTH // 3).astype(np.uint8)
    image, opacity = Image.fromarray(colour), Image.fromarray(alpha)
    eight = {
        "1-bit": image.convert("1"),
        "8-bit grey": image.convert("L"),
        "8-bit grey with alpha": Image.merge("LA", (image.convert("L"), opacity)),
        "8-bit RGB": image,
        "8-bit RGBA": Image.merge("RGBA", (*image.split(), opacity)),
        "palette of 256": image.quantize(256),
        "palette of 16": image.quantize(16),
    }
    low = np.random.default_rng(1).integers(0, 257, (HEIGHT, WIDTH, 4), np.uint16)
    deep = np.minimum(np.dstack([colour, alpha]).astype(np.uint32) * 256 + low, 65535).astype(np.uint16)
    sixteen = {"16-bit grey": deep[..., 1], "16-bit RGB": deep[..., :3], "16-bit RGBA": deep}

    def pillow(source: Image.Image, **options: Any) -> Writer:
        return lambda path: source.save(path, **options)

    def with_cv2(source: Pixels) -> Writer:
        return lambda path: cv2.imwrite(str(path), source)

    def with_tifffile(source: Pixels, **options: Any) -> Writer:
        kind = "rgb" if source.ndim == 3 else "minisblack"
        extra = {"extrasamples": ["unassalpha"]} if source.ndim == 3 and source.shape[2] == 4 else {}
        return lambda path: tifffile.imwrite(path, source, photometric=kind, **extra, **options)

    for name, source in eight.items():
        yield f"PNG {name}", "png", pillow(source), by_pillow
    for name, samples in sixteen.items():
        yield f"PNG {name}", "png", with_cv2(samples), by_cv2
    for name in ("1-bit", "8-bit grey", "8-bit RGB", "8-bit RGBA", "palette of 256"):
        for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate"):
            yield f"TIFF {name}, {compression}", "tif", pillow(eight[name], compression=compression), by_pillow
    for name, samples in sixteen.items():
        yield f"TIFF {name}", "tif", with_tifffile(samples), by_tifffile
        tiled = with_tifffile(samples, tile=(64, 64), compression="zlib")
        yield f"TIFF {name}, tiles, deflate", "tif", tiled, by_tifffile
    for name in ("8-bit RGB", "8-bit RGBA"):
        yield f"WebP lossless {name}", "webp", pillow(eight[name], lossless=True, exact=True), by_pillow
    for name in ("1-bit", "8-bit grey", "8-bit RGB", "palette of 256"):
        yield f"BMP {name}", "bmp", pillow(eight[name]), by_pillow


def main() -> list[Row]:
    mask = Mask.from_array(ellipse(WIDTH, HEIGHT, (180, 120), (250, 190)))
    recipe = Recipe.load("remove-object").bind({"mask": mask, "model": "noise"})
    noise = card("noise", min_side=1, multiple_of=1, max_pixels=None)
    most, wrong, count = 0, [], 0
    with tempfile.TemporaryDirectory() as folder, Run(engines={"noise": (noise, Noise())}) as run:
        for name, suffix, write, read in files():
            source, target = Path(folder) / f"source.{suffix}", Path(folder) / f"result.{suffix}"
            write(source)
            edit = recipe(Photo.open(source), run)
            saved = edit.save(target, overwrite=True)
            before, after = read(source), read(target)
            count += 1
            if before.shape != after.shape or before.dtype != after.dtype:
                wrong.append(name)
                say(f"{name:36} became {after.shape} {after.dtype} from {before.shape} {before.dtype}")
                continue
            changed = (before != after).any(axis=2)
            outside = int((changed & (edit.band().array() == 0)).sum())
            inside = int(changed.sum()) - outside
            most = max(most, outside)
            if outside or not inside:
                wrong.append(name)
            note = f"  {'; '.join(saved.notes)}" if saved.notes else ""
            say(f"{name:36} changed outside {outside:6}  inside {inside:6}  as {saved.mode}{note}")
            source.unlink()
            target.unlink()
    if wrong:
        say(f"not as promised: {', '.join(wrong)}")
    return [
        Row(f"pixels changed outside the band, {count} lossless kinds of file", str(most), promise="0", kept=not wrong)
    ]


if __name__ == "__main__":
    main()
