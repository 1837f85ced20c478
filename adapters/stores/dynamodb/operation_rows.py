"""Owns the operations in the DynamoDB table.

Every operation has one row under `operations`, from its acceptance until it is pruned. All conditions of writes are about this
row. Workers read the operations that are not over all the time, and there may be a thousand others. So each operation that is
not over has a second row under `open-operations`, its mark. Open operations are found by their marks.

A mark has the revision that its row has, or a later one that somebody is about to write. So a row that was read at this revision is
not read again. Rows that do not change are read again now and then all the same, a few at a time: people edit rows by hand.

No write may lose an operation when its process ends in the middle:

- `add` writes the mark first, then the row. A mark without a row is nothing; it is removed when it is a day old.
- `change` raises the revision of the mark, then writes the row. If the operation is over with that, it removes the mark. A mark that is left is removed by the
  next worker that reads the open operations: what is over never becomes open again.
"""

import time
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from adapters.stores import conflicts
from adapters.stores.dynamodb.calls import Refused, Table, each
from adapters.stores.dynamodb.table import Item, check_room, key, plain_values
from adapters.stores.stored_operations import OperationReader, content, ended_row, parsed
from adapters.stores.stored_rows import Values
from poller.domain.errors import PortError, ServiceThrottled
from poller.domain.operations import EndedOperation, Operation, OperationId

OPERATIONS = "operations"
OPEN = "open-operations"
PLAIN_BYTES_MAX = 4 * 1024
"""A longer content is compressed. The ids of 10,000 records, 600 KB, become 200 KB or less."""
CONTENT_BYTES_MAX = 8 * 1024 * 1024
"""The longest content that is unpacked."""
LEVEL = 1
READ_AGAIN_S, READ_AGAIN_MAX = 60.0, 32
"""Rows that have not changed are read again after so long, and so many at once: a thousand of them within about a minute."""
MARK_S_MAX = 86_400.0
"""A mark without a row is removed when it is so old. The process that wrote it ended before it wrote the row."""


@dataclass(frozen=True, slots=True)
class _ReadRow:
    """The values of a row, and when it was read."""

    values: Values
    read: float


class OperationRows:
    """The operations in a table. `now` returns epoch seconds."""

    def __init__(self, table: Table, *, now: Callable[[], float] = time.time) -> None:
        self._table = table
        self._now = now
        self._reader = OperationReader()
        self._rows: dict[str, _ReadRow] = {}
        """The rows of operations that are not over, as they were read last, by their ids."""

    async def add(self, operation: Operation) -> Operation:
        """Stores an operation unless there is one with its id; returns the stored one."""
        item = item_of(operation)
        if not operation.state.over:
            await self._table.update(
                key(OPEN, operation.operation),
                change="SET #marked = :marked, #revision = if_not_exists(#revision, :revision)",
                values={"marked": {"N": str(int(self._now()))}, "revision": item["revision"]},
            )
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
        item = item_of(conflicts.next_revision(operation))
        with suppress(Refused):
            await self._table.update(
                key(OPEN, operation.operation),
                change="SET #revision = :revision",
                values={"revision": item["revision"]},
                condition="attribute_exists(pk) AND (attribute_not_exists(#revision) OR #revision < :revision)",
            )
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

    async def operation(self, operation: OperationId) -> Operation | None:
        """Returns the operation with this id; None if there is none."""
        return await self._stored(operation)

    async def over(self) -> Sequence[Operation]:
        """Returns the operations that are over, oldest first."""
        rows = await self._table.query(OPERATIONS)
        return self._reader.listed(_values(row) for row in rows if _is_over(row))

    async def ended(self) -> Sequence[EndedOperation]:
        """Returns when each operation that is over ended, and how long it is."""
        rows = await self._table.query(OPERATIONS, "sk", "over", "ended", "bytes")
        over = (plain_values(row, "operation", ("sk", "ended", "bytes")) for row in rows if _is_over(row))
        found = (ended_row(row["operation"], row.get("ended"), row.get("bytes")) for row in over)
        return [each for each in found if each is not None]

    async def open_ones(self) -> Sequence[Operation]:
        """Returns the operations that are not over, oldest first. What was read stays read if the call is cancelled."""
        marks = {mark["sk"]["S"]: mark for mark in await self._table.query(OPEN)}
        now = self._now()
        for gone in self._rows.keys() - marks.keys():
            del self._rows[gone]
        rows = {
            name: each
            for name, each in self._rows.items()
            if each.values["revision"] == _revision(marks[name])
        }
        old = sorted((each.read, name) for name, each in rows.items() if now - each.read >= READ_AGAIN_S)
        for _, name in old[:READ_AGAIN_MAX]:
            del rows[name]
        wanted = [name for name in marks if name not in rows]
        read = await each(self._marked(marks[name], now) for name in wanted)
        found = [row.values for row in (*rows.values(), *read) if row is not None]
        return self._reader.open_ones(found)

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

    async def _marked(self, mark: Item, now: float) -> "_ReadRow | None":
        """Reads the row of a mark; None if the operation is over or was never stored. Removes a mark that is not needed."""
        name = mark["sk"]["S"]
        row = await self._table.get(key(OPERATIONS, name))
        if row is not None and not _is_over(row):
            self._rows[name] = found = _ReadRow(_values(row), now)
            return found
        self._rows.pop(name, None)
        if row is not None or self._is_old(mark):
            with suppress(PortError):
                await self._remove_seen(mark)
        return None

    def _is_old(self, mark: Item) -> bool:
        marked = plain_values(mark, "operation", ("sk", "marked")).get("marked")
        return isinstance(marked, int) and self._now() - marked >= MARK_S_MAX

    async def _remove_seen(self, mark: Item) -> None:
        """Removes a mark, unless somebody adds an operation with its id just now and has written the mark again."""
        marked = mark.get("marked")
        condition: Item = {
            "ConditionExpression": "#marked = :seen",
            "ExpressionAttributeNames": {"#marked": "marked"},
            "ExpressionAttributeValues": {":seen": marked},
        }
        await self._table.call("delete_item", Key=key(OPEN, mark["sk"]["S"]), **(condition if marked else {}))

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


def item_of(operation: Operation) -> Item:
    """Makes the row of an operation; raises ServiceUnavailable if it does not fit into an item."""
    text = content(operation).encode()
    packed = zlib.compress(text, LEVEL) if len(text) > PLAIN_BYTES_MAX else b""
    kept: Item = {"packed": {"B": packed}} if packed else {"content": {"S": text.decode()}}
    check_room(packed or text, f"operation {operation.operation}")
    ended = operation.created if operation.ended is None else operation.ended
    return {
        **key(OPERATIONS, operation.operation),
        "mapping": {"S": operation.mapping},
        "action": {"S": operation.request.action},
        "state": {"S": operation.state},
        "over": {"BOOL": operation.state.over},
        "revision": {"N": str(operation.revision)},
        "bytes": {"N": str(len(packed or text))},
        **({"ended": {"N": repr(float(ended))}} if operation.state.over else {}),
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


def _revision(mark: Item) -> Any:
    return plain_values(mark, "operation", ("sk", "revision")).get("revision")


def _is_over(row: Item) -> bool:
    return bool(row.get("over", {}).get("BOOL", False))
