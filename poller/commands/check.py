"""Owns `poller check`: it checks plug-in settings and, with `--live`, the outside services, and prints what would run."""

import asyncio
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import uvloop

from poller.commands.check_functions import qualified_lines, qualified_row
from poller.commands.check_live import CheckResult, looks, shown_destination
from poller.commands.fitting import Screen, ScreenPage, show
from poller.commands.root.problems import FAILED, print_problems
from poller.commands.shared import environment, nothing_runs, unlike_names
from poller.config.daemon_plan import daemon_plan
from poller.config.loader import Examined
from poller.config.settings import Settings
from poller.domain.arns import Arn
from poller.domain.errors import InvalidConfiguration
from poller.domain.findings import Severity
from poller.domain.plan import (
    TIMEOUT_S,
    CallLimit,
    DaemonPlan,
    DiscardPolicy,
    FunctionPlan,
    MappingPlan,
    SourceKind,
)
from poller.domain.policies import BreakerPolicy, RatePolicy
from poller.domain.wording.numbers_of import number_of
from poller.output.progress_line import ProgressLine, ticking
from poller.plugins import Registry
from poller.runtime.mappings.call_limits import configured_call_limit

PLACES = (
    "positions: a stream's mapping whose function only gets another qualifier, or is written as an ARN, goes on where it stopped; "
    "--live says where each begins"
)

PARAGRAPH_LINES_MAX = 20


def check(
    settings: Settings,
    registry: Registry,
    *,
    place: str,
    live: bool,
    as_json: bool,
    lacking: Sequence[str] = (),
    doubts: Sequence[str] = (),
) -> int:
    """Prints what would run, or the problems, each on a line that begins with `place`. Returns the exit status.

    `lacking` are lines about what is missing on this machine. They are problems only in a live check, because the daemon may run
    on another machine. `doubts` are warnings about settings that do not prevent a start.
    """
    plan = daemon_plan(settings)
    found: list[CheckResult] = []
    logged: list[str] = []
    if live and not lacking:
        with _logged_into(logged), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            found = runner.run(_live(settings, plan, registry, quiet=as_json))
    lines = [*nothing_runs(settings), *unlike_names(settings), *logged, *_lines(found, Severity.WARNING)]
    warnings = [*doubts, *([] if live else lacking), *(f"{place}: {each}" for each in lines)]
    problems = [*(lacking if live else []), *(f"{place}: {each}" for each in _lines(found, Severity.PROBLEM))]
    if as_json:
        document = _document(plan, registry, problems, warnings, found if live else None)
        print(json.dumps(document, indent=2))
    else:
        show(lambda screen: page_of(plan, registry, found, screen, sound=not problems))
        # Problems are printed last, so that they are at the bottom of the terminal.
        print_problems([*(f"warning: {each}" for each in warnings), *problems])
    return FAILED if problems else 0


def refuse(examined: Examined, *, as_json: bool) -> int:
    """Prints the problems of a configuration; returns the exit status."""
    warnings = [*examined.doubts, *examined.lacking]
    if as_json:
        print(json.dumps({"ok": False, "problems": examined.problems, "warnings": warnings}, indent=2))
    else:
        print_problems([*(f"warning: {each}" for each in warnings), *examined.problems])
    return FAILED


@contextmanager
def _logged_into(lines: list[str]) -> Iterator[None]:
    """Adds to `lines` what the daemon's parts log inside the block, from warnings on."""

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    log, handler = logging.getLogger("poller"), Lines(logging.WARNING)
    log.addHandler(handler)
    try:
        yield
    finally:
        log.removeHandler(handler)


def _lines(found: Sequence[CheckResult], grade: Severity) -> list[str]:
    return [line for look in found for line in look.lines(grade)]


def _document(
    plan: DaemonPlan,
    registry: Registry,
    problems: Sequence[str],
    warnings: Sequence[str],
    found: Sequence[CheckResult] | None,
) -> dict[str, Any]:
    live = {} if found is None else {"live": [asdict(each) for each in found]}
    return {"ok": not problems, "problems": problems, "warnings": warnings, **live, **picture(plan, registry)}


async def _live(
    settings: Settings, plan: DaemonPlan, registry: Registry, *, quiet: bool
) -> list[CheckResult]:
    env = environment(settings)
    try:
        with ProgressLine(quiet=quiet) as progress, ticking(progress):
            consumers = settings.check.lambda_consumers
            return await looks(plan, registry, env, consumers=consumers, say=progress.say)
    finally:
        await env.shared.close()


def picture(plan: DaemonPlan, registry: Registry) -> dict[str, Any]:
    """What would run, as JSON. Plug-in settings are shown by name only, because their values may be secret."""
    return {
        "worker": plan.worker,
        "store": plan.store,
        "functions": [_function_row(each, registry) for each in plan.functions.values()],
        "mappings": [_mapping_row(each) for each in plan.mappings],
    }


def _function_row(function: FunctionPlan, registry: Registry) -> dict[str, Any]:
    limit = _limit(function, registry)
    # Whether the invoker allows fewer calls than the function's own limit.
    bounded = limit.calls != function.max_concurrency or not limit.known
    at_once = {
        "calls_at_once": limit.calls,
        "calls_at_once_known": limit.known,
        "calls_at_once_reason": limit.reason,
    }
    more: dict[str, Any] = dict(at_once) if bounded else {}
    more |= {name: asdict(each) for name, each in _flow(function).items() if each is not None}
    return {
        "name": function.name,
        "invoker": function.invoker,
        "timeout_s": _timeout_s(function, registry),
        "max_concurrency": function.max_concurrency,
        **more,
        **qualified_row(function),
        "settings": sorted(function.settings),
    }


def _flow(function: FunctionPlan) -> dict[str, RatePolicy | BreakerPolicy | None]:
    return {"rate": function.rate, "breaker": function.breaker}


def _timeout_s(function: FunctionPlan, registry: Registry) -> float | None:
    """The configured time limit, or the default; None if the function's service has the limit."""
    if function.timeout_s is not None:
        return function.timeout_s
    try:
        return None if registry.plugin("invokers", function.invoker).own_limits else TIMEOUT_S
    except InvalidConfiguration:
        # There is no such invoker. That is reported as a problem elsewhere.
        return TIMEOUT_S


def _limit(function: FunctionPlan, registry: Registry) -> CallLimit:
    try:
        return configured_call_limit(function, registry)
    except InvalidConfiguration:
        return CallLimit(None, "its settings are wrong", known=False)


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
        "lanes": None if queue else mapping.stream.lanes,
        "tumbling_window_s": None if queue else mapping.stream.tumbling_window_s,
        "shared_reads": None if queue else mapping.stream.shared_reads,
        "source_settings": sorted(mapping.source_settings),
        "retries_max": mapping.retry.retries_max,
        "age_max_s": mapping.retry.age_max_s,
        "bisect": mapping.retry.bisect,
        "partial_failures": mapping.retry.report_failures,
        "filters": len(mapping.filters),
        "destination": shown_destination(mapping.discard.destination)
        if mapping.discard.destination
        else None,
        "on_destination_failure": mapping.discard.on_destination_failure.value,
        "include_payload": mapping.discard.include_payload,
        "payload_prefix": mapping.discard.payload_prefix,
        "concurrency_max": mapping.scaling.concurrency_max,
        "retry_backoff": None if mapping.queue.retry_backoff is None else asdict(mapping.queue.retry_backoff),
    }


def _start(mapping: MappingPlan) -> str:
    if mapping.stream.start.latest:
        return "LATEST"
    return (
        "TRIM_HORIZON"
        if mapping.stream.start.since is None
        else f"AT_TIMESTAMP {mapping.stream.start.since:.3f}"
    )


def page_of(
    plan: DaemonPlan, registry: Registry, found: Sequence[CheckResult], screen: Screen | int, *, sound: bool
) -> ScreenPage:
    """What would run and what a live check found, as a page. `sound`: there are no problems."""
    page = ScreenPage(screen)
    if sound:
        _functions(page, plan, registry)
        _mappings(page, plan)
    if found:
        page.line("looked at")
    for look in found:
        _paragraph(page, f"{look.place}: {look.subject}", depth=1)
        for word, grade in (("works", Severity.OK), ("not tried", Severity.UNTRIED)):
            if checks := look.checks(grade):
                _paragraph(page, f"{word}: {checks}", depth=2)
    if sound:
        _paragraph(page, f"store: {plan.store}; configuration is valid")
    return page


def _paragraph(page: ScreenPage, text: str, *, depth: int = 0) -> None:
    page.add(text, depth=depth, lines_max=PARAGRAPH_LINES_MAX)


def _functions(page: ScreenPage, plan: DaemonPlan, registry: Registry) -> None:
    page.line("functions")
    for each in plan.functions.values():
        timeout_s = _timeout_s(each, registry)
        limit = "its own time limit" if timeout_s is None else f"time limit {timeout_s:g} s"
        _paragraph(page, each.name, depth=1)
        _paragraph(page, f"{each.invoker}, {limit}", depth=2)
        _paragraph(page, f"calls at once: {_at_once(_limit(each, registry))}", depth=2)
        if each.rate is not None:
            _paragraph(page, f"over all workers: {_rate(each.rate)}", depth=2)
        if each.breaker is not None:
            _paragraph(page, f"breaker: {_breaker(each.breaker)}", depth=2)
        for line in qualified_lines(each):
            _paragraph(page, line, depth=2)


def _rate(rate: RatePolicy) -> str:
    limits = {"invocations": rate.invocations_per_s, "records": rate.records_per_s}
    return " and ".join(f"{per_s:g} {unit}/s" for unit, per_s in limits.items() if per_s is not None)


def _breaker(breaker: BreakerPolicy) -> str:
    return f"opens for {breaker.open_s:g} s when {breaker.failures:.0%} of the calls in {breaker.window_s:g} s fail"


def _mappings(page: ScreenPage, plan: DaemonPlan) -> None:
    page.line("mappings" if plan.mappings else "mappings: none")
    for mapping in plan.mappings:
        _paragraph(page, mapping.source_arn, depth=1)
        _paragraph(page, f"to {_function_cell(mapping)}", depth=2)
        _paragraph(page, _takes(mapping), depth=2)
        _paragraph(page, f"on failure: {_on_failure(mapping)}", depth=2)
    if any(each.kind is not SourceKind.SQS for each in plan.mappings):
        _paragraph(page, PLACES)


def _at_once(limit: CallLimit) -> str:
    if not limit.known:
        most = "" if limit.calls is None else f", at most {limit.calls}"
        return f"not known{most}: {limit.reason}"
    return limit.reason if limit.calls is None else f"{limit.calls} ({limit.reason})"


def _function_cell(mapping: MappingPlan) -> str:
    name = Arn.parse(mapping.function_arn).function
    return name if mapping.enabled else f"{name} (disabled)"


def _takes(mapping: MappingPlan) -> str:
    parts = [f"batches of {mapping.batch.records_max}"]
    if mapping.batch.window_s:
        parts.append(f"window {mapping.batch.window_s:g} s")
    if mapping.kind is not SourceKind.SQS:
        parts.append(f"from {_start(mapping)}")
    if mapping.stream.lanes > 1:
        parts.append(f"{number_of(mapping.stream.lanes, 'lane')} a shard")
    if mapping.stream.tumbling_window_s:
        parts.append(f"tumbling windows of {mapping.stream.tumbling_window_s} s")
    if not mapping.stream.shared_reads:
        parts.append("reads not shared")
    if mapping.scaling.concurrency_max is not None:
        parts.append(f"{mapping.scaling.concurrency_max} at once")
    if mapping.filters:
        parts.append(f"filters: {len(mapping.filters)}")
    if mapping.source_settings:
        # By name only: a plug-in's values may be secret.
        parts.append(f"source settings: {', '.join(sorted(mapping.source_settings))}")
    return ", ".join(parts)


def _on_failure(mapping: MappingPlan) -> str:
    if mapping.kind is SourceKind.SQS:
        backoff = mapping.queue.retry_backoff
        wait = "the visibility timeout"
        if backoff is not None:
            wait = f"{backoff.base_s:g} s, {backoff.factor:g} times as long each time, at most {backoff.cap_s:g} s"
        return f"again after {wait}, as often as the queue's own redrive policy says"
    retries, age = mapping.retry.retries_max, mapping.retry.age_max_s
    ends = [f"{retries} retries"] if retries is not None else []
    ends += [f"{age:g} s of age"] if age is not None else []
    halves = ", in halves" if mapping.retry.bisect else ""
    return f"retried until {' or '.join(ends) or 'retention'}{halves}, then {_given_up(mapping.discard)}"


def _given_up(discard: DiscardPolicy) -> str:
    if not discard.destination:
        return "discarded"
    event = " with the event" if discard.include_payload else ""
    large = f", which goes to {discard.payload_prefix} when it is too large" if discard.payload_prefix else ""
    return f"{shown_destination(discard.destination)}{event}{large}"
