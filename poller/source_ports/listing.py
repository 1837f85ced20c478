"""Owns the Protocols of streams whose shards can be found with fewer calls than by listing all of them each time."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from poller.domain.records import Monotonic, Shard, ShardId


@dataclass(frozen=True, slots=True)
class ShardListing:
    """All shards of a stream, and when they were begun to be listed."""

    shards: Sequence[Shard]
    began: Monotonic


@runtime_checkable
class ListingSince(Protocol):
    """A stream whose listing others may have asked for, too. Raises as StreamSource does."""

    async def shards_since(self, moment: Monotonic) -> ShardListing:
        """As `shards`, from a listing that began at `moment` or later. One that was interrupted since then goes on."""
        ...


@runtime_checkable
class ShardChildren(Protocol):
    """A stream that can say which shards came from a certain one. Raises as StreamSource does."""

    async def children(self, shards: Collection[ShardId]) -> Sequence[Shard] | None:
        """The shards that came from these by now. None: this service cannot tell, or not at the moment; list all shards.

        Without any shards the answer only says whether the service can tell.
        """
        ...
