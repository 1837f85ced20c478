"""Each source counts the calls that its service gets: no more, no fewer, whatever becomes of them."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from adapters.aws.clients import client
from adapters.sources.dynamodb_streams import DynamoStream
from adapters.sources.kinesis.plugin import KinesisSettings
from adapters.sources.kinesis.plugin import plugin as kinesis
from adapters.sources.kinesis.stream import KinesisStream
from adapters.sources.sqs import SqsQueue
from poller.clock import LoopClock
from poller.domain.errors import PortError
from poller.domain.records import Cursor, Position, ShardId
from poller.domain.telemetry.labels import SourceCall
from poller.loop_turns import LoopTurns
from poller.ports import PushingSource
from poller.source_ports.calls import CountedCalls
from tests.adapters.answers import Answer, Service, environment, error, ok, on_a_loop, serving

pytestmark = pytest.mark.usefixtures("account")

STREAM = "arn:aws:kinesis:eu-west-1:111122223333:stream/orders"
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/orders/stream/2026-01-01T00:00:00.000"
QUEUE = "arn:aws:sqs:eu-west-1:111122223333:orders"
SHARD = ShardId("shardId-000000000000")
OTHER_SHARD = {"ShardId": "shardId-000000000001", "SequenceNumberRange": {"StartingSequenceNumber": "1"}}
ITERATOR = ok(ShardIterator="here")
EMPTY = ok(Records=[], NextShardIterator="next", MillisBehindLatest=0)
THROTTLED = error("ProvisionedThroughputExceededException")


class Unpaced:
    """Lets everything pass."""

    async def pace(self, _key: str) -> None:
        return


@asynccontextmanager
async def counting(
    service_name: str, script: Mapping[str, Sequence[Answer]]
) -> AsyncIterator[tuple[Any, Service]]:
    """A source over a scripted endpoint. In the end it must have counted what the endpoint was asked."""
    counted: list[SourceCall] = []
    async with serving(script) as service, environment(service.url) as env:
        api = await client(env, service_name, "eu-west-1")
        source: CountedCalls
        match service_name:
            case "kinesis":
                source = KinesisStream(api, Unpaced(), LoopTurns(), arn=STREAM)
            case "dynamodbstreams":
                source = DynamoStream(api, Unpaced(), LoopTurns(), arn=TABLE)
            case _:
                source = SqsQueue(api, api, LoopClock(), arn=QUEUE)
        assert isinstance(source, CountedCalls)
        source.count_calls(counted.append)
        yield source, service
    assert [each.value for each in counted] == service.operations()
    assert counted


@on_a_loop
async def test_a_place_behind_a_record_of_kinesis_is_several_calls() -> None:
    script = {"GetShardIterator": [ITERATOR, ITERATOR], "GetRecords": [EMPTY]}
    async with counting("kinesis", script) as (source, service):
        await source.cursor(SHARD, Position.after("7"))
        assert service.operations() == ["GetShardIterator", "GetRecords", "GetShardIterator"]


@on_a_loop
async def test_a_read_that_is_refused_is_counted() -> None:
    script = {"GetRecords": [EMPTY, THROTTLED, EMPTY]}
    for name in ("kinesis", "dynamodbstreams"):
        async with counting(name, script) as (source, service):
            for _ in range(3):
                with suppress(PortError):
                    await source.read(SHARD, Cursor("0;here"), records_max=10)
            assert service.operations() == ["GetRecords"] * 3


@on_a_loop
async def test_a_read_of_a_table_that_leaves_out_what_is_too_old_is_several_calls() -> None:
    old = {
        "eventID": "1",
        "eventName": "INSERT",
        "dynamodb": {"SequenceNumber": "3", "ApproximateCreationDateTime": 5.0, "Keys": {}},
    }
    script = {"GetRecords": [ok(Records=[old], NextShardIterator="next"), EMPTY]}
    async with counting("dynamodbstreams", script) as (source, service):
        await source.read(SHARD, Cursor("9000;here"), records_max=10)
        assert service.operations() == ["GetRecords"] * 2


@on_a_loop
async def test_each_page_of_a_listing_is_counted_and_so_is_what_a_stream_is_asked_about_itself() -> None:
    summary = ok(StreamDescriptionSummary={"RetentionPeriodHours": 24})
    pages = [ok(Shards=[OTHER_SHARD], NextToken="more"), ok(Shards=[OTHER_SHARD])]
    script = {"ListShards": pages, "DescribeStreamSummary": [summary, error("AccessDeniedException")]}
    async with counting("kinesis", script) as (source, _):
        await source.shards()
        await source.retention_s()
        await source.created()


@on_a_loop
async def test_the_pages_and_the_children_of_a_table_are_counted() -> None:
    child = OTHER_SHARD | {"ParentShardId": SHARD}
    listed = [{"ShardId": SHARD, "SequenceNumberRange": {}}, child]
    pages = [ok(StreamDescription={"Shards": listed}), ok(StreamDescription={"Shards": [child]})]
    async with counting("dynamodbstreams", {"DescribeStream": pages}) as (source, service):
        await source.shards()
        await source.children([SHARD])
        assert len(service.operations()) == 2


@on_a_loop
async def test_every_ten_messages_of_a_delete_or_an_extension_are_a_call() -> None:
    attributes = ok(Attributes={"VisibilityTimeout": "30"})
    script = {
        "GetQueueUrl": [ok(QueueUrl="https://queue/1")],
        "ReceiveMessage": [ok(Messages=[]), error("RequestThrottled")],
        "DeleteMessageBatch": [ok(Successful=[])] * 3,
        "ChangeMessageVisibilityBatch": [ok(Successful=[])] * 2,
        "GetQueueAttributes": [attributes],
    }
    async with counting("sqs", script) as (source, service):
        await source.receive(messages_max=10, wait_s=0)
        with suppress(PortError):
            await source.receive(messages_max=10, wait_s=0)
        await source.delete([str(number) for number in range(21)])
        await source.extend([str(number) for number in range(11)], visibility_s=30)
        await source.describe()
        assert service.operations().count("DeleteMessageBatch") == 3


@on_a_loop
async def test_mappings_that_share_a_listing_count_its_calls_once() -> None:
    counted: dict[str, list[SourceCall]] = {"one": [], "two": []}
    script = {"ListShards": [ok(Shards=[OTHER_SHARD])] * 2}
    async with serving(script) as service, environment(service.url) as env:
        settings = KinesisSettings(arn=STREAM)
        async with kinesis.open(settings, env) as one, kinesis.open(settings, env) as two:
            one.count_calls(counted["one"].append)
            two.count_calls(counted["two"].append)
            listing = await two.shards_since(env.clock.monotonic())
            await one.shards_since(listing.began)
        assert service.operations() == ["ListShards"]
    assert counted == {"one": [], "two": [SourceCall.LIST_SHARDS]}


@on_a_loop
async def test_a_stream_with_a_consumer_of_its_own_counts_what_the_consumer_costs() -> None:
    counted: list[SourceCall] = []
    consumer = {"ConsumerName": "c", "ConsumerARN": f"{STREAM}/consumer/c:1", "ConsumerStatus": "ACTIVE"}
    script = {"DescribeStreamConsumer": [ok(ConsumerDescription=consumer)]}
    async with serving(script) as service, environment(service.url) as env:
        settings = KinesisSettings(arn=STREAM, fan_out=True, mapping="0f4b8a5e-8b0c-4a56-9c0e-0d7d6b0c2b11")
        async with kinesis.open(settings, env) as source:
            assert isinstance(source, PushingSource)
            source.count_calls(counted.append)
            assert await source.event_arn() == consumer["ConsumerARN"]
        assert service.operations() == ["DescribeStreamConsumer"]
    assert counted == [SourceCall.DESCRIBE_STREAM_CONSUMER]
