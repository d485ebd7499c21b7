"""An enhancer without a model: it adds to the prompt what was measured around the hole, and invents nothing.

What a prompt says itself is left as it is, so that enhancing twice adds nothing more, and a long prompt that speaks of
light and focus stays as it was.
"""

from __future__ import annotations

import re

from toolkit.cards import Card
from toolkit.engines import EngineRun, EnhanceJob, EnhanceResult
from toolkit.surroundings import Surroundings

_LONG = 20
"""Words from which a prompt is taken to say what it wants: only light and focus are added then."""

_LIGHT = re.compile(
    r"\b(?:light\w*|lit|sun\w*|shad\w+|dark\w*|bright\w*|dim\w*|glow\w*|dusk|dawn|night\w*|noon|morning|evening|overcast|"
    r"backlit|moon\w*|lamp\w*|candle\w*|neon|warm|cool|golden hour)\b",
    re.I,
)
_FOCUS = re.compile(r"\b(?:sharp\w*|blur\w*|bokeh|focus\w*|grain\w*|soft\w*|crisp|hazy|defocus\w*|noise|noisy)\b", re.I)
_PLACE = re.compile(
    r"\b(?:left|right|cent(?:re|er)\w*|middle|foreground|background|top|bottom|upper|lower|corner|edge|filling)\b", re.I
)
_AROUND = re.compile(r"\b(?:behind|around|beside|continu\w+|goes on|go on|against|in front of|background)\b", re.I)


class Engine:
    """Needs nothing and costs nothing."""

    def __init__(self, card: Card) -> None:
        pass

    def enhance(self, job: EnhanceJob, run: EngineRun) -> EnhanceResult:
        """The prompt with what fits it to its hole; the same job always gives the same."""
        return EnhanceResult(fitted(job.prompt, job.surroundings))


def fitted(prompt: str, around: Surroundings) -> str:
    """`prompt` on one line, with place and size, light, focus and what goes on behind it, each unless it says so."""
    prompt = " ".join(prompt.split())
    added = []
    if len(prompt.split()) < _LONG:
        if not _PLACE.search(prompt) and around.compact:
            added.append(_place(around))
        if not _AROUND.search(prompt):
            added.append(_behind(around))
    if not _LIGHT.search(prompt):
        added.append(_light(around))
    if not _FOCUS.search(prompt):
        added.append(_focus(around))
    added = [part for part in added if part]
    return ", ".join((prompt.rstrip(" .,;:"), *added)) if added else prompt


def _place(around: Surroundings) -> str:
    size = next(
        words
        for limit, words in (
            (0.03, "a small part"), (0.08, "a twentieth"), (0.15, "a tenth"), (0.22, "a fifth"), (0.29, "a quarter"),
            (0.42, "a third"), (0.6, "half"), (2.0, "most"),
        )
        if around.filled < limit
    )  # fmt: skip
    at = around.view if around.view.startswith(("upper", "lower")) or around.view == "centre" else f"{around.view} side"
    reach = f", cut off by its {' and '.join(around.edges)} edge" if around.edges else ""
    return f"in the {at} of the picture, filling {size} of it{reach}"


def _behind(around: Surroundings) -> str:
    """What goes on behind it: the sides that look alike, named by their colour."""
    sides = around.sides
    names = [sides[one] for pair, one in (("across", "left"), ("upright", "above")) if pair in around.through]
    if not names:
        return ""
    both = sorted(set(names), key=names.index)
    return f"the {' and '.join(both)} around it going on behind it"


def _light(around: Surroundings) -> str:
    level = {"medium": "natural"}.get(around.light, around.light)
    if not level:
        return ""
    words = f"{level}, {around.warmth}" if around.warmth else level
    side = {"left": " that is brighter on the left", "right": " that is brighter on the right"}.get(around.brighter, "")
    return f"in the same {words} light as its surroundings{side}"


def _focus(around: Surroundings) -> str:
    words = {"sharp": "in sharp focus", "slightly soft": "in slightly soft focus", "out of focus": "out of focus"}
    grain = "visible grain" if around.is_grainy else ""
    return " with ".join(part for part in (words.get(around.focus, ""), grain) if part)
