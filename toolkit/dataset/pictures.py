"""Pictures to check an edit by: the mask laid over the photo, and before, mask and after side by side."""

from __future__ import annotations

import math
from functools import partial

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from toolkit import blend
from toolkit.edit import Edit
from toolkit.geometry import Box
from toolkit.reduced import reduced, step_for

_SHEET_SIDE = 900
"""Longest side of a picture on a preview, in pixels."""

_CELL, _GRID, _LABEL, _LEAST = 640, 1920, 28, 240
"""Pixels of a sheet of variations: longest side of a picture, width of all, height and width of what is written."""


def overlaid(edit: Edit, box: Box | None = None) -> npt.NDArray[np.uint8]:
    """The photo (h, w, 3) uint8 sRGB with the mask in red and its contour in white, to check it by.

    What was found by words bears its label. Shadows and reflections are blue: filled where they go too, outlined where
    they were only proposed.
    """
    box = box or edit.box
    picture = edit.replace(stacks=(edit.stacks[0],)).srgb(box).astype(np.uint8)
    if edit.mask is None:
        return picture
    mask = edit.mask.array(box)
    shown = picture.copy()
    inside = mask > 0
    shown[inside] = np.add(picture[inside], np.array((255, 30, 30), np.uint16)) // 2
    width = max(1, round(max(box.size) / 600))
    _outline(shown, mask, (255, 255, 255), width)
    named = tuple(region for region in edit.regions if region.label not in ("", "subject", "shadow", "reflection"))
    if named and box == edit.box:
        _marked(edit.replace(regions=named), shown)
    for region in edit.regions:
        if region.label not in ("shadow", "reflection") or region.mask is None:
            continue
        thrown = region.mask.array(box)
        used = inside & (thrown > 0)
        shown[used] = np.add(picture[used], np.array((30, 90, 255), np.uint16)) // 2
        _outline(shown, thrown, (80, 180, 255), width)
    return shown


_COLOURS = ((255, 80, 80), (80, 160, 255), (90, 220, 90), (255, 190, 60), (220, 110, 255), (70, 220, 220))


def marked(edit: Edit) -> npt.NDArray[np.uint8]:
    """The photo (h, w, 3) uint8 sRGB with each region's box, outline, label and score on it, a colour each."""
    return _marked(edit, edit.srgb(edit.box).astype(np.uint8))


def _marked(edit: Edit, shown: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    width = max(1, round(max(edit.box.size) / 600))
    scale = max(0.4, max(edit.box.size) / 1600)
    for number, region in enumerate(reversed(edit.regions)):  # the best on top
        colour = _COLOURS[(len(edit.regions) - 1 - number) % len(_COLOURS)]
        if region.mask is not None:
            place = region.mask.box
            _outline(shown[place.slices], region.mask.array(place), colour, width)
        box = region.box
        cv2.rectangle(shown, (box.left, box.top), (box.right - 1, box.bottom - 1), colour, width)
        text = f"{region.label} {region.score:.2f}".strip().encode("ascii", "replace").decode()
        (wide, high), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, width)
        left, bottom = max(0, min(box.left, edit.box.right - wide)), max(high + 2 * width, box.top)
        cv2.rectangle(shown, (left, bottom - high - 2 * width), (left + wide, bottom), colour, -1)
        cv2.putText(shown, text, (left, bottom - width), cv2.FONT_HERSHEY_SIMPLEX, scale, (0, 0, 0), width, cv2.LINE_AA)
    return shown


def _outline(shown: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], colour: tuple[int, ...], width: int) -> None:
    contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, contours, -1, colour, width)


def contact_sheet(edit: Edit) -> npt.NDArray[np.uint8]:
    """Before, mask and every variation side by side, (h, w, 3) uint8 sRGB, on white."""
    scale = min(1.0, _SHEET_SIDE / max(edit.box.size))
    size = (max(1, round(edit.box.width * scale)), max(1, round(edit.box.height * scale)))
    before = edit.photo.to_srgb(edit.photo.crop(edit.box))
    pictures = [before, overlaid(edit.replace(stacks=(edit.stacks[0].__class__(),)))]
    small = [cv2.resize(np.ascontiguousarray(one), size, interpolation=cv2.INTER_AREA) for one in pictures]
    small += [_result(edit, k) for k in range(len(edit.stacks))]
    height = max(len(one) for one in small)
    small = [np.pad(one, ((0, height - len(one)), (0, 0), (0, 0)), constant_values=255) for one in small]
    gap = np.full((height, 12, 3), 255, np.uint8)
    row = [part for one in small for part in (one, gap)][:-1]
    return np.asarray(np.concatenate(row, axis=1), np.uint8)


def variation_sheet(edit: Edit) -> npt.NDArray[np.uint8]:
    """All variations in a grid, each with its number, seed and seam score below it, (h, w, 3) uint8 sRGB."""
    count = len(edit.stacks)
    columns = min(count, max(2, math.ceil(math.sqrt(count))))
    step = step_for(edit.canvas.box, min(_CELL, _GRID // columns))
    cells = []
    for k, stack in enumerate(edit.stacks):
        small = reduced(partial(_on_white, edit.choose(k)), edit.canvas.box, step)
        small = np.pad(small, ((0, 0), (0, max(0, _LEAST - small.shape[1])), (0, 0)), constant_values=255)
        label = np.full((_LABEL, small.shape[1], 3), 255, np.uint8)
        seam = "" if stack.seam is None else f"   seam {stack.seam:.2f}"
        seeds = ", ".join(str(seed) for seed in stack.seeds)
        cv2.putText(
            label, f"-{k + 1}   seed {seeds}{seam}", (4, _LABEL - 9), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 0, 0), 1,
            cv2.LINE_AA,
        )  # fmt: skip
        cells.append(np.pad(np.concatenate([small, label]), ((6, 6), (6, 6), (0, 0)), constant_values=255))
    cells += [np.full_like(cells[0], 255)] * (-count % columns)
    rows = [np.concatenate(cells[at : at + columns], axis=1) for at in range(0, len(cells), columns)]
    return np.asarray(np.concatenate(rows), np.uint8)


def _on_white(edit: Edit, box: Box) -> npt.NDArray[np.uint8]:
    """Pixels (h, w, 3) uint8 sRGB of a box, what is transparent on white."""
    pixels = edit.pixels(box)
    colours = edit.photo.to_srgb(pixels)
    if pixels.shape[2] == edit.photo.channels:
        return colours
    alpha = cv2.convertScaleAbs(np.ascontiguousarray(pixels[..., -1]), alpha=255 / np.iinfo(pixels.dtype).max)
    white = np.full_like(colours, 255)
    return blend.composite(white, colours, np.asarray(alpha, np.uint8))


def _result(edit: Edit, k: int) -> npt.NDArray[np.uint8]:
    """Variation `k` as it is saved, reduced, (h, w, 3) uint8 sRGB; on chequers where a stage made it transparent."""
    image = edit.image(k)
    image.thumbnail((_SHEET_SIDE, _SHEET_SIDE), resample=PIL.Image.Resampling.BOX)
    if image.mode == "RGBA":
        x, y = np.arange(image.width) // 12, np.arange(image.height) // 12
        chequers = np.where((x[None, :] + y[:, None]) % 2, 255, 204).astype(np.uint8)
        ground = PIL.Image.fromarray(chequers).convert("RGBA")
        image = PIL.Image.alpha_composite(ground, image).convert("RGB")
    return np.asarray(image)
