"""Owns how the reader of one shard keeps within the daemon's memory: what it holds, and how much it asks the source for."""

from collections.abc import Awaitable, Callable

from poller.domain.records import Page
from poller.memory.answers import AnswerTooLarge, answering
from poller.rules.memory.byte_budget import FOR_EVER, UNIT_BYTES, Patience
from poller.rules.memory.sizes import SizesSeen
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.lanes import EVENT_COPIES
from poller.runtime.memory.pool import CallRoom, MemoryAccount, MemoryPool

ANSWER_S_MAX = 1.0
"""An answer of several records that finds no room for so long is abandoned, and read again in smaller pieces."""
ANSWER_FACTOR = 1.5
"""What an answer takes in memory, for each byte of it: its records are larger than their JSON, and many wait as bytes meanwhile.

More if many of its records go into batches at once, which have events.
"""
FIRST_FACTOR = 1.0 + EVENT_COPIES
"""The same while no answer was seen: all its records may go into batches at once."""


class ShardMemory:
    """The account of one shard."""

    def __init__(self, pool: MemoryPool, flow: ShardFlow, *, batch_records: int) -> None:
        """`batch_records`: how many the batches of all lanes may have at once."""
        self._pool = pool
        self._account: MemoryAccount | None = None
        """Opened by the first read: a shard that is cancelled before it begins never closes it."""
        self._flow = flow
        self._batch_records = batch_records
        self._seen = SizesSeen()
        self._asked = 0
        self._count = 0
        self._factor = FIRST_FACTOR
        """What the last answer has come to in the flow, for each byte of it."""
        self._room: CallRoom | None = None

    async def read(self, call: Callable[[int], Awaitable[Page]], records_max: int) -> Page:
        """Waits for room, and calls the source with the number of records that fit. The room is kept until `accept`."""
        account = self._account = self._account or self._pool.account()
        while True:
            self._leave()
            self.count()
            likely = min(self._seen.call, account.page_bytes)
            least = min(likely, UNIT_BYTES)
            self._room = room = await account.room(least=least, most=likely, patience=Patience())
            assert room is not None, "a wait without a limit"
            # More records than are expected may be there, and when they come there is room for the real answer, or it waits.
            asked = self._seen.count(max(room.granted, account.page_bytes), records_max)
            batches = 1 + EVENT_COPIES * min(1.0, self._batch_records / asked)
            room.factor = max(ANSWER_FACTOR, self._factor, batches)
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
            self._asked, self._count = asked, len(page.records)
            return page

    def accept[T](self, take: Callable[[], T]) -> T:
        """Lets the flow take in the page that was read, counts what it comes to, and gives back the room of the call."""
        before = self.count()
        taken = take()
        room, grown = self._room, self.count() - before
        if room is not None:
            self._seen.brought(self._count, max(room.answer, grown), asked=self._asked)
            if room.answer:
                self._factor = grown * room.factor / room.answer
        self._leave()
        return taken

    def count(self) -> int:
        """Counts what the flow holds now. Returns it, in bytes."""
        size, starving = self._flow.holding
        if self._account is not None:
            self._account.hold(size, starving=starving)
        return size

    def close(self) -> None:
        """The shard has ended."""
        self._leave()
        if self._account is not None:
            self._account.close()

    def _leave(self) -> None:
        room, self._room = self._room, None
        if room is not None:
            room.close()
