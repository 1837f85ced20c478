"""Owns how the load of a shard is measured: records a second, smoothed over about a minute."""

from dataclasses import dataclass

from poller.domain.records import Monotonic

STEP_S = 5.0
"""A rate is not measured over a shorter time, because it would vary too much."""
MEMORY_S = 60.0
"""A rate that was measured this long ago has no weight any more."""


@dataclass(frozen=True, slots=True)
class Meter:
    """The `rate` (records a second) that was known at the moment `at`, when `count` records had been counted."""

    at: Monotonic
    count: int = 0
    rate: float = 0.0


def measured(meter: Meter, count: int, now: Monotonic) -> Meter:
    """The meter after `count` records have been counted in all."""
    passed_s = now - meter.at
    if passed_s < STEP_S:
        return meter
    weight = min(1.0, passed_s / MEMORY_S)
    fresh = (count - meter.count) / passed_s
    return Meter(now, count, meter.rate + (fresh - meter.rate) * weight)
