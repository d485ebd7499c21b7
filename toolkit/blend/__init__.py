"""Make a fill belong to its photo, and a subject to a new ground: colour match, grain match, composite, the seam score
and foreground colours, on plain arrays.

Pictures are (h, w, C) with C = 1 or 3, 0..255 (float32 or uint8) unless a function says otherwise; masks are
(h, w) uint8 with 0 = keep and anything else = regenerated. Nothing given is changed in place.
"""

from toolkit.blend.colour import ColourMatch, match_colour
from toolkit.blend.foreground import foreground
from toolkit.blend.grain import GrainMatch, match_grain
from toolkit.blend.inward import continued
from toolkit.blend.laying import composite
from toolkit.blend.seam import seam_score

__all__ = [
    "ColourMatch",
    "GrainMatch",
    "composite",
    "continued",
    "foreground",
    "match_colour",
    "match_grain",
    "seam_score",
]
