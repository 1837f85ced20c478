"""Owns the asynchronous calls of one daemon: how their parts are made and started."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from poller.call_queue_ports import HasCallQueue
from poller.domain.plan import DaemonPlan
from poller.domain.telemetry.labels import TaskKind
from poller.rules.functions.naming import NamedFunction
from poller.runtime.functions.call_deliveries import HeldDestinations
from poller.runtime.functions.call_queues import CallQueues, CallWorkers
from poller.runtime.functions.held_functions import HeldFunctions
from poller.runtime.functions.invoke_configs import InvokeConfigs
from poller.runtime.functions.queued_call_run import CallRunContext
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.stopping import Stop
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.heartbeat import Heartbeat


@dataclass(frozen=True, slots=True)
class OpenCallQueues:
    """The queues of a daemon, and the destinations of their calls."""

    queues: CallQueues
    deliveries: HeldDestinations
    configs: InvokeConfigs

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
        waits_s=lambda: plan().tuning.async_retry_s,
    )

    def in_time() -> bool:
        return heartbeat.holding()()

    workers = CallWorkers(me=tools.worker, others=heartbeat.others, holding=in_time)
    return OpenCallQueues(CallQueues(context, workers, scope, stop), deliveries, configs)
