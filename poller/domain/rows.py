"""Owns what stores keep: mappings, checkpoints and leases of shards, workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from poller.domain.records import Epoch, MappingId, Position, ShardId, WorkerId

API_PREFIX = "api:"


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
    """What a store keeps of a shard: the safe position and a memo of the engine (JSON, opaque to stores)."""

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

    `fixed` is when it was created, the moment that LATEST stands for. `seeded` once the shards that existed then
    have their starting positions. `document` is the API's wire form for mappings made through the API, else empty.
    `revision` counts the updates; rows that were written before there were revisions have 0.
    `damage` says what is wrong with a row that a store lists and cannot read, with the remedy; all but its id means nothing then.
    """

    mapping: MappingId
    fixed: Epoch
    seeded: bool = False
    document: Mapping[str, Any] = field(default_factory=dict)
    revision: int = 0
    damage: str = ""


@dataclass(frozen=True, slots=True)
class WorkerRow:
    """What a worker last wrote of itself.

    `counter` grows with every beat: a reader whose own clock sees it stand still for the lease time takes the worker
    for dead, so that no two machines' clocks are compared. `facts` is a small JSON object (load, version).
    """

    worker: WorkerId
    counter: int
    facts: Mapping[str, Any] = field(default_factory=dict)
