"""Owns the Protocols that only operations need. The rules of `poller.ports` hold for them, too."""

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from poller.domain.invocations import StoredNotice
from poller.domain.records import Message


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

    async def held_by_others(self) -> int:
        """About how many notices other readers hold back now."""
        ...
