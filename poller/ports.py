"""Owns the Protocols between the engine and the outside. Their methods raise only the errors of `poller.domain.errors`.

A port has at most four methods. Code asks for the narrowest port that has what it needs.
"""

from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from poller.domain.findings import Finding, LambdaConsumer
from poller.domain.function_facts import FunctionFacts
from poller.domain.invocations import Invocation, Notice, Outcome
from poller.domain.plan import CallLimit
from poller.domain.records import (
    Cursor,
    Epoch,
    MappingId,
    Message,
    Monotonic,
    Page,
    Position,
    QueueFacts,
    Shard,
    ShardId,
    Undone,
    WorkerId,
)
from poller.domain.rows import Checkpoint, Lease, MappingRow, WorkerRow
from poller.domain.status import CodeStatus
from poller.operator_ports import OperationHistory, OperationStore


class StreamSource(Protocol):
    """One stream. Every method may raise ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""

    async def shards(self) -> Sequence[Shard]:
        """All shards that the source lists, from all pages of the listing."""
        ...

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """A read token for the first record behind `position`. Raises PositionTrimmed if the source has removed that record."""
        ...

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next records. Raises CursorExpired, and PositionTrimmed if the source has removed them.

        A page ends before a record that cannot be read. If the first record cannot be read, RecordUnreadable is raised.
        Before it decodes a large answer, it waits for a turn (`Environment.turns`). After the turn it must not wait again.
        """
        ...

    async def retention_s(self) -> float | None:
        """How long the source keeps records; None when it does not say."""
        ...


class PushedSource(StreamSource, Protocol):
    """A stream whose records are pushed. Each shard has one reader."""

    def leave(self, shard: ShardId) -> None:
        """Ends what pushes the shard's records. Its reader has ended."""
        ...

    def polled_because(self, shard: ShardId) -> str:
        """Why the shard's records are not pushed now, but read like any other stream's; empty while they are pushed."""
        ...


@runtime_checkable
class PushingSource(Protocol):
    """A stream that can also push its records. What is not the reader of a shard reads it without that."""

    def pushing(self) -> PushedSource:
        """The stream as its records are pushed."""
        ...

    async def event_arn(self) -> str:
        """The ARN that events name in place of the mapping's, once it is known; else empty. Makes what pushes. Raises no PortError."""
        ...


@runtime_checkable
class CreationTime(Protocol):
    """A stream that can be deleted and created again under the same name. Raises as StreamSource does."""

    async def created(self) -> Epoch | None:
        """When the stream that has the name now was created; None if the credentials may not ask for it."""
        ...


@runtime_checkable
class StreamStatus(Protocol):
    """A stream that reports when no more records will be written to it, although it can still be read."""

    over: str
    """Why no more records come, with the remedy, by the last listing or description. Empty while records can be written."""


class QueueSource(Protocol):
    """One queue. Every method may raise ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """Up to `messages_max` (1 to 10) messages, waiting up to `wait_s` (0 to 20) for the first.

        A message that cannot be read is returned too, with `unreadable` set, so that it does not hold up the others.
        """
        ...

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        """Deletes any number of messages; returns those that were not deleted."""
        ...

    async def extend(self, receipts: Sequence[str], *, visibility_s: int | Sequence[int]) -> Sequence[Undone]:
        """Hides messages for `visibility_s` from now on (0: visible at once); returns those left unchanged.

        `visibility_s` is one number for all messages, or one for each in the order of the receipts.
        """
        ...

    async def describe(self) -> QueueFacts:
        """The queue's own settings."""
        ...


class Invoker(Protocol):
    """One function. Every failure is returned as an Outcome; only cancellation is raised."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the function and waits for its answer, `invocation.timeout_s` at most."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """An invoker with a limit of its own for calls at once, in addition to the function's limit."""

    @property
    def call_limit(self) -> CallLimit:
        """How many calls can run at once, and why."""
        ...


@runtime_checkable
class LeavesCalls(Protocol):
    """An invoker whose calls may go on after their outcome, because nothing can end them. Such a call keeps its place in the invoker."""

    @property
    def calls_left(self) -> int:
        """How many calls go on although they were given up or cancelled."""
        ...


@runtime_checkable
class ReloadsCode(Protocol):
    """An invoker that takes changed code of its function up between calls."""

    @property
    def code(self) -> CodeStatus:
        """The running code, and whether a change of it was refused."""
        ...

    async def follow_code(self, changed: Callable[[], None]) -> None:
        """Takes changes up until cancelled; calls `changed` when `code` shows another version or another refusal."""
        ...


class Destination(Protocol):
    """One on-failure destination. Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""

    async def send(self, notice: Notice) -> None:
        """Returns when the destination has stored the notice. The same notice may be sent again."""
        ...


class MappingStore(Protocol):
    """Mappings that the store knows.

    Raises ServiceUnavailable, ServiceThrottled, AccessDenied, ResourceMissing, and RowChanged where it says so.
    """

    async def create(self, row: MappingRow) -> MappingRow:
        """Stores `row` if the mapping has no row yet; returns the stored row."""
        ...

    async def update(self, row: MappingRow) -> None:
        """Replaces the row at `row.revision`, which then has the next revision.

        Raises ResourceMissing when there is no row, and RowChanged if the stored revision is another. If the answer to a call was
        lost, the same call may be repeated and succeeds.
        """
        ...

    async def mappings(self) -> Sequence[MappingRow]:
        """All rows. A row that cannot be read has `damage` set. Calls for that row alone raise ServiceUnavailable."""
        ...

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping with all its leases and checkpoints. It is no error if the mapping does not exist."""
        ...


class LeaseStore(Protocol):
    """Leases of shards. Raises as MappingStore does, and LeaseLost where it says so."""

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        """All leases of one mapping with their checkpoints. With `memos` off all memos are empty, which costs less.

        `take` returns the memo of the lease that it takes.
        """
        ...

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet; leaves existing ones as they are."""
        ...

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at `lease.epoch` + 1; raises LeaseLost if the stored epoch is not `lease.epoch`.

        Returns the lease as it is stored, with the last checkpoint. If the answer to a call was lost, the same owner may repeat
        the call and gets the same lease.
        """
        ...

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Gives the lease up and keeps the checkpoint; raises LeaseLost if the stored owner or epoch differ.

        If the answer to a call was lost, the same call may be repeated. That is no error unless another worker took the lease.
        """
        ...


class CheckpointStore(Protocol):
    """Checkpoints of leased shards. Raises as MappingStore does, and LeaseLost."""

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if owner or epoch differ from the stored ones.

        A position before the stored one is refused with LeaseLost too: it shows that another worker has written since.
        """
        ...

    async def move(self, mapping: MappingId, lease: Lease, position: Position) -> Lease:
        """Puts the shard at `position`, wherever it was, without a memo, without an owner and at the next epoch. Returns the lease.

        Raises LeaseLost if the stored epoch is not `lease.epoch`. So an owner that saves later is refused. If the answer to a call
        was lost, the same call may be repeated and returns the same lease.
        """
        ...

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row with its checkpoint; raises LeaseLost if the stored epoch is not `lease.epoch`.

        It is no error if there is no row.
        """
        ...


class WorkerStore(Protocol):
    """Heartbeats of workers. Raises as MappingStore does."""

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row; it replaces the earlier one."""
        ...

    async def workers(self) -> Sequence[WorkerRow]:
        """The rows of all workers that have not retired, dead ones included."""
        ...

    async def retire(self, worker: WorkerId) -> None:
        """Removes the row of this worker, or of a dead one. It is no error if there is no row."""
        ...


class Store(
    MappingStore, LeaseStore, CheckpointStore, WorkerStore, OperationStore, OperationHistory, Protocol
):
    """Everything that a store does. Only the composition root asks for all of it."""


class Clock(Protocol):
    """The two clocks. Waiting goes through the event loop, which a simulation advances together with these."""

    def monotonic(self) -> Monotonic:
        """Seconds that never go back."""
        ...

    def now(self) -> Epoch:
        """Seconds since the epoch."""
        ...


class Pacer(Protocol):
    """Keeps calls to one resource under a rate."""

    async def pace(self, key: str) -> None:
        """Returns when the next call on `key` may be sent."""
        ...


class CallPacer(Protocol):
    """Spaces the calls of one function in time, for its rate. One caller at a time waits for a key."""

    async def pace(self, key: str, period_s: float) -> None:
        """Returns `period_s` after its last return for this key, at once the first time. A cancelled call changes nothing."""
        ...


class Exposition(Protocol):
    """An observer whose metrics can be scraped."""

    def exposition(self) -> tuple[bytes, str]:
        """The page's body and its content type."""
        ...


@runtime_checkable
class SlicedExposition(Protocol):
    """An Exposition whose page may take long to build, so that it can be built in steps."""

    def slices(self) -> Generator[None, None, tuple[bytes, str]]:
        """Builds the same page as `exposition`, a few milliseconds of work in each step."""
        ...


@runtime_checkable
class FunctionCheck(Protocol):
    """An invoker that knows which functions exist. Raises ServiceThrottled, ServiceUnavailable, AccessDenied."""

    async def exists(self, function_arn: str) -> bool:
        """Whether there is a function with this ARN, the qualifier included."""
        ...


@runtime_checkable
class FunctionLookup(Protocol):
    """An invoker whose functions are run by a service, which has settings for them and ends them at their time limit.

    Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
    """

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        """The service's settings of the function with this ARN, the qualifier included."""
        ...


@runtime_checkable
class FunctionStarter(Protocol):
    """An invoker that may have to start a function before a call. The start does not count towards the call's time limit."""

    @property
    def start_s_max(self) -> float:
        """How much longer than its time limit a call may take, because the function has to be started first."""
        ...


@runtime_checkable
class Probe(Protocol):
    """A part of a mapping that can check whether it would work. Every problem is returned as a finding; only cancellation is raised."""

    async def probe(self) -> Sequence[Finding]:
        """Makes only calls without side effects: nothing is created, sent, deleted or hidden from other consumers."""
        ...


@runtime_checkable
class MappingList(Protocol):
    """A read-only view of a store that lists its mappings. Raises as MappingStore does."""

    async def mappings(self) -> Sequence[MappingRow]:
        """All rows; none if the store does not exist yet."""
        ...


@runtime_checkable
class LeaseList(Protocol):
    """A read-only view of a store that lists leases. Raises as LeaseStore does."""

    async def leases(self, mapping: MappingId) -> Sequence[Lease]:
        """All leases of one mapping with their checkpoints and memos; none if the store does not exist yet."""
        ...


@runtime_checkable
class FunctionProbe(Protocol):
    """An invoker that can check each ARN by which mappings call its function. Raises nothing but cancellation."""

    async def probe_function(self, function_arn: str) -> Sequence[Finding]:
        """Checks whether this ARN, the qualifier included, could be called. The function does not run."""
        ...


@runtime_checkable
class ConsumerCheck(Protocol):
    """A source that can find out whether AWS Lambda reads it too.

    Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
    """

    async def lambda_consumers(self) -> Sequence[LambdaConsumer]:
        """Lambda's own event source mappings of this source, in every state."""
        ...
