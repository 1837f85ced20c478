"""Owns the room that a queue mapping needs before it receives: a slot of the mapping, a slot of the function, no refusal."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poller.rules.polling import Share
from poller.runtime.invoking import Slots


class Reservation:
    """Room for one invocation; `extra`: beside the one that each poller has."""

    def __init__(self, capacity: "Capacity", *, extra: bool) -> None:
        self._capacity: Capacity | None = capacity
        self._extra = extra

    def free(self) -> None:
        """Gives the room back; again: nothing."""
        capacity, self._capacity = self._capacity, None
        if capacity is not None:
            capacity.give_back(extra=self._extra)


class Capacity:
    """The room of one queue mapping. `open` is clear while the function refuses batches that we have already.

    `may_add` says whether one more invocation than there are pollers is within this worker's part of the maximum.
    """

    def __init__(
        self, function: Slots, concurrency_max: int, *, may_add: Callable[[], bool] = lambda: True
    ) -> None:
        self.open = asyncio.Event()
        self.open.set()
        self.queued = 0
        self.extra = 0
        """Invocations beside those of the pollers themselves."""
        self._may_add = may_add
        self._function = function
        self._mapping = Slots(concurrency_max)
        self._turn = asyncio.Lock()
        self._refused = 0
        self._own = 0
        self._own_waiting = 0

    async def reserve(self) -> Reservation:
        """Room for one invocation, waiting for it if need be.

        One poller of the mapping at a time stands in the function's line, so that many pollers of one mapping do not
        keep other mappings waiting.
        """
        self.queued += 1
        try:
            await self._mapping.acquire()
            try:
                async with self._turn:
                    await self._acquire()
            except asyncio.CancelledError:
                self._mapping.release()
                raise
        finally:
            self.queued -= 1
        return self._granted(extra=False)

    async def reserve_now(self, *, extra: bool = False) -> Reservation | None:
        """Room for one invocation if there is some and nobody waits for it; `extra`: beside the one that a poller has."""
        if extra and not self._may_add():
            return None
        if not await self._mapping.acquire_now():
            return None
        if not await self._function.acquire_now():
            self._mapping.release()
            return None
        return self._granted(extra=extra)

    def give_back(self, *, extra: bool) -> None:
        """For reservations."""
        self._own -= 1
        self.extra -= extra
        self._function.release()
        self._mapping.release()

    def share(self) -> Share:
        """How the function's slots stand, for somebody who has one."""
        slots = self._function
        others = slots.in_flight + slots.waiting - self._own - self._own_waiting
        return Share(
            limit=slots.limit,
            free=slots.free,
            waiting=slots.waiting - self._own_waiting,
            alone=slots.users <= 1 and others <= 0,
        )

    @contextmanager
    def refused(self) -> Iterator[None]:
        """While a batch waits for a function that refuses, nothing more is received."""
        self._refused += 1
        self.open.clear()
        try:
            yield
        finally:
            self._refused -= 1
            if not self._refused:
                self.open.set()

    def _granted(self, *, extra: bool) -> Reservation:
        self._own += 1
        self.extra += extra
        return Reservation(self, extra=extra)

    async def _acquire(self) -> None:
        self._own_waiting += 1
        try:
            await self._function.acquire()
        finally:
            self._own_waiting -= 1
