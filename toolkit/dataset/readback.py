"""Reading back a picture that was made anew: are the pixels that no patch touches those of the photo?"""

from __future__ import annotations

from typing import Any

import numpy as np

from toolkit.drawing import Drawing, Record, fingerprint
from toolkit.errors import FidelityError
from toolkit.patch import with_alpha
from toolkit.photo import Photo, differences

LARGEST_MEASURED = 32_000_000
"""Pixels of a photo up to which two decoded pictures are compared to measure what a lossy format changed."""


def read_back(
    drawing: Drawing, record: Record, written: Photo, *, exact: bool, srgb: bool, measure: bool
) -> dict[str, Any]:
    """What a reader of a written picture finds changed of the photo.

    Args:
        record: what was found when the picture was drawn, law 1 having been verified then.
        exact: whether the format holds every pixel as it is.
        srgb: whether the colours were converted.
        measure: compare also where the format is lossy.

    Raises:
        FidelityError: when a pixel that no patch touches is not the photo's in a file that should hold it.
    """
    if drawing.canvas.scale != 1 or srgb:
        before = " and ".join(["the resampling"] * (drawing.canvas.scale != 1) + ["the conversion to sRGB"] * srgb)
        return {"verified": f"before {before}", "pixels_changed_outside": 0, "scale": round(drawing.canvas.scale, 6)}
    if exact:
        _verify(drawing, record, written)
        changed = {"pixels_changed": record.changed, "pixels_changed_outside": 0, "largest_change_outside": 0}
        return {"verified": True, **changed}
    if not measure or drawing.photo.size.area > LARGEST_MEASURED:
        return {"verified": False, "pixels_changed_outside": None}
    inside = outside = largest = 0
    corner = drawing.canvas.box
    for box, changed_here in differences(drawing.photo, written, at=(corner.left, corner.top)):
        free = ~drawing.touched(box)
        inside += int(np.count_nonzero(changed_here & ~free))
        where = changed_here & free
        outside += int(np.count_nonzero(where))
        if where.any() and written.depth == drawing.photo.depth:
            one, two = drawing.photo.crop(box), written.crop(box.shift(-corner.left, -corner.top))
            channels = min(drawing.photo.channels, written.channels)
            apart = one[..., :channels].astype(np.int32) - two[..., :channels]
            largest = max(largest, int(np.abs(apart)[where].max()))
    found = {"pixels_changed": inside, "pixels_changed_outside": outside, "largest_change_outside": largest}
    return {"verified": True, **found}


def _verify(drawing: Drawing, record: Record, written: Photo) -> None:
    """Compare hashes strip by strip, so that the photo need not be decoded beside the file."""
    canvas, photo = drawing.canvas.box, drawing.photo.box
    for strip, expected in record.kept.items():
        box = strip.shift(canvas.left, canvas.top)
        inside = box.intersect(photo)
        pixels = with_alpha(written.crop(strip), drawing.bands)[inside.within(box).slices]
        if fingerprint(pixels[~drawing.touched(inside)]) != expected:
            raise FidelityError(
                f"{written.name}: pixels outside the blend band would change in {inside}; nothing was written"
            )


def drawn(drawing: Drawing) -> Record:
    """The record of a drawing, made again."""
    record = Record()
    for _ in drawing.strips(record):
        pass
    return record
