"""Masks as files and codes: any picture read as a mask, PNG written, COCO run-length codes both ways, rings."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import numpy.typing as npt

from toolkit.errors import MaskError
from toolkit.geometry import Box, Size

if TYPE_CHECKING:
    from PIL import Image

Bytes = npt.NDArray[np.uint8]
Source = str | os.PathLike[str] | bytes

LARGEST = 1 << 29
"""A mask file of more pixels than this is not decoded, unless the photo itself is as large."""

_LEVEL = 128


def read_mask(
    source: Source | Image.Image, size: Size | None = None, *, fit: bool = False, name: str | None = None
) -> tuple[Bytes, str]:
    """Read a picture as hard values (h, w) uint8 0 | 255, white = selected, and say how it was understood.

    Args:
        source: path, file content or PIL image.
        size: what the mask must have; any if None.
        fit: resize a mask of another size instead of refusing it.
        name: what the sentences call the mask.

    Raises:
        MaskError: missing, unreadable, too large, or of another size than `size` without `fit`.
    """
    from PIL import Image

    if name is None:
        name = os.fspath(source) if isinstance(source, str | os.PathLike) else "mask"
    picture = source if isinstance(source, Image.Image) else _opened(source, name)
    largest = max(LARGEST, size.area if size else 0)
    if picture.width * picture.height > largest:
        raise MaskError(f"{name}: {picture.width}x{picture.height} pixels are too many for a mask (at most {largest})")
    try:
        turned = picture.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except Exception:  # a broken EXIF block raises nearly anything, and says nothing about the pixels
        turned = False
    shown = Size(picture.height, picture.width) if turned else Size(*picture.size)
    if size is not None and shown != size and not fit:
        raise MaskError(f"{name}: the mask is {shown} but the photo is {size}; --fit-mask resizes the mask")
    try:
        values, said = _values(picture)
    except MemoryError:
        raise MaskError(f"{name}: not enough memory to read {picture.width}x{picture.height} pixels") from None
    except Exception as error:  # decoders of broken files raise nearly anything
        raise MaskError(f"{name}: cannot be read as a picture ({_short(error)})") from None
    soft = values.size - int(np.count_nonzero((values == 0) | (values == 255)))
    brightest = values.max(initial=0)
    values = np.greater_equal(values, _LEVEL).view(np.uint8) * np.uint8(255)
    said += f"; {100 * np.count_nonzero(values) / max(1, values.size):.1f} % white"
    if soft and not values.any():
        said += f"; nothing selected, because the brightest value is {brightest} of 255"
    elif soft:
        said += f"; {soft} soft value{'s' if soft > 1 else ''} thresholded at {_LEVEL}"
    if size is not None and shown != size:
        values, resized = _fitted(values, size)
        said += resized
    return values, f"{name}: {said}"


def _opened(source: Source, name: str) -> Image.Image:
    """The picture, header read only.

    Pillow's own guard against decompression bombs knows one limit for the whole process, and warns below it; the
    decoders are therefore asked directly and the size is checked by the caller.
    """
    from PIL import Image

    if isinstance(source, bytes):
        content = source
    else:
        try:
            content = Path(source).read_bytes()
        except FileNotFoundError:
            raise MaskError(f"{name}: there is no such file") from None
        except (OSError, ValueError) as error:
            raise MaskError(f"{name}: cannot be read ({_short(error)})") from None
    if not content:
        raise MaskError(f"{name}: the file is empty")
    Image.init()
    for code in Image.ID:
        opener, accepts = Image.OPEN[code]
        try:
            if accepts is None or accepts(content[:16]) is True:
                return opener(io.BytesIO(content), "")
        except Image.DecompressionBombError:  # some decoders look for themselves
            raise MaskError(f"{name}: has too many pixels for a mask (at most {LARGEST})") from None
        except Exception:  # a decoder that does not know the file raises nearly anything; the next is asked
            continue
    raise MaskError(f"{name}: is not a picture, or of a kind that cannot be read")


def _short(error: Exception) -> str:
    """An error's first line, without a full stop."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return str(text).splitlines()[0].rstrip(".")


def _values(picture: Image.Image) -> tuple[Bytes, str]:
    """Grey values (h, w) uint8 of any picture, upright, and what they were read as."""
    from PIL import ImageOps

    picture.load()
    try:
        upright = ImageOps.exif_transpose(picture)
    except Exception:  # a broken EXIF block; the pixels are good
        upright = picture
    mode = upright.mode
    if mode == "1":
        return np.asarray(upright).astype(np.uint8) * np.uint8(255), "read as 1-bit"
    if mode.startswith("I") or mode == "F":
        return _deep(np.asarray(upright), mode)
    if mode == "L" and "transparency" not in upright.info:
        return np.array(upright, np.uint8), "read as 8-bit grey"
    if upright.has_transparency_data or mode in ("LA", "La", "RGBa", "PA"):
        rgba = np.asarray(upright.convert("RGBA"))
        colour, alpha = rgba[..., :3], rgba[..., 3]
        if (alpha == alpha.flat[0]).all():
            return _grey(colour), "took the luminance: alpha is constant"
        if (colour == colour[0, 0]).all():
            return alpha.copy(), "took the alpha channel: colour is constant"
        product = _grey(colour).astype(np.uint16) * alpha
        return ((product + 127) // 255).astype(np.uint8), "took luminance times alpha: both vary"
    kind = {"P": "palette colours", "RGB": "RGB colour"}.get(mode, f"{mode} colour")
    if mode == "P":
        kind += f" ({len(upright.getcolors(256) or ())} used)"
    return _grey(np.asarray(upright if mode == "RGB" else upright.convert("RGB"))), f"read the luminance of {kind}"


def _grey(colour: npt.NDArray[Any]) -> Bytes:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(colour, np.uint8), cv2.COLOR_RGB2GRAY), np.uint8)


def _deep(values: npt.NDArray[Any], mode: str) -> tuple[Bytes, str]:
    """16-bit, 32-bit and float grey brought to 0-255 by the range their kind has."""
    if mode == "F":
        values = np.nan_to_num(values, nan=0.0)
        top, said = (1.0, "0-1") if values.max(initial=0) <= 1 else (255.0, "0-255")
        return np.rint(np.clip(values / top, 0, 1) * 255).astype(np.uint8), f"read as float grey, {said}"
    top = 65535 if mode.startswith("I;16") or values.max(initial=0) > 255 else 255
    scaled = (np.clip(values, 0, top).astype(np.uint32) * 255 + top // 2) // top
    return scaled.astype(np.uint8), f"read as {16 if top > 255 else 8}-bit grey"


def _fitted(values: Bytes, size: Size) -> tuple[Bytes, str]:
    height, width = values.shape
    said = f"; resized from {width}x{height} to {size} by nearest pixel"
    stretch = (size.width / width) / (size.height / height)
    if abs(stretch - 1) > 0.01:
        said += f", its shape changed: {width / height:.3f} to {size.width / size.height:.3f} wide per high"
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_NEAREST_EXACT), np.uint8), said


def write_mask(path: Path, values: Bytes, *, hard: bool, overwrite: bool) -> None:
    """Write (h, w) uint8 as a grey PNG, 1 bit a pixel if `hard`; whole or not at all.

    Raises:
        OutputError: the file exists and `overwrite` is False, or it cannot be written.
    """
    from PIL import Image

    from toolkit.photo.output import whole_file

    with whole_file(path, overwrite=overwrite) as stream:
        Image.fromarray(values != 0 if hard else values).save(stream, "PNG")


def decode_rle(counts: Sequence[int] | str | bytes, size: Sequence[int]) -> tuple[tuple[Box, Bytes], ...]:
    """The tiles, in a frame of `size` = (height, width) from (0, 0), of a COCO run-length code.

    COCO lists the lengths of runs of 0 and 1 in turn, beginning with 0, down the columns from left to right.

    Raises:
        MaskError: runs that are negative or do not add up to the size, or characters that are no code.
    """
    height, width = int(size[0]), int(size[1])
    try:
        if isinstance(counts, str | bytes):
            runs = np.array(_uncompressed(counts.encode("ascii") if isinstance(counts, str) else counts), np.int64)
        else:
            runs = np.array(counts, np.int64).reshape(-1)
    except (IndexError, OverflowError, TypeError, ValueError):
        raise MaskError("run-length code: is damaged") from None
    if height < 1 or width < 1 or (runs < 0).any() or int(runs.sum()) != height * width:
        raise MaskError(f"run-length code: its runs must add up to {height} x {width} pixels, got {int(runs.sum())}")
    ends = np.cumsum(runs)
    last = ends[1::2][runs[1::2] > 0]
    first = (ends - runs)[1::2][runs[1::2] > 0]
    if not len(first):
        return ()
    left, right = int(first[0]) // height, (int(last[-1]) - 1) // height + 1
    edges = np.clip(np.concatenate([[0], ends]), left * height, right * height)
    values = (np.arange(len(runs)) % 2 * 255).astype(np.uint8)
    columns = np.repeat(values, np.diff(edges)).reshape(right - left, height)
    return ((Box(left, 0, right, height), np.ascontiguousarray(columns.T)),)


def encode_rle(frame: Box, tiles: Sequence[tuple[Box, Bytes]], outside: int) -> str:
    """The compressed COCO run-length code of hard tiles in `frame`."""
    turns = []
    for box, values in tiles:
        inner = box.within(frame)
        # A column's turns, as positions in the frame read down its columns; the outside value frames each column.
        columns = np.pad(values.T, ((0, 0), (1, 1)), constant_values=outside)
        x, y = np.nonzero(columns[:, 1:] != columns[:, :-1])
        turns.append((x + inner.left) * frame.height + y + inner.top)
    places, times = np.unique(np.concatenate(turns) if turns else np.zeros(0, np.int64), return_counts=True)
    # A run that goes on from one column's foot to the next one's head turns twice there: it does not turn.
    places = places[(times == 1) & (places > 0) & (places < frame.area)]
    edges = np.concatenate([[0], places, [frame.area]])
    runs = np.diff(edges).tolist()
    starts_set = outside == 255
    for box, values in tiles:
        if (box.left, box.top) == (frame.left, frame.top):
            starts_set = bool(values[0, 0])
    return _compressed([0, *runs] if starts_set else runs)


def _compressed(runs: Sequence[int]) -> str:
    """Five bits a character from chr(48) up, the sixth says that more follow; from the fourth run on differences."""
    text = []
    for index, run in enumerate(runs):
        left = run - runs[index - 2] if index > 2 else run
        more = True
        while more:
            bits = left & 31
            left >>= 5
            more = left != (-1 if bits & 16 else 0)
            text.append(chr(bits + (32 if more else 0) + 48))
    return "".join(text)


def _uncompressed(text: bytes) -> list[int]:
    runs: list[int] = []
    at = 0
    while at < len(text):
        run = shift = 0
        while True:
            code = text[at] - 48
            at += 1
            if not 0 <= code < 64:
                raise ValueError("no run-length character")
            run |= (code & 31) << shift
            shift += 5
            if not code & 32:
                break
        if code & 16:
            run -= 1 << shift
        runs.append(run + runs[-2] if len(runs) > 2 else run)
    return runs


def polygon_rings(points: Any) -> list[npt.NDArray[np.float64]]:
    """One ring, as (x, y) pairs or flat x, y, ..., or a list of such rings, as arrays (n, 2).

    Raises:
        MaskError: anything else, fewer than three points, or coordinates that are not finite.
    """
    try:
        first = points[0]
        many = np.ndim(first) == 2 or (np.ndim(first) == 1 and len(first) != 2)
        rings = list(points) if many else [points]
    except (TypeError, IndexError, KeyError, ValueError):
        raise MaskError("polygon: expected (x, y) pairs, a flat x, y, ... list, or a list of such rings") from None
    return [_ring(ring) for ring in rings]


def _ring(points: Any) -> npt.NDArray[np.float64]:
    try:
        ring = np.asarray(points, np.float64)
    except (TypeError, ValueError):
        raise MaskError("polygon: expected numbers, as (x, y) pairs or a flat x, y, ... list") from None
    if ring.ndim == 1 and ring.size % 2:
        raise MaskError(f"polygon: has an odd number of coordinates ({ring.size})")
    ring = ring.reshape(-1, 2) if ring.ndim == 1 else ring
    if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 3:
        raise MaskError(f"polygon: expected at least three (x, y) points, got an array of shape {ring.shape}")
    if not np.isfinite(ring).all():
        raise MaskError("polygon: has coordinates that are not finite")
    return ring
