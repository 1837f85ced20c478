"""Owns what an earlier run of a shard left unfinished, as far as its checkpoint remembers it.

A run may end at any time, and the next run begins at its last checkpoint. Two things behind that position matter to the next run.
Some records there are settled already: they are skipped when they are read again. A lane may have had a batch that was split or
has failed: it is restored from the same records, in the same parts, with the same counts of failures. The lane begins no other
batch before all of these records have been read again.

The batches are restored only if the mapping has as many lanes as before, because another number spreads the keys in another way.
The settled records are skipped in any case.
"""

from poller.domain.records import Epoch, Monotonic, Position
from poller.domain.streams.places import begin_of, end_of
from poller.rules.streams.attempts import BatchState, NewId, resume
from poller.rules.streams.batching import Buffer
from poller.rules.streams.checkpoint_memo import Memo, PartMemo
from poller.rules.streams.watermark import SettledSpans, Span


class EarlierRun:
    """The settled records and the unfinished batches of the run before."""

    def __init__(self, memo: Memo, *, lanes: int) -> None:
        self.remembers_settled = bool(memo.settled_ahead)
        """Whether the checkpoint at which this run began had settled records behind its position."""
        self._settled = SettledSpans([(begin_of(first), end_of(last)) for first, last in memo.settled_ahead])
        same_lanes = memo.lane_count == lanes
        self._batches = {lane: parts for lane, parts in memo.lanes.items() if parts} if same_lanes else {}

    @property
    def restored(self) -> bool:
        """Whether all its batches are restored. Until then their records are still to be read."""
        return not self._batches

    @property
    def has_settled(self) -> bool:
        """Whether records that are read from now on may be settled already."""
        return bool(self._settled)

    def settled(self, place: str) -> bool:
        """Whether the record is settled already. Places must come in ascending order."""
        return self._settled.covers(place)

    def settled_behind(self, newest: int) -> tuple[Span, ...]:
        """The settled records that lie behind the place that ends at `newest`, up to which this run has read."""
        return self._settled.left(newest)

    def parts(self, lane: int) -> tuple[PartMemo, ...]:
        """The parts of the lane's batch; empty when there is none, or when it was restored."""
        return self._batches.get(lane, ())

    def unread(self, lane: int, read_to: Position | None) -> bool:
        """Whether the lane has a batch whose records are not all read again. Its last record may be filtered or gone now.

        `read_to` is the position behind the last record that was read; None at the end of the shard.
        """
        parts = self._batches.get(lane)
        return parts is not None and read_to is not None and read_to < Position.after(parts[-1].last)

    def all_unread(self, read_to: Position) -> bool:
        """Whether no lane has read all records of its batch again. What the source has removed is not read any more."""
        return all(self.unread(lane, read_to) for lane in self._batches)

    def restore(
        self, lane: int, buffer: Buffer, *, new_id: NewId, now: Monotonic, epoch: Epoch
    ) -> BatchState | None:
        """Restores the lane's batch; None when there is none, or no record of it is left. All its records must be read."""
        memos = self._batches.pop(lane, ())
        parts = [(buffer.take_through(end_of(memo.last)), memo.failures, Epoch(memo.since)) for memo in memos]
        return resume(parts, new_id=new_id, now=now, epoch=epoch)
