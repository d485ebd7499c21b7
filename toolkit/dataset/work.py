"""What is done with one photo of a set: edit and save, only plan, or only write the mask."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt
import PIL.Image

from toolkit import planning
from toolkit.dataset.inputs import STANDARD, Item
from toolkit.dataset.readback import drawn, read_back
from toolkit.drawing import Record
from toolkit.edit import Edit
from toolkit.errors import FidelityError, OutputError, UsageError
from toolkit.geometry import Box
from toolkit.photo import Photo, differences
from toolkit.photo.formats import format_named, format_of
from toolkit.recipe import Recipe
from toolkit.run import Run

_SHEET_SIDE = 900
"""Longest side of a picture on a preview, in pixels."""


@dataclass(frozen=True)
class Output:
    """Where and how results are written.

    Attributes:
        verb: added to the source's name where no output is named: `photo-<verb>.jpg`.
        overwrite: replace existing files; the source itself only where it is named as the output.
        preview: write before, mask and after side by side, too.
        measure: count changed pixels in what was written also where the format is lossy.
        format: of every result, where it is not to be what its name says or the source's.
        quality: of JPEG and lossy WebP, 1 to 100.
        dpi: pixels per inch that are written into it.
        srgb: convert its colours to sRGB.
        max_bytes: what it may measure.
        standard: the stream "-" stands for.
        max_pixels: photos of more pixels are refused.
    """

    verb: str
    overwrite: bool = False
    preview: bool = False
    measure: bool = False
    format: str | None = None
    quality: int | None = None
    dpi: float | None = None
    srgb: bool = False
    max_bytes: int | None = None
    standard: BinaryIO | None = None
    max_pixels: int | None = None


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


@dataclass(frozen=True)
class EditWork(_Work):
    """Runs the recipe and saves every variation."""

    def __call__(self, item: Item, run: Run) -> dict[str, Any]:
        """The report of one photo; see `Edit.report` for what it holds besides outputs and fidelity."""
        recipe, photo = self.begin(item)
        stages = list(recipe.stages())
        count = next((stage.num_images for stage in stages if hasattr(stage, "num_images")), 1)
        targets = numbered(target_of(item, photo, self.output), count)
        previews = [preview_of(targets[0])] if self.output.preview and targets[0] != STANDARD else []
        for target in (*targets, *previews):
            check_free(target, photo, self.output)
        check_holds(targets[0], photo, self.output, any(stage.gives_alpha for stage in stages))
        edit = recipe(photo, run)
        if len(edit.stacks) != len(targets):
            targets = numbered(target_of(item, photo, self.output), len(edit.stacks))
        report = edit.report()
        outputs = []
        for k, target in enumerate(targets):
            run.check()
            run.progress("save", k / len(targets))
            outputs.append(self._saved(edit, k, target, report))
        for preview in previews:
            Photo.open(contact_sheet(edit)).save(preview, (), overwrite=self.output.overwrite)
            report["preview"] = str(preview)
        return report | {"outputs": outputs}

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
            stream or Path(target), k, record=record, overwrite=output.overwrite, format=output.format,
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
    """Selects and plans; no engine fills anything and nothing is written."""

    def __call__(self, item: Item, run: Run) -> dict[str, Any]:
        """Windows, working sizes, engine, calls, price and expected seconds."""
        recipe, photo = self.begin(item)
        edit = recipe(photo, run, until="fill")
        fill = next((stage for stage in recipe.stages() if stage.name == "fill"), None)
        if fill is None:
            raise UsageError(f"{recipe.name}: fills nothing, so there is nothing to plan")
        card = run.card("fill", getattr(fill, "model", "auto"))
        images = int(getattr(fill, "num_images", 1))
        targets = numbered(target_of(item, photo, self.output), images)
        report = edit.report()
        for target in targets:
            try:
                check_free(target, photo, self.output)
            except OutputError as problem:
                report["warnings"].append(str(problem))
        plan = planning.estimate(edit.passes, images, card.price, card.pace, card.per_call)
        return report | {
            "dry_run": True,
            "engine": card.name,
            "data_leaves_machine": card.data_leaves_machine,
            "windows": [
                {"box": list(w.box), "size": list(w.size), "scale": round(w.scale, 4)}
                for one in plan.passes
                for w in one
            ],
            "calls": plan.calls,
            "price": {"total": plan.price, "currency": plan.currency},
            "seconds_expected": None if plan.seconds is None else round(plan.seconds, 1),
            "measured_on": card.measured_on,
            "would_write": [str(target) for target in targets],
        }


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
        """The overlay itself, or for several photos one in the folder it names, called and nested as the mask is."""
        if not self.many and not overlay.is_dir():
            return overlay
        if isinstance(item.source, bytes):
            return overlay / "standard-input-overlay.png"
        name = Path(item.output or item.source.name)
        if self.folder is not None and self.folder in name.parents:
            name = name.relative_to(self.folder)
        else:
            name = name.relative_to(name.anchor)
        return overlay / name.with_name(f"{name.stem}-overlay.png")


def target_of(item: Item, photo: Photo, output: Output) -> Path | str:
    """Where the result of an item goes.

    Raises:
        UsageError: when the photo came from standard input and no output is named.
    """
    if item.output is not None:
        if item.output == STANDARD:
            return STANDARD
        path = Path(item.output)
        name = item.source.name if isinstance(item.source, Path) else "standard-input.png"
        return path / name if path.is_dir() else path
    if isinstance(item.source, bytes):
        raise UsageError("the photo came from standard input: name an output with -o (or -o -)")
    return item.source.with_name(f"{item.source.stem}-{output.verb}{item.source.suffix}")


def numbered(target: Path | str, count: int) -> list[Path | str]:
    """`count` targets: the one itself, or with -1, -2, ... before the suffix.

    Raises:
        UsageError: when several pictures would go to standard output.
    """
    if count == 1:
        return [target]
    if target == STANDARD:
        raise UsageError("standard output takes one picture; --num-images needs a file")
    path = Path(target)
    return [path.with_name(f"{path.stem}-{k + 1}{path.suffix}") for k in range(count)]


def check_free(target: Path | str, photo: Photo, output: Output) -> None:
    """Find out before the work whether its result could be written.

    Raises:
        OutputError: when the target exists, its format is not one that can be written, or its folder cannot be made.
    """
    if target == STANDARD:
        return
    path = Path(target)
    format_of(path)
    if path.is_dir():
        raise OutputError(f"{path}: is a folder; name a file in it")
    if path.exists() and not output.overwrite:
        same = photo.path is not None and path.samefile(photo.path)
        what = "is the photo itself" if same else "already exists"
        raise OutputError(f"{path}: {what}; name another output with -o, or say --overwrite")
    nearest = next(folder for folder in path.absolute().parents if folder.exists())
    if not nearest.is_dir():
        raise OutputError(f"{nearest}: is a file, {path} cannot lie in it")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise OutputError(f"{path}: cannot be written (no permission to write in {nearest})")


def check_holds(target: Path | str, photo: Photo, output: Output, alpha: bool) -> None:
    """Find out before the work whether the result's format is clear and can hold it.

    Raises:
        UsageError: when the target's name contradicts the format, or the format has no transparency and needs it.
    """
    named = None if target == STANDARD else format_of(Path(target))
    wanted = format_named(output.format) if output.format else named
    if named and wanted != named:
        raise UsageError(f"{target}: is the name of a {named} file, and --format asks for {wanted}; leave one away")
    if alpha and (wanted or photo.format) == "JPEG":
        raise UsageError(f"{target}: JPEG has no transparency; name a .png or .webp file, or say --format png")


def make_folder(target: Path) -> None:
    """Make the folder `target` is to lie in.

    Raises:
        OutputError: when that is not possible.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as problem:
        raise OutputError(f"{target.parent}: cannot be made ({problem.strerror})") from None


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


def overlaid(edit: Edit, box: Box | None = None) -> npt.NDArray[np.uint8]:
    """The photo (h, w, 3) uint8 sRGB with the mask in red and its contour in white, to check it by.

    Shadows and reflections are blue: filled where they go too, outlined where they were only proposed.
    """
    box = box or edit.box
    picture = edit.replace(stacks=(edit.stacks[0],)).srgb(box).astype(np.uint8)
    if edit.mask is None:
        return picture
    mask = edit.mask.array(box)
    shown = picture.copy()
    inside = mask > 0
    shown[inside] = np.add(picture[inside], np.array((255, 30, 30), np.uint16)) // 2
    width = max(1, round(max(box.size) / 600))
    _outline(shown, mask, (255, 255, 255), width)
    for region in edit.regions:
        if region.label not in ("shadow", "reflection") or region.mask is None:
            continue
        thrown = region.mask.array(box)
        used = inside & (thrown > 0)
        shown[used] = np.add(picture[used], np.array((30, 90, 255), np.uint16)) // 2
        _outline(shown, thrown, (80, 180, 255), width)
    return shown


def _outline(shown: npt.NDArray[np.uint8], mask: npt.NDArray[np.uint8], colour: tuple[int, ...], width: int) -> None:
    contours, _ = cv2.findContours(np.ascontiguousarray(mask), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(shown, contours, -1, colour, width)


def contact_sheet(edit: Edit) -> npt.NDArray[np.uint8]:
    """Before, mask and every variation side by side, (h, w, 3) uint8 sRGB, on white."""
    scale = min(1.0, _SHEET_SIDE / max(edit.box.size))
    size = (max(1, round(edit.box.width * scale)), max(1, round(edit.box.height * scale)))
    before = edit.photo.to_srgb(edit.photo.crop(edit.box))
    pictures = [before, overlaid(edit.replace(stacks=(edit.stacks[0].__class__(),)))]
    small = [cv2.resize(np.ascontiguousarray(one), size, interpolation=cv2.INTER_AREA) for one in pictures]
    small += [_result(edit, k) for k in range(len(edit.stacks))]
    height = max(len(one) for one in small)
    small = [np.pad(one, ((0, height - len(one)), (0, 0), (0, 0)), constant_values=255) for one in small]
    gap = np.full((height, 12, 3), 255, np.uint8)
    row = [part for one in small for part in (one, gap)][:-1]
    return np.asarray(np.concatenate(row, axis=1), np.uint8)


def _result(edit: Edit, k: int) -> npt.NDArray[np.uint8]:
    """Variation `k` as it is saved, reduced, (h, w, 3) uint8 sRGB; on chequers where a stage made it transparent."""
    image = edit.image(k)
    image.thumbnail((_SHEET_SIDE, _SHEET_SIDE), resample=PIL.Image.Resampling.BOX)
    if image.mode == "RGBA":
        x, y = np.arange(image.width) // 12, np.arange(image.height) // 12
        chequers = np.where((x[None, :] + y[:, None]) % 2, 255, 204).astype(np.uint8)
        ground = PIL.Image.fromarray(chequers).convert("RGBA")
        image = PIL.Image.alpha_composite(ground, image).convert("RGB")
    return np.asarray(image)


def preview_of(target: Path | str) -> Path:
    """Where the contact sheet of a result goes: beside it, as `<name>-preview`, in the same format."""
    path = Path(target)
    return path.with_name(f"{path.stem}-preview{path.suffix}")
