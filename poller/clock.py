"""Owns the daemon's clock: monotonic time is the running loop's, so that a simulated loop simulates it too."""

import asyncio
import time
from collections.abc import Callable

from poller.domain.records import Epoch, Monotonic


class LoopClock:
    """The clock of the running event loop. `wall` gives epoch seconds; a simulation passes its own.

    `steady` replaces the loop's time. uvloop updates its time only between two passes of the loop. A process that was suspended
    in the middle of a pass would not notice how much time has gone by.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, *, steady: Callable[[], float] | None = None
    ) -> None:
        self._wall = wall
        self._steady = steady

    def monotonic(self) -> Monotonic:
        """Seconds of a clock that goes on while the process is stopped."""
        return Monotonic(self._steady() if self._steady else asyncio.get_running_loop().time())

    def now(self) -> Epoch:
        """Seconds since the epoch."""
        return Epoch(self._wall())
