"""Owns how long to wait before a repeated try: exponential with full jitter."""

from typing import Protocol

from poller.rules.policies import Backoff


class Chance(Protocol):
    """Where randomness comes from; `random.Random` is one."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between `a` and `b`."""
        ...


_EXPONENT_MAX = 30
"""Beyond this the cap has long been reached; it keeps the power finite."""


def ceiling_s(backoff: Backoff, tries: int) -> float:
    """The longest wait after `tries` earlier waits, in seconds."""
    return min(backoff.cap_s, backoff.base_s * 2.0 ** min(tries, _EXPONENT_MAX))


def wait_s(backoff: Backoff, tries: int, rng: Chance) -> float:
    """Seconds to wait after `tries` earlier waits (0 for the first): uniform between 0 and the ceiling."""
    return rng.uniform(0.0, ceiling_s(backoff, tries))
