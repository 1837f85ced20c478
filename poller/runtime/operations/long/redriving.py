"""Owns a redrive: it reads notices one after the other, has the function called again, and removes those whose batches succeeded.

It may end at any moment. Whoever goes on reads the notices that are left, so that a batch may be called twice, and none is lost.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, assert_never

from poller.domain.errors import AccessDenied, PortError, ResourceMissing, ServiceUnavailable
from poller.domain.invocations import StoredNotice
from poller.domain.telemetry.labels import TaskEnd
from poller.operator_ports import HoldingNotices, NoticeSource
from poller.ports import Clock
from poller.rules.operations.redriving import STAY_MAX, NoticeRefused, RedriveTally
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Verdict
from poller.runtime.stopping import Reason, Stop
from poller.runtime.watched_tasks import TaskFault

READ_MAX = 1
"""Notices that are read at once. What a worker holds back when it is killed waits for a time before another one can read it."""
LOOK_READ_MAX = 10
TRIES_MAX = 6
"""Tries of a call of a port about one notice, with back-off. Then the notice stays."""
HELD_LOOK_S = 1.0
PAUSED = "the mapping is paused"
HELD_BY_OTHERS = "another reader holds it back"
KEEPS, KEEP_S_MIN = 3, 1.0
"""How often in its time a notice is held back anew, and the shortest interval."""
LINES_MAX = 50
"""Notices that a dry run lists."""
LOOKED_AT_MAX = 1_000
"""Notices that a dry run reads if it has no limit."""


class NoticeKept(ServiceUnavailable):
    """A notice whose batch succeeded cannot be removed. The redrive ends, since each batch would be called again by the next one."""


@dataclass(frozen=True, slots=True)
class Called:
    """The function was called with a batch of so many records."""

    verdict: Verdict
    records: int


class Redrivable(Protocol):
    """A mapping whose function can be called again with batches that were given up."""

    def look(self, stored: StoredNotice) -> str:
        """What a redrive of this notice would call, for people; raises NoticeRefused."""
        ...

    async def again(self, stored: StoredNotice, source: NoticeSource, stop: Stop) -> Called | None:
        """Calls the function with the batch of a notice. None: a stop came before the call. Raises NoticeRefused and PortError."""
        ...


class Redrive:
    """One redrive.

    `wait_s` gives the wait after so many failures in a row. While `held`, nothing is called. `changed` is awaited after each notice,
    and `waits` with the reason when it waits for something that may take any time.
    Notices that other readers hold back are waited for, for `hold_s` at most: a worker that was killed may have held them.
    """

    def __init__(
        self,
        mapping: Redrivable,
        source: NoticeSource,
        stop: Stop,
        *,
        clock: Clock,
        wait_s: Callable[[int], float],
        held: Callable[[], bool],
        changed: Callable[[RedriveTally], Awaitable[None]],
        waits: Callable[[str], Awaitable[None]],
        tally: RedriveTally = RedriveTally(),
        hold_s: float = 0.0,
    ) -> None:
        self.tally = tally
        self._mapping = mapping
        self._source = source
        self._stop = stop
        self._clock = clock
        self._wait_s = wait_s
        self._held = held
        self._changed = changed
        self._waits = waits
        self._hold_s = hold_s

    async def run(self, *, limit: int | None, per_s: float | None) -> RedriveTally | None:
        """Redrives the notices, `limit` at most and `per_s` in a second at most. None: a stop came first. Raises PortError if they cannot be read."""
        done, opened = 0, self._clock.monotonic()
        # Whether nobody held anything back before the read. It has to be so before and behind an empty read: what comes back between a
        # read and the count is there for another read, and what another reader takes between the count and the read is counted behind it.
        free = False
        while limit is None or done < limit:
            if self.tally.failed + self.tally.refused >= STAY_MAX:
                self.tally = replace(self.tally, full=True)
                break
            began = self._clock.monotonic()
            if await self._held_off(self._stop):
                return None
            notices = await self._insisting(partial(self._source.read, notices_max=READ_MAX))
            if notices is None:
                return None
            if not notices and not self._seen_all():
                free = False
                continue
            if not notices:
                others = await self._insisting(self._held_by_others)
                if others is None:
                    return None
                if free and not others:
                    break
                free = not others
                if others and self._clock.monotonic() - opened >= self._hold_s:
                    self.tally = self.tally.stays(HELD_BY_OTHERS, refused=True, count=others)
                    break
                if others:
                    await self._waits(f"{HELD_BY_OTHERS} (notices: {others})")
                    await self._stop.sleep(HELD_LOOK_S)
                continue
            free = False
            for notice in notices:
                if not await self._one(notice):
                    if self._stop.requested:
                        return None
                    # Its time was over, so that it is read again.
                    opened = self._clock.monotonic()
                    continue
                done += 1
                await self._changed(self.tally)
                if per_s is not None:
                    await self._stop.sleep(max(0.0, began + 1 / per_s - self._clock.monotonic()))
        return self.tally

    async def look(self, *, limit: int | None) -> tuple[RedriveTally, list[str]]:
        """Reads the notices and calls nothing. Returns how many could be called, and a line for each. Raises PortError.

        A stop ends it before everything was read.
        """
        lines: list[str] = []
        left = LOOKED_AT_MAX if limit is None else min(limit, STAY_MAX)
        while left and not self._stop.requested:
            notices = await self._source.read(notices_max=min(LOOK_READ_MAX, left))
            if not notices and self._seen_all():
                break
            left -= len(notices)
            for notice in notices:
                line = self._looked(notice)
                if len(lines) < LINES_MAX:
                    lines.append(line)
                await self._source.leave(notice)
        return self.tally, lines

    def _seen_all(self) -> bool:
        """Whether a read that brought nothing means that nothing is there."""
        return not isinstance(self._source, HoldingNotices) or self._source.seen_all

    def _looked(self, notice: StoredNotice) -> str:
        """Counts a notice that is looked at; returns its line."""
        try:
            line = self._mapping.look(notice)
        except NoticeRefused as refused:
            self.tally = self.tally.stays(str(refused), refused=True)
            return str(refused)
        self.tally = self.tally.succeeded(0)
        return line

    async def _one(self, notice: StoredNotice) -> bool:
        """Redrives one notice. Returns False if it was not decided: a stop came before, or its time was over."""
        try:
            called = await self._called_while_kept(notice)
            if called is None:
                return False
            reason = _failure(called.verdict)
            if not reason:
                if not await self._settled(notice):
                    return False
                self.tally = self.tally.succeeded(called.records)
                return True
            self.tally = self.tally.stays(reason, refused=False)
        except NoticeRefused as refused:
            self.tally = self.tally.stays(str(refused), refused=True)
        except NoticeKept:
            raise
        except PortError as error:
            self.tally = self.tally.stays(error.reason, refused=True)
        return await self._insisting(lambda: self._left(notice)) is not None

    async def _called_while_kept(self, notice: StoredNotice) -> Called | None:
        """Calls the function while the notice is held back. None: a stop came first, or its time was over. The wait may take any time."""
        if not isinstance(self._source, HoldingNotices):
            return await self._called(notice, self._stop)
        called, failed, alone = None, None, False
        with self._stop.child() as stop:
            async with asyncio.TaskGroup() as group:
                keeping = group.create_task(self._keep(self._source, notice, stop), name="hold a notice back")
                try:
                    called = await self._called(notice, stop)
                except (NoticeRefused, PortError) as error:
                    # Outside of the group, which would wrap it.
                    failed = error
                finally:
                    alone = keeping.done() and not stop.requested
                    keeping.cancel()
        if failed is not None:
            raise failed
        if alone:
            raise TaskFault("hold a notice back", TaskEnd.CANCELLED)
        return called

    async def _keep(self, source: HoldingNotices, notice: StoredNotice, stop: Stop) -> None:
        """Holds a notice back until it is cancelled. Requests `stop` when its time was over all the same."""
        while not await stop.sleep(max(KEEP_S_MIN, self._hold_s / KEEPS)):
            try:
                if not await source.hold(notice):
                    stop.request(Reason.REQUESTED)
            except PortError:
                continue

    async def _called(self, notice: StoredNotice, stop: Stop) -> Called | None:
        """Calls the function, and repeats that while it cannot be reached. None: a stop came first."""
        tries = 0
        while not await self._held_off(stop):
            called = await self._unless_held(notice, stop)
            if called is None:
                continue
            if not isinstance(called.verdict, Deferred):
                return called
            await self._waits(f"the function cannot be called: {called.verdict.error}")
            await stop.sleep(max(self._wait_s(tries), called.verdict.retry_after_s or 0.0))
            tries += 1
        return None

    async def _unless_held(self, notice: StoredNotice, stop: Stop) -> Called | None:
        """Calls the function. None: a stop, or a pause of the mapping, came before the call."""
        with stop.child(lambda: not self._held()) as attempt:
            # An object that a notice names may be gone or closed to us. There may be many such notices, and they stay anyway.
            return await self._insisting(
                lambda: self._mapping.again(notice, self._source, attempt),
                once=(AccessDenied, ResourceMissing),
            )

    async def _held_off(self, stop: Stop) -> bool:
        """Waits while the mapping is paused. Returns whether a stop came."""
        while not stop.requested and self._held():
            await self._waits(PAUSED)
            await stop.sleep(HELD_LOOK_S)
        return stop.requested

    async def _held_by_others(self) -> int:
        return await self._source.held_by_others() if isinstance(self._source, HoldingNotices) else 0

    async def _settled(self, notice: StoredNotice) -> bool:
        """Removes the notice of a batch that succeeded. False: a stop came first. Raises NoticeKept."""
        try:
            return await self._insisting(lambda: self._removed(notice)) is not None
        except PortError as error:
            text = f"its batch succeeded, but its notice cannot be removed: {error.reason}"
            raise NoticeKept(text) from error

    async def _removed(self, notice: StoredNotice) -> bool:
        await self._source.remove(notice)
        return True

    async def _left(self, notice: StoredNotice) -> bool:
        await self._source.leave(notice)
        return True

    async def _insisting[T](
        self, call: Callable[[], Awaitable[T]], *, once: tuple[type[PortError], ...] = ()
    ) -> T | None:
        """Makes a call, and repeats it a few times after an error of its port, which it then raises. None: a stop came first.

        Errors of the kinds `once` are raised at once.
        """
        tries = 0
        while True:
            try:
                return await call()
            except PortError as error:
                tries += 1
                if tries >= TRIES_MAX or isinstance(error, once):
                    raise
            if await self._stop.sleep(self._wait_s(tries - 1)):
                return None


def _failure(verdict: Verdict) -> str:
    """Why a batch is not settled; empty if it is."""
    match verdict:
        case Accepted():
            return ""
        case Partial(failed):
            return f"the function reported {'a record' if len(failed) == 1 else 'records'} as failed"
        case Rejected(error=error) | Deferred(error=error):
            return error
        case _:
            assert_never(verdict)
