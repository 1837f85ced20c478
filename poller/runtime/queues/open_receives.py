"""Owns the receives of one queue mapping that SQS has not answered yet.

SQS does not notice that a client has gone. It serves an abandoned poll to its end, and hides what it gives then from everybody
for the whole visibility timeout. So a stop breaks no poll: the polls under way are answered, and what they bring is run if there is time for it. What is
given back is given back when the last of them has been answered, or they would catch it again.
"""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from poller.domain.records import Monotonic
from poller.ports import Clock
from poller.runtime.stopping import wait_until

ANSWER_S_MAX = 2.0
"""After a poll's wait is over, its answer is awaited for this long."""


class Polls:
    """The receives under way, and until when each of them may be answered."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until: dict[int, Monotonic] = {}
        self._serial = 0
        self._none = asyncio.Event()
        self._none.set()

    @contextmanager
    def under_way(self, wait_s: float) -> Iterator[None]:
        """One receive, which waits up to `wait_s` seconds for its first message."""
        self._serial += 1
        number = self._serial
        self._until[number] = Monotonic(self._clock.monotonic() + wait_s + ANSWER_S_MAX)
        self._none.clear()
        try:
            yield
        finally:
            del self._until[number]
            if not self._until:
                self._none.set()

    async def answered(self) -> None:
        """Returns when no receive is under way whose answer may still come."""
        while self._until:
            left_s = max(self._until.values()) - self._clock.monotonic()
            if left_s <= 0:
                return
            await wait_until(self._none, left_s)
