"""Real removals to look at."""
