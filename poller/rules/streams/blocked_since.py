"""Owns since when lanes are blocked, which outlives restarts, handovers and changes of the mapping.

A lane is blocked by the first record of its batch. That record tells the next run which lane is meant, whatever
the number of lanes and the size of batches are then. A call that closes a window has no record.
"""

from collections.abc import Iterable

from poller.domain.records import Epoch

CLOSING = ""
"""Stands for the first record of a call that closes a window."""

type BlockedMemo = tuple[str, int]
"""The first record's sequence number, and since when it blocks its lane, in epoch seconds."""


class BlockedSince:
    """The blocked lanes of a shard."""

    def __init__(self, memo: Iterable[BlockedMemo]) -> None:
        self._before = {first: Epoch(since) for first, since in memo}
        self._now: dict[int, tuple[str, Epoch]] = {}

    def of(self, lane: int) -> Epoch | None:
        """Since when the lane is blocked; None when it is not."""
        found = self._now.get(lane)
        return found[1] if found is not None else None

    def begin(self, lane: int, first: str) -> None:
        """The lane begins a batch with this record, which may have blocked it in an earlier run."""
        if not self._before:
            return
        since = self._before.pop(first, None)
        if since is not None:
            self._now[lane] = first, since
        self._before.pop(CLOSING, None)

    def block(self, lane: int, first: str, now: Epoch) -> None:
        """The batch failed that begins with this record."""
        since = self.of(lane)
        self._now[lane] = first, now if since is None else since

    def free(self, lane: int) -> None:
        """The lane goes on."""
        self._now.pop(lane, None)

    def memo(self, settled: int) -> tuple[BlockedMemo, ...]:
        """What the next run has to know; what is at or before the sequence number `settled` blocks nothing."""
        if not self._now and not self._before:
            return ()
        self._before = {
            first: since for first, since in self._before.items() if int(first or settled + 1) > settled
        }
        found = [*self._before.items(), *self._now.values()]
        return tuple(sorted((first, int(since)) for first, since in found))
