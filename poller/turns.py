"""Owns turns: work that keeps the loop busy without waiting runs one piece in a pass of the loop.

With many busy shards, each pass of the loop would otherwise take in a page of every one of them. What needs many passes,
a checkpoint or a heartbeat, would then take seconds; and pages that wait as bytes cost less than pages of records.
"""

import asyncio
from collections import deque


class Turns:
    """Those who wait are served in order, one in each pass of the loop."""

    def __init__(self) -> None:
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._taken = False

    async def turn(self) -> None:
        """Returns when it is the caller's turn, which lasts until the caller waits for something."""
        loop = asyncio.get_running_loop()
        if not self._taken:
            self._taken = True
            loop.call_soon(self._next)
            return
        mine: asyncio.Future[None] = loop.create_future()
        self._waiting.append(mine)
        await mine

    def _next(self) -> None:
        """In the next pass: the turn goes to the first who still waits."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                first.get_loop().call_soon(self._next)
                return
        self._taken = False
