"""Owns the run of shared listings on emulators: while a stream is resharded, and with the filter of DescribeStream."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from adapters.sources import dynamodb_streams
from adapters.sources.kinesis import plugin as kinesis
from adapters.sources.kinesis.stream import KinesisStream
from adapters.sources.listings.table_listing import TableListing
from poller.clock import LoopClock
from poller.domain.records import ShardId
from poller.rules.streams.lineage import has_ended
from poller.runtime.streams.discovery.known_shards import listing_about
from tests.conftest import REGION
from tests.contracts.sources.test_stream_sources import KinesisWorld
from tests.contracts.worlds import EmulatorWorld, NoPacer, fresh_name
from tests.emulators import Emulator


@dataclass
class Counting:
    """A client of DynamoDB Streams that keeps what it was asked for."""

    api: Any
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def describe_stream(self, **parameters: Any) -> Any:
        self.asked.append(parameters)
        return await self.api.describe_stream(**parameters)


@asynccontextmanager
async def mappings(laboratory: EmulatorWorld, url: str, arn: str) -> AsyncIterator[list[KinesisStream]]:
    """The sources of two mappings of a daemon on one stream."""
    settings = kinesis.KinesisSettings(arn=arn)
    async with AsyncExitStack() as stack:
        env = laboratory.environment(url)
        yield [await stack.enter_async_context(kinesis.plugin.open(settings, env)) for _ in range(2)]


def test_mappings_share_a_listing_and_each_has_the_children_of_a_split_that_came_before_it_asked(
    kinesis_local: Emulator, laboratory: EmulatorWorld
) -> None:
    async def main() -> None:
        api, name = await laboratory.client(kinesis_local.url, "kinesis"), fresh_name()
        await api.create_stream(StreamName=name, ShardCount=1)
        world = KinesisWorld(api, url=kinesis_local.url, account=laboratory.account, name=name)
        await world.active()
        arn = f"arn:aws:kinesis:{REGION}:{laboratory.account}:stream/{name}"
        async with mappings(laboratory, kinesis_local.url, arn) as (one, two):
            before = LoopClock().monotonic()
            (parent,) = await one.shards()
            await world.split(parent.shard_id)
            after = LoopClock().monotonic()
            assert list((await two.shards_since(before)).shards) == [parent], "the first one's listing"
            listed = await two.shards_since(after)
            assert has_ended(parent.shard_id, listed.shards)
            children = [each.shard_id for each in listed.shards if parent.shard_id in each.parents]
            assert len(children) == 2
            assert await one.shards_since(after) == listed
            await world.merge(*children)
            merged = [each for each in await one.shards() if set(each.parents) == set(children)]
            assert len(merged) == 1
            listed = await two.shards_since(LoopClock().monotonic())
            assert all(has_ended(each, listed.shards) for each in children)
        await api.delete_stream(StreamName=name)

    laboratory.run(main())


def test_the_filter_is_tried_once_and_an_open_shard_without_children_is_shown_by_a_listing(
    ministack: Emulator, laboratory: EmulatorWorld
) -> None:
    async def main() -> None:
        tables, streams = [
            await laboratory.client(ministack.url, each) for each in ("dynamodb", "dynamodbstreams")
        ]
        name = fresh_name()
        table = await tables.create_table(
            TableName=name,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}],
            AttributeDefinitions=[{"AttributeName": "pk", "AttributeType": "S"}],
            BillingMode="PAY_PER_REQUEST",
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "KEYS_ONLY"},
        )
        arn = table["TableDescription"]["LatestStreamArn"]
        api = Counting(streams)
        listing = TableListing(api, NoPacer(), arn=arn)
        shards = [each.shard_id for each in await listing.listed()]
        assert shards
        for wanted in ((), shards, (ShardId("shardId-00000000000000000001-abcdef12"),)):
            assert await listing.children(wanted) == []
        tried = [each["ShardFilter"]["ShardId"] for each in api.asked if "ShardFilter" in each]
        assert tried == [*shards, *shards, "shardId-00000000000000000001-abcdef12"]
        async with dynamodb_streams.plugin.open(
            dynamodb_streams.DynamoSettings(arn=arn), laboratory.environment(ministack.url)
        ) as source:
            assert [each.shard_id for each in await source.shards()] == shards
            assert await source.children(()) == []
            assert not has_ended(shards[0], await listing_about(source, shards[0]))
        await tables.delete_table(TableName=name)

    laboratory.run(main())
