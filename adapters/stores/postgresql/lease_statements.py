"""Owns the SQL statements on leases. The condition of a write is part of the statement that writes.

A refused write looks at the stored row afterwards, to see whether the same write had succeeded before. That look decides only
what the caller is told.

A statement whose answer was lost may still be on its way when the next one of the same owner is written. So saves have turns: within
an epoch a save replaces only those of earlier turns.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters.stores import conflicts, stored_rows
from adapters.stores.postgresql.connections import Connections
from adapters.stores.postgresql.texts import storable
from poller.domain.errors import PortError
from poller.domain.records import MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease

_NAMES = ("shard", "parents", "owner", "epoch", "position", "position_key")
_LISTED = ", ".join(_NAMES)
_OURS = ", ".join(f"leases.{name}" for name in (*_NAMES, "memo"))
_SEED = """
    INSERT INTO {schema}.leases (mapping, shard, parents, owner, epoch, position, position_key, memo)
    SELECT %s::text, * FROM unnest(%s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::bytea[])
    ON CONFLICT DO NOTHING
"""
_TAKE = f"""
    UPDATE {{schema}}.leases SET owner = new.owner, epoch = leases.epoch + 1, turn = 0
    FROM unnest(%s::text[], %s::text[], %s::bigint[], %s::text[]) AS new (mapping, shard, epoch, owner)
    WHERE leases.mapping = new.mapping AND leases.shard = new.shard AND leases.epoch = new.epoch
    RETURNING leases.mapping, {_OURS}
"""
_SAVE = """
    UPDATE {schema}.leases SET position = new.position, position_key = new.position_key, memo = new.memo, turn = new.turn
    FROM unnest(
        %s::text[], %s::text[], %s::text[], %s::bigint[], %s::text[], %s::text[], %s::bytea[], %s::bigint[]
    ) AS new (mapping, shard, owner, epoch, position, position_key, memo, turn)
    WHERE leases.mapping = new.mapping AND leases.shard = new.shard AND leases.owner = new.owner
        AND leases.epoch = new.epoch AND leases.position_key <= new.position_key AND leases.turn < new.turn
    RETURNING leases.mapping, leases.shard
"""
_RELEASE = """
    UPDATE {schema}.leases SET owner = NULL WHERE mapping = %s AND shard = %s AND owner = %s::text AND epoch = %s RETURNING shard
"""
_MOVE = f"""
    UPDATE {{schema}}.leases SET owner = NULL, epoch = epoch + 1, position = %s, position_key = %s, memo = '', turn = 0
    WHERE mapping = %s AND shard = %s AND epoch = %s RETURNING {_OURS}
"""
_DROP = "DELETE FROM {schema}.leases WHERE mapping = %s AND shard = %s AND epoch = %s RETURNING shard"

type Row = tuple[MappingId, ShardId]
"""Identifies the lease that is written."""


@dataclass(frozen=True, slots=True)
class Save:
    """Writes a checkpoint, if the lease still has this owner and epoch and is not ahead of the checkpoint."""

    mapping: MappingId
    lease: Lease
    checkpoint: Checkpoint
    turn: int

    @property
    def row(self) -> Row:
        """The lease's row."""
        return self.mapping, self.lease.shard

    @property
    def size(self) -> int:
        """The bytes of the memo."""
        return len(self.checkpoint.memo)


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

    @property
    def size(self) -> int:
        """The bytes of the memo that comes back, as far as they are known."""
        return len(self.lease.checkpoint.memo)


class LeaseStatements:
    """The statements on leases of one schema."""

    def __init__(self, connections: Connections, schema: str) -> None:
        self._connections = connections
        self._schema = schema

    async def leases(self, mapping: MappingId, *, memos: bool) -> list[Lease]:
        """Returns all leases of the mapping, sorted by shard id; without `memos` all memos are empty."""
        memo = "memo" if memos else "''::bytea"
        statement = f"SELECT {_LISTED}, {memo} FROM {{schema}}.leases WHERE mapping = %s ORDER BY shard"
        return [_lease(row) for row in await self._run(statement, (storable(mapping),))]

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet, all of them or none."""
        columns = [list(column) for column in zip(*(_columns(lease) for lease in leases), strict=True)]
        await self._run(_SEED, (storable(mapping), *columns))

    async def take(self, takes: Sequence[Take]) -> list[Lease | PortError]:
        """Takes different leases by one statement; returns each as it is stored afterwards, or why it was refused."""
        values = [(*each.row, each.lease.epoch, each.owner) for each in takes]
        taken = {(row[0], row[1]): row[1:] for row in await self._run(_TAKE, _arrays(values))}
        return [await self._taken(each, taken.get(each.row)) for each in takes]

    async def save(self, saves: Sequence[Save]) -> list[PortError | None]:
        """Writes checkpoints of different leases by one statement; returns for each None, or why it was refused."""
        found = await self._run(_SAVE, _arrays([_saved(each) for each in saves]))
        written = {(mapping, shard) for mapping, shard in found}
        return [None if each.row in written else await self._unsaved(each) for each in saves]

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the owner; raises LeaseLost if owner or epoch is another."""
        values = (storable(mapping), storable(lease.shard), lease.owner, lease.epoch)
        if not await self._run(_RELEASE, values):
            conflicts.released_before(await self._stored(mapping, lease.shard), lease)

    async def move(self, mapping: MappingId, lease: Lease, position: Position) -> Lease:
        """Puts the shard at `position` without memo and owner, at the next epoch; raises LeaseLost if its epoch is another."""
        place = (position.encode(), position.sort_key())
        moved = await self._run(_MOVE, (*place, storable(mapping), storable(lease.shard), lease.epoch))
        if moved:
            return _lease(moved[0])
        return conflicts.moved_before(await self._stored(mapping, lease.shard), lease, position)

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the row; raises LeaseLost if its epoch is another."""
        if not await self._run(_DROP, (storable(mapping), storable(lease.shard), lease.epoch)):
            there = await self._stored(mapping, lease.shard)
            if there is not None:
                raise conflicts.lost(there, lease)

    async def _taken(self, take: Take, row: Sequence[Any] | None) -> Lease | PortError:
        try:
            if row is not None:
                return _lease(row)
            return conflicts.taken_before(await self._stored(*take.row), take.lease, owner=take.owner)
        except PortError as refused:
            return refused

    async def _unsaved(self, save: Save) -> PortError:
        try:
            return conflicts.unsaved(await self._stored(*save.row), save.lease, save.checkpoint)
        except PortError as refused:
            return refused

    async def _stored(self, mapping: MappingId, shard: ShardId) -> Lease | None:
        statement = f"SELECT {_LISTED}, memo FROM {{schema}}.leases WHERE mapping = %s AND shard = %s"
        found = await self._run(statement, (mapping, shard))
        return _lease(found[0]) if found else None

    async def _run(self, statement: str, parameters: Sequence[Any]) -> list[tuple[Any, ...]]:
        return await self._connections.run(statement.format(schema=self._schema), parameters)


def checked(name: str | None, *names: str) -> None:
    """Raises ServiceUnavailable if one of these names cannot be stored: it would fail all writes of its statement."""
    for each in (name or "", *names):
        storable(each)


def _saved(save: Save) -> tuple[Any, ...]:
    lease, position = save.lease, save.checkpoint.position
    place = (position.encode(), position.sort_key(), save.checkpoint.memo)
    return (*save.row, lease.owner, lease.epoch, *place, save.turn)


def _columns(lease: Lease) -> tuple[Any, ...]:
    position = lease.checkpoint.position
    place = (position.encode(), position.sort_key(), lease.checkpoint.memo)
    owner = None if lease.owner is None else storable(lease.owner)
    return (storable(lease.shard), json.dumps(lease.parents), owner, lease.epoch, *place)


def _arrays(rows: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    return [list(column) for column in zip(*rows, strict=True)]


def _lease(row: Sequence[Any]) -> Lease:
    *values, memo = row
    return stored_rows.lease(dict(zip(_NAMES, values, strict=True)), bytes(memo))
