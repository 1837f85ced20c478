"""Owns the window of a shard: the pages that were read last, kept for the readers that are a little behind.

A window covers a piece of the shard without gaps. Its end moves with each read. Its start moves when pages are dropped, because all
readers have passed them or because they are too large together. A reader whose place is inside takes its records from here. One whose
place is before the start, or beyond the end, needs a window of its own.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

from poller.domain.records import DynamoRecord, KinesisRecord, Position, Rank, Record
from poller.domain.streams.places import end_of

RECORD_BYTES = 300
"""What a record takes beside its data, roughly."""


class WindowPage:
    """What one read has brought: the records between two places. `size` is about how many bytes they take."""

    def __init__(self, start: Position, end: Position, records: Sequence[Record]) -> None:
        self.start = start
        self.end = end
        self.records = records
        self.size = sum(map(size_of, records))

    def first_behind(self, position: Position, records_max: int) -> "WindowPage":
        """The records behind a position in this page, no more than `records_max`, as a page of their own.

        Records that are not in order stay together: what is left for the next page must all be behind this one.
        """
        if position == self.start and len(self.records) <= records_max:
            return self
        if not self._ordered:
            later = [each for each in self.records if Position.after(each.sequence_number) > position]
            return WindowPage(position, self.end, later)
        begin = bisect_right(self.records, position, key=lambda each: Position.after(each.sequence_number))
        found = self.records[begin : begin + records_max]
        whole = begin + len(found) == len(self.records)
        return WindowPage(position, self.end if whole else Position.after(found[-1].sequence_number), found)

    @cached_property
    def _ordered(self) -> bool:
        """Whether each record is behind the one before it."""
        ends = [end_of(each.sequence_number) for each in self.records]
        return all(before < after for before, after in pairwise(ends))


class ReadWindow:
    """A piece of a shard that was read without gaps. `start` and `end` are positions; between them are the pages."""

    def __init__(self, start: Position) -> None:
        self.start = start
        self.end = start
        self.size = 0
        """About how many bytes the pages take."""
        self._pages: deque[WindowPage] = deque()

    def take(self, records: Sequence[Record], *, kept: bool) -> WindowPage | None:
        """Moves the end behind what was read there. `kept`: there are other readers, for whom it is kept as the page that is returned."""
        if not records:
            return None
        end = max(self.end, Position.after(records[-1].sequence_number))
        if not kept:
            self.drop_beyond(0)
            self.start = self.end = end
            return None
        page = WindowPage(self.end, end, records)
        self._pages.append(page)
        self.size += page.size
        self.end = end
        return page

    def covers(self, position: Position) -> bool:
        """Whether everything between a position and the end is here, so that nothing of the shard would be left out."""
        if position == self.start or position == self.end:
            return True
        if position.rank is not Rank.AFTER or not position < self.end:
            return False
        if self.start.rank is Rank.AFTER:
            return position > self.start
        # Records before the first one may be gone, or too old for a start by time. Its reader must find that out from the source.
        return bool(self._pages) and position >= Position.after(self._pages[0].records[0].sequence_number)

    def behind(self, position: Position, records_max: int) -> WindowPage | None:
        """The first records behind a position that is covered, of one page and no more than `records_max`; None at the end."""
        for page in self._pages:
            if position < page.end:
                return page.first_behind(position, records_max)
        return None

    def drop_passed(self, position: Position) -> None:
        """Drops the pages that end at or before a position."""
        while self._pages and self._pages[0].end <= position:
            self._drop()

    def drop_beyond(self, size_max: int) -> None:
        """Drops the oldest pages until the rest takes no more than `size_max` bytes."""
        while self._pages and self.size > size_max:
            self._drop()

    def _drop(self) -> None:
        page = self._pages.popleft()
        self.size -= page.size
        self.start = page.end


def size_of(record: Record) -> int:
    """About how many bytes a record takes in memory."""
    if isinstance(record, KinesisRecord):
        return RECORD_BYTES + len(record.data)
    assert isinstance(record, DynamoRecord)
    change = record.change
    images = change.keys, change.new_image, change.old_image
    return RECORD_BYTES + sum(len(memoryview(each)) for each in images)
