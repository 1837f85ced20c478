"""Owns the SQL statements on operations. Those that are not over have an index of their own, since they are read all the time."""

from collections.abc import Sequence
from typing import Any

from adapters.stores import conflicts
from adapters.stores.postgresql.connections import Connections
from adapters.stores.postgresql.texts import storable
from adapters.stores.stored_operations import content, ended_row, parsed
from adapters.stores.stored_rows import Values
from poller.domain.operations import EndedOperation, Operation, OperationId

_NAMES = ("operation", "revision", "content")
_COLUMNS = ", ".join(_NAMES)
_ADD = f"""
    INSERT INTO {{schema}}.operations (operation, over, created, ended, revision, content) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (operation) DO UPDATE SET operation = excluded.operation
    RETURNING {", ".join(f"operations.{name}" for name in _NAMES)}
"""
"""Writes the id over itself if there is such an operation, so that the stored row comes back in any case."""
_CHANGE = """
    UPDATE {schema}.operations SET over = %s, ended = %s, revision = revision + 1, content = %s
    WHERE operation = %s AND revision = %s AND NOT over RETURNING operation
"""
_LIST = f"SELECT {_COLUMNS} FROM {{schema}}.operations WHERE {{which}} ORDER BY created, operation"
_ENDED = (
    "SELECT operation, coalesce(ended, created), octet_length(content) FROM {schema}.operations WHERE over"
)
_PRUNE = "DELETE FROM {schema}.operations WHERE operation = ANY(%s::text[]) AND over"


class OperationStatements:
    """The statements on operations of one schema."""

    def __init__(self, connections: Connections, schema: str) -> None:
        self._connections = connections
        self._schema = schema

    async def listed(self, *, over: bool) -> list[Values]:
        """Returns the rows of the operations that are not over, or of those that are."""
        statement = _LIST.format(schema=self._schema, which="over" if over else "NOT over")
        return [_values(row) for row in await self._connections.run(statement)]

    async def add(self, operation: Operation) -> Operation:
        """Adds an operation unless there is one with its id; returns the stored one."""
        times = (float(operation.created), _time(operation.ended))
        values = (storable(operation.operation), operation.state.over, *times, operation.revision)
        found = await self._run(_ADD, (*values, content(operation)))
        return parsed(_values(found[0]))

    async def change(self, operation: Operation) -> Operation:
        """Replaces the operation of the same revision; raises ResourceMissing or RowChanged."""
        text = content(operation)
        new = (operation.state.over, _time(operation.ended), text)
        if not await self._run(_CHANGE, (*new, storable(operation.operation), operation.revision)):
            return conflicts.changed_before(await self.find(operation.operation), operation)
        return parsed({"operation": operation.operation, "revision": operation.revision + 1, "content": text})

    async def find(self, operation: OperationId) -> Operation | None:
        """Returns the operation with this id; None if there is none; raises ServiceUnavailable if it cannot be read."""
        statement = f"SELECT {_COLUMNS} FROM {{schema}}.operations WHERE operation = %s"
        found = await self._run(statement, (storable(operation),))
        return parsed(_values(found[0])) if found else None

    async def ended(self) -> list[EndedOperation]:
        """Returns when each operation that is over ended, and how long it is."""
        found = [ended_row(*row) for row in await self._run(_ENDED)]
        return [each for each in found if each is not None]

    async def prune(self, operations: Sequence[OperationId]) -> None:
        """Removes operations that are over."""
        await self._run(_PRUNE, ([storable(each) for each in operations],))

    async def _run(self, statement: str, parameters: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        return await self._connections.run(statement.format(schema=self._schema), parameters)


def _time(moment: float | None) -> float | None:
    return None if moment is None else float(moment)


def _values(row: Sequence[object]) -> Values:
    return dict(zip(_NAMES, row, strict=True))
