"""A LoRA file, read and held against the network it is meant for, before anything is done to that network."""

from __future__ import annotations

import importlib
import json
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from toolkit.errors import InputError

PREFIX = "transformer."
"""Of the keys of a network's own parts, as diffusers writes them."""

_PART = re.compile(
    r".+(?:\.lora_[AB]\.weight|\.lora_(?:down|up)\.weight|\.lora\.(?:down|up)\.weight|\.alpha"
    r"|processor\.\w+\.(?:down|up)\.weight)"
)
"""Keys of plain LoRAs: of diffusers and peft, of kohya's sd-scripts, of older diffusers, and of XLabs."""

_SIDES = {".lora.down.": ".lora_A.", ".lora.up.": ".lora_B.", ".lora_down.": ".lora_A.", ".lora_up.": ".lora_B."}

_WRAPPED = ("base_model.model.", "diffusion_model.")
"""What peft and ComfyUI write before the keys of a network; diffusers expects other names behind it."""

_PLAIN = re.compile(r"[\w.^$\\-]*")
"""Expressions for modules that take no time to match, whoever wrote them."""

_OTHERS = {
    "dora_scale": "a DoRA", "lora_magnitude_vector": "a DoRA", ".lokr_": "a LoKr", ".hada_": "a LoHa",
    ".oft_": "an OFT",
}  # fmt: skip

_TEXT = ("lora_te", "text_encoder")
"""How keys of a text encoder's parts begin."""

_FAMILIES = {PREFIX: PREFIX, "lora_transformer_": "lora_transformer_", "lora_unet_": "lora_unet_",
             "diffusion_model.": "lora_unet_"}  # fmt: skip
"""How keys with `lora_down` may begin, and with which others they may stand together."""

_LAST_LAYER = {
    "lora_unet_final_layer_adaLN_modulation_1.alpha": "norm_out.linear",
    "lora_unet_final_layer_linear.alpha": "proj_out",
}
"""Strengths that diffusers' converter drops, and the modules they are for."""

_OLD_INPUTS = {"x_embedder": 64}
"""Inputs that a LoRA may have in place of the network's: those of FLUX.1 [dev], of which Fill's are the first."""


@dataclass(frozen=True, eq=False)
class LoraWeights:
    """What a file holds for the network.

    Attributes:
        weights: tensors by key, `transformer.<module>.lora_A.weight` (rank, in) and `.lora_B.weight` (out, rank).
        config: what peft is to be told of them, each key after `transformer.`.
        scaling: by module, what its product is multiplied with at scale 1.
        notes: what of the file is not used, a clause each.
    """

    weights: dict[str, Any]
    config: dict[str, Any]
    scaling: dict[str, float]
    notes: tuple[str, ...]


def read(path: Path, sizes: Mapping[str, tuple[int, int]], convert: Callable[..., Any], name: str) -> LoraWeights:
    """Read a LoRA and hold it against a network.

    Args:
        sizes: of the network's linear layers by module: inputs and outputs.
        convert: diffusers' `lora_state_dict`.
        name: of the network, for sentences.

    Raises:
        InputError: when it cannot be read, is not understood, or does not belong to the network in every part.
    """
    return _File(path, sizes, name).read(convert)


class _File:
    def __init__(self, path: Path, sizes: Mapping[str, tuple[int, int]], name: str) -> None:
        self._path, self._sizes, self._name = path, sizes, name

    def read(self, convert: Callable[..., Any]) -> LoraWeights:
        raw, metadata, notes = self._opened()
        for before in _WRAPPED:
            if all(key.startswith(before) for key in raw):
                bare = {key.removeprefix(before): tensor for key, tensor in raw.items()}
                raw = bare if any(key.partition(".lora_")[0] in self._sizes for key in bare) else raw
        if all(key.startswith("diffusion_model.") for key in raw):  # diffusers knows these names with kohya's sides
            for new, old in ((".lora_A.", ".lora_down."), (".lora_B.", ".lora_up.")):
                raw = {key.replace(new, old): tensor for key, tensor in raw.items()}
        alphas = {
            module: raw[key]
            for key in raw
            if (module := _LAST_LAYER.get(re.sub(r"\.(?!alpha$)", "_", key.replace("diffusion_model.", "lora_unet_"))))
        }
        try:
            state, more = convert(raw, return_alphas=True)
        except Exception as problem:
            # Asserts, missing keys, shapes: each converter has its own way to say that it is not for this file.
            said = " ".join(str(problem).split()) or type(problem).__name__
            self._refuse(f"is for another network than {self._name}, or of a format that is not known ({said[:120]})")
        layers: dict[str, dict[str, Any]] = {}
        for key, tensor in {**state, **(more or {})}.items():
            for old, new in _SIDES.items():
                key = key.replace(old, new)
            found = re.fullmatch(r"(.+?)(?:\.(lora_[AB])\.weight|(?:\.lora_[AB])?\.alpha)", key)
            if not found:
                self._refuse(f"holds {key}, which is not known")
            module = found[1].removeprefix(PREFIX)
            if found[2]:
                layers.setdefault(module, {})[found[2]] = tensor
            else:
                alphas[module] = tensor
        if not layers:
            self._refuse(f"holds nothing for {self._name}, or is of a format that is not known")
        for module, layer in layers.items():
            self._fits(module, layer)
        return self._described(layers, alphas, metadata, notes)

    def _opened(self) -> tuple[dict[str, Any], dict[str, str], tuple[str, ...]]:
        """The tensors that are a LoRA's for the network, by the file's own keys; what is none is not read."""
        safetensors: Any = importlib.import_module("safetensors")
        try:
            with safetensors.safe_open(self._path, framework="pt") as file:
                keys, metadata = list(file.keys()), file.metadata() or {}
                own, notes = self._sorted(keys, lambda key: bool(file.get_tensor(key).any()))
                # Copies: what it gives is the file itself, which may be written anew while it is in use.
                return {key: file.get_tensor(key).clone() for key in own}, metadata, notes
        except InputError:
            raise
        except Exception as problem:  # whatever the file may be, and however it is read
            said = " ".join(str(problem).split()) or type(problem).__name__
            raise InputError(f"lora {self._path}: is no whole .safetensors file ({said[:120]})") from problem

    def _sorted(self, keys: Sequence[str], acts: Callable[[str], bool]) -> tuple[list[str], tuple[str, ...]]:
        """The keys of the network's LoRA, and what of the rest is to be said.

        Args:
            acts: whether the tensor of a key is not all zero.
        """
        rest = [key for key in keys if not key.startswith(_TEXT)]
        own = [key for key in rest if _PART.fullmatch(key)]
        for key in rest:
            for mark, kind in _OTHERS.items():
                if mark in key:
                    self._refuse(f"is {kind} ({key}); only plain LoRAs are taken")
        if not rest and keys:
            self._refuse(f"is for the text encoder alone ({keys[0]}), and that is not what paints")
        if not own:
            self._refuse(f"is no LoRA: {f'it holds {keys[0]}' if keys else 'it is empty'}")
        for key in rest:
            if not _PART.fullmatch(key) and acts(key):
                self._refuse(f"holds {key}, which is no part of a plain LoRA")
        if any(".lora_down." in key for key in own):
            families = {next((of for start, of in _FAMILIES.items() if key.startswith(start)), "") for key in own}
            if len(families) > 1 or "" in families:
                strange = next((key for key in own if not key.startswith(tuple(_FAMILIES))), own[0])
                self._refuse(f"is for another network than {self._name}, or of a format that is not known ({strange})")
        notes = (f"{self._path.name}: its part for the text encoder is not used",) if len(rest) < len(keys) else ()
        return own, notes

    def _fits(self, module: str, layer: dict[str, Any]) -> None:
        """See to it that the two matrices of a module are whole and fit it; old inputs are filled up with zeros."""
        import torch

        if module not in self._sizes:
            self._refuse(f"is for another network: it changes {module}, which {self._name} does not have")
        if len(layer) != 2:
            self._refuse(f"has only {next(iter(layer))} at {module}")
        down, up = layer["lora_A"], layer["lora_B"]
        if down.ndim != 2 or up.ndim != 2 or not down.is_floating_point() or not up.is_floating_point():
            self._refuse(f"has no two matrices of real numbers at {module}")
        (rank, inputs), (outputs, columns) = down.shape, up.shape
        if rank != columns or rank == 0:
            self._refuse(f"its two matrices at {module} do not go together: ranks {rank} and {columns}")
        wide, high = self._sizes[module]
        if inputs == _OLD_INPUTS.get(module) and inputs < wide:
            filled = torch.zeros((rank, wide), dtype=down.dtype)
            filled[:, :inputs] = down
            layer["lora_A"], inputs = filled, wide
        for word, got, has in (("inputs", inputs, wide), ("outputs", outputs, high)):
            if got != has:
                self._refuse(f"is for another network: {got} {word} at {module}, {self._name} has {has}")
        if not all(bool(torch.isfinite(one.float()).all()) for one in (down, up)):
            self._refuse(f"holds values that are no numbers, at {module}")

    def _described(
        self,
        layers: Mapping[str, Mapping[str, Any]],
        alphas: Mapping[str, Any],
        metadata: Mapping[str, str],
        notes: tuple[str, ...],
    ) -> LoraWeights:
        """What is loaded, with the strength that the file says of each module: its rank where it says nothing."""
        ranks = {module: int(layer["lora_A"].shape[0]) for module, layer in layers.items()}
        strengths = {module: float(rank) for module, rank in ranks.items()}
        rooted = False
        if any(module in alphas for module in layers):
            strengths |= {module: self._number(module, alphas[module]) for module in layers if module in alphas}
        elif "lora_adapter_metadata" in metadata:
            told, rooted = self._told(metadata["lora_adapter_metadata"], ranks)
            strengths |= told
        rank, ranks_of = _patterns(ranks)
        strength, strengths_of = _patterns(strengths)
        config = {
            "r": rank, "rank_pattern": ranks_of, "lora_alpha": strength, "alpha_pattern": strengths_of,
            "use_rslora": rooted, "target_modules": _any_of(ranks),
        }  # fmt: skip
        weights = {
            f"{PREFIX}{module}.{side}.weight": tensor
            for module, layer in layers.items()
            for side, tensor in layer.items()
        }
        scaling = {
            module: strengths[module] / (math.sqrt(ranks[module]) if rooted else ranks[module]) for module in ranks
        }
        return LoraWeights(weights, {f"{PREFIX}{key}": value for key, value in config.items()}, scaling, notes)

    def _number(self, module: str, alpha: Any) -> float:
        value = float(alpha) if getattr(alpha, "numel", lambda: 1)() == 1 else math.nan
        if not math.isfinite(value):
            self._refuse(f"its alpha at {module} is no number")
        return value

    def _told(self, text: str, ranks: Mapping[str, int]) -> tuple[dict[str, float], bool]:
        """The strength of each module as peft's settings in the file have it, and whether it is over a root of ranks.

        Nothing else of them is heeded: some would change the network itself.
        """
        pattern_key: Any = importlib.import_module("peft.utils.other").get_pattern_key
        try:
            told = json.loads(text)
            said = {key.removeprefix(PREFIX): value for key, value in told.items() if key.startswith(PREFIX)}
            if said.get("use_dora"):
                self._refuse("is a DoRA, by its own word; only plain LoRAs are taken")
            if "lora_alpha" not in said:
                return {}, False
            patterns = dict(said.get("alpha_pattern") or {})
            if strange := next((key for key in patterns if not _PLAIN.fullmatch(key)), ""):
                raise ValueError(f"{strange} is no name of a module")
            found = {module: float(patterns.get(pattern_key(patterns, module), said["lora_alpha"])) for module in ranks}
        except (ValueError, TypeError, AttributeError, OverflowError, RecursionError, re.error) as problem:
            self._refuse(f"what it says of itself cannot be read ({' '.join(str(problem).split())[:120]})")
        if not all(math.isfinite(value) for value in found.values()):
            self._refuse("its lora_alpha is no number")
        return found, bool(said.get("use_rslora"))

    def _refuse(self, why: str) -> NoReturn:
        raise InputError(f"lora {self._path}: {' '.join(why.split())}")


def _patterns(values: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The commonest value, and by expression for exactly the modules that have another, those."""
    common = Counter(values.values()).most_common(1)[0][0]
    others: dict[Any, list[str]] = {}
    for module, value in values.items():
        if value != common:
            others.setdefault(value, []).append(module)
    return common, {f"^{_any_of(modules)}": value for value, modules in others.items()}


def _any_of(modules: Iterable[str]) -> str:
    """An expression for exactly these names: peft takes a plain name for the end of longer ones too."""
    return f"(?:{'|'.join(re.escape(module) for module in modules)})"
