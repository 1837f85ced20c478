"""Owns turns: work that keeps the loop busy without waiting runs one piece in a pass of the loop.

With many busy shards, each pass of the loop would otherwise take in a page of every one of them. What needs many passes,
a checkpoint or a heartbeat, would then take seconds; and pages that wait as bytes cost less than pages of records.
"""

import asyncio
import time
from collections import deque
from collections.abc import Generator

TURN_S = 0.005
"""How long slices are done in one turn; the one that goes beyond it is the last."""


class LoopTurns:
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

    async def slices[T](self, work: Generator[None, None, T]) -> T:
        """The result of work that is done in slices: some milliseconds of them at once, the others in turns."""
        began = time.perf_counter()
        while True:
            try:
                next(work)
            except StopIteration as done:
                result: T = done.value
                return result
            if time.perf_counter() - began >= TURN_S:
                await self._later_turn()
                began = time.perf_counter()

    async def _later_turn(self) -> None:
        """As `turn`, but never in this pass of the loop: the caller has used it up."""
        if self._taken:
            await self.turn()
            return
        await self.turn()
        await self.turn()

    def _next(self) -> None:
        """In the next pass: the turn goes to the first who still waits."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                first.get_loop().call_soon(self._next)
                return
        self._taken = False
