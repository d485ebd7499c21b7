"""Select: point at what is to change, by boxes, clicks, words or a mask; or pick among what was found before."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from pydantic import BeforeValidator, Field, WithJsonSchema

from toolkit.edit import Edit, Region
from toolkit.errors import MaskError, ParameterError, UsageError
from toolkit.geometry import Box
from toolkit.leftovers import falls_short, leftovers
from toolkit.mask import Mask
from toolkit.picking import pick
from toolkit.reduced import enlarged, reduced_mask, reduced_pixels, step_for
from toolkit.run import Run
from toolkit.schema import Names
from toolkit.shadows import find_shadow
from toolkit.stages import Log
from toolkit.stages._pointing import Pointing, check_clicks, without
from toolkit.stages.segment import with_masks

_TRUSTED = 0.65
"""Below this confidence a mask is too likely to miss a part for taking the object out by it."""

_SURE = 0.65
"""Confidence from which a proposed shadow is taken; a false one costs more than one that is left."""

_POSSIBLE = 0.15
"""Confidence below which a shadow is not even proposed."""

_HELD = 0.8
"""Share of a region that lies in its box; one drawn too tight may be left a little."""

_SIDE = 640
"""Longest side of the copy they are looked for on, in pixels."""

_OBJECTS = 16
"""Parts of the selection whose shadows are looked for, the largest first; the rest are specks."""


def _readable(value: Any) -> Any:
    if value is None or isinstance(value, str | Mask | np.ndarray):
        return value
    if isinstance(value, Path):
        return str(value)
    raise ValueError(f"expected a mask file, array or Mask, got {type(value).__name__}")


MaskSource = Annotated[Any, BeforeValidator(_readable), WithJsonSchema({"type": ["string", "null"], "format": "path"})]


def _protections(value: Any) -> Any:
    if value is None:
        return ()
    many = isinstance(value, list | tuple) and not (value and all(isinstance(n, int) for n in value))
    return tuple(_protected(item) for item in (value if many else (value,)))


def _protected(item: Any) -> Any:
    if isinstance(item, str):
        try:
            return Box.parse(item)
        except ParameterError:
            return item  # a file, or said to be neither when it is looked for
    if isinstance(item, list | tuple) and len(item) == 4 and all(type(n) is int for n in item):
        return Box(*item).checked()
    if item is None:
        raise ValueError("expected a box or a mask file, got None")
    return _readable(item)


Protections = Annotated[
    tuple[Any, ...],
    BeforeValidator(_protections),
    WithJsonSchema({"type": "array", "items": {"type": "string", "format": "box or path"}}),
]


class Select(Pointing):
    """Point at what is to change: boxes, clicks, words, a mask file, or several of them together.

    Where nothing is pointed at, `label` and `pick` choose among the regions that were found before.
    """

    makes: ClassVar[tuple[str, ...]] = ("selected", "mask")
    clears: ClassVar[tuple[str, ...]] = ("ramp", "passes", "fills")
    public: ClassVar[bool] = True

    label: Names = Field(
        default=(),
        description="only what was found before by these words",
        json_schema_extra={"option": False},
    )
    mask: MaskSource = Field(
        default=None, description="mask file: white = selected (what goes); grey, 1-bit, palette or alpha"
    )
    invert_mask: bool = Field(default=False, description="select what is not selected instead")
    protect: Protections = Field(default=(), description="box or mask file that is never touched; may be repeated")
    fit_mask: bool = Field(default=False, description="scale a mask of another size to the photo's")
    generous: bool = Field(
        default=False,
        description="rather too much than too little: what a found object surrounds, what in its box does not look "
        "like the ground around, and the whole box where the mask cannot be trusted",
    )
    shadow: Literal["off", "auto"] = Field(
        default="off",
        description="auto: the shadow or reflection of what is selected goes with it, where it is surely one",
    )

    def unrecorded(self) -> set[str]:
        """Arrays are no plain data."""
        held = {"mask": (self.mask,), "protect": self.protect}
        return {name for name, items in held.items() if any(isinstance(item, Mask | np.ndarray) for item in items)}

    def apply(self, edit: Edit, run: Run, log: Log) -> Edit:
        """Union of the mask and of what is found for what is pointed at, less what is protected.

        Raises:
            UsageError: when nothing is selected.
            ParameterError: for a box or click outside the photo, or a click that both includes and excludes.
            MaskError: when nothing is found, or nothing is left.
        """
        before = tuple(region for region in edit.regions if region.label not in ("shadow", "reflection"))
        edit = edit.replace(stacks=(edit.chosen,), regions=(), selected=None, mask=None, ramp=None, passes=(), fills=())
        pointed = self.points
        if not before or pointed or self.mask is not None:
            self.check_words()
            if self.label:
                raise UsageError("select.label: chooses among what was found before, where nothing else is pointed at")
        if not (pointed or self.subject or before or self.mask is not None):
            raise UsageError("nothing is selected: give --box, --point, --text or --mask")
        selected = Mask.empty(edit.box)
        regions: tuple[Region, ...] = ()
        guessed = 1.0
        if self.mask is not None:
            selected, understood = self._read(self.mask, edit, "mask", log)
            log.notes.append(understood)
            if selected.is_empty:
                raise MaskError(f"{_called(self.mask, 'mask')}: is empty, nothing in it is white")
        if pointed or ((self.subject or before) and self.mask is None):
            picks = bool(before) and not pointed and bool(self.label or not self.subject)
            regions = self._picked(before, edit, run, log) if picks else self.found(edit, run, log)
            for region in regions:
                assert region.mask is not None
                mask, drawn = self._taken(region, edit, log) if self.generous else (region.mask, False)
                selected = selected.union(mask)
                guessed = guessed if drawn else min(guessed, region.score)
        selected = self._clicked(selected, edit)
        if self.invert_mask:
            selected = selected.invert()
        protected = edit.protected or Mask.empty(edit.box)
        for item in self.protect:
            protected = protected.union(self._protection(item, edit, log))
        if not protected.is_empty:
            selected = selected.subtract(protected)
        if selected.is_empty:
            raise MaskError("nothing is left of the selection" + (" outside what is protected" if self.protect else ""))
        confidence = round(min((region.score for region in regions), default=1.0), 3)
        if self.shadow == "auto":
            thrown = _thrown(edit, selected, protected, run, log)
            for region in thrown:
                if region.mask is not None and region.score >= _SURE:
                    selected = selected.union(region.mask)
            regions += thrown
        log.figures |= {
            "pixels": selected.area,
            "share": round(selected.area / edit.box.area, 6),
            "box": list(selected.box),
            "parts": len(selected.components()),
            "confidence": confidence,
            "confidence_of_guesses": round(guessed, 3),  # 1 where whole boxes were taken, as they were drawn
            "protected_pixels": protected.area,
        }
        return edit.replace(selected=selected, mask=selected, protected=protected, regions=regions)

    def _picked(self, before: tuple[Region, ...], edit: Edit, run: Run, log: Log) -> tuple[Region, ...]:
        """Those of the regions found before that `label` and `pick` choose, with masks."""
        chosen = pick(before, self.pick, self.label, per_label=True, frame=edit.box)
        if not chosen:
            known = ", ".join(sorted({repr(region.label) for region in before}))
            raise MaskError(f"select: none of what was found is called {' or '.join(map(repr, self.label))}: {known}")
        return with_masks(chosen, edit, run, log, self.segmenter)

    def _taken(self, region: Region, edit: Edit, log: Log) -> tuple[Mask, bool]:
        """A region's mask with what it misses for taking the whole object out, and whether it is the box as drawn."""
        assert region.mask is not None
        mask = self._filled(region.mask)
        named = bool(region.label) and region.label != "subject"  # found by words, in a box that nobody drew
        boxes = [region.box] if named else [box.intersect(edit.box) for box in self.box]
        around = [box for box in boxes if box.intersect(region.box).area > _HELD * region.box.area]
        if not around:  # found by clicks alone
            return mask, False
        box = max(around, key=lambda box: region.box.area / box.area)
        crop = box.grow(round(0.35 * box.width) + 8, round(0.35 * box.height) + 8).intersect(edit.box)
        found = leftovers(edit.srgb(crop), box.within(crop), mask.array(crop) > 0)
        mask = self._filled(mask.union(Mask.from_array(found, edit.box, (crop.left, crop.top))))
        if region.score < _TRUSTED or falls_short(mask.box, box):
            why = "it ends far from a side" if region.score >= _TRUSTED else f"confidence {region.score:.2f}"
            log.notes.append(f"the whole box {box} is taken: its mask may miss parts of the object ({why})")
            return mask.union(Mask.from_box(edit.box, box)), not named
        if extra := mask.area - region.mask.area:
            log.notes.append(f"{extra} more pixels of box {box} are taken too, so that no part of the object is left")
        return mask, False

    def _filled(self, mask: Mask) -> Mask:
        """The mask without its holes, but for those that an exclude click points into."""
        filled = mask.fill_holes()
        pixels = [Box(x, y, x + 1, y + 1) for x, y in self.not_point]
        if not any(filled.array(pixel).any() and not mask.array(pixel).any() for pixel in pixels):
            return filled
        for hole in filled.subtract(mask).components():
            if any(hole.array(pixel).any() for pixel in pixels):
                filled = filled.subtract(hole)
        return filled

    def _clicked(self, selected: Mask, edit: Edit) -> Mask:
        """The selection with every include click in it, and no exclude click."""
        check_clicks(edit, self.point, self.not_point)
        selected = without(selected, self.not_point, edit)
        for x, y in self.point:
            selected = selected.union(Mask.from_box(edit.box, Box(x, y, x + 1, y + 1)))
        return selected

    def _read(self, source: Any, edit: Edit, what: str, log: Log) -> tuple[Mask, str]:
        if isinstance(source, Mask):
            if source.frame != edit.box:
                raise MaskError(f"{what}: is {source.frame.size}, the photo is {edit.box.size}")
            return source.threshold(), f"{what}: {source.area} pixels selected"
        if isinstance(source, np.ndarray):
            return _from_array(source, edit, what)
        log.reads.append(str(source))
        mask, understood = Mask.from_file(Path(source), edit.box, fit=self.fit_mask)
        return mask.threshold(), understood

    def _protection(self, item: Any, edit: Edit, log: Log) -> Mask:
        if isinstance(item, str) and not Path(item).exists():
            raise ParameterError(f"protect {item!r}: is neither a box nor a file")
        if isinstance(item, Box):
            inside = item.intersect(edit.box)
            if inside.is_empty:
                raise ParameterError(f"protect {item}: lies outside the photo, which is {edit.box.size} pixels")
            if inside != item:
                log.warnings.append(f"protect {item} reaches beyond the photo ({edit.box.size}); {inside} is used")
            return Mask.from_box(edit.box, inside)
        return self._read(item, edit, "protect", log)[0]


def _thrown(edit: Edit, selected: Mask, protected: Mask, run: Run, log: Log) -> tuple[Region, ...]:
    """What is taken for shadows or reflections of the selection's parts."""
    thrown, figures = [], []
    for part in sorted(selected.components(), key=lambda part: -part.area)[:_OBJECTS]:
        run.check()
        reach = max(part.box.size)
        box = part.box.grow(reach + 8, reach // 2 + 8)
        box = Box(box.left, box.top, box.right, part.box.bottom + reach + 8).intersect(edit.box)
        step = step_for(box, _SIDE)
        hard = (reduced_mask(part, box, step) > 127).astype(np.uint8)
        found = find_shadow(reduced_pixels(edit, box, step), hard)
        if found.confidence < _POSSIBLE:
            continue
        grown = enlarged(found.region.astype(np.uint8) * np.uint8(255), step, (box.left, box.top), edit.box)
        mask = grown.threshold().subtract(selected).subtract(protected)
        if mask.is_empty:
            continue
        used = found.confidence >= _SURE
        thrown.append(Region(mask.box, found.kind, found.confidence, mask, found.reason))
        figures.append(
            {"kind": found.kind, "confidence": round(found.confidence, 3), "used": used, "box": list(mask.box)}
        )
        if used:
            log.notes.append(
                f"the {found.kind} (confidence {found.confidence:.2f}) goes too: {mask.area} pixels in {mask.box}"
            )
        else:
            log.notes.append(
                f"a possible {found.kind} (confidence {found.confidence:.2f}) was left: {found.reason or 'unsure'}; "
                f"a second --box, {mask.box}, takes it too"
            )
    log.figures["shadows"] = figures
    return tuple(thrown)


def _from_array(array: Any, edit: Edit, what: str) -> tuple[Mask, str]:
    if array.ndim != 2 or array.dtype not in (np.uint8, np.bool_):
        raise MaskError(f"{what}: must be an array (height, width) of uint8 or bool, got {array.shape} {array.dtype}")
    if (array.shape[1], array.shape[0]) != edit.box.size:
        raise MaskError(f"{what}: is {array.shape[1]}x{array.shape[0]}, the photo is {edit.box.size}")
    mask = Mask.from_array(array, edit.box).threshold()
    return mask, f"{what}: {mask.area} pixels selected"


def _called(source: Any, what: str) -> str:
    return str(source) if isinstance(source, str | Path) else what
