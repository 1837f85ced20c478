"""Owns how scopes are told to stop: reasons are ranked, only escalate, and reach every scope inside.

A stop may have a time within which all must end; it only becomes shorter. A mapping that is changed while the daemon goes on has
all the time it needs, until the daemon itself is stopped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import TracebackType

SLACK_S = 1.0
"""What begins may take so much longer than there is time: a function that uses its time up has failed anyway.

So a call whose limit is just the time that a stop leaves can begin at that stop.
"""


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
        self._until: float | None = None
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

    @property
    def left_s(self) -> float | None:
        """How long the scope still has; None for as long as it needs."""
        return None if self._until is None else self._until - asyncio.get_running_loop().time()

    def latest_begin(self, needs_s: float) -> float | None:
        """Until when on the loop's clock something may begin that takes so long; None for any time."""
        return None if self._until is None else self._until + SLACK_S - needs_s

    def allows(self, needs_s: float) -> bool:
        """Whether something that takes so long may begin now: after a stop, only what ends in time."""
        latest = self.latest_begin(needs_s)
        return latest is None or asyncio.get_running_loop().time() < latest

    def check(self) -> None:
        """Stops the scope if its lease does not hold any more."""
        if self._holds is not None and self._reason is not Reason.LOST and not self._holds():
            self.request(Reason.LOST)

    def request(self, reason: Reason, *, within_s: float | None = None) -> None:
        """Asks the scope to stop; a weaker reason than the present one changes nothing, nor does a longer time.

        `within_s`: so long it still has; None for as long as it needs.
        """
        until = None if within_s is None else asyncio.get_running_loop().time() + within_s
        sooner = until is not None and (self._until is None or until < self._until)
        sooner = sooner and self._reason is not Reason.LOST
        if reason <= self._reason and not sooner:
            return
        self._reason = max(reason, self._reason)
        if sooner:
            self._until = until
        self._event.set()
        for listener in tuple(self._listeners):
            listener()

    @contextmanager
    def child(self, holds: Callable[[], bool] | None = None) -> Iterator["Stop"]:
        """The stop signal of a scope inside this one, which may depend on a lease."""
        inner = Stop(holds)
        with self.passing_to(inner):
            yield inner

    @contextmanager
    def passing_to(self, inner: "Stop") -> Iterator[None]:
        """Passes each new reason or shorter time on to the stop signal of a scope inside this one."""
        with self.listening(lambda: inner.request(self._reason, within_s=self.left_s)):
            yield

    @contextmanager
    def waking(self, event: asyncio.Event) -> Iterator[None]:
        """Sets `event` whenever there is a new reason or a shorter time."""
        with self.listening(event.set):
            yield

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` on each new reason or shorter time, and now if there is a reason already."""
        try:
            self.attach(listener)
            yield
        finally:
            self.detach(listener)

    def attach(self, listener: Callable[[], None]) -> None:
        """Calls `listener` on each new reason or shorter time until it is detached, and now if there is a reason already."""
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

    Weaker reasons than `at` do not end it: what has to be finished when a stop is asked for may be of no use after LOST.
    With `needs_s` it ends when what takes so long may no longer begin, if that moment comes.

    A class, since it surrounds every receive: a generator takes three times as long.
    """

    __slots__ = ("_at", "_needs_s", "_scope", "_stop")

    def __init__(self, stop: Stop, at: Reason = Reason.REQUESTED, *, needs_s: float | None = None) -> None:
        self._stop = stop
        self._at = at
        self._needs_s = needs_s
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
        if self._stop.reason < self._at or self._scope.expired():
            return
        now = asyncio.get_running_loop().time()
        moment = now if self._needs_s is None else self._stop.latest_begin(self._needs_s)
        if moment is not None:
            self._scope.reschedule(max(now, moment))


async def unless_stopped[T](stop: Stop, work: Awaitable[T], at: Reason = Reason.REQUESTED) -> T | None:
    """What `work` returns, or None when a stop came first. As `interrupted_by`, for what may be given up without loss only."""
    async with interrupted_by(stop, at):
        return await work
    return None
