"""Owns how each telemetry event changes the figures of its mapping."""

from collections.abc import Callable, Mapping
from typing import Any

from adapters.observers.mapping_metrics import AGE_BOUNDS_S, Histogram, MappingFigures, ShardFigures
from poller.domain import errors
from poller.domain.records import Epoch
from poller.domain.telemetry.mapping_events import (
    Bisected,
    Blocked,
    CheckpointSaved,
    Deleted,
    DestinationFailed,
    Discarded,
    Filtered,
    GroupsBlocked,
    InvocationFinished,
    InvocationStarted,
    LeaseMoved,
    Polled,
    Pollers,
    PortFailed,
    RecordsLost,
    Released,
    RetriesDelayed,
    RetryAfterIgnored,
    Retrying,
    ShardStarted,
    ShardStopped,
    SourceCalled,
)

OTHER = "other"
PORTS = frozenset({"source", "discovery", "store", "destination", "invoker"})
ERRORS = frozenset(
    name
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, errors.PortError)
)


def _polled(figures: MappingFigures, event: Polled, _now: Epoch) -> None:
    figures.polled += event.records
    shard = figures.running.shards.get(event.shard) if event.shard is not None else None
    if shard is None:
        return
    if event.behind_ms is not None:
        shard.behind_s = event.behind_ms / 1000
    if not event.records and not event.behind_ms and not shard.blocked:
        # An idle shard has nothing to wait for. Without this the age of its last batch would raise an alarm for ever.
        shard.age_s = 0.0


def _called(figures: MappingFigures, event: SourceCalled, _now: Epoch) -> None:
    figures.source_calls[event.call] += 1


def _filtered(figures: MappingFigures, event: Filtered, _now: Epoch) -> None:
    figures.filtered = (figures.filtered or 0) + event.records


def _started(figures: MappingFigures, event: InvocationStarted, _now: Epoch) -> None:
    figures.invocations.handed += event.records
    figures.invocations.records.observe(event.records)


def _finished(figures: MappingFigures, event: InvocationFinished, _now: Epoch) -> None:
    figures.invocations.ended[event.ended] += 1
    figures.invocations.failed += event.failed
    figures.invocations.processed += event.records - event.failed
    figures.invocations.duration.observe(event.duration_s)
    if event.iterator_age_ms is None:
        return
    age_s = event.iterator_age_ms / 1000
    if figures.invocations.age is None:
        figures.invocations.age = Histogram(AGE_BOUNDS_S)
    figures.invocations.age.observe(age_s)
    if event.shard is not None and event.shard in figures.running.shards:
        figures.running.shards[event.shard].age_s = age_s


def _retrying(figures: MappingFigures, event: Retrying, _now: Epoch) -> None:
    if event.free:
        figures.invocations.retries_free += 1
    else:
        figures.invocations.retries_counted += 1


def _bisected(figures: MappingFigures, _event: Bisected, _now: Epoch) -> None:
    figures.stream_counts.bisections = (figures.stream_counts.bisections or 0) + 1


def _discarded(figures: MappingFigures, event: Discarded, _now: Epoch) -> None:
    figures.discards[event.condition] += 1
    figures.discarded[event.condition] += event.records
    if event.delivered:
        figures.stream_counts.delivered = (figures.stream_counts.delivered or 0) + event.records
    else:
        figures.stream_counts.dropped = (figures.stream_counts.dropped or 0) + event.records
    if event.shard in figures.running.shards:
        figures.running.shards[event.shard].destination_failing = False


def _destination_failed(figures: MappingFigures, event: DestinationFailed, _now: Epoch) -> None:
    figures.stream_counts.destination_failures = (figures.stream_counts.destination_failures or 0) + 1
    if event.shard in figures.running.shards:
        figures.running.shards[event.shard].destination_failing = event.wait_s is not None


def _blocked(figures: MappingFigures, event: Blocked, now: Epoch) -> None:
    shard = figures.running.shards.get(event.shard)
    if shard is None:
        return
    if event.blocked:
        shard.blocked.setdefault(event.lane, now if event.since is None else event.since)
    else:
        shard.blocked.pop(event.lane, None)


def _deleted(figures: MappingFigures, event: Deleted, _now: Epoch) -> None:
    figures.queue_counts.deleted = (figures.queue_counts.deleted or 0) + event.messages
    figures.queue_counts.deletes_lapsed = (figures.queue_counts.deletes_lapsed or 0) + event.lapsed
    figures.queue_counts.deletes_failed = (figures.queue_counts.deletes_failed or 0) + event.failed


def _released(figures: MappingFigures, event: Released, _now: Epoch) -> None:
    figures.queue_counts.released = (figures.queue_counts.released or 0) + event.messages


def _retries_delayed(figures: MappingFigures, event: RetriesDelayed, _now: Epoch) -> None:
    figures.queue_counts.retries_delayed = (figures.queue_counts.retries_delayed or 0) + event.messages


def _retry_after_ignored(figures: MappingFigures, event: RetryAfterIgnored, _now: Epoch) -> None:
    before = figures.queue_counts.retry_after_ignored or 0
    figures.queue_counts.retry_after_ignored = before + event.messages


def _checkpoint_saved(figures: MappingFigures, _event: CheckpointSaved, _now: Epoch) -> None:
    figures.stream_counts.checkpoints = (figures.stream_counts.checkpoints or 0) + 1


def _shard_started(figures: MappingFigures, event: ShardStarted, _now: Epoch) -> None:
    figures.running.shards[event.shard] = ShardFigures()
    figures.running.leases.add(event.shard)


def _shard_stopped(figures: MappingFigures, event: ShardStopped, _now: Epoch) -> None:
    figures.running.drop_shard(event.shard)


def _lease_moved(figures: MappingFigures, event: LeaseMoved, _now: Epoch) -> None:
    if event.held:
        figures.stream_counts.leases_taken = (figures.stream_counts.leases_taken or 0) + 1
        figures.running.leases.add(event.shard)
    elif event.shard in figures.running.leases:
        # The same loss may be reported twice: by a refused write, and by reading the store.
        figures.stream_counts.leases_lost = (figures.stream_counts.leases_lost or 0) + 1
        figures.running.drop_shard(event.shard)


def _records_lost(figures: MappingFigures, event: RecordsLost, _now: Epoch) -> None:
    figures.losses[event.loss] += 1


def _port_failed(figures: MappingFigures, event: PortFailed, _now: Epoch) -> None:
    port = event.port if event.port in PORTS else OTHER
    error = event.error if event.error in ERRORS else OTHER
    figures.port_failures[port, error] += 1


def _groups_blocked(figures: MappingFigures, event: GroupsBlocked, _now: Epoch) -> None:
    figures.running.groups_blocked_since = event.since


def _pollers(figures: MappingFigures, event: Pollers, _now: Epoch) -> None:
    figures.running.pollers = event.pollers


APPLY: Mapping[type, Callable[[MappingFigures, Any, Epoch], None]] = {
    Polled: _polled,
    SourceCalled: _called,
    Filtered: _filtered,
    InvocationStarted: _started,
    InvocationFinished: _finished,
    Retrying: _retrying,
    Bisected: _bisected,
    Discarded: _discarded,
    DestinationFailed: _destination_failed,
    Blocked: _blocked,
    Deleted: _deleted,
    Released: _released,
    RetriesDelayed: _retries_delayed,
    RetryAfterIgnored: _retry_after_ignored,
    CheckpointSaved: _checkpoint_saved,
    ShardStarted: _shard_started,
    ShardStopped: _shard_stopped,
    LeaseMoved: _lease_moved,
    RecordsLost: _records_lost,
    PortFailed: _port_failed,
    Pollers: _pollers,
    GroupsBlocked: _groups_blocked,
}
"""What each event does to the figures of its mapping."""
