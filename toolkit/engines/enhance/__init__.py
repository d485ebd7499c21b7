"""Enhancers: adapters that write a better prompt for a hole."""
