"""Mappings that share their reads keep within the memory, too: what one of them reads has no more in it than each of them has room for."""

import asyncio
from dataclasses import dataclass, field, replace
from random import Random

import pytest

from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.policies import BatchPolicy
from poller.domain.records import Cursor, MappingId, Page, Position, ShardId
from poller.memory.answers import AnswerRoom, AnswerTooLarge, answering, make_room
from poller.runtime.memory.pool import MemoryPool
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.shared_reads.shared_stream import KEPT_PART, SharedReads, SharedSource
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.rules.build import kinesis
from tests.runtime.daemons import until
from tests.runtime.fakes import SHARD, FakeFunction, FakeStream, mapping, stream_parts
from tests.virtual import EPOCH_BASE, run_virtual, virtual_clock

MB = 1024 * 1024
MEMORY_MB = 16
RECORDS = 600
PAD = 16_000


@dataclass
class StatedStream(FakeStream):
    """A stream that says how long its answers are before it gives them."""

    takes_s: float = 0.0

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """As the fake."""
        page = await super().read(shard, cursor, records_max=records_max)
        await asyncio.sleep(self.takes_s)
        await make_room(sum(PAD for _ in page.records))
        return page


@dataclass
class Crowd:
    """Mappings that read one stream together."""

    shards: int
    pool: MemoryPool = field(default_factory=MemoryPool)
    stop: Stop = field(default_factory=Stop)
    functions: list[FakeFunction] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)
    most: int = 0

    def __post_init__(self) -> None:
        self.pool.follow(MEMORY_MB)
        self.shared = SharedReads(virtual_clock(), memory=self.pool.account())
        names = [ShardId(f"shardId-{number:012d}") for number in range(self.shards)]
        self.stream = StatedStream(
            held={
                each: [
                    kinesis(
                        10_000 * (at + 1) + number, key=f"k{number % 8}", arrived=EPOCH_BASE, data="x" * PAD
                    )
                    for number in range(RECORDS)
                ]
                for at, each in enumerate(names)
            }
        )

    def add(self, *, takes_s: float = 0.01, blocked: bool = False, records_max: int = 100) -> None:
        """Adds a mapping."""
        outcome: Outcome = FunctionError("ValueError", "no") if blocked else Succeeded(b"")
        function = FakeFunction(lambda _: outcome, takes_s=takes_s)
        name = MappingId(f"0f4b8a5e-8b0c-4a56-9c0e-{len(self.functions):012d}")
        plan = mapping(mapping=name, batch=BatchPolicy(records_max=records_max))
        view = self.shared.view("stream", self.stream, idle_s=1.0)
        given = stream_parts(self.stream, function, plan=plan)
        run = StreamMapping(replace(given, memory=self.pool, shared=view), self.stop)
        self.functions.append(function)
        self.tasks.append(asyncio.ensure_future(run.run()))

    async def watch(self) -> None:
        while True:
            self.most = max(self.most, self.pool.budget.used)
            await asyncio.sleep(0.01)

    async def end(self) -> None:
        self.stop.request(Reason.REQUESTED, within_s=5)
        _, left = await asyncio.wait(self.tasks, timeout=20)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)


def numbers_of(function: FakeFunction) -> set[int]:
    return {number for call in function.calls for number in call}


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_readers_that_share_a_stream_stay_within_the_memory(seed: int) -> None:
    rng = Random(seed)

    async def main() -> None:
        crowd = Crowd(rng.randint(1, 4))
        watching = asyncio.ensure_future(crowd.watch())
        for _ in range(10):
            crowd.add(takes_s=rng.choice((0.01, 0.1)), records_max=rng.choice((1, 10, 100)))
        everything = {10_000 * (at + 1) + number for at in range(crowd.shards) for number in range(RECORDS)}
        await until(lambda: all(numbers_of(each) == everything for each in crowd.functions), within_s=900)
        await crowd.end()
        watching.cancel()
        # Who has waited for long is let in with a little, whatever is used.
        assert crowd.most <= 1.25 * MEMORY_MB * MB
        assert (crowd.pool.budget.used, crowd.pool.budget.waiting) == (0, 0)

    run_virtual(main())


def test_windows_of_shards_whose_readers_are_all_blocked_take_no_more_than_their_part() -> None:
    async def main() -> None:
        crowd = Crowd(20)
        for _ in range(2):
            crowd.add(blocked=True)
        await asyncio.sleep(120)
        assert crowd.shared.tally.size <= MEMORY_MB * MB // KEPT_PART
        await crowd.end()

    run_virtual(main())


def test_a_reader_without_room_does_not_keep_the_others_from_reading() -> None:
    """The one that calls the source for all of them has no room for the answer."""

    class NoRoom(AnswerRoom):
        async def make(self, answer_bytes: int) -> None:
            raise AnswerTooLarge(answer_bytes, 0)

        def spare(self) -> None:
            """As AnswerRoom."""

    async def main() -> None:
        stream = StatedStream(held={SHARD: [kinesis(1)]}, takes_s=0.5)
        shared = SharedReads(virtual_clock())
        first, second = (shared.view("stream", stream, idle_s=1.0) for _ in range(2))

        async def read(source: SharedSource) -> Page:
            return await source.read(SHARD, await source.cursor(SHARD, Position.horizon()), records_max=10)

        with answering(NoRoom()):
            without_room = asyncio.ensure_future(read(first))
        await asyncio.sleep(0.1)
        page = await read(second)
        assert [each.sequence_number for each in page.records] == ["1"]
        with pytest.raises(AnswerTooLarge):
            await without_room

    run_virtual(main())
