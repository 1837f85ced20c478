"""Owns the check whether a stream was recreated (deleted and made again under its name), and the restart of its mapping then."""

from collections.abc import Callable, Sequence

from poller.domain.errors import LeaseLost, PortError
from poller.domain.records import Epoch, Monotonic, Shard
from poller.domain.rows import Lease, MappingRow
from poller.domain.telemetry.labels import Loss
from poller.domain.telemetry.mapping_events import RecordsLost
from poller.ports import CreationTime
from poller.rules.streams import recreated_stream
from poller.runtime.streams.context import StreamContext

RECHECK_S = 1.0
"""Time between two checks for shards whose position the source refuses. Each check costs a call of the source."""


class StreamIdentity:
    """Which stream has the mapping's ARN now, by its time of creation."""

    def __init__(self, parts: StreamContext) -> None:
        self.created: Epoch | None = None
        """When the stream was created, as the source last said; None if the source does not say."""
        self._parts = parts
        self._asked: Monotonic | None = None

    async def check(self) -> None:
        """Asks the source for the time of creation. Raises PortError."""
        source = self._parts.source
        if isinstance(source, CreationTime):
            self._asked = self._parts.clock.monotonic()
            self.created = await source.created()

    async def recheck(self) -> None:
        """Asks the source again, unless it was asked less than RECHECK_S ago. If it fails, the answer before stays."""
        now = self._parts.clock.monotonic()
        if self._asked is not None and now - self._asked < RECHECK_S:
            return
        try:
            await self.check()
        except PortError:
            return

    def differs_from(self, row: MappingRow) -> bool:
        """Whether the positions of the row's mapping are those of an earlier stream with the same name."""
        return recreated_stream.recreated(recreated_stream.created_of(row.document), self.created)

    async def restart(
        self, row: MappingRow, shards: Sequence[Shard], announce_change: Callable[[], None]
    ) -> MappingRow:
        """Puts all shards at the start of the new stream, reports what was lost, and returns the new row.

        Several workers may do so at once, and another worker finishes what a worker leaves half done. That is safe because the row is
        written last, and is read behind the leases: while it is that of the earlier stream, nobody had taken a shard of the new one when
        the leases were listed. One that is taken later has another epoch, and is not dropped. Two workers may report the same loss.
        Raises RowChanged and what the store's ports raise.
        """
        store = self._parts.store
        leases = await store.leases(row.mapping, memos=False)
        row = await store.create(row)
        if not self.differs_from(row):
            return row
        todo = recreated_stream.replacement(leases, shards)
        dropped = {
            lease.shard for lease in todo.drop if await self._drop(lease, lost=lease.shard in todo.lost)
        }
        await store.seed(row.mapping, [lease for lease in todo.seed if lease.shard in dropped])
        document = recreated_stream.with_created(row.document, self.created)
        wanted = MappingRow(
            row.mapping, row.fixed, seeded=row.seeded, document=document, revision=row.revision
        )
        await store.update(wanted)
        announce_change()
        return await store.create(wanted)

    async def _drop(self, lease: Lease, *, lost: bool) -> bool:
        """Removes a lease of the earlier stream. Returns False if another worker was faster."""
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
