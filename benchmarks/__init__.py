"""Benchmarks, run by hand; none is part of the package."""
