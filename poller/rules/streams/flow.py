"""Owns one shard's records between the source and its lanes: filtered, measured, spread, tracked.

Pure state: the shard's reader puts pages in, its lanes take batches out and settle them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import assert_never

import msgspec

from poller.domain.invocations import EncodedEvent, Event
from poller.domain.policies import BatchPolicy
from poller.domain.records import SHARD_END, Epoch, Monotonic, Position, Record, ShardId
from poller.domain.rows import Checkpoint
from poller.rules.events import RecordEncoder, RecordsEvent, WindowFacts, build_windowed
from poller.rules.responses import Accepted, Deferred, Partial, Rejected, Verdict
from poller.rules.streams import checkpoint_memo as memos
from poller.rules.streams.attempts import BatchPart, BatchState, NewId, finish, interpose, resume, start
from poller.rules.streams.batching import Buffer, Entry
from poller.rules.streams.blocked_since import CLOSING, BlockedSince
from poller.rules.streams.checkpoint_memo import MEMO_BYTES_MAX, Memo, PartMemo
from poller.rules.streams.lanes import lane_of_record
from poller.rules.streams.watermark import SettledSpans, Span, Watermark
from poller.rules.streams.windows import Closing, Windows

LOOK_AHEAD_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of events that one shard's records may come to while some lane is blocked."""
AS_OF_STEP_S = 600
"""How finely a checkpoint tells the moment up to which everything is settled; an idle shard is written that often."""


@dataclass(frozen=True, slots=True)
class PageIntake:
    """What became of a page: records taken in, records that no filter matched, records that need no delivery.

    `skipped` were settled by an earlier run, `repeated` had been read before: a source that goes back is not believed.
    """

    taken: int
    filtered: int
    skipped: int
    repeated: int


@dataclass(frozen=True, slots=True)
class Windowing:
    """What a mapping with tumbling windows adds: their length, and what their events name."""

    length_s: int
    shard: ShardId
    source_arn: str


class ShardFlow:
    """The state of one shard while it is read here."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        batch: BatchPolicy,
        lanes: int,
        look_ahead_records_max: int,
        encoder: RecordEncoder,
        windowing: Windowing | None = None,
    ) -> None:
        assert windowing is None or lanes == 1, "windows need one lane"
        memo = memos.read(checkpoint.memo)
        same_lanes = memo.lane_count == lanes
        self._watermark = Watermark(checkpoint.position)
        self._settled_before = SettledSpans([(int(first), int(last)) for first, last in memo.beyond])
        self._inherited = bool(memo.beyond)
        self._resumed = dict(memo.lanes) if same_lanes else {}
        self._buffers = [Buffer(batch) for _ in range(lanes)]
        self._work: list[BatchState | None] = [None] * lanes
        self._look_ahead_records_max = look_ahead_records_max
        self._encoder = encoder
        self._windowing = windowing
        self._windows = Windows(windowing.length_s, memo.window) if windowing is not None else None
        self._blocked = BlockedSince(memo.blocked)
        self._caught_up_at = Epoch(0.0)
        self._as_of = Epoch(memo.as_of)
        self._read_to = checkpoint.position
        self._newest = checkpoint.position
        self._ended = checkpoint.position == SHARD_END

    @property
    def position(self) -> Position:
        """The safe position."""
        return self._watermark.position

    @property
    def read_to(self) -> Position:
        """Behind the last record that was read."""
        return self._read_to

    @property
    def as_of(self) -> Epoch | None:
        """A moment, never too late: what had arrived by then is settled. None when that is not known."""
        return self._as_of or None

    @property
    def lanes(self) -> range:
        """The lanes' indices."""
        return range(len(self._buffers))

    @property
    def hungry(self) -> bool:
        """Whether another page has room: some lane could use it, and not too much is held for the others."""
        if self._ended:
            return False
        if any(self._awaits(lane) for lane in self.lanes):
            return True
        wanted = not all(buffer.full for buffer in self._buffers)
        if len(self._buffers) == 1:
            return wanted
        held = sum(buffer.encoded_bytes for buffer in self._buffers)
        return wanted and self._watermark.span < self._look_ahead_records_max and held < LOOK_AHEAD_BYTES_MAX

    @property
    def done(self) -> bool:
        """Whether the shard was read and settled to its end."""
        return self._watermark.position == SHARD_END

    @property
    def read_out(self) -> bool:
        """Whether the shard was read to its end."""
        return self._ended

    def restart_at(self, position: Position) -> None:
        """Reading goes on at another place because the source lost what was between; only forward."""
        self._read_to = position

    def accept(
        self,
        records: Sequence[Record],
        *,
        caught_up: bool,
        asked: Epoch,
        passing: Sequence[bool] | None = None,
    ) -> PageIntake:
        """Takes in a page's records, in order.

        `caught_up`: the source had nothing behind them when it was `asked`. `passing`: which of them the mapping's filters
        let through; None for all.
        """
        self._caught_up_at = asked if caught_up else Epoch(0.0)
        fresh, passing = self._fresh(records, passing)
        first = self._watermark.track_all([record.sequence_number for record in fresh])
        settled: list[int] = []
        indices, wanted, skipped = self._wanted(fresh, passing, first, settled)
        self._spread(indices, wanted, apart=len(self._buffers) > 1 or len(wanted) < len(fresh))
        taken = len(wanted)
        if settled:
            self._watermark.resolve(settled)
        if fresh:
            self._read_to = self._newest = Position.after(fresh[-1].sequence_number)
        if not self._watermark.span and (caught_up or fresh):
            self._settled_as_of(asked if caught_up else fresh[-1].arrived)
        return PageIntake(taken, len(fresh) - taken - skipped, skipped, len(records) - len(fresh))

    def _wanted(
        self, fresh: Sequence[Record], passing: Sequence[bool] | None, first: int, settled: list[int]
    ) -> tuple[Sequence[int], Sequence[Record], int]:
        """The records that are to be delivered, with their indices, and how many an earlier run settled.

        Adds the indices of all others to `settled`.
        """
        if not self._settled_before and passing is None:
            return range(first, first + len(fresh)), fresh, 0
        indices: list[int] = []
        wanted: list[Record] = []
        skipped = 0
        for index, record in enumerate(fresh, first):
            if self._settled_before and self._settled_before.covers(record.sequence_number):
                skipped += 1
                settled.append(index)
            elif passing is None or passing[index - first]:
                indices.append(index)
                wanted.append(record)
            else:
                settled.append(index)
        return indices, wanted, skipped

    def _spread(self, indices: Iterable[int], wanted: Sequence[Record], *, apart: bool) -> None:
        """Puts records into the buffers of their lanes.

        `apart`: few of an answer's records may wait here for long, and must not keep all of it.
        """
        records = [record.detached() for record in wanted] if apart else wanted
        entries = map(Entry, indices, records, self._encoder.sizes(records))
        if len(self._buffers) == 1:
            self._buffers[0].extend(entries)
            return
        for entry in entries:
            self._buffers[lane_of_record(entry.record, len(self._buffers))].add(entry)

    def end(self) -> None:
        """The shard has no more records."""
        self._ended = True
        self._end_if_settled()

    def begin(self, lane: int, *, new_id: NewId, now: Monotonic, epoch: Epoch) -> BatchState | None:
        """The lane's next batch if one closes now. The lane must be idle."""
        assert self._work[lane] is None, "a lane with two batches"
        work = self._resume(lane, new_id=new_id, now=now) if lane in self._resumed else None
        if work is None and lane not in self._resumed:
            work = self._next(lane, new_id=new_id, now=now, epoch=epoch)
        work = self.with_early_end(work, new_id=new_id)
        self._work[lane] = work
        self._enter_window(work)
        if work is not None:
            self._blocked.begin(lane, _first(work))
        return work

    def with_early_end(self, work: BatchState | None, *, new_id: NewId) -> BatchState | None:
        """The work with a closing call in front, if the window's state grew too large (aws-behaviour#window-state-too-large)."""
        windows = self._windows
        if work is None or windows is None or not windows.overgrown or work.parts[0].final:
            return work
        return interpose(work, ends=windows.end, new_id=new_id)

    def replace(self, lane: int, work: BatchState | None) -> None:
        """The lane's batch moved on; None when all of it is settled."""
        self._work[lane] = work
        self._enter_window(work)
        if self._ended:
            self._end_if_settled()

    def answered(self, part: BatchPart, verdict: Verdict) -> None:
        """The function answered for this part; its window takes the returned state, or closes."""
        if self._windows is None:
            return
        match verdict:
            case Accepted(state) if not part.final:
                self._windows.answered(state)
            case Accepted():
                self._windows.close()
            case Partial(failed, _, state) if min(failed) > 0:
                self._windows.answered(state)
            case Partial() | Rejected() | Deferred():
                pass
            case _:
                assert_never(verdict)

    def block(self, lane: int, now: Epoch) -> None:
        """The lane's batch has failed."""
        work = self._work[lane]
        assert work is not None, "a failure of nothing"
        self._blocked.block(lane, _first(work), now)

    def free(self, lane: int) -> None:
        """The lane's batch got through, or was given up."""
        self._blocked.free(lane)

    def blocked_since(self, lane: int) -> Epoch | None:
        """Since when the lane is blocked, which may be from an earlier run; None when it is not."""
        return self._blocked.of(lane)

    def given_up(self, part: BatchPart) -> None:
        """This part was discarded; a window whose last call failed for good is closed all the same."""
        if self._windows is not None and part.final:
            self._windows.close()

    def event(self, part: BatchPart, entries: Sequence[Entry]) -> Event:
        """The event for these entries of a part."""
        records = [entry.record for entry in entries]
        window = self.window(part)
        if window is None or self._windowing is None:
            return RecordsEvent(self._encoder, records, sum([entry.size for entry in entries]))
        encoded = self._encoder.encode_all(records)
        return EncodedEvent(
            build_windowed(
                encoded, window, shard=self._windowing.shard, source_arn=self._windowing.source_arn
            )
        )

    def window(self, part: BatchPart) -> WindowFacts | None:
        """The window that a part is called in; None without windows."""
        if self._windows is None:
            return None
        return self._windows.facts(final=part.final, early=part.early)

    def resolve(self, entries: Sequence[Entry]) -> None:
        """Settles entries of the lane's batch."""
        self._watermark.resolve(entry.index for entry in entries)
        if entries and self._watermark.passed(entries[-1].index):
            self._settled_as_of(entries[-1].record.arrived)

    def deadline(self, lane: int) -> Monotonic | None:
        """When the lane's batching window runs out."""
        return self._buffers[lane].deadline

    def closes_at(self) -> Epoch | None:
        """When the open tumbling window closes by itself."""
        return self._windows.deadline if self._windows is not None else None

    def finished(self, lane: int) -> bool:
        """Whether the lane has nothing left and will get nothing more."""
        idle = self._ended and self._work[lane] is None and not self._buffers[lane]
        return idle and not (self._windows is not None and self._windows.open)

    def work(self, lane: int) -> BatchState | None:
        """The lane's batch, for those who show it."""
        return self._work[lane]

    def checkpoint(self) -> Checkpoint:
        """What the store should keep of this moment."""
        if self.done:
            return Checkpoint(SHARD_END)
        beyond = self._beyond()
        parts = {lane: memos for lane in self.lanes if (memos := self._part_memos(lane))}
        window = self._windows.memo() if self._windows is not None else None
        as_of = int(self._as_of // AS_OF_STEP_S) * AS_OF_STEP_S
        lanes = len(self._buffers)
        blocked = self._blocked.memo(self.position.sequence)
        memo = msgspec.json.encode(Memo(lanes, as_of, _texts(beyond), parts, window, blocked))
        if window is None and len(memo) > MEMO_BYTES_MAX:
            memo = msgspec.json.encode(Memo(as_of=as_of, blocked=blocked))
        return Checkpoint(self.position, memo)

    def _beyond(self) -> tuple[Span, ...]:
        """What is settled behind the safe position, in this run and, as far as it was not read again, in earlier ones."""
        if len(self._buffers) == 1 and not self._inherited:
            return ()
        return (*self._watermark.beyond(), *self._settled_before.left(self._newest.sequence))

    def _settled_as_of(self, moment: Epoch) -> None:
        self._as_of = max(self._as_of, moment)

    def _enter_window(self, work: BatchState | None) -> None:
        """Opens the window of the records that are about to be delivered, unless one is open.

        The newest record decides: what is left of a batch whose window ended early may begin with late ones.
        """
        if self._windows is None or work is None or self._windows.open:
            return
        arrived = [entry.record.arrived for part in work.parts for entry in part.entries]
        if arrived:
            self._windows.enter(max(arrived))

    def _take(self, lane: int, now: Monotonic) -> tuple[Entry, ...]:
        buffer, windows = self._buffers[lane], self._windows
        first = buffer.first_arrived
        if windows is None or first is None:
            return buffer.take(now, closing=self._ended)
        together = buffer.leading(lambda arrived: windows.belongs(arrived, first))
        closing = self._ended or together < len(buffer)
        return buffer.take(now, closing=closing, records_max=together)

    def _closing(self, windows: Windows, epoch: Epoch) -> Closing | None:
        upcoming = self._buffers[0].first_arrived
        # A source that was caught up before the window's end, and could not be read since, may have more of its records.
        end = windows.end
        caught_up = end is not None and self._caught_up_at >= end
        return windows.closing(upcoming, epoch=epoch, caught_up=caught_up, ended=self._ended)

    def _end_if_settled(self) -> None:
        """With windows, the end counts once the last window is closed: its state must survive until then."""
        if self._windows is None or all(self.finished(lane) for lane in self.lanes):
            self._watermark.end()

    def _fresh(
        self, records: Sequence[Record], passing: Sequence[bool] | None
    ) -> tuple[Sequence[Record], Sequence[bool] | None]:
        """The records behind everything that was read before, nearly always all of them, with what passes of them."""
        if not records or Position.after(records[0].sequence_number) > self._newest:
            return records, passing
        places = [
            place
            for place, record in enumerate(records)
            if Position.after(record.sequence_number) > self._newest
        ]
        kept = None if passing is None else [passing[place] for place in places]
        return [records[place] for place in places], kept

    def _awaits(self, lane: int) -> bool:
        """Whether the lane's batch of an earlier run has not been read again yet; without it the lane cannot go on."""
        return lane in self._resumed and not self._reread(lane)

    def _reread(self, lane: int) -> bool:
        """Whether reading has passed the batch's last record, which may be filtered or gone now."""
        return self._ended or self._read_to >= Position.after(self._resumed[lane][-1].last)

    def _next(self, lane: int, *, new_id: NewId, now: Monotonic, epoch: Epoch) -> BatchState | None:
        if self._windows is not None and (closing := self._closing(self._windows, epoch)):
            return finish(early=closing is Closing.EARLY, ends=self._windows.end, new_id=new_id, now=now)
        entries = self._take(lane, now)
        return start(entries, new_id=new_id, now=now) if entries else None

    def _resume(self, lane: int, *, new_id: NewId, now: Monotonic) -> BatchState | None:
        """Puts together again what an earlier run had at work, once all of it was read; None if nothing of it is left."""
        if not self._reread(lane):
            return None
        memos = self._resumed.pop(lane)
        buffer = self._buffers[lane]
        parts = [(buffer.take_through(int(memo.last)), memo.failures) for memo in memos]
        return resume(parts, new_id=new_id, now=now)

    def _part_memos(self, lane: int) -> tuple[PartMemo, ...]:
        """Parts worth remembering: a batch that was split or has failed."""
        if lane in self._resumed:
            return self._resumed[lane]
        work = self._work[lane]
        if work is None or (len(work.parts) == 1 and not work.parts[0].failures):
            return ()
        return tuple(
            PartMemo(part.entries[-1].record.sequence_number, part.failures)
            for part in work.parts
            if part.entries
        )


def _first(work: BatchState) -> str:
    """The sequence number of the first record at work."""
    entries = work.parts[0].entries
    return entries[0].record.sequence_number if entries else CLOSING


def _texts(spans: Sequence[Span]) -> tuple[tuple[str, str], ...]:
    return tuple((str(first), str(last)) for first, last in spans)
