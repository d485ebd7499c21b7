"""A whole edit of a 24-megapixel file, from the file to the file, against decoding and encoding it with Pillow.

Run: python -m benchmarks.edit

Object of 600x400 with a Mask, engine that returns its input (its own time is nothing), windows as for PatchMatch. CPU
seconds of all threads of the process, OpenCV on one thread. Pillow reads and writes the same file with the same
settings: the JPEG's own tables and subsampling, the PNG's compression level. The picture's grain is set so that the
JPEG has 8 MB, as cameras write it.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from benchmarks.composite import Identity, card
from benchmarks.measure import Row, costs, ellipse, load, one_thread, photo, say
from toolkit.cards import find
from toolkit.mask import Mask
from toolkit.photo import Photo
from toolkit.recipe import Recipe
from toolkit.run import Run

WIDTH, HEIGHT = 6000, 4000
RATIO = 1.25
GRAIN = 14.0
SETTINGS: dict[str, dict[str, Any]] = {"JPEG": {"quality": 92, "subsampling": "4:2:0"}, "PNG": {}}


def jobs(source: Path, kind: str, run: Run, mask: Mask) -> dict[str, Callable[[], Any]]:
    """The ways, each from `source` to a new file beside it."""
    recipe = Recipe.load("remove-object").bind({"mask": mask, "model": "identity"})
    target = source.with_stem("result")

    def ours() -> None:
        recipe(Photo.open(source), run).save(target, overwrite=True)

    def pillow() -> None:
        with Image.open(source) as image:
            image.load()
            again = {"quality": "keep"} if kind == "JPEG" else SETTINGS[kind]
            image.save(target, kind, **again, exif=image.info.get("exif", b""))

    return {"toolkit": ours, "Pillow": pillow}


def main() -> list[Row]:
    pixels = photo(WIDTH, HEIGHT, grain=GRAIN)
    mask = Mask.from_array(ellipse(WIDTH, HEIGHT, (600, 400), (2600, 1900)))
    identity = card(keeps_grain=True, **vars(find("fill", "patchmatch").limits))
    engines = {"identity": (identity, Identity())}
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        one_thread(),
        Run(engines=engines) as run,
    ):
        for kind, settings in SETTINGS.items():
            source = Path(folder) / f"photo.{kind.lower()}"
            tags = Image.Exif()
            tags[0x010F], tags[0x0110] = "Benchmark", "24 megapixels"
            Image.fromarray(pixels).save(source, kind, **settings, exif=tags)
            found = costs(jobs(source, kind, run, mask), 9 if kind == "JPEG" else 1)
            ours, theirs = found["toolkit"].cpu, found["Pillow"].cpu
            size = source.stat().st_size
            say(f"{kind}, {size / 1e6:.1f} MB, {8 * size / WIDTH / HEIGHT:.1f} bits a pixel; {load()}")
            for name, cost in found.items():
                say(f"  {name:10}{cost.cpu:8.3f} CPU s {cost.wall:8.3f} wall s")
            promised = kind == "JPEG"
            rows.append(
                Row(
                    f"edit of a 24-megapixel {kind} less the engine, CPU",
                    f"{ours:.2f} s",
                    f"Pillow decode + encode: {theirs:.2f} s",
                    f"{ours / theirs:.2f}",
                    f"<= {RATIO}" if promised else "",
                    ours <= RATIO * theirs if promised else None,
                )
            )
    return rows


if __name__ == "__main__":
    main()
