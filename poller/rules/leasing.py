"""Owns which leases a worker takes."""

from collections.abc import Collection, Iterable

from poller.records import Lease, ShardId, WorkerId


def takeable(
    runnable: Iterable[Lease],
    *,
    worker: WorkerId,
    running: Collection[ShardId],
    lost: Collection[ShardId],
) -> tuple[Lease, ...]:
    """The leases to take now.

    A worker that starts takes what it finds, whoever had it: the epoch shuts an old owner out. What it then loses
    to another owner it takes back only when that one has given it up, so that two workers do not fight over a shard.
    """
    return tuple(
        lease
        for lease in runnable
        if lease.shard not in running and (lease.shard not in lost or lease.owner in (None, worker))
    )


def stolen(leases: Iterable[Lease], held: Iterable[Lease]) -> frozenset[ShardId]:
    """Shards that are worked on here although the store says that somebody else took them since."""
    epochs = {lease.shard: lease.epoch for lease in leases}
    return frozenset(lease.shard for lease in held if epochs.get(lease.shard, lease.epoch) != lease.epoch)
