"""Owns the store in a PostgreSQL database, which workers on many machines may share."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

from adapters.stores import conflicts
from adapters.stores.postgresql import schema
from adapters.stores.postgresql.call_queue import PostgresCallQueue
from adapters.stores.postgresql.connections import Connections, connections
from adapters.stores.postgresql.credentials import Passwords
from adapters.stores.postgresql.joined_writes import JoinedWrites
from adapters.stores.postgresql.lease_statements import LeaseStatements, Save, Take, checked
from adapters.stores.postgresql.operation_statements import OperationStatements
from adapters.stores.postgresql.settings import PostgresSettings
from adapters.stores.postgresql.texts import storable
from adapters.stores.stored_operations import OperationReader
from adapters.stores.stored_rows import digest_row, mapping_row, undamaged, worker_row
from poller.domain.operations import EndedOperation, Operation, OperationId
from poller.domain.records import MappingId, Position, WorkerId
from poller.domain.rows import Checkpoint, DigestRow, Lease, MappingRow, WorkerRow
from poller.plugins import Environment

_NAMES = ("mapping", "fixed", "seeded", "document", "revision")
_COLUMNS = ", ".join(_NAMES)
_MAPPING = f"SELECT {_COLUMNS} FROM {{schema}}.mappings"
_CREATE = f"""
    INSERT INTO {{schema}}.mappings ({_COLUMNS}) VALUES (%s, %s, %s, %s, %s)
    ON CONFLICT (mapping) DO UPDATE SET mapping = excluded.mapping
    RETURNING {", ".join(f"mappings.{name}" for name in _NAMES)}
"""
"""Writes the id over itself if there is such a row, so that the stored row comes back in any case."""
_UPDATE = """
    UPDATE {schema}.mappings SET fixed = %s, seeded = %s, document = %s, revision = revision + 1
    WHERE mapping = %s AND revision = %s RETURNING mapping
"""
_FORGET = """
    WITH forgotten AS (DELETE FROM {schema}.leases WHERE mapping = %s) DELETE FROM {schema}.mappings WHERE mapping = %s
"""
_BEAT = """
    INSERT INTO {schema}.workers (worker, counter, facts) VALUES (%s, %s, %s)
    ON CONFLICT (worker) DO UPDATE SET counter = excluded.counter, facts = excluded.facts
"""
_DIGEST = """
    INSERT INTO {schema}.digests (worker, content) VALUES (%s, %s) ON CONFLICT (worker) DO UPDATE SET content = excluded.content
"""


class PostgresStore:
    """A Store and DigestStore with a CallQueue. Every write is one statement, which has its condition."""

    def __init__(self, database: Connections, schema_name: str) -> None:
        self._database = database
        self._schema = schema_name
        self._leases = LeaseStatements(database, schema_name)
        self._operations = OperationStatements(database, schema_name)
        self._reader = OperationReader()
        self._saves = JoinedWrites(self._leases.save)
        self._takes = JoinedWrites(self._leases.take)
        self._turns = count(1)
        self.call_queue = PostgresCallQueue(database, schema_name)

    async def create(self, row: MappingRow) -> MappingRow:
        """Adds `row` unless the mapping has one already; returns the stored row."""
        values = (storable(row.mapping), float(row.fixed), row.seeded, json.dumps(dict(row.document)))
        (stored,) = await self._run(_CREATE, (*values, row.revision))
        return undamaged(_mapping(stored))

    async def update(self, row: MappingRow) -> None:
        """Replaces the row of the same revision; raises ResourceMissing if there is no row, RowChanged if its revision differs."""
        new = (float(row.fixed), row.seeded, json.dumps(dict(row.document)))
        if not await self._run(_UPDATE, (*new, storable(row.mapping), row.revision)):
            found = await self._run(f"{_MAPPING} WHERE mapping = %s", (row.mapping,))
            conflicts.updated_before(undamaged(_mapping(found[0])) if found else None, row)

    async def mappings(self) -> Sequence[MappingRow]:
        """Returns all rows, sorted by id."""
        return [_mapping(row) for row in await self._run(f"{_MAPPING} ORDER BY mapping")]

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping and all its leases and checkpoints; no error when there is none."""
        await self._run(_FORGET, (storable(mapping), mapping))

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        """Returns all leases of one mapping with their checkpoints, sorted by shard id; without `memos` all memos are empty."""
        return await self._leases.leases(mapping, memos=memos)

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet, all of them or none; does not change existing ones."""
        if leases:
            await self._leases.seed(mapping, leases)

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at the next epoch; returns the stored lease; raises LeaseLost if the epoch is another."""
        checked(owner, mapping, lease.shard)
        return await self._takes.write(Take(mapping, lease, owner))

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the owner and keeps the checkpoint; raises LeaseLost if owner or epoch is another."""
        await self._leases.release(mapping, lease)

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if another owner or epoch is stored, or a later position."""
        checked(lease.owner, mapping, lease.shard)
        await self._saves.write(Save(mapping, lease, checkpoint, next(self._turns)))

    async def move(self, mapping: MappingId, lease: Lease, position: Position) -> Lease:
        """Puts the shard at `position` without memo and owner, at the next epoch; raises LeaseLost if its epoch is another."""
        return await self._leases.move(mapping, lease, position)

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row; raises LeaseLost if its epoch is another; no error if there is no row."""
        await self._leases.drop(mapping, lease)

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row in place of the one before."""
        await self._run(_BEAT, (storable(worker), counter, json.dumps(dict(facts))))

    async def workers(self) -> Sequence[WorkerRow]:
        """Returns the rows of all workers, sorted by id."""
        found = await self._run("SELECT worker, counter, facts FROM {schema}.workers ORDER BY worker")
        return [worker_row(dict(zip(("worker", "counter", "facts"), each, strict=True))) for each in found]

    async def retire(self, worker: WorkerId) -> None:
        """Removes the worker's row; no error when there is none."""
        await self._run("DELETE FROM {schema}.workers WHERE worker = %s", (storable(worker),))

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation unless there is one with its id; returns the stored one."""
        return await self._operations.add(operation)

    async def change(self, operation: Operation) -> Operation:
        """Replaces the operation of the same revision if it is not over; raises ResourceMissing or RowChanged otherwise."""
        return await self._operations.change(operation)

    async def operations(self, *, over: bool = False) -> Sequence[Operation]:
        """Returns the operations that are not over, or those that are, oldest first."""
        found = await self._operations.listed(over=over)
        return self._reader.listed(found) if over else self._reader.open_ones(found)

    async def operation(self, operation: OperationId) -> Operation | None:
        """Returns the operation with this id; None if there is none."""
        return await self._operations.find(operation)

    async def ended(self) -> Sequence[EndedOperation]:
        """Returns when each operation that is over ended, and how long it is."""
        return await self._operations.ended()

    async def prune(self, operations: Sequence[OperationId]) -> None:
        """Removes operations that are over; no error when there are none."""
        if operations:
            await self._operations.prune(operations)

    async def put_digest(self, worker: WorkerId, content: bytes) -> None:
        """Writes the worker's digest in place of the one before; removes it if `content` is empty."""
        if content:
            await self._run(_DIGEST, (storable(worker), content))
        else:
            await self._run("DELETE FROM {schema}.digests WHERE worker = %s", (storable(worker),))

    async def digests(self) -> Sequence[DigestRow]:
        """Returns all digests, sorted by worker."""
        found = await self._run("SELECT worker, content FROM {schema}.digests ORDER BY worker")
        return [digest_row(worker, content) for worker, content in found]

    async def finish_writes(self) -> None:
        """Refuses new checkpoints and takes, and returns when those that wait are written."""
        await self._saves.close()
        await self._takes.close()

    async def _run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self._database.run(statement.format(schema=self._schema), parameters)


def _mapping(row: Sequence[Any]) -> MappingRow:
    return mapping_row(dict(zip(_NAMES, row, strict=True)))


@asynccontextmanager
async def opened_store(settings: PostgresSettings, env: Environment) -> AsyncGenerator[PostgresStore]:
    """Yields the store; makes or migrates its tables if `create` is set; raises what `schema.prepare` and `schema.check` raise."""
    async with connections(settings, Passwords(settings, env)) as database:
        if settings.create:
            await schema.prepare(database, settings.table_schema)
        else:
            await schema.check(database, settings.table_schema)
        store = PostgresStore(database, settings.table_schema)
        try:
            yield store
        finally:
            await store.finish_writes()
