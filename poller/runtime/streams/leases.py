"""Owns one stream mapping's view of its leases: discovery of shards, looks at the store, what is decided, takes."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from poller.domain.errors import LeaseLost, RowChanged
from poller.domain.records import Monotonic, Shard, ShardId
from poller.domain.rows import Lease, MappingRow
from poller.rules.streams import recreated_stream
from poller.rules.streams.lineage import Lineage, trace
from poller.rules.workers import assignment, offers
from poller.rules.workers.assignment import Decision, WorkerGroup
from poller.rules.workers.offers import Offers
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.recreated_stream import StreamLife
from poller.runtime.streams.starting_place import Place
from poller.runtime.workers.membership import Membership

RETENTION_LOOK_S = 300.0
"""Between two looks at how long the source keeps records."""
PRUNED_MAX = 20
"""Leases of ended shards that are removed in one discovery."""
PRUNED_AFTER = 10
"""Discoveries' time for which they must have been of no use: a worker that goes by an older listing would add them anew."""


@dataclass(frozen=True, slots=True)
class HeldLease:
    """A lease that was taken, and whether it still holds."""

    lease: Lease
    holds: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class LeaseReview:
    """What a look came to: the decision, and shards at work here that others took since."""

    decision: Decision
    stolen: frozenset[ShardId]


class Leases:
    """The mapping's leases. `look` and `take` are called by one task."""

    def __init__(self, parts: StreamContext, seat: Membership) -> None:
        self.lineage: Lineage | None = None
        self._parts = parts
        self._seat = seat
        self._place = Place(parts, seat)
        self._life = StreamLife(parts)
        self._row: MappingRow | None = None
        self._shards: Sequence[Shard] = ()
        self._leased: frozenset[ShardId] = frozenset()
        """The shards of the last listing after which all of them had leases."""
        self._discover_at: Monotonic | None = None
        self._retention_due = Monotonic(0.0)
        self._finished: dict[ShardId, Monotonic] = {}
        self._lost: frozenset[ShardId] = frozenset()
        self._offers: Offers = {}
        self._met = False
        """Whether the other workers were looked at since this run began."""

    @property
    def next_discovery(self) -> Monotonic:
        """When the source is to be listed again; at once before the first time and after `forget_listing`."""
        return self._parts.clock.monotonic() if self._discover_at is None else self._discover_at

    @property
    def next_offer(self) -> Monotonic | None:
        """When a free lease is to be looked at again that was left to another worker; None without one."""
        return offers.next_due(self._offers)

    @property
    def file_changed(self) -> bool:
        """Whether the next look writes down which mappings of the stream the file has now."""
        return self._place.file_changed

    def forget_listing(self) -> None:
        """A shard ended here, so that its children are of interest: the next look lists the source."""
        self._discover_at = None

    def lose(self, shard: ShardId) -> None:
        """A lease is no longer held, against our will."""
        self._lost |= {shard}

    async def look(self, running: Mapping[ShardId, Lease], *, lose_all: Callable[[], None]) -> LeaseReview:
        """One look at the store, and at the source if that is due; raises NotYet and what their ports raise.

        `lose_all` ends what runs here: it is called before the leases of a stream are removed that was made again.
        """
        row = await self._registered()
        # It reads the clock itself while nothing is planned; asked after the clock, it would always lie ahead.
        next_discovery = self.next_discovery
        due = self._parts.clock.monotonic() >= next_discovery
        if due:
            self._shards = await self._listed(row)
            row = await self._begun_anew(row, lose_all)
        asked = self._parts.clock.monotonic()
        leases = await self._parts.store.leases(row.mapping, memos=False)
        self.lineage = lineage = self._traced(row, leases)
        written = not due or await self._seed(row, lineage)
        team = await self._team(leases)
        decision = self._decided(
            lineage.runnable if due else _stored(lineage), team, running.keys(), asked=asked, by_load=due
        )
        if due:
            await self._prune(team, leases, lineage.finished)
            next_at = Monotonic(self._parts.clock.monotonic() + self._parts.tuning.discovery_s)
            self._discover_at = next_at if written else None
            self._leased = _names(self._shards)
        return LeaseReview(decision, assignment.stolen(leases, running.values()))

    async def remade(self) -> bool:
        """Whether the stream is another one than when the shards here were taken; then the next look begins it anew."""
        await self._life.look_again()
        if self._row is None or not self._life.another_than(self._row):
            return False
        self._discover_at = None
        return True

    async def _begun_anew(self, row: MappingRow, lose_all: Callable[[], None]) -> MappingRow:
        """The row, after all shards were put at the start of a stream that was made again under its name."""
        if not self._life.another_than(row):
            return row
        lose_all()
        self._row = None  # Read again should anything below fail.
        self._row = row = await self._life.begin_anew(row, self._shards, self._seat.tell)
        return row

    def _decided(
        self,
        leases: Sequence[Lease],
        team: WorkerGroup,
        running: Collection[ShardId],
        *,
        asked: Monotonic,
        by_load: bool,
    ) -> Decision:
        """What to do about `leases`, which the store was asked for at `asked`."""
        decision = assignment.decide(
            leases,
            team,
            salt=self._parts.plan.mapping,
            running=running,
            lost=self._lost,
            passed=offers.passed(self._offers, leases, now=asked),
            by_load=by_load,
        )
        now, heartbeat_s = self._parts.clock.monotonic(), self._parts.tuning.heartbeat_s
        self._offers = offers.left(self._offers, decision.left, now=now, heartbeat_s=heartbeat_s)
        return decision

    async def take(self, lease: Lease) -> HeldLease | None:
        """The lease as taken; None when another worker was faster, or a heartbeat of this worker is late.

        After a late heartbeat, the next look waits until one gets through, and then decides again.
        """
        holds = self._seat.holding()
        if not holds():
            return None
        try:
            taken = await self._parts.store.take(self._parts.plan.mapping, lease, owner=self._parts.worker)
        except LeaseLost:
            return None
        self._lost -= {lease.shard}
        return HeldLease(taken, holds) if holds() else None

    async def _team(self, leases: Sequence[Lease]) -> WorkerGroup:
        """The team; asked for anew when a lease has an owner that nobody knows, who may have come just now.

        Also at the first look: workers that start together do not know each other yet, and the first one would take all leases.
        """
        if self._met:
            team = await self._seat.team()
            if not (team.certain and assignment.unknown(leases, team)):
                return team
        team = await self._seat.team(anew=True)
        self._met = True
        return team

    def _traced(self, row: MappingRow, leases: Collection[Lease]) -> Lineage:
        start = self._parts.plan.start.position(row.fixed)
        return trace(self._shards, leases, start=start, seeded=row.seeded)

    async def _registered(self) -> MappingRow:
        """The mapping's row in the store; raises NotYet while it waits for the place of another mapping."""
        if self._row is None or self._place.file_changed:
            self._row = await self._place.row()
        return self._row

    async def _listed(self, row: MappingRow) -> Sequence[Shard]:
        """The stream's shards, and in `_life` when the stream was created that they are of.

        Asks for the retention and the time of creation now and then: somebody may extend the retention to save a blocked shard,
        and may make the stream again. Other shards than before may be of a stream that was made again. So the time of
        creation is asked for then too, after the listing: if it is still the same, so was the stream that was listed.
        """
        source, now = self._parts.source, self._parts.clock.monotonic()
        due = now >= self._retention_due
        if due:
            self._parts.retention.seconds = await source.retention_s()
        shards = await source.shards()
        if due or _names(shards) != self._leased:
            await self._life.look()
            if self._life.another_than(row):
                # The listing may be of the stream before.
                shards = await source.shards()
        if due:
            self._retention_due = Monotonic(now + RETENTION_LOOK_S)
        return shards

    async def _seed(self, row: MappingRow, lineage: Lineage) -> bool:
        """Whether the row says now what it should; if another worker was faster, the next look has to write it.

        Without the time of creation in the row, a stream that is made again would not be noticed.
        """
        self._place.check()
        if lineage.seeds:
            await self._parts.store.seed(row.mapping, lineage.seeds)
            self._seat.tell()
        created = recreated_stream.created_of(row.document) or self._life.created
        wanted = replace(row, seeded=True, document=recreated_stream.with_created(row.document, created))
        if wanted != row:
            self._row = None  # Read again, should the write fail or its answer be lost.
            try:
                await self._parts.store.update(wanted)
            except RowChanged:
                return False
            self._row = replace(wanted, revision=row.revision + 1)
        return True

    async def _prune(self, team: WorkerGroup, leases: Sequence[Lease], finished: Sequence[ShardId]) -> None:
        """Removes leases that nothing needs, a few at a time, by one worker."""
        now, wait_s = self._parts.clock.monotonic(), PRUNED_AFTER * self._parts.tuning.discovery_s
        self._finished = {shard: self._finished.get(shard, now) for shard in finished}
        ripe = {shard for shard, since in self._finished.items() if now - since >= wait_s}
        if team.me != min(team.peers, default=None):
            return
        for lease in [each for each in leases if each.shard in ripe][:PRUNED_MAX]:
            try:
                await self._parts.store.drop(self._parts.plan.mapping, lease)
            except LeaseLost:
                continue


def _names(shards: Iterable[Shard]) -> frozenset[ShardId]:
    return frozenset(shard.shard_id for shard in shards)


def _stored(lineage: Lineage) -> tuple[Lease, ...]:
    """What may be worked on as far as it is in the store: shards are only added right after a listing of the source."""
    seeds = {lease.shard for lease in lineage.seeds}
    return tuple(lease for lease in lineage.runnable if lease.shard not in seeds)
