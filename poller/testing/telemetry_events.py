"""Events of every kind, and a clock that tests set, for suites of observers."""

from dataclasses import dataclass
from typing import get_args

from poller.domain.records import SHARD_END, Epoch, MappingId, Monotonic, Position, ShardId
from poller.domain.telemetry import (
    AnyTelemetryEvent,
    ApiChange,
    ApiOperation,
    Bisected,
    Blocked,
    CallLeftBehind,
    Capacity,
    CheckpointSaved,
    Condition,
    ConfigurationReloaded,
    DaemonEnded,
    DaemonStarting,
    Deleted,
    DestinationFailed,
    Discarded,
    Ended,
    Filtered,
    FunctionChanged,
    FunctionOpened,
    GroupsBlocked,
    InvocationFinished,
    InvocationStarted,
    LeaseMoved,
    Listener,
    LoopBlocked,
    Loss,
    MappingChanged,
    MappingState,
    ObserverFailed,
    PlaceFound,
    Polled,
    Pollers,
    PortFailed,
    RecordsLost,
    RefusedFor,
    Released,
    Retrying,
    ShardStarted,
    ShardStopped,
    StopCutShort,
    StoreFailed,
    StrangerRefused,
    TaskEnd,
    TaskEnded,
    TaskKind,
    VisibilityTooShort,
)

MAPPING = MappingId("5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb01")
QUEUE = MappingId("5e9e2b0a-94f3-4a43-a1a5-0d3a6a2cbb02")
SHARD = ShardId("shardId-000000000000")
STREAM_ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE_ARN = "arn:aws:sqs:eu-west-1:111122223333:orders"
KINDS: frozenset[type[AnyTelemetryEvent]] = frozenset(get_args(AnyTelemetryEvent.__value__))


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
    error_type: str = "",
    stack_trace: tuple[str, ...] = (),
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
        error_type=error_type,
        stack_trace=stack_trace,
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


def one_of_each(
    mapping: MappingId = MAPPING, shard: ShardId = SHARD, number: int = 0
) -> list[AnyTelemetryEvent]:
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
        GroupsBlocked(mapping=mapping, since=Epoch(5.0)),
        PlaceFound(mapping=mapping, function="reader", place="kept", reason="goes on"),
        Capacity(function="orders", in_flight=3, limit=50),
        FunctionChanged(
            function="orders", function_arn="arn", limit_s=900.0, known=False, reason=f"denied {number}"
        ),
        VisibilityTooShort(mapping=mapping, visibility_s=30, timeout_s=60.0),
        ShardStopped(mapping=mapping, shard=shard, ended=False),
        ConfigurationReloaded(ok=False, reason=f"mappings[{number}]: wrong"),
        StoreFailed(error="ServiceUnavailable", reason=f"no answer {number}", wait_s=1.0),
        TaskEnded(
            task=TaskKind.LANE,
            name=f"lane {shard}",
            end=TaskEnd.RAISED,
            mapping=mapping,
            reason=f"Oops: {number}",
        ),
        FunctionOpened(function="orders", invoker="python", calls_at_once=1, reason="one at a time"),
        CallLeftBehind(function="orders", calls=1),
        ObserverFailed(observer="Observer", reason="ValueError"),
        StrangerRefused(listener=Listener.RUNTIME_API, reason=RefusedFor.PEER, function="orders", uid=65534),
        LoopBlocked(blocked_s=5.0, place=f"handler (shop/orders.py:{number})"),
        ApiChange(
            operation=ApiOperation.UPDATE,
            who="AKIDOPERATOR",
            address="127.0.0.1",
            mapping=mapping,
            changes=("BatchSize: 10 -> 50",),
        ),
        ApiChange(
            operation=ApiOperation.DELETE,
            who="unauthenticated",
            address="127.0.0.1",
            mapping=mapping,
            refused=f"InvalidSignatureException: no {number}",
        ),
        ApiChange(operation=ApiOperation.CREATE, who="unauthenticated", address="127.0.0.1", broken_off=True),
        DaemonStarting(
            version="1.0",
            configuration=f"poller-{number}.yaml",
            worker="w",
            store="memory://",
            listen="127.0.0.1:8080",
            region="eu-west-1",
            endpoints=(),
            mappings=2,
            functions=("orders: python, 1 call at once",),
        ),
        DaemonEnded(
            reason=f"SIGTERM {number}",
            exit_status=0,
            ran_s=5.0,
            calls=3,
            calls_failed=1,
            calls_cut_off=0,
            records=20,
            discarded=0,
            handed_back=0,
        ),
        StopCutShort(
            grace_s=30.0,
            calls_cut_off=number,
            cut_off=(f"mapping {MAPPING}, function orders: {number} calls",),
            handed_back=3,
            shards_released=1,
        ),
    ]
