"""Pictures to check an edit by: the mask laid over the photo, and before, mask and after side by side."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from toolkit.edit import Edit
from toolkit.geometry import Box

_SHEET_SIDE = 900
"""Longest side of a picture on a preview, in pixels."""


def overlaid(edit: Edit, box: Box | None = None) -> npt.NDArray[np.uint8]:
    """The photo (h, w, 3) uint8 sRGB with the mask in red and its contour in white, to check it by.

    Shadows and reflections are blue: filled where they go too, outlined where they were only proposed.
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
    for region in edit.regions:
        if region.label not in ("shadow", "reflection") or region.mask is None:
            continue
        thrown = region.mask.array(box)
        used = inside & (thrown > 0)
        shown[used] = np.add(picture[used], np.array((30, 90, 255), np.uint16)) // 2
        _outline(shown, thrown, (80, 180, 255), width)
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
