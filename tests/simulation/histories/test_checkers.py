"""Every checker finds the wrong history that it is there for, and lets the right one pass."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from poller.domain.invocations import Condition, Ended, Succeeded, Throttled
from poller.domain.plan import Start
from poller.domain.policies import RetryPolicy, ScalingPolicy
from poller.domain.records import SHARD_END, Position
from poller.domain.rows import MappingState
from poller.domain.telemetry.mapping_events import Discarded, InvocationFinished, MappingChanged
from tests.simulation.histories.bench import BAD, FIRST, MAPPING, Bench, QueueBench, StreamBench, worker
from tests.simulation.services.faults import epoch as now
from tests.simulation.services.streams import Held
from tests.virtual import EPOCH_BASE, run_virtual

KEEP = ('{"data":{"keep":["yes"]}}',)
DESTINATION = "arn:aws:sqs:eu-west-1:111122223333:failed"

type Told = Callable[[], Awaitable[Bench]]


def after(held: Held) -> Position:
    return Position.after(str(held.sequence))


async def a_shard_is_worked_off_in_order() -> Bench:
    bench = StreamBench()
    lease, records = bench.take(bench.ann), bench.put(4)
    bench.call(records[:2])
    bench.save(lease, after(records[1]))
    bench.call(records[2:], BAD)
    bench.call(records[2:])
    bench.save(lease, after(records[3]))
    return bench


async def a_crash_repeats_what_was_not_saved() -> Bench:
    bench = StreamBench()
    lease, records, bob = bench.take(bench.ann), bench.put(3), worker("bob")
    bench.call(records[:2])
    bench.save(lease, after(records[0]))
    second = bench.take(bob, epoch=2, position=after(records[0]))
    bench.call(records[1:], line=bob)
    bench.save(second, after(records[2]), bob)
    return bench


async def children_begin_when_their_parent_is_done() -> Bench:
    bench = StreamBench()
    lease, records = bench.take(bench.ann), bench.put(2)
    left, right = bench.stream.split(EPOCH_BASE, FIRST)
    bench.call(records)
    bench.save(lease, SHARD_END)
    leases = {shard: bench.take(bench.ann, shard=shard) for shard in (left, right)}
    (child,) = bench.put()
    shard = left if bench.stream.shards[left].records else right
    bench.call([child], shard=shard)
    bench.save(leases[shard], after(child))
    return bench


async def a_failed_batch_is_given_up_with_a_notice() -> Bench:
    bench = StreamBench(retry=RetryPolicy(retries_max=0), destination=DESTINATION)
    lease, records = bench.take(bench.ann), bench.put(2)
    bench.call(records, BAD)
    bench.notify(records, Condition.RETRIES)
    bench.save(lease, after(records[1]))
    return bench


async def a_group_is_worked_off_and_deleted() -> Bench:
    bench = QueueBench(fifo=True)
    bench.send("a", "a", "b")
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


async def a_failed_message_comes_again() -> Bench:
    bench = QueueBench()
    bench.send("")
    bench.call(bench.receive(), BAD)
    await asyncio.sleep(31)
    messages = bench.receive()
    bench.call(messages)
    bench.delete(messages)
    return bench


async def a_run_that_was_given_up_is_over_before_the_batch_is_called_again() -> Bench:
    bench = StreamBench()
    lease, records = bench.take(bench.ann), bench.put(2)
    bench.give_up(records, runs_on_s=5.0)
    await asyncio.sleep(5.1)
    bench.call(records)
    bench.save(lease, after(records[1]))
    return bench


async def a_call_of_a_stopped_worker_arrives_after_another_one_gave_the_shard_up() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    records, bob, sent = bench.put(1), worker("bob"), now()
    await asyncio.sleep(1)
    lease = bench.take(bob, epoch=2)
    bench.call(records, line=bob)
    bench.save(lease, after(records[0]), bob)
    bench.court.releases(bob, MAPPING, lease)
    bench.court.ends(bench.begin(bench.event(records), bench.ann, at=sent), Succeeded(b""))
    return bench


def answered_while_it_stood_still(ended: Ended) -> StreamBench:
    """The worker stands still during a call that succeeds, says that it `ended` in this way, and calls the function again."""
    bench = StreamBench()
    lease, records = bench.take(bench.ann), bench.put(2)
    call = bench.begin(bench.event(records), bench.ann)
    bench.ann.stumble()
    bench.court.ends(call, Succeeded(b""))
    bench.court.hears(
        bench.ann,
        InvocationFinished(
            mapping=MAPPING,
            function="f",
            shard=FIRST,
            records=2,
            failed=0,
            ended=ended,
            duration_s=1.0,
            request_id="r",
        ),
    )
    bench.call(records, request_id="again")
    bench.save(lease, after(records[1]))
    return bench


async def a_worker_that_stood_still_takes_an_answer_for_a_call_that_timed_out() -> Bench:
    return answered_while_it_stood_still(Ended.TIMED_OUT)


async def a_worker_that_stood_still_calls_again_what_succeeded() -> Bench:
    return answered_while_it_stood_still(Ended.SUCCESS)


async def a_call_is_broken_off_whose_answer_came_when_its_worker_went_on() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    records, bob = bench.put(2), worker("bob")
    call = bench.begin(bench.event(records), bench.ann)
    bench.ann.stumble()
    lease = bench.take(bob, epoch=2)
    bench.court.ends(call, Succeeded(b""))
    bench.call(records, line=bob)
    bench.save(lease, after(records[1]), bob)
    return bench


def from_before_the_start(*, opened_s: float, listing_lag_s: float) -> Bench:
    """A record from before the start is delivered; its shard was opened so long before the start."""
    bench = StreamBench(start=Start(latest=True), listing_lag_s=listing_lag_s)
    child = bench.stream.roll(EPOCH_BASE, FIRST)
    records = bench.put()
    bench.fixed(EPOCH_BASE + opened_s)
    bench.take(bench.ann, shard=child)
    bench.call(records, shard=child)
    return bench


async def a_shard_that_was_not_listed_yet_at_the_start_is_read_as_a_whole() -> Bench:
    return from_before_the_start(opened_s=3.0, listing_lag_s=4.0)


RIGHT: list[Told] = [
    a_worker_that_stood_still_takes_an_answer_for_a_call_that_timed_out,
    a_call_is_broken_off_whose_answer_came_when_its_worker_went_on,
    a_call_of_a_stopped_worker_arrives_after_another_one_gave_the_shard_up,
    a_run_that_was_given_up_is_over_before_the_batch_is_called_again,
    a_shard_is_worked_off_in_order,
    a_crash_repeats_what_was_not_saved,
    children_begin_when_their_parent_is_done,
    a_failed_batch_is_given_up_with_a_notice,
    a_group_is_worked_off_and_deleted,
    a_failed_message_comes_again,
    a_shard_that_was_not_listed_yet_at_the_start_is_read_as_a_whole,
]


async def a_record_overtakes_another() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    bench.call(bench.put(2)[1:])
    return bench


async def an_event_is_out_of_order() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    bench.call(bench.put(2)[::-1])
    return bench


async def a_partial_report_skips_its_record() -> Bench:
    bench = StreamBench(retry=RetryPolicy(report_failures=True))
    bench.take(bench.ann)
    records = bench.put(3)
    report = f'{{"batchItemFailures":[{{"itemIdentifier":"{records[1].sequence}"}}]}}'
    bench.call(records, Succeeded(report.encode()))
    bench.call(records[2:])
    return bench


async def two_batches_of_a_shard_at_once() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    records = bench.put(2)
    bench.begin(bench.event(records), bench.ann)
    bench.begin(bench.event(records), bench.ann)
    return bench


async def two_batches_of_a_key_at_once() -> Bench:
    bench = StreamBench(lanes=4)
    bench.take(bench.ann)
    records = bench.put(1, key="k")
    bench.begin(bench.event(records), bench.ann)
    bench.begin(bench.event(records), bench.ann)
    return bench


async def more_batches_than_lanes() -> Bench:
    bench = StreamBench(lanes=2)
    bench.take(bench.ann)
    for key in ("a", "b", "c"):
        bench.begin(bench.event(bench.put(1, key=key)), bench.ann)
    return bench


async def a_settled_record_is_delivered_again() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    records = bench.put(1)
    bench.call(records)
    bench.call(records)
    return bench


async def a_record_behind_the_checkpoint_is_delivered_again() -> Bench:
    bench = StreamBench()
    records, bob = bench.put(1), worker("bob")
    bench.take(bench.ann)
    bench.call(records)
    bench.take(bob, epoch=2, position=after(records[0]))
    bench.call(records, line=bob)
    return bench


async def an_event_mixes_shards() -> Bench:
    bench = StreamBench(shards=2)
    records: dict[str, Held] = {}
    for number in range(20):
        shard, held = bench.stream.put(EPOCH_BASE, f"key-{number}", bench.put()[0].content)
        records[shard] = held
    bench.call(list(records.values()))
    return bench


async def a_filtered_record_is_delivered() -> Bench:
    bench = StreamBench(filters=KEEP)
    bench.take(bench.ann)
    bench.call(bench.put(keep=False))
    return bench


async def a_shard_that_a_late_listing_showed_at_the_start_is_read_as_a_whole() -> Bench:
    return from_before_the_start(opened_s=5.0, listing_lag_s=4.0)


async def a_shard_that_was_listed_at_the_start_is_read_as_a_whole() -> Bench:
    return from_before_the_start(opened_s=3.0, listing_lag_s=0.0)


async def a_record_from_before_the_start_is_delivered() -> Bench:
    bench = StreamBench(start=Start(latest=True))
    records = bench.put()
    bench.fixed(EPOCH_BASE + 10)
    bench.take(bench.ann)
    bench.call(records)
    return bench


async def a_child_is_read_before_its_parent_is_done() -> Bench:
    bench = StreamBench()
    bench.put()
    left, _ = bench.stream.split(EPOCH_BASE, FIRST)
    bench.take(bench.ann, shard=left)
    bench.court.reads(bench.ann, "arn:aws:kinesis:eu-west-1:111122223333:stream/orders", left)
    return bench


async def a_merge_child_waits_for_one_parent_only() -> Bench:
    bench = StreamBench(shards=2)
    both: dict[str, Held] = {}
    for number in range(20):
        shard, held = bench.stream.put(EPOCH_BASE, f"key-{number}", bench.put()[0].content)
        both.setdefault(shard, held)
    first, second = bench.stream.shards
    child = bench.stream.merge(EPOCH_BASE, first, second)
    for shard in (first, child):
        bench.take(bench.ann, shard=shard)
    bench.call(bench.stream.shards[first].records, shard=first)
    bench.call(bench.put(), shard=child)
    return bench


async def a_checkpoint_covers_an_unsettled_record() -> Bench:
    bench = StreamBench()
    lease, records = bench.take(bench.ann), bench.put(2)
    bench.call(records[:1])
    bench.save(lease, after(records[1]))
    return bench


async def a_checkpoint_covers_a_failed_record() -> Bench:
    bench = StreamBench()
    lease, records = bench.take(bench.ann), bench.put(1)
    bench.call(records, BAD)
    bench.save(lease, after(records[0]))
    return bench


async def a_checkpoint_goes_back() -> Bench:
    bench = StreamBench()
    lease, records = bench.take(bench.ann), bench.put(2)
    bench.call(records)
    bench.save(lease, after(records[1]))
    bench.save(lease, after(records[0]))
    return bench


async def an_open_shard_is_said_to_have_ended() -> Bench:
    bench = StreamBench()
    bench.save(bench.take(bench.ann), SHARD_END)
    return bench


async def a_zombie_saves_a_checkpoint() -> Bench:
    bench = StreamBench()
    lease, records, bob = bench.take(bench.ann), bench.put(1), worker("bob")
    bench.call(records)
    bench.take(bob, epoch=2)
    bench.save(lease, after(records[0]))
    return bench


async def an_epoch_goes_back() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann, epoch=5)
    bench.take(worker("bob"), epoch=4)
    return bench


async def a_worker_goes_on_though_it_knows_of_its_loss() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    records = bench.put(1)
    bench.take(worker("bob"), epoch=2)
    bench.lose(bench.ann)
    await asyncio.sleep(1)
    bench.call(records)
    return bench


async def a_worker_goes_on_after_another_took_over() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    records = bench.put(1)
    bench.take(worker("bob"), epoch=2)
    await asyncio.sleep(1)
    bench.call(records)
    return bench


async def a_worker_goes_on_after_another_took_over_and_gave_up() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    records, bob = bench.put(1), worker("bob")
    lease = bench.take(bob, epoch=2)
    await asyncio.sleep(1)
    decided = now()
    bench.court.releases(bob, MAPPING, lease)
    bench.begin(bench.event(records), bench.ann, at=decided)
    return bench


async def a_worker_goes_on_after_it_gave_its_lease_up() -> Bench:
    bench = StreamBench()
    lease, records = bench.take(bench.ann), bench.put(1)
    bench.court.releases(bench.ann, MAPPING, lease)
    await asyncio.sleep(1)
    bench.call(records)
    return bench


async def a_worker_has_no_lease() -> Bench:
    bench = StreamBench()
    bench.call(bench.put(1))
    return bench


async def a_young_record_is_given_up_as_too_old() -> Bench:
    bench = StreamBench(retry=RetryPolicy(age_max_s=60), destination=DESTINATION)
    bench.take(bench.ann)
    bench.notify(bench.put(1), Condition.AGE)
    return bench


async def a_batch_is_given_up_untried() -> Bench:
    bench = StreamBench(retry=RetryPolicy(retries_max=1), destination=DESTINATION)
    bench.take(bench.ann)
    bench.notify(bench.put(1), Condition.RETRIES)
    return bench


async def more_is_given_up_than_failed() -> Bench:
    bench = StreamBench(retry=RetryPolicy(retries_max=0), destination=DESTINATION)
    bench.take(bench.ann)
    records = bench.put(2)
    bench.call(records[:1], BAD)
    bench.notify(records, Condition.RETRIES)
    return bench


async def a_notice_lies_about_its_batch() -> Bench:
    bench = StreamBench(retry=RetryPolicy(retries_max=0), destination=DESTINATION)
    bench.take(bench.ann)
    records = bench.put(2)
    bench.call(records, BAD)
    bench.notify(records, Condition.RETRIES, size=3)
    return bench


async def a_batch_is_dropped_though_it_has_a_destination() -> Bench:
    bench = StreamBench(retry=RetryPolicy(retries_max=0), destination=DESTINATION)
    bench.take(bench.ann)
    records = bench.put(1)
    bench.call(records, BAD)
    first = str(records[0].sequence)
    dropped = Discarded(
        mapping=MAPPING,
        shard=FIRST,
        records=1,
        condition=Condition.RETRIES,
        delivered=False,
        destination=True,
        first=first,
        last=first,
    )
    bench.court.hears(bench.ann, dropped)
    return bench


async def a_discard_counts_records_that_are_not_there() -> Bench:
    bench = StreamBench(retry=RetryPolicy(retries_max=0))
    bench.take(bench.ann)
    records = bench.put(2)
    bench.call(records, BAD)
    dropped = Discarded(
        mapping=MAPPING,
        shard=FIRST,
        records=3,
        condition=Condition.RETRIES,
        delivered=False,
        destination=False,
        first=str(records[0].sequence),
        last=str(records[1].sequence),
    )
    bench.court.hears(bench.ann, dropped)
    return bench


async def a_function_is_called_too_often_at_once() -> Bench:
    bench = StreamBench(lanes=10)
    bench.take(bench.ann)
    for key in ("a", "b", "c", "d"):
        bench.begin(bench.event(bench.put(1, key=key)), bench.ann)
    return bench


async def a_batch_is_called_again_while_its_first_run_goes_on() -> Bench:
    bench = StreamBench()
    bench.take(bench.ann)
    records = bench.put(2)
    bench.give_up(records, runs_on_s=5.0)
    await asyncio.sleep(4.9)
    bench.call(records[1:])
    return bench


async def a_mapping_breaks() -> Bench:
    bench = StreamBench()
    broken = MappingChanged(
        mapping=MAPPING, function="f", source_arn="arn", state=MappingState.BROKEN, reason="AssertionError"
    )
    bench.court.hears(bench.ann, broken)
    return bench


async def a_message_is_deleted_before_it_is_done() -> Bench:
    bench = QueueBench()
    bench.send("")
    bench.delete(bench.receive())
    return bench


async def a_refused_message_comes_again() -> Bench:
    bench = QueueBench()
    bench.send("")
    bench.call(bench.receive(), Throttled("429"))
    await asyncio.sleep(31)
    bench.receive()
    return bench


async def what_was_given_back_at_a_stop_is_caught_again() -> Bench:
    bench = QueueBench()
    bench.send("")
    bench.ann.stop(30.0)
    bench.extend(bench.receive(), 0)
    bench.receive()
    return bench


async def a_poll_is_broken() -> Bench:
    bench = QueueBench()
    bench.court.abandons(bench.ann, bench.arn)
    return bench


async def a_failed_message_is_deleted() -> Bench:
    bench = QueueBench()
    bench.send("")
    messages = bench.receive()
    bench.call(messages, BAD)
    bench.delete(messages)
    return bench


async def a_reported_message_is_deleted() -> Bench:
    bench = QueueBench(retry=RetryPolicy(report_failures=True))
    bench.send("", "")
    messages = bench.receive()
    report = f'{{"batchItemFailures":[{{"itemIdentifier":"{messages[0].message_id}"}}]}}'
    bench.call(messages, Succeeded(report.encode()))
    bench.delete(messages)
    return bench


async def a_group_is_in_flight_twice() -> Bench:
    bench = QueueBench(fifo=True)
    bench.send("a", "a")
    first, second = bench.receive()
    bench.begin(bench.event([first]), bench.ann)
    bench.begin(bench.event([second]), bench.ann)
    return bench


async def a_message_overtakes_its_group() -> Bench:
    bench = QueueBench(fifo=True)
    bench.send("a", "a")
    bench.call(bench.receive()[1:])
    return bench


async def an_event_reverses_a_group() -> Bench:
    bench = QueueBench(fifo=True)
    bench.send("a", "a")
    bench.call(bench.receive()[::-1])
    return bench


async def a_mapping_runs_more_than_its_maximum() -> Bench:
    bench = QueueBench(scaling=ScalingPolicy(concurrency_max=2))
    bench.send("", "", "")
    for message in bench.receive():
        bench.begin(bench.event([message]), bench.ann)
    return bench


async def a_received_message_is_never_tried() -> Bench:
    bench = QueueBench()
    bench.send("")
    bench.receive()
    await asyncio.sleep(31)
    bench.receive()
    return bench


async def a_filtered_message_is_delivered() -> Bench:
    bench = QueueBench(filters=('{"body":{"keep":["yes"]}}',))
    bench.send("", keep=False)
    bench.call(bench.receive())
    return bench


WRONG: list[tuple[Told, str]] = [
    (a_worker_that_stood_still_calls_again_what_succeeded, "once"),
    (a_record_overtakes_another, "order"),
    (an_event_is_out_of_order, "order"),
    (a_partial_report_skips_its_record, "order"),
    (two_batches_of_a_shard_at_once, "one in flight"),
    (two_batches_of_a_key_at_once, "one in flight"),
    (more_batches_than_lanes, "one in flight"),
    (a_settled_record_is_delivered_again, "once"),
    (a_record_behind_the_checkpoint_is_delivered_again, "once"),
    (an_event_mixes_shards, "one shard"),
    (a_filtered_record_is_delivered, "filter"),
    (a_record_from_before_the_start_is_delivered, "start"),
    (a_shard_that_a_late_listing_showed_at_the_start_is_read_as_a_whole, "start"),
    (a_shard_that_was_listed_at_the_start_is_read_as_a_whole, "start"),
    (a_child_is_read_before_its_parent_is_done, "lineage"),
    (a_merge_child_waits_for_one_parent_only, "lineage"),
    (a_checkpoint_covers_an_unsettled_record, "checkpoint"),
    (a_checkpoint_covers_a_failed_record, "checkpoint"),
    (a_checkpoint_goes_back, "checkpoint"),
    (an_open_shard_is_said_to_have_ended, "checkpoint"),
    (a_zombie_saves_a_checkpoint, "fence"),
    (an_epoch_goes_back, "fence"),
    (a_worker_goes_on_though_it_knows_of_its_loss, "lease"),
    (a_worker_goes_on_after_another_took_over, "lease"),
    (a_worker_goes_on_after_another_took_over_and_gave_up, "lease"),
    (a_worker_goes_on_after_it_gave_its_lease_up, "lease"),
    (a_worker_has_no_lease, "lease"),
    (a_young_record_is_given_up_as_too_old, "discard"),
    (a_batch_is_given_up_untried, "discard"),
    (more_is_given_up_than_failed, "discard"),
    (a_notice_lies_about_its_batch, "notice"),
    (a_batch_is_dropped_though_it_has_a_destination, "notice"),
    (a_discard_counts_records_that_are_not_there, "discard"),
    (a_function_is_called_too_often_at_once, "cap"),
    (a_batch_is_called_again_while_its_first_run_goes_on, "overlap"),
    (a_mapping_breaks, "bug"),
    (a_message_is_deleted_before_it_is_done, "delete"),
    (a_refused_message_comes_again, "receive"),
    (what_was_given_back_at_a_stop_is_caught_again, "receive"),
    (a_poll_is_broken, "poll"),
    (a_failed_message_is_deleted, "delete"),
    (a_reported_message_is_deleted, "delete"),
    (a_group_is_in_flight_twice, "one per group"),
    (a_message_overtakes_its_group, "group order"),
    (an_event_reverses_a_group, "group order"),
    (a_mapping_runs_more_than_its_maximum, "cap"),
    (a_received_message_is_never_tried, "receive"),
    (a_filtered_message_is_delivered, "filter"),
]


def told(history: Told) -> Bench:
    async def main() -> Bench:
        return await history()

    return run_virtual(main())


@pytest.mark.parametrize("history", RIGHT, ids=lambda history: history.__name__)
def test_a_right_history_passes(history: Told) -> None:
    bench = told(history)
    assert bench.broken == []
    assert bench.court.unsettled() == []


@pytest.mark.parametrize(("history", "rule"), WRONG, ids=lambda part: getattr(part, "__name__", ""))
def test_a_wrong_history_is_found(history: Told, rule: str) -> None:
    assert rule in told(history).broken


def test_what_was_never_settled_is_listed() -> None:
    async def streams() -> list[str]:
        bench = StreamBench()
        bench.take(bench.ann)
        bench.call(bench.put(2)[:1])
        return bench.court.unsettled()

    async def queues() -> list[str]:
        bench = QueueBench()
        bench.send("", "")
        messages = bench.receive()
        bench.call(messages[:1])
        bench.delete(messages[:1])
        return bench.court.unsettled()

    assert run_virtual(streams())[0].startswith(f"{MAPPING}: 1 records")
    assert run_virtual(queues())[0].startswith(f"{MAPPING}: 1 messages")


def test_a_message_that_vanished_is_listed() -> None:
    async def main() -> list[str]:
        bench = QueueBench()
        bench.send("")
        bench.queue.letters["message-000001"].deleted = True
        return bench.court.queues[MAPPING].lost()

    assert run_virtual(main()) == ["message-000001"]


def test_a_checkpoint_that_lags_is_listed() -> None:
    async def main() -> list[str]:
        bench = StreamBench()
        bench.take(bench.ann)
        bench.call(bench.put(1))
        return bench.court.unsettled()

    assert run_virtual(main()) == [f"{MAPPING}: the checkpoints of ['{FIRST}']"]
