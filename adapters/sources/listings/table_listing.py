"""Owns the listing of a DynamoDB stream's shards: all of them, and the children of some (aws-behaviour#listing-shards).

A table of 10,000 shards is 100 calls of DescribeStream, of which an account has ten a second. DescribeStream can be asked for the
children of one shard instead. Not every service knows that filter. One may refuse it, and another passes over it and gives all
shards, which shows since they have other parents. So the first question is a trial, if possible with a shard whose children are
known. Its result is remembered.
"""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from adapters.aws.calls import calling, understood
from adapters.sources.listings.listed_names import has_end, page_token, parent_names, shard_name
from adapters.sources.listings.shared_listing import PAGES_MAX, ShardPage, SharedListing
from poller.clock import LoopClock
from poller.domain.arns import Arn
from poller.domain.errors import PortError, ResourceMissing
from poller.domain.records import JsonObject, Monotonic, Shard, ShardId
from poller.domain.telemetry.labels import SourceCall
from poller.ports import Clock, Pacer
from poller.source_ports.calls import CallCounter, uncounted
from poller.source_ports.listing import ShardListing

PAGE_SHARDS = 100
TRIALS_MAX = 3
"""Trials of the filter that fail, for whatever reason, before it counts as not taken. Some services may break down at it."""
CHILDREN_KEPT = 10_000
"""Shards whose children are remembered until the next listing of all shards."""
DISABLED = (
    "the stream is disabled and gets no more records (StreamStatus DISABLED); "
    "if the table has another stream now, write its ARN (LatestStreamArn of the table)"
)
OPERATION = "dynamodbstreams DescribeStream"


class DescribeStreamApi(Protocol):
    """As much of the client as is used."""

    async def describe_stream(self, **parameters: Any) -> JsonObject:
        """DescribeStream."""
        ...


class _FilterRefused(PortError):
    """The service does not take the filter, or not with this shard. List all shards."""


_REFUSED = MappingProxyType({"ValidationException": _FilterRefused, "SerializationException": _FilterRefused})


class TableListing:
    """The shards of one table's stream. Calls are paced for all streams of the account in the region."""

    def __init__(self, api: DescribeStreamApi, pacer: Pacer, *, arn: str, clock: Clock | None = None) -> None:
        self.over = ""
        """Why no more records come, by the last answer; empty while they do."""
        self._api = api
        self._pacer = pacer
        self._arn = arn
        place = Arn.parse(arn)
        self._pace = f"{OPERATION} {place.account} {place.region}"
        self._shared = SharedListing(self._page, operation=OPERATION, clock=clock or LoopClock())
        self._asking = asyncio.Lock()
        self._takes_filter: bool | None = None
        """Whether the service takes the filter; None before the trial."""
        self._trials = 0
        self._children: dict[ShardId, Sequence[Shard]] = {}
        """The children that were found since all shards were listed."""
        self._since: Sequence[Shard] = ()
        """The listing that `_children` are later than."""

    async def listed(self, count: CallCounter = uncounted) -> Sequence[Shard]:
        """All shards, from a listing that begins after this call."""
        return await self._shared.listed(count)

    async def since(self, moment: Monotonic, count: CallCounter = uncounted) -> ShardListing:
        """All shards, from a listing that began at `moment` or later."""
        return await self._shared.since(moment, count)

    async def children(
        self, shards: Collection[ShardId], count: CallCounter = uncounted
    ) -> Sequence[Shard] | None:
        """The children of these shards. None if they can only be found by listing all shards."""
        async with self._asking:
            if self._since is not self._shared.known:
                self._since = self._shared.known
                self._children.clear()
            try:
                return await self._found(shards, count)
            except (_FilterRefused, ResourceMissing):
                # The service has no such shard any more, or no such stream. A listing tells which.
                return None

    async def _found(self, shards: Collection[ShardId], count: CallCounter) -> Sequence[Shard] | None:
        if self._takes_filter is None and not await self._try_filter(shards, count):
            return None
        if not self._takes_filter or self.over:
            return None
        found: list[Shard] = []
        for shard in shards:
            children = await self._children_of(shard, count)
            if children is None:
                return None
            found += children
        return found

    async def _try_filter(self, shards: Collection[ShardId], count: CallCounter) -> bool:
        """Whether the service takes the filter, by a trial. False, too, if the trial failed or there is no shard for one."""
        known = self._shared.known
        listed = {each.shard_id for each in known}
        # The youngest one, since the service removes the oldest shards.
        parent = next((above for each in reversed(known) for above in each.parents if above in listed), None)
        shard = parent or next(iter(shards), None) or next(iter(listed), None)
        if shard is None:
            return False
        try:
            children = await self._children_of(shard, count)
        except PortError as error:
            self._trials += 1
            if isinstance(error, _FilterRefused) or self._trials == TRIALS_MAX:
                self._takes_filter = False
            return False
        # A parent that was listed with a child, and has none now, does not speak for the filter.
        self._takes_filter = bool(children) if parent is not None else children is not None
        return self._takes_filter

    async def _children_of(self, shard: ShardId, count: CallCounter) -> Sequence[Shard] | None:
        """The children of a shard; None if the service has passed over the filter."""
        if shard in self._children:
            return self._children[shard]
        children: list[Shard] = []
        token: str | None = None
        wanted = {"ShardFilter": {"Type": "CHILD_SHARDS", "ShardId": shard}}
        tokens: set[str] = set()
        while True:
            page = await self._page(token, count, wanted, _REFUSED)
            if any(each.parents != (shard,) for each in page.shards):
                self._takes_filter = False
                return None
            children += page.shards
            token = page.following
            if token is None:
                break
            if token in tokens or len(tokens) == PAGES_MAX:
                # The pages have no end, so that it is not known which children there are.
                return None
            tokens.add(token)
        if children and len(self._children) < CHILDREN_KEPT:
            self._children[shard] = children
        return children

    async def _page(
        self,
        token: str | None,
        count: CallCounter,
        wanted: Mapping[str, Any] = MappingProxyType({}),
        special: Mapping[str, type[PortError]] = MappingProxyType({}),
    ) -> ShardPage:
        place = {} if token is None else {"ExclusiveStartShardId": token}
        await self._pacer.pace(self._pace)
        count(SourceCall.DESCRIBE_STREAM)
        with calling(OPERATION, special):
            reply = await self._api.describe_stream(StreamArn=self._arn, Limit=PAGE_SHARDS, **place, **wanted)
        with understood(OPERATION):
            described: JsonObject = reply["StreamDescription"]
            self.over = DISABLED if described.get("StreamStatus") == "DISABLED" else ""
            shards = [_shard(each, disabled=bool(self.over)) for each in described["Shards"]]
            return ShardPage(shards, page_token(described, "LastEvaluatedShardId"))


def _shard(wire: JsonObject, *, disabled: bool) -> Shard:
    return Shard(
        shard_name(wire, "ShardId"),
        parent_names(wire, "ParentShardId"),
        closed=disabled or has_end(wire),
    )
