"""Owns the statements on leases. A condition is part of the statement that writes.

Python's sqlite3 lets go of the interpreter around each step of a statement, and beside a busy event loop waits some
milliseconds to get it back. Checkpoints that are saved together are therefore written by one statement, and so are takes.
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
from poller.domain.records import MappingId, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease

_NAMES = ("shard", "parents", "owner", "epoch", "position", "position_key")
_COLUMNS = f"{', '.join(_NAMES)}, memo"
_BARE = f"{', '.join(_NAMES)}, x''"
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
_DROP = "DELETE FROM leases WHERE mapping = ? AND shard = ? AND epoch = ? RETURNING shard"


JOINED_BYTES_MAX = 2 * 1024 * 1024
"""Bytes of memos that one statement writes, unless a single memo has more."""
_SIZES = tuple(1 << power for power in range((BATCH_MAX - 1).bit_length() + 1))
"""Rows of joined statements. They are few, since the connection keeps each statement with all that it wrote last."""


type Row = tuple[MappingId, ShardId]
"""Which lease a write is for."""


@dataclass(frozen=True, slots=True)
class Save:
    """A checkpoint to be written, if the lease has its owner and epoch still and is not ahead of it."""

    mapping: MappingId
    lease: Lease
    checkpoint: Checkpoint

    @property
    def row(self) -> Row:
        """The lease's."""
        return self.mapping, self.lease.shard

    @classmethod
    def together(cls, db: sqlite3.Connection, saves: Sequence[Self]) -> list[tuple[None] | PortError]:
        """Writes checkpoints of different rows by one statement, or by some when their memos are large."""
        written: set[tuple[Any, ...]] = set()
        for some in _portions(saves):
            written.update(_joined(db, _SAVE, [each._values() for each in some]))
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
    """A lease to be taken by `owner`, if its epoch is still the one that was seen."""

    mapping: MappingId
    lease: Lease
    owner: WorkerId

    @property
    def row(self) -> Row:
        """The lease's."""
        return self.mapping, self.lease.shard

    @classmethod
    def together(cls, db: sqlite3.Connection, takes: Sequence[Self]) -> list[tuple[Lease] | PortError]:
        """Takes different leases by one statement; each comes as it is stored then."""
        values = [(*each.row, each.lease.epoch, each.owner) for each in takes]
        taken = {(mapping, row[0]): row for mapping, *row in _joined(db, _TAKE, values)}
        return [each._result(db, taken.get(each.row)) for each in takes]

    def _result(self, db: sqlite3.Connection, taken: Sequence[Any] | None) -> tuple[Lease] | PortError:
        try:
            if taken is not None:
                return (_lease(taken),)
            return (conflicts.taken_before(_stored(db, *self.row), self.lease, owner=self.owner),)
        except (LeaseLost, ServiceUnavailable) as refused:
            return refused


def listed(db: sqlite3.Connection, mapping: MappingId, *, memos: bool) -> list[Lease]:
    """All leases of the mapping, by shard id; with `memos` off all memos are empty."""
    columns = _COLUMNS if memos else _BARE
    found = rows(db, f"SELECT {columns} FROM leases WHERE mapping = ? ORDER BY shard", (mapping,))
    return [_lease(row) for row in found]


def seed(db: sqlite3.Connection, mapping: MappingId, leases: Sequence[Lease]) -> None:
    """Adds those that are not there yet."""
    db.executemany(_SEED, [_columns(mapping, lease) for lease in leases])


def release(db: sqlite3.Connection, mapping: MappingId, lease: Lease) -> None:
    """Clears the owner; raises LeaseLost."""
    if not rows(db, _RELEASE, (mapping, lease.shard, lease.owner, lease.epoch)):
        conflicts.released_before(_stored(db, mapping, lease.shard), lease)


def drop(db: sqlite3.Connection, mapping: MappingId, lease: Lease) -> None:
    """Removes the row; raises LeaseLost if its epoch is another."""
    if not rows(db, _DROP, (mapping, lease.shard, lease.epoch)):
        there = _stored(db, mapping, lease.shard)
        if there is not None:
            raise conflicts.lost(there, lease)


def _joined(
    db: sqlite3.Connection, statement: str, values: Sequence[tuple[Any, ...]]
) -> list[tuple[Any, ...]]:
    """Runs a statement for some rows of values; a row of nulls, of which some are added, is for no lease."""
    size, width = next(each for each in _SIZES if each >= len(values)), len(values[0])
    nulls = (None,) * (width * (size - len(values)))
    return rows(db, _sized(statement, size, width), (*chain.from_iterable(values), *nulls))


@lru_cache(maxsize=2 * len(_SIZES))
def _sized(statement: str, size: int, width: int) -> str:
    marks = f"({', '.join('?' * width)})"
    return statement.format(values=", ".join([marks] * size))


def _portions(saves: Iterable[Save]) -> Iterator[list[Save]]:
    """The saves in their order, as many at a time as one statement may write."""
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
