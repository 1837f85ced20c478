"""Owns the statements on leases. A condition is part of the statement that writes.

Python's sqlite3 lets go of the interpreter around each step of a statement, and beside a busy event loop waits some
milliseconds to get it back. Checkpoints that are saved together are therefore written by one statement.
"""

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.stores import fencing
from adapters.stores.sqlite_database import rows
from poller.errors import LeaseLost
from poller.records import Checkpoint, Lease, MappingId, Position, ShardId, WorkerId

_COLUMNS = "shard, parents, owner, epoch, position, memo"
_BARE = "shard, parents, owner, epoch, position, x''"
_LEASE = f"SELECT {_COLUMNS} FROM leases WHERE mapping = ?"
_SEED = "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_TAKE = (
    "UPDATE leases SET owner = ?, epoch = epoch + 1 WHERE mapping = ? AND shard = ? AND epoch = ? "
    f"RETURNING {_COLUMNS}"
)
_RELEASE = "UPDATE leases SET owner = NULL WHERE mapping = ? AND shard = ? AND owner = ? AND epoch = ? RETURNING shard"
_SAVE = """
    WITH new (mapping, shard, owner, epoch, position, position_key, memo) AS (VALUES {values})
    UPDATE leases SET position = new.position, position_key = new.position_key, memo = new.memo FROM new
    WHERE leases.mapping = new.mapping AND leases.shard = new.shard AND leases.owner = new.owner
        AND leases.epoch = new.epoch AND leases.position_key <= new.position_key
"""
_VALUES = "(?, ?, ?, ?, ?, ?, ?)"
_DROP = "DELETE FROM leases WHERE mapping = ? AND shard = ? AND epoch = ? RETURNING shard"


@dataclass(frozen=True, slots=True)
class Save:
    """A checkpoint to be written."""

    mapping: MappingId
    lease: Lease
    checkpoint: Checkpoint

    def __call__(self, db: sqlite3.Connection) -> None:
        """Writes it; raises LeaseLost if another owner or epoch is stored, or a later position."""
        (trouble,) = save(db, [self])
        if trouble is not None:
            raise trouble

    @property
    def row(self) -> tuple[MappingId, ShardId]:
        """Which row it is written to."""
        return self.mapping, self.lease.shard

    @property
    def values(self) -> tuple[Any, ...]:
        """As the statement takes them."""
        lease, position = self.lease, self.checkpoint.position
        place = (position.encode(), position.sort_key(), self.checkpoint.memo)
        return (self.mapping, lease.shard, lease.owner, lease.epoch, *place)


def listed(db: sqlite3.Connection, mapping: MappingId, *, memos: bool) -> list[Lease]:
    """All leases of the mapping, by shard id; with `memos` off all memos are empty."""
    columns = _COLUMNS if memos else _BARE
    found = rows(db, f"SELECT {columns} FROM leases WHERE mapping = ? ORDER BY shard", (mapping,))
    return [_lease(row) for row in found]


def seed(db: sqlite3.Connection, mapping: MappingId, leases: Sequence[Lease]) -> None:
    """Adds those that are not there yet."""
    db.executemany(_SEED, [_columns(mapping, lease) for lease in leases])


def take(db: sqlite3.Connection, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
    """The lease as taken; raises LeaseLost."""
    for row in rows(db, _TAKE, (owner, mapping, lease.shard, lease.epoch)):
        return _lease(row)
    return fencing.taken_before(_stored(db, mapping, lease.shard), lease, owner=owner)


def release(db: sqlite3.Connection, mapping: MappingId, lease: Lease) -> None:
    """Clears the owner; raises LeaseLost."""
    if not rows(db, _RELEASE, (mapping, lease.shard, lease.owner, lease.epoch)):
        fencing.released_before(_stored(db, mapping, lease.shard), lease)


def save(db: sqlite3.Connection, saves: Sequence[Save]) -> list[LeaseLost | None]:
    """Writes checkpoints of different rows; the result says of each whether it was refused.

    A statement tells only how many rows it wrote. If one is missing, both halves are tried by themselves: what was
    written already is written once more and what was refused is refused again.
    """
    before = db.total_changes
    statement = _SAVE.format(values=", ".join([_VALUES] * len(saves)))
    rows(db, statement, tuple(value for each in saves for value in each.values))
    if db.total_changes - before == len(saves):
        return [None] * len(saves)
    if len(saves) > 1:
        half = len(saves) // 2
        return save(db, saves[:half]) + save(db, saves[half:])
    (refused,) = saves
    there = _stored(db, refused.mapping, refused.lease.shard)
    return [fencing.unsaved(there, refused.lease, refused.checkpoint)]


def drop(db: sqlite3.Connection, mapping: MappingId, lease: Lease) -> None:
    """Removes the row; raises LeaseLost if its epoch is another."""
    if not rows(db, _DROP, (mapping, lease.shard, lease.epoch)):
        there = _stored(db, mapping, lease.shard)
        if there is not None:
            raise fencing.lost(there, lease)


def _stored(db: sqlite3.Connection, mapping: MappingId, shard: ShardId) -> Lease | None:
    found = rows(db, f"{_LEASE} AND shard = ?", (mapping, shard))
    return _lease(found[0]) if found else None


def _columns(mapping: MappingId, lease: Lease) -> tuple[Any, ...]:
    position = lease.checkpoint.position
    parents = json.dumps(lease.parents)
    place = (position.encode(), position.sort_key(), lease.checkpoint.memo)
    return (mapping, lease.shard, parents, lease.owner, lease.epoch, *place)


def _lease(row: tuple[Any, ...]) -> Lease:
    shard, parents, owner, epoch, position, memo = row
    family = tuple(ShardId(parent) for parent in json.loads(parents))
    return Lease(ShardId(shard), family, Checkpoint(Position.decode(position), memo), owner, epoch)
