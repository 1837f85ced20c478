"""Owns the daemon: opens everything that its plan names, runs the mappings, drains them."""

import asyncio
from contextlib import AsyncExitStack
from functools import partial
from random import Random

from poller.errors import InvalidConfiguration
from poller.plan import DaemonPlan, FunctionPlan, MappingPlan, SourceKind
from poller.plugins import Environment, Registry, opened
from poller.ports import Destination, Store
from poller.runtime.invoking import Function
from poller.runtime.parts import Parts, QueueParts, StreamParts, common
from poller.runtime.queues import QueueMapping
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams import StreamMapping
from poller.runtime.supervisor import Supervisor
from poller.status import DaemonStatus, MappingStatus
from poller.telemetry import MappingChanged, MappingState, Observer


class Daemon:
    """One daemon. `run` once; `stop` and `status` at any time from the same loop."""

    def __init__(
        self,
        plan: DaemonPlan,
        *,
        registry: Registry,
        env: Environment,
        observer: Observer,
        rng: Random,
    ) -> None:
        self._plan = plan
        self._registry = registry
        self._env = env
        self._observer = observer
        self._rng = rng
        self._stop = Stop()
        self._supervisors: list[Supervisor] = []
        self._opened = False

    async def run(self) -> None:
        """Opens the parts and runs until `stop` was called and everything has drained, or the grace is over.

        Raises InvalidConfiguration, before anything is read, when a part cannot be opened as configured.
        """
        async with AsyncExitStack() as stack:
            store: Store = await stack.enter_async_context(
                opened(self._registry, "stores", self._plan.store, self._plan.store_settings, self._env)
            )
            functions = await self._open_functions(stack)
            for plan in self._plan.mappings:
                if plan.enabled:
                    self._supervisors.append(await self._open_mapping(plan, functions, store, stack))
                else:
                    self._tell_disabled(plan)
            self._opened = True
            await self._run_all()

    def stop(self) -> None:
        """Drains: nothing new is taken, running invocations finish within the grace, checkpoints are saved."""
        self._stop.request(Reason.REQUESTED)

    def status(self) -> DaemonStatus:
        """What runs here now."""
        problems = tuple(problem for supervisor in self._supervisors if (problem := supervisor.problem()))
        if not self._opened:
            problems = ("not everything is open yet", *problems)
        if self._stop.requested:
            problems = ("draining", *problems)
        running = tuple(supervisor.status() for supervisor in self._supervisors)
        disabled = tuple(_disabled(plan) for plan in self._plan.mappings if not plan.enabled)
        return DaemonStatus(
            worker=str(self._plan.worker),
            mappings=running + disabled,
            ready=not problems,
            alive=True,
            problems=problems,
        )

    async def _open_functions(self, stack: AsyncExitStack) -> dict[str, Function]:
        needed = {plan.function for plan in self._plan.mappings if plan.enabled}
        functions: dict[str, Function] = {}
        for name in sorted(needed):
            plan = self._plan.functions.get(name)
            if plan is None:
                raise InvalidConfiguration(
                    [f"functions.{name}: a mapping names it, but it is not configured"]
                )
            functions[name] = await self._open_function(plan, stack)
        return functions

    async def _open_function(self, plan: FunctionPlan, stack: AsyncExitStack) -> Function:
        settings = {"function": plan.name, **plan.settings}
        if "max_concurrency" in self._registry.plugin("invokers", plan.invoker).settings.model_fields:
            settings["max_concurrency"] = plan.max_concurrency
        invoker = await stack.enter_async_context(
            opened(self._registry, "invokers", plan.invoker, settings, self._env)
        )
        return Function(plan, invoker, self._observer)

    async def _open_mapping(
        self,
        plan: MappingPlan,
        functions: dict[str, Function],
        store: Store,
        stack: AsyncExitStack,
    ) -> Supervisor:
        settings = {"arn": plan.source_arn, **plan.source_settings}
        source = await stack.enter_async_context(
            opened(self._registry, "sources", plan.kind.value, settings, self._env)
        )
        parts = Parts(
            plan=plan,
            worker=self._plan.worker,
            function=functions[plan.function],
            store=store,
            clock=self._env.clock,
            rng=self._rng,
            observer=self._observer,
            tuning=self._plan.tuning,
        )
        if plan.kind is SourceKind.SQS:
            queue = QueueParts(**common(parts), source=source)
            return Supervisor(plan, partial(QueueMapping, queue), parts, self._stop)
        destination = await self._open_destination(plan, stack)
        stream = StreamParts(**common(parts), source=source, destination=destination)
        return Supervisor(plan, partial(StreamMapping, stream), parts, self._stop)

    async def _open_destination(self, plan: MappingPlan, stack: AsyncExitStack) -> Destination | None:
        if plan.destination is None:
            return None
        service = plan.destination.split(":")[2]
        destination: Destination = await stack.enter_async_context(
            opened(self._registry, "destinations", service, {"arn": plan.destination}, self._env)
        )
        return destination

    async def _run_all(self) -> None:
        async with asyncio.TaskGroup() as scope:
            tasks = [
                scope.create_task(supervisor.run(), name=f"mapping {supervisor.plan.mapping}")
                for supervisor in self._supervisors
            ]
            await self._stop.wait()
            if not tasks:
                return
            _, late = await asyncio.wait(tasks, timeout=self._plan.tuning.grace_s)
            for task in late:
                task.cancel()

    def _tell_disabled(self, plan: MappingPlan) -> None:
        self._observer.on(
            MappingChanged(
                mapping=plan.mapping,
                function=plan.function,
                source_arn=plan.source_arn,
                state=MappingState.DISABLED,
            )
        )


def _disabled(plan: MappingPlan) -> MappingStatus:
    return MappingStatus(
        mapping=plan.mapping,
        function=plan.function,
        source_arn=plan.source_arn,
        state=MappingState.DISABLED,
    )
