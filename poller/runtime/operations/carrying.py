"""Owns how operations are carried out on the units that this worker holds, each in a task of its own.

A task ends when the result of its part is stored, when the unit is not held here any more, or when the operation is over. Results
that several tasks have at the same time are written together.
"""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from random import Random
from typing import assert_never

from poller.domain.errors import LeaseLost, PortError
from poller.domain.operations import Action, Operation, OperationId, OperationState, PartResult
from poller.domain.policies import Backoff
from poller.domain.records import Epoch
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.ports import Clock
from poller.rules.backoff import wait_s
from poller.rules.operations import lifecycle
from poller.runtime.mappings.supervisor import contained, described
from poller.runtime.operations.open_operations import OpenOperations, OperationChange
from poller.runtime.operations.operable import (
    Operable,
    RemembersOperations,
    ResolvedRecords,
    SaysWhatItWaitsFor,
    SettledRecords,
)
from poller.runtime.operations.operable_mappings import OperableMappings
from poller.runtime.stopping import Stop
from poller.runtime.watched_tasks import WatchedTasks, reason_of

CARRIED_OUT = frozenset({Action.RETRY, Action.RESET, Action.SKIP})
"""Actions that a running mapping carries out on its units."""
SHOWN_AFTER_S = 1.0
"""A part that takes longer is shown as begun. It waits for a running call, or for a destination."""
SHOWN_AGAIN_S = 5.0
"""The interval at which is looked whether it waits for something else now."""
AGAIN_S = 1.0
"""The shortest wait before a failed write is repeated."""

type _Part = tuple[OperationId, str]


class Carrier:
    """Carries out what is due on this worker. Its tasks run in `scope`."""

    def __init__(
        self,
        operations: OpenOperations,
        running: OperableMappings,
        scope: WatchedTasks,
        stop: Stop,
        *,
        clock: Clock,
        rng: Random,
        port_backoff: Backoff,
    ) -> None:
        self._operations = operations
        self._running = running
        self._scope = scope
        self._stop = stop
        self._clock = clock
        self._rng = rng
        self._port_backoff = port_backoff
        self._tasks: dict[_Part, asyncio.Task[None]] = {}
        self._results: dict[OperationId, dict[str, PartResult]] = {}
        """Results that are not stored yet."""
        self._writing: dict[OperationId, asyncio.Lock] = {}
        self._read_again = asyncio.Event()

    def follow(self) -> None:
        """Begins what is due here, and gives up what is over elsewhere. Call it after each read of the operations."""
        known = self._operations.known or {}
        operables = self._running.operables()
        for operation in known.values():
            operable = operables.get(operation.mapping)
            if operation.request.action in CARRIED_OUT and operable is not None:
                self._begin(operation, operable)
        for (operation_id, _), task in self._tasks.items():
            if operation_id not in known:
                task.cancel()
        self._go_on()

    def end(self) -> None:
        """Lets the tasks end that wait for the next read. Call it when this worker stops."""
        self._go_on()

    def _go_on(self) -> None:
        over, self._read_again = self._read_again, asyncio.Event()
        over.set()

    def _begin(self, operation: Operation, operable: Operable) -> None:
        for unit in lifecycle.due(operation, operable.units()):
            part = operation.operation, unit
            if part not in self._tasks:
                name = f"{TaskKind.OPERATION} {operation.operation} {unit}"
                work = self._carry(operable, operation.operation, unit)
                self._tasks[part] = self._scope.spawn(work, name, partial(self._ended, part))

    def _ended(self, part: _Part, end: TaskEnd, error: BaseException | None) -> None:
        del self._tasks[part]
        if error is not None:
            name = f"{TaskKind.OPERATION} {part[0]} {part[1]}"
            self._scope.report_end(TaskKind.OPERATION, name, end, reason_of(error))

    async def _carry(self, operable: Operable, operation_id: OperationId, unit: str) -> None:
        """Carries out one part, until its result is stored or nothing is left to do here."""
        try:
            trouble = await contained(self._carry_until_over(operable, operation_id, unit))
        finally:
            if isinstance(operable, RemembersOperations):
                operable.withdraw(operation_id)
        if trouble is None:
            return
        name = f"{TaskKind.OPERATION} {operation_id} {unit}"
        self._scope.report_end(TaskKind.OPERATION, name, TaskEnd.RAISED, reason_of(trouble))
        text = f"a fault of the worker: {described(trouble)}"
        await self._finish(operation_id, unit, PartResult(state=OperationState.FAILED, result=text))

    async def _carry_until_over(self, operable: Operable, operation_id: OperationId, unit: str) -> None:
        while (operation := self._operations.get(operation_id)) is not None:
            if unit not in lifecycle.missing(operation) or self._stop.requested:
                return
            read_again = self._read_again
            try:
                outcome = await self._carried_out(operable, operation, unit)
            except LeaseLost:
                return
            match outcome:
                case None:
                    if said := _waits_for(operable, unit, operation):
                        # It is begun: the worker that holds the unit is at it.
                        self._show_begun(operation, unit, said)
                    await read_again.wait()
                case ResolvedRecords(records):
                    assert "records" not in operation.notes, "the records of a skip are resolved once"
                    rule = partial(lifecycle.resolve, records=records, part=unit, now=self._clock.now())
                    await self._change(operation_id, rule)
                case SettledRecords(records, result):
                    if lifecycle.settle(operation, records, result) == operation:
                        await read_again.wait()
                    await self._change(operation_id, partial(lifecycle.settle, records=records, text=result))
                case PartResult():
                    await self._finish(operation_id, unit, outcome)
                    return
                case _:
                    assert_never(outcome)

    async def _carried_out(
        self, operable: Operable, operation: Operation, unit: str
    ) -> PartResult | ResolvedRecords | SettledRecords | None:
        """Carries out one part once. While that takes long, the part is shown as begun, with what it waits for."""
        loop = asyncio.get_running_loop()
        showing: asyncio.TimerHandle

        def shown() -> None:
            nonlocal showing
            self._show_begun(operation, unit, _waits_for(operable, unit, operation) or "it has begun")
            showing = loop.call_later(SHOWN_AGAIN_S, shown)

        showing = loop.call_later(SHOWN_AFTER_S, shown)
        try:
            return await operable.carry_out(unit, operation)
        finally:
            showing.cancel()

    def _show_begun(self, operation: Operation, unit: str, text: str) -> None:
        operation_id = operation.operation
        rule, known = partial(lifecycle.begin, part=unit, text=text), self._operations.get(operation_id)
        if known is not None and rule(known) != known:
            work = self._change_once(operation_id, rule)
            self._scope.spawn(work, f"{TaskKind.OPERATION} {operation_id} {unit} begun", _ignored)

    async def _change_once(self, operation_id: OperationId, rule: OperationChange) -> None:
        operation = self._operations.get(operation_id)
        if operation is not None:
            with suppress(PortError):
                await self._operations.change(operation, rule)

    async def _finish(self, operation_id: OperationId, unit: str, result: PartResult) -> None:
        """Stores the result of a part, together with those that other tasks have by then."""
        self._results.setdefault(operation_id, {})[unit] = result
        turn = self._writing.setdefault(operation_id, asyncio.Lock())
        async with turn:
            # Results that come in the same turn of the loop are written together.
            await asyncio.sleep(0)
            results = self._results.pop(operation_id, {})
            if results:
                await self._change(operation_id, partial(_finished, results=results, now=self._clock.now()))
        if not turn.locked():
            self._writing.pop(operation_id, None)

    async def _change(self, operation_id: OperationId, rule: OperationChange) -> None:
        """Changes an operation, and repeats that while the store is in trouble, until this worker stops or the operation is over."""
        tries = 0
        while (operation := self._operations.get(operation_id)) is not None:
            try:
                await self._operations.change(operation, rule)
            except PortError:
                delay_s = max(AGAIN_S, wait_s(self._port_backoff, tries, self._rng))
                tries += 1
                if await self._stop.sleep(delay_s):
                    return
            else:
                return


def _finished(operation: Operation, *, results: Mapping[str, PartResult], now: Epoch) -> Operation:
    for part, result in results.items():
        operation = lifecycle.finish_part(operation, part, result, now=now)
    return operation


def _waits_for(operable: Operable, unit: str, operation: Operation) -> str:
    """What the mapping says that the part waits for; empty if it does not know."""
    return operable.waits_for(unit, operation) if isinstance(operable, SaysWhatItWaitsFor) else ""


def _ignored(_end: TaskEnd, _error: BaseException | None) -> None:
    return
