"""How long a free lease is left to the worker that shall have it."""

from hypothesis import given
from hypothesis import strategies as st

from poller.domain.records import Monotonic, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.workers.offers import (
    INHERITED_BEATS,
    RELEASED_BEATS,
    Offers,
    next_due,
    passed_over,
    renewed,
)

ANN, BOB, CAT, GONE = (WorkerId(name) for name in ("ann", "bob", "cat", "gone"))
SHARD = ShardId("a")
BEAT_S = 2.0


def lease(owner: WorkerId | None = None, epoch: int = 3) -> Lease:
    return Lease(SHARD, (), Checkpoint(Position.horizon()), owner, epoch)


def leaves(before: Offers, at: float, worker: WorkerId, found: Lease) -> Offers:
    return renewed(before, [(found, worker)], now=Monotonic(at), heartbeat_s=BEAT_S)


def late(offers: Offers, at: float, found: Lease) -> frozenset[WorkerId]:
    return passed_over(offers, [found], now=Monotonic(at)).get(SHARD, frozenset())


def test_a_lease_that_was_given_up_is_left_to_its_next_owner_for_some_heartbeats() -> None:
    offers = leaves({}, 100.0, ANN, lease())
    due = 100.0 + RELEASED_BEATS * BEAT_S
    assert next_due(offers) == due
    assert late(offers, due - 0.1, lease()) == frozenset()
    assert late(offers, due, lease()) == {ANN}


def test_a_lease_of_a_dead_worker_is_left_to_another_for_less_than_a_heartbeat() -> None:
    assert next_due(leaves({}, 100.0, ANN, lease(GONE))) == 100.0 + INHERITED_BEATS * BEAT_S


def test_decisions_in_between_do_not_prolong_an_offer() -> None:
    offers = leaves(leaves({}, 100.0, ANN, lease()), 101.0, ANN, lease())
    assert next_due(offers) == 105.0


def test_who_was_passed_over_stays_so_while_the_lease_is_free() -> None:
    offers = leaves(leaves({}, 100.0, ANN, lease()), 105.0, BOB, lease())
    assert late(offers, 105.0, lease()) == {ANN}
    assert late(offers, 110.0, lease()) == {ANN, BOB}


def test_a_lease_that_changed_hands_meanwhile_is_offered_again() -> None:
    offers = leaves({}, 100.0, ANN, lease())
    assert late(offers, 200.0, lease(epoch=4)) == frozenset()
    assert late(leaves(offers, 200.0, BOB, lease(epoch=4)), 200.0, lease(epoch=4)) == frozenset()


def test_a_lease_that_is_free_no_more_is_forgotten() -> None:
    assert renewed(leaves({}, 100.0, ANN, lease()), [], now=Monotonic(101.0), heartbeat_s=BEAT_S) == {}
    assert next_due({}) is None


@given(st.lists(st.floats(0.01, 9.0), min_size=1, max_size=30))
def test_a_worker_is_passed_over_exactly_when_its_time_is_over(waits_s: list[float]) -> None:
    now, offers = 0.0, leaves({}, 0.0, ANN, lease())
    for wait_s in waits_s:
        now += wait_s
        over = now >= RELEASED_BEATS * BEAT_S
        assert late(offers, now, lease()) == ({ANN} if over else frozenset())
        offers = leaves(offers, now, BOB if over else ANN, lease())
        if over:
            assert late(offers, now, lease()) == {ANN}
            return
