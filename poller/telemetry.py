"""Owns what the engine tells observers: frozen events and the protocol that receives them.

Events carry ids, counts and durations, never payloads. Observers must not block and must not raise.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from poller.records import Condition as Condition
from poller.records import Ended as Ended
from poller.records import MappingId, Position, ShardId
from poller.records import MappingState as MappingState


class Loss(StrEnum):
    """How records were lost before they could be read."""

    TRIMMED = "trimmed"
    SHARD_GONE = "shard_gone"


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingChanged:
    """A mapping went to another state; `reason` is empty or one line."""

    mapping: MappingId
    function: str
    source_arn: str
    state: MappingState
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Polled:
    """A read or a receive returned `records` records; `shard` is None for queues."""

    mapping: MappingId
    shard: ShardId | None
    records: int
    behind_ms: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Filtered:
    """Records that no filter matched. `evaluated` counts all that the filters saw."""

    mapping: MappingId
    shard: ShardId | None
    records: int
    evaluated: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationStarted:
    """A batch was handed to the function."""

    mapping: MappingId
    function: str
    records: int
    request_id: str
    attempt: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InvocationFinished:
    """The function answered or failed to; `failed` counts the records that were not processed.

    `iterator_age_ms` is the age of the batch's last record when the function finished (streams only). `error` is the
    error's type and message, cut.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Retrying:
    """A batch will be tried again after `wait_s`; `free` when the try used up no retry."""

    mapping: MappingId
    shard: ShardId | None
    attempt: int
    wait_s: float
    free: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Bisected:
    """A failing batch was split into two."""

    mapping: MappingId
    shard: ShardId
    records: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Discarded:
    """A batch was given up; `delivered` when its notice reached the destination, `destination` False when there is none."""

    mapping: MappingId
    shard: ShardId
    records: int
    condition: Condition
    delivered: bool
    destination: bool
    first: str = ""
    last: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class DestinationFailed:
    """A notice could not be delivered; it is tried again after `wait_s`, or dropped when that is None."""

    mapping: MappingId
    shard: ShardId
    reason: str
    wait_s: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocked:
    """A lane began to fail (`blocked`) or got through again (not `blocked`)."""

    mapping: MappingId
    shard: ShardId
    lane: int
    blocked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Deleted:
    """Messages deleted; `lapsed` receipts were no longer valid, `failed` deletes were given up."""

    mapping: MappingId
    messages: int
    lapsed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """Received messages that were left to their visibility timeout without having been settled."""

    mapping: MappingId
    messages: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointSaved:
    """A position is in the store."""

    mapping: MappingId
    shard: ShardId
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStarted:
    """A shard is being read from `position` on."""

    mapping: MappingId
    shard: ShardId
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStopped:
    """A shard is no longer read here; `ended` when it was read and settled to its end."""

    mapping: MappingId
    shard: ShardId
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseMoved:
    """A lease was taken (`held`) or lost (not `held`)."""

    mapping: MappingId
    shard: ShardId
    held: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordsLost:
    """The source no longer has records that were never read."""

    mapping: MappingId
    shard: ShardId
    loss: Loss
    position: Position


@dataclass(frozen=True, slots=True, kw_only=True)
class PortFailed:
    """A call to a source or the store failed; `error` is the class name of the exception."""

    mapping: MappingId
    shard: ShardId | None
    port: str
    error: str
    reason: str
    wait_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """Invocations of a function that run now, and how many may (None: no limit)."""

    function: str
    in_flight: int
    limit: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Pollers:
    """How many pollers a queue mapping runs."""

    mapping: MappingId
    pollers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigurationReloaded:
    """The configuration file changed and was taken over (`ok`) or refused; `reason` is empty or one line."""

    ok: bool
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFailed:
    """A call to the store that belongs to no mapping failed; `error` is the class name of the exception."""

    error: str
    reason: str
    wait_s: float


type Event = (
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
    | Pollers
    | ConfigurationReloaded
    | StoreFailed
)


class Observer(Protocol):
    """Receives every event, in order, on the loop."""

    def on(self, event: Event) -> None:
        """Takes one event; returns at once."""
        ...


class Observers:
    """Hands each event to several observers."""

    def __init__(self, observers: tuple[Observer, ...]) -> None:
        self._observers = observers

    def on(self, event: Event) -> None:
        """Takes one event; returns at once."""
        for observer in self._observers:
            observer.on(event)
