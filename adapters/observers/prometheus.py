"""Owns the Prometheus names: which figure is shown under which metric, and the page that is scraped."""

import platform
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from importlib.metadata import version

from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from pydantic import BaseModel, ConfigDict

from adapters.observers.figures import DaemonFigures, Figures
from adapters.observers.mapping_figures import Histogram, MappingFigures
from poller.plugins import Environment, Plugin
from poller.ports import Clock
from poller.records import Epoch, MappingId, Monotonic, ShardId
from poller.telemetry import Condition, Ended, Event, Loss, MappingState

BLOCKED_SHARDS_SHOWN_MAX = 20
"""Blocked shards that are named per mapping, those that are blocked longest; the counts know all of them."""
BLOCKED_SHARDS_SHOWN_IN_ALL_MAX = 1000
PAGE_REUSE = 9.0
"""A page is shown again for this many times as long as it took to make: scrapes get a tenth of the loop at most."""


@dataclass(frozen=True, slots=True)
class Shown:
    """One metric with the label `mapping` alone; `read` gives None for mappings that have no such series."""

    name: str
    meaning: str
    read: Callable[[MappingFigures], float | None]


COUNTERS = (
    Shown("polled_event_count", "Events read (AWS: PolledEventCount).", lambda f: f.polled),
    Shown(
        "filtered_out_event_count",
        "Events that no filter matched (AWS: FilteredOutEventCount); no series without a filter.",
        lambda f: f.filtered,
    ),
    Shown(
        "invoked_event_count",
        "Events handed to the function, again on each retry (AWS: InvokedEventCount).",
        lambda f: f.invoked,
    ),
    Shown(
        "failed_invoke_event_count",
        "Events of failed or throttled invocations; of a partial report the reported ones (AWS: FailedInvokeEventCount).",
        lambda f: f.failed,
    ),
    Shown(
        "dropped_event_count",
        "Events given up by age or retries and not delivered to a destination (AWS: DroppedEventCount).",
        lambda f: f.dropped,
    ),
    Shown(
        "on_failure_destination_delivered_event_count",
        "Events in delivered destination messages (AWS: OnFailureDestinationDeliveredEventCount).",
        lambda f: f.delivered,
    ),
    Shown(
        "deleted_event_count",
        "Messages deleted after processing or filtering (AWS: DeletedEventCount).",
        lambda f: f.deleted,
    ),
    Shown("records_processed", "Records that a function processed.", lambda f: f.processed),
    Shown("bisections", "Failing batches that were split into two.", lambda f: f.bisections),
    Shown(
        "destination_delivery_failures",
        "Failed tries to deliver to an on-failure destination.",
        lambda f: f.destination_failures,
    ),
    Shown("checkpoint_saves", "Positions written to the store.", lambda f: f.checkpoints),
    Shown("leases_taken", "Leases of shards that were taken.", lambda f: f.leases_taken),
    Shown("leases_lost", "Leases of shards that were lost.", lambda f: f.leases_lost),
    Shown(
        "deletes_lapsed",
        "Messages not deleted because their receipt was no longer valid.",
        lambda f: f.deletes_lapsed,
    ),
    Shown("deletes_failed", "Messages whose deletion was given up.", lambda f: f.deletes_failed),
    Shown(
        "messages_released",
        "Received messages left to their visibility timeout unsettled.",
        lambda f: f.released,
    ),
)


def _of_streams(read: Callable[[MappingFigures], float | None]) -> Callable[[MappingFigures], float | None]:
    return lambda figures: read(figures) if figures.stream else None


GAUGES = (
    Shown(
        "iterator_age_seconds",
        "Age of the last record of the last batch when its function finished, the highest of all shards.",
        MappingFigures.age_s,
    ),
    Shown(
        "behind_seconds",
        "How far reading is behind the tip of the stream, the highest of all shards; where the source says so.",
        MappingFigures.behind_s,
    ),
    Shown("shards", "Shards that are read here.", _of_streams(lambda f: len(f.shards))),
    Shown("leases_held", "Leases of shards that are held here.", _of_streams(lambda f: len(f.leases))),
    Shown(
        "blocked_lanes",
        "Lanes whose batch fails over and over.",
        _of_streams(MappingFigures.blocked_lanes),
    ),
    Shown(
        "blocked_shards",
        "Shards with at least one blocked lane.",
        _of_streams(lambda f: len(f.blocked_shards())),
    ),
    Shown(
        "destinations_failing",
        "Shards that wait because their on-failure destination does not take the notice.",
        _of_streams(MappingFigures.destinations_failing),
    ),
    Shown("pollers", "Pollers of a queue.", lambda f: f.pollers),
)


@dataclass(frozen=True, slots=True)
class ShownHistogram:
    """One histogram with the label `mapping` alone."""

    name: str
    meaning: str
    read: Callable[[MappingFigures], Histogram | None]


HISTOGRAMS = (
    ShownHistogram("invocation_records", "Records handed over in one invocation.", lambda f: f.records),
    ShownHistogram("invocation_duration_seconds", "How long invocations took.", lambda f: f.duration),
    ShownHistogram(
        "invocation_iterator_age_seconds",
        "Age of the batch's last record when the function finished (AWS: IteratorAge, there in milliseconds).",
        lambda f: f.age,
    ),
)


@dataclass(frozen=True, slots=True)
class ShownByWord:
    """One counter with `mapping` and more labels, whose values come from closed sets."""

    name: str
    meaning: str
    labels: tuple[str, ...]
    read: Callable[[MappingFigures], Iterable[tuple[tuple[str, ...], float]]]


def _discards(figures: MappingFigures) -> Iterator[tuple[tuple[str, ...], float]]:
    if figures.stream or figures.discards:
        yield from (((each,), figures.discards[each]) for each in Condition)


def _discarded_records(figures: MappingFigures) -> Iterator[tuple[tuple[str, ...], float]]:
    if figures.stream or figures.discarded:
        yield from (((each,), figures.discarded[each]) for each in Condition)


def _losses(figures: MappingFigures) -> Iterator[tuple[tuple[str, ...], float]]:
    if figures.stream or figures.losses:
        yield from (((each,), figures.losses[each]) for each in Loss)


BY_WORD = (
    ShownByWord(
        "invocations",
        "Invocations by how they ended.",
        ("ended",),
        lambda f: [((each,), f.ended[each]) for each in Ended],
    ),
    ShownByWord(
        "retries",
        "Batches to be tried again; counted: the try used up a retry, free: it did not.",
        ("kind",),
        lambda f: [(("counted",), f.retries_counted), (("free",), f.retries_free)],
    ),
    ShownByWord("discards", "Batches given up, by AWS's condition.", ("condition",), _discards),
    ShownByWord(
        "discarded_records", "Records given up, by AWS's condition.", ("condition",), _discarded_records
    ),
    ShownByWord("losses", "Times that the source lost records before they were read.", ("loss",), _losses),
    ShownByWord(
        "port_failures",
        "Failed calls to sources and the store, by the class of error.",
        ("port", "error"),
        lambda f: f.port_failures.items(),
    ),
)


class FiguresCollector(Collector):
    """Turns the figures of this moment into metric families."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """All families, in a fixed order."""
        self._figures.sweep()
        mappings = self._figures.mappings
        yield InfoMetricFamily(
            "poller_build",
            "What runs here.",
            {"version": version("esm-poller"), "python": platform.python_version()},
        )
        yield _info(mappings)
        yield _states(mappings)
        yield from (_counter(shown, mappings) for shown in COUNTERS)
        yield from (_by_word(shown, mappings) for shown in BY_WORD)
        yield from (_gauge(shown, mappings) for shown in GAUGES)
        yield from (_histogram(shown, mappings) for shown in HISTOGRAMS)
        yield _blocked(mappings)
        yield from _capacity(self._figures)
        yield from _daemon(self._figures.daemon)


def _info(mappings: dict[MappingId, MappingFigures]) -> Metric:
    family = GaugeMetricFamily(
        "poller_mapping_info",
        "Always 1; what a mapping connects.",
        labels=("mapping", "function", "source_arn", "source"),
    )
    for mapping, figures in mappings.items():
        if figures.state is not None:
            family.add_metric((mapping, figures.function, figures.source_arn, figures.source), 1)
    return family


def _states(mappings: dict[MappingId, MappingFigures]) -> Metric:
    family = GaugeMetricFamily(
        "poller_mapping_state", "1 for the state that a mapping is in, else 0.", labels=("mapping", "state")
    )
    for mapping, figures in mappings.items():
        for state in MappingState if figures.state is not None else ():
            family.add_metric((mapping, state), int(figures.state is state))
    return family


def _counter(shown: Shown, mappings: dict[MappingId, MappingFigures]) -> Metric:
    family = CounterMetricFamily(f"poller_{shown.name}", shown.meaning, labels=("mapping",))
    for mapping, figures in mappings.items():
        if (value := shown.read(figures)) is not None:
            family.add_metric((mapping,), value)
    return family


def _gauge(shown: Shown, mappings: dict[MappingId, MappingFigures]) -> Metric:
    family = GaugeMetricFamily(f"poller_{shown.name}", shown.meaning, labels=("mapping",))
    for mapping, figures in mappings.items():
        if (value := shown.read(figures)) is not None:
            family.add_metric((mapping,), value)
    return family


def _by_word(shown: ShownByWord, mappings: dict[MappingId, MappingFigures]) -> Metric:
    family = CounterMetricFamily(f"poller_{shown.name}", shown.meaning, labels=("mapping", *shown.labels))
    for mapping, figures in mappings.items():
        for words, value in shown.read(figures):
            family.add_metric((mapping, *words), value)
    return family


def _histogram(shown: ShownHistogram, mappings: dict[MappingId, MappingFigures]) -> Metric:
    family = HistogramMetricFamily(f"poller_{shown.name}", shown.meaning, labels=("mapping",))
    for mapping, figures in mappings.items():
        if (found := shown.read(figures)) is not None:
            family.add_metric((mapping,), found.buckets(), sum_value=found.total)
    return family


def _blocked(mappings: dict[MappingId, MappingFigures]) -> Metric:
    family = GaugeMetricFamily(
        "poller_shard_blocked_since_timestamp_seconds",
        "Since when a shard is blocked, epoch seconds; only while it is, only the longest blocked ones.",
        labels=("mapping", "shard"),
    )
    named: list[tuple[Epoch, MappingId, ShardId]] = []
    for mapping, figures in mappings.items():
        found = sorted((since, shard) for shard, since in figures.blocked_shards().items())
        named += [(since, mapping, shard) for since, shard in found[:BLOCKED_SHARDS_SHOWN_MAX]]
    for since, mapping, shard in sorted(named)[:BLOCKED_SHARDS_SHOWN_IN_ALL_MAX]:
        family.add_metric((mapping, shard), since)
    return family


def _capacity(figures: Figures) -> Iterator[Metric]:
    in_flight = GaugeMetricFamily(
        "poller_function_in_flight", "Invocations that run now.", labels=("function",)
    )
    limit = GaugeMetricFamily(
        "poller_function_concurrency_limit",
        "How many invocations may run at once; no series without a limit.",
        labels=("function",),
    )
    for function, found in figures.functions.items():
        in_flight.add_metric((function,), found.in_flight)
        if found.limit is not None:
            limit.add_metric((function,), found.limit)
    yield in_flight
    yield limit


def _daemon(figures: DaemonFigures) -> Iterator[Metric]:
    reloads = CounterMetricFamily(
        "poller_configuration_reloads",
        "Changes of the configuration file, by what became of them.",
        labels=("result",),
    )
    for result, count in figures.reloads.items():
        reloads.add_metric((result,), count)
    yield reloads
    yield GaugeMetricFamily(
        "poller_configuration_last_reload_successful",
        "0 while the configuration file is not what runs, else 1.",
        value=int(figures.reload_ok),
    )
    yield GaugeMetricFamily(
        "poller_configuration_last_reload_success_timestamp_seconds",
        "When the configuration was last taken over, epoch seconds.",
        value=figures.reloaded_at,
    )
    failures = CounterMetricFamily(
        "poller_store_failures",
        "Failed calls to the store that belong to no mapping, by the class of error.",
        labels=("error",),
    )
    for error, count in figures.store_failures.items():
        failures.add_metric((error,), count)
    yield failures


class PrometheusObserver:
    """An Observer and an Exposition: counts events and gives the page in Prometheus' text format."""

    def __init__(self, figures: Figures, clock: Clock) -> None:
        self._figures = figures
        self._clock = clock
        self._page = b""
        self._page_until = Monotonic(0.0)
        self._registry = CollectorRegistry()
        self._registry.register(FiguresCollector(figures))
        ProcessCollector(registry=self._registry)

    def on(self, event: Event) -> None:
        """Takes one event; returns at once."""
        self._figures.on(event)

    def exposition(self) -> tuple[bytes, str]:
        """The page's body and its content type."""
        started = self._clock.monotonic()
        if not self._page or started >= self._page_until:
            self._page = generate_latest(self._registry)
            ended = self._clock.monotonic()
            self._page_until = Monotonic(ended + (ended - started) * PAGE_REUSE)
        return self._page, CONTENT_TYPE_PLAIN_0_0_4


class PrometheusSettings(BaseModel):
    """There is nothing to set."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@asynccontextmanager
async def open_prometheus(
    _settings: PrometheusSettings, env: Environment
) -> AsyncIterator[PrometheusObserver]:
    """An observer with a registry of its own."""
    yield PrometheusObserver(Figures(env.clock), env.clock)


plugin = Plugin("prometheus", PrometheusSettings, open_prometheus)
