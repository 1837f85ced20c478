"""What operators do to a running shard: retry, reset, skip and pause, on virtual time."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import AccessDenied, LeaseLost, PortError, ServiceUnavailable
from poller.domain.invocations import Condition, FunctionError, Succeeded, Throttled
from poller.domain.operations import (
    Action,
    Operation,
    OperationId,
    OperationRequest,
    OperationState,
    OperationTarget,
    OperatorPause,
    PartResult,
)
from poller.domain.plan import MappingPlan, OnDestinationFailure
from poller.domain.policies import Backoff, BatchPolicy, RetryPolicy
from poller.domain.records import Epoch, Position, Record, ShardId
from poller.domain.telemetry.mapping_events import Discarded
from poller.rules.streams.lanes import lane_of
from poller.runtime.operations.operable import Operable, ResolvedRecords
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.rules.build import kinesis
from tests.runtime.fakes import (
    SHARD,
    FakeDestination,
    FakeFunction,
    FakeStream,
    Seen,
    mapping,
    poison,
    stream_parts,
)
from tests.virtual import EPOCH_BASE, run_virtual

SLOW = Backoff(base_s=1000.0, cap_s=1000.0)
"""A batch that failed waits for 500 to 1000 s."""
DOWN = ServiceUnavailable("no such queue")
PAUSE = OperatorPause(
    operation=OperationId("op-1"), target=OperationTarget(), by="ann", since=Epoch(EPOCH_BASE), reason="why"
)
FIRST = [kinesis(number, key="k", arrived=EPOCH_BASE) for number in (1, 2, 3, 4, 5)]


def operation(action: Action, *, lane: int | None = None, notes: Any = None, **members: Any) -> Operation:
    """An operation on the shard or a lane of it."""
    return Operation(
        operation=OperationId("op"),
        mapping=mapping().mapping,
        request=OperationRequest(
            action=action, target=OperationTarget(shard=SHARD, lane=lane), members=members
        ),
        created=Epoch(EPOCH_BASE),
        notes=notes or {},
    )


async def carried_out(runner: Operable, asked: Operation) -> PartResult:
    """Carries an operation out as those do who follow the store: a skip is first resolved, then stored, then done."""
    found = await runner.carry_out(SHARD, asked)
    if isinstance(found, ResolvedRecords):
        found = await runner.carry_out(SHARD, replace(asked, notes={"records": list(found.records)}))
    assert isinstance(found, PartResult)
    return found


class Place:
    """One mapping over fakes, and what was seen of it."""

    def __init__(
        self,
        *held: Record,
        function: FakeFunction | None = None,
        destination: FakeDestination | None = None,
        store: MemoryStore | None = None,
        operated: bool = False,
        max_concurrency: int | None = None,
        **changes: object,
    ) -> None:
        self.stream, self.seen, self.store = FakeStream(), Seen(), store or MemoryStore()
        self.stream.put(*(held or FIRST))
        self.function = function or FakeFunction(poison(2))
        self.destination, self.operated = destination, operated
        self.max_concurrency = max_concurrency
        given = {"batch": BatchPolicy(records_max=3), "retry": RetryPolicy(backoff=SLOW)} | changes
        self.plan: MappingPlan = mapping(**given)

    def run(self, *during: Callable[[StreamMapping], Awaitable[None]], for_s: float = 1.0) -> StreamMapping:
        """Runs the mapping until `during` and then `for_s` virtual seconds are over, and lets it drain."""

        async def main() -> StreamMapping:
            stop, parts = Stop(), self.parts()
            runner = StreamMapping(parts, stop)
            async with asyncio.TaskGroup() as scope:
                scope.create_task(runner.run())
                for each in during:
                    await each(runner)
                await asyncio.sleep(for_s)
                stop.request(Reason.REQUESTED)
            return runner

        return run_virtual(main())

    def parts(self) -> Any:
        parts = stream_parts(
            self.stream,
            self.function,
            plan=self.plan,
            store=self.store,
            destination=self.destination,
            seen=self.seen,
            max_concurrency=self.max_concurrency,
        )
        return replace(parts, operated=self.operated)

    @property
    def position(self) -> Position:
        """The saved position."""
        leases = run_virtual(self.store.leases(self.plan.mapping))
        return next(lease.checkpoint.position for lease in leases if lease.shard == SHARD)


class Unsaving(MemoryStore):
    """A store that takes no checkpoint while it is `down`."""

    down = False

    async def save(self, mapping, lease, checkpoint):  # type: ignore[no-untyped-def]
        """Raises ServiceUnavailable while down."""
        if self.down:
            raise ServiceUnavailable("the service is down")
        return await super().save(mapping, lease, checkpoint)


def after(
    at_s: float, act: Callable[[StreamMapping], Awaitable[Any]], into: list[Any]
) -> Callable[[StreamMapping], Awaitable[None]]:
    """Waits, acts, and keeps what came of it."""

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(at_s)
        into.append(await act(runner))

    return during


def acting(*actions: Operation) -> Callable[[StreamMapping], Awaitable[list[PartResult]]]:
    """Carries these operations out, a second after each other."""

    async def act(runner: StreamMapping) -> list[PartResult]:
        results = []
        for each in actions:
            results.append(await carried_out(runner, each))
            await asyncio.sleep(1.0)
        return results

    return act


def one(*actions: Operation, place: Place, at_s: float = 10.0, for_s: float = 1.0) -> list[PartResult]:
    """The results of these operations in a place."""
    found: list[Any] = []
    place.run(after(at_s, acting(*actions), found), for_s=for_s)
    results: list[PartResult] = found[0]
    return results


def done(text: str) -> PartResult:
    return PartResult(state=OperationState.DONE, result=text)


def failed(text: str) -> PartResult:
    return PartResult(state=OperationState.FAILED, result=text)


def test_a_mapping_is_what_operations_need() -> None:
    runner: Operable = StreamMapping(Place().parts(), Stop())
    assert list(runner.units()) == []


def test_a_retry_tries_at_once_and_begins_the_back_off_again() -> None:
    place = Place(retry=RetryPolicy(backoff=Backoff(base_s=8.0, cap_s=1000.0)))
    [result] = one(operation(Action.RETRY), place=place, at_s=100.0, for_s=8.5)
    assert result == done("lane 0: tried again now")
    before = [each for each in place.function.times if each < 100.0]
    assert len(before) == 5
    assert place.function.times[len(before)] == 100.0
    assert 104.0 <= place.function.times[len(before) + 1] <= 108.0


def test_a_retry_uses_up_no_attempt() -> None:
    destination = FakeDestination()
    place = Place(destination=destination, retry=RetryPolicy(retries_max=2, backoff=SLOW))
    one(*[operation(Action.RETRY)] * 2, place=place)
    assert len(place.function.calls) == 4
    assert json.loads(destination.notices[0].document)["requestContext"]["approximateInvokeCount"] == 3


def test_a_retry_while_a_call_runs_has_nothing_to_do() -> None:
    place = Place(function=FakeFunction(takes_s=20.0))
    [result] = one(operation(Action.RETRY), place=place)
    assert result == done("lane 0: called now or as soon as the function has a free slot")


def test_a_retry_of_a_healthy_shard_says_that_nothing_waits() -> None:
    assert one(operation(Action.RETRY), place=Place(function=FakeFunction())) == [
        done("nothing waits for another try")
    ]


def test_a_retry_ends_the_wait_for_a_throttled_function() -> None:
    answers = [Throttled("busy", 300.0)]
    function = FakeFunction(lambda _: answers.pop() if answers else Succeeded(b""))
    place = Place(function=function)
    one(operation(Action.RETRY), place=place)
    assert function.times[:2] == [0.0, 10.0]


def test_a_retry_ends_the_wait_for_the_next_delivery_of_a_notice() -> None:
    destination = FakeDestination(*[DOWN] * 12)
    place = Place(destination=destination, retry=RetryPolicy(retries_max=0))
    place.run(after(1000.0, acting(operation(Action.RETRY)), []), for_s=0.0)
    assert 1000.0 in destination.tries or destination.notices
    assert len(place.function.calls) <= 2


def test_a_notice_whose_delivery_was_broken_off_keeps_its_id() -> None:
    ids: list[str] = []

    class Noting(FakeDestination):
        async def send(self, notice: Any) -> None:
            ids.append(notice.notice_id)
            await super().send(notice)

    destination = Noting(*[DOWN] * 3)
    place = Place(destination=destination, retry=RetryPolicy(retries_max=0))
    place.run(after(0.01, acting(*[operation(Action.RETRY)] * 3), []), for_s=100.0)
    assert len(ids) > 3
    assert len(set(ids)) == 1


def test_a_retry_ends_the_wait_of_a_shard_that_cannot_be_read() -> None:
    place = Place(function=FakeFunction())
    place.stream.trouble = [AccessDenied("no")] * 1000
    found: list[Any] = []
    place.run(after(100.0, acting(operation(Action.RETRY)), found), for_s=0.5)
    assert found[0] == [done("the shard is read again now")]
    assert 100.0 in place.stream.reads


def test_a_reset_gives_all_attempts_again() -> None:
    destination = FakeDestination()
    place = Place(
        destination=destination, retry=RetryPolicy(retries_max=1, backoff=Backoff(base_s=20.0, cap_s=20.0))
    )
    [result] = one(operation(Action.RESET), place=place, at_s=5.0, for_s=100.0)
    assert result == done("lane 0: attempts and age count from now")
    assert [
        json.loads(each.document)["requestContext"]["approximateInvokeCount"] for each in destination.notices
    ] == [2]
    assert [call for call in place.function.calls if 2 in call] == [[1, 2, 3]] * 3


def test_a_reset_makes_the_age_count_from_now_also_after_a_restart() -> None:
    """The older version of a checkpoint would give the record up at once."""
    policy = RetryPolicy(age_max_s=60.0, backoff=Backoff(base_s=40.0, cap_s=40.0))
    place = Place(kinesis(2, arrived=EPOCH_BASE), destination=FakeDestination(), retry=policy)
    one(operation(Action.RESET), place=place, at_s=55.0, for_s=0.0)
    again = Place(
        kinesis(2, arrived=EPOCH_BASE), destination=FakeDestination(), store=place.store, retry=policy
    )

    async def later(_: StreamMapping) -> None:
        await asyncio.sleep(40.0)

    # The clock of a new loop begins at the same moment, so the record is made older instead.
    again.stream.held[SHARD] = [kinesis(2, arrived=EPOCH_BASE - 55.0)]
    again.run(later)
    assert again.seen.of(Discarded) == []
    assert len(again.function.calls) == 2


def test_a_reset_with_an_exhausted_batch_takes_it_from_its_failing_destination() -> None:
    destination = FakeDestination(*[DOWN] * 100)
    answers = [FunctionError("E", "no")]
    function = FakeFunction(lambda _: answers.pop() if answers else Succeeded(b""))
    place = Place(destination=destination, function=function, retry=RetryPolicy(retries_max=0))
    one(operation(Action.RESET), place=place)
    assert function.calls == [[1, 2, 3], [1, 2, 3], [4, 5]]
    assert destination.notices == []


@pytest.mark.parametrize(
    ("members", "calls", "skipped"),
    [
        ({"records": "first"}, [[2, 3]], [1]),
        ({"records": "batch"}, [[4, 5]], [1, 2, 3]),
        ({"records": ["2"]}, [[1, 3], [4, 5]], [2]),
        ({"records": ["3", "2"]}, [[1], [4, 5]], [2, 3]),
    ],
)
def test_a_skip_sends_a_notice_and_the_rest_goes_on(
    members: Any, calls: list[list[int]], skipped: list[int]
) -> None:
    destination = FakeDestination()
    place = Place(destination=destination)
    [result] = one(operation(Action.SKIP, send=True, **members), place=place)
    s = "s" if len(skipped) > 1 else ""
    assert result == done(f"{len(skipped)} record{s} skipped, the destination has the notice")
    assert place.function.calls[1:] == calls
    (notice,) = destination.notices
    document = json.loads(notice.document)
    assert document["requestContext"]["condition"] == "SkippedByOperator"
    assert document["requestContext"]["approximateInvokeCount"] == 1
    assert document["requestContext"]["requestId"] == place.function.request_ids[0]
    assert document["responseContext"]["functionError"] == "Unhandled"
    info = document["KinesisBatchInfo"]
    assert (info["startSequenceNumber"], info["endSequenceNumber"], info["batchSize"]) == (
        str(skipped[0]),
        str(skipped[-1]),
        len(skipped),
    )
    inside = [int(each["kinesis"]["sequenceNumber"]) for each in json.loads(notice.payload)["Records"]]
    assert inside == skipped
    [discarded] = place.seen.of(Discarded)
    assert (discarded.condition, discarded.delivered) == (Condition.SKIPPED, True)


def test_records_apart_are_skipped_with_a_notice_for_each_run_of_them() -> None:
    destination = FakeDestination()
    place = Place(destination=destination)
    [result] = one(operation(Action.SKIP, records=["1", "3"], send=True), place=place)
    assert result == done("2 records skipped, the destination has the notice")
    infos = [json.loads(each.document)["KinesisBatchInfo"] for each in destination.notices]
    assert [(each["startSequenceNumber"], each["batchSize"]) for each in infos] == [("1", 1), ("3", 1)]
    assert place.function.calls[1:] == [[2]]


def test_a_skip_without_a_notice_drops_the_records() -> None:
    destination = FakeDestination()
    place = Place(destination=destination)
    [result] = one(operation(Action.SKIP, records="batch", send=False, discard=True), place=place)
    assert result == done("3 records skipped without a notice")
    assert destination.notices == []
    assert place.position == Position.after("5")


def test_a_skipped_record_in_the_middle_is_not_run_again_after_a_restart() -> None:
    """With one lane too, the memo has what is settled ahead of the position."""
    place = Place(function=FakeFunction(poison(1)))
    one(operation(Action.SKIP, records=["2"], send=False, discard=True), place=place)
    assert place.position == Position.horizon()
    again = Place(store=place.store, function=FakeFunction())
    again.run(for_s=5.0)
    assert again.function.calls == [[1, 3], [4, 5]]
    assert again.position == Position.after("5")


def test_a_skip_that_was_decided_before_a_crash_skips_the_same_records_afterwards() -> None:
    """The next owner has the ids only: some are settled, the others are skipped when they are read again, before any call."""
    place = Place()
    found: list[Any] = []

    async def decide(runner: StreamMapping) -> Any:
        return await runner.carry_out(SHARD, operation(Action.SKIP, records="batch", send=True))

    place.run(after(10.0, decide, found))
    assert found == [ResolvedRecords(("1", "2", "3"))]
    destination = FakeDestination()
    again = Place(store=place.store, destination=destination, function=FakeFunction())
    noted = operation(Action.SKIP, records="batch", send=True, notes={"records": ["1", "2", "3"]})
    results: list[Any] = []

    async def at_once(runner: StreamMapping) -> None:
        for _ in range(100):
            if not runner.units():
                await asyncio.sleep(0)
        results.append(await runner.carry_out(SHARD, noted))

    again.run(at_once)
    assert results == [done("3 records skipped, the destination has the notice")]
    assert again.function.calls == [[4, 5]]


@pytest.mark.parametrize(
    ("there", "bad", "noted", "text"),
    [
        ([4, 5], 4, ["2", "3"], "2 records gone: removed by the source, or left out by a seek"),
        ([1], 0, ["2"], "1 record gone: removed by the source, or left out by a seek"),
        ([1, 4], 1, ["1", "3"], "1 record skipped without a notice; 1 record gone"),
    ],
    ids=["a later record fails", "nothing is left", "in the middle"],
)
def test_a_skip_does_not_wait_for_what_the_source_has_removed(
    there: list[int], bad: int, noted: list[str], text: str
) -> None:
    """The next owner of a shard has the ids only, and the records may be gone by then."""
    held = [kinesis(number, key="k", arrived=EPOCH_BASE) for number in there]
    place = Place(*held, function=FakeFunction(poison(bad)))
    [result] = one(
        operation(
            Action.SKIP, records="batch", send=False, discard=True, notes={"records": noted, "lanes": 1}
        ),
        place=place,
    )
    assert result.state is OperationState.DONE
    assert result.result.startswith(text)


def test_a_skip_while_the_call_runs_waits_for_its_answer() -> None:
    place = Place(function=FakeFunction(takes_s=30.0), destination=FakeDestination())
    results = one(
        operation(Action.SKIP, records=["1", "2"], send=True),
        operation(Action.SKIP, records="first", lane=0, send=True),
        place=place,
        for_s=60.0,
    )
    assert results == [done("2 records settled before"), failed("lane 0 tries no batch now")]
    assert place.function.calls == [[1, 2, 3], [4, 5]]


def test_a_destination_that_takes_no_notice_blocks_a_skip_until_it_is_dropped() -> None:
    destination = FakeDestination(*[DOWN] * 1000)
    place = Place(
        destination=destination,
        on_destination_failure=OnDestinationFailure.DROP,
    )
    results: list[PartResult] = []

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(10.0)
        async with asyncio.TaskGroup() as both:
            first = both.create_task(carried_out(runner, operation(Action.SKIP, records=["2"], send=True)))
            await asyncio.sleep(300.0)
            assert not first.done()
            [lane] = runner.shards()[0].lanes
            assert lane.last_error.startswith("the on-failure destination did not take the batch")
            assert lane.state == "discarding"
            second = operation(Action.SKIP, records=["2"], send=False, discard=True)
            results.append(await carried_out(runner, second))
        results.append(first.result())

    place.run(during)
    assert results == [done("1 record skipped without a notice")] * 2
    assert place.function.calls[1:] == [[1, 3], [4, 5]]


def test_a_skip_that_is_cancelled_leaves_the_records() -> None:
    destination = FakeDestination(*[DOWN] * 1000)
    place = Place(destination=destination, retry=RetryPolicy(backoff=Backoff(base_s=40.0, cap_s=40.0)))

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(10.0)
        skip = operation(Action.SKIP, records=["2"], send=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(5.0):
                await carried_out(runner, skip)

    place.run(during, for_s=60.0)
    assert place.function.calls[1:] == [[1, 2, 3]] * len(place.function.calls[1:])
    assert place.seen.of(Discarded) == []


@pytest.mark.parametrize(
    ("asked", "text"),
    [
        (operation(Action.SKIP, records="first", send=True), "no lane is blocked: name the lane whose batch is meant, or the records"),
        (operation(Action.SKIP, records="first", lane=0, send=True), "lane 0 tries no batch now"),
        (operation(Action.SKIP, records=["9"], send=True), "9 is not in this shard's batches; nothing is tried now"),
        (operation(Action.SKIP, records=["x"], lane=0, send=True), "x is not in lane 0's batch; nothing is tried now"),
        (operation(Action.RETRY, lane=3), "lane 3 does not exist: this shard has only lane 0"),
        (operation(Action.SEEK), "seek is not for one shard"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_refused_with_what_there_is(asked: Operation, text: str) -> None:
    assert one(asked, place=Place(function=FakeFunction())) == [failed(text)]


def test_a_skip_needs_a_destination_or_the_word_that_the_records_are_dropped() -> None:
    [result] = one(operation(Action.SKIP, records="first", send=True), place=Place())
    assert result == failed(
        'the mapping has no on-failure destination; write "discard": true to drop the records'
    )


def keyed(lane: int, lanes: int) -> str:
    return next(key for key in map(str, range(100)) if lane_of(key, lanes) == lane)


def in_lanes(*lanes: int, of: int) -> list[Record]:
    """One record for each of these lanes."""
    return [kinesis(number, key=keyed(lane, of), arrived=EPOCH_BASE) for number, lane in enumerate(lanes, 1)]


def test_without_a_lane_the_only_blocked_one_is_meant_and_several_are_named() -> None:
    held = in_lanes(0, 1, 2, 3, of=4)
    single = Place(*held, function=FakeFunction(poison(3)), lanes=4)
    skip = operation(Action.SKIP, records="first", send=False, discard=True)
    assert one(skip, place=single) == [done("1 record skipped without a notice")]
    several = Place(*held, function=FakeFunction(lambda _: FunctionError("E", "no")), lanes=4)
    other = operation(Action.SKIP, records="batch", lane=2, send=False, discard=True)
    assert one(skip, other, place=several) == [
        failed("several lanes are blocked, name one of them: 0, 1, 2, 3"),
        done("1 record skipped without a notice"),
    ]


@pytest.mark.parametrize("action", [Action.RETRY, Action.RESET, Action.SKIP])
def test_what_was_asked_of_a_lane_is_not_done_to_other_keys_when_the_lanes_have_changed(
    action: Action,
) -> None:
    members = {"records": "first", "send": False, "discard": True} if action is Action.SKIP else {}
    place = Place(*in_lanes(0, 1, of=2), function=FakeFunction(lambda _: FunctionError("E", "no")), lanes=2)
    [result] = one(operation(action, lane=1, notes={"lanes": 10}, **members), place=place)
    assert result == failed(
        "lane 1 has other keys than when this was asked for: there were 10 lanes, now there are 2; look at the status, then ask again"
    )
    assert sorted(map(tuple, place.function.calls))[:1] == [(1,)]


def test_a_list_may_name_records_of_several_lanes() -> None:
    held = in_lanes(0, 1, 0, 1, of=2)
    place = Place(*held, function=FakeFunction(lambda _: FunctionError("E", "no")), lanes=2)
    [result] = one(operation(Action.SKIP, records=["2", "3"], send=False, discard=True), place=place)
    assert result == done("2 records skipped without a notice")
    assert sorted(place.function.calls[2:]) == [[1], [4]]


def test_nothing_is_called_while_a_mapping_is_paused_and_all_goes_on_at_once_afterwards() -> None:
    place = Place(function=FakeFunction())

    async def during(runner: StreamMapping) -> None:
        runner.apply_pauses([PAUSE])
        await asyncio.sleep(100.0)
        assert place.function.calls == []
        [shard] = runner.shards()
        [lane] = shard.lanes
        assert (shard.state, lane.state) == ("paused", "paused")
        assert shard.paused is not None
        assert shard.paused == lane.paused
        assert (shard.paused.by, shard.paused.since, shard.paused.reason) == ("ann", EPOCH_BASE, "why")
        runner.apply_pauses([])

    place.run(during)
    assert place.function.times == [100.0, 100.0]


def test_a_running_call_finishes_and_counts_when_its_lane_is_paused() -> None:
    place = Place(function=FakeFunction(takes_s=20.0))

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(10.0)
        runner.apply_pauses([PAUSE])
        await asyncio.sleep(100.0)

    place.run(during)
    assert place.function.calls == [[1, 2, 3]]
    assert place.position == Position.after("3")


def test_only_the_paused_lane_waits() -> None:
    place = Place(*in_lanes(0, 1, of=2), function=FakeFunction(), lanes=2)

    async def during(runner: StreamMapping) -> None:
        runner.apply_pauses([replace(PAUSE, target=OperationTarget(shard=SHARD, lane=1))])
        await asyncio.sleep(10.0)
        assert [lane.state for lane in runner.shards()[0].lanes] == ["idle", "paused"]
        assert runner.shards()[0].state == "reading"

    place.run(during)
    assert place.function.calls == [[1]]


def test_another_shards_pause_changes_nothing() -> None:
    place = Place(function=FakeFunction())

    async def during(runner: StreamMapping) -> None:
        runner.apply_pauses([replace(PAUSE, target=OperationTarget(shard=ShardId("shardId-000000000007")))])
        await asyncio.sleep(1.0)

    place.run(during)
    assert place.function.calls == [[1, 2, 3], [4, 5]]


def test_nothing_is_called_before_the_pauses_are_known() -> None:
    place = Place(function=FakeFunction(), operated=True)

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(7.0)
        [shard] = runner.shards()
        assert (shard.state, shard.lanes[0].state) == ("starting", "starting")
        assert shard.reason == "nothing is called before it is known what operators have paused"
        runner.apply_pauses([])

    place.run(during)
    assert place.function.times == [7.0, 7.0]


def test_a_lane_that_waits_for_a_slot_does_not_call_when_it_was_paused_meanwhile() -> None:
    place = Place(
        *in_lanes(0, 1, of=2),
        function=FakeFunction(takes_s=20.0),
        lanes=2,
        max_concurrency=1,
    )

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(10.0)
        runner.apply_pauses([PAUSE])
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        await asyncio.sleep(0.0)
        assert sorted(lane.state for lane in runner.shards()[0].lanes) == ["invoking", "paused"]
        await asyncio.sleep(100.0)

    place.run(during)
    assert len(place.function.calls) == 1


def test_a_pause_keeps_the_policy_from_giving_records_up_but_not_an_operator() -> None:
    destination = FakeDestination()
    place = Place(
        destination=destination, retry=RetryPolicy(age_max_s=60.0, backoff=Backoff(base_s=20.0, cap_s=20.0))
    )
    results: list[PartResult] = []

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(5.0)
        runner.apply_pauses([PAUSE])
        await asyncio.sleep(100.0)
        assert destination.notices == []
        skip = operation(Action.SKIP, records="first", send=True)
        results.append(await carried_out(runner, skip))
        results.append(await carried_out(runner, operation(Action.RETRY)))
        assert len(place.function.calls) == 1
        runner.apply_pauses([])

    place.run(during)
    assert results == [
        done("1 record skipped, the destination has the notice"),
        done("lane 0: tried first when the pause ends"),
    ]
    conditions = [json.loads(each.document)["requestContext"]["condition"] for each in destination.notices]
    assert conditions == ["SkippedByOperator", "RecordAgeExceeded", "RecordAgeExceeded"]


def test_a_paused_mapping_drains_at_once_and_keeps_its_position() -> None:
    place = Place()

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(5.0)
        runner.apply_pauses([PAUSE])

    place.run(during, for_s=0.0)
    assert place.position == Position.horizon()
    assert len(place.function.calls) == 1


def test_a_shard_that_is_paused_and_has_nothing_left_still_ends() -> None:
    place = Place(function=FakeFunction())

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(5.0)
        runner.apply_pauses([PAUSE])
        place.stream.ended.add(SHARD)
        await asyncio.sleep(60.0)

    place.run(during)
    assert place.position.encode() == "SHARD_END"


@pytest.mark.parametrize("records_", ["batch", ["2"]])
def test_an_operation_on_a_shard_that_stops_is_left_to_the_next_owner(records_: Any) -> None:
    place = Place(function=FakeFunction(takes_s=100.0))
    found: list[object] = []

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(5.0)

        async def act() -> None:
            try:
                found.append(
                    await carried_out(
                        runner, operation(Action.SKIP, lane=0, records=records_, send=False, discard=True)
                    )
                )
            except PortError as error:
                found.append(type(error))

        task = asyncio.create_task(act())
        await asyncio.sleep(1.0)
        runner._stop.request(Reason.REQUESTED)
        await task

    place.run(during)
    assert found == [LeaseLost]


def test_a_skip_to_the_end_of_a_shard_is_not_done_before_the_store_has_its_end() -> None:
    store, found = Unsaving(), []
    place = Place(kinesis(1, key="k", arrived=EPOCH_BASE), function=FakeFunction(poison(1)), store=store)
    place.stream.ended.add(SHARD)

    async def act(runner: StreamMapping) -> None:
        store.down = True
        with pytest.raises(LeaseLost, match="before the operation was carried out"):
            await carried_out(runner, operation(Action.SKIP, records="first", discard=True, send=False))
        found.append("left to the next owner")

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(1.0)
        task = asyncio.create_task(act(runner))
        await asyncio.sleep(1.0)
        runner._stop.request(Reason.REQUESTED)
        await task

    place.run(during)
    assert (found, place.position) == (["left to the next owner"], Position.horizon())


def test_a_shard_that_is_not_read_here_has_another_owner() -> None:
    place = Place(function=FakeFunction())

    async def during(runner: StreamMapping) -> None:
        await asyncio.sleep(1.0)
        assert list(runner.units()) == [SHARD]
        with pytest.raises(LeaseLost, match="shardId-000000000009"):
            await runner.carry_out("shardId-000000000009", operation(Action.RETRY))

    place.run(during)


def test_the_skipped_record_is_left_out_of_its_window_and_the_closing_call_can_be_given_up() -> None:
    def answer(numbers: list[int]) -> Any:
        # The call that closes the window has no records.
        return FunctionError("E", "no") if not numbers or 2 in numbers else Succeeded(b'{"state": {"n": 1}}')

    place = Place(
        function=FakeFunction(answer),
        tumbling_window_s=60,
        destination=FakeDestination(),
    )
    middle = operation(Action.SKIP, records=["2"], send=True)
    final = operation(Action.SKIP, records="batch", send=True)
    found: list[Any] = []
    place.run(
        after(10.0, acting(middle), found),
        after(100.0, acting(operation(Action.SKIP, records="first", send=True), final), found),
        for_s=10.0,
    )
    assert found == [
        [done("1 record skipped, the destination has the notice")],
        [
            failed("the call that closes a window has no records: skip it as a batch"),
            done("the call that closes the window skipped, the destination has the notice"),
        ],
    ]
    assert place.function.calls == [[1, 2, 3], [1, 3], [4, 5], []]
    assert place.destination is not None
    document = json.loads(place.destination.notices[1].document)
    assert document["timeWindowInfo"]["isFinalInvokeForWindow"] is True
    assert place.position == Position.after("5")
