"""Owns the status of what runs: plain values that the API, `poller status` and `/readyz` show.

Ages are in seconds. They say how long ago the worker that a value is about was last heard, and how old what is shown may be.
Values of the answering worker itself have age 0. A value is out of date when its age is above what heartbeats explain.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from poller.domain.functions.waiting_calls import CallsStatus
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
    """idle, gathering, invoking, waiting (to try again, or until the function's breaker or rate lets it be called), discarding, paused,
    starting (until it is known what is paused)"""
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
    worker: str = ""
    """Of a queue's lane in the view of all workers: the worker that has it. A shard's lanes belong to its owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardStatus:
    """One shard: `state` is starting, reading, blocked, failing, paused, draining, ended, waiting (for parents), free or elsewhere.

    A blocked shard is read, but a lane of it fails again and again. A failing shard cannot be read. A paused shard is read while
    there is room, but none of its lanes calls the function. A free shard has no owner yet. `elsewhere` is a shard of another
    worker whose state is not known.
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
    age_s: float | None = 0.0
    """None: nothing was heard of its owner."""
    out_of_date: bool = False

    @property
    def blocked(self) -> bool:
        """Whether a lane fails again and again."""
        return any(lane.blocked_since is not None for lane in self.lanes)


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingWorker:
    """One mapping on one worker. `blocked` counts its blocked shards or lanes there, `left_out` those that are not shown."""

    worker: str
    state: MappingState
    reason: str = ""
    last_result: str = ""
    pollers: int | None = None
    blocked: int = 0
    left_out: int = 0
    """Shards and lanes in trouble for which there was no room in what the worker writes for the others."""
    age_s: float | None = 0.0
    out_of_date: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingStatus:
    """One mapping. A stream has shards; a queue has lanes, which are failing groups and working pollers.

    `workers` are those that run it. It is empty where only the answering worker's own status is shown.
    """

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
    result_at: Epoch | None = None
    """When the last result came; of other workers it is known to the minute."""
    workers: tuple[MappingWorker, ...] = ()

    @property
    def blocked(self) -> bool:
        """Whether anything in it is blocked, on any worker."""
        return (
            any(shard.blocked for shard in self.shards)
            or any(lane.blocked_since is not None for lane in self.lanes)
            or any(each.blocked for each in self.workers)
        )


class WorkerState(StrEnum):
    """How a worker is seen by the worker that answers."""

    ALIVE = "alive"
    LEAVING = "leaving"
    """It was asked to stop and finishes what runs."""
    SILENT = "silent"
    """It was not heard for longer than usual. Its shards are still its own."""
    DEAD = "dead"
    """It was not heard for the lease time. The other workers take its shards."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStatus:
    """One worker of the store. `note` says what of it is not shown, and why; empty if everything is."""

    worker: str
    state: WorkerState
    age_s: float | None = 0.0
    out_of_date: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateStatus:
    """The rate of a function over all workers. `share` is this worker's part of it, 0 to 1; so many calls wait here."""

    invocations_per_s: float | None
    records_per_s: float | None
    share: float
    waiting: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakerStatus:
    """The circuit breaker of a function at this worker: closed, open or half_open, since when and why.

    While it is not closed, `calls` and `failed` are what opened it; otherwise what it counts in its window now.
    """

    state: str
    since: Epoch
    reason: str = ""
    next_try: Epoch | None = None
    calls: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerBreaker:
    """The circuit breaker of a function at one worker. Of other workers the times are known to the second."""

    worker: str
    breaker: BreakerStatus
    age_s: float | None = 0.0
    out_of_date: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeStatus:
    """The code of a function that is taken up when it changes: since when it runs, and how many changes were taken up before.

    `refused` is why changed code was refused, so that the code from before runs on; empty if it was not.
    """

    since: Epoch
    taken_up: int = 0
    refused: str = ""
    refused_since: Epoch | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FunctionStatus:
    """One function that has a rate, a breaker or code that is reloaded. These three are those of the answering worker."""

    function: str
    rate: RateStatus | None = None
    breaker: BreakerStatus | None = None
    code: CodeStatus | None = None
    breakers: tuple[WorkerBreaker, ...] = ()
    """Those of all workers, by worker. It is empty where only the answering worker's own status is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonStatus:
    """Everything that runs. `problems` are the reasons why the answering daemon is not ready, one line each.

    `notes` are other things that people should know, such as a refused configuration. `complete` says that all mappings are
    known. It is false while the daemon starts or drains, and until the store has answered once. `workers` are all workers of
    the store, this one included; it is empty in the status of this daemon alone. `only` is the worker to which the view is
    limited; empty: all are shown.
    """

    worker: str
    mappings: tuple[MappingStatus, ...]
    ready: bool
    alive: bool
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    complete: bool = True
    workers: tuple[WorkerStatus, ...] = ()
    only: str = ""
    functions: tuple[FunctionStatus, ...] = ()
    """The functions with a rate, a breaker or reloaded code that a mapping uses, here or as far as it is known at other workers."""
    calls: tuple[CallsStatus, ...] = ()
    """The functions with asynchronous calls that are not over."""


class UnknownWorker(Exception):
    """The store has no worker of this name. `workers` are those that there are."""

    def __init__(self, workers: Sequence[str]) -> None:
        super().__init__(f"workers: {', '.join(workers)}")
        self.workers = tuple(workers)


class StatusView(Protocol):
    """Gives the status of the daemon, and of all workers."""

    def status(self) -> DaemonStatus:
        """The status of this daemon alone at this moment; returns at once."""
        ...

    async def fleet(
        self, *, only: str = "", mapping: MappingId | None = None, ask: bool = True
    ) -> DaemonStatus:
        """The status of all workers. Asks the store when what is known is older than a second or two, for 2 s at most.

        With `only` just what this worker has is shown. Raises UnknownWorker. With `mapping` only this mapping has to be
        up to date. Without `ask` it shows what is known, and returns at once.
        """
        ...

    async def refresh(self) -> None:
        """Makes `MappingControl.views` show what all workers have written, as far as the store answers."""
        ...


def idle_note(mappings: Sequence[MappingStatus]) -> str:
    """Says that nothing runs, and why; empty if something does."""
    if not mappings:
        return "no mapping runs: there is none in the configuration, and none was made through the API"
    if all(each.state is MappingState.DISABLED for each in mappings):
        return "nothing runs: every mapping is disabled"
    return ""
