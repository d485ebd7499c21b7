"""Where every patch of a filled picture was copied from, as few whole pieces.

Source: Barnes, Shechtman, Finkelstein, Goldman, "PatchMatch", SIGGRAPH 2009, on principal components of the patches.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]
Bits = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

RADIUS = 3
COMPONENTS = 16
PAD = 16
AROUND = [(-1, 0), (0, -1), (0, 1), (1, 0), (-1, -1), (-1, 1), (1, -1), (1, 1)]
# What one neighbour with another offset costs, as a share of the mean patch cost: keeps pieces whole.
COHERENCE = 0.2
# What it costs at least, in squared levels over a 7x7 patch: on soft ground pieces are whole too.
FLOOR = 8000.0


def whole_patches(hole: Bits, closed: Bits) -> Bits:
    """(h, w) bool: True where the 8x8 patch from (-3, -3) to (+4, +4) is known, so that it can be copied from."""
    known = (~(hole | closed)).astype(np.uint8)
    side = 2 * RADIUS + 2
    kept = cv2.erode(
        known, np.ones((side, side), np.uint8), anchor=(RADIUS, RADIUS), borderType=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.asarray(kept) > 0


def match(picture: Pixels, hole: Bits, closed: Bits, seed: int) -> tuple[Ints, Ints]:
    """The nearest known 7x7 patch of every patch in and next to the hole: PatchMatch on principal components.

    Args:
        picture: (h, w, 3) uint8, filled.
        hole: (h, w) bool.
        closed: (h, w) bool, not to be copied from.
        seed: of the random search.

    Returns:
        cells (n, 2) and offsets (n, 2) int64 as (y, x): cell + offset is the centre of the patch to copy from.
    """
    random = np.random.default_rng([seed % (1 << 32), 1])
    height, width = hole.shape
    valid = whole_patches(hole, closed)
    sources = np.argwhere(valid)
    features = _features(picture, sources[random.integers(0, len(sources), 3000)]).reshape(height * width, -1)
    valid_flat = valid.ravel()
    cells = np.argwhere(cv2.dilate(hole.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0)
    wanted = features[cells[:, 0] * width + cells[:, 1]]
    index = np.full((height + 2 * PAD, width + 2 * PAD), -1, np.int64)
    index[cells[:, 0] + PAD, cells[:, 1] + PAD] = np.arange(len(cells))
    best = sources[random.integers(0, len(sources), len(cells))]
    cost = _distance(features, wanted, best, width)

    def consider(found: Ints, who: Ints) -> None:
        clipped = np.clip(found, 0, (height - 1, width - 1))
        good = ~differ(clipped, found) & valid_flat[clipped[:, 0] * width + clipped[:, 1]]
        found, who = found[good], who[good]
        tried = _distance(features, wanted[who], found, width)
        better = tried < cost[who]
        best[who[better]], cost[who[better]] = found[better], tried[better]

    everyone = np.arange(len(cells))
    for _ in range(8):
        consider(sources[random.integers(0, len(sources), len(cells))], everyone)
    for jump in (8, 4, 2, 1, 2, 1, 1, 1):
        for dy, dx in AROUND:
            neighbour = index[cells[:, 0] + PAD + dy * jump, cells[:, 1] + PAD + dx * jump]
            who = np.flatnonzero(neighbour >= 0)
            consider(best[neighbour[who]] - (dy * jump, dx * jump), who)
        radius = max(height, width)
        while radius >= 1:
            consider(best + random.integers(-radius, radius + 1, best.shape), everyone)
            radius //= 2
    offsets = best - cells

    def weigh(proposed: Ints, who: Ints) -> tuple[Bits, Floats]:
        found = cells[who] + proposed
        clipped = np.clip(found, 0, (height - 1, width - 1))
        good: Bits = ~differ(clipped, found) & valid_flat[clipped[:, 0] * width + clipped[:, 1]]
        return good, _distance(features, wanted[who], clipped, width)

    price = COHERENCE * float(cost.mean()) + FLOOR
    neighbours = np.stack([index[cells[:, 0] + PAD + dy, cells[:, 1] + PAD + dx] for dy, dx in AROUND])
    _merge(cells, offsets, cost, weigh, neighbours, price)
    return cells, offsets


def _merge(
    cells: Ints,
    offsets: Ints,
    cost: Floats,
    weigh: Callable[[Ints, Ints], tuple[Bits, Floats]],
    neighbours: Ints,
    price: float,
) -> None:
    """Let blocks of cells take over one offset of a neighbour, in place, where cost + price * differing pairs falls.

    Single small pieces fit best to the eye of a 7x7 patch and look like a rash of repeats at full size.
    """
    everyone = np.arange(len(cells))
    for block in (16, 8, 4, 2, 1):
        place = cells // block
        rows, columns = place[:, 0].max() + 1, place[:, 1].max() + 1
        key = place[:, 0] * columns + place[:, 1]
        blocks, member = np.unique(key, return_inverse=True)
        order = np.argsort(member, kind="stable")
        starts = np.searchsorted(member[order], np.arange(len(blocks)))
        number = np.full((rows + 2) * (columns + 2), -1, np.int64)
        by, bx = blocks // columns, blocks % columns
        number[(by + 1) * (columns + 2) + bx + 1] = np.arange(len(blocks))
        counts = np.bincount(member, minlength=len(blocks))
        for turn in range(2):
            for dy, dx in [(0, 0), *AROUND]:
                neighbour = number[(by + 1 + dy) * (columns + 2) + bx + 1 + dx]
                for colour in range(4):
                    chosen = (neighbour >= 0) & ((by % 2) * 2 + bx % 2 == colour)
                    who = everyone[chosen[member]]
                    if not len(who):
                        continue
                    mine = member[who]
                    # the middle cell of the neighbouring block, another one in the second turn
                    middle = order[starts[neighbour] + (counts[neighbour] * (1 + turn)) // 3]
                    proposed = offsets[middle[mine]]
                    moves = np.bincount(mine, differ(proposed, offsets[who]), minlength=len(blocks)) > 0
                    who, mine, proposed = (part[moves[mine]] for part in (who, mine, proposed))
                    good, tried = weigh(proposed, who)
                    before = cost[who] + price * _strangers(neighbours[:, who], offsets[who], offsets, None, mine)
                    after = tried + price * _strangers(neighbours[:, who], proposed, offsets, member, mine)
                    gain = np.bincount(mine, after - before, minlength=len(blocks))
                    spoilt = np.bincount(mine, ~good, minlength=len(blocks)) > 0
                    accepted = ((gain < 0) & ~spoilt)[mine]
                    offsets[who[accepted]], cost[who[accepted]] = proposed[accepted], tried[accepted]


def _features(picture: Pixels, samples: Ints) -> Floats:
    """(h, w, COMPONENTS) float32: every 7x7 patch on the first principal components of the sampled ones."""
    size = 2 * RADIUS + 1
    planes = picture.astype(np.float32)
    framed = cv2.copyMakeBorder(planes, RADIUS, RADIUS, RADIUS, RADIUS, cv2.BORDER_REFLECT_101)
    patches = np.lib.stride_tricks.sliding_window_view(framed, (size, size), axis=(0, 1))[samples[:, 0], samples[:, 1]]
    patches = patches.reshape(len(samples), -1)
    covariance = np.cov(patches, rowvar=False)
    kernels = np.linalg.eigh(covariance)[1][:, ::-1][:, :COMPONENTS].T.reshape(COMPONENTS, 3, size, size)
    features = np.empty((*picture.shape[:2], COMPONENTS), np.float32)
    for number, kernel in enumerate(kernels.astype(np.float32)):
        features[..., number] = sum(
            cv2.filter2D(planes[..., c], cv2.CV_32F, kernel[c], borderType=cv2.BORDER_REFLECT_101) for c in range(3)
        )
    return features


def _distance(features: Floats, wanted: Floats, found: Ints, width: int) -> Floats:
    difference = features[found[:, 0] * width + found[:, 1]] - wanted
    distance: Floats = np.einsum("nd,nd->n", difference, difference)
    return distance


def differ(one: Ints, other: Ints) -> Bits:
    """(n,) bool: where two (n, 2) arrays differ."""
    different: Bits = (one[:, 0] != other[:, 0]) | (one[:, 1] != other[:, 1])
    return different


def _strangers(neighbours: Ints, mine: Ints, offsets: Ints, member: Ints | None, block: Ints | None) -> Floats:
    """How many of the eight neighbours have another offset than `mine`; those of the same block move along."""
    count = np.zeros(len(mine), np.float32)
    for neighbour in neighbours:
        apart = (neighbour >= 0) & differ(offsets[neighbour], mine)
        count += apart if member is None else apart & (member[neighbour] != block)
    return count
