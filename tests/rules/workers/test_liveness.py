"""Heartbeats, what workers say in them, and measured rates."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import MappingId, Monotonic, ShardId, WorkerId
from poller.domain.rows import WorkerRow
from poller.rules.workers.liveness import (
    Sightings,
    beating,
    dead,
    forgotten,
    next_death,
    observed,
    silent,
    told,
    unaware,
)
from poller.rules.workers.load import Meter, metered
from poller.rules.workers.worker_report import (
    WorkerReport,
    busiest,
    membership,
    read,
    short,
    stirred,
    team,
    written,
)

ANN, BOB = WorkerId("ann"), WorkerId("bob")
ORDERS, STOCK = MappingId("orders"), MappingId("stock")
LEASE_S = 10.0


def looked(before: Sightings, at: float, **counters: int) -> Sightings:
    """A listing that took no time."""
    rows = [WorkerRow(WorkerId(worker), counter) for worker, counter in counters.items()]
    return observed(before, rows, asked=Monotonic(at), answered=Monotonic(at))


def test_a_heartbeat_that_stood_still_for_the_lease_time_marks_a_dead_worker() -> None:
    seen = looked({}, 100.0, ann=7, bob=1)
    seen = looked(seen, 109.9, ann=7, bob=2)
    assert dead(seen, lease_s=LEASE_S) == frozenset()
    assert next_death(seen, lease_s=LEASE_S) == 110.0
    seen = looked(seen, 110.0, ann=7, bob=3)
    assert dead(seen, lease_s=LEASE_S) == {ANN}
    assert next_death(seen, lease_s=LEASE_S) == 120.0


def test_a_dead_worker_that_beats_again_is_alive() -> None:
    seen = looked(looked({}, 0.0, ann=7), 50.0, ann=7)
    assert dead(seen, lease_s=LEASE_S) == {ANN}
    assert dead(looked(seen, 51.0, ann=8), lease_s=LEASE_S) == frozenset()


def test_a_counter_that_begins_anew_is_a_heartbeat() -> None:
    seen = looked(looked({}, 0.0, ann=700), 20.0, ann=1)
    assert dead(seen, lease_s=LEASE_S) == frozenset()


def test_nobody_is_dead_because_the_observer_slept() -> None:
    seen = looked(looked({}, 0.0, ann=7), 1.0, ann=8)
    assert dead(seen, lease_s=LEASE_S) == frozenset()
    assert dead(looked(seen, 500.0, ann=400), lease_s=LEASE_S) == frozenset()


def test_a_slow_listing_never_makes_a_heartbeat_look_older() -> None:
    row = [WorkerRow(ANN, 7)]
    seen = observed({}, row, asked=Monotonic(0.0), answered=Monotonic(5.0))
    seen = observed(seen, row, asked=Monotonic(14.9), answered=Monotonic(30.0))
    assert dead(seen, lease_s=LEASE_S) == frozenset()
    assert dead(observed(seen, row, asked=Monotonic(15.0), answered=Monotonic(31.0)), lease_s=LEASE_S) == {
        ANN
    }


def test_a_worker_that_came_after_anothers_last_heartbeat_cannot_know_of_its_death() -> None:
    seen = looked({}, 0.0, ann=7, bob=1)
    seen = looked(seen, 1.0, ann=8, bob=2)
    seen = looked(seen, 5.0, ann=8, bob=6, cat=1)
    assert unaware(seen, lease_s=LEASE_S) == {}
    seen = looked(seen, 11.0, ann=8, bob=12, cat=7)
    assert unaware(seen, lease_s=LEASE_S) == {ANN: {"cat"}}


def test_who_has_just_come_believes_those_that_saw_a_worker_dead() -> None:
    rows = [WorkerRow(ANN, 7), WorkerRow(BOB, 9)]
    assert told(rows, [{ANN: 7}, {}]) == {ANN}
    assert told(rows, [{ANN: 6}, {WorkerId("gone"): 7}]) == frozenset()


def test_only_a_worker_that_was_heard_of_twice_is_believed() -> None:
    seen = looked({}, 0.0, ann=7, bob=1)
    assert beating(seen) == frozenset()
    assert beating(looked(seen, 1.0, ann=7, bob=2)) == {BOB}


def test_a_worker_is_silent_as_long_as_nothing_new_is_heard_of_it() -> None:
    seen = looked(looked({}, 0.0, ann=7, bob=1), 2.5, ann=7, bob=2)
    assert silent(seen, for_s=2.5) == {ANN}
    assert silent(looked(seen, 3.0, ann=8, bob=2), for_s=2.5) == frozenset()


def test_rows_of_workers_long_dead_are_forgotten() -> None:
    seen = looked(looked({}, 0.0, ann=7, bob=1), 300.0, ann=7, bob=2)
    assert forgotten(seen, lease_s=LEASE_S, times=30) == (ANN,)
    assert forgotten(seen, lease_s=LEASE_S, times=31) == ()


@given(st.lists(st.tuples(st.floats(0.1, 5.0), st.booleans()), min_size=1, max_size=60))
def test_a_worker_is_dead_exactly_when_its_counter_was_seen_to_stand_still_so_long(
    looks: list[tuple[float, bool]],
) -> None:
    now, counter, since = 0.0, 0, 0.0
    seen = looked({}, now, ann=counter)
    for passed_s, beats in looks:
        now += passed_s
        if beats:
            counter, since = counter + 1, now
        seen = looked(seen, now, ann=counter)
        assert (ANN in dead(seen, lease_s=LEASE_S)) is (now - since >= LEASE_S)


FULL = WorkerReport(
    on=(short(ORDERS), short(STOCK)),
    unable=(short(STOCK),),
    leaving=True,
    held=12,
    load=34.5,
    wishes={short(ORDERS): ("a", "b")},
    rates={short(ORDERS): {"a": 1.5}},
    news={short(ORDERS): 3},
    process={"pid": 7},
)


def test_facts_survive_being_written() -> None:
    assert read(written(FULL)) == FULL
    assert written(WorkerReport()) == {}


@pytest.mark.parametrize("told", [{"on": 7}, {"wishes": {"x": 1}}, {"held": "many"}])
def test_facts_of_an_unlike_version_say_nothing(told: dict[str, Any]) -> None:
    assert read(told) == WorkerReport()


def test_what_a_newer_version_adds_is_passed_over() -> None:
    assert read({"held": 3, "mood": "good"}) == WorkerReport(held=3)


def test_only_the_busiest_shards_are_told() -> None:
    rates = {ShardId(f"shard-{number:03d}"): number * 1.04 for number in range(100)}
    told = busiest(rates)
    assert len(told) == 16
    assert next(iter(told.items())) == ("shard-099", 103.0)
    assert busiest({ShardId("a"): 0.01}) == {}


def on(*mappings: MappingId, **changes: Any) -> WorkerReport:
    return WorkerReport(on=tuple(map(short, mappings)), **changes)


def test_a_team_has_who_runs_the_mapping_and_can() -> None:
    cat, dan, eve = WorkerId("cat"), WorkerId("dan"), WorkerId("eve")
    alive = {
        ANN: on(ORDERS, held=4, load=2.0, rates={short(ORDERS): {"a": 1.0}}),
        BOB: on(ORDERS, wishes={short(ORDERS): ("a",), short(STOCK): ("z",)}),
        cat: on(STOCK),
        dan: on(ORDERS, leaving=True),
        eve: on(ORDERS, unable=(short(ORDERS),)),
    }
    found = team(ORDERS, me=ANN, alive=alive, coming={BOB: 2}, calm=True)
    assert found.peers.keys() == {ANN, BOB}
    assert found.others == {dan, eve}
    assert found.leaving == {dan}
    assert (found.peers[ANN].held, found.peers[BOB].held) == (6, -2)
    assert (found.peers[ANN].load, found.peers[ANN].rates) == (2.0, {"a": 1.0})
    assert found.peers[BOB].wishes == {"a"}


def test_load_does_not_change_the_membership_and_coming_and_going_does() -> None:
    before = membership({ANN: on(ORDERS)})
    assert membership({ANN: on(ORDERS, load=3.0, held=2)}) == before
    for changed in ({ANN: on(ORDERS, leaving=True)}, {ANN: on()}, {}, {ANN: on(ORDERS), BOB: on()}):
        assert membership(changed) != before


def test_wishes_and_news_stir_their_own_mappings() -> None:
    before = {ANN: on(ORDERS, STOCK, wishes={short(ORDERS): ("a",)}, news={short(STOCK): 1})}
    assert stirred(before, before) == frozenset()
    assert stirred(before, {ANN: on(ORDERS, STOCK, news={short(STOCK): 1})}) == {short(ORDERS)}
    more = {ANN: on(ORDERS, STOCK, wishes={short(ORDERS): ("a",)}, news={short(STOCK): 2})}
    assert stirred(before, more) == {short(STOCK)}
    assert stirred({}, before) == {short(ORDERS), short(STOCK)}


def test_a_rate_follows_what_is_counted_and_forgets() -> None:
    meter = Meter(Monotonic(0.0))
    assert metered(meter, 100, Monotonic(4.9)) == meter
    meter = metered(meter, 600, Monotonic(60.0))
    assert meter.rate == 10.0
    slower = metered(meter, 600, Monotonic(75.0))
    assert slower.rate == pytest.approx(7.5)
    assert metered(slower, 600, Monotonic(200.0)).rate == 0.0
