"""Owns how a stream mapping reviews its leases: it lists shards and leases, decides what to do, and takes leases."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from poller.domain.errors import LeaseLost, RowChanged
from poller.domain.records import Monotonic, Shard, ShardId
from poller.domain.rows import Lease, MappingRow
from poller.rules.streams import recreated_stream
from poller.rules.streams.lineage import Lineage, descendants, trace
from poller.rules.workers import assignment, offers
from poller.rules.workers.assignment import Decision, WorkerGroup
from poller.rules.workers.offers import Offers
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.discovery.known_shards import KnownShards
from poller.runtime.streams.recreated_stream import StreamIdentity
from poller.runtime.streams.starting_place import Place
from poller.runtime.workers.membership import Membership

RETENTION_CHECK_S = 300.0
"""Time between two questions of how long the source keeps records."""
PRUNED_MAX = 20
"""Leases of ended shards that one discovery removes."""
PRUNED_AFTER = 10
"""A lease is removed when it was of no use for the time of so many listings.

A worker with an older listing would add a lease again that is removed sooner."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that was taken, and whether it still holds."""

    lease: Lease
    holds: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class LeaseReview:
    """The result of a review: the decision, and the shards at work here whose leases another worker has taken."""

    decision: Decision
    stolen: frozenset[ShardId]


class Leases:
    """The mapping's leases. One task calls `review`, and waits for the calls of `take` before the next one."""

    def __init__(self, parts: StreamContext, membership: Membership) -> None:
        self.lineage: Lineage | None = None
        self._parts = parts
        self._membership = membership
        self._place = Place(parts, membership)
        self._identity = StreamIdentity(parts)
        self._known = KnownShards(parts)
        self._row: MappingRow | None = None
        self._shards: Sequence[Shard] = ()
        self._leased: frozenset[ShardId] = frozenset()
        """The shards of the last listing. All of them have leases."""
        self._discover_at: Monotonic | None = None
        self._finished: dict[ShardId, Monotonic] = {}
        self._lost: frozenset[ShardId] = frozenset()
        self._stored: Sequence[Lease] = ()
        """The leases as the store listed them last."""
        self._offers: Offers = {}
        self._others_listed = False
        """Whether the other workers were listed since this run began."""

    @property
    def next_discovery(self) -> Monotonic:
        """When the source is to be listed again: at once before the first listing and after `forget_listing`."""
        return self._parts.clock.monotonic() if self._discover_at is None else self._discover_at

    @property
    def next_offer(self) -> Monotonic | None:
        """When this worker must check again whether another worker took a lease that was left to it; None without one."""
        return offers.next_due(self._offers)

    @property
    def file_changed(self) -> bool:
        """Whether the next review must store which mappings of the stream the file has now."""
        return self._place.file_changed

    def forget_listing(self) -> None:
        """Makes the next review ask the source for shards. A shard has ended here, so its children may begin."""
        self._discover_at = None
        self._known.forget()

    def lose(self, shard: ShardId) -> None:
        """Notes that this worker lost a lease that it did not release."""
        self._lost |= {shard}

    async def review(self, running: Mapping[ShardId, Lease], *, lose_all: Callable[[], None]) -> LeaseReview:
        """Lists the leases, and the source's shards if that is due, and decides what to do.

        `lose_all` stops all shards here as lost. It is called before the leases of a recreated stream are removed. Raises NotYet
        and what the ports of store and source raise.
        """
        row = await self._load_row()
        # `next_discovery` may read the clock. It is read first, so that it is not later than the moment it is compared with.
        next_discovery = self.next_discovery
        due = self._parts.clock.monotonic() >= next_discovery
        if due:
            self._shards = await self._list_shards(row)
            row = await self._restart_if_recreated(row, lose_all)
        asked, leases = await self._list_leases(row)
        if due and await self._add_children(leases):
            # That may have taken long.
            asked, leases = await self._list_leases(row)
        self.lineage = lineage = self._trace(row, leases)
        written = not due or await self._seed(row, lineage)
        group = await self._group(leases)
        decision = self._decide(
            lineage.runnable if due else _stored(lineage), group, running.keys(), asked=asked, by_load=due
        )
        if due:
            await self._prune(group, leases, lineage.finished)
            next_at = Monotonic(self._parts.clock.monotonic() + self._parts.tuning.discovery_s)
            self._discover_at = next_at if written else None
            self._leased = _names(self._shards)
        return LeaseReview(decision, assignment.stolen(leases, running.values()))

    async def give_back(self, shards: Collection[ShardId]) -> None:
        """Gives up the leases of shards that this worker has and does not read, since a release of them has failed. Raises PortError."""
        for lease in self._stored:
            if lease.owner == self._parts.worker and lease.shard in shards:
                with suppress(LeaseLost):
                    await self._parts.store.release(self._parts.plan.mapping, lease)

    def with_descendants(self, shards: frozenset[ShardId]) -> frozenset[ShardId]:
        """These shards and all that come from them, as of the last review."""
        seeds = () if self.lineage is None else self.lineage.seeds
        return shards | descendants({lease.shard: lease.parents for lease in (*self._stored, *seeds)}, shards)

    async def recreated(self) -> bool:
        """Whether the stream was recreated since the shards here were taken. Then the next review restarts the mapping on it."""
        await self._identity.recheck()
        if self._row is None or not self._identity.differs_from(self._row):
            return False
        self.forget_listing()
        return True

    async def _restart_if_recreated(self, row: MappingRow, lose_all: Callable[[], None]) -> MappingRow:
        """The row. If the stream was recreated, all shards are put at the start of the new stream first."""
        if not self._identity.differs_from(row):
            return row
        lose_all()
        self._row = None  # The row is read again if anything below fails.
        self._row = row = await self._identity.restart(row, self._shards, self._membership.announce_change)
        if self._parts.shared is not None:
            self._parts.shared.forget()
        return row

    def _decide(
        self,
        leases: Sequence[Lease],
        group: WorkerGroup,
        running: Collection[ShardId],
        *,
        asked: Monotonic,
        by_load: bool,
    ) -> Decision:
        """Decides what to do about `leases`, which the store was asked for at `asked`."""
        decision = assignment.decide(
            leases,
            group,
            salt=self._parts.plan.mapping,
            running=running,
            lost=self._lost,
            passed=offers.passed_over(self._offers, leases, now=asked),
            by_load=by_load,
        )
        now, heartbeat_s = self._parts.clock.monotonic(), self._parts.tuning.heartbeat_s
        self._offers = offers.renewed(self._offers, decision.left, now=now, heartbeat_s=heartbeat_s)
        return decision

    async def take(self, lease: Lease) -> HeldLease | None:
        """Takes the lease. Returns None when another worker was faster, or a heartbeat of this worker is late.

        After a late heartbeat, the next review waits until a heartbeat is written, and then decides again.
        """
        holds = self._membership.holding()
        if not holds():
            return None
        try:
            taken = await self._parts.store.take(self._parts.plan.mapping, lease, owner=self._parts.worker)
        except LeaseLost:
            return None
        self._lost -= {lease.shard}
        return HeldLease(taken, holds) if holds() else None

    async def _group(self, leases: Sequence[Lease]) -> WorkerGroup:
        """The group. It waits for a new listing of the workers if a lease has an owner that may have come just now.

        It also waits for one in the first review. Workers that start together do not know each other yet, and the first one
        would take all leases.
        """
        if self._others_listed:
            group = await self._membership.group()
            if not (group.certain and assignment.has_unknown_owner(leases, group)):
                return group
        group = await self._membership.group(new_listing=True)
        self._others_listed = True
        return group

    def _trace(self, row: MappingRow, leases: Collection[Lease]) -> Lineage:
        start = self._parts.plan.stream.start.position(row.fixed)
        return trace(self._shards, leases, start=start, seeded=row.seeded)

    async def _load_row(self) -> MappingRow:
        """The mapping's row in the store. Raises NotYet while the mapping waits for the place of another mapping."""
        if self._row is None or self._place.file_changed:
            self._row = await self._place.row()
        return self._row

    async def _list_leases(self, row: MappingRow) -> tuple[Monotonic, Sequence[Lease]]:
        """The leases, and when the store was asked for them."""
        asked = self._parts.clock.monotonic()
        self._stored = await self._parts.store.leases(row.mapping, memos=False)
        return asked, self._stored

    async def _add_children(self, leases: Sequence[Lease]) -> bool:
        """Adds the children of shards that have ended by these leases. Returns whether the source was asked for any."""
        before, self._shards = self._shards, await self._known.with_children(leases)
        return self._shards is not before

    async def _list_shards(self, row: MappingRow) -> Sequence[Shard]:
        """Lists the stream's shards, and has `_identity` note when their stream was created.

        The retention and the time of creation are asked for once in RETENTION_CHECK_S, since an operator may extend the retention
        to save a blocked shard, and may recreate the stream. The time of creation is also asked for when the shards have changed,
        because they may be those of a recreated stream. This comes after the listing: if the time of creation is still the same,
        the listing was of the same stream.
        """
        retention, now = self._parts.retention, self._parts.clock.monotonic()
        due = now >= retention.due
        if due:
            retention.seconds = await self._parts.source.retention_s()
        shards = await self._known.listed(seeded=row.seeded)
        if due or _names(shards) != self._leased:
            await self._identity.check()
            if self._identity.differs_from(row):
                # The listing may still be of the deleted stream.
                shards = await self._known.listed_anew()
        if due:
            retention.due = Monotonic(now + RETENTION_CHECK_S)
        return shards

    async def _seed(self, row: MappingRow, lineage: Lineage) -> bool:
        """Adds leases for new shards, and writes the row. Returns False if another worker changed the row meanwhile.

        Then the next review does both. The row gets the time of creation before the first lease is added: a recreated stream is
        noticed by it, and positions must not be stored that nothing says the stream of.
        """
        self._place.check()
        created = recreated_stream.created_of(row.document) or self._identity.created
        dated = replace(row, document=recreated_stream.with_created(row.document, created))
        if not row.seeded:
            written = await self._write(row, dated)
            if written is None:
                return False
            row = dated = written
        if lineage.seeds:
            await self._parts.store.seed(row.mapping, lineage.seeds)
            self._membership.announce_change()
        return await self._write(row, replace(dated, seeded=True)) is not None

    async def _write(self, row: MappingRow, wanted: MappingRow) -> MappingRow | None:
        """Writes the row unless it is as wanted. Returns None if another worker changed it meanwhile; then it is read again."""
        if wanted == row:
            return row
        self._row = None  # The row is read again if the write fails or its answer is lost.
        try:
            await self._parts.store.update(wanted)
        except RowChanged:
            return None
        self._row = replace(wanted, revision=row.revision + 1)
        return self._row

    async def _prune(self, group: WorkerGroup, leases: Sequence[Lease], finished: Sequence[ShardId]) -> None:
        """Removes leases that nothing needs, a few at a time. Only the first worker by name does so."""
        now, wait_s = self._parts.clock.monotonic(), PRUNED_AFTER * self._known.listed_every_s
        self._finished = {shard: self._finished.get(shard, now) for shard in finished}
        ripe = {shard for shard, since in self._finished.items() if now - since >= wait_s}
        if group.me != min(group.peers, default=None):
            return
        for lease in [each for each in leases if each.shard in ripe][:PRUNED_MAX]:
            try:
                await self._parts.store.drop(self._parts.plan.mapping, lease)
            except LeaseLost:
                continue


def _names(shards: Iterable[Shard]) -> frozenset[ShardId]:
    return frozenset(shard.shard_id for shard in shards)


def _stored(lineage: Lineage) -> tuple[Lease, ...]:
    """The runnable leases that the store has already. New ones are added only right after a listing of the source."""
    seeds = {lease.shard for lease in lineage.seeds}
    return tuple(lease for lease in lineage.runnable if lease.shard not in seeds)
