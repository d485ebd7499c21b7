"""Shadows and reflections without network weights: found to be removed with their object, kept, or made anew.

Pure functions of arrays. A shadow is smooth, so everything is computed on reduced copies.
"""

from toolkit.shadows.contact import contact_shadow
from toolkit.shadows.found import Found, find_shadow
from toolkit.shadows.kept import Kept, kept_shadow

__all__ = ["Found", "Kept", "contact_shadow", "find_shadow", "kept_shadow"]
