"""Owns the Prometheus metrics: their names, and the page that Prometheus scrapes (aws-behaviour#event-counts).

A page of many mappings takes long to make. So it is made in slices of some milliseconds, between which the event loop does
other work, and a finished page is reused for a while.
"""

import platform
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from importlib.metadata import version
from itertools import batched

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

from adapters.observers.function_metrics import function_families, label
from adapters.observers.mapping_metrics import MappingFigures
from adapters.observers.metrics import DaemonFigures, Figures
from adapters.observers.output_metrics import OutputCollector
from adapters.observers.shown_figures import (
    BY_WORD,
    COUNTERS,
    GAUGES,
    HISTOGRAMS,
    Shown,
    ShownByWord,
    ShownHistogram,
)
from poller.domain.records import Epoch, MappingId, Monotonic, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.labels import Listener, RefusedFor, Replayed, TaskEnd, TaskKind
from poller.output.queued_output import DroppedLines
from poller.plugins import Environment, Plugin
from poller.ports import Clock

BLOCKED_SHARDS_SHOWN_MAX = 20
"""Blocked shards of one mapping that are named: those that are blocked longest. The counts include all of them."""
BLOCKED_SHARDS_SHOWN_IN_ALL_MAX = 1000
MAPPINGS_IN_SLICE = 50
"""A slice has one metric of this many mappings."""
PAGE_REUSE = 9.0
"""A page is reused for this many times as long as it took to make, so that scrapes use a tenth of the loop at most."""


type MappingSlice = Sequence[tuple[MappingId, MappingFigures]]


class FiguresCollector(Collector):
    """Turns the present figures into metric families."""

    def __init__(self, figures: Figures) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        """Yields all families in a fixed order. A family of many mappings comes in several parts, one after the other."""
        self._figures.sweep()
        # A copy, since mappings may come and go while a page is made.
        mappings = list(batched(self._figures.mappings.items(), MAPPINGS_IN_SLICE, strict=False)) or [()]
        yield InfoMetricFamily(
            "poller_build",
            "What runs here.",
            {"version": version("esm-poller"), "python": platform.python_version()},
        )
        yield from map(_info, mappings)
        yield from map(_states, mappings)
        yield from (_counter(shown, part_of_mappings) for shown in COUNTERS for part_of_mappings in mappings)
        yield from (_by_word(shown, part_of_mappings) for shown in BY_WORD for part_of_mappings in mappings)
        yield from (_gauge(shown, part_of_mappings) for shown in GAUGES for part_of_mappings in mappings)
        yield from (
            _histogram(shown, part_of_mappings) for shown in HISTOGRAMS for part_of_mappings in mappings
        )
        yield from _blocked(mappings)
        yield _paused(self._figures)
        yield from function_families(self._figures)
        yield from _daemon(self._figures.daemon)


def _info(mappings: MappingSlice) -> Metric:
    family = GaugeMetricFamily(
        "poller_mapping_info",
        "Always 1; what a mapping connects.",
        labels=("mapping", "function", "source_arn", "source"),
    )
    for mapping, figures in mappings:
        if figures.state is not None:
            names = (label(figures.function), label(figures.source_arn), label(figures.source))
            family.add_metric((mapping, *names), 1)
    return family


def _states(mappings: MappingSlice) -> Metric:
    family = GaugeMetricFamily(
        "poller_mapping_state", "1 for the state that a mapping is in, else 0.", labels=("mapping", "state")
    )
    for mapping, figures in mappings:
        for state in MappingState if figures.state is not None else ():
            family.add_metric((mapping, state), int(figures.state is state))
    return family


def _counter(shown: Shown, mappings: MappingSlice) -> Metric:
    family = CounterMetricFamily(f"poller_{shown.name}", shown.meaning, labels=("mapping",))
    for mapping, figures in mappings:
        if (value := shown.read(figures)) is not None:
            family.add_metric((mapping,), value)
    return family


def _gauge(shown: Shown, mappings: MappingSlice) -> Metric:
    family = GaugeMetricFamily(f"poller_{shown.name}", shown.meaning, labels=("mapping",))
    for mapping, figures in mappings:
        if (value := shown.read(figures)) is not None:
            family.add_metric((mapping,), value)
    return family


def _by_word(shown: ShownByWord, mappings: MappingSlice) -> Metric:
    family = CounterMetricFamily(f"poller_{shown.name}", shown.meaning, labels=("mapping", *shown.labels))
    for mapping, figures in mappings:
        for words, value in shown.read(figures):
            family.add_metric((mapping, *words), value)
    return family


def _histogram(shown: ShownHistogram, mappings: MappingSlice) -> Metric:
    family = HistogramMetricFamily(f"poller_{shown.name}", shown.meaning, labels=("mapping",))
    for mapping, figures in mappings:
        if (found := shown.read(figures)) is not None:
            family.add_metric((mapping,), found.buckets(), sum_value=found.total)
    return family


def _blocked(mappings: Sequence[MappingSlice]) -> Iterator[Metric]:
    named: list[tuple[Epoch, MappingId, ShardId]] = []
    for part_of_mappings in mappings:
        for mapping, figures in part_of_mappings:
            found = sorted((since, shard) for shard, since in figures.running.blocked_shards().items())
            named += [(since, mapping, shard) for since, shard in found[:BLOCKED_SHARDS_SHOWN_MAX]]
        yield _blocked_shards(())
    yield _blocked_shards(sorted(named)[:BLOCKED_SHARDS_SHOWN_IN_ALL_MAX])


def _blocked_shards(named: Iterable[tuple[Epoch, MappingId, ShardId]]) -> Metric:
    family = GaugeMetricFamily(
        "poller_shard_blocked_since_timestamp_seconds",
        "Since when a shard is blocked, epoch seconds; only while it is, only the longest blocked ones.",
        labels=("mapping", "shard"),
    )
    for since, mapping, shard in named:
        family.add_metric((mapping, label(shard)), since)
    return family


def _paused(figures: Figures) -> Metric:
    family = GaugeMetricFamily(
        "poller_paused_since_timestamp_seconds",
        "Since when something of a mapping is paused by an operator, epoch seconds; only while it is. All workers show the same.",
        labels=("mapping",),
    )
    for mapping, since in figures.paused_since.items():
        family.add_metric((mapping,), since)
    return family


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
    changes = CounterMetricFamily(
        "poller_api_changes",
        "Requests to the API that change something, by operation and by what became of them.",
        labels=("operation", "outcome"),
    )
    for (operation, outcome), count in figures.api_changes.items():
        changes.add_metric((operation.value, outcome), count)
    yield changes
    yield _operations(figures)
    yield _replayed(figures)
    failures = CounterMetricFamily(
        "poller_store_failures",
        "Failed calls to the store that belong to no mapping, by the class of error.",
        labels=("error",),
    )
    for error, count in figures.store_failures.items():
        failures.add_metric((error,), count)
    yield failures
    ended = CounterMetricFamily(
        "poller_tasks_ended",
        "Tasks of the daemon that ended although nobody had stopped them, by what they did and how they ended.",
        labels=("task", "how"),
    )
    for kind in TaskKind:
        for end in TaskEnd:
            ended.add_metric((kind, end), figures.tasks_ended[kind, end])
    yield ended
    yield from _functions_and_observers(figures)


def _operations(figures: DaemonFigures) -> Metric:
    family = CounterMetricFamily(
        "poller_operations",
        "Operations on what runs that are over, by what they did and how they ended. The worker that stored the end counts it.",
        labels=("action", "result"),
    )
    for (action, state), count in figures.operations.items():
        family.add_metric((action, state), count)
    return family


def _replayed(figures: DaemonFigures) -> Metric:
    family = CounterMetricFamily(
        "poller_replayed_records",
        "Records that replays beside mappings have read on this worker, by what became of them. They are in no other metric.",
        labels=("result",),
    )
    for result in Replayed:
        family.add_metric((result,), figures.replayed[result])
    return family


def _functions_and_observers(figures: DaemonFigures) -> Iterator[Metric]:
    blocked = HistogramMetricFamily(
        "poller_loop_blocked_seconds",
        "How long the event loop stood still, each time that it did for a second or more.",
    )
    blocked.add_metric((), figures.loop_blocked.buckets(), sum_value=figures.loop_blocked.total)
    yield blocked
    yield GaugeMetricFamily(
        "poller_loop_blocked_seconds_max",
        "The longest time that the event loop stood still since the start.",
        value=figures.loop_blocked_s_max,
    )
    yield from _memory(figures)
    wanted = GaugeMetricFamily(
        "poller_wanted_workers",
        "How many workers there should be on the store; every worker says the same. Absent until it is known.",
    )
    if figures.wanted_workers is not None:
        wanted.add_metric((), figures.wanted_workers)
    yield wanted
    left = CounterMetricFamily(
        "poller_calls_left_behind",
        "Calls of functions that did not end when they were cancelled.",
        labels=("function",),
    )
    for function, count in figures.left_behind.items():
        left.add_metric((label(function),), count)
    yield left
    strangers = CounterMetricFamily(
        "poller_strangers_refused",
        "Requests that were refused because of who sent them, by where they came in and what was wrong.",
        labels=("listener", "reason"),
    )
    for listener in Listener:
        for reason in RefusedFor:
            strangers.add_metric((listener, reason), figures.strangers_refused[listener, reason])
    yield strangers
    observers = CounterMetricFamily(
        "poller_observer_failures", "Times that an observer raised, by its class.", labels=("observer",)
    )
    for observer, count in figures.observer_failures.items():
        observers.add_metric((label(observer),), count)
    yield observers


def _memory(figures: DaemonFigures) -> Iterator[Metric]:
    held = GaugeMetricFamily(
        "poller_memory_held_bytes",
        "Bytes of records and messages that are held, or reserved for calls of sources.",
        labels=(),
    )
    limit = GaugeMetricFamily("poller_memory_limit_bytes", "How many bytes may be held.", labels=())
    waiting = GaugeMetricFamily(
        "poller_memory_waiting_calls", "Calls of sources that wait for room in memory.", labels=()
    )
    if (found := figures.memory) is not None:
        held.add_metric((), found.used)
        limit.add_metric((), found.limit)
        waiting.add_metric((), found.waiting)
    yield from (held, limit, waiting)


class PrometheusObserver:
    """An Observer and an Exposition: counts events, and renders the page in Prometheus' text format."""

    def __init__(self, figures: Figures, clock: Clock, dropped: DroppedLines | None = None) -> None:
        self.on = figures.on
        """Counts one event; returns at once. It is the figures' own method, since each batch has several events."""
        self._clock = clock
        self._page = b""
        self._page_until = Monotonic(0.0)
        self._registry = CollectorRegistry()
        self._registry.register(FiguresCollector(figures))
        self._registry.register(OutputCollector(dropped or DroppedLines()))
        ProcessCollector(registry=self._registry)

    def exposition(self) -> tuple[bytes, str]:
        """Returns the page's body and its content type."""
        work = self.slices()
        while True:
            try:
                next(work)
            except StopIteration as done:
                found: tuple[bytes, str] = done.value
                return found

    def slices(self) -> Generator[None, None, tuple[bytes, str]]:
        """Does the same in slices of some milliseconds. All series of one mapping in one metric are read at one moment."""
        began = self._clock.monotonic()
        if not self._page or began >= self._page_until:
            page, took_s = bytearray(), 0.0
            for part in _rendered(self._registry):
                page += part
                took_s += self._clock.monotonic() - began
                yield
                began = self._clock.monotonic()
            self._page = bytes(page)
            self._page_until = Monotonic(began + took_s * PAGE_REUSE)
        return self._page, CONTENT_TYPE_PLAIN_0_0_4


class _PartCollector(Collector):
    """A collector that has only one part of a family."""

    def __init__(self, part: Metric) -> None:
        self._part = part

    def collect(self) -> Iterator[Metric]:
        """Yields that part."""
        yield self._part


def _rendered(registry: CollectorRegistry) -> Iterator[bytes]:
    """Yields the text of each part. Only the first part of a family has the lines HELP and TYPE."""
    family = ""
    for part in registry.collect():
        text = generate_latest(_PartCollector(part))
        yield text if part.name != family else text.split(b"\n", 2)[2]
        family = part.name


class PrometheusSettings(BaseModel):
    """This plug-in has no settings."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@asynccontextmanager
async def open_prometheus(
    _settings: PrometheusSettings, env: Environment
) -> AsyncIterator[PrometheusObserver]:
    """Yields an observer with a registry of its own."""
    yield PrometheusObserver(Figures(env.clock), env.clock, env.dropped_lines)


plugin = Plugin("prometheus", PrometheusSettings, open_prometheus)
