"""Hypothesis without wall-clock deadlines: the machines that run the tests are shared."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
