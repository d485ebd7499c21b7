"""Engines that turn a hard mask into a soft alpha."""
