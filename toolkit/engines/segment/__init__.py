"""Segmenters: one adapter a file."""
