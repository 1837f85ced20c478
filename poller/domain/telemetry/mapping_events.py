"""Owns the telemetry events of one mapping: its state, records, invocations, shards and messages."""

from poller.domain.invocations import Condition, Ended
from poller.domain.records import Epoch, MappingId, Position, ShardId
from poller.domain.rows import MappingState
from poller.domain.telemetry.event import TelemetryEvent
from poller.domain.telemetry.labels import Loss, SourceCall


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


class SourceCalled(TelemetryEvent, frozen=True, kw_only=True):
    """A call of AWS was sent for the mapping's source, whatever comes of it. What mappings share is called for one of them."""

    mapping: MappingId
    call: SourceCall


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


class RetriesDelayed(TelemetryEvent, frozen=True, kw_only=True):
    """The visibility of failed messages was changed, so that they are tried again when they should."""

    mapping: MappingId
    messages: int


class RetryAfterIgnored(TelemetryEvent, frozen=True, kw_only=True):
    """A report had `retryAfterSeconds` for `messages` with values that are no wait. `reason` says what is wrong with the first."""

    mapping: MappingId
    function: str
    messages: int
    reason: str


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


class VisibilityTooShort(TelemetryEvent, frozen=True, kw_only=True):
    """A queue's visibility timeout is shorter than its function's time limit. AWS refuses such a mapping."""

    mapping: MappingId
    visibility_s: int
    timeout_s: float


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
