"""Owns what is seen of a replay: its events become counts, a metric of their own, and log lines that name the replay.

The events themselves go nowhere else. The metrics and the last result of the mapping stay those of the mapping: a replay reads
old records on purpose, which must not look as if the mapping were behind.
"""

from collections import Counter
from collections.abc import Callable

from poller.domain.operations import OperationId
from poller.domain.records import MappingId, ShardId
from poller.domain.telemetry.daemon_events import TaskEnded
from poller.domain.telemetry.labels import Replayed
from poller.domain.telemetry.mapping_events import (
    DestinationFailed,
    Discarded,
    Filtered,
    InvocationFinished,
    LeaseMoved,
    PortFailed,
    RecordsLost,
    ShardStopped,
)
from poller.domain.telemetry.observers import AnyTelemetryEvent, Observer
from poller.domain.telemetry.operation_events import ReplayCounted, ReplayTroubled
from poller.domain.wording.numbers_of import number_of
from poller.runtime.replays.halting import HALTED


class ReplayObserver:
    """An Observer of one replay. `counts` is added to. `left` gets each shard that is not read here any more."""

    def __init__(
        self,
        observer: Observer,
        operation: OperationId,
        mapping: MappingId,
        *,
        counts: Counter[str],
        left: Callable[[ShardId], None],
    ) -> None:
        self._observer = observer
        self._operation = operation
        self._mapping = mapping
        self._counts = counts
        self._left = left

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        match event:
            case InvocationFinished():
                self._count("records", Replayed.PROCESSED, event.records - event.failed)
                self._count("failed", Replayed.FAILED, event.failed)
                if event.failed or event.error:
                    failed = number_of(event.failed, "record", of=event.records)
                    reason = event.error or f"not processed: {failed}"
                    self._emit_trouble("a call failed", reason, event.shard)
            case Filtered():
                self._count("filtered", Replayed.FILTERED, event.records)
            case Discarded():
                self._count("skipped", Replayed.SKIPPED, event.records)
                records = number_of(event.records, "record")
                reason = f"{records} from {event.first} to {event.last} ({event.condition})"
                self._emit_trouble("records were given up", reason, event.shard)
            case RecordsLost():
                self._counts["losses"] += 1
                reason = f"{event.loss} behind {event.position.encode()}"
                self._emit_trouble("the stream has lost records", reason, event.shard)
            case DestinationFailed() if event.reason != HALTED:
                self._emit_trouble("a notice was not delivered", event.reason, event.shard, event.wait_s)
            case PortFailed():
                self._emit_trouble(f"the {event.port} fails", event.reason, event.shard, event.wait_s)
            case ShardStopped() | LeaseMoved(held=False):
                self._left(event.shard)
            case TaskEnded():
                self._observer.on(event)
            case _:
                pass

    def _count(self, name: str, result: Replayed, records: int) -> None:
        if records:
            self._counts[name] += records
            self._observer.on(ReplayCounted(mapping=self._mapping, result=result, records=records))

    def _emit_trouble(
        self, what: str, reason: str, shard: ShardId | None, wait_s: float | None = None
    ) -> None:
        self._observer.on(
            ReplayTroubled(
                operation=self._operation,
                mapping=self._mapping,
                shard=shard,
                what=what,
                reason=reason,
                wait_s=wait_s,
            )
        )
