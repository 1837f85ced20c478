"""The source of a replay: its end, its rate, and that it lists nothing when the replay is over."""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.records import Cursor, Epoch, Position
from poller.memory.answers import answering
from poller.runtime.memory.pool import MemoryPool
from poller.runtime.replays.bounded_source import OVER, BoundedSource, ReplayPace
from tests.runtime.daemons import now
from tests.runtime.fakes import SHARD, FakeStream, records
from tests.virtual import EPOCH_BASE, run_virtual, virtual_clock


async def yes() -> bool:
    return True


async def no() -> bool:
    return False


def source(
    stream: FakeStream,
    *,
    rate: float | None = None,
    share: Callable[[], float] = lambda: 1.0,
    is_open: Callable[[], Awaitable[bool]] = yes,
    counts: Counter[str] | None = None,
) -> BoundedSource:
    clock = virtual_clock()
    pace = ReplayPace(rate, share, clock)
    return BoundedSource(
        stream,
        until=Epoch(EPOCH_BASE),
        pace=pace,
        clock=clock,
        is_open=is_open,
        counts=Counter() if counts is None else counts,
    )


async def read_all(bounded: BoundedSource, *, records_max: int = 100) -> list[int]:
    """Reads the shard to its end."""
    cursor: Cursor | None = await bounded.cursor(SHARD, Position.horizon())
    found: list[int] = []
    while cursor is not None:
        page = await bounded.read(SHARD, cursor, records_max=records_max)
        found += [int(each.sequence_number) for each in page.records]
        cursor = page.cursor
        if not page.records and cursor is not None:
            await asyncio.sleep(1)
    return found


def test_a_shard_ends_before_the_first_record_behind_the_range() -> None:
    async def script() -> None:
        stream = FakeStream()
        stream.put(*records(1, 2, age_s=5), *records(3, age_s=-1), *records(4, age_s=5))
        bounded = source(stream)
        assert await read_all(bounded) == [1, 2]
        assert bounded.at == EPOCH_BASE - 5
        bounded.leave(SHARD)
        assert bounded.at is None

    run_virtual(script())


def test_a_record_without_a_time_of_arrival_neither_ends_a_shard_nor_says_how_far_it_is() -> None:
    async def script() -> None:
        stream, counts = FakeStream(undated={"2", "3", "5"}), Counter[str]()
        stream.put(*records(1, 2, 3, 4, 5, age_s=5), *records(6, age_s=-1), *records(7, age_s=5))
        bounded = source(stream, counts=counts)
        cursor = await bounded.cursor(SHARD, Position.horizon())
        await asyncio.sleep(3)
        page = await bounded.read(SHARD, cursor, records_max=3)
        assert ([each.sequence_number for each in page.records], bounded.at) == (
            ["1", "2", "3"],
            EPOCH_BASE - 5,
        )
        assert await read_all(bounded) == [1, 2, 3, 4, 5]
        assert counts == {"undated": 5}

    run_virtual(script())


@pytest.mark.parametrize(("behind_ms", "ends_at"), [(0, 5.0), (None, 14.0)])
def test_an_open_shard_ends_at_its_tip_when_the_end_of_the_range_has_passed(
    behind_ms: int | None, ends_at: float
) -> None:
    async def script() -> None:
        stream = FakeStream(behind_ms=behind_ms)  # type: ignore[arg-type] # as DynamoDB, which does not say it
        stream.put(*records(1, age_s=5))
        assert await read_all(source(stream)) == [1]
        assert now() == ends_at

    run_virtual(script())


@pytest.mark.parametrize(("rate", "share", "took_s"), [(10.0, 1.0, 3.0), (10.0, 0.5, 7.0), (0.5, 1.0, 78.0)])
def test_records_are_read_at_this_worker_s_share_of_the_rate(
    rate: float, share: float, took_s: float
) -> None:
    async def script() -> None:
        stream = FakeStream(ended={SHARD})
        stream.put(*records(*range(40), age_s=5))
        bounded = source(stream, rate=rate, share=lambda: share)
        assert await read_all(bounded) == list(range(40))
        assert now() == pytest.approx(took_s)

    run_virtual(script())


def test_empty_reads_and_failed_reads_use_up_nothing_of_the_rate() -> None:
    async def script() -> None:
        stream = FakeStream()
        stream.trouble = [ServiceUnavailable("away")] * 5
        bounded = source(stream, rate=1.0)
        cursor = await bounded.cursor(SHARD, Position.horizon())
        for _ in range(5):
            with pytest.raises(ServiceUnavailable):
                await bounded.read(SHARD, cursor, records_max=10)
        for _ in range(5):
            await bounded.read(SHARD, cursor, records_max=10)
        assert now() == 0

    run_virtual(script())


def test_shards_that_are_read_at_the_same_time_share_the_rate() -> None:
    async def script() -> None:
        stream = FakeStream(ended={SHARD})
        stream.put(*records(*range(20), age_s=5))
        bounded = source(stream, rate=10.0)
        async with asyncio.TaskGroup() as scope:
            for _ in range(2):
                scope.create_task(read_all(bounded))
        assert now() == pytest.approx(3.0)

    run_virtual(script())


def test_nothing_is_listed_when_the_replay_is_over() -> None:
    async def script() -> None:
        stream = FakeStream()
        with pytest.raises(ServiceUnavailable, match=OVER):
            await source(stream, is_open=no).shards()
        assert stream.listings == []
        assert len(await source(stream).shards()) == 1

    run_virtual(script())


def test_what_the_stream_says_of_itself_is_passed_on() -> None:
    async def script() -> None:
        stream = FakeStream(kept_s=3600.0, over="the table is gone")
        bounded = source(stream)
        assert await bounded.retention_s() == bounded.kept_s == 3600.0
        assert bounded.over == "the table is gone"
        assert await bounded.created() is None

    run_virtual(script())


def test_readers_that_wait_for_their_turn_leave_the_memory_to_others() -> None:
    async def script() -> None:
        pool = MemoryPool()
        pool.follow(64)
        stream = FakeStream()
        slow = source(stream, rate=1.0)
        cursor = await slow.cursor(SHARD, Position.horizon())

        async def read() -> None:
            room = await pool.account().room(least=1, most=2**20)
            assert room is not None
            with answering(room):
                await slow.read(SHARD, cursor, records_max=1)
            room.close()

        async with asyncio.TaskGroup() as tasks:
            for _ in range(40):
                tasks.create_task(read())
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            assert pool.budget.used < 2 * 2**20
        assert pool.budget.used == 0

    run_virtual(script())
