"""Owns how a stream that was deleted and made again under its name is told from the one before.

Its shards have the same ids, and other records: no position of before means anything there. The mapping's row remembers
when the stream was created; a later time of creation is another stream, which is begun anew at its start.
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
"""Times of creation that differ by less are one: some services and clients cut them to the second."""


@dataclass(frozen=True, slots=True)
class Anew:
    """What the store needs for the new stream: leases to `drop`, and those to `seed` in their place.

    Records of the stream before are lost with the leases of `lost` shards.
    """

    drop: tuple[Lease, ...]
    seed: tuple[Lease, ...]
    lost: frozenset[ShardId]


def created_of(document: Mapping[str, Any]) -> Epoch | None:
    """When the stream was created that a mapping's row is about; None when the row does not say."""
    known = document.get(_KEY)
    created = known.get(_CREATED) if isinstance(known, Mapping) else None
    found = None if isinstance(created, str) else moment(created, default=None)
    return None if found is None else Epoch(found)


def with_created(document: Mapping[str, Any], created: Epoch | None) -> Mapping[str, Any]:
    """The row's document for a stream that was created then; the same as before where that is not known."""
    if created is None or created_of(document) == created:
        return document
    return {**document, _KEY: {_CREATED: created}}


def kept(document: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a row's document says of the stream, for the row that takes its place."""
    return {_KEY: document[_KEY]} if _KEY in document else {}


def remade(before: Epoch | None, now: Epoch | None) -> bool:
    """Whether the stream is another one than before, by its times of creation."""
    return before is not None and now is not None and now - before >= SAME_S


def anew(leases: Iterable[Lease], shards: Sequence[Shard]) -> Anew:
    """How all leases of the stream before make room; those of shards that nobody has begun or works on may stay.

    The epoch goes on, so that a late write of a worker that reads the stream before is refused. A lease with an owner makes
    room even if its position is the horizon: its owner may have read records of the stream before, or may have begun a
    child in the new stream because the lease of its parent said that the parent had ended.
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
    return Anew(drop, seed, lost)


def _fits(lease: Lease, shard: Shard | None) -> bool:
    return lease.owner is None and _unread(lease, shard)


def _unread(lease: Lease, shard: Shard | None) -> bool:
    unread = lease.checkpoint.position == Position.horizon()
    return shard is not None and unread and lease.parents == shard.parents
