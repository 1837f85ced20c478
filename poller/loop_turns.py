"""Owns turns: of all work that keeps the event loop busy without waiting, one piece runs in each pass of the loop.

Without turns, each pass of the loop would decode one page of every busy shard. A checkpoint or a heartbeat needs many passes, and
would then take seconds. Turns also save memory: a page that waits for its turn is still bytes, which are smaller than records.
"""

import asyncio
import time
from collections import deque
from collections.abc import Generator

TURN_S = 0.005
"""One turn does slices of work until this time is over. The slice under way is finished."""


class LoopTurns:
    """Serves callers in the order in which they came, one in each pass of the loop."""

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
        """Does work in slices and returns its result. The first milliseconds are done at once, the rest in turns."""
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
        """Runs in the next pass of the loop: gives the turn to the first caller that still waits."""
        while self._waiting:
            first = self._waiting.popleft()
            if not first.done():
                first.set_result(None)
                first.get_loop().call_soon(self._next)
                return
        self._taken = False
