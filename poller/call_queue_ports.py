"""Owns the Protocol that only asynchronous invocation needs. The rules of `poller.ports` hold for it, too."""

from collections.abc import Collection, Sequence
from typing import Protocol, runtime_checkable

from poller.domain.functions.call_notices import CallNotice
from poller.domain.functions.queued_calls import CallBacklog, CallId, CallPlace, QueuedCall
from poller.domain.records import Epoch, WorkerId


class CallListing(Protocol):
    """Asynchronous calls as somebody who looks sees them, whoever owns them. Raises as MappingStore does."""

    async def calls(
        self, function: str, *, calls_max: int, after: CallPlace | None = None
    ) -> Sequence[QueuedCall]:
        """The calls of one function behind a place, the longest due first, with empty payloads and answers."""
        ...

    async def find(self, function: str, call: CallId) -> QueuedCall | None:
        """One call with its payload and answer; None if there is none. Raises ServiceUnavailable if it cannot be read."""
        ...


class CallQueue(CallListing, Protocol):
    """Asynchronous calls that are not over. Raises as MappingStore does, and RowChanged where it says so.

    A call is written by its owner only, at the revision that the owner read or wrote last. A worker that lost a call cannot write it
    any more, since each claim raises the revision.
    """

    async def put(self, call: QueuedCall) -> None:
        """Stores a new call. Nothing changes if a call with its id is stored. It survives the end of the process when this returns."""
        ...

    async def backlogs(self) -> Sequence[CallBacklog]:
        """The functions that have calls, by name. The counts may be a few seconds old."""
        ...

    async def claim(
        self,
        function: str,
        *,
        now: Epoch,
        owner: WorkerId,
        gone: Collection[WorkerId],
        held: Collection[CallId],
        calls_max: int,
    ) -> Sequence[QueuedCall]:
        """Makes `owner` the owner of calls that are due, the longest due first, and returns them as they are stored now.

        Free are calls without an owner, calls of owners among `gone`, and calls of `owner` itself, which an earlier process of the same
        name has left. Calls among `held` are not claimed: `owner` works on them. If an answer is lost, the calls are free for the next claim of `owner`.
        """
        ...

    async def replace(self, call: QueuedCall) -> QueuedCall:
        """Replaces the call at `call.revision`, and returns it with the next revision. Its payload cannot change.

        Raises RowChanged if the stored revision is another, and ResourceMissing if there is no such call. If the answer to a call was
        lost, the same call may be repeated and succeeds.
        """
        ...

    async def remove(self, call: QueuedCall) -> None:
        """Removes the call. Raises RowChanged if the stored revision is another. It is no error if there is none."""
        ...


@runtime_checkable
class CallDestination(Protocol):
    """A destination that takes asynchronous calls that are over. Raises as Destination does."""

    async def send_call(self, notice: CallNotice, *, dead_letter: bool) -> None:
        """Returns when the destination has stored the notice, which may be sent again.

        It gets the notice's document, or with `dead_letter` the payload of the call with the error as attributes.
        """
        ...


@runtime_checkable
class HasCallQueue(Protocol):
    """A store that keeps asynchronous calls. The store of a plug-in need not."""

    @property
    def call_queue(self) -> CallQueue:
        """The calls that are not over, in the same place as everything else that the store keeps."""
        ...
