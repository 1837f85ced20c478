"""A dry run of a stream that can push its records: nothing is made, and nothing is taken from a daemon."""

import asyncio
from dataclasses import dataclass, field

from poller.commands.dry_run.polled_source import polled
from poller.domain.records import Epoch, Position
from poller.ports import CreationTime, PushingSource, StreamStatus
from tests.runtime.fakes import SHARD, FakeStream, records


@dataclass
class PushingStream(FakeStream):
    """A stream that notes when somebody would have its records pushed."""

    made: list[str] = field(default_factory=list)

    def pushing(self) -> "PushingStream":
        self.made.append("pushing")
        return self

    async def event_arn(self) -> str:
        self.made.append("event_arn")
        return ""

    async def created(self) -> Epoch | None:
        return Epoch(5.0)


def test_a_stream_that_pushes_is_polled() -> None:
    stream = PushingStream(over="is being deleted", kept_s=60.0)
    stream.put(*records(1, 2))
    source = polled(stream)

    async def look() -> None:
        assert not isinstance(source, PushingSource)
        assert isinstance(source, StreamStatus)
        assert isinstance(source, CreationTime)
        assert (source.over, await source.created()) == ("is being deleted", 5.0)
        assert [each.shard_id for each in await source.shards()] == [SHARD]
        assert await source.retention_s() == 60.0
        page = await source.read(SHARD, await source.cursor(SHARD, Position.horizon()), records_max=10)
        assert [each.sequence_number for each in page.records] == ["1", "2"]

    asyncio.run(look())
    assert stream.made == []


def test_another_stream_is_as_it_is() -> None:
    stream = FakeStream()
    assert polled(stream) is stream
