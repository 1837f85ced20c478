"""Records that are settled are out of memory, also while the reader waits for the next ones."""

import asyncio
import gc
import weakref
from dataclasses import dataclass, field, replace

from poller.domain.records import Cursor, Page, Record, ShardId
from poller.runtime.stopping import Stop
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import FakeFunction, FakeStream, records, stream_parts
from tests.runtime.streams.test_stream_mapping import run_mapping


class Kept(list[Record]):
    """The records of one page, of which one can know whether somebody has them."""


@dataclass
class WatchedStream(FakeStream):
    """A stream that does not answer the read behind a page with records."""

    pages: list[weakref.ref[Kept]] = field(default_factory=list)

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """As the fake."""
        if self.pages:
            await asyncio.Event().wait()
        page = await super().read(shard, cursor, records_max=records_max)
        if not page.records:
            return page
        kept = Kept(page.records)
        self.pages.append(weakref.ref(kept))
        return replace(page, records=kept)


def test_a_page_is_gone_when_its_records_are_settled() -> None:
    stream, function = WatchedStream(), FakeFunction()
    stream.put(*records(1, 2, 3))
    left: list[Kept | None] = []

    async def look(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(2)
        gc.collect()
        left.extend(each() for each in stream.pages)

    run_mapping(lambda: stream_parts(stream, function), for_s=5, during=look)
    assert function.calls == [[1, 2, 3]]
    assert left == [None]
