"""Mask generation and inpainting that never touches a pixel outside the mask."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from toolkit.cards import Card as Card
    from toolkit.edit import Edit as Edit
    from toolkit.edit import Patch as Patch
    from toolkit.edit import Region as Region
    from toolkit.edit import Stack as Stack
    from toolkit.edit import Step as Step
    from toolkit.edit import Window as Window
    from toolkit.errors import Cancelled as Cancelled
    from toolkit.errors import EngineError as EngineError
    from toolkit.errors import FidelityError as FidelityError
    from toolkit.errors import InputError as InputError
    from toolkit.errors import MaskError as MaskError
    from toolkit.errors import OutputError as OutputError
    from toolkit.errors import ParameterError as ParameterError
    from toolkit.errors import PhotoError as PhotoError
    from toolkit.errors import RecipeError as RecipeError
    from toolkit.errors import ToolkitError as ToolkitError
    from toolkit.errors import UnknownNameError as UnknownNameError
    from toolkit.errors import UsageError as UsageError
    from toolkit.geometry import Box as Box
    from toolkit.geometry import Limits as Limits
    from toolkit.geometry import Price as Price
    from toolkit.geometry import Size as Size
    from toolkit.mask import Mask as Mask
    from toolkit.photo import Photo as Photo
    from toolkit.photo import Saved as Saved
    from toolkit.recipe import Input as Input
    from toolkit.recipe import Item as Item
    from toolkit.recipe import Recipe as Recipe
    from toolkit.run import Run as Run
    from toolkit.stages import Stage as Stage
    from toolkit.stages.backdrop import Backdrop as Backdrop
    from toolkit.stages.canvas import Canvas as Canvas
    from toolkit.stages.composite import Composite as Composite
    from toolkit.stages.crop import Crop as Crop
    from toolkit.stages.cutout import Cutout as Cutout
    from toolkit.stages.detect import Detect as Detect
    from toolkit.stages.dilate import Dilate as Dilate
    from toolkit.stages.erode import Erode as Erode
    from toolkit.stages.feather import Feather as Feather
    from toolkit.stages.fill import Fill as Fill
    from toolkit.stages.fill_holes import FillHoles as FillHoles
    from toolkit.stages.generate import Generate as Generate
    from toolkit.stages.matte import Matte as Matte
    from toolkit.stages.segment import Segment as Segment
    from toolkit.stages.select import Select as Select
    from toolkit.stages.shadow import Shadow as Shadow

_HOMES = {
    "cards": ("Card",),
    "edit": ("Edit", "Patch", "Region", "Stack", "Step", "Window"),
    "errors": (
        "Cancelled", "EngineError", "FidelityError", "InputError", "MaskError", "OutputError", "ParameterError",
        "PhotoError", "RecipeError", "ToolkitError", "UnknownNameError", "UsageError",
    ),
    "geometry": ("Box", "Limits", "Price", "Size"),
    "mask": ("Mask",),
    "photo": ("Photo", "Saved"),
    "recipe": ("Input", "Item", "Recipe"),
    "run": ("Run",),
    "stages": ("Stage",),
    "stages.backdrop": ("Backdrop",),
    "stages.composite": ("Composite",),
    "stages.canvas": ("Canvas",),
    "stages.crop": ("Crop",),
    "stages.cutout": ("Cutout",),
    "stages.detect": ("Detect",),
    "stages.dilate": ("Dilate",),
    "stages.erode": ("Erode",),
    "stages.feather": ("Feather",),
    "stages.fill": ("Fill",),
    "stages.fill_holes": ("FillHoles",),
    "stages.generate": ("Generate",),
    "stages.matte": ("Matte",),
    "stages.segment": ("Segment",),
    "stages.select": ("Select",),
    "stages.shadow": ("Shadow",),
}  # fmt: skip

_WHERE = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_WHERE)


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'toolkit' has no attribute {name!r}")
    value = getattr(import_module(f"toolkit.{_WHERE[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
