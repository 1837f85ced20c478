"""Owns the Protocols that only operations need. The rules of `poller.ports` hold for them, too."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from poller.domain.invocations import StoredNotice
from poller.domain.operations import EndedOperation, Operation, OperationId
from poller.domain.records import Cursor, Message, ShardId


class OperationStore(Protocol):
    """Operations. Raises as MappingStore does."""

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation if there is none with its id; returns the stored one."""
        ...

    async def change(self, operation: Operation) -> Operation:
        """Replaces the operation at `operation.revision`, and returns it with the next revision.

        Raises ResourceMissing when there is none, and RowChanged if the stored revision is another, or if the stored operation
        is over. If the answer to a call was lost, the same call may be repeated and succeeds.
        """
        ...

    async def operation(self, operation: OperationId) -> Operation | None:
        """The operation with this id, whether it is over or not; None if there is none. No others are read.

        Raises ServiceUnavailable if it cannot be read.
        """
        ...

    async def operations(self, *, over: bool = False) -> Sequence[Operation]:
        """All operations that are not over, oldest first; with `over` those that are. One that cannot be read is left out and logged.

        Asking for those that are not over is cheap, however many are over: every worker asks all the time.
        """
        ...


class OperationHistory(Protocol):
    """The operations that are over, as far as they are to be removed. Raises as MappingStore does."""

    async def ended(self) -> Sequence[EndedOperation]:
        """When each operation that is over ended, and how long it is, in any order. Their contents are not read.

        Operations whose end is not known are left out.
        """
        ...

    async def prune(self, operations: Sequence[OperationId]) -> None:
        """Removes operations that are over. It is no error if there are none. Operations that are not over stay."""
        ...


class NoticeSource(Protocol):
    """The notices of given-up batches in one place. Raises ServiceThrottled, ServiceUnavailable, AccessDenied, ResourceMissing."""

    async def read(self, *, notices_max: int) -> Sequence[StoredNotice]:
        """The next notices, in the order of the place. None when each was read once since this was opened.

        A place that can hold notices back from other readers does so until they are removed or left, for `hold_s` at least.
        """
        ...

    async def remove(self, notice: StoredNotice) -> None:
        """Removes a notice. It is no error if it is gone."""
        ...

    async def leave(self, notice: StoredNotice) -> None:
        """Leaves a notice for a later reader. It is not read again before this is opened again."""
        ...

    async def payload(self, bucket: str, key: str) -> bytes:
        """The object that a notice names as the place of its event."""
        ...


@runtime_checkable
class MessageMover(Protocol):
    """A queue that messages can be moved out of, into its dead-letter queue. Raises as QueueSource does."""

    async def send_to_dead_letters(self, message: Message) -> str:
        """Returns when the dead-letter queue has stored a copy of the message, with the name of that queue. It deletes nothing.

        The same message may be sent again. Raises ResourceMissing if the queue has no dead-letter queue, and RecordUnreadable if the
        message cannot be sent as it is.
        """
        ...


@runtime_checkable
class HoldingNotices(Protocol):
    """A place that holds notices back while somebody works on them. Those of a worker that was killed come back after `hold_s`."""

    @property
    def seen_all(self) -> bool:
        """Whether the last read, if it brought nothing, has seen all that nobody holds back. Otherwise it is to be repeated."""
        ...

    async def hold(self, notice: StoredNotice) -> bool:
        """Holds a notice back for `hold_s` from now on. False: its time was over, so that it may be read again, by anybody."""
        ...

    async def held_by_others(self) -> int:
        """About how many notices other readers hold back now."""
        ...


@runtime_checkable
class RecordStart(Protocol):
    """A stream that can be read from a certain record on. Raises as StreamSource does."""

    async def cursor_at(self, shard: ShardId, sequence_number: str) -> Cursor:
        """A read token for the record with this sequence number, or for the first record behind it.

        Raises PositionTrimmed if the source refuses the number, because it removed the record or never had it.
        """
        ...


@runtime_checkable
class StoreVersion(Protocol):
    """A read-only view of a store whose tables have versions. Raises as MappingStore does."""

    async def versions(self) -> tuple[int, int]:
        """The version that is there, 0 if there are no tables, and the one that this poller needs."""
        ...
