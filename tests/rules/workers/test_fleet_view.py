"""The view of all workers: what is shown of each shard and queue, how old it is, and that nothing depends on an order."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import SHARD_END, Epoch, MappingId, Monotonic, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingState, WorkerRow
from poller.domain.status import (
    LaneStatus,
    MappingStatus,
    ShardStatus,
    WorkerState,
)
from poller.rules.reconciling import FINE, FUNCTION_FAILED, NOTHING_YET
from poller.rules.workers import worker_report
from poller.rules.workers.fleet_state import WorkerResult, fleet_result, fleet_state
from poller.rules.workers.fleet_view import (
    Fleet,
    HeardWorker,
    KnownLeases,
    heard_workers,
    limited,
    merged,
    worker_statuses,
)
from poller.rules.workers.status_digest import MappingDigest, StatusDigest, digest_of
from poller.rules.workers.worker_group import KnownWorkers, WorkerListing
from poller.rules.workers.worker_report import WorkerReport

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders.fifo"
ORDERS, AUDIT = MappingId("orders"), MappingId("audit")
ANN, BOB, CID = WorkerId("ann"), WorkerId("bob"), WorkerId("cid")
SINCE = Epoch(1_767_225_600.0)
AT = Position.after("7")
BAD = LaneStatus(lane="0", state="waiting", attempts=4, blocked_since=SINCE, last_error="ValueError: no")


def shard(name: str, state: str = "reading", *lanes: LaneStatus, owner: str = "ann") -> ShardStatus:
    return ShardStatus(shard=ShardId(name), state=state, position="AFTER:9", owner=owner, lanes=lanes)


def mapping(*shards: ShardStatus, name: MappingId = ORDERS, **fields: object) -> MappingStatus:
    given: dict[str, object] = {"source_arn": STREAM, "state": MappingState.ENABLED} | fields
    return MappingStatus(mapping=name, function="f", shards=shards, **given)  # type: ignore[arg-type]  # a test's own fields


def lease(name: str, owner: WorkerId | None, position: Position = AT, *parents: str) -> Lease:
    return Lease(ShardId(name), tuple(map(ShardId, parents)), Checkpoint(position), owner, 3)


def heard(
    *statuses: MappingStatus, age_s: float = 0.5, state: WorkerState = WorkerState.ALIVE
) -> HeardWorker:
    return HeardWorker(
        state=state,
        age_s=age_s,
        running=frozenset(worker_report.short(each.mapping) for each in statuses),
        digest=digest_of(statuses),
    )


def fleet(
    others: Mapping[WorkerId, HeardWorker], *leases: Lease, age_s: float = 1.0, of: MappingId = ORDERS
) -> Fleet:
    return Fleet(me=ANN, others=others, leases={of: KnownLeases(leases, age_s)} if leases else {})


def shown(status: MappingStatus) -> list[tuple[str, str, str, float | None, bool]]:
    return [(each.shard, each.state, each.owner, each.age_s, each.out_of_date) for each in status.shards]


def test_a_shard_of_another_worker_has_its_leases_owner_and_position_and_its_digests_state() -> None:
    bob = heard(mapping(shard("b", "blocked", BAD, owner="bob"), shard("c", owner="bob")))
    own = mapping(shard("a"), shard("b", "elsewhere", owner="bob"), shard("c", "elsewhere", owner="bob"))
    (found,) = merged([own], fleet({BOB: bob}, lease("a", ANN), lease("b", BOB), lease("c", BOB)))
    assert shown(found) == [
        ("a", "reading", "ann", 0.0, False),
        ("b", "blocked", "bob", 1.0, False),
        ("c", "reading", "bob", 1.0, False),
    ]
    assert [each.position for each in found.shards] == ["AFTER:9", AT.encode(), AT.encode()]
    assert found.shards[1].lanes == (BAD,)
    assert [(each.worker, each.blocked) for each in found.workers] == [("ann", 0), ("bob", 1)]
    assert found.blocked


def test_what_is_old_is_marked_and_shows_its_age() -> None:
    bob = heard(mapping(shard("b", "blocked", BAD)), age_s=12.0, state=WorkerState.DEAD)
    own = mapping(shard("b", "elsewhere", owner="bob"))
    (found,) = merged([own], fleet({BOB: bob}, lease("b", BOB)))
    assert shown(found) == [("b", "blocked", "bob", 12.0, True)]
    assert [(each.worker, each.age_s, each.out_of_date) for each in found.workers] == [
        ("ann", 0.0, False),
        ("bob", 12.0, True),
    ]
    (late,) = merged([own], fleet({BOB: heard(mapping())}, lease("b", BOB), age_s=7.0))
    assert shown(late) == [("b", "reading", "bob", 7.0, True)]


@pytest.mark.parametrize(("age_s", "old"), [(0.0, False), (5.0, False), (5.1, True)])
def test_news_are_out_of_date_after_five_seconds(age_s: float, old: bool) -> None:
    (found,) = merged([mapping()], fleet({BOB: heard(mapping(), age_s=age_s)}, lease("b", BOB), age_s=0.0))
    assert [each.out_of_date for each in found.shards] == [old]
    assert [each.out_of_date for each in found.workers] == [False, old]


def test_a_digests_word_about_a_shard_of_another_owner_is_ignored() -> None:
    bob = heard(mapping(shard("b", "blocked", BAD, owner="bob")), age_s=20.0)
    own = mapping(shard("a"))
    (found,) = merged([own], fleet({BOB: bob, CID: heard(mapping())}, lease("b", CID)))
    assert shown(found) == [("a", "reading", "ann", 0.0, False), ("b", "reading", "cid", 1.0, False)]


def test_what_this_worker_runs_is_as_it_says_itself() -> None:
    own = mapping(shard("a", "blocked", BAD))
    bob = heard(mapping(shard("a", "starting", owner="bob")))
    (found,) = merged([own], fleet({BOB: bob}, lease("a", BOB)))
    assert found.shards == own.shards


def test_a_worker_without_a_digest_leaves_the_state_unknown() -> None:
    old = HeardWorker(state=WorkerState.ALIVE, age_s=0.1, running=frozenset({worker_report.short(ORDERS)}))
    (found,) = merged([mapping()], fleet({BOB: old}, lease("b", BOB)))
    assert shown(found) == [("b", "elsewhere", "bob", 1.0, False)]
    assert [(each.worker, each.reason) for each in found.workers] == [
        ("ann", ""),
        ("bob", "its status is not known"),
    ]
    assert "writes no digest" in worker_statuses(fleet({BOB: old}))[1].note


def test_where_a_digest_left_something_out_no_shard_is_said_to_read() -> None:
    short = StatusDigest((MappingDigest(mapping(), blocked=3, left_out=3),), mappings_left_out=2)
    bob = HeardWorker(state=WorkerState.ALIVE, age_s=0.0, digest=short)
    (found,) = merged([mapping()], fleet({BOB: bob}, lease("b", BOB)))
    assert (found.shards[0].state, found.workers[1].left_out, found.blocked) == ("elsewhere", 3, True)
    assert worker_statuses(fleet({BOB: bob}))[1].note == (
        "2 mappings with 0 blocked shards or lanes do not fit into its digest; ask it"
    )


def test_an_owner_that_nobody_has_heard_is_said_so() -> None:
    (found,) = merged([mapping()], fleet({BOB: heard()}, lease("b", CID)))
    assert shown(found) == [("b", "elsewhere", "cid", None, True)]


def test_without_leases_the_own_last_look_is_shown_as_out_of_date() -> None:
    own = mapping(shard("a"), shard("b", "elsewhere", owner="bob"), shard("c", "free", owner=""))
    (found,) = merged([own], fleet({BOB: heard(mapping(shard("b", "failing")))}))
    assert shown(found) == [
        ("a", "reading", "ann", 0.0, False),
        ("b", "failing", "bob", None, True),
        ("c", "free", "", None, True),
    ]


def test_free_waiting_and_ended_shards() -> None:
    own = mapping(
        shard("a"),
        shard("free", "free", owner=""),
        shard("taken", "free", owner=""),
        shard("child", "waiting", owner=""),
    )
    (found,) = merged(
        [own],
        fleet(
            {BOB: heard(mapping())},
            lease("a", ANN),
            lease("free", None),
            lease("taken", BOB),
            lease("done", None, SHARD_END),
            lease("gone from the stream", None),
            lease("child", None, AT, "a"),
        ),
    )
    assert [each[:3] for each in shown(found)] == [
        ("a", "reading", "ann"),
        ("free", "free", ""),
        ("taken", "reading", "bob"),
        ("child", "waiting", ""),
    ]


def test_a_mapping_that_only_others_run_is_shown_too() -> None:
    there = mapping(shard("b", "failing", owner="bob"), name=AUDIT, reason="no access")
    leases = (lease("b", BOB), lease("done", None, SHARD_END), lease("next", None, AT, "b"), lease("x", None))
    own, found = merged([mapping()], fleet({BOB: heard(there)}, *leases, of=AUDIT))
    assert (own.mapping, found.mapping, found.state) == (ORDERS, AUDIT, MappingState.ENABLED)
    assert (found.reason, [each.worker for each in found.workers]) == ("at bob: no access", ["bob"])
    assert [each[:2] for each in shown(found)] == [("b", "failing"), ("next", "waiting"), ("x", "free")]


def test_a_queues_lanes_and_pollers_are_those_of_all_workers() -> None:
    group = replace(BAD, lane="g")
    own = mapping(source_arn=QUEUE, lanes=(replace(BAD, lane="h"),), pollers=2)
    bob = heard(mapping(source_arn=QUEUE, lanes=(group,), pollers=3))
    dead = heard(mapping(source_arn=QUEUE, lanes=(group,), pollers=9), age_s=30.0, state=WorkerState.DEAD)
    (found,) = merged([own], fleet({CID: dead, BOB: bob}))
    assert [(each.lane, each.worker) for each in found.lanes] == [("h", "ann"), ("g", "bob")]
    assert (found.pollers, [each.blocked for each in found.workers]) == (5, [1, 1, 1])


def test_one_worker_alone() -> None:
    bob = heard(mapping(shard("b", "blocked", BAD), reason="slow"), mapping(name=AUDIT))
    own = mapping(shard("a"), lanes=(replace(BAD, lane="g"),))
    everything = merged([own], fleet({BOB: bob}, lease("a", ANN), lease("b", BOB)))
    ann, (orders, audit) = limited(everything, "ann"), limited(everything, "bob")
    assert ([each.shard for each in ann[0].shards], len(ann[0].lanes), ann[0].reason) == (["a"], 1, "")
    assert ([each.shard for each in orders.shards], orders.lanes, orders.reason) == (["b"], (), "slow")
    assert (audit.mapping, [each.worker for each in audit.workers]) == (AUDIT, ["bob"])
    assert limited(everything, "cid") == ()


S = MappingState


@pytest.mark.parametrize(
    ("own", "others", "state"),
    [
        (S.ENABLED, [], S.ENABLED),
        (S.ENABLED, [S.ENABLED], S.ENABLED),
        (S.CREATING, [S.ENABLED], S.ENABLED),
        (S.CREATING, [], S.CREATING),
        (S.ENABLING, [S.DISABLED], S.ENABLING),
        (S.DISABLED, [S.ENABLED], S.DISABLING),
        (S.DISABLED, [S.DISABLING], S.DISABLING),
        (S.DISABLED, [S.DISABLED], S.DISABLED),
        (S.ENABLED, [S.DISABLED], S.ENABLED),
        (S.ENABLED, [S.UPDATING], S.UPDATING),
        (S.ENABLED, [S.BROKEN, S.ENABLED], S.BROKEN),
        (S.DELETING, [S.BROKEN], S.DELETING),
        (S.ENABLED, [S.DELETING], S.DELETING),
        (None, [S.ENABLED, S.DISABLED], S.ENABLED),
        (None, [S.CREATING], S.CREATING),
    ],
)
def test_the_state_of_all(own: MappingState | None, others: list[MappingState], state: MappingState) -> None:
    assert fleet_state(own, others) is state
    assert fleet_state(own, others[::-1]) is state


PROBLEM = "PROBLEM: no access"


@pytest.mark.parametrize(
    ("results", "text"),
    [
        ([], ""),
        ([("", None, False)], ""),
        ([(NOTHING_YET, None, False), (NOTHING_YET, None, False)], NOTHING_YET),
        ([(NOTHING_YET, None, False), (FINE, 60, False)], FINE),
        ([(FINE, 600, False), (FUNCTION_FAILED, 120, False)], FINE),
        ([(FINE, 120, False), (FUNCTION_FAILED, 600, False)], FUNCTION_FAILED),
        ([(FINE, 130, False), (FUNCTION_FAILED, 121, False)], FUNCTION_FAILED),
        ([(FINE, 600, False), (FUNCTION_FAILED, 60, True)], FUNCTION_FAILED),
        ([(PROBLEM, 600, True), (FUNCTION_FAILED, 60, True)], PROBLEM),
        ([(FINE, 60, True), (FUNCTION_FAILED, 0, False)], FINE),
    ],
)
def test_the_last_result_of_all(results: Sequence[tuple[str, int | None, bool]], text: str) -> None:
    given = [WorkerResult(said, None if at is None else Epoch(at), bad) for said, at, bad in results]
    assert fleet_result(given) == text
    assert fleet_result(given[::-1]) == text


def test_a_worker_out_of_date_counts_neither_for_the_state_nor_for_the_result() -> None:
    own = mapping(state=S.DISABLED, last_result=FINE, result_at=SINCE)
    there = mapping(shard("b", "blocked", BAD), last_result=FUNCTION_FAILED, result_at=SINCE)
    (found,) = merged([own], fleet({BOB: heard(there, age_s=9.0)}))
    assert (found.state, found.last_result) == (S.DISABLED, FINE)
    (fresh,) = merged([own], fleet({BOB: heard(there)}))
    assert (fresh.state, fresh.last_result) == (S.DISABLING, FUNCTION_FAILED)


def test_how_workers_are_seen() -> None:
    known, found = KnownWorkers(), {}
    reports = {BOB: WorkerReport(running=("x",)), CID: WorkerReport(leaving=True)}
    for at, counter in ((0.0, 1), (1.0, 2), (7.0, 2), (11.0, 2)):
        rows = [WorkerRow(BOB, counter), WorkerRow(CID, int(at))]
        listing = WorkerListing(rows, reports, frozenset(), Monotonic(at), Monotonic(at))
        known = known.after(listing, lease_s=10.0)
        found = heard_workers(known, {}, now=Monotonic(at + 0.5), digest_age_s=0.2, fresh_s=5.0)
        if at == 7.0:
            assert (found[BOB].state, found[BOB].age_s, found[BOB].running) == (
                WorkerState.SILENT,
                6.5,
                frozenset({"x"}),
            )
    assert (found[BOB].state, found[BOB].age_s) == (WorkerState.DEAD, 10.5)
    assert (found[CID].state, found[CID].age_s) == (WorkerState.LEAVING, 0.5)
    late = heard_workers(known, {}, now=Monotonic(11.5), digest_age_s=4.0, fresh_s=5.0)
    assert late[CID].age_s == 4.0, "what was read of it is older than its heartbeat"


NAMES = st.sampled_from(["a", "b", "c", "d"])
OWNERS = st.sampled_from([ANN, BOB, CID, WorkerId("dan")])
STATES = st.sampled_from(["reading", "blocked", "failing", "draining"])


@st.composite
def statuses(draw: st.DrawFn, owner: WorkerId) -> MappingStatus:
    """One worker's own status."""
    names = draw(st.lists(NAMES, unique=True))
    shards = []
    for name in names:
        state = draw(STATES)
        shards.append(shard(name, state, *([BAD] if state == "blocked" else []), owner=owner))
    return mapping(*shards, name=draw(st.sampled_from([ORDERS, AUDIT])))


@given(data=st.data())
def test_no_blocked_shard_is_lost_and_the_order_of_workers_does_not_matter(data: st.DataObject) -> None:
    own = data.draw(statuses(ANN))
    there = {worker: data.draw(statuses(worker)) for worker in (BOB, CID)}
    ages = {worker: data.draw(st.floats(0, 20)) for worker in there}
    others = {worker: heard(status, age_s=ages[worker]) for worker, status in there.items()}
    owners = {name: data.draw(OWNERS) for name in data.draw(st.lists(NAMES, unique=True))}
    leases = [lease(name, owner) for name, owner in owners.items()]
    first = merged([own], fleet(others, *leases))
    again = merged([own], fleet(dict(reversed(others.items())), *reversed(leases)))
    assert first == again
    found = {each.mapping: each for each in first}
    shards = {each.shard: each for each in found[ORDERS].shards} if ORDERS in found else {}
    for name, owner in owners.items() if ORDERS in found else ():
        status = own if owner == ANN else there.get(owner)
        assert name in shards or owner == ANN, "each owned shard is shown"
        if status is None or status.mapping != ORDERS:
            continue
        ours = {each.shard for each in own.shards} if own.mapping == ORDERS else set()
        said = {each.shard: each.state for each in status.shards}
        if owner != ANN and name not in ours:
            assert shards[ShardId(name)].state == said.get(ShardId(name), "reading")
    for worker, status in {ANN: own, **there}.items():
        row = next(each for each in found[status.mapping].workers if each.worker == worker)
        assert row.blocked == sum(each.blocked for each in status.shards)


def test_this_worker_is_among_the_workers() -> None:
    found = worker_statuses(fleet({CID: heard(), BOB: heard(age_s=6.0, state=WorkerState.SILENT)}))
    assert [(each.worker, each.state, each.out_of_date) for each in found] == [
        ("ann", WorkerState.ALIVE, False),
        ("bob", WorkerState.SILENT, True),
        ("cid", WorkerState.ALIVE, False),
    ]
