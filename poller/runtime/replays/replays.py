"""Owns which replays run on this worker, and removes what they leave in the store.

A replay runs here while its operation is open and its mapping runs here. While the mapping is disabled it waits. When the
operation is over, every worker stops its run, and then the hidden mapping is removed from the store.
"""

from collections import Counter
from collections.abc import Sequence
from functools import partial

from poller.domain.errors import PortError
from poller.domain.operations import Action, Operation, OperationId, OperationTarget, OperatorPause
from poller.domain.plan import MappingPlan
from poller.domain.records import MappingId, Monotonic
from poller.domain.rows import REPLAY_PREFIX
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.rules.operations import lifecycle
from poller.rules.replays.asking import replay_mapping
from poller.runtime.operations.operable_mappings import OperableMappings
from poller.runtime.operations.pausing import Pausing
from poller.runtime.replays.replay_run import ReplayContext, ReplayRun, begun
from poller.runtime.stopping import Reason, Stop
from poller.runtime.watched_tasks import WatchedTasks, reason_of

SWEEP_FIRST_S = 30.0
SWEEP_S = 600.0
"""When the store is searched for hidden mappings that a worker left behind which ended before it had removed them."""
GONE_S = 6.0
"""A hidden mapping is removed so long after its replay was over. By then all workers have stopped it, or count as dead."""


class Replays:
    """The replays on this worker. Their tasks run in `scope`."""

    def __init__(
        self,
        running: OperableMappings,
        pausing: Pausing,
        scope: WatchedTasks,
        stop: Stop,
        context: ReplayContext,
    ) -> None:
        self._running = running
        self._pausing = pausing
        self._scope = scope
        self._stop = stop
        self._context = context
        self._runs: dict[OperationId, ReplayRun] = {}
        self._counts: dict[OperationId, Counter[str]] = {}
        self._over: dict[MappingId, Monotonic] = {}
        """Hidden mappings to remove, and since when their replays are over."""
        self._sweep_due = Monotonic(context.clock.monotonic() + SWEEP_FIRST_S)

    def follow(self) -> None:
        """Begins and ends runs. Call it after each read of the operations."""
        known = self._context.operations.known or {}
        wanted = {each.operation: each for each in known.values() if each.request.action is Action.REPLAY}
        for operation_id, run in self._runs.items():
            operation = wanted.get(operation_id)
            if operation is None or self._plan(operation) is None or self._outdated(run):
                run.stop.request(Reason.REQUESTED)
            elif self._pausing.up_to_date(run.plan.mapping):
                again = self._pausing.answered(run.plan.mapping)
                run.mapping.apply_pauses(self._pauses(operation.mapping), again=again)
        for operation_id in self._counts.keys() - wanted.keys() - self._runs.keys():
            del self._counts[operation_id]
        for operation_id, operation in wanted.items():
            if operation_id not in self._runs and (plan := self._plan(operation)) is not None:
                self._begin(operation, plan)

    async def tidy(self) -> None:
        """Removes hidden mappings whose replays are over, when no worker runs them any more. Raises PortError."""
        context, now = self._context, self._context.clock.monotonic()
        if now >= self._sweep_due:
            self._sweep_due = Monotonic(now + SWEEP_S)
            for row in await context.store.mappings():
                if row.mapping.startswith(REPLAY_PREFIX):
                    self._over.setdefault(row.mapping, now)
        if not self._over:
            return
        open_ones = {replay_mapping(each) for each in self._context.operations.known or {}}
        for mapping, since in tuple(self._over.items()):
            if mapping in open_ones:
                del self._over[mapping]
            elif now - since >= GONE_S and not context.peers.workers_of(mapping):
                await context.store.forget(mapping)
                del self._over[mapping]

    def _plan(self, operation: Operation) -> MappingPlan | None:
        """The plan of the mapping that the replay belongs to; None while the mapping does not run here."""
        found = self._running.known(operation.mapping)
        return found.plan if found is not None and found.runs and not found.deleting else None

    def _outdated(self, run: ReplayRun) -> bool:
        return self._context.host.current(run.plan) != run.current

    def _pauses(self, mapping: MappingId) -> Sequence[OperatorPause] | None:
        """The pauses of the whole mapping, which hold its replays too."""
        found = self._pausing.of(mapping)
        return None if found is None else [each for each in found if each.target == OperationTarget()]

    def _begin(self, operation: Operation, plan: MappingPlan) -> None:
        operation_id = operation.operation
        counts = self._counts.setdefault(operation_id, Counter())
        try:
            run = begun(operation, plan, self._context, counts)
        except ValueError as error:
            self._scope.spawn(
                self._refuse(operation, str(error)), f"{TaskKind.OPERATION} {operation_id}", _ignored
            )
            return
        self._runs[operation_id] = run
        run.mapping.apply_pauses(self._pauses(operation.mapping))
        name = f"{TaskKind.OPERATION} {operation_id}"
        task = self._scope.spawn(self._run(run), name, partial(self._ended, operation_id, name))
        self._context.host.track(task)

    async def _run(self, run: ReplayRun) -> None:
        def pass_on() -> None:
            run.stop.request(Reason.REQUESTED, within_s=self._stop.left_s)

        def over() -> bool:
            return run.stop.requested

        with self._stop.listening(pass_on):
            async with WatchedTasks(self._context.observer, run.plan.mapping) as scope:
                of = run.plan.mapping
                scope.start(TaskKind.OPERATION, run.watch(self._stop), of=of, over=over)
                scope.start(TaskKind.MAPPING, run.mapping.run(), of=of, over=over)

    def _ended(self, operation: OperationId, name: str, end: TaskEnd, error: BaseException | None) -> None:
        run = self._runs.pop(operation)
        self._pausing.forget(run.plan.mapping)
        if error is not None:
            self._scope.report_end(TaskKind.OPERATION, name, end, reason_of(error))
        if self._context.operations.get(operation) is None:
            self._over[run.plan.mapping] = self._context.clock.monotonic()

    async def _refuse(self, operation: Operation, text: str) -> None:
        now = self._context.clock.now()
        try:
            await self._context.operations.change(
                operation, partial(lifecycle.finish, failed=True, text=text, now=now)
            )
        except PortError:
            # The next read of the operations begins it again.
            return


def _ignored(_end: TaskEnd, _error: BaseException | None) -> None:
    return
