"""Owns the listing of a Kinesis stream's shards by ListShards (aws-behaviour#listing-shards)."""

from types import MappingProxyType
from typing import Any, Protocol

from adapters.aws.calls import calling, understood
from adapters.sources.listings.listed_names import has_end, page_token, parent_names, shard_name
from adapters.sources.listings.shared_listing import ShardPage, SharedListing
from poller.clock import LoopClock
from poller.domain.errors import CursorExpired
from poller.domain.records import JsonObject, Shard
from poller.domain.telemetry.labels import SourceCall
from poller.ports import Clock, Pacer
from poller.source_ports.calls import CallCounter

PAGE_SHARDS = 1_000
OPERATION = "kinesis ListShards"
_TOKEN_EXPIRED = MappingProxyType({"ExpiredNextTokenException": CursorExpired})


class ListShardsApi(Protocol):
    """As much of the client as is used."""

    async def list_shards(self, **parameters: Any) -> JsonObject:
        """ListShards."""
        ...


def stream_listing(
    api: ListShardsApi, pacer: Pacer, *, arn: str, clock: Clock | None = None
) -> SharedListing:
    """The shards of one stream, open and closed. Calls are paced for the stream, which has its own limit."""

    async def page(token: str | None, count: CallCounter) -> ShardPage:
        # AWS refuses a request with both a token and a stream's name or ARN.
        place = {"StreamARN": arn} if token is None else {"NextToken": token}
        await pacer.pace(f"{OPERATION} {arn}")
        count(SourceCall.LIST_SHARDS)
        with calling(OPERATION, _TOKEN_EXPIRED):
            reply = await api.list_shards(MaxResults=PAGE_SHARDS, **place)
        with understood(OPERATION):
            return ShardPage([_shard(each) for each in reply["Shards"]], page_token(reply, "NextToken"))

    return SharedListing(page, operation=OPERATION, clock=clock or LoopClock())


def _shard(wire: JsonObject) -> Shard:
    return Shard(
        shard_name(wire, "ShardId"),
        parent_names(wire, "ParentShardId", "AdjacentParentShardId"),
        closed=has_end(wire),
    )
