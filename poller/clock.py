"""Owns the daemon's clock: monotonic time is the running loop's, so that a simulated loop simulates it too."""

import asyncio
import time
from collections.abc import Callable
from typing import cast

from poller.domain.records import Epoch, Monotonic


class LoopClock:
    """The clock of the running event loop. `wall` gives epoch seconds; a simulation passes its own.

    `steady` replaces the loop's time. uvloop updates its time only between two passes of the loop. A process that was suspended
    in the middle of a pass would not notice how much time has gone by.
    """

    def __init__(
        self, wall: Callable[[], float] = time.time, *, steady: Callable[[], float] | None = None
    ) -> None:
        # These are attributes, not methods, because the clock is read several times for each batch: without a call in between
        # that takes a fifth of the time.
        self.monotonic = cast("Callable[[], Monotonic]", steady or _loop_time)
        """Seconds of a clock that goes on while the process is stopped."""
        self.now = cast("Callable[[], Epoch]", wall)
        """Seconds since the epoch."""


def _loop_time() -> float:
    return asyncio.get_running_loop().time()
