"""Owns how scopes are told to stop: reasons are ranked, only escalate, and reach every scope inside."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from enum import IntEnum


class Reason(IntEnum):
    """Why a scope stops. After LOST nothing is written any more."""

    NONE = 0
    REQUESTED = 1
    ENDED = 2
    LOST = 3


class Stop:
    """A scope's stop signal. Those who wait on an event of their own attach it with `waking`."""

    def __init__(self) -> None:
        self._reason = Reason.NONE
        self._event = asyncio.Event()
        self._listeners: set[Callable[[], None]] = set()

    @property
    def reason(self) -> Reason:
        """The strongest reason so far."""
        return self._reason

    @property
    def requested(self) -> bool:
        """Whether there is any reason to stop."""
        return self._reason is not Reason.NONE

    @property
    def lost(self) -> bool:
        """Whether nothing may be written any more."""
        return self._reason is Reason.LOST

    def request(self, reason: Reason) -> None:
        """Asks the scope to stop; a weaker reason than the present one changes nothing."""
        if reason <= self._reason:
            return
        self._reason = reason
        self._event.set()
        for listener in tuple(self._listeners):
            listener()

    @contextmanager
    def child(self) -> Iterator["Stop"]:
        """The stop signal of a scope inside this one."""
        inner = Stop()
        with self.listening(lambda: inner.request(self._reason)):
            yield inner

    @contextmanager
    def waking(self, event: asyncio.Event) -> Iterator[None]:
        """Sets `event` whenever there is a new reason."""
        with self.listening(event.set):
            yield

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` on each new reason, and now if there is one already."""
        self._listeners.add(listener)
        try:
            if self.requested:
                listener()
            yield
        finally:
            self._listeners.discard(listener)

    async def wait(self) -> None:
        """Returns when the scope is asked to stop."""
        await self._event.wait()

    async def sleep(self, delay_s: float) -> bool:
        """Waits `delay_s` seconds or until a stop is asked for; whether a stop is asked for."""
        return await wait_until(self._event, delay_s)


async def wait_until(event: asyncio.Event, delay_s: float | None) -> bool:
    """Waits for `event`, `delay_s` seconds at most (None: without limit); whether it is set."""
    try:
        async with asyncio.timeout(delay_s):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()


@asynccontextmanager
async def interrupted_by(stop: Stop) -> AsyncIterator[None]:
    """Ends the block at its next wait when a stop is asked for. For waits that can be given up without loss only."""
    loop = asyncio.get_running_loop()
    scope = asyncio.timeout(None)
    try:
        async with scope:
            with stop.listening(lambda: scope.reschedule(loop.time())):
                yield
    except TimeoutError:
        if not scope.expired():
            raise
