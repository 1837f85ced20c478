"""An answer without an iterator ends a shard only when a listing that is made afterwards says so."""

import asyncio

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import AccessDenied, PositionTrimmed, ServiceUnavailable
from poller.domain.records import SHARD_END, Cursor, Position, ShardId
from poller.domain.telemetry.mapping_events import PortFailed, RecordsLost, ShardStopped
from poller.runtime.stopping import Stop
from poller.runtime.streams.reader import GONE_S
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import SHARD, FakeFunction, FakeStream, Seen, records, stream_parts
from tests.runtime.streams.test_stream_mapping import position_of, run_mapping, stored


@pytest.mark.parametrize("lost", [1, 5])
def test_an_open_shard_is_read_on_with_a_new_iterator(lost: int) -> None:
    stream, function, store, seen = FakeStream(), FakeFunction(), MemoryStore(), Seen()
    stream.put(*records(1, 2))

    async def write(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(3.5)
        stream.cursors_lost = lost
        await asyncio.sleep(2)
        assert await position_of(store) == Position.after("2")
        stream.put(*records(3))

    run_mapping(lambda: stream_parts(stream, function, store=store, seen=seen), for_s=60, during=write)
    assert function.calls == [[1, 2], [3]]
    assert stored(store) == Position.after("3")
    assert [(each.shard, each.error) for each in seen.of(PortFailed)] == [(SHARD, "ServiceUnavailable")]
    assert "without an iterator" in seen.of(PortFailed)[0].reason
    assert seen.of(RecordsLost) == []


def test_records_of_an_answer_without_an_iterator_count_and_come_once() -> None:
    stream, function, store = FakeStream(page_max=2, cursors_lost=1), FakeFunction(), MemoryStore()
    stream.put(*records(1, 2, 3, 4))
    run_mapping(lambda: stream_parts(stream, function, store=store), for_s=10)
    assert function.calls == [[1, 2], [3, 4]]
    assert stream.cursors == [Position.horizon(), Position.after("2")]


def test_a_closed_shard_ends_only_when_nothing_is_left_in_it() -> None:
    """A closed shard with much to read, and iterators that get lost on the way."""
    stream, function, store = (
        FakeStream(page_max=2, cursors_lost=3, ended={SHARD}),
        FakeFunction(),
        MemoryStore(),
    )
    stream.put(*records(*range(1, 10)))
    run_mapping(lambda: stream_parts(stream, function, store=store), for_s=30)
    assert [number for call in function.calls for number in call] == list(range(1, 10))
    assert stored(store) == SHARD_END


def test_a_source_that_never_gives_an_iterator_is_read_and_listed_seldom() -> None:
    stream, function, seen = FakeStream(cursors_lost=10_000), FakeFunction(), Seen()
    stream.put(*records(1))
    run_mapping(lambda: stream_parts(stream, function, seen=seen), for_s=600)
    assert function.calls == [[1]]
    assert len(stream.reads) < 120
    assert len(seen.of(PortFailed)) == 1


@pytest.mark.parametrize("late", [1, 2, 6])
def test_a_closed_shard_ends_however_late_its_listing_shows_it(late: int) -> None:
    child = ShardId("b")
    stream, function, store = FakeStream(), FakeFunction(), MemoryStore()
    stream.put(*records(1))

    async def close(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(2.5)
        stream.listed_late, stream.ended = late, {SHARD}
        await asyncio.sleep(120)
        stream.held[child], stream.parents[child] = [], (SHARD,)
        stream.put(*records(7), shard=child)

    run_mapping(lambda: stream_parts(stream, function, store=store), for_s=60, during=close)
    assert stored(store) == SHARD_END
    assert function.calls == [[1], [7]]


def test_while_the_source_cannot_be_listed_no_end_is_believed_and_the_trouble_is_shown() -> None:
    stream, function, store, seen = FakeStream(), FakeFunction(), MemoryStore(), Seen()
    stream.put(*records(1))

    async def trouble(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(2.5)
        stream.listing_trouble = [AccessDenied("may not list"), *[ServiceUnavailable("down")] * 30]
        stream.ended = {SHARD}
        await asyncio.sleep(1.0)
        (shard,) = runner.shards()
        assert (shard.state, shard.reason) == ("failing", "may not list")
        await asyncio.sleep(20.0)
        assert await position_of(store) == Position.after("1")
        assert runner.shards()[0].reason == "down"
        stream.listing_trouble.clear()

    run_mapping(lambda: stream_parts(stream, function, store=store, seen=seen), for_s=60, during=trouble)
    assert stored(store) == SHARD_END
    assert seen.of(ShardStopped)[-1].ended


@pytest.mark.parametrize("lost", [2, 6])
def test_an_old_listing_without_the_shard_is_no_sign_that_it_has_ended(lost: int) -> None:
    stream, function, store, seen = FakeStream(), FakeFunction(), MemoryStore(), Seen()
    stream.put(*records(1))

    async def trouble(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(5)
        stream.unlisted, stream.cursors_lost = {SHARD}, lost
        await asyncio.sleep(GONE_S - 1)
        stream.unlisted = set()
        assert await position_of(store) == Position.after("1")
        stream.put(*records(2))

    run_mapping(lambda: stream_parts(stream, function, store=store, seen=seen), for_s=100, during=trouble)
    assert function.calls == [[1], [2]]
    assert stored(store) == Position.after("2")
    assert seen.of(RecordsLost) == []


def test_a_shard_that_no_listing_has_for_long_has_ended() -> None:
    stream, function, store, seen = FakeStream(cursors_lost=10_000), FakeFunction(), MemoryStore(), Seen()
    stream.put(*records(1))

    async def trouble(_: StreamMapping, __: Stop) -> None:
        await asyncio.sleep(5)
        stream.unlisted = {SHARD}
        await asyncio.sleep(GONE_S - 1)
        assert await position_of(store) == Position.after("1")

    run_mapping(lambda: stream_parts(stream, function, store=store, seen=seen), for_s=60, during=trouble)
    assert stored(store) == SHARD_END
    assert seen.of(RecordsLost) == []


def test_a_stop_while_an_end_is_in_doubt_writes_no_end() -> None:
    stream, function, store = FakeStream(cursors_lost=10_000), FakeFunction(), MemoryStore()
    stream.put(*records(1))
    run_mapping(lambda: stream_parts(stream, function, store=store), for_s=3)
    assert stored(store) == Position.after("1")


def test_a_source_that_goes_back_to_the_start_of_a_closed_shard_ends_it() -> None:
    class Forgetful(FakeStream):
        async def cursor(self, shard: ShardId, position: Position) -> Cursor:
            if position != Position.horizon():
                raise PositionTrimmed("unknown number")
            return await super().cursor(shard, position)

    stream, function, store = Forgetful(ended={SHARD}), FakeFunction(), MemoryStore()
    stream.put(*records(1, 2))
    run_mapping(lambda: stream_parts(stream, function, store=store), for_s=30)
    assert function.calls == [[1, 2]]
    assert stored(store) == SHARD_END
    assert len(stream.reads) == 2


def test_a_shard_that_has_ended_costs_one_more_listing_and_one_more_read() -> None:
    stream, function, store = FakeStream(ended={SHARD}), FakeFunction(), MemoryStore()
    stream.put(*records(1))
    run_mapping(lambda: stream_parts(stream, function, store=store), for_s=10)
    assert stored(store) == SHARD_END
    # One by the mapping, one by the shard, one for its children.
    assert stream.listings == [0.0, 0.0, 0.0]
    assert len(stream.reads) == 2


def test_a_stream_that_gets_no_more_records_says_why_while_it_is_read() -> None:
    stream, function = FakeStream(over="the stream is disabled; write the new ARN"), FakeFunction()
    stream.put(*records(1))

    async def look(runner: StreamMapping, _: Stop) -> None:
        await asyncio.sleep(1)
        assert runner.reason == stream.over
        (note,) = runner.notes()
        assert note.endswith(stream.over)
        assert note.startswith("mapping ")
        stream.over = ""
        await asyncio.sleep(30)
        assert (runner.reason, runner.notes()) == ("", ())

    run_mapping(lambda: stream_parts(stream, function), for_s=1, during=look)
    assert function.calls == [[1]]
