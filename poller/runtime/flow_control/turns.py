"""Owns the line before a function: one at a time, and of each mapping one after the other."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from poller.domain.records import MappingId
from poller.rules.flow_control.turns import RoundRobin


class TurnLine:
    """Only one at a time has the turn. Who comes first in its mapping's line gets it when the mapping is due."""

    def __init__(self) -> None:
        self._holder: MappingId | None = None
        self._line: RoundRobin[MappingId, asyncio.Future[None]] = RoundRobin()

    def __len__(self) -> int:
        return len(self._line) + self.taken

    @property
    def taken(self) -> bool:
        """Whether somebody has the turn."""
        return self._holder is not None

    def has_others(self, mapping: MappingId) -> bool:
        """Whether another mapping has the turn, or waits for it."""
        return (self.taken and self._holder != mapping) or self._line.has_others(mapping)

    @asynccontextmanager
    async def turn(self, mapping: MappingId) -> AsyncIterator[None]:
        """Waits for the turn, and has it inside the block."""
        await self._acquire(mapping)
        try:
            yield
        finally:
            self._pass_on()

    async def _acquire(self, mapping: MappingId) -> None:
        if not self.taken:
            self._holder = mapping
            return
        turn = asyncio.get_running_loop().create_future()
        self._line.join(mapping, turn)
        try:
            await turn
            self._holder = mapping
        except asyncio.CancelledError:
            self._line.leave(mapping, turn)
            if turn.done() and not turn.cancelled():
                # The turn came in the same moment.
                self._pass_on()
            raise

    def _pass_on(self) -> None:
        while (turn := self._line.take()) is not None:
            if not turn.done():
                turn.set_result(None)
                return
        self._holder = None
