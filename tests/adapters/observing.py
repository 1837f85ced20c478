"""Events of every kind, and a clock that tests set, for suites of observers."""

from dataclasses import dataclass
from typing import get_args

from poller.records import SHARD_END, Epoch, MappingId, Monotonic, Position, ShardId
from poller.telemetry import (
    Bisected,
    Blocked,
    Capacity,
    CheckpointSaved,
    Condition,
    ConfigurationReloaded,
    Deleted,
    DestinationFailed,
    Discarded,
    Ended,
    Event,
    Filtered,
    InvocationFinished,
    InvocationStarted,
    LeaseMoved,
    Loss,
    MappingChanged,
    MappingState,
    Polled,
    Pollers,
    PortFailed,
    RecordsLost,
    Released,
    Retrying,
    ShardStarted,
    ShardStopped,
    StoreFailed,
)

MAPPING = MappingId("5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb01")
QUEUE = MappingId("5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb02")
SHARD = ShardId("shardId-000000000000")
STREAM_ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE_ARN = "arn:aws:sqs:eu-west-1:111122223333:orders"
KINDS: frozenset[type[Event]] = frozenset(get_args(Event.__value__))


@dataclass
class SetClock:
    """A clock that stands still until a test moves it."""

    at: float = 1_700_000_000.0

    def monotonic(self) -> Monotonic:
        return Monotonic(self.at)

    def now(self) -> Epoch:
        return Epoch(self.at)


def changed(
    mapping: MappingId = MAPPING,
    state: MappingState = MappingState.ENABLED,
    *,
    source_arn: str = STREAM_ARN,
    function: str = "orders",
    reason: str = "",
) -> MappingChanged:
    return MappingChanged(
        mapping=mapping, function=function, source_arn=source_arn, state=state, reason=reason
    )


def finished(
    ended: Ended = Ended.SUCCESS,
    *,
    mapping: MappingId = MAPPING,
    shard: ShardId | None = SHARD,
    records: int = 10,
    failed: int = 0,
    age_ms: float | None = None,
    error: str = "",
) -> InvocationFinished:
    return InvocationFinished(
        mapping=mapping,
        function="orders",
        shard=shard,
        records=records,
        failed=failed,
        ended=ended,
        duration_s=0.25,
        request_id="req-1",
        iterator_age_ms=age_ms,
        error=error,
    )


def discarded(
    records: int, *, delivered: bool, destination: bool = True, mapping: MappingId = MAPPING
) -> Discarded:
    return Discarded(
        mapping=mapping,
        shard=SHARD,
        records=records,
        condition=Condition.RETRIES,
        delivered=delivered,
        destination=destination,
        first="1",
        last="9",
    )


def one_of_each(mapping: MappingId = MAPPING, shard: ShardId = SHARD, number: int = 0) -> list[Event]:
    """One event of every kind, in an order that could happen; `number` varies every free text."""
    position = Position.after("7")
    return [
        changed(mapping, reason=f"reason {number}"),
        LeaseMoved(mapping=mapping, shard=shard, held=True),
        ShardStarted(mapping=mapping, shard=shard, position=position),
        Polled(mapping=mapping, shard=shard, records=10, behind_ms=1500),
        Filtered(mapping=mapping, shard=shard, records=2, evaluated=10),
        InvocationStarted(
            mapping=mapping, function="orders", records=8, request_id=f"req-{number}", attempt=0
        ),
        finished(
            Ended.FUNCTION_ERROR,
            mapping=mapping,
            shard=shard,
            failed=8,
            records=8,
            age_ms=2000,
            error=f"Oops: {number}",
        ),
        Blocked(mapping=mapping, shard=shard, lane=0, blocked=True),
        Retrying(mapping=mapping, shard=shard, attempt=1, wait_s=0.4, free=False),
        Bisected(mapping=mapping, shard=shard, records=8),
        DestinationFailed(mapping=mapping, shard=shard, reason=f"no {number}", wait_s=1.0),
        Discarded(
            mapping=mapping,
            shard=shard,
            records=4,
            condition=Condition.AGE,
            delivered=True,
            destination=True,
            first=f"{number}",
            last=f"{number + 3}",
        ),
        CheckpointSaved(mapping=mapping, shard=shard, position=SHARD_END),
        RecordsLost(mapping=mapping, shard=shard, loss=Loss.TRIMMED, position=Position.horizon()),
        PortFailed(
            mapping=mapping,
            shard=shard,
            port=f"port-{number}",
            error=f"Error{number}",
            reason=f"no {number}",
            wait_s=0.5,
        ),
        Deleted(mapping=mapping, messages=3, lapsed=1, failed=1),
        Released(mapping=mapping, messages=2),
        Pollers(mapping=mapping, pollers=5),
        Capacity(function="orders", in_flight=3, limit=50),
        ShardStopped(mapping=mapping, shard=shard, ended=False),
        ConfigurationReloaded(ok=False, reason=f"mappings[{number}]: wrong"),
        StoreFailed(error="ServiceUnavailable", reason=f"no answer {number}", wait_s=1.0),
    ]
