"""Owns the capacity that a queue mapping needs before it receives: a slot of the mapping and a slot of the function.

A mapping may have a maximum of invocations that all its workers have in common. Each worker has a share of it. The share changes as
workers come and go. If there are more workers than invocations, some workers have a share of 0. Such a worker receives nothing and cannot try the batches that it still has. They would wait there, hidden from all others, as long as the share is
0. So after LOST_AFTER_S with a share of 0 the share counts as lost, and the batches that wait for it are given back to the queue.
A share of 0 for a shorter time is normal: other workers still run earlier invocations, or a heartbeat is late.

If the function has a rate or a breaker, a permit for one call belongs to the capacity. The permit comes before the function's slot.

A long poll holds capacity that may stay unused for 20 seconds. A call through the Invoke API, or an asynchronous one, that finds no
other slot takes the poll's. If the poll brings messages then, they wait for capacity, like those of a throttled batch.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from poller.domain.records import MappingId, Monotonic
from poller.ports import Clock
from poller.rules.queues.polling import MESSAGES_MAX, Share
from poller.runtime.flow_control.flow_control import FlowControl, Permit
from poller.runtime.queues.context import QueueContext
from poller.runtime.slots import Slots
from poller.runtime.stopping import wait_until

CHECK_S = 1.0
"""Seconds between two checks of this worker's share of the maximum."""
LOST_AFTER_S = 30.0


class WorkerShare:
    """The share of this worker. `allowed` gives how many invocations it may run at the moment."""

    def __init__(self, clock: Clock, allowed: Callable[[], int]) -> None:
        self._clock = clock
        self._allowed = allowed
        self._zero_since: Monotonic | None = None

    def covers(self, invocations: int) -> bool:
        """Whether this many invocations may run at once."""
        self._update()
        return invocations <= self._allowed()

    @property
    def lost(self) -> bool:
        """Whether the share was 0 at every check for LOST_AFTER_S."""
        self._update()
        since = self._zero_since
        return since is not None and self._clock.monotonic() - since >= LOST_AFTER_S

    def _update(self) -> None:
        if self._allowed() > 0:
            self._zero_since = None
        elif self._zero_since is None:
            self._zero_since = self._clock.monotonic()


@dataclass(frozen=True, slots=True)
class Leave:
    """What the function itself gave for one invocation, beside the slot."""

    permit: Permit | None = None


UNLIMITED = Leave()
"""For functions that have neither a rate nor a breaker."""


@dataclass(frozen=True, slots=True)
class Permits:
    """How a mapping gets permits of its function: for a batch of so many records at most."""

    flow: FlowControl
    mapping: MappingId
    records_max: int

    async def wait(self) -> Leave:
        """Waits for a permit."""
        return Leave(await self.flow.permit(self.mapping, self.records_max))

    @property
    def awaited(self) -> bool:
        """Whether another mapping waits for a permit of this function."""
        return self.flow.awaited_by_others(self.mapping)

    def now(self) -> Leave | None:
        """A permit if it needs no wait."""
        permit = self.flow.permit_now(self.records_max)
        return None if permit is None else Leave(permit)


class Reservation:
    """Capacity for one invocation. `extra`: in addition to the one of each poller."""

    def __init__(
        self, capacity: "QueueCapacity", leave: Leave, *, extra: bool = False, held: bool = True
    ) -> None:
        self._capacity = capacity
        self._extra = extra
        self._leave = leave
        self._held = held

    def free(self) -> None:
        """Gives the capacity back. A second call does nothing."""
        if self._held:
            self._held = False
            self._capacity.give_back(self._leave, extra=self._extra)

    @property
    def permit(self) -> Permit | None:
        """The permit of the next call; None if the function needs none."""
        return self._leave.permit

    def start(self, records: int) -> bool:
        """Whether a call of so many records may begin now. If not, capacity must be taken `again` first."""
        permit = self._leave.permit
        return self._held and (permit is None or permit.start(records))

    def lent(self) -> AbstractContextManager[None]:
        """Lends the capacity inside the block to a call of the function. Afterwards `held` says whether it is still reserved."""
        return self._capacity.lent(self) if self._held else nullcontext()

    def yield_permit(self) -> None:
        """Gives the permit back if another mapping waits for one, and keeps the rest. The batch needs a permit again when it runs.

        For a batch that gathers: its window may last for minutes, in which the others could be called.
        """
        if self._leave.permit is not None and self._capacity.permit_awaited:
            self._leave.permit.free()

    @property
    def held(self) -> bool:
        """Whether the capacity is still reserved."""
        return self._held

    @contextmanager
    def away(self) -> Iterator[None]:
        """Gives the capacity back while a batch waits. The batch takes it again with `again`."""
        self.free()
        self._capacity.away += 1
        try:
            yield
        finally:
            self._capacity.away -= 1

    async def again(self) -> None:
        """Waits for capacity and takes it again. Afterwards `held` says whether there was any."""
        with self._capacity.returning():
            leave = await self._capacity.take(extra=self._extra)
        self._held = leave is not None
        self._leave = leave or UNLIMITED


class QueueCapacity:
    """The capacity of one queue mapping.

    `worker_share` is this worker's share of a maximum of all workers; None without such a maximum. `permits` is None if the
    function has neither a rate nor a breaker.
    """

    def __init__(
        self,
        function: Slots,
        concurrency_max: int,
        *,
        worker_share: WorkerShare | None = None,
        permits: Permits | None = None,
    ) -> None:
        self._permits = permits
        self.queued = 0
        self.away = 0
        """Batches that gave their capacity back and will take it again."""
        self.held = 0
        """Batches of paused groups, which need capacity when the pause ends."""
        self.extra = 0
        """Invocations in addition to the one of each poller."""
        self._worker_share = worker_share
        self._given_back = asyncio.Event()
        self._function = function
        self._mapping = Slots(concurrency_max)
        self._turn = asyncio.Lock()
        self._receives = asyncio.Lock()
        """If the function has permits: whose turn it is among those that want to receive."""
        self.used = 0
        """Invocations that may run now."""
        self._own_waiting = 0
        self._returning = 0
        self._none_returns = asyncio.Event()

    @contextmanager
    def returning(self) -> Iterator[None]:
        """A batch that has its messages waits for capacity inside the block."""
        self._returning += 1
        try:
            yield
        finally:
            self._returning -= 1
            if not self._returning:
                self._none_returns.set()

    async def reserve(self) -> Reservation | None:
        """Waits for capacity for one invocation. Returns None if this worker's share is lost.

        Where permits are few, batches that have their messages come before new receives.
        """
        if self._permits is None:
            leave = await self.take(extra=False)
        else:
            with self._queueing():
                # One poller at a time goes into the line, so that a batch has at most one of them before it.
                async with self._receives:
                    while self._returning:
                        self._none_returns.clear()
                        await self._none_returns.wait()
                    leave = await self._take(extra=False)
        return None if leave is None else Reservation(self, leave, extra=False)

    def none_yet(self) -> Reservation:
        """For a batch that has its messages and no capacity yet: it is taken by `again`."""
        return Reservation(self, UNLIMITED, held=False)

    async def take(self, *, extra: bool) -> Leave | None:
        """For reservations: waits for capacity. Returns None if this worker's share is lost.

        Only one poller of the mapping at a time waits for a slot of the function, so that a mapping with many pollers does not
        delay other mappings.
        """
        with self._queueing():
            return await self._take(extra=extra)

    async def _take(self, *, extra: bool) -> Leave | None:
        await self._mapping.acquire()
        taken: Leave | None = None
        try:
            async with self._turn:
                taken = await self._acquire()
        finally:
            if taken is None:
                self._mapping.release()
        if taken is not None:
            self._count(extra=extra)
        return taken

    @contextmanager
    def _queueing(self) -> Iterator[None]:
        self.queued += 1
        try:
            yield
        finally:
            self.queued -= 1

    async def reserve_now(self, *, extra: bool = False) -> Reservation | None:
        """Capacity for one invocation if it is free and nothing waits for it, else None. `extra`: in addition to a poller's own."""
        if self._turn.locked() or not self._within_share() or (self._permits is not None and self._returning):
            return None
        if not await self._mapping.acquire_now():
            return None
        leave = UNLIMITED if self._permits is None else self._permits.now()
        if leave is None or not await self._function.acquire_now():
            _free(leave)
            self._mapping.release()
            return None
        self._count(extra=extra)
        return Reservation(self, leave, extra=extra)

    def give_back(self, leave: Leave, *, extra: bool) -> None:
        """For reservations."""
        _free(leave)
        self.used -= 1
        self._given_back.set()
        self.extra -= extra
        self._function.release()
        self._mapping.release()

    def lent(self, reservation: Reservation) -> AbstractContextManager[None]:
        """For reservations."""
        return self._function.lending(reservation.free)

    @property
    def permit_awaited(self) -> bool:
        """Whether another mapping waits for a permit of the function."""
        return self._permits is not None and self._permits.awaited

    def share(self) -> Share:
        """The state of the function's slots, for a caller that holds one."""
        slots = self._function
        others = slots.in_flight + slots.waiting - self.used - self._own_waiting
        return Share(
            limit=slots.limit,
            free=slots.free,
            waiting=slots.waiting - self._own_waiting,
            alone=slots.users <= 1 and others <= 0,
            awaited=self.away + self.held > 0
            and (slots.free == 0 or self._mapping.free == 0 or not self._within_share()),
            scarce=self._permits is not None and not self._permits.flow.roomy,
        )

    def _within_share(self) -> bool:
        """Whether one more invocation is within this worker's share."""
        return self._worker_share is None or self._worker_share.covers(self.used + 1)

    def _count(self, *, extra: bool) -> None:
        self.used += 1
        self.extra += extra

    async def _acquire(self) -> Leave | None:
        """Takes a slot of the function, within this worker's share of the maximum. The share may change at any moment."""
        while True:
            while not self._within_share():
                if self._worker_share is not None and self._worker_share.lost:
                    return None
                self._given_back.clear()
                await wait_until(self._given_back, CHECK_S)
            leave = UNLIMITED if self._permits is None else await self._permits.wait()
            self._own_waiting += 1
            try:
                await self._function.acquire()
            except BaseException:
                _free(leave)
                raise
            finally:
                self._own_waiting -= 1
            if self._within_share():
                return leave
            _free(leave)
            self._function.release()


def permits_of(parts: QueueContext) -> Permits | None:
    """How this mapping gets permits of its function; None if the function has neither a rate nor a breaker."""
    flow = parts.function.flow
    plan = parts.plan
    records_max = (
        plan.batch.records_max if plan.batch.window_s > 0 else min(MESSAGES_MAX, plan.batch.records_max)
    )
    return None if flow is None else Permits(flow, plan.mapping, records_max)


def _free(leave: Leave | None) -> None:
    if leave is not None and leave.permit is not None:
        leave.permit.free()
