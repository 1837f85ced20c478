"""Owns how scopes are stopped: reasons are ranked, can only become stronger, and are passed on to every scope inside.

A stop may have a time limit, which can only become shorter. When a mapping is changed while the daemon goes on, the mapping has
no time limit until the daemon itself is stopped.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from types import TracebackType

SLACK_S = 1.0
"""Work may begin although it may need this much more time than a stop leaves.

So a call whose limit equals the time left can begin at the moment of the stop. A function that uses all its time has failed anyway.
"""


class Reason(IntEnum):
    """Why a scope stops. After LOST nothing may be written."""

    NONE = 0
    REQUESTED = 1
    ENDED = 2
    LOST = 3


class Stop:
    """A scope's stop signal. Code that waits for an event of its own lets the stop set it with `waking`.

    `holds` says whether the scope's lease still holds. When `lost` is read and the lease does not hold, the scope stops with LOST.
    """

    def __init__(self, holds: Callable[[], bool] | None = None) -> None:
        self._holds = holds
        self._reason = Reason.NONE
        self._until: float | None = None
        self._event = asyncio.Event()
        # A dict keeps the order of its keys, so that a simulated run wakes listeners in the same order each time.
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
        """Seconds until the scope must have ended; None if there is no time limit."""
        return None if self._until is None else self._until - asyncio.get_running_loop().time()

    def latest_begin(self, needs_s: float) -> float | None:
        """The time of the loop until which work that needs `needs_s` seconds may begin; None if there is no limit."""
        return None if self._until is None else self._until + SLACK_S - needs_s

    def allows(self, needs_s: float) -> bool:
        """Whether work that needs `needs_s` seconds may begin now. After a stop it must end within the time limit."""
        latest = self.latest_begin(needs_s)
        return latest is None or asyncio.get_running_loop().time() < latest

    def check(self) -> None:
        """Stops the scope if its lease no longer holds."""
        if self._holds is not None and self._reason is not Reason.LOST and not self._holds():
            self.request(Reason.LOST)

    def request(self, reason: Reason, *, within_s: float | None = None) -> None:
        """Asks the scope to stop. A weaker reason or a longer time than the present one changes nothing.

        `within_s` is the time limit; None if there is none.
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
        """The stop signal of a scope inside this one. The inner scope may depend on a lease."""
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
        """Sets `event` at each stronger reason or shorter time, inside the block."""
        with self.listening(event.set):
            yield

    @contextmanager
    def listening(self, listener: Callable[[], None]) -> Iterator[None]:
        """Calls `listener` at each stronger reason or shorter time inside the block, and at once if there is a reason already."""
        try:
            self.attach(listener)
            yield
        finally:
            self.detach(listener)

    def attach(self, listener: Callable[[], None]) -> None:
        """Calls `listener` at each stronger reason or shorter time until it is detached, and at once if there is a reason already."""
        self._listeners[listener] = None
        if self.requested:
            listener()

    def detach(self, listener: Callable[[], None]) -> None:
        """Stops calling `listener`."""
        self._listeners.pop(listener, None)

    async def wait(self) -> None:
        """Returns when the scope is asked to stop."""
        await self._event.wait()

    async def sleep(self, delay_s: float) -> bool:
        """Waits `delay_s` seconds or until the scope is asked to stop. Returns whether it is asked to stop."""
        return await wait_until(self._event, delay_s)


async def wait_until(event: asyncio.Event, delay_s: float | None) -> bool:
    """Waits for `event`, `delay_s` seconds at most (None: no limit). Returns whether it is set."""
    try:
        async with asyncio.timeout(delay_s):
            await event.wait()
    except TimeoutError:
        pass
    return event.is_set()


class interrupted_by:  # noqa: N801 - it is used as a function
    """Ends the block at its next wait when the scope is asked to stop. Use it only for waits that can be given up without loss.

    Reasons weaker than `at` do not end the block. With `at` LOST, for example, the block is finished at other stops.
    With `needs_s` the block ends at the moment from which work that needs this long may no longer begin. With `after_s` it ends so long
    after the stop at the latest, also if the stop has no time limit.

    It is a class because it is used around every receive, and a generator takes three times as long.
    """

    __slots__ = ("_after_s", "_at", "_needs_s", "_scope", "_stop")

    def __init__(
        self,
        stop: Stop,
        at: Reason = Reason.REQUESTED,
        *,
        needs_s: float | None = None,
        after_s: float | None = None,
    ) -> None:
        self._stop = stop
        self._at = at
        self._needs_s = needs_s
        self._after_s = after_s
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
        # A stronger reason may come while the block is already being ended.
        if self._stop.reason < self._at or self._scope.expired():
            return
        now = asyncio.get_running_loop().time()
        moment = now if self._needs_s is None else self._stop.latest_begin(self._needs_s)
        # A second, stronger stop does not begin the time after the first one again.
        latest = self._scope.when() or (None if self._after_s is None else now + self._after_s)
        moments = [each for each in (moment, latest) if each is not None]
        if moments:
            self._scope.reschedule(max(now, min(moments)))


async def unless_stopped[T](stop: Stop, work: Awaitable[T], at: Reason = Reason.REQUESTED) -> T | None:
    """The result of `work`, or None if a stop came first. As with `interrupted_by`, use it only for work that can be given up without loss."""
    async with interrupted_by(stop, at):
        return await work
    return None
