"""A lease never holds at two workers, whatever the delays and however clocks are set."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.records import MappingId, Monotonic, WorkerId
from poller.domain.rows import WorkerRow
from poller.rules.workers import worker_report
from poller.rules.workers.worker_group import GroupMember, MappingReport, WorkerListing

ANN, ORDERS = WorkerId("ann"), MappingId("orders")
LEASE_S, HEARTBEAT_S = 10.0, 1.0


@dataclass
class StoreModel:
    """Rows of workers, and one lease: a worker that takes it must have seen the present epoch."""

    rows: dict[WorkerId, WorkerRow] = field(default_factory=dict)
    owner: WorkerId | None = None
    epoch: int = 0

    def take(self, worker: WorkerId, epoch: int) -> int | None:
        """The new epoch; None if another worker was faster."""
        if epoch != self.epoch:
            return None
        self.owner, self.epoch = worker, self.epoch + 1
        return self.epoch


class LeaseUser:
    """A worker that beats, lists, and takes the lease when it may. Every call has a sending, an effect and an answer.

    Time passes between any two of them, and both kinds of call go on beside each other. A process may sleep at any moment; a
    batch that it has begun goes on meanwhile. Its heartbeats may be cut off from the store.
    """

    def __init__(self, worker: WorkerId, store: StoreModel, *, clock_ahead_s: float, rng: Random) -> None:
        self.worker, self.store, self.rng, self.ahead_s = worker, store, rng, clock_ahead_s
        self.member = GroupMember(worker, counter=0, lease_s=LEASE_S, heartbeat_s=HEARTBEAT_S)
        self.member.update(MappingReport(mapping=ORDERS))
        self.held: int | None = None
        self.taken_late = False
        self.asleep_until = 0.0
        self.cut_off_until = 0.0
        self.now = Monotonic(0.0)
        self.beats = self._beats()
        self.takes = self._takes()

    def step(self, true_s: float) -> None:
        """The next step of one of the two."""
        self.now = Monotonic(true_s + self.ahead_s)
        next(self.rng.choice((self.beats, self.beats, self.takes)))
        if self.rng.random() < 0.3:
            self.member.expire(self.now)

    def holds(self, true_s: float) -> bool:
        """Whether this worker uses the lease."""
        return self.member.holds(self.held, Monotonic(true_s + self.ahead_s))

    def _beats(self) -> Iterator[None]:
        while True:
            report, began = self.member.report(rates={ORDERS: {}}, used={}, process={}), self.now
            row = WorkerRow(self.worker, self.member.counter, facts=worker_report.encode(report))
            yield
            cut_off = self.now - self.ahead_s < self.cut_off_until
            lost = "call" if cut_off else self.rng.choice(("", "", "", "call", "answer"))
            if lost != "call":
                self.store.rows[self.worker] = row
            yield
            if lost:
                self.member.expire(self.now)
                continue
            self.member.heartbeat_written(report, began=began, now=self.now)
            asked = self.now
            yield
            rows = [row for row in self.store.rows.values() if row.worker != self.worker]
            yield
            reports = {row.worker: worker_report.decode(row.facts) for row in rows}
            self.member.workers_listed(WorkerListing(rows, reports, frozenset(), asked, self.now), used={})
            yield

    def _takes(self) -> Iterator[None]:
        while True:
            owner, epoch, asked = self.store.owner, self.store.epoch, self.now
            yield
            if self.holds(self.now - self.ahead_s):
                if self.rng.random() < 0.2:
                    self.held, self.store.owner = None, None
                continue
            while not self.member.ready(ORDERS, self.now, after=asked):
                yield
            group = self.member.group(ORDERS, self.now)
            if owner not in (None, self.worker) and group.alive(owner):
                continue
            # A worker has other things to do between its decision and the take, such as the takes of other leases.
            busy_until = self.now + self.rng.choice((0.0, 0.0, 0.0, LEASE_S, 2 * LEASE_S))
            while self.now < busy_until:
                yield
            late, term = not self.member.term.fresh(self.now), self.member.lease_term(self.now)
            yield
            taken = self.store.take(self.worker, epoch)
            yield
            if taken is not None:
                self.held, self.taken_late = term, late


@settings(max_examples=150)
@given(st.integers(0, 2**32), st.integers(2, 4), st.sampled_from((0.1, 0.4, 1.0)))
def test_a_lease_never_holds_at_two_workers(seed: int, workers: int, pace_s: float) -> None:
    rng, store, true_s = Random(seed), StoreModel(), 0.0
    users = [
        LeaseUser(WorkerId(f"worker-{number}"), store, clock_ahead_s=rng.uniform(-1e5, 1e5), rng=rng)
        for number in range(workers)
    ]
    for _ in range(600):
        true_s += rng.choice((0.0, pace_s, pace_s * rng.random()))
        if rng.random() < 0.05:
            rng.choice(users).asleep_until = true_s + 1.5 * LEASE_S * rng.random()
        if rng.random() < 0.02:
            rng.choice(users).cut_off_until = true_s + 3 * LEASE_S * rng.random()
        awake = [user for user in users if user.asleep_until <= true_s]
        if awake:
            rng.choice(awake).step(true_s)
        holders = [user for user in users if user.holds(true_s)]
        assert [user.worker for user in holders][1:] == []
        assert not any(user.taken_late for user in holders)


@dataclass
class Term:
    """A second definition of a term: heartbeats that were written, each within a lease time of the begin of the one before."""

    number: int = 0
    until: float = 0.0

    def beat(self, began: float, now: float) -> None:
        """A heartbeat gets through."""
        if now >= self.until:
            self.number += 1
        self.until = began + LEASE_S

    def lease(self, now: float) -> int | None:
        """The term to which a lease belongs that is asked for now."""
        return self.number if now < self.until else None


STEPS = st.tuples(
    st.sampled_from(("beat", "expire", "list", "ask", "lose")),
    st.sampled_from((0.0, 0.5, 4.0, 9.5, 10.0, 11.0)),
)


@given(st.lists(STEPS, max_size=30))
def test_a_lease_holds_if_it_was_asked_for_in_a_term_that_still_runs(steps: list[tuple[str, float]]) -> None:
    member, model, now = GroupMember(ANN, counter=0, lease_s=LEASE_S, heartbeat_s=HEARTBEAT_S), Term(), 0.0
    asked: list[tuple[int | None, int | None]] = []
    for step, takes_s in [("ask", 0.0), *steps]:
        began, now = now, now + takes_s
        match step:
            case "beat":
                report = member.report(rates={}, used={}, process={})
                member.heartbeat_written(report, began=Monotonic(began), now=Monotonic(now))
                model.beat(began, now)
            case "expire":
                member.expire(Monotonic(now))
            case "list":
                listing = WorkerListing([], {}, frozenset(), Monotonic(began), Monotonic(now))
                member.workers_listed(listing, used={})
            case "ask":
                asked.append((member.lease_term(Monotonic(now)), model.lease(now)))
            case _:
                """A heartbeat that does not get through, or a pause."""
        present = model.lease(now)
        assert [member.holds(term, Monotonic(now)) for term, _ in asked] == [
            expected is not None and expected == present for _, expected in asked
        ]
