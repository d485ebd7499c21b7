"""What FLUX's text encoders make of prompts: computed once, kept on disk, and the encoders loaded only for new ones."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from typing import Any

from toolkit import library
from toolkit.embeddings import Embeddings
from toolkit.engines.fill._flux_network import Files, whole
from toolkit.engines.pretrained import imported, quiet, worded

_PARTS = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")
_REMEMBERED = 64

Embedding = tuple[Any, Any]
"""Of one prompt: T5's (1, words, channels), and CLIP's pooled (1, channels); on the processor."""


class Texts:
    """Embeddings of prompts; for one thread at a time.

    Args:
        name: of the card, for sentences.
        tokens: words of a prompt that T5 reads; the rest is cut off.

    Attributes:
        device: where the encoders are; empty while they are not loaded.
    """

    def __init__(self, name: str, files: Files, dtype: str, tokens: int) -> None:
        self._name, self._files, self._dtype, self._tokens = name, files, dtype, tokens
        self._kept = Embeddings(library.cache_folder() / "prompts", remembered=_REMEMBERED)
        self._encoders: Any = None
        self.device = ""
        self._about = _fingerprint(files)

    def get(self, prompt: str) -> Embedding | None:
        """The embedding of a prompt that was encoded before; None of another."""
        import torch

        key = self._key(prompt)
        found = [self._kept.get(f"{key} {part}") for part in ("words", "pooled")]
        if any(one is None for one in found):
            return None
        kind = getattr(torch, self._dtype)
        words, pooled = (torch.from_numpy(one.copy()).view(kind) for one in found if one is not None)
        return words, pooled

    def encode(self, prompts: Sequence[str], device: str, *, keep: bool) -> dict[str, Embedding]:
        """Have prompts encoded, one by one, and kept.

        Args:
            keep: leave the encoders loaded.

        Raises:
            EngineError: when the encoders cannot be loaded.
            torch.OutOfMemoryError: when they do not fit.
        """
        import torch

        made, kept = {}, False
        try:
            if self._encoders is None:
                self._encoders = self._loaded()
            self._encoders.to(device)
            self.device = device
            for prompt in prompts:
                with torch.no_grad(), quiet():
                    words, pooled, _ = self._encoders.encode_prompt(
                        prompt, None, device=torch.device(device), max_sequence_length=self._tokens
                    )
                made[prompt] = words.cpu().contiguous(), pooled.cpu().contiguous()
                key = self._key(prompt)
                # numpy has no bfloat16: its bits are kept as whole numbers.
                plain = torch.int16 if words.element_size() == 2 else torch.int32
                for part, value in zip(("words", "pooled"), made[prompt], strict=True):
                    self._kept.put(f"{key} {part}", value.view(plain).numpy())
            kept = keep
        finally:
            if not kept:
                self.release()
        return made

    def unkept(self, prompt: str) -> str:
        """The folder a prompt's embedding could not be written to; empty where it lies there."""
        return "" if self._kept.path(f"{self._key(prompt)} pooled").is_file() else str(self._kept.folder)

    def release(self) -> None:
        """Give the encoders' memory back."""
        self._encoders, self.device = None, ""

    def cut(self, prompt: str) -> int:
        """How many words (T5's tokens) of a prompt are too many to be read."""
        # The tokenizer composes first; then none is shorter than a byte, and two come besides.
        if len(unicodedata.normalize("NFKC", prompt).encode("utf-8", "surrogatepass")) + 2 <= self._tokens:
            return 0
        with quiet(), worded(self._name, self._files.folder):
            tokenizer = imported("transformers").T5TokenizerFast.from_pretrained(
                self._files.folder / "tokenizer_2", local_files_only=True
            )
            return max(0, len(tokenizer(prompt).input_ids) - self._tokens)

    def _loaded(self) -> Any:
        import torch

        diffusers = imported("diffusers", "FluxFillPipeline")
        transformers = imported("transformers", "CLIPTextModel", "T5EncoderModel")
        folder, dtype = self._files.folder, getattr(torch, self._dtype)
        with quiet():
            encoders = {
                part: whole(self._name, folder / part, kind, use_safetensors=True, dtype=dtype)
                for part, kind in (
                    ("text_encoder", transformers.CLIPTextModel), ("text_encoder_2", transformers.T5EncoderModel),
                )
            }  # fmt: skip
            with worded(self._name, folder):
                tokenizers = {
                    part: kind.from_pretrained(folder / part, local_files_only=True)
                    for part, kind in (
                        ("tokenizer", transformers.CLIPTokenizer), ("tokenizer_2", transformers.T5TokenizerFast),
                    )
                }  # fmt: skip
        return diffusers.FluxFillPipeline(scheduler=None, vae=None, transformer=None, **encoders, **tokenizers)

    def _key(self, prompt: str) -> str:
        state = json.dumps([prompt, self._tokens, self._dtype, self._about])
        return hashlib.sha256(state.encode()).hexdigest()


def _fingerprint(files: Files) -> list[tuple[str, int, int]]:
    """What tells one set of encoders from another without reading gigabytes: names, lengths and dates of its files."""
    found = []
    for part in _PARTS:
        for path in sorted((files.folder / part).glob("*")):
            if path.suffix in (".json", ".safetensors", ".model", ".txt") and not path.name.endswith(".pulled.json"):
                about = path.stat()
                found.append((f"{part}/{path.name}", about.st_size, about.st_mtime_ns))
    return found
