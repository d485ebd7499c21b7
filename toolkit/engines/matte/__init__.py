"""Engines that turn a hard mask into a soft alpha."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from toolkit.cards import Card
from toolkit.engines import EngineRun

Bytes = npt.NDArray[np.uint8]


class ArrayMatter:
    """A matter that is one function of arrays, called in a worker process."""

    def __init__(self, card: Card, alpha_of: Callable[[Bytes, Bytes], Bytes]) -> None:
        self._card, self._alpha_of = card, alpha_of

    def matte(self, pixels: Bytes, trimap: Bytes, run: EngineRun) -> Bytes:
        """As `Matter` says."""
        return run.compute(self._alpha_of, pixels, trimap, name="matte")
