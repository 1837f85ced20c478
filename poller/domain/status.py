"""Owns the status of what runs: plain values that the API, `poller status` and `/readyz` show."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from poller.domain.invocations import FunctionError
from poller.domain.operations import OperatorPause
from poller.domain.records import Epoch, MappingId, ShardId
from poller.domain.rows import MappingState
from poller.domain.untrusted.texts import fewer

STACK_LINES_SHOWN_MAX = 20
"""Lines of a stack trace that a status shows. The log shows more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultyRecord:
    """One record of a failing batch: its place and age, never its content."""

    identifier: str
    """Sequence number or message id."""
    key: str
    """Partition key, item key, message group or tenant, cut to 256 characters; empty if there is none."""
    arrived: Epoch


@dataclass(frozen=True, slots=True, kw_only=True)
class ErrorDocument:
    """The error that a function returned, with the member names of Lambda's error documents."""

    errorType: str  # noqa: N815 - Lambda's name
    errorMessage: str  # noqa: N815
    stackTrace: tuple[str, ...] = ()  # noqa: N815


def error_document(error: FunctionError | None) -> ErrorDocument | None:
    """The document of an error; None if the function returned no error."""
    if error is None:
        return None
    return ErrorDocument(
        errorType=error.error_type,
        errorMessage=error.message,
        stackTrace=fewer(error.stack_trace, lines_max=STACK_LINES_SHOWN_MAX),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class PauseStatus:
    """A pause by an operator."""

    operation: str
    by: str
    since: Epoch
    reason: str


def pause_status(pause: OperatorPause) -> PauseStatus:
    """The status of a pause."""
    return PauseStatus(operation=pause.operation, by=pause.by, since=pause.since, reason=pause.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneStatus:
    """One lane of a shard, or one message group or poller of a queue."""

    lane: str
    state: str
    """idle, gathering, invoking, waiting (to try again), discarding, paused, starting (until it is known what is paused)"""
    attempts: int = 0
    """Tries of a stream's batch, or receives of a queue's failing message."""
    attempts_max: int | None = None
    """How often the queue gives a message out before it moves to the dead-letter queue; None if there is no such queue."""
    blocked_since: Epoch | None = None
    failing_since: Epoch | None = None
    """Since when a message of a standard queue has failed. No other message waits for it."""
    next_try: Epoch | None = None
    last_error: str = ""
    """One line, for any kind of failure."""
    error: ErrorDocument | None = None
    """The error that the function itself returned at the last try, if it did."""
    records: tuple[FaultyRecord, ...] = ()
    records_count: int = 0
    retained_until: Epoch | None = None
    """When the source removes the first record of the batch and the lane goes on without it; None if that is not known."""
    paused: PauseStatus | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One shard: `state` is starting, reading, blocked, failing, paused, draining, ended, waiting (for parents) or elsewhere.

    A blocked shard is read, but a lane of it fails again and again. A failing shard cannot be read. A paused shard is read while
    there is room, but none of its lanes calls the function.
    """

    shard: ShardId
    state: str
    position: str
    behind_ms: int | None = None
    owner: str = ""
    reason: str = ""
    losses: int = 0
    """How often records were lost before they could be read, since this worker took the shard."""
    lanes: tuple[LaneStatus, ...] = ()
    paused: PauseStatus | None = None
    """The pause of all lanes, if they are paused."""

    @property
    def blocked(self) -> bool:
        """Whether a lane fails again and again."""
        return any(lane.blocked_since is not None for lane in self.lanes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingStatus:
    """One mapping. A stream has shards; a queue has lanes, which are failing groups and working pollers."""

    mapping: MappingId
    function: str
    source_arn: str
    state: MappingState
    reason: str = ""
    last_result: str = ""
    shards: tuple[ShardStatus, ...] = ()
    lanes: tuple[LaneStatus, ...] = ()
    pollers: int | None = None
    paused: PauseStatus | None = None
    """The pause of the whole mapping."""
    destination: str = ""
    """Where notices of given-up batches of a stream go, without what may be secret; empty if nowhere."""

    @property
    def blocked(self) -> bool:
        """Whether anything in it is blocked."""
        return any(shard.blocked for shard in self.shards) or any(
            lane.blocked_since is not None for lane in self.lanes
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """Everything that runs in this daemon. `problems` are the reasons why it is not ready, one line each.

    `notes` are other things that people should know, such as a refused configuration. `complete` says that all mappings are
    known. It is false while the daemon starts or drains, and until the store has answered once.
    """

    worker: str
    mappings: tuple[MappingStatus, ...]
    ready: bool
    alive: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = True


class StatusView(Protocol):
    """Gives the status of the daemon."""

    def status(self) -> DaemonStatus:
        """The status at this moment; returns at once."""
        ...


def idle_note(mappings: Sequence[MappingStatus]) -> str:
    """Says that nothing runs, and why; empty if something does."""
    if not mappings:
        return "nothing runs: there is no mapping in the configuration, and none was made through the API"
    if all(each.state is MappingState.DISABLED for each in mappings):
        return "nothing runs: every mapping is disabled"
    return ""
