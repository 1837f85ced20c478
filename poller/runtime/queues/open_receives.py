"""Owns the receives of one queue mapping that SQS has not answered yet.

SQS does not notice that a client has gone. It serves an abandoned poll to its end, and hides the messages from all consumers for
the whole visibility timeout. So a stop does not interrupt polls. Running polls are answered, and their messages are run if there is
time. Messages are given back only after the last poll was answered, because a running poll would receive them again.
"""

import asyncio

from poller.domain.records import Monotonic
from poller.ports import Clock
from poller.runtime.queues.bounded.queue_memory import QueueMemory
from poller.runtime.stopping import wait_until

ANSWER_S_MAX = 2.0
"""How long the answer of a poll may take after the poll's wait is over."""


class Polls:
    """The running receives, until when each of them may be answered, and the memory for what they bring."""

    def __init__(self, clock: Clock, memory: QueueMemory) -> None:
        self.memory = memory
        self._clock = clock
        self._until: dict[int, Monotonic] = {}
        self._serial = 0
        self._none = asyncio.Event()
        self._none.set()

    def begin(self, wait_s: float) -> int:
        """A receive begins, which waits up to `wait_s` seconds for its first message. Pass the returned number to `end`."""
        self._serial += 1
        self._until[self._serial] = Monotonic(self._clock.monotonic() + wait_s + ANSWER_S_MAX)
        self._none.clear()
        return self._serial

    def end(self, number: int) -> None:
        """The receive is answered, or failed."""
        del self._until[number]
        if not self._until:
            self._none.set()

    @property
    def left_s(self) -> float:
        """Seconds until all running receives are answered, at most; 0 if none is running."""
        return max(0.0, max(self._until.values(), default=0.0) - self._clock.monotonic())

    async def answered_within(self, wait_s: float) -> None:
        """Waits until no receive is running, `wait_s` seconds at most."""
        await wait_until(self._none, wait_s)

    async def answered(self) -> None:
        """Waits until no receive is running whose answer may still come."""
        while self._until:
            left_s = max(self._until.values()) - self._clock.monotonic()
            if left_s <= 0:
                return
            await wait_until(self._none, left_s)
