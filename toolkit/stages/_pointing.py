"""What `segment` and `select` share: how objects are pointed at, and the regions that are found for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from pydantic import Field, field_validator

from toolkit import cards
from toolkit.cards import Card, Hint
from toolkit.edit import Edit, Region
from toolkit.engines import Prompts
from toolkit.errors import MaskError, ParameterError, UsageError
from toolkit.geometry import Box
from toolkit.mask import Mask
from toolkit.picking import parse, pick
from toolkit.run import Run
from toolkit.schema import Boxes, Names, Point, Points
from toolkit.stages import Log, Stage
from toolkit.stages._words import detected, phrases_of, sifted

_LOW = 0.5
"""Below this confidence the user is told to look at the mask first."""


class Pointing(Stage):
    """The fields by which objects are pointed at; `found` turns them into regions with masks."""

    box: Boxes = Field(
        default=(),
        description="box around an object: left,top,right,bottom or WxH+X+Y (upright photo); may be repeated",
    )
    point: Points = Field(default=(), description="click on the object: x,y; may be repeated")
    not_point: Points = Field(default=(), description="click beside the object: x,y; may be repeated")
    text: Names = Field(
        default=(), description='what to look for, in words: "red car"; may be repeated, several are parted by commas'
    )
    pick: str = Field(
        default="all",
        description="which of what the words found: all, best, largest, smallest, leftmost, rightmost, topmost, "
        'bottommost or central, of each phrase; with a number: "largest 2"',
    )
    threshold: float | None = Field(
        default=None, ge=0, le=1, description="score from which something counts as found by words; the engine's own"
    )
    subject: bool = Field(default=False, description="select the photo's main subject where nothing is pointed at")
    segmenter: str = Field(default="auto", description="engine that turns boxes and clicks into masks")
    detector: str = Field(default="auto", description="engine that finds what words say")

    @field_validator("pick")
    @classmethod
    def _choice(cls, value: str) -> str:
        try:
            parse(value)
        except ParameterError as problem:
            raise ValueError(str(problem)) from None
        return value

    @property
    def points(self) -> bool:
        """Whether something is pointed at."""
        return bool(self.box or self.point or self.text)

    def found(self, edit: Edit, run: Run, log: Log) -> tuple[Region, ...]:
        """Regions with masks for what is pointed at: for each box, for the clicks beside all boxes, for the words.

        Without boxes, clicks and words: of the main subject.

        Raises:
            UsageError: when something is said of words, and none are given.
            ParameterError: for a box or click outside the photo, or a click that both includes and excludes.
            MaskError: when nothing is found.
        """
        self.check_words()
        boxes = clipped(edit, self.box, log)
        if not self.text:
            subject = not (boxes or self.point)
            return segmented(
                edit, run, log, Prompts(boxes, self.point, self.not_point, subject=subject), self.segmenter
            )
        phrases = phrases_of(self.text)
        if reads_words(run, self.segmenter, self.detector):
            prompts = Prompts(boxes, self.point, self.not_point, phrases)
            regions = segmented(edit, run, log, prompts, self.segmenter, threshold=self.threshold)
            named = tuple(region for region in regions if region.label in phrases)
            others = tuple(region for region in regions if region.label not in phrases)
            return (*others, *pick(named, self.pick, per_label=True, frame=edit.box))
        needed = not (boxes or self.point)
        known = detected(edit, run, log, phrases, self.threshold, self.detector, needed=needed)
        named = pick(known, self.pick, per_label=True, frame=edit.box)
        prompts = Prompts((*boxes, *(region.box for region in named)), self.point, self.not_point)
        return segmented(edit, run, log, prompts, self.segmenter, labels=["" for _ in boxes] + [r.label for r in named])

    def check_words(self) -> None:
        """Find out whether what is said of words has any to be said of.

        Raises:
            UsageError: when it has none.
        """
        if not self.text and (self.pick != "all" or self.threshold is not None or self.detector != "auto"):
            raise UsageError("pick, threshold and detector are said of what words find: give text, too")


def reads_words(run: Run, segmenter: str, detector: str) -> bool:
    """Whether words go to the segmenter itself: it is named, reads words, and no detector is named."""
    if segmenter == "auto" or detector != "auto":
        return False
    return "text" in run.card("segment", segmenter, ready=False).takes


def clipped(edit: Edit, boxes: Sequence[Box], log: Log) -> tuple[Box, ...]:
    """The parts of boxes that lie in the photo; what is cut off is said.

    Raises:
        ParameterError: for a box outside the photo.
    """
    found = []
    for box in boxes:
        inside = box.intersect(edit.box)
        if inside.is_empty:
            raise ParameterError(f"box {box}: lies outside the photo, which is {edit.box.size} pixels")
        if inside != box:
            log.warnings.append(f"box {box} reaches beyond the photo ({edit.box.size}); {inside} is used")
        log.notes.append(f"box {inside}: {inside.size} pixels")
        found.append(inside)
    return tuple(found)


def segmented(
    edit: Edit, run: Run, log: Log, prompts: Prompts, segmenter: str, labels: Sequence[str] = (), *,
    threshold: float | None = None, needed: bool = True,
) -> tuple[Region, ...]:  # fmt: skip
    """Regions with masks for what `prompts` point at.

    Args:
        labels: of the boxes, in their order; a region with one keeps the box it was found in.
        threshold: score from which something counts as found by words; the card's own for None.
        needed: nothing at all is no answer.

    Raises:
        ParameterError: for a click outside the photo, or one that both includes and excludes.
        MaskError: when something is needed, and nothing is found.
    """
    check_clicks(edit, prompts.include, prompts.exclude)
    card = log.card = run.card("segment", segmenter, takes=_hints(prompts))
    engine = run.segmenter(card)
    key = engine.prepare(edit, run)
    found = engine.segment(edit, key, prompts, None, run).regions
    if labels:
        named = zip(found, labels, prompts.boxes, strict=False)
        found = (
            *(replace(one, label=label, box=box) if label else one for one, label, box in named),
            *found[len(labels) :],
        )
    if prompts.text:
        candidates = [region for region in found if region.label in prompts.text]
        others = [region for region in found if region.label not in prompts.text]
        found = (*others, *sifted(candidates, card, prompts.text, threshold, log, needed=needed and not others))
    cut = tuple(_kept_out(region, prompts.exclude, edit) for region in found)
    regions = tuple(region for region in cut if region.mask is not None and not region.mask.is_empty)
    if needed and not regions:
        raise MaskError(f"{card.name}: found nothing there")
    for number, (before, after) in enumerate(zip(found, cut, strict=True)):
        if not prompts.everything and (after.mask is None or after.mask.is_empty):
            place = prompts.boxes[number] if number < len(prompts.boxes) else before.box
            called = f"{before.label!r} in " if before.label else ""
            log.warnings.append(f"{card.name}: {called}{place} has no mask and is left out: {_why(before)}")
    for region in regions:
        if region.score < max(_LOW, card.min_confidence):
            log.warnings.append(
                f"low confidence ({region.score:.2f}) in the mask of {region.box}: "
                f"{region.reason or 'it may miss parts'}; look at it with `inpaint mask ... --overlay`, point at it "
                f"with more clicks{better(card, prompts)}"
            )
        elif region.reason and region.score == 1:
            log.notes.append(region.reason)
    return regions


def _hints(prompts: Prompts) -> tuple[Hint, ...]:
    given: dict[Hint, Any] = {
        "box": prompts.boxes, "point": prompts.include, "text": prompts.text,
        "subject": prompts.subject, "everything": prompts.everything,
    }  # fmt: skip
    return tuple(hint for hint, value in given.items() if value)


def better(card: Card, prompts: Prompts) -> str:
    """Which engine does better, as the end of a sentence; empty where none is known."""
    hints = set(_hints(prompts))
    for other in cards.every("segment"):
        if other.weights and hints <= set(other.takes) and (other.rank or 0) > (card.rank or 0):
            return f", or use a network: --segmenter {other.name} (`inpaint models show {other.name}`)"
    return "" if card.weights else ", or give a mask made elsewhere with --mask"


def _why(region: Region) -> str:
    """Why nothing is left of a region, as a clause."""
    if region.mask is None or region.mask.is_empty:
        return region.reason or "nothing was found there"
    return "clicks beside it take all of it away"


def check_clicks(edit: Edit, include: Sequence[Point], exclude: Sequence[Point]) -> None:
    """Find out whether clicks can be obeyed.

    Raises:
        ParameterError: for a click outside the photo, or one that both includes and excludes.
    """
    for x, y in (*include, *exclude):
        if not (0 <= x < edit.box.width and 0 <= y < edit.box.height):
            raise ParameterError(f"point {x},{y}: lies outside the photo, which is {edit.box.size} pixels")
    for x, y in include:
        if (x, y) in exclude:
            raise ParameterError(f"point {x},{y}: is both included and excluded")


def _kept_out(region: Region, exclude: Sequence[Point], edit: Edit) -> Region:
    """The region without what exclude clicks point at, where the engine could not heed them."""
    if region.mask is None:
        return region
    mask = without(region.mask, exclude, edit)
    return region if mask is region.mask else replace(region, box=mask.box, mask=mask)


def without(mask: Mask, exclude: Sequence[Point], edit: Edit) -> Mask:
    """The mask less a disc around each exclude click that lies in it; the same one where none does."""
    pixels = [Box(x, y, x + 1, y + 1) for x, y in exclude]
    inside = [Mask.from_box(edit.box, pixel) for pixel in pixels if mask.array(pixel).any()]
    radius = max(2, round(0.005 * max(edit.box.size)))
    for click in inside:
        mask = mask.subtract(click.dilate(radius))
    return mask
