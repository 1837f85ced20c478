"""Owns how the load of a shard is measured: records a second, smoothed over about a minute."""

from dataclasses import dataclass

from poller.records import Monotonic

STEP_S = 5.0
"""Shorter times say little and are not looked at."""
MEMORY_S = 60.0
"""After so long an old rate counts for nothing."""


@dataclass(frozen=True, slots=True)
class Meter:
    """`rate` a second as known at `at`, when `count` had been counted."""

    at: Monotonic
    count: int = 0
    rate: float = 0.0


def metered(meter: Meter, count: int, now: Monotonic) -> Meter:
    """The meter after another look at the count."""
    passed_s = now - meter.at
    if passed_s < STEP_S:
        return meter
    weight = min(1.0, passed_s / MEMORY_S)
    fresh = (count - meter.count) / passed_s
    return Meter(now, count, meter.rate + (fresh - meter.rate) * weight)
