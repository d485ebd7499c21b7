"""Takes boxes as they are, for places where nothing is yet; a click stands for a square around it."""

from __future__ import annotations

from toolkit.cards import Card
from toolkit.edit import Region
from toolkit.engines import EngineRun, Found, Picture, Prompts
from toolkit.errors import ParameterError
from toolkit.geometry import Box
from toolkit.mask import Mask


class Engine:
    """Makes masks of boxes and clicks alone; no pixel is looked at."""

    def __init__(self, card: Card) -> None:
        self._card = card
        self._share = float(card.settings["square"])

    def prepare(self, picture: Picture, run: EngineRun) -> str:
        """Nothing is to be done; the key is the card's alone."""
        return f"{self._card.name} {self._card.revision}"

    def segment(self, picture: Picture, key: str, prompts: Prompts, previous: bytes | None, run: EngineRun) -> Found:
        """One region for each box and for each click.

        Raises:
            ParameterError: for clicks beside something.
        """
        if prompts.exclude:
            raise ParameterError(f"not_point: {self._card.name} looks for nothing that could be beside it; give a box")
        side = max(1, round(self._share * min(picture.box.size)))
        regions = [Region(box, mask=Mask.from_box(picture.box, box)) for box in prompts.boxes]
        for x, y in prompts.include:
            corner = x - side // 2, y - side // 2
            box = Box(*corner, corner[0] + side, corner[1] + side).moved_into(picture.box)
            reason = f"point {x},{y}: the square {box} around it is taken; a box says exactly where"
            regions.append(Region(box, reason=reason, mask=Mask.from_box(picture.box, box)))
        return Found(tuple(regions))
