"""Owns the store in one DynamoDB table, for workers on many machines.

Every write is one conditional call on one item, but that of a memo which its row has no room for. An answer that was
lost leaves a write undecided, so each call may be sent again, and a late copy of an earlier one changes nothing.
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
from adapters.stores.dynamodb.calls import Refused, Table, each
from adapters.stores.dynamodb.checks import TableProbe
from adapters.stores.dynamodb.memo_parts import (
    POINTER,
    Generation,
    Packed,
    Parts,
    incomplete,
    light,
    pack,
    unpack,
    unpacked,
)
from adapters.stores.dynamodb.table import (
    LEASE_NAMES,
    MAPPINGS,
    ROOM_BYTES,
    WORKERS,
    Item,
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
from adapters.stores.stored_rows import sound
from poller.domain.errors import ServiceThrottled
from poller.domain.records import MappingId, Position, ShardId, WorkerId
from poller.domain.rows import Checkpoint, Lease, MappingRow, WorkerRow
from poller.plugins import Environment, Plugin

CONNECTIONS_MAX = 50
LOOKS_MAX = 5
"""Looks at a row whose parts are gone before they are read: each means that its memo was saved twice meanwhile."""
_HELD = "#owner = :owner AND #epoch = :epoch"
_FORWARD = f"{_HELD} AND #position_key <= :position_key AND (attribute_not_exists(#turn) OR #turn < :turn)"
_WHOLE = "attribute_not_exists(#parted)"
_NEW_OR_COMPLETE = "attribute_not_exists(pk) OR " + " AND ".join(
    f"attribute_exists(#{name})" for name in ("fixed", "seeded", "document")
)
"""A row that somebody has damaged must not be completed: its LATEST would be another moment."""
_NEXT = "#revision = :revision"
_FIRST = f"{_NEXT} OR (attribute_exists(pk) AND attribute_not_exists(#revision))"
"""For revision 0, which items of before there were revisions do not name."""


class DynamoStore:
    """A Store and WorkerStore over a DynamoDB client and the name of a table.

    `turn` gives ever larger numbers within the process. It orders the saves of one owner at one epoch, so that a save
    which the network held back cannot replace the memo of a later one. `room` is how many bytes of a memo one item takes.
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
        self._parts = Parts(self._table, room)
        self._room = room
        self._turn = turn

    async def create(self, row: MappingRow) -> MappingRow:
        """Keeps `row` unless the mapping is known; returns the row that is kept."""
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
        return sound(mapping_of(kept))

    async def update(self, row: MappingRow) -> None:
        """Replaces the row at its revision; raises ResourceMissing when there is none, RowChanged at another revision."""
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
            conflicts.updated_before(None if stored is None else sound(mapping_of(stored)), row)

    async def mappings(self) -> Sequence[MappingRow]:
        """All rows, by id."""
        return [mapping_of(item) for item in await self._table.query(MAPPINGS)]

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping and all its leases and checkpoints; no error when there is none.

        The mapping's own row goes last: what an error leaves is still listed and can be forgotten again.
        """
        rows = await self._table.query(leases_of(mapping), "pk", "sk")
        await each(self._table.call("delete_item", Key=row) for row in rows)
        await self._parts.clear(mapping)
        await self._table.call("delete_item", Key=key(MAPPINGS, mapping))

    async def leases(self, mapping: MappingId, *, memos: bool = True) -> Sequence[Lease]:
        """All leases of one mapping with their checkpoints, by shard id; with `memos` off all memos are empty."""
        if not memos:
            return [lease_of(row) for row in await self._table.query(leases_of(mapping), *LEASE_NAMES)]
        rows = await self._table.query(leases_of(mapping))
        heavy = await each(self._lease(mapping, row) for row in rows if not light(row))
        leases = [lease_of(row, unpacked(row)) for row in rows if light(row)] + [*filter(None, heavy)]
        return sorted(leases, key=lambda lease: lease.shard)

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet; leaves existing ones as they are."""
        await each(self._add(mapping, lease) for lease in leases)

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at the next epoch and returns the lease as it is stored; raises LeaseLost."""
        try:
            row: Item | None = await self._table.update(
                key(leases_of(mapping), lease.shard),
                change="SET #owner = :owner, #epoch = :next REMOVE #turn",
                condition="#epoch = :epoch",
                values={**_fence(owner, lease.epoch), "next": {"N": str(lease.epoch + 1)}},
                names=("owner", "epoch", "turn"),
                returned="ALL_NEW",
            )
        except Refused:
            row = await self._row(mapping, lease.shard)
        stored = None if row is None else await self._lease(mapping, row)
        return conflicts.taken_before(stored, lease, owner=owner)

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Clears the owner and keeps the checkpoint; raises LeaseLost."""
        try:
            await self._table.update(
                key(leases_of(mapping), lease.shard),
                change="REMOVE #owner",
                condition=_HELD,
                values=_fence(lease.owner, lease.epoch),
                names=("owner", "epoch"),
            )
        except Refused:
            conflicts.released_before(_bare(await self._row(mapping, lease.shard)), lease)

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if another owner or epoch is stored, or a later position.

        Raises ServiceUnavailable for a memo that is too long.
        """
        packed = await pack(checkpoint.memo, lease.shard)
        try:
            if len(packed.content) > self._room:
                await self._save_parts(mapping, lease, checkpoint, packed=packed)
            elif not await self._save_whole(mapping, lease, checkpoint, packed=packed):
                await self._save_last(mapping, lease, checkpoint, packed=packed)
        except Refused:
            _superseded(_bare(await self._row(mapping, lease.shard)), lease, checkpoint)

    async def _save_whole(
        self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint, *, packed: Packed
    ) -> bool:
        """Writes row and memo in one call; False if the shard may have parts of memos, which then have to go."""
        new = {**place(checkpoint.position), **packed.inline()}
        try:
            await self._move(mapping, lease, new, to=checkpoint.position, turn=self._turn(), whole=True)
        except Refused:
            row = await self._row(mapping, lease.shard)
            if row is not None and "parted" in row:
                return False
            raise
        return True

    async def _save_last(
        self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint, *, packed: Packed
    ) -> None:
        """Writes row and memo, and removes the parts of earlier memos and then the mark that there may be some."""
        turn = self._turn()
        new = {**place(checkpoint.position), **packed.inline()}
        await self._move(mapping, lease, new, to=checkpoint.position, turn=turn, without=POINTER)
        await self._parts.sweep(mapping, lease.shard, below=Generation(lease.epoch, turn))
        try:
            await self._table.update(
                key(leases_of(mapping), lease.shard),
                change="REMOVE #parted",
                condition=f"{_HELD} AND #turn = :turn",
                values={**_fence(lease.owner, lease.epoch), "turn": {"N": str(turn)}},
                names=("owner", "epoch", "turn", "parted"),
            )
        except Refused:
            return  # What was to be saved is saved; whoever saves since then finds the mark.

    async def _save_parts(
        self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint, *, packed: Packed
    ) -> None:
        """Marks the row, removes what was left over, writes the parts, and then the row that names them.

        The mark's turn shuts out earlier saves that are still under way: what the row names now stays until this save
        is done, and everything older can go. It stays until the next save, too, for those who read it just now.
        """
        mark, to, turn = {"parted": {"BOOL": True}}, checkpoint.position, self._turn()
        row = await self._move(mapping, lease, mark, to=to, turn=turn, returned="ALL_NEW")
        left_over = Generation(lease.epoch, turn)
        await self._parts.sweep(mapping, lease.shard, below=left_over, keep=Generation.of(row))
        generation = Generation(lease.epoch, self._turn())
        count = await self._parts.write(mapping, lease.shard, generation, packed.content)
        new = {**place(to), **packed.pointer(generation, count)}
        try:
            await self._move(mapping, lease, new, to=to, turn=generation.turn, without=("memo",))
        except Refused:
            row = await self._row(mapping, lease.shard) or {}
            if Generation.of(row) != generation:
                await self._parts.discard(mapping, lease.shard, generation)
            raise

    async def _move(
        self,
        mapping: MappingId,
        lease: Lease,
        new: Item,
        *,
        to: Position,
        turn: int,
        without: Sequence[str] = (),
        whole: bool = False,
        returned: str = "NONE",
    ) -> Item:
        """Sets the attributes `new` and the turn of a row that `lease` holds and that is not ahead of `to` or `turn`.

        With `whole` only if the shard has no parts of memos.
        """
        new = {**new, "turn": {"N": str(turn)}}
        used = {**new, "position_key": {"S": to.sort_key()}, **_fence(lease.owner, lease.epoch)}
        removed = " REMOVE " + ", ".join(f"#{name}" for name in without) if without else ""
        return await self._table.update(
            key(leases_of(mapping), lease.shard),
            change="SET " + ", ".join(f"#{name} = :{name}" for name in new) + removed,
            condition=f"{_FORWARD} AND {_WHOLE}" if whole else _FORWARD,
            values=used,
            names={*used, *without, *(("parted",) if whole else ())},
            returned=returned,
        )

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row; raises LeaseLost if its epoch is another; no error when there is none."""
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
            stored = _bare(await self._row(mapping, lease.shard))
            if stored is not None:
                raise conflicts.lost(stored, lease) from refused
        # Those that were there before the row went: a row that is made anew never names them.
        await self._parts.remove(parts)

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row over the one before."""
        await self._table.call("put_item", Item=worker_item(WorkerRow(worker, counter, facts)))

    async def workers(self) -> Sequence[WorkerRow]:
        """All workers' rows, by id."""
        return [worker_of(item) for item in await self._table.query(WORKERS)]

    async def retire(self, worker: WorkerId) -> None:
        """Removes the worker's row; no error when there is none."""
        await self._table.call("delete_item", Key=key(WORKERS, worker))

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
        """The lease with its memo put together; that of a later row if it moved on meanwhile, None if it is gone."""
        for _ in range(LOOKS_MAX):
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


def _fence(owner: WorkerId | None, epoch: int) -> Item:
    """Values for the fence; the empty text is nobody's name, so that a lease without owner passes no condition."""
    return {"owner": {"S": owner or ""}, "epoch": {"N": str(epoch)}}


def _bare(row: Item | None) -> Lease | None:
    """The lease without its memo, to see who has it and where it stands."""
    return None if row is None else lease_of(row)


def _superseded(stored: Lease | None, lease: Lease, checkpoint: Checkpoint) -> None:
    """Returns if a later save by the same owner stands at this position; raises LeaseLost otherwise."""
    unlike = stored is None or (stored.owner, stored.epoch) != (lease.owner, lease.epoch)
    if unlike or stored is None or stored.checkpoint.position != checkpoint.position:
        raise conflicts.unsaved(stored, lease, checkpoint)


def _names_a_table(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "dynamodb" or parts.path or not re.fullmatch(r"[A-Za-z0-9_.-]{3,255}", parts.netloc):
        raise ValueError("write dynamodb://TABLE, a table's name of 3 to 255 letters, digits, _ . or -")
    return url


class DynamoSettings(BaseModel):
    """Which table; the other keys may stand in the URL. `region` None: the daemon's own."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    url: Annotated[str, AfterValidator(_names_a_table)]
    create: bool = False
    region: str | None = None
    call_timeout_s: float = Field(default=5.0, gt=0, le=60)

    _spread = model_validator(mode="before")(url_options.spread)

    @property
    def table(self) -> str:
        """The table's name."""
        return urlsplit(self.url).netloc


@asynccontextmanager
async def open_dynamodb(settings: DynamoSettings, env: Environment) -> AsyncGenerator[DynamoStore]:
    """The store in the table, which is made if asked; raises InvalidConfiguration and port errors as `ready` does."""
    client = await clients.client(
        env, "dynamodb", settings.region, purpose="store", connections_max=CONNECTIONS_MAX
    )
    await ready(client, settings.table, create=settings.create)
    yield DynamoStore(client, settings.table, call_timeout_s=settings.call_timeout_s)


@asynccontextmanager
async def look_dynamodb(settings: DynamoSettings, env: Environment) -> AsyncGenerator[TableProbe]:
    """A look at the table, which is not made."""
    client = await clients.client(env, "dynamodb", settings.region, purpose="store")
    yield TableProbe(client, settings.table, create=settings.create)


plugin = Plugin("dynamodb", DynamoSettings, open_dynamodb, look_dynamodb)
