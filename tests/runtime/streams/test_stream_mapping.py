"""A stream mapping on virtual time: what it reads when, delivers in order, retries, discards and saves."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from itertools import count, pairwise

import msgspec
import orjson
import pytest

from adapters.stores.memory import MemoryStore
from poller.clock import LoopClock
from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    PortError,
    PositionTrimmed,
    RecordUnreadable,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.invocations import Condition, FunctionError, Invocation, Outcome, Succeeded, Throttled
from poller.domain.plan import MappingPlan, OnDestinationFailure, Start, Tuning
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import SHARD_END, Epoch, MappingId, Position, Record, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.domain.status import STACK_LINES_SHOWN_MAX, ErrorDocument
from poller.domain.telemetry.labels import Loss
from poller.domain.telemetry.mapping_events import (
    Blocked,
    CheckpointSaved,
    DestinationFailed,
    Discarded,
    Filtered,
    InvocationFinished,
    LeaseMoved,
    PortFailed,
    RecordsLost,
    ShardStopped,
)
from poller.rules.streams.windows import STATE_BYTES_MAX
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.context import StreamContext
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import (
    SHARD,
    FakeDestination,
    FakeFunction,
    FakeStream,
    Seen,
    mapping,
    poison,
    records,
    stream_parts,
)
from tests.virtual import EPOCH_BASE, run_virtual, virtual_clock

STEADY = Backoff(base_s=0.0, cap_s=0.0)
"""Retries at once, so that times in tests are the loop's own."""
type During = Callable[[StreamMapping, Stop], Awaitable[None]]


def run_mapping(
    make: Callable[[], StreamContext], *, for_s: float, during: During | None = None
) -> StreamMapping:
    """Runs a mapping for `for_s` virtual seconds, then stops it and waits until it has drained."""

    async def main() -> StreamMapping:
        stop = Stop()
        runner = StreamMapping(make(), stop)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(runner.run())
            if during is not None:
                await during(runner, stop)
            await asyncio.sleep(for_s)
            stop.request(Reason.REQUESTED)
        return runner

    return run_virtual(main())


async def position_of(store: MemoryStore, shard: ShardId = SHARD) -> Position:
    """The stored position of a shard."""
    leases = await store.leases(mapping().mapping)
    return next(lease.checkpoint.position for lease in leases if lease.shard == shard)


def stored(store: MemoryStore, shard: ShardId = SHARD) -> Position:
    """The stored position, after the loop has ended."""
    return run_virtual(position_of(store, shard))


def test_records_are_delivered_in_order_and_the_position_is_saved() -> None:
    stream, function, store = FakeStream(), FakeFunction(), MemoryStore()
    stream.put(*records(*range(1, 8)))
    plan = mapping(batch=BatchPolicy(records_max=3))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, store=store), for_s=5)
    assert function.calls == [[1, 2, 3], [4, 5, 6], [7]]
    assert stored(store) == Position.after("7")


def test_a_clock_that_goes_on_within_a_turn_of_the_loop_delays_nothing() -> None:
    stream, function = FakeStream(), FakeFunction()
    stream.put(*records(1, 2))
    ticks = count()
    clock = LoopClock(
        wall=virtual_clock().now, steady=lambda: asyncio.get_running_loop().time() + next(ticks) * 1e-9
    )
    run_mapping(lambda: replace(stream_parts(stream, function), clock=clock), for_s=2)
    assert function.calls == [[1, 2]]


def test_a_busy_shard_is_read_at_once_and_a_quiet_one_less_and_less() -> None:
    stream, function = FakeStream(page_max=2), FakeFunction()
    stream.put(*records(1, 2, 3, 4))
    run_mapping(lambda: stream_parts(stream, function), for_s=120)
    assert stream.reads[:4] == [0.0, 0.0, 0.0, 0.2]
    waits = [later - sooner for sooner, later in pairwise(stream.reads[2:])]
    assert all(later >= sooner - 1e-6 for sooner, later in pairwise(waits))
    assert waits[-1] == pytest.approx(5.0)


def test_a_shard_that_says_it_is_behind_is_read_again_at_once() -> None:
    stream = FakeStream(behind_ms=5000)

    async def catch_up(_: StreamMapping, __: Stop) -> None:
        for _turn in range(20):
            await asyncio.sleep(0)
        stream.behind_ms = 0

    run_mapping(lambda: stream_parts(stream, FakeFunction()), for_s=0.5, during=catch_up)
    assert stream.reads[:4] == [0.0] * 4


def test_one_batch_is_in_flight_per_shard() -> None:
    stream, function = FakeStream(), FakeFunction(takes_s=5)
    stream.put(*records(1, 2, 3))
    plan = mapping(batch=BatchPolicy(records_max=1))
    run_mapping(lambda: stream_parts(stream, function, plan=plan), for_s=20)
    assert function.times == [0.0, 5.0, 10.0]
    assert function.in_flight_max == 1


def test_a_window_gathers_records_until_it_runs_out() -> None:
    stream, function = FakeStream(), FakeFunction()
    stream.put(*records(1))

    async def later(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(2.5)
        stream.put(*records(2))

    plan = mapping(batch=BatchPolicy(records_max=10, window_s=5))
    run_mapping(lambda: stream_parts(stream, function, plan=plan), for_s=5, during=later)
    assert function.calls == [[1, 2]]
    assert function.times == [5.0]


def test_a_failing_batch_blocks_its_shard_until_it_is_discarded() -> None:
    stream, function, seen = FakeStream(), FakeFunction(poison(2)), Seen()
    stream.put(*records(1, 2, 3, 4))
    destination = FakeDestination()
    plan = mapping(batch=BatchPolicy(records_max=2), retry=RetryPolicy(retries_max=2, backoff=STEADY))
    run_mapping(
        lambda: stream_parts(stream, function, plan=plan, destination=destination, seen=seen), for_s=5
    )
    assert function.calls == [[1, 2]] * 3 + [[3, 4]]
    assert len(set(function.request_ids[:3])) == 1
    (notice,) = destination.notices
    info = json.loads(notice.document)
    assert info["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert info["requestContext"]["approximateInvokeCount"] == 3
    assert info["KinesisBatchInfo"]["batchSize"] == 2
    assert [event.blocked for event in seen.of(Blocked)] == [True, False]
    (discarded,) = seen.of(Discarded)
    assert (discarded.delivered, discarded.condition) == (True, Condition.RETRIES)


def test_extending_the_retention_saves_a_blocked_shard() -> None:
    stream, function, seen = FakeStream(kept_s=86_400.0), FakeFunction(poison(1)), Seen()
    stream.put(*records(1, age_s=86_000.0))

    async def extend(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(60)
        stream.kept_s = 7 * 86_400.0

    run_mapping(lambda: stream_parts(stream, function, seen=seen), for_s=3600, during=extend)
    assert seen.of(Discarded) == []
    assert len(function.calls) > 100


def test_a_trimmed_position_of_a_shard_that_was_idle_is_no_loss() -> None:
    stream, store, seen = FakeStream(kept_s=86_400.0), MemoryStore(), Seen()
    stream.put(*records(1))
    run_mapping(lambda: stream_parts(stream, FakeFunction(), store=store), for_s=20)
    again = FakeStream(kept_s=86_400.0, trouble=[PositionTrimmed("gone")])
    again.put(*records(2))
    function = FakeFunction()
    run_mapping(lambda: stream_parts(again, function, store=store, seen=seen), for_s=20)
    assert function.calls == [[2]]
    assert seen.of(RecordsLost) == []


def test_other_shards_go_on_while_one_is_blocked() -> None:
    other = ShardId("shardId-000000000001")
    stream = FakeStream(held={SHARD: [], other: []})
    stream.put(*records(1))
    stream.put(*records(100, 101), shard=other)
    function = FakeFunction(poison(1))
    run_mapping(lambda: stream_parts(stream, function), for_s=10)
    assert [100, 101] in function.calls


def test_retries_wait_longer_and_longer_with_jitter() -> None:
    stream, function = FakeStream(), FakeFunction(poison(1))
    stream.put(*records(1))
    plan = mapping(retry=RetryPolicy(backoff=Backoff(base_s=1.0, cap_s=64.0)))
    run_mapping(lambda: stream_parts(stream, function, plan=plan), for_s=600)
    waits = [later - earlier for earlier, later in zip(function.times, function.times[1:], strict=False)]
    assert all(wait <= min(64.0, 2.0**count) for count, wait in enumerate(waits))
    assert max(waits[6:]) > 10.0
    assert len(set(waits)) == len(waits)


def test_throttles_use_up_no_retry_and_respect_retry_after() -> None:
    answers: list[Outcome] = [Throttled("busy", 4.0), Throttled("busy", 4.0), FunctionError("E", "no")]
    stream = FakeStream()
    function = FakeFunction(lambda _: answers.pop(0) if answers else Succeeded(b""))
    stream.put(*records(1))
    plan = mapping(retry=RetryPolicy(retries_max=1, backoff=STEADY))
    run_mapping(lambda: stream_parts(stream, function, plan=plan), for_s=20)
    assert function.times == [0.0, 4.0, 8.0, 8.0]


def test_an_old_record_is_discarded_the_moment_it_gets_too_old() -> None:
    stream, function, seen = FakeStream(), FakeFunction(poison(1)), Seen()
    stream.put(*records(1, age_s=30.0))
    plan = mapping(retry=RetryPolicy(age_max_s=60.0, backoff=Backoff(base_s=1000.0, cap_s=1000.0)))
    destination = FakeDestination()
    run_mapping(
        lambda: stream_parts(stream, function, plan=plan, destination=destination, seen=seen), for_s=40
    )
    (notice,) = destination.notices
    assert json.loads(notice.document)["requestContext"]["condition"] == "RecordAgeExceeded"
    assert notice.timestamp.startswith("2026-01-01T00:00:30.00")


@pytest.mark.parametrize("age_s", [86_401.0, 2 * 86_400.0, -2 * 86_400.0, 1_700_000_000.0])
def test_what_the_source_still_gives_is_run_however_old_it_seems(age_s: float) -> None:
    answers: list[Outcome] = [Throttled("not yet"), FunctionError("ValueError", "no"), Succeeded(b"")]
    stream, function, seen = FakeStream(kept_s=86_400.0), FakeFunction(lambda _: answers.pop(0)), Seen()
    stream.put(*records(1, 2, age_s=age_s))
    run_mapping(lambda: stream_parts(stream, function, seen=seen), for_s=60)
    assert function.calls == [[1, 2]] * 3
    assert seen.of(Discarded) == []


def test_retention_frees_a_shard_without_a_notice() -> None:
    stream, function, seen = FakeStream(kept_s=86_400.0), FakeFunction(poison(1)), Seen()
    stream.put(*records(1, age_s=86_390.0), *records(2))
    plan = mapping(batch=BatchPolicy(records_max=1))
    destination = FakeDestination()
    run_mapping(
        lambda: stream_parts(stream, function, plan=plan, destination=destination, seen=seen),
        for_s=60,
    )
    assert destination.notices == []
    assert [event.condition for event in seen.of(Discarded)] == [Condition.RETENTION]
    assert function.calls[-1] == [2]


@pytest.mark.parametrize(
    "trouble", [ServiceThrottled("slow"), ServiceUnavailable("down"), AccessDenied("no")]
)
def test_a_destination_that_fails_keeps_the_batch_until_it_is_delivered(trouble: PortError) -> None:
    stream, function, seen = FakeStream(), FakeFunction(poison(1)), Seen()
    stream.put(*records(1, 2))
    plan = mapping(batch=BatchPolicy(records_max=1), retry=RetryPolicy(retries_max=0))
    destination = FakeDestination(*[trouble] * 4)
    run_mapping(
        lambda: stream_parts(stream, function, plan=plan, destination=destination, seen=seen),
        for_s=120,
    )
    assert len(destination.tries) == 5
    assert len(destination.notices) == 1
    assert function.calls == [[1], [2]]
    assert len({event.wait_s for event in seen.of(DestinationFailed)}) == 4


def test_status_shows_the_destination_that_keeps_a_batch_from_being_given_up() -> None:
    stream, function, seen = FakeStream(), FakeFunction(poison(1)), Seen()
    stream.put(*records(1))
    plan = mapping(retry=RetryPolicy(retries_max=0))
    destination = FakeDestination(*[ServiceUnavailable("no such queue")] * 100)
    shown: list[tuple[str, str, object, bool]] = []

    async def look(runner: StreamMapping, _: Stop) -> None:
        for _turn in range(3):
            await asyncio.sleep(20)
            [lane] = runner.shards()[0].lanes
            assert lane.next_try is not None
            ahead = lane.next_try > virtual_clock().now()
            shown.append((lane.state, lane.last_error, lane.error, ahead))

    run_mapping(
        lambda: stream_parts(stream, function, plan=plan, destination=destination, seen=seen),
        for_s=1,
        during=look,
    )
    error = "the on-failure destination did not take the batch: no such queue"
    assert shown == [("discarding", error, None, True)] * 3
    assert [event.blocked for event in seen.of(Blocked)] == [True]


def test_a_destination_that_fails_may_drop_the_batch_as_aws_does() -> None:
    stream, function, seen = FakeStream(), FakeFunction(poison(1)), Seen()
    stream.put(*records(1, 2))
    plan = mapping(
        batch=BatchPolicy(records_max=1),
        retry=RetryPolicy(retries_max=0),
        on_destination_failure=OnDestinationFailure.DROP,
    )
    destination = FakeDestination(ServiceUnavailable("down"))
    run_mapping(
        lambda: stream_parts(stream, function, plan=plan, destination=destination, seen=seen),
        for_s=5,
    )
    assert destination.tries == [0.0]
    assert [event.delivered for event in seen.of(Discarded)] == [False]
    assert function.calls == [[1], [2]]


def test_an_oversized_record_is_never_sent_and_processing_goes_on_behind_it() -> None:
    stream, function = FakeStream(), FakeFunction()
    big = records(1)[0]
    stream.put(msgspec.structs.replace(big, data="A" * 2000), *records(2))
    destination = FakeDestination()
    plan = mapping(
        batch=BatchPolicy(records_max=10, payload_bytes_max=1500),
        retry=RetryPolicy(retries_max=1, backoff=STEADY),
    )
    run_mapping(lambda: stream_parts(stream, function, plan=plan, destination=destination), for_s=5)
    assert function.calls == [[2]]
    (notice,) = destination.notices
    document = json.loads(notice.document)
    assert "responseContext" not in document
    assert document["requestContext"]["approximateInvokeCount"] == 2


def test_a_status_shows_keys_that_no_terminal_and_no_file_takes_as_text() -> None:
    stream, function = FakeStream(), FakeFunction(poison(1))
    keys = ("half \ud800\nof a pair", None)
    stream.put(
        *(msgspec.structs.replace(each, key=key) for each, key in zip(records(1, 2), keys, strict=True))
    )

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(1.0)
        (lane,) = runner.shards()[0].lanes
        assert [each.key for each in lane.records] == ["half \N{REPLACEMENT CHARACTER} of a pair", ""]
        assert orjson.dumps(runner.shards())

    run_mapping(lambda: stream_parts(stream, function), for_s=5, during=look)


@pytest.mark.parametrize("lanes", [1, 2])
def test_a_record_as_large_as_kinesis_takes_it_is_given_up_and_processing_goes_on_around_it(
    lanes: int,
) -> None:
    stream, function = FakeStream(), FakeFunction()
    data = "A" * (10 * 1024 * 1024 * 4 // 3)
    before, large, behind = records(1, 2, 3)
    stream.put(before, msgspec.structs.replace(large, data=data), behind)
    destination = FakeDestination()
    plan = mapping(retry=RetryPolicy(retries_max=0), lanes=lanes)
    run_mapping(lambda: stream_parts(stream, function, plan=plan, destination=destination), for_s=10)
    assert function.calls == [[1], [3]]
    (notice,) = destination.notices
    document = json.loads(notice.document)
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert document["KinesisBatchInfo"]["startSequenceNumber"] == "2"
    assert len(notice.payload) > 13_900_000


def test_filtered_records_are_never_sent_and_advance_the_position() -> None:
    stream, function, seen, store = FakeStream(), FakeFunction(), Seen(), MemoryStore()
    stream.put(*records(1, 2, 3, key="no"))
    plan = mapping(filters=('{"partitionKey":["yes"]}',))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, store=store, seen=seen), for_s=2)
    assert function.calls == []
    assert stored(store) == Position.after("3")
    assert sum(event.records for event in seen.of(Filtered)) == 3


def test_an_expired_cursor_goes_on_behind_the_last_record_that_was_read() -> None:
    stream, function = FakeStream(page_max=2, trouble=[]), FakeFunction()
    stream.put(*records(1, 2, 3))

    async def expire(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(1.5)
        stream.trouble.append(CursorExpired("old"))
        stream.put(*records(4))

    run_mapping(lambda: stream_parts(stream, function), for_s=3, during=expire)
    assert [number for batch in function.calls for number in batch] == [1, 2, 3, 4]
    assert stream.cursors == [Position.horizon(), Position.after("3")]


def test_a_trimmed_position_is_counted_and_goes_on_at_the_horizon() -> None:
    stream, function, seen = FakeStream(trouble=[PositionTrimmed("gone")]), FakeFunction(), Seen()
    stream.put(*records(7, 8))
    run_mapping(lambda: stream_parts(stream, function, seen=seen), for_s=2)
    assert function.calls == [[7, 8]]
    assert [event.loss for event in seen.of(RecordsLost)] == [Loss.TRIMMED]


def test_a_record_that_cannot_be_read_stops_its_shard_with_a_reason_and_is_never_passed_over() -> None:
    odd = RecordUnreadable("record 3 cannot be read: Data is no base64")
    stream, function, seen = FakeStream(page_max=2), FakeFunction(), Seen()
    stream.put(*records(1, 2, 3, 4))

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(0.5)
        stream.trouble += [odd] * 1000
        stream.put(*records(5, 6))
        await asyncio.sleep(100.0)
        (shard,) = runner.shards()
        assert (shard.state, shard.reason, shard.position) == ("failing", odd.reason, "AFTER:4")
        stream.trouble.clear()

    run_mapping(lambda: stream_parts(stream, function, seen=seen), for_s=200, during=look)
    assert function.calls == [[1, 2], [3, 4], [5, 6]]
    told = {(each.error, each.reason, each.wait_s) for each in seen.of(PortFailed)}
    assert told == {("RecordUnreadable", odd.reason, 10.0)}


@pytest.mark.parametrize(
    "trouble", [ServiceThrottled("slow"), ServiceUnavailable("down"), AccessDenied("no")]
)
def test_a_source_that_fails_is_asked_again_with_growing_waits(trouble: PortError) -> None:
    stream, function, seen = FakeStream(trouble=[trouble] * 5), FakeFunction(), Seen()
    stream.put(*records(1))
    run_mapping(lambda: stream_parts(stream, function, seen=seen), for_s=120)
    assert function.calls == [[1]]
    failed = seen.of(PortFailed)
    assert [event.error for event in failed] == [type(trouble).__name__] * 5
    assert len({event.wait_s for event in failed}) > 1 or isinstance(trouble, AccessDenied)


def test_discovery_that_fails_is_shown_and_heals_by_itself() -> None:
    stream, function = FakeStream(listing_trouble=[AccessDenied("may not list")] * 2), FakeFunction()
    stream.put(*records(1))

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not runner.opened
        assert runner.reason == "may not list"

    runner = run_mapping(lambda: stream_parts(stream, function), for_s=60, during=look)
    assert runner.opened
    assert runner.reason == ""
    assert function.calls == [[1]]


def test_children_start_when_their_parents_are_settled_and_begin_at_the_horizon() -> None:
    left, right, child = ShardId("a"), ShardId("b"), ShardId("c")
    stream = FakeStream(held={left: [], right: [], child: []}, ended={left, right})
    stream.parents[child] = (left, right)
    stream.put(*records(1), shard=left)
    stream.put(*records(2), shard=right)
    stream.put(*records(3), shard=child)
    function, store = FakeFunction(takes_s=7), MemoryStore()
    run_mapping(lambda: stream_parts(stream, function, store=store), for_s=20)
    assert function.times == [0.0, 0.0, 7.0]
    assert function.calls[2] == [3]
    assert stored(store, left) == stored(store, right) == SHARD_END


def test_a_shard_that_is_gone_from_the_stream_is_counted_and_its_children_go_on() -> None:
    gone, child = ShardId("a"), ShardId("b")
    store = MemoryStore()
    first = FakeStream(held={gone: []})
    first.put(*records(1), shard=gone)
    run_mapping(lambda: stream_parts(first, FakeFunction(), store=store), for_s=2)
    second, function, seen = FakeStream(held={child: []}), FakeFunction(), Seen()
    second.parents[child] = (gone,)
    second.put(*records(9), shard=child)
    run_mapping(lambda: stream_parts(second, function, store=store, seen=seen), for_s=60)
    assert [event.loss for event in seen.of(RecordsLost)] == [Loss.SHARD_GONE]
    assert function.calls == [[9]]
    assert stored(store, gone) == SHARD_END


def test_a_new_shard_is_found_within_the_discovery_interval() -> None:
    stream, function = FakeStream(), FakeFunction()
    born = ShardId("shardId-000000000009")

    async def grow(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(1)
        stream.held[born] = []
        stream.put(*records(50), shard=born)

    run_mapping(lambda: stream_parts(stream, function), for_s=40, during=grow)
    assert function.times == [30.0]


def test_latest_is_fixed_when_the_mapping_is_created_and_kept() -> None:
    store = MemoryStore()
    plan = mapping(start=Start(latest=True))
    first = FakeStream()
    run_mapping(lambda: stream_parts(first, FakeFunction(), plan=plan, store=store), for_s=1)
    assert first.cursors == [Position.at(_epoch(0))]
    again = FakeStream()
    run_mapping(lambda: stream_parts(again, FakeFunction(), plan=plan, store=store), for_s=1)
    assert again.cursors == [Position.at(_epoch(0))]


def test_checkpoints_are_written_once_a_second_at_most_and_at_the_end() -> None:
    stream, function, seen = FakeStream(), FakeFunction(takes_s=0.1), Seen()
    stream.put(*records(*range(1, 41)))
    plan = mapping(batch=BatchPolicy(records_max=1))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, seen=seen), for_s=2.55)
    saved = [event.position.sequence for event in seen.of(CheckpointSaved)]
    assert len(saved) <= 4
    assert saved == sorted(saved)
    assert saved[-1] == len(function.calls)


def test_a_stop_lets_the_running_invocation_finish_and_takes_nothing_new() -> None:
    stream, function, store, seen = FakeStream(), FakeFunction(takes_s=10), MemoryStore(), Seen()
    stream.put(*records(1, 2))
    plan = mapping(batch=BatchPolicy(records_max=1))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, store=store, seen=seen), for_s=3)
    assert function.calls == [[1]]
    assert stored(store) == Position.after("1")
    (finished,) = seen.of(InvocationFinished)
    assert finished.duration_s == 10.0
    (lease,) = run_virtual(store.leases(plan.mapping))
    assert lease.owner is None


def test_a_stop_ends_an_endless_retry_at_once() -> None:
    stream, function, store = FakeStream(), FakeFunction(poison(1)), MemoryStore()
    stream.put(*records(1))
    plan = mapping(retry=RetryPolicy(backoff=Backoff(base_s=500.0, cap_s=500.0)))
    ended: list[float] = []

    async def main() -> None:
        stop = Stop()
        runner = StreamMapping(stream_parts(stream, function, plan=plan, store=store), stop)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(runner.run())
            await asyncio.sleep(3)
            stop.request(Reason.REQUESTED)
        ended.append(asyncio.get_running_loop().time())

    run_virtual(main())
    assert ended == [3.0]


def test_a_restart_goes_on_at_the_checkpoint_and_keeps_the_failures_of_a_blocked_batch() -> None:
    stream, store = FakeStream(), MemoryStore()
    stream.put(*records(1, 2))
    plan = mapping(
        batch=BatchPolicy(records_max=1),
        retry=RetryPolicy(retries_max=3, backoff=Backoff(base_s=1.0, cap_s=100.0)),
    )
    first, destination = FakeFunction(poison(2)), FakeDestination()

    def parts(function: FakeFunction) -> Callable[[], StreamContext]:
        return lambda: stream_parts(stream, function, plan=plan, store=store, destination=destination)

    run_mapping(parts(first), for_s=0.0)
    second = FakeFunction(poison(2))
    run_mapping(parts(second), for_s=60)
    assert first.calls + second.calls == [[1]] + [[2]] * 4
    assert len(destination.notices) == 1


def test_a_lost_lease_ends_the_work_and_nothing_more_is_written() -> None:
    stream, function, store, seen = FakeStream(), FakeFunction(takes_s=5), MemoryStore(), Seen()
    stream.put(*records(*range(1, 100)))
    plan = mapping(batch=BatchPolicy(records_max=1))

    async def steal(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(7)
        (lease,) = await store.leases(plan.mapping)
        taken = await store.take(plan.mapping, lease, owner=WorkerId("other"))
        await store.save(plan.mapping, taken, Checkpoint(Position.after("50")))

    run_mapping(
        lambda: stream_parts(stream, function, plan=plan, store=store, seen=seen), for_s=60, during=steal
    )
    # The worker learns of it from the save behind record 2, while record 3 is already on its way.
    assert function.calls == [[1], [2], [3]]
    assert stored(store) == Position.after("50")
    assert [event.held for event in seen.of(LeaseMoved)] == [True, False]
    assert [event.ended for event in seen.of(ShardStopped)] == [False]


def test_a_lease_lost_on_an_idle_shard_is_noticed_at_the_next_discovery() -> None:
    stream, store, seen = FakeStream(), MemoryStore(), Seen()

    async def steal(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(2)
        (lease,) = await store.leases(mapping().mapping)
        await store.take(mapping().mapping, lease, owner=WorkerId("other"))

    run_mapping(lambda: stream_parts(stream, FakeFunction(), store=store, seen=seen), for_s=40, during=steal)
    assert [event.held for event in seen.of(LeaseMoved)] == [True, False]


class FailingStore(MemoryStore):
    """A store whose saves fail a few times."""

    def __init__(self, failures: int) -> None:
        super().__init__()
        self.failures = failures

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        if self.failures:
            self.failures -= 1
            raise ServiceUnavailable("store is down")
        await super().save(mapping, lease, checkpoint)


def test_a_store_that_is_down_delays_checkpoints_and_nothing_else() -> None:
    stream, function, store, seen = FakeStream(), FakeFunction(), FailingStore(4), Seen()
    stream.put(*records(1, 2, 3))
    plan = mapping(batch=BatchPolicy(records_max=1))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, store=store, seen=seen), for_s=60)
    assert function.times == [0.0, 0.0, 0.0]
    assert stored(store) == Position.after("3")
    assert len([event for event in seen.of(PortFailed) if event.port == "store"]) == 4


def test_lanes_run_side_by_side_and_one_key_stays_in_order() -> None:
    stream, function = FakeStream(), FakeFunction(takes_s=1)
    for number in range(1, 13):
        stream.put(*records(number, key=f"key-{number % 4}"))
    plan = mapping(lanes=4, batch=BatchPolicy(records_max=1))
    run_mapping(lambda: stream_parts(stream, function, plan=plan), for_s=30)
    assert 1 < function.in_flight_max <= 4
    delivered = [batch[0] for batch in function.calls]
    for key in range(4):
        mine = [number for number in delivered if number % 4 == key]
        assert mine == sorted(mine)


def test_the_functions_limit_holds_over_all_lanes() -> None:
    stream, function = FakeStream(), FakeFunction(takes_s=1)
    for number in range(1, 20):
        stream.put(*records(number, key=f"key-{number}"))
    plan = mapping(lanes=10, batch=BatchPolicy(records_max=1))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, max_concurrency=2), for_s=60)
    assert function.in_flight_max == 2
    assert len(function.calls) == 19


def test_status_shows_what_blocks_a_shard_and_until_when() -> None:
    stream, function = FakeStream(kept_s=86_400.0), FakeFunction(poison(2))
    stream.put(*records(2, key="device-7"))
    plan = mapping(retry=RetryPolicy(backoff=Backoff(base_s=50.0, cap_s=50.0)))
    shown: list[tuple[str, str, str, int]] = []

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(0.5)
        (shard,) = runner.shards()
        (lane,) = shard.lanes
        assert shard.blocked
        assert lane.blocked_since == EPOCH_BASE
        assert lane.next_try is not None
        (record,) = lane.records
        assert lane.retained_until == record.arrived + 86_400.0
        shown.append((lane.state, lane.last_error, record.identifier + record.key, lane.attempts))

    run_mapping(lambda: stream_parts(stream, function, plan=plan), for_s=0.5, during=look)
    assert shown == [("waiting", "ValueError: poison", "2device-7", 1)]


def test_status_and_events_have_what_the_function_said_of_its_error() -> None:
    said = FunctionError(
        "ValueError", "poison", stack_trace=tuple(f"  line {number}" for number in range(40))
    )
    stream, seen = FakeStream(), Seen()
    function = FakeFunction(lambda _: said)
    stream.put(*records(1))
    plan = mapping(retry=RetryPolicy(backoff=Backoff(base_s=50.0, cap_s=50.0)))
    shown: list[ErrorDocument | None] = []

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(0.5)
        shown.append(runner.shards()[0].lanes[0].error)

    run_mapping(lambda: stream_parts(stream, function, plan=plan, seen=seen), for_s=0.5, during=look)
    [error] = shown
    assert error is not None
    assert (error.errorType, error.errorMessage) == ("ValueError", "poison")
    assert len(error.stackTrace) == STACK_LINES_SHOWN_MAX
    assert (error.stackTrace[0], error.stackTrace[-1]) == ("  line 0", "  line 39")
    [event, *_] = seen.of(InvocationFinished)
    assert (event.error, event.error_type, event.stack_trace) == (
        "ValueError: poison",
        "ValueError",
        said.stack_trace,
    )


def test_trouble_that_is_no_error_of_the_function_has_no_error_document() -> None:
    answers: list[Outcome] = [FunctionError("E", "no"), Throttled("busy", 50.0)]
    stream = FakeStream()
    function = FakeFunction(lambda _: answers.pop(0))
    stream.put(*records(1))
    shown: list[tuple[str, object]] = []

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(5)
        [lane] = runner.shards()[0].lanes
        shown.append((lane.last_error, lane.error))

    plan = mapping(retry=RetryPolicy(backoff=STEADY))
    run_mapping(lambda: stream_parts(stream, function, plan=plan), for_s=5, during=look)
    assert shown == [("busy", None)]


def test_a_shard_that_is_stuck_on_a_reported_record_shows_as_blocked() -> None:
    stream, seen = FakeStream(), Seen()
    stream.put(*records(1, 2))
    report = b'{"batchItemFailures":[{"itemIdentifier":"2"}]}'
    function = FakeFunction(lambda batch: Succeeded(report if 2 in batch else b""))
    plan = mapping(retry=RetryPolicy(report_failures=True, retries_max=3, backoff=STEADY))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, seen=seen), for_s=5)
    assert function.calls == [[1, 2]] + [[2]] * 4
    assert [event.blocked for event in seen.of(Blocked)] == [True, False]


def test_a_checkpoint_older_than_the_retention_is_counted_as_lost() -> None:
    store = MemoryStore()
    first = FakeStream(kept_s=86_400.0)
    first.put(*records(1))
    run_mapping(lambda: stream_parts(first, FakeFunction(), store=store), for_s=2)
    seen = Seen()

    async def much_later() -> None:
        await asyncio.sleep(90_000)
        stop = Stop()
        parts = stream_parts(first, FakeFunction(), store=store, seen=seen)
        runner = StreamMapping(parts, stop)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(runner.run())
            await asyncio.sleep(1)
            assert runner.shards()[0].losses == 1
            stop.request(Reason.REQUESTED)

    run_virtual(much_later())
    assert [event.loss for event in seen.of(RecordsLost)] == [Loss.TRIMMED]


def test_a_thousand_shards_are_read_by_one_mapping() -> None:
    held: dict[ShardId, list[Record]] = {
        ShardId(f"shardId-{number:012d}"): [*records(number + 1)] for number in range(1000)
    }
    stream, function = FakeStream(held=held), FakeFunction()
    run_mapping(lambda: stream_parts(stream, function, tuning=Tuning(idle_poll_s=10.0)), for_s=5)
    assert sorted(batch[0] for batch in function.calls) == list(range(1, 1001))


HUGE = {"log": "x" * STATE_BYTES_MAX}
type Called = tuple[list[int], object, bool, bool]
"""A call in a tumbling window: records, state ("huge" for HUGE), isFinalInvokeForWindow, isWindowTerminatedEarly."""


class CountingFunction(FakeFunction):
    """Counts a window's records in its state, after it gave the scripted answers."""

    def __init__(self, *answers: Outcome | None) -> None:
        super().__init__(self._next)
        self.windows: list[Called] = []
        self.starts: list[str] = []
        self._answers = list(answers)
        self._counted = 0

    async def invoke(self, invocation: Invocation) -> Outcome:
        event = json.loads(invocation.payload)
        numbers = [int(record["kinesis"]["sequenceNumber"]) for record in event["Records"]]
        state = event["state"]
        self.windows.append(
            (
                numbers,
                "huge" if state == HUGE else state,
                event["isFinalInvokeForWindow"],
                event["isWindowTerminatedEarly"],
            )
        )
        self.starts.append(event["window"]["start"])
        assert len(self.starts) <= 50, "the function is called for ever"
        self._counted = state.get("n", 0) + len(numbers)
        return await super().invoke(invocation)

    def _next(self, _: list[int]) -> Outcome:
        answer = self._answers.pop(0) if self._answers else None
        return answer or _state({"n": self._counted})


def _state(state: object, *failed: str) -> Succeeded:
    failures = [{"itemIdentifier": each} for each in failed]
    return Succeeded(json.dumps({"state": state, "batchItemFailures": failures}).encode())


def _windowed(**changes: object) -> MappingPlan:
    retry = RetryPolicy(retries_max=1, report_failures=True, bisect=True, backoff=STEADY)
    return mapping(**({"tumbling_window_s": 10, "retry": retry} | changes))


def test_a_window_whose_state_grew_too_large_ends_before_the_rest_of_a_reported_batch() -> None:
    stream, function, store, seen = FakeStream(), CountingFunction(_state(HUGE, "2")), MemoryStore(), Seen()
    stream.put(*records(1, 2, 3))
    run_mapping(lambda: stream_parts(stream, function, plan=_windowed(), store=store, seen=seen), for_s=20)
    assert function.windows == [
        ([1, 2, 3], {}, False, False),
        ([], "huge", True, True),
        ([2, 3], {}, False, False),
        ([], {"n": 2}, True, False),
    ]
    assert function.starts == ["2026-01-01T00:00:00Z"] * 4
    assert function.times[:3] == [0.0] * 3
    assert len(set(function.request_ids)) == 4
    assert [event.records for event in seen.of(InvocationFinished)] == [3, 0, 2, 0]
    assert seen.of(Discarded) == []
    assert stored(store) == Position.after("3")


def test_a_window_whose_state_grew_too_large_ends_before_the_other_parts_of_a_bisected_batch() -> None:
    stream = FakeStream()
    function = CountingFunction(FunctionError("E", "no"), FunctionError("E", "no"), _state(HUGE))
    stream.put(*records(1, 2, 3, 4))
    run_mapping(lambda: stream_parts(stream, function, plan=_windowed()), for_s=1)
    assert function.windows == [
        ([1, 2, 3, 4], {}, False, False),
        ([1, 2], {}, False, False),
        ([1], {}, False, False),
        ([], "huge", True, True),
        ([2], {}, False, False),
        ([3, 4], {"n": 1}, False, False),
    ]


def test_a_window_whose_state_grew_too_large_ends_by_itself_when_nothing_of_its_batch_is_left() -> None:
    stream, function, store = FakeStream(), CountingFunction(_state(HUGE)), MemoryStore()
    stream.put(*records(1, 2, 3))
    plan = _windowed(batch=BatchPolicy(records_max=2))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, store=store), for_s=1)
    assert function.windows == [
        ([1, 2], {}, False, False),
        ([], "huge", True, True),
        ([3], {}, False, False),
    ]
    assert stored(store) == Position.after("3")


def test_an_early_end_that_fails_for_good_is_reported_and_the_rest_of_its_batch_comes_behind_it() -> None:
    stream, store, destination, seen = FakeStream(), MemoryStore(), FakeDestination(), Seen()
    function = CountingFunction(
        _state(HUGE, "2"), Throttled("busy", 2.0), FunctionError("E", "no"), FunctionError("E", "no")
    )
    stream.put(*records(1, 2, 3))
    run_mapping(
        lambda: stream_parts(
            stream, function, plan=_windowed(), store=store, destination=destination, seen=seen
        ),
        for_s=5,
    )
    assert function.windows == [
        ([1, 2, 3], {}, False, False),
        *[([], "huge", True, True)] * 3,
        ([2, 3], {}, False, False),
    ]
    assert function.times == [0.0, 0.0, 2.0, 2.0, 2.0]
    assert len(set(function.request_ids[1:4])) == 1
    (notice,) = destination.notices
    document = json.loads(notice.document)
    assert document["requestContext"]["condition"] == "RetryAttemptsExhausted"
    assert document["requestContext"]["approximateInvokeCount"] == 2
    assert document["KinesisBatchInfo"].keys() == {"shardId", "streamArn"}
    assert document["timeWindowInfo"] == {
        "window": {"start": "2026-01-01T00:00:00Z", "end": "2026-01-01T00:00:10Z"},
        "isFinalInvokeForWindow": True,
        "isWindowTerminatedEarly": True,
    }
    assert json.loads(notice.payload)["state"] == HUGE
    assert [event.blocked for event in seen.of(Blocked)] == [True, False]
    assert [event.records for event in seen.of(Discarded)] == [0]
    assert stored(store) == Position.after("3")


def test_an_early_end_that_no_run_has_done_yet_comes_before_the_rest_of_its_batch_after_a_restart() -> None:
    stream, store = FakeStream(), MemoryStore()
    stream.put(*records(1, 2, 3))
    first, second = CountingFunction(_state(HUGE, "2"), Throttled("busy", 60.0)), CountingFunction()
    run_mapping(lambda: stream_parts(stream, first, plan=_windowed(), store=store), for_s=1)
    assert stored(store) == Position.after("1")
    run_mapping(lambda: stream_parts(stream, second, plan=_windowed(), store=store), for_s=1)
    assert first.windows == [([1, 2, 3], {}, False, False), ([], "huge", True, True)]
    assert second.windows == [([], "huge", True, True), ([2, 3], {}, False, False)]
    assert stored(store) == Position.after("3")


def _epoch(seconds: float) -> Epoch:
    return Epoch(EPOCH_BASE + seconds)
