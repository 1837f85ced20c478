"""Owns the records that a redrive has read last, so that the notices of neighbouring batches are served by one read.

A shard takes five reads in a second, from all readers together (aws-behaviour#read-limits). A read of each batch by itself would take them from the
mapping that runs, since one page has the records of many batches.
"""

from collections import OrderedDict
from collections.abc import Sequence

from poller.domain.records import Record, ShardId
from poller.domain.streams.places import begin_of, end_of
from poller.rules.streams.operations.notice_reading import StreamNotice

SHARDS_MAX = 4
RECORDS_MAX = 1_000
"""A page has up to 10 MB, and one page of each of the last shards is kept."""


class HeldRecords:
    """The last page of each of a few shards."""

    def __init__(self) -> None:
        self._pages: OrderedDict[ShardId, Sequence[Record]] = OrderedDict()

    def keep(self, shard: ShardId, page: Sequence[Record]) -> None:
        """Keeps a page of neighbouring records instead of the page of this shard that was kept before."""
        self._pages[shard] = page[-RECORDS_MAX:]
        self._pages.move_to_end(shard)
        while len(self._pages) > SHARDS_MAX:
            self._pages.popitem(last=False)

    def of(self, notice: StreamNotice) -> Sequence[Record] | None:
        """All records in the range of a notice; None if the page of its shard does not reach so far."""
        page = self._pages.get(notice.shard)
        if not page or begin_of(notice.first) < begin_of(page[0].sequence_number):
            return None
        if end_of(page[-1].sequence_number) < end_of(notice.last):
            return None
        return [each for each in page if notice.has(each.sequence_number)]
