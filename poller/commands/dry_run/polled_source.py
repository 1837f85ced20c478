"""Owns a stream as a dry run reads it: nothing pushes its records, so that no consumer is registered, and none is taken from a daemon."""

from collections.abc import Sequence

from poller.domain.records import Cursor, Epoch, Page, Position, Shard, ShardId
from poller.ports import CreationTime, PushingSource, StreamSource, StreamStatus


def polled(source: StreamSource) -> StreamSource:
    """The stream, which nothing pushes from."""
    return PolledOnly(source) if isinstance(source, PushingSource) else source


class PolledOnly:
    """StreamSource, CreationTime and StreamStatus over a stream that can also push its records."""

    def __init__(self, source: StreamSource) -> None:
        self._source = source

    @property
    def over(self) -> str:
        """As the stream says."""
        return self._source.over if isinstance(self._source, StreamStatus) else ""

    async def shards(self) -> Sequence[Shard]:
        """As the stream lists them."""
        return await self._source.shards()

    async def cursor(self, shard: ShardId, position: Position) -> Cursor:
        """As the stream gives it."""
        return await self._source.cursor(shard, position)

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """As the stream reads."""
        return await self._source.read(shard, cursor, records_max=records_max)

    async def retention_s(self) -> float | None:
        """As the stream says."""
        return await self._source.retention_s()

    async def created(self) -> Epoch | None:
        """As the stream says; None if it does not."""
        return await self._source.created() if isinstance(self._source, CreationTime) else None
