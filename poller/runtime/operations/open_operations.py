"""Owns the operations that are not over, as this worker last read them, and how it changes them in the store.

A change is a rule: a function from an operation as it is stored to the operation as it should be. It is written on condition that
nobody has changed the operation since it was read. Otherwise it is read again, and the rule is asked again.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import batched
from random import Random

from poller.domain.errors import ResourceMissing, RowChanged, ServiceUnavailable
from poller.domain.operations import Operation, OperationId
from poller.domain.records import Monotonic
from poller.domain.telemetry.observers import Observer
from poller.domain.telemetry.operation_events import OperationAccepted, OperationOver
from poller.ports import Clock, OperationStore
from poller.rules.operations import lifecycle
from poller.rules.operations.pauses import described

CALL_S_MAX = 5.0
"""The time limit of one call of the store. It is short because clients wait for some of them."""
TRIES_MAX = 30
"""Tries of one change while other workers change the same operation."""
APART_S = 0.05
"""Workers that change the same operation at the same time try again up to this much later, a little longer after each try."""
READS_MAX = 5
"""Reads in a row that are dropped because this worker wrote meanwhile."""
PRUNED_AT_ONCE = 100

type OperationChange = Callable[[Operation], Operation]


class OpenOperations:
    """The operations that are not over. `known` is None until they were read once."""

    def __init__(self, store: OperationStore, *, clock: Clock, observer: Observer, rng: Random) -> None:
        self._store = store
        self._clock = clock
        self._observer = observer
        self._rng = rng
        self._known: dict[OperationId, Operation] | None = None
        self._since: dict[OperationId, Monotonic] = {}
        """Since when this worker knows each of them. Epoch times in operations are of other workers' clocks."""
        self._writes = 0
        self._reads = 0
        self.newest = 0
        """The number of the newest read that was taken over."""
        self.ended = 0
        """Operations that ended by a change of this worker."""

    @property
    def known(self) -> Mapping[OperationId, Operation] | None:
        """The operations by their ids, oldest first; None before the first read."""
        return self._known

    @property
    def begun(self) -> int:
        """The number of the newest read that has begun. One with a higher number has whatever is in the store by now."""
        return self._reads

    def get(self, operation: OperationId) -> Operation | None:
        """One operation as it was last read or written; None if it is over, or not known."""
        return (self._known or {}).get(operation)

    def open_s(self, operation: OperationId) -> float:
        """How long this worker has known an operation that is not over; 0 if it does not know it."""
        since = self._since.get(operation)
        return 0.0 if since is None else self._clock.monotonic() - since

    async def read(self) -> None:
        """Reads them; raises PortError. A read during which this worker wrote is repeated: it may be older than the write."""
        for _ in range(READS_MAX):
            self._reads += 1
            number, writes = self._reads, self._writes
            with _no_answer():
                async with asyncio.timeout(CALL_S_MAX):
                    found = await self._store.operations()
            if number < self.newest:
                # A read that began later was faster.
                return
            if writes == self._writes:
                self.newest = number
                self._known = {each.operation: each for each in found}
                began = self._clock.monotonic()
                self._since = {each: self._since.get(each, began) for each in self._known}
                return

    async def history(self) -> Sequence[Operation]:
        """The operations that are over, as far as they are kept; raises PortError."""
        with _no_answer():
            async with asyncio.timeout(CALL_S_MAX):
                return await self._store.operations(over=True)

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation, and returns it as it is stored. Another one with its id stays as it is. Raises PortError."""
        with self._writing(), _no_answer():
            async with asyncio.timeout(CALL_S_MAX):
                stored = await self._store.add(operation)
        if not stored.state.over:
            self._keep(stored)
        if (stored.created, stored.request, stored.by) == (
            operation.created,
            operation.request,
            operation.by,
        ):
            self._emit_accepted(stored)
        return stored

    async def change(self, operation: Operation, rule: OperationChange) -> Operation | None:
        """Changes an operation, and returns it as it is stored; None if it is over or gone. Raises PortError."""
        for tries in range(TRIES_MAX):
            changed = rule(operation)
            if changed == operation:
                return operation
            try:
                with self._writing(), _no_answer():
                    async with asyncio.timeout(CALL_S_MAX):
                        stored = await self._store.change(changed)
            except ResourceMissing:
                self._drop(operation.operation)
                return None
            except RowChanged:
                if tries:
                    await asyncio.sleep(self._rng.random() * APART_S * tries)
                await self.read()
            else:
                self._keep(stored)
                return stored
            found = self.get(operation.operation)
            if found is None:
                return None
            operation = found
        raise RowChanged(f"operation {operation.operation} changes all the time")

    async def prune(self) -> None:
        """Removes from the history what is too old or too much; raises PortError."""
        surplus = lifecycle.prunable(await self.history(), now=self._clock.now())
        for some in batched(surplus, PRUNED_AT_ONCE, strict=False):
            with _no_answer():
                async with asyncio.timeout(CALL_S_MAX):
                    await self._store.prune(some)

    def _keep(self, stored: Operation) -> None:
        if self._known is None:
            # The first read brings it, together with all the others.
            pass
        elif stored.state.over:
            self._drop(stored.operation)
        else:
            self._known[stored.operation] = stored
            self._since.setdefault(stored.operation, self._clock.monotonic())
        if stored.state.over:
            self.ended += 1
            self._emit_over(stored)

    def _drop(self, operation: OperationId) -> None:
        if self._known is not None:
            self._known.pop(operation, None)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """Marks reads that began before the begin or the end of a write as outdated."""
        self._writes += 1
        try:
            yield
        finally:
            self._writes += 1

    def _emit_accepted(self, operation: Operation) -> None:
        request = operation.request
        self._observer.on(
            OperationAccepted(
                operation=operation.operation,
                mapping=operation.mapping,
                action=request.action,
                of=described(request.target),
                by=operation.by,
                reason=request.reason,
            )
        )

    def _emit_over(self, operation: Operation) -> None:
        request = operation.request
        self._observer.on(
            OperationOver(
                operation=operation.operation,
                mapping=operation.mapping,
                action=request.action,
                state=operation.state,
                of=described(request.target),
                by=operation.by,
                result=operation.result,
                took_s=(operation.ended or operation.created) - operation.created,
            )
        )


@contextmanager
def _no_answer() -> Iterator[None]:
    """Turns a call that took too long into ServiceUnavailable."""
    try:
        yield
    except TimeoutError as error:
        raise ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s") from error
