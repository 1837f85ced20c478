"""Owns turns: work that keeps the loop busy without waiting runs one piece in a pass of the loop.

With many busy shards, each pass of the loop would otherwise take in a page of every one of them. What needs many passes,
a checkpoint or a heartbeat, would then take seconds.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Turns:
    """Those who wait are served in order, one in each pass of the loop."""

    def __init__(self) -> None:
        self._lock = asyncio.Lock()

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """For a block that does not wait; the next one gets its turn after everybody else had theirs on the loop."""
        async with self._lock:
            yield
            await asyncio.sleep(0)
