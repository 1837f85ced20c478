"""Owns the rows that stores keep: mappings, leases and checkpoints of shards, workers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from poller.domain.records import Epoch, MappingId, Position, ShardId, WorkerId

API_PREFIX = "api:"
"""The id of a row with the definition of a mapping made through the API begins with this."""
FUNCTION_PREFIX = "function:"
"""The id of a row with what was set for a function through the API begins with this."""
REPLAY_PREFIX = "replay:"
"""The id of the hidden mapping of a replay begins with this. It is no mapping of the user."""


class MappingState(StrEnum):
    """The states of a mapping on AWS (aws-behaviour#states), and BROKEN for a mapping that a bug stopped."""

    CREATING = "Creating"
    ENABLING = "Enabling"
    ENABLED = "Enabled"
    DISABLING = "Disabling"
    DISABLED = "Disabled"
    UPDATING = "Updating"
    DELETING = "Deleting"
    BROKEN = "Broken"


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a store keeps for a shard: the safe position, and a memo of the engine (JSON that stores do not interpret)."""

    position: Position
    memo: bytes = b""


@dataclass(frozen=True, slots=True)
class Lease:
    """A shard's row in the store. `epoch` grows by one with each new owner and fences every later write."""

    shard: ShardId
    parents: tuple[ShardId, ...]
    checkpoint: Checkpoint
    owner: WorkerId | None = None
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class MappingRow:
    """A mapping as the store keeps it.

    `fixed` is when the mapping was created; LATEST means this moment. `seeded` is set when the shards that existed then
    have their starting positions. `document` is the definition of a mapping made through the API, else empty.
    `revision` counts the updates. Rows of versions that had no revisions have 0.
    `damage` says why a listed row cannot be read, with the remedy. Then only the row's id is valid.
    """

    mapping: MappingId
    fixed: Epoch
    seeded: bool = False
    document: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0
    damage: str = ""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """The row that a worker last wrote about itself.

    `counter` grows with every heartbeat. A reader takes the worker for dead when the counter stands still for the lease time by
    the reader's own clock, so the clocks of two machines are never compared. `facts` is the worker's report, a small JSON object.
    """

    worker: WorkerId
    counter: int
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class DigestRow:
    """The digest that a worker last wrote of its status. Stores do not interpret it. Empty content is a damaged row's."""

    worker: WorkerId
    content: bytes


@runtime_checkable
class DigestStore(Protocol):
    """A store of digests of the workers' status, beside their heartbeats. It raises as `MappingStore` does.

    A store need not have it. Then each worker sees of the others only which shards they own.
    """

    async def put_digest(self, worker: WorkerId, content: bytes) -> None:
        """Writes the worker's digest, 16 KiB at most; it replaces the earlier one. Empty content removes it, also if there is none."""
        ...

    async def digests(self) -> Sequence[DigestRow]:
        """The digests of all workers, also of those that have retired without removing theirs."""
        ...
