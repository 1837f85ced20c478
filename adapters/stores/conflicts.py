"""Owns the words and the second look of a conditional write that a store refused.

A write whose answer was lost is sent again. `take` and `release` then find their own work done: an epoch has one
owner ever, so the row itself tells a repeated call from a lost lease. `update` compares all that it wrote.
"""

from dataclasses import replace

from poller.domain.errors import LeaseLost, ResourceMissing, RowChanged
from poller.domain.records import ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow


def following(row: MappingRow) -> MappingRow:
    """The row as an update by it is stored."""
    return replace(row, revision=row.revision + 1)


def updated_before(stored: MappingRow | None, row: MappingRow) -> None:
    """Returns if the same `update` was carried out already; raises ResourceMissing or RowChanged otherwise."""
    if stored is None:
        raise ResourceMissing(f"mapping {row.mapping} is not in the store")
    if stored != following(row):
        standing = f"mapping {row.mapping} is at revision {stored.revision}"
        raise RowChanged(f"{standing}; an update wanted revision {row.revision}")


def taken_before(stored: Lease | None, lease: Lease, *, owner: WorkerId) -> Lease:
    """The stored lease if this very `take` made it; raises LeaseLost otherwise."""
    if stored is not None and stored.owner == owner and stored.epoch == lease.epoch + 1:
        return stored
    raise LeaseLost(f"{_standing(stored, lease.shard)}; {owner} wanted to take epoch {lease.epoch}")


def released_before(stored: Lease | None, lease: Lease) -> None:
    """Returns if the owner of this epoch gave it up already; raises LeaseLost otherwise."""
    if stored is not None and lease.owner and stored.owner is None and stored.epoch == lease.epoch:
        return
    raise lost(stored, lease)


def lost(stored: Lease | None, lease: Lease) -> LeaseLost:
    """The exception for a write by `lease` that owner or epoch forbid."""
    return LeaseLost(f"{_standing(stored, lease.shard)}; {lease.owner} holds epoch {lease.epoch}")


def unsaved(stored: Lease | None, lease: Lease, checkpoint: Checkpoint) -> LeaseLost:
    """The exception for a checkpoint that was refused: by owner or epoch, or because it goes back."""
    if stored is None or (stored.owner, stored.epoch) != (lease.owner, lease.epoch):
        return lost(stored, lease)
    there, wanted = stored.checkpoint.position.encode(), checkpoint.position.encode()
    return LeaseLost(
        f"shard {lease.shard} is at {there} already; {lease.owner} wanted to go back to {wanted}"
    )


def _standing(stored: Lease | None, shard: ShardId) -> str:
    if stored is None:
        return f"shard {shard} has no lease (any more)"
    return f"shard {shard} belongs to {stored.owner or 'nobody'} at epoch {stored.epoch}"
