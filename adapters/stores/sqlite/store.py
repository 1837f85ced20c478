"""Owns the store in one SQLite file, which several processes of one machine may share."""

import json
import re
import sqlite3
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adapters.stores import conflicts, url_options
from adapters.stores.sqlite import lease_statements, operation_statements
from adapters.stores.sqlite.call_queue import SqliteCallQueue
from adapters.stores.sqlite.checks import FileProbe
from adapters.stores.sqlite.connection import Database, any_text, connected, rows
from adapters.stores.sqlite.group_commit import Writer
from adapters.stores.sqlite.lease_statements import Save, Take
from adapters.stores.sqlite.schema import READABLE_VERSION, SCHEMA, mapped, obstacles, only_read, prepare
from adapters.stores.stored_operations import OperationReader, content
from adapters.stores.stored_rows import digest_row, mapping_row, undamaged, worker_row
from poller.config_errors.error_messages import FieldError
from poller.domain.operations import EndedOperation, Operation, OperationId
from poller.domain.records import MappingId, Position, WorkerId
from poller.domain.rows import Checkpoint, DigestRow, Lease, MappingRow, WorkerRow
from poller.plugins import Environment, Plugin
from poller.start_folder import from_start_folder

_COLUMNS = "mapping, fixed, seeded, document, revision"
_MAPPING = f"SELECT {_COLUMNS} FROM mappings"
_CREATE = f"INSERT INTO mappings ({_COLUMNS}) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_UPDATE = """
    UPDATE mappings SET fixed = ?, seeded = ?, document = ?, revision = revision + 1 WHERE mapping = ? AND revision = ?
    RETURNING mapping
"""
_BEAT = "INSERT INTO workers VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET counter = excluded.counter, facts = excluded.facts"
_DIGEST = "INSERT INTO digests VALUES (?, ?) ON CONFLICT DO UPDATE SET content = excluded.content"
_NO_DIGEST = "DELETE FROM digests WHERE worker = ?"


class SqliteStore:
    """A Store and DigestStore with one connection for writing and one for reading, and with a CallQueue on the same two.

    The condition of a write is part of its statement, so no other process can change the row between check and write.
    """

    def __init__(self, writer: Writer, reader: Database) -> None:
        self._writer = writer
        self._reader = reader
        self._operations = OperationReader()
        self.call_queue = SqliteCallQueue(writer, reader)

    async def create(self, row: MappingRow) -> MappingRow:
        """Adds `row` unless the mapping has one already; returns the stored row."""
        return await self._writer.write(partial(_create, row=row, document=json.dumps(dict(row.document))))

    async def update(self, row: MappingRow) -> None:
        """Replaces the row of the same revision; raises ResourceMissing if there is no row, RowChanged if its revision differs."""
        await self._writer.write(partial(_update, row=row, document=json.dumps(dict(row.document))))

    async def mappings(self) -> Sequence[MappingRow]:
        """Returns all rows, sorted by id."""
        return await self._read(_mappings)

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping and all its leases and checkpoints; no error when there is none."""
        await self._writer.write(partial(_forget, mapping=mapping))

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        """Returns all leases of one mapping with their checkpoints, sorted by shard id; without `memos` all memos are empty."""
        return await self._read(partial(lease_statements.list_leases, mapping=mapping, memos=memos))

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet, all of them or none; does not change existing ones."""
        if leases:
            await self._writer.write(partial(lease_statements.seed, mapping=mapping, leases=leases))

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at the next epoch; returns the stored lease; raises LeaseLost if the epoch is another."""
        return await self._writer.join(Take(mapping, lease, owner))

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the owner and keeps the checkpoint; raises LeaseLost if owner or epoch is another."""
        await self._writer.write(partial(lease_statements.release, mapping=mapping, lease=lease))

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if another owner or epoch is stored, or a later position."""
        await self._writer.join(Save(mapping, lease, checkpoint))

    async def move(self, mapping: MappingId, lease: Lease, position: Position) -> Lease:
        """Puts the shard at `position` without memo and owner, at the next epoch; raises LeaseLost if its epoch is another."""
        work = partial(lease_statements.move, mapping=mapping, lease=lease, position=position)
        return await self._writer.write(work)

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row; raises LeaseLost if its epoch is another; no error if there is no row."""
        await self._writer.write(partial(lease_statements.drop, mapping=mapping, lease=lease))

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row in place of the one before."""
        await self._writer.write(
            partial(rows, sql=_BEAT, parameters=(worker, counter, json.dumps(dict(facts))))
        )

    async def workers(self) -> Sequence[WorkerRow]:
        """Returns the rows of all workers, sorted by id."""
        return await self._read(_workers)

    async def retire(self, worker: WorkerId) -> None:
        """Removes the worker's row; no error when there is none."""
        statement = "DELETE FROM workers WHERE worker = ?"
        await self._writer.write(partial(rows, sql=statement, parameters=(worker,)))

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation unless there is one with its id; returns the stored one."""
        text = content(operation)
        return await self._writer.write(partial(operation_statements.add, operation=operation, text=text))

    async def change(self, operation: Operation) -> Operation:
        """Replaces the operation of the same revision if it is not over; raises ResourceMissing or RowChanged otherwise."""
        text = content(operation)
        return await self._writer.write(partial(operation_statements.change, operation=operation, text=text))

    async def operations(self, *, over: bool = False) -> Sequence[Operation]:
        """Returns the operations that are not over, or those that are, oldest first."""
        found = await self._read(partial(operation_statements.list_operations, over=over))
        return self._operations.listed(found) if over else self._operations.open_ones(found)

    async def operation(self, operation: OperationId) -> Operation | None:
        """Returns the operation with this id; None if there is none."""
        return await self._read(partial(operation_statements.find, operation=operation))

    async def ended(self) -> Sequence[EndedOperation]:
        """Returns when each operation that is over ended, and how long it is."""
        return await self._read(operation_statements.list_ended)

    async def prune(self, operations: Sequence[OperationId]) -> None:
        """Removes operations that are over; no error when there are none."""
        if operations:
            await self._writer.write(partial(operation_statements.prune, operations=operations))

    async def put_digest(self, worker: WorkerId, content: bytes) -> None:
        """Writes the worker's digest in place of the one before; removes it if `content` is empty."""
        statement, parameters = (_DIGEST, (worker, content)) if content else (_NO_DIGEST, (worker,))
        await self._writer.write(partial(rows, sql=statement, parameters=parameters))

    async def digests(self) -> Sequence[DigestRow]:
        """Returns all digests, sorted by worker."""
        return await self._read(_digests)

    async def _read[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._reader.run(work)
        except sqlite3.Error as error:
            raise mapped(error, self._reader.path) from error


def _create(db: sqlite3.Connection, *, row: MappingRow, document: str) -> MappingRow:
    rows(db, _CREATE, (row.mapping, row.fixed, row.seeded, document, row.revision))
    kept = _stored(db, row.mapping)
    assert kept is not None, "the row exists: the statement above has added it if it was missing"
    return kept


def _update(db: sqlite3.Connection, *, row: MappingRow, document: str) -> None:
    if not rows(db, _UPDATE, (row.fixed, row.seeded, document, row.mapping, row.revision)):
        conflicts.updated_before(_stored(db, row.mapping), row)


def _forget(db: sqlite3.Connection, *, mapping: MappingId) -> None:
    rows(db, "DELETE FROM leases WHERE mapping = ?", (mapping,))
    rows(db, "DELETE FROM mappings WHERE mapping = ?", (mapping,))


def _mappings(db: sqlite3.Connection) -> list[MappingRow]:
    return [_mapping(row) for row in rows(db, f"{_MAPPING} ORDER BY mapping")]


def stored_mappings(path: Path) -> list[MappingRow]:
    """Returns all rows of a file, whose path is absolute; makes neither the file nor others beside it; raises port errors."""
    return _only_read(path, _mappings)


def stored_leases(path: Path, mapping: MappingId) -> list[Lease]:
    """Returns all leases of a mapping with their memos, read as by `stored_mappings`."""
    return _only_read(path, partial(lease_statements.list_leases, mapping=mapping, memos=True))


def _only_read[T](path: Path, work: Callable[[sqlite3.Connection], list[T]]) -> list[T]:
    """What `work` reads in a file that has its tables; nothing if there is no such file."""
    if not path.exists():
        return []
    # If there is a write-ahead log, SQLite needs no new file to read. If there is none, no process is writing just now.
    mode = "mode=ro" if path.with_name(f"{path.name}-wal").exists() else "immutable=1"
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?{mode}", uri=True)) as db:
            db.text_factory = any_text
            ((version,),) = rows(db, "PRAGMA user_version")
            return work(db) if READABLE_VERSION <= version <= len(SCHEMA) else []
    except sqlite3.Error as error:
        raise mapped(error, path) from error


def _stored(db: sqlite3.Connection, mapping: MappingId) -> MappingRow | None:
    found = rows(db, f"{_MAPPING} WHERE mapping = ?", (mapping,))
    return undamaged(_mapping(found[0])) if found else None


def _workers(db: sqlite3.Connection) -> list[WorkerRow]:
    found = rows(db, "SELECT worker, counter, facts FROM workers ORDER BY worker")
    return [worker_row(dict(zip(("worker", "counter", "facts"), each, strict=True))) for each in found]


def _digests(db: sqlite3.Connection) -> list[DigestRow]:
    found = rows(db, "SELECT worker, content FROM digests ORDER BY worker")
    return [digest_row(worker, content) for worker, content in found]


def _mapping(row: tuple[Any, ...]) -> MappingRow:
    return mapping_row(dict(zip(_COLUMNS.split(", "), row, strict=True)))


def _names_a_file(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "sqlite" or parts.netloc or not parts.path.strip("/") or "%00" in parts.path:
        raise ValueError("write sqlite:///absolute/path/to/file, or sqlite:relative/path")
    return url


class SqliteSettings(BaseModel):
    """Where the file is and how it is written. `synchronous`, `busy_timeout_s` and `bytes_max` may also be options of the URL.

    `synchronous` full: every acknowledged write survives a power loss. normal: it survives the end of the process, but after a
    power loss the last writes may be missing. `bytes_max` limits the size of the file; None: only the disk limits it.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_names_a_file)]
    synchronous: Literal["full", "normal"] = "full"
    busy_timeout_s: float = Field(default=5.0, gt=0, le=60)
    bytes_max: int | None = Field(default=None, ge=1024 * 1024)

    _spread = model_validator(mode="before")(url_options.spread)

    @property
    def path(self) -> Path:
        """The file, an absolute path with one slash at its beginning."""
        # With sqlite:////path a URL's path begins with two slashes.
        return from_start_folder(re.sub("^/+", "/", unquote(urlsplit(self.url).path)))


@asynccontextmanager
async def open_sqlite(settings: SqliteSettings, env: Environment) -> AsyncGenerator[SqliteStore]:
    """Yields the store; raises what `prepare` raises."""
    path, busy_timeout_s = settings.path, settings.busy_timeout_s
    async with connected(path, busy_timeout_s=busy_timeout_s) as database:
        await prepare(database, full_sync=settings.synchronous == "full", bytes_max=settings.bytes_max)
        async with connected(path, busy_timeout_s=busy_timeout_s) as reader:
            await only_read(reader)
            writer = Writer(database)
            try:
                yield SqliteStore(writer, reader)
            finally:
                await writer.close()


@asynccontextmanager
async def look_sqlite(settings: SqliteSettings, env: Environment) -> AsyncGenerator[FileProbe]:
    """Yields a check of the file, which is not made."""
    yield FileProbe(settings.path, stored_mappings, stored_leases)


def setting_errors(settings: SqliteSettings) -> Iterator[FieldError]:
    """Returns what would keep the daemon from opening or making the file."""
    for wrong, remedy in obstacles(settings.path):
        yield FieldError("url", wrong, remedy, here=True)
        return
    if not settings.path.parent.is_dir():
        wrong = f"there is no directory {settings.path.parent}"
        yield FieldError(
            "url", wrong, "`poller run` makes it, and begins without positions; is the path right?", mild=True
        )


plugin = Plugin("sqlite", SqliteSettings, open_sqlite, look_sqlite, check=setting_errors)
