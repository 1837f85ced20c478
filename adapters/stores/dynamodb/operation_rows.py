"""Owns the operations in the DynamoDB table.

Every operation has one row under `operations`, from its acceptance until it is pruned. All conditions of writes are about this
row. Workers read the operations that are not over all the time, and there may be a thousand others. So each operation that is
not over has a second, empty row under `open-operations`, its mark. Open operations are found by their marks, and then read one by one.

No write may lose an operation when its process ends in the middle:

- `add` writes the mark first, then the row. A mark without a row is nothing; it is removed when it is a day old.
- `change` writes the row first. If the operation is over with that, it removes the mark. A mark that is left is removed by the
  next worker that reads the open operations: what is over never becomes open again.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from adapters.stores import conflicts
from adapters.stores.dynamodb.calls import Refused, Table, each
from adapters.stores.dynamodb.table import Item, check_room, key, plain_values
from adapters.stores.stored_operations import OperationReader, content, parsed
from adapters.stores.stored_rows import Values
from poller.domain.errors import PortError, ServiceThrottled
from poller.domain.operations import Operation, OperationId

OPERATIONS = "operations"
OPEN = "open-operations"
PLAIN_BYTES_MAX = 4 * 1024
"""A longer content is compressed. The ids of 10,000 records, 600 KB, become 200 KB or less."""
CONTENT_BYTES_MAX = 8 * 1024 * 1024
"""The longest content that is unpacked."""
LEVEL = 1
MARK_S_MAX = 86_400.0
"""A mark without a row is removed when it is so old. The process that wrote it ended before it wrote the row."""


class OperationRows:
    """The operations in a table. `now` returns epoch seconds."""

    def __init__(self, table: Table, *, now: Callable[[], float] = time.time) -> None:
        self._table = table
        self._now = now
        self._reader = OperationReader()

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation unless there is one with its id; returns the stored one."""
        item, mark = _item(operation), key(OPEN, operation.operation)
        if not operation.state.over:
            await self._table.call("put_item", Item={**mark, "marked": {"N": str(int(self._now()))}})
        try:
            await self._table.call("put_item", Item=item, ConditionExpression="attribute_not_exists(pk)")
        except Refused as refused:
            stored = await self._stored(operation.operation)
            if stored is None:
                raise ServiceThrottled(f"operation {operation.operation} was removed just now") from refused
        else:
            stored = parsed(_values(item))
        return await self._unmarked(stored)

    async def change(self, operation: Operation) -> Operation:
        """Replaces the operation of the same revision if it is not over; raises ResourceMissing or RowChanged otherwise."""
        item = _item(conflicts.next_revision(operation))
        try:
            await self._table.call(
                "put_item",
                Item=item,
                ConditionExpression="#revision = :revision AND #over = :no",
                ExpressionAttributeNames={"#revision": "revision", "#over": "over"},
                ExpressionAttributeValues={
                    ":revision": {"N": str(operation.revision)},
                    ":no": {"BOOL": False},
                },
            )
        except Refused:
            stored = conflicts.changed_before(await self._stored(operation.operation), operation)
        else:
            stored = parsed(_values(item))
        return await self._unmarked(stored)

    async def operations(self, *, over: bool) -> Sequence[Operation]:
        """Returns the operations that are not over, or those that are, oldest first."""
        if over:
            rows = await self._table.query(OPERATIONS)
            return self._reader.listed(_values(row) for row in rows if _is_over(row))
        marks = await self._table.query(OPEN)
        found = await each(self._marked(mark) for mark in marks)
        return self._reader.listed(_values(row) for row in found if row is not None)

    async def prune(self, operations: Sequence[OperationId]) -> None:
        """Removes operations that are over, with marks that were left; no error when there are none."""
        await each(self._remove(operation) for operation in operations)

    async def _remove(self, operation: OperationId) -> None:
        with suppress(Refused):
            await self._table.call(
                "delete_item",
                Key=key(OPERATIONS, operation),
                ConditionExpression="attribute_not_exists(pk) OR #over = :yes",
                ExpressionAttributeNames={"#over": "over"},
                ExpressionAttributeValues={":yes": {"BOOL": True}},
            )

    async def _marked(self, mark: Item) -> Item | None:
        """Returns the row of a mark; None if the operation is over or was never stored. Removes a mark that is not needed."""
        name = mark["sk"]["S"]
        row = await self._table.get(key(OPERATIONS, name))
        if row is not None and not _is_over(row):
            return row
        with suppress(PortError):
            if row is not None:
                await self._unmark(name)
            elif self._is_old(mark):
                await self._remove_old(mark)
        return None

    def _is_old(self, mark: Item) -> bool:
        marked = plain_values(mark, "operation", ("sk", "marked")).get("marked")
        return isinstance(marked, int) and self._now() - marked >= MARK_S_MAX

    async def _remove_old(self, mark: Item) -> None:
        """Removes a mark, unless somebody adds the operation just now and has written the mark again."""
        await self._table.call(
            "delete_item",
            Key=key(OPEN, mark["sk"]["S"]),
            ConditionExpression="#marked = :seen",
            ExpressionAttributeNames={"#marked": "marked"},
            ExpressionAttributeValues={":seen": mark["marked"]},
        )

    async def _unmarked(self, operation: Operation) -> Operation:
        """Removes the mark of an operation that is over; returns the operation."""
        if operation.state.over:
            await self._unmark(operation.operation)
        return operation

    async def _unmark(self, name: str) -> None:
        await self._table.call("delete_item", Key=key(OPEN, name))

    async def _stored(self, operation: OperationId) -> Operation | None:
        row = await self._table.get(key(OPERATIONS, operation))
        return None if row is None else parsed(_values(row))


def _item(operation: Operation) -> Item:
    """Makes the row of an operation; raises ServiceUnavailable if it does not fit into an item."""
    text = content(operation).encode()
    packed = zlib.compress(text, LEVEL) if len(text) > PLAIN_BYTES_MAX else b""
    kept: Item = {"packed": {"B": packed}} if packed else {"content": {"S": text.decode()}}
    check_room(packed or text, f"operation {operation.operation}")
    return {
        **key(OPERATIONS, operation.operation),
        "mapping": {"S": operation.mapping},
        "action": {"S": operation.request.action},
        "state": {"S": operation.state},
        "over": {"BOOL": operation.state.over},
        "revision": {"N": str(operation.revision)},
        **kept,
    }


def _values(row: Item) -> Values:
    """Returns the attributes that the content is read from."""
    found: dict[str, Any] = plain_values(row, "operation", ("sk", "revision", "content"))
    if "packed" in row:
        found["content"] = _unpacked(row["packed"])
    return found


def _unpacked(attribute: Any) -> str | None:
    """Returns the content; None, which cannot be read as one, for anything but a compressed text of bounded length."""
    inflater = zlib.decompressobj()
    try:
        text = inflater.decompress(attribute["B"], CONTENT_BYTES_MAX)
        return text.decode() if inflater.eof else None
    except (zlib.error, LookupError, TypeError, ValueError):
        return None


def _is_over(row: Item) -> bool:
    return bool(row.get("over", {}).get("BOOL", False))
