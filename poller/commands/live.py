"""Owns the live look of `poller check`: every part of a plan opened as the daemon would, asked, and closed again.

Parts are looked at side by side, a few at a time, each for a bounded time. Nothing is made, sent or changed.
"""

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, TextIO

from poller.errors import InvalidConfiguration, PortError
from poller.findings import Finding, Grade
from poller.plan import DaemonPlan, FunctionPlan, MappingPlan, SourceKind
from poller.plugins import Environment, Registry, validated
from poller.ports import ConsumerCheck, FunctionProbe, Probe
from poller.rules.queue_checks import LambdaConsumers, lambda_consumers, queue_warnings
from poller.runtime.workshop import Part, destination_of, function_of, source_of

LOOK_S_MAX = 60.0
"""For all that one part is asked."""
LOOKS_MAX = 8
"""Parts looked at at once."""
OPENS = "opens"

type Ask = Callable[[Any], Awaitable[Sequence[Finding]]]


@dataclass(frozen=True, slots=True)
class Target:
    """One part to look at: its place in the configuration, what it is called, and how it is asked once it is open."""

    place: str
    name: str
    part: Part
    ask: Ask


@dataclass(frozen=True, slots=True)
class Look:
    """What was found at one place; `kind` is its family of plug-ins."""

    place: str
    kind: str
    plugin: str
    name: str
    findings: tuple[Finding, ...]

    def lines(self, grade: Grade) -> list[str]:
        """The findings of one grade, a line each, with the place in front."""
        return [
            each.line if each.line.startswith(self.place) else f"{self.place}: {each.line}"
            for each in self.findings
            if each.grade is grade
        ]

    def checks(self, grade: Grade) -> str:
        """Names of the checks of one grade."""
        return ", ".join(each.check for each in self.findings if each.grade is grade)


async def looks(
    plan: DaemonPlan, registry: Registry, env: Environment, *, consumers: LambdaConsumers
) -> list[Look]:
    """Looks at functions, sources, destinations and the store of a plan; in that order, whichever answers first."""
    wanted = list(targets(plan, registry, consumers))
    gate = asyncio.Semaphore(LOOKS_MAX)
    progress = Progress(len(wanted), sys.stderr)

    async def one(target: Target) -> Look:
        async with gate:
            found = await _looked(target, registry, env)
        progress.step(target.place)
        return found

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(each), name=f"look at {each.place}") for each in wanted]
    finally:
        progress.end()
    return [task.result() for task in tasks]


def targets(plan: DaemonPlan, registry: Registry, consumers: LambdaConsumers) -> Iterator[Target]:
    """All parts of a plan; a destination that several mappings share is one."""
    for function in plan.functions.values():
        arns = sorted({each.function_arn for each in plan.mappings if each.function == function.name})
        yield Target(
            f"functions.{function.name}", function.name, function_of(function, registry), _function(arns)
        )
    for index, mapping in enumerate(plan.mappings):
        place, part = f"mappings[{index}]", source_of(mapping)
        ask = _queue(mapping, plan.functions[mapping.function], consumers)
        yield Target(place, mapping.source_arn, part, ask if mapping.kind is SourceKind.SQS else _stream)
    places: dict[str, str] = {}
    for index, mapping in enumerate(plan.mappings):
        if mapping.destination:
            places.setdefault(mapping.destination, f"mappings[{index}].DestinationConfig")
    for destination, place in places.items():
        # A URL's query may hold a secret.
        yield Target(place, destination.partition("?")[0], destination_of(destination), _probed)
    yield Target("store", plan.store, Part("stores", plan.store, plan.store_settings), _probed)


async def _looked(target: Target, registry: Registry, env: Environment) -> Look:
    try:
        async with asyncio.timeout(LOOK_S_MAX), _opened(target, registry, env) as port:
            found = await target.ask(port)
    except InvalidConfiguration as error:
        found = [Finding(OPENS, Grade.PROBLEM, problem) for problem in error.problems]
    except PortError as error:
        found = [Finding(OPENS, Grade.PROBLEM, error.reason)]
    except TimeoutError:
        text = f"not done within {LOOK_S_MAX:g} s"
        found = [Finding(OPENS, Grade.PROBLEM, text, "is the endpoint right and reachable?")]
    part = target.part
    # One trouble, such as credentials that are missing, may answer several questions.
    return Look(target.place, part.kind, part.name, target.name, tuple(dict.fromkeys(found)))


def _opened(
    target: Target, registry: Registry, env: Environment
) -> AbstractAsyncContextManager[object | None]:
    part = target.part
    plugin = registry.plugin(part.kind, part.name)
    settings = validated(plugin, part.settings, place=target.place)
    if plugin.look is not None:
        return plugin.look(settings, env)
    return _unopened() if part.kind == "stores" else plugin.open(settings, env)


class _Unopened:
    """Stands for a store that cannot be looked at without being made."""

    async def probe(self) -> Sequence[Finding]:
        return [Finding(OPENS, Grade.UNTRIED, "the store was not opened: its plug-in cannot be looked at")]


@asynccontextmanager
async def _unopened() -> AsyncIterator[_Unopened]:
    yield _Unopened()


async def _probed(port: Any) -> Sequence[Finding]:
    return await port.probe() if isinstance(port, Probe) else [Finding(OPENS, Grade.OK)]


def _function(arns: Sequence[str]) -> Ask:
    async def ask(invoker: Any) -> Sequence[Finding]:
        if not isinstance(invoker, FunctionProbe):
            return await _probed(invoker)
        if not arns:
            return [Finding(OPENS, Grade.UNTRIED, "the function was not tried: no mapping names it")]
        return [found for arn in arns for found in await invoker.probe_function(arn)]

    return ask


async def _stream(source: Any) -> Sequence[Finding]:
    if isinstance(source, Probe):
        return await source.probe()
    await source.shards()
    return [Finding("shards", Grade.OK)]


def _queue(mapping: MappingPlan, function: FunctionPlan, consumers: LambdaConsumers) -> Ask:
    async def ask(queue: Any) -> Sequence[Finding]:
        probed = await queue.probe() if isinstance(queue, Probe) else None
        try:
            warned = queue_warnings(await queue.describe(), function.timeout_s)
        except PortError:
            if probed is None:
                raise
            # The probe has told why.
            return probed
        found = probed if probed is not None else [Finding("attributes", Grade.OK)]
        warnings = [Finding(each.partition(":")[0], Grade.WARNING, each) for each in warned]
        return [*found, *warnings, *await _others(queue, mapping, consumers)]

    return ask


async def _others(queue: Any, mapping: MappingPlan, policy: LambdaConsumers) -> list[Finding]:
    """Whether AWS Lambda consumes the queue; that it cannot be asked is no reason not to run."""
    if policy is LambdaConsumers.IGNORE or not isinstance(queue, ConsumerCheck):
        return []
    try:
        return [lambda_consumers(await queue.lambda_consumers(), policy, enabled=mapping.enabled)]
    except PortError as error:
        check = "lambda:ListEventSourceMappings"
        text = f"{check} for {mapping.source_arn}: {error.reason}; whether AWS Lambda consumes it too is not known"
        return [Finding(check, Grade.WARNING, text, "allow it, or set check.lambda_consumers: ignore")]


class Progress:
    """One line that counts, on a terminal only."""

    def __init__(self, total: int, stream: TextIO) -> None:
        self._total = total
        self._stream = stream
        self._shown = stream.isatty()
        self._done = 0
        self._show("")

    def step(self, place: str) -> None:
        """One more is done."""
        self._done += 1
        self._show(f", last {place}")

    def end(self) -> None:
        """Takes the line away."""
        if self._shown:
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _show(self, more: str) -> None:
        if self._shown:
            self._stream.write(f"\r\x1b[Kpoller: looked at {self._done} of {self._total}{more}")
            self._stream.flush()
