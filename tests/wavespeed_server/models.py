"""The models that the stand-in knows, and what their parameters may be."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

FLUX = "wavespeed-ai/flux-fill-dev"
STYLES = ("default", "artistic", "photographic", "technical", "anime", "realistic")


class Refused(ValueError):
    """A parameter is missing or wrong; the message goes to the client."""


@dataclass(frozen=True)
class Model:
    """A model of the catalogue; `price` in dollars an output, `check` raises Refused."""

    name: str
    price: float
    check: Callable[[Mapping[str, Any]], None]
    properties: Mapping[str, Any]
    required: tuple[str, ...]

    def entry(self) -> dict[str, Any]:
        """How the list of models shows it."""
        schema = {"type": "object", "properties": dict(self.properties), "required": list(self.required)}
        api = {"type": "model_run", "method": "POST", "api_path": f"/api/v3/{self.name}", "request_schema": schema}
        return {
            "model_id": self.name,
            "name": self.name,
            "description": self.name,
            "type": "image-to-image" if self.name == FLUX else "llm",
            "base_price": self.price,
            "sort_order": 0,
            "api_schema": {"api_schemas": [api]},
        }

    def cost(self, inputs: Mapping[str, Any]) -> float:
        """Dollars for one run."""
        number = inputs.get("num_images", 1)
        return self.price * (number if isinstance(number, int) else 1)


def size_of(inputs: Mapping[str, Any]) -> tuple[int, int]:
    """Width and height asked for."""
    width, height = inputs.get("size", "1024*1024").split("*")
    return int(width), int(height)


def _text(inputs: Mapping[str, Any], name: str) -> None:
    if name not in inputs or inputs[name] in ("", None):
        raise Refused(f'property "{name}" is missing')
    if not isinstance(inputs[name], str):
        raise Refused(f'property "{name}" must be a string')


def _number(inputs: Mapping[str, Any], name: str, low: float, high: float, *, whole: bool = True) -> None:
    if name not in inputs:
        return
    value = inputs[name]
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise Refused(f'property "{name}" must be {"an integer" if whole else "a number"}')
    if not low <= value <= high:
        raise Refused(f'property "{name}" must be between {low} and {high}, got {value}')


def _check_flux(inputs: Mapping[str, Any]) -> None:
    for name in ("image", "mask_image", "prompt"):
        _text(inputs, name)
    size = inputs.get("size", "1024*1024")
    if not isinstance(size, str) or not re.fullmatch(r"\d+\*\d+", size):
        raise Refused(f'property "size" must be "width*height", got {size!r}')
    if not all(256 <= side <= 1536 for side in size_of(inputs)):
        raise Refused(f'property "size" must be between 256 and 1536 a side, got {size}')
    _number(inputs, "num_inference_steps", 1, 50)
    _number(inputs, "seed", -1, 2147483647)
    _number(inputs, "guidance_scale", 28, 35, whole=False)
    _number(inputs, "num_images", 1, 4)
    loras = inputs.get("loras", [])
    if not isinstance(loras, list) or len(loras) > 3:
        raise Refused('property "loras" must be an array of at most 3 items')
    for lora in loras:
        if not isinstance(lora, dict) or set(lora) != {"path", "scale"}:
            raise Refused('each item of "loras" needs "path" and "scale"')
        path = lora["path"]
        if not isinstance(path, str) or not re.fullmatch(r"https?://\S+|[^/\s]+/[^/\s]+", path):
            raise Refused("Invalid LoRA path format. It should be a full URL or 'username/model-name'.")
        _number(lora, "scale", 0, 4, whole=False)


def _check_optimizer(inputs: Mapping[str, Any]) -> None:
    for name in ("image", "text"):
        if not isinstance(inputs.get(name, ""), str):
            raise Refused(f'property "{name}" must be a string')
    for name, words in (("style", STYLES), ("mode", ("image", "video"))):
        if inputs.get(name, words[0]) not in words:
            raise Refused(f'property "{name}" must be one of {", ".join(words)}')


def optimized(inputs: Mapping[str, Any]) -> str:
    """What the prompt optimizers answer: plain text that follows from the inputs."""
    seen = "seen in the picture, " if inputs.get("image") else ""
    style = inputs.get("style", "default")
    return (
        f"{inputs.get('text', '')}, {seen}{'' if style == 'default' else style + ' style, '}soft natural light, sharp"
    )


_FILL = {
    "image": {"type": "string"},
    "mask_image": {"type": "string"},
    "prompt": {"type": "string"},
    "size": {"type": "string", "default": "1024*1024"},
    "num_inference_steps": {"type": "integer", "default": 28, "minimum": 1, "maximum": 50},
    "seed": {"type": "integer", "minimum": -1, "maximum": 2147483647},
    "guidance_scale": {"type": "number", "default": 30, "minimum": 28, "maximum": 35},
    "num_images": {"type": "integer", "default": 1, "minimum": 1, "maximum": 4},
    "loras": {"type": "array", "maxItems": 3},
}
_OPTIMIZE = {
    "image": {"type": "string"},
    "text": {"type": "string"},
    "style": {"type": "string", "enum": list(STYLES), "default": "default"},
    "mode": {"type": "string", "enum": ["image", "video"], "default": "image"},
}

MODELS = {
    model.name: model
    for model in (
        Model(FLUX, 0.035, _check_flux, _FILL, ("image", "mask_image", "prompt")),
        Model("wavespeed-ai/prompt-optimizer", 0.001, _check_optimizer, _OPTIMIZE, ()),
        Model("wavespeed-ai/molmo2/prompt-optimizer", 0.003, _check_optimizer, _OPTIMIZE, ()),
    )
}
