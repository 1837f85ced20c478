"""A window fills one batch before a second one opens, whoever receives."""

import asyncio
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.errors import ServiceUnavailable
from poller.domain.plan import Tuning
from poller.domain.policies import BatchPolicy, QueuePolicy, ScalingPolicy
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Stop
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    function_of,
    parts,
    plan,
    play,
    seconds,
    standard,
    throttled_until,
)
from tests.virtual import EPOCH_BASE

LONG = Tuning(grace_s=600.0)


@pytest.mark.parametrize(
    ("waiting", "batch", "window_s", "sizes"),
    [
        (37, 50, 2.0, [37]),
        (15, 100, 1.0, [15]),
        (15, 15, 30.0, [15]),
        (30, 20, 1.0, [20, 10]),
        (100, 30, 2.0, [30, 30, 30, 10]),
        (3, 3, 30.0, [3]),
        (10, 3, 1.0, [3, 3, 3, 1]),
    ],
)
@pytest.mark.parametrize("latency_s", [0.0, 0.02])
def test_waiting_messages_fill_one_batch_after_the_other(
    waiting: int, batch: int, window_s: float, sizes: list[int], latency_s: float
) -> None:
    service, handler = standard(120), Handler()
    service.latency_s = latency_s
    service.send(*range(waiting))
    mapping = plan(service, batch=BatchPolicy(batch, window_s))
    play(parts(service, function_of(handler), mapping), 10.0)
    assert sorted(map(len, handler.calls), reverse=True) == sizes
    assert set(service.received.values()) == {1}


def test_thirty_seven_messages_are_run_when_their_window_is_over() -> None:
    service, handler = standard(), Handler()
    service.send(*range(37))
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(50, 2.0))), 5.0)
    assert handler.timed == [(2.0, list(range(37)))]


def test_messages_that_come_within_one_window_are_one_event() -> None:
    service, handler = standard(120), Handler()

    async def script(_: QueueMapping, __: Stop) -> None:
        for number, pause_s in enumerate((3.0, 8.0, 8.0, 8.0)):
            await asyncio.sleep(pause_s)
            service.send(number)
        await asyncio.sleep(30.0)

    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(10, 30.0))), script)
    assert handler.timed == [(33.0, [0, 1, 2, 3])]


def test_a_big_batch_is_filled_by_all_pollers() -> None:
    service, handler = standard(600), Handler()
    service.latency_s = 0.01
    service.send(*range(10_000))
    mapping = plan(service, batch=BatchPolicy(10_000, 300.0))
    play(parts(service, function_of(handler), mapping), 12.0)
    assert list(map(len, handler.calls)) == [10_000]
    # 1,000 receives of 20 ms take one poller 20 s; here are 5, and 5 more a second.
    assert handler.times[0] < 3.0


def test_a_full_batch_does_not_wait_for_its_keepers_poll() -> None:
    service, handler = standard(120), Handler()

    async def script(_: QueueMapping, __: Stop) -> None:
        for number in range(4):
            await asyncio.sleep(1.0)
            service.send(number)
        await asyncio.sleep(10.0)

    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(4, 300.0))), script)
    assert handler.timed == [(4.0, [0, 1, 2, 3])]


def test_events_keep_within_their_bytes_while_several_pollers_receive() -> None:
    service, handler = standard(120), Handler()
    service.send(*range(60))
    mapping = plan(service, batch=BatchPolicy(100, 1.0, payload_bytes_max=8000))
    play(parts(service, function_of(handler), mapping), 20.0)
    assert all(len(payload) <= 8000 for payload in handler.payloads)
    assert sorted(handler.done) == list(range(60))
    assert len(handler.calls) <= 6


def test_messages_that_gather_are_extended_and_run_once() -> None:
    service, handler = standard(10), Handler()
    service.send(*range(25))
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(100, 45.0))), 60.0)
    assert handler.timed == [(45.0, list(range(25)))]
    assert set(service.received.values()) == {1}


def test_a_keeper_whose_receive_fails_runs_what_it_has() -> None:
    service, handler = standard(120), Handler()
    service.send(1, 2)
    mapping = plan(service, batch=BatchPolicy(100, 60.0), scaling=ScalingPolicy(concurrency_max=1))

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(1.0)
        service.trouble["receive"] = [ServiceUnavailable("no answer")]
        await asyncio.sleep(25.0)

    play(parts(service, function_of(handler), mapping), script)
    assert handler.timed == [(20.0, [1, 2])]


def test_a_refused_batch_leaves_the_window_to_others() -> None:
    service, handler = standard(120), Handler(answer=throttled_until(20.0))
    service.send(*range(5))

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(25.0)
        service.send(*range(5, 12))
        await asyncio.sleep(10.0)

    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(100, 2.0))), script)
    assert sorted(handler.done) == list(range(12))
    assert (27.0, list(range(5, 12))) in handler.timed


def gathering_times(service: Service, handler: Handler) -> list[tuple[float, float, int]]:
    """For each event: when its first message was received, when it was run, how many it had."""
    first = {each.content.number: each.first_received - EPOCH_BASE for each in service.queue.letters.values()}
    return [
        (min(first[number] for number in got), at, len(got))
        for got, at in zip(handler.calls, handler.times, strict=True)
    ]


@settings(max_examples=60, deadline=None)
@given(
    sends=st.lists(st.floats(0.0, 40.0), min_size=1, max_size=80),
    burst=st.integers(0, 60),
    batch=st.sampled_from([2, 10, 25, 100]),
    window_s=st.sampled_from([1.0, 2.0, 20.0]),
    most=st.sampled_from([None, 1, 2]),
    takes_s=st.sampled_from([0.0, 3.0]),
    extend=st.booleans(),
)
def test_no_batch_opens_while_another_one_gathers_and_can_take_more(
    *,
    sends: list[float],
    burst: int,
    batch: int,
    window_s: float,
    most: int | None,
    takes_s: float,
    extend: bool,
) -> None:
    service, handler = standard(120), Handler(takes_s=takes_s)
    service.send(*range(1000, 1000 + burst))

    async def script(_: QueueMapping, __: Stop) -> None:
        for number, at in enumerate(sorted(sends)):
            await asyncio.sleep(at - seconds())
            service.send(number)
        await asyncio.sleep(600.0)

    mapping = plan(
        service,
        batch=BatchPolicy(batch, window_s),
        scaling=ScalingPolicy(concurrency_max=most),
        queue=QueuePolicy(extend_visibility=extend),
    )
    play(parts(service, function_of(handler), mapping, tuning=LONG), script)
    assert service.left == []
    assert set(service.received.values()) == {1}
    events = gathering_times(service, handler)
    assert all(ran - began <= window_s + 0.001 for began, ran, _ in events)
    for one, other in combinations(sorted(events), 2):
        overlapping = other[0] < one[1] - 0.001
        assert not overlapping or batch in (one[2], other[2]), f"{one} and {other} gathered at once"
