"""Which owners of asynchronous calls are gone."""

from dataclasses import replace

from poller.domain.records import Monotonic, WorkerId
from poller.rules.functions.call_owners import LISTED_S_MAX, CallOwners
from poller.rules.workers.liveness import Sighting
from poller.rules.workers.worker_group import KnownWorkers

ME, BOB, EVE = WorkerId("ann"), WorkerId("bob"), WorkerId("eve")
LISTED = Monotonic(100.0)
DEAD = KnownWorkers(sightings={BOB: Sighting(1, Monotonic(0.0), LISTED, Monotonic(0.0))}, listed=LISTED)


def gone(known: KnownWorkers, now: float, owners: CallOwners | None = None) -> frozenset[WorkerId]:
    return (owners or CallOwners()).seen([ME, BOB, EVE], known, me=ME, now=Monotonic(now))[1]


def test_a_dead_worker_is_gone_and_one_without_a_row_after_the_next_listing() -> None:
    owners, found = CallOwners().seen([ME, BOB, EVE], DEAD, me=ME, now=Monotonic(101.0))
    assert found == {BOB}
    assert gone(replace(DEAD, listed=Monotonic(102.0)), 102.5, owners) == {BOB, EVE}


def test_nobody_is_gone_by_a_listing_from_before_an_outage() -> None:
    assert gone(DEAD, LISTED + LISTED_S_MAX) == {BOB}
    assert gone(DEAD, LISTED + LISTED_S_MAX + 0.1) == frozenset()
    assert gone(KnownWorkers(), 1.0) == frozenset()
