"""Owns `poller check`: what plug-ins say of their settings, what a live look at the outside finds, and the picture of it all."""

import asyncio
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from poller.commands.parts import FAILED, control_settings, environment, observer_settings, tell
from poller.errors import InvalidConfiguration, PortError
from poller.plan import DaemonPlan, FunctionPlan, MappingPlan, SourceKind, destination_plugin
from poller.plugins import Environment, Registry, opened, validated
from poller.records import QueueFacts
from poller.settings import Settings, daemon_plan

LOOK_S = 30.0
"""For one look at one source, function or destination."""

LOOKED_AT = {"invokers", "sources", "destinations"}
"""Kinds of plug-ins that `--live` opens; a store or a server would leave traces."""

type Look = Callable[[Any], Any]


def check(settings: Settings, registry: Registry, *, place: str, live: bool, as_json: bool) -> int:
    """Prints what would run, or what is wrong with it, each line beginning with `place`; returns the exit status."""
    plan = daemon_plan(settings)
    problems = static_problems(settings, plan, registry)
    if live and not problems:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            problems = runner.run(live_problems(settings, plan, registry))
    problems = [f"{place}: {problem}" for problem in problems]
    if as_json:
        print(json.dumps({"ok": not problems, "problems": problems, **picture(plan)}, indent=2))
    else:
        tell(problems)
        if not problems:
            _print_tables(plan)
    return FAILED if problems else 0


def static_problems(settings: Settings, plan: DaemonPlan, registry: Registry) -> list[str]:
    """What plug-ins object to in their settings. Nothing is opened and no user code is imported."""
    return [
        problem
        for place, kind, name, given in plugged(settings, plan)
        for problem in _objections(registry, kind, name, given, place)
    ]


def plugged(settings: Settings, plan: DaemonPlan) -> Iterator[tuple[str, str, str, Mapping[str, Any]]]:
    """Every plug-in that the daemon will open: place in the file, kind, name, settings."""
    yield "control", "control", "http", control_settings(settings)
    for name, given in observer_settings(settings).items():
        yield "log", "observers", name, given
    yield "store", "stores", plan.store, plan.store_settings
    for name, function in plan.functions.items():
        yield f"functions.{name}", "invokers", function.invoker, invoker_settings(function)
    for index, mapping in enumerate(plan.mappings):
        yield f"mappings[{index}]", "sources", mapping.kind.value, source_settings(mapping)
        if mapping.destination:
            place = f"mappings[{index}].DestinationConfig"
            yield place, "destinations", destination_plugin(mapping.destination), {"arn": mapping.destination}


def invoker_settings(function: FunctionPlan) -> dict[str, Any]:
    """What a function's invoker is told."""
    return {**function.settings, "function": function.name}


def source_settings(mapping: MappingPlan) -> dict[str, Any]:
    """What a mapping's source is told."""
    return {**mapping.source_settings, "arn": mapping.source_arn}


def _objections(registry: Registry, kind: str, name: str, given: Mapping[str, Any], place: str) -> list[str]:
    try:
        validated(registry.plugin(kind, name), given, place=place)
    except InvalidConfiguration as error:
        return [problem if problem.startswith(place) else f"{place}: {problem}" for problem in error.problems]
    return []


async def live_problems(settings: Settings, plan: DaemonPlan, registry: Registry) -> list[str]:
    """What opening functions, sources and destinations shows, and asking the sources; nothing is read or changed."""
    env = environment(settings)
    problems: list[str] = []
    try:
        for place, kind, name, given in plugged(settings, plan):
            if kind in LOOKED_AT:
                problems += await _seen(registry, (place, kind, name, given), _look(place, kind, plan), env)
    finally:
        await env.shared.close()
    return problems


def _look(place: str, kind: str, plan: DaemonPlan) -> Look | None:
    if kind != "sources":
        return None
    mapping = plan.mappings[int(place.removeprefix("mappings[").removesuffix("]"))]
    if mapping.kind is not SourceKind.SQS:
        return lambda source: source.shards()
    timeout_s = plan.functions[mapping.function].timeout_s
    return lambda source: _described(source, timeout_s)


async def _described(source: Any, timeout_s: float) -> None:
    facts: QueueFacts = await source.describe()
    if facts.visibility_timeout_s < timeout_s:
        have, want = facts.visibility_timeout_s, f"{timeout_s:g}"
        text = f"Queue visibility timeout: {have} seconds is less than Function timeout: {want} seconds"
        raise InvalidConfiguration([f"{text}; raise the queue's, or lower the function's timeout_s"])


async def _seen(
    registry: Registry, part: tuple[str, str, str, Mapping[str, Any]], look: Look | None, env: Environment
) -> list[str]:
    place, kind, name, given = part
    try:
        async with asyncio.timeout(LOOK_S), opened(registry, kind, name, given, env) as port:
            if look:
                await look(port)
    except InvalidConfiguration as error:
        return [problem if problem.startswith(place) else f"{place}: {problem}" for problem in error.problems]
    except PortError as error:
        return [f"{place}: {error.reason}"]
    except TimeoutError:
        return [f"{place}: no answer within {LOOK_S:g} s; is the endpoint right and reachable?"]
    return []


def picture(plan: DaemonPlan) -> dict[str, Any]:
    """What would run, as JSON; of plug-in settings only the names, since their values may be secret."""
    return {
        "worker": plan.worker,
        "store": plan.store,
        "functions": [_function_row(each) for each in plan.functions.values()],
        "mappings": [_mapping_row(each) for each in plan.mappings],
    }


def _function_row(function: FunctionPlan) -> dict[str, Any]:
    return {
        "name": function.name,
        "invoker": function.invoker,
        "timeout_s": function.timeout_s,
        "max_concurrency": function.max_concurrency,
        "settings": sorted(function.settings),
    }


def _mapping_row(mapping: MappingPlan) -> dict[str, Any]:
    queue = mapping.kind is SourceKind.SQS
    return {
        "mapping": mapping.mapping,
        "source": mapping.source_arn,
        "function": mapping.function_arn,
        "enabled": mapping.enabled,
        "start": None if queue else _start(mapping),
        "batch": mapping.batch.records_max,
        "window_s": mapping.batch.window_s,
        "lanes": None if queue else mapping.lanes,
        "retries_max": mapping.retry.retries_max,
        "age_max_s": mapping.retry.age_max_s,
        "bisect": mapping.retry.bisect,
        "partial_failures": mapping.retry.report_failures,
        "filters": len(mapping.filters),
        "destination": mapping.destination,
        "on_destination_failure": mapping.on_destination_failure.value,
        "concurrency_max": mapping.scaling.concurrency_max,
    }


def _start(mapping: MappingPlan) -> str:
    if mapping.start.latest:
        return "LATEST"
    return "TRIM_HORIZON" if mapping.start.since is None else f"AT_TIMESTAMP {mapping.start.since:.3f}"


def _print_tables(plan: DaemonPlan) -> None:
    console = Console()
    functions = _table("functions", ("function", "invoker", "time limit", "at once"))
    for each in plan.functions.values():
        most = "no limit" if each.max_concurrency is None else str(each.max_concurrency)
        functions.add_row(each.name, each.invoker, f"{each.timeout_s:g} s", most)
    mappings = _table("mappings", ("source", "function", "takes", "on failure"))
    for mapping in plan.mappings:
        mappings.add_row(mapping.source_arn, _function_cell(mapping), _takes(mapping), _on_failure(mapping))
    console.print(functions)
    console.print(mappings)
    console.print(f"store: {plan.store}; configuration is valid", markup=False)


def _table(title: str, columns: tuple[str, ...]) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def _function_cell(mapping: MappingPlan) -> str:
    name = mapping.function_arn.partition(":function:")[2]
    return name if mapping.enabled else f"{name} (disabled)"


def _takes(mapping: MappingPlan) -> str:
    parts = [f"batches of {mapping.batch.records_max}"]
    if mapping.batch.window_s:
        parts.append(f"window {mapping.batch.window_s:g} s")
    if mapping.kind is not SourceKind.SQS:
        parts.append(f"from {_start(mapping)}")
    if mapping.lanes > 1:
        parts.append(f"{mapping.lanes} lanes a shard")
    if mapping.scaling.concurrency_max is not None:
        parts.append(f"{mapping.scaling.concurrency_max} at once")
    if mapping.filters:
        parts.append(f"filters: {len(mapping.filters)}")
    return ", ".join(parts)


def _on_failure(mapping: MappingPlan) -> str:
    if mapping.kind is SourceKind.SQS:
        return "visibility timeout, then the queue's dead-letter queue"
    retries, age = mapping.retry.retries_max, mapping.retry.age_max_s
    ends = [f"{retries} retries"] if retries is not None else []
    ends += [f"{age:g} s of age"] if age is not None else []
    halves = ", in halves" if mapping.retry.bisect else ""
    return (
        f"retried until {' or '.join(ends) or 'retention'}{halves}, then {mapping.destination or 'discarded'}"
    )
