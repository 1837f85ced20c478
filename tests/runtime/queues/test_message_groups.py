"""FIFO queues on virtual time: order within groups, one batch in flight, failures that block only their group."""

import asyncio
from collections import defaultdict
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poller.domain.errors import PortError, ServiceUnavailable
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.plan import Tuning
from poller.domain.policies import Backoff, BatchPolicy, QueuePolicy, RetryPolicy, ScalingPolicy
from poller.domain.telemetry.mapping_events import GroupsBlocked, Released
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Stop
from tests.runtime.fakes import Seen
from tests.runtime.queues.queue_fakes import (
    Handler,
    Service,
    failing,
    fifo,
    function_of,
    parts,
    plan,
    play,
    reporting,
    seconds,
    standard,
    throttled_until,
)
from tests.virtual import EPOCH_BASE

TEN = BatchPolicy(10)
REPORTS = RetryPolicy(report_failures=True)
ONE_GROUP = QueuePolicy(one_group_per_batch=True)
LONG = Tuning(grace_s=600.0, port_backoff=Backoff(0.5, 1.0))


def fill(service: Service, groups: int, each: int) -> None:
    """Message n belongs to group n // 100, sent in turns."""
    for number in range(each):
        for group in range(groups):
            service.send(group * 100 + number, group=f"g{group}")


def by_group(calls: list[list[int]]) -> dict[int, list[int]]:
    """Numbers of each group in the order in which the function got them."""
    found: dict[int, list[int]] = defaultdict(list)
    for number in (number for numbers in calls for number in numbers):
        found[number // 100].append(number)
    return dict(found)


def test_a_batch_mixes_groups_in_the_queues_order() -> None:
    service, handler = fifo(), Handler()
    fill(service, 2, 3)
    play(parts(service, function_of(handler), plan(service, batch=TEN)), 5.0)
    assert handler.calls == [[0, 100, 1, 101, 2, 102]]
    assert service.left == []


def test_messages_of_one_group_run_one_batch_after_the_other() -> None:
    service, handler = fifo(), Handler(takes_s=5.0)
    service.send(*range(5), group="g")
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), 30.0)
    assert handler.calls == [[0], [1], [2], [3], [4]]
    assert handler.in_flight_max == 1
    assert handler.times == pytest.approx([0.0, 5.02, 10.04, 15.06, 20.08])


def test_groups_run_in_parallel() -> None:
    service, handler = fifo(), Handler(takes_s=5.0)
    fill(service, 4, 2)
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), 20.0)
    assert handler.times[:4] == [0.0] * 4
    assert handler.in_flight_max == 4
    assert by_group(handler.calls) == {group: [group * 100, group * 100 + 1] for group in range(4)}


def test_a_failing_group_blocks_only_itself() -> None:
    service, handler = fifo(30, redrive=3), Handler(answer=failing(100))
    fill(service, 3, 5)
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), 5.0)
    assert service.left == [100, 101, 102, 103, 104]
    assert by_group(handler.calls)[1] == [100]


def test_a_blocked_group_goes_on_behind_the_redrive() -> None:
    service, handler = fifo(10, redrive=3), Handler(answer=failing(100))
    fill(service, 2, 3)
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), 60.0)
    assert by_group(handler.calls) == {0: [0, 1, 2], 1: [100, 100, 100, 101, 102]}
    assert service.left == []


def test_a_failed_mixed_batch_comes_again_as_it_was() -> None:
    service, handler = fifo(30), Handler()
    handler.answer = lambda _: FunctionError("E", "") if len(handler.calls) == 1 else Succeeded(b"")
    fill(service, 2, 2)
    play(parts(service, function_of(handler), plan(service, batch=TEN)), 40.0)
    assert handler.timed == [(0.0, [0, 1, 100, 101]), (30.0, [0, 1, 100, 101])]


def test_what_is_reported_comes_again_in_order() -> None:
    service, handler = fifo(30), Handler(answer=reporting(1, 2, 3))
    service.send(0, 1, 2, 3, group="g")
    play(parts(service, function_of(handler), plan(service, batch=TEN, retry=REPORTS)), 35.0)
    assert handler.calls == [[0, 1, 2, 3], [1, 2, 3]]
    assert service.received == {0: 1, 1: 2, 2: 2, 3: 2}


@pytest.mark.parametrize(("aware", "left"), [(False, [1]), (True, [1, 2])])
def test_later_messages_of_a_reported_group_count_as_failed_where_the_mapping_says_so(
    aware: bool, left: list[int]
) -> None:
    service, handler = fifo(30), Handler(answer=reporting(1))
    service.send(0, 1, 2, group="g")
    service.send(100, 101, group="h")
    policy = QueuePolicy(group_aware_failures=aware)
    play(parts(service, function_of(handler), plan(service, batch=TEN, retry=REPORTS, queue=policy)), 5.0)
    assert service.left == left


def test_batches_of_one_group_run_side_by_side_where_there_is_room() -> None:
    service, handler = fifo(), Handler(takes_s=5.0)
    fill(service, 3, 3)
    play(parts(service, function_of(handler), plan(service, batch=TEN, queue=ONE_GROUP)), 10.0)
    assert handler.timed == [(0.0, [0, 1, 2]), (0.0, [100, 101, 102]), (0.0, [200, 201, 202])]


def test_batches_of_one_group_take_turns_in_a_single_slot() -> None:
    service, handler = fifo(), Handler(takes_s=5.0)
    fill(service, 3, 3)
    mapping = plan(service, batch=TEN, queue=ONE_GROUP, scaling=ScalingPolicy(concurrency_max=1))
    play(parts(service, function_of(handler), mapping), 20.0)
    assert handler.timed == [(0.0, [0, 1, 2]), (5.0, [100, 101, 102]), (10.0, [200, 201, 202])]
    assert set(service.received.values()) == {1}


def test_what_was_received_behind_a_failed_event_is_given_back() -> None:
    service, handler, seen = fifo(30), Handler(), Seen()
    handler.answer = lambda _: FunctionError("E", "") if len(handler.calls) == 1 else Succeeded(b"")
    service.send(*range(4), group="g")
    mapping = plan(service, batch=BatchPolicy(10, 0.0, payload_bytes_max=1400))
    play(parts(service, function_of(handler), mapping, seen=seen), 40.0)
    assert handler.calls == [[0, 1], [0, 1], [2, 3]]
    assert service.extensions == [(0.0, 2, 0)]
    assert sum(event.messages for event in seen.of(Released)) == 2
    assert service.left == []


def test_a_second_event_of_a_group_waits_for_the_first_ones_deletes() -> None:
    service, handler = fifo(30), Handler()
    service.trouble["delete"] = [ServiceUnavailable("no answer")]
    service.send(*range(4), group="g")
    mapping = plan(service, batch=BatchPolicy(10, 0.0, payload_bytes_max=1400))
    tuning = Tuning(port_backoff=Backoff(8.0, 8.0))
    play(parts(service, function_of(handler), mapping, tuning=tuning), 30.0)
    assert handler.calls == [[0, 1], [2, 3]]
    assert handler.times[1] > 0.02
    assert service.left == []


def test_a_throttled_mixed_batch_keeps_its_order_and_its_receives() -> None:
    service, handler = fifo(30), Handler(answer=throttled_until(100.0))
    fill(service, 2, 3)
    play(parts(service, function_of(handler), plan(service, batch=TEN)), 110.0)
    assert handler.done == [0, 100, 1, 101, 2, 102]
    assert set(service.received.values()) == {1}


def test_a_group_that_lapses_while_it_runs_is_not_run_twice_at_once() -> None:
    service, handler = fifo(30), Handler(takes_s=100.0)
    service.send(0, 1, 2, group="g")
    mapping = plan(service, batch=BatchPolicy(1), queue=QueuePolicy(extend_visibility=False))
    play(parts(service, function_of(handler, timeout_s=200.0), mapping, tuning=LONG), 320.0)
    assert handler.calls == [[0], [1], [2]]
    assert handler.in_flight_max == 1
    assert service.left == []


def test_a_group_whose_extensions_fail_stays_in_order() -> None:
    service, handler = fifo(30), Handler(takes_s=45.0)
    service.trouble["extend"] = [PortError("no answer")] * 60
    service.send(0, 1, 2, 3, group="g")
    function = function_of(handler, timeout_s=60.0)
    play(parts(service, function, plan(service, batch=BatchPolicy(2)), tuning=LONG), 300.0)
    assert [numbers[0] for numbers in handler.calls] == sorted(numbers[0] for numbers in handler.calls)
    assert service.left == []


def test_given_back_messages_of_a_stop_come_first_again() -> None:
    service, handler = fifo(60), Handler(answer=throttled_until(1000.0))
    fill(service, 2, 3)
    play(parts(service, function_of(handler), plan(service, batch=TEN)), 5.0)
    again = Handler()
    play(parts(Service(service.queue), function_of(again), plan(service, batch=TEN)), 25.0)
    assert again.calls == [[0, 100, 1, 101, 2, 102]]
    assert again.times == [20.0], "when the polls of the stopped mapping were answered"


def test_a_blocked_group_shows_its_messages() -> None:
    service, handler = fifo(30), Handler(answer=failing(0))
    service.send(0, 1, group="g")

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(31.0)
        (lane,) = mapping.lanes()
        assert (lane.lane, lane.attempts, lane.records_count) == ("g", 2, 1)
        assert lane.blocked_since is not None
        assert lane.next_try is not None
        assert lane.next_try - lane.blocked_since == pytest.approx(60.0)
        assert [(each.identifier, each.key) for each in lane.records] == [("message-000000", "g")]

    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), script)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    batch=st.integers(1, 10),
    limit=st.integers(1, 4),
    takes_s=st.sampled_from([0.01, 1.0, 15.0, 40.0]),
    one_group=st.booleans(),
    extend=st.booleans(),
    latency_s=st.sampled_from([0.0, 0.02]),
)
def test_groups_are_done_in_order_whatever_fails(
    seed: int,
    batch: int,
    limit: int,
    takes_s: float,
    one_group: bool,
    extend: bool,
    latency_s: float,
) -> None:
    service, handler = fifo(30), Handler(takes_s=takes_s)
    service.latency_s = latency_s
    fill(service, 4, 6)
    fails_left = 6

    def answer(_: list[int]) -> Outcome:
        nonlocal fails_left
        if fails_left and (seed + len(handler.calls)) % 3 == 0:
            fails_left -= 1
            return FunctionError("E", "")
        return Succeeded(b"")

    handler.answer = answer
    service.trouble["extend"] = [ServiceUnavailable("no")] * (seed % 5)
    service.trouble["delete"] = [ServiceUnavailable("no")] * (seed % 4)
    mapping = plan(
        service,
        batch=BatchPolicy(batch),
        queue=QueuePolicy(extend_visibility=extend, one_group_per_batch=one_group),
    )
    function = function_of(handler, limit=limit, timeout_s=60.0)
    play(parts(service, function, mapping, tuning=LONG, seed=seed), 3000.0)
    assert service.left == []
    first: dict[int, list[int]] = defaultdict(list)
    for number in handler.done:
        if number not in first[number // 100]:
            first[number // 100].append(number)
    assert dict(first) == {group: [group * 100 + place for place in range(6)] for group in range(4)}
    if one_group:
        assert all(len({number // 100 for number in numbers}) == 1 for numbers in handler.calls)


def blocked_times(seen: Seen) -> list[float | None]:
    """Since when groups were told to be blocked, in seconds of the run."""
    return [None if each.since is None else each.since - EPOCH_BASE for each in seen.of(GroupsBlocked)]


def bad_until(times: dict[int, float]) -> Callable[[list[int]], Outcome]:
    """Fails each event that holds one of these numbers before its time."""
    return lambda got: (
        FunctionError("E", "bad") if any(seconds() < times.get(each, 0.0) for each in got) else Succeeded(b"")
    )


def test_since_when_the_longest_blocked_group_is_blocked_is_reported_until_all_get_through() -> None:
    service, seen, handler = fifo(30), Seen(), Handler(answer=bad_until({0: 50.0, 10: 95.0}))
    service.send(0, group="a")

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(40.0)
        service.send(10, group="b")
        await asyncio.sleep(100.0)

    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1)), seen=seen), script)
    assert blocked_times(seen) == [0.0, 40.0, None]


def test_a_group_stays_blocked_while_a_slow_function_tries_its_message_again() -> None:
    service, seen = fifo(300), Seen()
    handler = Handler(takes_s=200.0, answer=bad_until({0: 1e9}))
    service.send(0, group="a")
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1)), seen=seen), 4 * 3600.0)
    assert blocked_times(seen) == [0.0, None], "None at the stop alone"


def test_a_group_whose_batch_is_refused_is_blocked() -> None:
    service, seen, handler = fifo(30), Seen(), Handler(answer=throttled_until(600.0))
    service.send(0, group="a")
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1)), seen=seen), 900.0)
    assert blocked_times(seen) == [0.0, None]
    assert service.left == []


def test_a_standard_queue_has_no_blocked_groups() -> None:
    service, seen, handler = standard(30), Seen(), Handler(answer=failing(0))
    service.send(0)
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1)), seen=seen), 900.0)
    assert seen.of(GroupsBlocked) == []
