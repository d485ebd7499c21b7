"""Carry a fill made on a reduced copy up to full size by copying real pixels along its offsets.

The reduced fill was copied from the known part, so every one of its patches has a near twin there. `match` finds
the twins; then, level by level, every cell of the hole keeps an offset to the place it is copied from, corrects it
by a pixel, takes over a neighbour's where that fits better, and all cells vote for the pixels they overlap.
Neighbours that share an offset vote for the same pixels, so only where two pieces meet is anything blended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from toolkit.engines.fill._match import AROUND, COHERENCE, PAD, differ, match
from toolkit.engines.fill._tone import Links, shifts

Pixels = NDArray[np.uint8]
Bits = NDArray[np.bool_]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

CHUNK = 1 << 14
# Above this many cells of the smaller side, a level takes cells of twice the side.
MOST_CELLS = 60_000
# Variance, in squared levels, that is left between cells which certainly agree.
SURE = 0.25


def transfer(
    pixels: Pixels,
    hole: Bits,
    closed: Bits,
    coarse: Pixels,
    levels: int,
    seed: int,
    progress: Callable[[float], None],
) -> Pixels:
    """Fill `hole` at full size after the example of `coarse`.

    Args:
        pixels: (h, w, 3) uint8, both sides multiples of 2**levels.
        hole: (h, w) bool, to be filled.
        closed: (h, w) bool, not to be copied from.
        coarse: (h / 2**levels, w / 2**levels, 3) uint8, the filled reduced copy.
        levels: how often the picture was halved, at least 1.
        seed: of the random search.
        progress: called with a share from 0 to 1.

    Returns:
        (h, w, 3) uint8; only the pixels under `hole` mean something.
    """
    cells, offsets = match(coarse, any_of(hole, 1 << levels), any_of(closed, 1 << levels), seed)
    progress(0.3)
    grid = levels
    filled = pixels
    for level in range(levels - 1, -1, -1):
        offsets = offsets * 2
        # Small cells follow structure better; a large hole takes larger ones, or it would take minutes.
        while grid - level > 3 or (
            grid - level > 1 and np.count_nonzero(hole) / 4 ** (grid - 1) <= MOST_CELLS and (level or grid > 2)
        ):
            cells, offsets = _subdivided(cells, offsets)
            grid -= 1
        inside = any_of(hole, 1 << grid)
        keep = cv2.dilate(inside.astype(np.uint8), np.ones((3, 3), np.uint8))[cells[:, 0], cells[:, 1]] > 0
        cells, offsets = cells[keep], offsets[keep]
        size = (pixels.shape[1] >> level, pixels.shape[0] >> level)
        picture = pixels if level == 0 else np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
        work = _Level(picture, any_of(hole, 1 << level), any_of(closed, 1 << level), cells, 1 << (grid - level))
        offsets = work.refined(offsets)
        if level == 0:
            filled = work.result(offsets)
        progress(1.0 - 0.7 * level / levels)
    return filled


def any_of(bits: Bits, step: int) -> Bits:
    """True where any of the step x step pixels is; the sides are multiples of `step`."""
    height, width = bits.shape
    reduced: Bits = np.asarray(bits.reshape(height // step, step, width // step, step).any(axis=(1, 3)))
    return reduced


def _subdivided(cells: Ints, offsets: Ints) -> tuple[Ints, Ints]:
    """Every cell as four of half its side, which keep its offset (in pixels of the level)."""
    quarters = np.concatenate([cells * 2 + (dy, dx) for dy in (0, 1) for dx in (0, 1)])
    order = np.lexsort((quarters[:, 1], quarters[:, 0]))  # by rows, so that memory is read in order
    return quarters[order], np.concatenate([offsets] * 4)[order]


class _Level:
    """One size of the picture, with square cells of `side` pixels whose patches reach `margin` pixels further."""

    def __init__(self, picture: Pixels, hole: Bits, closed: Bits, cells: Ints, side: int) -> None:
        self.cells, self.side = cells, side
        self.margin = 4 if side == 4 else 3
        # Cells of 8 px come only in holes of about a megapixel or more, refined at the smaller sizes already.
        self.turns = 2 if side < 8 else 1
        self.patch = side + 2 * self.margin
        self.height, self.width = picture.shape[0] + 2 * PAD, picture.shape[1] + 2 * PAD
        framed = cv2.copyMakeBorder(picture, PAD, PAD, PAD, PAD, cv2.BORDER_REFLECT_101)
        self.colours = np.zeros((self.height * self.width, 4), np.uint8)
        self.colours[:, :3] = framed.reshape(-1, 3)
        self.packed = self.colours.view(np.uint32).ravel()
        self.hole = np.pad(hole, PAD).ravel()
        known = np.pad((~(hole | closed)).astype(np.uint8), PAD)
        self.known = known.ravel() > 0
        whole = cv2.erode(
            known,
            np.ones((self.patch, self.patch), np.uint8),
            anchor=(0, 0),
            borderValue=0,
            borderType=cv2.BORDER_CONSTANT,
        )
        self.valid = whole.ravel() > 0
        self.anchors = cells * side + (PAD - self.margin)
        self.flat = self.anchors[:, 0] * self.width + self.anchors[:, 1]
        # Row d: the cell in direction d of every cell, -1 where there is none; first the eight next to it.
        self.reach = -(-self.margin // side)
        apart = range(-self.reach, self.reach + 1)
        further = [(dy, dx) for dy in apart for dx in apart if max(abs(dy), abs(dx)) > 1]
        self.directions = np.array([*AROUND, *further])
        edge = self.reach
        index = np.full((cells[:, 0].max() + 2 * edge + 1, cells[:, 1].max() + 2 * edge + 1), -1, np.int64)
        index[cells[:, 0] + edge, cells[:, 1] + edge] = np.arange(len(cells))
        self.reaching = np.stack(
            [index[cells[:, 0] + edge + dy, cells[:, 1] + edge + dx] for dy, dx in self.directions]
        )
        self.neighbours = self.reaching[: len(AROUND)]
        inner = np.arange(self.margin, self.margin + side)
        self.core = (inner[:, None] * self.width + inner).ravel()
        inner = np.rint(np.linspace(0.5, self.patch - 1.5, 5)).astype(np.int64)
        self.samples = np.array([y * self.width + x for y in inner for x in inner])
        self.weights = np.where(self.known, 2, self.hole).astype(np.float32)

    def refined(self, offsets: Ints) -> Ints:
        """Better offsets: rounds of voting, then trying the neighbours' and one pixel to every side."""
        cost = np.zeros(len(self.cells), np.float32)
        for turn in range(self.turns):
            self._vote(offsets, cost, sharp=False)
            cost = self._cost(offsets, slice(None))
            price = COHERENCE * float(cost.mean())
            for proposed, who in self._proposals(offsets, local=turn == 0):
                good = self._possible(proposed, who) & differ(proposed, offsets[who])
                who, proposed = who[good], proposed[good]
                if not len(who):
                    continue
                tried = self._cost(proposed, who)
                apart = self._strangers(who, proposed, offsets)
                better = tried + price * apart < cost[who] + price * self._strangers(who, offsets[who], offsets)
                offsets[who[better]], cost[who[better]] = proposed[better], tried[better]
        self.cost = cost
        return offsets

    def result(self, offsets: Ints) -> Pixels:
        """The picture with the hole filled by the last, sharp vote: (h, w, 3) uint8."""
        self._vote(offsets, self.cost, sharp=True, toned=self._shifts(offsets))
        framed = self.colours[:, :3].reshape(self.height, self.width, 3)
        return framed[PAD:-PAD, PAD:-PAD]

    def _proposals(self, offsets: Ints, local: bool) -> Iterator[tuple[Ints, Ints]]:
        for neighbour in self.neighbours:
            who = np.flatnonzero(neighbour >= 0)
            yield offsets[neighbour[who]], who
        if local:
            for shift in AROUND:
                yield offsets + shift, np.arange(len(offsets))

    def _possible(self, offsets: Ints, who: Ints) -> Bits:
        place = self.anchors[who] + offsets
        clipped = np.clip(place, 0, (self.height - 1, self.width - 1))
        possible: Bits = ~differ(clipped, place) & self.valid[clipped[:, 0] * self.width + clipped[:, 1]]
        return possible

    def _cost(self, offsets: Ints, who: Ints | slice) -> Floats:
        """Mean squared difference of the picture as it stands to what would be copied; known pixels count twice."""
        flat = self.flat[who]
        moved = flat + offsets[:, 0] * self.width + offsets[:, 1]
        cost = np.empty(len(flat), np.float32)
        for start in range(0, len(flat), CHUNK):
            here = flat[start : start + CHUNK, None] + self.samples
            there = moved[start : start + CHUNK, None] + self.samples
            weight = self.weights[here]
            difference = self.packed[here].view(np.uint8).astype(np.float32)
            difference -= self.packed[there].view(np.uint8)
            difference = difference.reshape(*here.shape, 4)
            squared = np.einsum("nsc,nsc->ns", difference, difference)
            cost[start : start + CHUNK] = np.einsum("ns,ns->n", squared, weight) / np.maximum(weight.sum(1), 1e-3)
        return cost

    def _strangers(self, who: Ints, mine: Ints, offsets: Ints) -> Floats:
        count = np.zeros(len(who), np.float32)
        for neighbour in self.neighbours[:, who]:
            count += (neighbour >= 0) & differ(offsets[neighbour], mine)
        return count

    def _shifts(self, offsets: Ints) -> Floats:
        """(n, 3) float32: the colour shift of every cell, see `_tone`."""
        moved = self.flat + offsets[:, 0] * self.width + offsets[:, 1]
        everyone = np.arange(len(self.cells))
        links = []
        for dy, dx in ((0, 1), (1, 0)):
            neighbour = self.neighbours[AROUND.index((dy, dx))]
            first = everyone[neighbour >= 0]
            second = neighbour[first]
            # pixels that both patches cover: seen from the second one they lie `side` nearer to its corner
            rows = np.arange(dy * self.side, self.patch, 2)
            columns = np.arange(dx * self.side, self.patch, 2)
            shared = (rows[:, None] * self.width + columns[None, :]).ravel()
            back = shared - (dy * self.width + dx) * self.side
            same = ~differ(offsets[first], offsets[second])
            gap, weight = np.zeros((len(first), 3)), np.full(len(first), 1 / SURE)
            apart = np.flatnonzero(~same)
            gap[apart], weight[apart] = self._difference(
                moved[first[apart]], shared, moved[second[apart]], back, np.ones(self.width * self.height, bool)
            )
            links.append((first, second, weight, gap))
        known = self.known & ~self.hole
        wanted, weight = self._difference(self.flat, self.samples, moved, self.samples, known)
        first, second, link_weight, gap = (np.concatenate(part) for part in zip(*links, strict=True))
        return shifts(self.cells, Links(first, second, link_weight, gap), weight, wanted).astype(np.float32)

    def _difference(
        self, one: Ints, ones: Ints, other: Ints, others: Ints, where: Bits
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean colour of patches `one` minus `other` over the samples in `where`, (n, 3), and how sure it is, (n,)."""
        mean, sure = np.zeros((len(one), 3)), np.zeros(len(one))
        for start in range(0, len(one), CHUNK // 4):
            part = slice(start, start + CHUNK // 4)
            here, there = one[part, None] + ones, other[part, None] + others
            used = where[here].astype(np.float64)[..., None]
            difference = (self.colours[here, :3].astype(np.float64) - self.colours[there, :3]) * used
            count = np.maximum(used.sum(1), 1)
            mean[part] = difference.sum(1) / count
            variance = ((difference**2).sum(1) / count - mean[part] ** 2).mean(1)
            # neighbouring samples are alike: a quarter of them counts
            sure[part] = np.where(used.any(1)[:, 0], 1 / (variance / np.maximum(count[:, 0] / 4, 1) + SURE), 0)
        return mean, sure

    def _vote(self, offsets: Ints, cost: Floats, sharp: bool, toned: Floats | None = None) -> None:
        """Write into every hole pixel the weighted mean of what the patches over it propose."""
        scale = max(float(np.percentile(cost, 75)), 1.0)
        trust = np.exp(-cost / (scale * (0.5 if sharp else 2.0))).astype(np.float32) + np.float32(1e-4)
        ramp = np.minimum(np.arange(self.patch), np.arange(self.patch)[::-1]) + 1.0
        profile = ((np.outer(ramp, ramp) / ramp.max() ** 2) ** (3.0 if sharp else 1.0)).astype(np.float32)
        moved = self.flat + offsets[:, 0] * self.width + offsets[:, 1]
        shares = self._shares(profile)
        # Where all patches over a cell share one offset they propose the same pixels: those need no mean.
        agreed = np.ones(len(self.cells), bool)
        for neighbour in self.reaching:
            agreed &= (neighbour < 0) | ~differ(offsets[neighbour], offsets)
        for same in (True, False):
            chosen = np.flatnonzero(agreed == same)
            for start in range(0, len(chosen), CHUNK // 4):
                who = chosen[start : start + CHUNK // 4]
                around = np.concatenate([who[None], self.reaching[:, who]])
                weights = np.where(around >= 0, trust[around], 0)
                values = self._copied(moved[who]) if same else self._mean(moved[around], weights, shares)
                if toned is not None:
                    values = values + self._mean_shift(toned[around], weights, shares)
                places = self.flat[who, None] + self.core
                inside = self.hole[places]
                self.colours[places[inside], :3] = np.clip(np.rint(values), 0, 255).astype(np.uint8)[inside]

    def _shares(self, profile: Floats) -> Floats:
        """The weight of a cell's own patch, and of those around it, in each of its pixels: (patches, side * side)."""
        edge = self.side * self.reach
        framed = np.pad(profile, edge)
        starts = edge + self.margin - self.side * np.concatenate([[(0, 0)], self.directions])
        return np.stack([framed[y : y + self.side, x : x + self.side].ravel() for y, x in starts])

    def _copied(self, moved: Ints) -> Floats:
        """(n, side * side, 3): the pixels that cells are copied from."""
        return self._colours(moved[:, None] + self.core)

    def _colours(self, places: Ints) -> Floats:
        return self.packed[places].view(np.uint8).reshape(*places.shape, 4)[..., :3].astype(np.float32)

    def _mean(self, moved: Ints, weights: Floats, shares: Floats) -> Floats:
        """(n, side * side, 3): what the patches over each cell propose for its pixels, weighted."""
        total = np.zeros((moved.shape[1], len(self.core), 3), np.float32)
        steps = [(0, 0), *self.directions]
        for (dy, dx), start, weight, share in zip(steps, moved, weights, shares, strict=True):
            part = np.flatnonzero(share)  # the strip of the cell that this patch reaches
            there = self.core[part] - (dy * self.width + dx) * self.side
            total[:, part] += self._colours(start[:, None] + there) * (weight[:, None] * share[part])[..., None]
        return total / (weights.T @ shares)[..., None]

    def _mean_shift(self, shifts: Floats, weights: Floats, shares: Floats) -> Floats:
        """(n, side * side, 3): the colour shifts of the patches over each cell, weighted as their pixels are."""
        whole = weights.T @ shares
        return np.stack([(weights * shifts[..., c]).T @ shares / whole for c in range(3)], axis=2)
