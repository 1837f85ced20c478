"""Owns since when lanes are blocked, and why. The time is kept over restarts, moves of the lease and changes of the mapping.

A lane is blocked by the first record of its batch. By that record the next run knows which lane is blocked, also when the mapping
has another number of lanes or another batch size by then. A call that closes a window has no record.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import assert_never

from poller.domain.invocations import FunctionError
from poller.domain.records import Epoch
from poller.domain.streams.places import begin_of, name_of
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Verdict
from poller.rules.streams.attempts import BatchPart

CLOSING = ""
"""Stands for the first record of a call that closes a window."""

type BlockedMemo = tuple[str, int]
"""The first record's name (see `places`), and since when it blocks its lane, in epoch seconds."""


FAILED_BEFORE = "it failed before this worker took the shard, and is tried again"


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockedReason:
    """Why a lane is blocked, for its status. `first` is the sequence number of the record that blocks it."""

    first: str
    since: Epoch
    error: str = ""
    next_try: Epoch | None = None
    cause: FunctionError | None = None


class BlockedSince:
    """The blocked lanes of a shard."""

    def __init__(self, memo: Iterable[BlockedMemo]) -> None:
        self._before = {first: Epoch(since) for first, since in memo}
        self._now: dict[int, BlockedReason] = {}

    def reason(self, lane: int) -> BlockedReason | None:
        """Since when the lane is blocked, and why; None when it is not."""
        return self._now.get(lane)

    def of(self, lane: int) -> Epoch | None:
        """Since when the lane is blocked; None when it is not."""
        found = self._now.get(lane)
        return found.since if found is not None else None

    def begin(self, lane: int, first: str) -> Epoch | None:
        """Says that the lane begins a batch with this record. Returns since when the record blocks the lane, if an earlier run says so."""
        if not self._before:
            return None
        since = self._before.pop(first, None)
        if since is not None:
            self._now[lane] = BlockedReason(first=first, since=since, error=FAILED_BEFORE)
        self._before.pop(CLOSING, None)
        return since

    def block(
        self,
        lane: int,
        first: str,
        now: Epoch,
        *,
        error: str = "",
        next_try: Epoch | None = None,
        cause: FunctionError | None = None,
    ) -> bool:
        """Says that the batch failed that begins with this record. Returns whether the lane was not blocked before."""
        since = self.of(lane)
        self._now[lane] = BlockedReason(
            first=first,
            since=now if since is None else since,
            error=error,
            next_try=next_try,
            cause=cause,
        )
        return since is None

    def due(self, lane: int, next_try: Epoch) -> None:
        """Says when the lane's batch is tried next, after somebody changed that."""
        found = self._now.get(lane)
        if found is not None:
            self._now[lane] = replace(found, next_try=next_try)

    def free(self, lane: int) -> bool:
        """Says that the lane is not blocked any more. Returns whether it was blocked."""
        return self._now.pop(lane, None) is not None

    def memo(self, settled: int) -> tuple[BlockedMemo, ...]:
        """What the next run must know. A record in the places that end at `settled` or before blocks nothing."""
        if not self._now and not self._before:
            return ()
        self._before = {
            first: since
            for first, since in self._before.items()
            if first == CLOSING or begin_of(first) > settled
        }
        found = [*self._before.items(), *((each.first, each.since) for each in self._now.values())]
        return tuple(sorted((first, int(since)) for first, since in found))


def first_of(part: BatchPart) -> str:
    """The name of the part's first record; CLOSING if it has none."""
    return name_of(part.entries[0].record.sequence_number) if part.entries else CLOSING


def error_of(verdict: Verdict) -> str | None:
    """The error that blocks the lane after this verdict; None when the lane goes on."""
    match verdict:
        case Rejected(error=error) | Deferred(error=error):
            return error
        case Partial(failed) if min(failed) == 0:
            return "the function reported the first record of its batch"
        case Accepted() | Partial():
            return None
        case _:
            assert_never(verdict)


def cause_of(verdict: Verdict) -> FunctionError | None:
    """The function's own error, if it returned one."""
    return verdict.cause if isinstance(verdict, Rejected) else None
