"""Owns the store in one DynamoDB table, for workers on many machines.

Every write is one conditional call on one item. An answer that was lost leaves a write undecided, so each call may be
sent again, and a late copy of an earlier one changes nothing.
"""

import asyncio
import re
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from itertools import batched
from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from adapters import aws
from adapters.stores import fencing, urls
from adapters.stores.dynamodb_table import (
    MAPPINGS,
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
from adapters.stores.probing import TableProbe
from poller.errors import PortError, ResourceMissing, ServiceThrottled, ServiceUnavailable
from poller.plugins import Environment, Plugin
from poller.records import Checkpoint, Lease, MappingId, MappingRow, ShardId, WorkerId, WorkerRow

CALLS_MAX = 16
"""Calls at once while a mapping's leases are seeded or removed."""
PAGES_MAX = 10_000
"""Pages of one listing; a page has up to 1 MB."""
CONNECTIONS_MAX = 50
_HELD = "#owner = :owner AND #epoch = :epoch"


class _Refused(PortError):
    """The condition of a write did not hold."""


_SPECIAL = {"ConditionalCheckFailedException": _Refused, "TransactionConflictException": ServiceThrottled}


class DynamoStore:
    """A Store and WorkerStore over a DynamoDB client and the name of a table.

    `turn` gives ever larger numbers within the process. It orders the saves of one owner at one epoch, so that a save
    which the network held back cannot replace the memo of a later one.
    """

    def __init__(
        self, client: Any, table: str, *, call_timeout_s: float, turn: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self._client = client
        self.table = table
        self._call_timeout_s = call_timeout_s
        self._turn = turn

    async def create(self, row: MappingRow) -> MappingRow:
        """Keeps `row` unless the mapping is known; returns the row that is kept."""
        kept = await self._update(
            key(MAPPINGS, row.mapping),
            change="SET "
            + ", ".join(f"#{name} = if_not_exists(#{name}, :{name})" for name in mapping_values(row)),
            values=mapping_values(row),
            returned="ALL_NEW",
        )
        return mapping_of(kept)

    async def update(self, row: MappingRow) -> None:
        """Replaces the row; raises ResourceMissing when there is none."""
        item = {**key(MAPPINGS, row.mapping), **mapping_values(row)}
        try:
            await self._call("put_item", Item=item, ConditionExpression="attribute_exists(pk)")
        except _Refused as refused:
            raise ResourceMissing(f"mapping {row.mapping} is not in the store") from refused

    async def mappings(self) -> Sequence[MappingRow]:
        """All rows, by id."""
        return [mapping_of(item) for item in await self._query(MAPPINGS)]

    async def forget(self, mapping: MappingId) -> None:
        """Removes the mapping and all its leases and checkpoints; no error when there is none.

        The mapping's own row goes last: what an error leaves is still listed and can be forgotten again.
        """
        keys = [
            key(leases_of(mapping), item["sk"]["S"]) for item in await self._query(leases_of(mapping), "sk")
        ]
        await self._each(self._call("delete_item", Key=each) for each in keys)
        await self._call("delete_item", Key=key(MAPPINGS, mapping))

    async def leases(self, mapping: MappingId) -> Sequence[Lease]:
        """All leases of one mapping with their checkpoints, by shard id."""
        return [lease_of(item) for item in await self._query(leases_of(mapping))]

    async def seed(self, mapping: MappingId, leases: Sequence[Lease]) -> None:
        """Adds leases for shards that have none yet; leaves existing ones as they are."""
        await self._each(self._add(lease_item(mapping, lease)) for lease in leases)

    async def take(self, mapping: MappingId, lease: Lease, *, owner: WorkerId) -> Lease:
        """Makes `owner` the owner at the next epoch and returns the lease as it is stored; raises LeaseLost."""
        try:
            stored = await self._update(
                key(leases_of(mapping), lease.shard),
                change="SET #owner = :owner, #epoch = :next REMOVE #turn",
                condition="#epoch = :epoch",
                values={**_fence(owner, lease.epoch), "next": {"N": str(lease.epoch + 1)}},
                names=("owner", "epoch", "turn"),
                returned="ALL_NEW",
            )
        except _Refused:
            return fencing.taken_before(await self._stored(mapping, lease.shard), lease, owner=owner)
        return lease_of(stored)

    async def release(self, mapping: MappingId, lease: Lease) -> None:
        """Clears the owner and keeps the checkpoint; raises LeaseLost."""
        try:
            await self._update(
                key(leases_of(mapping), lease.shard),
                change="REMOVE #owner",
                condition=_HELD,
                values=_fence(lease.owner, lease.epoch),
                names=("owner", "epoch"),
            )
        except _Refused:
            fencing.released_before(await self._stored(mapping, lease.shard), lease)

    async def save(self, mapping: MappingId, lease: Lease, checkpoint: Checkpoint) -> None:
        """Writes `checkpoint`; raises LeaseLost if another owner or epoch is stored, or a later position.

        Raises ServiceUnavailable for a memo that does not fit into an item of 400 KB.
        """
        new = {**place(checkpoint, lease.shard), "turn": {"N": str(self._turn())}}
        free = "(attribute_not_exists(#turn) OR #turn < :turn)"
        try:
            await self._update(
                key(leases_of(mapping), lease.shard),
                change="SET " + ", ".join(f"#{name} = :{name}" for name in new),
                condition=f"{_HELD} AND #position_key <= :position_key AND {free}",
                values={**new, **_fence(lease.owner, lease.epoch)},
            )
        except _Refused:
            _superseded(await self._stored(mapping, lease.shard), lease, checkpoint)

    async def drop(self, mapping: MappingId, lease: Lease) -> None:
        """Removes the shard's row; raises LeaseLost if its epoch is another; no error when there is none."""
        try:
            await self._call(
                "delete_item",
                Key=key(leases_of(mapping), lease.shard),
                ConditionExpression="#epoch = :epoch",
                ExpressionAttributeNames={"#epoch": "epoch"},
                ExpressionAttributeValues={":epoch": {"N": str(lease.epoch)}},
            )
        except _Refused as refused:
            stored = await self._stored(mapping, lease.shard)
            if stored is not None:
                raise fencing.lost(stored, lease) from refused

    async def beat(self, worker: WorkerId, counter: int, *, facts: Mapping[str, Any]) -> None:
        """Writes the worker's row over the one before."""
        await self._call("put_item", Item=worker_item(WorkerRow(worker, counter, facts)))

    async def workers(self) -> Sequence[WorkerRow]:
        """All workers' rows, by id."""
        return [worker_of(item) for item in await self._query(WORKERS)]

    async def retire(self, worker: WorkerId) -> None:
        """Removes the worker's row; no error when there is none."""
        await self._call("delete_item", Key=key(WORKERS, worker))

    async def _add(self, item: Item) -> None:
        try:
            await self._call("put_item", Item=item, ConditionExpression="attribute_not_exists(pk)")
        except _Refused:
            return

    async def _stored(self, mapping: MappingId, shard: ShardId) -> Lease | None:
        answer = await self._call("get_item", Key=key(leases_of(mapping), shard), ConsistentRead=True)
        return lease_of(answer["Item"]) if "Item" in answer else None

    async def _update(
        self,
        row: Item,
        *,
        change: str,
        values: Item,
        condition: str | None = None,
        names: Iterable[str] = (),
        returned: str = "NONE",
    ) -> Item:
        """Changes one item; `names` stand as #name, by default those of all values."""
        answer = await self._call(
            "update_item",
            Key=row,
            UpdateExpression=change,
            ExpressionAttributeNames={f"#{name}": name for name in names or values},
            ExpressionAttributeValues={f":{name}": value for name, value in values.items()},
            ReturnValues=returned,
            **({"ConditionExpression": condition} if condition else {}),
        )
        changed: Item = answer.get("Attributes", {})
        return changed

    async def _query(self, partition: str, *names: str) -> list[Item]:
        """All items of one partition as they are now, or only the named attributes of them."""
        wanted = {"ProjectionExpression": ", ".join(names)} if names else {}
        start: Item = {}
        found: list[Item] = []
        for _ in range(PAGES_MAX):
            page = await self._call(
                "query",
                KeyConditionExpression="pk = :pk",
                ExpressionAttributeValues={":pk": {"S": partition}},
                ConsistentRead=True,
                **wanted,
                **start,
            )
            found += page["Items"]
            if not page.get("LastEvaluatedKey"):
                return found
            start = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
        raise ServiceUnavailable(
            f"{partition} has more than {PAGES_MAX} pages in DynamoDB table {self.table}"
        )

    async def _call(self, operation: str, **arguments: Any) -> Any:
        with aws.mapped(f"dynamodb {operation}", _SPECIAL):
            async with asyncio.timeout(self._call_timeout_s):
                return await getattr(self._client, operation)(TableName=self.table, **arguments)

    async def _each(self, calls: Iterable[Coroutine[Any, Any, Any]]) -> None:
        """Awaits all calls, some at a time; the first trouble is raised when its neighbours are done."""
        for some in batched(calls, CALLS_MAX, strict=False):
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(_trouble(call), name="store call") for call in some]
            for trouble in filter(None, (task.result() for task in tasks)):
                raise trouble


async def _trouble(call: Coroutine[Any, Any, Any]) -> PortError | None:
    try:
        await call
    except PortError as trouble:
        return trouble
    return None


def _fence(owner: WorkerId | None, epoch: int) -> Item:
    """Values for the fence; the empty text is nobody's name, so that a lease without owner passes no condition."""
    return {"owner": {"S": owner or ""}, "epoch": {"N": str(epoch)}}


def _superseded(stored: Lease | None, lease: Lease, checkpoint: Checkpoint) -> None:
    """Returns if a later save by the same owner stands at this position; raises LeaseLost otherwise."""
    unlike = stored is None or (stored.owner, stored.epoch) != (lease.owner, lease.epoch)
    if unlike or stored is None or stored.checkpoint.position != checkpoint.position:
        raise fencing.unsaved(stored, lease, checkpoint)


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

    _spread = model_validator(mode="before")(urls.spread)

    @property
    def table(self) -> str:
        """The table's name."""
        return urlsplit(self.url).netloc


@asynccontextmanager
async def open_dynamodb(settings: DynamoSettings, env: Environment) -> AsyncGenerator[DynamoStore]:
    """The store in the table, which is made if asked; raises InvalidConfiguration and port errors as `ready` does."""
    client = await aws.client(
        env, "dynamodb", settings.region, purpose="store", connections_max=CONNECTIONS_MAX
    )
    await ready(client, settings.table, create=settings.create)
    yield DynamoStore(client, settings.table, call_timeout_s=settings.call_timeout_s)


@asynccontextmanager
async def look_dynamodb(settings: DynamoSettings, env: Environment) -> AsyncGenerator[TableProbe]:
    """A look at the table, which is not made."""
    client = await aws.client(env, "dynamodb", settings.region, purpose="store")
    yield TableProbe(client, settings.table, create=settings.create)


plugin = Plugin("dynamodb", DynamoSettings, open_dynamodb, look_dynamodb)
