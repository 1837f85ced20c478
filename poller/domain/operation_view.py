"""Owns how the API shows an operation: one flat object, which `poller operations` reads too."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from poller.domain.operations import Action, Operation, OperationId, OperationState, PartResult
from poller.domain.records import Epoch, MappingId, ShardId


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationView:
    """An operation as the API shows it. Times are seconds since 1970-01-01 UTC.

    `members` are those of the action. `by` asked for it, and `reason` says why. `wanted` names the parts that there must be
    before it is done: shards of a stream, or workers of a queue; `parts` has what came of each so far. `notes` is what workers
    must know to go on after a crash, such as the records that `first` stood for.
    """

    id: OperationId
    mapping: MappingId
    action: Action
    state: OperationState
    shard: ShardId | None = None
    lane: int | None = None
    group: str | None = None
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
        target = operation.request.target
        return cls(
            id=operation.operation,
            mapping=operation.mapping,
            action=operation.request.action,
            state=operation.state,
            shard=target.shard,
            lane=target.lane,
            group=target.group,
            members=operation.request.members,
            reason=operation.request.reason,
            by=operation.by,
            created=operation.created,
            ended=operation.ended,
            result=operation.result,
            wanted=operation.wanted,
            parts=operation.parts,
            progress=operation.progress,
            notes=operation.notes,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationPage:
    """A page of operations, newest first. `next` is the parameter `after` of the next page; None if this is the last."""

    operations: tuple[OperationView, ...]
    next: str | None = None
