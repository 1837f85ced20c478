"""Owns what a heartbeat decides: who is alive, whether this worker's leases still hold, how much of a maximum it may use.

About once a second a worker writes one row to the store: a counter that grows, and a report of itself. That is its
heartbeat. Then it lists the rows of all workers. No row carries a time, and no two machines' clocks are compared, because
they may differ by seconds. Each worker measures on its own clock how long it saw another counter stand still. It uses the
monotonic clock, because the time of day can be set back or forward. Monotonic clocks are assumed to run equally fast.

Two rules keep two workers from using one lease. A worker gives its own leases up when its last heartbeat *began* a lease
time ago. Another worker takes it for dead when it *saw* the counter stand still for a lease time. A heartbeat begins before
anybody can see it, so the owner always stops first.

A *term* lasts until a heartbeat is late. Then every lease that was taken in it is lost for good, because somebody else may
have taken it meanwhile. The next heartbeat that gets through begins a new term. Between the two no term runs, and a lease
that is taken then never holds: others still take this worker for dead. A lease remembers the number of its term, and
is tested before every batch and write. A process may be paused between the test and a write; then the store refuses the write
by its fence, the owner and epoch of the lease.

A *claim* is how much of a mapping's maximum a worker says it may have in use. A worker uses no more than it claimed in a
heartbeat before it listed the others, and no more than their claims leave. Of two workers that claim at the same moment, at
least one sees the other's claim.

The order of calls: `report`, write it, `beaten`, list the rows, `listed`. `update` at any time; `expire` when `term.ends`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, assert_never

import msgspec

from poller.domain.records import MappingId, Monotonic, ShardId, WorkerId
from poller.domain.rows import WorkerRow
from poller.rules.workers import liveness, quota, worker_report
from poller.rules.workers.assignment import Move, WorkerGroup
from poller.rules.workers.worker_report import DEAD_MAX, WorkerReport

CALM_BEATS = 2
"""Heartbeats after the last worker came or went during which nobody asks for leases of others."""
SILENT_BEATS = 2.5
"""Heartbeats without news of a worker after which it gets no lease of others, until it is heard of again."""
FORGOTTEN_LEASES = 30
"""Lease times after which the row of a dead worker is removed."""
RETIRED_MAX = 10
"""Rows that are removed after one listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SeatReport:
    """What a mapping that runs here reports of itself.

    `able`: this worker can take its leases. `held`: leases that are held here. `requests`: moves to this worker that it asks
    for. `changes`: a number that changes when others have something to look at. `maximum`: of all workers together, if any.
    """

    mapping: MappingId
    able: bool = True
    held: int = 0
    requests: tuple[Move, ...] = ()
    changes: int = 0
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class SeatLeft:
    """A mapping does not run here any more."""

    mapping: MappingId


@dataclass(frozen=True, slots=True)
class WorkerLeaves:
    """This worker was asked to stop."""


type OwnChange = SeatReport | SeatLeft | WorkerLeaves


@dataclass(frozen=True, slots=True)
class WorkerListing:
    """The other workers' rows, and when the store was asked for them and answered.

    `reports` is read from the rows. `ended` are workers whose process has surely ended.
    """

    rows: Sequence[WorkerRow]
    reports: Mapping[WorkerId, WorkerReport]
    ended: frozenset[WorkerId]
    asked: Monotonic
    answered: Monotonic


@dataclass(frozen=True, slots=True, kw_only=True)
class HeartbeatEffects:
    """What to do after a step: mappings to wake, rows to remove, and whether the next heartbeat should not wait."""

    wake: tuple[MappingId, ...] = ()
    retire: tuple[WorkerId, ...] = ()
    beat_soon: bool = False


@dataclass(frozen=True, slots=True)
class HeartbeatTerm:
    """The present term: its number, and when its last heartbeat began. `beaten` is None before the first one and after a late one."""

    lease_s: float
    number: int = 0
    beaten: Monotonic | None = None

    @property
    def ends(self) -> Monotonic | None:
        """When the term is over unless another heartbeat gets through."""
        return None if self.beaten is None else Monotonic(self.beaten + self.lease_s)

    def fresh(self, now: Monotonic) -> bool:
        """Whether others must take this worker for alive: its last heartbeat began less than a lease time ago."""
        return self.beaten is not None and now - self.beaten < self.lease_s

    def expired(self, now: Monotonic) -> "HeartbeatTerm":
        """The next term, without a heartbeat yet, if a heartbeat was late; otherwise the same term."""
        late = self.beaten is not None and not self.fresh(now)
        return replace(self, number=self.number + 1, beaten=None) if late else self


@dataclass(frozen=True, slots=True)
class KnownWorkers:
    """What this worker knows of the others.

    `alive` has their reports. `seen_dead` has the counters of those that this worker itself saw dead. `listed` is when the
    last listing was asked for. `moved` is when a worker came or went, the first listing not counted.
    """

    sightings: liveness.Sightings = field(default_factory=dict)
    alive: Mapping[WorkerId, WorkerReport] = field(default_factory=dict)
    seen_dead: Mapping[WorkerId, int] = field(default_factory=dict)
    listed: Monotonic | None = None
    moved: Monotonic | None = None

    def after(self, listing: WorkerListing, *, lease_s: float) -> "KnownWorkers":
        """What is known after a listing.

        A worker is dead if this one saw its counter stand still, or if another worker did that is surely alive itself: its
        counter has moved since this worker first saw it.
        """
        rows, reports = listing.rows, listing.reports
        sightings = liveness.observed(self.sightings, rows, asked=listing.asked, answered=listing.answered)
        seen = liveness.dead(sightings, lease_s=lease_s)
        witnesses = liveness.beating(sightings) - seen
        told = liveness.told(rows, [reports[each].dead_workers() for each in witnesses])
        alive = {each: report for each, report in reports.items() if each not in seen | told | listing.ended}
        moved = self.moved
        if alive.keys() != self.alive.keys():
            moved = None if self.listed is None else listing.answered
        seen_dead = {row.worker: row.counter for row in rows if row.worker in seen}
        return KnownWorkers(sightings, alive, seen_dead, listing.asked, moved)


@dataclass(slots=True)
class _Seat:
    """A mapping that runs here. `announced`: others can know of it. `claimed`: of its maximum, before the last listing."""

    name: str
    report: SeatReport
    announced: bool = False
    claimed: int = 0


class GroupMember:
    """One worker among the others: what it reports, what it knows of them, and its term. `now` is its monotonic clock."""

    def __init__(self, worker: WorkerId, *, counter: int, lease_s: float, heartbeat_s: float) -> None:
        self._worker = worker
        self._counter = counter
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._seats: dict[MappingId, _Seat] = {}
        self._requests: dict[MappingId, tuple[Move, ...]] = {}
        self._held = 0
        self._leaving = False
        self._term = HeartbeatTerm(lease_s)
        self._reported = WorkerReport()
        self._others = KnownWorkers()

    @property
    def counter(self) -> int:
        """How the last heartbeat was numbered."""
        return self._counter

    @property
    def term(self) -> HeartbeatTerm:
        """The present term."""
        return self._term

    @property
    def accompanied(self) -> bool:
        """Whether there are other workers."""
        return bool(self._others.alive)

    # Verbs: each changes the state and says what to do.

    def update(self, change: OwnChange) -> HeartbeatEffects:
        """A mapping here begins, changes or ends, or the worker leaves."""
        match change:
            case SeatReport():
                return HeartbeatEffects(beat_soon=self._updated(change))
            case SeatLeft(mapping):
                self._held -= self._seats.pop(mapping).report.held
                self._requests.pop(mapping, None)
                return HeartbeatEffects(beat_soon=True)
            case WorkerLeaves():
                self._leaving = True
                return HeartbeatEffects(beat_soon=True)
            case never:
                assert_never(never)

    def report(
        self,
        *,
        rates: Mapping[MappingId, Mapping[ShardId, float]],
        used: Mapping[MappingId, int],
        process: Mapping[str, Any],
    ) -> WorkerReport:
        """What to write in the next heartbeat, with `counter`.

        `rates` has the records a second of each shard at work here, for every mapping that runs here. `used` is how much of
        a mapping's maximum is in use here, for every one with a maximum.
        """
        named = {seat.name: rates[mapping] for mapping, seat in self._seats.items()}
        seats, dead = self._seats.values(), self._others.seen_dead
        self._counter += 1
        return WorkerReport(
            on=tuple(sorted(named)),
            unable=tuple(sorted(seat.name for seat in seats if not seat.report.able)),
            leaving=self._leaving,
            held=self._held,
            load=round(sum(sum(each.values()) for each in named.values()), 1),
            wishes={worker_report.short(each): _shards(moves) for each, moves in self._requests.items()},
            rates={name: top for name, each in named.items() if (top := worker_report.busiest(each))},
            news={seat.name: seat.report.changes for seat in seats if seat.report.changes},
            claims=self._claims(used),
            process=dict(process),
            dead={worker: dead[worker] for worker in sorted(dead)[-DEAD_MAX:]},
        )

    def beaten(self, report: WorkerReport, *, began: Monotonic, now: Monotonic) -> HeartbeatEffects:
        """The heartbeat with this report, which began then, got through just now."""
        effects = self.expire(now)
        self._term = replace(self._term, beaten=began)
        self._reported = report
        for seat in self._seats.values():
            seat.announced = seat.announced or seat.name in report.on
        return effects

    def listed(self, listing: WorkerListing, *, used: Mapping[MappingId, int]) -> HeartbeatEffects:
        """The other workers' rows, listed after a heartbeat got through. `used` is as in `report`."""
        before, shown = self._others.alive, self._reported.claims
        self._others = self._others.after(listing, lease_s=self._lease_s)
        for seat in self._seats.values():
            seat.claimed = shown.get(seat.name, 0)
        old = liveness.forgotten(self._others.sightings, lease_s=self._lease_s, times=FORGOTTEN_LEASES)
        return HeartbeatEffects(
            wake=self._concerned(before),
            retire=tuple(sorted(listing.ended.union(old))[:RETIRED_MAX]),
            # A worker that has just come learns from this one's next heartbeat who is dead.
            beat_soon=self._others.alive.keys() != before.keys()
            or any(shown.get(name) != claim for name, claim in self._claims(used).items()),
        )

    def expire(self, now: Monotonic) -> HeartbeatEffects:
        """Ends the term if a heartbeat was late: others may take every lease that was held before."""
        before, self._term = self._term, self._term.expired(now)
        return HeartbeatEffects(wake=() if self._term is before else tuple(self._seats))

    # Questions: none changes anything.

    def lease_term(self, now: Monotonic) -> int | None:
        """The number of the term to which a lease belongs that is asked for now; None when no term runs.

        Ask before the store is asked for the lease. A lease that is asked for while no term runs never holds: others may
        take it before they see the next heartbeat.
        """
        return self._term.number if self._term.fresh(now) else None

    def holds(self, term: int | None, now: Monotonic) -> bool:
        """Whether a lease of this term (`lease_term`) still holds."""
        return term is not None and self._term.number == term and self._term.fresh(now)

    def allowed(self, mapping: MappingId, now: Monotonic) -> int:
        """How much of the mapping's maximum may be in use here; nothing while heartbeats do not get through."""
        seat = self._seats[mapping]
        maximum = seat.report.maximum
        assert maximum is not None, "only a mapping with a maximum is asked"
        if not self._term.fresh(now):
            return 0
        others = quota.claimed(mapping, maximum, self._others.alive)
        return quota.allowed(maximum, part=self._share(mapping, maximum), mine=seat.claimed, others=others)

    def ready(self, mapping: MappingId, now: Monotonic, *, after: Monotonic | None) -> bool:
        """Whether `group` can be asked: others can know of the mapping here, and were listed (`after` that moment, if given)."""
        listed = self._others.listed
        if not self._seats[mapping].announced or listed is None or not self._term.fresh(now):
            return False
        return after is None or listed > after

    def group(self, mapping: MappingId, now: Monotonic) -> WorkerGroup:
        """The workers of a mapping. Leases that this worker has asked for in other mappings count as its own already."""
        sightings, moved = self._others.sightings, self._others.moved
        others = (moves for each, moves in self._requests.items() if each != mapping)
        mine = msgspec.structs.replace(self._reported, held=self._held)
        return worker_report.team(
            mapping,
            me=self._worker,
            alive={**self._others.alive, self._worker: mine},
            coming=Counter(move.source for moves in others for move in moves),
            calm=moved is None or now - moved >= CALM_BEATS * self._heartbeat_s,
            silent=liveness.silent(sightings, for_s=SILENT_BEATS * self._heartbeat_s),
            unaware=liveness.unaware(sightings, lease_s=self._lease_s),
        )

    def at_work(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers that run a mapping, as far as this one knows."""
        name = worker_report.short(mapping)
        others = {worker for worker, report in self._others.alive.items() if name in report.on}
        return frozenset(others | {self._worker} if mapping in self._seats else others)

    def next_beat(self, began: Monotonic) -> Monotonic:
        """When to beat and list again after a round that began then: sooner if a worker is to be taken for dead before."""
        due = Monotonic(began + self._heartbeat_s)
        death = liveness.next_death(self._others.sightings, lease_s=self._lease_s)
        return due if death is None else min(due, death)

    def _updated(self, report: SeatReport) -> bool:
        """Takes in what a mapping reports; whether the others should know at once."""
        mapping = report.mapping
        new = mapping not in self._seats
        if new:
            self._seats[mapping] = _Seat(worker_report.short(mapping), SeatReport(mapping=mapping))
        seat = self._seats[mapping]
        before, seat.report = seat.report, report
        self._held += report.held - before.held
        if report.requests != before.requests:
            self._requests.pop(mapping, None)
            if report.requests:
                self._requests[mapping] = report.requests
        urgent = new or (before.able, before.requests) != (report.able, report.requests)
        return urgent or (report.changes != before.changes and self.accompanied)

    def _concerned(self, before: Mapping[WorkerId, WorkerReport]) -> tuple[MappingId, ...]:
        """Mappings that must look again: all if the group is another one, else those that others' reports concern."""
        alive = self._others.alive
        if worker_report.membership(alive) != worker_report.membership(before):
            return tuple(self._seats)
        stirred = worker_report.stirred(before, alive)
        return tuple(mapping for mapping, seat in self._seats.items() if seat.name in stirred)

    def _claims(self, used: Mapping[MappingId, int]) -> dict[str, int]:
        """What to claim of each maximum, by the mappings' short names."""
        return {
            seat.name: quota.claim(self._share(mapping, seat.report.maximum), used[mapping])
            for mapping, seat in self._seats.items()
            if seat.report.maximum is not None
        }

    def _share(self, mapping: MappingId, maximum: int) -> int:
        """This worker's equal share. It has none before it has listed the others, nor once it leaves."""
        if self._others.listed is None or self._leaving:
            return 0
        return quota.part(mapping, maximum, worker=self._worker, others=self._others.alive)


def _shards(moves: Sequence[Move]) -> tuple[str, ...]:
    return tuple(sorted(move.shard for move in moves))
