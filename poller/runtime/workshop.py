"""Owns the opening of what mappings are made of: functions, which several may share, sources, destinations."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from random import Random
from typing import Any

from poller.errors import InvalidConfiguration, PortError, ServiceUnavailable
from poller.plan import FunctionPlan, MappingPlan, SourceKind, Tuning, destination_plugin
from poller.plugins import Environment, Registry, opened
from poller.ports import Destination, Store
from poller.records import WorkerId
from poller.runtime.invoking import Function
from poller.runtime.parts import Parts, QueueParts, StreamParts, common
from poller.runtime.queues import QueueMapping
from poller.runtime.stopping import Stop
from poller.runtime.streams import StreamMapping
from poller.runtime.supervisor import PartFailed, Runner, contained
from poller.runtime.workers import Workers
from poller.telemetry import Observer

OPEN_S_MAX = 30.0
"""How long the opening of one part may take before it counts as failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """All that one run of a mapping is made of; two that are equal make the same run."""

    plan: MappingPlan
    function: FunctionPlan
    tuning: Tuning


@dataclass(frozen=True, slots=True, kw_only=True)
class Tools:
    """What all mappings of a daemon work with."""

    registry: Registry
    env: Environment
    worker: WorkerId
    store: Store
    workers: Workers
    observer: Observer
    rng: Random


class Workshop:
    """Opens the parts of mappings. Functions run in tasks of `scope`, each as long as a mapping uses it."""

    def __init__(self, tools: Tools, scope: asyncio.TaskGroup) -> None:
        self._tools = tools
        self._functions = Functions(tools, scope)

    async def open(
        self, design: Design, stack: AsyncExitStack, lost: Callable[[], None]
    ) -> Callable[[Stop], Runner]:
        """Opens everything into `stack`; returns what makes the runner. Raises PartFailed.

        `lost` is called when the function is gone although nobody closed it.
        """
        function = await stack.enter_async_context(self._functions.using(design.function, lost))
        source = await _entered(stack, "source", source_of(design.plan), self._tools)
        parts = self._parts(design, function)
        if design.plan.kind is SourceKind.SQS:
            return partial(QueueMapping, QueueParts(**common(parts), source=source))
        destination = await self._destination(design.plan, stack)
        return partial(StreamMapping, StreamParts(**common(parts), source=source, destination=destination))

    async def rehearse(self, design: Design) -> list[str]:
        """What is wrong with a design as configured: opens its parts and closes them again, uses none of them."""
        problems: list[str] = []
        parts = [function_of(design.function, self._tools.registry), source_of(design.plan)]
        parts += [destination_of(design.plan.destination)] if design.plan.destination else []
        for part in parts:
            try:
                async with asyncio.timeout(OPEN_S_MAX), part.opened(self._tools.registry, self._tools.env):
                    pass
            except InvalidConfiguration as error:
                problems += error.problems
            except (PortError, TimeoutError):
                # The outside is in trouble, which says nothing of the configuration.
                continue
        return problems

    def _parts(self, design: Design, function: Function) -> Parts:
        return Parts(
            plan=design.plan,
            worker=self._tools.worker,
            function=function,
            store=self._tools.store,
            clock=self._tools.env.clock,
            rng=self._tools.rng,
            observer=self._tools.observer,
            tuning=design.tuning,
            workers=self._tools.workers,
        )

    async def _destination(self, plan: MappingPlan, stack: AsyncExitStack) -> Destination | None:
        if plan.destination is None:
            return None
        part = destination_of(plan.destination)
        destination: Destination = await _entered(stack, "destination", part, self._tools)
        return destination


class Host:
    """One open function in a task of its own, since what is opened in a task has to be closed in it."""

    def __init__(self, plan: FunctionPlan, tools: Tools) -> None:
        self.plan = plan
        self.users: list[Callable[[], None]] = []
        """Who is told when the function is gone although nobody closed it."""
        self.left = asyncio.Event()
        self.closed = asyncio.Event()
        self.trouble: Exception | None = None
        self._tools = tools
        self._function: Function | None = None
        self._settled = asyncio.Event()

    async def run(self) -> None:
        """Opens the function, waits until nobody uses it any more, closes it."""
        self.trouble = await contained(self._open())
        self._settled.set()
        self.closed.set()
        for lost in self.users:
            lost()

    async def opened(self) -> Function:
        """The function, as soon as it is open; raises what its opening raised."""
        await self._settled.wait()
        if self._function is None:
            assert self.trouble is not None, "a function that is neither open nor in trouble"
            raise self.trouble
        return self._function

    async def _open(self) -> None:
        async with AsyncExitStack() as stack:
            with _naming("invoker"):
                part = function_of(self.plan, self._tools.registry)
            invoker = await _entered(stack, "invoker", part, self._tools)
            self._function = Function(self.plan, invoker, self._tools.observer)
            self._settled.set()
            await self.left.wait()


class Functions:
    """The open functions by name; all mappings of one share its slots, so there is never a second one of that name."""

    def __init__(self, tools: Tools, scope: asyncio.TaskGroup) -> None:
        self._tools = tools
        self._scope = scope
        self._hosts: dict[str, Host] = {}

    @asynccontextmanager
    async def using(self, plan: FunctionPlan, lost: Callable[[], None]) -> AsyncIterator[Function]:
        """The function, opened if it is not. One by another plan is waited for until its last mapping has left it."""
        host = await self._host(plan)
        host.users.append(lost)
        try:
            yield await host.opened()
        finally:
            host.users.remove(lost)
            if not host.users:
                host.left.set()
        if host.left.is_set():
            await host.closed.wait()
        if host.trouble is not None:
            raise host.trouble

    async def _host(self, plan: FunctionPlan) -> Host:
        while (host := self._hosts.get(plan.name)) is not None:
            if host.plan == plan and not host.left.is_set():
                return host
            await host.closed.wait()
        host = self._hosts[plan.name] = Host(plan, self._tools)
        self._scope.create_task(self._run(host), name=f"function {plan.name}")
        return host

    async def _run(self, host: Host) -> None:
        try:
            await host.run()
        finally:
            del self._hosts[host.plan.name]


@dataclass(frozen=True, slots=True)
class Part:
    """One plug-in to open: its kind, name and settings."""

    kind: str
    name: str
    settings: Mapping[str, Any]

    def opened(self, registry: Registry, env: Environment) -> AbstractAsyncContextManager[Any]:
        """The open port; raises InvalidConfiguration and what the plug-in raises."""
        return opened(registry, self.kind, self.name, self.settings, env)


def source_of(plan: MappingPlan) -> Part:
    """A mapping's source."""
    return Part("sources", plan.kind.value, {"arn": plan.source_arn, **plan.source_settings})


def destination_of(destination: str) -> Part:
    """The destination with this ARN or URL, which names the plug-in."""
    return Part("destinations", destination_plugin(destination), {"arn": destination})


def function_of(plan: FunctionPlan, registry: Registry) -> Part:
    """A function's invoker. Those that care are told how many calls there may be at once."""
    settings = {"function": plan.name, **plan.settings}
    if "max_concurrency" in registry.plugin("invokers", plan.invoker).settings.model_fields:
        settings["max_concurrency"] = plan.max_concurrency
    return Part("invokers", plan.invoker, settings)


async def _entered(stack: AsyncExitStack, port: str, part: Part, tools: Tools) -> Any:
    with _naming(port):
        async with asyncio.timeout(OPEN_S_MAX):
            return await stack.enter_async_context(part.opened(tools.registry, tools.env))


@contextmanager
def _naming(port: str) -> Iterator[None]:
    """Says which part of a mapping it was that could not be opened."""
    try:
        yield
    except TimeoutError as error:
        raise PartFailed(port, ServiceUnavailable(f"not open within {OPEN_S_MAX:g} s")) from error
    except (PortError, InvalidConfiguration) as error:
        raise PartFailed(port, error) from error
