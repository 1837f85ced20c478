"""Owns the picture of what runs: plain values that the API, `poller status` and `/readyz` show."""

from dataclasses import dataclass
from typing import Protocol

from poller.records import Epoch, MappingId, ShardId
from poller.telemetry import MappingState


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyRecord:
    """One record of a failing batch: where it is and how old, never what it holds."""

    identifier: str
    """Sequence number or message id."""
    key: str
    """Partition key, item key or message group, cut to 256 characters."""
    arrived: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """One lane of a shard, or one message group or poller of a queue."""

    lane: str
    state: str
    """idle, gathering, invoking, waiting (to try again), discarding"""
    attempts: int = 0
    blocked_since: Epoch | None = None
    next_try: Epoch | None = None
    last_error: str = ""
    records: tuple[FaultyRecord, ...] = ()
    records_count: int = 0
    retained_until: Epoch | None = None
    """When the source drops the first record at work, and the lane goes on without it; None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One shard: `state` is starting, reading, failing, draining, ended, waiting (for parents) or elsewhere."""

    shard: ShardId
    state: str
    position: str
    behind_ms: int | None = None
    owner: str = ""
    reason: str = ""
    losses: int = 0
    """How often records were gone before they could be read, since this worker took the shard."""
    lanes: tuple[LaneStatus, ...] = ()

    @property
    def blocked(self) -> bool:
        """Whether some lane fails over and over."""
        return any(lane.blocked_since is not None for lane in self.lanes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingStatus:
    """One mapping: streams have shards, queues have lanes (groups or pollers at work)."""

    mapping: MappingId
    function: str
    source_arn: str
    state: MappingState
    reason: str = ""
    last_result: str = ""
    shards: tuple[ShardStatus, ...] = ()
    lanes: tuple[LaneStatus, ...] = ()
    pollers: int | None = None

    @property
    def blocked(self) -> bool:
        """Whether anything in it is blocked."""
        return any(shard.blocked for shard in self.shards) or any(
            lane.blocked_since is not None for lane in self.lanes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """Everything that runs here; `problems` are reasons for not being ready, one line each.

    `notes` are what people should know beside that: a refused configuration, trouble of mappings made through the API.
    `complete` says that all mappings are known: not so while it starts or drains, nor before the store has once answered.
    """

    worker: str
    mappings: tuple[MappingStatus, ...]
    ready: bool
    alive: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = True


class StatusView(Protocol):
    """Who can be asked what runs."""

    def status(self) -> DaemonStatus:
        """A picture of this moment; returns at once."""
        ...
