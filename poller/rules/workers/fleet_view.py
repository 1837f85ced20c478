"""Owns the view of all workers: one status of each mapping, made of this worker's own status, the others' digests, and the leases.

Who owns a shard is in its lease, and so is the position of a shard of another worker. What this worker runs is shown as its own
status says. The state of another worker's shard is in its owner's digest; a shard that the digest does not name reads. A digest's
word about a shard that its worker does not own is ignored.

Nothing is guessed: where a digest is missing or left something out, the state is `elsewhere`, and counts say how much is not
shown. The order in which workers are given does not matter.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from poller.domain.records import SHARD_END, MappingId, Monotonic, ShardId, WorkerId
from poller.domain.rows import Lease, MappingState
from poller.domain.status import (
    LaneStatus,
    MappingStatus,
    MappingWorker,
    ShardStatus,
    WorkerState,
    WorkerStatus,
)
from poller.domain.wording.numbers_of import inflected, number_of
from poller.rules.workers.fleet_state import WorkerResult, fleet_result, fleet_state
from poller.rules.workers.status_digest import MappingDigest, StatusDigest
from poller.rules.workers.worker_group import KnownWorkers
from poller.rules.workers.worker_report import WorkerReport, short

FRESH_S = 5.0
"""Older news is out of date. With the usual heartbeats of 1 s the age of news stays below this."""
FRESH_BEATS = 2.5
"""With slow heartbeats so many of them count in place of FRESH_S."""
UNREAD = "elsewhere"
"""The state of another worker's shard that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HeardWorker:
    """Another worker as its row shows it. `age_s` is the time since it was last heard.

    `running` has the short names of the mappings that it runs. `digest` is None if it has none, as a worker of an earlier version,
    or if its digest cannot be read.
    """

    state: WorkerState
    age_s: float
    running: frozenset[str] = frozenset()
    digest: StatusDigest | None = None


@dataclass(frozen=True, slots=True)
class KnownLeases:
    """The leases of one mapping, and how long ago they were read."""

    leases: Sequence[Lease]
    age_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """What `me` knows of the others. News older than `fresh_s` are out of date."""

    me: WorkerId
    others: Mapping[WorkerId, HeardWorker] = field(default_factory=dict)
    leases: Mapping[MappingId, KnownLeases] = field(default_factory=dict)
    fresh_s: float = FRESH_S


def heard_workers(
    known: KnownWorkers,
    digests: Mapping[WorkerId, StatusDigest | None],
    *,
    now: Monotonic,
    digest_age_s: float,
    fresh_s: float,
) -> dict[WorkerId, HeardWorker]:
    """The other workers. A worker was last heard when its counter was first seen, but its digest is as old as the last reading."""
    found = {}
    for worker, sighting in known.sightings.items():
        report, age_s = known.alive.get(worker), now - sighting.since
        found[worker] = HeardWorker(
            state=_worker_state(report, silent=age_s > fresh_s),
            age_s=round(max(age_s, digest_age_s), 3),
            running=frozenset(report.running) if report is not None else frozenset(),
            digest=digests.get(worker),
        )
    return found


def _worker_state(report: WorkerReport | None, *, silent: bool) -> WorkerState:
    """Its state. A worker without a report among the live ones is dead."""
    if report is None:
        return WorkerState.DEAD
    if silent:
        return WorkerState.SILENT
    return WorkerState.LEAVING if report.leaving else WorkerState.ALIVE


def merged(own: Sequence[MappingStatus], fleet: Fleet) -> tuple[MappingStatus, ...]:
    """The status of each mapping on all workers: first the mappings of this worker in their order, then those of others only."""
    digests = {
        worker: {each.status.mapping: each for each in heard.digest.mappings}
        for worker, heard in sorted(fleet.others.items())
        if heard.digest is not None
    }
    there = {mapping: each.status for found in digests.values() for mapping, each in found.items()}
    here = {status.mapping for status in own}
    strange = [replace(there[each], shards=(), lanes=()) for each in sorted(there.keys() - here)]
    return tuple(
        _merging(
            status,
            here=status.mapping in here,
            fleet=fleet,
            digests={
                worker: found[status.mapping] for worker, found in digests.items() if status.mapping in found
            },
        ).merged()
        for status in (*own, *strange)
    )


def limited(statuses: Iterable[MappingStatus], worker: str) -> tuple[MappingStatus, ...]:
    """Of merged statuses only what one worker has."""
    return tuple(
        _of_worker(status, row, worker)
        for status in statuses
        for row in status.workers
        if row.worker == worker
    )


def worker_statuses(fleet: Fleet) -> tuple[WorkerStatus, ...]:
    """All workers, by name."""
    others = {worker: _worker(worker, heard, fleet) for worker, heard in fleet.others.items()}
    me = WorkerStatus(worker=str(fleet.me), state=WorkerState.ALIVE)
    return tuple(each for _, each in sorted({**others, fleet.me: me}.items()))


@dataclass(frozen=True, slots=True)
class _Merging:
    """One mapping: its own status, or that of another worker without shards and lanes (`here` is False), and its digests."""

    base: MappingStatus
    here: bool
    fleet: Fleet
    digests: Mapping[WorkerId, MappingDigest]
    named: Mapping[tuple[WorkerId, ShardId], ShardStatus]
    """The shards that digests name."""

    def merged(self) -> MappingStatus:
        base, rows = self.base, self._rows()
        fresh = {row.worker: row for row in rows if not row.out_of_date}
        others = [row.state for name, row in fresh.items() if name != self.fleet.me]
        pollers = [row.pollers for row in fresh.values() if row.pollers is not None]
        reasons = [f"at {row.worker}: {row.reason}" for row in fresh.values() if row.reason]
        return replace(
            base,
            # A mapping that only workers out of date know is shown as they last said.
            state=fleet_state(base.state if self.here or not others else None, others),
            reason=base.reason if self.here and base.reason else next(iter(reasons), ""),
            last_result=self._result(fresh),
            shards=self._shards(),
            lanes=self._lanes(),
            pollers=sum(pollers) if pollers else base.pollers,
            workers=rows,
        )

    def _rows(self) -> tuple[MappingWorker, ...]:
        """The mapping on each worker, by name."""
        rows = {}
        if self.here:
            rows[self.fleet.me] = _own_row(self.base, self.fleet.me)
        name = short(self.base.mapping)
        for worker, heard in self.fleet.others.items():
            digest = self.digests.get(worker)
            if digest is not None or name in heard.running:
                rows[worker] = _row(worker, heard, digest, fresh_s=self.fleet.fresh_s)
        return tuple(rows[worker] for worker in sorted(rows))

    def _result(self, fresh: Mapping[str, MappingWorker]) -> str:
        """LastProcessingResult of all workers; empty for a queue."""
        base = self.base
        results = [WorkerResult(base.last_result, base.result_at, _troubled(base))] if self.here else []
        for worker, each in self.digests.items():
            if worker in fresh:
                status, troubled = each.status, bool(each.blocked) or _troubled(each.status)
                results.append(WorkerResult(status.last_result, status.result_at, troubled))
        return fleet_result(results)

    def _shards(self) -> tuple[ShardStatus, ...]:
        """All shards: those of this worker in their order, then the others by name."""
        known = self.fleet.leases.get(self.base.mapping)
        own = {shard.shard: shard for shard in self.base.shards}
        if known is None:
            return tuple(each if self._mine(each) else self._without_lease(each) for each in own.values())
        leases = {lease.shard: lease for lease in known.leases}
        unfinished = {each.shard for each in known.leases if each.checkpoint.position != SHARD_END}
        names = [*own, *sorted(leases.keys() - own.keys())]
        found = (self._shard(own.get(each), leases.get(each), unfinished, known) for each in names)
        return tuple(each for each in found if each is not None)

    def _mine(self, shard: ShardStatus) -> bool:
        """Whether this worker itself runs the shard, or knows best why it does not run."""
        return shard.state not in {UNREAD, "free"}

    def _shard(
        self,
        own: ShardStatus | None,
        lease: Lease | None,
        unfinished: Collection[ShardId],
        known: KnownLeases,
    ) -> ShardStatus | None:
        """The status of one shard; None if it needs no work any more."""
        if own is not None and (lease is None or (self._mine(own) and own.owner)):
            return own if self._mine(own) else self._without_lease(own)
        assert lease is not None, "a shard that is listed has a status or a lease"
        if lease.owner is not None and lease.owner != self.fleet.me:
            return self._elsewhere(lease.shard, lease.owner, lease.checkpoint.position.encode(), known.age_s)
        if lease.shard not in unfinished:
            return None
        if own is not None and own.state == "waiting":
            return own
        if own is None and self.here and self.base.shards:
            # This worker's own listing of the stream decides which shards are still there.
            return None
        waits = [parent for parent in lease.parents if parent in unfinished]
        return ShardStatus(
            shard=lease.shard,
            state="waiting" if waits else "free",
            position=lease.checkpoint.position.encode(),
            reason=f"for {', '.join(waits)}" if waits else "",
            age_s=known.age_s,
            out_of_date=known.age_s > self.fleet.fresh_s,
        )

    def _without_lease(self, shard: ShardStatus) -> ShardStatus:
        """A shard of which this worker knows only the owner, from its last look at the leases."""
        if not shard.owner:
            return replace(shard, age_s=None, out_of_date=True)
        found = self._elsewhere(shard.shard, WorkerId(shard.owner), shard.position, None)
        return replace(found, age_s=None, out_of_date=True)

    def _elsewhere(
        self, shard: ShardId, owner: WorkerId, position: str, lease_age_s: float | None
    ) -> ShardStatus:
        """A shard of another worker, as its owner's digest has it."""
        heard, digest = self.fleet.others.get(owner), self.digests.get(owner)
        if heard is None:
            reason = "nothing is heard of its owner"
            return ShardStatus(
                shard=shard,
                state=UNREAD,
                position=position,
                owner=owner,
                reason=reason,
                age_s=None,
                out_of_date=True,
            )
        age_s = max(heard.age_s, lease_age_s or 0.0)
        named = self.named.get((owner, shard)) or _unnamed(shard, digest)
        return replace(
            named,
            position=position,
            owner=owner,
            age_s=age_s,
            out_of_date=age_s > self.fleet.fresh_s,
        )

    def _lanes(self) -> tuple[LaneStatus, ...]:
        """The lanes of a queue on all workers. Those of a dead worker are not shown: their messages come to the others."""
        found = [replace(lane, worker=str(self.fleet.me)) for lane in self.base.lanes] if self.here else []
        for worker, digest in sorted(self.digests.items()):
            if self.fleet.others[worker].state is not WorkerState.DEAD:
                found += [replace(lane, worker=str(worker)) for lane in digest.status.lanes]
        return tuple(found)


def _unnamed(shard: ShardId, digest: MappingDigest | None) -> ShardStatus:
    """A shard that its owner's digest does not name: it reads, if the digest is complete."""
    if digest is None:
        return ShardStatus(shard=shard, state=UNREAD, position="")
    if digest.left_out:
        reason = f"its worker names {number_of(digest.left_out, 'shard or lane', 'shards or lanes')} in trouble too few; ask it"
        return ShardStatus(shard=shard, state=UNREAD, position="", reason=reason)
    return ShardStatus(shard=shard, state="reading", position="")


def _merging(
    base: MappingStatus, *, here: bool, fleet: Fleet, digests: Mapping[WorkerId, MappingDigest]
) -> _Merging:
    shards = ((worker, shard) for worker, digest in digests.items() for shard in digest.status.shards)
    return _Merging(base, here, fleet, digests, {(worker, shard.shard): shard for worker, shard in shards})


def _own_row(status: MappingStatus, me: WorkerId) -> MappingWorker:
    blocked_lanes = sum(lane.blocked_since is not None for lane in status.lanes)
    return MappingWorker(
        worker=str(me),
        state=status.state,
        reason=status.reason,
        last_result=status.last_result,
        pollers=status.pollers,
        blocked=sum(shard.blocked for shard in status.shards) + blocked_lanes,
    )


def _row(
    worker: WorkerId, heard: HeardWorker, digest: MappingDigest | None, *, fresh_s: float
) -> MappingWorker:
    row = MappingWorker(
        worker=str(worker),
        state=MappingState.ENABLED,
        age_s=heard.age_s,
        out_of_date=heard.age_s > fresh_s,
    )
    if digest is None:
        return replace(row, reason="its status is not known")
    status = digest.status
    return replace(
        row,
        state=status.state,
        reason=status.reason,
        last_result=status.last_result,
        pollers=status.pollers,
        blocked=digest.blocked,
        left_out=digest.left_out,
    )


def _troubled(status: MappingStatus) -> bool:
    return (
        bool(status.reason)
        or any(shard.blocked or shard.state == "failing" for shard in status.shards)
        or any(lane.last_error for lane in status.lanes)
    )


def _worker(worker: WorkerId, heard: HeardWorker, fleet: Fleet) -> WorkerStatus:
    note, digest = "", heard.digest
    if digest is None:
        note = "only the owners of its shards are known: it writes no digest that this version can read"
    elif left_out := digest.mappings_left_out:
        blocked = digest.blocked_left_out
        note = (
            f"{number_of(left_out, 'mapping')} with {number_of(blocked, 'blocked shard or lane', 'blocked shards or lanes')} "
            f"{inflected(left_out, 'does', 'do')} not fit into its digest; ask it"
        )
    elif left_out := digest.breakers_left_out:
        note = f"{number_of(left_out, 'circuit breaker')} {inflected(left_out, 'does', 'do')} not fit into its digest; ask it"
    return WorkerStatus(
        worker=str(worker),
        state=heard.state,
        age_s=heard.age_s,
        out_of_date=heard.age_s > fleet.fresh_s,
        note=note,
    )


def _of_worker(status: MappingStatus, row: MappingWorker, worker: str) -> MappingStatus:
    return replace(
        status,
        state=row.state,
        reason=row.reason,
        last_result=row.last_result,
        pollers=row.pollers,
        workers=(row,),
        shards=tuple(shard for shard in status.shards if shard.owner == worker),
        lanes=tuple(lane for lane in status.lanes if lane.worker == worker),
    )
