"""Owns the store in one DynamoDB table, for workers on many machines.

Every write is one conditional call on one item, except that of a memo that does not fit into its row, and those of queued calls. If an answer is lost,
nobody knows whether the write succeeded. So each call may be sent again, and a late copy of an earlier call changes nothing.
"""

import re
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adapters.aws import clients
from adapters.stores import conflicts, url_options
from adapters.stores.dynamodb.call_rows import DynamoDbCallQueue
from adapters.stores.dynamodb.calls import Refused, Table, each
from adapters.stores.dynamodb.checkpoint_writer import HELD, CheckpointWriter, fence, without_memo
from adapters.stores.dynamodb.checks import TableProbe
from adapters.stores.dynamodb.memo_parts import (
    POINTER,
    Generation,
    Parts,
    incomplete,
    light,
    pack,
    unpack,
    unpacked,
)
from adapters.stores.dynamodb.operation_rows import OperationRows
from adapters.stores.dynamodb.table import (
    DIGESTS,
    LEASE_NAMES,
    MAPPINGS,
    ROOM_BYTES,
    WORKERS,
    Item,
    digest_item,
    digest_of,
    key,
    lease_item,
    lease_of,
    leases_of,
    mapping_of,
    mapping_values,
    place,
    ready,
    worker_item,
    worker_of,
)
from adapters.stores.stored_rows import undamaged
from poller.config.field_types import AS_WHOM, IdentityName
from poller.domain.errors import ServiceThrottled
from poller.domain.operations import Operation, OperationId
from poller.domain.records import MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, DigestRow, Lease, MappingRow, WorkerRow
from poller.plugins import Environment, Plugin

CONNECTIONS_MAX = 50
READS_MAX = 5
"""How often a row is read again because its parts were removed before they were read. Each time its memo was saved twice."""
_NEW_OR_COMPLETE = "attribute_not_exists(pk) OR " + " AND ".join(
    f"attribute_exists(#{name})" for name in ("fixed", "seeded", "document")
)
"""A damaged row must not be completed, since LATEST would then mean another time."""
_NEXT = "#revision = :revision"
_FIRST = f"{_NEXT} OR (attribute_exists(pk) AND attribute_not_exists(#revision))"
"""The condition for revision 0, which old items do not have as an attribute."""


class DynamoStore:
    """A Store and DigestStore in one table of a DynamoDB client, with a CallQueue in the same table.

    `turn` returns a larger number with each call in this process. It orders the saves of one owner at one epoch. `room` is how
    many bytes of a memo fit into an item.
    """

    def __init__(
        self,
        client: Any,
        table: str,
        *,
        call_timeout_s: float,
        turn: Callable[[], int] = time.monotonic_ns,
        room: int = ROOM_BYTES,
    ) -> None:
        self.table = table
        self._table = Table(client, table, call_timeout_s=call_timeout_s)
        self._operations = OperationRows(self._table)
        self.operation = self._operations.operation
        self.ended = self._operations.ended
        self.call_queue = DynamoDbCallQueue(self._table)
        self._parts = Parts(self._table, room)
        self._room = room
        self._turn = turn
        self._checkpoints = CheckpointWriter(self._table, self._parts, room=room, turn=turn)

    async def create(self, row: MappingRow) -> MappingRow:
        """Adds `row` unless the mapping has one already; returns the stored row."""
        at = key(MAPPINGS, row.mapping)
        try:
            kept = await self._table.update(
                at,
                change="SET "
                + ", ".join(f"#{name} = if_not_exists(#{name}, :{name})" for name in mapping_values(row)),
                condition=_NEW_OR_COMPLETE,
                values=mapping_values(row),
                returned="ALL_NEW",
            )
        except Refused as refused:
            stored = await self._table.get(at)
            if stored is None:
                raise ServiceThrottled(f"mapping {row.mapping} was removed just now") from refused
            kept = stored
        return undamaged(mapping_of(kept))

    async def update(self, row: MappingRow) -> None:
        """Replaces the row of the same revision; raises ResourceMissing if there is no row, RowChanged if its revision differs."""
        at = key(MAPPINGS, row.mapping)
        try:
            await self._table.call(
                "put_item",
                Item={**at, **mapping_values(conflicts.following(row))},
                ConditionExpression=_FIRST if row.revision == 0 else _NEXT,
                ExpressionAttributeNames={"#revision": "revision"},
                ExpressionAttributeValues={":revision": {"N": str(row.revision)}},
            )
        except Refused:
            stored = await self._table.get(at)
            conflicts.updated_before(None if stored is None else undamaged(mapping_of(stored)), row)

    async def mappings(self) -> Sequence[MappingRow]:
        """Returns all rows, sorted by id."""
        return [mapping_of(item) for item in await self._table.query(MAPPINGS)]

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping and all its leases and checkpoints; no error when there is none.

        The mapping's own row is removed last. After an error the mapping is still listed, and can be forgotten again.
        """
        rows = await self._table.query(leases_of(mapping), "pk", "sk")
        await each(self._table.call("delete_item", Key=row) for row in rows)
        await self._parts.clear(mapping)
        await self._table.call("delete_item", Key=key(MAPPINGS, mapping))

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        """Returns all leases of one mapping with their checkpoints, sorted by shard id; without `memos` all memos are empty."""
        if not memos:
            return [lease_of(row) for row in await self._table.query(leases_of(mapping), *LEASE_NAMES)]
        rows = await self._table.query(leases_of(mapping))
        heavy = await each(self._lease(mapping, row) for row in rows if not light(row))
        leases = [lease_of(row, unpacked(row)) for row in rows if light(row)] + [*filter(None, heavy)]
        return sorted(leases, key=lambda lease: lease.shard)

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet; does not change existing ones."""
        await each(self._add(mapping, lease) for lease in leases)

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at the next epoch; returns the stored lease; raises LeaseLost if the epoch is another."""
        try:
            row: Item | None = await self._table.update(
                key(leases_of(mapping), lease.shard),
                change="SET #owner = :owner, #epoch = :next REMOVE #turn",
                condition="#epoch = :epoch",
                values={**fence(owner, lease.epoch), "next": {"N": str(lease.epoch + 1)}},
                names=("owner", "epoch", "turn"),
                returned="ALL_NEW",
            )
        except Refused:
            row = await self._row(mapping, lease.shard)
        stored = None if row is None else await self._lease(mapping, row)
        return conflicts.taken_before(stored, lease, owner=owner)

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the owner and keeps the checkpoint; raises LeaseLost if owner or epoch is another."""
        try:
            await self._table.update(
                key(leases_of(mapping), lease.shard),
                change="REMOVE #owner",
                condition=HELD,
                values=fence(lease.owner, lease.epoch),
                names=("owner", "epoch"),
            )
        except Refused:
            conflicts.released_before(without_memo(await self._row(mapping, lease.shard)), lease)

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if another owner or epoch is stored, or a later position.

        Raises ServiceUnavailable for a memo that is too long.
        """
        await self._checkpoints.save(mapping, lease, checkpoint)

    async def move(self, mapping: MappingId, lease: Lease, position: Position) -> Lease:
        """Puts the shard at `position` without memo and owner, at the next epoch; raises LeaseLost if its epoch is another.

        Parts of an earlier memo stay until the next owner saves, because the row keeps its mark that there may be some.
        """
        new = {**place(position), "epoch": {"N": str(lease.epoch + 1)}}
        gone = ("owner", "turn", "memo", "memo_form", *POINTER)
        try:
            row: Item | None = await self._table.update(
                key(leases_of(mapping), lease.shard),
                change="SET "
                + ", ".join(f"#{name} = :{name}" for name in new)
                + " REMOVE "
                + ", ".join(f"#{name}" for name in gone),
                condition="#epoch = :before",
                values={**new, "before": {"N": str(lease.epoch)}},
                names=(*new, *gone),
                returned="ALL_NEW",
            )
        except Refused:
            row = await self._row(mapping, lease.shard)
        return conflicts.moved_before(without_memo(row), lease, position)

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row; raises LeaseLost if its epoch is another; no error if there is no row."""
        parts = await self._parts.keys(mapping, lease.shard)
        try:
            await self._table.call(
                "delete_item",
                Key=key(leases_of(mapping), lease.shard),
                ConditionExpression="#epoch = :epoch",
                ExpressionAttributeNames={"#epoch": "epoch"},
                ExpressionAttributeValues={":epoch": {"N": str(lease.epoch)}},
            )
        except Refused as refused:
            stored = without_memo(await self._row(mapping, lease.shard))
            if stored is not None:
                raise conflicts.lost(stored, lease) from refused
        # Only parts from before the row was removed. A new row never names them.
        await self._parts.remove(parts)

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row in place of the one before."""
        await self._table.call("put_item", Item=worker_item(WorkerRow(worker, counter, facts)))

    async def workers(self) -> Sequence[WorkerRow]:
        """Returns the rows of all workers, sorted by id."""
        return [worker_of(item) for item in await self._table.query(WORKERS)]

    async def retire(self, worker: WorkerId) -> None:
        """Removes the worker's row; no error when there is none."""
        await self._table.call("delete_item", Key=key(WORKERS, worker))

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation unless there is one with its id; returns the stored one."""
        return await self._operations.add(operation)

    async def change(self, operation: Operation) -> Operation:
        """Replaces the operation of the same revision if it is not over; raises ResourceMissing or RowChanged otherwise."""
        return await self._operations.change(operation)

    async def operations(self, *, over: bool = False) -> Sequence[Operation]:
        """Returns the operations that are not over, or those that are, oldest first."""
        return await (self._operations.over() if over else self._operations.open_ones())

    async def prune(self, operations: Sequence[OperationId]) -> None:
        """Removes operations that are over; no error when there are none."""
        await self._operations.prune(operations)

    async def put_digest(self, worker: WorkerId, content: bytes) -> None:
        """Writes the worker's digest in place of the one before; removes it if `content` is empty."""
        if content:
            await self._table.call("put_item", Item=digest_item(DigestRow(worker, content)))
        else:
            await self._table.call("delete_item", Key=key(DIGESTS, worker))

    async def digests(self) -> Sequence[DigestRow]:
        """Returns all digests, sorted by worker."""
        return [digest_of(item) for item in await self._table.query(DIGESTS)]

    async def _add(self, mapping: MappingId, lease: Lease) -> None:
        packed = await pack(lease.checkpoint.memo, lease.shard)
        if len(packed.content) <= self._room:
            await self._put_new(lease_item(mapping, lease, packed.inline()))
            return
        generation = Generation(lease.epoch, self._turn())
        count = await self._parts.write(mapping, lease.shard, generation, packed.content)
        memo = {**packed.pointer(generation, count), "parted": {"BOOL": True}}
        if not await self._put_new(lease_item(mapping, lease, memo)):
            await self._parts.discard(mapping, lease.shard, generation)

    async def _put_new(self, item: Item) -> bool:
        try:
            await self._table.call("put_item", Item=item, ConditionExpression="attribute_not_exists(pk)")
        except Refused:
            return False
        return True

    async def _row(self, mapping: MappingId, shard: ShardId) -> Item | None:
        return await self._table.get(key(leases_of(mapping), shard))

    async def _lease(self, mapping: MappingId, row: Item) -> Lease | None:
        """Returns the lease with its memo, of a later row if the memo was saved meanwhile; None if the row was removed."""
        for _ in range(READS_MAX):
            if Generation.of(row) is None:
                return lease_of(row, await unpack(row))
            content = await self._parts.read(mapping, row)
            if content is not None:
                return lease_of(row, await unpack(row, content))
            later = await self._row(mapping, ShardId(row["sk"]["S"]))
            if later is None:
                return None
            row = later
        raise incomplete(row)


def _names_a_table(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "dynamodb" or parts.path or not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", parts.netloc):
        raise ValueError("write dynamodb://TABLE, a table's name of 3 to 255 letters, digits, _ . or -")
    return url


class DynamoSettings(BaseModel):
    """The table. The other keys may also be options of the URL. `region` None: the daemon's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_names_a_table)]
    create: bool = False
    region: str | None = None
    identity: IdentityName | None = AS_WHOM
    call_timeout_s: float = Field(default=5.0, gt=0, le=60)

    _spread = model_validator(mode="before")(url_options.spread)

    @property
    def table(self) -> str:
        """The table's name."""
        return urlsplit(self.url).netloc


@asynccontextmanager
async def open_dynamodb(settings: DynamoSettings, env: Environment) -> AsyncGenerator[DynamoStore]:
    """Yields the store; makes the table if `create` is set; raises what `ready` raises."""
    client = await clients.client(
        env.acting_as(settings.identity),
        "dynamodb",
        settings.region,
        purpose="store",
        connections_max=CONNECTIONS_MAX,
    )
    await ready(client, settings.table, create=settings.create)
    yield DynamoStore(client, settings.table, call_timeout_s=settings.call_timeout_s)


@asynccontextmanager
async def look_dynamodb(settings: DynamoSettings, env: Environment) -> AsyncGenerator[TableProbe]:
    """Yields a check of the table, which is not made."""
    env = env.acting_as(settings.identity)
    client = await clients.client(env, "dynamodb", settings.region, purpose="store")
    store = DynamoStore(client, settings.table, call_timeout_s=settings.call_timeout_s)
    yield TableProbe(client, settings.table, create=settings.create, read_leases=store.leases)


plugin = Plugin("dynamodb", DynamoSettings, open_dynamodb, look_dynamodb)
