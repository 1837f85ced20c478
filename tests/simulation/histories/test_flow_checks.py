"""Owns facts of the check of rates and breakers: it sees each broken promise, and nothing else."""

from collections.abc import Callable

import pytest

from poller.domain.invocations import Ended
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BreakerPolicy, RatePolicy
from poller.domain.records import MappingId
from poller.domain.telemetry.daemon_events import BreakerChanged
from poller.domain.telemetry.labels import BreakerState
from poller.domain.telemetry.mapping_events import InvocationFinished, InvocationStarted
from tests.simulation.checks.flow_checks import WINDOW_S, FlowChecks
from tests.simulation.checks.ledger import Violation
from tests.simulation.services.faults import Marks

MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")


def at(moment: float) -> Callable[[], float]:
    """A clock that stands still."""
    return lambda: moment


def checks(rate: RatePolicy | None = None) -> FlowChecks:
    plan = FunctionPlan(name="f", invoker="sim", rate=rate, breaker=BreakerPolicy())
    return FlowChecks({"f": plan}, Marks())


def turned(state: BreakerState, reason: str = "why") -> BreakerChanged:
    return BreakerChanged(function="f", state=state, reason=reason)


def began(request_id: str = "r", records: int = 1) -> InvocationStarted:
    return InvocationStarted(mapping=MAPPING, function="f", records=records, request_id=request_id, attempt=1)


def ended(request_id: str) -> InvocationFinished:
    return InvocationFinished(
        mapping=MAPPING,
        function="f",
        shard=None,
        records=1,
        failed=0,
        ended=Ended.THROTTLED,
        duration_s=0.0,
        request_id=request_id,
    )


def test_a_call_while_the_breaker_is_open_is_seen() -> None:
    found = checks()
    found.hears("worker-1", turned(BreakerState.OPEN), at(0.0))
    found.hears("worker-2", began(), at(1.0))
    with pytest.raises(Violation, match="although its breaker is open"):
        found.hears("worker-1", began(), at(1.0))


def test_two_batches_that_try_at_once_are_seen() -> None:
    found = checks()
    for event in (turned(BreakerState.OPEN), turned(BreakerState.HALF_OPEN), began("a"), ended("a")):
        found.hears("worker-1", event, at(0.0))
    found.hears("worker-1", began("b"), at(1.0))
    with pytest.raises(Violation, match="two batches"):
        found.hears("worker-1", began("c"), at(1.0))


def test_calls_after_the_breaker_closed_are_in_order() -> None:
    found = checks()
    for state in (BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED):
        found.hears("worker-1", turned(state), at(0.0))
    for number in range(5):
        found.hears("worker-1", began(str(number)), at(1.0))
    assert found.marks["breaker closed by a try"] == 1


def call_often(found: FlowChecks) -> None:
    for number in range(200):
        found.hears("worker-1", began(), at(200 + number / 4))


@pytest.mark.parametrize("rate", [RatePolicy(2.0), RatePolicy(records_per_s=2.0)])
def test_calls_above_the_rate_are_seen_and_calls_at_the_rate_are_not(rate: RatePolicy) -> None:
    found = checks(rate)
    for number in range(200):
        found.hears("worker-1", began(), at(number / 2))
    assert found.marks["function called at its rate"] > 0
    with pytest.raises(Violation, match="at most"):
        call_often(found)


def test_what_is_older_than_the_window_does_not_count() -> None:
    found = checks(RatePolicy(1.0))
    for burst in range(5):
        for _ in range(20):
            found.hears("worker-1", began(), at(burst * (WINDOW_S + 1)))
