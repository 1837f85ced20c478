"""Breakers in the digests of workers, and in the view of all of them."""

import zlib

import pytest

from poller.domain.records import Epoch, WorkerId
from poller.domain.status import BreakerStatus, FunctionStatus, WorkerState
from poller.rules.workers.fleet_breakers import functions_of_all
from poller.rules.workers.fleet_view import Fleet, HeardWorker, worker_statuses
from poller.rules.workers.status_digest import (
    BREAKERS_MAX,
    DIGEST_BYTES_MAX,
    StatusDigest,
    decode,
    digest_of,
    encode,
)
from tests.hostile_texts import HOSTILE

ANN, BOB = WorkerId("ann"), WorkerId("bob")
OPEN = BreakerStatus(
    state="open", since=Epoch(100.0), reason="5 of 5 calls failed", next_try=Epoch(130.0), calls=5, failed=5
)
CLOSED = BreakerStatus(state="closed", since=Epoch(90.0))


def function(name: str, breaker: BreakerStatus | None) -> FunctionStatus:
    return FunctionStatus(function=name, breaker=breaker)


def through_a_store(*functions: FunctionStatus) -> StatusDigest:
    content = encode(digest_of((), functions))
    assert len(content) <= DIGEST_BYTES_MAX
    found = decode(content)
    assert found is not None
    return found


def fleet(*functions: FunctionStatus, state: WorkerState = WorkerState.ALIVE, age_s: float = 1.0) -> Fleet:
    return Fleet(
        me=ANN, others={BOB: HeardWorker(state=state, age_s=age_s, digest=through_a_store(*functions))}
    )


def test_the_breakers_of_all_workers_are_shown_with_what_is_known_of_each() -> None:
    there = fleet(function("orders", OPEN), function("audit", CLOSED), function("plain", None))
    audit, orders = functions_of_all([function("orders", CLOSED)], there)
    assert [(each.worker, each.breaker) for each in orders.breakers] == [("ann", CLOSED), ("bob", OPEN)]
    assert orders.breaker == CLOSED, "the own one stays beside"
    assert (audit.function, audit.breaker, [each.worker for each in audit.breakers]) == (
        "audit",
        None,
        ["bob"],
    )
    assert [each.age_s for each in orders.breakers] == [0.0, 1.0]


def test_of_one_worker_only_its_breakers_are_shown() -> None:
    there = fleet(function("orders", OPEN))
    (found,) = functions_of_all([function("orders", CLOSED), function("mine", CLOSED)], there, only=BOB)
    assert (found.function, found.breaker, len(found.breakers)) == ("orders", None, 1)
    mine, orders = functions_of_all([function("orders", CLOSED), function("mine", CLOSED)], there, only=ANN)
    assert [each.worker for each in (*mine.breakers, *orders.breakers)] == ["ann", "ann"]


def test_a_dead_worker_has_no_breakers_and_old_news_are_marked() -> None:
    assert functions_of_all([], fleet(function("orders", OPEN), state=WorkerState.DEAD)) == ()
    (found,) = functions_of_all([], fleet(function("orders", OPEN), age_s=60.0))
    assert found.breakers[0].out_of_date


def test_a_digest_does_not_change_with_each_call_nor_with_each_look() -> None:
    counting = [
        BreakerStatus(state="closed", since=Epoch(90.0 + n / 1e6), calls=n, failed=n // 2) for n in range(5)
    ]
    assert len({encode(digest_of((), [function("orders", each)])) for each in counting}) == 1


def test_a_digest_of_an_earlier_version_has_no_breakers() -> None:
    found = decode(zlib.compress(b'{"mappings": []}'))
    assert found is not None
    assert found.breakers == ()


@pytest.mark.parametrize("text", HOSTILE)
def test_a_digest_of_very_many_breakers_is_within_its_limit_and_says_what_it_leaves_out(text: str) -> None:
    closed = [function(f"closed-{n}", CLOSED) for n in range(100)]
    broken = [
        function(f"open-{n}", BreakerStatus(state="open", since=Epoch(n), reason=f"{n}" + text * 1000))
        for n in range(10)
    ]
    there = fleet(*closed, *broken)
    digest = there.others[BOB].digest
    assert digest is not None
    assert [each.function for each in digest.breakers[:3]] == ["open-0", "open-1", "open-2"]
    assert len(digest.breakers) + digest.breakers_left_out == 110
    assert len(digest.breakers) <= BREAKERS_MAX
    assert "circuit breakers do not fit into its digest; ask it" in worker_statuses(there)[1].note


def test_texts_that_cannot_be_compressed_fit_as_well() -> None:
    noise = "".join(chr(0x4E00 + (n * n * 7919 + n * 104729) % 20000) for n in range(20_000))
    broken = [
        function(
            noise[n * 64 : n * 64 + 64], BreakerStatus(state="open", since=Epoch(n), reason=noise[n * 300 :])
        )
        for n in range(60)
    ]
    digest = through_a_store(*broken)
    assert len(digest.breakers) >= 8
    assert len(digest.breakers) + digest.breakers_left_out == 60
