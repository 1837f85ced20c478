"""Owns facts of a queue with a window that shares a function with a rate or a breaker, in whole daemons on virtual time."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from poller.domain.invocations import FunctionError, Invocation, Outcome, Succeeded
from poller.domain.plan import FunctionPlan, MappingPlan
from poller.domain.policies import BatchPolicy, BreakerPolicy, RatePolicy, RetryPolicy
from poller.domain.records import MappingId
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import Site, daemon_plan, play, until
from tests.runtime.fakes import STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.runtime.queues.queue_fakes import STANDARD, Service, plan, seconds, standard

WINDOW_S = 60.0
LONE = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b13")


class Times(FakeFunction):
    """An invoker of a stream and a queue. It notes when each is called, and fails until `works_at`."""

    def __init__(self, works_at: float = 0.0) -> None:
        super().__init__()
        self.stream: list[float] = []
        self.queue: list[float] = []
        self._works_at = works_at

    async def invoke(self, invocation: Invocation) -> Outcome:
        (self.queue if b"aws:sqs" in invocation.payload else self.stream).append(seconds())
        return Succeeded(b"") if seconds() >= self._works_at else FunctionError("ValueError", "not yet")


def shared(times: Times) -> tuple[Site, FakeStream, Service]:
    site, stream, queue = Site(), FakeStream(), standard()
    site.sources |= {STREAM_ARN: stream, STANDARD: queue}
    site.functions["reader"] = times
    return site, stream, queue


def windowed(queue: Service, window_s: float = WINDOW_S) -> MappingPlan:
    return plan(queue, batch=BatchPolicy(records_max=1000, window_s=window_s))


def lone(**changes: Any) -> MappingPlan:
    found = mapping(batch=BatchPolicy(records_max=1), mapping=LONE, **changes)
    return replace(found, function="reader")


def function(**limits: Any) -> dict[str, FunctionPlan]:
    return {"reader": replace(FunctionPlan(name="reader", invoker="fake"), **limits)}


async def trickle(queue: Service, for_s: int) -> None:
    """One message a second."""
    for number in range(1, for_s + 1):
        queue.send(number)
        await asyncio.sleep(1.0)


@pytest.mark.parametrize(
    "rate", [RatePolicy(0.5), RatePolicy(2.0), RatePolicy(records_per_s=1.0)], ids=["slow", "two", "records"]
)
def test_a_batch_that_gathers_leaves_the_rate_to_others(rate: RatePolicy) -> None:
    times = Times()
    site, stream, queue = shared(times)
    stream.put(*records(*range(1, 401)))
    given = daemon_plan(windowed(queue), lone(), functions=function(rate=rate))
    play(lambda: site.daemon(given), lambda _: trickle(queue, 200))
    in_window = [each for each in times.stream if 1.0 <= each < 50.0]
    per_s = rate.invocations_per_s or rate.records_per_s or 0.0
    assert len(in_window) >= min(per_s, 1.0) * 49.0 * 0.9, (
        "the stream has the rate that the window does not use"
    )
    assert len([each for each in times.queue if each < 190.0]) >= (1 if rate.records_per_s else 2)


def test_a_batch_whose_window_is_over_goes_before_pollers_that_would_receive() -> None:
    times = Times()
    site, stream, queue = shared(times)
    stream.put(*records(*range(1, 401)))
    given = daemon_plan(windowed(queue), lone(), functions=function(rate=RatePolicy(0.1)))
    play(lambda: site.daemon(given), lambda _: trickle(queue, 150))
    # A call of the stream, one poller that was in line already, a call of the stream, and then this one: ten seconds each.
    assert times.queue[0] <= 10.0 + WINDOW_S + 40.0


def test_a_window_alone_keeps_what_it_has_and_runs_on_time() -> None:
    times = Times()
    site, _, queue = shared(times)
    given = daemon_plan(windowed(queue), functions=function(rate=RatePolicy(0.5)))
    play(lambda: site.daemon(given), lambda _: trickle(queue, 100))
    assert times.queue[0] == pytest.approx(WINDOW_S, abs=2.5)


def test_a_window_does_not_keep_a_half_open_breaker_from_the_try_of_another_mapping() -> None:
    times = Times(works_at=20.0)
    site, stream, queue = shared(times)
    for number in range(1, 6):
        stream.put(*records(number, key=f"key-{number}"))
    given = daemon_plan(
        windowed(queue, window_s=300.0),
        lone(retry=RetryPolicy(retries_max=0)),
        functions=function(breaker=BreakerPolicy(failures=0.5, window_s=60.0, open_s=30.0)),
    )

    def state(daemon: Daemon) -> str:
        breakers = [each.breaker for each in daemon.status().functions]
        return breakers[0].state if breakers and breakers[0] is not None else ""

    async def script(daemon: Daemon) -> None:
        await until(lambda: state(daemon) == "half_open")
        queue.send(1)
        await until(lambda: queue.received == {1: 1})
        await asyncio.sleep(5.0)
        assert not times.queue, "the batch that could try gathers"
        stream.put(*records(6))
        await until(lambda: state(daemon) == "closed", within_s=5.0)
        await until(lambda: bool(times.queue), within_s=310.0)

    play(lambda: site.daemon(given), script)
    assert queue.left == []
    assert set(queue.received.values()) == {1}
