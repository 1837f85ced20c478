"""Owns the picture of what runs: plain values that the API, `poller status` and `/readyz` show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.domain.invocations import FunctionError
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.telemetry import MappingState
from poller.domain.untrusted.texts import fewer

STACK_LINES_SHOWN_MAX = 20
"""Of a stack trace in a status; the log has more of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyRecord:
    """One record of a failing batch: where it is and how old, never what it holds."""

    identifier: str
    """Sequence number or message id."""
    key: str
    """Partition key, item key, message group or tenant, cut to 256 characters; empty where there is none."""
    arrived: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDocument:
    """What a function said of its failure, with the names that Lambda's error documents have."""

    errorType: str  # noqa: N815 - Lambda's name
    errorMessage: str  # noqa: N815
    stackTrace: tuple[str, ...] = ()  # noqa: N815


def error_document(error: FunctionError | None) -> ErrorDocument | None:
    """The document of an error; None when the function did not say anything."""
    if error is None:
        return None
    return ErrorDocument(
        errorType=error.error_type,
        errorMessage=error.message,
        stackTrace=fewer(error.stack_trace, lines_max=STACK_LINES_SHOWN_MAX),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """One lane of a shard, or one message group or poller of a queue."""

    lane: str
    state: str
    """idle, gathering, invoking, waiting (to try again), discarding"""
    attempts: int = 0
    """Tries of a batch; receives of a queue's failing message."""
    attempts_max: int | None = None
    """At which of its receives the queue has given a message for the last time; None without a dead-letter queue."""
    blocked_since: Epoch | None = None
    failing_since: Epoch | None = None
    """Since when a message of a standard queue fails, which nothing waits for."""
    next_try: Epoch | None = None
    last_error: str = ""
    """One line, whatever the trouble is."""
    error: ErrorDocument | None = None
    """What the function itself said, when the last try ended with an error of its own."""
    records: tuple[FaultyRecord, ...] = ()
    records_count: int = 0
    retained_until: Epoch | None = None
    """When the source drops the first record at work, and the lane goes on without it; None where it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One shard: `state` is starting, reading, blocked, failing, draining, ended, waiting (for parents) or elsewhere.

    Blocked is a shard that is read while some lane of it fails over and over; failing is one that cannot be read.
    """

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


def idle_note(mappings: Sequence[MappingStatus]) -> str:
    """Says that nothing runs, and why; empty if something does."""
    if not mappings:
        return "nothing runs: there is no mapping in the configuration, and none was made through the API"
    if all(each.state is MappingState.DISABLED for each in mappings):
        return "nothing runs: every mapping is disabled"
    return ""
