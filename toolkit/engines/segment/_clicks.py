"""Selecting with include and exclude clicks, each of which refines what the earlier ones selected.

A click is an observation of a Gaussian process over superpixels, whose covariance says what is near through the graph
or alike and near. What it says is joined by colour models of the selection and of the rest and by the borders between
superpixels in a total-variation energy. An include click only adds and an exclude click only takes away, and what is
unrelated to the click resists change, so that more clicks do not overthrow what was right.

Sources: Rasmussen, Williams: Gaussian Processes for Machine Learning, 2006; Grady: Random Walks for Image
Segmentation, 2006; Rother, Kolmogorov, Blake: GrabCut, 2004, for learning colours from the answer itself;
iteratively reweighted least squares for the total variation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, MutableMapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.engines.segment._scene import Floats, Indices, Scene
from toolkit.engines.segment.edge import Binary, Pixels, outlined
from toolkit.geometry import Box, Size

Point = tuple[int, int]
Step = tuple[int, bool]  # a superpixel, and whether it is selected
Weights = npt.NDArray[np.float64]

GROUND = -0.2  # what is expected of a superpixel before any click: -1 = not selected, 1 = selected
NOISE = 0.02  # variance of what a click says of its superpixel
TRUST = 3.0  # weight of the clicks against the colours
INERTIA = 1.0  # weight of the earlier answer where the newest click says nothing
FREED = 2.0  # one over the correlation with the newest click from which on the earlier answer has no weight
DATA = 0.25  # weight of clicks and colours against the borders
ROUNDS = 3  # of learning colours
CERTAIN = 4.0  # log of the odds beyond which neither clicks nor colours go
SWALLOWED, GROWTH = 0.4, 3.0  # share of the picture, and times the last selection: more is doubted
SEED = 0.05  # of the picture's area: the weight of clicked superpixels in the colours
DISC = 0.004  # of the longer side: radius of the disc around a click that obeys it, pixel by pixel
MOST = 0.98  # share of the picture beyond which nothing was told apart
ALIKE = "nothing around the click stands out, so a disc around it was taken"


@dataclass(frozen=True, eq=False)
class Answer:
    """What clicks select in a scene.

    Attributes:
        chosen: (n,) bool, the selected superpixels; each part holds an include click.
        confidence: 0..1, a score and no probability.
        reason: one short sentence when the confidence is below 0.5, else "".
    """

    chosen: Binary
    confidence: float
    reason: str


@dataclass(frozen=True, eq=False)
class State:
    """What is selected after some clicks: superpixels, (n,) bool, and the share of each that is, (n,) 0..1.

    `alike`: the last click told nothing apart.
    """

    chosen: Binary
    share: Weights
    alike: bool = False


@dataclass(frozen=True, eq=False)
class Clicked:
    """What clicks select in a picture.

    Attributes:
        box: the part of the picture that holds the selection.
        values: (h, w) uint8, 255 = selected, 0 = not, of that part.
        confidence: as of `Answer`.
        reason: as of `Answer`.
        steps: how the answer was reached, for a later call.
    """

    box: Box
    values: Pixels
    confidence: float
    reason: str
    steps: tuple[Step, ...]


Known = MutableMapping[tuple[Step, ...], State]


def select_clicks(
    scene: Scene, read: Callable[[Box], Pixels], size: Size, include: Sequence[Point], exclude: Sequence[Point],
    earlier: Sequence[Step] = (), known: Known | None = None,
) -> Clicked:  # fmt: skip
    """Select what clicks point at, at the size of the picture.

    Args:
        scene: of the reduced picture.
        read: pixels (h, w, 3) uint8 sRGB of a box of the picture.
        size: the picture's.
        include: (x, y) of clicks on the object in its pixels, at least one, in the order they were made.
        exclude: the same beside it; none of them is in `include`.
        earlier: as in `answer`.
        known: as in `answer`.
    """
    height, width = scene.labels.shape

    def small(clicks: Sequence[Point]) -> list[Point]:
        return [(x * width // size.width, y * height // size.height) for x, y in clicks]

    found, steps = answer(scene, small(include), small(exclude), earlier, known)
    box, values = outlined(read, size, scene.small, found.chosen[scene.labels])
    around = box
    for x, y in include:
        around = around.union(Box(x, y, x + 1, y + 1))
    if around != box:
        wider = np.zeros((around.height, around.width), np.uint8)
        wider[box.within(around).slices] = values
        box, values = around, wider
    for clicks, others, value in ((exclude, include, 0), (include, exclude, 255)):
        for x, y in clicks:
            gap = min((math.hypot(x - a, y - b) for a, b in others), default=math.inf)
            radius = int(min(DISC * max(size), (gap - 1) / 2))  # so that no disc reaches another kind's
            cv2.circle(values, (x - box.left, y - box.top), radius, value, -1)
    return Clicked(box, values, found.confidence, found.reason, steps)


def answer(
    scene: Scene, include: Sequence[Point], exclude: Sequence[Point], earlier: Sequence[Step] = (),
    known: Known | None = None,
) -> tuple[Answer, tuple[Step, ...]]:  # fmt: skip
    """Select what clicks point at.

    Args:
        scene: the picture.
        include: (x, y) of clicks on the object in pixels of `scene.small`, at least one, in the order they were made.
        exclude: the same beside it.
        earlier: steps that are known to have come first, from an earlier call.
        known: states after earlier sequences of steps, which save work and never change the answer; new ones are added.

    Returns:
        The answer and the steps it was reached by. Which of two clicks of different kinds came first is not known: the
        next one is that which the selection so far gets wrong, of two such the one farther from its outline.
    """
    known = {} if known is None else known
    waiting = {True: _steps(scene, include, True), False: _steps(scene, exclude, False)}
    taken: dict[int, bool] = {}
    steps: tuple[Step, ...] = ()
    state: State | None = None
    for step in earlier:
        if step in waiting[step[1]]:
            waiting[step[1]].remove(step)
            state, steps = _after(scene, state, (*steps, step), known), (*steps, step)
            taken[step[0]] = step[1]
    while True:
        for kind in (True, False):  # a superpixel that has an answer needs no second; the pixels are painted later
            waiting[kind] = [step for step in waiting[kind] if step[0] not in taken]
        if not (waiting[True] or waiting[False]):
            break
        step = _next(scene, state, waiting)
        waiting[step[1]].remove(step)
        taken[step[0]] = step[1]
        state, steps = _after(scene, state, (*steps, step), known), (*steps, step)
    assert state is not None
    return _judged(scene, state), steps


def _steps(scene: Scene, clicks: Sequence[Point], inside: bool) -> list[Step]:
    return list(dict.fromkeys((int(scene.labels[y, x]), inside) for x, y in clicks))


def _next(scene: Scene, state: State | None, waiting: dict[bool, list[Step]]) -> Step:
    heads = [waiting[kind][0] for kind in (True, False) if waiting[kind]]
    if state is None or len(heads) == 1:
        return heads[0]
    mask = state.chosen[scene.labels].astype(np.uint8)

    def wrong(step: Step) -> float:
        """How far the click is from where it would be right; 0 where it is."""
        place = scene.labels == step[0]
        apart = cv2.distanceTransform(1 - mask if step[1] else mask, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        return float(apart[place].max())

    return max(heads, key=wrong)


def _after(scene: Scene, before: State | None, steps: tuple[Step, ...], known: Known) -> State:
    """The state after the last of `steps`, `before` being that without it."""
    state = known.get(steps)
    if state is None:
        state = known[steps] = _refined(scene, before, steps)
    return state


def _refined(scene: Scene, before: State | None, steps: tuple[Step, ...]) -> State:
    inside = np.array([index for index, kind in steps if kind], np.intp)
    outside = np.array([index for index, kind in steps if not kind], np.intp)
    newest, adds = steps[-1]
    belief = np.clip(_belief(scene, inside, outside), -1, 1) * TRUST
    resistance = np.zeros_like(belief)
    if before is not None:
        related = _related(scene, newest, np.array([index for index, _ in steps[:-1]], np.intp))
        resistance = INERTIA * (1 - related) * np.where(before.chosen, 1, -1)
    for stubborn in (1, 3, 9):  # a click that would swallow the picture is taken to speak of its surroundings
        share = _settled(scene, belief + stubborn * resistance, inside, outside)
        chosen = share > 0.5
        if before is not None:
            chosen = chosen | before.chosen if adds else chosen & before.chosen
        chosen[outside] = False
        chosen[inside] = True
        chosen = _holding(scene, chosen, inside)
        if before is None or not adds or not _swallows(scene, before.chosen, chosen):
            break
    alike = len(chosen) > 1 and float(scene.area[chosen].sum()) > MOST * float(scene.area.sum())
    if alike and adds:
        chosen = _disc(scene, newest) if before is None else _disc(scene, newest) | before.chosen
        chosen[outside] = False
        chosen[inside] = True
    return State(chosen, share, alike)


def _swallows(scene: Scene, before: Binary, after: Binary) -> bool:
    """True when the selection has become several times as large and takes up much of the picture."""
    area = float(scene.area[after].sum())
    return area > max(SWALLOWED * float(scene.area.sum()), GROWTH * float(scene.area[before].sum()))


def _belief(scene: Scene, inside: Indices, outside: Indices) -> Weights:
    """The mean of the Gaussian process given the clicks: about 1 where selected, -1 where not."""
    clicked = np.concatenate([inside, outside])
    surprise = np.repeat([1.0 - GROUND, -1.0 - GROUND], [len(inside), len(outside)])
    among = scene.covariance[np.ix_(clicked, clicked)] + NOISE * np.eye(len(clicked))
    return np.asarray(GROUND + np.linalg.solve(among, surprise) @ scene.covariance[clicked])


def _related(scene: Scene, newest: int, others: Indices) -> Weights:
    """How far the newest click frees each superpixel from the earlier answer, beyond the other clicks: 0..1."""
    covariance = scene.covariance[newest].astype(float)
    among = scene.covariance[np.ix_(others, others)] + NOISE * np.eye(len(others))
    covariance -= np.linalg.solve(among, covariance[others]) @ scene.covariance[others]
    return np.asarray(np.clip(FREED * covariance / max(covariance[newest], 1e-6), 0, 1))


def _settled(scene: Scene, belief: Weights, inside: Indices, outside: Indices) -> Weights:
    """The share 0..1 of each superpixel that is selected: clicks, colours and borders weighed against each other."""
    odds = np.clip(belief, -CERTAIN, CERTAIN)
    free = np.ones(len(belief), bool)
    free[inside] = free[outside] = False
    wanted = _chance(odds)
    share = wanted.copy()
    share[inside], share[outside] = 1, 0
    for round_ in range(ROUNDS):
        if round_:
            wanted = _chance(odds + _colours(scene, share, inside, outside))
        strength = scene.strength.astype(float)
        for _ in range(2):  # weights for squares, then for about the absolute value, whose outlines are short and sharp
            share = _minimum(scene.pairs, strength, DATA * scene.area, wanted, share, free)
            strength = scene.strength / (2 * np.abs(share[scene.pairs[:, 0]] - share[scene.pairs[:, 1]]) + 0.2)
    return share


def _chance(odds: Weights) -> Weights:
    return np.asarray(1 / (1 + np.exp(-odds)))


def _colours(scene: Scene, share: Weights, inside: Indices, outside: Indices) -> Weights:
    """The log of the odds that a superpixel looks like the selection rather than like the rest."""
    total = scene.area.sum()
    found = []
    for part, clicked in ((2 * share - 1, inside), (1 - 2 * share, outside)):
        weight = np.clip(part, 0, 1) * scene.area
        if len(clicked):
            weight[clicked] += SEED * total / len(clicked)
        found.append(scene.likeness @ (weight / max(weight.sum(), 1e-9)).astype(np.float32))
    return np.asarray(np.clip(np.log((found[0] + 1e-4) / (found[1] + 1e-4)), -CERTAIN, CERTAIN), float)


def _minimum(
    pairs: Indices, strength: npt.NDArray[np.floating], data: Floats, wanted: Weights, start: Weights, free: Binary
) -> Weights:
    """Minimise the sum of strength * (x_i - x_j)^2 and of data * (x - wanted)^2 by conjugate gradients from `start`."""
    first, second = pairs.T
    number = len(start)

    def product(x: Weights) -> Weights:
        flow = strength * (x[first] - x[second])
        return np.asarray(data * x + np.bincount(first, flow, number) - np.bincount(second, flow, number))

    diagonal = data + np.bincount(first, strength, number) + np.bincount(second, strength, number)
    x = start
    rest = (data * wanted - product(x)) * free
    way = rest / diagonal
    size = goal = float(rest @ way)
    for _ in range(40):
        if size <= 1e-4 * goal or size < 1e-12:
            break
        change = product(way) * free
        length = size / float(way @ change)
        x = x + length * way
        rest = rest - length * change
        scaled = rest / diagonal
        size, before = float(rest @ scaled), size
        way = scaled + (size / before) * way
    return x


def _holding(scene: Scene, chosen: Binary, inside: Indices) -> Binary:
    """The parts of the selection that hold an include click."""
    count, parts = cv2.connectedComponents(chosen[scene.labels].astype(np.uint8), connectivity=4)
    clicked, held, kept = np.zeros(len(chosen), bool), np.zeros(count, bool), np.zeros(len(chosen), bool)
    clicked[inside] = True
    held[parts[clicked[scene.labels]]] = True
    kept[scene.labels[held[parts]]] = True
    return kept


def _judged(scene: Scene, state: State) -> Answer:
    """The answer with its confidence."""
    chosen = state.chosen
    signals = _signals(scene, state)
    confidence = round(float(np.prod(list(signals.values())) ** 0.5), 4)
    reason = "" if confidence >= 0.5 else min(signals, key=lambda one: signals[one])
    if state.alike:
        confidence, reason = 0.1, ALIKE
    return Answer(chosen, confidence, reason)


def _disc(scene: Scene, clicked: int) -> Binary:
    """What stands in where everything looks alike: the superpixels around a click."""
    away = cv2.distanceTransform((scene.labels != clicked).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    chosen = np.zeros(len(scene.area), bool)
    chosen[np.unique(scene.labels[away <= 0.05 * max(scene.labels.shape)])] = True
    return chosen


def _signals(scene: Scene, state: State) -> dict[str, float]:
    """Causes for doubt, each with 0 (grave) to 1 (none)."""
    chosen, area = state.chosen, scene.area
    first, second = scene.pairs.T
    outline = chosen[first] != chosen[second]
    hold = scene.strength[outline].sum() / max(float(scene.border[outline].sum()), 1e-9)
    typical = scene.strength.sum() / max(float(scene.border.sum()), 1e-9)
    sure, maybe = (area[state.share > level].sum() for level in (0.7, 0.3))
    none = np.zeros(0, np.intp)
    looks = _chance(_colours(scene, chosen.astype(float), none, none))
    right = np.where(chosen, looks, 1 - looks)
    apart = np.mean([np.average(right[part], weights=area[part]) if part.any() else 0.5 for part in (chosen, ~chosen)])
    edge = np.concatenate(
        [side for side in (scene.labels[0], scene.labels[-1], scene.labels[:, 0], scene.labels[:, -1])]
    )
    return {
        "the clicks leave open where the object ends": float(sure / max(maybe, 1e-9)),
        "there is hardly an edge along the outline": float(np.clip(1.2 - hold / max(typical, 1e-12), 0, 1)),
        "the object and its background have the same colours": float(np.clip(2 * apart - 1, 0, 1)),
        "the selection runs along the border of the photo": 1 - float(chosen[edge].mean()),
    }
