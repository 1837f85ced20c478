"""Owns which operations that take long run on this worker: it claims them, runs each in a task of its own, and stores how it ended.

A seek needs all workers: each holds the shards back that are about to be moved.
"""

from collections.abc import Awaitable, Callable
from functools import partial

from poller.domain.errors import PortError
from poller.domain.operations import Action, Operation, OperationId, OperationState, PartResult
from poller.domain.records import MappingId
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.rules.operations import claims, lifecycle
from poller.runtime.mappings.supervisor import contained, described
from poller.runtime.operations.follower_context import FollowerContext
from poller.runtime.operations.long.long_run import LongOperable, LongRun, WithLongOperations
from poller.runtime.operations.long.redrive_run import redrive
from poller.runtime.operations.long.seek_run import held_back, seek
from poller.runtime.operations.open_operations import OpenOperations
from poller.runtime.operations.operable_mappings import OperableMappings
from poller.runtime.operations.pausing import Pausing
from poller.runtime.stopping import Reason, Stop
from poller.runtime.watched_tasks import WatchedTasks, reason_of

RUN_HERE = frozenset({Action.SEEK, Action.REDRIVE})


class LongRunning:
    """The operations that take long and run on this worker. Their tasks run in `scope`."""

    def __init__(
        self,
        operations: OpenOperations,
        running: OperableMappings,
        pausing: Pausing,
        scope: WatchedTasks,
        stop: Stop,
        *,
        context: FollowerContext,
    ) -> None:
        self._operations = operations
        self._running = running
        self._pausing = pausing
        self._scope = scope
        self._stop = stop
        self._worker = context.worker
        self._peers = context.peers
        self._clock = context.clock
        self._make_run = partial(
            LongRun,
            worker=context.worker,
            operations=operations,
            opener=context.opener,
            clock=context.clock,
            rng=context.rng,
            port_backoff=context.port_backoff,
        )
        self._stops: dict[OperationId, Stop] = {}
        self._claimed: set[OperationId] = set()

    def follow(self) -> None:
        """Begins what is due here, and stops what is over or another worker's. Call it after each read of the operations."""
        known = self._operations.known or {}
        for mapping, operable in self._running.operables().items():
            if isinstance(operable, WithLongOperations) and operable.long_operable.seekable is not None:
                own = [each for each in known.values() if each.mapping == mapping]
                operable.long_operable.seekable.hold_back(held_back(own))
        for operation in known.values():
            if operation.request.action in RUN_HERE and operation.operation not in self._stops:
                self._begin(operation)
        for operation_id, stop in self._stops.items():
            found = known.get(operation_id)
            lost = operation_id in self._claimed and found is not None
            if found is None or (lost and claims.claimed_by(found) != self._worker):
                stop.request(Reason.REQUESTED)

    def _begin(self, operation: Operation) -> None:
        if self._mapping(operation.mapping) is None:
            return
        if not claims.claimable(operation, self._worker, self._peers.workers_of(operation.mapping)):
            return
        self._stops[operation.operation] = Stop()
        name = f"{TaskKind.OPERATION} {operation.operation}"
        self._scope.spawn(self._run(operation), name, partial(self._ended, operation.operation))

    def _ended(self, operation: OperationId, end: TaskEnd, error: BaseException | None) -> None:
        del self._stops[operation]
        self._claimed.discard(operation)
        if error is not None:
            name = f"{TaskKind.OPERATION} {operation}"
            self._scope.report_end(TaskKind.OPERATION, name, end, reason_of(error))

    def _mapping(self, mapping: MappingId) -> LongOperable | None:
        for each, operable in self._running.operables().items():
            if each == mapping and isinstance(operable, WithLongOperations):
                return operable.long_operable
        return None

    async def _run(self, operation: Operation) -> None:
        """Claims the operation and runs it, then stores how it ended."""
        stop = self._stops[operation.operation]
        with self._stop.passing_to(stop):
            try:
                await self._peers.listed()
                alive = self._peers.workers_of(operation.mapping)
                claimed = await self._operations.change(
                    operation, partial(claims.claim, worker=self._worker, alive=alive)
                )
            except PortError:
                # The next read of the operations begins it again.
                return
            if claimed is None or claims.claimed_by(claimed) != self._worker:
                return
            self._claimed.add(operation.operation)
            run = self._make_run(
                operation=operation.operation,
                mapping=partial(self._mapping, operation.mapping),
                alive=partial(self._peers.workers_of, operation.mapping),
                pauses=partial(self._pausing.of, operation.mapping),
                changed=self.follow,
                stop=stop,
            )
            results: list[PartResult | None] = []
            trouble = await contained(_into(results, _work(claimed.request.action)(run)))
            if trouble is not None:
                name = f"{TaskKind.OPERATION} {operation.operation}"
                self._scope.report_end(TaskKind.OPERATION, name, TaskEnd.RAISED, reason_of(trouble))
                results.append(
                    PartResult(
                        state=OperationState.FAILED, result=f"a fault of the worker: {described(trouble)}"
                    )
                )
            result = results[-1]
            if result is not None:
                failed = result.state is not OperationState.DONE
                await run.change(
                    partial(lifecycle.finish, failed=failed, text=result.result, now=self._clock.now())
                )
                self.follow()


def _work(action: Action) -> Callable[[LongRun], Awaitable[PartResult | None]]:
    return seek if action is Action.SEEK else redrive


async def _into(results: list[PartResult | None], work: Awaitable[PartResult | None]) -> None:
    results.append(await work)
