"""Owns the queue of asynchronous calls in memory, which ends with the process."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from heapq import nsmallest

from adapters.stores import conflicts
from adapters.stores.call_backlogs import backlog_of, call_share
from adapters.stores.stored_calls import checked, is_free
from poller.domain.functions.queued_calls import CallBacklog, CallId, CallPlace, QueuedCall
from poller.domain.records import Epoch, WorkerId


class MemoryCallQueue:
    """A CallQueue in a dictionary. No method awaits, so each is atomic."""

    def __init__(self) -> None:
        self._calls: dict[CallId, QueuedCall] = {}

    async def put(self, call: QueuedCall) -> None:
        """Stores a new call unless there is one with its id."""
        checked(call)
        self._calls.setdefault(call.call, call)

    async def backlogs(self) -> Sequence[CallBacklog]:
        """Returns the functions that have calls, by name."""
        functions = sorted({each.function for each in self._calls.values()})
        return [_backlog(function, self._of(function)) for function in functions]

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
        """Makes `owner` the owner of free calls that are due, the longest due first; returns them as they are stored now."""
        free = (
            each
            for each in self._of(function)
            if each.due <= now and is_free(each.call, each.owner, owner=owner, gone=gone, held=held)
        )
        return [self._keep(each.claimed(owner)) for each in nsmallest(calls_max, free, key=_order)]

    async def replace(self, call: QueuedCall) -> QueuedCall:
        """Replaces the call at its revision, without its payload; raises ResourceMissing or RowChanged otherwise."""
        checked(call)
        stored = self._stored(call)
        if stored is None or stored.revision != call.revision:
            return conflicts.replaced_before(stored, call)
        written = conflicts.next_call(call)
        self._keep(_with_payload(written, stored.payload))
        return written

    async def remove(self, call: QueuedCall) -> None:
        """Removes the call; raises RowChanged if its revision is another; no error if there is none."""
        stored = self._stored(call)
        if stored is None:
            return
        if stored.revision != call.revision:
            raise conflicts.changed_since(stored.revision, call)
        del self._calls[call.call]

    async def calls(
        self, function: str, *, calls_max: int, after: CallPlace | None = None
    ) -> Sequence[QueuedCall]:
        """Returns the calls of a function behind a place without payloads and answers, the longest due first."""
        behind = (each for each in self._of(function) if after is None or after.before(each))
        return [conflicts.without_bytes(each) for each in nsmallest(calls_max, behind, key=_order)]

    async def find(self, function: str, call: CallId) -> QueuedCall | None:
        """Returns one call; None if there is none."""
        found = self._calls.get(call)
        return found if found is not None and found.function == function else None

    def _of(self, function: str) -> Iterator[QueuedCall]:
        return (each for each in self._calls.values() if each.function == function)

    def _stored(self, call: QueuedCall) -> QueuedCall | None:
        stored = self._calls.get(call.call)
        return stored if stored is not None and stored.function == call.function else None

    def _keep(self, call: QueuedCall) -> QueuedCall:
        self._calls[call.call] = call
        return call


def _with_payload(call: QueuedCall, payload: bytes) -> QueuedCall:
    return replace(call, payload=payload)


def _order(call: QueuedCall) -> tuple[Epoch, CallId]:
    return call.due, call.call


def _backlog(function: str, calls: Iterable[QueuedCall]) -> CallBacklog:
    shares = [call_share(each.owner, 1, each.accepted, each.due) for each in calls]
    return backlog_of(function, shares)
