"""Detectors: one adapter a file."""
