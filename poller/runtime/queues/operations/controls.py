"""Owns how operators reach the tasks of a queue mapping: a pause holds pollers up, and a retry ends waits.

`QueueInterventions` decides about the messages. This module wakes what waits, and runs held messages when the pause of their group has ended.
"""

import asyncio
from collections.abc import Callable, Sequence

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
        self._sleepers: dict[asyncio.Event, None] = {}

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
        self.wake()

    def wake(self) -> None:
        """Ends the waits of `sleep`, and looks again at all messages that wait here."""
        # Messages that are here get their capacity before pollers do.
        self.changed()
        for each in tuple(self._sleepers):
            each.set()

    async def resumed(self) -> None:
        """Returns when messages may be received."""
        await self._resumed.wait()

    async def sleep(self, stop: Stop, delay_s: float) -> bool:
        """Waits `delay_s` seconds, or until an operator ends the wait or the scope is asked to stop. Returns whether it is asked to stop."""
        woken = asyncio.Event()
        self._sleepers[woken] = None
        try:
            with stop.waking(woken):
                await wait_until(woken, delay_s)
        finally:
            del self._sleepers[woken]
        return stop.requested


def _nothing() -> None:
    """Nothing waits here yet."""
