"""Owns the page's families of functions: their capacity, their circuit breakers and the reloads of their code."""

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from adapters.observers.metrics import AsyncFigures, CallFigures, Figures
from poller.domain.telemetry.labels import BreakerState
from poller.domain.untrusted.texts import line_of

LABEL_CHARS_MAX = 512


def label(text: str) -> str:
    """Returns a name that is safe as a label's value: one odd name must not break the whole page."""
    return line_of(text, chars_max=LABEL_CHARS_MAX)


def function_families(figures: Figures) -> Iterator[Metric]:
    """Yields the families of functions."""
    in_flight = GaugeMetricFamily(
        "poller_function_in_flight", "Invocations that run now.", labels=("function",)
    )
    limit = GaugeMetricFamily(
        "poller_function_concurrency_limit",
        "How many invocations may run at once; no series without a limit.",
        labels=("function",),
    )
    for function, found in figures.functions.items():
        in_flight.add_metric((label(function),), found.in_flight)
        if found.limit is not None:
            limit.add_metric((label(function),), found.limit)
    yield in_flight
    yield limit
    yield from _breakers(figures)
    yield from _code(figures)
    yield from _calls(figures.calls)
    yield from _asynchronous(figures.async_calls)
    yield from _versions(figures)


def _code(figures: Figures) -> Iterator[Metric]:
    reloads = CounterMetricFamily(
        "poller_function_code_reloads",
        "Changes of a function's code, by what became of them; no series before the first one.",
        labels=("function", "result"),
    )
    refused = GaugeMetricFamily(
        "poller_function_code_refused",
        "1 while changed code of a function is refused, so that the code from before runs on.",
        labels=("function",),
    )
    for function, found in figures.code.items():
        reloads.add_metric((label(function), "success"), found.taken_up)
        reloads.add_metric((label(function), "failure"), found.refusals)
        refused.add_metric((label(function),), found.refused)
    yield reloads
    yield refused


def _breakers(figures: Figures) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "poller_function_breaker_state",
        "1 for the state that the circuit breaker of a function is in; no series without a breaker.",
        labels=("function", "state"),
    )
    opened = CounterMetricFamily(
        "poller_function_breaker_opened",
        "Times that the circuit breaker of a function opened, also again after a try that failed.",
        labels=("function",),
    )
    for function, found in figures.breakers.items():
        for each in BreakerState:
            state.add_metric((label(function), each), each is found.state)
        opened.add_metric((label(function),), found.opened)
    yield state
    yield opened


def _calls(calls: Mapping[str, CallFigures]) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "poller_function_calls",
        "Calls of functions through the Invoke API, by how they ended.",
        labels=("function", "ended"),
    )
    took = HistogramMetricFamily(
        "poller_function_call_duration_seconds",
        "How long calls of functions through the Invoke API took.",
        labels=("function",),
    )
    for function, figures in calls.items():
        for end, count in figures.ended.items():
            ended.add_metric((label(function), end), count)
        took.add_metric((label(function),), figures.duration.buckets(), sum_value=figures.duration.total)
    yield ended
    yield took


def _asynchronous(calls: Mapping[str, AsyncFigures]) -> Iterator[Metric]:
    ended = CounterMetricFamily(
        "poller_async_calls",
        "Asynchronous calls that are over, by how they ended.",
        labels=("function", "end"),
    )
    failures = CounterMetricFamily(
        "poller_async_delivery_failures",
        "Times that a destination could not be given an asynchronous call; each is tried again.",
        labels=("function",),
    )
    waiting = GaugeMetricFamily(
        "poller_async_calls_waiting",
        "Asynchronous calls of all workers that are not over.",
        labels=("function",),
    )
    oldest = GaugeMetricFamily(
        "poller_async_oldest_call_age_seconds",
        "Age of the oldest asynchronous call that is not over; 0 without one.",
        labels=("function",),
    )
    for function, figures in calls.items():
        name = label(function)
        for end, count in figures.ended.items():
            ended.add_metric((name, end), count)
        failures.add_metric((name,), figures.delivery_failures)
        waiting.add_metric((name,), figures.waiting)
        oldest.add_metric((name,), figures.oldest_s)
    yield ended
    yield failures
    yield waiting
    yield oldest


def _versions(figures: Figures) -> Iterator[Metric]:
    calls = CounterMetricFamily(
        "poller_version_calls",
        "Calls of the versions of functions that have versions or aliases, by whether they failed.",
        labels=("function", "version", "result"),
    )
    for (function, version, result), count in figures.version_calls.items():
        calls.add_metric((label(function), label(version), result), count)
    weight = GaugeMetricFamily(
        "poller_alias_weight",
        "The share of an alias's calls that go to a version; no series for a version that gets none.",
        labels=("function", "alias", "version"),
    )
    for (function, alias, version), share in figures.alias_weights.items():
        weight.add_metric((label(function), label(alias), label(version)), share)
    yield calls
    yield weight
