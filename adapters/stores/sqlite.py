"""Owns the store in one SQLite file, which several processes of one machine may share."""

import json
import sqlite3
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

import aiosqlite
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adapters.stores import fencing, urls
from adapters.stores.probing import FileProbe
from adapters.stores.sqlite_file import connected, mapped, prepare, rows
from adapters.stores.sqlite_writer import Writer
from poller.errors import ResourceMissing, ServiceUnavailable
from poller.plugins import Environment, Plugin
from poller.records import (
    Checkpoint,
    Epoch,
    Lease,
    MappingId,
    MappingRow,
    Position,
    ShardId,
    WorkerId,
    WorkerRow,
)

_MAPPING = "SELECT mapping, fixed, seeded, document FROM mappings"
_LEASE = "SELECT shard, parents, owner, epoch, position, memo FROM leases WHERE mapping = ?"
_CREATE = "INSERT INTO mappings VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_UPDATE = "UPDATE mappings SET fixed = ?, seeded = ?, document = ? WHERE mapping = ? RETURNING mapping"
_SEED = "INSERT INTO leases VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_TAKE = "UPDATE leases SET owner = ?, epoch = epoch + 1 WHERE mapping = ? AND shard = ? AND epoch = ? RETURNING shard"
_HELD = "WHERE mapping = ? AND shard = ? AND owner = ? AND epoch = ?"
_RELEASE = f"UPDATE leases SET owner = NULL {_HELD} RETURNING shard"
_SAVE = f"UPDATE leases SET position = ?, position_key = ?, memo = ? {_HELD} AND position_key <= ? RETURNING shard"
_DROP = "DELETE FROM leases WHERE mapping = ? AND shard = ? AND epoch = ? RETURNING shard"
_BEAT = "INSERT INTO workers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET counter = excluded.counter, facts = excluded.facts"


class SqliteStore:
    """A Store and WorkerStore over one writing and one reading connection.

    A condition is part of the statement that writes, so that processes that share the file cannot pass each other.
    """

    def __init__(self, writer: Writer, reader: aiosqlite.Connection, path: Path) -> None:
        self._writer = writer
        self._reader = reader
        self._path = path

    async def create(self, row: MappingRow) -> MappingRow:
        """Keeps `row` unless the mapping is known; returns the row that is kept."""
        return await self._writer.write(partial(_create, row=row, document=json.dumps(dict(row.document))))

    async def update(self, row: MappingRow) -> None:
        """Replaces the row; raises ResourceMissing when there is none."""
        await self._writer.write(partial(_update, row=row, document=json.dumps(dict(row.document))))

    async def mappings(self) -> Sequence[MappingRow]:
        """All rows, by id."""
        return [_mapping(row) for row in await self._read(f"{_MAPPING} ORDER BY mapping")]

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping and all its leases and checkpoints; no error when there is none."""
        await self._writer.write(partial(_forget, mapping=mapping))

    async def leases(self, mapping: MappingId) -> Sequence[Lease]:
        """All leases of one mapping with their checkpoints, by shard id."""
        return [_lease(row) for row in await self._read(f"{_LEASE} ORDER BY shard", mapping)]

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet; leaves existing ones as they are. All of them or none."""
        if leases:
            await self._writer.write(partial(_seed, values=[_columns(mapping, lease) for lease in leases]))

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at the next epoch and returns the lease as it is stored; raises LeaseLost."""
        return await self._writer.write(partial(_take, mapping=mapping, lease=lease, owner=owner))

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Clears the owner and keeps the checkpoint; raises LeaseLost."""
        await self._writer.write(partial(_release, mapping=mapping, lease=lease))

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if another owner or epoch is stored, or a later position."""
        await self._writer.write(partial(_save, mapping=mapping, lease=lease, checkpoint=checkpoint))

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row; raises LeaseLost if its epoch is another; no error when there is none."""
        await self._writer.write(partial(_drop, mapping=mapping, lease=lease))

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row over the one before."""
        await self._writer.write(
            partial(rows, sql=_BEAT, parameters=(worker, counter, json.dumps(dict(facts))))
        )

    async def workers(self) -> Sequence[WorkerRow]:
        """All workers' rows, by id."""
        found = await self._read("SELECT worker, counter, facts FROM workers ORDER BY worker")
        return [WorkerRow(WorkerId(worker), counter, json.loads(facts)) for worker, counter, facts in found]

    async def retire(self, worker: WorkerId) -> None:
        """Removes the worker's row; no error when there is none."""
        statement = "DELETE FROM workers WHERE worker = ?"
        await self._writer.write(partial(rows, sql=statement, parameters=(worker,)))

    async def _read(self, sql: str, *parameters: str) -> list[tuple[Any, ...]]:
        try:
            return await rows(self._reader, sql, parameters)
        except sqlite3.Error as error:
            raise mapped(error, self._path) from error
        except ValueError as error:
            raise ServiceUnavailable(f"{self._path} is closed") from error


async def _create(db: aiosqlite.Connection, *, row: MappingRow, document: str) -> MappingRow:
    await rows(db, _CREATE, (row.mapping, row.fixed, row.seeded, document))
    (kept,) = await rows(db, f"{_MAPPING} WHERE mapping = ?", (row.mapping,))
    return _mapping(kept)


async def _update(db: aiosqlite.Connection, *, row: MappingRow, document: str) -> None:
    if not await rows(db, _UPDATE, (row.fixed, row.seeded, document, row.mapping)):
        raise ResourceMissing(f"mapping {row.mapping} is not in the store")


async def _forget(db: aiosqlite.Connection, *, mapping: MappingId) -> None:
    await rows(db, "DELETE FROM leases WHERE mapping = ?", (mapping,))
    await rows(db, "DELETE FROM mappings WHERE mapping = ?", (mapping,))


async def _seed(db: aiosqlite.Connection, *, values: list[tuple[Any, ...]]) -> None:
    await db.executemany(_SEED, values)


async def _take(db: aiosqlite.Connection, *, mapping: MappingId, lease: Lease, owner: WorkerId) -> Lease:
    took = await rows(db, _TAKE, (owner, mapping, lease.shard, lease.epoch))
    stored = await _stored(db, mapping, lease.shard)
    return stored if took and stored else fencing.taken_before(stored, lease, owner=owner)


async def _release(db: aiosqlite.Connection, *, mapping: MappingId, lease: Lease) -> None:
    if not await rows(db, _RELEASE, (mapping, lease.shard, lease.owner, lease.epoch)):
        fencing.released_before(await _stored(db, mapping, lease.shard), lease)


async def _save(
    db: aiosqlite.Connection, *, mapping: MappingId, lease: Lease, checkpoint: Checkpoint
) -> None:
    key = checkpoint.position.sort_key()
    new = (checkpoint.position.encode(), key, checkpoint.memo)
    if not await rows(db, _SAVE, (*new, mapping, lease.shard, lease.owner, lease.epoch, key)):
        raise fencing.unsaved(await _stored(db, mapping, lease.shard), lease, checkpoint)


async def _drop(db: aiosqlite.Connection, *, mapping: MappingId, lease: Lease) -> None:
    if not await rows(db, _DROP, (mapping, lease.shard, lease.epoch)):
        stored = await _stored(db, mapping, lease.shard)
        if stored is not None:
            raise fencing.lost(stored, lease)


async def _stored(db: aiosqlite.Connection, mapping: MappingId, shard: ShardId) -> Lease | None:
    found = await rows(db, f"{_LEASE} AND shard = ?", (mapping, shard))
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


def _mapping(row: tuple[Any, ...]) -> MappingRow:
    mapping, fixed, seeded, document = row
    return MappingRow(MappingId(mapping), Epoch(fixed), seeded=bool(seeded), document=json.loads(document))


def _names_a_file(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or not parts.path.strip("/"):
        raise ValueError("write sqlite:///absolute/path/to/file, or sqlite:relative/path")
    return url


class SqliteSettings(BaseModel):
    """Where the file is and how it is written; `synchronous`, `busy_timeout_s` and `bytes_max` may stand in the URL.

    `synchronous` full: what was acknowledged survives a power loss; normal: it survives the end of the process, and after a
    power loss the last moments may be missing. `bytes_max` bounds the file; None: the disk does.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_names_a_file)]
    synchronous: Literal["full", "normal"] = "full"
    busy_timeout_s: float = Field(default=5.0, gt=0, le=60)
    bytes_max: int | None = Field(default=None, ge=1024 * 1024)

    _spread = model_validator(mode="before")(urls.spread)

    @property
    def path(self) -> Path:
        """The file."""
        return Path(unquote(urlsplit(self.url).path))


@asynccontextmanager
async def open_sqlite(settings: SqliteSettings, env: Environment) -> AsyncGenerator[SqliteStore]:
    """The store in the file; raises InvalidConfiguration, ServiceThrottled or ServiceUnavailable as `prepare` does."""
    path, busy_timeout_s = settings.path, settings.busy_timeout_s
    async with connected(path, busy_timeout_s=busy_timeout_s) as db:
        await prepare(db, path, full_sync=settings.synchronous == "full", bytes_max=settings.bytes_max)
        async with connected(path, busy_timeout_s=busy_timeout_s) as reader:
            await rows(reader, "PRAGMA query_only=ON")
            writer = Writer(db, path)
            try:
                yield SqliteStore(writer, reader, path)
            finally:
                await writer.close()


@asynccontextmanager
async def look_sqlite(settings: SqliteSettings, env: Environment) -> AsyncGenerator[FileProbe]:
    """A look at the file, which is not made."""
    yield FileProbe(settings.path)


plugin = Plugin("sqlite", SqliteSettings, open_sqlite, look_sqlite)
