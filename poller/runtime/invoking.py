"""Owns calls of functions: the slots that bound them and the guard around an invoker."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from poller.invocations import Invocation, Outcome, TimedOut
from poller.plan import FunctionPlan
from poller.ports import Invoker
from poller.telemetry import Capacity, Observer

GUARD_S = 5.0
"""How much longer than a function's limit an invoker may take before the engine gives it up."""


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
        self.in_flight -= 1
        if self._semaphore is not None:
            self._semaphore.release()
        self._changed()


class Function:
    """One function of this daemon: its plan, its invoker, its slots."""

    def __init__(self, plan: FunctionPlan, invoker: Invoker, observer: Observer) -> None:
        self.plan = plan
        self.slots = Slots(plan.max_concurrency, self._tell)
        self._invoker = invoker
        self._observer = observer

    async def call(self, invocation: Invocation) -> Outcome:
        """Invokes within a slot that the caller holds; an invoker that never answers counts as timed out."""
        assert self.slots.in_flight > 0, "a call without a slot"
        try:
            async with asyncio.timeout(invocation.timeout_s + GUARD_S):
                return await self._invoker.invoke(invocation)
        except TimeoutError:
            return TimedOut(invocation.timeout_s)

    def _tell(self) -> None:
        self._observer.on(
            Capacity(function=self.plan.name, in_flight=self.slots.in_flight, limit=self.slots.limit)
        )
