"""Owns what a mapping knows of its stream's shards, and when the source is asked what about them.

Without more, all shards are listed at each discovery. A source that can tell the children of a shard (ShardChildren) is asked for
those of shards that have ended; that is how new shards come about. All shards are listed at the start, when that takes fewer calls, and
every few minutes, in case a child was not found.
"""

from collections.abc import Collection, Sequence
from math import inf

from poller.domain.records import Monotonic, Shard, ShardId
from poller.domain.rows import Lease
from poller.ports import StreamSource
from poller.rules.streams.lineage import childless
from poller.runtime.streams.context import StreamContext
from poller.source_ports.listing import ListingSince, ShardChildren

LIST_ALL_S = 300.0
"""Time between two listings of all shards of a source that tells children."""
LIST_ALL_SHARD_S = 0.05
"""The same for each shard. So a hundred shards, a call of DescribeStream, take five seconds of that time."""
SHARDS_A_CALL = 100
"""What one call of DescribeStream lists (aws-behaviour#listing-shards)."""
SHARED_FOR = 0.5
"""Another mapping's listing is used if it is not older than this part of the time between two."""


class KnownShards:
    """The shards of one mapping's source. One task calls `listed` and then `with_children`."""

    def __init__(self, parts: StreamContext) -> None:
        self._parts = parts
        self._shards: Sequence[Shard] = ()
        self._told = False
        """Whether the source can tell children, by its last answer."""
        self._listed_at: Monotonic | None = None
        """When the last listing of all shards began."""
        self._not_before: Monotonic | None = None
        """A listing of all shards must not have begun earlier."""

    @property
    def listed_every_s(self) -> float:
        """The longest time between two listings of all shards."""
        discovery_s = self._parts.tuning.discovery_s
        if not isinstance(self._parts.source, ShardChildren):
            return discovery_s
        return max(discovery_s, LIST_ALL_S, LIST_ALL_SHARD_S * len(self._shards))

    def forget(self) -> None:
        """From now on only a listing will do that begins later."""
        self._not_before = self._parts.clock.monotonic()

    async def listed(self, *, seeded: bool) -> Sequence[Shard]:
        """The shards; all of them are listed if that is due. Raises PortError.

        A mapping that is not `seeded` yet must know each shard that exists now, so that no other mapping's older listing will do.
        """
        now = self._parts.clock.monotonic()
        self._told = self._listed_at is not None and bool(self._shards) and await self._tells_children()
        every_s = self._parts.tuning.discovery_s
        if self._told and self._listed_at is not None:
            every_s = self.listed_every_s
            if now < self._listed_at + every_s:
                return self._shards
        if not seeded and self._not_before is None:
            self.forget()
        not_before = -inf if self._not_before is None else self._not_before
        return await self._list(Monotonic(max(not_before, now - SHARED_FOR * every_s)))

    async def listed_anew(self) -> Sequence[Shard]:
        """All shards, from a listing that begins now. Raises PortError."""
        self._shards = await self._parts.source.shards()
        return self._shards

    async def with_children(self, leases: Collection[Lease]) -> Sequence[Shard]:
        """The shards, with the children of those that have ended by these leases. Raises PortError.

        The same object as from `listed` means that the source was not asked.
        """
        source = self._parts.source
        if not self._told or not isinstance(source, ShardChildren):
            return self._shards
        asked: set[ShardId] = set()
        while ended := [each for each in childless(self._shards, leases) if each not in asked]:
            asked.update(ended)
            found = None
            if len(asked) <= len(self._shards) // SHARDS_A_CALL:
                found = await source.children(ended)
            if found is None:
                return await self._list(self._parts.clock.monotonic())
            self._shards = (*self._shards, *found)
        return self._shards

    async def _list(self, since: Monotonic) -> Sequence[Shard]:
        source, began = self._parts.source, self._parts.clock.monotonic()
        if isinstance(source, ListingSince):
            found = await source.shards_since(since)
            self._shards, began = found.shards, found.began
        else:
            self._shards = await source.shards()
        self._listed_at = began
        return self._shards

    async def _tells_children(self) -> bool:
        source = self._parts.source
        return isinstance(source, ShardChildren) and await source.children(()) is not None


async def listing_about(source: StreamSource, shard: ShardId) -> Sequence[Shard]:
    """A listing that shows whether this shard has ended. It begins after the call. Raises PortError.

    It may have nothing but the shard's children, which show that it has.
    """
    if isinstance(source, ShardChildren):
        found = await source.children((shard,))
        if found:
            return found
    return await source.shards()
