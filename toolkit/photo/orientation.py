"""Orientation: how a stored picture is turned upright (EXIF tag 274, values 1 to 8), for boxes and arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box, Size

# value: (swap the axes, then mirror x, then mirror y) leads from the stored picture to the upright one
_STEPS = {
    1: (False, False, False),
    2: (False, True, False),
    3: (False, True, True),
    4: (False, False, True),
    5: (True, False, False),
    6: (True, True, False),
    7: (True, True, True),
    8: (True, False, True),
}


def upright_size(size: Size, orientation: int) -> Size:
    """The size of the upright picture."""
    return Size(size.height, size.width) if _STEPS[orientation][0] else size


def stored_box(box: Box, upright: Size, orientation: int) -> Box:
    """Where an upright box lies in the stored picture; `upright` is the whole upright size."""
    swap, mirror_x, mirror_y = _STEPS[orientation]
    left, top, right, bottom = box
    if mirror_x:
        left, right = upright.width - right, upright.width - left
    if mirror_y:
        top, bottom = upright.height - bottom, upright.height - top
    return Box(top, left, bottom, right) if swap else Box(left, top, right, bottom)


def upright_corner(longer: Size, orientation: int) -> tuple[int, int]:
    """X and y of the upright picture's left top corner when the stored one is `longer` at its right and bottom."""
    swap, mirror_x, mirror_y = _STEPS[orientation]
    x, y = (longer.height, longer.width) if swap else longer
    return x * mirror_x, y * mirror_y


def to_upright(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """A stored array (h, w, ...) turned upright; a view."""
    swap, mirror_x, mirror_y = _STEPS[orientation]
    if swap:
        array = np.swapaxes(array, 0, 1)
    return array[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]


def to_stored(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """An upright array (h, w, ...) turned back as it is stored; a view."""
    swap, mirror_x, mirror_y = _STEPS[orientation]
    array = array[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
    return np.swapaxes(array, 0, 1) if swap else array
