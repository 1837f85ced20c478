"""The reader of a shard asks for as many records as have room, and holds room until its records are counted."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import cast

import pytest

from poller.domain.errors import ServiceUnavailable
from poller.domain.records import Cursor, Page, Record
from poller.domain.telemetry.labels import TaskKind
from poller.domain.telemetry.mapping_events import LeaseMoved, ShardStarted
from poller.domain.telemetry.observers import AnyTelemetryEvent
from poller.memory.answers import make_room
from poller.rules.memory.byte_budget import HOLDING_PATIENCE_S, IDLE_PATIENCE_S, PAGE_BYTES, UNIT_BYTES
from poller.rules.memory.sizes import SIZE_UNKNOWN
from poller.rules.streams.flow import ShardFlow
from poller.rules.streams.lanes import Holding
from poller.runtime.memory.pool import MemoryPool
from poller.runtime.stopping import Stop
from poller.runtime.streams.bounded.shard_memory import ANSWER_S_MAX, FIRST_FACTOR, ShardMemory
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.runtime.fakes import SHARD, FakeFunction, FakeStream, Seen, records, stream_parts
from tests.virtual import run_virtual

MB = 1024 * 1024


@dataclass
class Held:
    """What a flow holds, in bytes."""

    held_bytes: int = 0
    starving: bool = False

    @property
    def holding(self) -> Holding:
        """As the flow."""
        return Holding(self.held_bytes, self.starving)

    def hold(self, size: int) -> None:
        """Takes in so many bytes."""
        self.held_bytes = size


@dataclass
class Source:
    """Answers of so many bytes for each record that is asked for."""

    record_bytes: int
    records_max: int = 1_000
    asked: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    async def call(self, asked: int) -> Page:
        """As a source's read that says how long its answer is."""
        self.asked.append(asked)
        self.times.append(now())
        count = min(asked, self.records_max)
        await make_room(count * self.record_bytes)
        return Page(cast("list[Record]", records(*range(count))), Cursor("next"), 0)


def now() -> float:
    """The time of the loop."""
    return asyncio.get_running_loop().time()


def played(main: Callable[[MemoryPool, Held, ShardMemory], Awaitable[None]]) -> None:
    """Runs it with a shard of a daemon that may hold 64 MB."""

    async def run() -> None:
        pool, flow = MemoryPool(), Held()
        pool.follow(64)
        memory = ShardMemory(pool, cast("ShardFlow", flow), batch_records=0)
        await main(pool, flow, memory)
        memory.close()
        assert pool.budget.waiting == 0

    run_virtual(run())


def test_room_is_kept_from_the_call_until_the_records_are_counted() -> None:
    async def main(pool: MemoryPool, flow: Held, memory: ShardMemory) -> None:
        await memory.read(Source(100_000, records_max=5).call, 1_000)
        assert pool.budget.used == 5 * 100_000 * FIRST_FACTOR
        memory.accept(partial(flow.hold, 700_000))
        assert pool.budget.used == 700_000
        flow.held_bytes = 0
        memory.count()
        assert pool.budget.used == 0

    played(main)


def test_the_first_page_is_asked_for_by_a_moderate_guess_and_later_ones_by_what_was_seen() -> None:
    async def main(pool: MemoryPool, flow: Held, memory: ShardMemory) -> None:
        source = Source(50_000, records_max=20)
        for _ in range(2):
            await memory.read(source.call, 10_000)
            memory.accept(lambda: None)
        page_bytes = 48 * MB + 16 * MB - UNIT_BYTES
        assert source.asked[0] == min(10_000, page_bytes // SIZE_UNKNOWN)
        assert source.asked[1] == page_bytes // int(50_000 * FIRST_FACTOR)

    played(main)


def test_an_answer_without_room_is_read_again_in_smaller_pieces() -> None:
    async def main(pool: MemoryPool, _: Held, memory: ShardMemory) -> None:
        others = pool.account()
        others.hold(60 * MB)
        source = Source(1_000_000)
        page = await memory.read(source.call, 1_000)
        assert source.asked == sorted(source.asked, reverse=True)
        waits = [later - earlier for earlier, later in pairwise(source.times)]
        needed = [each * 1_000_000 * FIRST_FACTOR for each in source.asked[:-1]]
        fits_never = [each > pool.budget.largest for each in needed]
        assert waits == [pytest.approx(0.0 if each else ANSWER_S_MAX) for each in fits_never]
        assert set(fits_never) == {True, False}
        assert len(page.records) == source.asked[-1] >= 1
        assert pool.budget.used <= pool.budget.total
        others.close()

    played(main)


def test_one_record_without_room_comes_after_a_while_whatever_is_held() -> None:
    async def main(pool: MemoryPool, flow: Held, memory: ShardMemory) -> None:
        others = pool.account()
        others.hold(64 * MB)
        source = Source(1_000_000)
        page = await memory.read(source.call, 1)
        assert len(page.records) == 1
        assert now() == pytest.approx(2 * IDLE_PATIENCE_S), "before the call, and before its answer"
        flow.held_bytes = 1_500_000
        memory.accept(lambda: None)
        await memory.read(source.call, 1)
        assert now() >= 2 * IDLE_PATIENCE_S + HOLDING_PATIENCE_S
        others.close()

    played(main)


def test_a_failed_or_cancelled_read_gives_its_room_back() -> None:
    async def main(pool: MemoryPool, _: Held, memory: ShardMemory) -> None:
        async def fails(_: int) -> Page:
            raise ServiceUnavailable("down")

        async def hangs(_: int) -> Page:
            return await asyncio.Event().wait()  # type: ignore[return-value]  # it never returns

        with pytest.raises(ServiceUnavailable):
            await memory.read(fails, 10)
        assert pool.budget.used == 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await memory.read(hangs, 10)
        assert pool.budget.used == 0
        await memory.read(Source(100, records_max=1).call, 10)
        memory.close()
        assert pool.budget.used == 0, "a page that nobody took"

    played(main)


def test_what_shards_reserve_for_a_call_is_little_while_they_are_many() -> None:
    async def main(pool: MemoryPool, _: Held, memory: ShardMemory) -> None:
        accounts = [pool.account() for _ in range(95)]
        for each in accounts:
            each.hold(600_000)
        source = Source(10_000)
        await memory.read(source.call, 10_000)
        assert source.asked[0] * SIZE_UNKNOWN <= PAGE_BYTES
        for each in accounts:
            each.close()

    played(main)


def test_what_answers_come_to_in_the_flow_is_learned() -> None:
    async def main(pool: MemoryPool, flow: Held, memory: ShardMemory) -> None:
        source = Source(1_000, records_max=100)
        for grown in (4, 4, 0, 0):
            flow.held_bytes = 0
            memory.count()
            await memory.read(source.call, 1_000)
            reserved = pool.budget.used
            memory.accept(partial(flow.hold, grown * 100_000))
            seen.append((reserved, pool.budget.used))
        likely = 4 * 100_000
        assert [used for _, used in seen] == [4 * 100_000, 4 * 100_000, 0, 0]
        assert seen[0][0] < likely
        assert [each for each, _ in seen[1:3]] == [likely, likely]

    seen: list[tuple[int, int]] = []
    played(main)


@pytest.mark.parametrize("starving", [True, False])
def test_a_shard_that_holds_more_than_its_part_reads_on_only_if_nothing_of_it_can_be_settled_before(
    starving: bool,
) -> None:
    async def main(pool: MemoryPool, flow: Held, memory: ShardMemory) -> None:
        others = [pool.account() for _ in range(7)]
        for each in others:
            each.hold(6 * MB)
        flow.held_bytes, flow.starving = 22 * MB, starving
        memory.count()
        source = Source(1_000)
        done = asyncio.ensure_future(memory.read(source.call, 10))
        done.set_name("read")
        await asyncio.wait([done], timeout=60)
        assert done.done() is starving
        for each in others:
            each.close()
        await done

    played(main)


def test_a_shard_has_no_account_before_its_first_read() -> None:
    async def main(pool: MemoryPool, _: Held, memory: ShardMemory) -> None:
        alone = pool.budget.part
        memory.count()
        assert pool.budget.part == alone == pool.budget.total
        await memory.read(Source(100).call, 10)
        assert pool.budget.part < alone
        memory.close()
        assert pool.budget.part == alone

    played(main)


def test_a_shard_that_is_cancelled_before_its_first_step_leaves_no_account() -> None:
    def cancel_shard() -> None:
        (task,) = [each for each in asyncio.all_tasks() if each.get_name() == f"{TaskKind.SHARD} {SHARD}"]
        task.cancel()

    class Foreign(Seen):
        """Cancels the shard's task in the turn in which it would begin."""

        def on(self, event: AnyTelemetryEvent) -> None:
            super().on(event)
            if isinstance(event, LeaseMoved) and event.held:
                asyncio.get_running_loop().call_soon(cancel_shard)

    async def main() -> None:
        seen = Foreign()
        parts = stream_parts(FakeStream(), FakeFunction(), seen=seen)
        parts.memory.follow(64)
        with pytest.raises(ExceptionGroup):
            await StreamMapping(parts, Stop()).run()
        assert seen.of(LeaseMoved)
        assert not seen.of(ShardStarted)
        assert parts.memory.budget.part == parts.memory.budget.total

    run_virtual(main())
