"""What a heartbeat decides: documented cases, and that a lease never holds at two workers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from poller.domain.records import MappingId, Monotonic, ShardId, WorkerId
from poller.domain.rows import WorkerRow
from poller.rules.workers import name_check, worker_report
from poller.rules.workers.assignment import Move
from poller.rules.workers.name_check import DOUBLES_MAX, NAME_CHECK_BEATS, NameCheck
from poller.rules.workers.worker_group import (
    CALM_BEATS,
    FORGOTTEN_LEASES,
    RETIRED_MAX,
    SILENT_BEATS,
    GroupMember,
    HeartbeatEffects,
    MappingLeft,
    MappingReport,
    WorkerLeaves,
    WorkerListing,
)
from poller.rules.workers.worker_report import WorkerReport, short

ANN, BOB, CAT = WorkerId("ann"), WorkerId("bob"), WorkerId("cat")
ORDERS, STOCK = MappingId("orders"), MappingId("stock")
LEASE_S, HEARTBEAT_S = 10.0, 1.0
NOTHING = HeartbeatEffects()


def running(*mappings: MappingId, **changes: Any) -> WorkerReport:
    """What a worker reports that runs these mappings."""
    return WorkerReport(running=tuple(map(short, mappings)), **changes)


@dataclass
class Play:
    """Ann's heartbeat, by hand. The store answers at once unless a test says otherwise."""

    member: GroupMember = field(
        default_factory=lambda: GroupMember(ANN, counter=0, lease_s=LEASE_S, heartbeat_s=HEARTBEAT_S)
    )
    rates: dict[MappingId, Mapping[ShardId, float]] = field(default_factory=dict)
    used: dict[MappingId, int] = field(default_factory=dict)

    def join(self, mapping: MappingId, **changes: Any) -> HeartbeatEffects:
        """A mapping that runs here."""
        report = MappingReport(mapping=mapping, **changes)
        self.rates.setdefault(mapping, {})
        if report.maximum is not None:
            self.used.setdefault(mapping, 0)
        return self.member.update(report)

    def report(self) -> WorkerReport:
        """What the next heartbeat says."""
        return self.member.report(rates=self.rates, used=self.used, process={})

    def beat(self, at: float, *, answered: float | None = None) -> HeartbeatEffects:
        """A heartbeat that begins at one moment and gets through at another."""
        now = Monotonic(at if answered is None else answered)
        return self.member.heartbeat_written(self.report(), began=Monotonic(at), now=now)

    def list(self, at: float, *ended: WorkerId, **others: tuple[int, WorkerReport]) -> HeartbeatEffects:
        """A listing that shows these counters and reports."""
        return self.member.workers_listed(listing(at, *ended, **others), used=self.used)

    def round(self, at: float, **others: tuple[int, WorkerReport]) -> HeartbeatEffects:
        """A heartbeat and a listing."""
        self.beat(at)
        return self.list(at, **others)


def listing(at: float, *ended: WorkerId, **others: tuple[int, WorkerReport]) -> WorkerListing:
    """A listing that took no time."""
    rows = [
        WorkerRow(WorkerId(name), counter, facts=worker_report.encode(report))
        for name, (counter, report) in others.items()
    ]
    reports = {row.worker: worker_report.decode(row.facts) for row in rows}
    return WorkerListing(rows, reports, frozenset(ended), Monotonic(at), Monotonic(at))


def test_a_heartbeat_counts_up_and_reports_what_runs_here() -> None:
    play = Play(rates={STOCK: {ShardId("a"): 1.26}})
    play.join(ORDERS, able=False, held=2, change_counter=3)
    play.join(STOCK, held=1, requests=(Move(ShardId("b"), BOB, ANN), Move(ShardId("a"), BOB, ANN)))
    assert play.report() == WorkerReport(
        running=tuple(sorted((short(ORDERS), short(STOCK)))),
        unable=(short(ORDERS),),
        held=3,
        load=1.3,
        requests={short(STOCK): ("a", "b")},
        rates={short(STOCK): {"a": 1.3}},
        change_counters={short(ORDERS): 3},
    )
    assert play.member.counter == 1
    play.member.update(MappingLeft(STOCK))
    play.member.update(WorkerLeaves())
    assert play.report() == running(
        ORDERS, unable=(short(ORDERS),), held=2, change_counters={short(ORDERS): 3}, leaving=True
    )
    assert play.member.counter == 2


@pytest.mark.parametrize(
    ("began", "got_through", "now", "holds"),
    [
        (0.0, 0.0, 9.9, True),
        (0.0, 0.0, 10.0, False),  # The lease time counts from the begin of the last heartbeat
        (0.0, 3.0, 10.0, False),  # and not from when it got through.
        (5.0, 5.0, 14.9, True),
        (5.0, 9.9, 14.9, True),
        (5.0, 10.0, 10.0, False),  # The one before was too old when this one got through: a new term.
        (11.0, 11.0, 11.0, False),
    ],
)
def test_a_lease_holds_as_long_as_no_heartbeat_was_late(
    began: float, got_through: float, now: float, holds: bool
) -> None:
    play = Play()
    play.beat(0.0)
    term = play.member.lease_term(Monotonic(0.0))
    if began > 0 or got_through > 0:
        play.beat(began, answered=got_through)
    assert play.member.holds(term, Monotonic(now)) is holds


def test_a_term_that_ended_wakes_all_mappings_once_and_a_heartbeat_begins_another() -> None:
    play = Play()
    play.join(ORDERS)
    play.join(STOCK)
    play.beat(0.0)
    first, lease = play.member.term, play.member.lease_term(Monotonic(9.9))
    assert first.ends == 10.0
    assert play.member.expire(Monotonic(9.9)) == NOTHING
    assert play.member.expire(Monotonic(10.0)) == HeartbeatEffects(wake=(ORDERS, STOCK))
    assert play.member.expire(Monotonic(11.0)) == NOTHING
    assert play.member.term.ends is None
    assert play.beat(12.0) == NOTHING
    second = play.member.term
    assert second.ends == 22.0
    assert not play.member.holds(lease, Monotonic(12.0))
    assert play.member.holds(play.member.lease_term(Monotonic(12.0)), Monotonic(12.0))


@pytest.mark.parametrize("expired", [False, True])
def test_a_lease_that_is_asked_for_after_a_late_heartbeat_never_holds(expired: bool) -> None:
    play = Play()
    before = play.member.lease_term(Monotonic(0.0))
    play.beat(0.0)
    if expired:
        play.member.expire(Monotonic(10.0))
    late = play.member.lease_term(Monotonic(10.0))
    assert not play.member.holds(late, Monotonic(10.0))
    play.beat(10.5)
    assert not play.member.holds(late, Monotonic(10.5))
    assert not play.member.holds(before, Monotonic(10.5))


def test_a_heartbeat_that_gets_through_late_wakes_all_mappings() -> None:
    play = Play()
    play.join(ORDERS)
    play.beat(0.0)
    assert play.beat(1.0, answered=10.0) == HeartbeatEffects(wake=(ORDERS,))


@pytest.mark.parametrize(
    ("change", "alone", "has_others"),
    [
        (MappingReport(mapping=STOCK), True, True),
        (MappingReport(mapping=ORDERS), False, False),
        (MappingReport(mapping=ORDERS, held=3), False, False),
        (MappingReport(mapping=ORDERS, able=False), True, True),
        (MappingReport(mapping=ORDERS, requests=(Move(ShardId("a"), BOB, ANN),)), True, True),
        (MappingReport(mapping=ORDERS, change_counter=1), False, True),
        (MappingLeft(ORDERS), True, True),
        (WorkerLeaves(), True, True),
    ],
)
def test_what_others_should_know_does_not_wait_for_the_next_heartbeat(
    change: MappingReport | MappingLeft | WorkerLeaves, alone: bool, has_others: bool
) -> None:
    for expected, others in ((alone, {}), (has_others, {"bob": (1, running(ORDERS))})):
        play = Play()
        play.join(ORDERS)
        play.round(0.0, **others)
        assert play.member.update(change) == HeartbeatEffects(beat_soon=expected)


def test_the_group_can_be_asked_once_others_know_of_the_mapping_and_were_listed() -> None:
    play = Play()

    def ready(at: float, *, after: float | None = None) -> bool:
        since = None if after is None else Monotonic(after)
        return play.member.ready(ORDERS, Monotonic(at), after=since)

    play.beat(0.0)
    play.join(ORDERS)
    play.list(0.1)
    assert not ready(0.1), "no heartbeat has reported it"
    play.beat(1.0)
    assert ready(1.0)
    assert not ready(1.0, after=0.1)
    play.list(1.1)
    assert ready(1.1, after=0.1)
    assert not ready(11.0), "the heartbeat is too old"
    play.member.update(MappingLeft(ORDERS))
    play.join(ORDERS)
    assert not ready(1.1), "another stay of the same mapping must be reported, too"


def test_a_group_has_who_is_alive_and_says_who_is_silent_and_whether_somebody_moved() -> None:
    play = Play()
    play.join(ORDERS, held=4)
    play.join(STOCK, requests=(Move(ShardId("a"), BOB, ANN),))
    play.round(0.0, bob=(1, running(ORDERS, held=9)))
    group = play.member.group(ORDERS, Monotonic(0.0))
    assert {worker: peer.held for worker, peer in group.peers.items()} == {ANN: 5, BOB: 8}
    assert (group.calm, group.silent) == (True, frozenset())
    play.round(1.0, bob=(1, running(ORDERS)), cat=(1, running(ORDERS)))
    assert not play.member.group(ORDERS, Monotonic(1.0 + CALM_BEATS - 0.1)).calm
    assert play.member.group(ORDERS, Monotonic(1.0 + CALM_BEATS)).calm
    play.round(SILENT_BEATS, bob=(1, running(ORDERS)), cat=(2, running(ORDERS)))
    assert play.member.group(ORDERS, Monotonic(SILENT_BEATS)).silent == {BOB}
    play.round(10.0, bob=(1, running(ORDERS)), cat=(9, running(ORDERS)))
    group = play.member.group(ORDERS, Monotonic(10.0))
    assert group.peers.keys() == {ANN, CAT}
    assert group.unaware == {BOB: {CAT}}
    assert play.report().dead == {"bob": 1}
    assert play.member.workers_of(ORDERS) == {ANN, CAT}
    assert play.member.workers_of(STOCK) == {ANN}


@pytest.mark.parametrize(
    ("says", "counter", "heard_again", "alive"),
    [
        ({"bob": 7}, 7, True, False),
        ({"bob": 6}, 7, True, True),  # Bob has beaten since.
        ({"bob": 7}, 7, False, True),  # Cat may be dead itself: its counter has not moved since it was met.
        ({}, 7, True, True),
    ],
)
def test_another_worker_is_believed_about_a_death_if_it_is_alive_and_nothing_moved_since(
    says: dict[str, int], counter: int, heard_again: bool, alive: bool
) -> None:
    play = Play()
    play.join(ORDERS)
    bob, cat = (counter, running(ORDERS)), running(ORDERS, dead=says)
    play.round(0.0, bob=bob, cat=(1, cat))
    play.round(1.0, bob=bob, cat=(2 if heard_again else 1, cat))
    assert (BOB in play.member.workers_of(ORDERS)) is alive
    assert play.report().dead == {}, "a worker reports only deaths that it saw itself"


def test_the_row_of_an_ended_process_goes_at_once_and_rows_of_the_long_dead_later() -> None:
    play = Play()
    assert play.list(0.0, BOB, bob=(1, running(ORDERS)), cat=(1, running(ORDERS))).retire == (BOB,)
    assert play.member.workers_of(ORDERS) == {CAT}
    long_s = FORGOTTEN_LEASES * LEASE_S
    assert play.list(long_s - 0.1, cat=(1, running(ORDERS))).retire == ()
    assert play.list(long_s, cat=(1, running(ORDERS))).retire == (CAT,)
    many = {f"worker-{number:02d}": (1, WorkerReport()) for number in range(RETIRED_MAX + 5)}
    retired = play.list(long_s, *map(WorkerId, many), **many).retire
    assert retired == tuple(sorted(many))[:RETIRED_MAX]


@pytest.mark.parametrize(
    ("before", "after", "woken"),
    [
        (running(ORDERS), running(ORDERS, load=3.0, held=7), ()),
        (running(ORDERS), running(ORDERS, requests={short(ORDERS): ("a",)}), (ORDERS,)),
        (running(ORDERS), running(ORDERS, change_counters={short(STOCK): 1}), (STOCK,)),
        (running(ORDERS), running(ORDERS, leaving=True), (ORDERS, STOCK)),
        (running(ORDERS), running(), (ORDERS, STOCK)),
        (running(ORDERS), None, (ORDERS, STOCK)),
        (None, running(), (ORDERS, STOCK)),
        (None, None, ()),
    ],
)
def test_a_mapping_is_woken_when_others_report_something_that_concerns_it(
    before: WorkerReport | None, after: WorkerReport | None, woken: tuple[MappingId, ...]
) -> None:
    play = Play()
    play.join(ORDERS)
    play.join(STOCK)
    play.round(0.0, **({} if before is None else {"bob": (1, before)}))
    effects = play.round(1.0, **({} if after is None else {"bob": (2, after)}))
    came_or_went = (before is None) is not (after is None)
    assert effects == HeartbeatEffects(wake=woken, beat_soon=came_or_went)


def test_the_next_round_comes_after_a_heartbeat_or_when_somebody_is_to_be_taken_for_dead() -> None:
    play = Play()
    assert play.member.next_beat(Monotonic(3.0)) == 4.0
    play.round(0.0, bob=(1, WorkerReport()))
    assert play.member.next_beat(Monotonic(9.5)) == 10.0
    assert play.member.next_beat(Monotonic(8.5)) == 9.5
    play.round(10.0, bob=(1, WorkerReport()))
    assert play.member.next_beat(Monotonic(10.0)) == 11.0


def test_a_maximum_is_used_only_as_far_as_it_was_claimed_before_the_listing() -> None:
    play = Play()
    play.join(STOCK, maximum=6)

    def allowed(at: float) -> int:
        return play.member.allowed(STOCK, Monotonic(at))

    play.beat(0.0)
    assert allowed(0.0) == 0, "nobody was listed yet"
    assert play.list(0.0).beat_soon, "the share is known now and not yet claimed"
    assert allowed(0.0) == 0
    assert play.round(0.1) == NOTHING
    assert allowed(0.1) == 6
    assert play.round(1.0, bob=(1, running(STOCK, claims={short(STOCK): 0}))).beat_soon
    assert allowed(1.0) == 3, "the share of two"
    play.used[STOCK] = 5
    assert play.report().claims == {short(STOCK): 5}, "what still runs is claimed, too"
    play.round(2.0, bob=(2, running(STOCK, claims={short(STOCK): 4})))
    assert allowed(2.0) == 2, "what the other one's claim leaves"
    play.member.update(WorkerLeaves())
    assert allowed(2.0) == 0
    assert play.report().claims == {short(STOCK): 5}


def test_nothing_of_a_maximum_may_be_used_while_heartbeats_do_not_get_through() -> None:
    play = Play()
    play.join(STOCK, maximum=6)
    play.round(0.0)
    play.round(1.0)
    assert play.member.allowed(STOCK, Monotonic(10.9)) == 6
    assert play.member.allowed(STOCK, Monotonic(11.0)) == 0


def test_a_mapping_that_comes_again_must_claim_again() -> None:
    play = Play()
    play.join(STOCK, maximum=6)
    play.round(0.0)
    play.round(1.0)
    play.member.update(MappingLeft(STOCK))
    play.join(STOCK, maximum=6)
    assert play.member.allowed(STOCK, Monotonic(1.0)) == 0


MINE, THEIRS = {"pid": 1}, {"pid": 2}


@pytest.mark.parametrize(
    ("processes", "taken"),
    [
        ([THEIRS] * DOUBLES_MAX, True),
        ([THEIRS] * (DOUBLES_MAX - 1), False),
        ([THEIRS, MINE, THEIRS], False),
        ([THEIRS, {}, THEIRS], False),
        ([None, None, None], False),
    ],
)
def test_a_name_is_taken_when_another_process_wrote_the_row_twice_in_a_row(
    processes: list[dict[str, int] | None], taken: bool
) -> None:
    check = NameCheck()
    other = WorkerRow(BOB, 1, facts=worker_report.encode(WorkerReport(process=THEIRS)))
    for process in processes:
        mine = [] if process is None else [WorkerRow(ANN, 1, facts={"process": process})]
        check = check.after([other, *mine], ANN, mine=MINE)
    assert check.taken is taken


@pytest.mark.parametrize(
    ("process", "runs", "held"),
    [(THEIRS, True, True), (THEIRS, False, False), (MINE, True, False), (None, True, False)],
)
def test_a_name_is_held_by_a_neighbour_that_runs(
    process: dict[str, int] | None, runs: bool, held: bool
) -> None:
    other = WorkerRow(BOB, 1, facts=worker_report.encode(WorkerReport(process=THEIRS)))
    mine = [] if process is None else [WorkerRow(ANN, 1, facts={"process": process})]
    found = name_check.used_by_neighbour([other, *mine], ANN, mine=MINE, runs=lambda each: runs)
    assert found is held


@pytest.mark.parametrize(
    ("counter", "mine", "in_term", "due"),
    [
        (NAME_CHECK_BEATS, MINE, True, True),
        (NAME_CHECK_BEATS + 1, MINE, True, False),
        (NAME_CHECK_BEATS, {}, True, False),
        (NAME_CHECK_BEATS, MINE, False, True),
        (NAME_CHECK_BEATS + 1, MINE, False, True),
        (NAME_CHECK_BEATS + 1, {}, False, False),
    ],
)
def test_the_name_is_checked_now_and_then(
    counter: int, mine: dict[str, int], in_term: bool, due: bool
) -> None:
    assert name_check.due(counter, mine=mine, in_term=in_term) is due
