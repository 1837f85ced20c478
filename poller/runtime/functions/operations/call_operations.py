"""Owns which operations on asynchronous calls run on this worker: it claims them, runs each in a task of its own, and stores how it ended.

Any worker of the store may carry one out, also one that does not have the function. A worker that dies is followed by another one.
"""

from collections.abc import Callable
from functools import partial

from poller.domain.errors import PortError
from poller.domain.operations import Action, Operation, OperationId, OperationState, PartResult, function_of
from poller.domain.records import Epoch, WorkerId
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.rules.operations import claims, lifecycle
from poller.rules.operations.members import CALL_MEMBERS
from poller.runtime.functions.operations.call_operation_run import CallOperationContext, CallOperationRun
from poller.runtime.mappings.supervisor import contained, described
from poller.runtime.operations.open_operations import OpenOperations
from poller.runtime.operations.operable_mappings import Peers
from poller.runtime.stopping import Reason, Stop
from poller.runtime.watched_tasks import WatchedTasks, reason_of


class CallOperations:
    """The operations on calls that run on this worker. Their tasks run in `scope`. `alive` are the other workers of the store."""

    def __init__(
        self,
        operations: OpenOperations,
        scope: WatchedTasks,
        stop: Stop,
        *,
        context: CallOperationContext,
        peers: Peers,
        alive: Callable[[], frozenset[WorkerId]],
    ) -> None:
        self._operations = operations
        self._scope = scope
        self._stop = stop
        self._context = context
        self._peers = peers
        self._alive = alive
        self._stops: dict[OperationId, Stop] = {}
        self._claimed: set[OperationId] = set()

    def follow(self) -> None:
        """Begins what is due here, and stops what is over or another worker's. Call it after each read of the operations."""
        known = self._operations.known or {}
        for operation in known.values():
            if self._due(operation):
                self._stops[operation.operation] = Stop()
                name = f"{TaskKind.OPERATION} {operation.operation}"
                self._scope.spawn(self._run(operation), name, partial(self._ended, operation.operation))
        for operation_id, stop in self._stops.items():
            found = known.get(operation_id)
            lost = operation_id in self._claimed and found is not None
            if found is None or (lost and claims.claimed_by(found) != self._context.worker):
                stop.request(Reason.REQUESTED)

    def _due(self, operation: Operation) -> bool:
        return (
            function_of(operation.mapping) is not None
            and operation.request.action in CALL_MEMBERS
            and operation.operation not in self._stops
            and not self._stop.requested
            and self._can(operation)
            and claims.claimable(operation, self._context.worker, self._alive())
        )

    def _can(self, operation: Operation) -> bool:
        """Whether this worker can carry it out: new calls are put by a worker that has the function."""
        function = function_of(operation.mapping) or ""
        return operation.request.action is not Action.REDRIVE or self._context.claimable(function)

    def _ended(self, operation: OperationId, end: TaskEnd, error: BaseException | None) -> None:
        del self._stops[operation]
        self._claimed.discard(operation)
        if error is not None:
            self._scope.report_end(
                TaskKind.OPERATION, f"{TaskKind.OPERATION} {operation}", end, reason_of(error)
            )

    async def _run(self, operation: Operation) -> None:
        """Claims the operation and runs it, then stores how it ended."""
        stop, worker = self._stops[operation.operation], self._context.worker
        with self._stop.passing_to(stop):
            try:
                await self._peers.listed()
                rule = partial(claims.claim, worker=worker, alive=self._alive())
                claimed = await self._operations.change(operation, rule)
            except PortError:
                # The next read of the operations begins it again.
                return
            if claimed is None or claims.claimed_by(claimed) != worker:
                return
            self._claimed.add(operation.operation)
            run = CallOperationRun(self._context, self._operations, claimed, stop)
            results: list[PartResult | None] = []
            trouble = await contained(_into(results, run))
            if trouble is not None:
                name = f"{TaskKind.OPERATION} {operation.operation}"
                self._scope.report_end(TaskKind.OPERATION, name, TaskEnd.RAISED, reason_of(trouble))
                text = f"a fault of the worker: {described(trouble)}"
                results.append(PartResult(state=OperationState.FAILED, result=text))
            if (result := results[-1]) is not None:
                now = self._context.clock.now()
                await run.change(partial(_over, progress=run.progress, result=result, now=now))


async def _into(results: list[PartResult | None], run: CallOperationRun) -> None:
    results.append(await run.run())


def _over(operation: Operation, *, progress: dict[str, int], result: PartResult, now: Epoch) -> Operation:
    counted = lifecycle.count(operation, progress)
    failed = result.state is not OperationState.DONE
    return lifecycle.finish(counted, failed=failed, text=result.result, now=now)
