"""When failed messages are tried again: by `retry_backoff`, by `retryAfterSeconds` of a report, or by the queue's own timeout."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.policies import BatchPolicy, QueuePolicy, RetryBackoff, RetryPolicy, ScalingPolicy
from poller.domain.telemetry.mapping_events import RetriesDelayed, RetryAfterIgnored
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.queues.retry_delayer import LINGER_S
from poller.runtime.stopping import Stop
from tests.runtime.fakes import Seen
from tests.runtime.queues.queue_fakes import (
    Handler,
    failing,
    fifo,
    function_of,
    parts,
    plan,
    play,
    reporting,
    seconds,
    standard,
)
from tests.virtual import virtual_clock

TEN = QueuePolicy(retry_backoff=RetryBackoff(10.0, 2.0, 60.0))
REPORTS = RetryPolicy(report_failures=True)


def retrying(waits: dict[int, Any], *, times: int = 1) -> Callable[[list[int]], Outcome]:
    """Reports these messages with these `retryAfterSeconds`, the first times that they come."""
    tried: dict[int, int] = {}

    def answer(got: list[int]) -> Outcome:
        items = []
        for each in got:
            tried[each] = tried.get(each, 0) + 1
            if each in waits and tried[each] <= times:
                items.append({"itemIdentifier": f"message-{each:06d}", "retryAfterSeconds": waits[each]})
        return Succeeded(json.dumps({"batchItemFailures": items}).encode())

    return answer


def at_times(handler: Handler) -> list[tuple[float, list[int]]]:
    return [(round(at, 2), numbers) for at, numbers in handler.timed]


def test_a_failing_message_waits_longer_each_time_up_to_the_cap() -> None:
    service, handler = standard(30), Handler(answer=failing(7))
    service.send(7)
    play(parts(service, function_of(handler), plan(service, queue=TEN)), 260.0)
    assert at_times(handler) == [
        (0.0, [7]),
        (10.02, [7]),
        (30.04, [7]),
        (70.06, [7]),
        (130.08, [7]),
        (190.1, [7]),
        (250.12, [7]),
    ]


def test_without_a_policy_and_without_a_wish_nothing_is_changed() -> None:
    service, handler = standard(30), Handler(answer=reporting(7))
    service.send(7)
    play(parts(service, function_of(handler), plan(service, retry=REPORTS)), 65.0)
    assert handler.timed == [(0.0, [7]), (30.0, [7]), (60.0, [7])]
    assert service.extensions == []


def test_what_succeeds_costs_no_call() -> None:
    service, handler = standard(30), Handler()
    service.send(*range(50))
    play(parts(service, function_of(handler), plan(service, queue=TEN)), 5.0)
    assert (service.left, service.extensions) == ([], [])


@pytest.mark.parametrize(
    ("wait", "again_at"),
    [
        (0, 0.02),
        (0.5, 1.02),
        (5, 5.02),
        (5.1, 6.02),
        (100, 100.02),
        # Ignored: these leave the message to the back-off.
        (-1, 10.02),
        ("5", 10.02),
        (True, 10.02),
        (None, 10.02),
        (2_000_000_000, 10.02),
    ],
)
def test_what_the_function_asks_for_wins_over_the_backoff(wait: Any, again_at: float) -> None:
    service, handler = standard(30), Handler(answer=retrying({7: wait}))
    service.send(7)
    play(parts(service, function_of(handler), plan(service, queue=TEN, retry=REPORTS)), 110.0)
    assert at_times(handler) == [(0.0, [7]), (again_at, [7])]
    assert service.left == []


def test_a_wish_counts_only_where_reports_are_read() -> None:
    service, handler = standard(30), Handler(answer=retrying({7: 5}))
    service.send(7)
    play(parts(service, function_of(handler), plan(service)), 10.0)
    assert (service.left, service.extensions) == ([], [])


def test_a_huge_wait_is_twelve_hours_less_what_the_call_may_take() -> None:
    service, handler = standard(30), Handler(takes_s=3.0, answer=retrying({7: 999_999}))
    service.send(7)
    play(parts(service, function_of(handler), plan(service, retry=REPORTS)), 10.0)
    assert service.extensions == [(3.0 + LINGER_S, 1, 43_200 - 5 - 4)]


def test_wrong_values_are_counted_and_name_the_function() -> None:
    service, handler = standard(30), Handler(answer=retrying({1: -1, 2: "x", 3: 4}))
    seen = Seen()
    service.send(1, 2, 3)
    play(parts(service, function_of(handler), plan(service, retry=REPORTS), seen=seen), 10.0)
    ignored = [each for each in seen.events if isinstance(each, RetryAfterIgnored)]
    assert sum(each.messages for each in ignored) == 2
    assert {each.function for each in ignored} == {"reader"}
    assert sum(each.messages for each in seen.events if isinstance(each, RetriesDelayed)) == 1
    assert at_times(handler)[1] == (4.02, [3])


def test_ten_messages_with_different_waits_are_one_call() -> None:
    service, handler = standard(30), Handler(answer=retrying({each: each for each in range(1, 11)}))
    service.send(*range(1, 11))
    play(parts(service, function_of(handler), plan(service, retry=REPORTS)), 15.0)
    (call,) = service.extensions
    assert call[:2] == (LINGER_S, 10)
    assert isinstance(call[2], tuple)
    assert sorted(call[2]) == list(range(1, 11))
    assert service.left == []


def test_messages_of_several_batches_share_a_call() -> None:
    service, handler = standard(30), Handler(answer=failing(1, 2, 3, 4))
    service.send(1, 2, 3, 4)
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1), queue=TEN)), 5.0)
    assert service.extensions[0] == (LINGER_S, 4, 10)


@pytest.mark.parametrize("one_group", [False, True])
def test_a_fifo_group_waits_as_one_and_stays_in_order_while_others_go_on(one_group: bool) -> None:
    policy = QueuePolicy(one_group_per_batch=one_group, retry_backoff=RetryBackoff(50.0))
    service = fifo(30)
    answer = retrying({2: 40, 3: 5})
    handler = Handler(answer=answer)
    for number in (1, 2, 3, 4):
        service.send(number, group="a")
    service.send(11, group="b")

    async def script(_mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.0)
        service.send(5, group="a")
        service.send(12, group="b")
        await asyncio.sleep(60.0)

    # The function stops at a group's first failure, as AWS wants it, and reports the rest of the group.
    def stops(got: list[int]) -> Outcome:
        outcome = answer(got)
        assert isinstance(outcome, Succeeded)
        report = json.loads(outcome.payload)["batchItemFailures"]
        if 4 in got and report:
            report.append({"itemIdentifier": "message-000004"})
        return Succeeded(json.dumps({"batchItemFailures": report}).encode())

    handler.answer = stops
    play(parts(service, function_of(handler), plan(service, queue=policy, retry=REPORTS)), script)
    of_a = [(at, found) for at, got in at_times(handler) if (found := [each for each in got if each < 10])]
    # Message 4 has the back-off of 50 s, the longest of its group.
    assert of_a == [(0.0, [1, 2, 3, 4]), (50.02, [2, 3, 4, 5])]
    assert any(at == 1.0 and 12 in got for at, got in at_times(handler)), "the other group goes on"
    assert service.left == []


def test_messages_behind_a_failed_one_are_shown_at_once_and_come_behind_it() -> None:
    service, handler = fifo(30), Handler(answer=retrying({1: 20}))
    for number in (1, 2, 3):
        service.send(number, group="a")
    given = plan(service, batch=BatchPolicy(1), retry=REPORTS)
    play(parts(service, function_of(handler), given), 30.0)
    assert [numbers for _, numbers in handler.timed] == [[1], [1], [2], [3]]
    assert round(handler.times[1], 2) == 20.02
    assert service.received == {1: 2, 2: 1, 3: 1}


def test_messages_of_one_receive_behind_a_failed_one_cost_one_receive() -> None:
    service, handler = fifo(30), Handler(answer=retrying({1: 20}))
    for number in (1, 2, 3):
        service.send(number, group="a")
    given = plan(service, batch=BatchPolicy(10, payload_bytes_max=700), retry=REPORTS)
    play(parts(service, function_of(handler), given), 30.0)
    order = [number for _, numbers in handler.timed for number in numbers]
    assert order == [1, 1, 2, 3]
    assert (20.0, service.received) == (round(handler.times[1]), {1: 2, 2: 2, 3: 2})


def test_a_group_that_may_come_at_once_stays_in_order() -> None:
    service = fifo(30)
    service.latency_s = 0.3
    handler = Handler(answer=retrying({1: 0, 2: 0}, times=3))
    for number in (1, 2, 3, 4):
        service.send(number, group="a")
    given = plan(service, batch=BatchPolicy(10, payload_bytes_max=700), retry=REPORTS)
    play(parts(service, function_of(handler), given), 60.0)
    order = [number for _, numbers in handler.timed for number in numbers]
    assert order == [1, 1, 1, 1, 2, 2, 2, 2, 3, 4]
    assert service.left == []


def test_a_call_that_fails_leaves_a_message_to_its_old_timeout() -> None:
    service, handler, seen = standard(30), Handler(answer=failing(7)), Seen()
    service.trouble["extend"] = [ServiceUnavailable("away")]
    service.send(7)
    play(parts(service, function_of(handler), plan(service, queue=TEN), seen=seen), 55.0)
    # The second failure counts two receives.
    assert at_times(handler) == [(0.0, [7]), (30.0, [7]), (50.02, [7])]
    assert [each.messages for each in seen.events if isinstance(each, RetriesDelayed)] == [1, 1]


def test_a_call_that_is_not_answered_leaves_a_message_to_its_old_timeout() -> None:
    service, handler = standard(10), Handler(answer=failing(7))
    service.hangs = [60.0]
    service.send(7)
    play(parts(service, function_of(handler), plan(service, queue=TEN)), 15.0)
    assert at_times(handler) == [(0.0, [7]), (10.0, [7])]


def test_the_status_shows_the_real_next_try() -> None:
    service, handler = standard(30), Handler(answer=failing(7))
    service.send(7)
    shown: list[float] = []

    async def script(mapping: QueueMapping, _: Stop) -> None:
        for until in (1.0, 11.0, 31.0):
            await asyncio.sleep(until - seconds())
            (lane,) = [each for each in mapping.lanes() if each.last_error]
            assert lane.next_try is not None
            shown.append(round(lane.next_try - virtual_clock().now() + seconds(), 2))

    play(parts(service, function_of(handler), plan(service, queue=TEN)), script)
    assert shown == [10.02, 30.04, 70.06]


@pytest.mark.parametrize("answer", [failing(7), retrying({7: 300}, times=9)])
def test_the_last_receive_is_not_put_off_and_the_dead_letter_queue_gets_it_as_ever(
    answer: Callable[[list[int]], Outcome],
) -> None:
    service, handler = fifo(10, redrive=2), Handler(answer=answer)
    service.send(7, group="a")
    service.send(8, group="a")
    policy = QueuePolicy(retry_backoff=RetryBackoff(300.0))
    given = plan(service, batch=BatchPolicy(1), queue=policy, retry=REPORTS)
    play(parts(service, function_of(handler), given), 320.0)
    assert at_times(handler)[:3] == [(0.0, [7]), (300.02, [7]), (310.02, [8])]
    assert [each.content.number for each in service.queue.dead] == [7]


def test_a_change_of_the_redrive_policy_is_followed() -> None:
    service, handler = standard(10, redrive=1), Handler(answer=failing(7))
    service.send(7)
    policy = QueuePolicy(retry_backoff=RetryBackoff(20.0, 1.0, 20.0))

    async def script(_mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(1.0)
        service.queue.facts = standard(10, redrive=100).queue.facts
        await asyncio.sleep(360.0)

    play(parts(service, function_of(handler), plan(service, queue=policy)), script)
    gaps = [round(after - before) for before, after in zip(handler.times, handler.times[1:], strict=False)]
    assert (gaps[0], gaps[-1]) == (10, 20)


def test_after_its_wait_a_message_gathers_in_a_window_as_any_other() -> None:
    service, handler = standard(30), Handler(answer=retrying({7: 40}))
    service.send(7)
    given = plan(service, batch=BatchPolicy(10, 5.0), retry=REPORTS)
    play(parts(service, function_of(handler), given), 60.0)
    assert at_times(handler) == [(5.0, [7]), (50.02, [7])]


def test_without_extensions_a_message_that_is_still_hidden_waits_and_another_does_not() -> None:
    policy = QueuePolicy(extend_visibility=False, retry_backoff=RetryBackoff(100.0))
    quick, slow = (Handler(takes_s=takes_s, answer=failing(7)) for takes_s in (9.0, 11.0))
    for handler, again_at in ((quick, 109.02), (slow, 11.0)):
        service = standard(10)
        service.send(7)
        given = plan(service, queue=policy, scaling=ScalingPolicy(concurrency_max=1))
        play(parts(service, function_of(handler), given), 120.0)
        assert [round(each, 2) for each in handler.times[:2]] == [0.0, again_at]


def test_a_long_run_is_extended_and_then_waits_from_its_failure_on() -> None:
    service, handler = standard(10), Handler(takes_s=25.0, answer=failing(7))
    service.send(7)
    play(parts(service, function_of(handler), plan(service, queue=TEN)), 40.0)
    assert [round(each, 2) for each in handler.times] == [0.0, 35.02]


def test_a_change_waits_for_the_extension_that_is_under_way() -> None:
    service, handler = standard(30), Handler(takes_s=21.0, answer=failing(7))
    # The extension of second 20 takes effect at second 24, and would undo a change that came before it.
    service.hangs = [4.0]
    service.send(7)
    given = plan(service, queue=QueuePolicy(retry_backoff=RetryBackoff(100.0)))
    play(parts(service, function_of(handler), given), 130.0)
    assert [round(at, 2) for at, _, _ in service.extensions[:2]] == [24.0, 24.02]
    assert [round(each, 2) for each in handler.times] == [0.0, 121.02]


def test_a_stop_does_not_show_a_message_to_polls_that_are_under_way() -> None:
    service, handler = standard(30), Handler(takes_s=5.0, answer=retrying({7: 0}))
    service.send(7)

    async def script(_mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(4.0)

    play(parts(service, function_of(handler), plan(service, retry=REPORTS)), script, after_s=60.0)
    assert [numbers for _, numbers in handler.timed] == [[7]]
    assert (service.received[7], service.left) == (1, [7])
    ((_, count, visibility_s),) = service.extensions
    letter = service.queue.letters["message-000007"]
    assert count == 1
    assert isinstance(visibility_s, int)
    assert 0 < visibility_s <= 22
    assert letter.visible_at > 0


def test_a_stop_keeps_a_longer_wait() -> None:
    service, handler = standard(30), Handler(takes_s=5.0, answer=retrying({7: 100}))
    service.send(7)
    play(parts(service, function_of(handler), plan(service, retry=REPORTS)), 4.0, after_s=60.0)
    assert [(count, wait_s) for _, count, wait_s in service.extensions] == [(1, 100)]


def test_a_stop_waits_for_a_call_no_longer_than_its_message_is_hidden() -> None:
    service, handler = standard(30), Handler(answer=failing(7))
    service.send(7)
    service.hangs = [1000.0]
    assert play(parts(service, function_of(handler), plan(service, queue=TEN)), 1.0) == 30.0
    assert service.left == [7]


def test_a_message_that_succeeds_after_its_wait_is_deleted() -> None:
    tries = iter([True, False])

    def answer(_: list[int]) -> Outcome:
        return FunctionError("ValueError", "bad") if next(tries) else Succeeded(b"")

    service, handler = standard(30), Handler(answer=answer)
    service.send(7)
    play(parts(service, function_of(handler), plan(service, queue=TEN)), 15.0)
    assert at_times(handler) == [(0.0, [7]), (10.02, [7])]
    assert service.left == []
