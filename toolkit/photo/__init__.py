"""Photo: open, crop and save picture files without losing anything they carry."""

from toolkit.photo.compare import differences
from toolkit.photo.photo import MAX_PIXELS, Photo, Saved

__all__ = ["MAX_PIXELS", "Photo", "Saved", "differences"]
