"""Products with a soft edge on a plain ground, made by arithmetic, and the cutouts that belong to them."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from toolkit.edit import Cutout, Edit
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.photo import Photo
from toolkit.stages import Stage


def blocks(width: int, height: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Squares of 8 pixels in random colours, (height, width, 3) uint8: something for a network to see."""
    colours = np.random.default_rng(seed).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.kron(colours, np.ones((8, 8, 1), np.uint8))[:height, :width]


def matte(height: int, width: int, box: Box, soft: float = 2.0) -> np.ndarray:
    """An ellipse in `box`, (h, w) uint8, that falls from 255 to 0 over about `soft` pixels."""
    y, x = np.mgrid[0:height, 0:width] + 0.5
    middle = (box.left + box.right) / 2, (box.top + box.bottom) / 2
    away = np.hypot((x - middle[0]) / (box.width / 2), (y - middle[1]) / (box.height / 2))
    return np.clip((1 - away) * min(box.size) / 2 / soft * 255 + 128, 0, 255).astype(np.uint8)


def product(
    height: int = 60, width: int = 80, bands: int = 3, dtype: Any = np.uint8, box: Box | None = None, seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A photo (h, w, bands) of a noisy product on a noisy ground; the product's own colours; and its matte."""
    top = np.iinfo(dtype).max
    alpha = matte(height, width, box or Box(width // 5, height // 5, width * 4 // 5, height * 4 // 5))
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, top + 1, (height, width, bands)).astype(dtype)
    ground = rng.integers(top // 3, top // 2, (height, width, bands)).astype(dtype)
    share = alpha[..., None] / 255
    photo = np.rint(colours * share + ground * (1 - share)).astype(dtype)
    if bands in (2, 4):
        photo[..., -1] = top
    return photo, colours, alpha


def cut(source: Any, colours: np.ndarray, alpha: np.ndarray) -> Edit:
    """An edit of `source` (anything upright as large as `alpha`) with the product cut out."""
    edit = Edit.of(source)
    mask = Mask.from_array(alpha, edit.box)
    edge = ((mask.box, colours[mask.box.slices][..., : edit.photo.channels]),)
    return edit.replace(cutouts=(Cutout(mask.box, edge, mask),))


def ready(*stages: Stage, **options: Any) -> Edit:
    """The product of `product(**options)` cut out, and what the stages make of it."""
    photo, colours, alpha = product(**options)
    return after(cut(photo, colours, alpha), *stages)


def after(edit: Edit, *stages: Stage) -> Edit:
    """What the stages make of an edit."""
    for stage in stages:
        edit = stage(edit)
    return edit


def written(edit: Edit, **options: Any) -> Photo:
    """The edit, saved and opened again."""
    stream = io.BytesIO()
    edit.save(stream, **options)
    return Photo.open(stream.getvalue())


def encoded(array: np.ndarray, format: str, **options: Any) -> bytes:
    """A picture file of an array (h, w, 1, 3 or 4) uint8."""
    stream = io.BytesIO()
    Image.fromarray(array[..., 0] if array.shape[2] == 1 else array).save(stream, format, **options)
    return stream.getvalue()


class Prepared:
    """Stands for a recipe that finds the product: it cuts out what it is given."""

    name = "swap-background"

    def __init__(self, colours: np.ndarray, alpha: np.ndarray, *then: Stage) -> None:
        self._colours, self._alpha, self._then = colours, alpha, then

    def bind(self, *_: Any) -> Prepared:
        """Itself."""
        return self

    def stages(self) -> Iterator[Stage]:
        """The stages after the cutout."""
        return iter(self._then)

    def __call__(self, photo: Photo, run: Any) -> Edit:
        """The photo's edit."""
        return after(cut(photo, self._colours, self._alpha), *self._then)
