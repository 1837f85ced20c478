"""Events of every kind, and a clock that tests set, for suites of observers."""

from dataclasses import dataclass
from typing import get_args

from msgspec import structs

from poller.domain.access import Role
from poller.domain.functions.queued_calls import CallEnd
from poller.domain.functions.shifts import ShiftState
from poller.domain.invocations import Condition, Ended
from poller.domain.operations import Action, OperationId, OperationState
from poller.domain.records import SHARD_END, Epoch, MappingId, Monotonic, Position, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.daemon_events import (
    AliasWeight,
    ApiChange,
    BreakerChanged,
    CallDeliveryFailed,
    CallLeftBehind,
    CallsWaiting,
    Capacity,
    CodeReloaded,
    ConfigurationReloaded,
    ConfigurationUnread,
    DaemonEnded,
    DaemonStarting,
    FleetSized,
    FunctionCalled,
    FunctionChanged,
    FunctionOpened,
    LoopBlocked,
    MemoryUsed,
    ObserverFailed,
    PayloadsShown,
    QueuedCallEnded,
    ShiftChanged,
    StopCutShort,
    StoreFailed,
    StrangerRefused,
    TaskEnded,
    VersionCalled,
)
from poller.domain.telemetry.labels import (
    ApiOperation,
    BreakerState,
    Listener,
    Loss,
    RefusedFor,
    Replayed,
    SourceCall,
    TaskEnd,
    TaskKind,
)
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
    MappingChanged,
    PlaceFound,
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
    VisibilityTooShort,
)
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.domain.telemetry.operation_events import (
    OperationAccepted,
    OperationOver,
    PausesChanged,
    ReplayCounted,
    ReplayTroubled,
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


ONE_OF_EACH: tuple[AnyTelemetryEvent, ...] = (
    changed(reason="reason {number}"),
    LeaseMoved(mapping=MAPPING, shard=SHARD, held=True),
    ShardStarted(mapping=MAPPING, shard=SHARD, position=Position.after("7")),
    SourceCalled(mapping=MAPPING, call=SourceCall.GET_RECORDS),
    Polled(mapping=MAPPING, shard=SHARD, records=10, behind_ms=1500),
    Filtered(mapping=MAPPING, shard=SHARD, records=2, evaluated=10),
    InvocationStarted(mapping=MAPPING, function="orders", records=8, request_id="req-{number}", attempt=0),
    finished(
        Ended.FUNCTION_ERROR,
        mapping=MAPPING,
        shard=SHARD,
        failed=8,
        records=8,
        age_ms=2000,
        error="Oops: {number}",
    ),
    Blocked(mapping=MAPPING, shard=SHARD, lane=0, blocked=True),
    Retrying(mapping=MAPPING, shard=SHARD, attempt=1, wait_s=0.4, free=False),
    Bisected(mapping=MAPPING, shard=SHARD, records=8),
    DestinationFailed(mapping=MAPPING, shard=SHARD, reason="no {number}", wait_s=1.0),
    Discarded(
        mapping=MAPPING,
        shard=SHARD,
        records=4,
        condition=Condition.AGE,
        delivered=True,
        destination=True,
        first="{number}",
        last="{last}",
    ),
    CheckpointSaved(mapping=MAPPING, shard=SHARD, position=SHARD_END),
    RecordsLost(mapping=MAPPING, shard=SHARD, loss=Loss.TRIMMED, position=Position.horizon()),
    PortFailed(
        mapping=MAPPING,
        shard=SHARD,
        port="port-{number}",
        error="Error{number}",
        reason="no {number}",
        wait_s=0.5,
    ),
    Deleted(mapping=MAPPING, messages=3, lapsed=1, failed=1),
    Released(mapping=MAPPING, messages=2),
    RetriesDelayed(mapping=MAPPING, messages=2),
    RetryAfterIgnored(mapping=MAPPING, function="reader", messages=1, reason="a negative number"),
    Pollers(mapping=MAPPING, pollers=5),
    GroupsBlocked(mapping=MAPPING, since=Epoch(5.0)),
    PlaceFound(mapping=MAPPING, function="reader", place="kept", reason="goes on"),
    Capacity(function="orders", in_flight=3, limit=50),
    FunctionChanged(
        function="orders", function_arn="arn", limit_s=900.0, known=False, reason="denied {number}"
    ),
    VisibilityTooShort(mapping=MAPPING, visibility_s=30, timeout_s=60.0),
    ShardStopped(mapping=MAPPING, shard=SHARD, ended=False),
    ConfigurationReloaded(ok=False, reason="mappings[{number}]: wrong"),
    ConfigurationUnread(reason="too many open files {number}", wait_s=2.0),
    StoreFailed(error="ServiceUnavailable", reason="no answer {number}", wait_s=1.0),
    TaskEnded(
        task=TaskKind.LANE,
        name="lane {shard}",
        end=TaskEnd.RAISED,
        mapping=MAPPING,
        reason="Oops: {number}",
    ),
    FunctionOpened(function="orders", invoker="python", calls_at_once=1, reason="one at a time"),
    CodeReloaded(function="orders", ok=False, version=1, reason="importing app raised SyntaxError"),
    CallLeftBehind(function="orders", calls=1),
    FunctionCalled(
        function="orders",
        request_id="r-{number}",
        ended=Ended.FUNCTION_ERROR,
        duration_s=0.5,
        error="ValueError: {number}",
    ),
    QueuedCallEnded(
        function="orders",
        request_id="r-{number}",
        end=CallEnd.RETRIES,
        attempts=3,
        age_s=181.0,
        error="ValueError: {number}",
    ),
    CallDeliveryFailed(
        function="orders",
        request_id="r-{number}",
        destination="arn:aws:sqs:eu-west-1:111122223333:failed",
        error="ServiceUnavailable",
        reason="no answer {number}",
    ),
    VersionCalled(function="orders", alias="live", version="2", failed=True),
    AliasWeight(function="orders", alias="live", version="2", weight=0.1),
    ShiftChanged(
        function="orders",
        alias="live",
        old="1",
        new="2",
        state=ShiftState.ROLLED_BACK,
        reason="12 of 20 calls of version 2 failed, more than the share 0.05",
    ),
    CallsWaiting(function="orders", calls=3, oldest_s=61.0),
    BreakerChanged(
        function="orders",
        state=BreakerState.OPEN,
        reason="5 of 8 calls failed within 60 s: ValueError: x",
        next_try_s=30.0,
    ),
    ObserverFailed(observer="Observer", reason="ValueError"),
    StrangerRefused(listener=Listener.RUNTIME_API, reason=RefusedFor.PEER, function="orders", uid=65534),
    MemoryUsed(used=5, limit=512, waiting=1),
    FleetSized(wanted=4, workers=3, reason="worker {number}: a shard is behind"),
    LoopBlocked(blocked_s=5.0, place="handler (shop/orders.py:{number})"),
    ApiChange(
        operation=ApiOperation.UPDATE,
        who="AKIDOPERATOR",
        role=Role.ADMIN,
        address="127.0.0.1",
        mapping=MAPPING,
        changes=("BatchSize: 10 -> 50",),
    ),
    ApiChange(
        operation=ApiOperation.DELETE,
        who="unauthenticated",
        address="127.0.0.1",
        mapping=MAPPING,
        refused="InvalidSignatureException: no {number}",
    ),
    ApiChange(operation=ApiOperation.CREATE, who="unauthenticated", address="127.0.0.1", broken_off=True),
    OperationAccepted(
        operation=OperationId("op-{number}"),
        mapping=MAPPING,
        action=Action.SKIP,
        of="shard {shard}",
        by="on-call",
        reason="a poison record {number}",
    ),
    OperationOver(
        operation=OperationId("op-{number}"),
        mapping=MAPPING,
        action=Action.SKIP,
        state=OperationState.FAILED,
        of="shard {shard}",
        by="on-call",
        result="no batch fails {number}",
        took_s=1.5,
    ),
    ReplayCounted(mapping=MAPPING, result=Replayed.PROCESSED, records=3),
    ReplayTroubled(
        operation=OperationId("op-1"),
        mapping=MAPPING,
        shard=SHARD,
        what="a call failed",
        reason="ValueError: no {number}",
    ),
    PausesChanged(mapping=MAPPING, pauses=1, since=Epoch(1_700_000_000.0)),
    PayloadsShown(
        who="carer",
        role=Role.OPERATE,
        address="127.0.0.1",
        mapping=MAPPING,
        shard=SHARD,
        records=3,
        first="{number}",
        last="{number}9",
    ),
    DaemonStarting(
        version="1.0",
        configuration="poller-{number}.yaml",
        worker="w",
        store="memory://",
        listen="127.0.0.1:8080",
        region="eu-west-1",
        endpoints=(),
        mappings=2,
        functions=("orders: python, 1 call at once",),
    ),
    DaemonEnded(
        reason="SIGTERM {number}",
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
        calls_cut_off=0,
        cut_off=(f"mapping {MAPPING}, function orders: {{number}} calls",),
        handed_back=3,
        shards_released=1,
    ),
)
"""One event of every kind, in an order that could happen. `{number}`, `{last}` and `{shard}` in texts are filled in by `one_of_each`."""


def one_of_each(
    mapping: MappingId = MAPPING, shard: ShardId = SHARD, number: int = 0
) -> list[AnyTelemetryEvent]:
    """The events of ONE_OF_EACH for this mapping and shard. `number` varies every free text."""
    words = {"number": number, "last": number + 3, "shard": shard}

    def filled(name: str, value: object) -> object:
        if name in ("mapping", "shard"):
            return (mapping if name == "mapping" else shard) if value else value
        if isinstance(value, tuple):
            return tuple(str(each).format_map(words) for each in value)
        return value.format_map(words) if type(value) is str else value

    return [
        structs.replace(event, **{name: filled(name, value) for name, value in structs.asdict(event).items()})
        for event in ONE_OF_EACH
    ]
