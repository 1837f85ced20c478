"""Owns the SQL statements on leases. The condition of a write is part of the statement that writes.

Python's sqlite3 releases the interpreter lock at each step of a statement. With a busy event loop it then waits some milliseconds
to get the lock back. So checkpoints that are saved together are written by one statement, and so are leases that are taken.
"""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, Self

from adapters.stores import conflicts, stored_rows
from adapters.stores.sqlite.connection import rows
from adapters.stores.sqlite.group_commit import BATCH_MAX
from poller.domain.errors import LeaseLost, PortError, ServiceUnavailable
from poller.domain.records import MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease

_NAMES = ("shard", "parents", "owner", "epoch", "position", "position_key")
_COLUMNS = f"{', '.join(_NAMES)}, memo"
_WITHOUT_MEMO = f"{', '.join(_NAMES)}, x''"
_LEASE = f"SELECT {_COLUMNS} FROM leases WHERE mapping = ?"
_SEED = "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_TAKE = f"""
    WITH new (mapping, shard, epoch, owner) AS (VALUES {{values}})
    UPDATE leases SET owner = new.owner, epoch = leases.epoch + 1 FROM new
    WHERE leases.mapping = new.mapping AND leases.shard = new.shard AND leases.epoch = new.epoch
    RETURNING mapping, {_COLUMNS}
"""
_RELEASE = "UPDATE leases SET owner = NULL WHERE mapping = ? AND shard = ? AND owner = ? AND epoch = ? RETURNING shard"
_SAVE = """
    WITH new (mapping, shard, owner, epoch, position, position_key, memo) AS (VALUES {values})
    UPDATE leases SET position = new.position, position_key = new.position_key, memo = new.memo FROM new
    WHERE leases.mapping = new.mapping AND leases.shard = new.shard AND leases.owner = new.owner
        AND leases.epoch = new.epoch AND leases.position_key <= new.position_key
    RETURNING mapping, shard
"""
_MOVE = f"""
    UPDATE leases SET owner = NULL, epoch = epoch + 1, position = ?, position_key = ?, memo = x''
    WHERE mapping = ? AND shard = ? AND epoch = ? RETURNING {_COLUMNS}
"""
_DROP = "DELETE FROM leases WHERE mapping = ? AND shard = ? AND epoch = ? RETURNING shard"


JOINED_BYTES_MAX = 2 * 1024 * 1024
"""The bytes of memos that one statement writes. A single memo may have more."""
_SIZES = tuple(1 << power for power in range((BATCH_MAX - 1).bit_length() + 1))
"""The numbers of rows that a joined statement may have. They are few, since the connection caches each statement together with
its last values."""


type Row = tuple[MappingId, ShardId]
"""Identifies the lease that is written."""


@dataclass(frozen=True, slots=True)
class Save:
    """Writes a checkpoint, if the lease still has this owner and epoch and is not ahead of the checkpoint."""

    mapping: MappingId
    lease: Lease
    checkpoint: Checkpoint

    @property
    def row(self) -> Row:
        """The lease's row."""
        return self.mapping, self.lease.shard

    @classmethod
    def together(cls, db: sqlite3.Connection, saves: Sequence[Self]) -> list[tuple[None] | PortError]:
        """Writes checkpoints of different rows by one statement, or by several if their memos are large."""
        written: set[tuple[Any, ...]] = set()
        for some in _portions(saves):
            written.update(_run_for_rows(db, _SAVE, [each._values() for each in some]))
        return [(None,) if each.row in written else each._refused(db) for each in saves]

    def _values(self) -> tuple[Any, ...]:
        lease, position = self.lease, self.checkpoint.position
        place = (position.encode(), position.sort_key(), self.checkpoint.memo)
        return (self.mapping, lease.shard, lease.owner, lease.epoch, *place)

    def _refused(self, db: sqlite3.Connection) -> PortError:
        try:
            return conflicts.unsaved(_stored(db, *self.row), self.lease, self.checkpoint)
        except ServiceUnavailable as damaged:
            return damaged


@dataclass(frozen=True, slots=True)
class Take:
    """Makes `owner` the owner of a lease, if it still has the epoch that was read."""

    mapping: MappingId
    lease: Lease
    owner: WorkerId

    @property
    def row(self) -> Row:
        """The lease's row."""
        return self.mapping, self.lease.shard

    @classmethod
    def together(cls, db: sqlite3.Connection, takes: Sequence[Self]) -> list[tuple[Lease] | PortError]:
        """Takes different leases by one statement; returns each as it is stored afterwards."""
        values = [(*each.row, each.lease.epoch, each.owner) for each in takes]
        taken = {(mapping, row[0]): row for mapping, *row in _run_for_rows(db, _TAKE, values)}
        return [each._result(db, taken.get(each.row)) for each in takes]

    def _result(self, db: sqlite3.Connection, taken: Sequence[Any] | None) -> tuple[Lease] | PortError:
        try:
            if taken is not None:
                return (_lease(taken),)
            return (conflicts.taken_before(_stored(db, *self.row), self.lease, owner=self.owner),)
        except (LeaseLost, ServiceUnavailable) as refused:
            return refused


def list_leases(db: sqlite3.Connection, mapping: MappingId, *, memos: bool) -> list[Lease]:
    """Returns all leases of the mapping, sorted by shard id; without `memos` all memos are empty."""
    columns = _COLUMNS if memos else _WITHOUT_MEMO
    found = rows(db, f"SELECT {columns} FROM leases WHERE mapping = ? ORDER BY shard", (mapping,))
    return [_lease(row) for row in found]


def seed(db: sqlite3.Connection, mapping: MappingId, leases: Sequence[Lease]) -> None:
    """Adds leases for shards that have none yet."""
    db.executemany(_SEED, [_columns(mapping, lease) for lease in leases])


def release(db: sqlite3.Connection, mapping: MappingId, lease: Lease) -> None:
    """Removes the owner; raises LeaseLost if owner or epoch is another."""
    if not rows(db, _RELEASE, (mapping, lease.shard, lease.owner, lease.epoch)):
        conflicts.released_before(_stored(db, mapping, lease.shard), lease)


def move(db: sqlite3.Connection, mapping: MappingId, lease: Lease, position: Position) -> Lease:
    """Puts the shard at `position` without memo and owner, at the next epoch; raises LeaseLost if its epoch is another."""
    place = (position.encode(), position.sort_key())
    moved = rows(db, _MOVE, (*place, mapping, lease.shard, lease.epoch))
    if moved:
        return _lease(moved[0])
    return conflicts.moved_before(_stored(db, mapping, lease.shard), lease, position)


def drop(db: sqlite3.Connection, mapping: MappingId, lease: Lease) -> None:
    """Removes the row; raises LeaseLost if its epoch is another."""
    if not rows(db, _DROP, (mapping, lease.shard, lease.epoch)):
        there = _stored(db, mapping, lease.shard)
        if there is not None:
            raise conflicts.lost(there, lease)


def _run_for_rows(
    db: sqlite3.Connection, statement: str, values: Sequence[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """Runs a statement for several rows of values. Rows of nulls, which match no lease, fill up to one of the sizes."""
    size, width = next(each for each in _SIZES if each >= len(values)), len(values[0])
    nulls = (None,) * (width * (size - len(values)))
    return rows(db, _sized(statement, size, width), (*chain.from_iterable(values), *nulls))


@lru_cache(maxsize=2 * len(_SIZES))
def _sized(statement: str, size: int, width: int) -> str:
    marks = f"({', '.join('?' * width)})"
    return statement.format(values=", ".join([marks] * size))


def _portions(saves: Iterable[Save]) -> Iterator[list[Save]]:
    """Yields the saves in their order, as many at a time as one statement may write."""
    some: list[Save] = []
    left = JOINED_BYTES_MAX
    for each in saves:
        left -= len(each.checkpoint.memo)
        if some and left < 0:
            yield some
            some, left = [], JOINED_BYTES_MAX - len(each.checkpoint.memo)
        some.append(each)
    yield some


def _stored(db: sqlite3.Connection, mapping: MappingId, shard: ShardId) -> Lease | None:
    found = rows(db, f"{_LEASE} AND shard = ?", (mapping, shard))
    return _lease(found[0]) if found else None


def _columns(mapping: MappingId, lease: Lease) -> tuple[Any, ...]:
    position = lease.checkpoint.position
    parents = json.dumps(lease.parents)
    place = (position.encode(), position.sort_key(), lease.checkpoint.memo)
    return (mapping, lease.shard, parents, lease.owner, lease.epoch, *place)


def _lease(row: Sequence[Any]) -> Lease:
    *values, memo = row
    return stored_rows.lease(dict(zip(_NAMES, values, strict=True)), memo)
