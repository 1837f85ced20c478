"""A seek moves a shard that nobody reads, and the mapping goes on there."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field, replace

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import ServiceUnavailable
from poller.domain.policies import BatchPolicy
from poller.domain.records import SHARD_END, Cursor, Epoch, Page, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease
from poller.rules.streams.operations.seeking import SeekRefused, ShardMove
from poller.rules.streams.tracking import EMPTY_PAGES
from poller.runtime.operations.long.long_run import SeekStep
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.operations.seeking import LOOK_RECORDS_MAX, StreamSeek
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import SHARD, FakeFunction, FakeStream, mapping, records, stream_parts
from tests.runtime.streams.test_stream_mapping import position_of, run_mapping, stored
from tests.virtual import run_virtual, virtual_clock

BATCHES = mapping(batch=BatchPolicy(records_max=2))
MAPPING = BATCHES.mapping
HORIZON = Position.horizon()


async def moved(runner: StreamMapping, to: Position) -> list[tuple[float, SeekStep]]:
    """Holds the shard back, takes a step a second until it is moved, and lets it go on. Returns the steps and when they were taken."""
    plan = await runner.long_operable.seekable.plan(to, [SHARD])
    runner.long_operable.seekable.hold_back(frozenset({SHARD}))
    steps: list[tuple[float, SeekStep]] = []
    while not steps or not steps[-1][1].moved:
        steps.append(
            (
                asyncio.get_running_loop().time(),
                await runner.long_operable.seekable.step(plan.moves, {}, Stop()),
            )
        )
        await asyncio.sleep(1)
    runner.long_operable.seekable.hold_back(frozenset())
    return steps


def test_a_shard_goes_back_and_on_in_order() -> None:
    stream, function, store = FakeStream(), FakeFunction(), MemoryStore()
    stream.put(*records(*range(1, 6)))

    async def seek(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(3)
        await moved(runner, Position.after("2"))

    run_mapping(lambda: stream_parts(stream, function, plan=BATCHES, store=store), for_s=5, during=seek)
    assert function.calls == [[1, 2], [3, 4], [5], [3, 4], [5]]
    assert stored(store) == Position.after("5")


def test_the_move_waits_for_the_call_that_runs() -> None:
    stream, function, store = FakeStream(), FakeFunction(takes_s=5), MemoryStore()
    stream.put(*records(1, 2, 3))
    steps: list[tuple[float, SeekStep]] = []

    async def seek(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(1)
        steps.extend(await moved(runner, HORIZON))

    parts = stream_parts(stream, function, plan=BATCHES, store=store)
    run_mapping(lambda: parts, for_s=12, during=seek)
    assert [when for when, step in steps if step.waiting == {SHARD: parts.worker}][:4] == [1, 2, 3, 4]
    assert function.calls == [[1, 2], [1, 2], [3]]
    assert function.in_flight_max == 1


def test_a_shard_that_is_held_back_is_not_taken_until_it_may_go_on() -> None:
    stream, function, store = FakeStream(), FakeFunction(), MemoryStore()
    stream.put(*records(1, 2))

    async def hold(runner: StreamMapping, _: Stop) -> None:
        runner.long_operable.seekable.hold_back(frozenset({SHARD}))
        await asyncio.sleep(40)
        assert function.calls == []
        runner.long_operable.seekable.hold_back(frozenset())

    run_mapping(lambda: stream_parts(stream, function, plan=BATCHES, store=store), for_s=1, during=hold)
    assert (function.calls, function.times) == ([[1, 2]], [40.0])


def test_what_a_seek_leaves_out_is_named() -> None:
    stream, function, store = FakeStream(), FakeFunction(takes_s=2), MemoryStore()
    stream.put(*records(1, 2, age_s=100.0), *records(3))

    async def look(runner: StreamMapping, _: Stop) -> None:
        now = virtual_clock().now()
        await asyncio.sleep(0.1)
        seek = runner.long_operable.seekable
        assert (await seek.plan(Position.after("2"), [SHARD])).skipping == {SHARD: "record 1"}
        assert (await seek.plan(Position.at(Epoch(now - 50)), [])).skipping == {SHARD: "record 1"}
        assert (await seek.plan(Position.at(Epoch(now - 150)), [])).skipping == {}
        assert (await seek.plan(HORIZON, [])).moves == (ShardMove(SHARD, HORIZON, HORIZON),)
        await asyncio.sleep(5)
        assert (await seek.plan(Position.at(now), [])).skipping == {}
        with pytest.raises(SeekRefused, match="is no shard of this mapping"):
            await seek.plan(HORIZON, [ShardId("elsewhere")])

    run_mapping(lambda: stream_parts(stream, function, plan=BATCHES, store=store), for_s=0, during=look)


@dataclass
class Quiet(FakeStream):
    """A stream that says nothing of its lag, as those of DynamoDB. `looks`: when a seek read from it."""

    looks: list[float] = field(default_factory=list)

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        if records_max == 1:
            self.looks.append(asyncio.get_running_loop().time())
        return replace(await super().read(shard, cursor, records_max=records_max), behind_ms=None)


def test_a_shard_is_looked_at_slowly_since_its_mapping_needs_its_reads() -> None:
    stream = Quiet()
    stream.put(*records(1))

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(3)
        plan = await runner.long_operable.seekable.plan(Position.at(virtual_clock().now()), [])
        assert plan.skipping == {}

    run_mapping(lambda: stream_parts(stream, FakeFunction()), for_s=0, during=look)
    assert stream.looks == [3.0 + each for each in range(EMPTY_PAGES)]


@pytest.mark.parametrize("empty", [0, 1, EMPTY_PAGES - 1])
@pytest.mark.parametrize("behind_ms", [None, 5])
def test_a_record_behind_empty_pages_is_left_out_only_if_that_was_asked(
    empty: int, behind_ms: int | None
) -> None:
    """A source may give empty pages although more follows. DynamoDB does not even say then that it is behind."""

    class Sparse(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            at, _, seen = cursor.partition(":")
            if records_max == 1 and int(seen or 0) < empty:
                return Page([], Cursor(f"{at}:{int(seen or 0) + 1}"), behind_ms)
            return await super().read(shard, Cursor(at), records_max=records_max)

    stream = Sparse()
    stream.put(*records(1))

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(1)
        plan = await runner.long_operable.seekable.plan(Position.at(virtual_clock().now()), [])
        assert plan.skipping == {SHARD: "record 1"}

    run_mapping(lambda: stream_parts(stream, FakeFunction(takes_s=20)), for_s=0, during=look)


def test_a_shard_whose_few_reads_show_neither_a_record_nor_the_end_counts_as_one_that_has_records() -> None:
    class Behind(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            page = await super().read(shard, cursor, records_max=records_max)
            return replace(page, behind_ms=5) if records_max == 1 else page

    stream = Behind()

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(1)
        plan = await runner.long_operable.seekable.plan(Position.at(virtual_clock().now()), [])
        assert plan.skipping == {SHARD: "records that a few reads did not find"}

    run_mapping(lambda: stream_parts(stream, FakeFunction()), for_s=0, during=look)


@pytest.mark.parametrize(
    ("ago_s", "left_out"), [(50.0, "record 2"), (99.0, "record 2"), (100.0, ""), (150.0, ""), (300.0, "")]
)
def test_the_source_tells_whether_a_record_without_a_time_is_left_out(ago_s: float, left_out: str) -> None:
    """It has the moment of the read, but the source goes by the time at which it arrived."""
    stream, function = FakeStream(undated={"1", "2", "3"}), FakeFunction(takes_s=5)
    stream.put(*records(1, age_s=200.0), *records(2, age_s=100.0), *records(3, age_s=20.0))
    store = MemoryStore()

    async def look(runner: StreamMapping, _: Stop) -> None:
        now = virtual_clock().now()
        await asyncio.sleep(7)
        assert (function.calls, await position_of(store)) == ([[1], [2]], Position.after("1"))
        plan = await runner.long_operable.seekable.plan(Position.at(Epoch(now - ago_s)), [])
        assert plan.skipping == ({SHARD: left_out} if left_out else {})

    plan = mapping(batch=BatchPolicy(records_max=1))
    run_mapping(lambda: stream_parts(stream, function, plan=plan, store=store), for_s=0, during=look)


@pytest.mark.parametrize("behind_ms", [0, 5])
def test_a_record_without_a_time_is_left_out_if_no_record_shows_at_the_time(behind_ms: int) -> None:
    class Silent(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            page = await super().read(shard, cursor, records_max=records_max)
            return Page([], cursor, behind_ms) if records_max == LOOK_RECORDS_MAX else page

    stream = Silent(undated={"1"})
    stream.put(*records(1))

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(0.1)
        plan = await runner.long_operable.seekable.plan(Position.at(virtual_clock().now()), [])
        assert plan.skipping == {SHARD: "record 1"}

    parts = stream_parts(stream, FakeFunction(takes_s=5), plan=BATCHES)
    run_mapping(lambda: parts, for_s=0, during=look)


def test_a_worker_that_takes_the_shard_meanwhile_keeps_it() -> None:
    stream = FakeStream()

    class Faster(MemoryStore):
        async def move(self, mapping, lease, position):  # type: ignore[no-untyped-def]
            await super().take(mapping, lease, owner=WorkerId("faster"))
            return await super().move(mapping, lease, position)

    store = Faster()

    async def seek(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(1)
        runner.long_operable.seekable.hold_back(frozenset({SHARD}))
        await asyncio.sleep(1)
        plan = await runner.long_operable.seekable.plan(HORIZON, [])
        assert await runner.long_operable.seekable.step(plan.moves, {}, Stop()) == SeekStep({}, {})

    run_mapping(lambda: stream_parts(stream, FakeFunction(), plan=BATCHES, store=store), for_s=0, during=seek)


def test_of_a_parent_that_a_worker_takes_meanwhile_no_child_is_moved() -> None:
    stream, child = FakeStream(), ShardId("shardId-000000000009")
    stream.put(*records(1))
    stream.held[child] = []
    stream.parents[child] = (SHARD,)
    stream.ended.add(SHARD)

    class Faster(MemoryStore):
        async def move(self, mapping, lease, position):  # type: ignore[no-untyped-def]
            if lease.shard == SHARD:
                await super().take(mapping, lease, owner=WorkerId("faster"))
            return await super().move(mapping, lease, position)

    store = Faster()

    async def seek(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(5)
        seek = runner.long_operable.seekable
        plan = await seek.plan(HORIZON, [])
        assert {move.shard for move in plan.moves} == {SHARD, child}
        seek.hold_back(frozenset({SHARD, child}))
        await asyncio.sleep(2)
        assert await seek.step(plan.moves, {}, Stop()) == SeekStep({}, {})
        positions = {lease.shard: lease.checkpoint.position for lease in await store.leases(MAPPING)}
        assert (positions[SHARD], positions[child]) == (SHARD_END, Position.horizon())

    run_mapping(lambda: stream_parts(stream, FakeFunction(), plan=BATCHES, store=store), for_s=0, during=seek)


def test_a_child_that_a_worker_takes_while_its_parent_is_moved_goes_back_to_its_beginning() -> None:
    """That worker knows of no seek, and has seen that the parent had ended. The child has no lease when the moves are planned."""
    stream, child = FakeStream(), ShardId("shardId-000000000009")
    stream.put(*records(1))
    stream.ended.add(SHARD)
    seen: list[Position] = []

    class Faster(MemoryStore):
        async def move(self, mapping, lease, position):  # type: ignore[no-untyped-def]
            if lease.shard == SHARD and not seen:
                born = Lease(child, (SHARD,), Checkpoint(HORIZON))
                await super().seed(mapping, [born])
                taken = await super().take(mapping, born, owner=WorkerId("faster"))
                await super().save(mapping, taken, Checkpoint(Position.after("12")))
            seen.append(position)
            return await super().move(mapping, lease, position)

    store = Faster()

    async def seek(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(5)
        seek = runner.long_operable.seekable
        plan = await seek.plan(Position.after("0"), [SHARD])
        seek.hold_back(frozenset({SHARD}))
        await asyncio.sleep(2)
        first = await seek.step(plan.moves, {}, Stop())
        assert (set(first.moved), first.done) == ({SHARD}, False)
        second = await seek.step(plan.moves, first.moved, Stop())
        assert (set(second.moved), second.done) == ({SHARD, child}, False)
        assert (await seek.step(plan.moves, second.moved, Stop())).done
        positions = {lease.shard: lease.checkpoint.position for lease in await store.leases(MAPPING)}
        assert positions == {SHARD: Position.after("0"), child: HORIZON}

    run_mapping(lambda: stream_parts(stream, FakeFunction(), plan=BATCHES, store=store), for_s=0, during=seek)
    assert seen == [Position.after("0"), HORIZON]


def test_no_shard_is_moved_while_another_one_of_the_seek_is_read() -> None:
    """A parent could be processed again beside records of its child that come after its own."""
    stream, other = FakeStream(), ShardId("shardId-000000000009")
    stream.put(*records(1))
    stream.held[other] = []

    async def seek(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(1)
        seek = runner.long_operable.seekable
        plan = await seek.plan(HORIZON, [SHARD, other])
        seek.hold_back(frozenset({SHARD, other}))
        await asyncio.sleep(2)
        step = await seek.step(plan.moves, {}, Stop())
        assert (step.moved, set(step.waiting)) == ({}, {SHARD})
        await asyncio.sleep(4)
        assert (await seek.step(plan.moves, {}, Stop())).moved.keys() == {SHARD, other}

    function = FakeFunction(takes_s=5)
    run_mapping(lambda: stream_parts(stream, function, plan=BATCHES), for_s=0, during=seek)


def test_what_was_moved_before_a_fault_of_the_store_counts() -> None:
    """Else a seek of many shards would begin again after each fault, and not end."""
    moves: list[ShardId] = []

    class Failing(MemoryStore):
        async def move(self, mapping, lease, position):  # type: ignore[no-untyped-def]
            moves.append(lease.shard)
            if len(moves) % 3 == 0:
                raise ServiceUnavailable("down")
            return await super().move(mapping, lease, position)

    store = Failing()
    stream = FakeStream()
    shards = [ShardId(f"shardId-{number:012d}") for number in range(5)]
    for shard in shards:
        stream.held[shard] = []

    async def seek(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(3)
        seek = runner.long_operable.seekable
        plan = await seek.plan(HORIZON, shards)
        seek.hold_back(frozenset(shards))
        await asyncio.sleep(3)
        step = SeekStep({}, {})
        for _step in range(4):
            with suppress(ServiceUnavailable):
                step = await seek.step(plan.moves, step.moved, Stop())
        assert (set(step.moved), step.done) == (set(shards), True)

    run_mapping(lambda: stream_parts(stream, FakeFunction(), plan=BATCHES, store=store), for_s=0, during=seek)
    assert len(moves) == len(shards) + 2, "no shard was moved twice"


def test_a_mapping_that_does_not_run_moves_nothing() -> None:
    async def main() -> None:
        seek = StreamSeek(stream_parts(FakeStream(), FakeFunction(), plan=BATCHES), lambda: None)
        with pytest.raises(ServiceUnavailable, match="does not run here"):
            await seek.step([ShardMove(SHARD, HORIZON, HORIZON)], {}, Stop())

    run_virtual(main())


def test_a_seek_that_is_stopped_moves_no_further_shard() -> None:
    stream, other = FakeStream(), ShardId("shardId-000000000009")
    stream.put(*records(1))
    stream.held[other] = []
    cancelled = Stop()

    class Cancelled(MemoryStore):
        async def move(self, mapping, lease, position):  # type: ignore[no-untyped-def]
            cancelled.request(Reason.REQUESTED)
            return await super().move(mapping, lease, position)

    async def seek(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(5)
        seek = runner.long_operable.seekable
        plan = await seek.plan(HORIZON, [])
        seek.hold_back(frozenset({SHARD, other}))
        await asyncio.sleep(2)
        step = await seek.step(plan.moves, {}, cancelled)
        assert len(step.moved) == 1
        assert await seek.step(plan.moves, step.moved, cancelled) == step

    run_mapping(
        lambda: stream_parts(stream, FakeFunction(), plan=BATCHES, store=Cancelled()), for_s=0, during=seek
    )
