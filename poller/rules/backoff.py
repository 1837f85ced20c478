"""Owns the waits between attempts: the bound doubles with each attempt, and the wait is a random time below it.

Port calls wait for a random part of the whole bound ("full jitter"), which spreads many callers best. A failing batch waits for
half of the bound and a random part of the other half. That fits the few recordings of AWS Lambda (aws-behaviour#back-off). With a
first bound of 0.4 s, a batch that always fails is invoked eight or nine times in a minute.
"""

from typing import Protocol

from poller.domain.policies import Backoff


class Chance(Protocol):
    """Where randomness comes from; `random.Random` is one."""

    def uniform(self, a: float, b: float, /) -> float:
        """A number between `a` and `b`."""
        ...


_EXPONENT_MAX = 30
"""The largest exponent. The cap is reached long before; the limit keeps the power finite."""


def ceiling_s(backoff: Backoff, tries: int) -> float:
    """The longest wait after `tries` earlier waits, in seconds."""
    return min(backoff.cap_s, backoff.base_s * 2.0 ** min(tries, _EXPONENT_MAX))


def wait_s(backoff: Backoff, tries: int, rng: Chance) -> float:
    """Seconds to wait after `tries` earlier waits (0 for the first): uniform between 0 and the ceiling."""
    return rng.uniform(0.0, ceiling_s(backoff, tries))


def retry_wait_s(backoff: Backoff, tries: int, rng: Chance) -> float:
    """Seconds before a batch is tried again after `tries` earlier waits: uniform between half of the ceiling and all of it."""
    bound_s = ceiling_s(backoff, tries)
    return rng.uniform(bound_s / 2, bound_s)
