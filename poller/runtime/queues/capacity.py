"""Owns the room that a queue mapping needs before it receives: a slot of the mapping and a slot of the function."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from poller.rules.queues.polling import Share
from poller.runtime.queues.worker_share import WorkerShare
from poller.runtime.slots import Slots
from poller.runtime.stopping import wait_until

LOOK_S = 1.0
"""Seconds between two checks of this worker's part of the maximum."""


class Reservation:
    """Room for one invocation. `extra`: in addition to the one that each poller has."""

    def __init__(self, capacity: "QueueCapacity", *, extra: bool) -> None:
        self._capacity = capacity
        self._extra = extra
        self._held = True

    def free(self) -> None:
        """Gives the room back. A second call does nothing."""
        if self._held:
            self._held = False
            self._capacity.give_back(extra=self._extra)

    @property
    def held(self) -> bool:
        """Whether it was not given back."""
        return self._held

    @contextmanager
    def away(self) -> Iterator[None]:
        """Gives the room back while a batch waits that will take it `again`."""
        self.free()
        self._capacity.away += 1
        try:
            yield
        finally:
            self._capacity.away -= 1

    async def again(self) -> None:
        """Waits in line for room and takes it again. `held` tells whether there was any."""
        self._held = await self._capacity.take(extra=self._extra)


class QueueCapacity:
    """The room of one queue mapping. `part` is this worker's part of a maximum of all workers, None if there is no such maximum."""

    def __init__(self, function: Slots, concurrency_max: int, *, part: WorkerShare | None = None) -> None:
        self.queued = 0
        self.away = 0
        """Batches that gave their room back and will take it again."""
        self.extra = 0
        """Invocations in addition to the one of each poller."""
        self._part = part
        self._given_back = asyncio.Event()
        self._function = function
        self._mapping = Slots(concurrency_max)
        self._turn = asyncio.Lock()
        self.used = 0
        """Invocations that may run now."""
        self._own_waiting = 0

    async def reserve(self) -> Reservation | None:
        """Room for one invocation, waiting for it if need be; None when this worker's part is lost."""
        return Reservation(self, extra=False) if await self.take(extra=False) else None

    async def take(self, *, extra: bool) -> bool:
        """For reservations: waits for room; whether there is any, which is not so when this worker's part is lost.

        One poller of the mapping at a time stands in the function's line, so that many pollers of one mapping do not
        keep other mappings waiting.
        """
        self.queued += 1
        try:
            await self._mapping.acquire()
            taken = False
            try:
                async with self._turn:
                    taken = await self._acquire()
            finally:
                if not taken:
                    self._mapping.release()
        finally:
            self.queued -= 1
        if taken:
            self._count(extra=extra)
        return taken

    async def reserve_now(self, *, extra: bool = False) -> Reservation | None:
        """Room for one invocation if there is some and nobody waits for it; `extra`: beside the one that a poller has."""
        if self._turn.locked() or not self._within_part():
            return None
        if not await self._mapping.acquire_now():
            return None
        if not await self._function.acquire_now():
            self._mapping.release()
            return None
        self._count(extra=extra)
        return Reservation(self, extra=extra)

    def give_back(self, *, extra: bool) -> None:
        """For reservations."""
        self.used -= 1
        self._given_back.set()
        self.extra -= extra
        self._function.release()
        self._mapping.release()

    def share(self) -> Share:
        """How the function's slots stand, for somebody who has one."""
        slots = self._function
        others = slots.in_flight + slots.waiting - self.used - self._own_waiting
        return Share(
            limit=slots.limit,
            free=slots.free,
            waiting=slots.waiting - self._own_waiting,
            alone=slots.users <= 1 and others <= 0,
            awaited=self.away > 0 and (slots.free == 0 or self._mapping.free == 0 or not self._within_part()),
        )

    def _within_part(self) -> bool:
        """Whether one more invocation is within this worker's part."""
        return self._part is None or self._part.covers(self.used + 1)

    def _count(self, *, extra: bool) -> None:
        self.used += 1
        self.extra += extra

    async def _acquire(self) -> bool:
        """Takes a slot of the function, within this worker's part of the maximum, which may change at any moment."""
        while True:
            while not self._within_part():
                if self._part is not None and self._part.lost:
                    return False
                self._given_back.clear()
                await wait_until(self._given_back, LOOK_S)
            self._own_waiting += 1
            try:
                await self._function.acquire()
            finally:
                self._own_waiting -= 1
            if self._within_part():
                return True
            self._function.release()
