"""Owns what a heartbeat decides: who is alive, whether this worker's leases still hold, how much of a maximum it may use.

About once a second a worker writes one row to the store: a counter that grows, and a report of itself. That is its
heartbeat. Then it lists the rows of all workers. No row carries a time, and no two machines' clocks are compared, because
they may differ by seconds. Each worker measures on its own clock how long it saw another counter stand still. It uses the
monotonic clock, because the time of day can be set back or forward. Monotonic clocks are assumed to run equally fast.

Two rules keep two workers from using one lease. A worker gives its own leases up when its last heartbeat *began* a lease
time ago. Another worker takes it for dead when it *saw* the counter stand still for a lease time. A heartbeat begins before
another worker can see it, so the owner always stops first.

A *term* lasts until a heartbeat is late. Then every lease that was taken in it is lost for good, because another worker may
have taken it meanwhile. The next heartbeat that reaches the store begins a new term. Between the two no term runs, and a lease
that is taken then never holds, because the other workers still take this worker for dead. A lease remembers the number of its
term, and is checked before every batch and write. A process may be paused between the check and a write. Then the store refuses
the write by its fence, the owner and epoch of the lease.

A *quota claim* says how much of a mapping's maximum a worker may have in use. A worker uses no more than it claimed in a
heartbeat before it listed the others, and no more than their claims leave. Of two workers that claim at the same moment, at
least one sees the other's claim.

The runtime calls `report`, writes the report, calls `heartbeat_written`, lists the rows, and calls `workers_listed`. It may call
`update` at any time. It calls `expire` at `term.ends`.
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
"""For so many heartbeats after a worker came or went, no worker requests leases of others."""
SILENT_BEATS = 2.5
"""A worker whose counter stood still for so many heartbeats gets no free lease until its counter moves again."""
FORGOTTEN_LEASES = 30
"""The row of a worker is removed when its counter stood still for so many lease times."""
RETIRED_MAX = 10
"""Rows that are removed after one listing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MappingReport:
    """What a mapping that runs on this worker reports of itself.

    `able` says whether this worker can take its leases. `held` is how many leases this worker has. `requests` are the moves to
    this worker that it requests. `change_counter` grows when the other workers should check the mapping's leases. `maximum` is
    what all workers together may have in use; None without a limit.
    """

    mapping: MappingId
    able: bool = True
    held: int = 0
    requests: tuple[Move, ...] = ()
    change_counter: int = 0
    maximum: int | None = None


@dataclass(frozen=True, slots=True)
class MappingLeft:
    """A mapping does not run on this worker any more."""

    mapping: MappingId


@dataclass(frozen=True, slots=True)
class WorkerLeaves:
    """This worker was asked to stop."""


type OwnChange = MappingReport | MappingLeft | WorkerLeaves


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
    """The present term: its number, and when its last heartbeat began.

    `last_began` is None before the first heartbeat and after a late one: then no term runs.
    """

    lease_s: float
    number: int = 0
    last_began: Monotonic | None = None

    @property
    def ends(self) -> Monotonic | None:
        """When the term is over unless another heartbeat reaches the store before."""
        return None if self.last_began is None else Monotonic(self.last_began + self.lease_s)

    def fresh(self, now: Monotonic) -> bool:
        """Whether others must take this worker for alive: its last heartbeat began less than a lease time ago."""
        return self.last_began is not None and now - self.last_began < self.lease_s

    def expired(self, now: Monotonic) -> "HeartbeatTerm":
        """The next term, without a heartbeat yet, if a heartbeat was late; otherwise the same term."""
        late = self.last_began is not None and not self.fresh(now)
        return replace(self, number=self.number + 1, last_began=None) if late else self


@dataclass(frozen=True, slots=True)
class KnownWorkers:
    """What this worker knows of the others.

    `alive` has the reports of the live ones. `seen_dead` has the counters of those that this worker itself saw dead. `listed` is
    when the last listing was asked for. `moved` is when a worker last came or went; the first listing does not count.
    """

    sightings: liveness.Sightings = field(default_factory=dict)
    alive: Mapping[WorkerId, WorkerReport] = field(default_factory=dict)
    seen_dead: Mapping[WorkerId, int] = field(default_factory=dict)
    listed: Monotonic | None = None
    moved: Monotonic | None = None

    def after(self, listing: WorkerListing, *, lease_s: float) -> "KnownWorkers":
        """What is known after a listing.

        A worker is dead if this worker saw its counter stand still for the lease time. It is also dead if another worker reports
        that, and that other worker is surely alive: its counter has moved since this worker first saw it.
        """
        rows, reports = listing.rows, listing.reports
        sightings = liveness.observe(self.sightings, rows, asked=listing.asked, answered=listing.answered)
        seen = liveness.dead(sightings, lease_s=lease_s)
        witnesses = liveness.seen_alive(sightings) - seen
        reported = liveness.reported_dead(rows, [reports[each].dead_workers() for each in witnesses])
        alive = {
            each: report for each, report in reports.items() if each not in seen | reported | listing.ended
        }
        moved = self.moved
        if alive.keys() != self.alive.keys():
            moved = None if self.listed is None else listing.answered
        seen_dead = {row.worker: row.counter for row in rows if row.worker in seen}
        return KnownWorkers(sightings, alive, seen_dead, listing.asked, moved)


@dataclass(slots=True)
class _OwnMapping:
    """A mapping that runs on this worker.

    `announced` says whether a heartbeat has reported it. `claimed` is this worker's quota claim before the last listing.
    """

    name: str
    report: MappingReport
    announced: bool = False
    claimed: int = 0


class GroupMember:
    """One worker of the group: what it reports, what it knows of the others, and its term. `now` is its monotonic clock."""

    def __init__(self, worker: WorkerId, *, counter: int, lease_s: float, heartbeat_s: float) -> None:
        self._worker = worker
        self._counter = counter
        self._lease_s = lease_s
        self._heartbeat_s = heartbeat_s
        self._mappings: dict[MappingId, _OwnMapping] = {}
        self._requests: dict[MappingId, tuple[Move, ...]] = {}
        self._held = 0
        self._leaving = False
        self._term = HeartbeatTerm(lease_s)
        self._reported = WorkerReport()
        self._others = KnownWorkers()

    @property
    def counter(self) -> int:
        """The number of the last heartbeat."""
        return self._counter

    @property
    def term(self) -> HeartbeatTerm:
        """The present term."""
        return self._term

    @property
    def others(self) -> KnownWorkers:
        """What is known of the others."""
        return self._others

    @property
    def has_others(self) -> bool:
        """Whether there are other workers."""
        return bool(self._others.alive)

    # Verbs: each changes the state and says what to do.

    def update(self, change: OwnChange) -> HeartbeatEffects:
        """Takes in that a mapping of this worker began, changed or ended, or that the worker leaves."""
        match change:
            case MappingReport():
                return HeartbeatEffects(beat_soon=self._update_mapping(change))
            case MappingLeft(mapping):
                self._held -= self._mappings.pop(mapping).report.held
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
        """Moves `counter` on, and returns what to write with it in the next heartbeat.

        `rates` has, for every mapping of this worker, the records a second of each shard that this worker reads. `used` has, for
        every mapping with a maximum, how much of it this worker has in use.
        """
        named = {own.name: rates[mapping] for mapping, own in self._mappings.items()}
        own_mappings, dead = self._mappings.values(), self._others.seen_dead
        self._counter += 1
        return WorkerReport(
            running=tuple(sorted(named)),
            unable=tuple(sorted(own.name for own in own_mappings if not own.report.able)),
            leaving=self._leaving,
            held=self._held,
            load=round(sum(sum(each.values()) for each in named.values()), 1),
            requests={worker_report.short(each): _shards(moves) for each, moves in self._requests.items()},
            rates={name: top for name, each in named.items() if (top := worker_report.busiest(each))},
            change_counters={
                own.name: own.report.change_counter for own in own_mappings if own.report.change_counter
            },
            claims=self._claims(used),
            process=dict(process),
            dead={worker: dead[worker] for worker in sorted(dead)[-DEAD_MAX:]},
        )

    def heartbeat_written(
        self, report: WorkerReport, *, began: Monotonic, now: Monotonic
    ) -> HeartbeatEffects:
        """The store has taken the heartbeat with this report, which was sent at the moment `began`."""
        effects = self.expire(now)
        self._term = replace(self._term, last_began=began)
        self._reported = report
        for own in self._mappings.values():
            own.announced = own.announced or own.name in report.running
        return effects

    def workers_listed(self, listing: WorkerListing, *, used: Mapping[MappingId, int]) -> HeartbeatEffects:
        """Takes in the other workers' rows, which were listed after a heartbeat was written. `used` is as in `report`."""
        before, shown = self._others.alive, self._reported.claims
        self._others = self._others.after(listing, lease_s=self._lease_s)
        for own in self._mappings.values():
            own.claimed = shown.get(own.name, 0)
        old = liveness.long_dead(self._others.sightings, lease_s=self._lease_s, times=FORGOTTEN_LEASES)
        return HeartbeatEffects(
            wake=self._mappings_to_wake(before),
            retire=tuple(sorted(listing.ended.union(old))[:RETIRED_MAX]),
            # A worker that has just come learns from this one's next heartbeat who is dead.
            beat_soon=self._others.alive.keys() != before.keys()
            or any(shown.get(name) != claim for name, claim in self._claims(used).items()),
        )

    def expire(self, now: Monotonic) -> HeartbeatEffects:
        """Ends the term if a heartbeat is late. Others may take every lease of that term."""
        before, self._term = self._term, self._term.expired(now)
        return HeartbeatEffects(wake=() if self._term is before else tuple(self._mappings))

    # Questions: none changes anything.

    def lease_term(self, now: Monotonic) -> int | None:
        """The number of the term of a lease that this worker is about to take; None when no term runs.

        Call this before the store is asked for the lease. A lease that is taken while no term runs never holds: others may
        take it before they see the next heartbeat.
        """
        return self._term.number if self._term.fresh(now) else None

    def holds(self, term: int | None, now: Monotonic) -> bool:
        """Whether a lease of this term (`lease_term`) still holds."""
        return term is not None and self._term.number == term and self._term.fresh(now)

    def allowed(self, mapping: MappingId, now: Monotonic) -> int:
        """How much of the mapping's maximum this worker may have in use; 0 while its heartbeats are late."""
        own = self._mappings[mapping]
        maximum = own.report.maximum
        assert maximum is not None, "only a mapping with a maximum is asked"
        if not self._term.fresh(now):
            return 0
        others = quota.claimed_by_others(mapping, maximum, self._others.alive)
        return quota.allowed(maximum, share=self._share(mapping, maximum), mine=own.claimed, others=others)

    def ready(self, mapping: MappingId, now: Monotonic, *, after: Monotonic | None) -> bool:
        """Whether `group` may be called: a heartbeat has reported the mapping, and the others were listed.

        With `after`, the listing must have begun after that moment.
        """
        listed = self._others.listed
        if not self._mappings[mapping].announced or listed is None or not self._term.fresh(now):
            return False
        return after is None or listed > after

    def group(self, mapping: MappingId, now: Monotonic) -> WorkerGroup:
        """The workers of a mapping. Leases that this worker has requested in other mappings count as its own already."""
        sightings, moved = self._others.sightings, self._others.moved
        others = (moves for each, moves in self._requests.items() if each != mapping)
        mine = msgspec.structs.replace(self._reported, held=self._held)
        return worker_report.group_view(
            mapping,
            me=self._worker,
            alive={**self._others.alive, self._worker: mine},
            coming=Counter(move.source for moves in others for move in moves),
            calm=moved is None or now - moved >= CALM_BEATS * self._heartbeat_s,
            silent=liveness.silent(sightings, for_s=SILENT_BEATS * self._heartbeat_s),
            unaware=liveness.unaware(sightings, lease_s=self._lease_s),
        )

    def workers_of(self, mapping: MappingId) -> frozenset[WorkerId]:
        """Live workers that run a mapping, as far as this worker knows. It is among them if it runs the mapping itself."""
        name = worker_report.short(mapping)
        others = {worker for worker, report in self._others.alive.items() if name in report.running}
        return frozenset(others | {self._worker} if mapping in self._mappings else others)

    def next_beat(self, began: Monotonic) -> Monotonic:
        """When the next round of heartbeat and listing is due, after one that began at `began`.

        It is due sooner than usual if another worker's lease time is over sooner.
        """
        due = Monotonic(began + self._heartbeat_s)
        death = liveness.next_death(self._others.sightings, lease_s=self._lease_s)
        return due if death is None else min(due, death)

    def _update_mapping(self, report: MappingReport) -> bool:
        """Takes in what a mapping reports. Returns whether the other workers should know at once."""
        mapping = report.mapping
        new = mapping not in self._mappings
        if new:
            self._mappings[mapping] = _OwnMapping(
                worker_report.short(mapping), MappingReport(mapping=mapping)
            )
        own = self._mappings[mapping]
        before, own.report = own.report, report
        self._held += report.held - before.held
        if report.requests != before.requests:
            self._requests.pop(mapping, None)
            if report.requests:
                self._requests[mapping] = report.requests
        urgent = new or (before.able, before.requests) != (report.able, report.requests)
        return urgent or (report.change_counter != before.change_counter and self.has_others)

    def _mappings_to_wake(self, before: Mapping[WorkerId, WorkerReport]) -> tuple[MappingId, ...]:
        """Mappings that must check their leases: all if workers or their mappings changed, else those that others' reports name."""
        alive = self._others.alive
        if worker_report.memberships(alive) != worker_report.memberships(before):
            return tuple(self._mappings)
        changed = worker_report.changed_mappings(before, alive)
        return tuple(mapping for mapping, own in self._mappings.items() if own.name in changed)

    def _claims(self, used: Mapping[MappingId, int]) -> dict[str, int]:
        """The quota claim of each mapping with a maximum, by short name."""
        return {
            own.name: quota.claim(self._share(mapping, own.report.maximum), used[mapping])
            for mapping, own in self._mappings.items()
            if own.report.maximum is not None
        }

    def _share(self, mapping: MappingId, maximum: int) -> int:
        """This worker's equal share of a maximum; 0 before it has listed the others, and after it was asked to stop."""
        if self._others.listed is None or self._leaving:
            return 0
        return quota.share(mapping, maximum, worker=self._worker, others=self._others.alive)


def _shards(moves: Sequence[Move]) -> tuple[str, ...]:
    return tuple(sorted(move.shard for move in moves))
