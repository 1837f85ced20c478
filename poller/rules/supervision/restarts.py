"""Owns when a process that has ended is started again, and when a daemon whose processes cannot start gives up.

A process that ran for a while starts again almost at once. One that ends soon after each start waits longer each time, so that it
does not use up a processor, and does not make the other workers share the shards anew all the time. If no process has ever begun to
work, the cause is none that goes away, and the daemon ends.
"""

from dataclasses import dataclass, replace

from poller.domain.policies import Backoff
from poller.rules.backoff import Chance, retry_wait_s

RESTART_BACKOFF = Backoff(base_s=1.0, cap_s=60.0)
STEADY_S = 60.0
"""A process that ran for so long has recovered: its next end is a first one again."""
STARTS_MAX = 5
"""So many starts are tried before the daemon gives up, if no process has ever begun to work."""
WRONG_CONFIGURATION = 2
"""The exit status of a process that cannot start as configured. Another start does not help."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """The restarts of one process: all of them, and those `in_a_row` that came soon after the one before."""

    count: int = 0
    in_a_row: int = 0


def after_end(restarts: Restarts, *, ran_s: float, rng: Chance) -> tuple[Restarts, float]:
    """The restarts including the next one, and how many seconds it waits, for a process that ran for `ran_s` seconds."""
    tries = 0 if ran_s >= STEADY_S else restarts.in_a_row
    return Restarts(restarts.count + 1, tries + 1), retry_wait_s(RESTART_BACKOFF, tries, rng)


@dataclass(frozen=True, slots=True)
class Beginning:
    """Whether any process of the daemon has begun to work, and how many have ended before."""

    worked: bool = False
    failed: int = 0

    def begun(self) -> "Beginning":
        """A process has begun to work."""
        return replace(self, worked=True)

    def ended(self) -> "Beginning":
        """A process has ended."""
        return self if self.worked else replace(self, failed=self.failed + 1)


def gives_up(beginning: Beginning, status: int) -> bool:
    """Whether the daemon ends now that a process has ended with this exit status."""
    return not beginning.worked and (status == WRONG_CONFIGURATION or beginning.failed >= STARTS_MAX)
