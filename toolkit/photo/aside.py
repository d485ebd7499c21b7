"""The pixels of a large picture in a temporary file, so that they need not be held in memory."""

from __future__ import annotations

import tempfile
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

from toolkit.geometry import Box, Size

Array = npt.NDArray[Any]


class Aside:
    """Upright pixels (height, width, bands) in a temporary file, which goes when this does; read by box.

    Written once, from top to bottom, with `append`. Any number of threads may read.

    Attributes:
        box: the pixels there are, from 0, 0 on.
        reduced: pixels of the photo, on each axis, that became one of these.
        corner: x and y of the photo's left top corner among these pixels; not 0, 0 where a side was rounded up there.
    """

    def __init__(
        self,
        size: Size,
        bands: int,
        dtype: type[np.uint8] | type[np.uint16],
        *,
        reduced: int = 1,
        corner: tuple[float, float] = (0.0, 0.0),
    ) -> None:
        self.box, self.reduced, self.corner = Box.of_size(size), reduced, corner
        self._bands, self._dtype = bands, np.dtype(dtype)
        self._row = size.width * bands * self._dtype.itemsize
        self._file = tempfile.TemporaryFile()
        self._lock = threading.Lock()

    def append(self, rows: Array) -> None:
        """Add full-width rows (n, width, bands) below those there are."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).data)

    def crop(self, box: Box) -> Array:
        """The pixels of a box within the picture: (h, w, bands)."""
        with self._lock:
            self._file.seek(box.top * self._row)
            data = self._file.read(box.height * self._row)
        rows = np.frombuffer(data, self._dtype).reshape(box.height, self.box.width, self._bands)
        return rows[:, box.left : box.right]

    def __del__(self) -> None:
        self._file.close()
