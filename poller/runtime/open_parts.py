"""Owns the parts of the daemon that exist after its store was opened, and what they give to the services that take requests."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from random import Random

from poller.domain.plan import DaemonPlan, FunctionPlan
from poller.domain.telemetry.observers import Observer
from poller.plugins import Environment, Registry
from poller.ports import Store
from poller.resource_ports.resources import MappingResources
from poller.runtime.functions.function_calls import CallContext
from poller.runtime.functions.open_call_queues import OpenCallQueues
from poller.runtime.functions.versions.open_aliases import OpenAliases
from poller.runtime.mappings.components import DaemonContext
from poller.runtime.mappings.definitions import Definitions
from poller.runtime.mappings.desired import DesiredMappings
from poller.runtime.mappings.fleet import FleetReader
from poller.runtime.mappings.function_service import function_statuses
from poller.runtime.mappings.mapping_service import ServiceContext
from poller.runtime.mappings.preflight import Preflight
from poller.runtime.mappings.running import RunningMappings
from poller.runtime.operations.follower import Follower
from poller.runtime.operations.operation_service import OperationContext
from poller.runtime.peeking.service import Peeking
from poller.runtime.resources.open_resources import OpenResources, ResourceContext
from poller.runtime.stopping import Stop
from poller.runtime.streams.places import Places
from poller.runtime.workers.fleet_sizing import FleetSizing
from poller.runtime.workers.heartbeat import Heartbeat
from poller.runtime.workers.status_digests import DigestWriter


@dataclass(slots=True)
class OpenParts:
    """The parts of the daemon that exist after the store was opened."""

    definitions: Definitions
    desired: DesiredMappings
    running: RunningMappings
    store: Store
    heartbeat: Heartbeat
    places: Places
    follower: Follower
    operations: OperationContext
    fleet: FleetReader
    calls: OpenCallQueues | None
    """The asynchronous calls; None if the store keeps none."""
    aliases: OpenAliases
    sizing: FleetSizing
    tools: DaemonContext
    resources: OpenResources | None = None
    """What follows custom resources; None if the plan has none."""

    def problems(self) -> list[str]:
        """Why the daemon is not ready, as far as it is not about a mapping, one line each."""
        return [] if self.resources is None else self.resources.problems()

    def notes(self, functions: Mapping[str, FunctionPlan]) -> list[str]:
        """Notes for people, one line each."""
        found = [*self.desired.notes(), *self.running.components.notes(), *self.follower.notes()]
        found += [] if self.calls is None else self.calls.notes()
        found += self.aliases.states.notes(functions)
        return found + ([] if self.resources is None else self.resources.notes())

    def digests(self) -> DigestWriter | None:
        """What writes this worker's digest; None if the store takes none."""
        functions = partial(function_statuses, self.running.components)
        return self.fleet.writer(self.running.summaries, functions, self.sizing.own)

    def follow(
        self, feed: MappingResources | None, plan: DaemonPlan, stop: Stop, *, woken: Callable[[], None]
    ) -> None:
        """Makes what follows custom resources, if there is a feed of them."""
        if feed is not None and plan.resources is not None:
            context = ResourceContext(
                tools=self.tools,
                heartbeat=self.heartbeat,
                definitions=self.definitions,
                desired=self.desired,
                running=self.running,
                fleet=self.fleet,
                forgets=plan.resources.forget_namespace,
                woken=woken,
            )
            self.resources = OpenResources(context, feed, stop)

    def service_context(
        self,
        registry: Registry,
        env: Environment,
        *,
        rng: Random,
        observer: Observer,
        woken: Callable[[], None],
    ) -> ServiceContext:
        """What requests for changes, for records and for calls of functions need. `woken` is called after each change."""
        return ServiceContext(
            desired=self.desired,
            definitions=self.definitions,
            running=self.running,
            preflight=Preflight(registry, env, self.aliases.states),
            fleet=self.fleet,
            peeking=Peeking(
                plans=lambda: [entry.spec.plan for entry in self.desired.entries()],
                leases=self.store,
                registry=registry,
                env=env,
            ),
            calls=CallContext(
                held=self.running.held,
                plans=lambda: self.desired.plan.functions,
                arns=lambda: (entry.spec.plan.function_arn for entry in self.desired.entries()),
                log=env.function_log,
                clock=env.clock,
                rng=rng,
                observer=observer,
                queues=None if self.calls is None else self.calls.queues,
                configs=None if self.calls is None else self.calls.configs,
                aliases=self.aliases.service,
                made=self.aliases.service.made,
                page=None if self.calls is None else self.calls.page,
            ),
            clock=env.clock,
            rng=rng,
            woken=woken,
        )
