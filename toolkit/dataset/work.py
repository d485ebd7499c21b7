"""What is done with one photo of a set: edit and save, only plan, or only write the mask."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.cards import TASKS
from toolkit.dataset import held
from toolkit.dataset.inputs import STANDARD, Item
from toolkit.dataset.pictures import contact_sheet, marked, overlaid, variation_sheet
from toolkit.dataset.readback import drawn, read_back
from toolkit.dataset.targets import (
    Output,
    check_free,
    check_holds,
    make_folder,
    numbered,
    preview_of,
    sheet_of,
    target_of,
)
from toolkit.drawing import Record
from toolkit.edit import Edit, Region
from toolkit.engines import Prompts
from toolkit.errors import FidelityError, HeldBack, OutputError, UsageError
from toolkit.geometry import Box
from toolkit.photo import Photo, differences
from toolkit.recipe import Recipe
from toolkit.run import Run
from toolkit.stages import Log
from toolkit.stages._pointing import reads_words, segmented
from toolkit.stages._words import phrases_of
from toolkit.stages.detect import Detect
from toolkit.stages.segment import with_masks


@dataclass(frozen=True)
class _Work:
    """A recipe for a set of photos.

    Attributes:
        recipe: what is done.
        output: where and how results are written.
        options: values by the recipe's option names; those of an item go first.
        settings: values by `"stage.field"`.
    """

    recipe: Recipe
    output: Output
    options: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)

    def begin(self, item: Item) -> tuple[Recipe, Photo]:
        """The recipe with the item's own options, and the photo, header read and checked."""
        recipe = self.recipe.bind({**self.options, **item.options}, self.settings)
        limit = {} if self.output.max_pixels is None else {"max_pixels": self.output.max_pixels}
        name = item.name if isinstance(item.source, bytes) else None
        return recipe, Photo.open(item.source, name=name, **limit)

    def targets(self, item: Item, photo: Photo, recipe: Recipe) -> tuple[list[Path | str], list[Path], list[Path]]:
        """Where the variations go, the preview if one is asked for, and the sheet if there are several.

        Raises:
            UsageError: when the format cannot be written there, or cannot hold the result.
        """
        stages = list(recipe.stages())
        count = next((stage.num_images for stage in stages if hasattr(stage, "num_images")), 1)
        target = target_of(item, photo, self.output)
        targets = numbered(target, count)
        check_holds(targets[0], photo, self.output, any(stage.gives_alpha for stage in stages))
        previews = [preview_of(targets[0])] if self.output.preview and targets[0] != STANDARD else []
        return targets, previews, [sheet_of(target)] if count > 1 else []


@dataclass(frozen=True)
class EditWork(_Work):
    """Runs the recipe and saves every variation."""

    def __call__(self, item: Item, run: Run) -> dict[str, Any]:
        """The report of one photo; see `Edit.report` for what it holds besides outputs and fidelity."""
        recipe, photo = self.begin(item)
        targets, previews, sheets = self.targets(item, photo, recipe)
        for target in (*targets, *previews, *sheets):
            check_free(target, photo, self.output)
        try:
            edit = recipe(photo, run)
        except HeldBack as problem:
            raise self._held(problem, item, targets[0], run) from None
        if len(edit.stacks) != len(targets):
            targets = numbered(target_of(item, photo, self.output), len(edit.stacks))
        report = edit.report()
        outputs = []
        self.output.note(item, (*targets, *previews, *sheets), run)
        for k, target in enumerate(targets):
            run.check()
            run.progress("save", k / len(targets))
            outputs.append(self._saved(edit, k, target, report))
        for preview in previews:
            Photo.open(contact_sheet(edit)).save(preview, (), overwrite=self.output.may_replace(preview))
            report["preview"] = str(preview)
        for sheet in sheets if len(edit.stacks) > 1 else ():
            Photo.open(variation_sheet(edit)).save(sheet, (), overwrite=self.output.may_replace(sheet))
            report["sheet"] = str(sheet)
        return report | {"outputs": outputs}

    def _held(self, problem: HeldBack, item: Item, target: Path | str, run: Run) -> HeldBack:
        """Write the mask that was held back, and a picture to check it by; where they lie is added to the problem."""
        edit = problem.edit
        assert edit.selected is not None
        if target == STANDARD or not isinstance(item.source, Path):
            return problem
        root = self.output.root or Path(target).parent
        inside = Path(target).relative_to(root) if Path(target).is_relative_to(root) else Path(Path(target).name)
        name = inside.name if inside.suffix == ".png" else f"{inside.name}.png"  # a.jpg and a.png are two photos
        mask = held.folder_for(root, run.id) / inside.with_name(name)
        make_folder(mask)
        edit.selected.save(mask, overwrite=True)
        overlay = mask.with_name(f"{mask.stem}-overlay.png")
        Photo.open(overlaid(edit), max_pixels=edit.box.size.area).save(overlay, (), overwrite=True)
        row = held.row(item, mask, Path(target))
        return HeldBack(f"{problem}; look at {overlay}", None, row, held.folder_for(root, run.id))

    def _saved(self, edit: Edit, k: int, target: Path | str, report: dict[str, Any]) -> dict[str, Any]:
        stream = self.output.standard if target == STANDARD else None
        if stream is None:
            make_folder(Path(target))
        measured: dict[str, Any] = {"verified": False}
        output, record = self.output, Record()
        srgb = output.srgb and not edit.photo.shows_srgb

        def check(written: Path) -> None:
            found = fidelity(edit, k, written, str(target), output.measure, record=record, srgb=srgb)
            measured.update(found)

        saved = edit.save(
            stream or Path(target), k, record=record, overwrite=output.may_replace(target), format=output.format,
            quality=output.quality, dpi=output.dpi, srgb=output.srgb, max_bytes=output.max_bytes, check=check,
        )  # fmt: skip
        report["notes"] += [note for note in saved.notes if note not in report["notes"]]
        return {
            "path": str(target),
            "format": saved.format,
            "mode": saved.mode,
            "bytes": saved.bytes,
            **measured,
        }


@dataclass(frozen=True)
class PlanWork(_Work):
    """Finds out what the recipe would do; nothing is filled, paid or written."""

    def __call__(self, item: Item, run: Run) -> dict[str, Any]:
        """The report of the selection, and what doing the rest would take.

        Added are `engines` by task, `data_leaves_machine`, the fill's `windows`, `calls`, how many images are `kept`
        from before, `price`, `seconds_expected` (None where its card does not say), `seconds_of_calls` one after the
        other and the `rate` at which they are taken, whether the mask would be `held`, whether the photo is `refused`
        since a result could not be written, `shared` (equal where photos share what is paid for), `would_read`,
        `would_write`, and which of these `exists`. The canvas is that of the result.
        """
        recipe, photo = self.begin(item)
        targets, previews, sheets = self.targets(item, photo, recipe)
        edit = recipe(photo, run, plan=True)
        report = edit.report()
        taken, refused = [], False
        for target in (*targets, *previews, *sheets):
            try:
                check_free(target, photo, self.output)
            except OutputError as problem:
                report["warnings"].append(str(problem))
                refused = True
            if target != STANDARD and Path(target).exists():
                taken.append(str(target))
        steps = [step for step in edit.steps if step.engine]
        engines = {task: list(dict.fromkeys(one.engine for one in steps if one.task == task)) for task in TASKS}
        found = [(step.engine, step.figures["detected"]["engine"]) for step in edit.steps if "detected" in step.figures]
        named = [finder for engine, finder in found if finder != engine]  # by words, for a segmenter to outline
        engines["detect"] = list(dict.fromkeys([*engines["detect"], *named]))
        fills = [step.figures for step in edit.steps if "price_expected" in step.figures]
        engines["enhance"] = [one["enhancer"] for one in fills if "enhancer" in one]
        leaves_for = sorted({host for one in fills for host in one.get("leaves_for", ())})
        return report | {
            "dry_run": True,
            "engines": {task: names for task, names in engines.items() if names},
            "data_leaves_machine": bool(leaves_for)
            or any(step.data_leaves_machine for step in steps if step.task != "fill"),
            "leaves_for": leaves_for,
            "windows": [window for one in fills for window in one["windows"]],
            "calls": sum(one["calls"] for one in fills),
            "kept": sum(one["kept"] for one in fills),
            "held": any(one.get("held") for one in fills),
            "refused": refused,
            "price": report["price"] | {"total": sum(one["price_expected"] for one in fills)},
            **{name: _sum([one[name] for one in fills]) for name in ("seconds_expected", "seconds_of_calls")},
            "rate": {
                name: min((rate for one in fills if (rate := one["rate"][name]) is not None), default=None)
                for name in ("per_minute", "at_once")
            },
            "shared": "".join(one.get("shared", "") for one in fills),
            "measured_on": next((one["measured_on"] for one in fills), ""),
            "would_read": list(dict.fromkeys([photo.name, *(file for step in edit.steps for file in step.reads)])),
            "would_write": [str(target) for target in (*targets, *previews, *sheets)],
            "exists": taken,
        }


def _sum(seconds: Sequence[float | None]) -> float | None:
    known = [one for one in seconds if one is not None]
    return round(sum(known), 1) if len(known) == len(seconds) else None


@dataclass(frozen=True)
class MaskWork(_Work):
    """Selects, and writes the mask; an overlay to check it by, if asked for.

    Attributes:
        overlay: where that goes; a folder where `many`.
        folder: the folder of the masks, below which overlays are nested alike.
        many: whether several photos are worked on.
    """

    overlay: Path | None = None
    folder: Path | None = None
    many: bool = False

    def __call__(self, item: Item, run: Run) -> dict[str, Any]:
        """The report of the selection."""
        recipe, photo = self.begin(item)
        target = target_of(item, photo, self.output)
        if target != STANDARD and Path(target).suffix.lower() != ".png":
            if item.output is not None:
                raise UsageError(f"{target}: a mask is written as PNG; name it {Path(target).with_suffix('.png')}")
            target = Path(target).with_suffix(".png")
        overlays = [] if self.overlay is None else [self._overlay_of(item, self.overlay)]
        for path in (target, *overlays):
            check_free(path, photo, self.output)
        if overlays == [target]:
            raise UsageError(f"{target}: is named for the mask and for the overlay")
        edit = recipe(photo, run)
        assert edit.mask is not None
        pixels = edit.mask.array()
        if target == STANDARD:
            assert self.output.standard is not None
            self.output.standard.write(cv2.imencode(".png", pixels)[1].tobytes())
        else:
            make_folder(Path(target))
            Photo.open(pixels, max_pixels=pixels.size).save(Path(target), (), overwrite=self.output.overwrite)
        report = edit.report() | {"outputs": [{"path": str(target), "format": "PNG", "mode": "L"}]}
        for path in overlays:
            make_folder(path)
            shown = Photo.open(overlaid(edit), max_pixels=pixels.size)
            shown.save(path, (), overwrite=self.output.overwrite)
            report["overlay"] = str(path)
        return report

    def _overlay_of(self, item: Item, overlay: Path) -> Path:
        return overlay_of(item, overlay, self.folder, self.many)


@dataclass(frozen=True)
class RegionsWork(_Work):
    """Finds regions and writes nothing but an overlay, if asked for.

    Attributes:
        everything: by the segmenter, whatever there is; else by words.
        masks: give each region a mask.
        segmenter: that makes them.
        overlay: where a picture with the regions on it goes; a folder where `many`.
        many: whether several photos are worked on.
    """

    everything: bool = False
    masks: bool = False
    segmenter: str = "auto"
    overlay: Path | None = None
    many: bool = False

    def __call__(self, item: Item, run: Run) -> dict[str, Any]:
        """What was found: `regions` with label, score, box and, where it has a mask, area and COCO RLE."""
        recipe, photo = self.begin(item)
        overlays = [] if self.overlay is None else [overlay_of(item, self.overlay, self.overlay, self.many)]
        for path in overlays:
            check_free(path, photo, self.output)
        edit, log = Edit.of(photo), Log()
        (stage,) = recipe.stages()
        assert isinstance(stage, Detect)
        if self.everything:
            regions = segmented(edit, run, log, Prompts(everything=True), self.segmenter, needed=False)
        elif reads_words(run, self.segmenter, stage.detector):
            prompts = Prompts(text=phrases_of(stage.text))
            regions = segmented(edit, run, log, prompts, self.segmenter, threshold=stage.threshold, needed=False)
        else:
            regions = stage.look(edit, run, log)
        if regions and self.masks:
            regions = with_masks(regions, edit, run, log, self.segmenter)
        edit = edit.replace(regions=regions)
        report: dict[str, Any] = {
            "engine": log.figures.get("detected", {}).get("engine") or (log.card.name if log.card else ""),
            "size": list(edit.box.size),
            "regions": [_region(one) for one in regions],
            "missed": log.figures.get("detected", {}).get("missed", []),
            "notes": log.notes,
            "warnings": log.warnings,
        }
        for path in overlays:
            make_folder(path)
            Photo.open(marked(edit), max_pixels=edit.box.area).save(path, (), overwrite=self.output.overwrite)
            report["overlay"] = str(path)
        return report


def _region(region: Region) -> dict[str, Any]:
    found = {"label": region.label, "score": round(region.score, 4), "box": list(region.box)}
    if region.mask is not None:
        found |= {"area": region.mask.area, "segmentation": region.mask.to_coco_rle()}
    return found


def overlay_of(item: Item, overlay: Path, folder: Path | None, many: bool) -> Path:
    """The overlay itself, or for several photos one in the folder it names, called and nested as the result is.

    Args:
        folder: of the results.
        many: whether there are several photos.
    """
    if not many and not overlay.is_dir():
        return overlay
    if isinstance(item.source, bytes):
        return overlay / "standard-input-overlay.png"
    name = Path(item.output or item.source.name)
    if folder is not None and folder in name.parents:
        name = name.relative_to(folder)
    else:
        name = name.relative_to(name.anchor)
    return overlay / name.with_name(f"{name.stem}-overlay.png")


def fidelity(
    edit: Edit, k: int, path: Path, name: str, measure: bool, *, record: Record | None = None, srgb: bool = False
) -> dict[str, Any]:
    """What a reader of a written file finds: its mode, and what changed; lossless files are always read back.

    Args:
        path: where the file lies now.
        name: what it is to be called, in messages too.
        record: what was found when it was drawn; without it that is done again, where it is needed.
        srgb: whether the colours were converted to sRGB from another space.

    Raises:
        FidelityError: when a pixel outside the blend band changed in a lossless file (law 1).
    """
    written = Photo.open(path, name=name, max_pixels=edit.canvas.size.area)
    return {"mode": written.mode, **_compared(edit, k, written, name, measure, record, srgb)}


def _compared(
    edit: Edit, k: int, written: Photo, name: str, measure: bool, record: Record | None, srgb: bool
) -> dict[str, Any]:
    drawing = edit.drawing(k)
    # PNG and TIFF hold every depth and alpha; the others are exact only as what the photo was.
    exact = written.format in ("PNG", "TIFF") or (written.format == edit.photo.format and edit.photo.lossless)
    if drawing.is_whole:
        return read_back(drawing, record or drawn(drawing), written, exact=exact, srgb=srgb, measure=measure)
    exact = exact and not srgb
    if not (exact or measure):
        return {"verified": False, "pixels_changed_outside": None}
    band = edit.band(k)
    inside = outside = largest = 0
    for box, changed in differences(edit.photo, written):
        if not changed.any():
            continue
        free = band.array(box) == 0
        inside += int((changed & ~free).sum())
        outside += int((changed & free).sum())
        if (changed & free).any() and written.depth == edit.photo.depth:
            largest = max(largest, _largest(edit.photo, written, box, changed & free))
    if exact and outside:
        raise FidelityError(f"{name}: {outside} pixels outside the blend band would change; nothing was written")
    return {
        "verified": True,
        "pixels_changed": inside,
        "pixels_changed_outside": outside,
        "largest_change_outside": largest,
    }


def _largest(photo: Photo, written: Photo, box: Box, where: npt.NDArray[np.bool_]) -> int:
    channels = min(photo.channels, written.channels)
    before = photo.crop(box)[..., :channels].astype(np.int32)
    after = written.crop(box)[..., :channels].astype(np.int32)
    return int(np.abs(before - after)[where].max())
