"""A selection settled by what its own inside and outside look like: parts it missed, and ground it took along.

A band along the outline is open. Each of its pixels is compared with what lies sure inside and sure outside, in colour,
texture and place (a kernel-free form of the nearest-neighbour classifier of Chen et al., "KNN Matting", 2012), and a
graph cut turns the log odds into a mask whose outline follows edges.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.engines.segment.edge import Binary, Pixels, enlarged, without_holes
from toolkit.geometry import Box, Size

Floats = npt.NDArray[np.float32]

SIDE = 320  # the longer side of the copy
MARGIN = 0.25  # of the selection's longer side: the ground around it that is looked at
INWARD, OUTWARD = 0.05, 0.08  # how far the outline may move, in square roots of the selection's area
BEYOND = 0.04  # of the box's sides
SAMPLES, GROUPS = 1200, 4  # looks of each side, and the parts in each of which the nearest is sought
BLOCK = 512  # pixels compared at a time: what a processor holds near
NEAR = 20.0  # place, a square root of the selection's area, in the units of Lab
GRAIN = 3.0  # texture, in the units of Lab
ALIKE = 3.0  # distance below which looks are the same
TRUST, KEPT = 2.0, 1.0  # log odds of a doubled distance / ln 2, and of the selection as it was
SURE = 4.0  # log odds beyond the band
STIFFNESS = 12.0  # what a unit of log odds weighs against the outline's length, which GrabCut weighs 50 a pixel
STEPS = 3  # of a channel, a unit of log odds: few, for they count as contrast too
SPECK, GAP = 0.01, 0.0005  # of the largest part, of the copy


def loosened(box: Box) -> Box:
    """How far the object of a box may reach that was drawn too tight: 4 % of its sides beyond it."""
    return box.grow(round(BEYOND * box.width) + 1, round(BEYOND * box.height) + 1)


def refined(pixels: Pixels, mask: Binary, box: Box) -> Binary:
    """Settle the outline of what was selected in a box.

    Args:
        pixels: (h, w, 3) uint8 sRGB.
        mask: (h, w) bool.
        box: what the user drew around the object; the mask stays in `loosened(box)`.

    Returns:
        (h, w) bool: `mask` itself where there is too little of it, or of the ground, to learn from.
    """
    height, width = mask.shape
    left, top, across, down = cv2.boundingRect(mask.astype(np.uint8))
    if min(across, down) < 8:
        return mask
    margin = round(MARGIN * max(across, down)) + 8
    window = Box(left, top, left + across, top + down).grow(margin).intersect(Box.of_size((width, height)))
    part = np.ascontiguousarray(pixels[window.slices])
    factor = min(1.0, SIDE / max(window.size))
    size = Size(max(8, round(window.width * factor)), max(8, round(window.height * factor)))
    small = np.asarray(cv2.resize(part, size, interpolation=cv2.INTER_AREA), np.uint8)
    guess = np.asarray(cv2.resize(mask[window.slices].astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5)
    x, y = size.width / window.width, size.height / window.height
    left, top, right, bottom = loosened(box).intersect(window).within(window)
    allowed = np.zeros(guess.shape, bool)
    allowed[round(top * y) : round(bottom * y), round(left * x) : round(right * x)] = True
    found = settled(small, guess, allowed)
    full = np.zeros_like(mask)
    full[window.slices] = enlarged(part, small, found)
    return full


def settled(small: Pixels, guess: Binary, allowed: Binary | None = None) -> Binary:
    """The same for a copy as small as the outline need be known: about 320 pixels.

    Args:
        small: (h, w, 3) uint8 sRGB, with some of the ground.
        guess: (h, w) bool.
        allowed: (h, w) bool, where the object may lie; anywhere if None.

    Returns:
        (h, w) bool: `guess` itself where there is too little of it, or of the ground, to learn from.
    """
    odds = _odds(small, guess, np.ones(guess.shape, bool) if allowed is None else allowed)
    if odds is None:
        return guess
    found = _tidy(_cut(small, odds))
    return found if np.count_nonzero(found) > 0.5 * np.count_nonzero(guess) else guess


def _odds(small: Pixels, guess: Binary, allowed: Binary) -> Floats | None:
    """Log odds (h, w) of the object; None where too little is sure."""
    size = float(np.sqrt(np.count_nonzero(guess)))
    # What touches the picture's edge is no surer there than elsewhere along the outline.
    framed = cv2.copyMakeBorder(guess.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT)
    inside = cv2.distanceTransform(framed, cv2.DIST_L2, 5)[1:-1, 1:-1] > INWARD * size
    outside = cv2.distanceTransform((~guess).astype(np.uint8), cv2.DIST_L2, 5) > OUTWARD * size
    outside |= ~allowed
    if min(np.count_nonzero(inside), np.count_nonzero(outside)) < 50:
        return None
    looks, open_ = _looks(small, size), ~(inside | outside)
    asked = looks[open_]
    own, other = (_distance(asked, looks[where]) for where in (inside, outside))
    odds = np.where(inside, np.float32(SURE), np.float32(-SURE))
    told = TRUST * np.log((other + ALIKE) / (own + ALIKE)) + np.where(guess[open_], KEPT, -KEPT)
    odds[open_] = np.clip(told, 1 - SURE, SURE - 1)
    return odds


def _looks(small: Pixels, size: float) -> Floats:
    """Colour, texture and place of each pixel, (h, w, 6)."""
    smooth = cv2.GaussianBlur(small, (0, 0), 0.6).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB), np.float32)
    detail = lab[..., 0] - cv2.GaussianBlur(lab[..., 0], (0, 0), 1.5)
    grain = np.log1p(np.sqrt(cv2.GaussianBlur(detail * detail, (0, 0), 1.5)))
    y, x = np.mgrid[: small.shape[0], : small.shape[1]].astype(np.float32) * np.float32(NEAR / size)
    return np.dstack([lab * np.array([0.8, 1.3, 1.3]), GRAIN * grain, x, y]).astype(np.float32)


def _distance(asked: Floats, sample: Floats) -> Floats:
    """The distance of each of (n, 6) `asked` to its nearest in each of some parts of (m, 6) `sample`, in the mean."""
    if len(sample) > SAMPLES:
        sample = sample[np.random.default_rng(0).permutation(len(sample))[:SAMPLES]]
    # |a|^2 - 2 a b + |b|^2, the last two as one product
    products = np.hstack([-2 * sample, (sample * sample).sum(1, keepdims=True)])
    parts = [products[first::GROUPS] for first in range(GROUPS)]
    wide, squares = np.vstack([asked.T, np.ones(len(asked), np.float32)]), (asked**2).sum(1)
    nearest = np.zeros(len(asked), np.float32)
    for first in range(0, len(asked), BLOCK):
        block = slice(first, first + BLOCK)
        for part in parts:
            nearest[block] += np.sqrt(np.maximum((part @ wide[:, block]).min(0) + squares[block], 0))
    return nearest / np.float32(GROUPS)


def _cut(small: Pixels, odds: Floats) -> Binary:
    """The mask that agrees with log odds (h, w) and whose outline is short or follows edges: a graph cut.

    OpenCV has no other than GrabCut's. Its colour models are given and frozen here: the first channel carries the odds,
    and two normal distributions of equal spread turn it into costs; the other two are the main colours.
    """
    lab = cv2.cvtColor(small, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    lab -= lab.mean(0)
    main = lab @ np.linalg.eigh(lab.T @ lab)[1][:, :0:-1]
    carried = np.clip(np.rint(STEPS * odds) + 128, 0, 255)
    picture = np.dstack([carried[..., None], np.clip(main + 128, 0, 255).reshape(*odds.shape, 2)]).astype(np.uint8)
    models = []
    for mean in (128 - STEPS, 128 + STEPS):
        model = np.zeros((1, 65))
        model[0, 0] = 1
        model[0, 5:8] = mean, 128, 128
        model[0, 20:] = np.tile(np.eye(3).ravel(), 5)
        model[0, 20:29] = np.diag([2 * STEPS**2 / STIFFNESS, 1e6, 1e6]).ravel()
        models.append(model)
    labels = np.where(odds > 0, cv2.GC_PR_FGD, cv2.GC_PR_BGD).astype(np.uint8)
    cv2.grabCut(picture, labels, (0, 0, 1, 1), models[0], models[1], 1, cv2.GC_EVAL_FREEZE_MODEL)
    return np.asarray(labels & 1, bool)


def _tidy(mask: Binary) -> Binary:
    """Without specks and small holes."""
    _, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    area = stats[:, cv2.CC_STAT_AREA].copy()
    area[0] = 0
    return without_holes(((area > 0) & (area >= SPECK * area.max()))[parts], GAP * mask.size)
