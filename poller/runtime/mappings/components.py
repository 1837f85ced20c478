"""Owns how the parts of mappings are opened: functions, which several mappings may share, sources and destinations."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from random import Random
from typing import Any

from poller.config.plugin_specs import (
    PluginSpec,
    destination_of,
    function_of,
    shared_source_text,
    source_of,
)
from poller.domain.errors import InvalidConfiguration, PortError, ServiceUnavailable
from poller.domain.plan import FunctionPlan, MappingPlan, SourceKind, Tuning
from poller.domain.policies import Backoff
from poller.domain.records import MappingId, WorkerId
from poller.domain.status import CodeStatus
from poller.domain.telemetry.daemon_events import FunctionOpened
from poller.domain.telemetry.labels import TaskEnd, TaskKind
from poller.domain.telemetry.observers import Observer
from poller.plugins import Environment, Registry
from poller.ports import Bounded, CallPacer, Invoker, PushingSource, Store, StreamSource
from poller.runtime.context import MappingContext, common
from poller.runtime.flow_control.flow_control import FlowControl
from poller.runtime.function_code import FunctionCode
from poller.runtime.functions.traced_function import made_function
from poller.runtime.functions.versions.alias_states import AliasStates
from poller.runtime.functions.versions.open_versions import OpenVersions
from poller.runtime.functions.versions.versioned_invoker import START_S_MAX, longest_s, versioned
from poller.runtime.invoking import Function
from poller.runtime.mappings.call_limits import call_limit
from poller.runtime.mappings.supervisor import PartFailed, Runner, contained
from poller.runtime.memory.pool import MemoryPool
from poller.runtime.port_failures import report_calls
from poller.runtime.queues.context import QueueContext
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stop_tally import Calls
from poller.runtime.stopping import Reason, Stop, unless_stopped
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.places import Places
from poller.runtime.streams.shared_reads.shared_stream import SharedReads, SharedSource
from poller.runtime.streams.stream_mapping import StreamMapping
from poller.runtime.watched_tasks import TaskFault, WatchedTasks, reason_of
from poller.runtime.workers.function_group import AloneWithFunctions, Sharing
from poller.runtime.workers.membership import Workers

PACER = PluginSpec("pacers", "throttle")
"""Spaces the calls of functions that have a rate."""
OPEN_S_MAX = 30.0
"""How long it may take to open one part before it counts as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingSpec:
    """Everything that one run of a mapping is made of. If two specs are equal, their runs are the same."""

    plan: MappingPlan
    function: FunctionPlan
    tuning: Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonContext:
    """The parts of the daemon that all its mappings use."""

    registry: Registry
    env: Environment
    worker: WorkerId
    store: Store
    workers: Workers
    observer: Observer
    rng: Random
    port_backoff: Backoff
    """The back-off after failed calls of the store that belong to no mapping."""
    aliases: AliasStates
    """Where the aliases of functions lead."""
    places: Places = field(default_factory=Places)
    sharing: Sharing = field(default_factory=AloneWithFunctions)
    """The workers that share the rates of functions."""


class ComponentFactory:
    """Opens the parts of mappings. Each function has a task in `scope` as long as a mapping uses it."""

    def __init__(
        self, tools: DaemonContext, scope: WatchedTasks, *, read_pauses: Callable[[MappingId], None]
    ) -> None:
        self.sharing = tools.sharing
        """The workers that share the rates of functions."""
        self._tools, self._read_pauses = tools, read_pauses
        self._memory = MemoryPool(tools.observer)
        self._shared_reads = SharedReads(tools.env.clock, memory=self._memory.account())
        self.functions = FunctionPool(tools, scope)
        """The open functions."""

    async def open(
        self,
        spec: MappingSpec,
        stack: AsyncExitStack,
        lost: Callable[[], None],
        *,
        changed: Callable[[StreamContext], StreamContext] | None = None,
    ) -> Callable[[Stop], Runner]:
        """Opens all parts into `stack`; returns a function that makes the runner. Raises PartFailed.

        `lost` is called if the function's task ends although nothing closed it. `changed` may replace parts of a stream mapping.
        """
        self._memory.follow(spec.tuning.memory_mb)
        function = await stack.enter_async_context(self.functions.using(spec.function, lost))
        await stack.enter_async_context(function.used_by(spec.plan.function_arn))
        source = await _entered(stack, "source", source_of(spec.plan), self._tools)
        report_calls(source, spec.plan.mapping, self._tools.observer)
        parts = self._parts(spec, function)
        if spec.plan.kind is SourceKind.SQS:
            return partial(QueueMapping, QueueContext(**common(parts), source=source))
        part = destination_of(spec.plan)
        destination = None if part is None else await _entered(stack, "destination", part, self._tools)
        shared = None if changed is not None else self._shared(spec, source)
        stream = StreamContext(
            **common(parts), source=source, shared=shared, destination=destination, places=self._tools.places
        )
        return partial(StreamMapping, stream if changed is None else changed(stream))

    def _shared(self, spec: MappingSpec, source: StreamSource) -> SharedSource | None:
        """The stream for the readers of the mapping's shards; None if its records are pushed."""
        if isinstance(source, PushingSource):
            return None
        alone = "" if spec.plan.stream.shared_reads else spec.plan.mapping
        key = shared_source_text(spec.plan), alone
        return self._shared_reads.view(key, source, idle_s=spec.tuning.idle_poll_s)

    async def rehearse(self, spec: MappingSpec) -> list[str]:
        """The problems of a spec's configuration. Opens its parts and closes them again without using them."""
        problems: list[str] = []
        for part in (function_of(spec.function), source_of(spec.plan), destination_of(spec.plan)):
            if part is None:
                continue
            try:
                async with asyncio.timeout(OPEN_S_MAX), part.opened(self._tools.registry, self._tools.env):
                    pass
            except InvalidConfiguration as error:
                problems += error.problems
            except (PortError, TimeoutError):
                # An outside service fails. That is not a problem of the configuration.
                continue
        return problems

    def notes(self) -> list[str]:
        """Notes for people about the functions and the memory, one line each."""
        return [*self.functions.notes(), *self._memory.notes()]

    def calls(self) -> Calls:
        """The running calls of functions."""
        return self.functions.calls()

    def _parts(self, spec: MappingSpec, function: Function) -> MappingContext:
        return MappingContext(
            plan=spec.plan,
            worker=self._tools.worker,
            function=function,
            store=self._tools.store,
            clock=self._tools.env.clock,
            rng=self._tools.rng,
            observer=self._tools.observer,
            tuning=spec.tuning,
            turns=self._tools.env.turns,
            workers=self._tools.workers,
            memory=self._memory,
            operated=True,
            read_pauses=partial(self._read_pauses, spec.plan.mapping),
        )


class SharedFunction:
    """One open function in a task of its own, because it must be closed in the task that opened it."""

    def __init__(self, plan: FunctionPlan, tools: DaemonContext) -> None:
        self.plan = plan
        self.users: list[Callable[[], None]] = []
        """Callbacks for the case that the function's task ends although nothing closed it."""
        self.left = Stop()
        self.closed = asyncio.Event()
        self.trouble: Exception | None = None
        self._tools = tools
        self.function: Function | None = None
        self._code: FunctionCode | None = None
        self._settled = asyncio.Event()

    async def run(self) -> None:
        """Opens the function, waits until no mapping uses it any more, and closes it."""
        self.trouble = await contained(self._open())

    @contextmanager
    def used(self, lost: Callable[[], None]) -> Iterator[None]:
        """The function stays open inside the block. It is closed when the last one has left it."""
        self.users.append(lost)
        try:
            yield
        finally:
            self.users.remove(lost)
            if not self.users:
                self.left.request(Reason.REQUESTED)

    def gone(self) -> None:
        """The function was closed, or could not be opened."""
        self._settled.set()
        self.closed.set()
        for lost in self.users:
            lost()

    async def opened(self) -> Function:
        """Waits until the function is open and returns it; raises the error of its opening."""
        await self._settled.wait()
        if self.function is None:
            assert self.trouble is not None, "a function that is neither open nor in trouble"
            raise self.trouble
        return self.function

    def calls(self) -> Calls:
        """How many calls are under way."""
        found = {} if self.function is None else self.function.calls
        return Counter({(mapping, self.plan.name): calls for mapping, calls in found.items()})

    @property
    def flow(self) -> FlowControl | None:
        """The function's rate and breaker; None if it has neither, or is not open."""
        return None if self.function is None else self.function.flow

    @property
    def code(self) -> CodeStatus | None:
        """The function's code; None if it is not reloaded, or the function is not open."""
        return None if self._code is None else self._code.status

    def notes(self) -> list[str]:
        """Notes for people about the function, one line each."""
        notes = [] if self.function is None else self.function.notes()
        return notes if self._code is None else [*notes, *self._code.notes()]

    async def _open(self) -> None:
        async with AsyncExitStack() as stack:
            part = function_of(self.plan)
            # A slow opening is given up when the last mapping has left.
            invoker = await unless_stopped(self.left, _entered(stack, "invoker", part, self._tools))
            if invoker is None:
                return
            flow = await flow_control(self.plan, self._tools, stack)
            self._code = code = FunctionCode(self.plan.name, invoker, self._tools.observer)
            async with WatchedTasks(self._tools.observer) as scope, self._versions(invoker, scope) as whole:
                self.function = function = self._limited(whole, flow)
                self._settled.set()
                kept = [scope.kept(TaskKind.FUNCTION_FACTS, function.follow, of=self.plan.name)]
                if code.status is not None:
                    kept.append(scope.kept(TaskKind.FUNCTION_CODE, code.follow, of=self.plan.name))
                await self.left.wait()
                for each in kept:
                    each.cancel()

    @asynccontextmanager
    async def _versions(self, latest: Invoker, scope: WatchedTasks) -> AsyncIterator[Invoker]:
        """The invoker of all versions, if there are others than $LATEST. Those to which aliases lead are open, as far as they can be."""
        plan, tools = self.plan, self._tools
        if not (plan.versions or plan.aliases or tools.aliases.made(plan.name)):
            yield latest
            return

        async def opening(stack: AsyncExitStack, part: PluginSpec) -> Invoker:
            invoker: Invoker = await _entered(stack, "invoker", part, tools)
            return invoker

        versions = OpenVersions(plan, opening, tools.aliases, scope)
        whole = versioned(plan, latest, versions, tools.aliases, tools.env.clock)
        with suppress(TimeoutError):
            async with asyncio.timeout(START_S_MAX):
                await unless_stopped(self.left, versions.opened(whole.ahead()))
        following = scope.kept(TaskKind.VERSIONS, whole.follow, of=plan.name)
        try:
            yield whole
        finally:
            following.cancel()
            versions.close()

    def _limited(self, invoker: Invoker, flow: FlowControl | None) -> Function:
        """The function with one slot for each call that its invoker can run, so that no records are taken that could not run."""
        limit = call_limit(self.plan, invoker.call_limit if isinstance(invoker, Bounded) else None)
        observer, name, kind = self._tools.observer, self.plan.name, self.plan.invoker
        observer.on(
            FunctionOpened(function=name, invoker=kind, calls_at_once=limit.calls, reason=limit.reason)
        )
        plan = replace(self.plan, max_concurrency=limit.calls, timeout_s=longest_s(self.plan))
        return made_function(plan, invoker, observer, flow=flow, tracer=self._tools.env.tracer)


async def flow_control(plan: FunctionPlan, tools: DaemonContext, stack: AsyncExitStack) -> FlowControl | None:
    """The rate and the breaker of a function, opened into `stack`; None if it has neither. Raises PartFailed."""
    if plan.rate is None and plan.breaker is None:
        return None
    pacer: CallPacer | None = None
    if plan.rate is not None:
        pacer = await _entered(stack, "pacer", PACER, tools)
    found: FlowControl | None = None

    def closed() -> None:
        if found is not None:
            found.closed_elsewhere()

    share = stack.enter_context(tools.sharing.function(plan.name, closed=closed))
    found = FlowControl(plan, pacer=pacer, share=share, clock=tools.env.clock, observer=tools.observer)
    stack.callback(found.end)
    return found


class FunctionPool:
    """The open functions by name. All mappings of a function share its slots, so a function is never open twice."""

    def __init__(self, tools: DaemonContext, scope: WatchedTasks) -> None:
        self._tools = tools
        self._scope = scope
        self._hosts: dict[str, SharedFunction] = {}

    @asynccontextmanager
    async def using(self, plan: FunctionPlan, lost: Callable[[], None]) -> AsyncIterator[Function]:
        """Opens the function if it is not open. If it is open with another plan, waits until the last mapping has left it."""
        host = await self._host(plan)
        with host.used(lost):
            yield await host.opened()
        if host.left.requested:
            await host.closed.wait()
        if host.trouble is not None:
            raise host.trouble

    @contextmanager
    def kept_open(self, function: Function) -> Iterator[None]:
        """An open function stays open inside the block, whoever else leaves it. Raises TaskFault if it is not open any more."""
        host = self._hosts.get(function.plan.name)
        if host is None or host.function is not function or host.left.requested:
            raise TaskFault(f"{TaskKind.FUNCTION} {function.plan.name}", TaskEnd.RETURNED, "")
        with host.used(lambda: None):
            yield

    def calls(self) -> Calls:
        """How many calls are under way."""
        return sum((host.calls() for host in self._hosts.values()), Counter())

    def flow_controls(self) -> list[FlowControl]:
        """The rates and breakers of the open functions."""
        return [host.flow for host in self._hosts.values() if host.flow is not None]

    def code(self) -> dict[str, CodeStatus]:
        """The code of the open functions that are reloaded, by their names."""
        return {name: host.code for name, host in self._hosts.items() if host.code is not None}

    def notes(self) -> list[str]:
        """Notes for people about all functions, one line each."""
        return [note for host in self._hosts.values() for note in host.notes()]

    async def _host(self, plan: FunctionPlan) -> SharedFunction:
        while (host := self._hosts.get(plan.name)) is not None:
            if host.plan == plan and not host.left.requested:
                return host
            await host.closed.wait()
        host = self._hosts[plan.name] = SharedFunction(plan, self._tools)
        self._scope.spawn(host.run(), f"{TaskKind.FUNCTION} {plan.name}", partial(self._ended, host))
        return host

    def _ended(self, host: SharedFunction, end: TaskEnd, error: BaseException | None) -> None:
        """Informs the mappings of a function that it is gone. They open it again."""
        del self._hosts[host.plan.name]
        if error is not None or (host.trouble is None and not host.left.requested):
            name, reason = f"{TaskKind.FUNCTION} {host.plan.name}", reason_of(error) if error else ""
            host.trouble = TaskFault(name, end, reason)
            if error is not None or not self._scope.ending:
                self._scope.report_end(TaskKind.FUNCTION, name, end, reason)
        host.gone()


async def _entered(stack: AsyncExitStack, port: str, part: PluginSpec, tools: DaemonContext) -> Any:
    with _naming(port):
        async with asyncio.timeout(OPEN_S_MAX):
            return await stack.enter_async_context(part.opened(tools.registry, tools.env))


@contextmanager
def _naming(port: str) -> Iterator[None]:
    """Turns an error of an opening into PartFailed, which names the part."""
    try:
        yield
    except TimeoutError as error:
        raise PartFailed(port, ServiceUnavailable(f"not open within {OPEN_S_MAX:g} s")) from error
    except (PortError, InvalidConfiguration) as error:
        raise PartFailed(port, error) from error
