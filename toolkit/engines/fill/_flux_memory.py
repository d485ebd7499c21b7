"""Whether FLUX fits: what each way of holding it takes at its peak, and which way a device has room for."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pydantic import Field

from toolkit.errors import EngineError
from toolkit.geometry import Size
from toolkit.schema import Model

Mode = Literal["full", "quantized", "offload"]
MODES: tuple[Mode, ...] = ("full", "quantized", "offload")
"""The largest first: transformer in 16 bits on the device; in 8 bits there; block by block from the main memory."""

MIB = 1 << 20


class Need(Model):
    """What a card states of its memory, in GiB; `megapixel` is 2**20 pixels here."""

    full: float = Field(gt=0, description="that lies on the device all the time, all in 16 bits")
    quantized: float = Field(gt=0, description="the same with the transformer's weights in 8 bits")
    offload: float = Field(gt=0, description="the same with two of its blocks on the device at a time")
    encoders: float = Field(gt=0, description="the text encoders, while prompts are read")
    denoise: float = Field(gt=0, description="of a step, for each megapixel of a batch")
    decode: float = Field(gt=0, description="of the autoencoder, for each megapixel of one image")
    tile: float = Field(gt=0, description="of the autoencoder where it works in tiles")
    spare: float = Field(gt=0, description="the device's own, whatever is done on it")

    def peak(self, mode: Mode, size: Size, batch: int, tiled: bool) -> float:
        """GiB at the peak, of `batch` images of `size` at once; the autoencoder takes them one by one."""
        megapixels = size.area / MIB
        decode = min(self.tile, self.decode * megapixels) if tiled else self.decode * megapixels
        return self.spare + float(getattr(self, mode)) + max(self.denoise * megapixels * batch, decode)


@dataclass(frozen=True)
class Plan:
    """How the network is held and run.

    Attributes:
        batch: images at once.
        tiled: the autoencoder works in tiles, which are blended where they meet.
        peak: GiB expected; None where the card does not say.
    """

    mode: Mode
    batch: int
    tiled: bool
    peak: float | None


def plan(
    name: str, need: Need | None, modes: tuple[Mode, ...], room: float | None, size: Size, batch: int,
    loras: float = 0.0,
) -> Plan:  # fmt: skip
    """The largest mode that fits, with as many images at once as fit.

    Args:
        name: of the card, for sentences.
        need: what the card states; without it the first mode is taken.
        modes: those that may be taken, the largest first.
        room: GiB that can be had on the device; None where nobody knows.
        size: of the images.
        batch: images at once, at most.
        loras: GiB that LoRAs take; they lie where the weights of the transformer do, and count in each mode.

    Raises:
        EngineError: when none fits.
    """
    if need is None or room is None:
        return Plan(modes[0], batch, False, None if need is None else need.peak(modes[0], size, batch, False) + loras)
    for mode in modes:
        for tiled in (False, True):
            for count in range(batch, 0, -1):
                peak = need.peak(mode, size, count, tiled) + loras
                if peak <= room:
                    return Plan(mode, count, tiled, peak)
    least = ", ".join(f"{need.peak(mode, size, 1, True) + loras:.1f} GiB {mode}" for mode in modes)
    smaller = "" if MODES[-1] in modes else "choose memory auto, "
    raise EngineError(
        f"{name}: a picture of {size} takes {least}; {room:.1f} GiB can be had; {smaller}close other programs, or use "
        "a smaller --size"
    )
