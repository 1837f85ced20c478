"""Owns the shared store as one worker reaches it: a door that may be slow, fail before or after the effect, hang or be shut."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from adapters.stores.memory import MemoryStore
from adapters.stores.memory_calls import MemoryCallQueue
from poller.domain.errors import ServiceThrottled, ServiceUnavailable
from poller.domain.functions.queued_calls import CallBacklog, CallId, CallPlace, QueuedCall
from poller.domain.records import Epoch, WorkerId
from tests.simulation.calls.call_checks import CallLedger

SLOW_S_MAX = 0.2
CRASHED = "the worker has crashed"


@dataclass(slots=True)
class Trouble:
    """What is wrong now, for all workers."""

    rng: Random
    faults: float
    """How often a call of the store fails."""
    throttles: float
    fails: float
    slow_s: float
    destinations_down: bool = False
    over: bool = False


class Door:
    """The shared store as one worker reaches it."""

    def __init__(self, shared: MemoryStore, trouble: Trouble, worker: str, ledger: CallLedger) -> None:
        self.shared = shared
        self.trouble = trouble
        self.worker = worker
        self.crashed = False
        self.open = asyncio.Event()
        self.open.set()
        queue = shared.call_queue
        assert isinstance(queue, MemoryCallQueue)
        self.call_queue = DoorQueue(self, queue, ledger)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.shared, name)
        if not asyncio.iscoroutinefunction(found):
            return found

        async def called(*given: Any, **more: Any) -> Any:
            return await self.passed(lambda: found(*given, **more))

        return called

    async def passed[T](self, work: Callable[[], Awaitable[T]]) -> T:
        """Carries a call out, unless something comes between; its answer may be lost."""
        await self._between()
        found = await work()
        await self._between()
        return found

    async def _between(self) -> None:
        if self.crashed:
            raise ServiceUnavailable(CRASHED)
        trouble = self.trouble
        if not trouble.over:
            await asyncio.sleep(trouble.rng.uniform(0.0, SLOW_S_MAX))
            if trouble.rng.random() < trouble.faults:
                raise trouble.rng.choice((ServiceUnavailable, ServiceThrottled))("no answer")
        await self.open.wait()
        if self.crashed:
            raise ServiceUnavailable(CRASHED)


class DoorQueue:
    """The shared queue as one worker reaches it. The ledger is told what has happened at the moment of the effect."""

    def __init__(self, door: Door, queue: MemoryCallQueue, ledger: CallLedger) -> None:
        self._door = door
        self._queue = queue
        self._ledger = ledger

    async def put(self, call: QueuedCall) -> None:
        async def work() -> None:
            await self._queue.put(call)
            self._ledger.was_put(call)

        await self._door.passed(work)

    async def backlogs(self) -> Sequence[CallBacklog]:
        return await self._door.passed(self._queue.backlogs)

    async def claim(
        self,
        function: str,
        *,
        now: Epoch,
        owner: WorkerId,
        gone: Collection[WorkerId],
        held: Collection[CallId],
        calls_max: int,
    ) -> Sequence[QueuedCall]:
        async def work() -> Sequence[QueuedCall]:
            found = await self._queue.claim(
                function, now=now, owner=owner, gone=gone, held=held, calls_max=calls_max
            )
            for call in found:
                self._ledger.was_claimed(self._door.worker, call)
            return found

        return await self._door.passed(work)

    async def replace(self, call: QueuedCall) -> QueuedCall:
        async def work() -> QueuedCall:
            before = self._ledger.stored.get(call.call)
            written = await self._queue.replace(call)
            if before is not None and before.revision == call.revision:
                self._ledger.was_replaced(self._door.worker, written)
            return written

        return await self._door.passed(work)

    async def remove(self, call: QueuedCall) -> None:
        async def work() -> None:
            there = call.call in self._ledger.stored
            await self._queue.remove(call)
            if there:
                self._ledger.was_removed(self._door.worker, call)

        await self._door.passed(work)

    async def calls(
        self, function: str, *, calls_max: int, after: CallPlace | None = None
    ) -> Sequence[QueuedCall]:
        return await self._door.passed(lambda: self._queue.calls(function, calls_max=calls_max, after=after))

    async def find(self, function: str, call: CallId) -> QueuedCall | None:
        return await self._door.passed(lambda: self._queue.find(function, call))
