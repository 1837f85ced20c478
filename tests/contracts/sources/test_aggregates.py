"""Aggregated records that the Producer Library's packer makes, put into real streams and read apart, from every place in them."""

import asyncio
import base64
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from aws_kinesis_agg.aggregator import AggRecord  # type: ignore[import-untyped]  # it has no types

from adapters.sources.kinesis.consumers import GivenConsumer
from adapters.sources.kinesis.fan_out import AGAIN_S, FannedOutStream
from adapters.sources.kinesis.stream import KinesisStream
from poller.clock import LoopClock
from poller.domain.records import AggregatedPart, KinesisRecord, Position, Record, ShardId
from poller.loop_turns import LoopTurns
from poller.ports import StreamSource
from tests.conftest import REGION
from tests.contracts.worlds import EmulatorWorld, NoPacer, fresh_name
from tests.emulators import Emulator

SHARD = ShardId("shardId-000000000000")
READS_MAX = 40
PUT = [["whole"], ["a", "b", "c"], ["alone"], ["d", "e"], ["last"]]
"""What is put: records by the user records in them. `alone` is aggregated, too."""
BODIES = [body for record in PUT for body in record]


def aggregated(bodies: list[str]) -> bytes:
    found: Any = AggRecord()
    for number, body in enumerate(bodies):
        assert found.add_user_record(f"key-{body}", body.encode(), str(number) if number else None)
    return bytes(found.get_contents()[2])


def body(record: Record) -> str:
    assert isinstance(record, KinesisRecord)
    return base64.b64decode(record.data).decode()


async def put(api: Any, name: str) -> None:
    for record in PUT:
        plain = record in (["whole"], ["last"])
        data = record[0].encode() if plain else aggregated(record)
        await api.put_record(StreamName=name, PartitionKey="outer", Data=data)


async def read(
    source: StreamSource, position: Position, count: int, *, records_max: int = 100
) -> list[Record]:
    """The records behind a position."""
    cursor, found = await source.cursor(SHARD, position), list[Record]()
    for _ in range(READS_MAX):
        page = await source.read(SHARD, cursor, records_max=records_max)
        found += page.records
        if len(found) >= count or page.cursor is None:
            break
        cursor = page.cursor
    return found


async def read_apart(source: StreamSource) -> None:
    records = await read(source, Position.horizon(), len(BODIES))
    assert [body(each) for each in records] == BODIES
    assert [each.key for each in records] == [
        "outer" if each in ("whole", "last") else f"key-{each}" for each in BODIES
    ]
    assert [type(each) is AggregatedPart for each in records] == [each in "abcde" for each in BODIES]
    shared = [each.outer for each in records if isinstance(each, AggregatedPart)]
    assert [shared.count(each) for each in dict.fromkeys(shared)] == [3, 2]
    for place, record in enumerate(records[:-1], 1):
        # As it comes back from the store.
        position = Position.decode(Position.after(record.sequence_number).encode())
        for records_max in (100, 1):
            left = await read(source, position, len(BODIES) - place, records_max=records_max)
            assert [each.sequence_number for each in left] == [
                each.sequence_number for each in records[place:]
            ]


async def made(laboratory: EmulatorWorld, url: str) -> tuple[Any, str, str]:
    """A stream with these records, its client and its ARN."""
    api, name = await laboratory.client(url, "kinesis"), fresh_name()
    await api.create_stream(StreamName=name, ShardCount=1)
    await api.get_waiter("stream_exists").wait(
        StreamName=name, WaiterConfig={"Delay": 0.1, "MaxAttempts": 50}
    )
    await put(api, name)
    return api, name, f"arn:aws:kinesis:{REGION}:{laboratory.account}:stream/{name}"


async def polled(laboratory: EmulatorWorld, url: str) -> None:
    api, name, arn = await made(laboratory, url)
    await read_apart(KinesisStream(api, NoPacer(), LoopTurns(), arn=arn, deaggregate=True))
    as_it_is = KinesisStream(api, NoPacer(), LoopTurns(), arn=arn)
    records = await read(as_it_is, Position.horizon(), len(PUT))
    assert len(records) == len(PUT)
    # Without it, a record of which some parts are done comes once more, and as a whole.
    inside = Position.after(f"{records[1].sequence_number}:1/3")
    left = await read(as_it_is, inside, len(PUT) - 1)
    assert [each.sequence_number for each in left] == [each.sequence_number for each in records[1:]]
    await api.delete_stream(StreamName=name)


async def pushed(laboratory: EmulatorWorld, url: str) -> None:
    api, name, arn = await made(laboratory, url)
    consumer = (await api.register_stream_consumer(StreamARN=arn, ConsumerName="poller"))["Consumer"]
    stream = FannedOutStream(
        api,
        NoPacer(),
        LoopTurns(),
        arn=arn,
        consumer=GivenConsumer(consumer["ConsumerARN"]),
        clock=LoopClock(),
    )
    source = stream.pushing()
    try:
        records = await read(source, Position.horizon(), len(BODIES))
        assert [body(each) for each in records] == BODIES
        assert source.polled_because(SHARD) == ""
        source.leave(SHARD)
        # The service takes no second subscription before.
        await asyncio.sleep(AGAIN_S)
        left = await read(source, Position.after(records[2].sequence_number), len(BODIES) - 3, records_max=1)
        assert [body(each) for each in left] == BODIES[3:]
        assert source.polled_because(SHARD) == ""
        # Meanwhile the others are read by GetRecords.
        await read_apart(source)
    finally:
        source.close()
    await api.delete_stream(StreamName=name, EnforceConsumerDeletion=True)


@pytest.mark.parametrize("scenario", [polled, pushed], ids=["polled", "pushed"])
def test_parts_are_read_where_volume_is(
    scenario: Callable[[EmulatorWorld, str], Coroutine[Any, Any, None]],
    ministack: Emulator,
    laboratory: EmulatorWorld,
) -> None:
    laboratory.run(scenario(laboratory, ministack.url))


def test_parts_are_read_where_shards_split(kinesis_local: Emulator, laboratory: EmulatorWorld) -> None:
    laboratory.run(polled(laboratory, kinesis_local.url))
