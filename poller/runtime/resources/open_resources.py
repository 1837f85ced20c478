"""Owns the parts that follow custom resources, and their three loops: what the cluster has, the mappings of it, and the status."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial

from poller.config.plugin_specs import resources_of
from poller.domain.errors import PortError
from poller.domain.plan import DaemonPlan
from poller.domain.telemetry.labels import TaskKind
from poller.plugins import Environment, Registry
from poller.resource_ports.resources import MappingResources
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.mappings.definitions import Definitions
from poller.runtime.mappings.desired import DesiredMappings
from poller.runtime.mappings.fleet import FleetReader
from poller.runtime.mappings.running import RunningMappings
from poller.runtime.resources.known_resources import KnownResources
from poller.runtime.resources.resource_mappings import ResourceMappings
from poller.runtime.resources.resource_status import ResourceStatusWriter
from poller.runtime.stopping import Stop, wait_until
from poller.runtime.watched_tasks import WatchedTasks
from poller.runtime.workers.heartbeat import Heartbeat

APPLY_S = 3.0
"""The interval at which mappings are compared with resources when nothing has changed."""
STATUS_S = 5.0
"""The interval at which the status of resources is looked at. A change of a resource is looked at sooner."""
SETTLE_S = 0.5
"""After a change of a resource its status waits for so long, so that it has something to say."""
LEASES_S = 30.0
"""The interval at which the leases of all mappings are read for the number of their shards."""
TROUBLED_S_MAX = 30.0
"""The longest wait after trouble."""


@asynccontextmanager
async def opened_resources(
    plan: DaemonPlan, registry: Registry, env: Environment
) -> AsyncIterator[MappingResources | None]:
    """The plan's way to custom resources, open until the block ends; None if it has none. Raises InvalidConfiguration."""
    spec = resources_of(plan)
    if spec is None:
        yield None
        return
    async with spec.opened(registry, env) as resources:
        yield resources


def following_resources(
    resources: "OpenResources | None", scope: WatchedTasks
) -> AbstractContextManager[None]:
    """Follows resources until the block ends; None: there are none to follow."""
    return nullcontext() if resources is None else resources.running(scope)


@dataclass(frozen=True, slots=True, kw_only=True)
class ResourceContext:
    """What of the open daemon the resources need. Mappings of the namespace with the UID `forgets` are deleted; `woken` wakes the reconciler."""

    tools: DaemonContext
    heartbeat: Heartbeat
    definitions: Definitions
    desired: DesiredMappings
    running: RunningMappings
    fleet: FleetReader
    forgets: str
    woken: Callable[[], None]


class OpenResources:
    """Follows the resources of one daemon."""

    def __init__(self, context: ResourceContext, resources: MappingResources, stop: Stop) -> None:
        self._context = context
        self._stop = stop
        self._clock = context.tools.env.clock
        self._work, self._tell = asyncio.Event(), asyncio.Event()
        self._known = KnownResources(resources, clock=self._clock, wait_s=self._wait_s, changed=self._changed)
        self._mappings = ResourceMappings(
            self._known,
            context.definitions,
            context.desired,
            feed=resources,
            namespace=resources.namespace,
            forgets=context.forgets,
            clock=self._clock,
            changed=self._applied,
        )
        self._writer = ResourceStatusWriter(
            self._known,
            self._mappings,
            resources,
            me=str(context.tools.worker),
            workers=self._workers,
            clock=self._clock,
        )
        self._notes: dict[str, str] = {}
        self._leases_at: float | None = None

    def notes(self) -> list[str]:
        """Notes for people, one line each."""
        return [each for each in (self._known.note, *self._notes.values()) if each]

    def problems(self) -> list[str]:
        """Why the daemon is not ready, one line each."""
        found = self._mappings.obstacle()
        return [found] if found else []

    @contextmanager
    def running(self, scope: WatchedTasks) -> Iterator[None]:
        """Follows the resources until the block ends."""
        tasks = [
            scope.kept(TaskKind.RESOURCES, self._known.run),
            scope.kept(
                TaskKind.RESOURCE_MAPPINGS,
                partial(self._repeat, "mappings", self._work, APPLY_S, self._apply),
            ),
            scope.kept(
                TaskKind.RESOURCE_STATUS, partial(self._repeat, "status", self._tell, STATUS_S, self._write)
            ),
        ]
        try:
            yield
        finally:
            for each in tasks:
                each.cancel()

    def _changed(self) -> None:
        self._work.set()
        self._tell.set()

    def _applied(self) -> None:
        self._context.woken()
        self._tell.set()

    async def _repeat(
        self, name: str, woken: asyncio.Event, every_s: float, work: Callable[[], object]
    ) -> None:
        """Does the work at each change and now and then. Trouble is noted, and the work is tried again later."""
        tries = 0
        while True:
            await wait_until(woken, every_s if not tries else max(every_s, self._wait_s(tries)))
            woken.clear()
            try:
                await work()  # type: ignore[misc]  # both are coroutines
            except PortError as error:
                self._notes[name], tries = f"custom resources, {name}: {error.reason}", tries + 1
            else:
                self._notes[name], tries = "", 0

    async def _apply(self) -> None:
        if not self._stop.requested:
            await self._mappings.apply()

    async def _write(self) -> None:
        await asyncio.sleep(SETTLE_S)
        if self._mappings.obstacle():
            return
        running, fleet, now = self._context.running, self._context.fleet, self._clock.monotonic()
        due = self._leases_at is None or now - self._leases_at >= LEASES_S
        await fleet.refresh(running.summaries() if due else None)
        self._leases_at = now if due else self._leases_at
        merged = fleet.merged(running.statuses(), leases=True)
        paused = fleet.with_all_pauses(tuple(merged.values()))
        await self._writer.write({each.mapping: each for each in paused})

    def _workers(self) -> list[str]:
        """The live workers that do not leave; none if this worker may not write."""
        heartbeat = self._context.heartbeat
        if self._stop.requested or not heartbeat.holding()():
            return []
        others = [str(name) for name, report in heartbeat.others().alive.items() if not report.leaving]
        return [str(self._context.tools.worker), *others]

    def _wait_s(self, tries: int) -> float:
        plan = self._context.tools.port_backoff
        return min(TROUBLED_S_MAX, plan.base_s * float(2 ** min(tries, 10)))
