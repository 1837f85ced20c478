"""Mappings of one stream share their reads: how often the source is asked, and that each one gets every record in order."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from poller.domain.errors import (
    AccessDenied,
    CursorExpired,
    PortError,
    PositionTrimmed,
    ServiceThrottled,
    ServiceUnavailable,
)
from poller.domain.records import Cursor, Page, Position, ShardId
from poller.runtime.streams.shared_reads.shared_stream import SharedReads, SharedSource, WindowTally
from tests.runtime.fakes import SHARD, FakeStream, records
from tests.virtual import run_virtual, virtual_clock

KEY = "stream"
IDLE_S = 5.0


@dataclass
class Reader:
    """One mapping's reader: what it has read, and where it is."""

    source: SharedSource
    position: Position = field(default_factory=Position.horizon)
    taken: list[int] = field(default_factory=list)
    pages: list[Page] = field(default_factory=list)
    errors: list[PortError] = field(default_factory=list)
    cursor: Cursor | None = None
    slow_s: float = 0.0
    records_max: int = 1000

    async def once(self) -> Page:
        """One read, as the engine does it."""
        if self.cursor is None:
            self.cursor = await self.source.cursor(SHARD, self.position)
        page = await self.source.read(SHARD, self.cursor, records_max=self.records_max)
        self.cursor = page.cursor
        self.pages.append(page)
        for each in page.records:
            if Position.after(each.sequence_number) > self.position:
                self.taken.append(int(each.sequence_number))
                self.position = Position.after(each.sequence_number)
        return page

    async def run(self) -> None:
        """Reads until it is cancelled."""
        try:
            while True:
                try:
                    await self.once()
                except CursorExpired:
                    self.cursor = None
                except PositionTrimmed:
                    self.cursor, self.position = None, Position.horizon()
                except PortError as error:
                    self.errors.append(error)
                    await asyncio.sleep(0.2)
                await asyncio.sleep(self.slow_s)
        finally:
            self.source.leave(SHARD)


class World:
    """A stream and its readers."""

    def __init__(self, stream: FakeStream, *, kept_bytes_max: int = 1_000_000) -> None:
        self.stream = stream
        self.shared = SharedReads(virtual_clock(), kept_bytes_max=kept_bytes_max)

    def reader(self, **given: Any) -> Reader:
        return Reader(self.shared.view(KEY, self.stream, idle_s=IDLE_S), **given)

    @asynccontextmanager
    async def reading(self, *readers: Reader) -> AsyncIterator[None]:
        """The readers read in the block."""
        tasks = [asyncio.ensure_future(each.run()) for each in readers]
        yield
        for task in tasks:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(each, asyncio.CancelledError) for each in ended), ended


def run(main: Coroutine[Any, Any, None]) -> None:
    run_virtual(main)


def test_ten_readers_of_an_idle_shard_ask_as_often_as_one() -> None:
    async def asked_by(count: int) -> int:
        world = World(FakeStream())
        async with world.reading(*(world.reader() for _ in range(count))):
            await asyncio.sleep(60)
        return len(world.stream.reads)

    async def main() -> None:
        alone, ten = await asked_by(1), await asked_by(10)
        assert abs(alone - ten) <= 1
        assert 20 < alone < 60

    run(main())


def test_ten_readers_of_a_busy_shard_ask_as_often_as_one_and_get_all() -> None:
    async def asked_by(count: int) -> int:
        world = World(FakeStream(page_max=10, behind_ms=0))
        readers = [world.reader() for _ in range(count)]
        async with world.reading(*readers):
            for number in range(1, 501):
                world.stream.put(*records(number))
                await asyncio.sleep(0.1)
            await asyncio.sleep(3)
        assert all(each.taken == list(range(1, 501)) for each in readers)
        assert world.stream.cursors == [Position.horizon()]
        return len(world.stream.reads)

    async def main() -> None:
        alone, ten = await asked_by(1), await asked_by(10)
        assert ten <= alone * 1.05

    run(main())


class PacedStream(FakeStream):
    """A stream whose reads are sent one after the other, five a second, as the pacer of a source does."""

    def __init__(self) -> None:
        super().__init__(page_max=100, behind_ms=0)
        self.given = 0
        """How many records it gave out."""
        self._turn = asyncio.Lock()

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        async with self._turn:
            await asyncio.sleep(0.2)
            page = await super().read(shard, cursor, records_max=records_max)
        self.given += len(page.records)
        return page


def test_windows_that_are_read_by_turns_on_a_busy_shard_become_one() -> None:
    async def main() -> None:
        stream = PacedStream()
        world = World(stream)
        stream.put(*records(*range(1, 11)))
        readers = [world.reader(position=Position.after(str(place))) for place in (3, 5, 7) * 3]
        async with world.reading(*readers):
            for number in range(11, 411):
                stream.put(*records(number))
                await asyncio.sleep(0.05)
                if number == 110:
                    stream.given = 0
            await asyncio.sleep(3)
        assert all(each.taken[-1] == 410 for each in readers)
        assert stream.given <= 300 + 20, "each record is read once, and not by each window"

    run(main())


def test_a_backlog_is_read_once_for_readers_that_begin_together() -> None:
    async def main() -> None:
        world = World(FakeStream(page_max=10))
        world.stream.put(*records(*range(1, 1001)))
        readers = [world.reader() for _ in range(10)]
        async with world.reading(*readers):
            await asyncio.sleep(5)
        assert all(each.taken == list(range(1, 1001)) for each in readers)
        assert len(world.stream.reads) < 130

    run(main())


def test_a_slow_reader_holds_nobody_and_reads_for_itself_until_it_has_caught_up() -> None:
    async def main() -> None:
        world = World(FakeStream(page_max=10), kept_bytes_max=20_000)
        slow, fast = world.reader(slow_s=5.0), world.reader()
        async with world.reading(slow, fast):
            for number in range(1, 1001):
                world.stream.put(*records(number))
                await asyncio.sleep(0.05)
            await asyncio.sleep(2)
            assert fast.taken == list(range(1, 1001))
            assert len(slow.taken) < 500
            slow.slow_s = 0.0
            await asyncio.sleep(30)
            assert slow.taken == list(range(1, 1001))
            assert (
                Position.after(str(slow.taken[-1])) in world.stream.cursors or len(world.stream.cursors) > 1
            )
            before = len(world.stream.reads)
            await asyncio.sleep(60)
            assert len(world.stream.reads) - before <= 60

    run(main())


def test_a_reader_that_stops_in_the_middle_of_a_shared_read_leaves_it_to_the_others() -> None:
    class Slow(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            await asyncio.sleep(10)
            return await super().read(shard, cursor, records_max=records_max)

    async def main() -> None:
        world = World(Slow())
        world.stream.put(*records(1, 2))
        first, second = world.reader(), world.reader()
        async with world.reading(second):
            leading = asyncio.ensure_future(first.run())
            await asyncio.sleep(0)
            leading.cancel()
            await asyncio.sleep(11)
            assert second.taken == [1, 2]

    run(main())


@pytest.mark.parametrize(
    "trouble", [ServiceThrottled("slow"), ServiceUnavailable("down"), AccessDenied("no")]
)
def test_readers_that_wait_for_one_read_share_its_failure(trouble: PortError) -> None:
    async def main() -> None:
        world = World(FakeStream())
        readers = [world.reader() for _ in range(3)]
        async with world.reading(*readers):
            await asyncio.sleep(0.5)
            world.stream.trouble = [trouble]
            await asyncio.sleep(1.0)
            assert [each.errors for each in readers] == [[trouble]] * 3
            world.stream.put(*records(1))
            await asyncio.sleep(3)
            assert all(each.taken == [1] for each in readers)

    run(main())


def test_an_expired_cursor_is_looked_up_once_for_all() -> None:
    async def main() -> None:
        world = World(FakeStream())
        readers = [world.reader() for _ in range(5)]
        world.stream.put(*records(1))
        async with world.reading(*readers):
            await asyncio.sleep(2)
            world.stream.trouble = [CursorExpired("old")]
            await asyncio.sleep(3)
            world.stream.put(*records(2))
            await asyncio.sleep(3)
        assert all(each.taken == [1, 2] for each in readers)
        assert world.stream.cursors == [Position.horizon(), Position.after("1")]

    run(main())


def test_a_read_that_began_before_a_reader_asked_does_not_show_it_that_nothing_more_is_there() -> None:
    class Slow(FakeStream):
        async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
            page = await super().read(shard, cursor, records_max=records_max)
            await asyncio.sleep(4)
            return page

    async def main() -> None:
        world = World(Slow())
        early, late = world.reader(), world.reader()
        async with world.reading(early):
            await asyncio.sleep(2)
            world.stream.put(*records(1))
            page = await late.once()
            assert [int(each.sequence_number) for each in page.records] == [1]

    run(main())


def test_pages_from_the_window_do_not_claim_that_nothing_more_is_there() -> None:
    async def main() -> None:
        world = World(FakeStream())
        first, second = world.reader(), world.reader()
        world.stream.put(*records(1))
        second.cursor = await second.source.cursor(SHARD, second.position)
        page = await first.once()
        assert page.behind_ms == 0
        page = await second.once()
        assert (len(page.records), page.behind_ms) == (1, 1)

    run(main())


def test_a_shard_ends_for_each_reader_by_a_read_of_its_own() -> None:
    async def main() -> None:
        world = World(FakeStream(ended={SHARD}))
        world.stream.put(*records(1, 2))
        readers = [world.reader() for _ in range(3)]
        for each in readers:
            while each.cursor is not None or not each.pages:
                await each.once()
        assert all(each.taken == [1, 2] for each in readers)
        assert len(world.stream.reads) == 3

    run(main())


def test_a_stream_that_was_recreated_is_read_from_the_source() -> None:
    async def main() -> None:
        world = World(FakeStream())
        world.stream.put(*records(1, 2))
        old, other = world.reader(), world.reader()
        other.cursor = await other.source.cursor(SHARD, other.position)
        await old.once()
        world.stream.held[SHARD] = [*records(9)]
        old.source.forget()
        new = world.reader()
        await new.once()
        assert new.taken == [9]

    run(main())


def test_nothing_is_kept_when_nobody_reads() -> None:
    async def main() -> None:
        world = World(FakeStream())
        async with world.reading(world.reader(), world.reader()):
            await asyncio.sleep(2)
            assert world.shared.tally.windows == 1
        assert world.shared.shards == 0
        assert world.shared.tally == WindowTally()

    run(main())


class Paced(FakeStream):
    """A stream whose reads take a moment."""

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        await asyncio.sleep(0.1)
        return await super().read(shard, cursor, records_max=records_max)


@pytest.mark.parametrize("seed", range(40))
def test_whatever_happens_each_reader_gets_every_record_in_order(seed: int) -> None:
    rng = Random(seed)

    async def restart(world: World, reader: Reader) -> None:
        """It begins anew behind a record that it has settled."""
        kept = reader.taken[: rng.randint(0, len(reader.taken))]
        reader.source.leave(SHARD)
        reader.cursor, reader.taken = None, kept
        reader.position = Position.after(str(kept[-1])) if kept else Position.horizon()

    async def main() -> None:
        world = World(
            Paced(page_max=rng.choice((1, 3, 20)), behind_ms=rng.choice((0, 0, 50))),
            kept_bytes_max=rng.choice((0, 1000, 5000, 1_000_000)),
        )
        slow, most = (0.0, 0.0, 0.3, 4.0), rng.choice((1, 2, 7, 1000, 1000))
        readers = [world.reader(slow_s=rng.choice(slow), records_max=most) for _ in range(rng.randint(1, 6))]
        tasks: dict[int, asyncio.Task[None]] = {}
        last = 0
        for _ in range(40):
            for number, each in enumerate(readers):
                if number not in tasks:
                    tasks[number] = asyncio.ensure_future(each.run())
            fresh = rng.choice((0, 0, 1, 5, 30))
            world.stream.put(*records(*range(last + 1, last + fresh + 1)))
            last += fresh
            if rng.random() < 0.2:
                world.stream.trouble.append(
                    rng.choice((ServiceThrottled("x"), ServiceUnavailable("x"), CursorExpired("x")))
                )
            if rng.random() < 0.1:
                world.stream.cursors_lost += 1
            if rng.random() < 0.2:
                number = rng.randrange(len(readers))
                tasks[number].cancel()
                await asyncio.gather(tasks.pop(number), return_exceptions=True)
                if rng.random() < 0.7:
                    await restart(world, readers[number])
            if rng.random() < 0.1:
                readers[0].source.forget()
            await asyncio.sleep(rng.choice((0.0, 0.1, 1.5)))
        for each in readers:
            each.slow_s = 0.0
        for number, each in enumerate(readers):
            if number not in tasks:
                tasks[number] = asyncio.ensure_future(each.run())
        await asyncio.sleep(120)
        for task in tasks.values():
            task.cancel()
        await asyncio.gather(*tasks.values(), return_exceptions=True)
        for each in readers:
            assert each.taken == list(range(1, last + 1))
        assert world.shared.tally == WindowTally()

    run(main())
