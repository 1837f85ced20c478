"""The checkers of what a queue mapping may choose find every wrong history, and let the right ones pass."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import pytest

from poller.domain.invocations import Throttled
from poller.domain.plan import FunctionPlan
from poller.domain.policies import BatchPolicy, QueuePolicy, RetryPolicy, ScalingPolicy
from poller.domain.telemetry.mapping_events import Deleted
from tests.simulation.histories.bench import BAD, MAPPING, QueueBench, worker
from tests.virtual import run_virtual

ROOMY = FunctionPlan(name="f", invoker="sim", timeout_s=25.0)
REPORTS = RetryPolicy(report_failures=True)
AWARE = QueuePolicy(group_aware_failures=True)
APART = QueuePolicy(one_group_per_batch=True)
AS_AWS = QueuePolicy(extend_visibility=False)
WINDOW = BatchPolicy(100, window_s=10.0)

type Told = Callable[[], Awaitable[QueueBench]]


async def followers_come_again_behind_a_reported_message() -> QueueBench:
    bench = QueueBench(fifo=True, retry=REPORTS, queue=AWARE)
    bench.send("a", "a", "a", "b")
    messages = bench.receive()
    bench.call(messages, bench.report(messages[1:2]))
    bench.delete([messages[0], messages[3]])
    await asyncio.sleep(31)
    again = bench.receive()
    bench.call(again)
    bench.delete(again)
    return bench


async def groups_run_side_by_side() -> QueueBench:
    bench = QueueBench(fifo=True, queue=APART)
    bench.send("a", "b", "a")
    first, second, third = bench.receive()
    calls = [bench.begin(bench.event(each), bench.ann) for each in ([first, third], [second])]
    for call in calls:
        bench.court.ends(call, bench.report([]))
    bench.delete([first, second, third])
    return bench


async def visibility_is_extended_and_what_never_ran_is_shown() -> QueueBench:
    bench = QueueBench()
    bench.send("", "")
    first, second = bench.receive()
    call = bench.begin(bench.event([first]), bench.ann)
    await asyncio.sleep(20)
    bench.extend([first], 30)
    bench.ann.stop(5.0)
    bench.extend([second], 0)
    bench.court.ends(call, bench.report([]))
    bench.delete([first])
    again = bench.receive(line=worker("bob"))
    bench.call(again)
    bench.delete(again)
    return bench


async def a_refused_message_is_shown_again() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    messages = bench.receive()
    bench.call(messages, Throttled("full"))
    bench.ann.stop(30.0)
    bench.extend(messages, 0)
    bench.ann = worker("bob")
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


async def a_window_is_extended_for_as_aws_does() -> QueueBench:
    bench = QueueBench(function=ROOMY, queue=AS_AWS, batch=WINDOW)
    bench.send("")
    messages = bench.receive()
    bench.extend(messages, 65)
    bench.call(messages)
    bench.delete(messages)
    return bench


async def a_message_lapses_while_it_waits_as_on_aws() -> QueueBench:
    bench = QueueBench(queue=AS_AWS)
    bench.send("")
    bench.receive()
    await asyncio.sleep(31)
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


async def a_worker_that_had_trouble_may_count_for_itself() -> QueueBench:
    bench, bob = QueueBench(scaling=ScalingPolicy(concurrency_max=1)), worker("bob")
    bench.send("", "")
    messages = bench.receive()
    bob.store_faults = 1
    calls = [
        bench.begin(bench.event([each]), line) for each, line in zip(messages, (bench.ann, bob), strict=True)
    ]
    for call in calls:
        bench.court.ends(call, bench.report([]))
    bench.delete(messages)
    return bench


async def trouble_with_the_queue_excuses_what_comes_again() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.call(bench.receive())
    bench.ann.stumble()
    await asyncio.sleep(31)
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


async def what_others_had_meanwhile_comes_again_while_it_runs_and_after_it_failed() -> QueueBench:
    bench = QueueBench()
    await comes_back_from_another(bench, running=True)
    await asyncio.sleep(31)
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


async def comes_back_from_another(bench: QueueBench, *, running: bool) -> None:
    """A message lapses while it runs and comes to another worker. It comes back while its run goes on, or after that has failed."""
    bench.send("")
    call = bench.begin(bench.event(bench.receive()), bench.ann)
    await asyncio.sleep(31)
    bench.receive(line=worker("bob"))
    await asyncio.sleep(31)
    if not running:
        bench.court.ends(call, BAD)
    bench.receive()
    if running:
        bench.court.ends(call, BAD)


RIGHT: list[Told] = [
    followers_come_again_behind_a_reported_message,
    groups_run_side_by_side,
    visibility_is_extended_and_what_never_ran_is_shown,
    a_refused_message_is_shown_again,
    a_window_is_extended_for_as_aws_does,
    a_message_lapses_while_it_waits_as_on_aws,
    a_worker_that_had_trouble_may_count_for_itself,
    trouble_with_the_queue_excuses_what_comes_again,
    what_others_had_meanwhile_comes_again_while_it_runs_and_after_it_failed,
]


async def a_follower_is_deleted() -> QueueBench:
    bench = QueueBench(fifo=True, retry=REPORTS, queue=AWARE)
    bench.send("a", "a")
    messages = bench.receive()
    bench.call(messages, bench.report(messages[:1]))
    bench.delete(messages[1:])
    return bench


async def a_follower_overtakes_the_reported_message() -> QueueBench:
    bench = QueueBench(fifo=True, retry=REPORTS, queue=AWARE)
    bench.send("a", "a")
    messages = bench.receive()
    bench.call(messages, bench.report(messages[:1]))
    bench.call(messages[1:])
    return bench


async def an_event_mixes_groups() -> QueueBench:
    bench = QueueBench(fifo=True, queue=APART)
    bench.send("a", "b")
    bench.call(bench.receive())
    return bench


async def a_failed_message_is_shown_before_its_time() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    messages = bench.receive()
    bench.call(messages, BAD)
    bench.extend(messages, 0)
    return bench


async def a_follower_is_shown_before_its_time() -> QueueBench:
    bench = QueueBench(fifo=True, retry=REPORTS, queue=AWARE)
    bench.send("a", "a")
    messages = bench.receive()
    bench.call(messages, bench.report(messages[:1]))
    bench.extend(messages[1:], 0)
    return bench


async def an_extension_shortens() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.extend(bench.receive(), 10)
    return bench


async def a_message_comes_again_while_it_runs() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.begin(bench.event(bench.receive()), bench.ann)
    await asyncio.sleep(31)
    bench.receive()
    return bench


async def what_others_had_meanwhile_comes_again_after_it_failed_and_is_never_tried() -> QueueBench:
    bench = QueueBench()
    await comes_back_from_another(bench, running=False)
    await asyncio.sleep(31)
    bench.receive()
    return bench


async def a_done_message_comes_again() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    bench.call(bench.receive())
    await asyncio.sleep(31)
    bench.receive()
    return bench


async def a_message_is_extended_without_a_window() -> QueueBench:
    bench = QueueBench(function=ROOMY, queue=AS_AWS)
    bench.send("")
    bench.extend(bench.receive(), 60)
    return bench


async def a_message_is_extended_though_it_has_time() -> QueueBench:
    bench = QueueBench(queue=AS_AWS, batch=WINDOW)
    bench.send("")
    bench.extend(bench.receive(), 50)
    return bench


async def an_extension_is_not_what_aws_makes() -> QueueBench:
    bench = QueueBench(function=ROOMY, queue=AS_AWS, batch=WINDOW)
    bench.send("")
    bench.extend(bench.receive(), 35)
    return bench


async def a_message_is_extended_twice() -> QueueBench:
    bench = QueueBench(function=ROOMY, queue=AS_AWS, batch=WINDOW)
    bench.send("")
    messages = bench.receive()
    bench.extend(messages, 65)
    bench.extend(messages, 65)
    return bench


async def running(bench: QueueBench, count: int) -> QueueBench:
    """So many batches of one message at once."""
    bench.send(*[""] * count)
    for _ in range(count):
        bench.begin(bench.event(bench.receive(1)), bench.ann)
    return bench


async def two_batches_of_a_serial_mapping() -> QueueBench:
    return await running(QueueBench(scaling=ScalingPolicy(concurrency_max=1)), 2)


async def provisioned_pollers_run_more_than_ten_each() -> QueueBench:
    scaling = ScalingPolicy(provisioned_min=1, provisioned_max=2)
    return await running(QueueBench(function=ROOMY, scaling=scaling), 21)


async def two_workers_exceed_their_maximum_together() -> QueueBench:
    bench = QueueBench(scaling=ScalingPolicy(concurrency_max=1))
    bench.send("", "")
    lines = (bench.ann, worker("bob"))
    received = [bench.receive(1, line=line) for line in lines]
    for line, messages in zip(lines, received, strict=True):
        bench.begin(bench.event(messages), line)
    return bench


async def a_worker_that_comes_begins_beside_what_still_runs() -> QueueBench:
    bench, bob = QueueBench(scaling=ScalingPolicy(concurrency_max=1)), worker("bob")
    bench.send("", "")
    bench.begin(bench.event(bench.receive(1)), bench.ann)
    await asyncio.sleep(3)
    bench.begin(bench.event(bench.receive(1, line=bob)), bob)
    return bench


async def six_pollers_begin_at_once() -> QueueBench:
    return await running(QueueBench(function=ROOMY), 6)


WRONG: list[tuple[Told, str, str]] = [
    (a_follower_is_deleted, "delete", "before it was done"),
    (a_follower_overtakes_the_reported_message, "group order", "before message-000001"),
    (an_event_mixes_groups, "one group", "[a, b]"),
    (a_failed_message_is_shown_before_its_time, "visibility", "failed and is shown"),
    (a_follower_is_shown_before_its_time, "visibility", "failed and is shown"),
    (an_extension_shortens, "visibility", "cut short"),
    (a_message_comes_again_while_it_runs, "visibility", "came again while it ran"),
    (what_others_had_meanwhile_comes_again_after_it_failed_and_is_never_tried, "receive", "was never tried"),
    (a_done_message_comes_again, "delete", "after it was done"),
    (a_message_is_extended_without_a_window, "visibility", "nothing asks for"),
    (a_message_is_extended_though_it_has_time, "visibility", "nothing asks for"),
    (an_extension_is_not_what_aws_makes, "visibility", "extended by 35 s for 35 s"),
    (a_message_is_extended_twice, "visibility", "extended twice"),
    (two_batches_of_a_serial_mapping, "cap", "of one worker, at most 1"),
    (provisioned_pollers_run_more_than_ten_each, "cap", "of one worker, at most 20"),
    (two_workers_exceed_their_maximum_together, "cap", "of all workers, at most 1"),
    (a_worker_that_comes_begins_beside_what_still_runs, "cap", "of all workers, at most 1"),
    (six_pollers_begin_at_once, "scaling", "6 batches at once"),
]


def told(history: Told) -> QueueBench:
    async def main() -> QueueBench:
        return await history()

    return run_virtual(main())


@pytest.mark.parametrize("history", RIGHT, ids=lambda history: history.__name__)
def test_a_right_history_passes(history: Told) -> None:
    bench = told(history)
    assert bench.court.violations == []
    assert bench.court.unsettled() == []


@pytest.mark.parametrize(("history", "rule", "words"), WRONG, ids=lambda part: getattr(part, "__name__", ""))
def test_a_wrong_history_is_found(history: Told, rule: str, words: str) -> None:
    bench = told(history)
    assert bench.broke(rule, words), bench.court.violations


async def twenty_provisioned_batches_run() -> QueueBench:
    scaling = ScalingPolicy(provisioned_min=1, provisioned_max=2)
    return await running(QueueBench(function=ROOMY, scaling=scaling), 20)


async def a_message_is_deleted_too_late() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    messages = bench.receive()
    await asyncio.sleep(31)
    bench.call(messages)
    bench.delete(messages)
    return bench


def test_a_late_delete_that_nobody_reports_is_listed() -> None:
    visibility = told(a_message_is_deleted_too_late).court.queues[MAPPING].visibility
    assert visibility.untold(["ann"]) == ["message-000001"]
    assert visibility.untold(["bob"]) == []


@pytest.mark.parametrize("counts", [{"lapsed": 1}, {"failed": 1}], ids=str)
def test_a_late_delete_that_is_reported_is_not(counts: dict[str, int]) -> None:
    bench = told(a_message_is_deleted_too_late)
    bench.court.hears(bench.ann, Deleted(mapping=MAPPING, messages=0, **counts))
    assert bench.court.queues[MAPPING].visibility.untold(["ann"]) == []


async def a_message_that_another_worker_got_early_is_deleted_after(wait_s: float) -> QueueBench:
    """Ann hides it for 65 s. Bob is given it all the same, for 30 s, and has done it long before her."""
    bench = QueueBench(function=ROOMY, queue=AS_AWS, batch=WINDOW, duplicates=1.0)
    bench.send("")
    bob, messages = worker("bob"), bench.receive()
    bench.extend(messages, 65)
    early = bench.receive(line=bob)
    bench.call(early, line=bob)
    bench.delete(early, line=bob)
    await asyncio.sleep(wait_s)
    bench.call(messages)
    bench.delete(messages)
    return bench


@pytest.mark.parametrize(("wait_s", "silent"), [(1, []), (40, []), (66, ["message-000001"])])
def test_a_delete_is_late_when_the_time_of_its_own_receipt_is_over(wait_s: float, silent: list[str]) -> None:
    bench = told(partial(a_message_that_another_worker_got_early_is_deleted_after, wait_s))
    assert bench.court.violations == []
    assert bench.court.queues[MAPPING].visibility.untold(["ann"]) == silent
    assert bench.court.queues[MAPPING].visibility.untold(["bob"]) == []


async def two_messages_of_a_report_are_done() -> QueueBench:
    bench = QueueBench(retry=REPORTS)
    bench.send("", "", "")
    messages = bench.receive()
    bench.call(messages, bench.report(messages[:1]))
    return bench


async def a_report_counts_for_nothing() -> QueueBench:
    bench = QueueBench()
    bench.send("")
    messages = bench.receive()
    bench.call(messages, bench.report(messages))
    bench.delete(messages)
    return bench


@pytest.mark.parametrize(
    ("history", "mark"),
    [
        (followers_come_again_behind_a_reported_message, "followers held back"),
        (groups_run_side_by_side, "groups side by side"),
        (groups_run_side_by_side, "several messages of one group"),
        (visibility_is_extended_and_what_never_ran_is_shown, "visibility extended"),
        (visibility_is_extended_and_what_never_ran_is_shown, "messages shown again"),
        (a_window_is_extended_for_as_aws_does, "visibility extended once"),
        (a_message_lapses_while_it_waits_as_on_aws, "message lapsed while it waited"),
        (twenty_provisioned_batches_run, "provisioned pollers"),
        (twenty_provisioned_batches_run, "queue at its maximum"),
        (two_messages_of_a_report_are_done, "partial report of a queue"),
        (a_message_is_deleted_too_late, "deleted too late"),
        (a_report_counts_for_nothing, "report that does not count"),
    ],
)
def test_what_was_seen_is_marked(history: Told, mark: str) -> None:
    bench = told(history)
    assert bench.court.violations == []
    assert bench.court.queues[MAPPING].marks[mark] > 0
