"""Canvas: decide which part of the photo's plane is shown, how large the product is on it, and how many pixels."""

from __future__ import annotations

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from toolkit.edit import Canvas as Shown
from toolkit.edit import Edit
from toolkit.errors import MaskError, ParameterError, UsageError
from toolkit.geometry import Box, Size
from toolkit.photo.photo import MAX_PIXELS
from toolkit.run import Run
from toolkit.schema import SizeField, shown
from toolkit.stages import Log, Stage

_SIDES = ("left", "top", "right", "bottom")


def _share(value: Any) -> float:
    """A share of something: "85%" or 0.85."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*%\s*", value) if isinstance(value, str) else None
    share = float(found[1]) / 100 if found else value
    if isinstance(share, bool) or not isinstance(share, int | float):
        raise ValueError(f'expected a share such as "85%" or 0.85, got {shown(value)}')
    if not 0.01 <= share <= 1:
        raise ValueError(f"must be between 1% and 100%, got {shown(value)}")
    return float(share)


def _margin(value: Any) -> float | str:
    """Whole pixels, or a share of the canvas's shorter side."""
    if isinstance(value, str):
        found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(%|px)?\s*", value)
        if found and found[2] == "%":
            if float(found[1]) >= 50:
                raise ValueError(f"must be less than 50%, got {shown(value)}")
            return f"{found[1]}%"
        if found:
            value = float(found[1])
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f'expected pixels (40) or a share of the shorter side ("5%"), got {shown(value)}')
    if not 0 <= value <= 1 << 20 or value != int(value):
        raise ValueError(f"must be a whole number of pixels, got {shown(value)}")
    return int(value)


ShareField = Annotated[float, BeforeValidator(_share), WithJsonSchema({"type": ["string", "number"]})]
MarginField = Annotated[int | str, BeforeValidator(_margin), WithJsonSchema({"type": ["string", "number"]})]


class Canvas(Stage):
    """Place the product on a canvas; without any field the canvas stays the photo.

    Pixels stay as they are unless a field asks for another scale: with a product size and no canvas size the canvas
    is made as large as that takes; with a canvas size and no product size the product is scaled only to make it fit.
    """

    makes: ClassVar[tuple[str, ...]] = ("canvas",)
    public: ClassVar[bool] = True

    size: SizeField | None = Field(default=None, description="pixels WxH of the result")
    product_size: ShareField | None = Field(
        default=None, description="share of the canvas the product fills, in the direction that is tighter (85%)"
    )
    align: Literal["center", "bottom"] | None = Field(
        default=None, description="where the product stands: center or bottom; center where it is moved at all"
    )
    margin: MarginField | None = Field(
        default=None, description="least distance from the product to the edge: pixels of the result, or 5%"
    )

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Compute the canvas; no pixel is read.

        Raises:
            UsageError: when it is not known where the product is, or a backdrop has been laid already.
            ParameterError: when the margins leave no room.
        """
        product = _product(edit)
        if product is not None:
            self._say_touching(edit, product, log)
        if self.size is None and self.product_size is None and self.align is None and self.margin is None:
            return edit
        if any(patch.by_box for stack in edit.stacks for patch in stack.patches):
            raise UsageError("canvas: a backdrop has been laid for another canvas; put canvas before backdrop")
        if product is None:
            if self.size is None or any(n is not None for n in (self.product_size, self.align, self.margin)):
                raise UsageError("canvas: needs to know where the product is; put a stage before that selects it")
            product = edit.box
        canvas = placed(product, edit.box.size, self.size, self.product_size, self.align, self.margin)
        share = max(product.width / canvas.size.width, product.height / canvas.size.height) * canvas.scale
        if self.product_size is not None and share < self.product_size - 0.005:
            log.warnings.append(f"the margins leave room for a product of {share:.0%} of the canvas")
        if canvas.size.area > MAX_PIXELS:
            raise ParameterError(
                f"canvas: {canvas.size} are {canvas.size.megapixels:.0f} megapixels, more than the "
                f"{MAX_PIXELS / 1e6:g} that can be made; ask for a smaller one"
            )
        if canvas.scale > 1:
            log.warnings.append(f"the product is enlarged {canvas.scale:.3g} times; it has no more detail than before")
        if canvas.scale != 1:
            log.notes.append(f"the whole picture is resampled once, at a scale of {canvas.scale:.4g}")
        log.figures |= {
            "canvas": list(canvas.box), "size": list(canvas.size), "scale": canvas.scale,
            "product": list(product), "product_share": round(share, 4),
        }  # fmt: skip
        return edit.replace(canvas=canvas)

    def _say_touching(self, edit: Edit, product: Box, log: Log) -> None:
        sides = [side for side, mine, its in zip(_SIDES, product, edit.box, strict=True) if mine == its]
        if sides:
            edges = " and ".join(", ".join(sides).rsplit(", ", 1))
            log.warnings.append(f"the product touches the photo's edge ({edges}): it will look cut off there")


def placed(
    product: Box,
    photo: Size,
    size: Size | None,
    share: float | None,
    align: str | None,
    margin: float | str | None,
) -> Shown:
    """The canvas on which `product`, a box of the photo's plane, stands as asked for.

    Args:
        product: its box; what is scaled and aligned.
        photo: the photo's size: the canvas's shape, where `size` is None.
        size: pixels of the result.
        share: of the canvas, that the product fills in the tighter direction.
        align: "center" or "bottom"; at the bottom the gap below is `margin`, or without one the smaller of those at
            the sides and, were it centred, above.
        margin: least gap in pixels of the result, or a share of its shorter side as "5%".

    Raises:
        ParameterError: when the margins leave no room.
    """
    width, height = product.size
    if size is None:
        # The pixels stay as they are, and the canvas, in the photo's shape, gets the size that this takes.
        factor = 1.0 if share is None else max(width / photo.width, height / photo.height) / share
        if isinstance(margin, str):
            edge = 2 * float(margin[:-1]) / 100 * min(photo)
            factor = max([factor, *(n / (whole - edge) for n, whole in zip((width, height), photo, strict=True))])
        elif margin is not None:
            gaps = (n + 2 * margin for n in (width, height))
            factor = max([factor, *(n / whole for n, whole in zip(gaps, photo, strict=True))])
        size, scale = Size(*(max(1, round(n * factor - 1e-9)) for n in photo)), 1.0
        gap = _gap(margin, size)
        size = Size(*(max(n, m + 2 * gap) for n, m in zip(size, (width, height), strict=True)))
    else:
        gap = _gap(margin, size)
        if min(size) <= 2 * gap:
            raise ParameterError(f"canvas.margin: {margin} on every side leave no room on a canvas of {size}")
        fits = min((size.width - 2 * gap) / width, (size.height - 2 * gap) / height)
        wish = 1.0 if share is None else share * min(size.width / width, size.height / height)
        scale = min(wish, fits)
        # Less than half a pixel over the whole product is no reason to resample it.
        if abs(scale - 1) * max(width, height) < 0.5 and (scale >= 1 or fits >= 1):
            scale = 1.0
    free = size.width - width * scale, size.height - height * scale
    below = free[1] / 2
    if align == "bottom":
        below = float(gap) if margin is not None else min(free[0] / 2, free[1] / 2)
    left, top = product.left - free[0] / 2 / scale, product.top - (free[1] - below) / scale
    return Shown.placed((left, top), scale, size)


def _gap(margin: float | str | None, size: Size) -> int:
    if isinstance(margin, str):
        return round(float(margin[:-1]) / 100 * min(size))
    return int(margin or 0)


def _product(edit: Edit) -> Box | None:
    """The box of what is at least half opaque of the cutouts, or of the selection; None without either.

    Raises:
        MaskError: when the cutouts hold nothing.
    """
    if edit.cutouts:
        box = Box(0, 0, 0, 0)
        for cutout in edit.cutouts:
            box = box.union(cutout.matte.threshold(128).box)
        if box.is_empty and edit.selected is not None:
            box = edit.selected.box  # too small or too faint to be opaque anywhere
        if box.is_empty:
            raise MaskError("canvas: nothing of the cutout is opaque, so there is no product to place")
        return box
    return None if edit.selected is None or edit.selected.is_empty else edit.selected.box
