"""Owns the store in memory, which ends with the process: for tests, simulations and trying things out."""

import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from adapters.stores import conflicts, stored_operations
from adapters.stores.memory_calls import MemoryCallQueue
from poller.domain.operations import EndedOperation, Operation, OperationId
from poller.domain.records import MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, DigestRow, Lease, MappingRow, WorkerRow
from poller.plugins import Environment, Plugin


class MemoryStore:
    """A Store and DigestStore in dictionaries, with a CallQueue.

    No method awaits, so each is atomic: one instance may serve several daemons on one event loop.
    """

    def __init__(self) -> None:
        self._rows: dict[MappingId, MappingRow] = {}
        self._leases: dict[MappingId, dict[ShardId, Lease]] = {}
        self._workers: dict[WorkerId, WorkerRow] = {}
        self._open: dict[OperationId, Operation] = {}
        self._over: dict[OperationId, Operation] = {}
        self._digests: dict[WorkerId, DigestRow] = {}
        self.call_queue = MemoryCallQueue()

    async def create(self, row: MappingRow) -> MappingRow:
        """Adds `row` unless the mapping has one already; returns the stored row."""
        return _copy(self._rows.setdefault(row.mapping, _copy(row)))

    async def update(self, row: MappingRow) -> None:
        """Replaces the row of the same revision; raises ResourceMissing if there is no row, RowChanged if its revision differs."""
        stored = self._rows.get(row.mapping)
        if stored is None or stored.revision != row.revision:
            conflicts.updated_before(stored, row)
        else:
            self._rows[row.mapping] = _copy(conflicts.following(row))

    async def mappings(self) -> Sequence[MappingRow]:
        """Returns all rows, sorted by id."""
        return [_copy(self._rows[mapping]) for mapping in sorted(self._rows)]

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping and all its leases and checkpoints; no error when there is none."""
        self._rows.pop(mapping, None)
        self._leases.pop(mapping, None)

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        """Returns all leases of one mapping with their checkpoints, sorted by shard id; without `memos` all memos are empty."""
        rows = self._leases.get(mapping, {})
        return [rows[shard] if memos else _without_memo(rows[shard]) for shard in sorted(rows)]

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet; does not change existing ones."""
        rows = self._leases.setdefault(mapping, {})
        for lease in leases:
            rows.setdefault(lease.shard, lease)

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at the next epoch; returns the stored lease; raises LeaseLost if the epoch is another."""
        stored = _stored(self._leases, mapping, lease.shard)
        if stored is None or stored.epoch != lease.epoch:
            return conflicts.taken_before(stored, lease, owner=owner)
        return _keep(self._leases, mapping, replace(stored, owner=owner, epoch=lease.epoch + 1))

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the owner and keeps the checkpoint; raises LeaseLost if owner or epoch is another."""
        stored = _stored(self._leases, mapping, lease.shard)
        if stored is None or not _held(stored, lease):
            conflicts.released_before(stored, lease)
        else:
            _keep(self._leases, mapping, replace(stored, owner=None))

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if another owner or epoch is stored, or a later position."""
        stored = _stored(self._leases, mapping, lease.shard)
        if stored is None or not _held(stored, lease) or checkpoint.position < stored.checkpoint.position:
            raise conflicts.unsaved(stored, lease, checkpoint)
        _keep(self._leases, mapping, replace(stored, checkpoint=checkpoint))

    async def move(self, mapping: MappingId, lease: Lease, position: Position) -> Lease:
        """Puts the shard at `position` without memo and owner, at the next epoch; raises LeaseLost if its epoch is another."""
        stored = _stored(self._leases, mapping, lease.shard)
        if stored is None or stored.epoch != lease.epoch:
            return conflicts.moved_before(stored, lease, position)
        moved = replace(stored, owner=None, epoch=lease.epoch + 1, checkpoint=Checkpoint(position))
        return _keep(self._leases, mapping, moved)

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row; raises LeaseLost if its epoch is another; no error if there is no row."""
        stored = _stored(self._leases, mapping, lease.shard)
        if stored is None:
            return
        if stored.epoch != lease.epoch:
            raise conflicts.lost(stored, lease)
        del self._leases[mapping][lease.shard]

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row in place of the one before."""
        self._workers[worker] = WorkerRow(worker, counter, _json_copy(facts))

    async def workers(self) -> Sequence[WorkerRow]:
        """Returns the rows of all workers, sorted by id."""
        rows = [self._workers[worker] for worker in sorted(self._workers)]
        return [replace(row, facts=_json_copy(row.facts)) for row in rows]

    async def retire(self, worker: WorkerId) -> None:
        """Removes the worker's row; no error when there is none."""
        self._workers.pop(worker, None)

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation unless there is one with its id; returns the stored one."""
        stored = self._operation(operation.operation)
        return stored_operations.copied(stored or self._keep_operation(operation))

    async def change(self, operation: Operation) -> Operation:
        """Replaces the operation of the same revision if it is not over; raises ResourceMissing or RowChanged otherwise."""
        stored = self._operation(operation.operation)
        if stored is None or stored.state.over or stored.revision != operation.revision:
            return stored_operations.copied(conflicts.changed_before(stored, operation))
        del self._open[operation.operation]
        return stored_operations.copied(self._keep_operation(conflicts.next_revision(operation)))

    async def operations(self, *, over: bool = False) -> Sequence[Operation]:
        """Returns the operations that are not over, or those that are, oldest first."""
        there = (self._over if over else self._open).values()
        found = [stored_operations.copied(each) for each in there]
        return sorted(found, key=lambda each: (each.created, each.operation))

    async def operation(self, operation: OperationId) -> Operation | None:
        """Returns the operation with this id; None if there is none."""
        stored = self._operation(operation)
        return None if stored is None else stored_operations.copied(stored)

    async def ended(self) -> Sequence[EndedOperation]:
        """Returns when each operation that is over ended, and how long it is."""
        return [stored_operations.ended_of(each) for each in self._over.values()]

    async def prune(self, operations: Sequence[OperationId]) -> None:
        """Removes operations that are over; no error when there are none."""
        for each in operations:
            self._over.pop(each, None)

    def _operation(self, operation: OperationId) -> Operation | None:
        return self._open.get(operation) or self._over.get(operation)

    def _keep_operation(self, operation: Operation) -> Operation:
        kept = stored_operations.copied(operation)
        (self._over if kept.state.over else self._open)[kept.operation] = kept
        return kept

    async def put_digest(self, worker: WorkerId, content: bytes) -> None:
        """Writes the worker's digest in place of the one before; removes it if `content` is empty."""
        if content:
            self._digests[worker] = DigestRow(worker, content)
        else:
            self._digests.pop(worker, None)

    async def digests(self) -> Sequence[DigestRow]:
        """Returns all digests, sorted by worker."""
        return [self._digests[worker] for worker in sorted(self._digests)]


type _Leases = dict[MappingId, dict[ShardId, Lease]]


def _stored(leases: _Leases, mapping: MappingId, shard: ShardId) -> Lease | None:
    return leases.get(mapping, {}).get(shard)


def _keep(leases: _Leases, mapping: MappingId, lease: Lease) -> Lease:
    leases[mapping][lease.shard] = lease
    return lease


def _without_memo(lease: Lease) -> Lease:
    return replace(lease, checkpoint=Checkpoint(lease.checkpoint.position))


def _held(stored: Lease, lease: Lease) -> bool:
    return lease.owner is not None and (stored.owner, stored.epoch) == (lease.owner, lease.epoch)


def _copy(row: MappingRow) -> MappingRow:
    """Returns a copy that shares no mutable part with `row`, as from a store outside the process."""
    return replace(row, document=_json_copy(row.document))


def _json_copy(document: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what a store outside the process would give back; the JSON encoder is several times faster than deepcopy."""
    copied: dict[str, Any] = json.loads(json.dumps(dict(document)))
    return copied


class MemorySettings(BaseModel):
    """`url` can only be memory://."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Literal["memory://"] = "memory://"


@asynccontextmanager
async def open_memory(settings: MemorySettings, env: Environment) -> AsyncGenerator[MemoryStore]:
    """Yields an empty store."""
    yield MemoryStore()


plugin = Plugin("memory", MemorySettings, open_memory, look=open_memory)
