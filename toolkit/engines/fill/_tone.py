"""Small colour shifts that make the copied pieces agree with one another and with the hole's surroundings.

Every cell of the hole gets one colour shift. Neighbouring cells should agree on the pixels that both copy, cells at
the edge should agree with the known pixels under them, and shifts should be small: a Gaussian random field whose
weights are the inverse variances of those differences. On soft ground the differences are sure and steps vanish, as
in Poisson blending; on texture they are noise and next to nothing is shifted.

Source of the idea: Perez, Gangnet, Blake, "Poisson Image Editing", SIGGRAPH 2003.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# Expected size of a shift, in levels.
SPREAD = 20.0
ITERATIONS = {16: 150, 4: 60, 1: 40}


class Links(NamedTuple):
    """Pairs of nodes whose shifts should differ by `-gap`: first, second (e,), weight (e,), gap (e, 3)."""

    first: Ints
    second: Ints
    weight: Floats
    gap: Floats


def shifts(cells: Ints, links: Links, weight: Floats, wanted: Floats) -> Floats:
    """Solve for the shift of every cell, from blocks of 16 x 16 cells down to single ones.

    Args:
        cells: (n, 2) int64, row and column of every cell.
        links: between cells.
        weight: (n,) how sure `wanted` is, 0 where nothing known is under the cell.
        wanted: (n, 3) what would make the cell agree with the known pixels under it, in levels.

    Returns:
        (n, 3) float64 in levels.
    """
    result = np.zeros((len(cells), 3))
    pull = weight + 1 / SPREAD**2
    right = weight[:, None] * wanted
    for block, iterations in ITERATIONS.items():
        place = cells // block
        _, node = np.unique(place[:, 0] * (place[:, 1].max() + 1) + place[:, 1], return_inverse=True)
        first, second = node[links.first], node[links.second]
        apart = first != second
        count = int(node.max()) + 1
        # The equations of the block are the sums of its cells' equations, around the shifts found so far.
        gap = links.gap + result[links.first] - result[links.second]
        some = Links(first[apart], second[apart], links.weight[apart], gap[apart])
        rest = _summed(node, right - pull[:, None] * result, count)
        result += _solved(some, np.bincount(node, pull, count).astype(np.float64), rest, iterations)[node]
    return result


def _summed(node: Ints, values: Floats, count: int) -> Floats:
    return np.stack([np.bincount(node, values[:, c], count) for c in range(3)], 1)


def _solved(links: Links, pull: Floats, right: Floats, iterations: int) -> Floats:
    """Conjugate gradients with the diagonal as preconditioner, all three channels at once."""
    count = len(pull)
    flow = links.weight[:, None] * links.gap
    right = right - _summed(links.first, flow, count) + _summed(links.second, flow, count)
    diagonal = pull + np.bincount(links.first, links.weight, count) + np.bincount(links.second, links.weight, count)

    def times(x: Floats) -> Floats:
        across = links.weight[:, None] * (x[links.first] - x[links.second])
        return pull[:, None] * x + _summed(links.first, across, count) - _summed(links.second, across, count)

    x = np.zeros((count, 3))
    residual = right.copy()
    scaled = residual / diagonal[:, None]
    direction = scaled.copy()
    energy = (residual * scaled).sum(0)
    for _ in range(iterations):
        moved = times(direction)
        step = energy / np.maximum((direction * moved).sum(0), 1e-30)
        x += step * direction
        residual -= step * moved
        scaled = residual / diagonal[:, None]
        following = (residual * scaled).sum(0)
        if following.max() < 1e-8:
            break
        direction = scaled + following / np.maximum(energy, 1e-30) * direction
        energy = following
    return x
