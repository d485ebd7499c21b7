"""The WaveSpeed REST API: its replies (`replies`), its traffic (`client`), and tasks that are paid once (`tasks`)."""

from __future__ import annotations

from collections.abc import Mapping

from toolkit.settings import Tier

PACE: Mapping[Tier, tuple[int, int]] = {
    "bronze": (10, 3), "silver": (500, 100), "gold": (3000, 2000), "ultra": (5000, 5000),
}  # fmt: skip
"""Pictures a minute and tasks at once, by account level."""
