"""Owns which shards may be read: parents before children, every shard once (aws-behaviour#resharding)."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from poller.domain.records import SHARD_END, Position, Shard, ShardId
from poller.domain.rows import Checkpoint, Lease


@dataclass(frozen=True, slots=True)
class Lineage:
    """What follows from a listing of shards and the known leases.

    `seeds` are leases to add for shards that were not known before. `runnable` are the leases that may be worked on. `waiting` maps
    a shard to the parents that it waits for. `unlisted` are unfinished shards that the source does not list any more. `finished`
    are the shards of leases that can be removed: they have ended, are not listed any more, and their children are known.
    """

    seeds: tuple[Lease, ...]
    runnable: tuple[Lease, ...]
    waiting: Mapping[ShardId, tuple[ShardId, ...]]
    unlisted: frozenset[ShardId]
    finished: tuple[ShardId, ...]


def trace(shards: Sequence[Shard], leases: Collection[Lease], *, start: Position, seeded: bool) -> Lineage:
    """The lineage of a mapping.

    Shards that exist when the mapping is seeded begin at `start`. Shards that appear later begin at the horizon, whatever the
    mapping's starting position, because all their records came after it (aws-behaviour#read-positions).
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
    waiting = _without_rings(
        {lease.shard: parents for lease in unfinished if (parents := _unfinished_parents(lease, known))}
    )
    listed = {shard.shard_id for shard in shards}
    return Lineage(
        seeds=seeds,
        runnable=tuple(lease for lease in unfinished if lease.shard not in waiting),
        waiting=waiting,
        unlisted=frozenset(lease.shard for lease in unfinished) - listed,
        finished=_finished(known, listed),
    )


def _unfinished_parents(lease: Lease, known: Mapping[ShardId, Lease]) -> tuple[ShardId, ...]:
    """Parents that must be settled first. A parent without a lease was trimmed long ago and has no records."""
    return tuple(
        parent
        for parent in lease.parents
        if parent in known and known[parent].checkpoint.position != SHARD_END
    )


def _without_rings(waiting: Mapping[ShardId, tuple[ShardId, ...]]) -> Mapping[ShardId, tuple[ShardId, ...]]:
    """The shards and the parents they wait for, without cycles of parents, which no service should list.

    Shards of a cycle do not wait for each other; all other waits are unchanged.
    """
    stuck = _never_free(waiting)
    if not stuck:
        return waiting
    before = {shard: _ancestors(shard, stuck) for shard in stuck}
    left = {
        shard: tuple(each for each in parents if shard not in before.get(each, ()) and each != shard)
        for shard, parents in waiting.items()
    }
    return {shard: parents for shard, parents in left.items() if parents}


def _never_free(waiting: Mapping[ShardId, tuple[ShardId, ...]]) -> Mapping[ShardId, tuple[ShardId, ...]]:
    """Shards that would never become runnable: cycles of parents, and their descendants."""
    stuck = {shard: {each for each in parents if each in waiting} for shard, parents in waiting.items()}
    below: dict[ShardId, list[ShardId]] = {}
    for shard, parents in stuck.items():
        for parent in parents:
            below.setdefault(parent, []).append(shard)
    free = [shard for shard, parents in stuck.items() if not parents]
    for shard in free:
        del stuck[shard]
        for child in below.get(shard, ()):
            stuck[child].discard(shard)
            if not stuck[child]:
                free.append(child)
    return {shard: tuple(parents) for shard, parents in stuck.items()}


def _ancestors(shard: ShardId, parents: Mapping[ShardId, tuple[ShardId, ...]]) -> frozenset[ShardId]:
    found: set[ShardId] = set()
    todo = [shard]
    while todo:
        for each in parents.get(todo.pop(), ()):
            if each not in found:
                found.add(each)
                todo.append(each)
    return frozenset(found)


def descendants(
    parents: Mapping[ShardId, Collection[ShardId]], shards: Collection[ShardId]
) -> frozenset[ShardId]:
    """The shards that came from these by splits and merges, without these. `parents` has those of each shard."""
    if not shards:
        return frozenset()
    children: dict[ShardId, list[ShardId]] = {}
    for shard, above in parents.items():
        for parent in above:
            children.setdefault(parent, []).append(shard)
    known, todo = set(shards), list(shards)
    while todo:
        for child in children.get(todo.pop(), ()):
            if child not in known:
                known.add(child)
                todo.append(child)
    return frozenset(known.difference(shards))


def childless(shards: Sequence[Shard], leases: Collection[Lease]) -> tuple[ShardId, ...]:
    """The listed shards that were read to their end, by their leases, and of which no child is listed."""
    parents = {parent for shard in shards for parent in shard.parents}
    ended = {lease.shard for lease in leases if lease.checkpoint.position == SHARD_END}
    return tuple(
        shard.shard_id for shard in shards if shard.shard_id in ended and shard.shard_id not in parents
    )


def has_ended(shard: ShardId, shards: Sequence[Shard]) -> bool | None:
    """Whether a listing shows that a shard gets no more records: it is closed, or has children.

    None if the shard is not listed. It may be gone, or too new for the listing: services sometimes answer with an old one.
    """
    if any(shard in each.parents for each in shards if each.shard_id != shard):
        return True
    listed = next((each for each in shards if each.shard_id == shard), None)
    return None if listed is None else listed.closed


def _finished(known: Mapping[ShardId, Lease], listed: Collection[ShardId]) -> tuple[ShardId, ...]:
    with_children = {parent for lease in known.values() for parent in lease.parents}
    return tuple(
        lease.shard
        for lease in known.values()
        if lease.checkpoint.position == SHARD_END
        and lease.shard not in listed
        and lease.shard in with_children
    )
