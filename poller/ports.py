"""Owns the Protocols between the engine and the outside. Each raises only what `poller.domain.errors` has.

A port has at most four methods; who needs less asks for the narrower one.
"""

from collections.abc import Generator, Mapping, Sequence
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


class StreamSource(Protocol):
    """One stream. Every method may raise ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""

    async def shards(self) -> Sequence[Shard]:
        """All shards that the source lists, every page of them."""
        ...

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """A read token for the first record behind `position`; raises PositionTrimmed when that is gone."""
        ...

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next records; raises CursorExpired, and PositionTrimmed when they are gone.

        A page ends before a record that cannot be read, and RecordUnreadable is raised where that is the first.

        Waits for a turn of the environment before it decodes a big answer, and for nothing after that.
        """
        ...

    async def retention_s(self) -> float | None:
        """How long the source keeps records; None when it does not say."""
        ...


@runtime_checkable
class CreationTime(Protocol):
    """A stream that may be deleted and made again under its name. Raises as StreamSource does."""

    async def created(self) -> Epoch | None:
        """When the stream was created that has the name now; None when the credentials may not ask for it."""
        ...


@runtime_checkable
class StreamStatus(Protocol):
    """A stream that says when it gets no more records although it can still be read."""

    over: str
    """Why, with the remedy, as the source last said while it was listed or described; empty while it is written to."""


class QueueSource(Protocol):
    """One queue. Every method may raise ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """Up to `messages_max` (1 to 10) messages, waiting up to `wait_s` (0 to 20) for the first.

        One that cannot be read is among them and says so: the others must not wait for it.
        """
        ...

    async def delete(self, receipts: Sequence[str]) -> Sequence[Undone]:
        """Deletes any number of messages; returns those that were not deleted."""
        ...

    async def extend(self, receipts: Sequence[str], *, visibility_s: int) -> Sequence[Undone]:
        """Hides messages for `visibility_s` from now on (0: visible at once); returns those left unchanged."""
        ...

    async def describe(self) -> QueueFacts:
        """The queue's own settings."""
        ...


class Invoker(Protocol):
    """One function. Whatever goes wrong is an Outcome; nothing is raised but cancellation."""

    async def invoke(self, invocation: Invocation) -> Outcome:
        """Calls the function and waits for its answer, `invocation.timeout_s` at most."""
        ...


@runtime_checkable
class Bounded(Protocol):
    """An invoker that can run only so many calls at once, whatever the function's own limit is."""

    @property
    def call_limit(self) -> CallLimit:
        """How many, and why."""
        ...


class Destination(Protocol):
    """One on-failure destination. Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""

    async def send(self, notice: Notice) -> None:
        """Returns when the destination has the notice for good; sending the same notice again is allowed."""
        ...


class MappingStore(Protocol):
    """Mappings that the store knows.

    Raises ServiceUnavailable, ServiceThrottled, AccessDenied, ResourceMissing, and RowChanged where it says so.
    """

    async def create(self, row: MappingRow) -> MappingRow:
        """Keeps `row` unless the mapping is known; returns the row that is kept."""
        ...

    async def update(self, row: MappingRow) -> None:
        """Replaces the row at `row.revision`, which then has the next revision.

        Raises ResourceMissing when there is no row, and RowChanged if the stored revision is another. The same call again,
        after its answer was lost, finds its work done.
        """
        ...

    async def mappings(self) -> Sequence[MappingRow]:
        """All rows; one that cannot be read says so in its `damage`, and what asks for that row alone is ServiceUnavailable."""
        ...

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping and all its leases and checkpoints; no error when there is none."""
        ...


class LeaseStore(Protocol):
    """Leases of shards. Raises as MappingStore does, and LeaseLost where it says so."""

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        """All leases of one mapping with their checkpoints; with `memos` off all memos are empty, which costs less.

        Whoever takes a lease gets its memo then.
        """
        ...

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet; leaves existing ones as they are."""
        ...

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at `lease.epoch` + 1; raises LeaseLost if the stored epoch is not `lease.epoch`.

        Returns the lease as it is stored, with the last checkpoint. The same call again by the same owner, after its
        answer was lost, finds its work done and returns it.
        """
        ...

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Gives the lease up and keeps the checkpoint; raises LeaseLost if the stored owner or epoch differ.

        The same call again, after its answer was lost, is no error as long as nobody else took the lease.
        """
        ...


class CheckpointStore(Protocol):
    """Checkpoints of leased shards. Raises as MappingStore does, and LeaseLost."""

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if owner or epoch differ from the stored ones.

        A position below the stored one is refused with LeaseLost too: only a writer that is no longer alone can have one.
        """
        ...

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row with its checkpoint; raises LeaseLost if the stored epoch is not `lease.epoch`.

        No error when there is no row.
        """
        ...


class WorkerStore(Protocol):
    """Heartbeats of workers. Raises as MappingStore does."""

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row over the one before."""
        ...

    async def workers(self) -> Sequence[WorkerRow]:
        """The rows of all workers that have not retired, the dead among them."""
        ...

    async def retire(self, worker: WorkerId) -> None:
        """Removes a worker's row, one's own or a dead one's; no error when there is none."""
        ...


class Store(MappingStore, LeaseStore, CheckpointStore, WorkerStore, Protocol):
    """All that a store does; only the composition root asks for this much."""


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


class Exposition(Protocol):
    """An observer whose figures can be scraped."""

    def exposition(self) -> tuple[bytes, str]:
        """The page's body and its content type."""
        ...


@runtime_checkable
class SlicedExposition(Protocol):
    """An Exposition whose page may take long to make."""

    def slices(self) -> Generator[None, None, tuple[bytes, str]]:
        """Makes the page that `exposition` gives, some milliseconds of it in each step."""
        ...


@runtime_checkable
class FunctionCheck(Protocol):
    """An invoker that can be asked about functions which no configuration names.

    Raises ServiceThrottled, ServiceUnavailable, AccessDenied.
    """

    async def exists(self, function_arn: str) -> bool:
        """Whether there is a function with this ARN, the qualifier included."""
        ...


@runtime_checkable
class FunctionLookup(Protocol):
    """An invoker whose functions have settings of their own: a service runs them, and ends them at their time limit.

    Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
    """

    async def describe_function(self, function_arn: str) -> FunctionFacts:
        """What the service says of the function with this ARN, the qualifier included."""
        ...


@runtime_checkable
class FunctionStarter(Protocol):
    """An invoker that starts functions when they are called, in time that is not the call's."""

    @property
    def start_s_max(self) -> float:
        """How long a call may take beyond its own time because the function has to be started first."""
        ...


@runtime_checkable
class Probe(Protocol):
    """A part that can say whether it would work. Nothing is raised but cancellation, trouble is a finding."""

    async def probe(self) -> Sequence[Finding]:
        """Tries what has no effect outside: nothing is made, sent, deleted or hidden from others."""
        ...


@runtime_checkable
class MappingList(Protocol):
    """A look at a store that can say which mappings the store knows. Raises as MappingStore does; makes and changes nothing."""

    async def mappings(self) -> Sequence[MappingRow]:
        """All rows; none where there is no store yet."""
        ...


@runtime_checkable
class FunctionProbe(Protocol):
    """An invoker that is asked about each ARN by which mappings call its function. Raises nothing but cancellation."""

    async def probe_function(self, function_arn: str) -> Sequence[Finding]:
        """Whether this ARN, the qualifier included, could be called; the function does not run."""
        ...


@runtime_checkable
class ConsumerCheck(Protocol):
    """A source that knows whether AWS Lambda reads it too.

    Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing.
    """

    async def lambda_consumers(self) -> Sequence[LambdaConsumer]:
        """Lambda's own event source mappings of this source, in every state."""
        ...
