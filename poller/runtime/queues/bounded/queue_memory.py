"""Owns how the pollers of one queue mapping keep within the daemon's memory: what it holds, and how much a receive asks for."""

from asyncio import Lock
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

from poller.domain.errors import ServiceUnavailable
from poller.domain.records import Message
from poller.memory.answers import AnswerTooLarge, answering
from poller.rules.memory.byte_budget import UNIT_BYTES, Patience
from poller.rules.memory.sizes import SizesSeen
from poller.rules.queues.polling import MESSAGES_MAX
from poller.rules.queues.visibility import MESSAGE_BYTES, MESSAGE_FACTOR, size_of
from poller.runtime.memory.pool import CallRoom, MemoryPool

ANSWER_S_MAX = 10.0
"""So long an answer waits for room. Then the receive has failed, and the queue shows its messages again after their timeout."""
ONE_ANSWER = Patience(holding_s=ANSWER_S_MAX / 2)
"""An answer of one message is let in before it is given up, one at a time: fewer cannot be asked for."""
FIRST_BYTES = 1024 * 1024
"""The largest message. It is expected at first, so that many pollers do not receive at once what has no room: an answer that is
abandoned counts as a receive of its messages."""


class ReceiveRoom:
    """The room of one receive, and for how many messages it is. Use it as a context manager."""

    def __init__(self, seen: SizesSeen, room: CallRoom) -> None:
        self._seen = seen
        self._room = room
        self.messages_max = seen.count(room.granted, MESSAGES_MAX)

    def close(self) -> None:
        """Gives the room back."""
        self._room.close()

    def __enter__(self) -> "ReceiveRoom":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def receive(
        self, call: Callable[[int], Awaitable[Sequence[Message]]], asked: int
    ) -> Sequence[Message]:
        """Makes the call, for no more messages than `messages_max`. Raises ServiceUnavailable when its answer has found no room."""
        room = self._room
        room.factor, room.answer_s = MESSAGE_FACTOR, ANSWER_S_MAX
        if asked == 1:
            room.patience = ONE_ANSWER
        try:
            with answering(room):
                messages = await call(asked)
        except AnswerTooLarge as error:
            self._seen.too_large(error.needed, asked=asked)
            raise ServiceUnavailable(error.reason) from error
        # A body with characters beyond Latin-1 takes two or four bytes for each of them, however few they are.
        size = max(room.answer and room.answer + MESSAGE_BYTES * len(messages), sum(map(size_of, messages)))
        self._seen.brought(len(messages), size, asked=asked)
        return messages


class QueueMemory:
    """The account of one queue mapping."""

    def __init__(self, pool: MemoryPool) -> None:
        self.line = Lock()
        """Held by the poller that waits for room and then for capacity."""
        self._account = pool.account()
        self._seen = SizesSeen(int(FIRST_BYTES * MESSAGE_FACTOR))

    async def room(self) -> ReceiveRoom:
        """Waits for room for a receive, which may be kept for long: for one message, or a unit.

        What is held may be the messages of a long call, or of a paused group. So the wait ends whatever is held.
        """
        one = self._seen.one
        room = await self._account.room(least=one, most=max(one, UNIT_BYTES), patience=Patience())
        assert room is not None, "a wait without a limit"
        return ReceiveRoom(self._seen, room)

    def room_now(self, messages_max: int) -> ReceiveRoom | None:
        """Room for a receive if there is some; None otherwise."""
        room = self._account.room_now(least=self._seen.one, most=self._most(messages_max))
        return None if room is None else ReceiveRoom(self._seen, room)

    def hold(self, size: int, *, starving: bool = False) -> None:
        """Says how many bytes the messages in flight take. `starving`: none of them can be settled before others are received."""
        self._account.hold(size, starving=starving)

    def close(self) -> None:
        """The mapping has ended."""
        self._account.close()

    def _most(self, messages_max: int) -> int:
        """What a receive of so many messages should reserve."""
        one = self._seen.one
        return min(one * messages_max, max(one, self._account.page_bytes))


class PollerRoom:
    """The room of one poller's next receive.

    A poller that receives has capacity for an invocation, for which batches that are tried again may wait. Their messages are held
    until then. So a poller never waits for room with its capacity: without room it gives it back, and waits before it asks for it.

    The room that it has found is kept while it waits for capacity, perhaps for hours. So one poller of a mapping at a time does
    that, and the others of the mapping wait behind it.
    """

    def __init__(self, memory: QueueMemory) -> None:
        self.lacking = False
        """Whether the poller has to wait for room before its next receive."""
        self._memory = memory
        self._kept: ReceiveRoom | None = None

    @asynccontextmanager
    async def waited_for(self) -> AsyncIterator[None]:
        """Waits for room if some was lacking, and keeps it for the next receive. Wait for capacity inside."""
        if not self.lacking:
            yield
            return
        async with self._memory.line:
            self.close()
            self._kept = await self._memory.room()
            self.lacking = False
            yield

    def take(self, messages_max: int) -> ReceiveRoom | None:
        """The room of a receive; None if there is none."""
        kept, self._kept = self._kept, None
        found = kept or self._memory.room_now(messages_max)
        self.lacking = found is None
        return found

    def close(self) -> None:
        """Gives back what is kept."""
        kept, self._kept = self._kept, None
        if kept is not None:
            kept.close()
