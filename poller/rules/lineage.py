"""Owns which shards may be read: parents before children, nothing forgotten, nothing read twice (spec 3, 5.1)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from poller.records import SHARD_END, Position, Shard, ShardId
from poller.rows import Checkpoint, Lease


@dataclass(frozen=True, slots=True)
class Lineage:
    """What a listing and the known leases mean together.

    `seeds` are leases to add for shards seen for the first time; `runnable` the leases that may be worked on;
    `waiting` maps a shard to the parents it waits for; `unlisted` are unfinished shards that the source no longer
    lists; `finished` are leases that nothing needs any more: ended, no longer listed, children known.
    """

    seeds: tuple[Lease, ...]
    runnable: tuple[Lease, ...]
    waiting: Mapping[ShardId, tuple[ShardId, ...]]
    unlisted: frozenset[ShardId]
    finished: tuple[ShardId, ...]


def trace(shards: Sequence[Shard], leases: Collection[Lease], *, start: Position, seeded: bool) -> Lineage:
    """The lineage of a mapping.

    Shards that exist when the mapping is seeded begin at `start`; shards that appear later begin at the horizon,
    whatever the mapping's starting position, because they hold what came after it.
    """
    known = {lease.shard: lease for lease in leases}
    first = Position.horizon() if seeded else start
    seeds = tuple(
        Lease(shard.shard_id, shard.parents, Checkpoint(first))
        for shard in shards
        if shard.shard_id not in known
    )
    known.update((lease.shard, lease) for lease in seeds)
    unfinished = [lease for lease in known.values() if lease.checkpoint.position != SHARD_END]
    waiting = {lease.shard: parents for lease in unfinished if (parents := _unfinished_parents(lease, known))}
    listed = {shard.shard_id for shard in shards}
    return Lineage(
        seeds=seeds,
        runnable=tuple(lease for lease in unfinished if lease.shard not in waiting),
        waiting=waiting,
        unlisted=frozenset(lease.shard for lease in unfinished) - listed,
        finished=_finished(known, listed),
    )


def _unfinished_parents(lease: Lease, known: Mapping[ShardId, Lease]) -> tuple[ShardId, ...]:
    """Parents that must be settled first; a parent that nobody knows was trimmed away long ago and holds nothing."""
    return tuple(
        parent
        for parent in lease.parents
        if parent in known and known[parent].checkpoint.position != SHARD_END
    )


def _finished(known: Mapping[ShardId, Lease], listed: Collection[ShardId]) -> tuple[ShardId, ...]:
    with_children = {parent for lease in known.values() for parent in lease.parents}
    return tuple(
        lease.shard
        for lease in known.values()
        if lease.checkpoint.position == SHARD_END
        and lease.shard not in listed
        and lease.shard in with_children
    )
