"""Owns what an earlier run of a shard left unfinished, as far as its checkpoint remembers it.

A run that ends, for whatever reason, leaves two things behind its position. Some records there are settled already: they are left
out when they are read again. And a lane may have had a batch that was split or has failed: it is put together again from the same
records, in the same parts, with the same counts of failures. Its lane begins nothing else before all of it has been read again.

The batches count only while the mapping has as many lanes as then, because another number spreads the keys in another way. The
settled records count always.
"""

from poller.domain.records import Monotonic, Position
from poller.rules.streams.attempts import BatchState, NewId, resume
from poller.rules.streams.batching import Buffer
from poller.rules.streams.checkpoint_memo import Memo, PartMemo
from poller.rules.streams.watermark import SettledSpans, Span


class EarlierRun:
    """The settled records and the unfinished batches of the run before."""

    def __init__(self, memo: Memo, *, lanes: int) -> None:
        self.remembers_settled = bool(memo.beyond)
        """Whether the checkpoint that this run began with had settled records behind its position."""
        self._settled = SettledSpans([(int(first), int(last)) for first, last in memo.beyond])
        same_lanes = memo.lane_count == lanes
        self._batches = {lane: parts for lane, parts in memo.lanes.items() if parts} if same_lanes else {}

    @property
    def has_settled(self) -> bool:
        """Whether a record that is read next may be settled already."""
        return bool(self._settled)

    def settled(self, sequence_number: str) -> bool:
        """Whether the record is settled already. Sequence numbers must come in ascending order."""
        return self._settled.covers(sequence_number)

    def settled_behind(self, newest: int) -> tuple[Span, ...]:
        """The settled records that lie behind the sequence number `newest`, up to which this run has read."""
        return self._settled.left(newest)

    def parts(self, lane: int) -> tuple[PartMemo, ...]:
        """The parts of the lane's batch; empty when there is none, or when it was put together again."""
        return self._batches.get(lane, ())

    def unread(self, lane: int, read_to: Position | None) -> bool:
        """Whether the lane has a batch that is not read again up to its last record, which may be filtered or gone now.

        `read_to`: behind the last record that was read; None at the end of the shard.
        """
        parts = self._batches.get(lane)
        return parts is not None and read_to is not None and read_to < Position.after(parts[-1].last)

    def restore(self, lane: int, buffer: Buffer, *, new_id: NewId, now: Monotonic) -> BatchState | None:
        """Puts the lane's batch together again; None when there is none, or nothing of it is left. All of it must be read."""
        memos = self._batches.pop(lane, ())
        parts = [(buffer.take_through(int(memo.last)), memo.failures) for memo in memos]
        return resume(parts, new_id=new_id, now=now)
