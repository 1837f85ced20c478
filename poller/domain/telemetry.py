"""Owns what the engine tells observers: frozen events and the protocol that receives them.

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
    """Where requests come in."""

    PORT = "port"
    """The daemon's own port (`listen`)."""
    RUNTIME_API = "runtime_api"
    """What a function's processes ask for their calls."""


class RefusedFor(StrEnum):
    """Why the sender of a request is a stranger."""

    PEER = "peer"
    """No process of the function."""
    HOST = "host"
    """A `Host` that is no name of this server: a web page that had its own name lead here."""
    ORIGIN = "origin"
    """A web page of another site."""


class TaskKind(StrEnum):
    """What a task of the engine is for."""

    MAPPING = "mapping"
    FUNCTION = "function"
    FUNCTION_FACTS = "function_facts"
    """Follows what Lambda says of a function."""
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
    """Runs message groups of one receive beside others."""
    DELETER = "deleter"
    DELETES = "deletes"
    """One worker of the deleter."""
    VISIBILITY = "visibility"
    EXTENSION = "extension"
    """One call that extends the visibility of messages."""


class TaskEnd(StrEnum):
    """How a task ended that was not over."""

    RAISED = "raised"
    CANCELLED = "cancelled"
    RETURNED = "returned"


class TelemetryEvent(msgspec.Struct, frozen=True, gc=False):
    """One event; each batch tells several, and a dataclass would cost four times as much."""


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
    """Records that no filter matched. `evaluated` counts all that the filters saw."""

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
    """The function answered or failed to; `failed` counts the records that were not processed.

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
    """A batch will be tried again after `wait_s`; `free` when the try used up no retry."""

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
    """A batch was given up; `delivered` when its notice reached the destination, `destination` False when there is none."""

    mapping: MappingId
    shard: ShardId
    records: int
    condition: Condition
    delivered: bool
    destination: bool
    first: str = ""
    last: str = ""


class DestinationFailed(TelemetryEvent, frozen=True, kw_only=True):
    """A notice could not be delivered; it is tried again after `wait_s`, or dropped when that is None."""

    mapping: MappingId
    shard: ShardId
    reason: str
    wait_s: float | None


class Blocked(TelemetryEvent, frozen=True, kw_only=True):
    """A lane began to fail (`blocked`) or got through again (not `blocked`). `since` when, if that is not now."""

    mapping: MappingId
    shard: ShardId
    lane: int
    blocked: bool
    since: Epoch | None = None


class Deleted(TelemetryEvent, frozen=True, kw_only=True):
    """Messages deleted; `lapsed` receipts were no longer valid, `failed` deletes were given up."""

    mapping: MappingId
    messages: int
    lapsed: int = 0
    failed: int = 0


class Released(TelemetryEvent, frozen=True, kw_only=True):
    """Received messages that were left to their visibility timeout without having been settled."""

    mapping: MappingId
    messages: int


class CheckpointSaved(TelemetryEvent, frozen=True, kw_only=True):
    """A position is in the store."""

    mapping: MappingId
    shard: ShardId
    position: Position


class ShardStarted(TelemetryEvent, frozen=True, kw_only=True):
    """A shard is being read from `position` on."""

    mapping: MappingId
    shard: ShardId
    position: Position


class ShardStopped(TelemetryEvent, frozen=True, kw_only=True):
    """A shard is no longer read here; `ended` when it was read and settled to its end."""

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
    """Invocations of a function that run now, and how many may (None: no limit)."""

    function: str
    in_flight: int
    limit: int | None


class FunctionChanged(TelemetryEvent, frozen=True, kw_only=True):
    """What its service says of a function changed: calls are now waited for up to `limit_s`.

    `known` is False while the service does not say; `reason` tells why, or why the function does not run as it should.
    """

    function: str
    function_arn: str
    limit_s: float
    known: bool
    reason: str = ""


class VisibilityTooShort(TelemetryEvent, frozen=True, kw_only=True):
    """A queue's messages come again before its function has to be done; AWS refuses such a mapping."""

    mapping: MappingId
    visibility_s: int
    timeout_s: float


class FunctionOpened(TelemetryEvent, frozen=True, kw_only=True):
    """A function can be called now: so many calls at once (None: any number), and why so many."""

    function: str
    invoker: str
    calls_at_once: int | None
    reason: str


class GroupsBlocked(TelemetryEvent, frozen=True, kw_only=True):
    """Message groups of a FIFO queue are blocked by messages that fail or are refused; `since` is None when none is."""

    mapping: MappingId
    since: Epoch | None


class Pollers(TelemetryEvent, frozen=True, kw_only=True):
    """How many pollers a queue mapping runs."""

    mapping: MappingId
    pollers: int


class PlaceFound(TelemetryEvent, frozen=True, kw_only=True):
    """Where a new mapping of the file begins, when there was another one that it could continue.

    `place` is kept (it goes on there), waiting (until other workers stop running that one) or unclear (there are several).
    """

    mapping: MappingId
    function: str
    place: str
    reason: str


class ConfigurationReloaded(TelemetryEvent, frozen=True, kw_only=True):
    """The configuration file changed and was taken over (`ok`) or refused; `reason` is empty or one line.

    `changes` says what is another thing than before, one line each.
    """

    ok: bool
    reason: str = ""
    changes: tuple[str, ...] = ()


class StoreFailed(TelemetryEvent, frozen=True, kw_only=True):
    """A call to the store that belongs to no mapping failed; `error` is the class name of the exception."""

    error: str
    reason: str
    wait_s: float


class TaskEnded(TelemetryEvent, frozen=True, kw_only=True):
    """A task of the engine ended although nobody had stopped it; it is started again, alone or with its mapping.

    `name` is its kind and whose it is; `reason` the error that ended it, on one line, or empty.
    """

    task: TaskKind
    name: str
    end: TaskEnd
    mapping: MappingId | None
    reason: str = ""


class CallLeftBehind(TelemetryEvent, frozen=True, kw_only=True):
    """A call of a function did not end when it was cancelled and goes on alone; `calls` such calls go on now."""

    function: str
    calls: int


class StrangerRefused(TelemetryEvent, frozen=True, kw_only=True):
    """A request was refused because of who sent it; `function` whose call it asked for, `uid` the sender's user if known."""

    listener: Listener
    reason: RefusedFor
    function: str = ""
    uid: int | None = None


class LoopBlocked(TelemetryEvent, frozen=True, kw_only=True):
    """The event loop stood still, since code ran on it without `await`; `place` is where that code was, or empty."""

    blocked_s: float
    place: str = ""


class ObserverFailed(TelemetryEvent, frozen=True, kw_only=True):
    """An observer raised when it was told something; `observer` is the name of its class."""

    observer: str
    reason: str


class ApiOperation(StrEnum):
    """What a request to the API changes."""

    CREATE = "create"
    UPDATE = "update"
    DELETE = "delete"
    TAG = "tag"
    UNTAG = "untag"
    ENABLE = "enable"
    DISABLE = "disable"


class ApiChange(TelemetryEvent, frozen=True, kw_only=True):
    """Somebody changed something through the API, was refused, or broke off; `refused` is empty or why, on one line.

    `broken_off`: the request did not come to its end, and nothing was changed or refused.

    `who` is an access key id, the name of a token, or `unauthenticated`; `address` the other end of the connection.
    `changes` are `NAME: OLD -> NEW`; of a refused request the names that it had.
    """

    operation: ApiOperation
    who: str
    address: str
    mapping: str = ""
    changes: tuple[str, ...] = ()
    refused: str = ""
    broken_off: bool = False


class DaemonStarting(TelemetryEvent, frozen=True, kw_only=True):
    """`poller run` has its port and begins: what it is, by which settings, and how many calls of each function can run."""

    version: str
    configuration: str
    """The file; empty without one."""
    worker: str
    store: str
    listen: str
    region: str
    endpoints: tuple[str, ...]
    """Where AWS's services are when they are not where AWS has them."""
    mappings: int
    """Those of the file; others may have been made through the API."""
    functions: tuple[str, ...]


class StopCutShort(TelemetryEvent, frozen=True, kw_only=True):
    """A daemon has ended before everything was finished: its grace time was over, or too short for what was received.

    `calls_cut_off` were under way and were cancelled: their batches come again; `cut_off` says whose they were, a text a mapping.
    `handed_back` are messages that were made visible again, untried. `shards_released` go on at their checkpoints, here or elsewhere.
    """

    grace_s: float
    calls_cut_off: int
    cut_off: tuple[str, ...] = ()
    handed_back: int
    shards_released: int


class DaemonEnded(TelemetryEvent, frozen=True, kw_only=True):
    """`poller run` ends: why, and what it did in all its time.

    `calls_cut_off` began and were cancelled; `handed_back` are messages that were made visible again after the stop.
    """

    reason: str
    exit_status: int
    ran_s: float
    calls: int
    calls_failed: int
    calls_cut_off: int
    records: int
    """What functions took."""
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
        """Takes one event; returns at once. What an observer raises is told to the others and goes no further."""
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
