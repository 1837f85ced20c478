"""Mappings that share little memory: those that can go on do, whatever others hold and whoever is cancelled, and all comes back."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from random import Random

import pytest

from poller.domain.invocations import FunctionError, Outcome, Succeeded
from poller.domain.policies import BatchPolicy, ScalingPolicy
from poller.domain.records import Cursor, MappingId, Message, Page, Record, ShardId
from poller.memory.answers import make_room
from poller.rules.memory.byte_budget import HOLDING_PATIENCE_S
from poller.runtime.memory.pool import MemoryPool
from poller.runtime.queues.queue_mapping import QueueMapping
from poller.runtime.stopping import Reason, Stop
from poller.runtime.streams.stream_mapping import StreamMapping
from tests.rules.build import kinesis
from tests.runtime.daemons import until
from tests.runtime.fakes import FakeFunction, FakeStream, mapping, stream_parts
from tests.runtime.queues.queue_fakes import Handler, Service, function_of, parts, plan, standard
from tests.simulation.services.contents import Content
from tests.virtual import EPOCH_BASE, run_virtual

MB = 1024 * 1024
MEMORY_MB = 4
MEMORY_BYTES = int(1.1 * MEMORY_MB * MB)
"""With a tenth more: what an answer comes to in events is guessed until the first one was seen."""
RECORDS = 200
PAD = 5_000
"""Bytes of a record or message."""
LEAST = 70_000
"""More than a unit: what may be granted whatever is used, to one call of an account at a time."""
DONE_S = 300.0


class Temper(StrEnum):
    """How a mapping's function behaves."""

    QUICK = "quick"
    SLOW = "slow"
    BLOCKED = "blocked"


TAKES_S = {Temper.QUICK: 0.02, Temper.SLOW: 0.5, Temper.BLOCKED: 0.02}


class StatedStream(FakeStream):
    """A stream that says how long its answers are before it gives them."""

    async def read(self, shard: ShardId, cursor: Cursor, *, records_max: int) -> Page:
        """As the fake."""
        page = await super().read(shard, cursor, records_max=records_max)
        await make_room(sum(PAD for _ in page.records))
        return page


class StatedQueue(Service):
    """The same of a queue."""

    async def receive(self, *, messages_max: int, wait_s: float) -> Sequence[Message]:
        """As the fake."""
        found = await super().receive(messages_max=messages_max, wait_s=wait_s)
        await make_room(sum(len(each.body or "") for each in found))
        return found


@dataclass
class Running:
    """One mapping, and what its function has been called with."""

    temper: Temper
    run: StreamMapping | QueueMapping
    function: FakeFunction | Handler
    expected: int
    task: asyncio.Task[None] | None = None

    @property
    def done(self) -> bool:
        """Whether its function has had all there is."""
        return len({number for call in self.function.calls for number in call}) == self.expected


def answer(temper: Temper) -> Outcome:
    """What its function says."""
    return FunctionError("ValueError", "no") if temper is Temper.BLOCKED else Succeeded(b"")


@dataclass
class World:
    """A daemon's memory with its mappings."""

    rng: Random
    pool: MemoryPool = field(default_factory=MemoryPool)
    stop: Stop = field(default_factory=Stop)
    mappings: list[Running] = field(default_factory=list)
    most: int = 0
    accounts: int = 0

    def stream(self, temper: Temper) -> None:
        """Adds a mapping of a stream of one to three shards."""
        shards = [ShardId(f"shardId-{number:012d}") for number in range(self.rng.randint(1, 3))]
        stream = StatedStream(held={each: self._records(at) for at, each in enumerate(shards)})
        function = FakeFunction(lambda _: answer(temper), takes_s=TAKES_S[temper])
        records_max, lanes = self.rng.choice((1, 10, 100)), self.rng.choice((1, 4))
        self.accounts += len(shards)
        wanted = mapping(mapping=self._name(), batch=BatchPolicy(records_max=records_max), lanes=lanes)
        given = stream_parts(stream, function, plan=wanted)
        run = StreamMapping(replace(given, memory=self.pool), self.stop)
        self.mappings.append(Running(temper, run, function, RECORDS * len(shards)))

    def queue(self, temper: Temper) -> None:
        """Adds a mapping of a queue."""
        self.accounts += 1
        service = StatedQueue(standard(visibility_s=600).queue)
        for number in range(RECORDS):
            service.queue.send(EPOCH_BASE, Content(number, pad=PAD))
        handler = Handler(takes_s=TAKES_S[temper], answer=lambda _: answer(temper))
        scaling = ScalingPolicy(concurrency_max=self.rng.choice((2, 5, 20)))
        given = parts(service, function_of(handler), plan(service, mapping=self._name(), scaling=scaling))
        run = QueueMapping(replace(given, memory=self.pool), self.stop)
        self.mappings.append(Running(temper, run, handler, RECORDS))

    async def play(self) -> None:
        """Runs all mappings, cancels some, and waits until those that can are done. Then all are stopped or cancelled."""
        for number, each in enumerate(self.mappings):
            each.task = asyncio.ensure_future(each.run.run())
            each.task.set_name(f"mapping {number}")
        watching = asyncio.ensure_future(self._watch())
        doomed = [
            each for each in self.mappings if each.temper is not Temper.QUICK and self.rng.random() < 0.3
        ]
        for each in doomed:
            await asyncio.sleep(self.rng.uniform(0, 5))
            assert each.task is not None
            each.task.cancel()
        healthy = self._healthy(doomed)
        await until(lambda: all(each.done for each in healthy), within_s=DONE_S, step_s=0.5)
        self.stop.request(Reason.REQUESTED, within_s=5)
        tasks = [each.task for each in self.mappings if each.task is not None]
        _, left = await asyncio.wait(tasks, timeout=20)
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left)
        watching.cancel()
        await asyncio.wait([watching])

    def _healthy(self, doomed: list[Running]) -> list[Running]:
        return [each for each in self.mappings if each.temper is not Temper.BLOCKED and each not in doomed]

    async def _watch(self) -> None:
        while True:
            self.most = max(self.most, self.pool.budget.used)
            await asyncio.sleep(0.01)

    def _records(self, shard: int) -> list[Record]:
        first = 1_000 * (shard + 1)
        return [
            kinesis(first + number, key=f"key-{self.rng.randrange(8)}", arrived=EPOCH_BASE, data="x" * PAD)
            for number in range(RECORDS)
        ]

    def _name(self) -> MappingId:
        return MappingId(f"0f4b8a5e-8b0c-4a56-9c0e-{len(self.mappings):012d}")


def world(seed: int, *tempers: Temper) -> World:
    """A daemon with little memory, and two to six mappings of these tempers beside one that is quick."""
    found = World(Random(seed))
    found.pool.follow(MEMORY_MB)
    for temper in (Temper.QUICK, *found.rng.choices(tempers, k=found.rng.randint(2, 6))):
        found.rng.choice((found.stream, found.queue))(temper)
    return found


@pytest.mark.parametrize("seed", range(12))
def test_mappings_that_go_on_stay_within_the_memory_and_all_are_done(seed: int) -> None:
    crowd = world(seed, Temper.QUICK, Temper.SLOW)
    run_virtual(crowd.play())
    assert crowd.most > MEMORY_MB * MB // 4, "memory was scarce"
    assert crowd.most <= MEMORY_BYTES + LEAST * crowd.accounts
    assert (crowd.pool.budget.used, crowd.pool.budget.waiting) == (0, 0)


@pytest.mark.parametrize("seed", range(12))
def test_blocked_mappings_do_not_hold_up_the_others(seed: int) -> None:
    crowd = world(seed, *Temper, Temper.BLOCKED)

    async def play() -> float:
        await crowd.play()
        return asyncio.get_running_loop().time()

    took_s = run_virtual(play())
    pressed = LEAST * crowd.accounts * (1 + took_s / HOLDING_PATIENCE_S)
    assert crowd.most <= MEMORY_BYTES + pressed
    assert (crowd.pool.budget.used, crowd.pool.budget.waiting) == (0, 0)
