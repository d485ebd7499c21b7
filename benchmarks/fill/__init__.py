"""Known-answer holes for the fill engines."""
