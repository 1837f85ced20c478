"""The fakes keep the contracts that the real adapters keep."""

import asyncio
import base64
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from random import Random
from typing import cast

import pytest

from adapters.stores.memory import MemoryStore
from poller.domain.errors import CursorExpired, PortError
from poller.domain.invocations import Notice, with_payload
from poller.domain.plan import MappingPlan, SourceKind
from poller.domain.records import (
    DynamoRecord,
    JsonObject,
    KinesisRecord,
    MappingId,
    Position,
    QueueFacts,
    Record,
    ShardId,
)
from poller.domain.untrusted.json_values import json_value
from poller.ports import Store
from poller.testing import queue_source, stream_source
from poller.testing.destination import DELIVERING, FAILING, PORT_ERRORS, DestinationScenario, notice
from poller.testing.notice_source import NOTICE_SCENARIOS, NoticeScenario
from poller.testing.queue_source import QueueScenario
from poller.testing.store import DIGEST_SCENARIOS, SCENARIOS
from poller.testing.stores.store_steps import Opening, Scenario
from poller.testing.stream_source import StreamScenario
from tests.simulation.checks.checker import Checker
from tests.simulation.services.contents import Content
from tests.simulation.services.fake_plugins import SimDestination, SimQueue, SimStore, SimStream, Witness
from tests.simulation.services.faults import FaultPlan, History, Line, Marks, epoch
from tests.simulation.services.notices import (
    NoticePlace,
    Reader,
    RedriveWitness,
    SimNotices,
    open_notices,
)
from tests.simulation.services.queues import FakeQueue
from tests.simulation.services.streams import FakeStream
from tests.virtual import run_virtual

ARN = "arn:aws:kinesis:eu-west-1:111122223333:stream/contract"


@dataclass(frozen=True, slots=True)
class Spoken(Content):
    """Content with a body of the contract's choosing."""

    said: str = ""

    def text(self) -> str:
        return self.said


def line(plan: FaultPlan | None = None) -> Line:
    return Line("worker", plan or FaultPlan(), rng=Random(1), marks=Marks(), history=History(kept=False))


def court(source: FakeStream | FakeQueue, kind: SourceKind) -> Checker:
    plan = MappingPlan(
        mapping=MappingId("m"), kind=kind, source_arn=ARN, function="f", function_arn="arn", filters=("{}",)
    )
    return Checker([plan], {ARN: source}, {}, marks=Marks(), history=History(kept=False))


class Silent:
    """A witness of things that no stream holds."""

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_, **__: None


class FakeStreamWorld:
    """A fake stream of one shard over a line without chance faults."""

    def __init__(self, kind: SourceKind) -> None:
        self._stream = FakeStream(kind)
        self._line = line()
        self.source = self._over(self._stream)

    def _over(self, stream: FakeStream) -> SimStream:
        return SimStream(stream, self._line, court(stream, stream.kind), source_arn=ARN)

    def stranger(self) -> SimStream:
        stream = FakeStream(self._stream.kind)
        stream.missing = True
        return self._over(stream)

    async def put(self, key: str, body: str) -> None:
        self._stream.put(epoch(), key, Spoken(0, said=body))

    def body(self, record: Record) -> str:
        if isinstance(record, KinesisRecord):
            return base64.b64decode(record.data).decode()
        assert isinstance(record, DynamoRecord)
        body: str = json_value(record.change.new_image)["body"]["S"]
        return body

    async def later(self) -> None:
        await asyncio.sleep(1.0)

    async def split(self, shard: ShardId) -> None:
        assert self._stream.split(epoch(), shard)

    async def merge(self, first: ShardId, second: ShardId) -> None:
        self._stream.merge(epoch(), first, second)

    async def trim(self) -> None:
        for state in self._stream.shards.values():
            state.trimmed = len(state.records)

    async def fail(self, error: type[PortError]) -> None:
        self._line.refusal = error

    async def heal(self) -> None:
        self._line.refusal = None


class FakeQueueWorld:
    """A fake queue over a line without chance faults."""

    def __init__(self, *, fifo: bool) -> None:
        self.fifo = fifo
        self.visibility_s = 30
        self._number = 0
        self._line = line()
        self._queue = FakeQueue(QueueFacts(30, fifo))
        self.source = self._over(self._queue)

    def _over(self, queue: FakeQueue) -> SimQueue:
        return SimQueue(queue, self._line, court(queue, SourceKind.SQS), source_arn=ARN)

    def successor(self) -> SimQueue:
        """The same worker's next client of the same queue."""
        return self._over(self._queue)

    def stranger(self) -> SimQueue:
        queue = FakeQueue(self._queue.facts)
        queue.missing = True
        return self._over(queue)

    async def send(self, body: str, *, group: str = "g", tenant: str | None = None) -> None:
        self._number += 1
        content = Spoken(self._number, keep=False, said=body)
        self._queue.send(epoch(), content, group=group if self.fifo else tenant)

    async def lapse(self) -> None:
        await asyncio.sleep(self.visibility_s)

    async def fail(self, error: type[PortError]) -> None:
        self._line.refusal = error

    async def heal(self) -> None:
        self._line.refusal = None


def store_opening() -> Opening:
    """One memory store behind all doors, each over a line of its own."""
    store = MemoryStore()
    witness = cast("Witness", Silent())

    @asynccontextmanager
    async def open_one() -> AsyncGenerator[Store]:
        yield SimStore(store, line(), witness)

    return open_one


class FakeDestinationWorld:
    """A fake destination over a line without chance faults."""

    with_payload = True
    errors = PORT_ERRORS

    def __init__(self) -> None:
        self._notices: list[Notice] = []
        self._line = line()
        self.destination = SimDestination(self._notices, self._line, cast("Witness", Silent()))

    async def arrived(self, at_least: int) -> list[JsonObject]:
        del at_least
        return [json_value(with_payload(each)) for each in self._notices]

    async def fail(self, error: type[PortError]) -> None:
        self._line.refusal = error

    async def heal(self) -> None:
        self._line.refusal = None


STREAM_SCENARIOS = (
    *stream_source.READING,
    *stream_source.RESHARDING,
    *stream_source.TRIMMING,
    *stream_source.FAILING,
)


@pytest.mark.parametrize("kind", [SourceKind.KINESIS, SourceKind.DYNAMODB])
@pytest.mark.parametrize("scenario", STREAM_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_fake_stream_is_a_stream(scenario: StreamScenario, kind: SourceKind) -> None:
    async def main() -> None:
        await scenario(FakeStreamWorld(kind))

    run_virtual(main())


class FakeNoticeWorld:
    """A fake on-failure queue over a line without chance faults."""

    def __init__(self) -> None:
        self._line, self._witness = line(), cast("Witness", Silent())
        self._place = NoticePlace(rng=Random(1))
        self.destination = SimDestination([], self._line, self._witness, place=self._place)

    def opening(self, *, hold_s: float = 60.0) -> AbstractAsyncContextManager[SimNotices]:
        reader = Reader(self._line, "place", MappingId("m"))
        return open_notices(self._place, reader, cast("RedriveWitness", Silent()), hold_s=hold_s)


@pytest.mark.parametrize("fifo", [False, True], ids=["standard", "fifo"])
@pytest.mark.parametrize(
    "scenario", [*queue_source.EVERY, *queue_source.FAILING], ids=lambda scenario: scenario.__name__
)
def test_a_fake_queue_is_a_queue(scenario: QueueScenario, fifo: bool) -> None:
    async def main() -> None:
        await scenario(FakeQueueWorld(fifo=fifo))

    run_virtual(main())


@pytest.mark.parametrize("scenario", queue_source.FIFO, ids=lambda scenario: scenario.__name__)
def test_a_fake_fifo_queue_keeps_groups_in_order(scenario: QueueScenario) -> None:
    async def main() -> None:
        await scenario(FakeQueueWorld(fifo=True))

    run_virtual(main())


@pytest.mark.parametrize("scenario", SCENARIOS + DIGEST_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_store_behind_a_line_is_a_store(scenario: Scenario) -> None:
    async def main() -> None:
        await scenario(store_opening())

    run_virtual(main())


@pytest.mark.parametrize("scenario", DELIVERING + FAILING, ids=lambda scenario: scenario.__name__)
def test_a_fake_destination_is_a_destination(scenario: DestinationScenario) -> None:
    async def main() -> None:
        await scenario(FakeDestinationWorld())

    run_virtual(main())


@pytest.mark.parametrize("scenario", NOTICE_SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_a_fake_on_failure_queue_is_a_place_of_notices(scenario: NoticeScenario) -> None:
    async def main() -> None:
        await scenario(FakeNoticeWorld())

    run_virtual(main())


def test_notices_that_a_killed_reader_held_come_back_when_their_time_is_over() -> None:
    async def main() -> None:
        world = FakeNoticeWorld()
        await world.destination.send(notice(1))
        killed = world.opening(hold_s=30.0)
        assert len(await (await killed.__aenter__()).read(notices_max=1)) == 1
        async with world.opening() as source:
            assert await source.read(notices_max=1) == []
            assert await source.held_by_others() == 1
            await asyncio.sleep(30.0)
            assert await source.held_by_others() == 0
            assert len(await source.read(notices_max=1)) == 1

    run_virtual(main())


def test_what_others_hold_counts_also_when_what_was_left_here_is_visible_again() -> None:
    async def main() -> None:
        world = FakeNoticeWorld()
        for number in (1, 2):
            await world.destination.send(notice(number))
        async with world.opening(hold_s=90.0) as other, world.opening(hold_s=30.0) as source:
            assert len(await other.read(notices_max=1)) == 1
            (left,) = await source.read(notices_max=1)
            await source.leave(left)
            assert await source.held_by_others() == 1
            await asyncio.sleep(40.0)
            assert await source.held_by_others() == 1

    run_virtual(main())


def test_a_receive_of_a_new_client_repeats_none_of_the_client_before() -> None:
    async def main() -> None:
        world = FakeQueueWorld(fifo=True)
        await world.send("{}")
        assert len(await world.source.receive(messages_max=10, wait_s=0)) == 1
        assert await world.successor().receive(messages_max=10, wait_s=0) == [], "it is still hidden"

    run_virtual(main())


def test_a_cursor_that_expires_early_is_reported_and_marked() -> None:
    async def main() -> Marks:
        stream, faulty = FakeStream(SourceKind.KINESIS), line(FaultPlan(expired_cursor=1.0))
        source = SimStream(stream, faulty, court(stream, SourceKind.KINESIS), source_arn=ARN)
        shard = (await source.shards())[0].shard_id
        cursor = await source.cursor(shard, Position.horizon())
        with pytest.raises(CursorExpired):
            await source.read(shard, cursor, records_max=1)
        return faulty.marks

    assert run_virtual(main())["expired cursor"] == 1
