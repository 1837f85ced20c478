"""Owns this worker's share of a maximum that all workers of a queue mapping have in common.

The share changes as workers come and go. If there are more workers than invocations, some workers have a share of 0. Such a worker
receives nothing and cannot try the batches that it still has. They would wait there, hidden from all others, as long as the share is
0. So after LOST_AFTER_S with a share of 0 the share counts as lost, and the batches that wait for it are given back to the queue.
A share of 0 for a shorter time is normal: other workers still run earlier invocations, or a heartbeat is late.
"""

from collections.abc import Callable

from poller.domain.records import Monotonic
from poller.ports import Clock

LOST_AFTER_S = 30.0


class WorkerShare:
    """The share of this worker. `allowed` gives how many invocations it may run at the moment."""

    def __init__(self, clock: Clock, allowed: Callable[[], int]) -> None:
        self._clock = clock
        self._allowed = allowed
        self._zero_since: Monotonic | None = None

    def covers(self, invocations: int) -> bool:
        """Whether this many invocations may run at once."""
        self._update()
        return invocations <= self._allowed()

    @property
    def lost(self) -> bool:
        """Whether the share was 0 at every check for LOST_AFTER_S."""
        self._update()
        since = self._zero_since
        return since is not None and self._clock.monotonic() - since >= LOST_AFTER_S

    def _update(self) -> None:
        if self._allowed() > 0:
            self._zero_since = None
        elif self._zero_since is None:
            self._zero_since = self._clock.monotonic()
