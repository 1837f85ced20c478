"""Owns the page's families of asynchronous calls."""

from collections.abc import Iterator, Mapping

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

from adapters.observers.metrics import AsyncFigures
from poller.domain.untrusted.texts import line_of

LABEL_CHARS_MAX = 512


def async_families(calls: Mapping[str, AsyncFigures]) -> Iterator[Metric]:
    """Yields the families of asynchronous calls."""
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
        name = line_of(function, chars_max=LABEL_CHARS_MAX)
        for end, count in figures.ended.items():
            ended.add_metric((name, end), count)
        failures.add_metric((name,), figures.delivery_failures)
        waiting.add_metric((name,), figures.waiting)
        oldest.add_metric((name,), figures.oldest_s)
    yield ended
    yield failures
    yield waiting
    yield oldest
