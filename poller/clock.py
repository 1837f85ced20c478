"""Owns the daemon's clock: monotonic time is the running loop's, so that a simulated loop simulates it too."""

import asyncio
import time
from collections.abc import Callable

from poller.domain.records import Epoch, Monotonic


class LoopClock:
    """Clock over the running event loop; `wall` gives epoch seconds (a simulation passes its own).

    `steady` replaces the loop's own time: uvloop's stands still while a turn of the loop lasts, which for a process that was
    stopped in the middle of one is too long.
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
