"""Owns how pollers wait while the function of a queue mapping refuses everything."""

import asyncio

from poller.domain.records import Monotonic
from poller.ports import Clock
from poller.rules.queues.refusals import Refusals
from poller.runtime.stopping import wait_until


class RefusalGate:
    """Open as long as the function takes what it gets; see `poller.rules.queues.refusals`."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._refusals = Refusals()
        self._changed = asyncio.Event()

    @property
    def open(self) -> bool:
        """Whether a receive may begin now."""
        return self._refusals.pause_s(self._clock.monotonic()) == 0.0

    @property
    def everything_refused(self) -> bool:
        """Whether the function is assumed to refuse everything."""
        return self._refusals.everything

    async def passed(self) -> None:
        """Waits until a receive may begin. It wakes all waiting pollers, so check `open` again before the receive."""
        while (pause_s := self._refusals.pause_s(self._clock.monotonic())) != 0.0:
            self._changed.clear()
            await wait_until(self._changed, pause_s)

    def begin(self) -> int:
        """A receive begins. Pass the returned number to `end`."""
        return self._refusals.begin()

    def end(self, receive: int) -> None:
        """The messages of the receive are settled, or it brought none."""
        if receive:
            self._refusals.end(receive)
            self._changed.set()

    def refused(self) -> None:
        """A batch was refused at its first try. Call `gone` when it no longer waits."""
        self._refusals.refused(self._clock.monotonic())
        self._changed.set()

    def stalled(self) -> None:
        """All pollers wait."""
        self._refusals.stalled(self._clock.monotonic())
        self._changed.set()

    def try_now(self) -> None:
        """An operator asks for the next try."""
        self._refusals.try_now(self._clock.monotonic())
        self._changed.set()

    def accepted(self) -> None:
        """A call went through."""
        if self._refusals.everything:
            self._changed.set()
        self._refusals.accepted(self._clock.monotonic())

    def replaceable(self, waits_since: Monotonic | None) -> bool:
        """Whether another poller may take the place of a poller whose batch has waited since then (None: it does not wait)."""
        return self._refusals.replaceable(waits_since, self._clock.monotonic())

    def gone(self) -> None:
        """A refused batch went through, or was given up."""
        self._refusals.gone()
        self._changed.set()
