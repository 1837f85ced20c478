"""Owns how a recreated stream is recognized: one that was deleted and made again under its name.

Its shards have the same ids, but other records, so that positions of the earlier stream mean nothing there. The mapping's row
has the time at which the stream was created. A later time of creation shows another stream, which is read from its start.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from poller.domain.records import SHARD_END, Epoch, Position, Shard, ShardId
from poller.domain.rows import Checkpoint, Lease
from poller.domain.untrusted.numbers import moment

_KEY = "stream"
_CREATED = "created"
SAME_S = 1.0
"""Times of creation that differ by less count as equal, because some services and clients cut them to the second."""


@dataclass(frozen=True, slots=True)
class LeaseReplacement:
    """What the store needs for the new stream: leases to `drop`, and leases to `seed` in their place.

    Records of the earlier stream are lost with the leases of `lost` shards.
    """

    drop: tuple[Lease, ...]
    seed: tuple[Lease, ...]
    lost: frozenset[ShardId]


def created_of(document: Mapping[str, Any]) -> Epoch | None:
    """When the stream of a mapping was created, by the document of the mapping's row; None when it does not say."""
    known = document.get(_KEY)
    created = known.get(_CREATED) if isinstance(known, Mapping) else None
    found = None if isinstance(created, str) else moment(created, default=None)
    return None if found is None else Epoch(found)


def with_created(document: Mapping[str, Any], created: Epoch | None) -> Mapping[str, Any]:
    """The row's document with the time of creation. It stays the same when that is not known."""
    if created is None or created_of(document) == created:
        return document
    return {**document, _KEY: {_CREATED: created}}


def kept(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a row's document says of the stream, for the row of a mapping that continues this one."""
    return {_KEY: document[_KEY]} if _KEY in document else {}


def recreated(before: Epoch | None, now: Epoch | None) -> bool:
    """Whether the stream is another one than before, by the times of creation."""
    return before is not None and now is not None and now - before >= SAME_S


def replacement(leases: Iterable[Lease], shards: Sequence[Shard]) -> LeaseReplacement:
    """Which leases of the earlier stream are replaced. A lease may stay if it has no owner and its shard was never read.

    The new leases have higher epochs, so that a late write of a worker that reads the earlier stream is refused. A lease with an
    owner is replaced even if its position is the horizon. Its owner may have read records of the earlier stream, or may have
    begun a child in the new stream because the parent had ended in the earlier one.
    """
    listed = {shard.shard_id: shard for shard in shards}
    begin = Checkpoint(Position.horizon())
    drop = tuple(lease for lease in leases if not _fits(lease, listed.get(lease.shard)))
    seed = tuple(
        Lease(lease.shard, listed[lease.shard].parents, begin, None, lease.epoch + 1)
        for lease in drop
        if lease.shard in listed
    )
    lost = frozenset(
        lease.shard
        for lease in drop
        if lease.checkpoint.position != SHARD_END and not _unread(lease, listed.get(lease.shard))
    )
    return LeaseReplacement(drop, seed, lost)


def _fits(lease: Lease, shard: Shard | None) -> bool:
    return lease.owner is None and _unread(lease, shard)


def _unread(lease: Lease, shard: Shard | None) -> bool:
    unread = lease.checkpoint.position == Position.horizon()
    return shard is not None and unread and lease.parents == shard.parents
