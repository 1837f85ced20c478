"""Owns the telemetry events of operations on what runs."""

from poller.domain.operations import Action, OperationId, OperationState
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.telemetry.event import TelemetryEvent
from poller.domain.telemetry.labels import Replayed


class OperationAccepted(TelemetryEvent, frozen=True, kw_only=True):
    """An operation was asked for and stored. `of` is its target in words, and `by` is who asked."""

    operation: OperationId
    mapping: MappingId
    action: Action
    of: str
    by: str
    reason: str = ""


class OperationOver(TelemetryEvent, frozen=True, kw_only=True):
    """An operation is over: done, failed or cancelled. This worker made the last change. `result` says what came of it."""

    operation: OperationId
    mapping: MappingId
    action: Action
    state: OperationState
    of: str
    by: str
    result: str
    took_s: float


class PausesChanged(TelemetryEvent, frozen=True, kw_only=True):
    """The pauses of a mapping changed. `since` is when the oldest one began; None: nothing of the mapping is paused."""

    mapping: MappingId
    pauses: int
    since: Epoch | None


class ReplayCounted(TelemetryEvent, frozen=True, kw_only=True):
    """What became of records of a replay beside this mapping."""

    mapping: MappingId
    result: Replayed
    records: int


class ReplayTroubled(TelemetryEvent, frozen=True, kw_only=True):
    """Something went wrong in a replay beside this mapping: `what` in a few words, and why. It is tried again after `wait_s`, if that is set."""

    operation: OperationId
    mapping: MappingId
    shard: ShardId | None
    what: str
    reason: str
    wait_s: float | None = None
