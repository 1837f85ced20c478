"""Owns the SQL statements on operations. Those that are not over have an index of their own, since they are read all the time."""

import sqlite3
from collections.abc import Sequence

from adapters.stores import conflicts
from adapters.stores.sqlite.connection import rows
from adapters.stores.stored_operations import ended_row, parsed
from adapters.stores.stored_rows import Values
from poller.domain.operations import EndedOperation, Operation, OperationId

_NAMES = ("operation", "revision", "content")
_SELECT = f"SELECT {', '.join(_NAMES)} FROM operations"
_OPEN = f"{_SELECT} WHERE over = 0 ORDER BY created, operation"
_OVER = f"{_SELECT} WHERE over = 1 ORDER BY created, operation"
_ADD = "INSERT INTO operations (operation, over, created, revision, content) VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_CHANGE = """
    UPDATE operations SET over = ?, revision = revision + 1, content = ? WHERE operation = ? AND revision = ? AND over = 0
    RETURNING operation
"""
_ENDED = """
    SELECT operation, CASE WHEN json_valid(content) THEN coalesce(json_extract(content, '$.ended'), created) END, length(content)
    FROM operations WHERE over = 1
"""
_PRUNE = "DELETE FROM operations WHERE operation = ? AND over = 1"


def list_operations(db: sqlite3.Connection, *, over: bool) -> list[Values]:
    """Returns the rows of the operations that are not over, or of those that are."""
    return [_values(row) for row in rows(db, _OVER if over else _OPEN)]


def add(db: sqlite3.Connection, *, operation: Operation, text: str) -> Operation:
    """Adds an operation unless there is one with its id; returns the stored one. `text` is its content."""
    created, over = operation.created, operation.state.over
    rows(db, _ADD, (operation.operation, over, created, operation.revision, text))
    stored = _stored(db, operation.operation)
    assert stored is not None, "the row exists: the statement above has added it if it was missing"
    return stored


def change(db: sqlite3.Connection, *, operation: Operation, text: str) -> Operation:
    """Replaces the operation of the same revision; raises ResourceMissing or RowChanged. `text` is its content."""
    values = (operation.state.over, text, operation.operation, operation.revision)
    if not rows(db, _CHANGE, values):
        return conflicts.changed_before(_stored(db, operation.operation), operation)
    return parsed({"operation": operation.operation, "revision": operation.revision + 1, "content": text})


def find(db: sqlite3.Connection, *, operation: OperationId) -> Operation | None:
    """Returns the operation with this id; None if there is none; raises ServiceUnavailable if it cannot be read."""
    return _stored(db, operation)


def list_ended(db: sqlite3.Connection) -> list[EndedOperation]:
    """Returns when each operation that is over ended, and how long it is."""
    found = (ended_row(*row) for row in rows(db, _ENDED))
    return [each for each in found if each is not None]


def prune(db: sqlite3.Connection, *, operations: Sequence[OperationId]) -> None:
    """Removes operations that are over."""
    db.executemany(_PRUNE, [(each,) for each in operations])


def _stored(db: sqlite3.Connection, operation: OperationId) -> Operation | None:
    found = rows(db, f"{_SELECT} WHERE operation = ?", (operation,))
    return parsed(_values(found[0])) if found else None


def _values(row: Sequence[object]) -> Values:
    return dict(zip(_NAMES, row, strict=True))
