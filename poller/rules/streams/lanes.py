"""Owns a shard's lanes: which lane a record belongs to, what a lane holds, and the commands for it (aws-behaviour#parallel-lanes)."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import replace
from dataclasses import dataclass
from math import ceil
from typing import NamedTuple
from zlib import crc32

import msgspec

from poller.domain.invocations import Event, Notice
from poller.domain.policies import BatchPolicy
from poller.domain.records import Epoch, Monotonic, Record
from poller.domain.streams.places import end_of, text_of_end
from poller.rules.streams.attempts import BatchPart, BatchState, Discard, Effect, Invoke
from poller.rules.streams.batching import Buffer, Entry
from poller.rules.streams.blocked_since import BlockedReason
from poller.rules.streams.checkpoint_memo import PartMemo

LOOK_AHEAD_BYTES_MAX = 64 * 1024 * 1024
"""Bytes of events that the waiting records of one shard may take while a lane is blocked."""
ENTRY_BYTES = 300
"""What an entry takes beside its record's data, roughly."""
EVENT_COPIES = 2
"""A batch that is called is in memory so many times more: record by record, and as one event."""


def lane_of(key: str, lanes: int) -> int:
    """The lane of a partition key or item key; the same on every machine and in every run."""
    return crc32(key.encode("utf-8", "surrogatepass")) % lanes if lanes > 1 else 0


def lane_of_record(record: Record, lanes: int) -> int:
    """The lane of a record: of its key, or of its sequence number when it has no key."""
    key = record.key
    return lane_of(record.sequence_number if key is None else key, lanes)


class Gaps:
    """Where a shard's lanes lack a record that an earlier run settled out of its turn, before the next entry of the lane is read."""

    def __init__(self, lanes: int) -> None:
        self._lanes = lanes
        self._open: set[int] = set()

    def marked(self, entries: Iterable[Entry], missing: Sequence[tuple[int, Record]]) -> Iterable[Entry]:
        """The entries of a page. The next one of its lane behind a `missing` record is marked; those come with their indices, in order."""
        return self._marked(entries, missing) if missing or self._open else entries

    def _marked(self, entries: Iterable[Entry], missing: Iterable[tuple[int, Record]]) -> Iterator[Entry]:
        todo = deque(missing)
        for entry in entries:
            while todo and todo[0][0] < entry.index:
                self._open.add(lane_of_record(todo.popleft()[1], self._lanes))
            lane = lane_of_record(entry.record, self._lanes)
            yield replace(entry, behind_gap=True) if lane in self._open else entry
            self._open.discard(lane)
        self._open.update(lane_of_record(record, self._lanes) for _, record in todo)


class InvokePart(msgspec.Struct, frozen=True, gc=False):
    """Call the function with this event of a part, then call `answered`."""

    part: BatchPart
    event: Event


@dataclass(frozen=True, slots=True)
class DiscardPart:
    """Deliver the notice, if there is one, then call `discarded`."""

    discard: Discard
    notice: Notice | None


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Wait until the moment at which the batch is tried again. Only a stop or an operator ends the wait sooner."""

    until: Monotonic


class Rest(msgspec.Struct, frozen=True, gc=False):
    """No batch closes now. Call `next` again when a page was accepted or the shard has ended, and at `until` if that is given."""

    until: Monotonic | None


@dataclass(frozen=True, slots=True)
class Hold:
    """The lane is paused. Call `next` again when a page was accepted, or when an operator has done something."""


@dataclass(frozen=True, slots=True)
class Done:
    """The lane has nothing left and will get nothing more, or must not begin anything because of a stop."""


@dataclass(frozen=True, slots=True)
class LaneBlocked:
    """The lane is blocked from now on. `since` is given if an earlier run blocked it at that moment."""

    since: Epoch | None = None


@dataclass(frozen=True, slots=True)
class LaneFreed:
    """The lane is not blocked any more."""


type LaneCommand = InvokePart | DiscardPart | WaitUntil | Rest | Hold | Done
type LaneEffect = Effect | LaneBlocked | LaneFreed
type Sums = dict[int, tuple[tuple[Entry, ...], int]]
"""The bytes of parts, by the identity of their entries. It keeps the entries, so that no others can have the identity meanwhile."""


@dataclass(frozen=True, slots=True)
class LaneView:
    """What a lane's status shows: the part of its batch that is in flight or waits, and why the lane is blocked."""

    part: BatchPart | None
    blocked: BlockedReason | None


class Holding(NamedTuple):
    """What the records of a shard take in memory that are not settled, about, in bytes.

    `starving`: none of them can be settled before more records are read, as those of a batch that an earlier run began.
    """

    size: int
    starving: bool


class LaneState:
    """One lane: the entries that wait, the batch that was taken from them, and the step of it that is being carried out."""

    def __init__(self, policy: BatchPolicy) -> None:
        self.buffer = Buffer(policy)
        self._batch: BatchState | None = None
        self._batch_bytes = 0
        self._sums: Sums = {}
        self._step: Invoke | Discard | None = None
        self._offered: DiscardPart | None = None

    @property
    def batch(self) -> BatchState | None:
        """The part of the batch that is not settled; None between two batches."""
        return self._batch

    @property
    def held_bytes(self) -> int:
        """About how many bytes the lane's entries take in memory, with the event that a call has of its batch.

        Between two batches the next one's event counts already: whoever takes a batch asks nobody for room.
        """
        buffer = self.buffer
        batch = max(self._batch_bytes, EVENT_COPIES * buffer.next_bytes)
        return buffer.encoded_bytes + ENTRY_BYTES * len(buffer) + batch

    @property
    def empty(self) -> bool:
        """Whether no entry waits and no batch is unsettled."""
        return self._batch is None and not self.buffer

    def hold(self, batch: BatchState | None) -> None:
        """Makes this the lane's batch."""
        self._batch, self._step, self._offered = batch, None, None
        self._sums = {} if batch is None else _sums(batch, self._sums)
        self._batch_bytes = 0 if batch is None else _held_bytes(batch, self._sums)

    def adjust(self, batch: BatchState) -> None:
        """Changes when the batch is tried. A notice that was not delivered yet stays the same."""
        self._batch, self._step = batch, None

    def offer(self, step: Discard, notice: Callable[[], Notice | None] | None) -> DiscardPart:
        """The command for a discard, with no notice if that is None. One whose delivery was broken off has the notice that it had."""
        before, self._step = self._offered, step
        if notice is None:
            self._offered = DiscardPart(step, None)
        elif before is None or before.notice is None or not _same(before.discard, step):
            self._offered = DiscardPart(step, notice())
        else:
            self._offered = DiscardPart(step, before.notice)
        return self._offered

    def choose(self, step: Invoke | Discard) -> None:
        """Notes the step that is about to be carried out."""
        self._step = step

    def invoked(self) -> tuple[BatchState, BatchPart]:
        """The batch, and the part of it that was invoked."""
        assert self._batch is not None, "an answer without a batch"
        assert isinstance(self._step, Invoke), "an answer without an invocation"
        return self._batch, self._step.part

    def discarding(self) -> tuple[BatchState, Discard]:
        """The batch, and the discard that was chosen."""
        assert self._batch is not None, "a discard without a batch"
        assert isinstance(self._step, Discard), "a discard that was not chosen"
        return self._batch, self._step

    @property
    def notified(self) -> bool:
        """Whether the discard that was chosen has a notice."""
        return self._offered is not None and self._offered.notice is not None

    def memos(self) -> tuple[PartMemo, ...]:
        """The parts that the checkpoint keeps, if the batch was split or has failed."""
        work = self._batch
        if work is None or (len(work.parts) == 1 and not (work.parts[0].failures or work.parts[0].since)):
            return ()
        return tuple(
            PartMemo(
                text_of_end(end_of(part.entries[-1].record.sequence_number)), part.failures, ceil(part.since)
            )
            for part in work.parts
            if part.entries
        )


def spread(entries: Iterable[Entry], lanes: Sequence[LaneState]) -> None:
    """Puts each entry into its lane."""
    if len(lanes) == 1:
        lanes[0].buffer.extend(entries)
        return
    for entry in entries:
        lanes[lane_of_record(entry.record, len(lanes))].buffer.add(entry)


def look_far(lanes: Sequence[LaneState]) -> bool:
    """Whether as many bytes wait in a shard's lanes as may wait while one is blocked."""
    return sum(lane.buffer.encoded_bytes for lane in lanes) >= LOOK_AHEAD_BYTES_MAX


def _sums(batch: BatchState, known: Sums) -> Sums:
    """The bytes of each part of a batch. A part whose entries were summed before is not summed again.

    A bisect makes parts without end, and nearly all of them wait while the first one is tried.
    """
    sums: Sums = {}
    for part in batch.parts:
        entries = part.entries
        sums[id(entries)] = known.get(id(entries)) or (entries, size_of(entries))
    return sums


def size_of(entries: Iterable[Entry]) -> int:
    """The bytes that entries take in an event."""
    return sum([each.size for each in entries])


def _held_bytes(batch: BatchState, sums: Sums) -> int:
    """About how many bytes a batch takes in memory: its records, and again as an event of its first part."""
    size = EVENT_COPIES * sums[id(batch.parts[0].entries)][1]
    for part in batch.parts:
        size += sums[id(part.entries)][1] + ENTRY_BYTES * len(part.entries)
    return size


def _same(one: Discard, other: Discard) -> bool:
    """Whether two discards are of the same entries, for the same reason, after the same try."""
    same = (one.condition, one.request_id) == (other.condition, other.request_id)
    return same and one.entries == other.entries
