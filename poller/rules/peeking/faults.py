"""Owns which batches block a shard, as far as its checkpoint says, and which records they have.

Every worker can read the checkpoint, also if another one has the shard. It is as old as the last write, about a second.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from poller.domain.peeking.answers import BatchAtFault
from poller.domain.records import Epoch, Record
from poller.domain.rows import Checkpoint
from poller.domain.streams.places import begin_of, end_of, is_name
from poller.rules.streams import checkpoint_memo
from poller.rules.streams.blocked_since import CLOSING
from poller.rules.streams.checkpoint_memo import PartMemo
from poller.rules.streams.lanes import lane_of_record


@dataclass(frozen=True, slots=True)
class StoredFaults:
    """What a checkpoint says of blocked lanes: the first record of each batch with the time, and the parts of each lane's batch."""

    blocked: tuple[tuple[str, Epoch], ...]
    lanes: int
    parts: dict[int, tuple[PartMemo, ...]]

    @property
    def first(self) -> str | None:
        """The first record of the batch that comes first in the shard; None if nothing is blocked. Empty for the end of a window."""
        return self.blocked[0][0] if self.blocked else None

    def batch(self, start: Record | None) -> BatchAtFault:
        """The batch that comes first. `start` is its first record; None if the source no longer has it, or if it has none."""
        first, since = self.blocked[0]
        lane = None if start is None else lane_of_record(start, self.lanes)
        if self.lanes == 1 and first != CLOSING:
            lane = 0
        part = next(iter(self.parts.get(lane, ())), None) if lane is not None else None
        if part is not None and first != CLOSING and end_of(part.last) < begin_of(first):
            part = None
        return BatchAtFault(
            first=first,
            last="" if part is None else part.last,
            lane=lane,
            failures=0 if part is None else part.failures,
            since=since,
        )

    def others(self) -> tuple[str, ...]:
        """The first records of the other batches that block lanes."""
        return tuple(first for first, _ in self.blocked[1:] if first != CLOSING)

    def of_batch(self, records: Sequence[Record], batch: BatchAtFault) -> list[Record]:
        """Those of `records` that are of the batch's lane and not behind its end."""
        return [
            record
            for record in records
            if lane_of_record(record, self.lanes) == batch.lane and not self.is_behind(record, batch)
        ]

    def is_behind(self, record: Record, batch: BatchAtFault) -> bool:
        """Whether a record is behind the last one of the batch."""
        return batch.last != "" and begin_of(record.sequence_number) > end_of(batch.last)


def stored_faults(checkpoint: Checkpoint) -> StoredFaults:
    """What a checkpoint says of blocked lanes."""
    memo = checkpoint_memo.read(checkpoint.memo)
    blocked = [(first, Epoch(float(since))) for first, since in memo.blocked if _is_first(first)]
    return StoredFaults(
        tuple(sorted(blocked, key=lambda each: (each[0] == CLOSING, begin_of(each[0] or "0")))),
        max(1, memo.lane_count),
        dict(memo.lanes),
    )


def _is_first(text: str) -> bool:
    return text == CLOSING or is_name(text)
