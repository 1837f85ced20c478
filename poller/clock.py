"""Owns the daemon's clock: monotonic time is the running loop's, so that a simulated loop simulates it too."""

import asyncio
import time
from collections.abc import Callable

from poller.records import Epoch, Monotonic


class LoopClock:
    """Clock over the running event loop; `wall` gives epoch seconds (a simulation passes its own)."""

    def __init__(self, wall: Callable[[], float] = time.time) -> None:
        self._wall = wall

    def monotonic(self) -> Monotonic:
        """Seconds of the running loop's clock."""
        return Monotonic(asyncio.get_running_loop().time())

    def now(self) -> Epoch:
        """Seconds since the epoch."""
        return Epoch(self._wall())
