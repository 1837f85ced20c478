"""Owns how a simulated stream is listed for several mappings, and asked for the children of shards.

Both are either the real listings of the sources over calls of the worker's line, page by page, or drawn: whatever the ports allow, such
as a listing of another mapping as old as it may be, and no answer about children at times.
"""

import asyncio
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from botocore.exceptions import ClientError

from adapters.sources.listings.shared_listing import ShardPage, SharedListing
from adapters.sources.listings.table_listing import TableListing
from poller.domain.errors import CursorExpired, ResourceMissing, ServiceThrottled
from poller.domain.records import JsonObject, Monotonic, Shard, ShardId
from poller.source_ports.calls import CallCounter
from poller.source_ports.listing import ShardListing
from tests.simulation.services.fake_plugins import SimStream
from tests.simulation.services.faults import Line, Port, epoch
from tests.simulation.services.streams import FakeStream
from tests.virtual import EPOCH_BASE, virtual_clock

OLD_S_MAX = 20.0
"""How old a listing of another mapping is at most, if nobody wants a newer one."""
TABLE = "arn:aws:dynamodb:eu-west-1:111122223333:table/t/stream/2026-01-01T00:00:00.000"


@dataclass(frozen=True, slots=True)
class Finding:
    """How shards are found. `told`: how the service takes questions about children (not at all, always, at times, or all shards instead)."""

    drawn: bool
    """Whether it is drawn what the ports allow. Otherwise the real listings ask page by page."""
    page_shards: int = 2
    told: str = ""
    throttled: float = 0.0
    """The chance of a call to be throttled beyond what may happen to any call."""


class SimListing:
    """The listing of one stream for all mappings of a worker."""

    def __init__(self, stream: FakeStream, line: Line, finding: Finding, rng: Random) -> None:
        self.finding = finding
        self._stream = stream
        self._line = line
        self._rng = rng
        self._last: ShardListing | None = None
        self._shared = SharedListing(self._page, operation="sim ListShards", clock=virtual_clock())
        self._table = TableListing(self, _Pacer(), arn=TABLE, clock=virtual_clock())

    async def listed(self) -> Sequence[Shard]:
        """All shards, from a listing that begins after this call."""
        if self.finding.drawn:
            return (await self._fresh()).shards
        return await (self._table.listed() if self.finding.told else self._shared.listed())

    async def since(self, moment: Monotonic) -> ShardListing:
        """All shards, from a listing that began at `moment` or later."""
        if not self.finding.drawn:
            found = await (self._table.since(moment) if self.finding.told else self._shared.since(moment))
            if found.began < _monotonic() - 0.5:
                self._line.marks.saw("listing of another mapping")
            return found
        last = self._last
        if last is not None and last.began >= moment and self._rng.random() < 0.3:
            self._line.marks.saw("listing of another mapping")
            return last
        if self._rng.random() < 0.4:
            return await self._fresh()
        return await self._older(moment)

    async def children(self, shards: Collection[ShardId]) -> Sequence[Shard] | None:
        """The children of these shards; None if the service does not tell."""
        found = await (self._drawn_children(shards) if self.finding.drawn else self._table.children(shards))
        if found is None:
            self._line.marks.saw("children not told")
        elif found:
            self._line.marks.saw("children told")
        return found

    async def describe_stream(self, **parameters: Any) -> JsonObject:
        """DescribeStream, with `ShardFilter` as this service takes it."""
        wanted, behind = parameters.get("ShardFilter"), parameters.get("ExclusiveStartShardId", "")

        def effect() -> JsonObject:
            self._throttle()
            shards = self._shards()
            if wanted is not None:
                self._refuse_filter()
                if self.finding.told != "all":
                    if all(each.shard_id != wanted["ShardId"] for each in shards):
                        raise _refused("ResourceNotFoundException")
                    shards = [each for each in shards if wanted["ShardId"] in each.parents]
            found, following = self._cut(shards, behind)
            described: JsonObject = {"StreamStatus": "ENABLED", "Shards": [_wire(each) for each in found]}
            if following is not None:
                described["LastEvaluatedShardId"] = following
            return {"StreamDescription": described}

        return await self._line.call(Port.SOURCE, f"list {behind} {wanted}", effect)

    async def _page(self, token: str | None, _: CallCounter) -> ShardPage:
        def effect() -> ShardPage:
            self._throttle()
            if token is not None and self._line.chance(self._line.plan.expired_cursor):
                self._line.marks.saw("token of a listing expired")
                raise CursorExpired("the token is too old")
            return ShardPage(*self._cut(self._shards(), token or ""))

        return await self._line.call(Port.SOURCE, f"list {token}", effect)

    def _cut(self, shards: Sequence[Shard], behind: str) -> tuple[Sequence[Shard], str | None]:
        """A page of the shards behind one, and where the next one begins."""
        left = sorted((each for each in shards if each.shard_id > behind), key=lambda each: each.shard_id)
        page = left[: self.finding.page_shards]
        if behind:
            self._line.marks.saw("later page of a listing")
        return page, page[-1].shard_id if len(left) > len(page) else None

    def _throttle(self) -> None:
        if self._line.chance(self.finding.throttled):
            self._line.marks.saw("throttled listing")
            raise ServiceThrottled("slow down")

    def _refuse_filter(self) -> None:
        told = self.finding.told
        if told == "never" or (told == "at times" and self._line.chance(0.3)):
            raise _refused("ValidationException")

    def _shards(self) -> Sequence[Shard]:
        return self._stream.listed_at(epoch(), epoch() - self._stream.listing_lag_s)

    async def _fresh(self) -> ShardListing:
        began = _monotonic()
        self._last = await self._listing(began, lambda: self._shards())
        return self._last

    async def _older(self, moment: Monotonic) -> ShardListing:
        """One that another mapping may have had: it shows the stream as it was then."""
        now = _monotonic()
        began = Monotonic(self._rng.uniform(max(moment, now - OLD_S_MAX, 0.0), now))
        lag_s = self._rng.uniform(0.0, self._stream.listing_lag_s)
        if began < now - 0.5:
            self._line.marks.saw("listing of another mapping")
        return await self._listing(began, lambda: self._stream.listed_at(epoch(), EPOCH_BASE + began - lag_s))

    async def _listing(self, began: Monotonic, shards: Callable[[], Sequence[Shard]]) -> ShardListing:
        def effect() -> Sequence[Shard]:
            self._throttle()
            return shards()

        return ShardListing(await self._line.call(Port.SOURCE, "list", effect), began)

    async def _drawn_children(self, shards: Collection[ShardId]) -> Sequence[Shard] | None:
        def effect() -> Sequence[Shard] | None:
            self._throttle()
            told = self.finding.told
            if told in ("never", "all") or (told == "at times" and self._line.chance(0.4)):
                return None
            return [each for each in self._shards() if not set(shards).isdisjoint(each.parents)]

        if not shards:
            await asyncio.sleep(0)
            return () if self.finding.told in ("always", "at times") else None
        try:
            return await self._line.call(Port.SOURCE, f"children {sorted(shards)}", effect)
        except ResourceMissing:
            return None


class _Pacer:
    """Lets each call through. The service throttles by itself."""

    async def pace(self, key: str) -> None:
        """Returns at once."""


def _refused(code: str) -> ClientError:
    return ClientError({"Error": {"Code": code}}, "DescribeStream")


def _wire(shard: Shard) -> JsonObject:
    numbers = {"StartingSequenceNumber": "1"} | ({"EndingSequenceNumber": "2"} if shard.closed else {})
    wire: JsonObject = {"ShardId": shard.shard_id, "SequenceNumberRange": numbers}
    return wire | ({"ParentShardId": shard.parents[0]} if shard.parents else {})


def _monotonic() -> Monotonic:
    return Monotonic(asyncio.get_running_loop().time())


class ListedSince(SimStream):
    """A stream with ListingSince."""

    listing: SimListing

    async def shards(self) -> Sequence[Shard]:
        """All shards that the service lists."""
        return await self.listing.listed()

    async def shards_since(self, moment: Monotonic) -> ShardListing:
        """The same, by a listing that began at `moment` or later."""
        return await self.listing.since(moment)


class TellingChildren(ListedSince):
    """A stream with ShardChildren, too."""

    async def children(self, shards: Collection[ShardId]) -> Sequence[Shard] | None:
        """The children of these shards."""
        return await self.listing.children(shards)
