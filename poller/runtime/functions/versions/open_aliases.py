"""Owns the versions and aliases of one daemon: how their parts are made and started."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from poller.domain.plan import FunctionPlan
from poller.domain.telemetry.labels import TaskKind
from poller.runtime.functions.function_calls import FunctionCalls
from poller.runtime.functions.versions.alias_service import AliasService
from poller.runtime.functions.versions.alias_states import AliasStates
from poller.runtime.functions.versions.shift_driver import ShiftContext, ShiftDriver
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.stopping import Stop
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.heartbeat import Heartbeat


@dataclass(frozen=True, slots=True)
class OpenAliases:
    """The state of aliases, what requests for them need, and what carries their shifts out."""

    states: AliasStates
    service: AliasService
    driver: ShiftDriver

    @contextmanager
    def running(self, scope: WatchedTasks, stop: Stop) -> Iterator[None]:
        """Carries shifts out inside the block, until a stop."""
        driving = scope.kept(TaskKind.SHIFTS, self.driver.run, over=lambda: stop.requested)
        try:
            yield
        finally:
            driving.cancel()


def open_aliases(
    tools: DaemonContext,
    heartbeat: Heartbeat,
    plans: Callable[[], Mapping[str, FunctionPlan]],
    calls: FunctionCalls,
    scope: WatchedTasks,
    stop: Stop,
) -> OpenAliases:
    """The versions and aliases of a daemon. `calls` calls the hooks of shifts."""
    states, clock = tools.aliases, tools.env.clock

    def in_time() -> bool:
        return heartbeat.holding()()

    context = ShiftContext(
        states=states,
        plans=plans,
        caller=calls,
        me=tools.worker,
        others=heartbeat.others,
        holding=in_time,
        clock=clock,
        rng=tools.rng,
        observer=tools.observer,
        port_backoff=tools.port_backoff,
    )
    service = AliasService(states, calls.named, me=tools.worker, clock=clock, rng=tools.rng)
    return OpenAliases(states, service, ShiftDriver(context, scope, stop))
