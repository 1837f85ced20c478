"""Consumers of mappings' own on emulators: two workers that look at the same time, one that is removed, and a service that fails."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from adapters.sources.kinesis.consumers import OwnConsumer
from adapters.sources.kinesis.fan_out import FannedOutStream, PushedStream
from poller.clock import LoopClock
from poller.domain.errors import AccessDenied, PortError, ServiceUnavailable
from poller.domain.records import MappingId, Position, ShardId
from poller.domain.streams.consumer_names import consumer_name
from poller.loop_turns import LoopTurns
from tests.conftest import REGION
from tests.contracts.sources.proxied import answer_with, let_through
from tests.contracts.worlds import EmulatorWorld, NoPacer, fresh_name
from tests.emulators import Emulator

MAPPING = MappingId("0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
SHARD = ShardId("shardId-000000000000")
TRIES_MAX = 100
TRY_S = 0.2


class StreamWithConsumers:
    """A stream of one shard on an emulator, and the workers that read it for one mapping."""

    def __init__(self, api: Any, arn: str) -> None:
        self.api = api
        self.arn = arn

    def worker(self) -> FannedOutStream:
        """The mapping's source at one more worker."""
        clock = LoopClock()
        own = OwnConsumer(self.api, stream=self.arn, mapping=MAPPING, clock=clock)
        return FannedOutStream(self.api, NoPacer(), LoopTurns(), arn=self.arn, consumer=own, clock=clock)

    async def registered(self) -> list[str]:
        """The names of the stream's consumers."""
        found = await self.api.list_stream_consumers(StreamARN=self.arn)
        return [each["ConsumerName"] for each in found.get("Consumers", ())]


@asynccontextmanager
async def a_stream(laboratory: EmulatorWorld, url: str) -> AsyncIterator[StreamWithConsumers]:
    api, name = await laboratory.client(url, "kinesis"), fresh_name()
    await api.create_stream(StreamName=name, ShardCount=1)
    await api.get_waiter("stream_exists").wait(
        StreamName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 50}
    )
    yield StreamWithConsumers(api, f"arn:aws:kinesis:{REGION}:{laboratory.account}:stream/{name}")
    await api.delete_stream(StreamName=name, EnforceConsumerDeletion=True)


async def pushed(source: PushedStream, *, text: str = "") -> list[str]:
    """Reads until records are pushed; returns their sequence numbers. With `text`, until that is why they are not."""
    cursor = await source.cursor(SHARD, Position.horizon())
    found: list[str] = []
    for _ in range(TRIES_MAX):
        page = await source.read(SHARD, cursor, records_max=100)
        assert page.cursor is not None
        cursor = page.cursor
        found += [each.sequence_number for each in page.records]
        because = source.polled_because(SHARD)
        if found and (text in because if text else not because):
            return found
        await asyncio.sleep(TRY_S)
    raise AssertionError(f"not so: {source.polled_because(SHARD)}; {len(found)} records")


async def together(laboratory: EmulatorWorld, url: str) -> None:
    async with a_stream(laboratory, url) as stream:
        workers = [stream.worker() for _ in range(4)]
        arns = await asyncio.gather(*(each.event_arn() for each in workers))
        assert len(set(arns)) == 1
        assert arns[0].startswith(f"{stream.arn}/consumer/{consumer_name(MAPPING)}:")
        assert await stream.registered() == [consumer_name(MAPPING)]
        again = stream.worker()
        assert await again.event_arn() == arns[0]


def test_workers_that_look_at_the_same_time_have_one_consumer(
    ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(together(laboratory, ministack.url))


def test_workers_that_look_at_the_same_time_have_one_consumer_where_it_is_strict(
    kinesis_local: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(together(laboratory, kinesis_local.url))


async def removed(laboratory: EmulatorWorld, url: str) -> None:
    async with a_stream(laboratory, url) as stream:
        await stream.api.put_record(StreamARN=stream.arn, PartitionKey="k", Data=b"1")
        worker = stream.worker()
        source = worker.pushing()
        try:
            first = await pushed(source)
            assert len(first) == 1
            source.leave(SHARD)
            await stream.api.deregister_stream_consumer(
                StreamARN=stream.arn, ConsumerName=consumer_name(MAPPING)
            )
            await pushed(source, text="ResourceNotFoundException")
            assert await pushed(source) == first
            assert await stream.registered() == [consumer_name(MAPPING)]
        finally:
            await worker.close()


def test_a_consumer_that_somebody_removes_is_registered_again(
    ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(removed(laboratory, ministack.url))


async def failing(laboratory: EmulatorWorld, url: str, error: type[PortError]) -> None:
    async with a_stream(laboratory, url) as stream:
        await stream.api.put_record(StreamARN=stream.arn, PartitionKey="k", Data=b"1")
        worker = stream.worker()
        source = worker.pushing()
        try:
            for operation in ("DescribeStreamConsumer", "RegisterStreamConsumer"):
                await answer_with(url, "kinesis", error, operation=operation)
                assert await worker.event_arn() == ""
                assert len(await pushed(source, text=operation)) == 1
                assert await stream.registered() == []
            await let_through(url)
            assert len(await pushed(source)) == 1
            assert (await worker.event_arn()).startswith(stream.arn)
        finally:
            await let_through(url)
            await worker.close()


@pytest.mark.parametrize("error", [AccessDenied, ServiceUnavailable])
def test_records_are_polled_while_no_consumer_can_be_had(
    microburst: Emulator, laboratory: EmulatorWorld, error: type[PortError]
) -> None:
    laboratory.run(failing(laboratory, microburst.url, error))
