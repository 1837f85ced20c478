"""Owns the run of the stream suite on the AWS sources, over emulators."""

import asyncio
import base64
import json
from typing import Any

import pytest

from adapters.sources.dynamodb_streams import DynamoStream
from adapters.sources.kinesis.consumers import GivenConsumer
from adapters.sources.kinesis.fan_out import FannedOutStream
from adapters.sources.kinesis.stream import KinesisStream
from poller.clock import LoopClock
from poller.domain.errors import PortError
from poller.domain.records import DynamoRecord, KinesisRecord, Record, ShardId
from poller.domain.untrusted.json_values import json_value
from poller.loop_turns import LoopTurns
from poller.ports import StreamSource
from poller.testing.stream_source import FAILING, READING, RESHARDING, StreamScenario
from tests.conftest import REGION
from tests.contracts.sources.proxied import answer_with, let_through
from tests.contracts.worlds import EmulatorWorld, NoPacer, fresh_name
from tests.emulators import Emulator

STEP_S = 0.02
STEPS_MAX = 250


class KinesisWorld:
    """A Kinesis stream of one shard on an emulator, perhaps behind a proxy."""

    def __init__(self, api: Any, *, url: str, account: str, name: str) -> None:
        self._api = api
        self._url = url
        self._name = name
        self._arn = f"arn:aws:kinesis:{REGION}:{account}:stream/{name}"
        self.polled = KinesisStream(api, NoPacer(), LoopTurns(), arn=self._arn)

    @property
    def source(self) -> StreamSource:
        return self.polled

    def stranger(self) -> KinesisStream:
        return KinesisStream(self._api, NoPacer(), LoopTurns(), arn=f"{self._arn}-of-nobody")

    async def put(self, key: str, body: str) -> None:
        await self._api.put_record(StreamName=self._name, PartitionKey=key, Data=body.encode())

    def body(self, record: Record) -> str:
        assert isinstance(record, KinesisRecord)
        return base64.b64decode(record.data).decode()

    async def later(self) -> None:
        await asyncio.sleep(STEP_S)

    async def split(self, shard: ShardId) -> None:
        described = await self._api.list_shards(StreamName=self._name)
        (keys,) = [each["HashKeyRange"] for each in described["Shards"] if each["ShardId"] == shard]
        middle = (int(keys["StartingHashKey"]) + int(keys["EndingHashKey"])) // 2
        await self._api.split_shard(StreamName=self._name, ShardToSplit=shard, NewStartingHashKey=str(middle))
        await self.active()

    async def merge(self, first: ShardId, second: ShardId) -> None:
        await self._api.merge_shards(StreamName=self._name, ShardToMerge=first, AdjacentShardToMerge=second)
        await self.active()

    async def active(self) -> None:
        """Returns when the emulator has finished what it was asked to do to the stream."""
        for _ in range(STEPS_MAX):
            described = await self._api.describe_stream_summary(StreamName=self._name)
            if described["StreamDescriptionSummary"]["StreamStatus"] == "ACTIVE":
                return
            await asyncio.sleep(STEP_S)
        raise AssertionError("the stream did not become active")

    async def fail(self, error: type[PortError]) -> None:
        await answer_with(self._url, "kinesis", error)

    async def heal(self) -> None:
        await let_through(self._url)


class PushedWorld(KinesisWorld):
    """The same, read by a consumer with enhanced fan-out."""

    def __init__(self, api: Any, *, url: str, account: str, name: str, consumer: str) -> None:
        super().__init__(api, url=url, account=account, name=name)
        stream = FannedOutStream(
            api, NoPacer(), LoopTurns(), arn=self._arn, consumer=GivenConsumer(consumer), clock=LoopClock()
        )
        self.pushed = stream.pushing()

    @property
    def source(self) -> StreamSource:
        return self.pushed


class DynamoWorld:
    """The stream of a DynamoDB table on an emulator, perhaps behind a proxy."""

    def __init__(self, tables: Any, streams: Any, *, url: str, arn: str, name: str) -> None:
        self._tables = tables
        self._streams = streams
        self._url = url
        self._arn = arn
        self._name = name
        self.source = DynamoStream(streams, NoPacer(), LoopTurns(), arn=arn)

    def stranger(self) -> DynamoStream:
        arn = self._arn.replace(f"/{self._name}/", "/nobody/")
        return DynamoStream(self._streams, NoPacer(), LoopTurns(), arn=arn)

    async def put(self, key: str, body: str) -> None:
        item = {"pk": {"S": key}, "body": {"S": body}}
        await self._tables.put_item(TableName=self._name, Item=item)

    def body(self, record: Record) -> str:
        assert isinstance(record, DynamoRecord)
        assert set(json.loads(record.key or "")) == {"pk"}
        return str(json_value(record.change.new_image)["body"]["S"])

    async def later(self) -> None:
        # The service tells whole seconds apart.
        await asyncio.sleep(1.0)

    async def fail(self, error: type[PortError]) -> None:
        await answer_with(self._url, "dynamodbstreams", error)

    async def heal(self) -> None:
        await let_through(self._url)


async def on_kinesis(laboratory: EmulatorWorld, url: str, scenario: StreamScenario) -> None:
    api, name = await laboratory.client(url, "kinesis"), fresh_name()
    await api.create_stream(StreamName=name, ShardCount=1)
    world = KinesisWorld(api, url=url, account=laboratory.account, name=name)
    await world.active()
    await scenario(world)
    await api.delete_stream(StreamName=name)


async def on_pushed(laboratory: EmulatorWorld, url: str, scenario: StreamScenario) -> None:
    api, name = await laboratory.client(url, "kinesis"), fresh_name()
    await api.create_stream(StreamName=name, ShardCount=1)
    await KinesisWorld(api, url=url, account=laboratory.account, name=name).active()
    arn = (await api.describe_stream_summary(StreamName=name))["StreamDescriptionSummary"]["StreamARN"]
    made = await api.register_stream_consumer(StreamARN=arn, ConsumerName="poller")
    world = PushedWorld(
        api, url=url, account=laboratory.account, name=name, consumer=made["Consumer"]["ConsumerARN"]
    )
    await scenario(world)
    world.pushed.close()
    await api.delete_stream(StreamName=name, EnforceConsumerDeletion=True)


async def on_dynamo(laboratory: EmulatorWorld, url: str, scenario: StreamScenario) -> None:
    tables, streams = [await laboratory.client(url, each) for each in ("dynamodb", "dynamodbstreams")]
    name = fresh_name()
    table = await tables.create_table(
        TableName=name,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
        StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_AND_OLD_IMAGES"},
    )
    arn = table["TableDescription"]["LatestStreamArn"]
    await scenario(DynamoWorld(tables, streams, url=url, arn=arn, name=name))
    await tables.delete_table(TableName=name)


def each(*groups: tuple[StreamScenario, ...]) -> pytest.MarkDecorator:
    """One test for each scenario."""
    scenarios = [scenario for group in groups for scenario in group]
    return pytest.mark.parametrize("scenario", scenarios, ids=lambda scenario: scenario.__name__)


@each(READING, RESHARDING)
def test_kinesis_where_shards_split_and_merge(
    scenario: StreamScenario, kinesis_local: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_kinesis(laboratory, kinesis_local.url, scenario))


@each(READING)
def test_kinesis_where_volume_is(
    scenario: StreamScenario, ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_kinesis(laboratory, ministack.url, scenario))


@each(READING)
def test_kinesis_that_pushes_its_records(
    scenario: StreamScenario, ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_pushed(laboratory, ministack.url, scenario))


@each(FAILING)
def test_kinesis_that_pushes_its_records_behind_a_failing_proxy(
    scenario: StreamScenario, microburst: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_pushed(laboratory, microburst.url, scenario))


@each(FAILING)
def test_kinesis_behind_a_failing_proxy(
    scenario: StreamScenario, microburst: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_kinesis(laboratory, microburst.url, scenario))


@each(READING)
def test_dynamodb_streams_of_one_shard(
    scenario: StreamScenario, ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_dynamo(laboratory, ministack.url, scenario))


@each(FAILING)
def test_dynamodb_streams_behind_a_failing_proxy(
    scenario: StreamScenario, microburst: Emulator, laboratory: EmulatorWorld
) -> None:
    laboratory.run(on_dynamo(laboratory, microburst.url, scenario))
