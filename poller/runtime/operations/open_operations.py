"""Owns the operations that are not over, as this worker last read them, and how it changes them in the store.

A change is a rule: a function from an operation as it is stored to the operation as it should be. It is written on condition that
nobody has changed the operation since it was read. Otherwise this one is read again, and the rule is asked again.

Many ask for the open operations at the same time, and one read answers all who asked before it began. Answers may arrive in any order:
`poller.rules.operations.knowledge` says what is known by each.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import batched
from random import Random

from poller.domain.errors import PortError, ResourceMissing, RowChanged, ServiceUnavailable
from poller.domain.operations import Operation, OperationId
from poller.domain.records import Monotonic
from poller.domain.telemetry.observers import Observer
from poller.domain.telemetry.operation_events import OperationAccepted, OperationOver
from poller.operator_ports import OperationHistory, OperationStore
from poller.ports import Clock
from poller.rules.operations import lifecycle, sizes
from poller.rules.operations.knowledge import OperationKnowledge
from poller.rules.operations.pauses import described
from poller.rules.operations.unanswered import UnansweredWrites, beginning, end

CALL_S_MAX = 5.0
"""The time limit of one call of the store. It is short because clients wait for some of them."""
TRIES_MAX = 30
"""Tries of one change while other workers change the same operation."""
APART_S = 0.05
"""Workers that change the same operation at the same time try again up to this much later, a little longer after each try."""
READS_MAX = 2
"""Reads at the same time. A second one may be faster than one that is slow; more would only be work for the store."""
PRUNED_AT_ONCE, PRUNED_MAX = 100, 1_000
"""Operations that one call removes from the history, and all calls of one time. The oldest are removed first."""

type OperationChange = Callable[[Operation], Operation]


class OpenOperations:
    """The operations that are not over. `known` is None until they were read once."""

    def __init__(
        self,
        store: OperationStore,
        history: OperationHistory,
        *,
        clock: Clock,
        observer: Observer,
        rng: Random,
    ) -> None:
        self._store = store
        self._history = history
        self._clock = clock
        self._observer = observer
        self._rng = rng
        self._knowledge = OperationKnowledge()
        self._since: dict[OperationId, Monotonic] = {}
        """Since when this worker knows each of them. Epoch times in operations are of other workers' clocks."""
        self._charged: dict[OperationId, tuple[int, int]] = {}
        """The revision of each of them, and how many bytes were reserved for it then."""
        self._adds = UnansweredWrites(beginning)
        self._ends = UnansweredWrites(end)
        self._room = asyncio.Semaphore(READS_MAX)
        self._answered = 0
        self._error: PortError | None = None
        """The number of the newest read that has ended, and the error that it ended with."""
        self.ended = 0
        """Operations that ended by a change of this worker."""

    @property
    def known(self) -> Mapping[OperationId, Operation] | None:
        """The operations by their ids, oldest first; None before the first read."""
        return self._knowledge.operations

    @property
    def begun(self) -> int:
        """The number of the newest call that has begun. A read with a higher number has whatever is in the store by now."""
        return self._knowledge.asked

    @property
    def newest(self) -> int:
        """The number of the newest read that was taken over."""
        return self._knowledge.newest

    def get(self, operation: OperationId) -> Operation | None:
        """One operation as it was last read or written; None if it is over, or not known."""
        return (self.known or {}).get(operation)

    def charged_bytes(self) -> int:
        """How many bytes are reserved for all of them."""
        before, self._charged = self._charged, {}
        for name, operation in (self.known or {}).items():
            known = before.get(name)
            if known is None or known[0] != operation.revision:
                known = operation.revision, sizes.charged_bytes(operation)
            self._charged[name] = known
        return sum(size for _, size in self._charged.values())

    def open_s(self, operation: OperationId) -> float:
        """How long this worker has known an operation that is not over; 0 if it does not know it."""
        since = self._since.get(operation)
        return 0.0 if since is None else self._clock.monotonic() - since

    async def read(self) -> None:
        """Reads them, or shares a read that begins from now on; raises PortError."""
        asked = self.begun
        async with self._room:
            if self._answered <= asked:
                await self._read()
            elif self._error is not None:
                raise self._error

    async def _read(self) -> None:
        number = self._knowledge.ask(everything=True)
        found: Sequence[Operation] | None = None
        try:
            async with self._called(number):
                found = await self._store.operations()
        except PortError as error:
            self._answer(number, error)
            raise
        finally:
            self._knowledge.read(found, asked=number)
        self._answer(number, None)
        began = self._clock.monotonic()
        self._since = {each: self._since.get(each, began) for each in self.known or ()}

    def _answer(self, number: int, error: PortError | None) -> None:
        if number > self._answered:
            self._answered, self._error = number, error

    async def find(self, operation: OperationId) -> Operation | None:
        """Reads one operation, whether it is over or not; None if there is none. Raises PortError."""
        async with self._called() as asked:
            found = await self._store.operation(operation)
        if found is not None:
            self._learn(found, asked)
        self._emit_unanswered(operation, found)
        return found

    async def history(self) -> Sequence[Operation]:
        """The operations that are over, as far as they are kept; raises PortError."""
        async with answered():
            return await self._store.operations(over=True)

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation, and returns it as it is stored. Another one with its id stays as it is. Raises PortError."""
        try:
            async with self._called() as asked:
                stored = await self._store.add(operation)
        except PortError:
            self._adds.note(operation)
            raise
        self._learn(stored, asked)
        if beginning(stored) == beginning(operation):
            self._emit_accepted(stored)
        return stored

    async def change(self, operation: Operation, rule: OperationChange) -> Operation | None:
        """Changes an operation, and returns it as it is stored; None if it is over or gone. Raises PortError."""
        for tries in range(TRIES_MAX):
            changed = sizes.within_limit(operation, rule(operation), now=self._clock.now())
            if changed == operation:
                return operation
            try:
                async with self._called() as asked:
                    stored = await self._store.change(changed)
            except ResourceMissing:
                self._knowledge.over(operation)
                return None
            except RowChanged:
                if tries:
                    await asyncio.sleep(self._rng.random() * APART_S * tries)
                found = await self.find(operation.operation)
                if found is None:
                    # It was there with another revision, and the history has lost it since then.
                    self._knowledge.over(operation)
                    return None
                if found.state.over:
                    return None
                operation = found
            except PortError:
                if changed.state.over:
                    self._ends.note(changed)
                raise
            else:
                self._learn(stored, asked)
                if stored.state.over:
                    self._ends.forget(stored.operation)
                    self._emit_over(stored)
                return stored
        raise RowChanged(f"operation {operation.operation} changes all the time")

    async def look_up(self) -> None:
        """Learns what became of writes whose answers were lost; raises PortError."""
        for operation in {*self._adds.operations, *self._ends.operations}:
            known = self.get(operation)
            if known is None:
                await self.find(operation)
            else:
                self._emit_unanswered(operation, known)

    async def prune(self) -> None:
        """Removes from the history what is too old or too much; raises PortError."""
        async with answered():
            ended = await self._history.ended()
        surplus = lifecycle.prunable(ended, now=self._clock.now())
        for some in batched(surplus[:PRUNED_MAX], PRUNED_AT_ONCE, strict=False):
            async with answered():
                await self._history.prune(some)

    @asynccontextmanager
    async def _called(self, number: int | None = None) -> AsyncIterator[int]:
        """Around a call of the store about open operations; gives its number."""
        number = self._knowledge.ask() if number is None else number
        try:
            async with answered():
                yield number
        finally:
            self._knowledge.answered(number)

    def _learn(self, found: Operation, asked: int) -> None:
        self._knowledge.learn(found, asked=asked)
        if self.get(found.operation) is not None:
            self._since.setdefault(found.operation, self._clock.monotonic())

    def _emit_unanswered(self, operation: OperationId, found: Operation | None) -> None:
        """Emits what this worker has done of an operation although there was no answer. None: there is no such operation."""
        accepted, ended = self._adds.stored(operation, found), self._ends.stored(operation, found)
        if found is not None and accepted:
            self._emit_accepted(found)
        if found is not None and ended:
            self._emit_over(found)

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
        self.ended += 1
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


@asynccontextmanager
async def answered() -> AsyncIterator[None]:
    """Around a call that must not take long: one that takes too long raises ServiceUnavailable."""
    try:
        async with asyncio.timeout(CALL_S_MAX):
            yield
    except TimeoutError as error:
        raise ServiceUnavailable(f"no answer within {CALL_S_MAX:g} s") from error
