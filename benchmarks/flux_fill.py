"""FLUX.1 Fill of full size with random weights on a GPU, beside plain diffusers and what the GPU's arithmetic allows.

    python -m benchmarks flux_fill
    python -m benchmarks.flux_fill [--folder FOLDER] [--tiny] [PART ...]

The first runs all parts, each in a process of its own; it takes 26 GB of disk in the temporary folder and about ten
minutes. The second runs some, keeps the weights and every part's figures in FOLDER, and prints the table of all figures
there. Prompts' embeddings are random: no text encoder is needed. Without CUDA all of it runs at tiny size on the
processor, which shows that it works and measures nothing; only what is predicted or computed is then in the table.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np

from benchmarks import flux_eight_bits, flux_prediction
from benchmarks.measure import Row, ellipse, photo, say

Figures = dict[str, Any]
MODES = ("full", "quantized", "offload")
THRESHOLD = 0.08  # a card's default for speed fast
DISK = 28e9


@dataclass(frozen=True)
class Scale:
    """How large all is: `real` on a GPU, or tiny on the processor."""

    real: bool

    @property
    def device(self) -> str:
        return "cuda" if self.real else "cpu"

    @property
    def dtype(self) -> str:
        return "bfloat16" if self.real else "float32"

    @property
    def size(self) -> tuple[int, int]:
        return (1024, 1024) if self.real else (96, 64)

    @property
    def words(self) -> int:
        return 512 if self.real else 16

    @property
    def steps(self) -> int:
        return 28 if self.real else 2

    @property
    def runs(self) -> int:
        return 3 if self.real else 1


# What parts use.


def unit(place: Path, scale: Scale, seed: int = 0) -> Any:
    """A photo with an ellipse to be filled, and random embeddings of a prompt."""
    import torch

    from toolkit.engines.fill._flux_network import Unit

    width, height = scale.size
    settings = json.loads((place / "transformer" / "config.json").read_text())
    generator = torch.Generator().manual_seed(seed)
    words, pooled = (
        torch.randn(shape, generator=generator).to(getattr(torch, scale.dtype))
        for shape in ((1, scale.words, settings["joint_attention_dim"]), (1, settings["pooled_projection_dim"]))
    )
    hole = ellipse(width, height, (width // 2, height // 2))
    return Unit(photo(width, height, seed), hole, words, pooled, seed)


def network(place: Path, scale: Scale, mode: Any = "full") -> Any:
    """The engine's own, loaded as the real one is."""
    from toolkit.engines.fill._flux_network import Files, Network

    return Network("flux-fill-dev", Files(place), scale.dtype, scale.device, mode)


def filled(held: Any, units: Sequence[Any], scale: Scale, steps: int = 0, threshold: float = 0.0) -> tuple[Any, float]:
    """The images, and the seconds they took."""
    start = time.perf_counter()
    images = held.images(units, steps or scale.steps, 30.0, lambda step: None, threshold=threshold)
    return images, time.perf_counter() - start


def memory(scale: Scale) -> Figures:
    """GiB at the peak: of torch's allocator, and of the whole card, which nobody else may use."""
    if not scale.real:
        return {}
    import torch

    free, whole = torch.cuda.mem_get_info()
    return {"reserved": torch.cuda.max_memory_reserved() / 2**30, "used": (whole - free) / 2**30}


# Parts: each gets the folder of the pipeline, runs in a process of its own on a GPU, and gives figures.


def make(place: Path, scale: Scale) -> Figures:
    """The pipeline, random, in the official layout."""
    import torch

    if not scale.real:
        from tests import flux_networks

        shutil.copytree(flux_networks.saved(), place, dirs_exist_ok=True)
        return {}
    from diffusers import FlowMatchEulerDiscreteScheduler, FluxFillPipeline

    torch.manual_seed(0)
    with flux_prediction.made("cuda"):
        transformer, vae = flux_prediction.parts(flux_prediction.REAL)
    scheduler = FlowMatchEulerDiscreteScheduler(
        num_train_timesteps=1000, shift=3.0, use_dynamic_shifting=True, base_shift=0.5, max_shift=1.15,
        base_image_seq_len=256, max_image_seq_len=4096,
    )  # fmt: skip
    FluxFillPipeline(
        scheduler=scheduler, vae=vae, transformer=transformer, text_encoder=None, text_encoder_2=None, tokenizer=None,
        tokenizer_2=None,
    ).save_pretrained(place)  # fmt: skip
    return {}


def rate(place: Path, scale: Scale) -> Figures:
    """Operations a second of a large product of matrices: the best of many."""
    import torch

    side = 8192 if scale.real else 64
    one, other = (torch.randn(side, side, device=scale.device, dtype=getattr(torch, scale.dtype)) for _ in range(2))
    made, best = torch.empty_like(one), float("inf")
    for _ in range(60 if scale.real else 2):
        start = time.perf_counter()
        for _ in range(4):
            torch.mm(one, other, out=made)
        made[0, 0].item()
        best = min(best, (time.perf_counter() - start) / 4)
    card = torch.cuda.get_device_name() if scale.real else platform.processor()
    return {"rate": 2 * side**3 / best, "card": card}


def attention(place: Path, scale: Scale) -> Figures:
    """Seconds of each attention that diffusers knows and the engine may take, at FLUX's size; or why there are none."""
    import torch

    from toolkit.engines.fill import _flux_attention

    shape = _flux_attention._SHAPE if scale.real else (1, 64, 2, 16)
    given = [torch.randn(shape, device=scale.device, dtype=getattr(torch, scale.dtype)) for _ in range(3)]
    found: Figures = {}
    for name in _flux_attention.CANDIDATES:
        try:
            _flux_attention._attend(name, given)
            found[name] = min(_flux_attention._seconds(name, given) for _ in range(20 if scale.real else 1))
        except Exception as problem:  # each library has its own
            found[name] = " ".join(str(problem).split())[:80]
    return {"attention": found}


def plain(place: Path, scale: Scale) -> Figures:
    """A direct call of diffusers: not compiled, torch's own attention."""
    import PIL.Image
    import torch
    from diffusers import FluxFillPipeline

    none = dict.fromkeys(("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"))
    start = time.perf_counter()
    pipe = FluxFillPipeline.from_pretrained(place, dtype=getattr(torch, scale.dtype), local_files_only=True, **none)
    pipe = pipe.to(scale.device)
    pipe.set_progress_bar_config(disable=True)
    given, (width, height) = unit(place, scale), scale.size
    ends = [start]
    for _ in range(1 + scale.runs):
        pipe(
            image=PIL.Image.fromarray(given.pixels), mask_image=PIL.Image.fromarray(given.hole), height=height,
            width=width, prompt_embeds=given.embeds.to(scale.device), num_inference_steps=scale.steps,
            pooled_prompt_embeds=given.pooled.to(scale.device), guidance_scale=30.0, max_sequence_length=scale.words,
            generator=torch.Generator().manual_seed(0),
        )  # fmt: skip
        ends.append(time.perf_counter())
    seconds = min(end - begin for begin, end in itertools.pairwise(ends[1:]))
    return {"first": ends[1] - start, "seconds": seconds, **memory(scale)}


def exact(place: Path, scale: Scale) -> Figures:
    """The engine's speed `exact`, alone and in batches."""
    start = time.perf_counter()
    held, units = network(place, scale), [unit(place, scale, seed) for seed in range(4)]
    filled(held, units[:1], scale)
    first = time.perf_counter() - start
    seconds = min(filled(held, units[:1], scale)[1] for _ in range(scale.runs))
    found = {
        "first": first, "seconds": seconds, "attention": held.attention, "compiled": held.compiled, **memory(scale)
    }  # fmt: skip
    alone = [filled(held, [one], scale)[0][0].astype(int) for one in units]
    found["batches"] = {"1": seconds}
    for count in (2, 4):
        filled(held, units[:count], scale, steps=2)  # compiled for more than one
        images, taken = filled(held, units[:count], scale)
        found["batches"][str(count)] = taken / count
        found[f"used x{count}"] = memory(scale).get("used")
    differences = [np.abs(one - other) for one, other in zip(alone, images, strict=True)]
    found["difference"] = max(int(one.max()) for one in differences), float(np.mean(differences))
    return found


def static(place: Path, scale: Scale) -> Figures:
    """The same compiled for this size alone."""
    import torch

    compiled = torch.compile

    def at_this_size(function: Any, **options: Any) -> Any:
        return compiled(function, **{**options, "dynamic": False})

    with mock.patch.object(torch, "compile", at_this_size):
        start = time.perf_counter()
        held, one = network(place, scale), unit(place, scale)
        filled(held, [one], scale)
        first = time.perf_counter() - start
        return {"first": first, "seconds": min(filled(held, [one], scale)[1] for _ in range(scale.runs))}


def fast(place: Path, scale: Scale) -> Figures:
    """Speed `fast`, and how many of the steps were computed."""
    held, one = network(place, scale), unit(place, scale)
    second, computed = held.pipe.transformer.transformer_blocks[1], []
    forward = second.forward

    def counted(*arguments: Any, **named: Any) -> Any:
        computed.append(None)
        return forward(*arguments, **named)

    second.forward = counted  # below the cache's hooks, which are put on later
    filled(held, [one], scale, threshold=THRESHOLD)
    computed.clear()
    taken = [filled(held, [one], scale, threshold=THRESHOLD)[1] for _ in range(scale.runs)]
    return {"seconds": min(taken), "computed": len(computed) / scale.runs, **memory(scale)}


def quantized(place: Path, scale: Scale) -> Figures:
    """Memory `quantized`."""
    start = time.perf_counter()
    held, one = network(place, scale, "quantized"), unit(place, scale)
    filled(held, [one], scale)
    first = time.perf_counter() - start
    return {"first": first, "seconds": min(filled(held, [one], scale)[1] for _ in range(scale.runs)), **memory(scale)}


def offload(place: Path, scale: Scale) -> Figures:
    """Memory `offload`, of which a few steps are enough: each takes the same."""
    start = time.perf_counter()
    held, one = network(place, scale, "offload"), unit(place, scale)
    short = filled(held, [one], scale, steps=2)[1]
    first = time.perf_counter() - start
    short, longer = (filled(held, [one], scale, steps=steps)[1] for steps in (2, 4))
    return {"first": first, "seconds": short + (longer - short) / 2 * (scale.steps - 2), **memory(scale)}


PARTS: dict[str, Callable[[Path, Scale], Figures]] = {
    "make": make, "rate": rate, "attention": attention, "plain": plain, "exact": exact, "static": static, "fast": fast,
    "quantized": quantized, "offload": offload,
}  # fmt: skip


def prediction(tiny: bool) -> Figures:
    """What is found without a device; `tiny` of the tiny pipeline, to see that it works."""
    architecture, size = flux_prediction.REAL, (1024, 1024)
    if tiny:
        from tests import flux_networks

        architecture, size = flux_prediction.architecture(flux_networks.build()), (128, 128)
    found: Figures = flux_prediction.predicted(architecture, size)
    need = flux_prediction.need(found, size)
    return {"found": found, "need": need, "operations": flux_prediction.operations(architecture, size)}


def bits(place: Path, tiny: bool) -> Figures:
    """What fewer bits cost."""
    shapes = {"tiny": (96, 64)} if tiny else None
    return {
        "errors": flux_eight_bits.errors(shapes),
        "levels": flux_eight_bits.levels(place, unit(place, Scale(False)), 2 if tiny else 8),
    }


# The table.


def rows(figures: Figures, real: bool, tiny: bool) -> list[Row]:
    """The table of the figures there are; what no GPU gave is not measured."""
    measured = figures if real else {}
    told = figures["prediction"]
    return [*_speed(measured, told), *_peaks(measured, told), *_rest(measured), *_computed(figures, tiny)]


def _seconds(part: Figures | None) -> str:
    return f"{part['seconds']:.2f} s" if part else "not measured"


def _speed(figures: Figures, told: Figures) -> list[Row]:
    what = "FLUX Fill 1024x1024, 28 steps"
    card = f" at {figures['rate']['rate'] / 1e12:.0f} TFLOP/s, {figures['rate']['card']}" if "rate" in figures else ""
    limit, ours, theirs = None, figures.get("exact"), figures.get("plain")
    if "rate" in figures:
        work = told["operations"]
        limit = (28 * work["step"] + 2 * work["encode"] + work["decode"]) / figures["rate"]["rate"]
    near = ours["seconds"] / limit if ours and limit else None
    gain = theirs["seconds"] / ours["seconds"] if ours and theirs else None
    skipping = figures.get("fast")
    return [
        Row(f"{what}: exact", _seconds(ours), f"limit {limit:.2f} s{card}" if limit else "limit not measured",
            f"{near:.2f}" if near else "", "<= 1.4", near <= 1.4 if near else None),
        Row(f"{what}: plain diffusers", _seconds(ours), _seconds(theirs), f"{gain:.2f}" if gain else "", ">= 1.4",
            gain >= 1.4 if gain else None),
        Row(f"{what}: fast (random weights)", _seconds(skipping),
            f"{skipping['computed']:.0f} of 28 steps computed" if skipping else ""),
        Row(f"{what}: exact, compiled for one size", _seconds(figures.get("static"))),
        Row(f"{what}: quantized", _seconds(figures.get("quantized"))),
        Row(f"{what}: offload", _seconds(figures.get("offload"))),
    ]  # fmt: skip


def _peaks(figures: Figures, told: Figures) -> list[Row]:
    need, found = told["need"], []
    for mode, part in zip(MODES, ("exact", "quantized", "offload"), strict=True):
        peak = need["spare"] + need[mode] + max(need["denoise"], need["decode"])
        have = figures.get(part)
        error = have["used"] / peak - 1 if have else None
        found.append(
            Row(f"FLUX Fill: peak memory, {mode}",
                f"{have['used']:.2f} GiB, torch {have['reserved']:.2f}" if have else "not measured",
                f"predicted {peak:.2f} GiB", f"{error:+.1%}" if error is not None else "", "within 10 %",
                abs(error) <= 0.1 if error is not None else None)
        )  # fmt: skip
    return found


def _rest(figures: Figures) -> list[Row]:
    ours, theirs, static = (figures.get(part) for part in ("exact", "plain", "static"))
    first = f"{ours['first']:.1f} s" if ours else "not measured"
    beside = f"plain {theirs['first']:.1f} s" if theirs else ""
    batches = ", ".join(f"{n}: {s:.2f} s" for n, s in ours["batches"].items()) if ours else "not measured"
    apart = "largest {}, mean {:.3f}".format(*ours["difference"]) if ours else "not measured"
    kernels = figures.get("attention", {}).get("attention", {})
    times = ", ".join(f"{n} {s * 1e3:.2f} ms" for n, s in kernels.items() if isinstance(s, float))
    return [
        Row("FLUX Fill: time to the first image", first, beside),
        Row("FLUX Fill: the same compiled for one size", f"{static['first']:.1f} s" if static else "not measured"),
        Row("FLUX Fill: an image in batches of", batches),
        Row("FLUX Fill: levels between an image alone and in a batch", apart, "random weights"),
        Row("FLUX Fill: attention of a block", times or "not measured", f"taken: {ours['attention']}" if ours else ""),
    ]


def _computed(figures: Figures, tiny: bool) -> list[Row]:
    need, found = figures["prediction"]["need"], figures["prediction"]["found"]
    size = "tiny size, means nothing" if tiny else "counted without a device"
    told = [Row(f"FLUX Fill: settings.memory, {name}", f"{value:.4g} GiB", size) for name, value in need.items()]
    extra = (found["step fast"] - found["step x1"]) / 2**30
    told.append(Row("FLUX Fill: the cache of speed fast", f"{extra:.3f} GiB", size))
    for way in flux_eight_bits.WAYS:
        errors = [one[way] for one in figures["bits"]["errors"].values()]
        most, mean = figures["bits"]["levels"][way]
        told.append(
            Row(f"FLUX Fill: {way} ({flux_eight_bits.ABOUT[way]})",
                f"error of a product {min(errors):.2%} to {max(errors):.2%}",
                f"tiny pipeline: largest {most}, mean {mean:.3f} levels",
                f"{flux_eight_bits.WAYS[way][1]:g} B a weight")
        )  # fmt: skip
    return told


def run(name: str, place: Path, scale: Scale) -> Figures:
    """One part; on a GPU in a process of its own, so that no part finds another's memory."""
    if not scale.real:
        return PARTS[name](place, scale)
    command = [sys.executable, "-m", "benchmarks.flux_fill", "--part", name, "--folder", str(place)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode:
        raise RuntimeError(f"{name}: {answer.stderr.strip()[-2000:]}")
    found: Figures = json.loads(answer.stdout.splitlines()[-1])
    return found


def main(parts: Sequence[str] = tuple(PARTS), folder: Path | None = None, tiny: bool = False) -> list[Row]:
    """Figures of some parts, and of those that `folder` has of earlier runs."""
    import torch

    scale = Scale(torch.cuda.is_available() and not tiny)
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "diffusers", "torchao"))
    # Not its name: to ask would take memory on it, which the parts would count as theirs.
    say(f"{'a GPU' if scale.real else 'no GPU: tiny size, these times mean nothing'}; {versions}")
    with contextlib.ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        # Apart, so that no figure and no network of tiny size is ever told of as a real one.
        place = place / ("gpu" if scale.real else "tiny" if tiny else "cpu")
        place.mkdir(parents=True, exist_ok=True)
        kept = place / "figures.json"
        figures: Figures = json.loads(kept.read_text()) if kept.exists() else {}
        if scale.real and "make" in parts and shutil.disk_usage(place).free < DISK:
            raise SystemExit(f"{place}: {DISK / 1e9:.0f} GB are needed; name another folder with --folder or TMPDIR")
        for name in parts:
            try:
                figures[name] = run(name, place / "pipeline", scale)
            except RuntimeError as problem:
                if not scale.real:
                    raise
                say(f"{name} failed: {problem}")
                continue
            say(f"{name}: {figures[name]}")
            kept.write_text(json.dumps(figures))
        if "prediction" not in figures:
            figures["prediction"] = prediction(tiny)
            figures["bits"] = bits(_tiny(), tiny)
            kept.write_text(json.dumps(figures))
        for name in ("prediction", "bits"):
            say(f"{name}: {figures[name]}")
        return rows(figures, scale.real, tiny)


def _tiny() -> Path:
    from tests import flux_networks

    return flux_networks.saved()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without any")
    parser.add_argument("--folder", type=Path, help="where weights and figures are kept")
    parser.add_argument("--tiny", action="store_true", help="all at tiny size, on the processor")
    parser.add_argument("--part", choices=PARTS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if unknown := set(given.parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    if given.part:
        say(json.dumps(PARTS[given.part](given.folder, Scale(not given.tiny))))
    else:
        from benchmarks.__main__ import table

        say(table(main(given.parts or tuple(PARTS), given.folder, given.tiny)))
