"""The weights of the cues that select an object from a box, fitted to scenes made here.

    INPAINT_DATA=... PYTHONPATH=. python benchmarks/fit_box.py

Prints the IoU on scenes held out (fitted on one half of the photos and objects, measured on the other), then the
weights fitted on all, for `toolkit/engines/segment/_box.py`. About 450 CPU seconds. `benchmarks.box_scenes` says of
what the scenes are made; the photos that the selection is judged by are not among them.
"""

from __future__ import annotations

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from benchmarks.box_scenes import CROWDED, KINDS, LAID, TRACED, Scene, Stock, composed, standing, stock
from benchmarks.measure import one_thread, say
from toolkit.engines.segment._box import answer, context_for, view_of, weighed
from toolkit.engines.segment._cues import Floats, View, cues_of, second_look
from toolkit.engines.segment.edge import Binary
from toolkit.geometry import Box

SCENES = ((KINDS, 96), (CROWDED, 160), (LAID, 96))  # made of each half
PIXELS = 1500  # of each object, so that all count the same
RIDGE = 1.0  # on the weights, against the log likelihood of all objects

Weights = dict[str, float]


@dataclass(frozen=True)
class Case:
    """A scene on its reduced copy: the view, the truth in the box, and the cues."""

    name: str
    view: View
    truth: Binary
    cues: dict[str, Floats]


def overlap(first: Binary, second: Binary) -> float:
    """Intersection over union."""
    return int(np.count_nonzero(first & second)) / max(1, int(np.count_nonzero(first | second)))


def halves(data: Path) -> list[list[Scene]]:
    """The scenes, in two halves that share no photo as ground and no object."""
    whole: Stock = stock(data)
    made: list[list[Scene]] = []
    grounds, things = sorted(whole.grounds), sorted(whole.things)
    for half in (0, 1):
        part = Stock({n: whole.grounds[n] for n in grounds[half::2]}, {n: whole.things[n] for n in things[half::2]})
        real = [scene for name, scene in zip(TRACED, standing(data), strict=True) if name in part.things]
        made.append([])
        for kinds, number in SCENES:
            made[half] += [*composed(part, kinds, number, half), *real]
    return made


def case(scene: Scene) -> Case:
    """What the selection sees of a scene."""
    window = context_for(scene.box, Box.of_size((scene.photo.shape[1], scene.photo.shape[0])))
    view = view_of(np.ascontiguousarray(scene.photo[window.slices]), scene.box.within(window))
    size = view.small.shape[1], view.small.shape[0]
    truth = cv2.resize(scene.truth[window.slices].astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    return Case(scene.name, view, truth[view.reach.slices], cues_of(view))


def fitted(cases: list[Case]) -> tuple[Weights, Weights]:
    """The first weights, and with the cues that need what they find likely, the final ones."""
    seen = [(one.cues, one.truth) for one in cases]
    first = _regressed(seen)
    more = (second_look(one.view, weighed(one.cues, first)) for one in cases)
    return first, _regressed([({**cues, **second}, truth) for (cues, truth), second in zip(seen, more, strict=True)])


def _regressed(seen: list[tuple[dict[str, Floats], Binary]]) -> Weights:
    """Logistic regression by Newton's method; every object weighs the same."""
    rows: list[npt.NDArray[np.float64]] = []
    labels: list[Binary] = []
    shares: list[npt.NDArray[np.float64]] = []
    for cues, truth in seen:
        some = np.random.default_rng(0).permutation(truth.size)[:PIXELS]
        rows.append(np.stack([cue.ravel()[some] for cue in cues.values()], 1).astype(np.float64))
        labels.append(truth.ravel()[some])
        shares.append(np.full(len(some), 1 / len(some)))
    inputs, goal, share = np.concatenate(rows), np.concatenate(labels), np.concatenate(shares)
    weights = np.zeros(inputs.shape[1])
    for _ in range(12):
        chance = 1 / (1 + np.exp(-inputs @ weights))
        slope = inputs.T @ (share * (goal - chance)) - RIDGE * weights
        bend = (inputs * (share * chance * (1 - chance))[:, None]).T @ inputs + RIDGE * np.eye(len(weights))
        weights += np.linalg.solve(bend, slope)
    return {name: round(float(weight), 2) for name, weight in zip(seen[0][0], weights, strict=True)}


def measured(cases: list[Case], first: Weights, final: Weights) -> list[float]:
    """The IoU of each case."""
    found = (answer(one.view, one.cues, first, final).mask[one.view.reach.slices] for one in cases)
    return [overlap(mask, one.truth) for mask, one in zip(found, cases, strict=True)]


def fit() -> None:
    """Print the held-out IoU by kind of scene, and the weights."""
    data = Path(os.environ["INPAINT_DATA"])
    with one_thread():
        parts = [[case(scene) for scene in half] for half in halves(data)]
        kinds: dict[str, list[float]] = defaultdict(list)
        for held, learnt in (parts, parts[::-1]):
            for one, value in zip(held, measured(held, *fitted(learnt)), strict=True):
                kinds[one.name.split()[0]].append(value)
        values = np.concatenate([*kinds.values()])
        say(f"held out, {len(values)} scenes: mean IoU {values.mean():.3f}, below 0.3 {np.mean(values < 0.3):.1%}")
        say(", ".join(f"{kind} {np.mean(some):.2f}" for kind, some in sorted(kinds.items())))
        for name, weights in zip(("FIRST_WEIGHTS", "FINAL_WEIGHTS"), fitted([*parts[0], *parts[1]]), strict=True):
            say(f"{name} = {weights}")


if __name__ == "__main__":
    fit()
