"""Owns the seeds that once failed, each with the cause; they run for ever, so that the cause stays gone."""

KEPT_SEEDS: dict[int, str] = {}
"""Seed to what was wrong."""
