"""Heartbeats, what workers say in them, and measured rates."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import MappingId, Monotonic, ShardId, WorkerId
from poller.domain.rows import WorkerRow
from poller.rules.workers.liveness import (
    Sightings,
    dead,
    long_dead,
    next_death,
    observe,
    reported_dead,
    seen_alive,
    silent,
    unaware,
)
from poller.rules.workers.load import Meter, measured
from poller.rules.workers.worker_report import (
    WorkerReport,
    busiest,
    changed_mappings,
    decode,
    encode,
    group_view,
    memberships,
    short,
)

ANN, BOB = WorkerId("ann"), WorkerId("bob")
ORDERS, STOCK = MappingId("orders"), MappingId("stock")
LEASE_S = 10.0


def listed(before: Sightings, at: float, **counters: int) -> Sightings:
    """A listing that took no time."""
    rows = [WorkerRow(WorkerId(worker), counter) for worker, counter in counters.items()]
    return observe(before, rows, asked=Monotonic(at), answered=Monotonic(at))


def test_a_heartbeat_that_stood_still_for_the_lease_time_marks_a_dead_worker() -> None:
    seen = listed({}, 100.0, ann=7, bob=1)
    seen = listed(seen, 109.9, ann=7, bob=2)
    assert dead(seen, lease_s=LEASE_S) == frozenset()
    assert next_death(seen, lease_s=LEASE_S) == 110.0
    seen = listed(seen, 110.0, ann=7, bob=3)
    assert dead(seen, lease_s=LEASE_S) == {ANN}
    assert next_death(seen, lease_s=LEASE_S) == 120.0


def test_a_dead_worker_that_beats_again_is_alive() -> None:
    seen = listed(listed({}, 0.0, ann=7), 50.0, ann=7)
    assert dead(seen, lease_s=LEASE_S) == {ANN}
    assert dead(listed(seen, 51.0, ann=8), lease_s=LEASE_S) == frozenset()


def test_a_counter_that_begins_again_is_a_heartbeat() -> None:
    seen = listed(listed({}, 0.0, ann=700), 20.0, ann=1)
    assert dead(seen, lease_s=LEASE_S) == frozenset()


def test_nobody_is_dead_because_the_observer_slept() -> None:
    seen = listed(listed({}, 0.0, ann=7), 1.0, ann=8)
    assert dead(seen, lease_s=LEASE_S) == frozenset()
    assert dead(listed(seen, 500.0, ann=400), lease_s=LEASE_S) == frozenset()


def test_a_slow_listing_never_makes_a_heartbeat_look_older() -> None:
    row = [WorkerRow(ANN, 7)]
    seen = observe({}, row, asked=Monotonic(0.0), answered=Monotonic(5.0))
    seen = observe(seen, row, asked=Monotonic(14.9), answered=Monotonic(30.0))
    assert dead(seen, lease_s=LEASE_S) == frozenset()
    assert dead(observe(seen, row, asked=Monotonic(15.0), answered=Monotonic(31.0)), lease_s=LEASE_S) == {ANN}


def test_a_worker_that_came_after_anothers_last_heartbeat_cannot_know_of_its_death() -> None:
    seen = listed({}, 0.0, ann=7, bob=1)
    seen = listed(seen, 1.0, ann=8, bob=2)
    seen = listed(seen, 5.0, ann=8, bob=6, cat=1)
    assert unaware(seen, lease_s=LEASE_S) == {}
    seen = listed(seen, 11.0, ann=8, bob=12, cat=7)
    assert unaware(seen, lease_s=LEASE_S) == {ANN: {"cat"}}


def test_who_has_just_come_believes_those_that_saw_a_worker_dead() -> None:
    rows = [WorkerRow(ANN, 7), WorkerRow(BOB, 9)]
    assert reported_dead(rows, [{ANN: 7}, {}]) == {ANN}
    assert reported_dead(rows, [{ANN: 6}, {WorkerId("gone"): 7}]) == frozenset()


def test_only_a_worker_that_was_heard_of_twice_is_believed() -> None:
    seen = listed({}, 0.0, ann=7, bob=1)
    assert seen_alive(seen) == frozenset()
    assert seen_alive(listed(seen, 1.0, ann=7, bob=2)) == {BOB}


def test_a_worker_is_silent_as_long_as_nothing_new_is_heard_of_it() -> None:
    seen = listed(listed({}, 0.0, ann=7, bob=1), 2.5, ann=7, bob=2)
    assert silent(seen, for_s=2.5) == {ANN}
    assert silent(listed(seen, 3.0, ann=8, bob=2), for_s=2.5) == frozenset()


def test_rows_of_workers_long_dead_are_forgotten() -> None:
    seen = listed(listed({}, 0.0, ann=7, bob=1), 300.0, ann=7, bob=2)
    assert long_dead(seen, lease_s=LEASE_S, times=30) == (ANN,)
    assert long_dead(seen, lease_s=LEASE_S, times=31) == ()


@given(st.lists(st.tuples(st.floats(0.1, 5.0), st.booleans()), min_size=1, max_size=60))
def test_a_worker_is_dead_exactly_when_its_counter_was_seen_to_stand_still_so_long(
    looks: list[tuple[float, bool]],
) -> None:
    now, counter, since = 0.0, 0, 0.0
    seen = listed({}, now, ann=counter)
    for passed_s, beats in looks:
        now += passed_s
        if beats:
            counter, since = counter + 1, now
        seen = listed(seen, now, ann=counter)
        assert (ANN in dead(seen, lease_s=LEASE_S)) is (now - since >= LEASE_S)


FULL = WorkerReport(
    running=(short(ORDERS), short(STOCK)),
    unable=(short(STOCK),),
    leaving=True,
    held=12,
    load=34.5,
    requests={short(ORDERS): ("a", "b")},
    rates={short(ORDERS): {"a": 1.5}},
    change_counters={short(ORDERS): 3},
    process={"pid": 7},
)


def test_a_row_has_the_keys_that_workers_of_earlier_versions_read_and_write() -> None:
    report = WorkerReport(
        running=("m1", "m2"),
        unable=("m2",),
        leaving=True,
        held=12,
        load=34.5,
        requests={"m1": ("a", "b")},
        rates={"m1": {"a": 1.5}},
        change_counters={"m1": 3},
        claims={"m2": 5},
        process={"pid": 7},
        dead={"bob": 9},
        functions={"f1": 500_000},
        closed={"f1": 11},
    )
    row = (
        '{"on": ["m1", "m2"], "unable": ["m2"], "leaving": true, "held": 12, "load": 34.5, "wishes": {"m1": ["a", "b"]}, '
        '"rates": {"m1": {"a": 1.5}}, "news": {"m1": 3}, "claims": {"m2": 5}, "process": {"pid": 7}, "dead": {"bob": 9}, '
        '"functions": {"f1": 500000}, "closed": {"f1": 11}}'
    )
    assert json.dumps(encode(report)) == row
    assert decode(json.loads(row)) == report
    assert len(json.loads(row)) == len(msgspec.structs.fields(WorkerReport)), (
        "a new field belongs into this test"
    )


def test_a_report_survives_being_written() -> None:
    assert decode(encode(FULL)) == FULL
    assert encode(WorkerReport()) == {}


@pytest.mark.parametrize("facts", [{"on": 7}, {"wishes": {"x": 1}}, {"held": "many"}])
def test_a_report_of_an_unlike_version_counts_as_empty(facts: dict[str, Any]) -> None:
    assert decode(facts) == WorkerReport()


def test_what_a_newer_version_adds_is_ignored() -> None:
    assert decode({"held": 3, "mood": "good"}) == WorkerReport(held=3)


def test_only_the_busiest_shards_are_reported() -> None:
    rates = {ShardId(f"shard-{number:03d}"): number * 1.04 for number in range(100)}
    found = busiest(rates)
    assert len(found) == 16
    assert next(iter(found.items())) == ("shard-099", 103.0)
    assert busiest({ShardId("a"): 0.01}) == {}


def running(*mappings: MappingId, **changes: Any) -> WorkerReport:
    return WorkerReport(running=tuple(map(short, mappings)), **changes)


def test_a_group_has_the_workers_that_run_the_mapping_and_can() -> None:
    cat, dan, eve = WorkerId("cat"), WorkerId("dan"), WorkerId("eve")
    alive = {
        ANN: running(ORDERS, held=4, load=2.0, rates={short(ORDERS): {"a": 1.0}}),
        BOB: running(ORDERS, requests={short(ORDERS): ("a",), short(STOCK): ("z",)}),
        cat: running(STOCK),
        dan: running(ORDERS, leaving=True),
        eve: running(ORDERS, unable=(short(ORDERS),)),
    }
    found = group_view(ORDERS, me=ANN, alive=alive, coming={BOB: 2}, calm=True)
    assert found.peers.keys() == {ANN, BOB}
    assert found.others == {dan, eve}
    assert found.leaving == {dan}
    assert (found.peers[ANN].held, found.peers[BOB].held) == (6, -2)
    assert (found.peers[ANN].load, found.peers[ANN].rates) == (2.0, {"a": 1.0})
    assert found.peers[BOB].requests == {"a"}


def test_load_does_not_change_the_memberships_and_coming_and_going_does() -> None:
    before = memberships({ANN: running(ORDERS)})
    assert memberships({ANN: running(ORDERS, load=3.0, held=2)}) == before
    for changed in (
        {ANN: running(ORDERS, leaving=True)},
        {ANN: running()},
        {},
        {ANN: running(ORDERS), BOB: running()},
    ):
        assert memberships(changed) != before


def test_requests_and_change_counters_concern_their_own_mappings() -> None:
    before = {
        ANN: running(ORDERS, STOCK, requests={short(ORDERS): ("a",)}, change_counters={short(STOCK): 1})
    }
    assert changed_mappings(before, before) == frozenset()
    fewer = {ANN: running(ORDERS, STOCK, change_counters={short(STOCK): 1})}
    assert changed_mappings(before, fewer) == {short(ORDERS)}
    more = {ANN: running(ORDERS, STOCK, requests={short(ORDERS): ("a",)}, change_counters={short(STOCK): 2})}
    assert changed_mappings(before, more) == {short(STOCK)}
    assert changed_mappings({}, before) == {short(ORDERS), short(STOCK)}


def test_a_rate_follows_what_is_counted_and_forgets() -> None:
    meter = Meter(Monotonic(0.0))
    assert measured(meter, 100, Monotonic(4.9)) == meter
    meter = measured(meter, 600, Monotonic(60.0))
    assert meter.rate == 10.0
    slower = measured(meter, 600, Monotonic(75.0))
    assert slower.rate == pytest.approx(7.5)
    assert measured(slower, 600, Monotonic(200.0)).rate == 0.0
