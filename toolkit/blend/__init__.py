"""Make a fill belong to its photo, and a subject to a new ground: colour and grain match, composite, resampling, seam
score and foreground colours, on plain arrays.

Pictures are (h, w, C) with C = 1 or 3, 0..255 (float32 or uint8) unless a function says otherwise; masks are
(h, w) uint8 with 0 = keep and anything else = regenerated. Nothing given is changed in place.
"""

from toolkit.blend.colour import ColourMatch, match_colour
from toolkit.blend.foreground import foreground
from toolkit.blend.grain import GrainField, GrainMatch, match_grain
from toolkit.blend.inward import continued
from toolkit.blend.laying import composite
from toolkit.blend.resample import Scaling, dither, levels, resampled
from toolkit.blend.seam import seam_score

__all__ = [
    "ColourMatch", "GrainField", "GrainMatch", "Scaling", "composite", "continued", "dither", "foreground", "levels",
    "match_colour", "match_grain", "resampled", "seam_score",
]  # fmt: skip
