"""Owns how a few pages of a shard are read for a peek. The number of reads, their bytes and the time are bounded."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from poller.domain.errors import RecordUnreadable
from poller.domain.records import Cursor, KinesisRecord, Monotonic, Page, Record, ShardId
from poller.ports import Clock, StreamSource

READS_MAX = 5
"""Reads of one peek. A shard allows five each second, and the mappings that process it need them."""
READ_S_MAX = 4.0
"""No read begins later than this. What was found until then is the answer."""
BYTES_MAX = 16 * 1024 * 1024
"""No read begins when records of this size were read. One page has 10 MiB at most."""
EMPTY_READS_MAX = 2
"""After so many empty pages a shard counts as read to its end, if the source does not say how far behind they are."""


@dataclass(slots=True)
class ShardPages:
    """What a few reads found."""

    records: list[Record] = field(default_factory=list)
    behind_ms: int | None = None
    caught_up: bool = False
    """Whether there was nothing behind the records."""
    ended: bool = False
    """Whether the shard is closed and these are its last records."""
    unreadable: str = ""
    """Why the next record cannot be read; empty if it can."""


async def read_pages(
    source: StreamSource,
    shard: ShardId,
    cursor: Cursor,
    *,
    records_max: int,
    enough: Callable[[Sequence[Record]], bool],
    clock: Clock,
) -> ShardPages:
    """Reads from `cursor` on until there is enough, or nothing more, or a limit is reached. Raises what the source raises."""
    found = ShardPages()
    ends = Monotonic(clock.monotonic() + READ_S_MAX)
    empty = read_bytes = 0
    for _ in range(READS_MAX):
        try:
            page = await source.read(shard, cursor, records_max=records_max)
        except RecordUnreadable as error:
            found.unreadable = error.reason
            break
        found.records += page.records
        found.behind_ms = page.behind_ms
        read_bytes += sum(map(_bytes, page.records))
        empty = 0 if page.records else empty + 1
        if page.cursor is None:
            found.ended = found.caught_up = True
            break
        cursor = page.cursor
        found.caught_up = _caught_up(page, empty, records_max=records_max)
        if found.caught_up or enough(found.records) or read_bytes >= BYTES_MAX or clock.monotonic() >= ends:
            break
    return found


def _caught_up(page: Page, empty: int, *, records_max: int) -> bool:
    """Whether nothing is behind a page. `empty` counts the empty pages in a row. Some services always say that nothing is behind."""
    if page.behind_ms is None:
        return empty >= EMPTY_READS_MAX
    return page.behind_ms == 0 and len(page.records) < records_max


def _bytes(record: Record) -> int:
    if isinstance(record, KinesisRecord):
        return len(record.data)
    change = record.change
    return len(change.keys) + len(change.new_image) + len(change.old_image)
