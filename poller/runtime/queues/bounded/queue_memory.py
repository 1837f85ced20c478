"""Owns how the pollers of one queue mapping keep within the daemon's memory: what it holds, and how much a receive asks for."""

from collections.abc import Awaitable, Callable, Sequence
from math import inf

from poller.domain.errors import ServiceUnavailable
from poller.domain.records import Message
from poller.memory.answers import AnswerTooLarge, answering
from poller.rules.memory.sizes import SizesSeen
from poller.rules.queues.visibility import MESSAGE_FACTOR, size_of
from poller.runtime.memory.pool import CallRoom, MemoryPool

ANSWER_S_MAX = 10.0
"""So long an answer waits for room. Then the receive has failed, and the queue shows its messages again after their timeout."""
FIRST_BYTES = 1024 * 1024
"""The largest message. It is expected at first, so that many pollers do not receive at once what has no room: an answer that is
abandoned counts as a receive of its messages."""
OPENER_S_MAX = 1.0
"""So long a poller with a batch waits for room. Then the batch runs as it is: that gives room, and a wait would not."""


class ReceiveRoom:
    """The room of one receive, and for how many messages it is. Use it as a context manager."""

    def __init__(self, seen: SizesSeen, room: CallRoom, messages_max: int) -> None:
        self._seen = seen
        self._room = room
        self.messages_max = seen.count(room.granted, messages_max)

    def __enter__(self) -> "ReceiveRoom":
        return self

    def __exit__(self, *_: object) -> None:
        self._room.close()

    async def receive(self, call: Callable[[], Awaitable[Sequence[Message]]]) -> Sequence[Message]:
        """Makes the call. Raises ServiceUnavailable when its answer has found no room."""
        room = self._room
        room.factor, room.answer_s = MESSAGE_FACTOR, ANSWER_S_MAX
        try:
            with answering(room):
                messages = await call()
        except AnswerTooLarge as error:
            self._seen.too_large(error.needed, asked=self.messages_max)
            raise ServiceUnavailable(error.reason) from error
        size = room.answer or sum(map(size_of, messages))
        self._seen.brought(len(messages), size, asked=self.messages_max)
        return messages


class QueueMemory:
    """The account of one queue mapping."""

    def __init__(self, pool: MemoryPool) -> None:
        self._account = pool.account()
        self._seen = SizesSeen(int(FIRST_BYTES * MESSAGE_FACTOR))

    async def room(self, messages_max: int, *, opener: bool) -> ReceiveRoom | None:
        """Waits for room for a receive. `opener`: the poller has a batch, which has to run soon. None if there is no room then."""
        one = self._seen.one
        within_s = OPENER_S_MAX if opener else inf
        most = min(one * messages_max, max(one, self._account.page_bytes))
        room = await self._account.room(least=one, most=most, within_s=within_s)
        return None if room is None else ReceiveRoom(self._seen, room, messages_max)

    def hold(self, size: int) -> None:
        """Says how many bytes the messages in flight take."""
        self._account.hold(size)

    def close(self) -> None:
        """The mapping has ended."""
        self._account.close()
