"""Owns the source of a replay: a stream that ends where the range of the replay ends, read at a rate if there is one."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from math import floor

from poller.domain.errors import ServiceUnavailable
from poller.domain.records import Cursor, Epoch, Monotonic, Page, Position, Shard, ShardId
from poller.memory.answers import spare_room
from poller.ports import Clock, CreationTime, StreamSource, StreamStatus
from poller.rules.replays.bounds import bounded
from poller.rules.replays.counting import UNDATED

OVER = "the replay is over"
AT_ONCE_S = 0.1
"""Who waits longer for its turn keeps no room in memory meanwhile."""


class ReplayPace:
    """How fast this worker reads: its share of `records_per_s` (None: no limit). `share` is from above 0 to 1."""

    def __init__(self, records_per_s: float | None, share: Callable[[], float], clock: Clock) -> None:
        self._records_per_s = records_per_s
        self._share = share
        self._clock = clock
        self._free = Monotonic(0.0)
        """When the next turn begins."""

    def records_max(self, wanted: int) -> int:
        """How many records a page may have: those of a second, one at least."""
        if self._records_per_s is None:
            return wanted
        return min(wanted, max(1, floor(self._records_per_s * self._share())))

    async def turn(self, records: int) -> float:
        """Returns when so many records may be read, with the seconds that each of them takes. Turns come one after the other."""
        if self._records_per_s is None:
            return 0.0
        now = self._clock.monotonic()
        begin, each_s = max(self._free, now), 1.0 / (self._records_per_s * self._share())
        self._free = Monotonic(begin + records * each_s)
        if begin - now > AT_ONCE_S:
            # Readers in line would keep all the memory that the mappings of the day need.
            spare_room()
        try:
            await asyncio.sleep(begin - now)
        except BaseException:
            self.give_back(records, each_s)
            raise
        return each_s

    def give_back(self, records: int, each_s: float) -> None:
        """So many of the records were not there."""
        self._free = Monotonic(self._free - records * each_s)


class BoundedSource:
    """A StreamSource without the records that arrived after `until`. A shard ends before the first of them.

    `is_open` asks the store whether the replay is not over. A worker that was stopped for long would otherwise list the shards after
    the replay was removed from the store, and begin it again. Records without a time of arrival are counted in `counts`.
    """

    def __init__(
        self,
        source: StreamSource,
        *,
        until: Epoch,
        pace: ReplayPace,
        clock: Clock,
        is_open: Callable[[], Awaitable[bool]],
        counts: Counter[str],
    ) -> None:
        self.kept_s: float | None = None
        """How long the source keeps records, as it last said."""
        self._source = source
        self._until = until
        self._pace = pace
        self._clock = clock
        self._is_open = is_open
        self._counts = counts
        self._empty: dict[ShardId, int] = {}
        self._arrived: dict[ShardId, Epoch] = {}

    @property
    def at(self) -> Epoch | None:
        """When the last record arrived of the shard that is furthest behind; None while no shard has had dated records."""
        return min(self._arrived.values(), default=None)

    @property
    def over(self) -> str:
        """Why no more records are written, as the source says."""
        return self._source.over if isinstance(self._source, StreamStatus) else ""

    async def created(self) -> Epoch | None:
        """When the stream was created, as the source says."""
        return await self._source.created() if isinstance(self._source, CreationTime) else None

    async def shards(self) -> Sequence[Shard]:
        """The shards of the stream. Raises ServiceUnavailable if the replay is over."""
        if not await self._is_open():
            raise ServiceUnavailable(OVER)
        return await self._source.shards()

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """As the stream gives it."""
        self._empty.pop(shard, None)
        return await self._source.cursor(shard, position)

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """The next page, up to the end of the range."""
        count = self._pace.records_max(records_max)
        each_s = await self._pace.turn(count)
        asked, read = self._clock.now(), 0
        try:
            page = await self._source.read(shard, cursor, records_max=count)
            read = len(page.records)
        finally:
            self._pace.give_back(count - read, each_s)
        found = bounded(page, until=self._until, now=asked, empty=self._empty.get(shard, 0))
        self._empty[shard] = found.empty
        dated = [record.arrived for record in found.page.records if record.dated]
        if dated:
            self._arrived[shard] = dated[-1]
        if len(dated) < len(found.page.records):
            self._counts[UNDATED] += len(found.page.records) - len(dated)
        return found.page

    async def retention_s(self) -> float | None:
        """How long the source keeps records."""
        self.kept_s = await self._source.retention_s()
        return self.kept_s

    def leave(self, shard: ShardId) -> None:
        """The shard is not read here any more."""
        self._arrived.pop(shard, None)
        self._empty.pop(shard, None)
