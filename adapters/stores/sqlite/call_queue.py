"""Owns the queue of asynchronous calls in a SQLite file.

The condition of a write is part of its statement. A claim is one transaction: it looks for free calls by the index of those that
are due, and no other process can write between its look and its write.
"""

import json
import sqlite3
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

from adapters.stores import conflicts
from adapters.stores.call_backlogs import CallShare, backlog_of, call_share
from adapters.stores.sqlite.connection import Database, rows
from adapters.stores.sqlite.group_commit import Writer
from adapters.stores.sqlite.schema import mapped
from adapters.stores.stored_calls import NAMES, CallReader, UnreadableCall, answer_of, checked, parsed
from adapters.stores.stored_rows import is_text
from poller.domain.functions.queued_calls import CallBacklog, CallId, CallPlace, QueuedCall
from poller.domain.records import Epoch, WorkerId

_COLUMNS = ", ".join(NAMES)
_PUT = f"INSERT INTO calls ({_COLUMNS}, payload, answer) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING"
_BACKLOGS = """
    SELECT function, owner, count(*), min(accepted), min(due) FROM calls GROUP BY function, owner ORDER BY function
"""
_DUE = f"""
    SELECT {_COLUMNS}, payload, answer FROM calls
    WHERE function = ? AND due <= ?
    AND (owner IS NULL OR owner = ? OR owner IN (SELECT value FROM json_each(?)))
    AND call NOT IN (SELECT value FROM json_each(?))
    ORDER BY due, call
"""
_CLAIM = "UPDATE calls SET owner = ?, takeovers = ?, revision = ? WHERE call = ? AND revision = ?"
_REPLACE = """
    UPDATE calls SET accepted = ?, due = ?, owner = ?, takeovers = ?, content = ?, answer = ?, revision = revision + 1
    WHERE call = ? AND function = ? AND revision = ?
    RETURNING call
"""
_STORED = f"SELECT {_COLUMNS}, x'', answer FROM calls WHERE call = ? AND function = ?"
_REMOVE = "DELETE FROM calls WHERE call = ? AND function = ? AND revision = ? RETURNING call"
_REVISION = "SELECT revision FROM calls WHERE call = ? AND function = ?"
_LIST = f"""
    SELECT {_COLUMNS}, x'', x'' FROM calls WHERE function = ? AND (due, call) > (?, ?) ORDER BY due, call LIMIT ?
"""
_ONE = f"SELECT {_COLUMNS}, payload, answer FROM calls WHERE call = ? AND function = ?"
_FIRST = CallPlace(Epoch(-1.0), CallId(""))


@dataclass(frozen=True, slots=True)
class _Found:
    """Calls, and what could not be read beside them."""

    calls: list[QueuedCall]
    unreadable: list[UnreadableCall]


class SqliteCallQueue:
    """A CallQueue in the file of a SqliteStore."""

    def __init__(self, writer: Writer, reader: Database) -> None:
        self._writer = writer
        self._reader = reader
        self._told = CallReader()

    async def put(self, call: QueuedCall) -> None:
        """Stores a new call unless there is one with its id. Calls that are put together share a transaction."""
        content = checked(call)
        await self._writer.write(partial(rows, sql=_PUT, parameters=_values(call, content)))

    async def backlogs(self) -> Sequence[CallBacklog]:
        """Returns the functions that have calls, by name."""
        return await self._read(_backlogs)

    async def claim(
        self,
        function: str,
        *,
        now: Epoch,
        owner: WorkerId,
        gone: Collection[WorkerId],
        held: Collection[CallId],
        calls_max: int,
    ) -> Sequence[QueuedCall]:
        """Makes `owner` the owner of free calls that are due, the longest due first; returns them as they are stored now."""
        if calls_max <= 0:
            return []
        wanted = (function, float(now), owner, json.dumps(list(gone)), json.dumps(list(held)))
        work = partial(_claim, wanted=wanted, owner=owner, calls_max=calls_max)
        return self._readable(await self._writer.write(work))

    async def replace(self, call: QueuedCall) -> QueuedCall:
        """Replaces the call at its revision, without its payload; raises ResourceMissing or RowChanged otherwise."""
        return await self._writer.write(partial(_replace, call=call, content=checked(call)))

    async def remove(self, call: QueuedCall) -> None:
        """Removes the call; raises RowChanged if its revision is another; no error if there is none."""
        await self._writer.write(partial(_remove, call=call))

    async def calls(
        self, function: str, *, calls_max: int, after: CallPlace | None = None
    ) -> Sequence[QueuedCall]:
        """Returns the calls of a function behind a place without payloads and answers, the longest due first."""
        work = partial(_list, function=function, calls_max=calls_max, after=after or _FIRST)
        return self._readable(await self._read(work))

    async def find(self, function: str, call: CallId) -> QueuedCall | None:
        """Returns one call; None if there is none; raises UnreadableCall if it is damaged."""
        return await self._read(partial(_find, function=function, call=call))

    def _readable(self, found: _Found) -> list[QueuedCall]:
        for each in found.unreadable:
            self._told.tell(each)
        return found.calls

    async def _read[T](self, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            return await self._reader.run(work)
        except sqlite3.Error as error:
            raise mapped(error, self._reader.path) from error


def _values(call: QueuedCall, content: str) -> tuple[Any, ...]:
    accepted, due = float(call.accepted), float(call.due)
    names = (call.call, call.function, accepted, due, call.owner, call.takeovers, call.revision)
    return (*names, content, call.payload, answer_of(call))


def _backlogs(db: sqlite3.Connection) -> list[CallBacklog]:
    found: dict[str, list[CallShare]] = {}
    for function, *values in rows(db, _BACKLOGS):
        found.setdefault(function, []).append(call_share(*values))
    return [backlog_of(function, shares) for function, shares in found.items() if is_text(function)]


def _claim(db: sqlite3.Connection, *, wanted: tuple[Any, ...], owner: WorkerId, calls_max: int) -> _Found:
    found = _Found([], [])
    with closing(db.execute(_DUE, wanted)) as due:
        for row in due:
            _add(found, row)
            if len(found.calls) == calls_max:
                break
    claimed = [each.claimed(owner) for each in found.calls]
    db.executemany(
        _CLAIM, [(owner, each.takeovers, each.revision, each.call, each.revision - 1) for each in claimed]
    )
    return _Found(claimed, found.unreadable)


def _replace(db: sqlite3.Connection, *, call: QueuedCall, content: str) -> QueuedCall:
    new = (float(call.accepted), float(call.due), call.owner, call.takeovers, content, answer_of(call))
    if rows(db, _REPLACE, (*new, call.call, call.function, call.revision)):
        return conflicts.next_call(call)
    found = rows(db, _STORED, (call.call, call.function))
    return conflicts.replaced_before(_parsed(found[0]) if found else None, call)


def _remove(db: sqlite3.Connection, *, call: QueuedCall) -> None:
    if rows(db, _REMOVE, (call.call, call.function, call.revision)):
        return
    for (revision,) in rows(db, _REVISION, (call.call, call.function)):
        raise conflicts.changed_since(revision, call)


def _find(db: sqlite3.Connection, *, function: str, call: CallId) -> QueuedCall | None:
    found = rows(db, _ONE, (call, function))
    return _parsed(found[0]) if found else None


def _list(db: sqlite3.Connection, *, function: str, calls_max: int, after: CallPlace) -> _Found:
    found = _Found([], [])
    for row in rows(db, _LIST, (function, float(after.due), after.call, max(calls_max, 0))):
        _add(found, row)
    return found


def _add(found: _Found, row: tuple[Any, ...]) -> None:
    try:
        found.calls.append(_parsed(row))
    except UnreadableCall as unreadable:
        found.unreadable.append(unreadable)


def _parsed(row: tuple[Any, ...]) -> QueuedCall:
    *values, payload, answer = row
    return parsed(dict(zip(NAMES, values, strict=True)), payload=payload, answer=answer)
