"""Owns the look at whether a stream was deleted and made again, and the new beginning of its mapping."""

from collections.abc import Callable, Sequence

from poller.domain.errors import LeaseLost, PortError
from poller.domain.records import Epoch, Monotonic, Shard
from poller.domain.rows import Lease, MappingRow
from poller.domain.telemetry.labels import Loss
from poller.domain.telemetry.mapping_events import RecordsLost
from poller.ports import CreationTime
from poller.rules.streams import recreated_stream
from poller.runtime.streams.context import StreamContext

ASKED_S = 1.0
"""Between two questions of shards whose place the source refuses; each costs a call of the source."""


class StreamLife:
    """Which stream stands under the mapping's name now."""

    def __init__(self, parts: StreamContext) -> None:
        self.created: Epoch | None = None
        """When it was created, as the source last said; None where it does not say."""
        self._parts = parts
        self._asked: Monotonic | None = None

    async def look(self) -> None:
        """Asks the source; raises its PortError."""
        source = self._parts.source
        if isinstance(source, CreationTime):
            self._asked = self._parts.clock.monotonic()
            self.created = await source.created()

    async def look_again(self) -> None:
        """Asks the source unless that was just done; what cannot be asked is as it was."""
        now = self._parts.clock.monotonic()
        if self._asked is not None and now - self._asked < ASKED_S:
            return
        try:
            await self.look()
        except PortError:
            return

    def another_than(self, row: MappingRow) -> bool:
        """Whether the row's positions are of a stream that was there before."""
        return recreated_stream.remade(recreated_stream.created_of(row.document), self.created)

    async def begin_anew(
        self, row: MappingRow, shards: Sequence[Shard], told: Callable[[], None]
    ) -> MappingRow:
        """Puts all shards at the start of the new stream, tells what was lost, and returns the row as it is then.

        Several workers may do so at once, and one that ends in the middle is followed by the next: a lease is dropped once,
        and the row says last that all of it is done. Raises RowChanged and what the store's ports raise.
        """
        store = self._parts.store
        row = await store.create(row)
        if not self.another_than(row):
            return row
        todo = recreated_stream.anew(await store.leases(row.mapping, memos=False), shards)
        dropped = {
            lease.shard for lease in todo.drop if await self._dropped(lease, lost=lease.shard in todo.lost)
        }
        await store.seed(row.mapping, [lease for lease in todo.seed if lease.shard in dropped])
        document = recreated_stream.with_created(row.document, self.created)
        wanted = MappingRow(
            row.mapping, row.fixed, seeded=row.seeded, document=document, revision=row.revision
        )
        await store.update(wanted)
        told()
        return await store.create(wanted)

    async def _dropped(self, lease: Lease, *, lost: bool) -> bool:
        """Removes a lease of the stream before; whether it was this worker that did."""
        try:
            await self._parts.store.drop(self._parts.plan.mapping, lease)
        except LeaseLost:
            return False
        if lost:
            self._parts.observer.on(
                RecordsLost(
                    mapping=self._parts.plan.mapping,
                    shard=lease.shard,
                    loss=Loss.STREAM_REMADE,
                    position=lease.checkpoint.position,
                )
            )
        return True
