"""Owns the slots that bound how many invocations of one function, or of one mapping, run at once."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Slots:
    """Limits how many invocations of one function run at once. Waiting callers are served in order.

    `changed` is called whenever a slot was taken or released. A poll of a queue holds a slot before there is anything to run; it lends
    its slot, so that a call does not wait for the end of a long poll.
    """

    def __init__(self, limit: int | None, changed: Callable[[], None] = lambda: None) -> None:
        self._changed = changed
        self._limit = limit
        self._semaphore = asyncio.Semaphore(limit) if limit is not None else None
        self.in_flight = 0
        self.waiting = 0
        self.users = 0

        self._kept = 0
        self._lenders: list[Callable[[], None]] = []

    @property
    def limit(self) -> int | None:
        """The limit; None if there is none."""
        return self._limit

    @property
    def free(self) -> int | None:
        """The number of free slots; None if there is no limit."""
        return None if self._limit is None else self._limit - self.in_flight

    async def acquire(self, *, borrows: bool = False) -> None:
        """Takes a slot, and waits for one if necessary. `borrows`: one that is lent is given back first, if none is free."""
        if self._semaphore is not None:
            if borrows and self._lenders and self._semaphore.locked():
                self._lenders.pop(0)()
            self.waiting += 1
            try:
                await self._semaphore.acquire()
            finally:
                self.waiting -= 1
        self.in_flight += 1
        self._changed()

    async def acquire_now(self) -> bool:
        """Takes a slot if one is free and no caller waits; returns at once whether it has one."""
        if self._semaphore is not None and self._semaphore.locked():
            return False
        await self.acquire()
        return True

    @contextmanager
    def lending(self, give_back: Callable[[], None]) -> Iterator[None]:
        """Lends one slot inside the block: `give_back`, which releases it, is called when somebody borrows it."""
        self._lenders.append(give_back)
        try:
            yield
        finally:
            if give_back in self._lenders:
                self._lenders.remove(give_back)

    def keep(self) -> None:
        """Makes the next `release` keep its slot, for a call that goes on in it. That call releases the slot when it ends."""
        self._kept += 1

    @contextmanager
    def used(self) -> Iterator[None]:
        """Counts one more mapping that uses the function."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1

    def release(self) -> None:
        """Releases a slot."""
        assert self.in_flight > 0, "a slot given back twice"
        if self._kept:
            self._kept -= 1
            return
        self.in_flight -= 1
        if self._semaphore is not None:
            self._semaphore.release()
        self._changed()
