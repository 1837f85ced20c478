"""A seek of whole daemons on virtual time: shards drain, move and go on, whichever worker is asked and whatever happens meanwhile."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    PortError,
    PositionTrimmed,
    RecordUnreadable,
    ResourceMissing,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.mapping_api import ApiError
from poller.domain.operations import Operation, OperationState
from poller.domain.policies import BatchPolicy
from poller.domain.records import SHARD_END, Cursor, MappingId, Page, Position, Shard, ShardId
from poller.domain.rows import Lease
from poller.runtime.daemon import Daemon
from tests.runtime.daemons import Site, daemon_plan, now, play, until
from tests.runtime.fakes import SHARD, STREAM_ARN, FakeFunction, FakeStream, mapping, records
from tests.virtual import virtual_clock

PLAN = mapping(batch=BatchPolicy(records_max=10))
MAPPING = PLAN.mapping
CHILD = ShardId("shardId-000000000001")
OTHER = ShardId("shardId-000000000002")


def site(function: FakeFunction | None = None, **shards: Sequence[int]) -> Site:
    """A stream with records in its shards, and a function."""
    stream = FakeStream()
    stream.put(*records(*range(1, 6)))
    return Site(sources={STREAM_ARN: stream}, functions={"reader": function or FakeFunction()})


def calls(place: Site) -> list[list[int]]:
    function = place.functions["reader"]
    assert isinstance(function, FakeFunction)
    return function.calls


def stream_of(place: Site) -> FakeStream:
    stream = place.sources[STREAM_ARN]
    assert isinstance(stream, FakeStream)
    return stream


async def over(daemon: Daemon, operation: Operation, within_s: float = 60.0) -> Operation:
    """The operation when it is over."""
    began = now()
    while True:
        found = await daemon.operations.operation(operation.operation)
        if found.state.over:
            return found
        assert now() - began < within_s, f"not over: {found}"
        await asyncio.sleep(0.05)


async def seek(daemon: Daemon, to: str | float, **members: Any) -> Operation:
    """Asks for a seek."""
    return await daemon.operations.submit(MAPPING, {"action": "seek", "to": to, **members}, by="ann")


def two(place: Site) -> tuple[Any, Any]:
    return (
        lambda: place.daemon(daemon_plan(PLAN, worker="worker-1")),
        lambda: place.daemon(daemon_plan(PLAN, worker="worker-2"), seed=8),
    )


def test_a_seek_to_latest_leaves_a_shard_alone_that_is_there() -> None:
    """Else it could leave out what arrives meanwhile, by a clock that is behind that of the worker."""
    place = site()

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        await asyncio.sleep(2)
        found = await over(daemon, await seek(daemon, "LATEST"))
        assert (found.state, found.result) == (OperationState.DONE, "there is no shard to move")
        stream_of(place).put(*records(6, age_s=5.0))
        await until(lambda: len(calls(place)) == 2)

    play(two(place)[0], script)
    assert calls(place) == [[1, 2, 3, 4, 5], [6]]


def test_a_seek_to_latest_leaves_a_shard_alone_that_has_ended_and_its_children() -> None:
    """If it moved the ended one, its child would have to wait, and to begin once more."""
    place = site()
    stream = stream_of(place)
    stream.ended = {SHARD}
    stream.held[CHILD] = []
    stream.parents = {CHILD: (SHARD,)}
    stream.put(*records(11, 12), shard=CHILD)

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 2)
        await asyncio.sleep(2)
        found = await over(daemon, await seek(daemon, "LATEST"))
        assert (found.state, found.result) == (OperationState.DONE, "there is no shard to move")
        stream.put(*records(13), shard=CHILD)
        await until(lambda: len(calls(place)) == 3)

    play(two(place)[0], script)
    assert calls(place) == [[1, 2, 3, 4, 5], [11, 12], [13]]


def test_a_child_that_is_at_latest_stays_there_while_its_parent_is_moved() -> None:
    """It waits for the parent since a seek to its own beginning."""
    place = site()
    stream = stream_of(place)
    stream.ended = {SHARD}
    stream.held[CHILD] = []
    stream.parents = {CHILD: (SHARD,)}

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        await asyncio.sleep(5)
        paused = await daemon.operations.submit(MAPPING, {"action": "pause"}, by="ann")
        await asyncio.sleep(3)
        await over(daemon, await seek(daemon, "2", shards=[SHARD]))
        await asyncio.sleep(3)
        found = await over(daemon, await seek(daemon, "LATEST", skip=True))
        assert (found.state, found.result) == (OperationState.DONE, "2 shards moved to LATEST")
        await daemon.operations.cancel(paused.operation, by="ann")
        stream.put(*records(11, age_s=-20.0), shard=CHILD)
        await until(lambda: len(calls(place)) == 2)

    play(two(place)[0], script)
    assert calls(place) == [[1, 2, 3, 4, 5], [11]]


def test_a_lease_whose_release_has_failed_does_not_hold_up_a_seek() -> None:
    """Its owner lives and does not read the shard. It gives the lease up once more."""
    failed: list[ShardId] = []

    class Failing(MemoryStore):
        async def release(self, mapping: MappingId, lease: Lease) -> None:
            if not failed:
                failed.append(lease.shard)
                raise ServiceUnavailable("down")
            await super().release(mapping, lease)

    place = replace(site(), store=Failing())

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        found = await over(daemon, await seek(daemon, "TRIM_HORIZON"))
        assert found.state is OperationState.DONE
        await until(lambda: len(calls(place)) == 2)

    play(two(place)[0], script)
    assert failed


# A shard without a refusal may have had the oldest numbers: reading begins behind what was removed.
@pytest.mark.parametrize(
    ("number", "refusal"),
    [
        *(
            (number, error)
            for number in ("0", "3" * 20, "77")
            for error in (PositionTrimmed, ResourceMissing)
        ),
        ("3" * 20, None),
        ("77", None),
    ],
)
def test_a_sequence_number_that_the_shard_never_had_is_refused_and_nothing_moves(
    number: str, refusal: type[PortError] | None
) -> None:
    """Services refuse it in different ways, or find no record there. The shard could not be read behind it."""
    place = site()

    async def refused(shard: ShardId, sequence_number: str) -> Cursor:
        if refusal is not None:
            raise refusal("it did not come from this shard")
        return await FakeStream.cursor_at(stream_of(place), shard, sequence_number)

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        stream_of(place).cursor_at = refused  # type: ignore[method-assign]
        found = await over(daemon, await seek(daemon, number, shard=SHARD, skip=True))
        assert found.state is OperationState.FAILED
        assert found.result.startswith("to: ")
        assert "TRIM_HORIZON" in found.result
        stream_of(place).put(*records(6))
        await until(lambda: calls(place)[1:] == [[6]])

    play(two(place)[0], script)


TROUBLES = [ServiceUnavailable, ServiceThrottled, AccessDenied, ResourceMissing, CursorExpired]


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_seek_whose_stream_cannot_be_read_says_so_and_goes_on_when_it_can(
    trouble: type[PortError],
) -> None:
    """It is no fault of the worker, whichever read fails."""
    place = site()
    stream = stream_of(place)
    failing = True

    class Failing(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            if failing and records_max == 1:
                raise trouble("not now")
            return await super().read(shard, cursor, records_max=records_max)

    place.sources[STREAM_ARN] = failing_stream = Failing()
    failing_stream.held = stream.held

    async def script(daemon: Daemon) -> None:
        nonlocal failing
        await until(lambda: len(calls(place)) == 1)
        asked = await seek(daemon, virtual_clock().now() - 3600.0)
        await asyncio.sleep(30)
        found = await daemon.operations.operation(asked.operation)
        assert (found.state, found.notes["waiting"]) == (
            OperationState.RUNNING,
            ["the stream cannot be read: not now"],
        )
        failing = False
        found = await over(daemon, asked)
        assert (found.state, found.notes["waiting"]) == (OperationState.DONE, [])

    play(two(place)[0], script)
    assert calls(place) == [[1, 2, 3, 4, 5]] * 2


def test_a_seek_over_a_record_that_cannot_be_read_leaves_it_out_only_if_that_was_asked() -> None:
    place = site()

    class Unreadable(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            if cursor == "5":
                raise RecordUnreadable("it has no data")
            return await super().read(shard, cursor, records_max=records_max)

    held = stream_of(place).held
    place.sources[STREAM_ARN] = Unreadable()
    stream_of(place).held = held

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        await asyncio.sleep(2)
        found = await over(daemon, await seek(daemon, "LATEST"))
        assert found.state is OperationState.FAILED
        assert "would leave out a record that cannot be read" in found.result
        found = await over(daemon, await seek(daemon, "LATEST", skip=True))
        assert found.state is OperationState.DONE

    play(two(place)[0], script)


def test_a_mapping_goes_back_to_the_beginning() -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        began = now()
        found = await over(daemon, await seek(daemon, "TRIM_HORIZON"))
        assert (found.state, found.result) == (OperationState.DONE, "1 shard moved to TRIM_HORIZON")
        assert found.progress == {"shards": 1, "moved": 1}
        await until(lambda: len(calls(place)) == 2)
        assert now() - began < 4

    play(two(place)[0], script)
    assert calls(place) == [[1, 2, 3, 4, 5]] * 2


@pytest.mark.parametrize("asked", [0, 1])
def test_either_worker_moves_the_shards_of_both(asked: int) -> None:
    place = site()
    stream = stream_of(place)
    stream.held[OTHER] = []
    stream.put(*records(11, 12), shard=OTHER)
    daemons = two(place)

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 2)
        await asyncio.sleep(10)
        found = await over(daemon, await seek(daemon, "TRIM_HORIZON"))
        assert found.state is OperationState.DONE
        await until(lambda: len(calls(place)) == 4)

    play(daemons[asked], script, daemons[1 - asked])
    assert sorted(calls(place)) == [[1, 2, 3, 4, 5]] * 2 + [[11, 12]] * 2


def test_a_seek_waits_for_the_call_that_runs_and_says_so() -> None:
    place = site(FakeFunction(takes_s=10))

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        asked = await seek(daemon, "TRIM_HORIZON")
        await asyncio.sleep(3)
        shown = await daemon.operations.operation(asked.operation)
        assert shown.state is OperationState.RUNNING
        assert shown.notes["waiting"] == [f"shard {SHARD} is still read by worker-1"]
        await over(daemon, asked)
        assert now() > 10

    play(two(place)[0], script)
    assert calls(place)[:2] == [[1, 2, 3, 4, 5]] * 2


def test_going_forward_leaves_records_out_only_if_that_is_meant() -> None:
    place = site(FakeFunction(takes_s=5))
    stream_of(place).page_max = 2

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        refused = await over(daemon, await seek(daemon, "4", shards=[SHARD]))
        assert refused.state is OperationState.FAILED
        assert 'would leave out record 1 and all up to there; add "skip": true' in refused.result
        dry = await over(daemon, await seek(daemon, "4", shards=[SHARD], dry_run=True))
        assert dry.notes["plan"] == [
            f"shard {SHARD} from TRIM_HORIZON to AFTER:4 (forward, leaving out record 1 and all up to there)"
        ]
        done = await over(daemon, await seek(daemon, "4", shards=[SHARD], skip=True))
        assert done.state is OperationState.DONE
        await until(lambda: calls(place)[-1] == [5])

    play(two(place)[0], script)
    assert [1, 2] in calls(place)
    assert not any(3 in call for call in calls(place))


def test_a_seek_behind_a_split_takes_the_parent_up_again_before_its_children() -> None:
    place = site()
    stream = stream_of(place)
    stream.ended = {SHARD}
    stream.held[CHILD] = []
    stream.parents = {CHILD: (SHARD,)}
    stream.put(*records(11, 12), shard=CHILD)

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 2)
        await asyncio.sleep(3)
        await over(daemon, await seek(daemon, "2", shards=[SHARD]))
        await until(lambda: len(calls(place)) == 4)

    play(two(place)[0], script, two(place)[1])
    assert calls(place) == [[1, 2, 3, 4, 5], [11, 12], [3, 4, 5], [11, 12]]


@pytest.mark.parametrize("split_s", [0.0, 1.0, 4.0, 8.5])
@pytest.mark.parametrize("asked_s", [1.0, 8.0])
@pytest.mark.parametrize("others", [0, 1])
def test_a_shard_that_splits_around_a_seek_is_not_processed_beside_its_children(
    split_s: float, asked_s: float, others: int
) -> None:
    """The child has no lease when the seek is planned, and its parent ends while it is held back."""
    place = site(FakeFunction(takes_s=10))
    stream = stream_of(place)

    async def split() -> None:
        await asyncio.sleep(split_s)
        stream.ended = {SHARD}
        stream.held[CHILD] = []
        stream.parents = {CHILD: (SHARD,)}
        stream.put(*records(*range(11, 51)), shard=CHILD)

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        async with asyncio.TaskGroup() as scope:
            scope.create_task(split())
            await asyncio.sleep(asked_s)
            found = await over(daemon, await seek(daemon, "TRIM_HORIZON"))
        assert found.state is OperationState.DONE
        await asyncio.sleep(70)

    one, other = two(place)
    play(one, script, *[other] * others)
    function = place.functions["reader"]
    assert isinstance(function, FakeFunction)
    assert function.in_flight_max == 1
    again = len(calls(place)) - 1 - calls(place)[::-1].index([1, 2, 3, 4, 5])
    assert [each for call in calls(place)[again + 1 :] for each in call] == [*range(11, 51)]


def test_a_second_seek_is_refused_while_one_runs_and_a_cancelled_one_moves_nothing() -> None:
    place = site(FakeFunction(takes_s=10))

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        first = await seek(daemon, "TRIM_HORIZON")
        with pytest.raises(ApiError, match="is not over"):
            await seek(daemon, "LATEST")
        await asyncio.sleep(2)
        cancelled = await daemon.operations.cancel(first.operation, by="ann")
        assert cancelled.state is OperationState.CANCELLED
        await asyncio.sleep(20)

    play(two(place)[0], script)
    assert calls(place) == [[1, 2, 3, 4, 5]]


@pytest.mark.parametrize("apart_s", [0.0, 0.4, 1.0, 2.4])
def test_of_two_seeks_that_two_workers_accept_at_the_same_time_one_is_carried_out_at_most(
    apart_s: float,
) -> None:
    """The store takes `apart_s` for the second one, and the workers have not read of the other one before they accept theirs."""

    class Slow(MemoryStore):
        async def add(self, operation: Operation) -> Operation:
            await asyncio.sleep(0.0 if operation.request.members["to"] == "TRIM_HORIZON" else apart_s)
            return await super().add(operation)

    place = replace(site(), store=Slow())

    make_first, make_second = two(place)
    beside: list[Daemon] = []

    def second() -> Daemon:
        beside.append(make_second())
        return beside[0]

    async def script(first: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        await asyncio.sleep(2)
        asked = await asyncio.gather(
            seek(first, "TRIM_HORIZON"), seek(beside[0], now() - 0.001, skip=True), return_exceptions=True
        )
        accepted = [each for each in asked if isinstance(each, Operation)]
        ended = [await over(first, each) for each in accepted]
        done = [each for each in ended if each.state is OperationState.DONE]
        assert len(done) <= 1
        for each in ended:
            if each not in done:
                assert "was asked at the same time" in each.result
        refused = [each for each in asked if not isinstance(each, Operation)]
        assert len(done) + len(refused) >= 1

    play(make_first, script, second)


def test_another_worker_goes_on_when_the_one_that_has_claimed_a_seek_dies() -> None:
    place = site(FakeFunction(takes_s=4))
    stream = stream_of(place)
    stream.held[OTHER] = []
    stream.put(*records(11, 12), shard=OTHER)

    async def main() -> None:
        async with asyncio.TaskGroup() as scope:
            make_first, make_second = two(place)
            first, second = make_first(), make_second()
            tasks = [scope.create_task(each.run()) for each in (first, second)]
            await until(lambda: len(calls(place)) == 2)
            asked = await seek(first, "TRIM_HORIZON")
            await until(lambda: first.operations is not None)
            await asyncio.sleep(1)
            claimed = await second.operations.operation(asked.operation)
            assert claimed.notes["worker"] == "worker-1"
            tasks[0].cancel()
            found = await over(second, asked)
            assert found.state is OperationState.DONE
            await until(lambda: len(calls(place)) >= 4)
            second.stop()

    from tests.virtual import run_virtual

    run_virtual(main())
    assert [1, 2, 3, 4, 5] in calls(place)[2:]
    assert [11, 12] in calls(place)[2:]


def test_an_ended_shard_is_at_its_end_again_afterwards() -> None:
    place = site()
    stream_of(place).ended = {SHARD}

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        await asyncio.sleep(3)
        await over(daemon, await seek(daemon, "TRIM_HORIZON"))
        await until(lambda: len(calls(place)) == 2)
        await asyncio.sleep(3)
        (lease,) = await place.store.leases(MAPPING)
        assert lease.checkpoint.position == SHARD_END

    play(two(place)[0], script)


@pytest.mark.parametrize(
    ("to", "members", "said"),
    [
        ("7", {}, "belongs to one shard"),
        ("7", {"shards": ["shardId-9"]}, "is no shard of this mapping"),
        ("2999-01-01", {}, "not between 1970 and now"),
    ],
)
def test_a_seek_that_cannot_be_done_fails_with_the_remedy(
    to: str, members: dict[str, Any], said: str
) -> None:
    place = site()

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        found = await over(daemon, await seek(daemon, to, **members))
        assert (found.state, said in found.result) == (OperationState.FAILED, True)

    play(two(place)[0], script)
    assert len(calls(place)) == 1
    assert Position.after("5") > Position.horizon()


def test_a_seek_is_handed_over_by_a_worker_that_may_not_list_the_stream() -> None:
    @dataclass
    class Unlisted(FakeStream):
        denied: bool = False

        async def shards(self) -> Sequence[Shard]:
            if self.denied:
                raise AccessDenied("no kinesis:ListShards")
            return await super().shards()

    place = site()
    unlisted = Unlisted(held=stream_of(place).held)
    troubled = replace(place, sources={STREAM_ARN: unlisted})

    async def script(daemon: Daemon) -> None:
        await until(lambda: len(calls(place)) == 1)
        unlisted.denied = True
        asked = await seek(daemon, "TRIM_HORIZON")
        await asyncio.sleep(1)
        async with asyncio.TaskGroup() as scope:
            alone = await daemon.operations.operation(asked.operation)
            assert alone.notes["waiting"] == ["the stream cannot be read: no kinesis:ListShards"]
            other = two(place)[1]()
            scope.create_task(other.run())
            found = await over(daemon, asked, within_s=120.0)
            assert (found.state, found.notes["worker"]) == (OperationState.DONE, "worker-2")
            await until(lambda: len(calls(place)) == 2)
            other.stop()

    play(two(troubled)[0], script)
    assert calls(place) == [[1, 2, 3, 4, 5]] * 2
