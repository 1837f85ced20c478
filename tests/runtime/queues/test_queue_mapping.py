"""A queue mapping on virtual time: what it receives when, runs, deletes, leaves and gives back."""

import asyncio
import json
from dataclasses import replace

import pytest

from poller.domain.errors import AccessDenied, ResourceMissing, ServiceThrottled, ServiceUnavailable
from poller.domain.invocations import (
    Ended,
    FunctionError,
    Outcome,
    Succeeded,
    Throttled,
    TimedOut,
    Unreachable,
)
from poller.domain.plan import Tuning
from poller.domain.policies import Backoff, BatchPolicy, QueuePolicy, RetryPolicy, ScalingPolicy
from poller.domain.records import QueueFacts
from poller.domain.status import ErrorDocument
from poller.domain.telemetry.mapping_events import (
    Deleted,
    Filtered,
    InvocationFinished,
    InvocationStarted,
    Pollers,
    PortFailed,
    Released,
    Retrying,
)
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from tests.runtime.fakes import Seen
from tests.runtime.queues.queue_fakes import (
    Handler,
    failing,
    function_of,
    parts,
    plan,
    play,
    reporting,
    seconds,
    standard,
    throttled_until,
)
from tests.simulation.services.contents import Content
from tests.virtual import EPOCH_BASE, run_virtual

MEBIBYTE = 1024 * 1024
REPORTS = RetryPolicy(report_failures=True)
ONE = ScalingPolicy(concurrency_max=1)
AWS_WAY = QueuePolicy(extend_visibility=False)


def test_one_receive_is_one_batch_and_its_messages_are_deleted() -> None:
    service, handler, seen = standard(), Handler(takes_s=1.0), Seen()
    service.send(*range(25))
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(10)), seen=seen), 5.0)
    assert handler.times == [0.0, 0.0, 0.0]
    assert sorted(map(len, handler.calls)) == [5, 10, 10]
    assert service.left == []
    assert sum(event.messages for event in seen.of(Deleted)) == 25
    assert sum(service.deletes) == 25
    assert max(service.deletes) <= 10


def test_a_message_that_arrives_is_run_at_once() -> None:
    service, handler = standard(), Handler()

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(7.25)
        service.send(1)
        await asyncio.sleep(1.0)

    play(parts(service, function_of(handler), plan(service)), script)
    assert handler.timed == [(7.25, [1])]


def test_a_poller_receives_only_with_a_slot_in_hand() -> None:
    service, handler = standard(redrive=1), Handler(takes_s=100.0)
    service.send(*range(100))
    play(
        parts(
            service,
            function_of(handler, limit=2, timeout_s=200.0),
            plan(service, batch=BatchPolicy(10)),
            tuning=Tuning(grace_s=300.0),
        ),
        450.0,
    )
    assert handler.in_flight_max == 2
    assert set(service.received.values()) <= {0, 1}
    assert service.left == []
    assert service.queue.dead == []


def test_maximum_concurrency_one_is_strictly_serial() -> None:
    service, handler = standard(), Handler(takes_s=2.0)
    service.send(*range(6))
    policy = ScalingPolicy(concurrency_max=1)
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1), scaling=policy)), 11.0)
    assert handler.times == pytest.approx([0.0, 2.0, 4.0, 6.0, 8.0, 10.0])
    assert handler.in_flight_max == 1


def test_a_throttled_batch_is_kept_and_runs_soon_after_room_returns() -> None:
    service, seen = standard(120), Seen()
    handler = Handler(answer=throttled_until(10.0))
    service.send(1)
    play(parts(service, function_of(handler), plan(service), seen=seen), 30.0)
    assert service.received == {1: 1}
    assert handler.done == [1]
    assert 10.0 <= handler.times[-1] <= 15.0
    assert len(set(handler.request_ids)) == 1
    waits = [event.wait_s for event in seen.of(Retrying)]
    assert max(waits) <= 5.0
    assert all(event.free for event in seen.of(Retrying))
    assert [event.ended for event in seen.of(InvocationFinished)][-1] is Ended.SUCCESS


def test_little_more_is_received_while_the_function_refuses() -> None:
    service, handler = standard(60), Handler(answer=throttled_until(300.0))
    service.send(*range(500))
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(10))), 299.0)
    taken = [number for number, count in service.received.items() if count]
    assert len(taken) == 140, "the five pollers that started together, and nine probes after growing pauses"
    assert set(service.received.values()) == {0, 1}


def test_everything_runs_once_room_returns() -> None:
    service, handler = standard(60), Handler(answer=throttled_until(100.0))
    service.send(*range(200))
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(10))), 150.0)
    assert service.left == []
    assert set(service.received.values()) == {1}


def test_a_function_says_how_long_to_wait() -> None:
    service, handler = standard(60), Handler()
    handler.answer = lambda _: Throttled("later", 7.0) if seconds() < 7.0 else Succeeded(b"")
    service.send(1)
    play(parts(service, function_of(handler), plan(service)), 10.0)
    assert handler.times == [0.0, 7.0]


def test_an_unreachable_function_leaves_the_batch_with_us() -> None:
    service, handler = standard(), Handler()
    handler.answer = lambda _: Unreachable("no connection") if seconds() < 100.0 else Succeeded(b"")
    service.send(1)
    play(parts(service, function_of(handler), plan(service)), 110.0)
    assert handler.done == [1]
    assert service.received == {1: 1}


def test_a_batch_that_lapses_before_it_runs_comes_again_and_runs_once() -> None:
    service, handler = standard(20), Handler(answer=throttled_until(30.0))
    service.send(1)
    mapping = plan(service, queue=AWS_WAY, scaling=ONE)
    play(parts(service, function_of(handler), mapping), 60.0)
    assert service.received == {1: 2}
    assert handler.done == [1]
    assert service.left == []


@pytest.mark.parametrize(
    "outcome", [FunctionError("ValueError", "bad"), TimedOut(30.0)], ids=["error", "timed out"]
)
def test_a_failed_batch_is_left_to_its_visibility_timeout(outcome: Outcome) -> None:
    service, handler, seen = standard(30), Handler(takes_s=1.0), Seen()
    handler.answer = lambda _: outcome if len(handler.calls) == 1 else Succeeded(b"")
    service.send(1, 2)
    play(parts(service, function_of(handler), plan(service), seen=seen), 40.0)
    assert handler.timed == [(0.0, [1, 2]), (30.0, [1, 2])]
    assert service.received == {1: 2, 2: 2}
    assert service.left == []
    assert [event.failed for event in seen.of(InvocationFinished)] == [2, 0]
    assert seen.of(Released) == []


def test_a_message_that_always_fails_goes_the_queues_own_way() -> None:
    service, handler = standard(10, redrive=3), Handler(answer=failing(1))
    service.send(1)
    play(parts(service, function_of(handler), plan(service)), 60.0)
    assert handler.times == [0.0, 10.0, 20.0]
    assert [letter.content.number for letter in service.queue.dead] == [1]


def test_visibility_is_extended_while_the_function_runs() -> None:
    service, handler = standard(30), Handler(takes_s=95.0)
    service.send(*range(10))
    function = function_of(handler, timeout_s=200.0)
    play(parts(service, function, plan(service, batch=BatchPolicy(10)), tuning=Tuning(grace_s=200.0)), 110.0)
    assert len(handler.calls) == 1
    assert service.extensions == [(20.0, 10, 30), (40.0, 10, 30), (60.0, 10, 30), (80.0, 10, 30)]
    assert service.left == []


def test_a_quick_function_costs_no_extensions() -> None:
    service, handler = standard(30), Handler(takes_s=15.0)
    service.send(*range(10))
    play(parts(service, function_of(handler), plan(service)), 60.0)
    assert service.extensions == []


def test_aws_extends_once_for_window_and_timeout() -> None:
    service, handler = standard(30), Handler(takes_s=25.0)
    service.send(1)
    mapping = plan(service, batch=BatchPolicy(100, 10.0), queue=AWS_WAY)
    play(parts(service, function_of(handler), mapping), 60.0)
    assert service.extensions == [(0.0, 1, 70)]
    assert handler.timed == [(10.0, [1])]
    assert service.left == []


def test_a_failed_extension_is_repeated_in_time() -> None:
    service, handler, seen = standard(30), Handler(takes_s=50.0), Seen()
    service.trouble["extend"] = [ServiceUnavailable("no answer"), ServiceThrottled("slow down")]
    service.send(1)
    function = function_of(handler, timeout_s=60.0)
    tuning = Tuning(grace_s=60.0, port_backoff=Backoff(0.5, 1.0))
    play(parts(service, function, plan(service), seen=seen, tuning=tuning), 60.0)
    assert service.received == {1: 1}
    assert [event.error for event in seen.of(PortFailed)] == ["ServiceUnavailable", "ServiceThrottled"]
    assert len(handler.calls) == 1


def test_an_extension_that_takes_long_holds_up_no_later_one() -> None:
    service, handler = standard(30), Handler(takes_s=50.0)

    async def main() -> None:
        given = parts(service, function_of(handler, timeout_s=60.0), plan(service))
        service.send(1)
        service.hangs = [4.0]
        async with asyncio.timeout(60.0), asyncio.TaskGroup() as scope:
            stop = Stop()
            scope.create_task(QueueMapping(given, stop).run())
            await asyncio.sleep(1.0)
            service.send(2)
            await asyncio.sleep(30.0)
            stop.request(Reason.REQUESTED)

    run_virtual(main())
    # The first was due at 20 s and arrived at 24 s; the other one went in its own time.
    assert [at for at, _, _ in service.extensions[:2]] == [21.0, 24.0]
    assert service.received == {1: 1, 2: 1}


def test_an_extension_that_hangs_is_given_up_in_time_for_another() -> None:
    service, handler, seen = standard(30), Handler(takes_s=50.0), Seen()
    service.send(1)
    service.hangs = [1000.0]
    function = function_of(handler, timeout_s=60.0)
    tuning = Tuning(grace_s=60.0, port_backoff=Backoff(0.5, 1.0))
    play(parts(service, function, plan(service), seen=seen, tuning=tuning), 60.0)
    assert service.received == {1: 1}
    assert [event.reason for event in seen.of(PortFailed)] == ["no answer within 5.0 s"]
    assert service.extensions[0] == (26.0, 1, 30)


def test_a_message_delivered_again_while_it_runs_is_not_run_twice_and_deleted_by_its_newest_receipt() -> None:
    service, handler, seen = standard(30), Handler(takes_s=50.0), Seen()
    service.send(1)
    mapping = plan(service, queue=AWS_WAY)
    function = function_of(handler, timeout_s=60.0)
    play(parts(service, function, mapping, seen=seen, tuning=Tuning(grace_s=60.0)), 55.0)
    assert service.received == {1: 2}
    assert handler.timed == [(0.0, [1])]
    assert service.left == []
    assert [(event.messages, event.lapsed) for event in seen.of(Deleted)] == [(1, 0)]


def test_a_delete_with_a_lapsed_receipt_is_counted_as_such() -> None:
    service, handler, seen = standard(30, redrive=1), Handler(takes_s=40.0), Seen()
    service.send(1)
    mapping = plan(service, queue=AWS_WAY, scaling=ScalingPolicy(concurrency_max=1))
    function = function_of(handler, timeout_s=60.0)
    play(parts(service, function, mapping, seen=seen, tuning=Tuning(grace_s=60.0)), 45.0)
    assert [(event.messages, event.lapsed) for event in seen.of(Deleted)] == [(0, 1)]


def test_reported_messages_stay_and_the_others_are_deleted() -> None:
    service, handler, seen = standard(30), Handler(answer=reporting(2, 3)), Seen()
    service.send(1, 2, 3, 4)
    play(parts(service, function_of(handler), plan(service, retry=REPORTS), seen=seen), 10.0)
    assert service.left == [2, 3]
    (finished,) = seen.of(InvocationFinished)
    assert (finished.ended, finished.failed, finished.records) == (Ended.PARTIAL, 2, 4)


def test_a_report_is_ignored_where_none_is_asked_for() -> None:
    service, handler = standard(30), Handler(answer=reporting(2, 3))
    service.send(1, 2, 3, 4)
    play(parts(service, function_of(handler), plan(service)), 10.0)
    assert service.left == []


@pytest.mark.parametrize(
    ("answer", "left"),
    [
        (b"", []),
        (b"null", []),
        (b'""', []),
        (b"{}", []),
        (b'{"batchItemFailures":[]}', []),
        (b'{"batchItemFailures":null}', []),
        (b'{"batchItemFailures":[{}]}', []),
        (b'{"batchItemFailures":[{"itemIdentifier":""}]}', [1, 2]),
        (b'{"batchItemFailures":[{"itemIdentifier":null}]}', [1, 2]),
        (b'{"batchItemFailures":[{"itemIdentifier":123}]}', [1, 2]),
        (b'{"batchItemFailures":[{"foo":"x"}]}', [1, 2]),
        (b'{"batchItemFailures":[{"itemIdentifier":"stranger"}]}', [1, 2]),
        (b'{"batchItemFailures":"message-000001"}', [1, 2]),
        (b"not json", [1, 2]),
        (b'{"batchItemFailures":[{"itemIdentifier":"message-000002"}]}', [2]),
    ],
)
def test_answers_are_read_by_awss_table(answer: bytes, left: list[int]) -> None:
    service, handler = standard(30), Handler(answer=lambda _: Succeeded(answer))
    service.send(1, 2)
    play(parts(service, function_of(handler), plan(service, retry=REPORTS)), 10.0)
    assert service.left == left


def test_messages_that_no_filter_matches_are_deleted_and_never_run() -> None:
    service, handler, seen = standard(), Handler(), Seen()
    service.send(1, 2)
    service.send(3, 4, 5, keep=False)
    mapping = plan(service, filters=('{"body": {"keep": ["yes"]}}',))
    play(parts(service, function_of(handler), mapping, seen=seen), 5.0)
    assert handler.timed == [(0.0, [1, 2])]
    assert service.left == []
    assert sum(event.messages for event in seen.of(Deleted)) == 5
    assert [(event.records, event.evaluated) for event in seen.of(Filtered)] == [(3, 5)]


def test_a_window_gathers_several_receives() -> None:
    service, handler = standard(), Handler()

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(1.0)
        for number in range(3):
            service.send(number)
            await asyncio.sleep(1.5)
        await asyncio.sleep(10.0)

    one = ScalingPolicy(concurrency_max=1)
    mapping = plan(service, batch=BatchPolicy(100, 5.0), scaling=one)
    play(parts(service, function_of(handler), mapping), script)
    assert handler.timed == [(6.0, [0, 1, 2])]


def test_a_batch_above_ten_is_full_without_waiting_for_its_window() -> None:
    service, handler = standard(), Handler(takes_s=1.0)
    service.send(*range(60))
    one = ScalingPolicy(concurrency_max=1)
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(25, 10.0), scaling=one)), 30.0)
    assert list(map(len, handler.calls)) == [25, 25, 10]
    assert handler.times == pytest.approx([0.0, 1.0, 12.0])
    assert service.left == []


def test_filtered_messages_do_not_count_towards_the_batch() -> None:
    service, handler = standard(), Handler()
    service.send(*range(20), keep=False)
    service.send(*range(20, 32))
    mapping = plan(
        service,
        batch=BatchPolicy(12, 300.0),
        filters=('{"body": {"keep": ["yes"]}}',),
        scaling=ScalingPolicy(concurrency_max=1),
    )
    play(parts(service, function_of(handler), mapping), 5.0)
    assert handler.timed == [(0.0, list(range(20, 32)))]


def test_what_does_not_fit_into_one_event_makes_the_next_one() -> None:
    service, handler = standard(), Handler(takes_s=2.0)
    service.send(*range(10))
    mapping = plan(service, batch=BatchPolicy(10, 0.0, payload_bytes_max=2000))
    play(parts(service, function_of(handler), mapping), 40.0)
    assert all(len(payload) <= 2000 for payload in handler.payloads)
    assert sorted(number for numbers in handler.calls for number in numbers) == list(range(10))
    assert set(service.received.values()) == {1}
    assert handler.times == [2.0 * place for place in range(len(handler.times))]


def test_messages_of_a_mebibyte_make_events_of_five() -> None:
    service, handler = standard(), Handler()
    for number in range(10):
        service.queue.send(EPOCH_BASE, Content(number, pad=MEBIBYTE - 100))
    play(parts(service, function_of(handler), plan(service)), 20.0)
    assert [len(call) for call in handler.calls] == [5, 5]
    assert max(map(len, handler.payloads)) <= 6 * MEBIBYTE
    assert service.left == []


def test_a_message_too_large_for_any_event_fails_without_a_call() -> None:
    service, handler, seen = standard(), Handler(), Seen()
    service.send(1)
    mapping = plan(service, batch=BatchPolicy(10, 0.0, payload_bytes_max=100))
    play(parts(service, function_of(handler), mapping, seen=seen), 10.0)
    assert handler.calls == []
    assert service.left == [1]
    assert [event.ended for event in seen.of(InvocationFinished)] == [Ended.OVERSIZED]


@pytest.mark.parametrize(("window_s", "present"), [(0.0, False), (1.0, True)])
def test_a_window_shows_in_the_event(window_s: float, present: bool) -> None:
    service, handler = standard(), Handler()
    service.send(1)
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(10, window_s))), 5.0)
    (record,) = json.loads(handler.payloads[0])["Records"]
    assert ("md5OfMessageAttributes" in record) is present
    assert record["eventSource"] == "aws:sqs"
    assert record["attributes"]["ApproximateReceiveCount"] == "1"


def test_deletes_of_several_batches_share_calls() -> None:
    service, handler = standard(), Handler()
    service.send(*range(40))
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1))), 10.0)
    assert service.left == []
    assert len(service.deletes) < 20


def test_a_failed_delete_is_tried_again() -> None:
    service, handler, seen = standard(), Handler(), Seen()
    service.trouble["delete"] = [ServiceUnavailable("no answer")] * 3
    service.send(1)
    play(parts(service, function_of(handler), plan(service), seen=seen), 30.0)
    assert service.left == []
    assert len(handler.calls) == 1
    assert sum(event.messages for event in seen.of(Deleted)) == 1


def test_messages_wait_hidden_for_their_delete() -> None:
    service, handler = standard(30), Handler()
    service.trouble["delete"] = [ServiceUnavailable("no answer")] * 6
    service.send(1)
    tuning = Tuning(port_backoff=Backoff(40.0, 40.0))
    play(parts(service, function_of(handler), plan(service), tuning=tuning), 250.0)
    assert service.left == []
    assert service.received == {1: 1}


def test_a_partly_failed_delete_repeats_what_may_succeed() -> None:
    service, handler, seen = standard(), Handler(), Seen()
    service.refuse_deletes = [True, False, False]
    service.send(1, 2, 3, 4)
    play(parts(service, function_of(handler), plan(service), seen=seen), 20.0)
    assert service.deletes == [4, 2]
    assert len(service.left) == 1
    assert sum(event.messages for event in seen.of(Deleted)) == 3
    assert sum(event.lapsed for event in seen.of(Deleted)) == 1


def test_a_delete_that_never_succeeds_is_given_up_and_counted() -> None:
    service, handler, seen = standard(), Handler(), Seen()
    service.refuse_deletes = [False] * 8
    service.send(1)
    tuning = Tuning(port_backoff=Backoff(0.1, 0.5))
    play(parts(service, function_of(handler), plan(service), seen=seen, tuning=tuning), 9.0)
    assert len(service.deletes) == 8
    assert sum(event.failed for event in seen.of(Deleted)) == 1
    assert service.left == [1]


def test_an_idle_queue_costs_two_long_polls_at_a_time() -> None:
    service, seen = standard(30), Seen()
    play(parts(service, function_of(Handler()), plan(service), seen=seen), 3600.0)
    assert {wait_s for _, wait_s, _ in service.receives} == {20}
    assert len(service.receives) == 5 + 5 + 178 * 2
    assert [event.pollers for event in seen.of(Pollers)][:1] == [5]
    assert seen.of(Pollers)[1].pollers == 2


def test_a_serial_mapping_polls_180_times_an_idle_hour() -> None:
    service = standard(30)
    mapping = plan(service, scaling=ScalingPolicy(concurrency_max=1))
    play(parts(service, function_of(Handler(), limit=1), mapping), 3599.0)
    assert len(service.receives) == 180


def test_a_short_visibility_timeout_shortens_the_polls() -> None:
    service = standard(12)
    play(parts(service, function_of(Handler()), plan(service)), 10.0)
    assert {wait_s for _, wait_s, _ in service.receives} == {8}


def test_pollers_are_added_while_the_queue_is_full() -> None:
    service, handler, seen = standard(), Handler(takes_s=30.0), Seen()
    service.send(*range(400))
    play(parts(service, function_of(handler), plan(service, batch=BatchPolicy(1)), seen=seen), 10.5)
    assert [event.pollers for event in seen.of(Pollers)][:11] == list(range(5, 60, 5))
    assert handler.times[:55] == [float(second) for second in range(11) for _ in range(5)]


def test_a_missing_queue_is_named_and_found_later() -> None:
    service, handler, seen = standard(), Handler(), Seen()
    service.trouble["describe"] = [ResourceMissing("the queue does not exist")] * 2
    service.send(1)
    shown: list[tuple[bool, str]] = []

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        shown.append((mapping.opened, mapping.reason))
        await asyncio.sleep(60.0)
        shown.append((mapping.opened, mapping.reason))

    play(parts(service, function_of(handler), plan(service), seen=seen), script)
    assert shown == [(False, "the queue does not exist"), (True, "")]
    assert handler.done == [1]
    assert all(event.wait_s >= 10.0 for event in seen.of(PortFailed))


def test_a_denied_receive_shows_and_heals() -> None:
    service, handler, seen = standard(), Handler(), Seen()
    service.trouble["receive"] = [AccessDenied("not allowed to receive")] * 5
    service.send(1)
    reasons: list[str] = []

    async def script(mapping: QueueMapping, _: Stop) -> None:
        await asyncio.sleep(5.0)
        reasons.append(mapping.reason)
        await asyncio.sleep(60.0)
        reasons.append(mapping.reason)

    play(parts(service, function_of(handler), plan(service), seen=seen), script)
    assert reasons == ["not allowed to receive", ""]
    assert handler.done == [1]


def test_a_throttled_receive_is_repeated_after_a_wait() -> None:
    service, handler, seen = standard(), Handler(), Seen()
    service.trouble["receive"] = [ServiceThrottled("slow down")] * 7
    service.send(1)
    play(parts(service, function_of(handler), plan(service), seen=seen), 60.0)
    assert handler.done == [1]
    assert len(seen.of(PortFailed)) == 7


def test_a_changed_visibility_timeout_is_noticed() -> None:
    service, handler = standard(30), Handler(takes_s=25.0)

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(10.0)
        service.queue.facts = QueueFacts(90, False)
        await asyncio.sleep(350.0)
        service.send(1)
        await asyncio.sleep(30.0)

    play(parts(service, function_of(handler), plan(service)), script)
    assert service.extensions == []


def test_a_running_function_finishes_after_a_stop() -> None:
    service, handler = standard(), Handler(takes_s=5.0)
    service.send(1)
    assert play(parts(service, function_of(handler), plan(service, scaling=ONE)), 2.0) == 5.0
    assert service.left == []


def test_a_gathering_batch_runs_at_a_stop() -> None:
    service, handler = standard(), Handler(takes_s=1.0)
    service.send(1, 2)
    mapping = plan(service, batch=BatchPolicy(100, 60.0), scaling=ScalingPolicy(concurrency_max=1))
    assert play(parts(service, function_of(handler), mapping), 20.0) == 21.0
    assert handler.timed == [(20.0, [1, 2])]
    assert service.left == []


def test_a_stop_in_the_last_part_of_a_window_closes_it() -> None:
    service, handler = standard(), Handler(takes_s=1.0)
    service.send(1)
    mapping = plan(service, batch=BatchPolicy(100, 5.0), scaling=ScalingPolicy(concurrency_max=1))

    async def script(_: QueueMapping, __: Stop) -> None:
        await asyncio.sleep(1.2)
        service.send(2)
        await asyncio.sleep(3.5)

    assert play(parts(service, function_of(handler), mapping), script) == pytest.approx(5.7)
    assert handler.times == pytest.approx([4.7])


def test_a_gathering_batch_is_given_back_when_the_grace_may_not_last() -> None:
    service, handler, seen = standard(120), Handler(), Seen()
    service.send(1, 2)
    mapping = plan(service, batch=BatchPolicy(100, 60.0), scaling=ScalingPolicy(concurrency_max=1))
    play(parts(service, function_of(handler, timeout_s=31.0), mapping, seen=seen), 20.0, within_s=30.0)
    assert handler.calls == []
    assert service.extensions == [(20.0, 2, 0)]
    assert [event.messages for event in seen.of(Released)] == [2]


def test_a_refused_batch_is_given_back_at_a_stop() -> None:
    service, handler, seen = standard(120), Handler(answer=throttled_until(1000.0)), Seen()
    service.send(1)
    assert play(parts(service, function_of(handler), plan(service), seen=seen), 20.0) == 20.0
    assert service.extensions == [(20.0, 1, 0)]
    assert [event.messages for event in seen.of(Released)] == [1]


def test_deletes_are_tried_once_more_when_the_grace_is_over() -> None:
    service, handler = standard(), Handler()
    service.trouble["delete"] = [ServiceUnavailable("no answer")]
    service.send(1)
    given = parts(service, function_of(handler), plan(service), tuning=Tuning(port_backoff=Backoff(1e6, 1e6)))

    async def main() -> None:
        task = asyncio.ensure_future(QueueMapping(given, Stop()).run())
        await asyncio.sleep(5.0)
        task.cancel()
        await asyncio.wait([task])

    run_virtual(main())
    assert service.left == []


def test_status_shows_what_runs_and_what_fails() -> None:
    service, handler = standard(30), Handler(takes_s=3.0, answer=failing(7))
    service.send(7)
    shown: list[tuple[tuple[str, str, int], ...]] = []

    async def script(mapping: QueueMapping, _: Stop) -> None:
        for delay_s in (1.0, 5.0):
            await asyncio.sleep(delay_s)
            shown.append(tuple((lane.lane, lane.state, lane.records_count) for lane in mapping.lanes()))
        (lane,) = mapping.lanes()
        assert lane.last_error == "ValueError: bad"
        assert lane.error == ErrorDocument(errorType="ValueError", errorMessage="bad")
        assert lane.blocked_since is None
        assert [record.identifier for record in lane.records] == ["message-000007"]

    play(parts(service, function_of(handler), plan(service)), script)
    assert shown[0][0][1:] == ("invoking", 1)
    assert shown[1] == (("message-000007", "waiting", 1),)


def test_every_invocation_is_reported() -> None:
    service, seen = standard(), Seen()
    handler = Handler(takes_s=2.0, answer=throttled_until(3.0))
    service.send(1, 2)
    play(parts(service, function_of(handler), plan(service), seen=seen), 30.0)
    started, finished = seen.of(InvocationStarted), seen.of(InvocationFinished)
    assert [event.attempt for event in started] == list(range(1, len(started) + 1))
    assert [event.records for event in started] == [2] * len(started)
    assert all(event.duration_s == pytest.approx(2.0) for event in finished)
    assert [event.failed for event in finished] == [2] * (len(finished) - 1) + [0]


def test_three_thousand_messages_are_settled_at_twenty_at_once() -> None:
    service, handler = standard(), Handler(takes_s=0.05)
    service.latency_s = 0.005
    service.send(*range(3000))
    batch = BatchPolicy(10)
    play(parts(service, function_of(handler, limit=20), replace(plan(service), batch=batch)), 30.0)
    assert service.left == []
    assert set(service.received.values()) == {1}
