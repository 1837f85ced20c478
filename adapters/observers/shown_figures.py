"""Owns the tables of a mapping's metrics: for each one its name, its help text, and how it is read from the figures."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from adapters.observers.mapping_metrics import Histogram, MappingFigures
from poller.domain.invocations import Condition, Ended
from poller.domain.telemetry.labels import Loss


@dataclass(frozen=True, slots=True)
class Shown:
    """One metric whose only label is `mapping`; `read` returns None for a mapping that has no such series."""

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
        lambda f: f.invocations.handed,
    ),
    Shown(
        "failed_invoke_event_count",
        "Events of failed or throttled invocations; of a partial report the reported ones (AWS: FailedInvokeEventCount).",
        lambda f: f.invocations.failed,
    ),
    Shown(
        "dropped_event_count",
        "Events given up by age or retries and not delivered to a destination (AWS: DroppedEventCount).",
        lambda f: f.stream_counts.dropped,
    ),
    Shown(
        "on_failure_destination_delivered_event_count",
        "Events in delivered destination messages (AWS: OnFailureDestinationDeliveredEventCount).",
        lambda f: f.stream_counts.delivered,
    ),
    Shown(
        "deleted_event_count",
        "Messages deleted after processing or filtering (AWS: DeletedEventCount).",
        lambda f: f.queue_counts.deleted,
    ),
    Shown("records_processed", "Records that a function processed.", lambda f: f.invocations.processed),
    Shown("bisections", "Failing batches that were split into two.", lambda f: f.stream_counts.bisections),
    Shown(
        "destination_delivery_failures",
        "Failed tries to deliver to an on-failure destination.",
        lambda f: f.stream_counts.destination_failures,
    ),
    Shown("checkpoint_saves", "Positions written to the store.", lambda f: f.stream_counts.checkpoints),
    Shown("leases_taken", "Leases of shards that were taken.", lambda f: f.stream_counts.leases_taken),
    Shown("leases_lost", "Leases of shards that were lost.", lambda f: f.stream_counts.leases_lost),
    Shown(
        "deletes_lapsed",
        "Messages not deleted because their receipt was no longer valid.",
        lambda f: f.queue_counts.deletes_lapsed,
    ),
    Shown("deletes_failed", "Messages whose deletion was given up.", lambda f: f.queue_counts.deletes_failed),
    Shown(
        "messages_released",
        "Received messages left to their visibility timeout unsettled.",
        lambda f: f.queue_counts.released,
    ),
    Shown(
        "retries_delayed",
        "Failed messages whose visibility was changed to their next try.",
        lambda f: f.queue_counts.retries_delayed,
    ),
    Shown(
        "retry_after_ignored",
        "Values of retryAfterSeconds that are no wait and were ignored.",
        lambda f: f.queue_counts.retry_after_ignored,
    ),
)


def _of_streams(read: Callable[[MappingFigures], float | None]) -> Callable[[MappingFigures], float | None]:
    return lambda figures: read(figures) if figures.stream else None


GAUGES = (
    Shown(
        "iterator_age_seconds",
        "Age of the last record of the last batch when its function finished, the highest of all shards.",
        lambda f: f.running.age_s(),
    ),
    Shown(
        "behind_seconds",
        "How far reading is behind the tip of the stream, the highest of all shards; where the source says so.",
        lambda f: f.running.behind_s(),
    ),
    Shown("shards", "Shards that are read here.", _of_streams(lambda f: len(f.running.shards))),
    Shown(
        "leases_held", "Leases of shards that are held here.", _of_streams(lambda f: len(f.running.leases))
    ),
    Shown(
        "blocked_lanes",
        "Lanes whose batch fails over and over.",
        _of_streams(lambda f: f.running.blocked_lanes()),
    ),
    Shown(
        "blocked_shards",
        "Shards with at least one blocked lane.",
        _of_streams(lambda f: len(f.running.blocked_shards())),
    ),
    Shown(
        "destinations_failing",
        "Shards that wait because their on-failure destination does not take the notice.",
        _of_streams(lambda f: f.running.destinations_failing()),
    ),
    Shown("pollers", "Pollers of a queue.", lambda f: f.running.pollers),
    Shown(
        "queue_blocked_since_timestamp_seconds",
        "Since when the longest blocked message group of a FIFO queue is blocked, epoch seconds; only while one is.",
        lambda f: f.running.groups_blocked_since,
    ),
)


@dataclass(frozen=True, slots=True)
class ShownHistogram:
    """One histogram whose only label is `mapping`."""

    name: str
    meaning: str
    read: Callable[[MappingFigures], Histogram | None]


HISTOGRAMS = (
    ShownHistogram(
        "invocation_records", "Records handed over in one invocation.", lambda f: f.invocations.records
    ),
    ShownHistogram(
        "invocation_duration_seconds", "How long invocations took.", lambda f: f.invocations.duration
    ),
    ShownHistogram(
        "invocation_iterator_age_seconds",
        "Age of the batch's last record when the function finished (AWS: IteratorAge, there in milliseconds).",
        lambda f: f.invocations.age,
    ),
)


@dataclass(frozen=True, slots=True)
class ShownByWord:
    """One counter with the label `mapping` and further labels, whose values come from closed sets."""

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
        lambda f: [((each,), f.invocations.ended[each]) for each in Ended],
    ),
    ShownByWord(
        "retries",
        "Batches to be tried again; counted: the try used up a retry, free: it did not.",
        ("kind",),
        lambda f: [(("counted",), f.invocations.retries_counted), (("free",), f.invocations.retries_free)],
    ),
    ShownByWord("discards", "Batches given up, by AWS's condition.", ("condition",), _discards),
    ShownByWord(
        "discarded_records", "Records given up, by AWS's condition.", ("condition",), _discarded_records
    ),
    ShownByWord("losses", "Times that the source lost records before they were read.", ("loss",), _losses),
    ShownByWord(
        "source_calls",
        "Calls of AWS that a mapping made for its source, failed ones too. Mappings may share reads and listings: "
        "only the one that made the call counts it, so the sum over all mappings is what AWS was asked.",
        ("call",),
        lambda f: [((call,), calls) for call, calls in f.source_calls.items()],
    ),
    ShownByWord(
        "port_failures",
        "Failed calls to sources and the store, by the class of error.",
        ("port", "error"),
        lambda f: f.port_failures.items(),
    ),
)
