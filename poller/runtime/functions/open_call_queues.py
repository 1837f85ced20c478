"""Owns the asynchronous calls of one daemon: how their parts are made and started."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from poller.call_queue_ports import HasCallQueue
from poller.domain.functions.waiting_calls import CallPage, CallsRequest
from poller.domain.plan import DaemonPlan
from poller.domain.records import WorkerId
from poller.domain.telemetry.labels import TaskKind
from poller.ports import Clock
from poller.rules.functions.call_owners import CallOwners
from poller.rules.functions.naming import NamedFunction
from poller.rules.workers.worker_group import KnownWorkers
from poller.runtime.functions.call_deliveries import HeldDestinations
from poller.runtime.functions.call_looks import CallLooks
from poller.runtime.functions.call_queues import CallQueues, CallWorkers
from poller.runtime.functions.held_functions import HeldFunctions
from poller.runtime.functions.invoke_configs import InvokeConfigs
from poller.runtime.functions.operations.call_operation_run import CallOperationContext
from poller.runtime.functions.operations.call_operations import CallOperations
from poller.runtime.functions.queued_call_run import CallRunContext
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.operations.long.long_run import PlaceOpener
from poller.runtime.operations.open_operations import OpenOperations
from poller.runtime.stopping import Stop
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.heartbeat import Heartbeat


class GoneOwners:
    """Which owners of calls are gone, as far as this worker knows by now."""

    def __init__(self, me: WorkerId, others: Callable[[], KnownWorkers], clock: Clock) -> None:
        self._me = me
        self._others = others
        self._clock = clock
        self._owners = CallOwners()

    def __call__(self, owners: Collection[WorkerId]) -> frozenset[WorkerId]:
        """Those of these owners that are gone. One that was never seen as a worker is gone after the next listing."""
        known = {*self._owners.strangers, *owners}
        self._owners, gone = self._owners.seen(
            known, self._others(), me=self._me, now=self._clock.monotonic()
        )
        return gone & frozenset(owners)


@dataclass(frozen=True, slots=True)
class OpenCallQueues:
    """The queues of a daemon, the destinations of their calls, and what is read and done of them for operators."""

    queues: CallQueues
    deliveries: HeldDestinations
    configs: InvokeConfigs
    looks: CallLooks
    operating: CallOperationContext
    heartbeat: Heartbeat

    def known(self, function: str) -> bool:
        """Whether there is a function of this name here, or calls wait for one."""
        return self.operating.claimable(function) or any(
            each.function == function for each in self.queues.backlogs
        )

    def notes(self) -> Sequence[str]:
        """Notes for people about what holds calls up."""
        return self.configs.unread

    async def page(self, function: str, request: CallsRequest) -> CallPage:
        """A page of the calls of a function. Raises ApiError."""
        return await self.looks.page(function, request, known=self.known(function))

    def operations(self, operations: OpenOperations, scope: WatchedTasks, stop: Stop) -> CallOperations:
        """What carries out operations on the calls."""
        return CallOperations(
            operations,
            scope,
            stop,
            context=self.operating,
            peers=self.heartbeat,
            alive=lambda: frozenset(self.heartbeat.others().alive),
        )

    @contextmanager
    def running(self, scope: WatchedTasks, stop: Stop) -> Iterator[None]:
        """Claims and runs calls inside the block, until a stop. The destinations stay open until its end."""
        claiming = scope.kept(TaskKind.QUEUED_CALLS, self.queues.run, over=lambda: stop.requested)
        delivering = scope.kept(TaskKind.CALL_DELIVERIES, self.deliveries.run)
        try:
            yield
        finally:
            claiming.cancel()
            delivering.cancel()


def open_call_queues(
    tools: DaemonContext,
    held: HeldFunctions,
    heartbeat: Heartbeat,
    plan: Callable[[], DaemonPlan],
    named: Callable[[str, str], NamedFunction],
    scope: WatchedTasks,
    stop: Stop,
    *,
    opener: PlaceOpener,
) -> OpenCallQueues | None:
    """The asynchronous calls of a daemon; None if its store keeps none."""
    if not isinstance(tools.store, HasCallQueue):
        return None
    deliveries = HeldDestinations(tools.registry, tools.env)
    configs = InvokeConfigs(tools.store, tools.env.clock, named)
    context = CallRunContext(
        store=tools.store.call_queue,
        held=held,
        plans=lambda: plan().functions,
        deliveries=deliveries,
        clock=tools.env.clock,
        rng=tools.rng,
        observer=tools.observer,
        port_backoff=tools.port_backoff,
        policy=configs.policy,
        ready=configs.ready,
        waits_s=lambda: plan().tuning.async_retry_s,
    )

    def in_time() -> bool:
        return heartbeat.holding()()

    workers = CallWorkers(me=tools.worker, others=heartbeat.others, holding=in_time)
    queues = CallQueues(context, workers, scope, stop)
    operating = CallOperationContext(
        worker=tools.worker,
        store=context.store,
        gone=GoneOwners(tools.worker, heartbeat.others, context.clock),
        policy=lambda function, arn: configs.policy(plan().functions.get(function), arn),
        claimable=lambda function: function in plan().functions,
        wake=queues.wake,
        named=named,
        put=queues.put,
        opener=opener,
        clock=context.clock,
        rng=context.rng,
        observer=context.observer,
        port_backoff=context.port_backoff,
    )
    looks = CallLooks(context.store, lambda: queues.backlogs, context.clock)
    return OpenCallQueues(queues, deliveries, configs, looks, operating, heartbeat)
