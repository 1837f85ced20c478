"""Owns operations: what somebody asked to be done to what runs, how far it is, and what came of it.

An operation is a value. A store keeps it, any worker accepts it, and the workers that hold its target carry it out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, NewType, Protocol, Self, runtime_checkable

from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.untrusted.credentials import hide_path

OperationId = NewType("OperationId", str)
_CALLS = "calls/"


def function_target(function: str) -> MappingId:
    """What stands for the mapping in an operation on the asynchronous calls of a function. No mapping has such an id."""
    return MappingId(_CALLS + function)


def function_of(mapping: MappingId) -> str | None:
    """The function whose asynchronous calls an operation is about; None if it is about a mapping."""
    return mapping.removeprefix(_CALLS) if mapping.startswith(_CALLS) else None


class Action(StrEnum):
    """What an operation does."""

    RETRY = "retry"
    """The next try is made now, and the back-off begins again. No attempt is used up."""
    RESET = "reset"
    """Attempts and age count from now."""
    SKIP = "skip"
    """These records are given up: the destination gets a notice, or they are dropped."""
    PAUSE = "pause"
    """No call begins until the pause ends. The operation runs for as long as the pause lasts."""
    RESUME = "resume"
    """Ends the pauses of the target."""
    SEEK = "seek"
    """The mapping goes on at another position."""
    REPLAY = "replay"
    """Older records are read once more beside the mapping."""
    REDRIVE = "redrive"
    """Batches that were given up are tried again, from their notices."""


class OperationState(StrEnum):
    """How far an operation is."""

    ACCEPTED = "accepted"
    """It is stored, and no worker has begun."""
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def over(self) -> bool:
        """Whether nothing more happens."""
        return self in {OperationState.DONE, OperationState.FAILED, OperationState.CANCELLED}


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationTarget:
    """What an operation is about: a shard, a lane of it, or a message group. Without any of them it is the whole mapping."""

    shard: ShardId | None = None
    lane: int | None = None
    group: str | None = None

    def covers(self, other: "OperationTarget") -> bool:
        """Whether the other target is this one or a part of it."""
        return (
            (self.shard is None or self.shard == other.shard)
            and (self.lane is None or self.lane == other.lane)
            and (self.group is None or self.group == other.group)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PartResult:
    """What came of an operation on one of its parts: a shard of a stream, or a worker of a queue. `result` is one line for people."""

    state: OperationState
    result: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationRequest:
    """What was asked for, checked: `members` are those of the action, and `reason` says why."""

    action: Action
    target: OperationTarget = OperationTarget()
    members: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One operation. `mapping` is what it is about: a mapping, or `function_target` of a function for its asynchronous calls.

    `by` is who asked. `parts` has the results so far, by shard
    or worker, and `wanted` names the parts that there must be before it is done. `progress` counts, for operations that take long.
    `notes` is what workers must know to go on after a crash, such as the records that `first` stood for. `result` is one line
    for people. `revision` counts the updates.
    """

    operation: OperationId
    mapping: MappingId
    request: OperationRequest
    by: str = ""
    created: Epoch
    state: OperationState = OperationState.ACCEPTED
    ended: Epoch | None = None
    wanted: tuple[str, ...] = ()
    parts: Mapping[str, PartResult] = field(default_factory=dict)
    progress: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)
    result: str = ""
    revision: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndedOperation:
    """An operation that is over, as the history counts it: when it ended, and how many bytes a store keeps of it."""

    operation: OperationId
    ended: Epoch
    stored_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class OperatorPause:
    """A pause that lasts: of what, by whom, since when and why.

    `lanes` is how many lanes the shard of a paused lane had; None if it is not known, or if no lane is meant.
    """

    operation: OperationId
    target: OperationTarget
    by: str
    since: Epoch
    reason: str
    lanes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationView:
    """An operation as the API shows it. Times are seconds since 1970-01-01 UTC.

    `members` are those of the action. `by` asked for it, and `reason` says why. `wanted` names the parts that there must be
    before it is done: shards of a stream, or workers of a queue; `parts` has what came of each so far. `notes` is what workers
    must know to go on after a crash, such as the records that `first` stood for. Of URLs of the web in members and notes the path and
    the query are hidden: they may be secret, as those of a destination, and whoever may read sees operations.
    """

    id: OperationId
    mapping: MappingId
    action: Action
    state: OperationState
    target: OperationTarget = OperationTarget()
    members: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    by: str = ""
    created: Epoch
    ended: Epoch | None = None
    result: str = ""
    wanted: tuple[str, ...] = ()
    parts: Mapping[str, PartResult] = field(default_factory=dict)
    progress: Mapping[str, int] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, operation: Operation) -> Self:
        """How this operation is shown."""
        return cls(
            id=operation.operation,
            mapping=operation.mapping,
            action=operation.request.action,
            state=operation.state,
            target=operation.request.target,
            members=_without_paths(operation.request.members),
            reason=operation.request.reason,
            by=operation.by,
            created=operation.created,
            ended=operation.ended,
            result=operation.result,
            wanted=operation.wanted,
            parts=operation.parts,
            progress=operation.progress,
            notes=_without_paths(operation.notes),
        )


def _without_paths(found: Mapping[str, Any]) -> dict[str, Any]:
    """These members, and those inside them, with the paths of URLs hidden. Lists have ids and lines, and no URLs."""
    return {
        name: _without_paths(value)
        if isinstance(value, Mapping)
        else hide_path(value)
        if isinstance(value, str)
        else value
        for name, value in found.items()
    }


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationPage:
    """A page of operations, newest first. `next` is the parameter `after` of the next page; None if this is the last."""

    operations: tuple[OperationView, ...]
    next: str | None = None


class OperationControl(Protocol):
    """Accepts, shows and cancels operations while the daemon runs. Each method raises ApiError for a request that it refuses."""

    async def submit(self, mapping: MappingId, request: Mapping[str, Any], *, by: str) -> Operation:
        """Stores an operation, and returns it as it is stored. The same id with the same content is the same operation."""
        ...

    async def operations(
        self, *, mapping: MappingId | None = None, state: OperationState | None = None
    ) -> Sequence[Operation]:
        """Operations, newest first."""
        ...

    async def operation(self, operation: OperationId) -> Operation:
        """One operation."""
        ...

    async def cancel(self, operation: OperationId, *, by: str) -> Operation:
        """Ends an operation that is not over: nothing more of it begins. What was done stays done."""
        ...


@runtime_checkable
class KnownOperations(Protocol):
    """Knows the operations that are not over without asking the store."""

    def known_open(self) -> Sequence[Operation] | None:
        """Those that this worker knows now, oldest first; None while it answers no requests."""
        ...
