"""Owns the live check of `poller check`: it opens every part of a plan as the daemon would, asks it, and closes it again.

A few parts are checked at the same time, each within a time limit. Nothing is created, sent or changed. Functions are checked
first, because the check of a queue needs its function's time limit.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from poller.config.plugin_specs import (
    PluginSpec,
    destination_of,
    destination_spec,
    function_of,
    source_of,
    store_of,
    version_of,
)
from poller.domain.errors import InvalidConfiguration, PortError
from poller.domain.findings import Finding, Severity
from poller.domain.plan import TIMEOUT_S, DaemonPlan, FunctionPlan, MappingPlan, SourceKind, Start
from poller.domain.rows import MappingRow
from poller.domain.untrusted.credentials import hide_path
from poller.plugins import Environment, Registry, validated
from poller.ports import Bounded, ConsumerCheck, FunctionLookup, FunctionProbe, MappingList, Probe
from poller.rules.continued_mapping import Begin, Continue, Unclear, decide
from poller.rules.functions.aliases.alias_state import service_arns
from poller.rules.queues.queue_checks import LambdaConsumers, lambda_consumers, queue_warnings
from poller.runtime.functions.versions.versioned_invoker import longest_s
from poller.runtime.mappings.call_limits import call_limit, configured_call_limit
from poller.runtime.streams.places import connection

LOOK_S_MAX = 60.0
"""The time limit for all checks of one part."""
LOOKS_MAX = 8
"""How many parts are checked at the same time."""
SAID_MAX = 2
"""How many of the parts that are being checked the progress names."""
OPENS = "opens"

type Ask = Callable[[Any], Awaitable[Sequence[Finding]]]
type CallLimits = dict[str, float | None]
"""The time limits of functions, by ARN, as far as they were found. None: the limit is not known."""


@dataclass(frozen=True, slots=True)
class CheckTarget:
    """One part to check: its place in the configuration, its name for people, and the function that checks it once it is open."""

    place: str
    name: str
    part: PluginSpec
    ask: Ask


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The findings about one part. `kind` is the kind of its plug-in, `identity` as whom it calls AWS (None: the process)."""

    place: str
    kind: str
    plugin: str
    name: str
    findings: tuple[Finding, ...]
    identity: str | None = None

    @property
    def subject(self) -> str:
        """The part's name, and as whom it was tried."""
        return self.name if self.identity is None else f"{self.name}, as {self.identity}"

    def lines(self, grade: Severity) -> list[str]:
        """The findings of one severity, one line each, which begins with the place."""
        place = self.place if self.identity is None else f"{self.place}, as {self.identity}"
        return [
            each.line if each.line.startswith(self.place) else f"{place}: {each.line}"
            for each in self.findings
            if each.grade is grade
        ]

    def checks(self, grade: Severity) -> str:
        """The names of the checks with this severity."""
        return ", ".join(each.check for each in self.findings if each.grade is grade)


async def looks(
    plan: DaemonPlan,
    registry: Registry,
    env: Environment,
    *,
    consumers: LambdaConsumers,
    say: Callable[[str], None] = lambda _: None,
) -> list[CheckResult]:
    """Checks functions, sources, destinations and the store of a plan. The results are in this order. `say` gets how far it is."""
    limits: CallLimits = {}
    functions = list(function_targets(plan, registry, limits))
    others = list(other_targets(plan, registry, consumers, limits))
    gate = asyncio.Semaphore(LOOKS_MAX)
    running: list[str] = []
    total, done = len(functions) + len(others), 0

    def tell() -> None:
        at = f", now at {', '.join(running[:SAID_MAX])}" if running else ""
        say(f"looked at {done} of {total}{at}{' …' if len(running) > SAID_MAX else ''}")

    async def one(target: CheckTarget) -> CheckResult:
        nonlocal done
        async with gate:
            running.append(target.place)
            tell()
            found = await _looked(target, registry, env)
            running.remove(target.place)
            done += 1
            tell()
        return found

    async def each_of(wanted: Sequence[CheckTarget]) -> list[CheckResult]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(each), name=f"look at {each.place}") for each in wanted]
        return [task.result() for task in tasks]

    return [*await each_of(functions), *await each_of(others)]


def function_targets(plan: DaemonPlan, registry: Registry, limits: CallLimits) -> Iterator[CheckTarget]:
    """All functions of a plan. Their checks add their time limits to `limits`."""
    for function in plan.functions.values():
        arns = sorted({each.function_arn for each in plan.mappings if each.function == function.name})
        ask = _function(arns, function, limits, told=_told(function, registry))
        yield CheckTarget(f"functions.{function.name}", function.name, function_of(function), ask)
        for number in function.versions:
            place = f"functions.{function.name}.versions.{number}"
            yield CheckTarget(place, f"{function.name}:{number}", version_of(function, number), _probed)


def other_targets(
    plan: DaemonPlan, registry: Registry, consumers: LambdaConsumers, limits: CallLimits
) -> Iterator[CheckTarget]:
    """All other parts of a plan. A destination that several mappings share in the same way is checked once."""
    for index, mapping in enumerate(plan.mappings):
        place, part = f"mappings[{index}]", source_of(mapping)
        ask = _queue(mapping, plan.functions[mapping.function], consumers, limits)
        yield CheckTarget(place, mapping.source_arn, part, ask if mapping.kind is SourceKind.SQS else _stream)
    destinations: set[tuple[str, bool, str | None, str | None]] = set()
    for index, mapping in enumerate(plan.mappings):
        discard, destination = mapping.discard, destination_of(mapping)
        if discard.destination is None or destination is None:
            continue
        use = discard.destination, discard.include_payload, discard.payload_prefix, discard.identity
        if use not in destinations:
            destinations.add(use)
            place = f"mappings[{index}].DestinationConfig"
            yield CheckTarget(place, shown_destination(discard.destination), destination, _probed)
    yield from call_destination_targets(plan)
    yield CheckTarget("store", plan.store, store_of(plan), _store(plan))


def call_destination_targets(plan: DaemonPlan) -> Iterator[CheckTarget]:
    """The destinations of asynchronous calls. One that several functions share is checked once."""
    places: dict[tuple[str, str | None], str] = {}
    for function in plan.functions.values():
        policies = (*function.async_policies.values(), function.async_policy(""))
        for each in policies:
            for destination in (each.on_success, each.on_failure, each.dead_letter):
                if destination is not None:
                    places.setdefault((destination, each.identity), f"functions.{function.name}")
    for (destination, identity), place in places.items():
        spec = destination_spec(destination, identity=identity)
        yield CheckTarget(place, shown_destination(destination), spec, _probed)


def shown_destination(destination: str) -> str:
    """A destination without the parts that may be secret: the path of an http or https URL, and any query."""
    return hide_path(destination).partition("?")[0]


async def _looked(target: CheckTarget, registry: Registry, env: Environment) -> CheckResult:
    try:
        async with asyncio.timeout(LOOK_S_MAX), _opened(target, registry, env) as port:
            found = await target.ask(port)
    except InvalidConfiguration as error:
        found = [Finding(OPENS, Severity.PROBLEM, problem) for problem in error.problems]
    except PortError as error:
        found = [Finding(OPENS, Severity.PROBLEM, error.reason)]
    except TimeoutError:
        text = f"not done within {LOOK_S_MAX:g} s"
        found = [Finding(OPENS, Severity.PROBLEM, text, "is the endpoint right and reachable?")]
    part = target.part
    # One cause, such as missing credentials, may give the same finding several times.
    distinct = tuple(dict.fromkeys(found))
    return CheckResult(target.place, part.kind, part.name, target.name, distinct, _identity(target, registry))


def _identity(target: CheckTarget, registry: Registry) -> str | None:
    """As whom a part calls AWS; None: as the process."""
    try:
        plugin = registry.plugin(target.part.kind, target.part.name)
        settings = validated(plugin, target.part.settings(plugin.settings), place=target.place)
    except InvalidConfiguration:
        return None
    found = getattr(settings, "identity", None)
    return found if isinstance(found, str) else None


def _opened(
    target: CheckTarget, registry: Registry, env: Environment
) -> AbstractAsyncContextManager[object | None]:
    part = target.part
    plugin = registry.plugin(part.kind, part.name)
    settings = validated(plugin, part.settings(plugin.settings), place=target.place)
    if plugin.look is not None:
        return plugin.look(settings, env)
    return _unopened() if part.kind == "stores" else plugin.open(settings, env)


class _Unopened:
    """Replaces a store whose plug-in can only open it by creating it."""

    async def probe(self) -> Sequence[Finding]:
        return [Finding(OPENS, Severity.UNTRIED, "the store was not opened: its plug-in cannot be looked at")]


@asynccontextmanager
async def _unopened() -> AsyncIterator[_Unopened]:
    yield _Unopened()


async def _probed(port: Any) -> Sequence[Finding]:
    return await port.probe() if isinstance(port, Probe) else [Finding(OPENS, Severity.OK)]


def _function(arns: Sequence[str], function: FunctionPlan, limits: CallLimits, *, told: bool) -> Ask:
    """Asks a function. `told`: its settings alone say how many of its calls can run at once."""

    async def ask(invoker: Any) -> Sequence[Finding]:
        shorter = [found for arn in arns for found in await _limit(invoker, arn, function, limits)]
        shorter += [] if told else _at_once(invoker, function)
        if not isinstance(invoker, FunctionProbe):
            return [*await _probed(invoker), *shorter]
        if not arns:
            return [Finding(OPENS, Severity.UNTRIED, "the function was not tried: no mapping names it")]
        return [
            *[found for arn in _asked(function, arns) for found in await invoker.probe_function(arn)],
            *shorter,
        ]

    return ask


def _asked(function: FunctionPlan, arns: Sequence[str]) -> list[str]:
    return sorted({each for arn in arns for each in service_arns(function, arn)})


def _told(function: FunctionPlan, registry: Registry) -> bool:
    try:
        return configured_call_limit(function, registry).known
    except InvalidConfiguration:
        # That is a finding of the look.
        return True


def _at_once(invoker: Any, function: FunctionPlan) -> list[Finding]:
    """How many calls of an open function can run at once."""
    if not isinstance(invoker, Bounded):
        return []
    limit = call_limit(function, invoker.call_limit)
    calls = "any number" if limit.calls is None else str(limit.calls)
    return [Finding(f"calls at once: {calls}", Severity.OK)]


async def _limit(invoker: Any, arn: str, function: FunctionPlan, limits: CallLimits) -> list[Finding]:
    """Adds a function's time limit to `limits`. Warns if the configured limit is shorter than the function's own."""
    configured_s = function.timeout_s
    if not isinstance(invoker, FunctionLookup):
        limits[arn] = longest_s(function) or TIMEOUT_S
        return []
    try:
        asked = service_arns(function, arn)
        own_s = max([(await invoker.describe_function(each)).timeout_s for each in asked])
    except PortError:
        # The findings of the invoker's probe give the reason.
        limits[arn] = configured_s
        return []
    limits[arn] = own_s
    if configured_s is None or configured_s >= own_s:
        return []
    text = f"timeout_s: {configured_s:g} s is shorter than the own limit of {arn}, {own_s:g} s; the daemon waits {own_s:g} s"
    return [Finding("timeout_s", Severity.WARNING, text, "remove it")]


def _store(plan: DaemonPlan) -> Ask:
    async def ask(store: Any) -> Sequence[Finding]:
        probed = await _probed(store)
        if not isinstance(store, MappingList) or any(each.grade is Severity.PROBLEM for each in probed):
            return probed
        try:
            return [*probed, *places(plan, [row for row in await store.mappings() if not row.damage])]
        except PortError as error:
            text = f"where new mappings begin is not known: {error.reason}"
            return [*probed, Finding("positions", Severity.WARNING, text)]

    return ask


def places(plan: DaemonPlan, rows: Sequence[MappingRow]) -> Iterator[Finding]:
    """Where each stream mapping of the file would begin, according to the store."""
    streams = {each.mapping: connection(each) for each in plan.mappings if each.kind is not SourceKind.SQS}
    placed = {row.mapping for row in rows if row.seeded}
    for index, mapping in enumerate(plan.mappings):
        if mapping.mapping not in streams:
            continue
        name = f"mappings[{index}]"
        if mapping.mapping in placed:
            yield Finding(f"{name} goes on where it stopped", Severity.OK)
            continue
        match decide(mapping.mapping, streams[mapping.mapping], rows, file=streams):
            case Continue(_, function):
                yield Finding(f"{name} goes on where {function} stopped", Severity.OK)
            case Unclear() as unclear:
                at_start = mapping.stream.start == Start()
                where = (
                    "at its StartingPosition" if at_start else "where the one that is furthest behind stopped"
                )
                text = f"{name}: begins {where}: {unclear.reason}"
                remedy = "to keep a place, put the mapping with that function back, and change one mapping at a time"
                yield Finding("positions", Severity.WARNING, text, remedy)
            case Begin():
                yield Finding(f"{name} is new and begins at its StartingPosition", Severity.OK)


async def _stream(source: Any) -> Sequence[Finding]:
    if isinstance(source, Probe):
        return await source.probe()
    await source.shards()
    return [Finding("shards", Severity.OK)]


def _queue(
    mapping: MappingPlan, function: FunctionPlan, consumers: LambdaConsumers, limits: CallLimits
) -> Ask:
    async def ask(queue: Any) -> Sequence[Finding]:
        probed = await queue.probe() if isinstance(queue, Probe) else None
        try:
            timeout_s = limits.get(mapping.function_arn, function.timeout_s)
            warned = queue_warnings(await queue.describe(), timeout_s)
        except PortError:
            if probed is None:
                raise
            # The findings of the probe give the reason.
            return probed
        found = probed if probed is not None else [Finding("attributes", Severity.OK)]
        warnings = [Finding(each.partition(":")[0], Severity.WARNING, each) for each in warned]
        return [*found, *warnings, *await _others(queue, mapping, consumers)]

    return ask


async def _others(queue: Any, mapping: MappingPlan, policy: LambdaConsumers) -> list[Finding]:
    """Whether AWS Lambda consumes the queue too. If that cannot be found out, it is only a warning."""
    if policy is LambdaConsumers.IGNORE or not isinstance(queue, ConsumerCheck):
        return []
    try:
        return [lambda_consumers(await queue.lambda_consumers(), policy, enabled=mapping.enabled)]
    except PortError as error:
        check = "lambda:ListEventSourceMappings"
        text = f"{check} for {mapping.source_arn}: {error.reason}; whether AWS Lambda consumes it too is not known"
        return [Finding(check, Severity.WARNING, text, "allow it, or set check.lambda_consumers: ignore")]
