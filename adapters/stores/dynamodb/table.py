"""Owns the DynamoDB table: its keys, how rows become items and back, and how it is made and checked when it is opened.

One table holds everything. `pk` is `mappings`, `workers`, `digests` or `leases#MAPPING`; `sk` is the id of the mapping,
worker or shard. So each listing is one Query, and no Scan or index is needed. Large memos have a partition of their own, and
operations have two.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from typing import Any

from adapters.aws.clients import mapped
from adapters.stores import stored_rows
from poller.domain.errors import InvalidConfiguration, PortError, ResourceMissing, ServiceUnavailable
from poller.domain.records import MappingId, Position
from poller.domain.rows import DigestRow, Lease, MappingRow, WorkerRow

ITEM_BYTES_MAX = 400 * 1024
"""DynamoDB's own limit for names and values of one item."""
OVERHEAD_BYTES = 4 * 1024
"""Reserved for everything in an item except its memo, document or facts."""
ROOM_BYTES = ITEM_BYTES_MAX - OVERHEAD_BYTES
"""How long a memo, document or facts may be."""
TABLE_WAITS_S = (0.05, 0.1, 0.2, 0.5, *[1.0] * 60)
"""Waits between checks of a table that is being made, which takes AWS 5 to 20 seconds."""
KEYS = [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}]
ATTRIBUTES = [{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")]

MAPPINGS = "mappings"
WORKERS = "workers"
DIGESTS = "digests"
LEASE_NAMES = ("sk", "parents", "epoch", "owner", "position", "position_key")
"""The attributes of a lease without its memo."""

type Item = dict[str, Any]
"""An item or a part of one in the form of DynamoDB's API: name to {type: value}."""


class _InUse(PortError):
    """Another process is making the table."""


def leases_of(mapping: MappingId) -> str:
    """Returns the partition of a mapping's leases."""
    return f"leases#{mapping}"


def key(partition: str, name: str) -> Item:
    """Returns the primary key of one row."""
    return {"pk": {"S": partition}, "sk": {"S": name}}


def check_room(content: bytes, what: str) -> None:
    """Raises ServiceUnavailable for content that does not fit into an item, since a later one may be smaller."""
    if len(content) > ROOM_BYTES:
        raise ServiceUnavailable(
            f"{what} has {len(content)} bytes; a DynamoDB item has room for {ROOM_BYTES}"
        )


def _json(content: Mapping[str, Any], what: str) -> Item:
    text = json.dumps(dict(content))
    check_room(text.encode(), what)
    return {"S": text}


def place(position: Position) -> Item:
    """Returns the attributes of a position."""
    return {"position": {"S": position.encode()}, "position_key": {"S": position.sort_key()}}


def lease_item(mapping: MappingId, lease: Lease, memo: Item) -> Item:
    """Makes the item of a lease with the attributes of its memo; `owner` is absent if nobody has the lease."""
    owner = {"owner": {"S": lease.owner}} if lease.owner else {}
    return {
        **key(leases_of(mapping), lease.shard),
        "parents": {"L": [{"S": parent} for parent in lease.parents]},
        "epoch": {"N": str(lease.epoch)},
        **owner,
        **place(lease.checkpoint.position),
        **memo,
    }


def lease_of(item: Item, memo: bytes = b"") -> Lease:
    """Makes a lease of its item, with the memo that the caller has unpacked."""
    return stored_rows.lease(plain_values(item, "shard", LEASE_NAMES), memo)


def mapping_values(row: MappingRow) -> Item:
    """Returns the attributes of a mapping row, without its key."""
    document = _json(row.document, f"the document of mapping {row.mapping}")
    return {
        "fixed": {"N": repr(row.fixed)},
        "seeded": {"BOOL": row.seeded},
        "document": document,
        "revision": {"N": str(row.revision)},
    }


def mapping_of(item: Item) -> MappingRow:
    """Makes a mapping row of its item. Old items have no revision, which counts as 0."""
    names = ("sk", "fixed", "seeded", "document", "revision")
    return stored_rows.mapping_row({"revision": 0, **plain_values(item, "mapping", names)})


def worker_item(row: WorkerRow) -> Item:
    """Makes the item of a worker row."""
    facts = _json(row.facts, f"what worker {row.worker} says of itself")
    return {**key(WORKERS, row.worker), "counter": {"N": str(row.counter)}, "facts": facts}


def worker_of(item: Item) -> WorkerRow:
    """Makes a worker row of its item."""
    return stored_rows.worker_row(plain_values(item, "worker", ("sk", "counter", "facts")))


def digest_item(row: DigestRow) -> Item:
    """Makes the item of a worker's digest."""
    return {**key(DIGESTS, row.worker), "content": {"B": row.content}}


def digest_of(item: Item) -> DigestRow:
    """Makes a worker's digest of its item."""
    return stored_rows.digest_row(_value(item["sk"]), item.get("content", {}).get("B"))


def plain_values(item: Item, named: str, names: Sequence[str]) -> dict[str, Any]:
    """Returns attributes of an item as plain values. The sort key gets the name `named`."""
    found = {name: _value(item[name]) for name in names if name in item}
    found[named] = found.pop("sk", None)
    return found


def _value(attribute: Any) -> Any:
    """Returns the plain value of an attribute, or the attribute itself if its type is not used in rows."""
    match attribute:
        case {"S": str(text)}:
            return text
        case {"N": str(digits)}:
            return _number(digits)
        case {"BOOL": bool(truth)}:
            return truth
        case {"L": list(members)}:
            return [_value(each) for each in members]
        case _:
            return attribute


def _number(digits: str) -> int | float | str:
    try:
        return int(digits)
    except ValueError:
        try:
            return float(digits)
        except ValueError:
            return digits


async def ready(client: Any, table: str, *, create: bool) -> None:
    """Waits until the table can be used; makes it first if it is missing and `create` is set.

    Raises InvalidConfiguration for a missing table or one with other keys, ServiceUnavailable if it is not active in time,
    and what `adapters.aws.clients.mapped` raises.
    """
    found = await _described(client, table)
    if found is None:
        await _create(client, table, allowed=create)
    for wait_s in TABLE_WAITS_S:
        if found is not None and found["TableStatus"] in ("ACTIVE", "UPDATING"):
            check_keys(found, table)
            return
        await asyncio.sleep(wait_s)
        found = await _described(client, table)
    raise ServiceUnavailable(f"DynamoDB table {table} is not active after {sum(TABLE_WAITS_S):.0f} s")


async def _described(client: Any, table: str) -> Item | None:
    try:
        with mapped("dynamodb DescribeTable"):
            described: Item = (await client.describe_table(TableName=table))["Table"]
    except ResourceMissing:
        return None
    return described


async def _create(client: Any, table: str, *, allowed: bool) -> None:
    if not allowed:
        problem = (
            f"store: there is no DynamoDB table {table}; make it, or write dynamodb://{table}?create=true"
        )
        raise InvalidConfiguration([problem])
    try:
        with mapped("dynamodb CreateTable", {"ResourceInUseException": _InUse}):
            await client.create_table(
                TableName=table,
                KeySchema=KEYS,
                AttributeDefinitions=ATTRIBUTES,
                BillingMode="PAY_PER_REQUEST",
            )
    except _InUse:
        return


def check_keys(described: Item, table: str) -> None:
    """Raises InvalidConfiguration for a table with other keys."""
    kinds = {each["AttributeName"]: each["AttributeType"] for each in described["AttributeDefinitions"]}
    found = [
        (each["AttributeName"], each["KeyType"], kinds[each["AttributeName"]])
        for each in described["KeySchema"]
    ]
    if found != [("pk", "HASH", "S"), ("sk", "RANGE", "S")]:
        problem = (
            f"store: DynamoDB table {table} has the keys {found}; it needs pk (HASH, S) and sk (RANGE, S)"
        )
        raise InvalidConfiguration([problem])
