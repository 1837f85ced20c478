"""Owns telemetry: the frozen events that the engine emits, and the protocol of observers.

Events carry ids, counts and durations, never payloads. Observers must not block and must not raise.
"""

from contextlib import suppress
from enum import StrEnum
from typing import Protocol

import msgspec

from poller.domain.invocations import Condition as Condition
from poller.domain.invocations import Ended as Ended
from poller.domain.records import Epoch, MappingId, Position, ShardId
from poller.domain.rows import MappingState as MappingState


class Loss(StrEnum):
    """How records were lost before they could be read."""

    TRIMMED = "trimmed"
    SHARD_GONE = "shard_gone"
    STREAM_REMADE = "stream_remade"


class Listener(StrEnum):
    """A socket that takes requests."""

    PORT = "port"
    """The daemon's own port (`listen`)."""
    RUNTIME_API = "runtime_api"
    """The runtime API, from which a function's processes fetch their calls."""


class RefusedFor(StrEnum):
    """Why the sender of a request was refused."""

    PEER = "peer"
    """The sender is not a process of the function."""
    HOST = "host"
    """The `Host` header is not a name of this server. A web page may have pointed its own name at this address (DNS rebinding)."""
    ORIGIN = "origin"
    """The request comes from a web page of another site."""


class TaskKind(StrEnum):
    """What a task of the engine is for."""

    MAPPING = "mapping"
    FUNCTION = "function"
    FUNCTION_FACTS = "function_facts"
    """Follows the settings of a function at its service."""
    HEARTBEAT = "heartbeat"
    RECONCILER = "reconciler"
    CONTROL = "control"
    CONFIGURATION_FILE = "configuration_file"
    LOOP_WATCH = "loop_watch"
    TAKE = "take"
    SHARD = "shard"
    CHECKPOINTS = "checkpoints"
    READER = "reader"
    LANE = "lane"
    QUEUE_FACTS = "queue_facts"
    POLLER = "poller"
    POLL = "poll"
    """One receive beside a batch that gathers."""
    GROUPS = "groups"
    """Runs message groups of one batch at the same time as others."""
    DELETER = "deleter"
    DELETES = "deletes"
    """One worker of the deleter."""
    VISIBILITY = "visibility"
    EXTENSION = "extension"
    """One call that extends the visibility of messages."""


class TaskEnd(StrEnum):
    """How a task ended before its work was over."""

    RAISED = "raised"
    CANCELLED = "cancelled"
    RETURNED = "returned"


class TelemetryEvent(msgspec.Struct, frozen=True, gc=False):
    """One event. Each batch emits several, and a dataclass would cost four times as much as this struct."""


class MappingChanged(TelemetryEvent, frozen=True, kw_only=True):
    """A mapping went to another state; `reason` is empty or one line."""

    mapping: MappingId
    function: str
    source_arn: str
    state: MappingState
    reason: str = ""


class Polled(TelemetryEvent, frozen=True, kw_only=True):
    """A read or a receive returned `records` records; `shard` is None for queues."""

    mapping: MappingId
    shard: ShardId | None
    records: int
    behind_ms: int | None = None


class Filtered(TelemetryEvent, frozen=True, kw_only=True):
    """Records that no filter matched. `evaluated` counts all records that the filters checked."""

    mapping: MappingId
    shard: ShardId | None
    records: int
    evaluated: int


class InvocationStarted(TelemetryEvent, frozen=True, kw_only=True):
    """A batch was handed to the function."""

    mapping: MappingId
    function: str
    records: int
    request_id: str
    attempt: int


class InvocationFinished(TelemetryEvent, frozen=True, kw_only=True):
    """An invocation ended. `failed` counts the records that were not processed.

    `iterator_age_ms` is the age of the batch's last record when the function finished (streams only). `error` is the
    error's type and message, cut; `error_type` and `stack_trace` are there when the function itself failed.
    """

    mapping: MappingId
    function: str
    shard: ShardId | None
    records: int
    failed: int
    ended: Ended
    duration_s: float
    request_id: str
    iterator_age_ms: float | None = None
    error: str = ""
    error_type: str = ""
    stack_trace: tuple[str, ...] = ()


class Retrying(TelemetryEvent, frozen=True, kw_only=True):
    """A batch will be tried again after `wait_s`. `free`: the try used up no retry."""

    mapping: MappingId
    shard: ShardId | None
    attempt: int
    wait_s: float
    free: bool


class Bisected(TelemetryEvent, frozen=True, kw_only=True):
    """A failing batch was split into two."""

    mapping: MappingId
    shard: ShardId
    records: int


class Discarded(TelemetryEvent, frozen=True, kw_only=True):
    """A batch was given up. `destination`: the mapping has one. `delivered`: the notice reached it."""

    mapping: MappingId
    shard: ShardId
    records: int
    condition: Condition
    delivered: bool
    destination: bool
    first: str = ""
    last: str = ""


class DestinationFailed(TelemetryEvent, frozen=True, kw_only=True):
    """A notice could not be delivered. It is tried again after `wait_s`; if that is None, it is dropped."""

    mapping: MappingId
    shard: ShardId
    reason: str
    wait_s: float | None


class Blocked(TelemetryEvent, frozen=True, kw_only=True):
    """A lane began to fail (`blocked`), or its batch is settled (not `blocked`). `since` is when it began, if that is not now."""

    mapping: MappingId
    shard: ShardId
    lane: int
    blocked: bool
    since: Epoch | None = None


class Deleted(TelemetryEvent, frozen=True, kw_only=True):
    """`messages` were deleted in time. For `lapsed` the receipts were no longer valid. `failed` deletes were given up."""

    mapping: MappingId
    messages: int
    lapsed: int = 0
    failed: int = 0


class Released(TelemetryEvent, frozen=True, kw_only=True):
    """Received messages that were not settled: they were made visible again, or left to their visibility timeout."""

    mapping: MappingId
    messages: int


class CheckpointSaved(TelemetryEvent, frozen=True, kw_only=True):
    """A position was written to the store."""

    mapping: MappingId
    shard: ShardId
    position: Position


class ShardStarted(TelemetryEvent, frozen=True, kw_only=True):
    """A shard is being read from `position` on."""

    mapping: MappingId
    shard: ShardId
    position: Position


class ShardStopped(TelemetryEvent, frozen=True, kw_only=True):
    """A shard is no longer read here. `ended`: it was read and settled to its end."""

    mapping: MappingId
    shard: ShardId
    ended: bool


class LeaseMoved(TelemetryEvent, frozen=True, kw_only=True):
    """A lease was taken (`held`) or lost (not `held`)."""

    mapping: MappingId
    shard: ShardId
    held: bool


class RecordsLost(TelemetryEvent, frozen=True, kw_only=True):
    """The source no longer has records that were never read."""

    mapping: MappingId
    shard: ShardId
    loss: Loss
    position: Position


class PortFailed(TelemetryEvent, frozen=True, kw_only=True):
    """A call to a source or the store failed; `error` is the class name of the exception."""

    mapping: MappingId
    shard: ShardId | None
    port: str
    error: str
    reason: str
    wait_s: float


class Capacity(TelemetryEvent, frozen=True, kw_only=True):
    """How many invocations of a function run now, and how many may run at once (None: no limit)."""

    function: str
    in_flight: int
    limit: int | None


class FunctionChanged(TelemetryEvent, frozen=True, kw_only=True):
    """The settings of a function at its service changed. The engine now waits up to `limit_s` for a call.

    `known` is False while the service does not give the settings. `reason` says why, or why the function does not run as it should.
    """

    function: str
    function_arn: str
    limit_s: float
    known: bool
    reason: str = ""


class VisibilityTooShort(TelemetryEvent, frozen=True, kw_only=True):
    """A queue's visibility timeout is shorter than its function's time limit. AWS refuses such a mapping."""

    mapping: MappingId
    visibility_s: int
    timeout_s: float


class FunctionOpened(TelemetryEvent, frozen=True, kw_only=True):
    """A function can be called now, with up to `calls_at_once` calls at once (None: any number). `reason` says why."""

    function: str
    invoker: str
    calls_at_once: int | None
    reason: str


class GroupsBlocked(TelemetryEvent, frozen=True, kw_only=True):
    """Message groups of a FIFO queue are blocked by messages that fail or are refused. `since` is None when no group is blocked."""

    mapping: MappingId
    since: Epoch | None


class Pollers(TelemetryEvent, frozen=True, kw_only=True):
    """How many pollers a queue mapping runs."""

    mapping: MappingId
    pollers: int


class PlaceFound(TelemetryEvent, frozen=True, kw_only=True):
    """Where a new mapping of the configuration file begins, when there was an earlier mapping that it may continue.

    `place` is kept (it goes on where the earlier one was), waiting (until other workers stop running the earlier one) or
    unclear (there are several earlier ones).
    """

    mapping: MappingId
    function: str
    place: str
    reason: str


class ConfigurationReloaded(TelemetryEvent, frozen=True, kw_only=True):
    """The configuration file changed, and the daemon took it over (`ok`) or refused it. `reason` is empty or one line.

    `changes` has one line for each difference.
    """

    ok: bool
    reason: str = ""
    changes: tuple[str, ...] = ()


class StoreFailed(TelemetryEvent, frozen=True, kw_only=True):
    """A call to the store failed that belongs to no mapping. `error` is the class name of the exception."""

    error: str
    reason: str
    wait_s: float


class TaskEnded(TelemetryEvent, frozen=True, kw_only=True):
    """A task of the engine ended although nothing had stopped it. It is started again, alone or with its mapping.

    `name` is its kind and what it belongs to. `reason` is the error that ended it, on one line, or empty.
    """

    task: TaskKind
    name: str
    end: TaskEnd
    mapping: MappingId | None
    reason: str = ""


class CallLeftBehind(TelemetryEvent, frozen=True, kw_only=True):
    """A call of a function did not end when it was cancelled, and goes on in the background. `calls` is how many such calls there are now."""

    function: str
    calls: int


class StrangerRefused(TelemetryEvent, frozen=True, kw_only=True):
    """A request was refused because of its sender. `function` is the function whose call it asked for, `uid` the sender's user if known."""

    listener: Listener
    reason: RefusedFor
    function: str = ""
    uid: int | None = None


class LoopBlocked(TelemetryEvent, frozen=True, kw_only=True):
    """The event loop stood still, because code ran on it without `await`. `place` is where that code was, or empty."""

    blocked_s: float
    place: str = ""


class ObserverFailed(TelemetryEvent, frozen=True, kw_only=True):
    """An observer raised while it took an event. `observer` is the name of its class."""

    observer: str
    reason: str


class ApiOperation(StrEnum):
    """The kind of change that a request to the API makes."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    TAG = "tag"
    UNTAG = "untag"
    ENABLE = "enable"
    DISABLE = "disable"


class ApiChange(TelemetryEvent, frozen=True, kw_only=True):
    """A request to change something through the API. `refused` is empty, or says on one line why it was refused.

    `broken_off`: the request was aborted, and nothing was changed or refused.

    `who` is an access key id, the name of a token, or `unauthenticated`. `address` is the client's address.
    `changes` are `NAME: OLD -> NEW`; for a refused request they are the names of its members.
    """

    operation: ApiOperation
    who: str
    address: str
    mapping: str = ""
    changes: tuple[str, ...] = ()
    refused: str = ""
    broken_off: bool = False


class DaemonStarting(TelemetryEvent, frozen=True, kw_only=True):
    """`poller run` listens on its port and begins. The event has its version, its settings, and how many calls of each function can run."""

    version: str
    configuration: str
    """The file; empty without one."""
    worker: str
    store: str
    listen: str
    region: str
    endpoints: tuple[str, ...]
    """The configured URLs that replace AWS's own endpoints."""
    mappings: int
    """How many mappings the file has. More may have been made through the API."""
    functions: tuple[str, ...]


class StopCutShort(TelemetryEvent, frozen=True, kw_only=True):
    """A daemon ended before all its work was finished: its grace time was over, or too short for the received messages.

    `calls_cut_off` were cancelled, and their batches will be delivered again; `cut_off` has one text for each mapping of such calls.
    `handed_back` messages were made visible again without a try. `shards_released` go on at their checkpoints, here or elsewhere.
    """

    grace_s: float
    calls_cut_off: int
    cut_off: tuple[str, ...] = ()
    handed_back: int
    shards_released: int


class DaemonEnded(TelemetryEvent, frozen=True, kw_only=True):
    """`poller run` ends. The event says why, and gives totals of the whole run.

    `calls_cut_off` were cancelled. `handed_back` messages were made visible again after the stop.
    """

    reason: str
    exit_status: int
    ran_s: float
    calls: int
    calls_failed: int
    calls_cut_off: int
    records: int
    """Records that functions accepted."""
    discarded: int
    handed_back: int


type AnyTelemetryEvent = (
    MappingChanged
    | Polled
    | Filtered
    | InvocationStarted
    | InvocationFinished
    | Retrying
    | Bisected
    | Discarded
    | DestinationFailed
    | Blocked
    | Deleted
    | Released
    | CheckpointSaved
    | ShardStarted
    | ShardStopped
    | LeaseMoved
    | RecordsLost
    | PortFailed
    | Capacity
    | FunctionChanged
    | VisibilityTooShort
    | FunctionOpened
    | Pollers
    | GroupsBlocked
    | PlaceFound
    | ConfigurationReloaded
    | StoreFailed
    | TaskEnded
    | CallLeftBehind
    | ObserverFailed
    | StrangerRefused
    | LoopBlocked
    | ApiChange
    | DaemonStarting
    | DaemonEnded
    | StopCutShort
)


class Observer(Protocol):
    """Receives every event, in order, on the loop."""

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once."""
        ...


class Observers:
    """Hands each event to several observers."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers

    def on(self, event: AnyTelemetryEvent) -> None:
        """Takes one event; returns at once. If an observer raises, the other observers get ObserverFailed and the error goes no further."""
        for observer in self._observers:
            try:
                observer.on(event)
            except BaseException as error:  # noqa: BLE001 - foreign code: whatever it raises, the engine goes on
                self._emit_failed(observer, error)

    def _emit_failed(self, failed: Observer, error: BaseException) -> None:
        event = ObserverFailed(observer=type(failed).__name__, reason=type(error).__name__)
        for observer in self._observers:
            if observer is not failed:
                with suppress(BaseException):
                    observer.on(event)
