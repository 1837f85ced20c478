"""Owns the records that a redrive has read last, so that the notices of neighbouring batches are served by one read.

A shard takes five reads in a second, from all readers together (aws-behaviour#read-limits). A read of each batch by itself would take them from the
mapping that runs, since one page has the records of many batches.
"""

from collections import OrderedDict
from collections.abc import Sequence

from poller.domain.records import Record, ShardId

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

    def between(self, shard: ShardId, first: int, last: int) -> Sequence[Record] | None:
        """All records from one sequence number to another; None if the page does not reach so far."""
        page = self._pages.get(shard)
        if not page or not int(page[0].sequence_number) <= first or not last <= int(page[-1].sequence_number):
            return None
        return [each for each in page if first <= int(each.sequence_number) <= last]
