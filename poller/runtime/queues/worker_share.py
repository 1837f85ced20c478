"""Owns this worker's part of a maximum that all workers of a queue mapping share, as the room for invocations sees it.

The part changes as workers come and go, and where there are more workers than invocations some have none. A worker without a part
receives nothing, and cannot try the batches that it still holds: those would wait, hidden from all others, for as long as it stays
without. So a part that allowed nothing for PARTLESS_S is lost, and what waits for it is given back to the queue. Shorter times without one
are usual: others still run what they began before, or a heartbeat is late.
"""

from collections.abc import Callable

from poller.domain.records import Monotonic
from poller.ports import Clock

PARTLESS_S = 30.0


class WorkerShare:
    """`allowed` is how many invocations there may be here at the moment."""

    def __init__(self, clock: Clock, allowed: Callable[[], int]) -> None:
        self._clock = clock
        self._allowed = allowed
        self._without_since: Monotonic | None = None

    def covers(self, invocations: int) -> bool:
        """Whether this many invocations may run at once."""
        self._look()
        return invocations <= self._allowed()

    @property
    def lost(self) -> bool:
        """Whether it allowed nothing at every check for PARTLESS_S."""
        self._look()
        since = self._without_since
        return since is not None and self._clock.monotonic() - since >= PARTLESS_S

    def _look(self) -> None:
        if self._allowed() > 0:
            self._without_since = None
        elif self._without_since is None:
            self._without_since = self._clock.monotonic()
