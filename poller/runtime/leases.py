"""Owns one stream mapping's view of its leases: discovery of shards, looks at the store, what is decided, takes."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from poller.errors import LeaseLost, RowChanged
from poller.records import Monotonic, Shard, ShardId
from poller.rows import Lease, MappingRow
from poller.rules import leasing
from poller.rules.leasing import Decision, Team
from poller.rules.lineage import Lineage, trace
from poller.runtime.parts import StreamParts
from poller.runtime.workers import Seat

RETENTION_LOOK_S = 300.0
"""Between two looks at how long the source keeps records."""
PRUNED_MAX = 20
"""Leases of ended shards that are removed in one discovery."""
PRUNED_AFTER = 10
"""Discoveries' time for which they must have been of no use: a worker that goes by an older listing would add them anew."""


@dataclass(frozen=True, slots=True)
class Held:
    """A lease that was taken, and whether it still holds."""

    lease: Lease
    holds: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class Look:
    """What a look came to: the decision, and shards at work here that others took since."""

    decision: Decision
    stolen: frozenset[ShardId]


class Leases:
    """The mapping's leases. `look` and `take` are called by one task."""

    def __init__(self, parts: StreamParts, seat: Seat) -> None:
        self.lineage: Lineage | None = None
        self._parts = parts
        self._seat = seat
        self._row: MappingRow | None = None
        self._shards: Sequence[Shard] = ()
        self._discover_at: Monotonic | None = None
        self._retention_due = Monotonic(0.0)
        self._finished: dict[ShardId, Monotonic] = {}
        self._lost: frozenset[ShardId] = frozenset()

    @property
    def next_discovery(self) -> Monotonic:
        """When the source is to be listed again; at once before the first time and after `forget_listing`."""
        return self._parts.clock.monotonic() if self._discover_at is None else self._discover_at

    def forget_listing(self) -> None:
        """A shard ended here, so that its children are of interest: the next look lists the source."""
        self._discover_at = None

    def lose(self, shard: ShardId) -> None:
        """A lease is no longer held, against our will."""
        self._lost |= {shard}

    async def look(self, running: Mapping[ShardId, Lease]) -> Look:
        """One look at the store, and at the source if that is due; raises what their ports raise."""
        row = await self._registered()
        # It reads the clock itself while nothing is planned; asked after the clock, it would always lie ahead.
        next_discovery = self.next_discovery
        due = self._parts.clock.monotonic() >= next_discovery
        if due:
            await self._look_at_retention()
            self._shards = await self._parts.source.shards()
        leases = await self._parts.store.leases(row.mapping, memos=False)
        self.lineage = lineage = self._traced(row, leases)
        if due:
            await self._seed(row, lineage)
        team = await self._team(leases)
        decision = leasing.decide(
            lineage.runnable if due else _stored(lineage),
            team,
            salt=row.mapping,
            running=running.keys(),
            lost=self._lost,
            by_load=due,
        )
        if due:
            await self._prune(team, leases, lineage.finished)
            self._discover_at = Monotonic(self._parts.clock.monotonic() + self._parts.tuning.discovery_s)
        return Look(decision, leasing.stolen(leases, running.values()))

    async def take(self, lease: Lease) -> Held | None:
        """The lease as taken; None when somebody else was faster, or this worker's own heartbeat was late meanwhile."""
        holds = self._seat.holding()
        try:
            taken = await self._parts.store.take(self._parts.plan.mapping, lease, owner=self._parts.worker)
        except LeaseLost:
            return None
        self._lost -= {lease.shard}
        return Held(taken, holds) if holds() else None

    async def _team(self, leases: Sequence[Lease]) -> Team:
        """The team; asked for anew when a lease has an owner that nobody knows, who may have come just now."""
        team = await self._seat.team()
        if team.certain and leasing.unknown(leases, team):
            return await self._seat.team(anew=True)
        return team

    def _traced(self, row: MappingRow, leases: Collection[Lease]) -> Lineage:
        start = self._parts.plan.start.position(row.fixed)
        return trace(self._shards, leases, start=start, seeded=row.seeded)

    async def _registered(self) -> MappingRow:
        """The mapping's row in the store; LATEST stands for the moment at which the first worker wrote it."""
        if self._row is None:
            wanted = MappingRow(self._parts.plan.mapping, fixed=self._parts.clock.now())
            self._row = await self._parts.store.create(wanted)
        return self._row

    async def _look_at_retention(self) -> None:
        """Asks how long the source keeps records, now and then: somebody may extend it to save a blocked shard."""
        now = self._parts.clock.monotonic()
        if now < self._retention_due:
            return
        self._parts.retention.seconds = await self._parts.source.retention_s()
        self._retention_due = Monotonic(now + RETENTION_LOOK_S)

    async def _seed(self, row: MappingRow, lineage: Lineage) -> None:
        if lineage.seeds:
            await self._parts.store.seed(row.mapping, lineage.seeds)
            self._seat.tell()
        if not row.seeded:
            self._row = replace(row, seeded=True)
            try:
                await self._parts.store.update(self._row)
            except RowChanged:
                self._row = None  # Who was faster wrote something else: the next look reads it.

    async def _prune(self, team: Team, leases: Sequence[Lease], finished: Sequence[ShardId]) -> None:
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


def _stored(lineage: Lineage) -> tuple[Lease, ...]:
    """What may be worked on as far as it is in the store: shards are only added right after a listing of the source."""
    seeds = {lease.shard for lease in lineage.seeds}
    return tuple(lease for lease in lineage.runnable if lease.shard not in seeds)
