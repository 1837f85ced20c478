"""Owns how operators reach the tasks of a queue mapping: a pause holds pollers up, and a retry ends waits.

`QueueInterventions` decides about the messages. This module wakes what waits, and runs held messages when the pause of their group has ended.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager

from poller.domain.operations import OperatorPause
from poller.rules.queues.interventions import QueueInterventions
from poller.runtime.stopping import Stop, wait_until


class QueueControls:
    """The pauses and skips of one queue mapping, and its waits that an operator may end."""

    def __init__(self) -> None:
        self.asked = QueueInterventions()
        self.changed: Callable[[], None] = _nothing
        """Called when messages that wait here may go on, or may not go on any more."""
        self._resumed = asyncio.Event()
        self._resumed.set()
        self._sleepers: dict[Callable[[], None], None] = {}
        self._waits: dict[Callable[[], None], None] = {}
        """How to end the waits of `sleep`, and those of `ended`."""

    @property
    def stopped(self) -> bool:
        """Whether nothing may be received or begin."""
        return self.asked.stopped

    def pause(self, pauses: Sequence[OperatorPause] | None) -> None:
        """Takes all pauses that are in force; None: they are not known."""
        before = self.asked.stopped, dict(self.asked.groups)
        self.asked.pause(pauses)
        if (self.asked.stopped, self.asked.groups) == before:
            return
        if self.asked.stopped:
            self._resumed.clear()
        else:
            self._resumed.set()
        self.look_again()
        self.wake()

    def wake(self) -> None:
        """Ends the waits of `sleep`, and looks again at all messages that wait here."""
        # Messages that are here get their capacity before pollers do.
        self.changed()
        for each in tuple(self._sleepers):
            each()

    def look_again(self) -> None:
        """Ends the waits of `ended`, so that what an operator wants of these messages is looked at."""
        for each in tuple(self._waits):
            each()

    async def resumed(self) -> None:
        """Returns when messages may be received."""
        await self._resumed.wait()

    async def sleep(self, stop: Stop, delay_s: float) -> bool:
        """Waits `delay_s` seconds, or until an operator ends the wait or the scope is asked to stop. Returns whether it is asked to stop."""
        woken = asyncio.Event()
        with _kept(self._sleepers, woken.set), stop.waking(woken):
            await wait_until(woken, delay_s)
        return stop.requested

    async def ended(self, wait: Awaitable[None]) -> bool:
        """Waits, and returns whether an operator ended the wait. Use it only for waits that can be given up without loss."""
        scope = asyncio.timeout(None)

        def wake() -> None:
            if not scope.expired():
                scope.reschedule(asyncio.get_running_loop().time())

        with _kept(self._waits, wake):
            try:
                async with scope:
                    await wait
            except TimeoutError:
                if not scope.expired():
                    raise
        return scope.expired()


@contextmanager
def _kept(calls: dict[Callable[[], None], None], call: Callable[[], None]) -> Iterator[None]:
    """Has `call` among `calls` inside the block."""
    calls[call] = None
    try:
        yield
    finally:
        del calls[call]


def _nothing() -> None:
    """Nothing waits here yet."""
