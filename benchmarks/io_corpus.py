"""Edit every picture file of $INPAINT_DATA/io (or the folders given) and check that nothing else changed.

Each file is handled in a process of its own with 4 GB of address space: a small window is painted through Photo and
the file saved. An independent reader (Pillow, tifffile or OpenCV) then compares the pixels outside the window, and a
reader of segments, chunks and tags compares the metadata byte for byte. Files that cannot be edited must be refused
with one sentence.

    INPAINT_DATA=... python -m benchmarks.io_corpus [folder ...]
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

LIMIT = 4 << 30
SHOWS_OLD_PICTURE = ("MPF", "urn:iso", "C2PA")


def independent_pixels(path: Path) -> np.ndarray[Any, Any]:
    """All pixels in stored orientation by another reader than the toolkit's own code."""
    from PIL import Image

    data = path.read_bytes()
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        import tifffile

        with tifffile.TiffFile(path) as file:
            page = file.pages[0]
            if page.compression in (1, 8, 32946, 32773) and page.photometric != 6:
                array = page.asarray()
                return np.where(array, 255, 0).astype(np.uint8) if array.dtype == bool else array
        with Image.open(path) as image:
            turn = image.tag_v2.get(274, 1)  # Pillow turns the picture upright
            array = np.asarray(image)
            array = np.where(array, 255, 0).astype(np.uint8) if array.dtype == bool else array
            return {8: lambda: np.rot90(array, -1), 6: lambda: np.rot90(array)}.get(turn, lambda: array)()
    if data.startswith(b"\x89PNG") and data[24] == 16:
        import cv2

        return np.asarray(cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED))
    with Image.open(path) as image:
        if image.mode == "P":
            image = image.convert("RGBA")
        elif "transparency" in image.info:
            image = image.convert("RGBA")
        return np.asarray(image)


def carried(data: bytes) -> list[tuple[str, bytes]]:
    """Everything a file carries besides its picture, in order."""
    if data.startswith(b"\xff\xd8"):
        return _jpeg(data)
    if data.startswith(b"\x89PNG"):
        return _png(data)
    if data.startswith(b"RIFF"):
        return _webp(data)
    if data[:2] in (b"II", b"MM"):
        return _tiff(data)
    return [("header", data[14:54])] if data.startswith(b"BM") else []


def _jpeg(data: bytes) -> list[tuple[str, bytes]]:
    found, at = [], 2
    while at < len(data) - 4:
        if data[at] != 0xFF or data[at + 1] in (0, 0xFF):
            at += 1
            continue
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == 0xDA:
            break
        payload = data[at + 4 : at + 2 + length]
        if 0xE0 <= marker <= 0xEF or marker == 0xFE:
            found.append((f"APP{marker - 0xE0}" if marker != 0xFE else "COM", payload))
        elif marker in (0xDB, 0xDD) or 0xC0 <= marker <= 0xC2:
            pass
        at += 2 + length
    return found


def _png(data: bytes) -> list[tuple[str, bytes]]:
    found, at = [], 8
    while at + 8 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        name = data[at + 4 : at + 8].decode("latin-1")
        if name not in ("IHDR", "IDAT", "IEND"):
            found.append((name, data[at + 8 : at + 8 + length]))
        at += 12 + length
    return found


def _webp(data: bytes) -> list[tuple[str, bytes]]:
    found, at = [], 12
    while at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        name = data[at : at + 4].decode("latin-1")
        if name not in ("VP8X", "VP8 ", "VP8L", "ALPH"):
            found.append((name, data[at + 8 : at + 8 + length]))
        at += 8 + length + length % 2
    return found


def _tiff(data: bytes) -> list[tuple[str, bytes]]:
    import tifffile

    moved = {
        256,
        257,
        258,
        259,
        262,
        273,
        277,
        278,
        279,
        284,
        317,
        322,
        323,
        324,
        325,
        330,
        338,
        347,
        530,
        532,
        254,
        320,
    }
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        return [(str(tag.code), repr(tag.value).encode()) for tag in file.pages[0].tags if tag.code not in moved]


def qtables(data: bytes) -> list[Any]:
    """The quantisation tables and sampling factors of a JPEG, as Pillow reads them."""
    from PIL import Image

    with Image.open(io.BytesIO(data)) as image:
        tables = [image.quantization[layer[3]] for layer in image.layer]
        factors = [layer[1:3] for layer in image.layer] if len(image.layer) > 1 else []
        return [tables, factors, bool(image.info.get("progressive"))]


def worker(path: Path) -> dict[str, Any]:
    """Edit one file and compare; the result as a row."""
    from PIL import Image

    from toolkit.errors import PhotoError
    from toolkit.geometry import Box
    from toolkit.photo import Photo
    from toolkit.photo.orientation import stored_box

    row: dict[str, Any] = {"problems": []}
    started = time.process_time()
    try:
        photo = Photo.open(path, name=path.name)
        width, height = photo.size
        box = Box(
            width // 3,
            height // 3,
            width // 3 + max(1, min(24, width // 4)),
            height // 3 + max(1, min(24, height // 4)),
        )
        pixels = photo.crop(box)
    except PhotoError as error:
        row["refused"] = str(error)
        return row
    row["mode"] = photo.mode
    new = pixels[::-1, ::-1].copy()
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / path.name
        if photo.format == "JPEG":
            target = target.with_suffix(".jpg")
        saved = photo.save(target, [(box, new)])
        row["cpu"] = time.process_time() - started
        row["notes"] = list(saved.notes)
        row["grown"] = saved.bytes / path.stat().st_size - 1
        again = Photo.open(target)
        Image.MAX_IMAGE_PIXELS = None  # for the independent reader; the toolkit does without
        problems = row["problems"]
        if photo.lossless and not np.array_equal(again.crop(box), new):
            problems.append("the window is not what was given")
        if photo.size.area < 50e6:
            before, after = independent_pixels(path), independent_pixels(target)
            if before.shape != after.shape or before.dtype != after.dtype:
                problems.append(f"pixels {before.shape} {before.dtype} became {after.shape} {after.dtype}")
            else:
                differ = (before != after).reshape(*before.shape[:2], -1).any(axis=2)
                inside = np.zeros_like(differ)
                inside[stored_box(box, photo.size, photo.orientation).slices] = True
                row["outside"] = float((differ & ~inside).mean())
                if photo.lossless and row["outside"]:
                    problems.append(f"{(differ & ~inside).sum()} pixels changed outside the window")
        old, now = path.read_bytes(), target.read_bytes()
        lost = [item for item in carried(old) if item not in carried(now)]
        row["renewed"] = [name for name, _ in lost]
        if lost and not (saved.notes or photo.notes):
            problems.append(f"{[name for name, _ in lost]} changed and nothing is said")
        if photo.format == "JPEG" and qtables(old) != qtables(now):
            problems.append("the quantisation tables, subsampling or progressive mode changed")
        for what in ("orientation", "icc", "xmp", "dpi", "mode"):
            if getattr(photo, what) != getattr(again, what) and not row["renewed"] and what != "mode":
                problems.append(f"{what} changed")
    return row


def run(path: Path) -> dict[str, Any]:
    """`worker` in a process of its own under the limit."""
    import resource

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))

    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", "benchmarks.io_corpus", "--worker", str(path)],
        capture_output=True, text=True, timeout=300, preexec_fn=limit, check=False,
    )  # fmt: skip
    try:
        row: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    except (ValueError, IndexError):
        return {"problems": [f"crashed ({done.returncode}): {done.stderr.strip().splitlines()[-1:]}"]}
    noise = done.stderr.strip()
    if noise or len(done.stdout.splitlines()) > 1:
        row["problems"].append(f"printed: {noise[:200]}")
    return row


def main() -> int:
    """Print one line a file and a summary; 1 when there were problems."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="*", type=Path)
    parser.add_argument("--worker", type=Path)
    arguments = parser.parse_args()
    if arguments.worker:
        row = worker(arguments.worker)
        sys.stdout.write(json.dumps(row) + "\n")
        return 0
    root = Path(os.environ.get("INPAINT_DATA", "."))
    folders = arguments.folders or [root / "io"]
    files = sorted(p for f in folders for p in f.rglob("*") if p.is_file() and p.suffix != ".json")
    bad = edited = refused = 0
    for path in files:
        row = run(path)
        bad += bool(row["problems"])
        if "refused" in row:
            refused += 1
            line = "refused  " + row["refused"]
        else:
            edited += "mode" in row
            outside = row.get("outside")
            line = (
                f"edited   {row.get('mode')}; outside {'not read' if outside is None else f'{100 * outside:.2f}%'}, "
                f"size {100 * row.get('grown', 0):+.1f}%, {row.get('cpu', 0):.2f} s; {' | '.join(row.get('notes', []))}"
            )
        for problem in row["problems"]:
            line += f"\n    PROBLEM {problem}"
        sys.stdout.write(f"{path.relative_to(path.parents[1])}: {line}\n")
    sys.stdout.write(f"{len(files)} files: {edited} edited, {refused} refused, {bad} with problems\n")
    return int(bad > 0)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    sys.exit(main())
