"""Owns how the reader of one shard keeps within the daemon's memory: what it holds, and how much it asks the source for."""

from collections.abc import Awaitable, Callable

from poller.domain.records import Page
from poller.memory.answers import AnswerTooLarge, answering
from poller.rules.memory.byte_budget import FOR_EVER, UNIT_BYTES, Patience
from poller.rules.memory.sizes import SizesSeen
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.shared_reads.read_window import size_of
from poller.runtime.memory.pool import CallRoom, MemoryPool

ANSWER_S_MAX = 1.0
"""An answer of several records that finds no room for so long is abandoned, and read again in smaller pieces."""
ANSWER_FACTOR = 1.5
"""What an answer takes in memory, for each byte of it: its records are larger than their JSON, and many wait as bytes meanwhile."""


class ShardMemory:
    """The account of one shard."""

    def __init__(self, pool: MemoryPool, flow: ShardFlow) -> None:
        self._account = pool.account()
        self._flow = flow
        self._seen = SizesSeen()
        self._room: CallRoom | None = None

    async def read(self, call: Callable[[int], Awaitable[Page]], records_max: int) -> Page:
        """Waits for room, and calls the source with the number of records that fit. The room is kept until `taken`."""
        while True:
            self._leave()
            likely = min(self._seen.call, self._account.page_bytes)
            least = min(likely, UNIT_BYTES)
            self._room = room = await self._account.room(least=least, most=likely, patience=Patience())
            assert room is not None, "a wait without a limit"
            # More records than are expected may be there, and when they come there is room for the real answer, or it waits.
            asked = self._seen.count(max(room.granted, self._account.page_bytes), records_max)
            room.factor = ANSWER_FACTOR
            room.patience = Patience()
            if asked > 1:
                room.answer_s, room.patience = ANSWER_S_MAX, FOR_EVER
            try:
                with answering(room):
                    page = await call(asked)
            except AnswerTooLarge as error:
                self._seen.too_large(error.needed, asked=asked)
                continue
            except BaseException:
                self._leave()
                raise
            size = room.answer or sum(map(size_of, page.records))
            self._seen.brought(len(page.records), size, asked=asked)
            return page

    def taken(self) -> None:
        """The page is in the flow, or is given up."""
        self.count()
        self._leave()

    def count(self) -> None:
        """Counts what the flow holds now."""
        self._account.hold(self._flow.held_bytes)

    def close(self) -> None:
        """The shard has ended."""
        self._leave()
        self._account.close()

    def _leave(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.close()
