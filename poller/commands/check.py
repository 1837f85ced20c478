"""Owns `poller check`: what plug-ins say of their settings, what a live look at the outside finds, and the picture of it all."""

import asyncio
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import uvloop
from rich.console import Console
from rich.table import Table

from poller.commands.live import Look, looks
from poller.commands.parts import FAILED, control_settings, environment, observer_settings, tell
from poller.errors import InvalidConfiguration
from poller.findings import Grade
from poller.plan import DaemonPlan, FunctionPlan, MappingPlan, SourceKind, destination_plugin
from poller.planning import daemon_plan
from poller.plugins import Registry, validated
from poller.settings import Settings


def check(settings: Settings, registry: Registry, *, place: str, live: bool, as_json: bool) -> int:
    """Prints what would run, or what is wrong with it, each line beginning with `place`; returns the exit status."""
    plan = daemon_plan(settings)
    problems = static_problems(settings, plan, registry)
    found: list[Look] = []
    if live and not problems:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(_live(settings, plan, registry))
    problems = [f"{place}: {each}" for each in problems + _lines(found, Grade.PROBLEM)]
    warnings = [f"{place}: {each}" for each in _lines(found, Grade.WARNING)]
    if as_json:
        print(json.dumps(_document(plan, problems, warnings, found if live else None), indent=2))
    else:
        _print_tables(plan, found, sound=not problems)
        # Last, so that a terminal shows them below the tables.
        tell([*(f"warning: {each}" for each in warnings), *problems])
    return FAILED if problems else 0


def _lines(found: Sequence[Look], grade: Grade) -> list[str]:
    return [line for look in found for line in look.lines(grade)]


def _document(
    plan: DaemonPlan, problems: Sequence[str], warnings: Sequence[str], found: Sequence[Look] | None
) -> dict[str, Any]:
    live = {} if found is None else {"warnings": warnings, "live": [asdict(each) for each in found]}
    return {"ok": not problems, "problems": problems, **live, **picture(plan)}


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


async def _live(settings: Settings, plan: DaemonPlan, registry: Registry) -> list[Look]:
    env = environment(settings)
    try:
        return await looks(plan, registry, env, consumers=settings.check.lambda_consumers)
    finally:
        await env.shared.close()


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
        "destination": _shown(mapping.destination),
        "on_destination_failure": mapping.on_destination_failure.value,
        "concurrency_max": mapping.scaling.concurrency_max,
    }


def _shown(destination: str | None) -> str | None:
    """A destination without a URL's query, which may hold a secret."""
    return destination.partition("?")[0] if destination else None


def _start(mapping: MappingPlan) -> str:
    if mapping.start.latest:
        return "LATEST"
    return "TRIM_HORIZON" if mapping.start.since is None else f"AT_TIMESTAMP {mapping.start.since:.3f}"


def _print_tables(plan: DaemonPlan, found: Sequence[Look], *, sound: bool) -> None:
    console = Console()
    if sound:
        _print_plan(plan, console)
    if found:
        seen = _table("looked at", ("where", "what", "works", "not tried"))
        for look in found:
            seen.add_row(look.place, look.name, look.checks(Grade.OK), look.checks(Grade.UNTRIED))
        console.print(seen)
    if sound:
        console.print(f"store: {plan.store}; configuration is valid", markup=False)


def _print_plan(plan: DaemonPlan, console: Console) -> None:
    functions = _table("functions", ("function", "invoker", "time limit", "at once"))
    for each in plan.functions.values():
        most = "no limit" if each.max_concurrency is None else str(each.max_concurrency)
        functions.add_row(each.name, each.invoker, f"{each.timeout_s:g} s", most)
    mappings = _table("mappings", ("source", "function", "takes", "on failure"))
    for mapping in plan.mappings:
        mappings.add_row(mapping.source_arn, _function_cell(mapping), _takes(mapping), _on_failure(mapping))
    console.print(functions)
    console.print(mappings)


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
    return f"retried until {' or '.join(ends) or 'retention'}{halves}, then {_shown(mapping.destination) or 'discarded'}"
