"""Owns how scopes are told to stop: reasons are ranked, only escalate, and reach every scope inside."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import TracebackType


class Reason(IntEnum):
    """Why a scope stops. After LOST nothing is written any more."""

    NONE = 0
    REQUESTED = 1
    ENDED = 2
    LOST = 3


class Stop:
    """A scope's stop signal. Those who wait on an event of their own attach it with `waking`.

    `holds` says whether the scope's lease still holds; the first look at `lost` that finds it does not is a reason to stop.
    """

    def __init__(self, holds: Callable[[], bool] | None = None) -> None:
        self._holds = holds
        self._reason = Reason.NONE
        self._event = asyncio.Event()
        # A dict keeps the order in which they came, so that a simulated run wakes them in the same order each time.
        self._listeners: dict[Callable[[], None], None] = {}

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
        self.check()
        return self._reason is Reason.LOST

    def check(self) -> None:
        """Stops the scope if its lease does not hold any more."""
        if self._holds is not None and self._reason is not Reason.LOST and not self._holds():
            self.request(Reason.LOST)

    def request(self, reason: Reason) -> None:
        """Asks the scope to stop; a weaker reason than the present one changes nothing."""
        if reason <= self._reason:
            return
        self._reason = reason
        self._event.set()
        for listener in tuple(self._listeners):
            listener()

    @contextmanager
    def child(self, holds: Callable[[], bool] | None = None) -> Iterator["Stop"]:
        """The stop signal of a scope inside this one, which may depend on a lease."""
        inner = Stop(holds)
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
        try:
            self.attach(listener)
            yield
        finally:
            self.detach(listener)

    def attach(self, listener: Callable[[], None]) -> None:
        """Calls `listener` on each new reason until it is detached, and now if there is one already."""
        self._listeners[listener] = None
        if self.requested:
            listener()

    def detach(self, listener: Callable[[], None]) -> None:
        """Calls `listener` no more."""
        self._listeners.pop(listener, None)

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


class interrupted_by:  # noqa: N801 - it is used as a function
    """Ends the block at its next wait when a stop is asked for. For waits that can be given up without loss only.

    A class, since it surrounds every receive: a generator takes three times as long.
    """

    __slots__ = ("_scope", "_stop")

    def __init__(self, stop: Stop) -> None:
        self._stop = stop
        self._scope = asyncio.timeout(None)

    async def __aenter__(self) -> None:
        await self._scope.__aenter__()
        self._stop.attach(self._interrupt)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self._stop.detach(self._interrupt)
        try:
            await self._scope.__aexit__(kind, error, trace)
        except TimeoutError:
            return True
        return isinstance(error, TimeoutError) and self._scope.expired()

    def _interrupt(self) -> None:
        # A second, stronger reason may come while the first one is still taking effect.
        if not self._scope.expired():
            self._scope.reschedule(asyncio.get_running_loop().time())
