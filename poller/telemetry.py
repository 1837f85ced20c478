"""Owns what the engine tells observers: frozen events and the protocol that receives them.

Events carry ids, counts and durations, never payloads. Observers must not block and must not raise.
"""

from enum import StrEnum
from typing import Protocol

import msgspec

from poller.invocations import Condition as Condition
from poller.invocations import Ended as Ended
from poller.records import MappingId, Position, ShardId
from poller.rows import MappingState as MappingState


class Loss(StrEnum):
    """How records were lost before they could be read."""

    TRIMMED = "trimmed"
    SHARD_GONE = "shard_gone"


class Told(msgspec.Struct, frozen=True, gc=False):
    """One event; each batch tells several, and a dataclass would cost four times as much."""


class MappingChanged(Told, frozen=True, kw_only=True):
    """A mapping went to another state; `reason` is empty or one line."""

    mapping: MappingId
    function: str
    source_arn: str
    state: MappingState
    reason: str = ""


class Polled(Told, frozen=True, kw_only=True):
    """A read or a receive returned `records` records; `shard` is None for queues."""

    mapping: MappingId
    shard: ShardId | None
    records: int
    behind_ms: int | None = None


class Filtered(Told, frozen=True, kw_only=True):
    """Records that no filter matched. `evaluated` counts all that the filters saw."""

    mapping: MappingId
    shard: ShardId | None
    records: int
    evaluated: int


class InvocationStarted(Told, frozen=True, kw_only=True):
    """A batch was handed to the function."""

    mapping: MappingId
    function: str
    records: int
    request_id: str
    attempt: int


class InvocationFinished(Told, frozen=True, kw_only=True):
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


class Retrying(Told, frozen=True, kw_only=True):
    """A batch will be tried again after `wait_s`; `free` when the try used up no retry."""

    mapping: MappingId
    shard: ShardId | None
    attempt: int
    wait_s: float
    free: bool


class Bisected(Told, frozen=True, kw_only=True):
    """A failing batch was split into two."""

    mapping: MappingId
    shard: ShardId
    records: int


class Discarded(Told, frozen=True, kw_only=True):
    """A batch was given up; `delivered` when its notice reached the destination, `destination` False when there is none."""

    mapping: MappingId
    shard: ShardId
    records: int
    condition: Condition
    delivered: bool
    destination: bool
    first: str = ""
    last: str = ""


class DestinationFailed(Told, frozen=True, kw_only=True):
    """A notice could not be delivered; it is tried again after `wait_s`, or dropped when that is None."""

    mapping: MappingId
    shard: ShardId
    reason: str
    wait_s: float | None


class Blocked(Told, frozen=True, kw_only=True):
    """A lane began to fail (`blocked`) or got through again (not `blocked`)."""

    mapping: MappingId
    shard: ShardId
    lane: int
    blocked: bool


class Deleted(Told, frozen=True, kw_only=True):
    """Messages deleted; `lapsed` receipts were no longer valid, `failed` deletes were given up."""

    mapping: MappingId
    messages: int
    lapsed: int = 0
    failed: int = 0


class Released(Told, frozen=True, kw_only=True):
    """Received messages that were left to their visibility timeout without having been settled."""

    mapping: MappingId
    messages: int


class CheckpointSaved(Told, frozen=True, kw_only=True):
    """A position is in the store."""

    mapping: MappingId
    shard: ShardId
    position: Position


class ShardStarted(Told, frozen=True, kw_only=True):
    """A shard is being read from `position` on."""

    mapping: MappingId
    shard: ShardId
    position: Position


class ShardStopped(Told, frozen=True, kw_only=True):
    """A shard is no longer read here; `ended` when it was read and settled to its end."""

    mapping: MappingId
    shard: ShardId
    ended: bool


class LeaseMoved(Told, frozen=True, kw_only=True):
    """A lease was taken (`held`) or lost (not `held`)."""

    mapping: MappingId
    shard: ShardId
    held: bool


class RecordsLost(Told, frozen=True, kw_only=True):
    """The source no longer has records that were never read."""

    mapping: MappingId
    shard: ShardId
    loss: Loss
    position: Position


class PortFailed(Told, frozen=True, kw_only=True):
    """A call to a source or the store failed; `error` is the class name of the exception."""

    mapping: MappingId
    shard: ShardId | None
    port: str
    error: str
    reason: str
    wait_s: float


class Capacity(Told, frozen=True, kw_only=True):
    """Invocations of a function that run now, and how many may (None: no limit)."""

    function: str
    in_flight: int
    limit: int | None


class Pollers(Told, frozen=True, kw_only=True):
    """How many pollers a queue mapping runs."""

    mapping: MappingId
    pollers: int


class ConfigurationReloaded(Told, frozen=True, kw_only=True):
    """The configuration file changed and was taken over (`ok`) or refused; `reason` is empty or one line."""

    ok: bool
    reason: str = ""


class StoreFailed(Told, frozen=True, kw_only=True):
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
