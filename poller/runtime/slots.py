"""Owns the slots that bound how many invocations of one function, or of one mapping, run at once."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Slots:
    """How many invocations of one function may run at once; waiters are served in order.

    `changed` is called whenever a slot was taken or given back.
    """

    def __init__(self, limit: int | None, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._limit = limit
        self._semaphore = asyncio.Semaphore(limit) if limit is not None else None
        self.in_flight = 0
        self.waiting = 0
        self.users = 0

        self._kept = 0

    @property
    def limit(self) -> int | None:
        """The limit; None for none."""
        return self._limit

    @property
    def free(self) -> int | None:
        """Slots that nobody has; None when there is no limit."""
        return None if self._limit is None else self._limit - self.in_flight

    async def acquire(self) -> None:
        """Takes a slot, waiting for one if need be."""
        if self._semaphore is not None:
            self.waiting += 1
            try:
                await self._semaphore.acquire()
            finally:
                self.waiting -= 1
        self.in_flight += 1
        self._changed()

    async def acquire_now(self) -> bool:
        """Takes a slot if one is free and nobody waits for it; returns at once."""
        if self._semaphore is not None and self._semaphore.locked():
            return False
        await self.acquire()
        return True

    def keep(self) -> None:
        """The next slot that is given back stays taken, by what goes on in it; that gives it back at its own end."""
        self._kept += 1

    @contextmanager
    def used(self) -> Iterator[None]:
        """Counts one more mapping among those that use the function."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def release(self) -> None:
        """Gives a slot back."""
        assert self.in_flight > 0, "a slot given back twice"
        if self._kept:
            self._kept -= 1
            return
        self.in_flight -= 1
        if self._semaphore is not None:
            self._semaphore.release()
        self._changed()
