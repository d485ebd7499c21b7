"""SAM's network: its shape as a card states it, its checkpoint, where and how exactly it is computed."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from toolkit import devices, weights
from toolkit.cards import Card
from toolkit.engines.pretrained import ran
from toolkit.engines.segment._sam_encoder import encode
from toolkit.engines.segment._sam_masks import Logits
from toolkit.engines.segment._torchvision import segment_anything
from toolkit.errors import EngineError
from toolkit.schema import Model

if TYPE_CHECKING:
    import torch

Bytes = npt.NDArray[np.uint8]
Floats = npt.NDArray[Any]

MEAN = (123.675, 116.28, 103.53)  # of the pictures it was trained on, RGB
DEVIATION = (58.395, 57.12, 57.375)


class Settings(Model):
    """A card's settings: the network's shape, as its checkpoint has it, and how masks of everything are made."""

    image_size: int = Field(default=1024, gt=0, multiple_of=16, description="side of the square it sees")
    embed_dim: int = Field(gt=0, description="channels of the encoder")
    depth: int = Field(gt=0, description="blocks of the encoder")
    heads: int = Field(gt=0, description="attention heads of the encoder")
    global_attention: tuple[int, ...] = Field(strict=False, description="blocks that look at the whole picture")
    window: int = Field(default=14, gt=0, description="side of the windows the other blocks look at")
    prompt_dim: int = Field(default=256, gt=0, description="channels of embeddings and decoder")
    decoder_depth: int = Field(default=2, gt=0)
    decoder_heads: int = Field(default=8, gt=0)
    decoder_mlp: int = Field(default=2048, gt=0)
    precision: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        default="auto", description="of the encoder; auto takes half precision where the device computes in it"
    )
    boxes_at_once: int = Field(default=8, gt=0, description="prompts in one pass of the decoder")
    points_per_side: int = Field(default=32, gt=0, description="everything: rows and columns of clicks")
    points_per_side_cpu: int = Field(default=16, gt=0, description="the same on a processor")
    pred_iou_thresh: float = Field(default=0.88, strict=False, description="everything: least score of a mask")
    stability_score_thresh: float = Field(default=0.95, strict=False, description="everything: least stability")
    stability_score_offset: float = Field(default=1.0, strict=False, description="everything: logits it is tested by")
    box_nms_thresh: float = Field(default=0.7, strict=False, description="everything: overlap of boxes allowed")


def precision(wanted: str, device: str) -> str:
    """In what the encoder is computed: half precision only where the device's own arithmetic has it.

    A processor without it takes many times as long in bfloat16 as in float32.
    """
    import torch

    if wanted != "auto":
        return wanted
    if device.startswith("cuda"):
        return "bfloat16" if torch.cuda.get_device_capability(device)[0] >= 8 else "float16"
    if device == "cpu":
        tests = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        if any(getattr(torch.cpu, name, bool)() for name in tests):
            return "bfloat16"
    return "float32"


class Network:
    """A checkpoint on a device. Threads may share it, one at a time in `embed`: nothing is kept between calls.

    The decoder (a few megabytes) is read at its first use, and the encoder at its own: a picture whose embedding is
    known needs no encoder.

    Args:
        card: whose weights are taken.
        settings: the card's.
        device: as `devices.chosen` returns it.

    Raises:
        EngineError: when the checkpoint is damaged or of another network.
    """

    def __init__(self, card: Card, settings: Settings, device: str) -> None:
        self.card, self.settings, self.device = card, settings, device
        self.precision = precision(settings.precision, device)
        self.file: tuple[int, int] = (0, 0)  # bytes and time of change of what was read first
        self._decoding = threading.Lock()
        self._package = segment_anything()

    @cached_property
    def _file(self) -> Path:
        return weights.path(self.card)

    def _refused(self, why: str) -> EngineError:
        return EngineError(f"{self._file}: {why}; fetch it again with `inpaint models pull {self.card.name}`")

    def _checkpoint(self, modules: dict[str, Any]) -> dict[str, torch.Tensor]:
        """The file's tensors by name, those of `modules`; not read yet where its format allows that."""
        import torch

        path, said = self._file, self.card.weights[0].bytes
        try:
            about = path.stat()
            found = about.st_size
            if said is not None and found != said:
                raise self._refused(f"has {found} bytes, the whole file has {said}")
            if self.file not in ((0, 0), (found, about.st_mtime_ns)):
                raise EngineError(f"{path}: was replaced while this process worked with it; begin anew")
            self.file = found, about.st_mtime_ns
            lazy = zipfile.is_zipfile(path)
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=lazy)
        except FileNotFoundError:
            raise EngineError(f"{self.card.name}: {weights.missing(self.card)}") from None
        except EngineError:
            raise
        except Exception as problem:  # torch has no error of its own for what it cannot read
            raise self._refused("is damaged or no checkpoint of torch") from problem
        if not isinstance(content, dict) or not all(isinstance(one, torch.Tensor) for one in content.values()):
            raise self._refused("is no list of named tensors, as SAM's checkpoints are")
        wanted = {
            f"{part}.{name}": tensor.shape
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        }
        for name, shape in wanted.items():
            if name not in content:
                raise self._refused(f"is no checkpoint of {self.card.name}: {name} is missing")
            if content[name].shape != shape:
                raise self._refused(
                    f"is no checkpoint of {self.card.name}: {name} is {tuple(content[name].shape)}, not {tuple(shape)}"
                )
        if extra := next((name for name in content if name not in wanted), None):
            raise self._refused(f"is no checkpoint of {self.card.name}: it holds {extra}, too")
        return content

    def _empty(self) -> dict[str, Any]:
        """The three parts without values; no random numbers are drawn for them."""
        import torch

        modeling, shape = self._package.modeling, self.settings
        side = shape.image_size // 16
        with torch.device("meta"):
            return {
                "image_encoder": modeling.ImageEncoderViT(
                    img_size=shape.image_size, patch_size=16, embed_dim=shape.embed_dim, depth=shape.depth,
                    num_heads=shape.heads, mlp_ratio=4, norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                    qkv_bias=True, use_rel_pos=True, global_attn_indexes=shape.global_attention,
                    window_size=shape.window, out_chans=shape.prompt_dim,
                ),
                "prompt_encoder": modeling.PromptEncoder(
                    embed_dim=shape.prompt_dim, image_embedding_size=(side, side),
                    input_image_size=(shape.image_size, shape.image_size), mask_in_chans=16,
                ),
                "mask_decoder": modeling.MaskDecoder(
                    num_multimask_outputs=3, transformer_dim=shape.prompt_dim, iou_head_depth=3,
                    iou_head_hidden_dim=256, transformer=modeling.TwoWayTransformer(
                        depth=shape.decoder_depth, embedding_dim=shape.prompt_dim, mlp_dim=shape.decoder_mlp,
                        num_heads=shape.decoder_heads,
                    ),
                ),
            }  # fmt: skip

    def _filled(self, *parts: str, dtype: str = "float32") -> list[Any]:
        import torch

        modules = self._empty()
        content = self._checkpoint(modules)
        for part in parts:
            prefix = f"{part}."
            values = {
                name.removeprefix(prefix): tensor.to(self.device, getattr(torch, dtype), copy=True)
                for name, tensor in content.items()
                if name.startswith(prefix)
            }
            modules[part].load_state_dict(values, assign=True)
            modules[part].eval().requires_grad_(False)
        return [modules[part] for part in parts]

    @cached_property
    def _encoder(self) -> Any:
        devices.check_memory(self.card, self.device)
        return self._filled("image_encoder", dtype=self.precision)[0]

    @cached_property
    def _decoder(self) -> tuple[Any, Any, torch.Tensor]:
        prompts, masks = self._filled("prompt_encoder", "mask_decoder")
        return prompts, masks, prompts.get_dense_pe()

    def open(self) -> None:
        """Read the decoder, so that the checkpoint is known to be the right one.

        Raises:
            EngineError: when it is damaged or of another network.
        """
        with self._decoding:
            _ = self._decoder

    def embed(self, picture: Bytes, check: Callable[[float], None]) -> Floats:
        """The embedding (1, c, s/16, s/16) of a picture, float32, or float16 of an encoder in half precision.

        Args:
            picture: (h, w, 3) uint8 RGB, its longer side that of the network's square.
            check: called with the share that is done (0-1); what it raises ends the work and harms nothing.
        """
        import torch

        side, kind = self.settings.image_size, getattr(torch, self.precision)
        with ran(self.card.name, self.device), torch.inference_mode():
            encoder = self._encoder
            values = torch.tensor(picture, device=self.device).permute(2, 0, 1)[None]
            mean, deviation = (
                torch.tensor(one, dtype=torch.float32, device=self.device).view(3, 1, 1) for one in (MEAN, DEVIATION)
            )
            values = (values - mean) / deviation
            values = torch.nn.functional.pad(values, (0, side - values.shape[3], 0, side - values.shape[2]))
            found = encode(encoder, values.to(kind), check)
            if not torch.isfinite(found).all():
                raise EngineError(
                    f"{self.card.name}: its numbers overflowed in {self.precision} on {self.device}; set its card's "
                    "settings.precision to float32, or choose another --device"
                )
            # Eleven bits hold bfloat16's eight: as long as nothing overflows, float16 loses nothing.
            exact = torch.float32 if kind == torch.float32 or found.abs().max() > 60000 else torch.float16
            embedding: Floats = found.to(exact).cpu().numpy()
            return embedding

    def decode(
        self,
        embedding: Floats,
        *,
        points: tuple[Floats, Sequence[Sequence[int]]] | None = None,
        boxes: Floats | None = None,
        logits: Logits | None = None,
        several: bool = False,
        check: Callable[[], None] = lambda: None,
    ) -> tuple[Logits, Logits]:
        """Masks for b prompts: logits (b, m, s/4, s/4) and predicted IoU (b, m), float32; m is 3 or 1.

        Args:
            embedding: as `embed` returned it.
            points: (b, n, 2) x, y in the network's square and (b, n) labels, 1 = inside, 0 = outside.
            boxes: (b, 4) left, top, right, bottom in the network's square.
            logits: (b, 1, s/4, s/4) of earlier masks to be refined.
            several: three masks for each prompt, for one click that may mean a part or the whole.
            check: what it raises while waiting for another thread ends the wait.
        """
        import torch

        with held(self._decoding, check), ran(self.card.name, self.device), torch.inference_mode():
            prompts, masks, places = self._decoder
            features = torch.tensor(embedding, device=self.device).float()
            clicks = corners = before = None
            if points is not None:
                clicks = (torch.tensor(points[0], device=self.device), torch.tensor(points[1], device=self.device))
            if boxes is not None:
                corners = torch.tensor(boxes, dtype=torch.float32, device=self.device)
            if logits is not None:
                before = torch.tensor(logits, dtype=torch.float32, device=self.device)
            sparse, dense = prompts(clicks, corners, before)
            low, scores = masks(features, places, sparse, dense, several)
            return low.float().cpu().numpy(), scores.float().cpu().numpy()


@contextmanager
def held(lock: threading.Lock, check: Callable[[], None]) -> Iterator[None]:
    """Hold a lock; while another thread has it, `check` is called now and then."""
    while not lock.acquire(timeout=0.1):
        check()
    try:
        yield
    finally:
        lock.release()
